//! Copies the source in disjoint chunks, up to an end that is fixed at the start. Rows beyond the end, and changes
//! during the copy, are in the change log.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::event::{ChangeLogWarning, PhaseOutcome, TableWork};
use crate::failpoint;
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::key::KeyRange;
use crate::model::ledger_gaps::gaps;
use crate::model::sizer::{ChunkSizer, even_end};
use crate::pg::connect::Session;
use crate::pg::store::{self, Chunk, Frozen};
use crate::pg::transaction::{READ_COMMITTED, execute_text, query_text, transaction};
use crate::pg::{catalog, latency};
use crate::phase::job::meter::Meter;
use crate::phase::job::{chunks, workers};
use crate::phase::partition::{PartitionJob, capture, checks, objects, partitions, resync};
use crate::plan::Order;
use crate::sql::{copy as sql, from_source, store as store_sql};
use crate::throttle::Gate;

/// The number of round trips in the transaction of a chunk.
const MESSAGES: u32 = 6;
/// If the absolute value of the correlation is at least this, the order of the key is almost the order of the heap.
pub(super) const FOLLOWS_HEAP: f32 = 0.9;
/// The maximum size of the rows in a chunk, in bytes, estimated from the mean size of a row.
const MAX_BATCH_BYTES: f64 = 33_554_432.0;
/// The number of rows of the first chunk.
const FIRST_ROWS: u64 = 5_000;
/// The minimum number of rows of a chunk, unless a budget requires fewer.
const LEAST_ROWS: u64 = 10;
/// An internal SQLSTATE: the heap to which the fixed end refers has been replaced by another file.
const REWRITTEN: &str = "PS001";

/// Copies every chunk that is not in the ledger.
///
/// # Errors
/// Stopped, or the server returned an error.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "copy"))]
pub async fn copy(context: &PartitionJob) -> Result<()> {
    capture::in_force(context).await?;
    let frozen = match store::jobs(&context.control, Some(&context.job.name))
        .await?
        .into_iter()
        .find(|j| j.id == context.job.id)
    {
        Some(job) if job.copy.is_some() => job.copy,
        _ => None,
    };
    let mut frozen = match frozen {
        Some(frozen) => frozen,
        None => {
            resync::before_copy(context).await?;
            context.retrying("determine where the copy ends", async || freeze(context).await).await?
        }
    };
    loop {
        match chunks(context, &frozen).await {
            Err(e) if e.sqlstate() == Some(REWRITTEN) => {
                context.events.warn(ChangeLogWarning::HeapRewritten);
                let b = context.blueprint();
                context
                    .retrying(&format!("empty {}", b.target().plain()), async || {
                        transaction(&context.control, READ_COMMITTED, async |client| {
                            objects::empty_target(context, client, &b, Direction::Forward).await
                        })
                        .await
                    })
                    .await?;
                failpoint!("copy.emptied");
                frozen =
                    context.retrying("determine where the copy ends", async || freeze(context).await).await?;
            }
            Err(e) if partitions::lacks_partition(&e) => partitions::extend(context).await?,
            Err(e) if checks::leave_out(context, &e).await? => {}
            other => return other,
        }
    }
}

/// Chooses the order of the copy, and fixes its end.
async fn freeze(context: &PartitionJob) -> Result<Frozen> {
    let b = context.blueprint();
    let client = &context.control;
    let oid = catalog::must_find(client, &b.table.name).await?;
    let physical = reads_by_block(client, context.partitioning.order, &b).await?;
    let row = client.query_one(sql::HEAP, &[&oid]).await?;
    let (filenode, blocks): (Option<u32>, i64) = (row.get(0), row.get(1));
    let end = if physical {
        Some(vec![blocks.to_string()])
    } else {
        let key = b.key_columns();
        let largest = sql::largest(&b.sides(Direction::Forward), &key);
        let read = async |client: &Client| query_text(client, &largest, &[]).await;
        let rows = context.reading(client, std::slice::from_ref(&b.table.name), read).await?;
        rows.first().map(|row| (0..key.len()).map(|i| row.get(i)).collect())
    };
    let frozen = Frozen { physical, end, filenode: filenode.unwrap_or(0) };
    store::freeze(client, context.job.id, &frozen).await?;
    failpoint!("copy.frozen");
    Ok(frozen)
}

