//! Keys and ranges of keys. A key consists of the values of its columns as the server prints them (text), which the
//! server casts back. Keys are never ordered here, because only the server knows its collations.

use serde::{Deserialize, Serialize};

/// The values of the columns of a key, as text.
pub type Key = Vec<String>;

/// `(after, through]`: unbounded below if `after` is none, unbounded above if `through` is none.
///
/// Contiguous ranges cover a key space without gaps or overlaps: the `through` of one is the `after` of the next.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRange {
    /// Exclusive lower end.
    pub after: Option<Key>,
    /// Inclusive upper end.
    pub through: Option<Key>,
}
