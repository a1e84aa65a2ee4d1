//! Checks the server: its version, its role in replication, its timeouts and its limits.

use super::{Report, Server, SessionLimit};
use crate::model::blueprint::Blueprint;
use crate::model::ident::plain;
use crate::model::lock_estimate::{LockEstimate, MOST_HELD_MS};
use crate::model::number;
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

/// The duration from which a warning is reported, in milliseconds: users notice a pause of this length.
const LONG_HELD_MS: u64 = 500;

/// Reports how long the swap and the rollback will hold their locks, and whether the server's lock table suffices.
pub(super) fn locks(report: &mut Report, b: &Blueprint, server: &Server) {
    let name = b.table.name.plain();
    let estimate = LockEstimate::of(b, server.version);
    let (needed, all) = (estimate.entries(), server.lock_table.entries());
    let held = number::duration(std::time::Duration::from_millis(estimate.held_ms));
    let fewer = "create fewer partitions with a longer interval (`every`), or drop foreign keys that reference the table";
    report.note(
        "locks",
        &name,
        format!(
            "the swap and the rollback each lock the table for about {held} and need about {} of {} entries of the server's lock table",
            number::count(needed),
            number::count(all)
        ),
    );
    if estimate.held_ms >= u64::from(MOST_HELD_MS) {
        report.error(
            "locks_held_too_long",
            &name,
            format!(
                "the swap would hold its locks for about {held}, and would be canceled after {}",
                number::duration(std::time::Duration::from_millis(MOST_HELD_MS.into()))
            ),
            fewer,
        );
    } else if estimate.held_ms >= LONG_HELD_MS {
        report.warning(
            "locks_held_long",
            &name,
            format!("the swap and the rollback each hold their locks for about {held}: all statements on the table wait"),
            fewer,
        );
    }
    // Other sessions need entries too.
    let setting = server.lock_table.setting_for(needed);
    let raise = format!(
        "set max_locks_per_transaction to at least {setting} (now {}), and restart the server; or {fewer}",
        server.lock_table.per_transaction
    );
    let what = if estimate.swap > all * 9 / 10 { "swap" } else { "rollback" };
    let message = format!(
        "the {what} would need about {} entries of the server's lock table, which has {} for all sessions",
        number::count(if what == "swap" { estimate.swap } else { estimate.rollback }),
        number::count(all)
    );
    if needed > all * 9 / 10 {
        report.error("lock_table_full", &name, message, raise);
    } else if needed > all / 2 {
        report.warning("lock_table_small", &name, message, raise);
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
