//! Settle: what a swap, either way, leaves to be done without a lock that anyone notices. The foreign keys of the table in use
//! stand, and check every write; its rows are looked through now, so that the keys are as valid as they were. Materialized
//! views that still read the table out of use are made anew. Whatever is found done is left alone, so any later command may
//! go on with it.

use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::failpoint;
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::dependent::Matview;
use crate::model::ident::QualifiedName;
use crate::model::likeness;
use crate::model::objects::Role;
use crate::model::state::State;
use crate::model::table::ForeignKey;
use crate::pg::catalog;
use crate::pg::connect::Session;
use crate::pg::objects as pg;
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::sql::{foreign_key as sql, matview, objects as objects_sql};

use super::context::Context;
use super::locks::{self, Ladder};
use super::meter::Meter;
use super::swap::drop_guard;
use super::workers;

/// Drops the guard if it is not needed any more, makes the foreign keys of the table in use as valid as the source's were, and
/// materialized views read it. What somebody dropped since stays dropped.
///
/// # Errors
/// A row violates a key (none can, unless somebody went round it); or what the server said. The swap stands either way.
pub async fn settle(context: &Context) -> Result<()> {
    let b = context.blueprint();
    let partitioned = match context.state() {
        State::Swapped => true,
        State::RolledBack => false,
        _ => return Ok(()),
    };
    drop_guard(context).await?;
    let (open, mut tasks) = own_keys(context, &b, partitioned).await?;
    tasks.extend(child_keys(context, &b, partitioned).await?);
    if !tasks.is_empty() {
        look_through(context, &b, &tasks).await?;
    }
    if partitioned {
        for key in open {
            on_parent(context, &b, key).await?;
        }
    }
    matviews(context, &b).await
}

/// Says what the last swap changed by name, line by line; and aloud what it should not have.
///
/// # Errors
/// What the server said.
pub async fn compare_by_name(context: &Context) -> Result<()> {
    let b = context.blueprint();
    let client = &context.control;
    let now = catalog::table(client, catalog::must_find(client, &b.table.name).await?).await?;
    let (changes, unexpected) = match context.state() {
        State::Swapped => (likeness::changes(&b), likeness::unexpected(&b, &now)),
        State::RolledBack => (Vec::new(), b.table.drift(&now)),
        _ => return Ok(()),
    };
    for line in changes {
        context.events.note(format!("by name: {line}"));
    }
    if unexpected.is_empty() {
        context.events.note("by name, nothing else differs from before");
    }
    for line in unexpected {
        context.events.warn(format!("by name: {line}, and should not have"));
    }
    Ok(())
}

/// Makes anew the materialized views that still read the table which went out of use.
async fn matviews(context: &Context, b: &Blueprint) -> Result<()> {
    let client = &context.control;
    let table = catalog::must_find(client, &b.table.name).await?;
    for m in &b.table.dependents.matviews {
        // One that somebody dropped since stays dropped.
        let Some(oid) = catalog::find(client, &m.view.name).await? else { continue };
        if client.query_one(matview::READS, &[&oid, &table]).await?.get(0) {
            continue;
        }
        let name = m.view.name.plain();
        let meter = Meter::begin(
            context,
            "settle",
            format!("making {name} anew, from the table in use; readers go on"),
        );
        let made = context.retrying("make a materialized view", async || build(context, m).await).await?;
        failpoint!("settle.matview");
        let ladder = Ladder::on(context, vec![m.view.name.clone()]);
        let exchanged = ladder.climb(
            "exchange a materialized view",
            || context.go_on(),
            async || {
                ladder.look().await?;
                transaction(client, READ_COMMITTED, async |client| {
                    ladder.begin(client, &matview::first_lock(m)).await?;
                    client.batch_execute(&objects_sql::must_be(&matview::new_name(m), made)).await?;
                    all(client, &matview::exchange(m)).await
                })
                .await
            },
        );
        exchanged.await?;
        failpoint!("settle.exchanged");
        meter.end(format!("{name} reads the table in use"));
    }
    Ok(())
}

/// Makes a materialized view under the name that it has until the exchange; its oid.
async fn build(context: &Context, m: &Matview) -> Result<u32> {
    let (name, job) = (matview::new_name(m), context.job.id);
    transaction(&context.control, READ_COMMITTED, async |client| {
        if let Some(oid) = catalog::find(client, &name).await? {
            if context.job.records && !pg::recorded(client, job).await?.made(Role::Matview, oid) {
                return Err(Error::failed(format!(
                    "{} exists, and job {} did not make it",
                    name.plain(),
                    context.job.name
                ))
                .cause(format!("{} is to be made anew under that name", m.view.name.plain()))
                .hint("rename or drop it, and run the same command again"));
            }
            client.batch_execute(&matview::drop(&name)).await?;
        }
        all(client, &matview::build(m)).await?;
        pg::record(client, job, Role::Matview, &name).await?;
        catalog::must_find(client, &name).await
    })
    .await
}

