//! Reports indexes that a partitioned table cannot have.

use super::{Report, key, key_tables, nearest};
use crate::model::ident::{Ident, plain};
use crate::model::table::{Index, Table};
use crate::plan::Partitioning;

pub(super) fn check(
    report: &mut Report,
    plan: &Partitioning,
    table: &Table,
    key: Option<&Index>,
    version: i32,
) {
    let by = Ident::new(&plan.by);
    // An index that becomes the key after its columns are NOT NULL gets the partition column.
    let future_key = key.or_else(|| key::nearly(table));
    for index in &table.indexes {
        let name = plain(index.name.as_str());
        let dropped = plan.drop_unique.iter().any(|n| n == index.name.as_str());
        if !index.valid {
            report.error(
                "invalid_index",
                &name,
                format!("index {name} is invalid: a concurrent build failed or is still running"),
                format!(
                    "run `drop index concurrently {0}` or `reindex index concurrently {0}`",
                    qualified(table, index)
                ),
            );
        } else if index.exclusion.is_some() {
            exclusion(report, table, index, &by, version);
        } else if index.unique
            && !dropped
            && future_key.is_none_or(|k| k.name != index.name)
            && !key_tables::is_wanted(plan, table, key, index)
        {
            lacking(report, index, &by);
        }
    }
    clustered(report, table);
    for name in &plan.drop_unique {
        dropped(report, table, key, name);
    }
}

/// The first version in which a partitioned table can have an exclusion constraint, if it compares the partition column
/// with `=`.
const EXCLUSION: i32 = 170_000;

fn exclusion(report: &mut Report, table: &Table, index: &Index, by: &Ident, version: i32) {
    let (name, column) = (plain(index.name.as_str()), plain(by.as_str()));
    let why = if version < EXCLUSION {
        "before PostgreSQL 17".to_owned()
    } else if index.equated.contains(by) {
        return;
    } else {
        format!("because it does not contain {column} WITH =")
    };
    report.error(
        "exclusion_constraint",
        &name,
        format!("exclusion constraint {name} cannot be kept on a partitioned table {why}"),
        format!("drop it: alter table {} drop constraint {name}", table.name.plain()),
    );
}

fn clustered(report: &mut Report, table: &Table) {
    if let Some(index) = table.indexes.iter().find(|i| i.clustered) {
        let (index, table) = (plain(index.name.as_str()), table.name.plain());
        report.warning(
            "cluster_on",
            &index,
            format!(
                "index {index} is marked for CLUSTER: only partitions can have such a mark, a \
                partitioned table cannot"
            ),
            format!(
                "after the swap, cluster each partition, or in PostgreSQL 15 and later: cluster \
                {table} using {index}"
            ),
        );
    }
}

/// Reports a unique index without the partition column, which a partitioned table cannot have.
fn lacking(report: &mut Report, index: &Index, by: &Ident) {
    let what = if index.constraint.is_empty() { "unique index" } else { "unique constraint" };
    let (name, column) = (plain(index.name.as_str()), plain(by.as_str()));
    let hint = format!(
        "keep it with a key table: list it under [partition] keep_unique; or add {column} to it; or give up the guarantee: \
         list it under drop_unique"
    );
    match &index.columns {
        Some(columns) if columns.contains(by) => {}
        Some(_) => report.error(
            "unique_without_partition_column",
            &name,
            format!("{what} {name} does not contain the partition column {column}"),
            hint,
        ),
        None => report.error(
            "unique_on_expression",
            &name,
            format!("{what} {name} is on an expression and cannot be enforced across partitions"),
            "keep it with a key table: list it under [partition] keep_unique; or give up the guarantee: list it under drop_unique",
        ),
    }
}

fn dropped(report: &mut Report, table: &Table, key: Option<&Index>, name: &str) {
    let shown = plain(name);
    let code = "drop_unique";
    let unique = || table.indexes.iter().filter(|i| i.unique && key.is_none_or(|k| k.name != i.name));
    match table.indexes.iter().find(|i| i.name.as_str() == name) {
        None => {
            let hint = match nearest(name, unique().map(|i| i.name.as_str())) {
                Some(near) => format!("did you mean {}?", plain(near)),
                None => "remove it from the list".to_owned(),
            };
            let message = format!("drop_unique lists {shown}, but {} has no such index", table.name.plain());
            report.error(code, shown, message, hint);
        }
        Some(index) if !index.unique => {
            let message = format!("drop_unique lists {shown}, which is not unique");
            report.error(
                code,
                shown,
                message,
                "remove it from the list: an index that is not unique is carried over in any case",
            );
        }
        Some(index) if key.is_some_and(|k| k.name == index.name) => {
            let message = format!("drop_unique lists {shown}, which is the key");
            report.error(
                code,
                shown,
                message,
                "remove it from the list: the partition column is added to \
                the key",
            );
        }
        Some(index) => given_up(report, index),
    }
}

/// Reports the effect of giving up a guarantee: the index stays, and is not unique.
fn given_up(report: &mut Report, index: &Index) {
    let name = plain(index.name.as_str());
    let of = key_tables::columns(index);
    report.warning(
        "unique_given_up",
        &name,
        format!(
            "after the swap, index {name} is no longer unique: nothing prevents duplicates of {of}, and a rollback \
             fails as long as there are any"
        ),
        "make sure that the application does not rely on the guarantee, for example with ON CONFLICT",
    );
}

fn qualified(table: &Table, index: &Index) -> String {
    table.name.sibling(index.name.clone()).plain()
}
