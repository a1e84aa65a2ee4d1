//! Parses the result of a batch: the number of rows that it filled, or the row that caused an error, and the reason.

use std::time::Duration;

use tokio_postgres::{Client, Row};

use crate::error::{Error, Result};
use crate::model::ident::QualifiedName;
use crate::model::key::Key;
use crate::pg::connect::Session;
use crate::pg::transaction::query_text;
use crate::sql::fill as sql;

use super::BackfillJob;

/// The numbers of rows of a batch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Rows in the range.
    pub(super) seen: u64,
    /// Rows to fill, at the statement's snapshot.
    pub(super) to_fill: u64,
    /// Rows that were filled.
    pub(super) filled: u64,
    /// How long rows were locked.
    pub(super) held: Duration,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.seen += other.seen;
        self.to_fill += other.to_fill;
        self.filled += other.filled;
        self.held = self.held.max(other.held);
    }
}

/// Parses the result of a batch: the numbers of its rows, and how many rows it locked.
pub(super) fn counts(rows: &[Row]) -> Result<(Counts, u64)> {
    let row = rows.first().ok_or_else(|| Error::failed("a batch returned no result"))?;
    if let Some(keys) = row.get::<_, Option<&str>>(5) {
        return Err(Error::failed(format!(
            "the plan's `from` matches more than one row for some rows of the table; among them, by key: \
             {keys}"
        ))
        .hint(
            "this chunk was rolled back; abort the job, use GROUP BY or DISTINCT in `from` so that each row matches at \
             most once, and run the plan again: filled rows stay filled",
        ));
    }
    let number = |i: usize| u64::try_from(row.get::<_, i64>(i)).unwrap_or(0);
    let held = Duration::from_secs_f64(row.get::<_, Option<f64>>(4).unwrap_or(0.0).max(0.0) / 1000.0);
    Ok((Counts { seen: number(0), to_fill: number(1), filled: number(3), held }, number(2)))
}

/// Whether the job fills rows with NULL in the partition column, before it copies them.
pub(super) fn fills_nulls(filler: &BackfillJob) -> bool {
    filler.job.design.blueprint().is_some()
}

/// The error for rows that still must be filled after they were filled.
pub(super) fn never_filled(filler: &BackfillJob, rows: &str) -> Error {
    if fills_nulls(filler) {
        return Error::failed(format!("the plan's `null_as` returns NULL for rows with NULL in the partition column; {rows}")).hint(
            "these rows are unchanged; set a value in them and run the same command again, or abort the job, write an \
             expression that never returns NULL, such as `coalesce(..., now())`, and run the plan again: filled rows stay filled",
        );
    }
    Error::failed(format!(
        "rows still match the plan's `where` after they were filled, so the job would never end; {rows}"
    ))
    .hint(
        "this chunk was rolled back; abort the job, write a `where` that is false for a filled row, such as \
        `t.column is null`, and run the plan again: filled rows stay filled",
    )
}

pub(super) fn key_of(row: &Row) -> Key {
    (0..row.len()).map(|i| row.get(i)).collect()
}

/// `among them, by key: 3; 17`.
pub(super) fn named(rows: &[Row]) -> String {
    let keys: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    format!("among them, by key: {}", keys.join("; "))
}

/// The error for one row. It names the row, and states whether the plan's SQL failed, or a trigger or constraint of the
/// table.
pub(super) async fn refused(
    filler: &BackfillJob,
    session: &Session,
    leaf: &QualifiedName,
    key: &Key,
    error: Error,
) -> Error {
    let f = &filler.filling;
    let compute = async |client: &Client| {
        client.batch_execute(&sql::names(f)).await?;
        let (statement, values) = sql::computed(f, leaf, key);
        query_text(client, &statement, &values).await
    };
    let computed = filler.reading(session, std::slice::from_ref(leaf), compute).await;
    let table = leaf.plain();
    let filters = !filler.job.design.planned().is_swapped();
    let (what, hint) = match computed {
        Err(e) if e.sqlstate().is_some() => (
            format!("the plan's SQL fails on a row of {table}"),
            if filters {
                "correct the row and run again (`pgstrata check PLAN --sample 1000` looks for more such \
                 rows); or abort the job, change the expression or `where` in the plan, and run again: \
                 filled rows stay filled"
            } else {
                "correct the row and run again; or abort the job, change the expression in the plan, and run again"
            },
        ),
        _ => (
            format!("a trigger or constraint of {table} rejects the value that the plan sets in a row"),
            if filters {
                "correct the row, the trigger or the constraint, and run again; or abort the job, exclude \
                 such rows with `where`, and run again: filled rows stay filled"
            } else {
                "correct the row, the trigger or the constraint, and run again"
            },
        ),
    };
    let named =
        Error::failed(what).cause(format!("by key: {}: {}", key.join(", "), error.message())).hint(hint);
    match error.sqlstate() {
        Some(code) => named.code(code),
        None => named,
    }
}
