//! How long chunks took.

use serde::{Deserialize, Serialize};

/// Milliseconds that chunks took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many chunks.
    pub chunks: u64,
    /// Mean rows of a chunk.
    pub chunk_rows: u64,
    /// Half of them took at most this.
    pub p50_ms: f64,
    /// 99 % of them took at most this.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}
