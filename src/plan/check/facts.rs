//! The facts that preflight queries from the server.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::key_tables::UniqueFacts;
use super::surroundings::Surroundings;
use crate::model::ident::{Ident, QualifiedName};
use crate::model::lock_estimate::LockTable;
use crate::model::state::State;
use crate::model::table::Table;
use crate::model::untrusted_code::{Code, Overload};

/// All facts for the check.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The server.
    pub server: Server,
    /// The relation with the table's name.
    pub relation: Relation,
    /// Open jobs.
    pub jobs: Vec<OpenJob>,
    /// Triggers that fill rows: the name of each, and its table.
    pub fill_triggers: Vec<(Ident, QualifiedName)>,
}

/// The server, and the session's role and database.
#[derive(Debug, Clone)]
pub struct Server {
    /// `server_version_num`: 150018 is 15.18.
    pub version: i32,
    /// Whether it is a standby.
    pub in_recovery: bool,
    /// The name of the database.
    pub database: String,
    /// The job's role.
    pub user: String,
    /// `deadlock_timeout`, in milliseconds.
    pub deadlock_timeout_ms: i32,
    /// The size of its lock table.
    pub lock_table: LockTable,
    /// The names of enabled event triggers.
    pub event_triggers: Vec<String>,
    /// The limits on the number of sessions.
    pub session_limits: Vec<SessionLimit>,
}

/// A limit on the number of concurrent sessions.
#[derive(Debug, Clone)]
pub struct SessionLimit {
    /// `role`, `database` or `server`.
    pub of: String,
    /// The name of the role, the database or the setting.
    pub name: String,
    /// The limit.
    pub most: i64,
    /// Sessions that count toward the limit, except the session of the check.
    pub used: i64,
}

/// The relation with the table's name.
#[derive(Debug, Clone)]
pub enum Relation {
    /// Not read, because this version does not support the catalog of the server.
    Unread,
    /// There is none.
    Missing {
        /// The name.
        name: QualifiedName,
        /// The existing tables.
        tables: Vec<QualifiedName>,
    },
    /// The relation exists.
    There(Box<Found>),
}

/// The relation and its surroundings.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its definition.
    pub table: Table,
    /// The privileges of the job's role.
    pub rights: Rights,
    /// The values of the partition column; none if they could not be read.
    pub values: Option<Values>,
    /// Its size and its rate of changes.
    pub size: Size,
    /// The names in its schema that a new table, index or sequence cannot have, each with the object that has it.
    pub names: BTreeMap<Ident, String>,
    /// The names of prepared transactions that hold a lock on it.
    pub prepared: Vec<String>,
    /// The NULLs in columns of the unique index that would be the key if they were NOT NULL.
    pub key_nulls: Vec<NullCount>,
    /// What its key tables follow from.
    pub keys: UniqueFacts,
    /// The users of the table.
    pub around: Surroundings,
}

/// The values of the partition column, as text that the server writes with `TimeZone = UTC` and `DateStyle = ISO`.
#[derive(Debug, Clone, Default)]
pub struct Values {
    /// Whether the smallest and largest values were read from an index. Otherwise the whole table was read.
    pub by_index: bool,
    /// Whether the numbers of rows are estimates, and the values come from statistics and a sample.
    pub estimated: bool,
    /// The smallest finite value.
    pub oldest: Option<String>,
    /// The largest finite value.
    pub newest: Option<String>,
    /// The server's current time in the column's type; none for integers.
    pub now: Option<String>,
    /// The number of rows with NULL.
    pub nulls: i64,
    /// The number of rows with `-infinity` or `infinity`.
    pub infinite: i64,
    /// The number of rows with a finite value below `from` of the plan.
    pub below: i64,
    /// The number of rows with a finite value at or above `to` of the plan.
    pub above: i64,
}

/// The number of rows with NULL in a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NullCount {
    /// The column.
    pub column: Ident,
    /// The number, at most [`super::NULLS_COUNTED`].
    pub rows: i64,
    /// Whether it is an estimate from the statistics.
    pub estimated: bool,
}

/// The size of a table and its rate of changes.
#[derive(Debug, Clone, Default)]
pub struct Size {
    /// The number of rows, according to the statistics.
    pub rows: i64,
    /// Whether the table has been analyzed.
    pub analyzed: bool,
    /// The size in bytes, including indexes and TOAST.
    pub bytes: i64,
    /// The number of inserts, updates and deletes, according to the server's counters.
    pub changes: f64,
    /// The minimum number of seconds that the counters cover.
    pub observed_s: f64,
    /// Whether the start of the counters is known. If not, the average rate is an upper limit.
    pub since_known: bool,
    /// The number of columns, including dropped ones.
    pub attributes: i32,
}

