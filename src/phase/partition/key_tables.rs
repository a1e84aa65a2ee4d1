//! Builds the key tables after the indexes, and checks that they match the partitioned table. From then on, triggers of
//! that table keep them in sync, also when a drain writes rows.

use crate::error::{Error, Kind, Result};
use crate::event::{PhaseOutcome, TableWork};
use crate::failpoint;
use crate::model::blueprint::Direction;
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::key_table::KeyTable;
use crate::model::number;
use crate::model::objects::Role;
use crate::model::untrusted_code::Access;
use crate::pg::catalog::{self, Leaf};
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::pg::{objects as pg, preflight};
use crate::phase::job::meter::Meter;
use crate::phase::job::workers;
use crate::phase::partition::{PartitionJob, scrub};
use crate::sql::key_table::{self as sql, triggers};

/// Builds the key tables that do not exist yet. The target is not written meanwhile.
///
/// # Errors
/// A name is taken, or the server returned an error.
pub async fn build(context: &PartitionJob, leaves: &[Leaf]) -> Result<()> {
    let b = context.blueprint();
    let mut scrubbed = false;
    for k in &b.key_tables {
        if is_complete(context, k).await? {
            continue;
        }
        if !scrubbed {
            // If a row changed during the copy, the target may contain both its old and its new version, with the same
            // key. Remove all changed rows: the rest is unique. The drain copies the removed rows again.
            scrub::before_drain(context).await?;
            scrubbed = true;
        }
        let work = TableWork::BuildKeyTable { table: k.name.plain(), index: k.index.as_str().to_owned() };
        let mut meter = Meter::begin(context, work);
        meter.count("partitions", leaves.len() as u64, 0);
        create(context, k).await?;
        failpoint!("index.key_table");
        fill(context, k, leaves, &meter).await?;
        complete(context, k, leaves).await?;
        failpoint!("index.key_table_done");
        meter.end(PhaseOutcome::Completed);
    }
    Ok(())
}

/// Whether the target has the triggers of the key table, which are created last. A target that was created again after
/// that has none.
async fn is_complete(context: &PartitionJob, k: &KeyTable) -> Result<bool> {
    let (client, b) = (&context.control, context.blueprint());
    let Some(oid) = catalog::find(client, &k.name).await? else { return Ok(false) };
    owned(context, k, oid).await?;
    let target = catalog::must_find(client, &b.target()).await?;
    Ok(triggers_of(context, k, target).await?.0 == triggers::on_table(&b, k))
}

/// The number of triggers of the key table on the relation with that oid, and of those on it and its partitions that are not
/// enabled as ALWAYS.
async fn triggers_of(context: &PartitionJob, k: &KeyTable, table: u32) -> Result<(i64, i64)> {
    let b = context.blueprint();
    let names = triggers::function_names(&b, k);
    let names: Vec<&str> = names.iter().map(|name| name.name.as_str()).collect();
    let schema = k.name.schema.as_str();
    let row = context.control.query_one(sql::TRIGGERS, &[&table, &schema, &names]).await?;
    Ok((row.get(0), row.get(1)))
}

/// Fails if another object has the name of the key table.
async fn owned(context: &PartitionJob, k: &KeyTable, oid: u32) -> Result<()> {
    if pg::recorded(&context.control, context.job.id).await?.made(Role::KeyTable, oid) {
        return Ok(());
    }
    Err(Error::failed(format!(
        "table {} exists, and job {} did not create it",
        k.name.plain(),
        context.job.name
    ))
    .hint("rename or drop it, and run the same command again"))
}

/// Creates the key table and its functions, instead of those that an interrupted attempt left.
async fn create(context: &PartitionJob, k: &KeyTable) -> Result<()> {
    let (client, b, job) = (&context.control, context.blueprint(), context.job.id);
    let mut statements = Vec::new();
    if catalog::find(client, &k.name).await?.is_some() {
        statements.extend(sql::drop(&b, k));
    }
    statements.extend(sql::create(&b, k));
    context
        .retrying(&format!("create key table {}", k.name.plain()), async || {
            transaction(client, READ_COMMITTED, async |client| {
                all(client, &statements).await?;
                pg::record(client, job, Role::KeyTable, &k.name).await?;
                for function in triggers::function_names(&b, k) {
                    pg::record_function(client, job, Role::KeyFunction, &function).await?;
                }
                Ok(())
            })
            .await
        })
        .await
}

/// Inserts the keys, partition by partition.
async fn fill(context: &PartitionJob, k: &KeyTable, leaves: &[Leaf], meter: &Meter<'_>) -> Result<()> {
    let b = context.blueprint();
    let names: Vec<QualifiedName> = leaves.iter().map(|leaf| leaf.name.clone()).collect();
    let what = |leaf: &QualifiedName| format!("insert the keys of {} into {}", leaf.plain(), k.name.plain());
    workers::each(context, what, names, async |session, leaf| {
        transaction(session, READ_COMMITTED, async |client| {
            // The expressions of the index are evaluated.
            context.check_untrusted_code(client, std::slice::from_ref(&b.table.name), Access::Copies).await?;
            all(client, &sql::fill(&b, k, leaf)).await
        })
        .await?;
        meter.add(1);
        failpoint!("index.key_table_filled");
        Ok(())
    })
    .await
}

