//! A retype, from its first lock to the last. Start reading here.
//!
//! ```text
//! planned -prepare-> prepared -capture-> capturing -pass-> filled -index-> indexed -verify-> verified -swap-> swapped
//!         -finalize-> finalized;  swapped -rollback-> rolled_back -swap-> swapped;  any state before the swap: -abort-> aborted
//! ```
//!
//! The new column stands beside the old one, in the same rows: what an application writes reaches both in one version of the
//! row, so nothing is ever copied from one to the other but what was there before the trigger. The swap exchanges names.
//!
//! A snapshot older than the moment from which every row is level sees versions of rows that have no value in the new column
//! yet. Under the name of the old column, that would be a wrong answer. So the swap waits for such snapshots to go, as the
//! server does before an index is used.

mod compare;
mod drift;
mod level;
mod objects;
mod swap;

use std::ops::Deref;

use crate::error::{Error, Result};
use crate::failpoint;
use crate::model::blueprint::Direction;
use crate::model::retyping::Retyping;
use crate::model::shell::word;
use crate::model::state::{State, Step};
use crate::pg::catalog;
use crate::pg::transaction::all;
use crate::sql::retype as sql;

use super::additions;
use super::before_swap;
use super::driver::{Driver, Drives};
use super::fill::{self, Filler};
use super::finalize::left;
use super::locks::briefly;
use super::meter::Meter;

pub use compare::compare;
pub use level::settle;
pub use swap::{rollback, swap};

/// One driver of one retype.
#[derive(Debug)]
pub struct Retyper {
    filler: Filler,
    /// Everything statements are rendered from.
    pub retyping: Retyping,
}

impl Deref for Retyper {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        &self.filler
    }
}

impl Drives for Retyper {
    fn take_up(driver: Driver) -> Result<Self> {
        let retyping = driver.job.retyping()?.clone();
        Ok(Self { filler: Filler::of(driver, retyping.filling()), retyping })
    }

    fn into_driver(self) -> Driver {
        self.filler.release()
    }
}

impl Retyper {
    /// Which column follows which: after the swap the old one follows the new one.
    pub fn direction(&self) -> Direction {
        if self.state() == State::Swapped { Direction::Reverse } else { Direction::Forward }
    }
}

/// Does the next phase before the swap; the state after it. None where the job is that far already.
///
/// # Errors
/// What the phase said.
pub async fn next(retyper: &Retyper) -> Result<Option<State>> {
    if retyper.state() != State::Planned {
        objects::in_place(retyper).await?;
    }
    let state = match retyper.state() {
        State::Planned => prepare(retyper).await?,
        State::Prepared => capture(retyper).await?,
        State::Capturing => fill::pass(&retyper.filler).await?,
        State::Filled => level::index(retyper).await?,
        State::Indexed => verify(retyper).await?,
        _ => return Ok(None),
    };
    retyper.reached(state);
    Ok(Some(state))
}

/// Adds the new column; no row is written.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "prepare"))]
async fn prepare(retyper: &Retyper) -> Result<State> {
    let (r, client) = (&retyper.retyping, &retyper.control);
    let name = crate::model::ident::plain(r.beside(Direction::Forward).as_str());
    let about = format!("adding column {name} to {}, without writing its rows", r.table.name.plain());
    let meter = Meter::begin(retyper, "prepare", about);
    let tables = vec![r.table.name.clone()];
    let (state, _) = briefly(retyper, tables, "add the column", async || {
        let was = additions::before(client, &r.table.name).await?;
        all(client, &sql::add_column(r)).await?;
        if let Some(was) = was {
            additions::none_beside_columns(retyper, client, &was, &[&r.beside(Direction::Forward)]).await?;
        }
        objects::record_columns(retyper, client).await?;
        let state = retyper.advance(client, Step::Prepare).await?;
        failpoint!("prepare.before_commit");
        Ok(state)
    })
    .await?;
    failpoint!("prepare.done");
    meter.end("the column is there");
    Ok(state)
}

/// Puts the trigger in force. `CREATE TRIGGER` waits for every open writer, so that whatever is written without it is there
/// for the pass to see.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "capture"))]
async fn capture(retyper: &Retyper) -> Result<State> {
    let (r, client) = (&retyper.retyping, &retyper.control);
    let about = format!("from now on, what is written to {} reaches both columns", r.table.name.plain());
    let meter = Meter::begin(retyper, "capture", about);
    let tables = vec![r.table.name.clone()];
    let (state, _) = briefly(retyper, tables, "put the trigger in force", async || {
        all(client, &sql::keep_level(r)).await?;
        let state = retyper.advance(client, Step::Capture).await?;
        failpoint!("capture.before_commit");
        Ok(state)
    })
    .await?;
    failpoint!("capture.done");
    meter.end("the trigger is in force");
    Ok(state)
}

/// Looks at every row; from the end of the look on, every row is level.
async fn verify(retyper: &Retyper) -> Result<State> {
    before_swap::keys(retyper, &retyper.retyping.keys).await?;
    let state = fill::again(&retyper.filler).await?;
    retyper.control.execute(sql::LEVEL_SINCE, &[&retyper.job.id, &false]).await?;
    Ok(state)
}

/// Drops the old column and what keeps it level: no way back from here.
///
/// # Errors
/// The lock was not to be had, or something hangs on the old column.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "finalize"))]
pub async fn finalize(retyper: &Retyper) -> Result<State> {
    let failed = level::keys(retyper).await?;
    let r = &retyper.retyping;
    let old = format!("{}.{}", r.table.name.plain(), r.beside(Direction::Reverse).as_str());
    let meter = Meter::begin(retyper, "finalize", format!("dropping {old}: no way back from here"));
    let (tables, statements) = objects::removal(retyper).await?;
    let state = fill::end(&retyper.filler, Step::Finalize, tables, &statements).await.map_err(|e| {
        if e.sqlstate() == Some("2BP01") {
            e.hint(format!("something outside this job depends on {old}; drop it or point it to the column in use, then finalize again"))
        } else {
            e
        }
    })?;
    failpoint!("finalize.done");
    meter.end(format!("{} is {} for good", r.column.name.as_str(), r.new_type));
    left(retyper, &failed, false);
    Ok(state)
}

/// Removes everything that the job made.
///
/// # Errors
/// The job is past the swap, or what the server said.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "abort"))]
pub async fn abort(retyper: &Retyper) -> Result<State> {
    let state = retyper.state();
    if state == State::Aborted {
        return Ok(state);
    }
    if state.next(Step::Abort).is_none() {
        let name = &retyper.job.name;
        return Err(Error::usage(format!(
            "job {name} is {state}; only a job before its swap can be aborted"
        ))
        .hint(format!("`pgstrata rollback {}` first: it loses nothing", word(name))));
    }
    let failed = level::keys(retyper).await?;
    let r = &retyper.retyping;
    let about = format!("removing what the job made; {} stays as it is", r.table.name.plain());
    let meter = Meter::begin(retyper, "abort", about);
    let (tables, statements) = objects::removal(retyper).await?;
    let state = fill::end(&retyper.filler, Step::Abort, tables, &statements).await?;
    failpoint!("abort.done");
    meter.end("removed");
    left(retyper, &failed, false);
    Ok(state)
}

/// The table's oid.
async fn table(retyper: &Retyper) -> Result<u32> {
    catalog::must_find(&retyper.control, &retyper.retyping.table.name).await
}