/// Whether the copy reads by heap blocks: if the order of the key is not that of the heap, or is not known.
///
/// # Errors
/// The server returned an error.
pub async fn reads_by_block(client: &Client, order: Order, b: &Blueprint) -> Result<bool> {
    let correlation: Option<f32> = match (order, b.key.first()) {
        (Order::Keyset, _) => return Ok(false),
        (Order::Physical, _) | (Order::Auto, None) => return Ok(true),
        (Order::Auto, Some(first)) => {
            let name = &b.table.name;
            let names = [name.schema.as_str(), name.name.as_str(), first.as_str()];
            let row = client.query_opt(sql::CORRELATION, &[&names[0], &names[1], &names[2]]).await?;
            row.and_then(|r| r.get(0))
        }
    };
    Ok(correlation.is_none_or(|c| c.abs() < FOLLOWS_HEAP))
}

/// Determines the size of chunks. The producer and the workers share it.
struct SharedSizer<'a> {
    gate: &'a Gate,
    sizer: RefCell<ChunkSizer>,
    rows_per_block: RefCell<f64>,
    /// The mean size of a row of the source, in bytes.
    width: f64,
    /// The estimated number of rows that no chunk covers yet.
    left: Cell<u64>,
}

async fn chunks(context: &PartitionJob, frozen: &Frozen) -> Result<()> {
    let b = context.blueprint();
    let done = store::finished(&context.control, context.job.id, None, &end(&b, frozen)).await?;
    let left = if frozen.end.is_some() { gaps(&done, frozen.end.as_ref()) } else { Vec::new() };
    let copied: i64 =
        store::chunk_times(&context.control, context.job.id).await?.iter().map(|(rows, _)| rows).sum();
    let oid = catalog::must_find(&context.control, &b.table.name).await?;
    let size = async || catalog::size(&context.control, oid).await;
    let (rows, _, heap_bytes) =
        context.retrying(&format!("read the size of {}", b.table.name.plain()), size).await?;
    let (physical, workers) = (frozen.physical, context.gate.workers() as u64);
    let mut meter = Meter::begin(context, TableWork::CopyRows { physical, workers });
    meter.count("rows", u64::try_from(rows).unwrap_or(0), u64::try_from(copied).unwrap_or(0));
    let pace = pace(context, rows, heap_bytes, copied);
    let (meter, pace) = (&meter, &pace);
    let copied = workers::run(
        context,
        context.plan.workers(),
        |_| format!("copy a chunk of {}", b.table.name.plain()),
        async |items| {
            let send = async |range, rows| items.send((range, rows)).await;
            for gap in left {
                if frozen.physical {
                    blocks(context, &gap, pace, send).await?;
                } else {
                    let from = from_source(&b.sides(Direction::Forward));
                    let size = || pace.next_rows();
                    chunks::for_each_range(
                        context,
                        (&b.table.name, &from),
                        &b.key_columns(),
                        gap,
                        size,
                        send,
                    )
                    .await?;
                }
            }
            Ok(())
        },
        async |session, (range, expected)| {
            let permit = tokio::select! {
                permit = context.gate.admit_chunk(*expected, pace.width) => permit,
                () = context.interrupted() => return context.check_stop(),
            };
            let began = Instant::now();
            let rows = chunk(context, session, &b, frozen, oid, range).await?;
            permit.done(rows);
            pace.observe(frozen, range, rows, context.work(began.elapsed(), MESSAGES));
            meter.add(rows);
            failpoint!("copy.chunk");
            meter.keep().await
        },
    );
    tokio::select! {
        done = copied => done?,
        kept = meter.beat() => kept?,
    }
    failpoint!("copy.chunks_done");
    let chunks = latency::of_chunks(&context.control, context.job.id).await?;
    meter.end(PhaseOutcome::RowsCopied { rows: meter.done_units(), chunks });
    Ok(())
}

/// The upper end of a chunk in the ledger, as SQL.
fn end(b: &Blueprint, frozen: &Frozen) -> String {
    if frozen.physical { store_sql::END_BLOCK.to_owned() } else { store_sql::end_key(&b.key_columns()) }
}

fn pace(context: &PartitionJob, rows: i64, heap_bytes: i64, copied: i64) -> SharedSizer<'_> {
    let width = (heap_bytes / rows.max(1)).max(16) as f64;
    let pace = SharedSizer {
        gate: &context.gate,
        sizer: RefCell::new(ChunkSizer::new(FIRST_ROWS, LEAST_ROWS, FIRST_ROWS, 1.0)),
        rows_per_block: RefCell::new(8192.0 / width),
        width,
        left: Cell::new(u64::try_from(rows - copied).unwrap_or(0)),
    };
    pace.aim();
    pace
}

