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
    /// What was compared: the two `tables` of a partition job, or the two `columns` of a column type change.
    #[serde(skip)]
    pub sides: &'static str,
    /// Whether the job is swapped: the source is then the side that the swap brought into use.
    #[serde(skip)]
    pub swapped: bool,
    /// The number of rows of the source.
    pub rows_source: u64,
    /// The number of rows of the target.
    pub rows_target: u64,
    /// The number of rows that only the source has.
    pub missing: u64,
    /// The number of rows that only the target has, including rows in the wrong partition and duplicates.
    pub extra: u64,
    /// The number of rows that both sides have, with different values.
    pub different: u64,
    /// The number of keys that were not compared because they had pending changes.
    pub pending: u64,
    /// Whether there are no mismatches.
    pub verified: bool,
    /// Some of the mismatches, at most [`EXAMPLES_MAX`].
    pub examples: Vec<Example>,
}

/// The result of checking every row of the table of a backfill again. A row that cannot be filled is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowsChecked {
    /// The job's name.
    pub job: String,
    /// The number of rows that were not filled before, and are now.
    pub rows_set: u64,
    /// Whether every row is filled.
    pub verified: bool,
}

impl fmt::Display for RowsChecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "verified: {}: every row is filled", self.job)?;
        match self.rows_set {
            0 => Ok(()),
            n => write!(f, "; {} filled by this command", number::counted(n, "row")),
        }
    }
}

/// A mismatch of one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// The kind of mismatch.
    pub kind: MismatchKind,
    /// The key of the row, in the server's format.
    pub key: String,
    /// The partition in which the row was found, if that is relevant.
    pub place: Option<String>,
}

/// The kind of mismatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MismatchKind {
    /// Only the source has the row.
    Missing,
    /// Only the target has the row.
    Extra,
    /// Both have the row, with different values.
    Different,
    /// The target has the row in the wrong partition.
    Misplaced,
    /// The target has the row more than once.
    Doubled,
}

impl fmt::Display for MismatchKind {
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
