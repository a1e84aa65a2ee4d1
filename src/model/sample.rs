//! The result of filling a sample of a table's rows. The names of the fields are those in JSON and must not change. It
//! contains keys, but no values.

use serde::Serialize;

/// The maximum number of keys of each kind.
pub const MOST_KEYS: usize = 10;

/// The result of a sample.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Sample {
    /// The number of rows of the sample. All match the plan's `where`.
    pub rows: u64,
    /// The estimated number of matching rows in the table.
    pub rows_to_fill: Option<u64>,
    /// Whether the rows were updated and rolled back. Otherwise, the values were only computed, because the columns do
    /// not exist.
    pub updated: bool,
    /// Rows that still match the plan's `where` after that.
    pub still_matching: Keys,
    /// Rows that `from` returns more than once.
    pub yielded_twice: Keys,
    /// Rows that cannot be filled.
    pub errors: Vec<RowError>,
    /// Columns that are set to NULL.
    pub nulls: Vec<Nulls>,
    /// The number of rows for which a trigger suppressed the update.
    pub suppressed: u64,
    /// The number of rows that other sessions had locked.
    pub busy: u64,
    /// The number of rows that were not tried, because there were enough errors or it took too long.
    pub untried: u64,
    /// Milliseconds for a thousand rows; none if no row was filled.
    pub ms_per_1000_rows: Option<f64>,
    /// The estimated number of seconds to fill all rows, with one worker.
    pub all_rows_s: Option<f64>,
}

/// A number of rows, and the keys of some.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Keys {
    /// The number of rows.
    pub rows: u64,
    /// The first [`MOST_KEYS`] keys.
    pub keys: Vec<String>,
}

/// A row that cannot be filled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowError {
    /// The key of the row.
    pub key: String,
    /// The server's message.
    pub message: String,
    /// The SQLSTATE.
    pub sqlstate: String,
}

/// A column that is set to NULL.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Nulls {
    /// The column.
    pub column: String,
    /// The number of rows.
    pub rows: u64,
}

impl Keys {
    /// Adds a row.
    pub fn add(&mut self, key: String) {
        self.rows += 1;
        if self.keys.len() < MOST_KEYS {
            self.keys.push(key);
        }
    }
}

impl Sample {
    /// Whether a run would fail for such rows, or never end.
    pub fn is_bad(&self) -> bool {
        let wrong = self.still_matching.rows + self.yielded_twice.rows + self.suppressed;
        wrong > 0 || !self.errors.is_empty()
    }
}
