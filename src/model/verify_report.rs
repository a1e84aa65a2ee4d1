//! What a comparison of the two sides found.

use std::fmt;

use serde::Serialize;

use super::number;

/// How many examples a report names at most.
pub const EXAMPLES_MAX: usize = 20;

/// Source and target, compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// The job's name.
    pub job: String,
    /// What was compared: the two `tables` of a partition job, or the two `columns` of a retype.
    #[serde(skip)]
    pub sides: &'static str,
    /// The sides are exchanged: the source is what came into use by the swap.
    #[serde(skip)]
    pub swapped: bool,
    /// Rows of the source.
    pub rows_source: u64,
    /// Rows of the target.
    pub rows_target: u64,
    /// Rows that only the source has.
    pub missing: u64,
    /// Rows that only the target has, those in a wrong partition and second copies among them.
    pub extra: u64,
    /// Rows that both have, with other values.
    pub different: u64,
    /// Keys left out because a change of theirs was still in the log.
    pub pending: u64,
    /// Whether nothing differs.
    pub verified: bool,
    /// Some of the rows that differ, at most [`EXAMPLES_MAX`].
    pub examples: Vec<Example>,
}

/// What another look at every row of a backfill's table came to. A row that cannot be filled is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// The job's name.
    pub job: String,
    /// Rows that were not filled, and are now.
    pub rows_set: u64,
    /// Every row is filled.
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
    /// How.
    pub kind: Difference,
    /// Its key, as the server writes it.
    pub key: String,
    /// The partition it was found in, where that tells something.
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
    /// Both have it, with other values.
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
