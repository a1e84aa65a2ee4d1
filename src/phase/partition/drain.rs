//! Drains the change log in batches, each with one snapshot, so that the target matches the source. A drain is safe at
//! any time after the scrub, in either direction, and can be repeated after a crash: for each place in the log, it only
//! copies the current rows of the source.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use crate::error::{Error, Result, Retry};
use crate::event::{ChangeLogWarning, PhaseOutcome, TableWork};
use crate::failpoint;
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::pace::Work;
use crate::model::resync::{Backlog, CopyCost};
use crate::model::sizer::ChunkSizer;
use crate::model::state::{State, Step};
use crate::pg::catalog;
use crate::pg::transaction::{REPEATABLE_READ, execute_prepared, transaction};
use crate::phase::job::meter::Meter;
use crate::phase::partition::compaction::LogWatch;
use crate::phase::partition::deficit::{Deficit, Pending};
use crate::phase::partition::{PartitionJob, capture, checks, objects, partitions, resync};
use crate::sql::drain::Batch;
use crate::sql::{copy as copy_sql, drain as sql};

/// The number of blocks of the log in the first batch: about 8,000 changes.
const FIRST_BLOCKS: u64 = 64;
/// The minimum number of blocks in a batch: below this, the fixed cost of a batch exceeds its work.
const LEAST_BLOCKS: u64 = 16;
/// After a sweep that found at most this many changes, few changes are left,
const LITTLE: u64 = 1_000;
/// and so they are after a sweep that took at most this time: the next sweep applies only what was written in it.
const SHORT: Duration = Duration::from_millis(300);

/// The result of a sweep.
#[derive(Debug, Default, Clone, Copy)]
pub struct Swept {
    /// Log rows that were applied.
    pub changes: u64,
    /// Rows that were copied from the source.
    pub rows: u64,
    /// The time that the server worked.
    pub work: Duration,
    /// What is left, if the drain gave up because it costs less to copy the table again.
    pub backlog: Option<Backlog>,
}

/// The phase: drains until few changes are left.
///
/// # Errors
/// The server returned an error.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "drain"))]
pub async fn drain(context: &PartitionJob) -> Result<State> {
    capture::in_force(context).await?;
    capture::watch_leaves(context).await?;
    let mut meter = Meter::begin(context, TableWork::ApplyChanges);
    let pending: i64 =
        context.control.query_one(&sql::pending_count(&context.blueprint()), &[]).await?.get(0);
    meter.count("changes", u64::try_from(pending).unwrap_or(0), 0);
    let copy = resync::copy_cost(context).await?;
    let mut swept = catch_up_unless(context, &meter, copy.as_ref()).await?;
    if let (Some(copy), Some(backlog)) = (&copy, &swept.backlog) {
        if let Some(state) = resync::start_over(context, copy, backlog).await? {
            meter.end(PhaseOutcome::ChangesApplied { changes: swept.changes });
            return Ok(state);
        }
        swept = catch_up(context, &meter).await?;
    }
    let state = context.advance(&context.control, Step::Drain).await?;
    failpoint!("drain.done");
    meter.end(PhaseOutcome::ChangesApplied { changes: swept.changes });
    Ok(state)
}

/// Sweeps until a sweep finds few changes, or until sweeps no longer get shorter because changes are written as fast as
/// they are applied. Pending changes remain in that case, which is correct: a place without pending changes is the same
/// on both sides.
///
/// # Errors
/// The server returned an error.
pub async fn catch_up(context: &PartitionJob, meter: &Meter<'_>) -> Result<Swept> {
    catch_up_unless(context, meter, None).await
}

/// As [`catch_up`], but ends with a backlog if it costs less to copy the table again.
async fn catch_up_unless(
    context: &PartitionJob,
    meter: &Meter<'_>,
    copy: Option<&CopyCost>,
) -> Result<Swept> {
    let mut total = Swept::default();
    let (mut growth, deficit) = (LogWatch::from_block(0), Deficit::default());
    let mut last: Option<(Instant, u64)> = None;
    loop {
        let found = growth.measure(context, &context.control).await?;
        let log = Pending { changes: found.left, bytes: found.bytes };
        match last {
            Some((since, drained)) => {
                deficit.measured(context, Some(meter), since.elapsed(), [found.rows, drained], log);
            }
            None => meter.left(Some(log.changes)),
        }
        let began = Instant::now();
        let swept = sweep(context, Some(meter), &deficit, log, copy).await?;
        total.changes += swept.changes;
        total.rows += swept.rows;
        if swept.backlog.is_some() {
            return Ok(Swept { backlog: swept.backlog, ..total });
        }
        let took = began.elapsed();
        if swept.changes <= LITTLE || took < SHORT {
            return Ok(total);
        }
        if deficit.stalled(took) {
            context.events.warn(ChangeLogWarning::DrainStalled);
            return Ok(total);
        }
        last = Some((began, swept.changes));
        // The next sweep would otherwise read all applied, dead rows at the start of the log again. VACUUM does not
        // truncate the log, so no session waits for it.
        context.control.batch_execute(&sql::vacuum_log(&context.blueprint(), false)).await?;
    }
}

