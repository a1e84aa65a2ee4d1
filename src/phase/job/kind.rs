//! The commands that every kind of job shares, the order of their steps, and the conditions under which they fail. Each
//! kind implements what is specific to it.

use std::ops::Deref;

use tokio_postgres::error::SqlState;

use crate::clock;
use crate::error::{Error, Kind, Result, Retry};
use crate::event::{JobNote, RunWarning};
use crate::model::design::Design;
use crate::model::number;
use crate::model::shell::word;
use crate::model::state::{State, Step};
use crate::model::verify_report::{RowsChecked, VerifyReport};
use crate::pg::connect::Session;
use crate::pg::preflight::Preflight;
use crate::pg::store::Job;
use crate::phase::job::driver::{Driver, Pacing};
use crate::phase::job::exchange::Swapped;
use crate::plan::Plan;
use crate::sql::section::Section;

/// A kind of job: how a driver of one job executes commands. The engine drives all kinds through this trait.
#[expect(async_fn_in_trait, reason = "its futures are not sent to other threads")]
pub trait JobKind: Deref<Target = Driver> + Sized {
    /// The object that is kept for a rollback after the swap: `table` or `column`.
    const KEPT: &'static str = "";

    /// Checks the plan against the live table without changing anything.
    ///
    /// # Errors
    /// The server returned an error. Problems with the table or the plan are findings, not errors.
    async fn preflight(session: &Session, plan: &Plan) -> Result<Preflight>;

    /// The statements of the job, as `pgstrata sql` prints them.
    ///
    /// # Errors
    /// The design is of another kind, or the server returned an error.
    async fn script(session: &Session, plan: &Plan, design: &Design) -> Result<Vec<Section>>;

    /// If the table of a finalized job already has the planned form, returns a note that states this; otherwise none.
    ///
    /// # Errors
    /// The server returned an error.
    async fn done_already(session: &Session, job: &Job) -> Result<Option<JobNote>>;

    /// Describes the disk space that the job uses, and the command that frees it.
    ///
    /// # Errors
    /// The server returned an error.
    async fn held(session: &Session, job: &Job) -> Result<String>;

    /// Creates the kind from a driver.
    ///
    /// # Errors
    /// The job is of another kind.
    fn from_driver(driver: Driver) -> Result<Self>;

    /// Returns the driver.
    fn into_driver(self) -> Driver;

    /// Cleans up what a previous command left behind.
    ///
    /// # Errors
    /// The server returned an error.
    async fn tidy_up(&self) -> Result<()> {
        Ok(())
    }

    /// Runs the next phase of `run` and returns the new state; none if no phase is left.
    ///
    /// # Errors
    /// The phase failed.
    async fn next(&self) -> Result<Option<State>>;

    /// Ends `run` when no phase is left and no swap was requested.
    ///
    /// # Errors
    /// The server returned an error.
    async fn complete(&self) -> Result<()> {
        Ok(())
    }

    /// Compares both sides, or checks every row again.
    ///
    /// # Errors
    /// The job is not ready, or the server returned an error. Mismatches between the two sides are in the report.
    async fn verify(&self) -> Result<Verdict>;

    /// Verifies and swaps a job that is not swapped.
    ///
    /// # Errors
    /// The job is not ready; the sides differ; or the lock could not be acquired.
    async fn swap(&self) -> Result<Swapped> {
        Err(self.job.of_another_kind())
    }

    /// Verifies a swapped job and rolls the swap back.
    ///
    /// # Errors
    /// The sides differ; or the lock could not be acquired.
    async fn rollback(&self) -> Result<Swapped> {
        Err(self.job.of_another_kind())
    }

    /// Completes the steps that follow an exchange.
    ///
    /// # Errors
    /// A lock could not be acquired; or the connection was lost.
    async fn finish_exchange(&self) -> Result<()> {
        Ok(())
    }

    /// Applies pending changes to the inactive side.
    ///
    /// # Errors
    /// The job is not ready, or the server returned an error.
    async fn sync(&self) -> Result<()> {
        Err(self.job.of_another_kind())
    }

