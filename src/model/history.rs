//! The history of a job. Each entry is a row of `pgstrata.events`, with details in JSON.

use serde::Serialize;

use super::latency::Latency;
use super::pace::{Behind, Hold, Signal};

/// An entry of a job's history.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum History {
    /// A swap or a rollback held its lock.
    LockHeld {
        /// The duration in milliseconds.
        held_ms: f64,
        /// The number of the attempt.
        attempt: u32,
    },
    /// A signal throttles the job.
    Throttled(Hold),
    /// A signal no longer throttles the job.
    Resumed {
        /// The signal.
        signal: Signal,
        /// The duration for which it throttled the job, in seconds.
        throttled_s: f64,
    },
    /// A sample of the pace of the job.
    Sample(PaceSample),
    /// The durations of all chunks, stored before the ledger is deleted.
    Chunks(Latency),
    /// The copy was removed, because the change log had outgrown the table.
    Resync {
        /// The number of entries in the log.
        entries: u64,
    },
    /// The total number of rows that were filled.
    RowsSet {
        /// The number of rows.
        rows: u64,
    },
    /// A setting was changed.
    Set {
        /// The setting.
        key: String,
        /// Its new value.
        value: String,
    },
    /// A setting was reset to the value in the plan.
    Unset {
        /// The setting.
        key: String,
    },
}

/// A sample of the pace of a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PaceSample {
    /// The phase.
    pub phase: &'static str,
    /// Units done.
    pub done: u64,
    /// Units per second over the last seconds.
    pub per_second: f64,
    /// The number of workers.
    pub workers: i32,
    /// The bytes of WAL per second that the server writes.
    pub wal_bytes_per_second: f64,
    /// The duration of the job's small transaction, in milliseconds.
    pub commit_latency_ms: f64,
    /// The lag of each standby.
    pub replicas: Vec<Behind>,
    /// Signals that throttle the job.
    pub holds: Vec<Signal>,
}

impl History {
    /// The value of the column `what`.
    pub fn what(&self) -> &'static str {
        match self {
            Self::LockHeld { .. } => "lock held",
            Self::Throttled(_) => "throttled",
            Self::Resumed { .. } => "resumed",
            Self::Sample(_) => "sample",
            Self::Chunks(_) => "chunks",
            Self::Resync { .. } => "resync",
            Self::RowsSet { .. } => "rows_set",
            Self::Set { .. } => "set",
            Self::Unset { .. } => "unset",
        }
    }
}

/// The number of rows in the details of a [`History::RowsSet`]. Earlier versions stored only the number.
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
            History::Resync { entries: 200_000 },
            History::RowsSet { rows: 17 },
            History::Set { key: "workers".to_owned(), value: "2".to_owned() },
            History::Unset { key: "workers".to_owned() },
        ];
        let lines = all.map(|one| format!("{}: {}", one.what(), serde_json::to_string(&one).unwrap()));
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn details_of_earlier_versions_are_parsed() {
        assert_eq!(["17", "{\"rows\":17}"].map(rows_set), [Some(17), Some(17)]);
        assert_eq!(["seventeen", "{}"].map(rows_set), [None, None]);
    }
}
