//! The pace of a job: readings of signals determine whether the job continues or is throttled. Every hold has a
//! signal, a value and a limit.
//!
//! Times are parameters, in seconds of any monotonic clock, so that tests can replay recorded readings. A signal has
//! two thresholds, the limit and four fifths of it, to prevent flapping. A signal that cannot be read throttles the job:
//! immediately if it has never been read, otherwise when the last reading is too old.

mod autoscaler;
mod budget;
mod cause;
mod closed;
mod lag;
mod signal;
mod standbys;
#[cfg(test)]
mod tests;
mod windows;

use std::collections::BTreeMap;

use serde::Serialize;

pub use autoscaler::{Autoscaler, MOST_WORKERS, Measured};
pub use budget::Budget;
pub use cause::Cause;
pub use closed::ClosedWindows;
pub use lag::LagClock;
pub use signal::{Signal, Unit, Work};
pub use standbys::{Behind, Standby, Standbys};
pub use windows::Windows;

/// A signal that was over its limit resumes the job when it is at or below this share of the limit.
const RESUME_SHARE: f64 = 0.8;
/// How long the last reading of a signal is valid, in seconds.
pub const STALE_S: f64 = 15.0;

/// A reading of one signal.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The signal.
    pub signal: Signal,
    /// The value, or the reason for which it is not known.
    pub value: Result<f64, Cause>,
    /// The limit, above which the signal throttles the job.
    pub limit: f64,
    /// The object to which the value belongs.
    pub cause: Option<Cause>,
}

/// The reason for which the job is throttled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hold {
    /// The signal.
    pub signal: Signal,
    /// Its last value; for a signal that cannot be read, the seconds since it could be read.
    pub value: f64,
    /// Its limit; for a signal that cannot be read, the maximum age of a reading.
    pub limit: f64,
    /// The object to which the value belongs, or the reason for which it cannot be read.
    pub cause: Option<Cause>,
    /// The start of the hold.
    #[serde(skip)]
    pub since_s: f64,
    /// Whether the signal throttles the job because it cannot be read.
    pub unread: bool,
}

/// A change after a reading.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A signal throttles the job.
    Throttled(Hold),
    /// A signal no longer throttles the job.
    Resumed {
        /// The signal.
        signal: Signal,
        /// The duration of the hold, in seconds.
        throttled_s: f64,
    },
}

#[derive(Debug, Clone, Default)]
struct SignalState {
    read_s: Option<f64>,
    hold: Option<Hold>,
}

/// The state of every signal.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    states: BTreeMap<Signal, SignalState>,
    observed: bool,
}

impl Pace {
    /// Processes the readings at `at_s`, one for each signal. A signal without a reading no longer throttles the job.
    pub fn observe(&mut self, at_s: f64, readings: &[Reading]) -> Vec<Change> {
        self.observed = true;
        let seen = Reading { signal: Signal::Signals, value: Ok(0.0), limit: 0.0, cause: None };
        let mut changes: Vec<Change> =
            self.states.entry(Signal::Signals).or_default().take(at_s, &seen).into_iter().collect();
        let unwatched: Vec<Signal> = self
            .states
            .keys()
            .filter(|signal| **signal != Signal::Signals && readings.iter().all(|r| r.signal != **signal))
            .copied()
            .collect();
        for signal in unwatched {
            if let Some(hold) = self.states.remove(&signal).and_then(|state| state.hold) {
                changes.push(Change::Resumed { signal, throttled_s: at_s - hold.since_s });
            }
        }
        for reading in readings {
            changes.extend(self.states.entry(reading.signal).or_default().take(at_s, reading));
        }
        changes
    }

    /// Records that no signal could be read at `at_s`. Signals that throttle the job continue to do so.
    pub fn blind(&mut self, at_s: f64, why: Cause) -> Vec<Change> {
        let reading = Reading { signal: Signal::Signals, value: Err(why), limit: 0.0, cause: None };
        self.states.entry(Signal::Signals).or_default().take(at_s, &reading).into_iter().collect()
    }

    /// The signals that throttle `work`, most important first.
    pub fn holds(&self, work: Work) -> impl Iterator<Item = &Hold> {
        self.states
            .values()
            .filter_map(|state| state.hold.as_ref())
            .filter(move |hold| hold.signal.stops(work))
    }

    /// Whether `work` may continue. Before the first reading, no work may begin.
    pub fn may_continue(&self, work: Work) -> bool {
        self.observed && self.holds(work).next().is_none()
    }
}

impl SignalState {
    fn take(&mut self, at_s: f64, reading: &Reading) -> Option<Change> {
        let Reading { signal, limit, .. } = *reading;
        let hold =
            |value, limit, cause, since_s, unread| Hold { signal, value, limit, cause, since_s, unread };
        let since_s = self.hold.as_ref().map_or(at_s, |hold| hold.since_s);
        let next = match &reading.value {
            Ok(value) => {
                self.read_s = Some(at_s);
                // After a hold because the signal could not be read, the limit itself applies.
                let over = match &self.hold {
                    // A disconnected standby throttles the job immediately. The limit of this signal is the time after
                    // which the standby is ignored.
                    _ if signal == Signal::ReplicaGone => *value > 0.0,
                    Some(hold) if !hold.unread => *value > limit * RESUME_SHARE,
                    _ => *value > limit,
                };
                over.then(|| hold(*value, limit, reading.cause.clone(), since_s, false))
            }
            Err(why) => {
                let age_s = self.read_s.map(|read_s| at_s - read_s);
                match age_s {
                    Some(age_s) if age_s <= STALE_S => self.hold.clone(),
                    _ => {
                        let age_s = age_s.unwrap_or(at_s - since_s);
                        Some(hold(age_s, STALE_S, Some(why.clone()), since_s, true))
                    }
                }
            }
        };
        let was = std::mem::replace(&mut self.hold, next);
        match (was, &self.hold) {
            (None, Some(hold)) => Some(Change::Throttled(hold.clone())),
            (Some(was), None) => Some(Change::Resumed { signal, throttled_s: at_s - was.since_s }),
            _ => None,
        }
    }
}
