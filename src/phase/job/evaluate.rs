//! Compares the observed values with the limits: one reading for each signal.

use std::time::Duration;

use crate::model::number;
use crate::model::pace::{Behind, Reading, Signal, Standby};
use crate::model::shell::word;
use crate::pg::signals::{Answer, Dead, Seen};
use crate::plan::{Plan, ReplicaLag, Throttle};

/// All observed values.
pub struct Sources<'a> {
    /// From the server.
    pub seen: &'a Seen,
    /// The answers of listed standbys, by name; none before the first answer.
    pub listed: &'a [(String, Option<Answer<Standby>>)],
    /// The lag of the standbys.
    pub behind: &'a [Behind],
    /// The standby that has been gone the longest, and for how many seconds.
    pub gone: Option<(&'a str, f64)>,
    /// The duration of the job's small transaction, smoothed.
    pub latency_ms: Option<f64>,
    /// The result of the user's query; true exceeds any number.
    pub query: Option<Answer<f64>>,
}

/// The standbys that answer: the listed ones, or otherwise those that the server sees.
pub fn standbys(seen: &Seen, listed: &[(String, Option<Answer<Standby>>)]) -> Vec<Standby> {
    if !listed.is_empty() {
        return listed.iter().filter_map(|(_, last)| last.clone()?.ok()).collect();
    }
    let visible = seen.replicas.iter().filter(|replica| !replica.hidden);
    let standby = |r: &crate::pg::signals::Replica| {
        r.place.map(|place| Standby { name: r.name.clone(), place, lag_s: r.lag_s })
    };
    visible.filter_map(standby).collect()
}

/// A reading of every signal that has a limit.
pub fn of(sources: &Sources<'_>, plan: &Plan, job: &str) -> Vec<Reading> {
    let (seen, throttle) = (sources.seen, plan.throttle());
    let mut all = Vec::new();
    let mut read = |signal, value: Answer<f64>, limit: f64, about: String| {
        all.push(Reading { signal, value, limit, about });
    };
    let yes = |it: bool| Ok(f64::from(u8::from(it)));
    let paused = seen.settings.contains_key("paused");
    read(Signal::Paused, yes(paused), 0.0, format!("`pgstrata resume {}` resumes it", word(job)));
    let pid =
        seen.blocked_pid.map_or_else(String::new, |pid| format!("pid {pid} waits for a lock of this job"));
    read(Signal::BlockedSessions, Ok(f64::from(seen.blocked)), 0.0, pid);
    let (vacuum, about) = match &seen.vacuum {
        Some(vacuum) => {
            let age = number::count(vacuum.age.unsigned_abs());
            (
                true,
                format!(
                    "a vacuum to prevent wraparound is running on {}, whose age is {age} \
                    transactions",
                    vacuum.name
                ),
            )
        }
        None => (false, String::new()),
    };
    read(Signal::WraparoundVacuum, yes(vacuum), 0.0, about);
    if throttle.archiver {
        let about = seen
            .archiver
            .as_ref()
            .map_or_else(String::new, |wal| format!("archive_command failed for {wal}"));
        read(Signal::Archiver, yes(seen.archiver.is_some()), 0.0, about);
    }
    if let Some(limit) = throttle.max_slot_retained_bytes {
        let slot = seen.slot.as_ref();
        let about = slot.map_or_else(String::new, |slot| format!("slot {}", slot.name));
        read(Signal::SlotRetained, Ok(slot.map_or(0.0, |slot| slot.bytes as f64)), limit as f64, about);
    }
    if let Some(limit) = throttle.max_active_backends {
        read(
            Signal::ActiveBackends,
            visible(seen, seen.active.into()),
            limit.into(),
            "active sessions of other clients".to_owned(),
        );
    }
    if let Some(limit) = throttle.max_commit_latency {
        let about = "smoothed latency of a small test transaction".to_owned();
        read(
            Signal::CommitLatency,
            Ok(sources.latency_ms.unwrap_or(0.0)),
            limit.as_secs_f64() * 1000.0,
            about,
        );
    }
    if let Some(limit) = plan.dead_limit() {
        let dead = seen.dead.as_ref();
        let (share, about) = (dead.map_or(0.0, |dead| dead.share), dead.map_or_else(String::new, about_dead));
        read(Signal::DeadShare, Ok(share), limit.share, about);
    }
    if let Some(answer) = &sources.query {
        let (answer, limit) = match answer {
            Ok(value) if value.is_infinite() => (Ok(1.0), 0.0),
            other => (other.clone(), f64::from(throttle.query_limit)),
        };
        read(
            Signal::Query,
            answer.map_err(|why| format!("the plan's query: {why}")),
            limit,
            "the plan's query".to_owned(),
        );
    }
    all.extend(lag(sources, throttle));
    all
}

