//! The objects of a partition job, identified by oid. No object is dropped, truncated or renamed on the basis of its
//! name alone.

use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::event::PartitionNote;
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::QualifiedName;
use crate::model::objects::{Objects, Role};
use crate::model::state::State;
use crate::pg::{catalog, objects as pg};
use crate::phase::partition::PartitionJob;
use crate::sql::{drain, key_table, objects as sql};

/// Reads the objects that the job recorded. A job of an earlier version has no records: objects that have its names are
/// assumed to belong to it, where that is certain enough.
///
/// # Errors
/// The server returned an error.
pub async fn recorded(context: &PartitionJob) -> Result<Objects> {
    let known = context.objects.borrow().clone();
    if known.only(Role::Target).is_some() {
        return Ok(known);
    }
    let (client, job) = (&context.control, context.job.id);
    let mut objects = pg::recorded(client, job).await?;
    let begun = !matches!(context.state(), State::Planned | State::Finalized | State::Aborted);
    if begun && !context.job.records && objects.only(Role::Target).is_none() {
        adopt(context).await?;
        objects = pg::recorded(client, job).await?;
    }
    context.objects.replace(objects.clone());
    Ok(objects)
}

/// Records the objects that a job of an earlier version created, identified by name.
async fn adopt(context: &PartitionJob) -> Result<()> {
    let b = context.blueprint();
    let (client, job) = (&context.control, context.job.id);
    let partitioned = match context.direction() {
        Direction::Forward => b.target(),
        Direction::Reverse => b.table.name.clone(),
    };
    let Some(oid) = catalog::find(client, &partitioned).await? else { return Ok(()) };
    let now = catalog::table(client, oid).await?;
    let alike = b.table.columns.iter().all(|column| now.column(&column.name).is_some());
    if now.relkind != "p" || now.oid == b.table.oid || !alike {
        return Ok(());
    }
    context.events.note(PartitionNote::EarlierVersion { table: partitioned.plain() });
    for leaf in catalog::leaves(client, oid).await? {
        pg::record(client, job, Role::Partition, &leaf.name).await?;
    }
    pg::record(client, job, Role::Log, &b.log()).await?;
    pg::record(client, job, Role::Truncations, &b.truncations()).await?;
    // Last, because this record marks the adoption as complete.
    pg::record(client, job, Role::Target, &partitioned).await
}

/// The oids of the table in use and of the inactive table.
fn sides(context: &PartitionJob, objects: &Objects, direction: Direction) -> Result<(u32, u32)> {
    let b = context.blueprint();
    let target = objects.only(Role::Target).map(|object| object.oid).ok_or_else(|| {
        let wanted = match direction {
            Direction::Forward => b.target(),
            Direction::Reverse => b.table.name.clone(),
        };
        Error::failed(format!("{} is not the table that job {} created", wanted.plain(), context.job.name))
            .cause(
                "the job has no record of the partitioned table that it created, and no table has its \
                name",
            )
            .hint(context.way_out())
    })?;
    Ok(match direction {
        Direction::Forward => (b.table.oid, target),
        Direction::Reverse => (target, b.table.oid),
    })
}

/// Fails if another object now has a name that the job uses.
///
/// # Errors
/// The name, and the object; or the server returned an error.
pub async fn in_place(context: &PartitionJob) -> Result<()> {
    let b = context.blueprint();
    let direction = context.direction();
    let objects = recorded(context).await?;
    let names = b.sides(direction);
    let (source, target) = sides(context, &objects, direction)?;
    let mut wanted = vec![(names.source, source), (names.target, target)];
    let own = [(Role::Log, b.log()), (Role::Truncations, b.truncations())];
    wanted.extend(own.into_iter().filter_map(|(role, name)| Some((name, objects.only(role)?.oid))));
    match pg::misplaced(&context.control, &wanted).await? {
        None => Ok(()),
        Some(number) => Err(elsewhere(context, &wanted[number].0, wanted[number].1).await?),
    }
}

