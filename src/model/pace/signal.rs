//! The signals there are: what each is called, what it is counted in, and what it stops.

use serde::{Serialize, Serializer};

/// What is done while the gate is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// It reads only: lag does not stop it, load does.
    Reads,
    /// It writes.
    Writes,
}

/// What a signal is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Bytes.
    Bytes,
    /// Things.
    Count,
    /// A part of a whole, 0 to 1.
    Share,
}

/// What can hold a job; in the order in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// The server, which did not say anything at all.
    Signals,
    /// Somebody said `pgstrata pause`.
    Paused,
    /// Sessions that wait for a lock that this job holds.
    BlockedSessions,
    /// A standby that was there is not.
    ReplicaGone,
    /// How far the slowest standby is behind, in time.
    ReplicaLag,
    /// How far the slowest standby is behind, in WAL.
    ReplicaLagBytes,
    /// WAL that a replication slot keeps.
    SlotRetained,
    /// The archiver's last try failed.
    Archiver,
    /// An autovacuum of the source that prevents wraparound.
    WraparoundVacuum,
    /// Sessions of others that are at work.
    ActiveBackends,
    /// How long a tiny transaction of ours takes.
    CommitLatency,
    /// How much of a table is dead rows.
    DeadShare,
    /// The user's own query.
    Query,
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Signal {
    /// All signals.
    pub const ALL: [Self; 13] = [
        Self::Signals,
        Self::Paused,
        Self::BlockedSessions,
        Self::ReplicaGone,
        Self::ReplicaLag,
        Self::ReplicaLagBytes,
        Self::SlotRetained,
        Self::Archiver,
        Self::WraparoundVacuum,
        Self::ActiveBackends,
        Self::CommitLatency,
        Self::DeadShare,
        Self::Query,
    ];

    /// As the log and the JSON call it; with its unit, where it has one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Signals => "signals",
            Self::Paused => "paused",
            Self::BlockedSessions => "blocked_sessions",
            Self::ReplicaGone => "replica_gone_s",
            Self::ReplicaLag => "replica_lag_s",
            Self::ReplicaLagBytes => "replica_lag_bytes",
            Self::SlotRetained => "slot_retained_bytes",
            Self::Archiver => "archiver_failing",
            Self::WraparoundVacuum => "wraparound_vacuum",
            Self::ActiveBackends => "active_backends",
            Self::CommitLatency => "commit_latency_ms",
            Self::DeadShare => "dead_share",
            Self::Query => "query",
        }
    }

    /// The signal of that name; none where this version has no such signal.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }

    /// What it is counted in.
    pub fn unit(self) -> Unit {
        match self {
            Self::ReplicaGone | Self::ReplicaLag => Unit::Seconds,
            Self::CommitLatency => Unit::Milliseconds,
            Self::ReplicaLagBytes | Self::SlotRetained => Unit::Bytes,
            Self::DeadShare => Unit::Share,
            _ => Unit::Count,
        }
    }

    /// Whether a chunk of ours is what is wrong, so that the next must be smaller.
    pub fn is_ours(self) -> bool {
        self == Self::BlockedSessions
    }

    /// Whether it stops that work: who only reads adds nothing to any lag, and leaves no dead rows.
    pub fn stops(self, work: Work) -> bool {
        let of_writes = matches!(
            self,
            Self::ReplicaGone
                | Self::ReplicaLag
                | Self::ReplicaLagBytes
                | Self::SlotRetained
                | Self::Archiver
                | Self::DeadShare
        );
        work == Work::Writes || !of_writes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for signal in Signal::ALL {
            assert_eq!(Signal::parse(signal.name()), Some(signal));
        }
        assert_eq!(Signal::parse("replica_lag"), None);
    }
}
