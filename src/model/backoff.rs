//! The wait before another attempt: exponential backoff with full jitter.
//!
//! Full jitter is a random wait between zero and a bound that doubles. Of the strategies that "Exponential Backoff And
//! Jitter" (AWS Architecture Blog, 2015) compares, it resolves contention with the fewest calls, because processes that
//! collided once do not collide again at the next attempt. The caller provides the random number, so this module is
//! deterministic.

use std::time::Duration;

/// The waits between attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// The first wait is at most `first`. Each further wait is at most twice the previous bound, and at most `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failures: 0 }
    }

    /// The wait after another failure, for `random` in `[0, 1)`; values outside are clamped.
    pub fn next(&mut self, random: f64) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(random.clamp(0.0, 1.0))
    }

    /// The maximum of the next wait.
    pub fn bound(&self) -> Duration {
        let doubled = 2_u32.checked_pow(self.failures).and_then(|times| self.first.checked_mul(times));
        doubled.unwrap_or(self.max).min(self.max)
    }

    /// The number of waits so far.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_wait_never_exceeds_its_bound_or_the_maximum(
            first_ms in 1_u64..10_000, max_ms in 1_u64..600_000, randoms in prop::collection::vec(0.0_f64..1.0, 1..80),
        ) {
            let (first, max) = (Duration::from_millis(first_ms), Duration::from_millis(max_ms));
            let mut backoff = Backoff::new(first, max);
            let mut before = Duration::ZERO;
            for random in randoms {
                let bound = backoff.bound();
                prop_assert!(bound <= max);
                prop_assert!(bound >= before);
                prop_assert!(before.is_zero() || bound == max || bound == before * 2);
                prop_assert!(backoff.next(random) <= bound);
                before = bound;
            }
            prop_assert_eq!(Backoff::new(first, max).bound(), first.min(max));
        }
    }

    #[test]
    fn the_bound_doubles_up_to_the_maximum() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let bounds: Vec<u128> = (0..6)
            .map(|_| {
                let bound = backoff.bound().as_millis();
                backoff.next(0.5);
                bound
            })
            .collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.failures(), 6);
    }
}
