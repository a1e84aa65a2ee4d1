//! Deletes rows from the target that may be duplicate or stale, after the last chunk. All changes to such rows are in
//! the change log by now, so the remaining rows are unique, and the index of the key can be built. The log keeps its
//! rows, and the drain copies the deleted rows again.

use std::cell::Cell;

use crate::error::Result;
use crate::event::{PhaseOutcome, TableWork};
use crate::failpoint;
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::QualifiedName;
use crate::model::state::{State, Step};
use crate::pg::catalog;
use crate::pg::transaction::{READ_COMMITTED, execute_text, transaction};
use crate::phase::job::meter::Meter;
use crate::phase::job::workers;
use crate::phase::partition::{PartitionJob, objects};
use crate::sql::{copy as copy_sql, drain as sql};

/// The number of blocks of a leaf that one transaction scrubs: 256 MiB.
const STRETCH_BLOCKS: usize = 32_768;

/// Scrubs every leaf for which the log has changes.
///
/// # Errors
/// The server returned an error.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "scrub"))]
pub async fn scrub(context: &PartitionJob) -> Result<State> {
    objects::in_place(context).await?;
    let b = context.blueprint();
    let client = &context.control;
    let mut meter = Meter::begin(context, TableWork::RemoveChangedRows { again: false });
    let source = catalog::must_find(client, &b.table.name).await?;
    let truncated =
        client.query(&sql::truncated(&b), &[]).await?.iter().any(|r| r.get::<_, u32>(0) == source);
    let mut rows = 0;
    if truncated {
        // All rows that the source has now were written after the TRUNCATE, so they are in the log.
        context
            .retrying(&format!("empty {}", b.target().plain()), async || {
                transaction(client, READ_COMMITTED, async |client| {
                    objects::empty_target(context, client, &b, Direction::Forward).await
                })
                .await
            })
            .await?;
        failpoint!("scrub.emptied");
    } else {
        rows = stretches(context, &b, &mut meter).await?;
    }
    let state = context.advance(client, Step::Copy).await?;
    failpoint!("scrub.done");
    meter.end(PhaseOutcome::RowsRemoved { rows });
    Ok(state)
}

/// Scrubs again before the first drain, to also delete rows that were changed in the meantime.
///
/// # Errors
/// The server returned an error.
pub async fn before_drain(context: &PartitionJob) -> Result<()> {
    let b = context.blueprint();
    let mut meter = Meter::begin(context, TableWork::RemoveChangedRows { again: true });
    let rows = stretches(context, &b, &mut meter).await?;
    meter.end(PhaseOutcome::RowsRemoved { rows });
    Ok(())
}

/// Scrubs the leaves for which the log has changes, a number of blocks at a time, so that no transaction is long.
async fn stretches(context: &PartitionJob, b: &Blueprint, meter: &mut Meter<'_>) -> Result<u64> {
    let mut tasks = Vec::new();
    for leaf in touched(context, b).await? {
        let oid = catalog::must_find(&context.control, &leaf).await?;
        let blocks: i64 = context.control.query_one(copy_sql::HEAP, &[&oid]).await?.get(1);
        tasks.extend((0..blocks).step_by(STRETCH_BLOCKS).map(|from| (leaf.clone(), from)));
    }
    meter.count("stretches", tasks.len() as u64, 0);
    let rows = Cell::new(0);
    let meter = &*meter;
    let step = |(leaf, _): &(QualifiedName, i64)| format!("remove changed rows from {}", leaf.plain());
    workers::each(context, step, tasks, async |session, (leaf, from)| {
        let ends = [format!("({from},0)"), format!("({},0)", from + STRETCH_BLOCKS as i64)];
        let gone = execute_text(session, &sql::scrub(b, leaf), &ends).await?;
        rows.set(rows.get() + gone);
        meter.add(1);
        failpoint!("scrub.leaf");
        Ok(())
    })
    .await?;
    Ok(rows.get())
}

/// The leaves for which the log has changes.
async fn touched(context: &PartitionJob, b: &Blueprint) -> Result<Vec<QualifiedName>> {
    let Some(statement) = sql::scrubbed_leaves(b) else { return Ok(Vec::new()) };
    let mut bounds: Vec<String> =
        b.partitions.iter().map(|p| p.from.clone()).filter(|from| from != "minvalue").collect();
    let below_first = b.partitions.first().filter(|p| p.from == "minvalue");
    bounds.extend(b.partitions.last().map(|p| p.to.clone()).filter(|to| to != "maxvalue"));
    let rows = context.control.query(&statement, &[&bounds]).await?;
    let mut leaves: Vec<QualifiedName> = Vec::new();
    let skipped = usize::from(below_first.is_some());
    for row in rows {
        let bucket: Option<i32> = row.get(0);
        let bucket = bucket.and_then(|n| usize::try_from(n).ok()).map(|n| n + skipped);
        let leaf =
            bucket.and_then(|n| n.checked_sub(1)).and_then(|n| b.partitions.get(n)).map(|p| p.name.clone());
        if let Some(name) = leaf.or_else(|| b.default.clone())
            && !leaves.contains(&name)
        {
            leaves.push(name);
        }
    }
    Ok(leaves)
}