/// Sweeps once during a phase that counts other units, so that the log does not grow and few changes are pending.
///
/// # Errors
/// The server returned an error.
pub async fn once(context: &PartitionJob, deficit: &Deficit) -> Result<Swept> {
    let found = LogWatch::from_block(0).measure(context, &context.control).await?;
    let log = Pending { changes: found.left, bytes: found.bytes };
    let swept = sweep(context, None, deficit, log, None).await?;
    if swept.changes > LITTLE {
        context.control.batch_execute(&sql::vacuum_log(&context.blueprint(), false)).await?;
    }
    Ok(swept)
}

/// Drains all visible changes in one batch. Use it when few are left.
///
/// # Errors
/// The server returned an error.
pub async fn rest(context: &PartitionJob) -> Result<Swept> {
    batch(context, None).await
}

/// Sweeps the current log once; it has about `pending` changes.
async fn sweep(
    context: &PartitionJob,
    meter: Option<&Meter<'_>>,
    deficit: &Deficit,
    pending: Pending,
    copy: Option<&CopyCost>,
) -> Result<Swept> {
    let b = context.blueprint();
    let row = context.control.query_one(&sql::pending(&b), &[]).await?;
    let (blocks, any): (i64, bool) = (row.get(0), row.get(1));
    let mut swept = Swept::default();
    if !any {
        return Ok(swept);
    }
    let blocks = u64::try_from(blocks).unwrap_or(0).max(1);
    let target_ms = context.gate.plan().target_batch().as_secs_f64() * 1000.0;
    let sizer = RefCell::new(ChunkSizer::new(FIRST_BLOCKS, LEAST_BLOCKS, 100_000, target_ms));
    // Changes that are written in the meantime are in later blocks. Compact them there.
    let (mut tail, since) = (LogWatch::from_block(blocks), Instant::now());
    let mut from = 0;
    while from < blocks {
        let left = pending.changes.saturating_sub(swept.changes);
        if let Some(backlog) = resync::backlog(copy, (swept.changes, swept.work), left) {
            return Ok(Swept { backlog: Some(backlog), ..swept });
        }
        context.permitted_for(Work::Writes).await?;
        if tail.is_due() {
            let found = tail.measure(context, &context.control).await?;
            let written = found.left + tail.removed;
            let changes = left + found.left;
            let log = Pending { changes, bytes: found.bytes };
            deficit.measured(context, meter, since.elapsed(), [written, swept.changes], log);
        }
        if context.gate.must_shrink() {
            sizer.borrow_mut().shrink();
        }
        let to = blocks.min(from + sizer.borrow().rows());
        tracing::debug!(from, to, "a batch of the log's blocks");
        let done = batch(context, Some((from, to))).await?;
        sizer.borrow_mut().observe(to - from, done.work.as_secs_f64() * 1000.0);
        swept.changes += done.changes;
        swept.rows += done.rows;
        swept.work += done.work;
        failpoint!("drain.batch");
        if let Some(meter) = meter {
            meter.add(done.changes);
            meter.keep().await?;
        }
        from = to;
    }
    Ok(swept)
}

/// Drains one batch. It handles a unique value that moved between rows, a row without a partition, and a referenced row
/// that no longer exists.
async fn batch(context: &PartitionJob, blocks: Option<(u64, u64)>) -> Result<Swept> {
    let mut whole = blocks.is_none();
    let mut stale = 0;
    loop {
        let range = if whole { None } else { blocks };
        let done = context.retrying("drain the change log", async || one(context, range).await).await;
        match done {
            Err(e) if is_duplicate(&e) && !whole => whole = true,
            Err(e) if is_duplicate(&e) => return Err(duplicate_error(context, e)),
            // The referenced row was deleted after the snapshot, and so was the copied row. The next snapshot shows it.
            Err(e) if e.is(&SqlState::FOREIGN_KEY_VIOLATION) && stale < 20 => stale += 1,
            Err(e) if partitions::lacks_partition(&e) => partitions::extend(context).await?,
            Err(e) if checks::leave_out(context, &e).await? => {}
            other => return other,
        }
    }
}

