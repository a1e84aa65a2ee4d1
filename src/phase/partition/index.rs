//! Builds the indexes: the worker pool builds those of every leaf, each in a separate transaction, so that a crash
//! loses only the builds in progress. Then the indexes of the parent are created, and those of the leaves are attached
//! to them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use tokio_postgres::error::SqlState;

use crate::error::{Error, Kind, Result};
use crate::event::{PhaseOutcome, TableWork};
use crate::failpoint;
use crate::model::blueprint::Blueprint;
use crate::model::ident::{QualifiedName, plain, plain_list};
use crate::model::shell::word;
use crate::model::state::{State, Step};
use crate::model::table::{Check, Index};
use crate::pg::catalog::{self, Leaf};
use crate::pg::connect::Session;
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::phase::job::meter::Meter;
use crate::phase::job::workers;
use crate::phase::partition::{PartitionJob, key_tables, scrub};
use crate::sql::{capture as capture_sql, index as sql};

/// Builds the missing indexes.
///
/// # Errors
/// A unique index finds a duplicate, or the server returned an error.
pub async fn index(context: &PartitionJob) -> Result<State> {
    let b = context.blueprint();
    let client = &context.control;
    let target = catalog::must_find(client, &b.target()).await?;
    let mut leaves = catalog::leaves(client, target).await?;
    let sizes = sizes(context, target).await?;
    // The largest leaf first: otherwise, the other workers would be idle while one worker builds its indexes at the
    // end.
    leaves.sort_by_key(|leaf| std::cmp::Reverse(sizes.get(&leaf.oid).copied()));
    let indexes: Vec<Index> = b.carried_indexes();
    let (indexes_each, partitions) = (indexes.len() as u64, leaves.len() as u64);
    let work = TableWork::BuildPartitionIndexes { indexes: indexes_each, partitions };
    let mut meter = Meter::begin(context, work);
    meter.count("indexes", (indexes.iter().filter(|i| sql::by_leaf(i)).count() * leaves.len()) as u64, 0);
    let (meter, b) = (&meter, &b);
    let refused = RefCell::new(None);
    let mut built = on_leaves(context, &leaves, &indexes, target, meter, &refused).await;
    if built.as_ref().is_err_and(is_repeated) {
        // The duplicates may be rows that were corrected since they were copied. These changes are in the log, so the
        // scrub deletes such rows, and the drain copies their current versions.
        scrub::before_drain(context).await?;
        built = on_leaves(context, &leaves, &indexes, target, meter, &refused).await;
    }
    match (built, refused.take()) {
        (Err(e), Some((leaf, index))) if is_repeated(&e) => {
            return Err(repeated(context, e, leaf, index).await);
        }
        (built, _) => built?,
    }
    finish_leaves(context, b, &leaves).await?;
    parent(context, b, target, &leaves, &indexes).await?;
    meter.end(PhaseOutcome::IndexesValid);
    key_tables::build(context, &leaves).await?;
    statistics(context, b, &leaves).await?;
    let state = context.advance(client, Step::Index).await?;
    failpoint!("index.done");
    Ok(state)
}

/// Builds the missing indexes of leaves with the worker pool. `refused` is set to the last index whose build found
/// duplicates.
async fn on_leaves<'i>(
    context: &PartitionJob,
    leaves: &'i [Leaf],
    indexes: &'i [Index],
    target: u32,
    meter: &Meter<'_>,
    refused: &RefCell<Option<(&'i Leaf, &'i Index)>>,
) -> Result<()> {
    let b = &context.blueprint();
    let built = built(context, target).await?;
    let wanted = indexes.iter().filter(|index| sql::by_leaf(index));
    let tasks: Vec<(&Leaf, &Index)> = wanted
        .flat_map(|index| leaves.iter().map(move |leaf| (leaf, index)))
        .filter(|(leaf, index)| {
            !built.contains_key(&leaf.name.sibling(b.leaf_index_name(&leaf.name.name, &index.name)))
        })
        .collect();
    let wanted = indexes.iter().filter(|index| sql::by_leaf(index)).count() * leaves.len();
    meter.reached((wanted - tasks.len()) as u64);
    let step = |(leaf, index): &(&Leaf, &Index)| {
        format!("build the index of {} for {}", leaf.name.plain(), plain(index.name.as_str()))
    };
    workers::each(context, step, tasks, async |session, (leaf, index)| {
        transaction(session, READ_COMMITTED, async |client| {
            all(client, &sql::on_leaf(b, index, &leaf.name)).await
        })
        .await
        .inspect_err(|e| {
            if is_repeated(e) {
                refused.replace(Some((*leaf, *index)));
            }
        })?;
        meter.add(1);
        failpoint!("index.leaf");
        meter.keep().await
    })
    .await
}

fn is_repeated(error: &Error) -> bool {
    error.is(&SqlState::UNIQUE_VIOLATION)
}

/// The error for rows of the source that violate its own unique index.
async fn repeated(context: &PartitionJob, error: Error, leaf: &Leaf, index: &Index) -> Error {
    let b = context.blueprint();
    let (source, name) = (b.table.name.plain(), plain(index.name.as_str()));
    // The functions of the index are those of the source.
    let keys = context.repeated_keys(sql::repeated(&b, index, &leaf.name), &b.table.name).await;
    let cause = match keys.as_slice() {
        [] => error.message().to_owned(),
        keys => format!("rows with duplicate values, by key ({}): {}", plain_list(&b.key), keys.join("; ")),
    };
    Error::new(
        Kind::Differs,
        format!(
            "rows of {source} have duplicate values, although index {name} is \
        unique"
        ),
    )
    .cause(cause)
    .hint(format!(
        "index {name} of {source} is corrupt, for example after a change of the operating system's \
             collations: change or delete all but one of these rows in {source}, rebuild the index \
             (REINDEX), and run the same command again; or run `pgstrata abort {}`",
        word(&context.job.name)
    ))
}

