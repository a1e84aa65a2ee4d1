//! Creates what the inactive column needs before a swap: a counterpart of each index and CHECK constraint of the column
//! in use, and the proof that the column has a value in every row. Also runs the steps after a swap. No step needs a
//! lock that blocks applications for long, and completed work is recognized.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{Error, Kind, Result};
use crate::event::{ColumnWork, ConstraintWork, PhaseOutcome, Undone};
use crate::failpoint;
use crate::model::blueprint::Direction;
use crate::model::ident::{Ident, plain, plain_list};
use crate::model::objects::Role;
use crate::model::retyping::Counterpart;
use crate::model::state::{State, Step};
use crate::model::table::ForeignKey;
use crate::model::untrusted_code::Access;
use crate::pg::connect::Session;
use crate::pg::objects as pg;
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::phase::backfill;
use crate::phase::job::foreign_keys::{not_valid, reported, validate};
use crate::phase::job::locks::{LockRetry, briefly};
use crate::phase::job::matviews;
use crate::phase::job::meter::Meter;
use crate::sql::retype::{self as sql, exchange, rebound as rebound_sql};
use crate::sql::{index as index_sql, plan_sql};

use super::{RetypeJob, objects};

/// The phase: fills the rows that the first pass left, and builds the missing indexes and constraints.
///
/// # Errors
/// A value is a duplicate or violates a CHECK; or the server returned an error.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "index"))]
pub(super) async fn index(retyper: &RetypeJob) -> Result<State> {
    backfill::in_force(&retyper.filler).await?;
    backfill::check_every_row(&retyper.filler).await?;
    build_missing(retyper, Direction::Forward).await?;
    let r = &retyper.retyping;
    let statement = sql::analyze(r, Direction::Forward);
    let column = plain(r.shadow(Direction::Forward).as_str());
    retyper
        .retrying(&format!("analyze column {column} of {}", r.table.name.plain()), async || {
            Ok(retyper.control.batch_execute(&statement).await?)
        })
        .await?;
    failpoint!("index.analyzed");
    let state = retyper.advance(&retyper.control, Step::Index).await?;
    failpoint!("index.done");
    Ok(state)
}

/// Builds the indexes and constraints that the inactive column lacks.
///
/// # Errors
/// As [`index`].
pub(super) async fn build_missing(retyper: &RetypeJob, direction: Direction) -> Result<()> {
    objects::in_place(retyper).await?;
    indexes(retyper, direction).await?;
    checks(retyper, direction).await
}

/// Opens a session without a lock timeout, for statements that block no reader or writer while they wait.
async fn builder(retyper: &RetypeJob) -> Result<Session> {
    let session = retyper.session("index").await?;
    session.batch_execute("set lock_timeout = 0; set idle_in_transaction_session_timeout = 0").await?;
    Ok(session)
}

