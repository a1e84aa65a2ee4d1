//! A limit on rows or bytes per second: the bucket of governor, and a debt.
//!
//! Work that is started is charged in full, even if the bucket has too few permits. The rest is a debt, and the next
//! work waits until permits have paid it off, in slices that fit the bucket. A chunk can therefore be larger than the
//! bucket, its actual size can be charged afterwards, and the mean rate is exact. While there is a debt, no permit is
//! lost. If only waiting workers took permits, those that become available while all workers are busy would be lost: a
//! sixth at 200,000 rows per second.
//!
//! The limiter always has the same rate of permits, and a permit is worth a number of units. Any rate is therefore
//! exact, and a change of the rate changes the value of a permit.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, FakeRelativeClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// Permits per second, regardless of the rate.
const PERMITS: NonZeroU32 = NonZeroU32::new(10_000).unwrap();
/// The maximum number of unused permits: those of half a second.
const BUCKET: NonZeroU32 = NonZeroU32::new(5_000).unwrap();
/// The maximum debt, in seconds: WAL that other sessions write must not throttle the job for hours.
const DEBT_S: f64 = 60.0;

/// The limiter, with a clock that the caller sets.
type Limiter = RateLimiter<
    NotKeyed,
    InMemoryState,
    FakeRelativeClock,
    NoOpMiddleware<<FakeRelativeClock as Clock>::Instant>,
>;

/// A budget of units per second.
#[derive(Debug)]
pub struct Budget {
    limiter: Limiter,
    clock: FakeRelativeClock,
    per_second: f64,
    /// The debt in permits; negative if units were returned.
    owed: f64,
    at_s: f64,
}

impl Budget {
    /// Creates a budget at `at_s`, without unused permits and without debt.
    pub fn new(per_second: f64, at_s: f64) -> Self {
        let clock = FakeRelativeClock::default();
        let limiter =
            RateLimiter::direct_with_clock(Quota::per_second(PERMITS).allow_burst(BUCKET), clock.clone());
        let mut budget = Self { limiter, clock, per_second, owed: f64::from(BUCKET.get()), at_s };
        budget.pay_off();
        budget
    }

    /// The rate.
    pub fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Sets another rate from `at_s` on. The debt is kept as time, so that a higher rate never makes the wait longer.
    pub fn set(&mut self, per_second: f64, at_s: f64) {
        self.come_to(at_s);
        self.per_second = per_second;
    }

    /// The number of seconds until work can start; zero if it can start now.
    pub fn wait_s(&mut self, at_s: f64) -> f64 {
        self.come_to(at_s);
        self.owed.max(0.0) / f64::from(PERMITS.get())
    }

    /// Charges `units`; a negative number returns units.
    pub fn pay(&mut self, units: f64) {
        let permits = f64::from(PERMITS.get());
        self.owed = (self.owed + units / self.per_second * permits).min(DEBT_S * permits);
        self.pay_off();
    }

    /// Advances the clock. While there is a debt, it advances in steps whose permits fit the bucket.
    fn come_to(&mut self, at_s: f64) {
        let step_s = f64::from(BUCKET.get()) / f64::from(PERMITS.get()) / 2.0;
        while at_s > self.at_s {
            let by_s = if self.owed > 0.0 { step_s.min(at_s - self.at_s) } else { at_s - self.at_s };
            self.clock.advance(Duration::from_secs_f64(by_s));
            self.at_s += by_s;
            self.pay_off();
            if by_s < f64::EPSILON {
                break;
            }
        }
    }

    /// Takes permits from the bucket to pay the debt.
    fn pay_off(&mut self) {
        let mut slice = BUCKET.get();
        while self.owed > 0.0 && slice > 0 {
            // A permit cannot be split: the excess reduces the next debt.
            let wanted = NonZeroU32::new(slice.min(self.owed.ceil() as u32)).unwrap_or(NonZeroU32::MIN);
            if matches!(self.limiter.check_n(wanted), Ok(Ok(()))) {
                self.owed -= f64::from(wanted.get());
            } else {
                slice = wanted.get() / 2;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Simulates workers that process chunks as the budget permits; returns the units processed in `seconds`.
    fn run(per_second: f64, chunk: f64, chunk_s: f64, workers: usize, wrong_guess: f64, seconds: f64) -> f64 {
        let mut budget = Budget::new(per_second, 0.0);
        let mut free_at_s = vec![0.0_f64; workers];
        let (mut now_s, mut taken) = (0.0_f64, 0.0);
        loop {
            let worker = (0..workers).min_by(|a, b| free_at_s[*a].total_cmp(&free_at_s[*b])).unwrap();
            now_s = now_s.max(free_at_s[worker]);
            now_s += budget.wait_s(now_s);
            if now_s >= seconds {
                return taken;
            }
            budget.wait_s(now_s);
            budget.pay(chunk * wrong_guess);
            budget.pay(chunk - chunk * wrong_guess);
            taken += chunk;
            free_at_s[worker] = now_s + chunk_s;
        }
    }

    proptest! {
        /// With chunks of any size, if the workers could process more, the mean over 20 s is within a tenth of the
        /// rate.
        #[test]
        fn the_mean_is_the_rate(
            per_second in 100.0..1e9_f64,
            share in 0.01..0.5_f64,
            workers in 1..8_usize,
            slack in 0.05..0.9_f64,
            wrong_guess in 0.2..5.0_f64,
        ) {
            let chunk = per_second * share;
            let chunk_s = share * workers as f64 * slack;
            let taken = run(per_second, chunk, chunk_s, workers, wrong_guess, 20.0);
            prop_assert!((0.9..1.1).contains(&(taken / 20.0 / per_second)), "{}", taken / 20.0 / per_second);
        }
    }

    #[test]
    fn a_chunk_larger_than_the_bucket_is_paid_off_first() {
        let mut budget = Budget::new(10.0, 100.0);
        assert_eq!(budget.wait_s(100.0), 0.0);
        budget.pay(50.0);
        assert_eq!(budget.wait_s(101.0), 4.0);
        budget.set(20.0, 101.0);
        assert_eq!(budget.wait_s(101.0), 4.0);
        assert_eq!(budget.wait_s(105.0), 0.0);
        budget.pay(1e9);
        assert_eq!(budget.wait_s(105.0), DEBT_S);
    }

    #[test]
    fn work_can_start_after_the_returned_wait() {
        let mut budget = Budget::new(5_000.0, 0.0);
        for chunk in [1.0, 333.3, 2_000.0, 1_999.9, 0.1] {
            budget.pay(chunk);
            let mut now_s = budget.at_s;
            for _ in 0..3 {
                now_s += budget.wait_s(now_s).max(0.001);
            }
            assert_eq!(budget.wait_s(now_s), 0.0, "{chunk}");
        }
    }

    #[test]
    fn unused_permits_are_limited_and_a_backward_clock_adds_none() {
        let mut budget = Budget::new(10.0, 0.0);
        budget.wait_s(1_000.0);
        budget.pay(5.0);
        assert_eq!(budget.wait_s(1_000.0), 0.0);
        budget.pay(1.0);
        assert_eq!(budget.wait_s(500.0), 0.1);
    }
}
