//! Those who use the table and are no part of it, as data.

use serde::Deserialize;

use crate::model::ident::Ident;

/// Everything that preflight asks about them.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Surroundings {
    /// Publications that have the table, named or among all.
    pub publications: Vec<Published>,
    /// Logical slots that are no subscribers': change data capture, mostly.
    pub decoding_slots: Vec<DecodingSlot>,
    /// Security labels of the table and its columns.
    pub labels: Vec<Label>,
    /// Indexes and triggers that DEPEND ON an EXTENSION.
    pub tied_to_extensions: Vec<Tied>,
    /// Sessions that `postgres_fdw` opened from another server.
    pub foreign_sessions: i64,
    /// Whose transactions are REPEATABLE READ or SERIALIZABLE by a setting of the role or database, in words.
    pub strict_isolation: Vec<String>,
    /// Storage parameters that no documentation knows, each with what has it.
    pub unknown_options: Vec<String>,
    /// Functions of the user's row triggers.
    pub trigger_functions: Vec<TriggerFunction>,
    /// Functions whose text names the table, those with an SQL body aside.
    pub functions: Vec<Text>,
    /// Statements in pg_stat_statements that name it.
    #[serde(skip)]
    pub statements: Vec<Text>,
}

/// A publication that has the table.
#[derive(Debug, Clone, Deserialize)]
pub struct Published {
    /// Its name.
    pub name: Ident,
    /// It names the table; else it is one of all tables, of the database or of a schema.
    pub named: bool,
    /// It publishes updates or deletes.
    pub changes: bool,
    /// `publish_via_partition_root`.
    pub via_root: bool,
    /// Partitions of other tables that it publishes under their own names.
    pub partitions: i64,
    /// Slots whose subscribers take it, or may.
    pub slots: Vec<String>,
}

/// A logical replication slot that is no subscriber's.
#[derive(Debug, Clone, Deserialize)]
pub struct DecodingSlot {
    /// Its name.
    pub name: String,
    /// Its output plugin.
    pub plugin: String,
}

/// A security label.
#[derive(Debug, Clone, Deserialize)]
pub struct Label {
    /// Who reads it.
    pub provider: String,
    /// The column, where it is not the table's.
    pub column: Option<Ident>,
}

/// Something that goes when an extension goes.
#[derive(Debug, Clone, Deserialize)]
pub struct Tied {
    /// `index i` or `trigger g on table t`.
    pub name: String,
    /// The extension.
    pub extension: Ident,
}

/// The function of a row trigger.
#[derive(Debug, Clone, Deserialize)]
pub struct TriggerFunction {
    /// The trigger.
    pub trigger: Ident,
    /// The function's text, where it has one.
    pub source: String,
    /// A move between partitions fires it otherwise than an update does.
    pub fires_for_moves: bool,
}

/// A text that names the table.
#[derive(Debug, Clone, Deserialize)]
pub struct Text {
    /// Where it is from, in words.
    pub name: String,
    /// SQL, or a procedural language.
    pub text: String,
}
