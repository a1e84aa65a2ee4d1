//! Builds the indexes, each CONCURRENTLY, including those of UNIQUE constraints, which are then added USING INDEX. For
//! a partitioned table, the index of each leaf partition is built separately. Then the indexes are attached from the
//! bottom up.
//!
//! An interrupted build leaves behind an invalid index, which no query uses but every write updates. The job finds it
//! by name, drops it, and builds it again.

use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::event::{BackfillNote, ConstraintWork, PhaseOutcome};
use crate::failpoint;
use crate::model::blocker::Blocker;
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::objects::Role;
use crate::pg::connect::Session;
use crate::pg::transaction::all;
use crate::pg::{catalog, objects as pg};
use crate::phase::job::blockers;
use crate::phase::job::locks::briefly;
use crate::phase::job::meter::Meter;
use crate::sql::fill;
use crate::sql::finish::{self as sql, Build};

use super::super::BackfillJob;
use super::{Open, TablePart, constraints_of, indexes_of, tree, with_violations};

/// How often the transactions for which a build waits are queried,
const LOOK: Duration = Duration::from_millis(500);
/// and how long a build waits for them before the job reports them.
const PATIENCE: Duration = Duration::from_secs(3);

/// Builds the missing indexes.
///
/// # Errors
/// A duplicate value was written in the meantime; or the server returned an error.
pub async fn build(filler: &BackfillJob, open: &Open<'_>) -> Result<()> {
    let f = &filler.filling;
    let unique = f.finish.unique.iter().map(|(name, columns)| (name, Build::Unique(columns)));
    let plain = f.finish.indexes.iter().map(|(name, tail)| (name, Build::Plain(tail)));
    let missing: Vec<(&Ident, Build<'_>)> =
        unique.chain(plain).filter(|(name, _)| open.indexes.contains(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let leaves = tree(filler).await?.iter().filter(|part| part.leaf).count();
    let (table, indexes) = (f.table.name.plain(), missing.len() as u64);
    let mut meter = Meter::begin(filler, ConstraintWork::BuildIndexes { table, indexes });
    meter.count("indexes", (missing.len() * leaves) as u64, 0);
    // A separate session without a lock timeout: the builds may wait for other transactions, and block none.
    let session = filler.session("index").await?;
    session.batch_execute("set lock_timeout = 0").await?;
    session.batch_execute(&fill::names(f).replace("set local", "set")).await?;
    for (name, what) in missing {
        if let Err(error) = one(filler, &session, name, what, &meter).await {
            return Err(with_violations(filler, open, error).await);
        }
    }
    meter.end(PhaseOutcome::IndexesValid);
    Ok(())
}

async fn one(
    filler: &BackfillJob,
    session: &Session,
    name: &Ident,
    what: Build<'_>,
    meter: &Meter<'_>,
) -> Result<()> {
    let f = &filler.filling;
    let parts = tree(filler).await?;
    for part in parts.iter().filter(|part| part.leaf) {
        filler.permitted().await?;
        leaf(filler, session, part, &f.index_name(name, &part.name), what).await?;
        meter.add(1);
        meter.keep().await?;
    }
    if !f.is_partitioned() {
        return Ok(());
    }
    for part in parts.iter().filter(|part| !part.leaf) {
        let index = f.index_name(name, &part.name).name;
        if !indexes_of(&filler.control, part.oid).await?.contains_key(index.as_str()) {
            let statements = [fill::names(f), sql::on_parent(&index, &part.name, what)];
            let step = format!("create index {} of {}", plain(index.as_str()), part.name.plain());
            briefly(filler, vec![part.name.clone()], &step, async || {
                all(&filler.control, &statements).await?;
                let index = part.name.sibling(index.clone());
                pg::record(&filler.control, filler.job.id, Role::Index, &index).await
            })
            .await?;
            failpoint!("finish.parent");
        }
    }
    for part in parts.iter().rev() {
        attach(filler, part, name).await?;
    }
    let oid = catalog::must_find(&filler.control, &f.table.name).await?;
    if indexes_of(&filler.control, oid).await?.get(name.as_str()).is_some_and(|index| index.valid) {
        return Ok(());
    }
    Err(Error::failed(format!("index {} is not valid on every partition", plain(name.as_str())))
        .cause("a partition was added while it was built, or a partition has another index of that name")
        .hint("run the same command again: it builds the missing indexes"))
}

/// Builds the index of one part, and its constraint if it has one.
async fn leaf(
    filler: &BackfillJob,
    session: &Session,
    part: &TablePart,
    index: &QualifiedName,
    what: Build<'_>,
) -> Result<()> {
    filler
        .retrying(&format!("build index {}", index.plain()), async || {
            concurrently(filler, session, part, index, what).await
        })
        .await?;
    let unique = matches!(what, Build::Unique(_));
    if !unique || constraints_of(&filler.control, part.oid).await?.contains_key(index.name.as_str()) {
        return Ok(());
    }
    let statement = sql::use_index(&part.name, &index.name);
    let step = format!("add constraint {} to {}", plain(index.name.as_str()), part.name.plain());
    briefly(filler, vec![part.name.clone()], &step, async || {
        filler.control.batch_execute(&statement).await?;
        pg::record_constraint(&filler.control, filler.job.id, part.oid, &index.name).await
    })
    .await?;
    failpoint!("finish.unique");
    Ok(())
}

/// Builds an index that is missing or was not completed.
async fn concurrently(
    filler: &BackfillJob,
    session: &Session,
    part: &TablePart,
    index: &QualifiedName,
    what: Build<'_>,
) -> Result<()> {
    let standing = indexes_of(&filler.control, part.oid).await?.get(index.name.as_str()).copied();
    if standing.is_some_and(|index| index.valid) {
        return Ok(());
    }
    if let Some(standing) = standing {
        let made = pg::recorded(&filler.control, filler.job.id).await?;
        if filler.job.records && !made.made(Role::Index, standing.oid) && !made.intended(index) {
            return Err(not_made(filler, index));
        }
        filler.events.note(BackfillNote::IndexRebuilt { index: index.plain() });
        watched(filler, session, &sql::drop_invalid(index), index).await?;
        failpoint!("finish.dropped");
    }
    pg::intend_index(&filler.control, filler.job.id, index).await?;
    let built = watched(filler, session, &sql::build(&index.name, &part.name, what), index).await;
    if let Err(error) = built {
        if error.is(&SqlState::UNIQUE_VIOLATION) {
            watched(filler, session, &sql::drop_invalid(index), index).await?;
        }
        return Err(error);
    }
    failpoint!("finish.index");
    pg::record(&filler.control, filler.job.id, Role::Index, index).await
}

fn not_made(filler: &BackfillJob, index: &QualifiedName) -> Error {
    Error::failed(format!(
        "index {} is not usable, and job {} did not create it",
        index.plain(),
        filler.job.name
    ))
    .cause("a build by another session has not ended, or was not completed")
    .hint("wait until the build ends, or drop the index; then run again")
}

/// Runs a statement that waits for other transactions, and reports them.
async fn watched(
    filler: &BackfillJob,
    session: &Session,
    statement: &str,
    index: &QualifiedName,
) -> Result<()> {
    let pid: i32 = session.query_one("select pg_catalog.pg_backend_pid()", &[]).await?.get(0);
    tokio::select! {
        done = session.batch_execute(statement) => Ok(done?),
        failed = watch(filler, pid, index) => failed,
    }
}

/// Reports the transactions for which the session waits. If a stop is requested, cancels the statement while it waits,
/// but not while it works.
async fn watch(filler: &BackfillJob, pid: i32, index: &QualifiedName) -> Result<()> {
    let mut since: Option<Instant> = None;
    let mut reported = Vec::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let waited = blockers::waited_for(&filler.control, pid).await?;
        if waited.is_empty() {
            since = None;
            continue;
        }
        if filler.check_stop().is_err() {
            filler.control.execute(sql::CANCEL, &[&pid]).await?;
        }
        if since.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
            continue;
        }
        let blockers: Vec<Blocker> = waited.into_iter().take(3).collect();
        let names: Vec<String> = blockers.iter().map(ToString::to_string).collect();
        if names != reported {
            filler.events.note(BackfillNote::IndexWaits { index: index.plain(), blockers });
            reported = names;
        }
    }
}

/// Attaches the index of a part to that of its parent.
async fn attach(filler: &BackfillJob, part: &TablePart, name: &Ident) -> Result<()> {
    let Some(parent) = &part.parent else { return Ok(()) };
    let f = &filler.filling;
    let index = f.index_name(name, &part.name);
    let standing = indexes_of(&filler.control, part.oid).await?.get(index.name.as_str()).copied();
    if standing.is_none_or(|index| index.attached) {
        return Ok(());
    }
    let statement = sql::attach(&f.index_name(name, parent), &index);
    briefly(filler, vec![part.name.clone()], &format!("attach index {}", index.plain()), async || {
        Ok(filler.control.batch_execute(&statement).await?)
    })
    .await?;
    failpoint!("finish.attached");
    Ok(())
}
