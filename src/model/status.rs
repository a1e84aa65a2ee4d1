//! The status of a job. The names of the fields are those in JSON and must not change.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::pace::{Behind, Cause};
use super::state::State;

/// The status of a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The job's name.
    pub job: String,
    /// The kind of job: `partition`, `backfill` or `retype`.
    pub kind: String,
    /// The table, quoted only if SQL requires it.
    pub table: String,
    /// Its state.
    pub state: State,
    /// The current phase, if a process drives the job.
    pub phase: Option<String>,
    /// The number of rows to copy, estimated from the server's statistics.
    pub rows_estimated: u64,
    /// The number of rows copied; for a backfill, of rows processed.
    pub rows_copied: u64,
    /// The number of rows that a backfill or a column type change has filled.
    pub rows_set: Option<u64>,
    /// Rows per second over the last seconds, during the copy.
    pub rows_per_second: Option<f64>,
    /// The estimated remaining time of the copy in seconds, if known.
    pub eta_s: Option<u64>,
    /// The number of chunks copied.
    pub chunks_done: u64,
    /// The current number of rows of a chunk.
    pub chunk_rows: Option<u64>,
    /// The median duration of a chunk, in milliseconds.
    pub chunk_ms_p50: Option<u64>,
    /// The 99th percentile of the duration of a chunk, in milliseconds.
    pub chunk_ms_p99: Option<u64>,
    /// The maximum duration of a chunk, in milliseconds.
    pub chunk_ms_max: Option<u64>,
    /// The number of pending changes; none if changes are not logged.
    pub changes_pending: Option<u64>,
    /// The replica lag of the slowest standby, in seconds; none without standbys.
    pub replica_lag_s: Option<f64>,
    /// Whether writes of transactions older than the last swap are rejected. Any later command for the job ends that.
    pub guarded: bool,
    /// The reason for which the job is throttled: the most important of [`Status::holds`].
    pub hold: Option<StoredHold>,
    /// Every signal that throttles the job.
    pub holds: Vec<StoredHold>,
    /// The lag of each standby.
    pub replicas: Vec<Behind>,
    /// The current number of workers.
    pub workers: Option<u32>,
    /// Settings that override the plan.
    pub settings: BTreeMap<String, String>,
    /// Units per second over the last minutes, oldest first.
    pub rates: Vec<f64>,
    /// The time at which the job was started.
    pub started_at: DateTime<Utc>,
    /// The time at which the job last stored data.
    pub updated_at: DateTime<Utc>,
    /// The time of the swap.
    pub swapped_at: Option<DateTime<Utc>>,
    /// The time until which the old table is kept.
    pub keep_old_until: Option<DateTime<Utc>>,
}

/// A signal over its limit, which throttles the job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredHold {
    /// The signal, with its unit: `replica_lag_s`.
    pub signal: String,
    /// Its value.
    pub value: f64,
    /// Its limit.
    pub limit: f64,
    /// Whether the signal cannot be read.
    #[serde(default)]
    pub unread: bool,
    /// The object to which the value belongs, or the reason for which it cannot be read.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// A sentence that describes it. The module `report` creates the sentence, unless an earlier version has stored one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// When the signal began to throttle the job.
    pub since: DateTime<Utc>,
}
