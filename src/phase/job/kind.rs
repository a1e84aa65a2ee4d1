//! What every kind of job has in common: its commands, the order of their steps, and what they refuse. A kind adds what is
//! particular to it.

use std::ops::Deref;

use crate::clock;
use crate::error::{Error, Kind, Result, Retry};
use crate::event::{JobNote, RunWarning};
use crate::model::design::Design;
use crate::model::number;
use crate::model::shell::word;
use crate::model::state::{State, Step};
use crate::model::verify_report::{Looked, VerifyReport};
use crate::pg::connect::Session;
use crate::pg::preflight::Preflight;
use crate::pg::store::Job;
use crate::phase::job::driver::{Driver, Pacing};
use crate::phase::job::exchange::Swapped;
use crate::plan::Plan;
use crate::sql::section::Section;

/// A kind of job: how one driver of one job does what a command asks for. The engine drives any of them and knows none by name.
#[expect(async_fn_in_trait, reason = "no future of it is sent to another thread")]
pub trait JobKind: Deref<Target = Driver> + Sized {
    /// What is kept for a rollback after the swap: `table`, `column`.
    const KEPT: &'static str = "";

    /// Holds the plan against the live table, and changes nothing.
    ///
    /// # Errors
    /// What the server said. What is wrong with the table or the plan is no error but a finding.
    async fn preflight(session: &Session, plan: &Plan) -> Result<Preflight>;

    /// The statements of the job, as `pgstrata sql` prints them.
    ///
    /// # Errors
    /// The design is of another kind, or what the server said.
    async fn script(session: &Session, plan: &Plan, design: &Design) -> Result<Vec<Section>>;

    /// That a finalized job's plan is fulfilled, so that nothing is left to do; none where something is.
    ///
    /// # Errors
    /// What the server said.
    async fn done_already(session: &Session, job: &Job) -> Result<Option<JobNote>>;

    /// What the job holds on disk, and the command that frees it.
    ///
    /// # Errors
    /// What the server said.
    async fn held(session: &Session, job: &Job) -> Result<String>;

    /// Takes over a driver of a job of this kind.
    ///
    /// # Errors
    /// The job is of another kind.
    fn take_up(driver: Driver) -> Result<Self>;

    /// Gives the driver back.
    fn into_driver(self) -> Driver;

    /// Ends what a command before this one left behind.
    ///
    /// # Errors
    /// What the server said.
    async fn tidy_up(&self) -> Result<()> {
        Ok(())
    }

    /// Does the next phase of `run`; the state after it. None where no phase is left.
    ///
    /// # Errors
    /// What the phase said.
    async fn next(&self) -> Result<Option<State>>;

    /// What `run` does once no phase is left, and the job is not to be swapped.
    ///
    /// # Errors
    /// What the server said.
    async fn complete(&self) -> Result<()> {
        Ok(())
    }

    /// Compares, or looks at every row again.
    ///
    /// # Errors
    /// The job is not that far, or what the server said. A difference of two sides is in the verdict.
    async fn verify(&self) -> Result<Verdict>;

    /// Verifies, and puts the new side into use; the job is not swapped.
    ///
    /// # Errors
    /// The job is not that far; the sides differ; or the lock was not available.
    async fn swap(&self) -> Result<Swapped> {
        Err(self.job.of_another_kind())
    }

    /// Verifies, and puts the old side into use again; the job is swapped.
    ///
    /// # Errors
    /// The sides differ; or the lock was not available.
    async fn rollback(&self) -> Result<Swapped> {
        Err(self.job.of_another_kind())
    }

    /// Does what an exchange leaves to be done.
    ///
    /// # Errors
    /// A lock was not available; or the server is gone.
    async fn finish_exchange(&self) -> Result<()> {
        Ok(())
    }

    /// Brings the side that is not in use in sync.
    ///
    /// # Errors
    /// The job is not that far, or what the server said.
    async fn sync(&self) -> Result<()> {
        Err(self.job.of_another_kind())
    }

    /// Closes the rollback window.
    ///
    /// # Errors
    /// The lock was not available, or something depends on the side that is not in use.
    async fn finalize(&self) -> Result<State> {
        Err(self.job.of_another_kind())
    }

    /// Removes everything that the job made.
    ///
    /// # Errors
    /// What the server said.
    async fn abort(&self) -> Result<State>;
}

