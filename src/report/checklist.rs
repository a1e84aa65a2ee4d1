//! The checklist of `check`, as text of at most 100 columns, as long as names are short.

use std::time::Duration;

use super::paint::{Paint, harmless};
use crate::model::checklist::{
    BlockingSession, Checklist, ConnectedStandby, EarlierJob, LongRunning, SlotState,
};
use crate::model::number;

/// The number of sessions, slots or jobs that are listed; the others are counted.
const LISTED: usize = 5;

/// Each topic on a line of its own, or with a line for each session, standby or job.
pub(super) fn text(list: &Checklist, paint: Paint) -> String {
    let mut lines = vec![paint.strong("checklist")];
    let size = |bytes: Option<u64>| bytes.map_or("size unknown".to_owned(), number::bytes);
    lines.push(item("database", &format!("{}, {}", harmless(&list.database), size(list.database_bytes))));
    let bytes = list.table_bytes.map_or("size unknown".to_owned(), |bytes| {
        format!("{} with indexes and TOAST", number::bytes(bytes))
    });
    lines.push(item("table", &format!("{}, {bytes}", harmless(&list.table))));
    lines.push(item("free disk", &free_disk(list)));
    let reserved = list.connections_reserved;
    lines.push(item(
        "connections",
        &format!(
            "{} used, {} allowed, {reserved} of them reserved",
            number::count(list.connections_used),
            number::count(list.connections_allowed)
        ),
    ));
    group(&mut lines, "open for over a minute", &list.long_running, long_running);
    group(&mut lines, "blockers", &list.blockers, blocker);
    group(&mut lines, "standbys", &list.standbys, standby);
    group(&mut lines, "replication slots", &list.slots, slot);
    let archive = if list.archive_failing { ", and the last attempt to archive failed" } else { "" };
    lines.push(item("WAL archive", &format!("archive_mode is {}{archive}", harmless(&list.archive_mode))));
    lines.push(item("oldest transaction ID", &oldest_xid(list)));
    group(&mut lines, "earlier jobs", &list.earlier_jobs, earlier_job);
    lines.push(item("check by hand", "make sure that there is a backup, and that it can be restored"));
    if !list.sees_sessions {
        lines.push(item(
            "",
            "transactions and blockers of other roles; to see them here: grant pg_read_all_stats",
        ));
    }
    lines.join("\n")
}

fn item(name: &str, value: &str) -> String {
    format!("  {name:<23} {value}").trim_end().to_owned()
}

/// The number of entries, followed by a line for each of the first; `none` if there are none.
fn group<T>(lines: &mut Vec<String>, name: &str, all: &[T], line: impl Fn(&T) -> String) {
    if all.is_empty() {
        return lines.push(item(name, "none"));
    }
    lines.push(item(name, &number::count(all.len() as u64)));
    lines.extend(all.iter().take(LISTED).map(|one| format!("    {}", line(one))));
    if all.len() > LISTED {
        lines.push(format!("    and {} more", number::count((all.len() - LISTED) as u64)));
    }
}

fn free_disk(list: &Checklist) -> String {
    let place = list.directory.as_deref().map_or("the server's data directory".into(), harmless);
    match list.free_bytes {
        Some(free) => format!("{} in {place}", number::bytes(free)),
        None => format!("not known to PostgreSQL; check {place}"),
    }
}

fn oldest_xid(list: &Checklist) -> String {
    let snapshot = list
        .oldest_snapshot_age
        .map_or(String::new(), |age| format!("; oldest snapshot: age {}", number::count(age)));
    format!(
        "age {}, forced vacuum at {}{snapshot}",
        number::count(list.oldest_xid_age),
        number::count(list.freeze_max_age)
    )
}