/// The size of each leaf in bytes, by its oid.
async fn sizes(context: &PartitionJob, target: u32) -> Result<HashMap<u32, i64>> {
    let rows = context.control.query(sql::LEAF_SIZES, &[&target]).await?;
    Ok(rows.iter().map(|r| (r.get(0), r.get(1))).collect())
}

/// The existing indexes on leaves, and whether each is attached to an index of the parent.
async fn built(context: &PartitionJob, target: u32) -> Result<HashMap<QualifiedName, bool>> {
    let rows = context.control.query(sql::LEAF_INDEXES, &[&target]).await?;
    Ok(rows
        .iter()
        .filter(|r| r.get(4))
        .map(|r| (QualifiedName::new(r.get::<_, String>(0), r.get::<_, String>(2)), r.get(3)))
        .collect())
}

/// Creates what leaves need in addition to indexes: constraints and the truncate trigger.
async fn finish_leaves(context: &PartitionJob, b: &Blueprint, leaves: &[Leaf]) -> Result<()> {
    let step = |leaf: &&Leaf| format!("add the constraints and triggers of {}", leaf.name.plain());
    workers::each(context, step, leaves, async |session, leaf| {
        finish_leaf(session, b, leaf).await?;
        failpoint!("index.leaf_done");
        Ok(())
    })
    .await
}

async fn finish_leaf(session: &Session, b: &Blueprint, leaf: &Leaf) -> Result<()> {
    let have = session.query(sql::LEAF_CONSTRAINTS, &[&leaf.oid]).await?;
    let have: HashSet<String> = have.iter().map(|r| r.get(0)).collect();
    for index in b.carried_indexes() {
        if let Some((name, statement)) = sql::leaf_constraint(b, &index, &leaf.name)
            && !have.contains(name.as_str())
        {
            session.batch_execute(&statement).await?;
            failpoint!("index.constraint");
        }
    }
    for statement in sql::leaf_marks(b, &leaf.name) {
        session.batch_execute(&statement).await?;
    }
    let trigger: bool = session.query_one(capture_sql::HAS_TRUNCATE_TRIGGER, &[&leaf.oid]).await?.get(0);
    if !trigger {
        transaction(session, READ_COMMITTED, async |client| {
            all(client, &capture_sql::create_truncate_trigger(b, &leaf.name)).await
        })
        .await?;
    }
    Ok(())
}

/// Analyzes and vacuums the target, so that the server plans queries after the swap as well as before it.
async fn statistics(context: &PartitionJob, b: &Blueprint, leaves: &[Leaf]) -> Result<()> {
    let meter = Meter::begin(context, TableWork::Analyze);
    let statements = sql::analyze(b);
    context
        .retrying(&format!("analyze {}", b.target().plain()), async || {
            transaction(&context.control, READ_COMMITTED, async |client| all(client, &statements).await).await
        })
        .await?;
    failpoint!("index.analyzed");
    let step = |leaf: &&Leaf| format!("vacuum and analyze {}", leaf.name.plain());
    workers::each(context, step, leaves, async |session, leaf| {
        Ok(session.batch_execute(&sql::vacuum(&leaf.name)).await?)
    })
    .await?;
    failpoint!("index.vacuumed");
    meter.end(PhaseOutcome::Completed);
    Ok(())
}

/// Creates the indexes and late constraints of the parent. Each statement is fast, because it reads no rows.
async fn parent(
    context: &PartitionJob,
    b: &Blueprint,
    target: u32,
    leaves: &[Leaf],
    indexes: &[Index],
) -> Result<()> {
    let client = &context.control;
    let table = b.target().plain();
    let step = async |what: String, statements: &[String]| {
        context
            .retrying(&what, async || {
                transaction(client, READ_COMMITTED, async |client| all(client, statements).await).await
            })
            .await
    };
    let now = catalog::table(client, target).await?;
    let missing = |check: &&Check| !now.checks.iter().any(|there| there.name == check.name);
    if b.late_checks().into_iter().any(|check| missing(&check)) {
        step(format!("add constraints as NOT VALID to {table}"), &sql::late_checks(b)).await?;
        failpoint!("index.checks");
    }
    for index in indexes {
        let name = index.name.with_suffix("_new");
        if !now.indexes.iter().any(|i| i.name == name) {
            step(format!("create index {} of {table}", plain(name.as_str())), &sql::on_parent(b, index))
                .await?;
        }
        failpoint!("index.parent");
        let attached = built(context, target).await?;
        let missing: Vec<String> = leaves
            .iter()
            .filter(|leaf| {
                let part = leaf.name.sibling(b.leaf_index_name(&leaf.name.name, &index.name));
                attached.get(&part) == Some(&false)
            })
            .map(|leaf| sql::attach(b, index, &leaf.name))
            .collect();
        step(format!("attach the indexes of the partitions to {}", plain(name.as_str())), &missing).await?;
        failpoint!("index.attached");
    }
    let identity = sql::replica_identity(b, &b.target(), |index| index.with_suffix("_new"));
    step(format!("set the replica identity of {table}"), identity.as_slice()).await?;
    let now = catalog::table(client, target).await?;
    if let Some(open) = now.indexes.iter().find(|i| !i.valid) {
        return Err(Error::failed(format!("index {} is not valid on every partition", open.name.as_str()))
            .hint("a partition does not have this index: check whether one was attached by hand"));
    }
    Ok(())
}