/// Creates the constraint and the triggers, and gathers statistics.
async fn complete(context: &PartitionJob, k: &KeyTable, leaves: &[Leaf]) -> Result<()> {
    let (client, b) = (&context.control, context.blueprint());
    let names: Vec<QualifiedName> = leaves.iter().map(|leaf| leaf.name.clone()).collect();
    let statements = sql::complete(&b, k, &names);
    context
        .retrying(&format!("create the constraint of key table {}", k.name.plain()), async || {
            transaction(client, READ_COMMITTED, async |client| all(client, &statements).await).await
        })
        .await?;
    Ok(client.batch_execute(&sql::vacuum(k)).await?)
}

/// Fails if a key table does not match the partitioned table. Both are read with one snapshot.
///
/// # Errors
/// The keys that only one of them has; triggers that are disabled or missing; or the server returned an error.
pub async fn compare(context: &PartitionJob) -> Result<()> {
    let (client, b) = (&context.control, context.blueprint());
    if b.key_tables.is_empty() {
        return Ok(());
    }
    let table = match context.direction() {
        Direction::Forward => b.target(),
        Direction::Reverse => b.table.name.clone(),
    };
    let oid = catalog::must_find(client, &table).await?;
    for k in &b.key_tables {
        let missing = |what: &str| {
            Error::failed(format!(
                "key table {} is no longer kept in sync with {}",
                k.name.plain(),
                table.plain()
            ))
            .cause(what.to_owned())
            .hint(context.way_out())
        };
        let Some(own) = catalog::find(client, &k.name).await? else {
            return Err(missing("it does not exist"));
        };
        owned(context, k, own).await?;
        if context.direction() == Direction::Forward {
            unreferenced(context, k, own).await?;
        }
        let children =
            preflight::untrusted_children(client, &[b.table.oid, own], oid, context.plan.trust()).await?;
        if let Some(child) = children.iter().find(|child| is_of(k, &child.index)) {
            return Err(Error::failed(child.message(&k.name)).hint(child.hint()));
        }
        let (found, disabled) = triggers_of(context, k, oid).await?;
        if found != triggers::on_table(&b, k) || disabled > 0 {
            return Err(missing(
                "triggers of the key table were dropped or disabled, or are not enabled as ALWAYS",
            ));
        }
        let name = sql::on_truncate(k);
        if let Some(row) = client.query(sql::NOT_WATCHED, &[&oid, &name.as_str()]).await?.first() {
            let partition = QualifiedName::new(row.get::<_, &str>(0), row.get::<_, &str>(1));
            let what = format!("partition {} has no trigger {}", partition.plain(), name.as_str());
            let hint =
                format!("a partition was attached by hand: create its trigger with {}", repair(k, &table));
            return Err(missing(&what).hint(hint));
        }
        transaction(client, READ_COMMITTED, async |client| {
            context.check_untrusted_code(client, std::slice::from_ref(&table), Access::Copies).await?;
            let row = client.query_one(&sql::compare(k, &table), &[]).await?;
            let side = |i: usize| (row.get::<_, i64>(i), row.get::<_, i64>(i + 1));
            if side(0) == side(2) {
                return Ok(());
            }
            let counts = client.query_one(&sql::differences(k, &table), &[]).await?;
            Err(differ(context, k, &table, counts.get(0), counts.get(1)))
        })
        .await?;
    }
    Ok(())
}

/// Fails if a foreign key references the key table of the inactive table: the job deletes and inserts its keys, and the
/// foreign key would reject that, or its ON DELETE action would change rows.
async fn unreferenced(context: &PartitionJob, k: &KeyTable, oid: u32) -> Result<()> {
    let Some(row) = context.control.query_opt(sql::REFERENCING, &[&oid]).await? else { return Ok(()) };
    let key = plain(row.get(0));
    let table = QualifiedName::new(row.get::<_, &str>(1), row.get::<_, &str>(2));
    let (table, keys) = (table.plain(), k.name.plain());
    Err(Error::failed(format!(
        "foreign key {key} of {table} references key table {keys}, which is not in use"
    ))
    .hint(format!(
        "drop it: alter table {table} drop constraint {key}; the foreign key can reference {} instead",
        context.blueprint().table.name.plain()
    )))
}

fn differ(
    context: &PartitionJob,
    k: &KeyTable,
    table: &QualifiedName,
    only_table: i64,
    only_keys: i64,
) -> Error {
    let keys = |n: i64| number::counted(n.unsigned_abs(), "key");
    Error::new(Kind::Differs, format!("key table {} and {} do not have the same keys", k.name.plain(), table.plain()))
        .cause(format!("{} only in the table, {} only in the key table", keys(only_table), keys(only_keys)))
        .hint(format!(
            "rows were written while triggers were disabled, or a partition was attached or detached by hand: correct the key \
             table with {}; or {}",
            repair(k, table),
            context.way_out()
        ))
}

/// Whether an index is the one whose place the key table takes, or the key table's own.
fn is_of(k: &KeyTable, index: &Ident) -> bool {
    *index == k.index || *index == sql::waiting(k)
}

/// The statement that makes a key table match its table again.
fn repair(k: &KeyTable, table: &QualifiedName) -> String {
    format!("`select {}_repair('{}'::regclass)`", k.name.plain(), table.plain())
}
