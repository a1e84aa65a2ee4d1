//! The second pass checks every row again, and fills rows that were locked during the first pass or written after it.
//! After this pass, only rows that were written after it can still need filling.

use std::cell::Cell;
use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::error::{Error, Kind, Result, Retry};
use crate::event::{ColumnWork, PhaseOutcome};
use crate::failpoint;
use crate::model::backoff::Backoff;
use crate::model::ident::{QualifiedName, plain_list};
use crate::model::key::{Key, KeyRange};
use crate::model::number;
use crate::model::retry_limit::RetryLimit;
use crate::model::state::{State, Step};
use crate::pg::catalog;
use crate::pg::connect::Session;
use crate::pg::store;
use crate::pg::transaction::query_text;
use crate::phase::job::meter::Meter;
use crate::phase::job::retries::Retried;
use crate::phase::job::retries::Retries;
use crate::phase::job::{chunks, workers};
use crate::plan::LockBudget;
use crate::sql::{fill as sql, store as store_sql};

use super::answer::{fills_nulls, key_of, never_filled};
use super::first_pass::{LATE, Pass};
use super::{BackfillJob, in_force, leaves, unless_gone};

/// The number of rows in a range: this pass mostly reads.
const FIRST_ROWS: u64 = 20_000;
/// Up to this many remaining rows of a range are filled one by one; if there are more, they are first filled as a
/// chunk.
const ONE_BY_ONE: u32 = 50;
/// How often the pass repeats a range in which rows that it filled need filling again.
const ROUNDS: u32 = 10;

/// The phase: checks every row, fills the rows that still need filling, and records the result.
///
/// # Errors
/// Rows cannot be filled; or the server returned an error.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "verify"))]
pub async fn second_pass(filler: &BackfillJob) -> Result<State> {
    in_force(filler).await?;
    check_every_row(filler).await?;
    in_force(filler).await?;
    filler.control.execute(store_sql::RECORD_VERIFIED, &[&filler.job.id]).await?;
    failpoint!("verify.recorded");
    let state = filler.advance(&filler.control, Step::Verify).await?;
    failpoint!("verify.done");
    Ok(state)
}

/// Checks every row, and fills the rows that still need filling; returns their number.
///
/// # Errors
/// As [`second_pass`].
pub async fn check_every_row(filler: &BackfillJob) -> Result<u64> {
    if filler.filling.only_finishes() {
        return Ok(0);
    }
    let table = &filler.filling.table.name;
    let mut meter = Meter::begin(filler, ColumnWork::SecondPass { table: table.plain() });
    let oid = catalog::must_find(&filler.control, table).await?;
    let (rows, ..) = catalog::size(&filler.control, oid).await?;
    meter.count("rows", u64::try_from(rows).unwrap_or(0), 0);
    let before = store::rows_filled(&filler.control, filler.job.id).await?;
    let found = Cell::new(0_u64);
    let pass = Pass::of(filler);
    let mut looked = HashSet::new();
    // The rows of a partition that is attached in the meantime were written without the trigger.
    while let Some(leaf) = leaves(filler).await?.into_iter().find(|leaf| !looked.contains(leaf)) {
        let late = unless_gone(filler, &leaf, one_leaf(&pass, &leaf, &meter).await).await?;
        found.set(found.get() + late);
        looked.insert(leaf);
    }
    without_null_keys(filler).await?;
    let filled = store::rows_filled(&filler.control, filler.job.id).await?.saturating_sub(before);
    meter.end(match found.get() {
        0 => PhaseOutcome::RowsComplete,
        rows => PhaseOutcome::RowsIncomplete { rows, rows_set: filled },
    });
    Ok(filled)
}

/// Fails if rows contain NULL in the key: both passes read the rows in the order of the key, and do not find them.
async fn without_null_keys(filler: &BackfillJob) -> Result<()> {
    let f = &filler.filling;
    let Some(count) = sql::null_keys(f) else { return Ok(()) };
    let read = async |client: &Client| Ok(client.query_one(&count, &[]).await?.get::<_, i64>(0));
    let rows = filler.reading(&filler.control, std::slice::from_ref(&f.table.name), read).await?;
    if rows == 0 {
        return Ok(());
    }
    let (table, columns) = (f.table.name.plain(), plain_list(&f.nullable_key));
    let rows = number::counted(rows.unsigned_abs(), "row");
    Err(Error::failed(format!("{table} has {rows} with NULL in the key ({columns})"))
        .cause("such rows were written while the job was running, and the job cannot find them by their key")
        .hint("set a value in the key of these rows, then run the same command again"))
}

