//! What every phase of every kind of job works with: the job, its lease, its sessions, its way to be stopped.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result, Retry};
use crate::event::Events;
use crate::model::backoff::Backoff;
use crate::model::commands;
use crate::model::ident::{QualifiedName, plain};
use crate::model::pace::{MOST_WORKERS, Work};
use crate::model::retry_limit::RetryLimit;
use crate::model::state::{State, Step};
use crate::pg::connect::{Session, Target};
use crate::pg::lease::{self, Lease};
use crate::pg::lent;
use crate::pg::pool::{Sessions, pool};
use crate::pg::store::{self, Job};
use crate::phase::job::retries::{Retried, Retries};
use crate::plan::Plan;
use crate::sql::store as sql;
use crate::stop::Stop;
use crate::throttle::Gate;
use bb8::Pool;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Statement};

/// How often a step that rolled back for certain is sent again before it counts as failed.
const TRIES: u32 = 60;

/// What may hold a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pacing {
    /// Nothing: somebody waits for it, or applications do.
    AtOnce,
    /// The signals.
    Signals,
    /// The signals, and outside the plan's windows it stops.
    Windowed,
}

/// How a job is taken up.
#[derive(Debug)]
pub struct Opening<'a> {
    /// The plan.
    pub plan: Plan,
    /// The job's number.
    pub job: i64,
    /// Where events go.
    pub events: Events,
    /// Asks for a stop.
    pub stop: Stop,
    /// This process.
    pub holder: &'a str,
    /// This process had the lease and lost it.
    pub again: bool,
    /// What may hold it.
    pub pacing: Pacing,
}

/// One driver of one job.
#[derive(Debug)]
pub struct Driver {
    /// The plan.
    pub plan: Plan,
    /// The job as it was when this driver began; its state is in [`Driver::state`].
    pub job: Job,
    /// The driver's own session: everything that is not done by many.
    pub control: Session,
    /// The workers' sessions.
    pub pool: Pool<Sessions>,
    /// What every chunk passes.
    pub gate: Gate,
    /// Settings that differed from the plan when this driver began.
    pub settings: BTreeMap<String, String>,
    /// Where events go.
    pub events: Events,
    /// Asks for a stop between chunks.
    pub stop: Stop,
    pacing: Pacing,
    target: Target,
    lease: Lease,
    state: Cell<State>,
    /// The table's owner, where neither the job's role nor the plan trusts that role.
    lends_to: Option<String>,
    prepared: RefCell<HashMap<String, Statement>>,
    /// The shortest that a message and its answer took.
    round_trip: Cell<Option<Duration>>,
    /// COMMITs of this driver wait for no synchronous standby any more.
    pub standby_left: Cell<bool>,
}

impl Driver {
    /// Takes the job's lease, as [`Lease::take`] does, and opens its sessions.
    ///
    /// # Errors
    /// Busy where another process has the lease, or had it since this one lost it.
    pub async fn open(target: &Target, opening: Opening<'_>) -> Result<Self> {
        let Opening { plan, job, events, stop, holder, again, pacing } = opening;
        let lease = Lease::take(target, job, holder, again).await?;
        let control = lease::session(target, job, lease.epoch(), "control").await?;
        let job = store::jobs(&control, Some(plan.name()))
            .await?
            .into_iter()
            .find(|j| j.id == job)
            .ok_or_else(|| Error::failed("the job is gone from pgstrata.jobs"))?;
        let settings = store::settings(&control, job.id).await?;
        let workers = store::last_workers(&control, job.id).await?;
        let gate = Gate::new(&plan.with(&settings)?, pacing != Pacing::AtOnce, workers);
        // Sessions are opened when they are first needed, so that the number of workers may grow.
        let most = u32::try_from(MOST_WORKERS).unwrap_or(1);
        let pool = pool(target, most, job.id, lease.epoch()).await?;
        let lends_to = lends_to(&control, &job, &plan).await?;
        Ok(Self {
            gate,
            settings,
            state: Cell::new(job.state),
            lends_to,
            prepared: RefCell::default(),
            round_trip: Cell::default(),
            standby_left: Cell::default(),
            plan,
            job,
            control,
            pool,
            events,
            stop,
            pacing,
            target: target.clone(),
            lease,
        })
    }

    /// Where the job is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What may hold this command.
    pub fn pacing(&self) -> Pacing {
        self.pacing
    }

    /// Waits while a signal holds work that writes.
    ///
    /// # Errors
    /// As [`Driver::go_on`], at once.
    pub async fn pass(&self) -> Result<()> {
        tokio::select! {
            biased;
            () = self.interrupted() => {}
            () = self.gate.pass_for(Work::Writes) => {}
        }
        self.go_on()
    }

    /// One more session of this driver, for what must not wait for the others.
    ///
    /// # Errors
    /// What connecting said.
    pub async fn session(&self, role: &str) -> Result<Session> {
        lease::session(&self.target, self.job.id, self.epoch(), role).await
    }

