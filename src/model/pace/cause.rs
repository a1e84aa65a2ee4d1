//! The object to which the value of a reading belongs, or the reason for which there is no value.

use serde::{Deserialize, Serialize};

/// The object to which the value of a reading belongs, or the reason for which there is no value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Cause {
    /// The job was paused with `pgstrata pause`.
    Paused {
        /// The job.
        job: String,
    },
    /// A session waits for a lock of this job.
    WaitingSession {
        /// The process number of the session.
        pid: i32,
    },
    /// A vacuum to prevent wraparound is running.
    Vacuum {
        /// The table that it vacuums.
        table: String,
        /// The age of that table in transactions.
        age_transactions: u64,
    },
    /// The archiver failed.
    ArchiveCommand {
        /// The WAL file for which it failed.
        wal_file: String,
    },
    /// A replication slot retains WAL.
    Slot {
        /// The name of the slot.
        slot: String,
    },
    /// Sessions other than those of the job.
    OtherSessions,
    /// The smoothed duration of the job's small transaction.
    TinyTransaction,
    /// Dead rows of a table.
    DeadRows {
        /// The table.
        table: String,
        /// The number of dead rows.
        dead_rows: u64,
        /// Whether autovacuum is enabled for the table.
        autovacuum: bool,
        /// The holder of the snapshot that prevents their removal.
        kept_by: Option<String>,
        /// The age of that snapshot in seconds.
        snapshot_age_s: Option<f64>,
    },
    /// The plan's query.
    PlanQuery,
    /// A standby.
    Standby {
        /// The name of the standby.
        standby: String,
    },
    /// A standby that is disconnected.
    StandbyGone {
        /// The name of the standby.
        standby: String,
        /// The error of the last attempt to connect to it.
        error: Option<String>,
    },
    /// The role lacks the privilege to read the value.
    NotPermitted {
        /// The role.
        role: String,
        /// Whether the plan can list the standbys instead.
        standbys: bool,
    },
    /// The plan's query failed, or has not answered.
    PlanQueryFailed {
        /// The error; none if it has not answered yet.
        error: Option<String>,
    },
    /// The signals of the server cannot be read.
    ServerUnreadable {
        /// The error.
        error: String,
    },
}
