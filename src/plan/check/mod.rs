//! Checks a plan against a live table. Returns all findings at once, and the blueprint if there is no error.
//!
//! This module is pure: `pg::preflight` queries the server, and this module decides. The code of a finding is stable.
//! The hint is the statement to run, if there is one.

mod backfill;
mod column;
mod constraints;
mod dependents;
mod facts;
mod finishing;
mod indexes;
mod key;
mod key_tables;
mod mentions;
mod named;
mod names;
mod null_as;
mod replication;
mod retype;
mod rights;
mod sampled;
mod server;
mod shape;
mod size;
mod space;
mod surroundings;
mod table_trial;
#[cfg(test)]
pub(super) mod tests;
mod trial;
mod triggers;
mod updates;
mod words;
mod writing;

use std::fmt::Display;

pub use backfill::backfill;
pub use column::NULLS_COUNTED;
pub use facts::{
    Facts, ForeignView, Found, Grantor, NullCount, OpenJob, Relation, Rights, SchemaRights, Server,
    SessionLimit, Size, Values,
};
pub use finishing::{FinishTrial, Referenced, Standing};
pub use key::nullable_columns;
pub use key_tables::{UniqueFacts, UntrustedChild};
pub use named::{Named, named};
pub use null_as::{add_new, null_as_null, null_as_refused, of_null_as};
pub use retype::{ColumnFacts, Rehearsal, rehearsed, retype};
pub use sampled::{sample_untried, sampled};
pub use server::OLDEST_SERVER;
pub(super) use shape::no_such_table;
pub use space::space;
pub use surroundings::{
    DecodingSlot, ExtensionDependent, Label, Published, Surroundings, Text, TriggerFunction,
};
pub use table_trial::{
    How, Refused, TableTrial, Violated, Writes, orphaned, table_tried, unmended, unreadable_keys,
};
pub use trial::{EveryChunk, Refusal, Trial, tried};
pub use writing::{LeafFacts, OnColumns, UpdateTrigger, Writing};

use self::key::Nullable;
use super::{Partitioning, Plan};
use crate::model::blueprint::Blueprint;
use crate::model::explanation;
use crate::model::finding::{Finding, Level};
use crate::model::ident::{Ident, plain};
use crate::model::inventory::{self, Carried};
use crate::model::number;
use crate::model::partition::ColumnKind;
use crate::model::table::{Column, Index, Table};

/// The minimum Jaro-Winkler similarity at which a name is taken for a misspelling of another.
const ALIKE: f64 = 0.8;

/// The findings so far.
#[derive(Debug, Default)]
struct Report(Vec<Finding>);

impl Report {
    fn add(
        &mut self,
        level: Level,
        code: &'static str,
        object: impl Display,
        message: String,
        hint: impl Into<String>,
    ) {
        debug_assert!(
            explanation::of(code).is_some_and(|entry| entry.allows(level)),
            "docs/findings.md has no entry for {code} as {level}"
        );
        self.0.push(Finding { level, code, object: object.to_string(), message, hint: hint.into() });
    }

    fn error(&mut self, code: &'static str, object: impl Display, message: String, hint: impl Into<String>) {
        self.add(Level::Error, code, object, message, hint);
    }

    fn warning(
        &mut self,
        code: &'static str,
        object: impl Display,
        message: String,
        hint: impl Into<String>,
    ) {
        self.add(Level::Warning, code, object, message, hint);
    }

    fn note(&mut self, code: &'static str, object: impl Display, message: String) {
        self.add(Level::Note, code, object, message, "");
    }

    fn has_errors(&self) -> bool {
        self.0.iter().any(|finding| finding.level == Level::Error)
    }
}

/// The facts about the plan's table. If there is no such table, returns none and adds a finding.
fn found<'a>(report: &mut Report, plan: &Plan, facts: &'a Facts) -> Option<&'a Found> {
    server::check(report, plan, &facts.server);
    match &facts.relation {
        Relation::Unread => None,
        Relation::Missing { name, tables } => {
            report.0.push(no_such_table(name, tables));
            None
        }
        Relation::There(found) => Some(found),
    }
}

