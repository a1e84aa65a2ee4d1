//! Whose value a reading is, or why there is none.

use serde::{Deserialize, Serialize};

/// Whose value a reading is, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Cause {
    /// `pgstrata pause`.
    Paused {
        /// The job.
        job: String,
    },
    /// A session waits for a lock of this job.
    WaitingSession {
        /// Its process.
        pid: i32,
    },
    /// A vacuum prevents wraparound.
    Vacuum {
        /// The table that it cleans.
        table: String,
        /// How many transactions old that table is.
        age_transactions: u64,
    },
    /// The archiver failed.
    ArchiveCommand {
        /// On this file.
        wal_file: String,
    },
    /// A replication slot keeps WAL.
    Slot {
        /// Its name.
        slot: String,
    },
    /// Sessions of others.
    OtherSessions,
    /// A tiny transaction of ours, smoothed.
    TinyTransaction,
    /// Dead rows of a table.
    DeadRows {
        /// The table.
        table: String,
        /// How many.
        dead_rows: u64,
        /// Whether autovacuum is on for it.
        autovacuum: bool,
        /// What holds the snapshot that keeps them.
        kept_by: Option<String>,
        /// How old that snapshot is.
        snapshot_age_s: Option<f64>,
    },
    /// The plan's query.
    PlanQuery,
    /// A standby.
    Standby {
        /// Its name.
        standby: String,
    },
    /// A standby that is gone.
    StandbyGone {
        /// Its name.
        standby: String,
        /// What connecting to it reported.
        error: Option<String>,
    },
    /// The role may not see it.
    NotPermitted {
        /// The role.
        role: String,
        /// Whether the plan could list the standbys instead.
        standbys: bool,
    },
    /// The plan's query failed, or has not answered.
    PlanQueryFailed {
        /// What it reported; none where it has not answered yet.
        error: Option<String>,
    },
    /// The server cannot be read.
    ServerUnreadable {
        /// What reading reported.
        error: String,
    },
}
