//! The two ends of a job: finalize closes the rollback window, abort takes everything back. Both are one transaction.

use crate::error::{Error, Result};
use crate::failpoint;
use crate::model::blueprint::Direction;
use crate::model::ident::QualifiedName;
use crate::model::shell::word;
use crate::model::state::{State, Step};
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::pg::{catalog, latency, store};
use crate::sql::{finalize as sql, store as store_sql};

use super::context::Context;
use super::meter::Meter;
use super::{locks, settle};

/// Drops the old table and everything that kept it level.
///
/// # Errors
/// Something still hangs on the old table; it is named and kept.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "finalize"))]
pub async fn finalize(context: &Context) -> Result<State> {
    settle::settle(context).await?;
    let b = context.blueprint();
    let meter =
        Meter::begin(context, "finalize", format!("dropping {}: no way back from here", b.old().plain()));
    let parent = catalog::must_find(&context.control, &b.table.name).await?;
    let leaves: Vec<QualifiedName> =
        catalog::leaves(&context.control, parent).await?.into_iter().map(|leaf| leaf.name).collect();
    let state = end(context, Step::Finalize, &sql::finalize(&b, &leaves)).await.map_err(|e| {
        if e.sqlstate() == Some("2BP01") {
            e.hint(format!(
                "something outside this job still depends on {}; drop it or point it to {}, then finalize again",
                b.old().plain(),
                b.table.name.plain()
            ))
        } else {
            e
        }
    })?;
    failpoint!("finalize.done");
    meter.end(format!("{} is partitioned for good", b.table.name.plain()));
    Ok(state)
}

/// Removes everything that the job made.
///
/// # Errors
/// The job is past the swap, or what the server said.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "abort"))]
pub async fn abort(context: &Context) -> Result<State> {
    if context.state() == State::Aborted {
        return Ok(State::Aborted);
    }
    if context.state().next(Step::Abort).is_none() {
        return Err(Error::usage(format!(
            "job {} is {}; only a job before its swap can be aborted",
            context.job.name,
            context.state()
        ))
        .hint(format!("`pgstrata rollback {}` first: it loses nothing", word(&context.job.name))));
    }
    settle::settle(context).await?;
    let b = context.blueprint();
    let source = b.sides(Direction::Forward).source;
    let stays = match catalog::find(&context.control, &source).await? {
        Some(_) => "stays as it is",
        None => "is gone already",
    };
    let about = format!("removing what the job made; {} {stays}", source.plain());
    let meter = Meter::begin(context, "abort", about);
    let state = end(context, Step::Abort, &sql::abort(&b)).await?;
    failpoint!("abort.done");
    meter.end("removed");
    Ok(state)
}

async fn end(context: &Context, step: Step, statements: &[String]) -> Result<State> {
    let client = &context.control;
    let summary = latency::of_chunks(client, context.job.id).await?.to_string();
    let b = context.blueprint();
    let direction = context.direction();
    let (state, _) = locks::patiently(context, &b, "end the job", async || {
        locks::look(context, &b, direction).await?;
        transaction(client, READ_COMMITTED, async |client| {
            // A source that somebody dropped has nobody who waits for its lock, and keeps nothing of ours from going.
            if step == Step::Finalize || catalog::find(client, &b.table.name).await?.is_some() {
                locks::begin(context, client, &b, direction).await?;
            }
            all(client, statements).await?;
            if step == Step::Finalize {
                client.execute(store_sql::KEEP_ROWS_COPIED, &[&context.job.id]).await?;
            }
            client.execute(store_sql::FORGET_CHUNKS, &[&context.job.id]).await?;
            store::event(client, context.job.id, "chunks", &summary).await?;
            let state = context.advance(client, step).await?;
            if step == Step::Finalize {
                failpoint!("finalize.before_commit");
            } else {
                failpoint!("abort.before_commit");
            }
            Ok(state)
        })
        .await
    })
    .await?;
    context.reached(state);
    Ok(state)
}
