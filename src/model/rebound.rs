//! Objects that refer to a column by its number, and would therefore continue to refer to the old column after a column
//! type change. The exchange redirects them with the definitions that the catalog had before any column was renamed.

use serde::{Deserialize, Serialize};

use super::dependent::{Function, OtherPolicy, Rule, Statistics};
use super::grant::{Grant, RowType};
use super::ident::{Ident, QualifiedName, plain};

/// All such objects. The exchange drops views, rules and statistics, and creates them again; it alters policies and
/// functions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rebound {
    /// Views that read the column, and views that read those, in the order in which they can be created.
    pub views: Vec<BoundView>,
    /// Rules of tables, and of views that are not among `views`.
    pub rules: Vec<Rule>,
    /// Policies of the table and of other tables.
    pub policies: Vec<OtherPolicy>,
    /// Extended statistics.
    pub statistics: Vec<Statistics>,
    /// Functions with an SQL body that the server parses when it creates them.
    pub functions: Vec<Function>,
    /// Materialized views, which are built again after the exchange.
    pub matviews: Vec<QualifiedName>,
    /// Objects that cannot be redirected: the name of each, and the reason.
    pub refused: Vec<NotRebound>,
    /// Owners whose privileges the job's role needs and lacks, or that lack a privilege: the object, and what is missing.
    pub lacks: Vec<NotRebound>,
    /// The oids of `views` and `matviews`, for the check of code of other roles.
    pub oids: Vec<u32>,
}

/// A view with everything that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundView {
    /// Schema and name.
    pub name: QualifiedName,
    /// Its owner.
    pub owner: Ident,
    /// Its query, with qualified names.
    pub query: String,
    /// Its options, each `name=value`.
    pub options: Vec<String>,
    /// `COMMENT ON VIEW`.
    pub comment: Option<String>,
    /// Privileges, including those of the owner, sorted by their dependencies.
    pub grants: Vec<Grant>,
    /// Whether the owner has all privileges, and nobody else has privileges on the whole view.
    pub default_privileges: bool,
    /// Its row type.
    #[serde(default)]
    pub row_type: Option<RowType>,
    /// Columns with a comment or a default.
    pub columns: Vec<ViewColumn>,
    /// Its INSTEAD OF triggers, and its statement triggers.
    pub triggers: Vec<ViewTrigger>,
    /// Its rules, other than its query.
    pub rules: Vec<Rule>,
}

/// Attributes of a column of a view that do not come from its query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewColumn {
    /// The name.
    pub name: Ident,
    /// `COMMENT ON COLUMN`.
    pub comment: Option<String>,
    /// The default for an INSERT into the view.
    pub default: Option<String>,
}

/// A trigger of a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewTrigger {
    /// The name.
    pub name: Ident,
    /// `CREATE TRIGGER …`.
    pub definition: String,
    /// `COMMENT ON TRIGGER`.
    pub comment: Option<String>,
}

/// An object that cannot be redirected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRebound {
    /// The object, in readable form.
    pub name: String,
    /// The reason, which follows the name in a sentence.
    pub why: String,
}

impl Rebound {
    /// Each object that the exchange or a later step creates again, in readable form.
    pub fn names(&self) -> Vec<String> {
        let on = |kind: &str, name: &Ident, table: &QualifiedName| {
            format!("{kind} {} on {}", plain(name.as_str()), table.plain())
        };
        let views = self.views.iter().map(|v| format!("view {}", v.name.plain()));
        let matviews = self.matviews.iter().map(|m| format!("materialized view {}", m.plain()));
        let rules = self.rules.iter().map(|r| on("rule", &r.name, &r.table));
        let policies = self.policies.iter().map(|p| on("policy", &p.name, &p.table));
        let statistics = self.statistics.iter().map(|s| format!("statistics {}", s.name.plain()));
        let functions = self.functions.iter().map(|f| format!("function {}", f.name));
        views.chain(matviews).chain(rules).chain(policies).chain(statistics).chain(functions).collect()
    }

    /// Tables other than `table` that the exchange alters and must therefore lock.
    pub fn tables(&self, table: &QualifiedName) -> Vec<QualifiedName> {
        let rules = self.rules.iter().filter(|r| r.relkind != "v").map(|r| &r.table);
        let policies = self.policies.iter().map(|p| &p.table);
        let mut all: Vec<QualifiedName> =
            rules.chain(policies).filter(|name| *name != table).cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    /// Views that the exchange alters: those that it creates again, and those that have one of `rules`.
    pub fn view_names(&self) -> Vec<QualifiedName> {
        let rules = self.rules.iter().filter(|r| r.relkind == "v").map(|r| r.table.clone());
        self.views.iter().map(|v| v.name.clone()).chain(rules).collect()
    }
}