async fn indexes(retyper: &RetypeJob, direction: Direction) -> Result<()> {
    let r = &retyper.retyping;
    let there = objects::standing(retyper, sql::INDEXES).await?;
    let name = |one: &Counterpart| r.counterpart(&one.index.name, direction);
    let recorded = objects::recorded(retyper).await?;
    for one in &r.indexes {
        objects::name_is_free(retyper, one, direction, &recorded).await?;
    }
    let valid =
        |one: &Counterpart| there.get(name(one).as_str()).filter(|index| index.valid).map(|index| index.oid);
    // After a crash, the only record of a finished index may be the intention to build it. The next intention replaces
    // that one, so record the index first.
    for one in &r.indexes {
        if valid(one).is_some_and(|oid| !objects::is_recorded(&recorded, one, direction, oid)) {
            record(retyper, &retyper.control, one, direction).await?;
        }
    }
    let missing: Vec<&Counterpart> = r.indexes.iter().filter(|one| valid(one).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (table, column) = (r.table.name.plain(), plain(r.shadow(direction).as_str()));
    let work = ColumnWork::BuildColumnIndexes { table, column, indexes: missing.len() as u64 };
    let mut meter = Meter::begin(retyper, work);
    meter.count("indexes", missing.len() as u64, 0);
    let session = builder(retyper).await?;
    for one in missing {
        retyper.check_stop()?;
        let name = name(one);
        let built = retyper
            .retrying(&format!("build index {}", r.table.name.sibling(name.clone()).plain()), async || {
                let recorded = objects::recorded(retyper).await?;
                objects::name_is_free(retyper, one, direction, &recorded).await?;
                session.batch_execute(&sql::drop_index(&r.table.name, &name)).await?;
                pg::intend_index(&retyper.control, retyper.job.id, &r.table.name.sibling(name.clone()))
                    .await?;
                session.batch_execute(&sql::tablespace(one)).await?;
                let path = sql::operators(r);
                if let Some([set, _]) = &path {
                    session.batch_execute(set).await?;
                }
                session.batch_execute(&sql::build(r, one, direction)).await?;
                if let Some([_, restore]) = &path {
                    session.batch_execute(restore).await?;
                }
                failpoint!("retype.index");
                record(retyper, &session, one, direction).await
            })
            .await;
        match built {
            Err(e) if e.is(&SqlState::UNIQUE_VIOLATION) => {
                return Err(duplicates_error(retyper, e, one, direction).await);
            }
            other => other?,
        }
        meter.add(1);
    }
    meter.end(PhaseOutcome::IndexesValid);
    Ok(())
}

/// Records an index that was just built, and copies the other properties of the index that it corresponds to.
async fn record(
    retyper: &RetypeJob,
    session: &Client,
    one: &Counterpart,
    direction: Direction,
) -> Result<()> {
    let r = &retyper.retyping;
    transaction(session, READ_COMMITTED, async |client| {
        let index = r.table.name.sibling(r.counterpart(&one.index.name, direction));
        pg::record(client, retyper.job.id, Role::Index, &index).await?;
        all(client, &sql::set_properties(r, one, direction)).await
    })
    .await
}

/// The error if the plan's expression converts different values to the same value.
async fn duplicates_error(
    retyper: &RetypeJob,
    error: Error,
    one: &Counterpart,
    direction: Direction,
) -> Error {
    let r = &retyper.retyping;
    let name = r.counterpart(&one.index.name, direction);
    let tail = if direction == Direction::Forward { &one.tail_new } else { &one.tail_old };
    let repeated = index_sql::repeated_in(tail, &r.filling().key, &r.table.name);
    let keys = retyper.repeated_keys(repeated, &r.table.name).await;
    let cause = match keys.as_slice() {
        [] => error.message().to_owned(),
        keys => format!("by key: {}", keys.join("; ")),
    };
    Error::new(Kind::Differs, format!("rows would have duplicate values in unique index {}", name.as_str()))
        .cause(cause)
        .hint(correct(retyper, "the conversion makes different values equal: change these rows", direction))
}

async fn checks(retyper: &RetypeJob, direction: Direction) -> Result<()> {
    let r = &retyper.retyping;
    let there = objects::standing(retyper, sql::CHECKS).await?;
    let own = objects::own_constraints(retyper).await?;
    let pairs = r.checks.iter().map(|one| (sql::add_check(r, one, direction), one.validated));
    let wanted: Vec<_> = pairs.chain(sql::add_proof(r, direction).map(|proof| (proof, true))).collect();
    if let Some(((name, _), _)) =
        wanted.iter().find(|((name, _), _)| there.contains_key(name.as_str()) && !own.contains(name))
    {
        return Err(objects::taken(retyper, &r.table.name.sibling(name.clone())));
    }
    let done = |name: &Ident, valid: bool| there.get(name.as_str()).is_some_and(|is| is.valid || !valid);
    if wanted.iter().all(|((name, _), valid)| done(name, *valid)) {
        return Ok(());
    }
    let meter = Meter::begin(retyper, ColumnWork::ValidateConstraints { table: r.table.name.plain() });
    let session = builder(retyper).await?;
    for ((name, add), valid) in &wanted {
        if !there.contains_key(name.as_str()) {
            let tables = vec![r.table.name.clone()];
            let step = format!("add constraint {} to {}", plain(name.as_str()), r.table.name.plain());
            briefly(retyper, tables, &step, async || {
                retyper.control.batch_execute(add).await?;
                pg::record_constraint(&retyper.control, retyper.job.id, r.table.oid, name).await
            })
            .await?;
            failpoint!("retype.check");
        }
        if *valid && !there.get(name.as_str()).is_some_and(|check| check.valid) {
            // Functions that the constraint calls must look up names in the application's search path.
            let validated = transaction(&session, READ_COMMITTED, async |client| {
                retyper
                    .check_untrusted_code(client, std::slice::from_ref(&r.table.name), Access::Copies)
                    .await?;
                client.batch_execute(&plan_sql::applications(&r.sql)).await?;
                Ok(client.batch_execute(&sql::validate(&r.table.name, name)).await?)
            });
            if let Err(error) = validated.await {
                if error.is(&SqlState::CHECK_VIOLATION) {
                    release(retyper, direction).await?;
                    return Err(violated(retyper, &error, name, direction));
                }
                return Err(error.context(format!("failed to validate constraint {}", plain(name.as_str()))));
            }
            failpoint!("retype.proof");
        }
    }
    meter.end(PhaseOutcome::ConstraintsValid);
    Ok(())
}

fn violated(retyper: &RetypeJob, error: &Error, name: &Ident, direction: Direction) -> Error {
    Error::new(Kind::Differs, format!("rows violate constraint {}", name.as_str()))
        .cause(error.message())
        .hint(correct(retyper, "change the rows whose converted value violates it", direction))
}

/// The hint to change rows, or to end what the job does in this direction.
fn correct(retyper: &RetypeJob, what: &str, direction: Direction) -> String {
    let (command, or) = match direction {
        Direction::Forward => ("run the same command again", "change the plan's expression, "),
        Direction::Reverse => ("roll back again", ""),
    };
    format!("{what}, and {command}; or {or}{}", retyper.way_out())
}

/// Drops the constraints of the inactive column, so that the application can still write values that the inactive
/// column cannot represent.
///
/// # Errors
/// The lock could not be acquired.
pub(super) async fn release(retyper: &RetypeJob, direction: Direction) -> Result<()> {
    let r = &retyper.retyping;
    let own = objects::own_constraints(retyper).await?;
    let ours = r.checks.iter().map(|one| r.counterpart(&one.name, direction)).chain([r.proof()]);
    let names: Vec<Ident> = ours.filter(|name| own.contains(name)).collect();
    let statements: Vec<String> =
        names.iter().map(|name| sql::drop_constraint(&r.table.name, name)).collect();
    if statements.is_empty() {
        return Ok(());
    }
    let lock_retry = LockRetry::on(retyper, vec![r.table.name.clone()]);
    let attempt = async || {
        transaction(&retyper.control, READ_COMMITTED, async |client| {
            retyper.hold_epoch(client).await?;
            lock_retry.begin(client, &exchange::first_lock(r)).await?;
            all(client, &statements).await
        })
        .await
    };
    // Not interrupted by a stop request: otherwise, values of applications would be rejected until the next command.
    let step = format!("drop constraints {} of {}", plain_list(&names), r.table.name.plain());
    lock_retry.run(&step, || Ok(()), attempt).await?;
    Ok(())
}

/// Runs the steps after a swap or rollback: validates the foreign keys that were valid before; they already check every
/// write. After a swap, also builds the indexes for a rollback, so that a rollback is fast, and removes constraints
/// that an interrupted rollback left behind.
///
/// A step that fails is reported and skipped: the swap remains in effect, and the step delays neither a rollback nor
/// the end of the job.
///
/// # Errors
/// A lock could not be acquired; or the connection was lost.
pub async fn complete_exchange(retyper: &RetypeJob) -> Result<()> {
    if retyper.state() == State::Swapped {
        let released = release(retyper, Direction::Reverse).await;
        reported(retyper, Undone::RollbackConstraints, released)?;
    }
    keys(retyper).await?;
    if retyper.state() == State::Swapped {
        let built = indexes(retyper, Direction::Reverse).await;
        reported(retyper, Undone::RollbackIndex, built)?;
    }
    rebound(retyper).await
}

/// Builds the materialized views again that still read the inactive column, and analyzes the table if extended statistics
/// that the exchange created have no data. Objects that were dropped in the meantime remain dropped.
///
/// # Errors
/// As [`complete_exchange`].
pub(super) async fn rebound(retyper: &RetypeJob) -> Result<()> {
    if !matches!(retyper.state(), State::Swapped | State::RolledBack) {
        return Ok(());
    }
    let (r, client) = (&retyper.retyping, &retyper.control);
    // By oid, because a job can end after its table was renamed.
    let table = r.table.oid;
    for m in r.matviews() {
        let Some(oid) = crate::pg::catalog::find(client, &m.view.name).await? else { continue };
        let reads = client.query_one(rebound_sql::READS, &[&oid, &table, &r.column.name.as_str()]).await?;
        if !reads.get::<_, bool>(0) {
            let undone = Undone::MaterializedViewNotRebuilt { view: m.view.name.plain() };
            reported(retyper, undone, matviews::rebuild(retyper, m, &r.table.operator_schemas).await)?;
        }
    }
    let mut missing = false;
    for s in &r.rebound.statistics {
        let row = client
            .query_one(rebound_sql::NOT_ANALYZED, &[&s.name.schema.as_str(), &s.name.name.as_str()])
            .await?;
        missing |= row.get::<_, bool>(0);
    }
    if missing && crate::pg::catalog::find(client, &r.table.name).await? == Some(table) {
        let analyze = rebound_sql::analyze(&r.table.name);
        retyper.retrying("analyze the table", async || Ok(client.batch_execute(&analyze).await?)).await?;
    }
    Ok(())
}

/// Validates the foreign keys that were valid before the last swap; returns those that could not be validated.
///
/// # Errors
/// As [`complete_exchange`].
pub(super) async fn keys(retyper: &RetypeJob) -> Result<Vec<ForeignKey>> {
    if !matches!(retyper.state(), State::Swapped | State::RolledBack) {
        return Ok(Vec::new());
    }
    let client = &retyper.control;
    let mut open = Vec::new();
    for key in retyper.retyping.keys.iter().filter(|key| key.validated) {
        let Some(oid) = crate::pg::catalog::find(client, &key.table).await? else { continue };
        let rows = client.query(sql::KEYS, &[&oid]).await?;
        if rows.iter().any(|row| row.get::<_, &str>(0) == key.name.as_str() && !row.get::<_, bool>(1)) {
            open.push((key, oid));
        }
    }
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let work = ConstraintWork::ValidateForeignKeys { table: retyper.retyping.table.name.plain() };
    let mut meter = Meter::begin(retyper, work);
    meter.count("keys", open.len() as u64, 0);
    let session = builder(retyper).await?;
    let mut failed = Vec::new();
    for (key, oid) in open {
        retyper.check_stop()?;
        let validated = validate(retyper, &session, key, &key.table, oid).await;
        if !reported(retyper, not_valid(key, &key.table), validated)? {
            failed.push(key.clone());
        }
        failpoint!("settle.key");
        meter.add(1);
    }
    meter.end(match failed.as_slice() {
        [] => PhaseOutcome::ConstraintsValid,
        some => PhaseOutcome::ForeignKeysNotValid { keys: some.len() as u64 },
    });
    Ok(failed)
}
