//! The gate that every chunk passes: no more rows a second than the plan allows.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// A limit on rows, or none.
#[derive(Debug)]
pub struct Gate {
    limiter: Option<(DefaultDirectRateLimiter, NonZeroU32)>,
}

/// The bucket holds this share of a second's rows: long enough not to wake up for every row, short enough that a chunk
/// does not arrive as a burst.
const BUCKET_SHARE: u32 = 10;

impl Gate {
    /// A gate that lets `rows_per_second` through; all where none is given.
    pub fn new(rows_per_second: Option<u32>) -> Self {
        let limiter = rows_per_second.and_then(NonZeroU32::new).map(|rate| {
            let slice = NonZeroU32::new(rate.get() / BUCKET_SHARE).unwrap_or(NonZeroU32::MIN);
            (RateLimiter::direct(Quota::per_second(rate).allow_burst(slice)), slice)
        });
        Self { limiter }
    }

    /// Waits until `rows` more may be read. A chunk may be larger than the bucket, so permits are taken in slices.
    pub async fn pass(&self, rows: u64) {
        let Some((limiter, slice)) = &self.limiter else { return };
        let mut left = rows;
        while left > 0 {
            let take = u32::try_from(left).unwrap_or(u32::MAX).min(slice.get());
            if let Some(take) = NonZeroU32::new(take) {
                // Never more than the bucket holds, which is the only error there is.
                let _ = limiter.until_n_ready(take).await;
            }
            left -= u64::from(take);
        }
    }
}
