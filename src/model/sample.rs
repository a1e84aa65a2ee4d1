//! What filling a sample of a table's rows showed. The fields' names are the JSON's and stay; keys are in it, values are not.

use serde::Serialize;

/// So many keys of each sort are kept.
pub const MOST_KEYS: usize = 10;

/// What became of a sample.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Rows of the sample: they match the plan's `where`.
    pub rows: u64,
    /// Rows that match in all, by the statistics.
    pub rows_to_fill: Option<u64>,
    /// The rows were updated, and that was taken back; else, for want of the columns, what is set was only computed.
    pub updated: bool,
    /// Rows that still match after that.
    pub still_matching: Keys,
    /// Rows that `from` yields more than once.
    pub yielded_twice: Keys,
    /// Rows that cannot be filled.
    pub errors: Vec<RowError>,
    /// Columns that are set to NULL.
    pub nulls: Vec<Nulls>,
    /// Rows that a trigger kept from being updated.
    pub suppressed: u64,
    /// Rows that others held.
    pub busy: u64,
    /// Rows that were not looked at any more: there were errors enough, or it took too long.
    pub untried: u64,
    /// Milliseconds for a thousand rows; none where none was filled.
    pub ms_per_1000_rows: Option<f64>,
    /// Seconds for all rows to fill, by one worker.
    pub all_rows_s: Option<f64>,
}

/// Rows, and the keys of some.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Keys {
    /// How many.
    pub rows: u64,
    /// The first [`MOST_KEYS`].
    pub keys: Vec<String>,
}

/// A row that cannot be filled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RowError {
    /// Its key.
    pub key: String,
    /// The server's message.
    pub message: String,
    /// Its SQLSTATE.
    pub sqlstate: String,
}

/// A column that is set to NULL.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Nulls {
    /// The column.
    pub column: String,
    /// In so many rows.
    pub rows: u64,
}

impl Keys {
    /// One more.
    pub fn add(&mut self, key: String) {
        self.rows += 1;
        if self.keys.len() < MOST_KEYS {
            self.keys.push(key);
        }
    }
}

impl Sample {
    /// Whether a run would fail on such rows, or never end.
    pub fn is_bad(&self) -> bool {
        let wrong = self.still_matching.rows + self.yielded_twice.rows + self.suppressed;
        wrong > 0 || !self.errors.is_empty()
    }
}
