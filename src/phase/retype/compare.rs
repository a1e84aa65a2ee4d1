//! Compares the two columns row by row, in ranges of the key. Writes can continue: both columns are in the same row
//! version.

use std::cell::{Cell, RefCell};

use crate::error::Result;
use crate::event::{ColumnWork, PhaseOutcome};
use crate::model::blueprint::Direction;
use crate::model::key::KeyRange;
use crate::model::pace::Work;
use crate::model::state::State;
use crate::model::verify_report::{EXAMPLES_MAX, Example, MismatchKind, VerifyReport};
use crate::pg::catalog;
use crate::pg::connect::Session;
use crate::pg::transaction::query_text;
use crate::sql::{fill as fill_sql, plan_sql, retype as sql};

use super::{RetypeJob, objects, table};
use crate::error::Error;
use crate::phase::job::meter::Meter;
use crate::phase::job::{chunks, workers};

/// The number of rows in a range.
const RANGE_ROWS: u64 = 20_000;

/// Checks every row, and reports those that are not in sync.
///
/// # Errors
/// The job is not ready; or the server returned an error. Mismatches are in the report.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "verify"))]
pub async fn compare(retyper: &RetypeJob) -> Result<VerifyReport> {
    let far =
        matches!(retyper.state(), State::Indexed | State::Verified | State::Swapped | State::RolledBack);
    if !far {
        let (name, state) = (&retyper.job.name, retyper.state());
        return Err(Error::usage(format!("job {name} is {state}: not every row is filled"))
            .hint("`pgstrata run PLAN` continues it"));
    }
    objects::in_place(retyper).await?;
    retyper.gate.set_work(Work::Reads);
    let report = every_row(retyper).await;
    retyper.gate.set_work(Work::Writes);
    report
}

async fn every_row(retyper: &RetypeJob) -> Result<VerifyReport> {
    let r = &retyper.retyping;
    let direction = retyper.direction();
    let mut meter = Meter::begin(retyper, ColumnWork::CompareColumns { table: r.table.name.plain() });
    let (rows, ..) = catalog::size(&retyper.control, table(retyper).await?).await?;
    meter.count("rows", u64::try_from(rows).unwrap_or(0), 0);
    let (counted, examples) = (Cell::new([0_u64; 3]), RefCell::new(Vec::new()));
    let key = r.key_columns(direction);
    let columns: Vec<_> = key.iter().collect();
    let from = format!("only {}", r.table.name);
    let whole = KeyRange { after: None, through: None };
    let meter = &meter;
    workers::run(
        retyper,
        retyper.plan.workers(),
        |_| format!("verify a range of {}", r.table.name.plain()),
        async |items| {
            let send = async |range, _| items.send(range).await;
            chunks::for_each_range(retyper, (&r.table.name, &from), &columns, whole, || RANGE_ROWS, send)
                .await
        },
        async |session, range| {
            let (found, named) = one_range(retyper, session, direction, range).await?;
            let sum = counted.get();
            counted.set([sum[0] + found[0], sum[1] + found[1], sum[2] + found[2]]);
            let room = EXAMPLES_MAX.saturating_sub(examples.borrow().len());
            examples.borrow_mut().extend(named.into_iter().take(room));
            meter.add(found[0]);
            meter.keep().await
        },
    )
    .await?;
    let [rows, different, missing] = counted.get();
    meter.end(match different + missing {
        0 => PhaseOutcome::ColumnsMatch { rows },
        _ => PhaseOutcome::ColumnsDiffer { missing, different },
    });
    Ok(VerifyReport {
        job: retyper.job.name.clone(),
        sides: "columns",
        swapped: direction == Direction::Reverse,
        rows_in_use: rows,
        rows_inactive: rows - missing,
        missing,
        extra: 0,
        different,
        pending: 0,
        verified: different + missing == 0,
        examples: examples.into_inner(),
    })
}

/// Counts the rows of a range, those that are not in sync, and those without the old value; also returns some of the
/// keys.
async fn one_range(
    retyper: &RetypeJob,
    session: &Session,
    direction: Direction,
    range: &KeyRange,
) -> Result<([u64; 3], Vec<Example>)> {
    let r = &retyper.retyping;
    retyper
        .reading(session, std::slice::from_ref(&r.table.name), async |client| {
            client.batch_execute(&fill_sql::names(&retyper.filler.filling)).await?;
            let (statement, values) = sql::compare(r, direction, range);
            let rows = query_text(client, &statement, &values).await?;
            client.batch_execute(&plan_sql::look_up_again(&r.sql)).await?;
            let number =
                |i: usize| rows.first().map_or(0, |row| u64::try_from(row.get::<_, i64>(i)).unwrap_or(0));
            let found = [number(0), number(1), number(2)];
            let mut named = Vec::new();
            for (kind, any) in
                [(MismatchKind::Different, found[1] > 0), (MismatchKind::Missing, found[2] > 0)]
            {
                if any {
                    let (statement, values) = sql::mismatched_keys(r, direction, kind, range, EXAMPLES_MAX);
                    let rows = query_text(client, &statement, &values).await?;
                    client.batch_execute(&plan_sql::look_up_again(&r.sql)).await?;
                    named.extend(rows.iter().map(|row| Example { kind, key: row.get(0), place: None }));
                }
            }
            Ok((found, named))
        })
        .await
}
