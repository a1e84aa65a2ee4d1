//! Detects and reports that the drain does not keep up with the writers.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::event::ChangeLogWarning;
use crate::phase::job::meter::Meter;
use crate::phase::partition::PartitionJob;

/// How often this is reported.
const REPORT_EVERY: Duration = Duration::from_secs(60);
/// If a pass over the log takes at least this share of the time of the previous pass, the next pass will find as many
/// changes.
const NO_LESS: f64 = 0.8;
/// After this many such passes in a row, the drain has stalled.
const STALLED: u32 = 3;

/// The size of the change log.
#[derive(Debug, Clone, Copy)]
pub struct Pending {
    /// Its number of rows.
    pub changes: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Compares the rates of the drain and the writers.
#[derive(Debug, Default)]
pub struct Deficit {
    reported: Cell<Option<Instant>>,
    before: Cell<Option<Duration>>,
    no_less: Cell<u32>,
}

impl Deficit {
    /// Records that `written` changes were added and `drained` changes were applied in `time`; `log` is the current
    /// size.
    pub fn measured(
        &self,
        context: &PartitionJob,
        meter: Option<&Meter<'_>>,
        time: Duration,
        [written, drained]: [u64; 2],
        log: Pending,
    ) {
        let keeps_up = written < drained;
        if let Some(meter) = meter {
            meter.left(keeps_up.then_some(log.changes));
        }
        if keeps_up || self.reported.get().is_some_and(|at| at.elapsed() < REPORT_EVERY) {
            return;
        }
        self.reported.set(Some(Instant::now()));
        context.events.warn(too_slow(time, [written, drained], log));
    }

    /// Records a pass over the log that took `time`; returns whether passes no longer get shorter.
    pub fn stalled(&self, time: Duration) -> bool {
        let no_less = self.before.replace(Some(time)).is_some_and(|before| time >= before.mul_f64(NO_LESS));
        self.no_less.set(if no_less { self.no_less.get() + 1 } else { 0 });
        self.no_less.get() >= STALLED
    }
}

fn too_slow(time: Duration, [written, drained]: [u64; 2], log: Pending) -> ChangeLogWarning {
    let per_second = |n: u64| n as f64 / time.as_secs_f64().max(0.001);
    let more = per_second(written) - per_second(drained);
    ChangeLogWarning::DrainTooSlow {
        written_per_second: per_second(written),
        drained_per_second: per_second(drained),
        changes: log.changes,
        bytes: log.bytes,
        growth_per_minute: (more * 60.0).round() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_that_get_shorter_do_not_stall() {
        let stalled = |seconds: &[u64]| {
            let deficit = Deficit::default();
            seconds.iter().any(|s| deficit.stalled(Duration::from_secs(*s)))
        };
        assert!(!stalled(&[100, 70, 50, 30, 20, 10, 5, 3, 2, 1]));
        assert!(!stalled(&[100, 100, 100, 50, 50, 50, 20]));
        assert!(stalled(&[100, 20, 20, 19, 20]));
        assert!(stalled(&[1, 2, 4, 8]));
    }

    #[test]
    fn the_warning_has_rates_and_growth() {
        let log = Pending { changes: 2_300_000, bytes: 157_286_400 };
        assert_eq!(
            too_slow(Duration::from_secs(10), [1_140_000, 100_000], log),
            ChangeLogWarning::DrainTooSlow {
                written_per_second: 114_000.0,
                drained_per_second: 10_000.0,
                changes: 2_300_000,
                bytes: 157_286_400,
                growth_per_minute: 6_240_000,
            }
        );
    }
}