/// What a command asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Every phase before the swap, and the swap if asked for.
    Run {
        /// Swap once verified.
        swap: bool,
    },
    /// The comparison.
    Verify,
    /// The swap.
    Swap,
    /// The swap back.
    Rollback,
    /// Bring the side that is not in use in sync.
    Sync,
    /// Close the rollback window.
    Finalize {
        /// Before its time.
        now: bool,
    },
    /// Remove everything that the job made.
    Abort,
}

impl Action {
    /// What may hold it.
    pub fn pacing(self) -> Pacing {
        match self {
            Self::Run { .. } => Pacing::Windowed,
            Self::Verify | Self::Sync => Pacing::Signals,
            Self::Swap | Self::Rollback | Self::Finalize { .. } | Self::Abort => Pacing::AtOnce,
        }
    }

    /// Whether only jobs that end with a swap have it.
    pub fn needs_swap(self) -> bool {
        matches!(self, Self::Swap | Self::Rollback | Self::Sync | Self::Finalize { .. })
    }
}

/// What came of an action.
#[derive(Debug)]
pub struct Outcome {
    /// The job's state.
    pub state: State,
    /// What a swap or a rollback took, where there was one.
    pub swapped: Option<Swapped>,
    /// What `verify` came to.
    pub verdict: Option<Verdict>,
}

impl Outcome {
    /// At a state that the job was in already, or came to by itself.
    pub fn at(state: State) -> Self {
        Self { state, swapped: None, verdict: None }
    }
}

/// What `verify` came to.
#[derive(Debug)]
pub enum Verdict {
    /// Two sides, compared.
    Sides(VerifyReport),
    /// Every row, looked at again.
    Rows(Looked),
}

/// Does what a command asks for.
///
/// # Errors
/// What the kind said; or the job's state does not allow it.
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

/// Phase after phase, and the swap if asked for.
async fn run<K: JobKind>(kind: &K, swap: bool) -> Result<Outcome> {
    while kind.next().await?.is_some() {
        kind.go_on()?;
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
    Error::usage(format!("job {name} is {state}: there is no swap to take back"))
        .hint(format!("to remove what the job made: `pgstrata abort {}`", word(name)))
}

/// Whether the rollback window may be closed.
fn may_finalize<K: JobKind>(driver: &Driver, now: bool) -> Result<()> {
    let (name, state) = (&driver.job.name, driver.state());
    if state != State::Swapped {
        return Err(Error::usage(format!("job {name} is {state}: only a swapped job can be finalized"))
            .hint(format!("`pgstrata status {}` says what comes next", word(name))));
    }
    match driver.job.keep_old_until.filter(|until| !now && *until > clock::now()) {
        None => Ok(()),
        Some(until) => {
            let until = until.format("%Y-%m-%d %H:%M UTC");
            let message = format!("the old {} is kept until {until}, as the plan says", K::KEPT);
            Err(Error::new(Kind::Stopped, message)
                .hint(format!("to drop it now: `pgstrata finalize --now {}`", word(name))))
        }
    }
}

/// Whether the job can be aborted.
fn may_abort(driver: &Driver) -> Result<()> {
    let (name, state) = (&driver.job.name, driver.state());
    if state.next(Step::Abort).is_some() {
        return Ok(());
    }
    Err(Error::usage(format!("job {name} is {state}; only a job before its swap can be aborted"))
        .hint(format!("`pgstrata rollback {}` first: it loses nothing", word(name))))
}

/// Lets a change that cannot be carried over be reported where there is no exchange: the next one refuses it.
///
/// # Errors
/// A lock could not be acquired; or the server is gone.
pub fn reported_only(driver: &Driver, carried: Result<()>) -> Result<()> {
    match carried {
        Err(e) if e.retry_class() == Retry::Never && e.kind() == Kind::Failed => {
            driver.events.warn(RunWarning::NotCarriedOver { error: e.brief() });
            Ok(())
        }
        other => other,
    }
}

/// A design that its own kind of job asks for.
pub fn of_kind<T>(design: Option<&T>) -> Result<&T> {
    design.ok_or_else(|| Error::failed("the design is one of another kind of job"))
}

/// The error that a report with differences is.
pub fn differs(report: &VerifyReport) -> Error {
    let named: Vec<String> =
        report.examples.iter().take(5).map(|e| format!("{} {}", e.kind, e.key)).collect();
    let job = word(&report.job);
    let (stands, instead) = if report.swapped {
        ("the swap stands", format!("to give up the way back: `pgstrata finalize {job}`"))
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
    .cause(format!("among them, by key: {}", named.join(", ")))
    .hint(format!("{stands} and nothing was removed; `pgstrata verify {job}` names more rows; {instead}"))
}