/// Checks a table or partition; returns the number of rows that still needed filling.
async fn one_leaf(pass: &Pass<'_>, leaf: &QualifiedName, meter: &Meter<'_>) -> Result<u64> {
    let filler = pass.filler;
    let (key, from) = (filler.filling.key_columns(), format!("only {leaf}"));
    let found = Cell::new(0_u64);
    workers::run(
        filler,
        filler.plan.workers(),
        |_| format!("check a range of {} again", leaf.plain()),
        async |items| {
            let whole = KeyRange { after: None, through: None };
            let send = async |range, rows| items.send((range, rows)).await;
            chunks::for_each_range(filler, (leaf, &from), &key, whole, || FIRST_ROWS, send).await
        },
        async |session, (range, rows)| {
            let late = one_range(pass, session, leaf, range, *rows).await?;
            found.set(found.get() + late);
            meter.add(*rows);
            failpoint!("verify.range");
            meter.keep().await
        },
    )
    .await?;
    Ok(found.get())
}

/// Fills the rows of a range that still need filling; returns their number.
async fn one_range(
    pass: &Pass<'_>,
    session: &Session,
    leaf: &QualifiedName,
    range: &KeyRange,
    rows: u64,
) -> Result<u64> {
    let (mut found, mut rounds, mut once_more) = (0, 0, 0);
    let mut tried: HashSet<Key> = HashSet::new();
    loop {
        let mut late = to_fill(pass.filler, session, leaf, range).await?;
        let more = late.len() as u32 == ONE_BY_ONE;
        let again: Vec<&Key> = late.iter().filter(|key| tried.contains(*key)).collect();
        // A row that needs filling again is not yet an error: tables that the plan's `from` reads may have changed in
        // the meantime.
        if !again.is_empty() {
            once_more += 1;
            if once_more == ROUNDS {
                return Err(still_matching(pass.filler, &again));
            }
        }
        found += (late.len() - again.len()) as u64;
        // Without the trigger, applications may continue to write rows that need filling; they are left to the next
        // run.
        let enough = !pass.filler.filling.keep_filled && (rounds == ROUNDS || rounds > 0 && !more);
        if late.is_empty() || enough {
            return Ok(found);
        }
        rounds += 1;
        if more {
            pass.paced(session, leaf, range, rows, LATE).await?;
            late = to_fill(pass.filler, session, leaf, range).await?;
        }
        for key in late {
            patiently(pass, session, leaf, &key).await?;
            tried.insert(key);
        }
    }
}

fn still_matching(filler: &BackfillJob, keys: &[&Key]) -> Error {
    let named: Vec<String> = keys.iter().take(5).map(|key| key.join(", ")).collect();
    let count = number::counted(keys.len() as u64, "row");
    if fills_nulls(filler) {
        return never_filled(filler, &format!("{count}, among them, by key: {}", named.join("; ")));
    }
    Error::new(Kind::Differs, format!("{count} still match the plan's `where` after they were filled"))
        .cause(format!("among them, by key: {}", named.join("; ")))
        .hint(
            "applications write such rows, and the trigger's SQL fails for them or does not change \
            them: check these rows, then run again",
        )
}

/// Fills one row, with short attempts to acquire its lock.
async fn patiently(pass: &Pass<'_>, session: &Session, leaf: &QualifiedName, key: &Key) -> Result<()> {
    let filler = pass.filler;
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let LockBudget { attempts, give_up_after, .. } = filler.plan.lock_budget();
    let what = format!("fill a row of {} that other transactions keep locked", leaf.plain());
    let limit = RetryLimit::either(attempts, give_up_after);
    let mut retries = Retries::usual(&filler.events, Retried::Step(&what), limit);
    let (begun, mut tries) = (Instant::now(), 0);
    while tries < attempts && begun.elapsed() < give_up_after {
        filler.permitted().await?;
        match pass.single(session, leaf, key).await {
            Err(e) if e.retry_class() == Retry::Again => {
                retries.failed(&e);
                tokio::time::sleep(backoff.next(rand::random())).await;
            }
            other => return other,
        }
        tries += 1;
    }
    Err(Error::new(
        Kind::Lock,
        format!("a row of {} was locked by other transactions during {}", leaf.plain(), retries.spent()),
    )
    .cause(format!("its key: {}", key.join(", ")))
    .hint("end the transaction that locks it, or wait until it ends; then run the same command again"))
}

async fn to_fill(
    filler: &BackfillJob,
    session: &Session,
    leaf: &QualifiedName,
    range: &KeyRange,
) -> Result<Vec<Key>> {
    let f = &filler.filling;
    filler
        .reading(session, std::slice::from_ref(leaf), async |client| {
            client.batch_execute(&sql::names(f)).await?;
            let (statement, values) = sql::to_fill(f, leaf, range, ONE_BY_ONE);
            Ok(query_text(client, &statement, &values).await?.iter().map(key_of).collect())
        })
        .await
}