/// Returns every finding, and what the job would build; none if there is an error.
pub fn check(plan: &Plan, partitioning: &Partitioning, facts: &Facts) -> (Vec<Finding>, Option<Blueprint>) {
    let mut report = Report::default();
    let Some(found) = found(&mut report, plan, facts) else { return (report.0, None) };
    let table = &found.table;
    if !shape::check(&mut report, table) {
        return (report.0, None);
    }
    let under_way = names::jobs(&mut report, plan, table, &facts.jobs);
    rights::check(&mut report, plan, table, &found.rights, &facts.server);
    let by = Ident::new(&partitioning.by);
    let key = key::check(&mut report, table, Nullable::of(partitioning, &by), &found.key_nulls);
    let partitions = column::check(&mut report, partitioning, found);
    indexes::check(&mut report, partitioning, table, key, facts.server.version);
    let key_tables = key_tables::check(&mut report, partitioning, found, key);
    constraints::check(&mut report, found, facts.server.version);
    let (incoming, incoming_dropped) =
        dependents::incoming(&mut report, partitioning, table, &key_tables, facts.server.version);
    dependents::check(&mut report, found, &by, key);
    triggers::check(&mut report, found, &by);
    dependents::options(&mut report, found);
    dependents::sequences(&mut report, table.sequences.iter(), &[]);
    replication::check(&mut report, partitioning, found, key);
    size::check(&mut report, table, &found.size);
    let (Some(key), Some(partitions)) = (key, partitions) else { return (report.0, None) };
    let b = Blueprint {
        job: plan.name().to_owned(),
        null_as: None,
        not_null: kept_out(partitioning, table, &by, key),
        by,
        key_index: key.name.clone(),
        key: key.columns.clone().unwrap_or_default(),
        partitions,
        default: partitioning.default.then(|| table.name.sibling(table.name.name.with_suffix("_default"))),
        drop_unique: partitioning.drop_unique.iter().map(Ident::new).collect(),
        key_tables,
        incoming,
        incoming_dropped,
        keys_on_leaves: facts.server.version < dependents::NOT_VALID_ON_PARTITIONED,
        violated_checks: Vec::new(),
        checks_left_out: Vec::new(),
        table: table.clone(),
    };
    if partitioning.keeps_null_out() && b.not_null.is_empty() {
        let name = plain(b.by.as_str());
        report.note("not_null_already", &name, format!("column {name} is already NOT NULL"));
    }
    if !under_way {
        names::constraint(&mut report, &b);
    }
    names::check(&mut report, &b, (!under_way).then_some(&found.names));
    key::note(&mut report, &b);
    mentions::check(&mut report, found, &b);
    carried(&mut report, &b);
    size::partitions(&mut report, &b);
    server::locks(&mut report, &b, &facts.server);
    let passed = !report.has_errors();
    (report.0, passed.then_some(b))
}

fn carried(report: &mut Report, b: &Blueprint) {
    let summary = inventory::summary(&inventory::inventory(b));
    report.note("carried", b.table.name.plain(), format!("carried over: {summary}"));
}

/// The nullable columns that the job keeps NULL out of: the partition column and those of the key.
fn kept_out(plan: &Partitioning, table: &Table, by: &Ident, key: &Index) -> Vec<Ident> {
    if !plan.keeps_null_out() {
        return Vec::new();
    }
    let others = key.columns.iter().flatten().filter(|column| *column != by).cloned();
    let place: Vec<Ident> = std::iter::once(by.clone()).chain(others).collect();
    key::nullable(table, &place).into_iter().cloned().collect()
}

/// One note for each object that is carried over, and how.
pub fn each_carried(b: &Blueprint) -> impl Iterator<Item = Finding> {
    let note = |object: Carried| Finding {
        level: Level::Note,
        code: "carried_object",
        message: format!("{} {}: {}", object.kind, object.name, object.how),
        object: object.name,
        hint: String::new(),
    };
    inventory::inventory(b).into_iter().map(note)
}

/// The key of the table, if there is one that is usable while the job keeps NULL out of its columns.
pub(super) fn key(table: &Table) -> Option<&Index> {
    key::choose(table, Nullable::All)
}

/// The finding that there is no usable key.
pub(super) fn no_key(table: &Table) -> Option<Finding> {
    let mut report = Report::default();
    key::check(&mut report, table, Nullable::None, &[]);
    report.0.pop()
}

/// Whether the relation can be partitioned at all.
///
/// # Errors
/// The first finding that rules it out.
pub(super) fn is_table(table: &Table) -> Result<(), Finding> {
    let mut report = Report::default();
    if shape::check(&mut report, table) { Ok(()) } else { Err(report.0.swap_remove(0)) }
}

/// The column `by` and its kind.
///
/// # Errors
/// The finding that rules out every plan for this column.
pub(super) fn candidate<'a>(table: &'a Table, by: &str) -> Result<(&'a Column, ColumnKind), Finding> {
    let mut report = Report::default();
    let column = column::find(&mut report, table, by);
    let kind = column.and_then(|column| column::kind(&mut report, column));
    match (column, kind) {
        (Some(column), Some(kind)) => Ok((column, kind)),
        _ => Err(report.0.swap_remove(0)),
    }
}

/// The most similar of `names` to `written`; none if no name is similar enough.
fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    let scored = names.into_iter().map(|name| (strsim::jaro_winkler(&written, &name.to_lowercase()), name));
    scored
        .filter(|(similarity, _)| *similarity >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Writes `1 row contains` or `2,000 rows contain`.
fn rows_that(n: i64, singular: &str, plural: &str) -> String {
    format!("{} {}", number::counted(n.unsigned_abs(), "row"), if n == 1 { singular } else { plural })
}

/// The statements that make the column NOT NULL without a long lock: only `validate` scans the table, and it does not
/// block writes. The constraint is dropped in a separate statement; in the same ALTER TABLE, it would be dropped before
/// SET NOT NULL could use it.
fn set_not_null(table: &str, column: &Ident) -> String {
    let check = plain(column.with_suffix("_not_null").as_str());
    let column = plain(column.as_str());
    format!(
        "alter table {table} add constraint {check} check ({column} is not null) not valid; \
         alter table {table} validate constraint {check}; \
         alter table {table} alter column {column} set not null; \
         alter table {table} drop constraint {check}"
    )
}
