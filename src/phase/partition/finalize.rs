//! Ends a job: finalize closes the rollback window, abort removes everything. Each is one transaction.
//!
//! Objects to remove are identified by oid: a user may have renamed a table, moved it to another schema, or detached a
//! partition that has a trigger of the job. An object that has one of the job's names, but does not belong to the job,
//! remains.

use tokio_postgres::Client;

use crate::error::Result;
use crate::event::{EndWork, KeptWarning, PhaseOutcome};
use crate::failpoint;
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::filling::Filling;
use crate::model::history::History;
use crate::model::ident::{Ident, QualifiedName};
use crate::model::objects::{Object, Objects, Role};
use crate::model::state::{State, Step};
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::pg::{catalog, latency, objects as pg, store};
use crate::phase::job::foreign_keys::report_unvalidated;
use crate::phase::job::kind::depended_on;
use crate::phase::job::locks::LockRetry;
use crate::phase::job::meter::Meter;
use crate::phase::partition::{PartitionJob, after_exchange, objects};
use crate::sql::finalize::{self as sql, Leaving};
use crate::sql::{key_table, store as store_sql};

/// Drops the old table and the objects that kept it in sync.
///
/// # Errors
/// An object still depends on the old table. The error names the object, and nothing is dropped.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "finalize"))]
pub async fn finalize(context: &PartitionJob) -> Result<State> {
    let b = context.blueprint();
    let before = Ending::read(context).await?;
    let failed = if before.in_use_by_name { after_exchange::complete(context).await? } else { Vec::new() };
    let table = before.leaving.table.as_ref().map(|(table, _)| table.plain());
    let meter = Meter::begin(context, EndWork::DropOldTable { table });
    before.report_kept(context);
    let state = end(context, Step::Finalize).await.map_err(|e| depended_on(context, e, Step::Finalize))?;
    failpoint!("finalize.done");
    meter.end(PhaseOutcome::TablePartitioned { table: b.table.name.plain() });
    report_unvalidated(context, &failed, b.keys_on_leaves);
    Ok(state)
}

/// Removes everything that the job created.
///
/// # Errors
/// The job is past the swap, or the server returned an error.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "abort"))]
pub async fn abort(context: &PartitionJob) -> Result<State> {
    let before = Ending::read(context).await?;
    let failed = if before.in_use_by_name { after_exchange::complete(context).await? } else { Vec::new() };
    let b = context.blueprint();
    let in_use = before.leaving.in_use.as_ref();
    let table = in_use.unwrap_or(&b.table.name).plain();
    let meter = Meter::begin(context, EndWork::RemoveJob { table, exists: in_use.is_some() });
    before.report_kept(context);
    let state = end(context, Step::Abort).await.map_err(|e| depended_on(context, e, Step::Abort))?;
    failpoint!("abort.done");
    meter.end(PhaseOutcome::JobRemoved);
    report_unvalidated(context, &failed, false);
    Ok(state)
}

/// The objects that the end of the job removes, with their current names.
struct Ending {
    leaving: Leaving,
    /// Whether the table in use has the name that applications use.
    in_use_by_name: bool,
    /// Objects that remain, although the job created them or they have one of its names.
    stays: Vec<KeptWarning>,
}

impl Ending {
    async fn read(context: &PartitionJob) -> Result<Self> {
        objects::recorded(context).await?;
        let (client, b) = (&context.control, context.blueprint());
        let recorded = pg::recorded(client, context.job.id).await?;
        let target = recorded.only(Role::Target).map(|object| object.oid);
        let direction = context.direction();
        let (in_use, goes) = match direction {
            Direction::Forward => (Some(b.table.oid), target),
            Direction::Reverse => (target, Some(b.table.oid)),
        };
        let names = b.sides(direction);
        let in_use_now = named(client, in_use).await?;
        let goes_now = named(client, goes).await?;
        let functions = functions(&b);
        let triggers = pg::triggers(client, &functions, in_use.unwrap_or(0)).await?;
        let mut stays = Vec::new();
        // The old table belonged to the application: a user who renamed it intends to keep it.
        let kept =
            direction == Direction::Reverse && goes_now.as_ref().is_some_and(|now| *now != names.target);
        if let Some(now) = goes_now.as_ref().filter(|_| kept) {
            stays.push(KeptWarning::TableRenamed { table: names.target.plain(), now: now.plain() });
        }
        let found = catalog::find(client, &names.target).await?;
        if found.is_some() && found != goes {
            stays.push(KeptWarning::TableNotOwn { table: names.target.plain() });
        }
        stays.extend(detached(client, &recorded, target).await?);
        let own =
            [Role::Log, Role::Truncations].into_iter().filter_map(|role| recorded.relation(role).cloned());
        let (mut key_tables, mut key_functions) = (Vec::new(), Vec::new());
        let given_to_owner = match direction {
            Direction::Forward => Vec::new(),
            Direction::Reverse => {
                let table = in_use_now.as_ref().unwrap_or(&names.source);
                b.key_tables.iter().flat_map(|k| key_table::to_owner(&b, k, table)).collect()
            }
        };
        // After a swap, they belong to the partitioned table.
        if direction == Direction::Forward {
            let relation = |object: &Object| Some((object.now.as_ref()?.relation.clone(), Some(object.oid)));
            let signature = |object: &Object| {
                let now = object.now.as_ref()?;
                Some(format!(
                    "{}({})",
                    now.relation,
                    now.part.as_ref().map_or("", |arguments| arguments.as_str())
                ))
            };
            key_tables.extend(recorded.of(Role::KeyTable).filter_map(relation));
            key_functions.extend(recorded.of(Role::KeyFunction).filter_map(signature));
        }
        Ok(Self {
            in_use_by_name: in_use_now.as_ref() == Some(&names.source),
            leaving: Leaving {
                in_use: in_use_now,
                constraints: constraints(&recorded),
                triggers,
                table: goes_now.filter(|_| !kept).map(|name| (name, goes)),
                functions,
                exchange: Some((b.exchange_function(), b.definition_function())),
                own: own.collect(),
                key_tables,
                key_functions,
                given_to_owner,
            },
            stays,
        })
    }

