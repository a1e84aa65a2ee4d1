//! The number of workers: a fixed number, or a number that adapts to the server.
//!
//! The autoscaler tries one more worker. It keeps that number if the throughput increases by at least a third of the
//! previous mean throughput of a worker, and if the server still executes a small transaction about as fast as before:
//! if a core is idle, another worker does not slow down other sessions; if not, it multiplies the duration of a small
//! transaction. In the same way, it tries one worker fewer, and keeps that number if the throughput decreases by less
//! than that, or if the server becomes faster by the same factor. After an unsuccessful try, the time until the next
//! try doubles, so that the number settles. When the job is throttled, the number is halved: whatever the signal, fewer
//! workers would have been better.

/// The maximum number of workers.
pub const MOST_WORKERS: usize = 64;

/// The share of a worker's mean throughput that another worker must add.
const WORTH: f64 = 1.0 / 3.0;
/// The factor by which another worker may slow down a short transaction. Measured on two cores, with 300 transactions
/// per second: the median is 0.6 ms without or with one worker, and 2.2 to 2.9 ms with two.
const SLOWER: f64 = 1.5;
/// The number of measurements between two tries, initially and at most.
const CALM: u32 = 4;
const MOST_CALM: u32 = 256;
/// The weight of a new measurement in the mean for a settled number.
const NEW: f64 = 0.3;

#[derive(Debug, Clone, Copy, PartialEq)]
enum WorkerTrial {
    /// No trial is in progress.
    None,
    /// One worker more than the settled number.
    More,
    /// One worker fewer than the settled number.
    Fewer,
}

/// A measurement of the throughput of a number of workers, and of the latency.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Units per second.
    pub per_second: f64,
    /// The median duration of the job's small transaction in that time, in milliseconds.
    pub latency_ms: f64,
}

/// Determines the number of workers.
#[derive(Debug, Clone)]
pub struct Autoscaler {
    workers: usize,
    /// The maximum to try; none if the number is fixed.
    most: Option<usize>,
    /// The measurement of the settled number.
    settled: Option<Measured>,
    trial: WorkerTrial,
    calm: u32,
    wait: u32,
    next: WorkerTrial,
    /// Whether the next measurement includes the previous number of workers and is ignored.
    mixed: bool,
}

impl Autoscaler {
    /// Creates one with a fixed number.
    pub fn fixed(workers: usize) -> Self {
        Self { workers: workers.clamp(1, MOST_WORKERS), most: None, ..Self::auto(1, 1) }
    }

    /// Creates one that adapts the number from 1 to `most`, and starts with `first`. If that is more than one, it first
    /// tries fewer workers.
    pub fn auto(first: usize, most: usize) -> Self {
        let most = most.clamp(1, MOST_WORKERS);
        Self {
            workers: first.clamp(1, most),
            most: Some(most),
            settled: None,
            trial: WorkerTrial::None,
            calm: CALM,
            wait: 0,
            next: if first > 1 { WorkerTrial::Fewer } else { WorkerTrial::More },
            mixed: false,
        }
    }

    /// The current number of workers.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Limits the number from now on, because the server accepts no more sessions; returns whether it was higher.
    pub fn at_most(&mut self, workers: usize) -> bool {
        let most = workers.clamp(1, MOST_WORKERS);
        self.most = self.most.map(|was| was.min(most));
        if self.workers <= most {
            return false;
        }
        self.change(most);
        (self.settled, self.trial) = (None, WorkerTrial::None);
        true
    }

    /// Records that a signal throttles the job.
    pub fn held(&mut self) {
        if self.most.is_some() {
            self.change((self.workers / 2).max(1));
            self.settled = None;
            self.trial = WorkerTrial::None;
            self.fail();
        }
    }

    /// Processes a measurement during which the job was not throttled.
    pub fn measured(&mut self, now: Measured) {
        let Some(most) = self.most else { return };
        if std::mem::take(&mut self.mixed) {
            return;
        }
        let base = self.settled.unwrap_or(now);
        match self.trial {
            WorkerTrial::None => self.settle(now, most),
            WorkerTrial::More => {
                let share = base.per_second / (self.workers - 1).max(1) as f64;
                let brings = now.per_second >= base.per_second + WORTH * share;
                let is_felt = now.latency_ms > SLOWER * base.latency_ms;
                self.judge(now, brings && !is_felt, self.workers - 1);
            }
            WorkerTrial::Fewer => {
                let share = base.per_second / (self.workers + 1) as f64;
                let loses = now.per_second < base.per_second - WORTH * share;
                let was_felt = base.latency_ms > SLOWER * now.latency_ms;
                self.judge(now, !loses || was_felt, self.workers + 1);
            }
        }
    }

