//! The lag of a standby in seconds of our own clock: the time since the server was at the position where the standby
//! is now.
//!
//! It needs no clock on the standby, and notices one that no longer answers: its position stays the same while the
//! server's advances, because every evaluation of the signals writes something.

use std::collections::VecDeque;

/// The number of positions to keep: an hour's worth at two per second. A standby that is behind all of them lags by
/// at least that time.
const KEPT: usize = 7_200;

/// Positions of the server's WAL, with their times.
#[derive(Debug, Clone, Default)]
pub struct LagClock {
    places: VecDeque<(f64, u64)>,
}

impl LagClock {
    /// The server was at position `place` at `at_s`.
    pub fn passed(&mut self, at_s: f64, place: u64) {
        if self.places.back().is_some_and(|(_, last)| *last >= place) {
            return;
        }
        if self.places.len() == KEPT {
            self.places.pop_front();
        }
        self.places.push_back((at_s, place));
    }

    /// For how many seconds a standby at `place` has been behind, at `at_s`; zero: it is not behind as far as is
    /// known.
    pub fn behind_s(&self, at_s: f64, place: u64) -> f64 {
        let next = self.places.partition_point(|(_, known)| *known <= place);
        self.places.get(next).map_or(0.0, |(passed_s, _)| at_s - passed_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_that_stands_still_falls_behind() {
        let mut clock = LagClock::default();
        assert_eq!(clock.behind_s(0.0, 7), 0.0);
        for s in 0..100_u32 {
            clock.passed(f64::from(s), 1_000 + 10 * u64::from(s));
        }
        assert_eq!(clock.behind_s(99.5, 1_990), 0.0);
        assert_eq!(clock.behind_s(99.5, 1_985), 0.5);
        assert_eq!(clock.behind_s(99.5, 1_500), 48.5);
        assert_eq!(clock.behind_s(99.5, 3), 99.5);
        // An idle server: a standby that has everything is not behind.
        clock.passed(500.0, 1_990);
        assert_eq!(clock.behind_s(600.0, 1_990), 0.0);
    }

    #[test]
    fn whoever_is_behind_all_that_is_known_is_far_behind() {
        let mut clock = LagClock::default();
        for s in 0..100_000_u32 {
            clock.passed(f64::from(s), u64::from(s));
        }
        assert_eq!(clock.places.len(), KEPT);
        assert_eq!(clock.behind_s(100_000.0, 5), KEPT as f64);
    }
}
