//! Drives a job: takes its lease, does phase after phase, and goes on by itself when a connection or the server is lost.
//!
//! There is one way to recover, whether a worker's session was killed, the server restarted or another machine crashed:
//! take the lease again, which ends everything that the driver before left behind, and do what the database says is left.

mod drive;
mod maintain;
mod space;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::failpoint;
use crate::model::commands;
use crate::model::design::Design;
use crate::model::finding::Findings;
use crate::model::number;
use crate::model::shell::word;
use crate::model::state::State;
use crate::model::verdict::{Looked, VerifyReport};
use crate::pg::connect::{Session, Target};
use crate::pg::lease;
use crate::pg::preflight::preflight;
use crate::pg::store::{self, Job};
use crate::phase::fill;
use crate::phase::retype::{self, Retyper};
use crate::phase::{self, Context, Pacing, Swapped, pace};
use crate::plan::{Plan, Task, When, changed};
use crate::sql::store as store_sql;
use crate::stop::Stop;

use work::{
    at_least_synced, done_already, may_finalize, still_done, up_to_filled, up_to_level, up_to_verified,
    verified_and_swapped,
};

/// What drives jobs: where to connect, who listens, how to be stopped.
#[derive(Debug, Clone)]
pub struct Engine {
    target: Target,
    events: Events,
    stop: Stop,
    driving: Arc<AtomicI64>,
    /// This process among all that ever drove a job.
    holder: String,
}

/// Where a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The job's state.
    pub state: State,
    /// What the comparison found, where there was one.
    pub report: Option<VerifyReport>,
    /// What the swap took, where there was one.
    pub swapped: Option<Swapped>,
}

/// What `verify` came to.
#[derive(Debug)]
pub enum Verdict {
    /// Of a partition job or a retype: the two sides, compared.
    Sides(VerifyReport),
    /// Of a backfill: every row, looked at again.
    Rows(Looked),
}

impl Outcome {
    fn at(state: State) -> Self {
        Self { state, report: None, swapped: None }
    }

    fn of((state, swapped): (State, Option<Swapped>)) -> Self {
        Self { state, report: None, swapped }
    }
}

impl Engine {
    /// An engine for jobs in the database at `target`; `stop` asks it to stop between chunks.
    pub fn new(target: Target, events: Events, stop: Stop) -> Self {
        let holder = format!("process {} {:016x}", std::process::id(), rand::random::<u64>());
        Self { target, events, stop, driving: Arc::default(), holder }
    }

    /// Starts the plan's job or goes on with it, up to verified; swaps too where the plan or `swap` says so.
    ///
    /// # Errors
    /// Preflight found an error (findings are said before), the plan changed, or what a phase said.
    pub async fn run(&self, plan: Plan, swap: bool, found: impl FnOnce(&Findings)) -> Result<Outcome> {
        if swap && matches!(plan.task(), Task::Backfill(_)) {
            return Err(Error::usage("a backfill has no swap: its rows are filled where they are")
                .hint("leave --swap out"));
        }
        let session = self.target.connect("pgstrata").await?;
        let jobs = store::jobs(&session, Some(plan.name())).await?;
        self.in_window(&session, &plan, jobs.first()).await?;
        self.can_ask_standbys(&plan)?;
        let job = match jobs.first() {
            Some(job) if !job.state.is_final() => self.resume(&session, &plan, job).await?,
            Some(job) if job.state == State::Finalized && still_done(&session, &plan, job).await? => {
                // Retention may be another one now.
                self.resume(&session, &plan, job).await?;
                self.events.note(done_already(&plan, job));
                return Ok(Outcome::at(job.state));
            }
            _ => self.start(&session, &plan, found).await?,
        };
        drop(session);
        match plan.task() {
            Task::Partition(_) => {
                let swap = swap || plan.when() == When::Verified;
                let work = async |context: &Context| up_to_verified(context, swap).await;
                self.drive(&plan, job, Pacing::Windowed, work).await
            }
            Task::Backfill(_) => self.drive(&plan, job, Pacing::Windowed, up_to_filled).await,
            Task::Retype(_) => {
                let swap = swap || plan.when() == When::Verified;
                let work = async |retyper: &Retyper| up_to_level(retyper, swap).await;
                self.drive(&plan, job, Pacing::Windowed, work).await
            }
        }
    }

    /// Checks the plan and records its job.
    async fn start(&self, session: &Session, plan: &Plan, found: impl FnOnce(&Findings)) -> Result<i64> {
        let preflight = preflight(session, plan).await?;
        found(&preflight.findings);
        let Some(design) = preflight.design else {
            return Err(Error::new(
                Kind::Preflight,
                format!(
                    "{} in the way; nothing was changed",
                    number::counted(preflight.findings.errors() as u64, "finding")
                ),
            ));
        };
        store::install(session).await?;
        failpoint!("job.installed");
        let job = store::create(session, plan, &design, preflight.rows_estimated).await?;
        failpoint!("job.created");
        Ok(job)
    }

