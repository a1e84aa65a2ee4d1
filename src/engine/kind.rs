//! Selects the type for a kind of job. This is the only module that knows every kind by name.

use crate::error::Result;
use crate::event::JobNote;
use crate::model::design::Design;
use crate::pg::connect::Session;
use crate::pg::preflight::Preflight;
use crate::pg::store::Job;
use crate::phase::{BackfillJob, JobKind, Outcome, PartitionJob, RetypeJob, act};
use crate::plan::{Plan, Task};
use crate::sql::section::Section;

use super::{Action, Engine};

/// An expression in which `$kind` is the type that implements the kind of the plan.
macro_rules! of_kind {
    ($plan:expr, $kind:ident => $expression:expr) => {
        match $plan.task() {
            Task::Partition(_) => {
                type $kind = PartitionJob;
                $expression
            }
            Task::Backfill(_) => {
                type $kind = BackfillJob;
                $expression
            }
            Task::Retype(_) => {
                type $kind = RetypeJob;
                $expression
            }
        }
    };
}

/// Checks the plan against the live table without changing anything.
///
/// # Errors
/// The server returned an error. Problems with the table or the plan are findings, not errors.
pub async fn preflight(session: &Session, plan: &Plan) -> Result<Preflight> {
    of_kind!(plan, K => K::preflight(session, plan).await)
}

/// Returns the statements of a job with this design.
///
/// # Errors
/// The server returned an error.
pub async fn script(session: &Session, plan: &Plan, design: &Design) -> Result<Vec<Section>> {
    of_kind!(plan, K => K::script(session, plan, design).await)
}

/// If the table of a finalized job already has the planned form, returns a note that states this; otherwise none.
pub(super) async fn done_already(session: &Session, plan: &Plan, job: &Job) -> Result<Option<JobNote>> {
    of_kind!(plan, K => K::done_already(session, job).await)
}

/// Describes the disk space that a job uses, and the command that frees it.
pub(super) async fn held(session: &Session, plan: &Plan, job: &Job) -> Result<String> {
    of_kind!(plan, K => K::held(session, job).await)
}

impl Engine {
    /// Executes an action on a job.
    pub(super) async fn act(&self, plan: &Plan, job: i64, action: Action) -> Result<Outcome> {
        of_kind!(plan, K => {
            let work = async |kind: &K| act(kind, action).await;
            // Boxed, because the future contains every phase of the kind.
            Box::pin(self.drive(plan, job, action.pacing(), work)).await
        })
    }
}
