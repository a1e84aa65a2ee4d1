//! The facts about users of the table: publications, slots, functions, statements.

use serde::Deserialize;

use crate::model::ident::Ident;

/// Everything that preflight queries about them.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Surroundings {
    /// Publications that contain the table, by name or among all tables.
    pub publications: Vec<Published>,
    /// Logical slots that do not belong to subscribers, mostly for change data capture.
    pub decoding_slots: Vec<DecodingSlot>,
    /// Security labels of the table and its columns.
    pub labels: Vec<Label>,
    /// Indexes and triggers that DEPEND ON an EXTENSION.
    pub tied_to_extensions: Vec<ExtensionDependent>,
    /// Sessions that `postgres_fdw` opened from another server.
    pub foreign_sessions: i64,
    /// The roles and databases with a setting that makes REPEATABLE READ or SERIALIZABLE the default, as text.
    pub strict_isolation: Vec<String>,
    /// Undocumented storage parameters, each with its object.
    pub unknown_options: Vec<String>,
    /// Functions of the row triggers that users created.
    pub trigger_functions: Vec<TriggerFunction>,
    /// Functions whose text names the table, except those with an SQL body.
    pub functions: Vec<Text>,
    /// Statements in pg_stat_statements that name it.
    #[serde(skip)]
    pub statements: Vec<Text>,
}

/// A publication that contains the table.
#[derive(Debug, Clone, Deserialize)]
pub struct Published {
    /// Its name.
    pub name: Ident,
    /// It lists the table by name. Otherwise it publishes all tables of the database or of a schema.
    pub named: bool,
    /// It publishes updates or deletes.
    pub changes: bool,
    /// `publish_via_partition_root`.
    pub via_root: bool,
    /// The number of partitions of other tables that it publishes under their own names.
    pub partitions: i64,
    /// Slots whose subscribers receive it, or may receive it.
    pub slots: Vec<String>,
}

/// A logical replication slot that does not belong to a subscriber.
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
    /// The label provider.
    pub provider: String,
    /// The column; none for a label of the table.
    pub column: Option<Ident>,
}

/// An object that is dropped when an extension is dropped.
#[derive(Debug, Clone, Deserialize)]
pub struct ExtensionDependent {
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
    /// The source text of the function; empty if it has none.
    pub source: String,
    /// Whether it fires differently when an update moves a row between partitions.
    pub fires_for_moves: bool,
}

/// A text that names the table.
#[derive(Debug, Clone, Deserialize)]
pub struct Text {
    /// Its source, as text for messages.
    pub name: String,
    /// The text, in SQL or a procedural language.
    pub text: String,
}
