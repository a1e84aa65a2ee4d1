//! Handles changes to the table since the plan was made, or since the last exchange. Most of them do not depend on
//! which column is in use. Changes to the column itself are carried over to the other column before the next exchange.
//! If an object depends on the column and cannot be carried over, the exchange fails with an error that names it.

use crate::error::{Error, Result, Retry};
use crate::event::PartitionNote;
use crate::model::blueprint::Direction;
use crate::model::difference::{self, Between, Difference, descriptions, differences};
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::retyping::Follows;
use crate::model::table::Table;
use crate::pg::transaction::all;
use crate::pg::{catalog, in_use};
use crate::phase::job::exchange::drop_added_users;
use crate::phase::job::kind::reported_only;
use crate::phase::job::locks::briefly;
use crate::sql::retype as sql;

use super::RetypeJob;

/// Carries over changes to the column itself; returns whether there were any.
///
/// # Errors
/// Objects that cannot be carried over, by name; or the server returned an error.
pub(super) async fn carry(retyper: &RetypeJob, ending: Direction, now: &Table) -> Result<bool> {
    let (r, client, job) = (&retyper.retyping, &retyper.control, retyper.job.id);
    let found = match (in_use::read(client, job).await?, ending) {
        (Some(was), _) => {
            differences(&r.without_own(&was, ending), &r.without_own(now, ending), Between::Times)
        }
        (None, Direction::Forward) => differences(&r.table, &r.without_own(now, ending), Between::Times),
        (None, Direction::Reverse) => r.since_plan(now, ending),
    };
    let of = |which: Follows| -> Vec<Difference> {
        found.iter().filter(|one| r.follows(one) == which).cloned().collect()
    };
    let (lost, attached) = (of(Follows::Lost), attached(retyper, ending, now).await?);
    if !(lost.is_empty() && attached.is_empty()) {
        let only_added = attached.is_empty() && difference::are_added_users(&lost);
        let error = refused(retyper, ending, &[descriptions(&lost), attached].concat());
        return Err(if only_added { error.hint(drop_added_users(ending, "the new type")) } else { error });
    }
    let carried = of(Follows::Carried);
    if carried.is_empty() {
        return Ok(false);
    }
    let statements = sql::carry(r, now, &carried, ending);
    let step = format!("carry changes over to the inactive column of {}", r.table.name.plain());
    let done = briefly(retyper, vec![r.table.name.clone()], &step, async || {
        all(client, &statements).await?;
        in_use::keep(client, job, now).await
    });
    let shadow = format!("column {}", plain(r.shadow(ending).as_str()));
    done.await.map_err(|e| match e.retry_class() {
        Retry::Never => refused(retyper, ending, &descriptions(&carried))
            .cause(format!("the same change could not be made to {shadow}: {}", e.message())),
        _ => e,
    })?;
    retyper.events.note(PartitionNote::CarriedOver { target: shadow, changes: descriptions(&carried) });
    Ok(true)
}

/// [`carry`] without an exchange, so that a privilege that was revoked on the column in use is also revoked on the
/// inactive column. Changes that cannot be carried over are reported; the next exchange fails because of them.
///
/// # Errors
/// A lock could not be acquired; or the connection was lost.
pub(super) async fn carry_over(retyper: &RetypeJob) -> Result<()> {
    let ending = retyper.direction();
    let now = async || catalog::table(&retyper.control, super::table(retyper).await?).await;
    let carried = async {
        while carry(retyper, ending, &now().await?).await? {}
        Ok(())
    };
    reported_only(retyper, carried.await)
}

/// Objects that depend on the column in use and that the exchange does not handle.
async fn attached(retyper: &RetypeJob, ending: Direction, now: &Table) -> Result<Vec<String>> {
    let r = &retyper.retyping;
    let facts = catalog::column(&retyper.control, super::table(retyper).await?, &r.column.name).await?;
    let known: Vec<&Ident> = (r.indexes.iter().map(|one| &one.index.name))
        .chain(r.checks.iter().map(|check| &check.name))
        .chain(r.keys.iter().map(|key| &key.name))
        .collect();
    let own = |name: &Ident| {
        let counterpart = |one: &&Ident| r.counterpart(one, ending) == *name;
        *name == r.proof() || known.contains(&name) || known.iter().any(counterpart)
    };
    let column = plain(r.column.name.as_str());
    let text = |kind: &str, name: &Ident| format!("{kind} {} is on column {column}", plain(name.as_str()));
    let indexes = facts.indexes.iter().filter(|name| !own(name)).map(|name| text("index", name));
    let checks = facts.checks.iter().filter(|name| !own(name)).map(|name| text("check constraint", name));
    let keys = facts.keys.iter().filter(|key| !own(&key.name)).map(|key| text("foreign key", &key.name));
    let uses = facts.uses.iter().map(|one| format!("{} is on column {column}", one.name));
    let refused = facts.rebound.refused.iter().chain(&facts.rebound.lacks);
    let refused = refused.map(|one| format!("{} uses column {column}, and {}", one.name, one.why));
    // The step after the exchange builds these again from the definition that they had when the job was planned.
    let planned = |name: &QualifiedName| r.matviews().find(|m| m.view.name == *name);
    let matviews = facts.rebound.matviews.iter().filter(|name| {
        let current = now.dependents.matviews.iter().find(|m| m.view.name == **name);
        planned(name).is_none_or(|m| current.is_some_and(|current| !current.is_as(m)))
    });
    let matviews = matviews.map(|name| format!("materialized view {} uses column {column}", name.plain()));
    Ok(indexes.chain(checks).chain(keys).chain(uses).chain(refused).chain(matviews).collect())
}

fn refused(retyper: &RetypeJob, ending: Direction, found: &[String]) -> Error {
    let table = retyper.retyping.table.name.plain();
    let found = found.join("; ");
    match ending {
        Direction::Forward => {
            Error::failed(format!("{table} has changed since this job was planned: {found}"))
                .hint("undo the change, or abort the job and run it again; nothing was swapped")
        }
        Direction::Reverse => Error::failed(format!(
            "{table} was changed after the swap, and a rollback would lose the change: {found}"
        ))
        .hint("undo the change, then roll back; or keep the new type and finalize the job"),
    }
}
