//! Drives a job: takes its lease, does phase after phase, and goes on by itself when a connection or the server is lost.
//!
//! There is one way to recover, whether a worker's session was killed, the server restarted or another machine crashed:
//! take the lease again, which ends everything that the driver before left behind, and do what the database says is left.

mod drive;
mod kind;
mod maintain;
mod space;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::event::{Events, JobNote};
use crate::failpoint;
use crate::model::commands;
use crate::model::finding::Findings;
use crate::model::number;
use crate::model::state::State;
use crate::pg::connect::{Session, Target};
use crate::pg::lease;
use crate::pg::store::{self, Job};
use crate::phase::{Action, Outcome, Verdict, pace};
use crate::plan::{Plan, When, changed};
use crate::sql::store as store_sql;
use crate::stop::Stop;

pub use kind::{preflight, script};

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
        if swap && !plan.task().purpose().is_swapped() {
            return Err(Error::usage("a backfill has no swap: its rows are filled where they are")
                .hint("leave --swap out"));
        }
        let session = self.target.connect("pgstrata").await?;
        let jobs = store::jobs(&session, Some(plan.name())).await?;
        self.in_window(&session, &plan, jobs.first()).await?;
        self.can_ask_standbys(&plan)?;
        let job = match jobs.first() {
            Some(job) if !job.state.is_final() => self.resume(&session, &plan, job).await?,
            Some(job) if job.state == State::Finalized => {
                let same = changed(&job.identity, &plan.identity()).is_empty();
                let done = if same { kind::done_already(&session, &plan, job).await? } else { None };
                match done {
                    Some(done) => {
                        // Retention may be another one now.
                        self.resume(&session, &plan, job).await?;
                        self.events.note(done);
                        return Ok(Outcome::at(job.state));
                    }
                    None => self.start(&session, &plan, found).await?,
                }
            }
            _ => self.start(&session, &plan, found).await?,
        };
        drop(session);
        let swap = swap || plan.when() == When::Verified;
        self.act(&plan, job, Action::Run { swap }).await
    }

    /// Checks the plan and records its job.
    async fn start(&self, session: &Session, plan: &Plan, found: impl FnOnce(&Findings)) -> Result<i64> {
        let preflight = kind::preflight(session, plan).await?;
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
            self.events.note(JobNote::PlanSettingsChanged);
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
        let outcome = self.act_on(name, Action::Verify).await?;
        outcome.verdict.ok_or_else(|| Error::failed(format!("job {name} was not compared")))
    }

    /// Drains, compares and swaps.
    ///
    /// # Errors
    /// The job is not that far, or both sides differ, or the lock was not available.
    pub async fn swap(&self, name: &str) -> Result<Outcome> {
        self.act_on(name, Action::Swap).await
    }

    /// Drains, compares and swaps back.
    ///
    /// # Errors
    /// The job is not swapped, or both sides differ, or the lock was not available.
    pub async fn rollback(&self, name: &str) -> Result<Outcome> {
        self.act_on(name, Action::Rollback).await
    }

    /// Brings the other side in sync and ends.
    ///
    /// # Errors
    /// The job is not that far, or what the server said.
    pub async fn sync(&self, name: &str) -> Result<State> {
        self.act_on(name, Action::Sync).await.map(|outcome| outcome.state)
    }

    /// Closes the rollback window; before its time only with `now`.
    ///
    /// # Errors
    /// The job is not swapped, the window is open, or something depends on the old side.
    pub async fn finalize(&self, name: &str, now: bool) -> Result<State> {
        self.end(name, State::Finalized, Action::Finalize { now }).await
    }

    /// Removes everything that the job made.
    ///
    /// # Errors
    /// The job is swapped, or what the server said.
    pub async fn abort(&self, name: &str) -> Result<State> {
        self.end(name, State::Aborted, Action::Abort).await
    }

    /// Ends a job, unless its newest one of that name ended so already.
    async fn end(&self, name: &str, end: State, action: Action) -> Result<State> {
        let session = self.target.connect("pgstrata").await?;
        let newest = store::jobs(&session, Some(name)).await?.into_iter().next();
        drop(session);
        if let Some(job) = newest.filter(|job| job.state == end) {
            let plan = Plan::parse(&job.plan, &format!("the plan of job {name}"))?;
            if action == Action::Abort || plan.task().purpose().is_swapped() {
                self.events.note(JobNote::AlreadyInState { job: job.name, state: end });
                return Ok(end);
            }
        }
        self.act_on(name, action).await.map(|outcome| outcome.state)
    }

    async fn act_on(&self, name: &str, action: Action) -> Result<Outcome> {
        let (plan, job) = self.find(name).await?;
        if action.needs_swap() && !plan.task().purpose().is_swapped() {
            return Err(job.of_another_kind());
        }
        self.act(&plan, job.id, action).await
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

    async fn find(&self, name: &str) -> Result<(Plan, Job)> {
        let session = self.target.connect("pgstrata").await?;
        let job = store::open_job(&session, name).await?;
        store::install(&session).await?;
        let plan = Plan::parse(&job.plan, &format!("the plan of job {name}"))?;
        Ok((plan, job))
    }
}