/// Fails if a name that the swap changes is that of an object that does not belong to the two tables.
///
/// # Errors
/// The name; or the server returned an error.
pub async fn names_move(context: &PartitionJob, ending: Direction) -> Result<()> {
    let (source, target) = sides(context, &recorded(context).await?, ending)?;
    let (out, come) = context.blueprint().moved_names(ending);
    let with = |names: Vec<QualifiedName>, oid: u32| names.into_iter().map(move |name| (name, oid));
    let b = context.blueprint();
    let mut wanted: Vec<_> = with(out, source).chain(with(come, target)).collect();
    for k in &b.key_tables {
        let Some(oid) = catalog::find(&context.control, &k.name).await? else { continue };
        let name = if ending == Direction::Forward { key_table::waiting(k) } else { k.index.clone() };
        wanted.push((k.name.sibling(name), oid));
    }
    let found = pg::not_of(&context.control, &wanted).await?;
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!(
        "the swap or rollback would rename objects that do not belong to the two tables of job {}: {}",
        context.job.name,
        found.join(", ")
    ))
    .cause(
        "an index, sequence or statistics object of the tables was dropped, or another object was \
        created under its name",
    )
    .hint(format!(
        "nothing was changed; create the original object again, and run the same command again; or {}",
        context.way_out()
    )))
}

/// The error for a table that no longer has its name: it describes where the table is now.
async fn elsewhere(context: &PartitionJob, name: &QualifiedName, oid: u32) -> Result<Error> {
    let client = &context.control;
    let there = match catalog::find(client, name).await? {
        Some(other) => format!("{} is now another table (oid {other})", name.plain()),
        None => format!("table {} does not exist", name.plain()),
    };
    let (ours, hint) = match pg::name(client, oid).await? {
        Some(now) => (
            format!("the job's table has oid {oid} and is now named {}", now.plain()),
            format!(
                "rename {} back to {}, and run the same command again; or {}",
                now.plain(),
                name.plain(),
                context.way_out()
            ),
        ),
        None => (format!("the job's table, oid {oid}, was dropped"), context.way_out()),
    };
    Ok(Error::failed(format!("{} is not the table of job {}", name.plain(), context.job.name))
        .cause(format!("{there}; {ours}"))
        .hint(hint))
}

/// Whether the target exists. In the planned state it may not exist, and another object may have its name.
///
/// # Errors
/// Another object has the name, or the job's target has another name now.
pub async fn target_is_there(context: &PartitionJob) -> Result<bool> {
    let target = context.blueprint().target();
    let recorded = pg::recorded(&context.control, context.job.id).await?;
    let standing = recorded.only(Role::Target).filter(|object| object.now.is_some());
    match (catalog::find(&context.control, &target).await?, standing) {
        (None, None) => Ok(false),
        (Some(found), Some(object)) if found == object.oid => Ok(true),
        (_, Some(object)) => Err(elsewhere(context, &target, object.oid).await?),
        (Some(_), None) => Err(Error::failed(format!(
            "table {} exists, and job {} did not create it",
            target.plain(),
            context.job.name
        ))
        .hint("rename or drop it, and run the same command again")),
    }
}

/// Returns statements that lock the inactive table, and fail if it is not the job's own.
///
/// # Errors
/// The job has no record of it.
pub async fn lock_target(context: &PartitionJob, direction: Direction, mode: &str) -> Result<String> {
    let (_, target) = sides(context, &recorded(context).await?, direction)?;
    Ok(sql::lock(&context.blueprint().sides(direction).target, target, mode))
}

/// Truncates the target, in the caller's transaction; deletes its rows if the role may not truncate it.
///
/// # Errors
/// The table with its name is not the job's own; or the server returned an error.
pub async fn empty_target(
    context: &PartitionJob,
    client: &Client,
    b: &Blueprint,
    direction: Direction,
) -> Result<()> {
    client.batch_execute(&lock_target(context, direction, "access exclusive").await?).await?;
    let (_, target) = sides(context, &recorded(context).await?, direction)?;
    let may_truncate: bool = client.query_one(drain::MAY_TRUNCATE, &[&target]).await?.get(0);
    let statement = if may_truncate {
        drain::empty_target(b, direction)
    } else {
        drain::delete_from_target(b, direction)
    };
    Ok(client.batch_execute(&statement).await?)
}
