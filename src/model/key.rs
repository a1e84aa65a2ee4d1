//! Keys and ranges of them. A key is its columns' values as the server writes them (text), cast back by the server:
//! keys are never ordered here, because collations are the server's.

use serde::{Deserialize, Serialize};

/// The values of a key's columns, as text.
pub type Key = Vec<String>;

/// `(after, through]`: open below where `after` is none, open above where `through` is none.
///
/// Contiguous ranges cover a key space without gap or overlap: one's `through` is the next one's `after`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRange {
    /// Exclusive lower end.
    pub after: Option<Key>,
    /// Inclusive upper end.
    pub through: Option<Key>,
}