    /// Ends the rollback window.
    ///
    /// # Errors
    /// The lock could not be acquired, or something depends on the inactive side.
    async fn finalize(&self) -> Result<State> {
        Err(self.job.of_another_kind())
    }

    /// Removes everything that the job created.
    ///
    /// # Errors
    /// The server returned an error.
    async fn abort(&self) -> Result<State>;
}

/// The actions that a command can request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Run every phase before the swap, and the swap if requested.
    Run {
        /// Swap after verification.
        swap: bool,
    },
    /// Compare.
    Verify,
    /// Swap.
    Swap,
    /// Roll the swap back.
    Rollback,
    /// Apply pending changes to the inactive side.
    Sync,
    /// End the rollback window.
    Finalize {
        /// End it before its time.
        now: bool,
    },
    /// Remove everything that the job created.
    Abort,
}

impl Action {
    /// What may throttle the action.
    pub fn pacing(self) -> Pacing {
        match self {
            Self::Run { .. } => Pacing::Windowed,
            Self::Verify | Self::Sync => Pacing::Signals,
            Self::Swap | Self::Rollback | Self::Finalize { .. } | Self::Abort => Pacing::AtOnce,
        }
    }

    /// Whether only jobs that end with a swap support it.
    pub fn needs_swap(self) -> bool {
        matches!(self, Self::Swap | Self::Rollback | Self::Sync | Self::Finalize { .. })
    }
}

/// The result of an action.
#[derive(Debug)]
pub struct Outcome {
    /// The job's state.
    pub state: State,
    /// The cost of a swap or a rollback, if there was one.
    pub swapped: Option<Swapped>,
    /// The result of `verify`.
    pub verdict: Option<Verdict>,
}

impl Outcome {
    /// An outcome without a swap.
    pub fn at(state: State) -> Self {
        Self { state, swapped: None, verdict: None }
    }
}

/// The result of `verify`.
#[derive(Debug)]
pub enum Verdict {
    /// Two sides were compared.
    Sides(VerifyReport),
    /// Every row was checked again.
    Rows(RowsChecked),
}

/// Executes an action.
///
/// # Errors
/// The kind returned an error; or the job's state does not allow the action.
pub async fn act<K: JobKind>(kind: &K, action: Action) -> Result<Outcome> {
    match action {
        Action::Run { swap } => return run(kind, swap).await,
        Action::Verify => {
            let verdict = kind.verify().await?;
            return Ok(Outcome { verdict: Some(verdict), ..Outcome::at(kind.state()) });
        }
        Action::Swap if kind.state() == State::Swapped => already(kind).await?,
        Action::Swap => return Ok(exchanged(kind, kind.swap().await?)),
        Action::Rollback => match kind.state() {
            State::RolledBack => already(kind).await?,
            State::Swapped => return Ok(exchanged(kind, kind.rollback().await?)),
            state => return Err(no_swap(kind, state)),
        },
        Action::Sync => kind.sync().await?,
        Action::Finalize { now } if kind.state() != State::Finalized => {
            may_finalize::<K>(kind, now)?;
            kind.finalize().await?;
        }
        Action::Abort if kind.state() != State::Aborted => {
            may_abort(kind)?;
            kind.abort().await?;
        }
        Action::Finalize { .. } | Action::Abort => {}
    }
    Ok(Outcome::at(kind.state()))
}

/// Runs all remaining phases, and the swap if requested.
async fn run<K: JobKind>(kind: &K, swap: bool) -> Result<Outcome> {
    while kind.next().await?.is_some() {
        kind.check_stop()?;
    }
    match kind.state() {
        State::Synced | State::Verified | State::RolledBack if swap => {
            Ok(exchanged(kind, kind.swap().await?))
        }
        _ => {
            kind.complete().await?;
            Ok(Outcome::at(kind.state()))
        }
    }
}

fn exchanged(driver: &Driver, swapped: Swapped) -> Outcome {
    Outcome { swapped: Some(swapped), ..Outcome::at(driver.state()) }
}

