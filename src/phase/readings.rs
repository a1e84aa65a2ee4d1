//! What was seen, held against the limits: one reading a signal.

use crate::model::number;
use crate::model::pace::{Behind, Reading, Signal, Standby};
use crate::pg::signals::{Answer, Seen};
use crate::plan::{ReplicaLag, Throttle};

/// Everything that was seen.
pub struct Sources<'a> {
    /// By the server.
    pub seen: &'a Seen,
    /// What listed standbys said, by name; none before the first answer.
    pub listed: &'a [(String, Option<Answer<Standby>>)],
    /// How far the standbys are behind.
    pub behind: &'a [Behind],
    /// The standby that is gone the longest, and for how many seconds.
    pub gone: Option<(&'a str, f64)>,
    /// How long our tiny transaction takes, smoothed.
    pub latency_ms: Option<f64>,
    /// What the user's query said; true is more than any number.
    pub query: Option<Answer<f64>>,
}

/// The standbys that answer: the listed ones, or else those that the server sees.
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
pub fn of(sources: &Sources<'_>, throttle: &Throttle, job: &str) -> Vec<Reading> {
    let seen = sources.seen;
    let mut all = Vec::new();
    let mut read = |signal, value: Answer<f64>, limit: f64, about: String| {
        all.push(Reading { signal, value, limit, about });
    };
    let yes = |it: bool| Ok(f64::from(u8::from(it)));
    let paused = seen.settings.contains_key("paused");
    read(Signal::Paused, yes(paused), 0.0, format!("`pgstrata resume {job}` goes on"));
    let pid =
        seen.blocked_pid.map_or_else(String::new, |pid| format!("pid {pid} waits for a lock of this job"));
    read(Signal::BlockedSessions, Ok(f64::from(seen.blocked)), 0.0, pid);
    let (vacuum, about) = match &seen.vacuum {
        Some(vacuum) => {
            let age = number::count(vacuum.age.unsigned_abs());
            (
                true,
                format!("a vacuum of {}, which is {age} transactions old, prevents wraparound", vacuum.name),
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
            "sessions of others".to_owned(),
        );
    }
    if let Some(limit) = throttle.max_commit_latency {
        let about = "a tiny transaction of ours, smoothed".to_owned();
        read(
            Signal::CommitLatency,
            Ok(sources.latency_ms.unwrap_or(0.0)),
            limit.as_secs_f64() * 1000.0,
            about,
        );
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
            (gone_s, format!("standby {name} is gone{why}; at the limit it is forgotten"))
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
