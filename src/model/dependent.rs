//! Objects that refer to a table by its oid, and would therefore continue to refer to the old table. The swap redirects
//! them with the definitions that the catalog had before any object was renamed.

use serde::{Deserialize, Serialize};

use super::grant::{Grant, RowType};
use super::ident::{Ident, QualifiedName, plain};

/// All such objects, except views and foreign keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dependents {
    /// Rules on the table, and rules on other tables that refer to it.
    pub rules: Vec<Rule>,
    /// Extended statistics.
    pub statistics: Vec<Statistics>,
    /// Publications that include the table by name.
    pub publications: Vec<Publication>,
    /// Functions with an SQL body that the server parses when it creates them.
    pub functions: Vec<Function>,
    /// Functions that take or return rows of the table.
    pub row_functions: Vec<RowFunction>,
    /// Policies of other tables that read the table.
    pub policies: Vec<OtherPolicy>,
    /// Defaults of columns of other tables that use the sequence of an identity column of the table.
    pub defaults: Vec<OtherDefault>,
    /// Materialized views that read the table. The swap does not redirect them; they are built again after the swap.
    pub matviews: Vec<Matview>,
}

/// A view that reads the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Schema and name.
    pub name: QualifiedName,
    /// Its owner.
    pub owner: Ident,
    /// Its query, with qualified names.
    pub query: String,
    /// Its options, each `name=value`.
    pub options: Vec<String>,
    /// Whether it has a GROUP BY of only the primary key, or a whole row as a column. Such a view cannot be redirected.
    pub bound_to_key: bool,
}

/// A rule, other than the rule of a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name.
    pub name: Ident,
    /// The table or view that has it.
    pub table: QualifiedName,
    /// `pg_class.relkind` of that table or view.
    pub relkind: String,
    /// `CREATE RULE …`, with qualified names.
    pub definition: String,
    /// `pg_rewrite.ev_enabled`: `O` origin, `D` disabled, `R` replica, `A` always.
    pub enabled: String,
    /// Whether it groups by the primary key alone.
    #[serde(default)]
    pub needs_key: bool,
    /// `COMMENT ON RULE`.
    pub comment: Option<String>,
}

/// Extended statistics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Schema and name.
    pub name: QualifiedName,
    /// The definition between its name and FROM: kinds, ON, columns.
    pub tail: String,
    /// Its owner.
    pub owner: Ident,
    /// The statistics target, if set.
    pub target: Option<i32>,
    /// `COMMENT ON STATISTICS`.
    pub comment: Option<String>,
}

/// A publication that includes the table by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Its name.
    pub name: Ident,
    /// The columns that it publishes, if not all.
    pub columns: Option<Vec<Ident>>,
    /// The row filter, if there is one.
    pub condition: Option<String>,
    /// `publish_via_partition_root`.
    pub via_root: bool,
}

/// A function with an SQL body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its name with its argument types.
    pub name: String,
    /// `CREATE OR REPLACE FUNCTION …`.
    pub definition: String,
    /// Whether it groups by the primary key alone.
    #[serde(default)]
    pub needs_key: bool,
}

/// A function or procedure that takes or returns the row type of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowFunction {
    /// Its name with its argument types.
    pub name: String,
    /// Its schema.
    pub schema: Ident,
    /// Whether it is a procedure.
    pub procedure: bool,
    /// Its owner.
    pub owner: Ident,
    /// `CREATE OR REPLACE FUNCTION …`.
    pub definition: String,
    /// Privileges, without those of the owner, sorted by their dependencies.
    pub grants: Vec<Grant>,
    /// Whether the owner can call it.
    pub owner_executes: bool,
    /// `COMMENT ON FUNCTION`.
    pub comment: Option<String>,
}

/// A policy of another table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherPolicy {
    /// Its name.
    pub name: Ident,
    /// The table that has it.
    pub table: QualifiedName,
    /// USING (…).
    pub using: Option<String>,
    /// WITH CHECK (…).
    pub check: Option<String>,
}

/// A default of a column of another table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherDefault {
    /// The table.
    pub table: QualifiedName,
    /// The column.
    pub column: Ident,
    /// The expression.
    pub expression: String,
}