async fn already<K: JobKind>(kind: &K) -> Result<()> {
    kind.events.note(JobNote::AlreadyInState { job: kind.job.name.clone(), state: kind.state() });
    kind.finish_exchange().await
}

fn no_swap(driver: &Driver, state: State) -> Error {
    let name = &driver.job.name;
    Error::usage(format!("job {name} is {state}: there is no swap to roll back"))
        .hint(format!("to remove everything that the job created: `pgstrata abort {}`", word(name)))
}

/// Fails if the rollback window cannot be ended.
fn may_finalize<K: JobKind>(driver: &Driver, now: bool) -> Result<()> {
    let (name, state) = (&driver.job.name, driver.state());
    if state != State::Swapped {
        return Err(Error::usage(format!("job {name} is {state}: only a swapped job can be finalized"))
            .hint(format!("`pgstrata status {}` shows the state of the job", word(name))));
    }
    match driver.job.keep_old_until.filter(|until| !now && *until > clock::now()) {
        None => Ok(()),
        Some(until) => {
            let until = until.format("%Y-%m-%d %H:%M UTC");
            let message = format!("the old {} is kept until {until}, as set in the plan", K::KEPT);
            Err(Error::new(Kind::Stopped, message)
                .hint(format!("to drop it now: `pgstrata finalize --now {}`", word(name))))
        }
    }
}

/// Fails if the job cannot be aborted.
fn may_abort(driver: &Driver) -> Result<()> {
    let (name, state) = (&driver.job.name, driver.state());
    if state.next(Step::Abort).is_some() {
        return Ok(());
    }
    let error = Error::usage(format!("job {name} is {state}, and cannot be aborted"));
    if state.is_final() {
        return Err(error);
    }
    let typed = word(name);
    Err(error.hint(format!(
        "run `pgstrata rollback {typed}`, which keeps all writes, then `pgstrata abort {typed}`"
    )))
}

/// Reports a change that cannot be carried over instead of failing, for a command without an exchange. The next
/// exchange fails because of the change.
///
/// # Errors
/// A lock could not be acquired; or the connection was lost.
pub fn reported_only(driver: &Driver, carried: Result<()>) -> Result<()> {
    match carried {
        Err(e) if e.retry_class() == Retry::Never && e.kind() == Kind::Failed => {
            driver.events.warn(RunWarning::NotCarriedOver { error: e.brief() });
            Ok(())
        }
        other => other,
    }
}

/// The error of the last transaction of a job, with a hint if objects of others depend on what it removes.
pub fn depended_on(driver: &Driver, error: Error, step: Step) -> Error {
    if !error.is(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) {
        return error;
    }
    let command = if step == Step::Finalize { "finalize" } else { "abort" };
    error.hint(format!(
        "drop the objects that depend on it, or change them so that they do not; then run `pgstrata {command} {}`",
        word(&driver.job.name)
    ))
}

/// Unwraps a design of the expected kind.
pub fn of_kind<T>(design: Option<&T>) -> Result<&T> {
    design.ok_or_else(|| Error::failed("the stored definition belongs to another kind of job"))
}

/// The error for a report with mismatches.
pub fn differs(report: &VerifyReport) -> Error {
    let named: Vec<String> =
        report.examples.iter().take(5).map(|e| format!("{}: key {}", e.kind, e.key)).collect();
    let job = word(&report.job);
    let (stands, instead) = if report.swapped {
        ("the swap remains in effect", format!("to give up the rollback: `pgstrata finalize --now {job}`"))
    } else {
        ("nothing was swapped", format!("to start over: `pgstrata abort {job}`"))
    };
    Error::new(
        Kind::Differs,
        format!(
            "the two {} differ: {} missing, {} extra, {} different",
            report.sides,
            number::counted(report.missing, "row"),
            number::count(report.extra),
            number::count(report.different)
        ),
    )
    .cause(format!("for example: {}", named.join("; ")))
    .hint(format!("{stands}; `pgstrata verify {job}` lists more rows; {instead}"))
}