/// The privileges of the job's role, according to the server's `has_..._privilege` functions.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Rights {
    /// Whether the role is a superuser, which has all privileges.
    pub superuser: bool,
    /// Whether it has the privileges of the table's owner.
    pub owner: bool,
    /// Code of other roles that would run with the privileges of the job's role. Only queried if the table's owner is
    /// untrusted.
    #[serde(default)]
    pub untrusted_code: Vec<Code>,
    /// Calls in definitions that could mean another function when the job creates the object again.
    #[serde(default)]
    pub overloads: Vec<Overload>,
    /// Whether it can change the owner of its tables to the table's owner.
    pub become_owner: bool,
    /// Whether the table's owner has CREATE on the schema, which the server requires of a new owner.
    pub owner_creates: bool,
    /// Whether it has CREATE on the table's schema.
    pub schema_create: bool,
    /// Whether it has CREATE on the database.
    pub database_create: bool,
    /// Tablespaces of the table and its indexes on which it lacks CREATE.
    pub tablespaces_denied: Vec<Ident>,
    /// Whether it can see the activity of other roles' sessions.
    pub sees_sessions: bool,
    /// Whether it has SELECT on the table.
    pub select: bool,
    /// Other privileges on the table that it lacks, such as `DELETE`: an owner can revoke them from itself.
    #[serde(default)]
    pub lacks: Vec<String>,
    /// Whether row-level security hides rows from it.
    pub rows_hidden: bool,
    /// The privileges on schema `pgstrata`; none if the schema does not exist.
    pub own_schema: Option<SchemaRights>,
    /// Schemas on which it lacks USAGE, of the table and of all objects that are created again.
    pub schemas_without_usage: Vec<Ident>,
    /// Objects to create again in a schema other than the table's, on which it lacks CREATE.
    pub schemas_without_create: Vec<CreatedIn>,
    /// Types of the table's columns on which it lacks USAGE, as SQL.
    pub types_closed: Vec<String>,
    /// Tables that a foreign key references, on which it lacks REFERENCES.
    pub not_referenceable: Vec<QualifiedName>,
    /// Trigger functions on which it lacks EXECUTE, with their arguments, as SQL.
    pub not_executable: Vec<String>,
    /// Grantors on whose behalf the job cannot grant privileges again.
    #[serde(default)]
    pub grantors: Vec<Grantor>,
    /// Objects that the swap binds to the new table, which only their owners can do.
    pub not_owned: Vec<NotOwned>,
    /// Views that it cannot replace.
    pub foreign_views: Vec<ForeignView>,
}

/// The privileges of the job's role on schema `pgstrata`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct SchemaRights {
    /// Whether it has USAGE.
    pub usage: bool,
    /// Whether it has CREATE.
    pub create: bool,
    /// Whether it can read and write every table of pgstrata.
    pub tables: bool,
}

/// An object that is created again in its schema.
#[derive(Debug, Clone, Deserialize)]
pub struct CreatedIn {
    /// The schema.
    pub schema: Ident,
    /// Its kind, and its name as SQL.
    pub name: String,
}

/// A grantor on whose behalf the job cannot grant privileges again.
#[derive(Debug, Clone, Deserialize)]
pub struct Grantor {
    /// The role.
    pub name: Ident,
    /// The object, as SQL.
    pub on: String,
    /// The schema of the object, if the role lacks USAGE on it. Otherwise, the job's role cannot SET ROLE to the role.
    pub closed: Option<Ident>,
}

/// An object that the job's role does not own.
#[derive(Debug, Clone, Deserialize)]
pub struct NotOwned {
    /// Its kind, and its name as SQL.
    pub name: String,
    /// Its owner.
    pub owner: Ident,
}

/// A view that the job's role cannot replace.
#[derive(Debug, Clone, Deserialize)]
pub struct ForeignView {
    /// The view.
    pub name: QualifiedName,
    /// Its owner.
    pub owner: Ident,
    /// Whether the role has the privileges of the owner. If so, it lacks CREATE on the schema.
    pub owned: bool,
}

/// An open job.
#[derive(Debug, Clone)]
pub struct OpenJob {
    /// Its name.
    pub name: String,
    /// Its table, quoted only if SQL requires it.
    pub source: String,
    /// Whether it has a swap.
    pub is_swapped: bool,
    /// Whether it replaces its table by a partitioned one.
    pub partitions: bool,
    /// Objects of other tables that use its table: the name of each, and the table that has it.
    pub used_by: Vec<(String, QualifiedName)>,
    /// Its state.
    pub state: State,
}
