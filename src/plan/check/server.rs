//! Checks the server: its version, its role in replication, its timeouts and its limits.

use super::{Report, Server, SessionLimit};
use crate::model::ident::plain;
use crate::plan::Plan;

/// The oldest server that is supported, as `server_version_num`.
pub const OLDEST_SERVER: i32 = 140_000;

/// The sessions of a job in addition to those of its workers: one for the lease, one for the phases, one for the
/// throttling signals, and one for index builds and the change log.
const SESSIONS: i64 = 4;

pub(super) fn check(report: &mut Report, plan: &Plan, server: &Server) {
    let object = "server";
    if server.version < OLDEST_SERVER {
        let (major, minor) = (server.version / 10_000, server.version % 10_000);
        report.error(
            "server_too_old",
            object,
            format!("the server is PostgreSQL {major}.{minor}; pgstrata requires PostgreSQL 14 or later"),
            "upgrade the server first, for example with pg_upgrade",
        );
    }
    if server.in_recovery {
        report.error(
            "standby",
            object,
            "the server is a standby, which cannot be written to".to_owned(),
            "connect to the primary; if the connection string lists several hosts, add \
             target_session_attrs=read-write",
        );
    }
    let lock_timeout_ms = plan.lock_timeout().as_millis();
    if lock_timeout_ms >= u128::from(server.deadlock_timeout_ms.unsigned_abs()) {
        let deadlock_ms = server.deadlock_timeout_ms;
        report.error(
            "lock_timeout_too_long",
            "swap.lock_timeout",
            format!(
                "lock_timeout is {lock_timeout_ms} ms, and the server's deadlock_timeout is {deadlock_ms} \
                 ms: the swap must give up before the server checks for deadlocks"
            ),
            format!(
                "set lock_timeout below {deadlock_ms} ms under [swap], such as \"{} ms\"",
                deadlock_ms / 2
            ),
        );
    }
    sessions(report, plan, server);
    if !server.event_triggers.is_empty() {
        report.warning(
            "event_triggers",
            server.event_triggers.join(", "),
            "event triggers are enabled and may fire on statements of the job".to_owned(),
            "make sure that they neither reject nor change the statements that `pgstrata sql` prints",
        );
    }
}

/// Checks that the job can open the sessions that it needs. For the server, this is only a warning, because sessions
/// can end before the job starts.
fn sessions(report: &mut Report, plan: &Plan, server: &Server) {
    let workers = plan.workers().fixed().and_then(|n| i64::try_from(n).ok()).unwrap_or(1);
    let needed = SESSIONS + workers;
    for SessionLimit { of, name, most, used } in &server.session_limits {
        if most - used >= needed {
            continue;
        }
        let message = |what: &str| {
            format!("{what} {most} sessions, of which {used} are in use; the job needs {needed}")
        };
        let least = used + needed;
        if of == "server" {
            let message = message("the server allows");
            let hint = "close some sessions, raise max_connections, or run the job later";
            report.warning("connection_limit", name, message, hint);
        } else {
            let name = plain(name);
            let message = message(&format!("{of} {name} has a limit of"));
            report.error(
                "connection_limit",
                &name,
                message,
                format!("alter {of} {name} connection limit {least}"),
            );
        }
    }
}
