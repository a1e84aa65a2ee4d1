//! Scrub: when no chunk is in flight, takes out of the target what may be there twice or stale. Every such place is in the
//! log by now, so what is left is unique and the key index can be built. The log rows stay; the drain brings the rows back.

use crate::error::Result;
use crate::failpoint;
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::QualifiedName;
use crate::model::state::{State, Step};
use crate::pg::catalog;
use crate::sql::drain as sql;

use super::context::Context;
use super::meter::Meter;

/// Scrubs every leaf that the log has places for.
///
/// # Errors
/// What the server said.
pub async fn scrub(context: &Context) -> Result<State> {
    let b = context.blueprint();
    let client = &context.control;
    let mut meter = Meter::begin(
        context,
        "scrub",
        "taking out what changed while it was copied; the drain brings it back",
    );
    let source = catalog::must_find(client, &b.table.name).await?;
    let truncated =
        client.query(&sql::truncated(&b), &[]).await?.iter().any(|r| r.get::<_, u32>(0) == source);
    let mut rows = 0;
    if truncated {
        // Everything that the source holds now came after the TRUNCATE, and is in the log.
        context
            .retrying("empty the target", async || {
                Ok(client.batch_execute(&sql::empty_target(&b, Direction::Forward)).await?)
            })
            .await?;
        failpoint!("scrub.emptied");
    } else {
        let leaves = touched(context, &b).await?;
        meter.count("partitions", leaves.len() as u64, 0);
        for leaf in leaves {
            let statement = sql::scrub(&b, &leaf);
            rows += context
                .retrying(&format!("scrub {}", leaf.plain()), async || {
                    Ok(client.execute(&statement, &[]).await?)
                })
                .await?;
            meter.add(1);
            failpoint!("scrub.leaf");
        }
    }
    let state = context.advance(client, Step::Copy).await?;
    failpoint!("scrub.done");
    meter.end(format!("{rows} rows taken out"));
    Ok(state)
}

/// The leaves that the log's places fall into.
async fn touched(context: &Context, b: &Blueprint) -> Result<Vec<QualifiedName>> {
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
