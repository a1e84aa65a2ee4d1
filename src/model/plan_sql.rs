//! The settings of the plan's SQL, decided once when the plan is checked, and the resolution of its names.

use serde::{Deserialize, Serialize};

use super::ident::Ident;

/// The settings of the plan's SQL; the job's batches and the trigger's function use the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSql {
    /// Whether names are resolved: the SQL is stored as the server prints it, each name with its schema unless
    /// `lookup` finds it.
    pub resolved: bool,
    /// The schemas in which names in the SQL are looked up, after `pg_catalog`. Before names are resolved: those in
    /// the plan, or the default. After that: none, unless the SQL has a construct whose operator cannot be written
    /// with its schema.
    pub lookup: Vec<Ident>,
    /// `search_path` while the SQL runs, for functions and triggers of the application that rely on their caller's,
    /// in the format of `SHOW search_path`. Empty: not set.
    pub search_path: String,
    /// `TimeZone`.
    pub time_zone: String,
    /// `DateStyle`.
    pub date_style: String,
    /// `IntervalStyle`.
    pub interval_style: String,
    /// `default_text_search_config`.
    pub text_search: String,
    /// Roles that the plan trusts with the privileges of the job's role.
    #[serde(default)]
    pub trust: Vec<String>,
    /// Whether the SQL names objects outside `pg_catalog`, on which a writer of the table may have no privileges.
    pub names_others: bool,
}

impl Default for PlanSql {
    fn default() -> Self {
        Self {
            resolved: false,
            lookup: Vec::new(),
            search_path: String::new(),
            time_zone: "UTC".into(),
            date_style: "ISO, YMD".into(),
            interval_style: "postgres".into(),
            text_search: "pg_catalog.simple".into(),
            trust: Vec::new(),
            names_others: true,
        }
    }
}

/// The join of the rows of a table, called `t`: the parts of FROM before the rows and after `t`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Parentheses, as the server prints a join.
    pub before: String,
    /// `LEFT JOIN …`.
    pub behind: String,
}

impl Join {
    /// As in the plan: `RELATION ALIAS ON CONDITION`.
    pub fn written(from: &str) -> Self {
        Self { before: String::new(), behind: format!("\n  left join {from}") }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::PlanSql;

    /// Resolved, for a database with the default settings, with SQL that names only system objects.
    pub(crate) fn resolved() -> PlanSql {
        let search_path = "\"$user\", public, pg_temp".to_owned();
        PlanSql { resolved: true, search_path, names_others: false, ..PlanSql::default() }
    }
}
