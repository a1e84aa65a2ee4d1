//! The settings of the plan's SQL, which are determined once when the plan is checked, and the resolution of its names.

use serde::{Deserialize, Serialize};

use super::ident::Ident;

/// The settings of the plan's SQL. The batches of the job and the function of the trigger use the same settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSql {
    /// Whether names are resolved: the SQL is stored in the server's format, and each name has its schema unless
    /// `lookup` finds it.
    pub resolved: bool,
    /// The schemas in which names in the SQL are looked up, after `pg_catalog`. Before names are resolved, these are
    /// the schemas in the plan, or the default. After that, there are none, unless the SQL has a construct whose
    /// operator cannot be qualified with its schema.
    pub lookup: Vec<Ident>,
    /// The `search_path` while the SQL runs, in the format of `SHOW search_path`, for functions and triggers of the
    /// application that rely on the search path of their caller. If empty, it is not set.
    pub search_path: String,
    /// `TimeZone`.
    pub time_zone: String,
    /// `DateStyle`.
    pub date_style: String,
    /// `IntervalStyle`.
    pub interval_style: String,
    /// `default_text_search_config`.
    pub text_search: String,
    /// `lc_monetary`, `lc_numeric` and `lc_time`, each with its value; none in a job of an earlier version.
    #[serde(default)]
    pub locale: Vec<(String, String)>,
    /// Roles that the plan trusts with the privileges of the job's role.
    #[serde(default)]
    pub trust: Vec<String>,
    /// Whether the SQL uses objects outside `pg_catalog`, for which a writer of the table may lack privileges.
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
            locale: Vec::new(),
            trust: Vec::new(),
            names_others: true,
        }
    }
}

/// The join of the rows of a table, called `t`: the parts of FROM before the rows and after `t`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The part before the rows: parentheses, in the server's format of a join.
    pub before: String,
    /// The part after `t`: `LEFT JOIN …`.
    pub behind: String,
}

impl Join {
    /// Creates the join from its form in the plan: `RELATION ALIAS ON CONDITION`.
    pub fn written(from: &str) -> Self {
        Self { before: String::new(), behind: format!("\n  left join {from}") }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::PlanSql;

    /// Resolved settings, for a database with the default settings and SQL that uses only system objects.
    pub(crate) fn resolved() -> PlanSql {
        let search_path = "\"$user\", public, pg_temp".to_owned();
        PlanSql { resolved: true, search_path, names_others: false, ..PlanSql::default() }
    }
}
