//! The events of a run, as data: names, numbers with units, enums. Only `report/` turns them into sentences and prints
//! them.
//!
//! With `--json`, the variant names in snake case are the codes, and the field names are the keys. Both are stable.
//! `docs/commands.md` lists them; a test in `report::sentence` compares.

/// Converts an event of a topic to an event of all topics.
macro_rules! from_topics {
    ($all:ident: $($topic:ident($of_topic:ty)),+) => {
        $(impl From<$of_topic> for $all {
            fn from(one: $of_topic) -> Self {
                Self::$topic(one)
            }
        })+
    };
}

mod note;
mod phase;
mod warning;

use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::model::finding::Findings;
use crate::model::maintained::Maintained;
use crate::model::pace::{Hold, Signal};

pub use note::{BackfillNote, JobNote, MaintainNote, Note, PartitionNote, StandbyEffect};
pub use phase::{ColumnWork, ConstraintWork, DemoWork, EndWork, PhaseOutcome, PhaseWork, TableWork};
pub use warning::{ChangeLogWarning, KeptWarning, LockWarning, RunWarning, ThrottleWarning, Undone, Warning};

/// An event.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A phase begins.
    PhaseStarted {
        /// The job's name.
        job: String,
        /// The phase.
        phase: &'static str,
        /// What it does.
        #[serde(flatten)]
        work: PhaseWork,
    },
    /// The progress of the current phase; sent at most twice per second.
    Progress {
        /// The job's name.
        job: String,
        /// The phase.
        phase: &'static str,
        /// The number of units done.
        done: u64,
        /// The total number of units, as far as known; it can grow.
        total: u64,
        /// The unit: rows, indexes, changes.
        unit: &'static str,
        /// Units per second, over the last seconds.
        per_second: f64,
        /// The estimated number of seconds left, if known.
        eta_s: Option<u64>,
    },
    /// A phase has ended.
    PhaseDone {
        /// The job's name.
        job: String,
        /// The phase.
        phase: &'static str,
        /// Its result.
        #[serde(flatten)]
        outcome: PhaseOutcome,
        /// How long it took, in milliseconds.
        duration_ms: f64,
    },
    /// A signal throttles the job.
    Throttled {
        /// The job's name.
        job: String,
        /// The signal, its value and its limit.
        #[serde(flatten)]
        hold: Hold,
    },
    /// A signal no longer throttles the job.
    Resumed {
        /// The job's name.
        job: String,
        /// The signal.
        signal: Signal,
        /// For how long it throttled the job, in seconds.
        throttled_s: f64,
    },
    /// The demo explains what it does.
    Story {
        /// The title of the step; empty if the text continues the previous step.
        title: String,
        /// Lines of text.
        text: String,
    },
    /// The findings of the check at the start of a job.
    Checked(Findings),
    /// What `maintain` did on one table.
    Maintained(Maintained),
    /// Information that needs no action.
    Note(Note),
    /// A problem that may need action.
    Warning(Warning),
}

/// A sender of events. Clones share one stream.
#[derive(Debug, Clone)]
pub struct Events(UnboundedSender<Event>);

impl Events {
    /// Creates a stream. Returns its sender and its receiver.
    pub fn channel() -> (Self, UnboundedReceiver<Event>) {
        let (tx, rx) = unbounded_channel();
        (Self(tx), rx)
    }

    /// Sends `event`. It is not an error if the receiver is closed.
    pub fn send(&self, event: Event) {
        let _ = self.0.send(event);
    }

    /// Sends a note.
    pub fn note(&self, note: impl Into<Note>) {
        self.send(Event::Note(note.into()));
    }

    /// Sends a warning.
    pub fn warn(&self, warning: impl Into<Warning>) {
        self.send(Event::Warning(warning.into()));
    }

    /// Reports that a phase begins. Returns the name of the phase.
    pub fn phase_started(&self, job: &str, work: impl Into<PhaseWork>) -> &'static str {
        let work = work.into();
        let phase = work.phase();
        self.send(Event::PhaseStarted { job: job.to_owned(), phase, work });
        phase
    }

    /// Reports that a phase has ended after `took`.
    pub fn phase_done(&self, job: &str, phase: &'static str, outcome: PhaseOutcome, took: Duration) {
        let duration_ms = took.as_micros() as f64 / 1000.0;
        self.send(Event::PhaseDone { job: job.to_owned(), phase, outcome, duration_ms });
    }
}
