//! The throttling signals: the name of each, its unit, and what it pauses.

use serde::{Serialize, Serializer};

/// The work for which the gate is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Reads only: paused by load, not by lag.
    Reads,
    /// Writes.
    Writes,
}

/// The unit of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Bytes.
    Bytes,
    /// A number of things.
    Count,
    /// A share, 0 to 1.
    Share,
}

/// The signals that can pause a job, in the order in which they are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// The server, if it does not respond at all.
    Signals,
    /// `pgstrata pause`.
    Paused,
    /// Sessions that wait for a lock that this job holds.
    BlockedSessions,
    /// A standby that has disappeared.
    ReplicaGone,
    /// The lag of the slowest standby, in time.
    ReplicaLag,
    /// The lag of the slowest standby, in WAL.
    ReplicaLagBytes,
    /// WAL that a replication slot retains.
    SlotRetained,
    /// The last run of the archiver failed.
    Archiver,
    /// An autovacuum of the source that prevents wraparound.
    WraparoundVacuum,
    /// Active sessions of others.
    ActiveBackends,
    /// The duration of a small transaction of the job.
    CommitLatency,
    /// The share of dead rows of a table.
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

    /// Its name in the log and in JSON, with its unit if it has one.
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

    /// Its unit.
    pub fn unit(self) -> Unit {
        match self {
            Self::ReplicaGone | Self::ReplicaLag => Unit::Seconds,
            Self::CommitLatency => Unit::Milliseconds,
            Self::ReplicaLagBytes | Self::SlotRetained => Unit::Bytes,
            Self::DeadShare => Unit::Share,
            _ => Unit::Count,
        }
    }

    /// Whether a chunk of the job is the cause, so that the next must be smaller.
    pub fn is_ours(self) -> bool {
        self == Self::BlockedSessions
    }

    /// Whether it pauses that work: reading adds nothing to any lag, and leaves no dead rows.
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