impl SharedSizer<'_> {
    /// Applies the current settings, which may have changed, and the measured WAL per row.
    fn aim(&self) {
        let target_ms = self.gate.plan().target_batch().as_secs_f64() * 1000.0;
        let most = (MAX_BATCH_BYTES / self.width) as u64;
        self.sizer.borrow_mut().aim(target_ms, most.min(self.gate.most_rows(self.width)));
    }

    fn observe(&self, frozen: &Frozen, range: &KeyRange, rows: u64, took: Duration) {
        self.aim();
        if self.gate.must_shrink() {
            self.sizer.borrow_mut().shrink();
        } else {
            self.sizer.borrow_mut().observe(rows, took.as_secs_f64() * 1000.0);
        }
        if frozen.physical {
            let (from, to) = block_ends(range);
            let seen = rows as f64 / to.saturating_sub(from).max(1) as f64;
            let mut per_block = self.rows_per_block.borrow_mut();
            *per_block = (0.7 * *per_block + 0.3 * seen).max(0.1);
        }
    }

    fn rows_of(&self, blocks: u64) -> u64 {
        (blocks as f64 * *self.rows_per_block.borrow()).ceil() as u64
    }

    /// The number of rows of the next chunk.
    fn next_rows(&self) -> u64 {
        let (rows, left) = (self.sizer.borrow().rows(), self.left.get());
        let rows = even_end(rows, left, self.gate.workers(), FIRST_ROWS);
        self.left.set(left.saturating_sub(rows));
        rows
    }

    fn blocks(&self) -> u64 {
        (self.next_rows() as f64 / *self.rows_per_block.borrow()).ceil() as u64
    }
}

/// The block numbers of a physical range: `[from, to)`.
fn block_ends(range: &KeyRange) -> (u64, u64) {
    let number = |end: &Option<Vec<String>>| {
        end.as_ref().and_then(|key| key.first()).and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    (number(&range.after), number(&range.through))
}

/// Divides a gap of the heap into chunks.
async fn blocks(
    context: &PartitionJob,
    gap: &KeyRange,
    pace: &SharedSizer<'_>,
    mut send: impl AsyncFnMut(KeyRange, u64) -> Result<()>,
) -> Result<()> {
    let (mut from, end) = block_ends(gap);
    let mut after = gap.after.clone();
    while from < end {
        context.check_stop()?;
        let to = end.min(from + pace.blocks().max(1));
        let through = Some(vec![to.to_string()]);
        send(KeyRange { after, through: through.clone() }, pace.rows_of(to - from)).await?;
        (from, after) = (to, through);
    }
    Ok(())
}

/// Copies one chunk and adds it to the ledger, in one transaction.
async fn chunk(
    context: &PartitionJob,
    session: &Session,
    b: &Blueprint,
    frozen: &Frozen,
    oid: u32,
    range: &KeyRange,
) -> Result<u64> {
    let began = Instant::now();
    transaction(session, READ_COMMITTED, async |client| {
        context.hold_epoch(client).await?;
        let hold = sql::lock_against_truncate(&b.sides(Direction::Forward));
        let target = objects::lock_target(context, Direction::Forward, "row exclusive").await?;
        client.batch_execute(&format!("{hold}; {target}")).await?;
        context.check_untrusted_code_between(client, &b.table.name, &b.target()).await?;
        let rows = if frozen.physical {
            let now: Option<u32> = client.query_one(sql::HEAP, &[&oid]).await?.get(0);
            if now != Some(frozen.filenode) {
                return Err(Error::failed("the heap of the source table was rewritten").code(REWRITTEN));
            }
            let (from, to) = block_ends(range);
            execute_text(client, &sql::physical_chunk(b), &[format!("({from},0)"), format!("({to},0)")])
                .await?
        } else {
            let (sql, values) = sql::keyset_chunk(b, range);
            execute_text(client, &sql, &values).await?
        };
        let ms = began.elapsed().as_secs_f64() * 1000.0;
        let done = Chunk { step: "copy", leaf: None, range, rows, seen: None, ms };
        store::add_chunk(client, context.job.id, context.epoch(), &done).await?;
        failpoint!("copy.before_commit");
        Ok(rows)
    })
    .await
}
