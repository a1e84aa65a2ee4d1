//! The pipeline, in order. Start reading here.
//!
//! ```text
//! planned -prepare-> prepared -capture-> capturing -copy, scrub-> copied -index-> indexed -drain-> synced
//!         -verify-> verified -swap-> swapped -finalize-> finalized
//!                      ^                |
//!                      |                +-rollback-> rolled_back -swap-> swapped
//!                      +- drain, verify: any number of times
//! any state before the swap, and rolled_back: -abort-> aborted
//! ```
//!
//! Each phase may be run again after a crash at any point of it: what is done is found done.

mod additions;
mod before_swap;
mod blockers;
mod capture;
mod context;
mod copy;
mod cutover;
mod deficit;
mod drain;
mod drift;
mod driver;
mod exchange;
mod fill;
mod finalize;
mod growth;
mod index;
mod kind;
mod locks;
mod maintain;
mod meter;
mod mirror;
mod objects;
mod old_snapshots;
pub mod pace;
pub mod partitions;
mod prepare;
mod ranges;
mod readings;
mod retries;
mod retype;
mod scrub;
mod settle;
mod swap;
mod verify;
mod walk;
mod workers;

pub use context::PartitionJob;
pub use driver::{Driver, Opening, Pacing};
pub use fill::BackfillJob;
pub use kind::{Action, JobKind, Outcome, Verdict, act};
pub use maintain::{maintain, maintain_adopted};
pub use retries::Retries;
pub use retype::RetypeJob;
pub use swap::Swapped;
pub use verify::differs;

use verify::Verified;

use tracing::Instrument;

use crate::error::Result;
use crate::model::blueprint::Direction;
use crate::model::pace::Work;
use crate::model::state::State;
use crate::model::verdict::VerifyReport;

/// Does the next phase before verification; the state after it. None where the job is that far already.
///
/// # Errors
/// What the phase said.
async fn next(context: &PartitionJob) -> Result<Option<State>> {
    let state = match context.state() {
        State::Planned => prepare::prepare(context).await?,
        State::Prepared => capture::capture(context).await?,
        State::Capturing => {
            let copied = async {
                copy::copy(context).await?;
                scrub::scrub(context).await
            };
            growth::beside(context, copied).await?
        }
        State::Copied => {
            let indexed = index::index(context).instrument(tracing::debug_span!("phase", name = "index"));
            growth::beside(context, indexed).await?
        }
        State::Indexed => drain::drain(context).await?,
        State::Filled
        | State::Synced
        | State::Verified
        | State::Swapped
        | State::RolledBack
        | State::Finalized
        | State::Aborted => return Ok(None),
    };
    context.reached(state);
    Ok(Some(state))
}

/// Exchanges the two tables, in whichever direction is left.
///
/// # Errors
/// The lock was not to be had, or what stands in the way.
async fn swap(context: &PartitionJob, proof: Verified) -> Result<Swapped> {
    swap::swap(context, proof).instrument(tracing::debug_span!("phase", name = "swap")).await
}

/// Brings the other side level, in whichever direction changes flow now.
///
/// # Errors
/// What the server said.
async fn sync(context: &PartitionJob) -> Result<()> {
    let state = drain::drain(context).await?;
    context.reached(state);
    settle::settle(context).await.map(drop)
}

/// Brings both sides level and compares them, as [`verify::verify`]; lag does not stop who only reads. Before a swap it also
/// looks for what the steps behind it would fail on; nothing of that stops a rollback.
///
/// # Errors
/// What the server said.
async fn verify(context: &PartitionJob) -> Result<(Verified, VerifyReport)> {
    if context.direction() == Direction::Forward {
        before_swap::of_partition(context).await?;
    }
    context.gate.does(Work::Reads);
    let verified = verify::verify(context).await;
    context.gate.does(Work::Writes);
    let (state, proof, report) = verified?;
    context.reached(state);
    Ok((proof, report))
}

/// Compares both sides, as [`verify::compare`]; lag does not stop who only reads.
///
/// # Errors
/// What the server said.
async fn compare(context: &PartitionJob) -> Result<VerifyReport> {
    swap::end_guard(context, swap::LATER_GUARD_WAITS).await?;
    context.gate.does(Work::Reads);
    let compared = verify::compare(context).await;
    context.gate.does(Work::Writes);
    compared
}
