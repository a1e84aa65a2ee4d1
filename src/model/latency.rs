//! The durations of chunks.

use serde::{Deserialize, Serialize};

/// The durations of chunks, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The number of chunks.
    pub chunks: u64,
    /// The mean number of rows of a chunk.
    pub chunk_rows: u64,
    /// The median.
    pub p50_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The maximum.
    pub max_ms: f64,
}
