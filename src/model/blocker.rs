//! Sessions for which other sessions wait, because they hold a lock or an old snapshot. Events and errors describe both
//! in the same way.

use std::fmt;

use serde::Serialize;

use super::number;

/// The maximum number of holders of snapshots that are listed.
const NAMED: usize = 3;

/// A transaction that holds a lock, or a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Blocker {
    /// The process number; 0 for a prepared transaction.
    pub pid: i32,
    /// The role.
    pub user: String,
    /// The application; the name of a prepared transaction or of a replication slot.
    pub application: String,
    /// The state of the session: `active`, `idle in transaction`, `replication slot`.
    pub state: String,
    /// The start of the transaction, in the server's format.
    pub transaction_start: String,
    /// The start of the last query, in the server's format.
    pub query_start: String,
    /// The age of the transaction in milliseconds.
    pub age_ms: f64,
    /// Whether it is a client session of a role that is not a superuser.
    #[serde(skip)]
    pub ordinary: bool,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, user, application, state, transaction_start, query_start, .. } = self;
        if state == "replication slot" {
            return write!(f, "replication slot {application}");
        }
        if *pid == 0 {
            return write!(f, "prepared transaction {application} of {user}, since {transaction_start}");
        }
        write!(
            f,
            "pid {pid}, user {user}, application \"{application}\", {state}, transaction since {transaction_start}, \
             query since {query_start}"
        )
    }
}

/// A holder of an old snapshot, or a standby whose holders are not known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SnapshotHolder {
    /// The standby; none for the primary server.
    pub standby: Option<String>,
    /// The transaction.
    pub blocker: Option<Blocker>,
    /// The reason for which the holders on the standby are not known.
    pub unknown: Option<String>,
}

impl fmt::Display for SnapshotHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(standby) = &self.standby {
            write!(f, "standby {standby}: ")?;
        }
        match (&self.blocker, &self.unknown) {
            (Some(blocker), _) => blocker.fmt(f),
            (None, unknown) => f.write_str(unknown.as_deref().unwrap_or_default()),
        }
    }
}

/// All holders of old snapshots.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SnapshotHolders {
    /// The holders that are listed.
    pub named: Vec<SnapshotHolder>,
    /// The number of further holders.
    pub others: u64,
}

impl SnapshotHolders {
    /// Lists the first holders in `all`, and counts the others.
    pub fn new(mut all: Vec<SnapshotHolder>) -> Self {
        let others = all.len().saturating_sub(NAMED) as u64;
        all.truncate(NAMED);
        Self { named: all, others }
    }

    /// Whether there are no holders.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }
}

impl fmt::Display for SnapshotHolders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<String> = self.named.iter().map(ToString::to_string).collect();
        f.write_str(&named.join("; "))?;
        match self.others {
            0 => Ok(()),
            n => write!(f, "; and {}", number::counted(n, "other")),
        }
    }
}
