//! Watches the log while the copy runs: only distinct places matter, so a log that outgrows its share is compacted in place.

use std::time::Duration;

use tokio_postgres::Client;

use crate::error::Result;
use crate::failpoint;
use crate::pg::catalog;
use crate::pg::transaction::execute_text;
use crate::sql::{copy as copy_sql, drain as sql};

use super::context::Context;

/// How often the log's size is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Share of the source's size at which it is said.
const WARN_SHARE: f64 = 0.05;
/// Share at which the log is compacted.
const COMPACT_SHARE: f64 = 0.10;
/// Logs smaller than this are no matter, however small the source.
const SMALL_BLOCKS: i64 = 1_024;
/// Blocks compacted at once: 16 MiB of log, well under a second.
const BATCH_BLOCKS: i64 = 2_048;

/// Looks until dropped; to be run beside a phase, on a session of its own.
///
/// # Errors
/// What the server said.
pub async fn watch(context: &Context) -> Result<()> {
    let b = context.blueprint();
    let mut warned = false;
    let mut compact_at = 0;
    tokio::time::sleep(LOOK).await;
    let client = &*context.session("log").await?;
    loop {
        let source = catalog::must_find(client, &b.table.name).await?;
        let heap: i64 = client.query_one(copy_sql::HEAP, &[&source]).await?.get(1);
        let log: i64 = client.query_one(&sql::pending(&b), &[]).await?.get(0);
        let share = log as f64 / heap.max(1) as f64;
        let large = log >= SMALL_BLOCKS && share >= WARN_SHARE;
        if large && !warned {
            warned = true;
            context
                .events
                .warn(format!("the change log has grown to {:.0} % of the source's size", share * 100.0));
        }
        if large && share >= COMPACT_SHARE && log >= compact_at {
            compact(context, client, log).await?;
            // What compaction cannot shrink is worth another try only when it has doubled.
            let now: i64 = client.query_one(&sql::pending(&b), &[]).await?.get(0);
            compact_at = 2 * now;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Compacts the first `blocks` blocks of the log, batch by batch, and sweeps up what is left behind.
async fn compact(context: &Context, client: &Client, blocks: i64) -> Result<()> {
    let b = context.blueprint();
    let Some(statement) = sql::compact(&b) else { return Ok(()) };
    let mut from = 0;
    while from < blocks {
        context.go_on()?;
        let to = blocks.min(from + BATCH_BLOCKS);
        let values = [format!("({from},0)"), format!("({to},0)")];
        context
            .retrying("compact the change log", async || execute_text(client, &statement, &values).await)
            .await?;
        failpoint!("growth.compacted");
        from = to;
    }
    client.batch_execute(&sql::vacuum_log(&b, true)).await?;
    context.events.note("the change log was compacted");
    Ok(())
}