    /// Records that another kind of work begins, to which previous measurements do not apply.
    pub fn begins(&mut self) {
        if self.most.is_some() {
            if self.trial == WorkerTrial::More {
                self.change(self.workers - 1);
            }
            (self.settled, self.trial, self.calm, self.wait) = (None, WorkerTrial::None, CALM, 0);
        }
    }

    fn settle(&mut self, now: Measured, most: usize) {
        self.settled = Some(self.settled.map_or(now, |was| Measured {
            per_second: was.per_second + NEW * (now.per_second - was.per_second),
            latency_ms: was.latency_ms + NEW * (now.latency_ms - was.latency_ms),
        }));
        self.wait = self.wait.saturating_sub(1);
        if self.wait > 0 {
            return;
        }
        let trial = match self.next {
            WorkerTrial::Fewer if self.workers > 1 => WorkerTrial::Fewer,
            _ if self.workers < most => WorkerTrial::More,
            _ if self.workers > 1 => WorkerTrial::Fewer,
            _ => return,
        };
        self.trial = trial;
        self.change(if trial == WorkerTrial::More { self.workers + 1 } else { self.workers - 1 });
    }

    fn judge(&mut self, now: Measured, pays: bool, former: usize) {
        let trial = std::mem::replace(&mut self.trial, WorkerTrial::None);
        if pays {
            self.settled = Some(now);
            (self.calm, self.wait, self.next) = (CALM, 0, trial);
        } else {
            self.change(former);
            self.next = if trial == WorkerTrial::More { WorkerTrial::Fewer } else { WorkerTrial::More };
            self.fail();
        }
    }

    fn fail(&mut self) {
        self.wait = self.calm;
        self.calm = (self.calm * 2).min(MOST_CALM);
    }

    fn change(&mut self, workers: usize) {
        self.mixed = workers != self.workers;
        self.workers = workers;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(per_second: f64) -> Measured {
        Measured { per_second, latency_ms: 1.0 }
    }

    proptest! {
        /// The throughput grows up to `knee` workers and no further, or another worker uses a core that applications
        /// need. The number reaches `knee` and stays there, except for rare trials.
        #[test]
        fn settles_where_another_worker_adds_nothing_or_slows_the_server(
            knee in 1..16_usize, first in 1..32_usize, most in 1..32_usize, is_felt in any::<bool>(), seed in any::<u64>()
        ) {
            let mut autoscaler = Autoscaler::auto(first, most);
            let mut noise = seed;
            let mut away = 0;
            let mut changes = 0;
            for step in 0..600 {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let wobble = 0.99 + 0.02 * ((noise >> 33) as f64 / f64::from(u32::MAX >> 1));
                let before = autoscaler.workers();
                let at_work = before.min(if is_felt { knee + 1 } else { knee });
                let too_many = if is_felt { before.saturating_sub(knee) } else { 0 };
                let latency_ms = 0.6 * (1 + 2 * too_many) as f64 / wobble;
                autoscaler.measured(Measured { per_second: 1_000.0 * at_work as f64 * wobble, latency_ms });
                prop_assert!((1..=most).contains(&autoscaler.workers()));
                if step >= 200 {
                    away += usize::from(autoscaler.workers() != knee.min(most));
                    changes += usize::from(autoscaler.workers() != before);
                }
            }
            prop_assert!(away <= 40, "{away} of 400 away from {knee}");
            prop_assert!(changes <= 20, "{changes} changes");
        }

        #[test]
        fn a_fixed_number_does_not_change(n in 1..=MOST_WORKERS, rates in proptest::collection::vec(0.0..1e6_f64, 0..50)) {
            let mut autoscaler = Autoscaler::fixed(n);
            for rate in rates {
                autoscaler.measured(of(rate));
                autoscaler.held();
                prop_assert_eq!(autoscaler.workers(), n);
            }
        }
    }

    #[test]
    fn throttling_halves_the_number_and_it_grows_again() {
        let mut autoscaler = Autoscaler::auto(1, 8);
        let grow = |autoscaler: &mut Autoscaler| {
            (0..200).any(|_| {
                autoscaler.measured(of(100.0 * autoscaler.workers() as f64));
                autoscaler.workers() == 8
            })
        };
        assert!(grow(&mut autoscaler));
        let halves = [(); 4].map(|()| {
            autoscaler.held();
            autoscaler.workers()
        });
        assert_eq!(halves, [4, 2, 1, 1]);
        assert!(grow(&mut autoscaler));
    }

    #[test]
    fn other_work_is_measured_again() {
        let mut autoscaler = Autoscaler::auto(1, 8);
        autoscaler.measured(of(300.0));
        assert_eq!(autoscaler.workers(), 2);
        autoscaler.begins();
        assert_eq!(autoscaler.workers(), 1, "a trial does not count");
        autoscaler.measured(of(9.0));
        assert_eq!(autoscaler.workers(), 1, "the first measurement includes both");
        autoscaler.measured(of(5.0));
        assert_eq!(autoscaler.workers(), 2);
    }
}
