//! What a full disk has to do with a job: how much the job holds, and what frees it.

use crate::error::Error;
use crate::model::blueprint::Direction;
use crate::model::design::Design;
use crate::model::number;
use crate::model::shell::word;
use crate::model::state::State;
use crate::pg::connect::{Session, Target};
use crate::pg::store::{self, Job};
use crate::plan::Plan;
use crate::sql::space as sql;

/// The error of a job, with what frees space where a disk was full.
pub(super) async fn explained(target: &Target, plan: &Plan, error: Error) -> Error {
    if error.sqlstate() != Some("53100") {
        return error;
    }
    let hint = match held(target, plan).await {
        Ok(Some(held)) => held,
        Ok(None) | Err(_) => format!("`pgstrata status {}` says how far the job is", word(plan.name())),
    };
    error.hint(format!(
        "a disk of the server is full; the job's state is kept: free space there and run the same command again; {hint}"
    ))
}

/// What the job holds, and the command that frees it.
async fn held(target: &Target, plan: &Plan) -> crate::error::Result<Option<String>> {
    let session = target.connect("pgstrata").await?;
    let jobs = store::jobs(&session, Some(plan.name())).await?;
    let Some(job) = jobs.first() else { return Ok(None) };
    let typed = word(&job.name);
    let swapped = job.state == State::Swapped;
    let text = match &job.design {
        Design::Partition(b) => {
            let direction = if swapped { Direction::Reverse } else { Direction::Forward };
            let table = &b.sides(direction).target;
            let copy = size(&session, sql::TREE, &table.to_string()).await?;
            let log = size(&session, sql::RELATION, &b.log().to_string()).await?;
            let holds = format!(
                "{} in {} and {} in the change log",
                number::bytes(copy),
                table.plain(),
                number::bytes(log)
            );
            if swapped {
                format!("`pgstrata finalize --now {typed}` frees what is kept for the way back: {holds}")
            } else {
                format!("`pgstrata abort {typed}` frees what the job holds: {holds}")
            }
        }
        Design::Retype(r) => {
            let indexes = beside(&session, job).await?;
            let (command, direction) =
                if swapped { ("finalize --now", Direction::Reverse) } else { ("abort", Direction::Forward) };
            format!(
                "`pgstrata {command} {typed}` frees {} in indexes of {}, and the space of that column as its rows are written",
                number::bytes(indexes),
                r.beside(direction).as_str()
            )
        }
        Design::Backfill(f) => format!(
            "`pgstrata abort {typed}` ends the job, but frees nothing: it writes the rows of {} itself, and VACUUM makes the space \
             of their old versions usable again",
            f.table.name.plain()
        ),
    };
    Ok(Some(text))
}

async fn size(session: &Session, statement: &str, name: &str) -> crate::error::Result<u64> {
    let bytes: i64 = session.query_one(statement, &[&name]).await?.get(0);
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Bytes of the indexes that a retype has built.
async fn beside(session: &Session, job: &Job) -> crate::error::Result<u64> {
    let r = job.retyping()?;
    let direction = if job.state == State::Swapped { Direction::Reverse } else { Direction::Forward };
    let mut bytes = 0;
    for one in &r.indexes {
        let name = r.table.name.sibling(r.counterpart(&one.index.name, direction));
        bytes += size(session, sql::RELATION, &name.to_string()).await?;
    }
    Ok(bytes)
}
