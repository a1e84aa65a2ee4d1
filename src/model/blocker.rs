//! Sessions that others wait for: who holds a lock, and who holds a snapshot that is too old. Both are named the same way in
//! events and in errors.

use std::fmt;

use serde::Serialize;

use super::number;

/// So many holders of snapshots are named.
const NAMED: usize = 3;

/// A transaction that holds a lock, or a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Blocker {
    /// Its process; 0 for a prepared transaction.
    pub pid: i32,
    /// Its role.
    pub user: String,
    /// Its application; the name of a prepared transaction or of a replication slot.
    pub application: String,
    /// What its session does: `active`, `idle in transaction`, `replication slot`.
    pub state: String,
    /// When its transaction began, as the server writes it.
    pub transaction_start: String,
    /// When its last query began, as the server writes it.
    pub query_start: String,
    /// How old its transaction is.
    pub age_ms: f64,
    /// A client's session, and not a superuser's.
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

/// Who holds an older snapshot, or a standby of which that is not known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SnapshotHolder {
    /// The standby; none on the server itself.
    pub standby: Option<String>,
    /// The transaction.
    pub blocker: Option<Blocker>,
    /// Why the standby's transactions are not known.
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

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SnapshotHolders {
    /// The first few.
    pub named: Vec<SnapshotHolder>,
    /// How many there are besides.
    pub others: u64,
}

impl SnapshotHolders {
    /// Names the first few of `all`.
    pub fn new(mut all: Vec<SnapshotHolder>) -> Self {
        let others = all.len().saturating_sub(NAMED) as u64;
        all.truncate(NAMED);
        Self { named: all, others }
    }

    /// Whether there is none.
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
