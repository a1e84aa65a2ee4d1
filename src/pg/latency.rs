//! The durations of chunks from the ledger, as percentiles (hdrhistogram).

use hdrhistogram::Histogram;
use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::model::latency::Latency;

use super::store;

/// The percentiles of `(rows, milliseconds)`; microseconds with three significant digits.
///
/// # Errors
/// A chunk took longer than the histogram can represent (an hour).
pub fn summarize(times: &[(i64, f64)]) -> Result<Latency> {
    let wrong = |e: String| Error::failed("failed to add up chunk times").cause(e);
    let mut histogram =
        Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 3).map_err(|e| wrong(e.to_string()))?;
    let mut rows = 0;
    for (chunk_rows, ms) in times {
        rows += chunk_rows;
        histogram.saturating_record((ms * 1000.0).max(1.0) as u64);
    }
    let ms = |q: f64| histogram.value_at_quantile(q) as f64 / 1000.0;
    let chunks = histogram.len();
    Ok(Latency {
        chunks,
        chunk_rows: u64::try_from(rows).unwrap_or(0) / chunks.max(1),
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        max_ms: if chunks == 0 { 0.0 } else { histogram.max() as f64 / 1000.0 },
    })
}

/// The percentiles of the finished chunks of a job.
///
/// # Errors
/// The server returned an error.
pub async fn of_chunks(client: &Client, job: i64) -> Result<Latency> {
    summarize(&store::chunk_times(client, job).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_computed() {
        let times: Vec<(i64, f64)> = (1..=100).map(|ms| (10, f64::from(ms))).collect();
        let latency = summarize(&times).unwrap();
        assert_eq!((latency.chunks, latency.chunk_rows), (100, 10));
        let ms = [latency.p50_ms, latency.p99_ms, latency.max_ms].map(f64::round);
        assert_eq!(ms, [50.0, 99.0, 100.0]);
        assert_eq!(summarize(&[]).unwrap().max_ms, 0.0);
    }
}