/// A materialized view that reads the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matview {
    /// Name, owner, query, options.
    pub view: View,
    /// `COMMENT ON MATERIALIZED VIEW`.
    pub comment: Option<String>,
    /// Whether it is populated: it was not created WITH NO DATA.
    pub populated: bool,
    /// Its access method, if not heap.
    pub access_method: Option<Ident>,
    /// Its tablespace, if not the database's default.
    pub tablespace: Option<Ident>,
    /// Privileges, including those of the owner, sorted by their dependencies.
    pub grants: Vec<Grant>,
    /// Its row type; none in a description that an earlier version stored.
    #[serde(default)]
    pub row_type: Option<RowType>,
    /// Columns with a comment or a statistics target.
    pub columns: Vec<MatviewColumn>,
    /// Its indexes, by name.
    pub indexes: Vec<MatviewIndex>,
    /// Views that read it.
    pub readers: Vec<View>,
    /// All other objects that depend on it, as described by `pg_describe_object`.
    pub others: Vec<String>,
}

/// Attributes of a column of a materialized view that do not come from its query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatviewColumn {
    /// The name.
    pub name: Ident,
    /// `COMMENT ON COLUMN`.
    pub comment: Option<String>,
    /// Statistics target, if set.
    pub statistics: Option<i32>,
}

/// An index of a materialized view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatviewIndex {
    /// The name.
    pub name: Ident,
    /// Whether it is unique.
    pub unique: bool,
    /// Whether CLUSTER uses it.
    pub clustered: bool,
    /// The part after `USING` in its definition.
    pub tail: String,
    /// `COMMENT ON INDEX`.
    pub comment: Option<String>,
    /// Its tablespace, if not the database's default.
    #[serde(default)]
    pub tablespace: Option<Ident>,
}

impl Matview {
    /// Whether the view still matches `planned`, as far as the version that stored that description described it.
    pub fn is_as(&self, planned: &Self) -> bool {
        let mut known = self.clone();
        if planned.row_type.is_none() {
            known.row_type = None;
        }
        known == *planned
    }
}

impl Dependents {
    /// The objects that belong to a table: the kind and name of each, and the table.
    pub fn of_other_tables(&self) -> Vec<(String, QualifiedName)> {
        let named = |kind: &str, name: &Ident| format!("{kind} {}", plain(name.as_str()));
        let rules = self.rules.iter().map(|r| (named("rule", &r.name), r.table.clone()));
        let policies = self.policies.iter().map(|p| (named("policy", &p.name), p.table.clone()));
        let defaults = self.defaults.iter().map(|d| (named("default of column", &d.column), d.table.clone()));
        rules.chain(policies).chain(defaults).collect()
    }

    /// Each object in readable form, with its definition, for comparisons.
    pub fn each(&self) -> Vec<(String, String)> {
        let rules = self
            .rules
            .iter()
            .map(|r| (format!("rule {} on {}", r.name.as_str(), r.table.plain()), format!("{r:?}")));
        let statistics =
            self.statistics.iter().map(|s| (format!("statistics {}", s.name.plain()), format!("{s:?}")));
        let publications =
            self.publications.iter().map(|p| (format!("publication {}", p.name.as_str()), format!("{p:?}")));
        let functions = self.functions.iter().map(|f| (format!("function {}", f.name), f.definition.clone()));
        let row_functions =
            self.row_functions.iter().map(|f| (format!("function {}", f.name), format!("{f:?}")));
        let policies = self
            .policies
            .iter()
            .map(|p| (format!("policy {} on {}", p.name.as_str(), p.table.plain()), format!("{p:?}")));
        let defaults = self
            .defaults
            .iter()
            .map(|d| (format!("default of {}.{}", d.table.plain(), d.column.as_str()), d.expression.clone()));
        let matviews = self
            .matviews
            .iter()
            .map(|m| (format!("materialized view {}", m.view.name.plain()), format!("{m:?}")));
        rules
            .chain(statistics)
            .chain(publications)
            .chain(functions)
            .chain(row_functions)
            .chain(policies)
            .chain(defaults)
            .chain(matviews)
            .collect()
    }

    /// Tables other than `table` that the swap alters and must therefore lock. The list can contain duplicates.
    pub fn tables<'a>(&'a self, table: &QualifiedName) -> Vec<&'a QualifiedName> {
        let rules = self.rules.iter().filter(|r| r.relkind != "v").map(|r| &r.table);
        let policies = self.policies.iter().map(|p| &p.table);
        let defaults = self.defaults.iter().map(|d| &d.table);
        rules.chain(policies).chain(defaults).filter(|name| *name != table).collect()
    }
}
