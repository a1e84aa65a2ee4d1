//! Indexes, each built CONCURRENTLY: those of UNIQUE constraints too, which only take the finished index over. Those of a
//! partitioned table part by part, then tied together from the top.
//!
//! A build that ends before its time leaves an index behind that nobody uses and every write pays for. It bears the name that
//! we gave it, so it is found, dropped and built again.

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
use super::{Open, Part, constraints_of, indexes_of, told, tree};

/// How often it is looked who a build waits for,
const LOOK: Duration = Duration::from_millis(500);
/// and for how long it waits for them before that is said.
const PATIENCE: Duration = Duration::from_secs(3);

/// Builds what is missing.
///
/// # Errors
/// A value that came meanwhile is there twice; or what the server said.
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
    // A session of its own: it waits for others as long as it takes, and nobody waits behind it.
    let session = filler.session("index").await?;
    session.batch_execute("set lock_timeout = 0").await?;
    session.batch_execute(&fill::names(f).replace("set local", "set")).await?;
    for (name, what) in missing {
        if let Err(error) = one(filler, &session, name, what, &meter).await {
            return Err(told(filler, open, error).await);
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
        filler.go_on()?;
        filler.gate.pass().await;
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
            briefly(filler, vec![part.name.clone()], "add the whole table's index", async || {
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
        .cause("a partition came while it was built, or one has another index of that name")
        .hint("run again: what is missing is built then"))
}

/// Makes the index of one part, and the constraint if it is one.
async fn leaf(
    filler: &BackfillJob,
    session: &Session,
    part: &Part,
    index: &QualifiedName,
    what: Build<'_>,
) -> Result<()> {
    filler
        .retrying("build an index", async || concurrently(filler, session, part, index, what).await)
        .await?;
    let unique = matches!(what, Build::Unique(_));
    if !unique || constraints_of(&filler.control, part.oid).await?.contains_key(index.name.as_str()) {
        return Ok(());
    }
    let statement = sql::use_index(&part.name, &index.name);
    briefly(filler, vec![part.name.clone()], "make an index a constraint", async || {
        filler.control.batch_execute(&statement).await?;
        pg::record_constraint(&filler.control, filler.job.id, part.oid, &index.name).await
    })
    .await?;
    failpoint!("finish.unique");
    Ok(())
}

/// Builds an index that is missing, or was left unfinished.
async fn concurrently(
    filler: &BackfillJob,
    session: &Session,
    part: &Part,
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
        "index {} cannot be used, and job {} did not make it",
        index.plain(),
        filler.job.name
    ))
    .cause("a build that somebody else began has not ended, or was left unfinished")
    .hint("wait for it, or drop the index; then run again")
}

/// Runs a statement that waits for the transactions of others, and says for whom.
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

/// Says who is waited for; cancels the wait where a stop is asked for, and leaves work alone.
async fn watch(filler: &BackfillJob, pid: i32, index: &QualifiedName) -> Result<()> {
    let mut since: Option<Instant> = None;
    let mut said = Vec::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let waited = blockers::waited_for(&filler.control, pid).await?;
        if waited.is_empty() {
            since = None;
            continue;
        }
        if filler.go_on().is_err() {
            filler.control.execute(sql::CANCEL, &[&pid]).await?;
        }
        if since.get_or_insert_with(Instant::now).elapsed() < PATIENCE {
            continue;
        }
        let blockers: Vec<Blocker> = waited.into_iter().take(3).collect();
        let names: Vec<String> = blockers.iter().map(ToString::to_string).collect();
        if names != said {
            filler.events.note(BackfillNote::IndexWaits { index: index.plain(), blockers });
            said = names;
        }
    }
}

/// Ties a part's index to its parent's.
async fn attach(filler: &BackfillJob, part: &Part, name: &Ident) -> Result<()> {
    let Some(parent) = &part.parent else { return Ok(()) };
    let f = &filler.filling;
    let index = f.index_name(name, &part.name);
    let standing = indexes_of(&filler.control, part.oid).await?.get(index.name.as_str()).copied();
    if standing.is_none_or(|index| index.attached) {
        return Ok(());
    }
    let statement = sql::attach(&f.index_name(name, parent), &index);
    briefly(filler, vec![part.name.clone()], "attach a partition's index", async || {
        Ok(filler.control.batch_execute(&statement).await?)
    })
    .await?;
    failpoint!("finish.attached");
    Ok(())
}
