//! What every phase of every kind of job uses: the job, its lease, its sessions, and the stop request.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result, Retry};
use crate::event::Events;
use crate::model::backoff::Backoff;
use crate::model::commands;
use crate::model::ident::QualifiedName;
use crate::model::pace::{MOST_WORKERS, Work};
use crate::model::retry_limit::RetryLimit;
use crate::model::state::{State, Step};
use crate::model::untrusted_code::Access;
use crate::pg::connect::{Session, Target};
use crate::pg::lease::{self, Lease};
use crate::pg::pool::{Sessions, pool};
use crate::pg::store::{self, Job};
use crate::pg::transaction::{READ_COMMITTED, transaction};
use crate::pg::untrusted_code;
use crate::phase::job::retries::{Retried, Retries};
use crate::plan::Plan;
use crate::sql::store as sql;
use crate::stop::Stop;
use crate::throttle::Gate;
use bb8::Pool;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Statement};

/// The number of attempts at a step that was certainly rolled back before it counts as failed.
const TRIES: u32 = 60;

/// What may throttle a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pacing {
    /// Nothing throttles it: a user or applications wait for it.
    AtOnce,
    /// The signals throttle it.
    Signals,
    /// The signals throttle it, and it stops outside the plan's windows.
    Windowed,
}

/// The parameters for opening a driver.
#[derive(Debug)]
pub struct Opening<'a> {
    /// The plan.
    pub plan: Plan,
    /// The job's number.
    pub job: i64,
    /// The destination of events.
    pub events: Events,
    /// The stop request.
    pub stop: Stop,
    /// The identity of this process.
    pub holder: &'a str,
    /// Whether this process had the lease and lost it.
    pub again: bool,
    /// What may throttle the command.
    pub pacing: Pacing,
}

/// One driver of one job.
#[derive(Debug)]
pub struct Driver {
    /// The plan.
    pub plan: Plan,
    /// The job as it was when this driver began; its current state is in [`Driver::state`].
    pub job: Job,
    /// The driver's own session, for everything except the work of the workers.
    pub control: Session,
    /// The workers' sessions.
    pub pool: Pool<Sessions>,
    /// The gate that every chunk passes.
    pub gate: Gate,
    /// The settings that overrode the plan when this driver began.
    pub settings: BTreeMap<String, String>,
    /// The destination of events.
    pub events: Events,
    /// The request to stop between chunks.
    pub stop: Stop,
    pacing: Pacing,
    target: Target,
    lease: Lease,
    state: Cell<State>,
    prepared: RefCell<HashMap<String, Statement>>,
    /// The shortest observed round trip.
    round_trip: Cell<Option<Duration>>,
    /// Whether commits of this driver no longer wait for a synchronous standby.
    pub standby_left: Cell<bool>,
}

