//! Determines the number of rows of the next chunk, so that it takes the target duration. The caller provides the
//! measurements.

use std::collections::VecDeque;

/// The number of last chunks to consider.
const WINDOW: usize = 10;
/// If a chunk takes this many times the target duration, the size shrinks immediately.
const PANIC_FACTOR: f64 = 5.0;
/// The maximum growth in one step.
const GROWTH: f64 = 1.5;

/// Determines the number of rows of the next chunk from the durations of the last chunks, as the dynamic chunk size of
/// block/spirit does: it uses the 90th percentile of the time per row over the last ten chunks. The size grows by at
/// most half in one step. A chunk that takes more than five times the target duration reduces the next one to a tenth.
#[derive(Debug, Clone)]
pub struct ChunkSizer {
    rows: u64,
    min: u64,
    max: u64,
    target_ms: f64,
    ms_per_row: VecDeque<f64>,
}

impl ChunkSizer {
    /// Creates a sizer that starts with `first` rows, stays within `min..=max`, and aims at `target_ms` milliseconds
    /// per chunk.
    pub fn new(first: u64, min: u64, max: u64, target_ms: f64) -> Self {
        let min = min.max(1);
        let max = max.max(min);
        Self { rows: first.clamp(min, max), min, max, target_ms, ms_per_row: VecDeque::with_capacity(WINDOW) }
    }

    /// The number of rows of the next chunk.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Sets the target duration to `target_ms`, and the maximum to `max` rows.
    pub fn aim(&mut self, target_ms: f64, max: u64) {
        (self.target_ms, self.max) = (target_ms, max.max(1));
        self.rows = self.rows.clamp(self.min.min(self.max), self.max);
    }

    /// Reduces the next chunk to a tenth, because a session waits for a chunk.
    pub fn shrink(&mut self) {
        self.ms_per_row.clear();
        self.rows = (self.rows / 10).clamp(self.min.min(self.max), self.max);
    }

    /// Records that a chunk of `rows` rows took `ms` milliseconds.
    pub fn observe(&mut self, rows: u64, ms: f64) {
        // Ignore the short last chunk of a range: most of its time is the fixed cost.
        if rows == 0 || rows * 4 < self.rows && ms < self.target_ms {
            return;
        }
        if ms > PANIC_FACTOR * self.target_ms {
            self.shrink();
            return;
        }
        if self.ms_per_row.len() == WINDOW {
            self.ms_per_row.pop_front();
        }
        self.ms_per_row.push_back(ms / rows as f64);
        let mut sorted: Vec<f64> = self.ms_per_row.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let p90 = sorted[(sorted.len() * 9).div_ceil(10) - 1];
        let ideal = if p90 > 0.0 { self.target_ms / p90 } else { self.max as f64 };
        let next = ideal.min(self.rows as f64 * GROWTH);
        self.rows = (next as u64).clamp(self.min.min(self.max), self.max);
    }
}

/// Reduces `rows`, the size of a chunk, so that `workers` finish the remaining `left` rows at about the same time: a
/// chunk has at most half of a worker's share, but at least `least` rows (guided self-scheduling, Polychronopoulos and
/// Kuck, 1987). If `left` is zero, the number of remaining rows is not known.
pub fn even_end(rows: u64, left: u64, workers: usize, least: u64) -> u64 {
    if workers == 1 || left == 0 { rows } else { rows.min((left / (2 * workers as u64)).max(least)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stays_within_limits(trace in proptest::collection::vec((0u64..1_000_000, 0.0f64..60_000.0), 0..200)) {
            let mut sizer = ChunkSizer::new(5_000, 100, 200_000, 500.0);
            for (rows, ms) in trace {
                sizer.observe(rows, ms);
                prop_assert!((100..=200_000).contains(&sizer.rows()));
            }
        }

        /// With a fixed cost per chunk, a steady cost per row and some noise, a chunk takes about the target duration
        /// within 40 chunks, and continues to do so.
        #[test]
        fn converges_on_a_steady_server(us_per_row in 3.0f64..2_000.0, fixed_ms in 0.0f64..20.0, seed in 0u64..1000) {
            let mut sizer = ChunkSizer::new(1_000, 10, 1_000_000, 500.0);
            let mut noise = seed;
            for step in 0..120 {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let wobble = 0.95 + 0.1 * ((noise >> 33) as f64 / f64::from(u32::MAX >> 1));
                let rows = sizer.rows();
                let ms = (fixed_ms + rows as f64 * us_per_row / 1000.0) * wobble;
                if step > 40 {
                    prop_assert!((300.0..800.0).contains(&ms), "step {step}: {rows} rows took {ms} ms");
                }
                sizer.observe(rows, ms);
            }
        }
    }

    #[test]
    fn workers_finish_at_the_same_time() {
        for (workers, table) in [(2, 2_000_000), (3, 100_000), (8, 50_000_000), (1, 700_000)] {
            let (mut free_at, mut left) = (vec![0; workers], table);
            while left > 0 {
                let rows = even_end(180_000, left, workers, 5_000).min(left);
                *free_at.iter_mut().min().unwrap() += rows;
                left -= rows;
            }
            let last = free_at.iter().max().unwrap();
            assert!(last - free_at.iter().min().unwrap() <= 5_000, "{workers}: {free_at:?}");
        }
    }

    /// The trace of a server that is steady, then ten times slower, then steady again.
    #[test]
    fn shrinks_immediately_and_recovers() {
        let mut sizer = ChunkSizer::new(1_000, 100, 500_000, 500.0);
        let run = |sizer: &mut ChunkSizer, us_per_row: f64, chunks: u32| {
            for _ in 0..chunks {
                let rows = sizer.rows();
                sizer.observe(rows, rows as f64 * us_per_row / 1000.0);
            }
            sizer.rows()
        };
        let fast = run(&mut sizer, 5.0, 40);
        assert!((90_000..=100_000).contains(&fast), "{fast}");
        let after_one = run(&mut sizer, 50.0, 1);
        assert!(after_one <= fast / 10 + 1, "{after_one}");
        let slow = run(&mut sizer, 50.0, 20);
        assert!((9_000..=10_500).contains(&slow), "{slow}");
        let again = run(&mut sizer, 5.0, 40);
        assert!((90_000..=100_000).contains(&again), "{again}");
    }
}