    /// A statement of the control session, prepared once: planning one over many partitions takes longer than running it.
    ///
    /// # Errors
    /// What the server said.
    pub async fn prepared(&self, sql: &str) -> Result<Statement> {
        let known = self.prepared.borrow().get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.control.prepare(sql).await?;
        self.prepared.borrow_mut().insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Where the job is.
    pub fn state(&self) -> State {
        self.state.get()
    }

    /// How to end the job where it cannot go on, for a hint: only what can be done in its state.
    pub fn way_out(&self) -> String {
        commands::way_out(&self.job.name, &self.job.design, self.state())
    }

    /// The epoch that chunks must hold.
    pub fn epoch(&self) -> i64 {
        self.lease.epoch()
    }

    /// Records that `step` is done; in the caller's transaction, if `client` has one open.
    ///
    /// # Errors
    /// The step is not legal here, or another driver moved the job.
    pub async fn advance(&self, client: &Client, step: Step) -> Result<State> {
        store::advance(client, self.job.id, self.state(), step).await
    }

    /// Takes over a state that was committed.
    pub fn reached(&self, state: State) {
        self.state.set(state);
    }

    /// Fails where a stop was asked for, or the lease is lost.
    ///
    /// # Errors
    /// Stopped, or unknown where the lease's connection is gone.
    pub fn go_on(&self) -> Result<()> {
        if self.lease.lost().is_cancelled() {
            return Err(
                Error::failed("the connection that holds the job's lease was lost").retry(Retry::Unknown)
            );
        }
        if self.stop.is_asked() {
            return Err(Error::new(
                Kind::Stopped,
                format!("stopped {}; job {} is {}", self.stop.why(), self.job.name, self.state()),
            )
            .hint("run the same command again to go on"));
        }
        Ok(())
    }

    /// Waits until a stop is asked for or the lease is lost.
    pub async fn interrupted(&self) {
        tokio::select! {
            () = self.lease.lost().cancelled() => {}
            () = self.stop.asked() => {}
        }
    }

    /// Whether the connection that holds the lease is lost.
    pub fn has_lost_lease(&self) -> bool {
        self.lease.lost().is_cancelled()
    }

    /// Waits until the lease is lost, and `grace` longer.
    pub async fn silent(&self, grace: Duration) {
        self.lease.lost().cancelled().await;
        tokio::time::sleep(grace).await;
    }

    /// Sends a step again as long as the server rolled it back for certain (deadlock, lock timeout, serialization).
    ///
    /// # Errors
    /// The last one, when it will not help to try again.
    pub async fn retrying<T>(&self, what: &str, step: impl AsyncFn() -> Result<T>) -> Result<T> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));
        let limit = RetryLimit::attempts(TRIES);
        let mut retries = Retries::usual(&self.events, Retried::Step(what), limit);
        loop {
            self.go_on()?;
            match step().await {
                Err(e) if e.retry_class() == Retry::Again => {
                    retries.failed(&e);
                    if backoff.failures() + 1 >= TRIES {
                        // Tried often enough: taking it up once more would do all of that again.
                        let spent = retries.spent();
                        return Err(e.context(format!("failed to {what} in {spent}")).retry(Retry::Never));
                    }
                    tokio::time::sleep(backoff.next(rand::random())).await;
                }
                Err(e) if e.kind() == Kind::Stopped => return Err(e),
                Err(e) => return Err(e.context(format!("failed to {what}"))),
                Ok(value) => return Ok(value),
            }
        }
    }

    /// Keeps a new driver waiting until this transaction is over.
    ///
    /// # Errors
    /// There is a new driver already.
    pub async fn hold_epoch(&self, client: &Client) -> Result<()> {
        let epoch = self.epoch();
        let named = [(&self.job.id as &(dyn ToSql + Sync), Type::INT8), (&epoch, Type::INT8)];
        let sent = Instant::now();
        let held = client.query_typed_opt(sql::HOLD_EPOCH, &named).await?;
        let took = sent.elapsed();
        self.round_trip.set(Some(self.round_trip.get().map_or(took, |least| least.min(took))));
        if held.is_some() { Ok(()) } else { Err(lease::taken_over()) }
    }

    /// Whether what the table's owner puts on it would run with rights that the owner lacks.
    pub fn lends(&self) -> bool {
        self.lends_to.is_some()
    }

    /// Fails where writing `tables` would run code of roles that are not trusted, and keeps such code away until the transaction
    /// ends: to be called in each transaction that writes rows, before its snapshot.
    ///
    /// # Errors
    /// What the code is.
    pub async fn lend_nothing(&self, client: &Client, tables: &[QualifiedName]) -> Result<()> {
        match &self.lends_to {
            Some(owner) => lent::none(client, tables, self.plan.trust(), owner, true).await,
            None => Ok(()),
        }
    }

    /// The same for a transaction that puts on another table what `table` has, and fires none of its triggers.
    ///
    /// # Errors
    /// What the code is.
    pub async fn lend_nothing_of(&self, client: &Client, table: &QualifiedName) -> Result<()> {
        match &self.lends_to {
            Some(owner) => {
                let tables = std::slice::from_ref(table);
                lent::none(client, tables, self.plan.trust(), owner, false).await
            }
            None => Ok(()),
        }
    }

    /// For how long the server worked, of the time that so many messages and their answers took: the network's share does not
    /// grow with the rows.
    pub fn work(&self, took: Duration, messages: u32) -> Duration {
        took.saturating_sub(self.round_trip.get().unwrap_or_default() * messages)
    }

    /// Lets the job go.
    pub async fn close(self) {
        drop(self.pool);
        drop(self.control);
        self.lease.release().await;
    }
}

/// The owner of the job's table, where that role is not trusted.
async fn lends_to(client: &Client, job: &Job, plan: &Plan) -> Result<Option<String>> {
    let (oid, owner) = job.design.owned();
    let trusted = lent::owner_is_trusted(client, oid, plan.trust()).await?;
    Ok((!trusted).then(|| plain(owner.as_str())))
}
