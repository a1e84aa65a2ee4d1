//! How suitable a column is as the partition column, according to its definition and its statistics.

use crate::model::ident::{Ident, plain};
use crate::model::partition::ColumnKind;
use crate::model::table::{Column, Index, Table};
use crate::plan::check::{self, Found, Values};
use crate::plan::partitioning::is_time;
use crate::plan::suggest::EpochUnit;

/// What is known about the values of a column without reading the whole table.
#[derive(Debug, Clone, Default)]
pub struct ColumnProfile {
    /// Its name, as in the catalog.
    pub name: String,
    /// The smallest and largest values; none if they could not be read.
    pub values: Option<Values>,
    /// `pg_stats.n_distinct`; none without statistics.
    pub distinct: Option<f64>,
    /// The correlation of its order with the order of the rows; none without statistics.
    pub correlation: Option<f64>,
    /// Whether an index begins with it.
    pub indexed: bool,
    /// The histogram bounds of its statistics, as text.
    pub histogram: Vec<String>,
}

/// How suitable a column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// It is in the key. Its values grow with new rows, or not; none if that is not known.
    Key { grows: Option<bool> },
    /// The time of the insertion.
    Inserted,
    /// Times as integers.
    Epoch(EpochUnit),
    /// Another time.
    OtherTime,
    /// A time that updates change.
    Updated,
    /// An integer outside the key that grows with new rows.
    Number,
    /// It is not suitable, for this reason.
    Unsuitable(&'static str),
}

impl Fit {
    /// Less is better. Compare with the weight of a lost constraint, 10.
    pub(super) fn weight(self) -> u32 {
        match self {
            Self::Key { grows: Some(true) } | Self::Inserted => 0,
            Self::Epoch(_) | Self::Number => 1,
            Self::Key { grows: None } => 2,
            Self::OtherTime => 3,
            Self::Key { grows: Some(false) } => 6,
            Self::Updated => 8,
            Self::Unsuitable(_) => 20,
        }
    }
}

/// From this correlation on, rows are stored in the order of the column.
const ORDERED: f64 = 0.9;
/// A column with fewer distinct values has no ranges to divide.
const FEW: f64 = 100.0;

pub(super) fn fit(found: &Found, column: &Column, kind: ColumnKind, profile: &ColumnProfile) -> Fit {
    let table = &found.table;
    if !column.generated.is_empty() {
        return Fit::Unsuitable("is a generated column");
    }
    let grows = grows(table, column, profile);
    if is_time(kind) {
        return time(column, profile);
    }
    // A positive number does not grow with the table.
    if found.size.rows > 1000 && profile.distinct.is_some_and(|n| n > 0.0 && n < FEW) {
        return Fit::Unsuitable("has few distinct values");
    }
    if check::key(table).and_then(|key| key.columns.as_ref()).is_some_and(|key| key.contains(&column.name)) {
        return Fit::Key { grows };
    }
    if refers(table, &column.name) {
        return Fit::Unsuitable("refers to another table");
    }
    if let Some(unit) = epoch(profile) {
        return Fit::Epoch(unit);
    }
    match grows {
        Some(true) if column.not_null => Fit::Number,
        _ => Fit::Unsuitable("does not grow with new rows"),
    }
}

fn epoch(profile: &ColumnProfile) -> Option<EpochUnit> {
    let values = profile.values.as_ref()?;
    let (oldest, newest) = (values.oldest.as_ref()?, values.newest.as_ref()?);
    EpochUnit::of(oldest.parse().ok()?, newest.parse().ok()?)
}

/// Whether new rows have larger values than older ones; none if that is not known.
fn grows(table: &Table, column: &Column, profile: &ColumnProfile) -> Option<bool> {
    if has_sequence(table, column) {
        return Some(true);
    }
    profile.correlation.map(|correlation| correlation >= ORDERED)
}

/// Whether the values come from a sequence.
fn has_sequence(table: &Table, column: &Column) -> bool {
    !column.identity.is_empty()
        || column.default.as_ref().is_some_and(|default| default.contains("nextval("))
        || table.sequences.iter().any(|sequence| sequence.column == column.name)
}

/// Whether values of the index are unique by their origin: a sequence, or uuids.
pub(super) fn is_generated(table: &Table, index: &Index) -> bool {
    let columns = index.columns.iter().flatten().filter_map(|name| table.column(name));
    columns.into_iter().any(|column| has_sequence(table, column) || column.base_type == "uuid")
}

fn refers(table: &Table, column: &Ident) -> bool {
    let start = format!("FOREIGN KEY ({})", plain(column.as_str()));
    let own = table.referenced_by.iter().filter(|key| key.table == table.name);
    table.foreign_keys.iter().chain(own).any(|key| key.definition.starts_with(&start))
}

fn time(column: &Column, profile: &ColumnProfile) -> Fit {
    if is_updated(column) {
        return Fit::Updated;
    }
    if is_inserted(column) || profile.correlation.is_some_and(|correlation| correlation >= ORDERED) {
        return Fit::Inserted;
    }
    Fit::OtherTime
}

fn is_updated(column: &Column) -> bool {
    let name = column.name.as_str().to_lowercase();
    ["updat", "modif", "chang", "last_", "seen", "accessed"].iter().any(|part| name.contains(part))
}

fn is_inserted(column: &Column) -> bool {
    is_named_inserted(column) || has_default_now(column)
}

fn is_named_inserted(column: &Column) -> bool {
    const NAMES: [&str; 6] = ["creat", "insert", "occur", "logged", "recorded", "received"];
    let name = column.name.as_str().to_lowercase();
    NAMES.iter().any(|part| name.contains(part))
}

fn has_default_now(column: &Column) -> bool {
    const NOW: [&str; 6] = [
        "now()",
        "current_timestamp",
        "current_date",
        "localtimestamp",
        "clock_timestamp",
        "statement_timestamp",
    ];
    let default = column.default.as_deref().unwrap_or_default().to_lowercase();
    NOW.iter().any(|now| default.contains(now))
}

/// The column that is the time of the insertion, by its name; otherwise by its default.
pub(super) fn insertion_time(table: &Table) -> Option<&Ident> {
    let is_time_column = |column: &&Column| ColumnKind::from_sql(&column.base_type).is_some_and(is_time);
    let times = || table.columns.iter().filter(is_time_column).filter(|column| !is_updated(column));
    let column = times().find(|c| is_named_inserted(c)).or_else(|| times().find(|c| has_default_now(c)))?;
    Some(&column.name)
}
