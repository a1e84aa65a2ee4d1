//! Prepares a backfill: adds the columns, and creates the trigger that fills rows that are written during the job. Each
//! step needs a short lock, which is retried as for a swap.

use std::collections::HashSet;

use crate::error::Result;
use crate::event::{BackfillNote, ColumnWork, PhaseOutcome};
use crate::failpoint;
use crate::model::filling::NewColumn;
use crate::model::ident::{Ident, plain_list};
use crate::model::state::{State, Step};
use crate::pg::catalog;
use crate::pg::transaction::all;
use crate::phase::job::additions;
use crate::phase::job::locks::briefly;
use crate::phase::job::meter::Meter;
use crate::sql::fill as sql;

use super::BackfillJob;

/// Adds the missing columns.
///
/// # Errors
/// The lock could not be acquired.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "prepare"))]
pub async fn open(filler: &BackfillJob) -> Result<State> {
    let (f, client) = (&filler.filling, &filler.control);
    let oid = catalog::must_find(client, &f.table.name).await?;
    let rows = client.query(sql::COLUMNS, &[&oid]).await?;
    let there: HashSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let missing: Vec<&NewColumn> = f.add.iter().filter(|c| !there.contains(c.name.as_str())).collect();
    let table = f.table.name.plain();
    if missing.is_empty() {
        // Skip the statements below, which would wait for a lock.
        let state = filler.advance(client, Step::Prepare).await?;
        if !f.only_finishes() {
            filler.events.note(BackfillNote::ColumnsExist { table });
        }
        return Ok(state);
    }
    let columns = missing.len() as u64;
    let meter = Meter::begin(filler, ColumnWork::AddColumns { table, columns });
    let added: Vec<&Ident> = missing.iter().map(|column| &column.name).collect();
    let step = format!("add columns {} to {}", plain_list(added.iter().copied()), f.table.name.plain());
    let mut statements = vec![sql::names(f)];
    statements.extend(missing.into_iter().flat_map(|column| sql::add_column(f, column)));
    let (state, _) = briefly(filler, vec![f.table.name.clone()], &step, async || {
        let was = additions::before(client, &f.table.name).await?;
        all(client, &statements).await?;
        if let Some(was) = was {
            additions::check_only_columns_added(filler, client, &was, &added).await?;
        }
        let state = filler.advance(client, Step::Prepare).await?;
        failpoint!("prepare.before_commit");
        Ok(state)
    })
    .await?;
    failpoint!("prepare.done");
    meter.end(PhaseOutcome::ColumnsReady { columns });
    Ok(state)
}

/// Creates the trigger, if the plan requires one. `CREATE TRIGGER` waits for every open writer, so the first pass sees
/// all rows that were written without the trigger.
///
/// # Errors
/// The lock could not be acquired.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "capture"))]
pub async fn keep(filler: &BackfillJob) -> Result<State> {
    let (f, client) = (&filler.filling, &filler.control);
    if !f.keep_filled {
        return filler.advance(client, Step::Capture).await;
    }
    let table = f.table.name.plain();
    let step = format!("create the trigger of the job on {table}");
    let meter = Meter::begin(filler, ColumnWork::FillByTrigger { table });
    let (state, _) = briefly(filler, vec![f.table.name.clone()], &step, async || {
        all(client, &sql::keep_filled(f)).await?;
        let state = filler.advance(client, Step::Capture).await?;
        failpoint!("capture.before_commit");
        Ok(state)
    })
    .await?;
    failpoint!("capture.done");
    meter.end(PhaseOutcome::TriggersReady);
    Ok(state)
}
