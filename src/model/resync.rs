//! Decides whether to copy the table again instead of applying a change log that has outgrown it.
//!
//! The copy reads rows in order and writes them to a table without indexes. A drain looks up each row on both sides and
//! maintains every index, so it takes many times as long for each row.

use std::time::Duration;

/// How often a job copies its table again. The first time is for changes that were written while the first copy was slow, or
/// while indexes were built; the second, for a burst of changes during the first. If the log outgrows the table even then,
/// applications change most rows in the time of a copy, and the next copy would not end otherwise.
const MOST_RESYNCS: u64 = 2;
/// The least number of log entries for which it is worthwhile, as a share of the rows. The copy also reads the rows that have
/// not changed.
const LEAST_SHARE: f64 = 0.5;
/// The least time that the drain would take.
const LEAST_DRAIN: Duration = Duration::from_secs(60);
/// The least ratio of the time that the drain would take to that of the copy. Changes are written during the copy, too.
const LEAST_RATIO: f64 = 2.0;

/// What the first drain has left to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backlog {
    /// The number of entries in the compacted change log.
    pub entries: u64,
    /// The rate of the drain.
    pub drained_per_second: f64,
}

impl Backlog {
    /// The time until these entries are drained.
    pub fn drain_time(&self) -> Duration {
        Duration::try_from_secs_f64(self.entries as f64 / self.drained_per_second).unwrap_or(Duration::MAX)
    }
}

/// What the copy took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CopyCost {
    /// The number of rows that were copied.
    pub rows: u64,
    /// The time for the copy and the indexes.
    pub time: Duration,
    /// How often the job has copied the table again.
    pub resyncs: u64,
}

impl CopyCost {
    /// Whether to copy the table again.
    pub fn is_less_than(&self, backlog: &Backlog) -> bool {
        let drain = backlog.drain_time();
        self.resyncs < MOST_RESYNCS
            && backlog.entries as f64 >= LEAST_SHARE * self.rows as f64
            && drain >= LEAST_DRAIN
            && drain.as_secs_f64() >= LEAST_RATIO * self.time.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The case of the issue: 200,000 rows that take 2 s to copy, and a drain of 1,000 entries per second.
    const COPY: CopyCost = CopyCost { rows: 200_000, time: Duration::from_secs(2), resyncs: 0 };
    const LOG: Backlog = Backlog { entries: 200_000, drained_per_second: 1_000.0 };

    #[test]
    fn a_log_that_has_outgrown_the_table_is_not_drained() {
        assert_eq!(LOG.drain_time(), Duration::from_secs(200));
        assert!(COPY.is_less_than(&LOG));
    }

    #[test]
    fn a_log_with_few_of_the_rows_is_drained() {
        assert!(COPY.is_less_than(&Backlog { entries: 100_000, ..LOG }));
        assert!(!COPY.is_less_than(&Backlog { entries: 99_999, ..LOG }));
        assert!(!CopyCost { rows: 400_001, ..COPY }.is_less_than(&LOG));
    }

    #[test]
    fn a_drain_that_takes_a_short_time_continues() {
        assert!(!COPY.is_less_than(&Backlog { drained_per_second: 3_400.0, ..LOG }));
        assert!(COPY.is_less_than(&Backlog { drained_per_second: 3_300.0, ..LOG }));
        assert!(!COPY.is_less_than(&Backlog { entries: 0, drained_per_second: 0.0 }));
    }

    #[test]
    fn a_drain_that_is_about_as_fast_as_the_copy_continues() {
        assert!(!CopyCost { time: Duration::from_secs(101), ..COPY }.is_less_than(&LOG));
        assert!(CopyCost { time: Duration::from_secs(100), ..COPY }.is_less_than(&LOG));
        assert!(!CopyCost { time: Duration::MAX, ..COPY }.is_less_than(&LOG));
    }

    #[test]
    fn the_table_is_not_copied_again_and_again() {
        for (resyncs, again) in [(0, true), (1, true), (2, false), (3, false)] {
            assert_eq!(CopyCost { resyncs, ..COPY }.is_less_than(&LOG), again, "{resyncs}");
        }
    }

    #[test]
    fn a_stalled_drain_never_ends() {
        assert!(COPY.is_less_than(&Backlog { drained_per_second: 0.0, ..LOG }));
    }
}