/// A table, and the keys that it should have, valid.
struct Task<'a> {
    table: QualifiedName,
    oid: u32,
    keys: Vec<&'a ForeignKey>,
}

/// The table's own keys that are not what they were, and where they are to be looked through.
async fn own_keys<'a>(
    context: &Context,
    b: &'a Blueprint,
    partitioned: bool,
) -> Result<(Vec<&'a ForeignKey>, Vec<Task<'a>>)> {
    let client = &context.control;
    let oid = catalog::must_find(client, &b.table.name).await?;
    let own = own(client, oid).await?;
    // A leaf has one of its own only until the parent has it.
    let unfinished = |key: &Own| if partitioned && b.keys_on_leaves { key.table != oid } else { !key.valid };
    let open: Vec<&ForeignKey> = b
        .own_keys()
        .into_iter()
        .filter(|key| key.validated && own.iter().any(|o| o.name == key.name.as_str() && unfinished(o)))
        .collect();
    if open.is_empty() {
        return Ok((open, Vec::new()));
    }
    let task = |table: QualifiedName, oid: u32| Task { table, oid, keys: open.clone() };
    let tasks = if partitioned {
        catalog::leaves(client, oid).await?.into_iter().map(|leaf| task(leaf.name, leaf.oid)).collect()
    } else {
        vec![task(b.table.name.clone(), oid)]
    };
    Ok((open, tasks))
}

/// Keys of other tables that stand and are still to be looked through.
async fn child_keys<'a>(context: &Context, b: &'a Blueprint, partitioned: bool) -> Result<Vec<Task<'a>>> {
    let client = &context.control;
    let back = b.incoming_dropped.iter().filter(|_| !partitioned);
    let mut tasks = Vec::new();
    for key in b.child_keys().into_iter().chain(back).filter(|key| key.validated) {
        let Some(oid) = catalog::find(client, &key.table).await? else { continue };
        if own(client, oid).await?.iter().any(|o| o.table == oid && o.name == key.name.as_str() && !o.valid) {
            tasks.push(Task { table: key.table.clone(), oid, keys: vec![key] });
        }
    }
    Ok(tasks)
}

/// A foreign key as it stands.
struct Own {
    table: u32,
    name: String,
    valid: bool,
}

/// Those of a relation and of its leaves.
async fn own(client: &Client, oid: u32) -> Result<Vec<Own>> {
    keys(client, sql::OWN, oid).await
}

async fn keys(client: &Client, statement: &str, oid: u32) -> Result<Vec<Own>> {
    let rows = client.query(statement, &[&oid]).await?;
    Ok(rows.iter().map(|r| Own { table: r.get(0), name: r.get(1), valid: r.get(2) }).collect())
}

async fn look_through(context: &Context, b: &Blueprint, tasks: &[Task<'_>]) -> Result<()> {
    let mut meter = Meter::begin(
        context,
        "settle",
        format!("looking foreign keys of {} through; they check every write already", b.table.name.plain()),
    );
    meter.count("tables", tasks.len() as u64, 0);
    let meter = &meter;
    workers::each(context, "look through a foreign key", tasks, async |session, task| {
        one_table(session, task).await?;
        meter.add(1);
        meter.keep().await
    })
    .await?;
    meter.end("every foreign key is as it was");
    Ok(())
}

async fn one_table(session: &Session, task: &Task<'_>) -> Result<()> {
    let have = keys(session, sql::ON, task.oid).await?;
    for key in &task.keys {
        let have = have.iter().find(|o| o.name == key.name.as_str());
        if have.is_none() {
            // A partition that came after the swap.
            session.batch_execute(&sql::on(&task.table, key)).await?;
        }
        if have.is_none_or(|o| !o.valid) {
            session.batch_execute(&sql::validate(&task.table, key)).await.map_err(violated)?;
            failpoint!("settle.key");
        }
    }
    Ok(())
}

fn violated(error: tokio_postgres::Error) -> Error {
    let error = Error::from(error);
    if error.sqlstate() == Some("23503") {
        return error.hint(
            "the swap stands, and the key checks every new write; find the rows that point nowhere, put them right, and \
             `pgstrata sync` goes on",
        );
    }
    error
}

async fn on_parent(context: &Context, b: &Blueprint, key: &ForeignKey) -> Result<()> {
    let client = &context.control;
    let statements = sql::on_parent(b, key);
    locks::patiently(context, b, "tie a foreign key together", async || {
        locks::look(context, b, Direction::Reverse).await?;
        transaction(client, READ_COMMITTED, async |client| {
            locks::begin(context, client, b, Direction::Reverse).await?;
            all(client, &statements).await
        })
        .await
    })
    .await?;
    failpoint!("settle.parent");
    Ok(())
}
