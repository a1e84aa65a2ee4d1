//! The result of a comparison of the two sides.

use std::fmt;

use serde::Serialize;

use super::number;

/// The maximum number of examples in a report.
pub const EXAMPLES_MAX: usize = 20;

/// The result of comparing source and target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// The job's name.
    pub job: String,
    /// What was compared: the two `tables` of a partition job, or the two `columns` of a retype.
    #[serde(skip)]
    pub sides: &'static str,
    /// Whether the sides are exchanged: the source is the side that the swap brought into use.
    #[serde(skip)]
    pub swapped: bool,
    /// Rows of the source.
    pub rows_source: u64,
    /// Rows of the target.
    pub rows_target: u64,
    /// Rows that only the source has.
    pub missing: u64,
    /// Rows that only the target has, including rows in the wrong partition and duplicates.
    pub extra: u64,
    /// Rows that both sides have, with different values.
    pub different: u64,
    /// Keys that were left out because a change of them was pending.
    pub pending: u64,
    /// Whether nothing differs.
    pub verified: bool,
    /// Some of the rows that differ, at most [`EXAMPLES_MAX`].
    pub examples: Vec<Example>,
}

/// The result of checking every row of a backfill's table again. A row that cannot be filled is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// The job's name.
    pub job: String,
    /// Rows that were not filled, and are now.
    pub rows_set: u64,
    /// Whether every row is filled.
    pub verified: bool,
}

impl fmt::Display for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "verified: {}: every row is filled", self.job)?;
        match self.rows_set {
            0 => Ok(()),
            n => write!(f, "; {} only now", number::counted(n, "row")),
        }
    }
}

/// One row that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// The kind of difference.
    pub kind: Difference,
    /// Its key, as the server prints it.
    pub key: String,
    /// The partition in which it was found, if that is relevant.
    pub place: Option<String>,
}

/// How a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// Only the source has it.
    Missing,
    /// Only the target has it.
    Extra,
    /// Both have it, with different values.
    Different,
    /// The target has it in the wrong partition.
    Misplaced,
    /// The target has it more than once.
    Doubled,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Different => "different",
            Self::Misplaced => "misplaced",
            Self::Doubled => "doubled",
        })
    }
}
