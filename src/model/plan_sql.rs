//! Under which settings the plan's own SQL runs, decided once when the plan is checked, and what its names stand for.

use serde::{Deserialize, Serialize};

use super::ident::Ident;

/// The settings of the plan's SQL: the job's batches and the trigger's function use the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSql {
    /// Names are resolved: the SQL is kept as the server writes it, each name with its schema unless `lookup` finds it.
    pub resolved: bool,
    /// The schemas under which the SQL is read, behind `pg_catalog`. Before names are resolved: those that the plan states,
    /// or the default. After that: none, unless the SQL has a construct whose operator cannot be written with its schema.
    pub lookup: Vec<Ident>,
    /// `search_path` while the SQL runs, for functions and triggers of the application that rely on their caller's: as
    /// `SHOW search_path` has it. Empty: it is not set.
    pub search_path: String,
    /// `TimeZone`.
    pub time_zone: String,
    /// `DateStyle`.
    pub date_style: String,
    /// `IntervalStyle`.
    pub interval_style: String,
    /// `default_text_search_config`.
    pub text_search: String,
    /// Roles that the plan trusts with the rights of the job's role.
    #[serde(default)]
    pub trust: Vec<String>,
    /// The SQL names objects outside `pg_catalog`, which a writer of the table may have no right to.
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

/// What the rows of a table, called `t`, are joined with: what stands before the rows and behind `t` in FROM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Parentheses, as the server writes a join.
    pub before: String,
    /// `LEFT JOIN …`.
    pub behind: String,
}

impl Join {
    /// As the plan has it: `RELATION ALIAS ON CONDITION`.
    pub fn written(from: &str) -> Self {
        Self { before: String::new(), behind: format!("\n  left join {from}") }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::PlanSql;

    /// Resolved, of a database with the usual settings, whose SQL names only the system's own.
    pub(crate) fn resolved() -> PlanSql {
        let search_path = "\"$user\", public, pg_temp".to_owned();
        PlanSql { resolved: true, search_path, names_others: false, ..PlanSql::default() }
    }
}