    /// Reports the objects that remain.
    fn report_kept(&self, context: &PartitionJob) {
        for one in &self.stays {
            context.events.warn(one.clone());
        }
    }

    /// The tables to lock.
    fn tables(&self) -> Vec<QualifiedName> {
        let leaving = &self.leaving;
        let mut all: Vec<QualifiedName> = leaving.in_use.iter().cloned().collect();
        all.extend(leaving.table.iter().map(|(name, _)| name.clone()));
        all.extend(leaving.triggers.iter().chain(&leaving.constraints).map(|(table, _)| table.clone()));
        all.dedup();
        all
    }
}

/// The functions of the job that triggers call.
fn functions(b: &Blueprint) -> Vec<QualifiedName> {
    let filling = b.null_as.as_ref().map(|_| Filling::of_nulls(b).fill_function());
    [b.capture_function(), b.guard_function()].into_iter().chain(filling).collect()
}

/// The constraints of the job, with their tables.
fn constraints(recorded: &Objects) -> Vec<(QualifiedName, Ident)> {
    let of = |object: &Object| {
        let now = object.now.as_ref()?;
        Some((now.relation.clone(), now.part.clone()?))
    };
    recorded.of(Role::Constraint).filter_map(of).collect()
}

async fn named(client: &Client, oid: Option<u32>) -> Result<Option<QualifiedName>> {
    match oid {
        Some(oid) => pg::name(client, oid).await,
        None => Ok(None),
    }
}

/// Partitions of the job that users detached. They remain because they store rows.
async fn detached(client: &Client, recorded: &Objects, target: Option<u32>) -> Result<Vec<KeptWarning>> {
    let Some(target) = target else { return Ok(Vec::new()) };
    let attached = catalog::leaves(client, target).await?;
    let alone = recorded.of(Role::Partition).filter(|one| attached.iter().all(|leaf| leaf.oid != one.oid));
    let standing = alone.filter_map(|one| Some(one.now.as_ref()?.relation.plain()));
    Ok(standing.map(|partition| KeptWarning::DetachedPartitionKept { partition }).collect())
}

async fn end(context: &PartitionJob, step: Step) -> Result<State> {
    let client = &context.control;
    let chunks = History::Chunks(latency::of_chunks(client, context.job.id).await?);
    let tables = Ending::read(context).await?.tables();
    let lock_retry = LockRetry::on(context, tables);
    let attempt = async || {
        lock_retry.look().await?;
        transaction(client, READ_COMMITTED, async |client| {
            context.hold_epoch(client).await?;
            let ending = Ending::read(context).await?;
            let first = ending.leaving.in_use.as_ref();
            let first = first.map(|table| format!("lock table {table} in share update exclusive mode"));
            lock_retry.begin(client, first.as_deref().unwrap_or("select")).await?;
            all(client, &sql::end(&ending.leaving)).await?;
            if step == Step::Finalize {
                client.execute(store_sql::KEEP_ROWS_COPIED, &[&context.job.id]).await?;
            }
            client.execute(store_sql::FORGET_CHUNKS, &[&context.job.id]).await?;
            store::event(client, context.job.id, &chunks).await?;
            let state = context.advance(client, step).await?;
            if step == Step::Finalize {
                failpoint!("finalize.before_commit");
            } else {
                failpoint!("abort.before_commit");
            }
            Ok(state)
        })
        .await
    };
    let ended =
        lock_retry.run(&format!("end job {}", context.job.name), || context.check_stop(), attempt).await;
    let (state, _) = ended?;
    context.reached(state);
    Ok(state)
}
