//! The state of the server and of the table before a job, for the person who starts it. Problems that prevent a job are
//! findings; the checklist only shows values.
//!
//! The names of the fields are the keys in JSON and must not change. Nothing here contains a query or a value of a row.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::state::State;

/// The state of the server and of the table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Checklist {
    /// The database.
    pub database: String,
    /// Its size; none if the role may not see it.
    pub database_bytes: Option<u64>,
    /// The plan's table.
    pub table: String,
    /// Its size with indexes, TOAST and partitions; none if there is no such table, or if it is locked.
    #[serde(default)]
    pub table_bytes: Option<u64>,
    /// The directory of the table's files on the server: a tablespace or the data directory; none if the role may not
    /// see it.
    pub directory: Option<String>,
    /// The free space there; none, because PostgreSQL has no function that returns it.
    #[serde(default)]
    pub free_bytes: Option<u64>,
    /// Client sessions, except those of this command.
    pub connections_used: u64,
    /// `max_connections`.
    pub connections_allowed: u64,
    /// Connections that are reserved for superusers and other privileged roles.
    pub connections_reserved: u64,
    /// Whether the role can see the activity of the sessions of other roles. If not, those are missing below.
    pub sees_sessions: bool,
    /// Transactions and queries that have run for more than a minute, the oldest first.
    pub long_running: Vec<LongRunning>,
    /// Sessions for whose locks other sessions wait.
    pub blockers: Vec<BlockingSession>,
    /// Connected standbys and subscribers.
    pub standbys: Vec<ConnectedStandby>,
    /// Replication slots.
    pub slots: Vec<SlotState>,
    /// `archive_mode`.
    pub archive_mode: String,
    /// Whether the last attempt to archive WAL failed.
    pub archive_failing: bool,
    /// The age of the oldest transaction ID in the database, in transactions.
    pub oldest_xid_age: u64,
    /// The age of the oldest transaction ID that a session, a slot or a prepared transaction prevents vacuum from
    /// removing rows for.
    pub oldest_snapshot_age: Option<u64>,
    /// `autovacuum_freeze_max_age`: the age at which the server starts a vacuum that cannot be postponed.
    pub freeze_max_age: u64,
    /// Jobs that pgstrata ran on the table, newest first.
    #[serde(default)]
    pub earlier_jobs: Vec<EarlierJob>,
    /// What the server cannot tell, and has to be checked by hand.
    #[serde(default)]
    pub not_visible: Vec<Unseen>,
}

/// What the server cannot tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unseen {
    /// Whether there is a backup that can be restored.
    Backup,
    /// How much disk space is free.
    FreeDisk,
    /// The activity of sessions of other roles.
    OtherSessions,
}

/// A transaction or query that has run for more than a minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LongRunning {
    /// The process number; 0 for a prepared transaction.
    pub pid: i32,
    /// The role.
    pub user: Option<String>,
    /// `active`, `idle in transaction`, `prepared transaction` and so on.
    pub state: Option<String>,
    /// The age of the transaction in seconds.
    pub transaction_s: Option<f64>,
    /// The age of the query in seconds, if one is running.
    pub query_s: Option<f64>,
    /// Whether it holds a lock on the table.
    pub locks_table: bool,
}

/// A session for whose locks others wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockingSession {
    /// The process number; 0 for a prepared transaction.
    pub pid: i32,
    /// The role.
    pub user: Option<String>,
    /// The state of the session.
    pub state: Option<String>,
    /// The age of its transaction in seconds.
    pub transaction_s: Option<f64>,
    /// The number of sessions that wait for it.
    pub waiting: u64,
}

/// A standby or a subscriber.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectedStandby {
    /// Its name.
    pub name: String,
    /// `streaming`, `catchup` and so on; none if the role may not see it.
    pub state: Option<String>,
    /// `sync`, `async`, `quorum` or `potential`.
    pub sync: Option<String>,
    /// The WAL that it has not replayed, in bytes.
    pub lag_bytes: Option<u64>,
    /// Its lag in seconds; none while nothing is written.
    pub lag_s: Option<f64>,
}

/// A replication slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotState {
    /// Its name.
    pub name: String,
    /// Whether a process uses it.
    pub active: bool,
    /// The WAL that it retains, in bytes.
    pub retained_bytes: Option<u64>,
}

/// A job that was run on the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierJob {
    /// Its name.
    pub job: String,
    /// Its kind.
    pub kind: String,
    /// Its state.
    pub state: State,
    /// When it was started.
    pub started_at: DateTime<Utc>,
}

impl Checklist {
    /// Completes the list of what the server cannot tell.
    #[must_use]
    pub fn with_not_visible(mut self) -> Self {
        self.not_visible = vec![Unseen::Backup];
        if self.free_bytes.is_none() {
            self.not_visible.push(Unseen::FreeDisk);
        }
        if !self.sees_sessions {
            self.not_visible.push(Unseen::OtherSessions);
        }
        self
    }
}