fn age(seconds: f64) -> String {
    number::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// `pid 4711, user app, idle in transaction`.
fn session(pid: i32, user: Option<&str>, state: Option<&str>) -> String {
    let pid = if pid == 0 { String::new() } else { format!("pid {pid}, ") };
    let user = harmless(user.unwrap_or("unknown"));
    let state = state.map_or(String::new(), |state| format!(", {}", harmless(state)));
    format!("{pid}user {user}{state}")
}

fn long_running(it: &LongRunning) -> String {
    let transaction = it.transaction_s.map_or(String::new(), |s| format!(", transaction {}", age(s)));
    let query = it.query_s.map_or(String::new(), |s| format!(", query {}", age(s)));
    let locks = if it.locks_table { ", holds a lock on the table" } else { "" };
    format!("{}{transaction}{query}{locks}", session(it.pid, it.user.as_deref(), it.state.as_deref()))
}

fn blocker(it: &BlockingSession) -> String {
    let transaction = it.transaction_s.map_or(String::new(), |s| format!(", transaction {}", age(s)));
    let waiting = number::counted(it.waiting, "session");
    let who = match it.pid {
        0 => "a prepared transaction".to_owned(),
        pid => session(pid, it.user.as_deref(), it.state.as_deref()),
    };
    format!("{who}{transaction}, blocks {waiting}")
}

fn standby(it: &ConnectedStandby) -> String {
    let state = it.state.as_deref().unwrap_or("state not visible");
    let sync = it.sync.as_deref().map_or(String::new(), |sync| format!(", {}", harmless(sync)));
    let bytes = it.lag_bytes.map_or(String::new(), |n| format!(", {} behind", number::bytes(n)));
    let lag = it.lag_s.map_or(String::new(), |s| format!(", lag {}", age(s)));
    format!("{}, {}{sync}{bytes}{lag}", harmless(&it.name), harmless(state))
}

fn slot(it: &SlotState) -> String {
    let active = if it.active { "active" } else { "inactive" };
    let kept = it.retained_bytes.map_or(String::new(), |n| format!(", retains {} of WAL", number::bytes(n)));
    format!("{}, {active}{kept}", harmless(&it.name))
}

fn earlier_job(it: &EarlierJob) -> String {
    let started = it.started_at.format("%Y-%m-%d %H:%M UTC");
    format!("{}, {}, {}, started {started}", harmless(&it.job), harmless(&it.kind), it.state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::state::State;

    fn full() -> Checklist {
        let long = |pid, state: &str, locks_table| LongRunning {
            pid,
            user: Some("reporting".to_owned()),
            state: Some(state.to_owned()),
            transaction_s: Some(3_720.4),
            query_s: (state == "active").then_some(61.0),
            locks_table,
        };
        let standby = |name: &str, state: Option<&str>| ConnectedStandby {
            name: name.to_owned(),
            state: state.map(str::to_owned),
            sync: state.map(|_| "async".to_owned()),
            lag_bytes: state.map(|_| 12_288),
            lag_s: state.map(|_| 0.25),
        };
        Checklist {
            database: "shop\n".to_owned(),
            database_bytes: Some(1_288_490_189),
            table: "public.events".to_owned(),
            table_bytes: Some(105_277_030),
            directory: Some("/var/lib/postgresql/17/main".to_owned()),
            free_bytes: None,
            connections_used: 17,
            connections_allowed: 100,
            connections_reserved: 3,
            sees_sessions: true,
            long_running: vec![
                long(4711, "idle in transaction", true),
                long(4712, "active", false),
                LongRunning { pid: 0, ..long(0, "prepared transaction", false) },
            ],
            blockers: vec![BlockingSession {
                pid: 4711,
                user: Some("reporting".to_owned()),
                state: Some("idle in transaction".to_owned()),
                transaction_s: Some(3_720.4),
                waiting: 2,
            }],
            standbys: vec![standby("replica1", Some("streaming")), standby("replica2", None)],
            slots: vec![SlotState { name: "s".to_owned(), active: false, retained_bytes: Some(1 << 30) }],
            archive_mode: "on".to_owned(),
            archive_failing: true,
            oldest_xid_age: 12_345_678,
            oldest_snapshot_age: Some(1_234),
            freeze_max_age: 200_000_000,
            earlier_jobs: vec![EarlierJob {
                job: "events".to_owned(),
                kind: "partition".to_owned(),
                state: State::Aborted,
                started_at: "2026-11-30T22:04:05Z".parse().unwrap_or_default(),
            }],
            not_visible: Vec::new(),
        }
        .with_not_visible()
    }

    #[test]
    fn each_topic_has_a_line() {
        let text = text(&full(), Paint(false));
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        insta::assert_snapshot!(text, @r"
        checklist
          database                shop\n, 1.2 GiB
          table                   public.events, 100.4 MiB with indexes and TOAST
          free disk               not known to PostgreSQL; check /var/lib/postgresql/17/main
          connections             17 used, 100 allowed, 3 of them reserved
          open for over a minute  3
            pid 4711, user reporting, idle in transaction, transaction 1h 2m, holds a lock on the table
            pid 4712, user reporting, active, transaction 1h 2m, query 1m 1s
            user reporting, prepared transaction, transaction 1h 2m
          blockers                1
            pid 4711, user reporting, idle in transaction, transaction 1h 2m, blocks 2 sessions
          standbys                2
            replica1, streaming, async, 12.0 KiB behind, lag 250 ms
            replica2, state not visible
          replication slots       1
            s, inactive, retains 1.0 GiB of WAL
          WAL archive             archive_mode is on, and the last attempt to archive failed
          oldest transaction ID   age 12,345,678, forced vacuum at 200,000,000; oldest snapshot: age 1,234
          earlier jobs            1
            events, partition, aborted, started 2026-11-30 22:04 UTC
          check by hand           make sure that there is a backup, and that it can be restored
        ");
    }

    #[test]
    fn unknown_values_are_stated() {
        let many = LongRunning {
            pid: 1,
            user: None,
            state: None,
            transaction_s: None,
            query_s: None,
            locks_table: false,
        };
        let list = Checklist {
            database: "d".to_owned(),
            table: "public.t".to_owned(),
            archive_mode: "off".to_owned(),
            long_running: vec![many; 7],
            ..Checklist::default()
        };
        insta::assert_snapshot!(text(&list, Paint(false)), @r"
        checklist
          database                d, size unknown
          table                   public.t, size unknown
          free disk               not known to PostgreSQL; check the server's data directory
          connections             0 used, 0 allowed, 0 of them reserved
          open for over a minute  7
            pid 1, user unknown
            pid 1, user unknown
            pid 1, user unknown
            pid 1, user unknown
            pid 1, user unknown
            and 2 more
          blockers                none
          standbys                none
          replication slots       none
          WAL archive             archive_mode is off
          oldest transaction ID   age 0, forced vacuum at 0
          earlier jobs            none
          check by hand           make sure that there is a backup, and that it can be restored
                                  transactions and blockers of other roles; to see them here: grant pg_read_all_stats
        ");
    }
}