    /// Goes on with a job, if the plan is still its plan. Settings that do not decide the result may change.
    async fn resume(&self, session: &Session, plan: &Plan, job: &Job) -> Result<i64> {
        let changes = changed(&job.identity, &plan.identity());
        if !changes.is_empty() {
            let all: Vec<String> = changes.iter().map(ToString::to_string).collect();
            return Err(Error::usage(format!("the plan is not the one that job {} began with", job.name))
                .cause(all.join("; "))
                .hint(format!(
                    "put it back and run again; or end the job, and start over with the new plan: {}",
                    commands::ending(&job.name, job.state)
                )));
        }
        store::install(session).await?;
        if job.plan != plan.to_toml() {
            self.events
                .note("the plan's settings changed since the job began; the new ones hold from here on");
            session.execute(store_sql::RETUNE_JOB, &[&job.id, &plan.to_toml()]).await?;
            failpoint!("job.retuned");
        }
        Ok(job.id)
    }

    /// Nothing is begun outside the plan's windows, or those that were set for the job.
    async fn in_window(&self, session: &Session, plan: &Plan, job: Option<&Job>) -> Result<()> {
        let settings = match job.filter(|job| !job.state.is_final()) {
            Some(job) => store::settings(session, job.id).await?,
            None => BTreeMap::new(),
        };
        match pace::closed(&plan.with(&settings)?, clock::now()) {
            Some(why) => Err(Error::new(Kind::Stopped, format!("nothing was done: {why}")).hint(
                "run the same command again when it is open; from cron or a timer, more often than it opens",
            )),
            None => Ok(()),
        }
    }

    /// Whether what the plan lists as standbys can be read as such.
    fn can_ask_standbys(&self, plan: &Plan) -> Result<()> {
        plan.throttle().replicas.iter().try_for_each(|dsn| self.target.standby(dsn).map(drop))
    }

    /// Changes settings of a job, for its driver, whoever and wherever that is, and for those to come. None: the plan's again.
    ///
    /// # Errors
    /// There is no such job, or a value that a plan could not have.
    pub async fn set(&self, name: &str, settings: &[(&str, Option<&str>)]) -> Result<()> {
        let (plan, job) = self.find(name).await?;
        let session = self.target.connect("pgstrata").await?;
        let mut all = store::settings(&session, job.id).await?;
        for (key, value) in settings {
            match value {
                Some(value) => all.insert((*key).to_owned(), (*value).to_owned()),
                None => all.remove(*key),
            };
        }
        self.can_ask_standbys(&plan.with(&all)?)?;
        store::set(&session, job.id, settings).await
    }

    /// Compares both sides now; of a backfill, looks at every row again and fills what is found.
    ///
    /// # Errors
    /// What the server said; a difference of the sides is in the report.
    pub async fn verify(&self, name: &str) -> Result<Verdict> {
        let (plan, job) = self.find(name).await?;
        match job.design {
            Design::Backfill(_) => {
                let looked = self.drive(&plan, job.id, Pacing::Signals, fill::look_again).await?;
                return Ok(Verdict::Rows(looked));
            }
            Design::Retype(_) => {
                let compared = self.drive(&plan, job.id, Pacing::Signals, retype::compare).await?;
                return Ok(Verdict::Sides(compared));
            }
            Design::Partition(_) => {}
        }
        let compare = async |context: &Context| {
            at_least_synced(context)?;
            phase::compare(context).await
        };
        Ok(Verdict::Sides(self.drive(&plan, job.id, Pacing::Signals, compare).await?))
    }

    /// Drains, compares and swaps.
    ///
    /// # Errors
    /// The job is not that far, or both sides differ, or the lock was not to be had.
    pub async fn swap(&self, name: &str) -> Result<Outcome> {
        let (plan, job) = self.find_two_sided(name).await?;
        if let Task::Retype(_) = plan.task() {
            return self.drive(&plan, job.id, Pacing::AtOnce, retype::swap).await.map(Outcome::of);
        }
        self.drive(&plan, job.id, Pacing::AtOnce, async |context: &Context| {
            if context.state() == State::Swapped {
                self.events.note(format!("job {name} is swapped already"));
                phase::settle(context).await?;
                return Ok(Outcome::at(State::Swapped));
            }
            at_least_synced(context)?;
            verified_and_swapped(context).await
        })
        .await
    }

