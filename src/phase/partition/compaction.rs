//! Keeps the change log short in every phase: a log that exceeds its share of the source is compacted in place to one
//! row for each key and place, because the number of changes does not matter. However often applications write the same
//! rows, the log then has no more rows than the source has and had.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::event::{ChangeLogWarning, PartitionNote};
use crate::failpoint;
use crate::model::sizer::ChunkSizer;
use crate::pg::catalog;
use crate::pg::transaction::query_text;
use crate::phase::partition::PartitionJob;
use crate::sql::{copy as copy_sql, drain as sql};

/// How often the size of the log is checked,
const LOOK: Duration = Duration::from_secs(5);
/// and the share of the time that counting its rows may take.
const COUNT_SHARE: u32 = 20;
/// The share of the source's size at which the job warns.
const WARN_SHARE: f64 = 0.05;
/// The share at which the log is compacted.
const COMPACT_SHARE: f64 = 0.10;
/// Smaller logs are ignored, however small the source is.
const SMALL_BLOCKS: i64 = 1_024;
/// The number of blocks to compact at once: initially, at least, and at most. The larger the batch, the more of its
/// rows are for the same place.
const BATCH_BLOCKS: [u64; 3] = [2_048, 512, 65_536];
/// The target duration of one batch.
const BATCH_MS: f64 = 2_000.0;
/// Another pass over the remaining rows is worthwhile if the previous pass removed at least this share of the rows.
const WORTH_SHARE: f64 = 0.2;

/// The result of a check.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogSize {
    /// Rows of the log before it was compacted.
    pub rows: u64,
    /// Rows that remain.
    pub left: u64,
    /// The size of the whole log in bytes.
    pub bytes: u64,
}

/// Monitors the log from one block on.
#[derive(Debug)]
pub struct LogWatch {
    from: u64,
    compact_at: u64,
    /// Rows that the compaction has removed.
    pub removed: u64,
    next: Instant,
    warned: bool,
}

impl LogWatch {
    /// Monitors the log from block `from` on.
    pub fn from_block(from: u64) -> Self {
        Self { from, compact_at: 0, removed: 0, next: Instant::now() + LOOK, warned: false }
    }

    /// Whether the next check is due.
    pub fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    /// Counts the rows of the log, and compacts it if it is too large.
    ///
    /// # Errors
    /// The server returned an error.
    pub async fn measure(&mut self, context: &PartitionJob, client: &Client) -> Result<LogSize> {
        let b = context.blueprint();
        let (blocks, share) = size(context, client).await?;
        let large = blocks >= SMALL_BLOCKS && share >= WARN_SHARE;
        if large && self.from == 0 && !self.warned {
            self.warned = true;
            let percent_of_source = (share * 100.0).round() as u64;
            context.events.warn(ChangeLogWarning::ChangeLogGrown { percent_of_source });
        }
        let began = Instant::now();
        let from = format!("({},0)", self.from);
        let counted = query_text(client, &sql::rows_from(&b), &[from]).await?;
        let rows = counted.first().map_or(0, |row| number_of(row.get(0)));
        let pause = LOOK.max(began.elapsed() * COUNT_SHARE);
        let mut found = LogSize { rows, left: rows, bytes: number_of(blocks * 8_192) };
        if large && share >= COMPACT_SHARE && rows >= self.compact_at {
            let removed = self.compact(context, client).await?;
            self.removed += removed;
            found.left = rows.saturating_sub(removed);
            // Compact the log again only when it has doubled.
            self.compact_at = 2 * found.left;
        }
        self.next = Instant::now() + pause;
        Ok(found)
    }

    /// Compacts until another pass is not worthwhile; returns the number of removed rows.
    async fn compact(&self, context: &PartitionJob, client: &Client) -> Result<u64> {
        let b = context.blueprint();
        let mut removed = 0;
        loop {
            let blocks = number_of(client.query_one(&sql::pending(&b), &[]).await?.get(0));
            let pass = one_pass(context, client, self.from..blocks).await?;
            removed += pass.gone.saturating_sub(pass.put);
            client.batch_execute(&sql::vacuum_log(&b, true)).await?;
            let worth = (pass.gone.saturating_sub(pass.put)) as f64 >= WORTH_SHARE * pass.gone as f64;
            if pass.batches <= 1 || !worth {
                break;
            }
        }
        if removed > 0 && self.from == 0 {
            context.events.note(PartitionNote::ChangeLogCompacted { removed });
        }
        Ok(removed)
    }
}

struct CompactionPass {
    batches: u64,
    gone: u64,
    put: u64,
}

/// Compacts blocks of the log, batch by batch.
async fn one_pass(
    context: &PartitionJob,
    client: &Client,
    blocks: std::ops::Range<u64>,
) -> Result<CompactionPass> {
    let statement = sql::compact(&context.blueprint());
    let [first, least, most] = BATCH_BLOCKS;
    let mut sizer = ChunkSizer::new(first, least, most, BATCH_MS);
    let mut pass = CompactionPass { batches: 0, gone: 0, put: 0 };
    let mut from = blocks.start;
    while from < blocks.end {
        context.check_stop()?;
        let to = blocks.end.min(from + sizer.rows());
        let began = Instant::now();
        let values = [format!("({from},0)"), format!("({to},0)")];
        let row = context
            .retrying("compact the change log", async || query_text(client, &statement, &values).await)
            .await?;
        let count = |column| row.first().map_or(0, |row| number_of(row.get(column)));
        pass.batches += 1;
        pass.gone += count(0);
        pass.put += count(1);
        sizer.observe(to - from, began.elapsed().as_secs_f64() * 1000.0);
        failpoint!("growth.compacted");
        from = to;
    }
    Ok(pass)
}

fn number_of(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// The length of the log in blocks, and its ratio to that of the plain table.
async fn size(context: &PartitionJob, client: &Client) -> Result<(i64, f64)> {
    let b = context.blueprint();
    let sides = b.sides(context.direction());
    let plain = if sides.plain_source { &sides.source } else { &sides.target };
    let plain = catalog::must_find(client, plain).await?;
    let heap: i64 = client.query_one(copy_sql::HEAP, &[&plain]).await?.get(1);
    let log: i64 = client.query_one(&sql::pending(&b), &[]).await?.get(0);
    Ok((log, log as f64 / heap.max(1) as f64))
}

/// Does `work` while a separate session monitors the log. The work does not depend on that session: if it cannot be
/// opened or is lost, the job warns and tries again.
///
/// # Errors
/// The error of `work`.
pub async fn during<T>(context: &PartitionJob, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = work => done,
        never = watch(context) => match never {},
    }
}

async fn watch(context: &PartitionJob) -> std::convert::Infallible {
    let mut growth = LogWatch::from_block(0);
    let mut reported = String::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let error: Error = match keep_measuring(context, &mut growth).await {
            Ok(never) => match never {},
            Err(e) => e,
        };
        if context.check_stop().is_ok() && error.message() != reported {
            error.message().clone_into(&mut reported);
            let error = error.message().to_owned();
            context.events.warn(ChangeLogWarning::ChangeLogNotWatched { error });
        }
    }
}

async fn keep_measuring(context: &PartitionJob, growth: &mut LogWatch) -> Result<std::convert::Infallible> {
    let session = context.session("log").await?;
    loop {
        growth.measure(context, &session).await?;
        tokio::time::sleep_until(growth.next.into()).await;
    }
}
