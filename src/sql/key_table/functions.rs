//! The names of a key table's functions, and the setting that two of them share.

use crate::model::ident::QualifiedName;
use crate::model::key_table::KeyTable;

/// Is `on` while keys are added for a whole partition, which the guard allows.
pub(super) const ADDING: &str = "pgstrata.adding_keys";

/// The name of a function of the key table.
pub(super) fn function(k: &KeyTable, what: &str) -> QualifiedName {
    k.name.sibling(k.name.name.with_suffix(&format!("_{what}")))
}
