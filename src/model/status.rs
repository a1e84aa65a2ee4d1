//! The status of a job. The names of the fields are those in JSON and must not change.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::pace::{Behind, Cause};
use super::state::State;

/// A job at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The job's name.
    pub job: String,
    /// The kind of job: `partition`, `backfill` or `retype`.
    pub kind: String,
    /// The table, quoted only where SQL needs it.
    pub table: String,
    /// Its state.
    pub state: State,
    /// The current phase, if a process drives the job.
    pub phase: Option<String>,
    /// Rows to copy, as estimated by the server's statistics.
    pub rows_estimated: u64,
    /// Rows copied; for a backfill, rows processed.
    pub rows_copied: u64,
    /// Rows that a backfill or a retype has set.
    pub rows_set: Option<u64>,
    /// Rows per second over the last seconds, during the copy.
    pub rows_per_second: Option<f64>,
    /// Remaining seconds of the copy, if known.
    pub eta_s: Option<u64>,
    /// Chunks copied.
    pub chunks_done: u64,
    /// The current number of rows of a chunk.
    pub chunk_rows: Option<u64>,
    /// The median duration of a chunk, in milliseconds.
    pub chunk_ms_p50: Option<u64>,
    /// The 99th percentile of the duration of a chunk, in milliseconds.
    pub chunk_ms_p99: Option<u64>,
    /// The longest chunk, in milliseconds.
    pub chunk_ms_max: Option<u64>,
    /// Logged changes that the other side lacks; none if changes are not logged.
    pub changes_pending: Option<u64>,
    /// The lag of the slowest replica, in seconds; none without replicas.
    pub replica_lag_s: Option<f64>,
    /// Whether writes of transactions older than the last swap are rejected; any later command of the job ends that.
    pub guarded: bool,
    /// Why it is paused: the most important of [`Status::holds`].
    pub hold: Option<Hold>,
    /// Every signal that pauses the job.
    pub holds: Vec<Hold>,
    /// The lag of each replica.
    pub replicas: Vec<Behind>,
    /// The current number of workers.
    pub workers: Option<u32>,
    /// Settings that override the plan.
    pub settings: BTreeMap<String, String>,
    /// Units per second over the last minutes, the oldest first.
    pub rates: Vec<f64>,
    /// When the job was started.
    pub started_at: DateTime<Utc>,
    /// When the job last stored anything.
    pub updated_at: DateTime<Utc>,
    /// When the names were exchanged.
    pub swapped_at: Option<DateTime<Utc>>,
    /// Until when the old table is kept.
    pub keep_old_until: Option<DateTime<Utc>>,
}

/// A signal over its limit, which pauses the job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    /// The signal, with its unit: `replica_lag_s`.
    pub signal: String,
    /// Its value.
    pub value: f64,
    /// Its limit.
    pub limit: f64,
    /// It cannot be read.
    #[serde(default)]
    pub unread: bool,
    /// Whose value it is, or why it cannot be read.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// All of this as a sentence: `report` makes it. What an earlier version kept is left as it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// The start of the pause.
    pub since: DateTime<Utc>,
}