/// Whether a unique key or an exclusion constraint raised the error.
fn is_duplicate(error: &Error) -> bool {
    error.is_any(&[&SqlState::UNIQUE_VIOLATION, &SqlState::EXCLUSION_VIOLATION])
}

fn duplicate_error(context: &PartitionJob, error: Error) -> Error {
    let target = context.blueprint().sides(context.direction()).target;
    error
        .context(format!("pending changes for {} contain a duplicate value", target.plain()))
        .retry(Retry::Never)
        .hint(
            "nothing was changed; the table in use has several rows with a value that must be unique in the inactive table: \
             change or delete all but one of them, and run the same command again",
        )
}

async fn one(context: &PartitionJob, blocks: Option<(u64, u64)>) -> Result<Swept> {
    let b = context.blueprint();
    transaction(&context.control, REPEATABLE_READ, async |client| {
        // Lock the tables before the snapshot is taken: a TRUNCATE in between would make it wrong.
        let sides = b.sides(context.direction());
        client.batch_execute(&copy_sql::lock_against_truncate(&sides)).await?;
        context.check_untrusted_code_between(client, &sides.source, &sides.target).await?;
        context.hold_epoch(client).await?;
        let swept = drain_visible(context, &b, context.direction(), blocks).await?;
        failpoint!("drain.before_commit");
        Ok(swept)
    })
    .await
}

/// Drains the changes in `blocks` of the log, or all changes, with the snapshot of the control session's transaction.
/// After a TRUNCATE, it drains all changes.
///
/// # Errors
/// The server returned an error.
async fn drain_visible(
    context: &PartitionJob,
    b: &Blueprint,
    direction: Direction,
    blocks: Option<(u64, u64)>,
) -> Result<Swept> {
    let client = &context.control;
    client.batch_execute(sql::SETTINGS).await?;
    let truncated = truncate_as_source_did(context, b, direction).await?;
    let (batch, values) = match blocks {
        Some((from, to)) if !truncated => (Batch::Blocks, vec![format!("({from},0)"), format!("({to},0)")]),
        _ => (Batch::All, Vec::new()),
    };
    let work = Cell::new(Duration::ZERO);
    let run = async |sql: String| {
        let statement = context.prepared(&sql).await?;
        let sent = Instant::now();
        let rows = execute_prepared(client, &statement, &values).await?;
        work.set(work.get() + context.work(sent.elapsed(), 1));
        Ok::<_, Error>(rows)
    };
    for clear in sql::clear(b, direction, batch) {
        run(clear).await?;
    }
    let mut rows = 0;
    for fill in sql::fill(b, direction, batch) {
        rows += run(fill).await?;
    }
    let changes = run(sql::forget(b, batch)).await?;
    Ok(Swept { changes, rows, work: work.get(), backlog: None })
}

/// Deletes the rows from the target that a TRUNCATE removed from the source; returns whether there was a TRUNCATE.
///
/// It is sufficient to check this first: a snapshot that includes a key that was logged after a TRUNCATE also includes
/// the TRUNCATE.
///
/// If the truncated leaf is no longer attached, it is not known which rows the TRUNCATE removed. The target keeps them,
/// as it keeps the rows of every leaf that is detached or dropped. Verification then finds them and prevents a
/// rollback.
async fn truncate_as_source_did(context: &PartitionJob, b: &Blueprint, direction: Direction) -> Result<bool> {
    let client = &context.control;
    let relations: Vec<u32> = client.query(&sql::truncated(b), &[]).await?.iter().map(|r| r.get(0)).collect();
    if relations.is_empty() {
        return Ok(false);
    }
    let source = catalog::must_find(client, &b.sides(direction).source).await?;
    let target = catalog::find(client, &b.sides(direction).target).await?;
    if relations.contains(&source) {
        objects::empty_target(context, client, b, direction).await?;
    } else if direction == Direction::Reverse {
        for leaf in relations.iter().filter(|oid| Some(**oid) != target) {
            let constraint: Option<String> = client.query_one(sql::LEAF_CONSTRAINT, &[leaf]).await?.get(0);
            let Some(constraint) = constraint else {
                let sides = b.sides(direction);
                context.events.warn(ChangeLogWarning::TruncatedPartitionGone {
                    job: context.job.name.clone(),
                    source: sides.source.plain(),
                    target: sides.target.plain(),
                });
                continue;
            };
            client.execute(&sql::empty_leaf(b, direction, &constraint), &[]).await?;
        }
    }
    // Truncating the target also records the truncation of its own leaves: forget those, too.
    client.execute(&sql::forget_truncations(b), &[]).await?;
    Ok(true)
}
