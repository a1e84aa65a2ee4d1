//! The commands on jobs, one function each. `kind` selects the type for the kind of job, `drive` acquires the lease and
//! retries after a lost connection, and `phase::job::kind` runs one phase after another.
//!
//! Recovery is always the same, whether a worker's session was terminated, the server restarted, or another machine
//! failed: the engine acquires the lease again, which terminates all sessions that the previous driver left behind, and
//! does the remaining work according to the state in the database.

mod drive;
mod kind;
mod maintain;
mod space;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Events, JobNote};
use crate::failpoint;
use crate::model::commands;
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

/// Drives jobs. It holds the database to connect to, the destination of events, and the stop request.
#[derive(Debug, Clone)]
pub struct Engine {
    target: Target,
    events: Events,
    stop: Stop,
    driving: Arc<AtomicI64>,
    /// The identity of this process among all drivers.
    holder: String,
}

impl Engine {
    /// An engine for jobs in the database at `target`; `stop` requests a stop between chunks.
    pub fn new(target: Target, events: Events, stop: Stop) -> Self {
        let holder = format!("process {} {:016x}", std::process::id(), rand::random::<u64>());
        Self { target, events, stop, driving: Arc::default(), holder }
    }

    /// Starts or continues the plan's job up to verification, and also swaps if the plan or `swap` requests it.
    ///
    /// # Errors
    /// The check found an error (its findings are an event), the plan changed, or a phase failed.
    pub async fn run(&self, plan: Plan, swap: bool) -> Result<Outcome> {
        if swap && !plan.task().purpose().is_swapped() {
            return Err(Error::usage("a backfill has no swap: it fills the rows of the table in place")
                .hint("remove --swap"));
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
                        // Settings such as retention may have changed.
                        self.resume(&session, &plan, job).await?;
                        self.events.note(done);
                        return Ok(Outcome::at(job.state));
                    }
                    None => self.start(&session, &plan).await?,
                }
            }
            _ => self.start(&session, &plan).await?,
        };
        drop(session);
        let swap = swap || plan.when() == When::Verified;
        self.act(&plan, job, Action::Run { swap }).await
    }

    /// Checks the plan and records its job.
    async fn start(&self, session: &Session, plan: &Plan) -> Result<i64> {
        let preflight = kind::preflight(session, plan).await?.with_update_trial(session).await?;
        self.events.send(Event::Checked(preflight.findings.clone()));
        let Some(design) = preflight.design else {
            if preflight.findings.errors() == 0 {
                return Err(Error::new(
                    Kind::Preflight,
                    "the check could not test the plan; nothing was changed",
                )
                .hint("run the command again when no other session locks the table"));
            }
            return Err(Error::new(
                Kind::Preflight,
                format!(
                    "the check found {}; nothing was changed",
                    number::counted(preflight.findings.errors() as u64, "error")
                ),
            ));
        };
        store::install(session).await?;
        failpoint!("job.installed");
        let job = store::create(session, plan, &design, preflight.rows_estimated).await?;
        failpoint!("job.created");
        Ok(job)
    }

    /// Continues a job if the plan still matches it. Settings that do not affect the result may change.
    async fn resume(&self, session: &Session, plan: &Plan, job: &Job) -> Result<i64> {
        let changes = changed(&job.identity, &plan.identity());
        if !changes.is_empty() {
            let all: Vec<String> = changes.iter().map(ToString::to_string).collect();
            return Err(Error::usage(format!(
                "the plan differs from the plan with which job {} started",
                job.name
            ))
            .cause(all.join("; "))
            .hint(format!(
                "restore the plan and run it again; or end the job and start over with the new plan: \
                     {}",
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

    /// Fails outside the time windows of the plan or of the job's settings.
    async fn in_window(&self, session: &Session, plan: &Plan, job: Option<&Job>) -> Result<()> {
        let settings = match job.filter(|job| !job.state.is_final()) {
            Some(job) => store::settings(session, job.id).await?,
            None => BTreeMap::new(),
        };
        match pace::closed(&plan.with(&settings)?, clock::now()) {
            Some(why) => Err(Error::new(Kind::Stopped, format!("the job did not run: {why}")).hint(
                "run the same command again inside a window; from cron or a timer, run it more often than \
                 the windows open",
            )),
            None => Ok(()),
        }
    }

    /// Fails if a connection string of the plan's standbys cannot be parsed.
    fn can_ask_standbys(&self, plan: &Plan) -> Result<()> {
        plan.throttle().replicas.iter().try_for_each(|dsn| self.target.standby(dsn).map(drop))
    }

    /// Changes settings of a job, for its current driver on any machine and for later drivers. None resets a setting to
    /// the value in the plan.
    ///
    /// # Errors
    /// There is no such job, or the value is not valid in a plan.
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

    /// Compares both sides now; for a backfill, checks every row again and fills those that still need filling.
    ///
    /// # Errors
    /// The server returned an error. Mismatches are in the report.
    pub async fn verify(&self, name: &str) -> Result<Verdict> {
        let outcome = self.act_on(name, Action::Verify).await?;
        outcome.verdict.ok_or_else(|| Error::failed(format!("job {name} was not verified")))
    }

    /// Drains, verifies and swaps.
    ///
    /// # Errors
    /// The job is not ready, the sides differ, or the lock could not be acquired.
    pub async fn swap(&self, name: &str) -> Result<Outcome> {
        self.act_on(name, Action::Swap).await
    }

    /// Drains, verifies and rolls the swap back.
    ///
    /// # Errors
    /// The job is not swapped, the sides differ, or the lock could not be acquired.
    pub async fn rollback(&self, name: &str) -> Result<Outcome> {
        self.act_on(name, Action::Rollback).await
    }

    /// Applies pending changes to the inactive side.
    ///
    /// # Errors
    /// The job is not ready, or the server returned an error.
    pub async fn sync(&self, name: &str) -> Result<State> {
        self.act_on(name, Action::Sync).await.map(|outcome| outcome.state)
    }

    /// Ends the rollback window; with `now`, also before its time.
    ///
    /// # Errors
    /// The job is not swapped, the window is still open, or something depends on the old side.
    pub async fn finalize(&self, name: &str, now: bool) -> Result<State> {
        self.end(name, State::Finalized, Action::Finalize { now }).await
    }

    /// Removes everything that the job created.
    ///
    /// # Errors
    /// The job is swapped, or the server returned an error.
    pub async fn abort(&self, name: &str) -> Result<State> {
        self.end(name, State::Aborted, Action::Abort).await
    }

    /// Ends a job, unless the newest job with that name has already ended in this way.
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

    /// Terminates the sessions of the job that this process drives, including those that run a statement.
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