impl Driver {
    /// Acquires the job's lease, as [`Lease::take`] does, and opens its sessions.
    ///
    /// # Errors
    /// Busy if another process has the lease, or has had it since this process lost it.
    pub async fn open(target: &Target, opening: Opening<'_>) -> Result<Self> {
        let Opening { plan, job, events, stop, holder, again, pacing } = opening;
        let lease = Lease::take(target, job, holder, again).await?;
        let control = lease::session(target, job, lease.epoch(), "control").await?;
        let job = store::jobs(&control, Some(plan.name()))
            .await?
            .into_iter()
            .find(|j| j.id == job)
            .ok_or_else(|| Error::failed("the job no longer exists in pgstrata.jobs"))?;
        let settings = store::settings(&control, job.id).await?;
        let workers = store::last_workers(&control, job.id).await?;
        let gate = Gate::new(&plan.with(&settings)?, pacing != Pacing::AtOnce, workers);
        // The pool opens sessions on demand, so the number of workers can grow.
        let most = u32::try_from(MOST_WORKERS).unwrap_or(1);
        let pool = pool(target, most, job.id, lease.epoch()).await?;
        Ok(Self {
            gate,
            settings,
            state: Cell::new(job.state),
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

    /// The database of the job.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What may throttle this command.
    pub fn pacing(&self) -> Pacing {
        self.pacing
    }

    /// Waits while a signal throttles the current kind of work.
    ///
    /// # Errors
    /// As [`Driver::check_stop`]; it does not wait in that case.
    pub async fn permitted(&self) -> Result<()> {
        self.permitted_for(self.gate.work()).await
    }

    /// The same for another kind of work.
    ///
    /// # Errors
    /// As [`Driver::check_stop`]; it does not wait in that case.
    pub async fn permitted_for(&self, work: Work) -> Result<()> {
        tokio::select! {
            biased;
            () = self.interrupted() => {}
            () = self.gate.wait_for(work) => {}
        }
        self.check_stop()
    }

    /// Opens another session of this driver, for work that must not wait for the others.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn session(&self, role: &str) -> Result<Session> {
        lease::session(&self.target, self.job.id, self.epoch(), role).await
    }

    /// A statement of the control session, prepared once: planning a statement over many partitions takes longer than
    /// running it.
    ///
    /// # Errors
    /// The server returned an error.
    pub async fn prepared(&self, sql: &str) -> Result<Statement> {
        let known = self.prepared.borrow().get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.control.prepare(sql).await?;
        self.prepared.borrow_mut().insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// The current state of the job.
    pub fn state(&self) -> State {
        self.state.get()
    }

    /// The text of a hint that lists the commands to end a job that cannot continue: only those that its state allows.
    pub fn way_out(&self) -> String {
        commands::way_out(&self.job.name, &self.job.design, self.state())
    }

    /// The epoch of the lease, which chunks must have.
    pub fn epoch(&self) -> i64 {
        self.lease.epoch()
    }

    /// Records that `step` is done, in the caller's transaction if `client` has one open.
    ///
    /// # Errors
    /// The state does not allow the step, or another driver changed the state.
    pub async fn advance(&self, client: &Client, step: Step) -> Result<State> {
        store::advance(client, self.job.id, self.state(), step).await
    }

    /// Sets the state in memory after it was committed.
    pub fn reached(&self, state: State) {
        self.state.set(state);
    }

    /// Fails if a stop was requested or the lease is lost.
    ///
    /// # Errors
    /// Stopped; or an unknown outcome if the connection of the lease is lost.
    pub fn check_stop(&self) -> Result<()> {
        if self.lease.lost().is_cancelled() {
            return Err(
                Error::failed("the connection that holds the job's lease was lost").retry(Retry::Unknown)
            );
        }
        if self.stop.is_requested() {
            return Err(Error::new(
                Kind::Stopped,
                format!("stopped {}; job {} is {}", self.stop.reason(), self.job.name, self.state()),
            )
            .hint("run the same command again to continue"));
        }
        Ok(())
    }

    /// Waits until a stop is requested or the lease is lost.
    pub async fn interrupted(&self) {
        tokio::select! {
            () = self.lease.lost().cancelled() => {}
            () = self.stop.requested() => {}
        }
    }

    /// Whether the connection of the lease is lost.
    pub fn has_lost_lease(&self) -> bool {
        self.lease.lost().is_cancelled()
    }

    /// Waits until the lease is lost, and then for `grace`.
    pub async fn silent(&self, grace: Duration) {
        self.lease.lost().cancelled().await;
        tokio::time::sleep(grace).await;
    }

    /// Repeats a step while it fails with an error after which the server certainly rolled it back (deadlock, lock
    /// timeout, serialization failure).
    ///
    /// # Errors
    /// The last error, if no attempt succeeds; any other error immediately.
    pub async fn retrying<T>(&self, what: &str, step: impl AsyncFn() -> Result<T>) -> Result<T> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));
        let limit = RetryLimit::attempts(TRIES);
        let mut retries = Retries::usual(&self.events, Retried::Step(what), limit);
        loop {
            self.check_stop()?;
            match step().await {
                Err(e) if e.retry_class() == Retry::Again => {
                    retries.failed(&e);
                    if backoff.failures() + 1 >= TRIES {
                        // Not retryable: otherwise, the engine would repeat all of these attempts.
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

    /// Makes another driver that takes over the job wait until this transaction ends.
    ///
    /// # Errors
    /// Another driver has already taken over the job.
    pub async fn hold_epoch(&self, client: &Client) -> Result<()> {
        let epoch = self.epoch();
        let named = [(&self.job.id as &(dyn ToSql + Sync), Type::INT8), (&epoch, Type::INT8)];
        let sent = Instant::now();
        let held = client.query_typed_opt(sql::HOLD_EPOCH, &named).await?;
        let took = sent.elapsed();
        self.round_trip.set(Some(self.round_trip.get().map_or(took, |least| least.min(took))));
        if held.is_some() { Ok(()) } else { Err(lease::taken_over()) }
    }

    /// Whether code that the table's owner attaches to the table would run with privileges that the owner does not
    /// have.
    ///
    /// # Errors
    /// The server returned an error.
    pub async fn owner_is_untrusted(&self, client: &Client) -> Result<bool> {
        let table = std::slice::from_ref(self.job.design.table());
        Ok(untrusted_code::untrusted_owner(client, table, self.plan.trust(), Access::Copies).await?.is_some())
    }

    /// Fails if this access to `tables` would run code of roles that are not trusted, and prevents others from altering
    /// the tables until the transaction ends. To be called in each transaction that reads or writes rows, before its
    /// snapshot.
    ///
    /// # Errors
    /// The code that was found.
    pub async fn check_untrusted_code(
        &self,
        client: &Client,
        tables: &[QualifiedName],
        access: Access,
    ) -> Result<()> {
        untrusted_code::check(client, tables, self.plan.trust(), access).await
    }

    /// The keys of rows with duplicate values, for an error: what the second column of `query` returns. The query runs
    /// the functions of an index of `table`. Empty if there is no query, or if it fails.
    pub async fn repeated_keys(&self, query: Option<String>, table: &QualifiedName) -> Vec<String> {
        let Some(query) = query else { return Vec::new() };
        let rows = transaction(&self.control, READ_COMMITTED, async |client| {
            self.check_untrusted_code(client, std::slice::from_ref(table), Access::Copies).await?;
            Ok(client.query(&query, &[]).await?)
        });
        rows.await.map_or_else(|_| Vec::new(), |rows| rows.iter().map(|row| row.get(1)).collect())
    }

    /// As [`Self::check_untrusted_code`], for a transaction that reads `source` and writes `target`. If both owners are
    /// trusted, this takes one query.
    ///
    /// # Errors
    /// The code that was found.
    pub async fn check_untrusted_code_between(
        &self,
        client: &Client,
        source: &QualifiedName,
        target: &QualifiedName,
    ) -> Result<()> {
        let (both, trust) = ([source.clone(), target.clone()], self.plan.trust());
        if untrusted_code::untrusted_owner(client, &both, trust, Access::Copies).await?.is_none() {
            return Ok(());
        }
        self.check_untrusted_code(client, &both[..1], Access::Reads).await?;
        self.check_untrusted_code(client, &both[1..], Access::Updates { cascades: false }).await
    }

    /// Reads `tables` in a transaction that runs no code of roles that are not trusted; see [`Self::check_untrusted_code`].
    ///
    /// # Errors
    /// The code that was found; or `work` failed.
    pub async fn reading<T>(
        &self,
        client: &Client,
        tables: &[QualifiedName],
        work: impl AsyncFnOnce(&Client) -> Result<T>,
    ) -> Result<T> {
        transaction(client, READ_COMMITTED, async |client| {
            self.check_untrusted_code(client, tables, Access::Reads).await?;
            work(client).await
        })
        .await
    }

    /// The time that the server worked, out of the time `took` for a number of round trips: the time for the network
    /// does not grow with the number of rows.
    pub fn work(&self, took: Duration, messages: u32) -> Duration {
        took.saturating_sub(self.round_trip.get().unwrap_or_default() * messages)
    }

    /// Closes the sessions and releases the lease.
    pub async fn close(self) {
        drop(self.pool);
        drop(self.control);
        self.lease.release().await;
    }
}
