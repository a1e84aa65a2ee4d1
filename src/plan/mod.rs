//! The plan: what a person wrote and reviewed, checked and with every default filled in.
//!
//! `file` mirrors the TOML, `resolve` turns it into a [`Plan`]; nothing else builds one.

use std::time::Duration;

use crate::model::{ident::QualifiedName, partition::Every};

/// In what order rows are read for the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// By how the key follows the heap.
    Auto,
    /// Along the key's index.
    Keyset,
    /// By blocks of the heap.
    Physical,
}

/// What verification compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Counts and a hash of every row.
    Hash,
    /// Counts only.
    Count,
}

/// When the swap happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// On `pgstrata swap`.
    Manual,
    /// At once when verified.
    Verified,
}

/// A checked plan with every default filled in.
#[derive(Debug, Clone)]
pub struct Plan {
    name: String,
    table: QualifiedName,
    by: String,
    every: Every,
    timezone: chrono_tz::Tz,
    from: Option<String>,
    to: Option<String>,
    ahead: u32,
    names: String,
    default: bool,
    drop_unique: Vec<String>,
    workers: usize,
    order: Order,
    target_batch: Duration,
    rows_per_second: Option<u32>,
    verify: Rows,
    when: When,
    lock_timeout: Duration,
    attempts: u32,
    keep_old: Duration,
}