    /// Drains, compares and swaps back.
    ///
    /// # Errors
    /// The job is not swapped, or both sides differ, or the lock was not to be had.
    pub async fn rollback(&self, name: &str) -> Result<Outcome> {
        let (plan, job) = self.find_two_sided(name).await?;
        if let Task::Retype(_) = plan.task() {
            return self.drive(&plan, job.id, Pacing::AtOnce, retype::rollback).await.map(Outcome::of);
        }
        self.drive(&plan, job.id, Pacing::AtOnce, async |context: &Context| match context.state() {
            State::RolledBack => {
                self.events.note(format!("job {name} is rolled back already"));
                phase::settle(context).await?;
                Ok(Outcome::at(State::RolledBack))
            }
            State::Swapped => verified_and_swapped(context).await,
            state => Err(Error::usage(format!("job {name} is {state}: there is no swap to take back"))
                .hint(format!("to remove what the job made: `pgstrata abort {}`", word(name)))),
        })
        .await
    }

    /// Brings the other side level and ends.
    ///
    /// # Errors
    /// The job is not that far, or what the server said.
    pub async fn sync(&self, name: &str) -> Result<State> {
        let (plan, job) = self.find_two_sided(name).await?;
        if let Task::Retype(_) = plan.task() {
            let work = async |retyper: &Retyper| retype::settle(retyper).await.map(|()| retyper.state());
            return self.drive(&plan, job.id, Pacing::Signals, work).await;
        }
        self.drive(&plan, job.id, Pacing::Signals, async |context: &Context| {
            at_least_synced(context)?;
            phase::sync(context).await?;
            Ok(context.state())
        })
        .await
    }

    /// Closes the rollback window; before its time only with `now`.
    ///
    /// # Errors
    /// The job is not swapped, the window is open, or something hangs on the old table.
    pub async fn finalize(&self, name: &str, now: bool) -> Result<State> {
        let session = self.target.connect("pgstrata").await?;
        if let Some(job) = store::jobs(&session, Some(name))
            .await?
            .first()
            .filter(|j| j.state == State::Finalized && j.filling().is_err())
        {
            self.events.note(format!("job {} is finalized already", job.name));
            return Ok(job.state);
        }
        drop(session);
        let (plan, job) = self.find_two_sided(name).await?;
        match plan.task() {
            Task::Retype(_) => {
                let work = async |retyper: &Retyper| match retyper.state() {
                    State::Finalized => Ok(State::Finalized),
                    _ => {
                        may_finalize(retyper, now, "column")?;
                        retype::finalize(retyper).await
                    }
                };
                self.drive(&plan, job.id, Pacing::AtOnce, work).await
            }
            _ => {
                let work = async |context: &Context| match context.state() {
                    State::Finalized => Ok(State::Finalized),
                    _ => {
                        may_finalize(context, now, "table")?;
                        phase::finalize(context).await
                    }
                };
                self.drive(&plan, job.id, Pacing::AtOnce, work).await
            }
        }
    }

    /// Removes everything that the job made.
    ///
    /// # Errors
    /// The job is swapped, or what the server said.
    pub async fn abort(&self, name: &str) -> Result<State> {
        let session = self.target.connect("pgstrata").await?;
        if let Some(job) =
            store::jobs(&session, Some(name)).await?.first().filter(|j| j.state == State::Aborted)
        {
            self.events.note(format!("job {} is aborted already", job.name));
            return Ok(job.state);
        }
        drop(session);
        let (plan, job) = self.find(name).await?;
        match plan.task() {
            Task::Partition(_) => self.drive(&plan, job.id, Pacing::AtOnce, phase::abort).await,
            Task::Backfill(_) => self.drive(&plan, job.id, Pacing::AtOnce, fill::abort).await,
            Task::Retype(_) => self.drive(&plan, job.id, Pacing::AtOnce, retype::abort).await,
        }
    }

    /// Ends the sessions of the job that this process drives, whatever they are doing.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn end_sessions(&self) -> Result<()> {
        let job = self.driving.load(Ordering::SeqCst);
        if job != 0 {
            let session = self.target.connect("pgstrata").await?;
            lease::end_sessions(&session, job).await?;
        }
        Ok(())
    }

    /// [`Engine::find`], where there are two tables, or two columns.
    async fn find_two_sided(&self, name: &str) -> Result<(Plan, Job)> {
        let (plan, job) = self.find(name).await?;
        if job.retyping().is_err() {
            job.blueprint()?;
        }
        Ok((plan, job))
    }

    async fn find(&self, name: &str) -> Result<(Plan, Job)> {
        let session = self.target.connect("pgstrata").await?;
        let job = store::open_job(&session, name).await?;
        store::install(&session).await?;
        let plan = Plan::parse(&job.plan, &format!("the plan of job {name}"))?;
        Ok((plan, job))
    }
}
