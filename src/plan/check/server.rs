//! The server itself: its version, its part in replication, its timeouts.

use super::{Report, Server};
use crate::plan::Plan;

/// The oldest server that is supported, as `server_version_num`.
pub const OLDEST_SERVER: i32 = 140_000;

pub(super) fn check(report: &mut Report, plan: &Plan, server: &Server) {
    let object = "server";
    if server.version < OLDEST_SERVER {
        let (major, minor) = (server.version / 10_000, server.version % 10_000);
        report.error(
            "server_too_old",
            object,
            format!("the server is PostgreSQL {major}.{minor}, pgstrata needs 14 or later"),
            "upgrade the server, for instance with pg_upgrade",
        );
    }
    if server.in_recovery {
        report.error(
            "standby",
            object,
            "the server is a standby, which cannot be written to".to_owned(),
            "connect to the primary; with several hosts, add target_session_attrs=read-write",
        );
    }
    let lock_timeout_ms = plan.lock_timeout().as_millis();
    if lock_timeout_ms >= u128::from(server.deadlock_timeout_ms.unsigned_abs()) {
        let deadlock_ms = server.deadlock_timeout_ms;
        report.error(
            "lock_timeout_too_long",
            "swap.lock_timeout",
            format!(
                "lock_timeout is {lock_timeout_ms} ms, the server's deadlock_timeout is {deadlock_ms} ms: \
                 the swap must give up before the server looks for deadlocks"
            ),
            format!(
                "set lock_timeout below {deadlock_ms} ms under [swap], such as \"{} ms\"",
                deadlock_ms / 2
            ),
        );
    }
    if !server.event_triggers.is_empty() {
        report.warning(
            "event_triggers",
            server.event_triggers.join(", "),
            "event triggers are in force, and may fire on what pgstrata creates, alters and drops".to_owned(),
            "see to it that they let its statements pass: `pgstrata sql` prints them",
        );
    }
}
