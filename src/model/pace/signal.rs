//! The throttling signals: the name of each, its unit, and the work that it throttles.

use serde::{Serialize, Serializer};

/// The kind of work that passes the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Work that only reads: throttled by load, but not by lag.
    Reads,
    /// Work that writes.
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
    /// A number of objects.
    Count,
    /// A share between 0 and 1.
    Share,
    /// None: the signal is either on (1) or off (0).
    OnOff,
}

/// The signals that can throttle a job, in the order in which they are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// The signals of the server cannot be read.
    Signals,
    /// The job was paused with `pgstrata pause`.
    Paused,
    /// Sessions that wait for a lock that this job holds.
    BlockedSessions,
    /// A standby that is disconnected.
    ReplicaGone,
    /// The lag of the slowest standby, in seconds.
    ReplicaLag,
    /// The lag of the slowest standby, in bytes of WAL.
    ReplicaLagBytes,
    /// WAL that a replication slot retains.
    SlotRetained,
    /// The last run of the archiver failed.
    Archiver,
    /// A vacuum of the source to prevent wraparound.
    WraparoundVacuum,
    /// Active sessions other than those of the job.
    ActiveBackends,
    /// The duration of the job's small transaction.
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

    /// The name in the log and in JSON, with the unit if there is one.
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

    /// The signal with that name; none if this version has no such signal.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }

    /// The unit of the value.
    pub fn unit(self) -> Unit {
        match self {
            Self::ReplicaGone | Self::ReplicaLag => Unit::Seconds,
            Self::CommitLatency => Unit::Milliseconds,
            Self::ReplicaLagBytes | Self::SlotRetained => Unit::Bytes,
            Self::DeadShare => Unit::Share,
            Self::Signals | Self::Paused | Self::Archiver | Self::WraparoundVacuum => Unit::OnOff,
            _ => Unit::Count,
        }
    }

    /// Whether a chunk of the job causes the signal, so that the next chunk must be smaller.
    pub fn is_ours(self) -> bool {
        self == Self::BlockedSessions
    }

    /// Whether the signal throttles that work. Work that only reads increases no lag and leaves no dead rows.
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
    fn names_round_trip() {
        for signal in Signal::ALL {
            assert_eq!(Signal::parse(signal.name()), Some(signal));
        }
        assert_eq!(Signal::parse("replica_lag"), None);
    }
}
