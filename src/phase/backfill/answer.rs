//! What a batch answers: what became of its rows; and which row an error is about, and whose it is.

use std::time::Duration;

use tokio_postgres::Row;

use crate::error::{Error, Kind, Result, Retry};
use crate::model::ident::QualifiedName;
use crate::model::key::Key;
use crate::pg::connect::Session;
use crate::pg::transaction::{READ_COMMITTED, query_text, transaction};
use crate::sql::fill as sql;

use super::BackfillJob;

/// What became of a batch's rows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Filled {
    /// Rows there are.
    pub(super) seen: u64,
    /// Rows that were meant at the statement's snapshot.
    pub(super) meant: u64,
    /// Rows that were set.
    pub(super) set: u64,
    /// For how long rows were locked.
    pub(super) held: Duration,
}

impl Filled {
    pub(super) fn add(&mut self, other: Self) {
        self.seen += other.seen;
        self.meant += other.meant;
        self.set += other.set;
        self.held = self.held.max(other.held);
    }
}

/// Of a batch's answer: what became of the rows, and how many were locked.
pub(super) fn counts(rows: &[Row]) -> Result<(Filled, u64)> {
    let row = rows.first().ok_or_else(|| Error::failed("a batch returned no result"))?;
    if let Some(keys) = row.get::<_, Option<&str>>(5) {
        return Err(Error::failed(format!(
            "the plan's `from` matches more than one row for some rows of the table; among them, by key: \
             {keys}"
        ))
        .hint(
            "use GROUP BY or DISTINCT in `from` so that each row matches at most once; this chunk was \
             rolled back",
        ));
    }
    let number = |i: usize| u64::try_from(row.get::<_, i64>(i)).unwrap_or(0);
    let held = Duration::from_secs_f64(row.get::<_, Option<f64>>(4).unwrap_or(0.0).max(0.0) / 1000.0);
    Ok((Filled { seen: number(0), meant: number(1), set: number(3), held }, number(2)))
}

pub(super) fn key_of(row: &Row) -> Key {
    (0..row.len()).map(|i| row.get(i)).collect()
}

/// `among them, by key: 3; 17`.
pub(super) fn named(rows: &[Row]) -> String {
    let keys: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    format!("among them, by key: {}", keys.join("; "))
}

/// Classes of SQLSTATE that are about no row: connections, transactions, resources, operators' interventions.
const ABOUT_NO_ROW: [&str; 13] =
    ["08", "0A", "25", "26", "28", "3D", "40", "53", "54", "55", "57", "58", "XX"];

/// Whether it is an error that a row of a batch may have caused, and would again.
pub(super) fn is_of_a_row(error: &Error) -> bool {
    let class = error.sqlstate().and_then(|code| code.get(..2));
    error.kind() == Kind::Failed
        && error.retry_class() == Retry::Never
        && class.is_some_and(|class| !ABOUT_NO_ROW.contains(&class))
}

/// The error of one row, which it names, and whether the plan's SQL fails on it or something of the table's own.
pub(super) async fn refused(
    filler: &BackfillJob,
    session: &Session,
    leaf: &QualifiedName,
    key: &Key,
    error: Error,
) -> Error {
    let f = &filler.filling;
    let computed = transaction(session, READ_COMMITTED, async |client| {
        client.batch_execute(&sql::names(f)).await?;
        let (statement, values) = sql::computed(f, leaf, key);
        query_text(client, &statement, &values).await
    })
    .await;
    let table = leaf.plain();
    let (what, hint) = match computed {
        Err(e) if e.sqlstate().is_some() => (
            format!("the plan's SQL fails on a row of {table}"),
            "correct the row and run again (`pgstrata check PLAN --sample 1000` looks for more such \
             rows); or abort the job, change the expression or `where` in the plan, and run again: filled \
             rows stay filled",
        ),
        _ => (
            format!("a trigger or constraint of {table} rejects the value that the plan sets in a row"),
            "correct the row, the trigger or the constraint, and run again; or abort the job, exclude \
             such rows with `where`, and run again: filled rows stay filled",
        ),
    };
    let told =
        Error::failed(what).cause(format!("by key: {}: {}", key.join(", "), error.message())).hint(hint);
    match error.sqlstate() {
        Some(code) => told.code(code),
        None => told,
    }
}
