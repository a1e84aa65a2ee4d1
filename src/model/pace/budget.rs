//! So many rows, or bytes, a second: a bucket that may run into debt.
//!
//! What is started is paid in full, though the bucket may hold less: the next one waits until the debt is gone. So a chunk may
//! be larger than the bucket, what it really took can be settled afterwards, and the mean is exact. (The limiter of a crate
//! takes permits in slices, from a bucket that overflows while everybody is at work: what overflowed was lost, a sixth at 200,000 rows a
//! second; and it can neither take back a guess nor change its rate.)

/// What may lie ready unused, as seconds of the rate.
const SPARE_S: f64 = 0.5;
/// The most debt, as seconds of the rate: what others wrote meanwhile must not stop us for hours.
const DEBT_S: f64 = 60.0;

/// An allowance of units a second.
#[derive(Debug, Clone)]
pub struct Budget {
    per_second: f64,
    level: f64,
    at_s: f64,
}

impl Budget {
    /// Begins empty at `at_s`: nothing lies ready, nothing is owed.
    pub fn new(per_second: f64, at_s: f64) -> Self {
        Self { per_second, level: 0.0, at_s }
    }

    /// The rate.
    pub fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Another rate from `at_s` on. What is owed stays owed, as time: nobody waits longer for having been allowed more.
    pub fn set(&mut self, per_second: f64, at_s: f64) {
        self.fill(at_s);
        self.level *= per_second / self.per_second;
        self.per_second = per_second;
    }

    /// Seconds until something may be started; zero: now.
    pub fn wait_s(&mut self, at_s: f64) -> f64 {
        self.fill(at_s);
        (-self.level / self.per_second).max(0.0)
    }

    /// Pays for `units`; less than none gives back.
    pub fn pay(&mut self, units: f64) {
        self.level = (self.level - units).max(-DEBT_S * self.per_second);
    }

    fn fill(&mut self, at_s: f64) {
        let most = SPARE_S * self.per_second;
        self.level = (self.level + (at_s - self.at_s).max(0.0) * self.per_second).min(most.max(self.level));
        self.at_s = self.at_s.max(at_s);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Workers that take chunks as the budget lets them; units taken in `seconds`.
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
        /// Whatever the chunks, where the workers could do more, the mean over 20 s is the rate within a tenth.
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
    fn what_lies_ready_is_bounded_and_a_clock_that_goes_back_gives_nothing() {
        let mut budget = Budget::new(10.0, 0.0);
        budget.wait_s(1_000.0);
        budget.pay(5.0);
        assert_eq!(budget.wait_s(1_000.0), 0.0);
        budget.pay(1.0);
        assert_eq!(budget.wait_s(500.0), 0.1);
    }
}
