//! The command `maintain`: maintains one table after another, with the lease of the table's job if it has one.

use crate::error::{Error, Result};
use crate::event::{Event, JobNote, RunWarning};
use crate::model::ident::QualifiedName;
use crate::model::state::State;
use crate::pg::catalog;
use crate::pg::store::{self, Job};
use crate::phase::{self, Pacing};
use crate::plan::Plan;

use super::Engine;

impl Engine {
    /// Maintains partitioned tables: the table of the named job, or of the newest job for each table. The result for
    /// each table is an event.
    ///
    /// # Errors
    /// There is no such job; or the error for the first table that could not be maintained. The other tables are still
    /// maintained.
    pub async fn maintain(&self, name: Option<&str>) -> Result<()> {
        let session = self.target.connect("pgstrata").await?;
        let jobs = latest(store::jobs(&session, name).await?);
        if let (Some(name), true) = (name, jobs.is_empty()) {
            return Err(Error::usage(format!("this database has no job named {name}")).hint(
                "`pgstrata status` lists all jobs; `pgstrata maintain --table TABLE` does not need \
                    a job",
            ));
        }
        let mut failed = None;
        for job in jobs {
            if !matches!(job.state, State::Swapped | State::Finalized) {
                self.events.note(JobNote::TableNotInUse { job: job.name, state: job.state });
                continue;
            }
            if name.is_none() && catalog::find(&session, job.design.table()).await?.is_none() {
                self.events.note(JobNote::TableGone { job: job.name, table: job.source });
                continue;
            }
            let plan = Plan::parse(&job.plan, &format!("the plan of job {}", job.name))?;
            match self.drive(&plan, job.id, Pacing::AtOnce, phase::maintain).await {
                Ok(done) => self.events.send(Event::Maintained(done)),
                Err(e) if failed.is_none() => failed = Some(e),
                Err(e) => {
                    let error = e.to_string();
                    self.events.warn(RunWarning::TableNotMaintained { table: job.source, error });
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Maintains one partitioned table, even if pgstrata did not create it.
    ///
    /// # Errors
    /// The table cannot be maintained; or the server returned an error.
    pub async fn maintain_table(&self, table: &QualifiedName) -> Result<()> {
        let session = self.target.connect("pgstrata").await?;
        let jobs = latest(store::jobs(&session, None).await?);
        let own =
            |job: &Job| matches!(job.state, State::Swapped | State::Finalized) && job.design.table() == table;
        if let Some(job) = jobs.iter().find(|job| own(job)) {
            return self.maintain(Some(&job.name)).await;
        }
        let done = phase::maintain_adopted(&session, table, &self.events, &self.stop).await?;
        self.events.send(Event::Maintained(done));
        Ok(())
    }
}

/// The newest partition job of each table, without aborted jobs. Earlier jobs do not matter.
fn latest(jobs: Vec<Job>) -> Vec<Job> {
    let mut latest: Vec<Job> = Vec::new();
    for job in jobs {
        let partitions = job.design.blueprint().is_some();
        if partitions && job.state != State::Aborted && latest.iter().all(|newer| newer.source != job.source)
        {
            latest.push(job);
        }
    }
    latest
}
