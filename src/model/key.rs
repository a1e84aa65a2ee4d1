//! Keys and ranges of keys. A key consists of the values of its columns as text, in the server's format, which the
//! server casts back. This program never compares the order of keys, because only the server knows its collations.

use serde::{Deserialize, Serialize};

/// The values of the columns of a key, as text.
pub type Key = Vec<String>;

/// A range `(after, through]`: unbounded below if `after` is none, unbounded above if `through` is none.
///
/// Contiguous ranges cover a key space without gaps or overlaps: the `through` of one is the `after` of the next.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRange {
    /// The lower end, exclusive.
    pub after: Option<Key>,
    /// The upper end, inclusive.
    pub through: Option<Key>,
}
