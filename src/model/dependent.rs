//! What is bound to a table by its oid and not by its name, so that it would stay with the old one: the swap binds each again,
//! from its definition as the catalog wrote it while nothing was renamed.

use serde::{Deserialize, Serialize};

use super::grant::Grant;
use super::ident::{Ident, QualifiedName};

/// All of it, views and foreign keys aside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dependents {
    /// Rules on the table, and rules on others that name it.
    pub rules: Vec<Rule>,
    /// Extended statistics.
    pub statistics: Vec<Statistics>,
    /// Publications that name the table.
    pub publications: Vec<Publication>,
    /// Functions with an SQL body that is parsed when they are made.
    pub functions: Vec<Function>,
    /// Policies of other tables that read it.
    pub policies: Vec<OtherPolicy>,
    /// Defaults of other tables' columns that take numbers from an identity's sequence of the table.
    pub defaults: Vec<OtherDefault>,
    /// Materialized views that read the table. They are not the swap's, but are made anew after it.
    pub matviews: Vec<Matview>,
}

/// A view that reads the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Schema and name.
    pub name: QualifiedName,
    /// Its owner.
    pub owner: Ident,
    /// Its query, every name qualified.
    pub query: String,
    /// Its options, each `name=value`.
    pub options: Vec<String>,
    /// It groups by the primary key alone, or has a whole row as a column: such a view cannot be pointed elsewhere.
    pub bound_to_key: bool,
}

/// A rule, other than a view's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name.
    pub name: Ident,
    /// The table or view that has it.
    pub table: QualifiedName,
    /// That one's `pg_class.relkind`.
    pub relkind: String,
    /// `CREATE RULE …`, every name qualified.
    pub definition: String,
    /// `pg_rewrite.ev_enabled`: `O` origin, `D` disabled, `R` replica, `A` always.
    pub enabled: String,
    /// It groups by the primary key alone.
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
    /// How closely to look, where set.
    pub target: Option<i32>,
    /// `COMMENT ON STATISTICS`.
    pub comment: Option<String>,
}

/// A publication that names the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// Its name.
    pub name: Ident,
    /// The columns that it publishes, where not all.
    pub columns: Option<Vec<Ident>>,
    /// The rows that it publishes, where not all.
    pub condition: Option<String>,
    /// `publish_via_partition_root`.
    pub via_root: bool,
}

/// A function with an SQL body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its name with its arguments' types.
    pub name: String,
    /// `CREATE OR REPLACE FUNCTION …`.
    pub definition: String,
    /// It groups by the primary key alone.
    #[serde(default)]
    pub needs_key: bool,
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

/// A default of another table's column.
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
    /// It holds rows: it was not made WITH NO DATA.
    pub populated: bool,
    /// How it is stored, if not as a heap.
    pub access_method: Option<Ident>,
    /// Where it lies, if not in the database's default.
    pub tablespace: Option<Ident>,
    /// Privileges, the owner's too, in the order in which they build on each other.
    pub grants: Vec<Grant>,
    /// Columns with a comment or a statistics target.
    pub columns: Vec<MatviewColumn>,
    /// Its indexes, by name.
    pub indexes: Vec<MatviewIndex>,
    /// Views that read it.
    pub readers: Vec<View>,
    /// Whatever else depends on it, as `pg_describe_object` names it.
    pub others: Vec<String>,
}

/// What a column of a materialized view has besides its query's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatviewColumn {
    /// The name.
    pub name: Ident,
    /// `COMMENT ON COLUMN`.
    pub comment: Option<String>,
    /// Statistics target, where set.
    pub statistics: Option<i32>,
}

/// An index of a materialized view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatviewIndex {
    /// The name.
    pub name: Ident,
    /// It is unique.
    pub unique: bool,
    /// CLUSTER goes by it.
    pub clustered: bool,
    /// What stands behind `USING` in its definition.
    pub tail: String,
    /// `COMMENT ON INDEX`.
    pub comment: Option<String>,
    /// Its tablespace, if not the database's default.
    #[serde(default)]
    pub tablespace: Option<Ident>,
}

impl Dependents {
    /// Each as people name it, with its definition: what a later look is compared with.
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
            .chain(policies)
            .chain(defaults)
            .chain(matviews)
            .collect()
    }

    /// Tables other than `table` that are altered at the swap, so that their locks are needed too; some more than once.
    pub fn tables<'a>(&'a self, table: &QualifiedName) -> Vec<&'a QualifiedName> {
        let rules = self.rules.iter().filter(|r| r.relkind != "v").map(|r| &r.table);
        let policies = self.policies.iter().map(|p| &p.table);
        let defaults = self.defaults.iter().map(|d| &d.table);
        rules.chain(policies).chain(defaults).filter(|name| *name != table).collect()
    }
}