/// The table, and what prevents its vacuum.
fn about_dead(dead: &Dead) -> String {
    let name = &dead.name;
    let rows = number::counted(dead.dead, "dead row");
    let next = match (&dead.kept, dead.autovacuum) {
        (Some(kept), _) => {
            let age = number::duration(Duration::try_from_secs_f64(kept.age_s).unwrap_or_default());
            format!("no vacuum can remove them before {} ends, whose snapshot is {age} old", kept.by)
        }
        (None, true) => "the next autovacuum removes them".to_owned(),
        (None, false) => format!("autovacuum is off for the table: run `vacuum {name}`"),
    };
    format!("{name} has {rows}; {next}")
}

fn lag(sources: &Sources<'_>, throttle: &Throttle) -> Vec<Reading> {
    let (seen, behind) = (sources.seen, sources.behind);
    let by_time = throttle.max_replica_lag.limit().map(|limit| limit.as_secs_f64());
    let by_bytes = throttle.max_replica_lag_bytes.map(|limit| limit as f64);
    if by_time.is_none() && by_bytes.is_none() {
        return Vec::new();
    }
    let asked_for = matches!(throttle.max_replica_lag, ReplicaLag::Limit(_)) || by_bytes.is_some();
    // Without the right, all that is seen of a standby is that it is there, and of one that is not, nothing.
    let hidden = seen.replicas.iter().any(|replica| replica.hidden) || asked_for && !seen.sees_all;
    let blind = sources.listed.is_empty() && hidden;
    let worst = |of: fn(&Behind) -> f64| {
        let worst = behind.iter().max_by(|a, b| of(a).total_cmp(&of(b)));
        let about = worst.map_or_else(String::new, |one| format!("standby {}", one.name));
        let grant =
            format!("grant pg_monitor to {}, or list the standbys under [throttle] replicas", seen.role);
        (if blind { Err(grant) } else { Ok(worst.map_or(0.0, of)) }, about)
    };
    let mut all = Vec::new();
    let (gone, about) = match sources.gone {
        Some((name, gone_s)) => {
            let last = sources.listed.iter().find(|(one, _)| one == name).and_then(|(_, last)| last.clone());
            let why = last.and_then(Result::err).map_or_else(String::new, |why| format!(" ({why})"));
            (
                gone_s,
                format!(
                    "standby {name} has disconnected{why}; the job stops waiting for it at the \
                limit"
                ),
            )
        }
        None => (0.0, String::new()),
    };
    let limit = throttle.forget_replica_after.as_secs_f64();
    all.push(Reading { signal: Signal::ReplicaGone, value: Ok(gone), limit, about });
    if let Some(limit) = by_time {
        let (value, about) = worst(|one| one.lag_s);
        all.push(Reading { signal: Signal::ReplicaLag, value, limit, about });
    }
    if let Some(limit) = by_bytes {
        let (value, about) = worst(|one| one.lag_bytes as f64);
        all.push(Reading { signal: Signal::ReplicaLagBytes, value, limit, about });
    }
    all
}

fn visible(seen: &Seen, value: f64) -> Answer<f64> {
    if seen.sees_all { Ok(value) } else { Err(format!("grant pg_monitor to {}", seen.role)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::signals::Kept;

    #[test]
    fn dead_rows_say_what_their_vacuum_waits_for() {
        let dead = |autovacuum, kept| {
            let (name, share) = ("events_y2024m01".to_owned(), 0.5);
            about_dead(&Dead { name, dead: 1_200_000, share, autovacuum, kept })
        };
        let kept = |by: &str| Some(Kept { by: by.to_owned(), age_s: 7_380.0 });
        insta::assert_snapshot!(dead(true, None), @"events_y2024m01 has 1,200,000 dead rows; the next autovacuum removes them");
        insta::assert_snapshot!(dead(false, None), @"events_y2024m01 has 1,200,000 dead rows; autovacuum is off for the table: run `vacuum events_y2024m01`");
        insta::assert_snapshot!(dead(true, kept("pid 17")), @"events_y2024m01 has 1,200,000 dead rows; no vacuum can remove them before pid 17 ends, whose snapshot is 2h 3m old");
        insta::assert_snapshot!(dead(false, kept("prepared transaction p")), @"events_y2024m01 has 1,200,000 dead rows; no vacuum can remove them before prepared transaction p ends, whose snapshot is 2h 3m old");
    }
}
