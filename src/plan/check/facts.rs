//! What preflight asks the server, as data.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::surroundings::Surroundings;
use crate::model::ident::{Ident, QualifiedName};
use crate::model::lent::Code;
use crate::model::state::State;
use crate::model::table::Table;

/// Everything that the check goes by.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The server.
    pub server: Server,
    /// What bears the table's name.
    pub relation: Relation,
    /// Jobs that are not over.
    pub jobs: Vec<OpenJob>,
}

/// The server, and we on it.
#[derive(Debug, Clone)]
pub struct Server {
    /// `server_version_num`: 150018 is 15.18.
    pub version: i32,
    /// It is a standby.
    pub in_recovery: bool,
    /// The database's name.
    pub database: String,
    /// Our role.
    pub user: String,
    /// `deadlock_timeout`, in milliseconds.
    pub deadlock_timeout_ms: i32,
    /// Event triggers in force, by name.
    pub event_triggers: Vec<String>,
    /// How many sessions there may be.
    pub session_limits: Vec<SessionLimit>,
}

/// How many sessions there may be at a time.
#[derive(Debug, Clone)]
pub struct SessionLimit {
    /// `role`, `database` or `server`.
    pub of: String,
    /// The role's or the database's name; the setting.
    pub name: String,
    /// The limit.
    pub most: i64,
    /// Sessions that count, without our own.
    pub used: i64,
}

/// What bears the table's name.
#[derive(Debug, Clone)]
pub enum Relation {
    /// The server's catalog is not one that this version reads.
    Unread,
    /// Nothing.
    Missing {
        /// The name.
        name: QualifiedName,
        /// The tables there are.
        tables: Vec<QualifiedName>,
    },
    /// A relation.
    There(Box<Found>),
}

/// The relation, and what is around it.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its definition.
    pub table: Table,
    /// What we may do.
    pub rights: Rights,
    /// What the partition column holds; none where it could not be read.
    pub values: Option<Values>,
    /// How large it is, and how much it changes.
    pub size: Size,
    /// Every name in its schema that a table, index or sequence cannot take, with what bears it.
    pub names: BTreeMap<Ident, String>,
    /// Prepared transactions that hold a lock on it: their names.
    pub prepared: Vec<String>,
    /// Those who use it and are no part of it.
    pub around: Surroundings,
}

/// What the partition column holds; values as the server prints them with `TimeZone = UTC` and `DateStyle = ISO`.
#[derive(Debug, Clone, Default)]
pub struct Values {
    /// An index led to the ends; without one the whole table was read.
    pub by_index: bool,
    /// The smallest finite value.
    pub oldest: Option<String>,
    /// The largest finite value.
    pub newest: Option<String>,
    /// The server's clock in the column's type; none for integers.
    pub now: Option<String>,
    /// Rows without a value.
    pub nulls: i64,
    /// Rows that hold `-infinity` or `infinity`.
    pub infinite: i64,
    /// Rows with a finite value below the plan's `from`.
    pub below: i64,
    /// Rows with a finite value at or above the plan's `to`.
    pub above: i64,
}

/// How large a table is, and how much it changes.
#[derive(Debug, Clone, Default)]
pub struct Size {
    /// Rows by the statistics.
    pub rows: i64,
    /// The table was analysed at some time.
    pub analyzed: bool,
    /// Bytes with indexes and TOAST.
    pub bytes: i64,
    /// Inserts, updates and deletes that the server counted.
    pub changes: f64,
    /// Over how many seconds, at least.
    pub observed_s: f64,
    /// Whether the counters' beginning is known; without it the average is an upper limit.
    pub since_known: bool,
    /// Columns that the table has or had: a dropped one keeps its number.
    pub attributes: i32,
}

/// What our role may do, as the server's `has_..._privilege` functions say.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Rights {
    /// A superuser may do everything.
    pub superuser: bool,
    /// It has the rights of the table's owner.
    pub owner: bool,
    /// Code of others that would run with the job's rights; only looked for where the table's owner is not trusted.
    #[serde(default)]
    pub lent: Vec<Code>,
    /// It may give what it creates to the table's owner.
    pub become_owner: bool,
    /// The table's owner may create in the schema: the server asks for it of a new owner.
    pub owner_creates: bool,
    /// CREATE on the table's schema.
    pub schema_create: bool,
    /// CREATE on the database.
    pub database_create: bool,
    /// Tablespaces of the table and its indexes in which it may not create.
    pub tablespaces_denied: Vec<Ident>,
    /// It sees what other roles' sessions do.
    pub sees_sessions: bool,
    /// SELECT on the table.
    pub select: bool,
    /// Row-level security hides rows from it.
    pub rows_hidden: bool,
    /// The schema `pgstrata`, where it is there.
    pub own_schema: Option<OwnSchema>,
    /// Schemas that it may not look into, of the table itself and of all that is created again.
    pub schemas_closed: Vec<Ident>,
    /// What is made again in a schema other than the table's, where it may not create.
    pub schemas_fixed: Vec<MadeIn>,
    /// Types of the table's columns that it may not use, as SQL has them.
    pub types_closed: Vec<String>,
    /// Tables that a foreign key points to, without REFERENCES.
    pub not_referenceable: Vec<QualifiedName>,
    /// Trigger functions without EXECUTE, with their arguments, as SQL has them.
    pub not_executable: Vec<String>,
    /// Roles that granted privileges on the table, and that it cannot become.
    pub grantors: Vec<Ident>,
    /// What the swap binds again, and only its owner may.
    pub not_owned: Vec<NotOwned>,
    /// Views that it cannot replace.
    pub foreign_views: Vec<ForeignView>,
}

/// What our role may do in the schema `pgstrata`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct OwnSchema {
    /// USAGE.
    pub usage: bool,
    /// CREATE.
    pub create: bool,
    /// It may read and write every table of the tool.
    pub tables: bool,
}

/// Something that is made again in its schema.
#[derive(Debug, Clone, Deserialize)]
pub struct MadeIn {
    /// The schema.
    pub schema: Ident,
    /// What it is, and its name as SQL has it.
    pub name: String,
}

/// Something whose owner our role is not.
#[derive(Debug, Clone, Deserialize)]
pub struct NotOwned {
    /// What it is, and its name as SQL has it.
    pub name: String,
    /// Its owner.
    pub owner: Ident,
}

/// A view that our role cannot replace.
#[derive(Debug, Clone, Deserialize)]
pub struct ForeignView {
    /// The view.
    pub name: QualifiedName,
    /// Its owner.
    pub owner: Ident,
    /// We have the owner's rights: it is CREATE on its schema that lacks.
    pub owned: bool,
}

/// A job that is not over.
#[derive(Debug, Clone)]
pub struct OpenJob {
    /// Its name.
    pub name: String,
    /// Its table, as people write it.
    pub source: String,
    /// It ends with a swap.
    pub is_swapped: bool,
    /// Where it is.
    pub state: State,
}
