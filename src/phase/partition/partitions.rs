//! Creates partitions that are found to be missing during a job. A row without a partition must never make a write of
//! the application fail.

use crate::error::{Error, Result};
use crate::event::PartitionNote;
use crate::failpoint;
use crate::model::blueprint::{Blueprint, Partition};
use crate::model::objects::Role;
use crate::model::partition::names;
use crate::model::state::State;
use crate::pg::transaction::{READ_COMMITTED, all, query_text, transaction};
use crate::pg::{objects, store};
use crate::phase::partition::PartitionJob;
use crate::plan::partitioning::{scheme, template};
use crate::sql::key_table::triggers;
use crate::sql::{capture, copy, drain, prepare as sql};
use tokio_postgres::Client;

/// Whether the error means that no partition accepts a row.
pub fn lacks_partition(error: &Error) -> bool {
    error.lacks_partition()
}

/// Creates the partitions that pending rows need, adjoining the existing ones and with the same interval.
///
/// # Errors
/// The rows need an implausible number of partitions, or no row is found that needs one.
pub async fn extend(context: &PartitionJob) -> Result<()> {
    let b = context.blueprint();
    let missing = missing(context, &b).await?;
    if missing.is_empty() {
        return Err(Error::failed(
            "a row belonged in no partition, but neither the change log nor the table contains such a row any more",
        )
        .hint("run the same command again"));
    }
    let built =
        !matches!(context.state(), State::Planned | State::Prepared | State::Capturing | State::Copied);
    let mut statements = Vec::new();
    for partition in &missing {
        context.events.note(PartitionNote::PartitionAdded { partition: partition.name.plain() });
        statements.extend(sql::partition(&b, partition));
        if built {
            statements.extend(capture::create_truncate_trigger(&b, &partition.name));
            statements.extend(b.key_tables.iter().flat_map(|k| triggers::on_leaf(k, &partition.name)));
        }
    }
    let made: Vec<_> = missing.iter().map(|partition| partition.name.clone()).collect();
    let mut wider = b;
    wider.partitions.extend(missing);
    let scheme = scheme(&context.partitioning, by_type(&wider)?)?;
    wider.partitions.sort_by_key(|p| scheme.value(&p.from).ok());
    // In one transaction: a partition that is not recorded would never get its trigger and would not be found again.
    context
        .retrying(
            &format!("create missing partitions of {}", context.blueprint().table.name.plain()),
            async || {
                transaction(&context.control, READ_COMMITTED, async |client| {
                    all(client, &statements).await?;
                    for name in &made {
                        objects::record(client, context.job.id, Role::Partition, name).await?;
                    }
                    store::extend(client, context.job.id, &wider).await?;
                    failpoint!("extend.before_commit");
                    Ok(())
                })
                .await
            },
        )
        .await?;
    context.blueprint.replace(wider);
    failpoint!("extend.done");
    Ok(())
}

fn by_type(b: &Blueprint) -> Result<&str> {
    b.by_column().map(|c| c.base_type.as_str()).ok_or_else(|| {
        Error::failed(
            "the partition column no \
        longer exists",
        )
    })
}

async fn missing(context: &PartitionJob, b: &Blueprint) -> Result<Vec<Partition>> {
    let scheme = scheme(&context.partitioning, by_type(b)?)?;
    let (Some(first), Some(last)) = (b.partitions.first(), b.partitions.last()) else {
        return Ok(Vec::new());
    };
    let mut found_ends: Option<(String, String)> = None;
    // Rows that were written between the check and the capture are not in the change log, but in the table.
    for table in [drain::outside(b), copy::outside(b)] {
        let Some(statement) = table else { return Ok(Vec::new()) };
        let ends = [first.from.clone(), last.to.clone()];
        let read = async |client: &Client| query_text(client, &statement, &ends).await;
        let rows = context.reading(&context.control, std::slice::from_ref(&b.table.name), read).await?;
        let found: Option<(Option<String>, Option<String>)> = rows.first().map(|r| (r.get(0), r.get(1)));
        if let Some((Some(low), Some(high))) = found {
            found_ends = Some((low, high));
            break;
        }
    }
    let Some((low, high)) = found_ends else { return Ok(Vec::new()) };
    let value = |text: &str| scheme.value(text).map_err(Error::failed);
    let (low, high) = (value(&low)?.min(value(&first.from)?), value(&high)?.max(value(&first.from)?));
    let ranges = scheme.cover(&low, &high, 0).map_err(Error::failed)?;
    let table = b.table.name.name.as_str();
    let names = names(&template(&context.partitioning)?, table, &scheme, &ranges).map_err(Error::failed)?;
    Ok(ranges
        .iter()
        .zip(names)
        .map(|(range, name)| Partition {
            name: b.table.name.sibling(name),
            from: range.from.to_string(),
            to: range.to.to_string(),
        })
        .filter(|p| !b.partitions.iter().any(|have| have.from == p.from))
        .collect())
}
