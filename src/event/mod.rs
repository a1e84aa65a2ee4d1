//! What can be observed while a job runs, as facts: names, numbers with their units, enums. `report/` makes the sentences, and is
//! the only printer.
//!
//! The names of the variants in snake case are the codes of `--json`, and the names of the fields are its keys: both stay.

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

/// One thing that was observed.
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
    /// How far the present phase is; sent at most twice a second.
    Progress {
        /// The job's name.
        job: String,
        /// The phase.
        phase: &'static str,
        /// Units done.
        done: u64,
        /// Units in all, as far as known; it may grow.
        total: u64,
        /// What is counted: rows, indexes, changes.
        unit: &'static str,
        /// Units a second over the last seconds.
        per_second: f64,
        /// Seconds left, where they can be estimated.
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
        /// The step; empty where the text continues the one before.
        title: String,
        /// Lines of text.
        text: String,
    },
    /// The findings of the check with which a run starts its job.
    Checked(Findings),
    /// What `maintain` found and did with one table.
    Maintained(Maintained),
    /// Something worth knowing that needs no action.
    Note(Note),
    /// Something to look at.
    Warning(Warning),
}

/// Where events go; clones share one stream.
#[derive(Debug, Clone)]
pub struct Events(UnboundedSender<Event>);

impl Events {
    /// A stream and its reading end.
    pub fn channel() -> (Self, UnboundedReceiver<Event>) {
        let (tx, rx) = unbounded_channel();
        (Self(tx), rx)
    }

    /// Sends `event`; that nobody listens is no error.
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

    /// Reports that a phase begins; its name.
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
