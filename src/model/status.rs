//! What `status` says of a job. The fields' names are the JSON's and stay.

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
    /// What kind of job: `partition`, `backfill` or `retype`.
    pub kind: String,
    /// The table, quoted only where SQL needs it.
    pub table: String,
    /// Where it is.
    pub state: State,
    /// The phase at work, where a process drives the job.
    pub phase: Option<String>,
    /// Rows to copy, as the server's statistics guess them.
    pub rows_estimated: u64,
    /// Rows copied; of a backfill, rows gone through.
    pub rows_copied: u64,
    /// Rows that a backfill or a retype has set.
    pub rows_set: Option<u64>,
    /// Rows a second over the last seconds, while it copies.
    pub rows_per_second: Option<f64>,
    /// Seconds left of the copy, where it can be said.
    pub eta_s: Option<u64>,
    /// Chunks copied.
    pub chunks_done: u64,
    /// Rows of a chunk, as now sized.
    pub chunk_rows: Option<u64>,
    /// Half of the chunks took at most so many milliseconds.
    pub chunk_ms_p50: Option<u64>,
    /// 99 of 100 chunks took at most so many milliseconds.
    pub chunk_ms_p99: Option<u64>,
    /// The longest chunk, in milliseconds.
    pub chunk_ms_max: Option<u64>,
    /// Logged changes that the other side lacks; none where nothing is logged.
    pub changes_pending: Option<u64>,
    /// How far the slowest replica is behind, in seconds; none without replicas.
    pub replica_lag_s: Option<f64>,
    /// Whether writes of transactions older than the last swap are refused; any later command of the job ends that.
    pub guarded: bool,
    /// Why it waits, where it does: the most telling of [`Status::holds`].
    pub hold: Option<Hold>,
    /// Every signal that holds.
    pub holds: Vec<Hold>,
    /// How far each replica is behind.
    pub replicas: Vec<Behind>,
    /// Workers at work.
    pub workers: Option<u32>,
    /// Settings that differ from the plan.
    pub settings: BTreeMap<String, String>,
    /// Units a second over the last minutes, the oldest first.
    pub rates: Vec<f64>,
    /// When the job was started.
    pub started_at: DateTime<Utc>,
    /// When the job last wrote anything down.
    pub updated_at: DateTime<Utc>,
    /// When the names were exchanged.
    pub swapped_at: Option<DateTime<Utc>>,
    /// Until when the old table is kept.
    pub keep_old_until: Option<DateTime<Utc>>,
}

/// A signal over its limit, which holds the job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hold {
    /// The signal, with its unit: `replica_lag_s`.
    pub signal: String,
    /// What it is; for one that cannot be read, how many seconds ago that was possible.
    pub value: f64,
    /// What it may be; for one that cannot be read, how old a reading may be.
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
    /// Since when.
    pub since: DateTime<Utc>,
}
