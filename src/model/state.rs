//! The states of a job. Their names are stored, and `status` prints them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The states of a job. Each is reached when the corresponding step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The job is recorded; nothing has been created yet.
    Planned,
    /// Target and partitions exist.
    Prepared,
    /// Changes to the source are logged; the copy is in progress.
    Capturing,
    /// For a backfill or a column type change: every selected row is filled, except those that were locked.
    Filled,
    /// Every chunk is copied, and rows that changed in the meantime are scrubbed.
    Copied,
    /// Every index is built.
    Indexed,
    /// The change log was drained completely once. From this state on, the invariant of the verification holds.
    Synced,
    /// Source and target were compared and match.
    Verified,
    /// Applications use the partitioned table; the old one is kept in sync.
    Swapped,
    /// Applications use the source again; the target is kept in sync.
    RolledBack,
    /// The rollback window is closed. Final.
    Finalized,
    /// Everything that the job created is removed. Final.
    Aborted,
}

/// The steps that change the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Create the target.
    Prepare,
    /// Log changes.
    Capture,
    /// Fill rows.
    Fill,
    /// Copy and scrub.
    Copy,
    /// Build indexes.
    Index,
    /// Drain the log completely.
    Drain,
    /// Remove the copy, to copy again.
    Resync,
    /// Compare.
    Verify,
    /// Exchange the names.
    Swap,
    /// Exchange the names back.
    Rollback,
    /// Build the constraints and indexes of the filled columns.
    Finish,
    /// End the rollback window.
    Finalize,
    /// Remove everything.
    Abort,
}

impl State {
    /// All states, in order.
    pub const ALL: [Self; 12] = [
        Self::Planned,
        Self::Prepared,
        Self::Capturing,
        Self::Filled,
        Self::Copied,
        Self::Indexed,
        Self::Synced,
        Self::Verified,
        Self::Swapped,
        Self::RolledBack,
        Self::Finalized,
        Self::Aborted,
    ];

    /// The state after `step` in this state; none if this state does not allow the step.
    pub fn next(self, step: Step) -> Option<Self> {
        use State as S;
        match (self, step) {
            (S::Planned, Step::Prepare) => Some(S::Prepared),
            (S::Prepared, Step::Capture) => Some(S::Capturing),
            (S::Capturing, Step::Fill) => Some(S::Filled),
            (S::Filled | S::Indexed, Step::Verify) => Some(S::Verified),
            (S::Verified, Step::Finish) => Some(S::Finalized),
            (S::Capturing, Step::Copy) => Some(S::Copied),
            (S::Copied | S::Filled, Step::Index) => Some(S::Indexed),
            (S::Indexed, Step::Drain) => Some(S::Synced),
            // Only before the first drain is complete: nobody relies on the copy yet.
            (S::Indexed, Step::Resync) => Some(S::Capturing),
            (S::Synced | S::Verified | S::Swapped | S::RolledBack, Step::Drain) => Some(self),
            (S::Synced | S::Verified, Step::Verify) => Some(S::Verified),
            (S::Swapped | S::RolledBack, Step::Verify) => Some(self),
            (S::Verified | S::RolledBack, Step::Swap) => Some(S::Swapped),
            (S::Swapped, Step::Rollback) => Some(S::RolledBack),
            (S::Swapped, Step::Finalize) => Some(S::Finalized),
            (
                S::Planned
                | S::Prepared
                | S::Capturing
                | S::Filled
                | S::Copied
                | S::Indexed
                | S::Synced
                | S::Verified
                | S::RolledBack,
                Step::Abort,
            ) => Some(S::Aborted),
            _ => None,
        }
    }

    /// Whether a job that logs changes does so in this state.
    pub fn is_captured(self) -> bool {
        !matches!(self, Self::Planned | Self::Prepared | Self::Finalized | Self::Aborted)
    }

    /// Whether the job has ended, so that its name is free.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Finalized | Self::Aborted)
    }

    /// The stored name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Prepared => "prepared",
            Self::Capturing => "capturing",
            Self::Filled => "filled",
            Self::Copied => "copied",
            Self::Indexed => "indexed",
            Self::Synced => "synced",
            Self::Verified => "verified",
            Self::Swapped => "swapped",
            Self::RolledBack => "rolled_back",
            Self::Finalized => "finalized",
            Self::Aborted => "aborted",
        }
    }

    /// The state with that stored name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == name)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Step; 13] = [
        Step::Prepare,
        Step::Capture,
        Step::Fill,
        Step::Copy,
        Step::Index,
        Step::Drain,
        Step::Resync,
        Step::Verify,
        Step::Swap,
        Step::Rollback,
        Step::Finish,
        Step::Finalize,
        Step::Abort,
    ];

    #[test]
    fn names_round_trip() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("swaped"), None);
    }

    #[test]
    fn final_states_and_illegal_steps_have_no_successor() {
        for step in STEPS {
            assert_eq!(State::Finalized.next(step), None);
            assert_eq!(State::Aborted.next(step), None);
        }
        // A swap needs a verified (or rolled back) job; an abort never follows a swap.
        for state in State::ALL {
            assert_eq!(state.next(Step::Resync).is_some(), state == State::Indexed, "{state}");
            assert_eq!(state.next(Step::Finish).is_some(), state == State::Verified, "{state}");
            let may_swap = matches!(state, State::Verified | State::RolledBack);
            assert_eq!(state.next(Step::Swap).is_some(), may_swap, "{state}");
            assert_eq!(state.next(Step::Rollback).is_some(), state == State::Swapped, "{state}");
            assert_eq!(state.next(Step::Finalize).is_some(), state == State::Swapped, "{state}");
            let early = matches!(
                state,
                State::Planned | State::Prepared | State::Capturing | State::Filled | State::Copied
            );
            assert_eq!(state.next(Step::Drain).is_none(), early || state.is_final(), "{state}");
        }
        assert_eq!(State::Swapped.next(Step::Abort), None);
    }
}
