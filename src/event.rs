//! Everything the outside may observe while a job runs. `report/` is the only printer.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What a running job says.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A phase begins.
    Phase {
        /// The job's name.
        job: String,
        /// The phase: prepare, capture, copy, scrub, index, drain, verify, swap, rollback, finalize, abort.
        phase: &'static str,
        /// What it does, in plain words.
        about: String,
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
        /// Seconds left, where it can be said.
        eta_s: Option<u64>,
    },
    /// A phase has ended.
    Done {
        /// The job's name.
        job: String,
        /// The phase.
        phase: &'static str,
        /// What came of it, in plain words.
        about: String,
        /// How long it took, in seconds.
        seconds: f64,
    },
    /// A signal holds the job.
    Hold {
        /// The job's name.
        job: String,
        /// The signal.
        signal: &'static str,
        /// What it is.
        value: f64,
        /// What it may be.
        limit: f64,
        /// Signal, value, limit and whose, in plain words.
        about: String,
    },
    /// A signal holds the job no longer.
    GoOn {
        /// The job's name.
        job: String,
        /// The signal.
        signal: &'static str,
        /// For how long it held, in seconds.
        seconds: f64,
    },
    /// The demo tells what it does and why.
    Story {
        /// The step; empty where the text goes on with the one before.
        title: String,
        /// Lines of text.
        text: String,
    },
    /// Something worth knowing that changes nothing.
    Note {
        /// The sentence.
        text: String,
    },
    /// Something to look at.
    Warning {
        /// The sentence.
        text: String,
    },
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

    /// Says `event`; nobody listening is no error.
    pub fn send(&self, event: Event) {
        let _ = self.0.send(event);
    }

    /// Says a note.
    pub fn note(&self, text: impl Into<String>) {
        self.send(Event::Note { text: text.into() });
    }

    /// Says a warning.
    pub fn warn(&self, text: impl Into<String>) {
        self.send(Event::Warning { text: text.into() });
    }

    /// Says that a phase begins.
    pub fn phase(&self, job: &str, phase: &'static str, about: impl Into<String>) {
        self.send(Event::Phase { job: job.to_owned(), phase, about: about.into() });
    }

    /// Says that a phase has ended after `took`.
    pub fn done(&self, job: &str, phase: &'static str, about: impl Into<String>, took: Duration) {
        self.send(Event::Done {
            job: job.to_owned(),
            phase,
            about: about.into(),
            seconds: took.as_secs_f64(),
        });
    }
}
