//! What a job's history keeps: a row of `pgstrata.events` each, its details as JSON.

use serde::Serialize;

use super::latency::Latency;
use super::pace::{Behind, Hold, Signal};

/// An entry of a job's history.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum History {
    /// A swap or a rollback held its lock.
    LockHeld {
        /// For so many milliseconds.
        held_ms: f64,
        /// At this attempt.
        attempt: u32,
    },
    /// A signal throttles the job.
    Throttled(Hold),
    /// A signal no longer throttles the job.
    Resumed {
        /// The signal.
        signal: Signal,
        /// For how long it throttled the job, in seconds.
        throttled_s: f64,
    },
    /// How the job goes at one moment.
    Sample(PaceSample),
    /// How long all chunks took, before the ledger is forgotten.
    Chunks(Latency),
    /// How many rows were set in all.
    RowsSet {
        /// That many.
        rows: u64,
    },
    /// A setting was set.
    Set {
        /// The setting.
        key: String,
        /// Its value.
        value: String,
    },
    /// A setting has the plan's value again.
    Unset {
        /// The setting.
        key: String,
    },
}

/// How a job goes at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PaceSample {
    /// The phase.
    pub phase: &'static str,
    /// Units done.
    pub done: u64,
    /// Units a second over the last seconds.
    pub per_second: f64,
    /// Workers at work.
    pub workers: i32,
    /// WAL that the server writes.
    pub wal_bytes_per_second: f64,
    /// How long a tiny transaction took.
    pub commit_latency_ms: f64,
    /// How far each replica is behind.
    pub replicas: Vec<Behind>,
    /// Signals that throttle the job.
    pub holds: Vec<Signal>,
}

impl History {
    /// What the column `what` has.
    pub fn what(&self) -> &'static str {
        match self {
            Self::LockHeld { .. } => "lock held",
            Self::Throttled(_) => "hold",
            Self::Resumed { .. } => "go_on",
            Self::Sample(_) => "sample",
            Self::Chunks(_) => "chunks",
            Self::RowsSet { .. } => "rows_set",
            Self::Set { .. } => "set",
            Self::Unset { .. } => "unset",
        }
    }
}

/// How many rows a detail of [`History::RowsSet`] has; earlier versions kept the bare number.
pub fn rows_set(detail: &str) -> Option<u64> {
    let detail: serde_json::Value = serde_json::from_str(detail).ok()?;
    detail.as_u64().or_else(|| detail.get("rows")?.as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pace::Cause;

    #[test]
    fn details_are_json() {
        let hold = Hold {
            signal: Signal::ReplicaLag,
            value: 7.25,
            limit: 5.0,
            cause: Some(Cause::Standby { standby: "b".to_owned() }),
            since_s: 80.0,
            unread: false,
        };
        let sample = PaceSample {
            phase: "copy",
            done: 1_000,
            per_second: 340.0,
            workers: 2,
            wal_bytes_per_second: 4_096.0,
            commit_latency_ms: 1.5,
            replicas: vec![Behind { name: "b".to_owned(), lag_s: 7.25, lag_bytes: 5 }],
            holds: vec![Signal::ReplicaLag],
        };
        let chunks =
            Latency { chunks: 62, chunk_rows: 20_000, p50_ms: 480.0, p99_ms: 900.0, max_ms: 1_234.5 };
        let all = [
            History::LockHeld { held_ms: 12.3, attempt: 2 },
            History::Throttled(hold),
            History::Resumed { signal: Signal::ReplicaLag, throttled_s: 4.1 },
            History::Sample(sample),
            History::Chunks(chunks),
            History::RowsSet { rows: 17 },
            History::Set { key: "workers".to_owned(), value: "2".to_owned() },
            History::Unset { key: "workers".to_owned() },
        ];
        let lines = all.map(|one| format!("{}: {}", one.what(), serde_json::to_string(&one).unwrap()));
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn rows_of_earlier_versions_are_read() {
        assert_eq!(["17", "{\"rows\":17}"].map(rows_set), [Some(17), Some(17)]);
        assert_eq!(["seventeen", "{}"].map(rows_set), [None, None]);
    }
}
