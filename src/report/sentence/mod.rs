//! The sentences for events. A snapshot test contains each of them.

mod note;
mod phase;
mod throttle;
mod warning;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

use crate::event::Event;

pub(super) use throttle::hold as throttled;

/// The sentence for an event; none for a story or findings, which have their own text.
pub(super) fn of(event: &Event) -> Option<String> {
    match event {
        Event::PhaseStarted { work, .. } => Some(phase::work(work)),
        Event::Progress { done, total, unit, per_second, eta_s, .. } => {
            Some(phase::progress([*done, *total], unit, *per_second, *eta_s))
        }
        Event::PhaseDone { outcome, .. } => Some(phase::outcome(outcome)),
        Event::Throttled { hold, .. } => Some(throttle::hold_of(hold)),
        Event::Resumed { signal, throttled_s, .. } => Some(throttle::resumed(*signal, *throttled_s)),
        Event::Story { .. } | Event::Checked(_) => None,
        Event::Maintained(done) => Some(done.to_string()),
        Event::Note(note) => Some(note::of(note)),
        Event::Warning(warning) => Some(warning::of(warning)),
    }
}
