//! Rows that violate a foreign key that is marked as valid.

use super::ident::{QualifiedName, plain};
use super::number;

/// The rows that violate a key.
#[derive(Debug, Clone)]
pub struct Orphans {
    /// The key's name.
    pub key: String,
    /// The table with the rows.
    pub table: QualifiedName,
    /// The number of rows.
    pub rows: i64,
    /// Some of the rows: the key of the row, and the values that reference no row.
    pub examples: Vec<String>,
}

impl Orphans {
    /// `2 rows of public.t violate foreign key t_q_id_fkey`.
    pub fn fact(&self) -> String {
        let verb = if self.rows == 1 { "violates" } else { "violate" };
        format!(
            "{} of {} {verb} foreign key {}",
            number::counted(self.rows.unsigned_abs(), "row"),
            self.table.plain(),
            plain(&self.key)
        )
    }

    /// The examples as text.
    pub fn named(&self) -> String {
        self.examples.join("; ")
    }
}
