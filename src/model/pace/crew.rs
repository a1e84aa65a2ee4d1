//! How many workers: a number that is given, or the number that pays.
//!
//! Tries one more, and keeps it where it brings at least a third of what a worker has brought so far; tries one less, and
//! leaves it out where less than that is lost. After a try that failed, the next one is twice as far away, so the number
//! settles. A hold halves it: whatever the signal was, less would have been better.

/// No more, whatever is asked for.
pub const MOST_WORKERS: usize = 64;

/// The share of a worker's mean that one more must bring.
const WORTH: f64 = 1.0 / 3.0;
/// Measurements between two tries, at first and at most.
const CALM: u32 = 4;
const MOST_CALM: u32 = 256;
/// The weight of a new measurement in the mean of a settled number.
const NEW: f64 = 0.3;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Trial {
    /// No try is under way.
    None,
    /// One worker more than paid before.
    More,
    /// One less.
    Fewer,
}

/// The number of workers.
#[derive(Debug, Clone)]
pub struct Crew {
    workers: usize,
    /// The most that may be tried; none: the number is fixed.
    most: Option<usize>,
    /// What the settled number did, in units a second.
    rate: Option<f64>,
    trial: Trial,
    calm: u32,
    wait: u32,
    next: Trial,
    /// The first measurement after a change is of both numbers.
    mixed: bool,
}

impl Crew {
    /// So many, always.
    pub fn fixed(workers: usize) -> Self {
        Self { workers: workers.clamp(1, MOST_WORKERS), most: None, ..Self::auto(1) }
    }

    /// As many as pay, from 1 to `most`.
    pub fn auto(most: usize) -> Self {
        Self {
            workers: 1,
            most: Some(most.clamp(1, MOST_WORKERS)),
            rate: None,
            trial: Trial::None,
            calm: CALM,
            wait: 0,
            next: Trial::More,
            mixed: false,
        }
    }

    /// How many may work now.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// A signal holds the job.
    pub fn held(&mut self) {
        if self.most.is_some() {
            self.change((self.workers / 2).max(1));
            self.rate = None;
            self.trial = Trial::None;
            self.fail();
        }
    }

    /// While nothing held, `per_second` units were done a second.
    pub fn measured(&mut self, per_second: f64) {
        let Some(most) = self.most else { return };
        if std::mem::take(&mut self.mixed) {
            return;
        }
        let base = self.rate.unwrap_or(per_second);
        match self.trial {
            Trial::None => self.settled(per_second, most),
            Trial::More => {
                let share = base / (self.workers - 1).max(1) as f64;
                self.judge(per_second, per_second >= base + WORTH * share, self.workers - 1);
            }
            Trial::Fewer => {
                let share = base / (self.workers + 1) as f64;
                self.judge(per_second, per_second >= base - WORTH * share, self.workers + 1);
            }
        }
    }

    fn settled(&mut self, per_second: f64, most: usize) {
        self.rate = Some(self.rate.map_or(per_second, |rate| rate + NEW * (per_second - rate)));
        self.wait = self.wait.saturating_sub(1);
        if self.wait > 0 {
            return;
        }
        let trial = match self.next {
            Trial::Fewer if self.workers > 1 => Trial::Fewer,
            _ if self.workers < most => Trial::More,
            _ if self.workers > 1 => Trial::Fewer,
            _ => return,
        };
        self.trial = trial;
        self.change(if trial == Trial::More { self.workers + 1 } else { self.workers - 1 });
    }

    fn judge(&mut self, per_second: f64, pays: bool, former: usize) {
        let trial = std::mem::replace(&mut self.trial, Trial::None);
        if pays {
            self.rate = Some(per_second);
            (self.calm, self.wait, self.next) = (CALM, 0, trial);
        } else {
            self.change(former);
            self.next = if trial == Trial::More { Trial::Fewer } else { Trial::More };
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

    proptest! {
        /// A server that gets faster up to `knee` workers, and no faster beyond: the number ends there, and stays but for
        /// rare tries.
        #[test]
        fn ends_where_one_more_brings_nothing(knee in 1..16_usize, most in 1..32_usize, seed in any::<u64>()) {
            let mut crew = Crew::auto(most);
            let mut noise = seed;
            let mut away = 0;
            let mut changes = 0;
            for step in 0..600 {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let wobble = 0.99 + 0.02 * ((noise >> 33) as f64 / f64::from(u32::MAX >> 1));
                let before = crew.workers();
                crew.measured(1_000.0 * before.min(knee) as f64 * wobble);
                prop_assert!((1..=most).contains(&crew.workers()));
                if step >= 200 {
                    away += usize::from(crew.workers() != knee.min(most));
                    changes += usize::from(crew.workers() != before);
                }
            }
            prop_assert!(away <= 40, "{away} of 400 away from {knee}");
            prop_assert!(changes <= 20, "{changes} changes");
        }

        #[test]
        fn a_number_is_fixed(n in 1..=MOST_WORKERS, rates in proptest::collection::vec(0.0..1e6_f64, 0..50)) {
            let mut crew = Crew::fixed(n);
            for rate in rates {
                crew.measured(rate);
                crew.held();
                prop_assert_eq!(crew.workers(), n);
            }
        }
    }

    #[test]
    fn a_hold_halves_it_and_it_grows_again() {
        let mut crew = Crew::auto(8);
        let grow = |crew: &mut Crew| {
            (0..200).any(|_| {
                crew.measured(100.0 * crew.workers() as f64);
                crew.workers() == 8
            })
        };
        assert!(grow(&mut crew));
        let halves = [(); 4].map(|()| {
            crew.held();
            crew.workers()
        });
        assert_eq!(halves, [4, 2, 1, 1]);
        assert!(grow(&mut crew));
    }
}
