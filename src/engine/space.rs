//! Adds a hint to the error for a full disk: the space that the job uses, and the command that frees it.

use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::model::shell::word;
use crate::pg::connect::Target;
use crate::pg::store;
use crate::plan::Plan;

use super::kind;

/// Returns the error of a job; if a disk is full, with a hint about the command that frees space.
pub(super) async fn explained(target: &Target, plan: &Plan, error: Error) -> Error {
    if !error.is(&SqlState::DISK_FULL) {
        return error;
    }
    let hint = match held(target, plan).await {
        Ok(Some(held)) => held,
        Ok(None) | Err(_) => format!("`pgstrata status {}` shows the progress of the job", word(plan.name())),
    };
    error.hint(format!(
        "a disk of the server is full; the job's state is kept: free disk space there and run the same \
         command again; {hint}"
    ))
}

async fn held(target: &Target, plan: &Plan) -> Result<Option<String>> {
    let session = target.connect("pgstrata").await?;
    match store::jobs(&session, Some(plan.name())).await?.first() {
        Some(job) => kind::held(&session, plan, job).await.map(Some),
        None => Ok(None),
    }
}
