//! Computes the lag of a standby in seconds of the local clock: the time since the server passed the current position
//! of the standby.
//!
//! This needs no clock on the standby, and detects a standby that no longer answers: its position stays the same while
//! that of the server advances, because every evaluation of the signals writes WAL.

use std::collections::VecDeque;

/// The number of positions to keep: those of an hour at two per second. The lag of a standby that is behind all of them
/// is reported as at least that time.
const KEPT: usize = 7_200;

/// WAL positions of the server, with their times.
#[derive(Debug, Clone, Default)]
pub struct LagClock {
    places: VecDeque<(f64, u64)>,
}

impl LagClock {
    /// Records that the server was at position `place` at `at_s`.
    pub fn passed(&mut self, at_s: f64, place: u64) {
        if self.places.back().is_some_and(|(_, last)| *last >= place) {
            return;
        }
        if self.places.len() == KEPT {
            self.places.pop_front();
        }
        self.places.push_back((at_s, place));
    }

    /// The number of seconds for which a standby at `place` has been behind, at `at_s`; zero if no later position of
    /// the server is known.
    pub fn behind_s(&self, at_s: f64, place: u64) -> f64 {
        let next = self.places.partition_point(|(_, known)| *known <= place);
        self.places.get(next).map_or(0.0, |(passed_s, _)| at_s - passed_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_of_a_stalled_standby_grows() {
        let mut clock = LagClock::default();
        assert_eq!(clock.behind_s(0.0, 7), 0.0);
        for s in 0..100_u32 {
            clock.passed(f64::from(s), 1_000 + 10 * u64::from(s));
        }
        assert_eq!(clock.behind_s(99.5, 1_990), 0.0);
        assert_eq!(clock.behind_s(99.5, 1_985), 0.5);
        assert_eq!(clock.behind_s(99.5, 1_500), 48.5);
        assert_eq!(clock.behind_s(99.5, 3), 99.5);
        // The server is idle, and a standby that has replayed everything is not behind.
        clock.passed(500.0, 1_990);
        assert_eq!(clock.behind_s(600.0, 1_990), 0.0);
    }

    #[test]
    fn a_standby_behind_all_known_positions_has_the_longest_lag() {
        let mut clock = LagClock::default();
        for s in 0..100_000_u32 {
            clock.passed(f64::from(s), u64::from(s));
        }
        assert_eq!(clock.places.len(), KEPT);
        assert_eq!(clock.behind_s(100_000.0, 5), KEPT as f64);
    }
}
