//! What the table is to guarantee of the filled columns, none of it with a long lock; then the end of the job.

use crate::error::Result;
use crate::model::state::{State, Step};
use crate::sql::fill as sql;

use super::super::meter::Meter;
use super::{Filler, end, in_force};

/// Builds what is missing, and ends the job.
///
/// # Errors
/// Rows are in the way; or what the server said.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "finish"))]
pub async fn finish(filler: &Filler) -> Result<State> {
    let f = &filler.filling;
    in_force(filler).await?;
    let meter = Meter::begin(filler, "finish", format!("the last of {}", f.table.name.plain()));
    let statements = if f.keep_filled && !f.stays { sql::stop_filling(f) } else { Vec::new() };
    let state = end(filler, Step::Finish, &statements).await?;
    crate::failpoint!("finish.done");
    meter.end("done");
    Ok(state)
}

/// What an unfinished build left behind.
///
/// # Errors
/// What the server said.
pub async fn leftovers(_filler: &Filler) -> Result<Vec<String>> {
    Ok(Vec::new())
}
