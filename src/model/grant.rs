//! Privileges, as in the catalog.

use serde::{Deserialize, Serialize};

use super::ident::Ident;

/// One privilege of one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The role; none for PUBLIC.
    pub role: Option<Ident>,
    /// The grantor.
    pub grantor: Ident,
    /// The privilege, such as `SELECT` or `INSERT`.
    pub privilege: String,
    /// The column, if the privilege is for one column only.
    pub column: Option<Ident>,
    /// Whether it was granted WITH GRANT OPTION.
    pub grantable: bool,
}

/// The composite type of the rows of a table or view, which has the same name and owner, and privileges of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowType {
    /// Whether PUBLIC and the owner have USAGE, and nobody else. In that case, `grants` is empty.
    pub default_privileges: bool,
    /// Privileges, including those of the owner, sorted by their dependencies.
    pub grants: Vec<Grant>,
    /// `COMMENT ON TYPE`.
    pub comment: Option<String>,
}
