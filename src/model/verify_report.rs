//! The result of a comparison of the two sides.

use std::fmt;

use serde::Serialize;

use super::number;

/// The maximum number of examples in a report.
pub const EXAMPLES_MAX: usize = 20;

/// The result of comparing the side in use with the inactive side.
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
    /// The number of rows of the table in use, or with a value in the column in use.
    pub rows_in_use: u64,
    /// The number of rows of the inactive table, or with a value in the inactive column.
    pub rows_inactive: u64,
    /// The number of rows that only the side in use has.
    pub missing: u64,
    /// The number of rows that only the inactive side has, including duplicates. A row whose partition column differs is
    /// both missing and extra.
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
    /// The value of the partition column, in the server's format; none for a column type change.
    pub place: Option<String>,
}

/// The kind of mismatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MismatchKind {
    /// Only the side in use has the row.
    Missing,
    /// Only the inactive side has the row.
    Extra,
    /// Both have the row, with different values.
    Different,
    /// The inactive table has the row with another value in the partition column.
    PartitionColumnDiffers,
    /// The inactive table has the row more than once.
    Duplicate,
}

impl fmt::Display for MismatchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Different => "different",
            Self::PartitionColumnDiffers => "partition column differs",
            Self::Duplicate => "duplicate",
        })
    }
}
