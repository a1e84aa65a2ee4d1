//! Compares the observed values with the limits: one reading for each signal.

use crate::model::pace::{Behind, Cause, Reading, Signal, Standby};
use crate::pg::signals::{Answer, Dead, Seen, Walsender};
use crate::plan::{Plan, ReplicaLag, Throttle};

/// All observed values.
pub struct Sources<'a> {
    /// The values from the server.
    pub seen: &'a Seen,
    /// The answers of the standbys that the plan lists, by name; none before the first answer.
    pub listed: &'a [(String, Option<Answer<Standby>>)],
    /// The lag of the standbys.
    pub behind: &'a [Behind],
    /// The standby that has been disconnected the longest, and for how many seconds.
    pub gone: Option<(&'a str, f64)>,
    /// The smoothed duration of the job's small transaction.
    pub latency_ms: Option<f64>,
    /// The answer of the user's query: the outer option is none if there is no query, the inner one before the first
    /// answer. True counts as infinity.
    pub query: Option<Option<Answer<f64>>>,
}

/// The standbys whose state is known: those that the plan lists, or otherwise those that the server sees.
pub fn standbys(seen: &Seen, listed: &[(String, Option<Answer<Standby>>)]) -> Vec<Standby> {
    if !listed.is_empty() {
        return listed.iter().filter_map(|(_, last)| last.clone()?.ok()).collect();
    }
    let visible = seen.walsenders.iter().filter(|walsender| !walsender.hidden);
    let standby =
        |r: &Walsender| r.place.map(|place| Standby { name: r.name.clone(), place, lag_s: r.lag_s });
    visible.filter_map(standby).collect()
}

/// Returns a reading for every signal that has a limit.
pub fn of(sources: &Sources<'_>, plan: &Plan, job: &str) -> Vec<Reading> {
    let (seen, throttle) = (sources.seen, plan.throttle());
    let mut all = Vec::new();
    let mut read = |signal, value: Result<f64, Cause>, limit: f64, cause: Option<Cause>| {
        all.push(Reading { signal, value, limit, cause });
    };
    let yes = |it: bool| Ok(f64::from(u8::from(it)));
    let paused = seen.settings.contains_key("paused");
    read(Signal::Paused, yes(paused), 0.0, Some(Cause::Paused { job: job.to_owned() }));
    let waiting = seen.blocked_pid.map(|pid| Cause::WaitingSession { pid });
    read(Signal::BlockedSessions, Ok(f64::from(seen.blocked)), 0.0, waiting);
    let vacuum = seen.vacuum.as_ref().map(|vacuum| Cause::Vacuum {
        table: vacuum.name.clone(),
        age_transactions: vacuum.age.unsigned_abs(),
    });
    read(Signal::WraparoundVacuum, yes(vacuum.is_some()), 0.0, vacuum);
    if throttle.archiver {
        let cause = seen.archiver.clone().map(|wal_file| Cause::ArchiveCommand { wal_file });
        read(Signal::Archiver, yes(cause.is_some()), 0.0, cause);
    }
    if let Some(limit) = throttle.max_slot_retained_bytes {
        let slot = seen.slot.as_ref();
        let bytes = slot.map_or(0.0, |slot| slot.bytes as f64);
        let cause = slot.map(|slot| Cause::Slot { slot: slot.name.clone() });
        read(Signal::SlotRetained, Ok(bytes), limit as f64, cause);
    }
    if let Some(limit) = throttle.max_active_backends {
        let active = visible(seen, seen.active.into());
        read(Signal::ActiveBackends, active, limit.into(), Some(Cause::OtherSessions));
    }
    if let Some(limit) = throttle.max_commit_latency {
        let (ms, limit_ms) = (sources.latency_ms.unwrap_or(0.0), limit.as_secs_f64() * 1000.0);
        read(Signal::CommitLatency, Ok(ms), limit_ms, Some(Cause::TinyTransaction));
    }
    if let Some(limit) = plan.dead_limit() {
        let dead = seen.dead.as_ref();
        let share = dead.map_or(0.0, |dead| dead.share);
        read(Signal::DeadShare, Ok(share), limit.share, dead.map(dead_rows));
    }
    if let Some(answer) = &sources.query {
        let (answer, limit) = match answer {
            Some(Ok(value)) if value.is_infinite() => (Ok(1.0), 0.0),
            Some(Ok(value)) => (Ok(*value), f64::from(throttle.query_limit)),
            other => {
                let error = other.clone().and_then(Result::err);
                (Err(Cause::PlanQueryFailed { error }), f64::from(throttle.query_limit))
            }
        };
        read(Signal::Query, answer, limit, Some(Cause::PlanQuery));
    }
    all.extend(lag(sources, throttle));
    all
}

/// The table with the dead rows, and what prevents its vacuum.
fn dead_rows(dead: &Dead) -> Cause {
    Cause::DeadRows {
        table: dead.name.clone(),
        dead_rows: dead.dead,
        autovacuum: dead.autovacuum,
        kept_by: dead.kept.as_ref().map(|kept| kept.by.clone()),
        snapshot_age_s: dead.kept.as_ref().map(|kept| kept.age_s),
    }
}

fn lag(sources: &Sources<'_>, throttle: &Throttle) -> Vec<Reading> {
    let (seen, behind) = (sources.seen, sources.behind);
    let by_time = throttle.max_replica_lag.limit().map(|limit| limit.as_secs_f64());
    let by_bytes = throttle.max_replica_lag_bytes.map(|limit| limit as f64);
    if by_time.is_none() && by_bytes.is_none() {
        return Vec::new();
    }
    let asked_for = matches!(throttle.max_replica_lag, ReplicaLag::Limit(_)) || by_bytes.is_some();
    // Without the privilege, a connected standby is visible without its lag, and a disconnected one not at all.
    let hidden = seen.walsenders.iter().any(|walsender| walsender.hidden) || asked_for && !seen.sees_all;
    let blind = sources.listed.is_empty() && hidden;
    let worst = |of: fn(&Behind) -> f64| {
        let worst = behind.iter().max_by(|a, b| of(a).total_cmp(&of(b)));
        let cause = worst.map(|one| Cause::Standby { standby: one.name.clone() });
        let unseen = Cause::NotPermitted { role: seen.role.clone(), standbys: true };
        (if blind { Err(unseen) } else { Ok(worst.map_or(0.0, of)) }, cause)
    };
    let mut all = Vec::new();
    let (gone_s, cause) = match sources.gone {
        Some((name, gone_s)) => {
            let last = sources.listed.iter().find(|(one, _)| one == name).and_then(|(_, last)| last.clone());
            let error = last.and_then(Result::err);
            (gone_s, Some(Cause::StandbyGone { standby: name.to_owned(), error }))
        }
        None => (0.0, None),
    };
    let limit = throttle.forget_replica_after.as_secs_f64();
    all.push(Reading { signal: Signal::ReplicaGone, value: Ok(gone_s), limit, cause });
    if let Some(limit) = by_time {
        let (value, cause) = worst(|one| one.lag_s);
        all.push(Reading { signal: Signal::ReplicaLag, value, limit, cause });
    }
    if let Some(limit) = by_bytes {
        let (value, cause) = worst(|one| one.lag_bytes as f64);
        all.push(Reading { signal: Signal::ReplicaLagBytes, value, limit, cause });
    }
    all
}

fn visible(seen: &Seen, value: f64) -> Result<f64, Cause> {
    let unseen = || Cause::NotPermitted { role: seen.role.clone(), standbys: false };
    if seen.sees_all { Ok(value) } else { Err(unseen()) }
}
