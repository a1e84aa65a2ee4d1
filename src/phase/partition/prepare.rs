//! Creates the target and its partitions. This blocks no other session, because none uses them yet.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::event::{PhaseOutcome, TableWork};
use crate::failpoint;
use crate::model::blueprint::Blueprint;
use crate::model::ident::QualifiedName;
use crate::model::objects::Role;
use crate::model::state::{State, Step};
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::pg::{catalog, objects as pg};
use crate::phase::job::meter::Meter;
use crate::phase::partition::{PartitionJob, additions, objects};
use crate::sql::prepare as sql;
use tokio_postgres::Client;

/// Creates the target and its partitions, as far as they do not exist; it can be run again.
///
/// # Errors
/// The definition of the source has changed since the plan was made, or another object now has one of the names.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "prepare"))]
pub async fn prepare(context: &PartitionJob) -> Result<State> {
    let b = context.blueprint();
    let partitions = (b.partitions.len() + usize::from(b.default.is_some())) as u64;
    let work = TableWork::CreatePartitionedTable { table: b.target().plain(), partitions };
    let meter = Meter::begin(context, work);
    let client = &context.control;
    if !objects::target_is_there(context).await? {
        context
            .retrying(&format!("create {}", b.target().plain()), async || {
                transaction(client, READ_COMMITTED, async |client| {
                    target(context, client, &b).await?;
                    failpoint!("prepare.before_commit");
                    Ok(())
                })
                .await
            })
            .await?;
    }
    failpoint!("prepare.target");
    leaves(context).await?;
    let state = context.advance(client, Step::Prepare).await?;
    failpoint!("prepare.done");
    meter.end(PhaseOutcome::PartitionsReady { partitions });
    Ok(state)
}

/// Creates the target without partitions, and records it; in the caller's transaction.
///
/// # Errors
/// The server returned an error.
pub async fn target(context: &PartitionJob, client: &Client, b: &Blueprint) -> Result<()> {
    all(client, &sql::target(b)).await?;
    pg::forget(client, context.job.id, Role::Target).await?;
    pg::record(client, context.job.id, Role::Target, &b.target()).await
}

/// Creates the partitions of the target that do not exist.
///
/// # Errors
/// Another object has the name of one; or an event trigger added something to the target.
pub async fn leaves(context: &PartitionJob) -> Result<()> {
    let b = context.blueprint();
    let target = catalog::must_find(&context.control, &b.target()).await?;
    let there = catalog::leaves(&context.control, target).await?;
    let there: HashSet<&QualifiedName> = there.iter().map(|leaf| &leaf.name).collect();
    for partition in b.partitions.iter().filter(|partition| !there.contains(&partition.name)) {
        make(context, &partition.name, &sql::partition(&b, partition)).await?;
    }
    if let Some(name) = b.default.as_ref().filter(|name| !there.contains(name)) {
        make(context, name, &sql::default_partition(&b, name)).await?;
    }
    additions::none_on_target(context).await
}

/// Creates one partition. No other object may have its name.
async fn make(context: &PartitionJob, name: &QualifiedName, statements: &[String]) -> Result<()> {
    let client = &context.control;
    if catalog::find(client, name).await?.is_some() {
        let target = context.blueprint().target();
        let message = format!("table {} exists and is not a partition of {}", name.plain(), target.plain());
        return Err(Error::failed(message)
            .hint("it was created during the run; rename or drop it, then run the same command again"));
    }
    context
        .retrying(&format!("create partition {}", name.plain()), async || {
            transaction(client, READ_COMMITTED, async |client| {
                all(client, statements).await?;
                pg::record(client, context.job.id, Role::Partition, name).await
            })
            .await
        })
        .await?;
    failpoint!("prepare.partition");
    Ok(())
}
