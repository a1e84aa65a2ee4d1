//! Sends an exchange of tables or columns: reads the definition, creates the function without a lock, and then sends
//! one message, from BEGIN to COMMIT, that calls the function.

use std::cell::{Cell, RefCell};

use serde::Deserialize;

use crate::error::{Error, Kind, Result, Retry};
use crate::event::PhaseOutcome;
use crate::failpoint;
use crate::model::blueprint::Direction;
use crate::model::history::History;
use crate::model::ident::QualifiedName;
use crate::model::rebound::Rebound;
use crate::model::state::State;
use crate::model::table::Table;
use crate::pg::lease;
use crate::pg::retry::failed_statement;
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::pg::untrusted_code;
use crate::phase::job::driver::Driver;
use crate::sql::exchange::{self as sql, Call, Exchange, FailedCheck};

/// The hint if only [objects that were added](crate::model::difference::are_added_users) prevent an exchange; `keep` is
/// what a rollback would undo.
pub fn drop_added_users(ending: Direction, keep: &str) -> String {
    let drop = "drop what was added, or change it so that it does not use the table";
    match ending {
        Direction::Forward => format!("{drop}, and run the same command again; nothing was swapped"),
        Direction::Reverse => format!("{drop}, then roll back; or keep {keep} and finalize the job"),
    }
}

/// The definition of the table in use, and the leaves of the partitioned table, read in one statement.
#[derive(Debug)]
pub struct Definition {
    /// Detects whether the definition has changed since.
    hash: i64,
    /// The oid of the table that applications use.
    source: u32,
    /// The oid of the partitioned table.
    partitioned: u32,
    /// The table that applications use.
    pub table: Table,
    /// The leaves of the partitioned table.
    pub leaves: Vec<LeafDefinition>,
    /// The objects that refer to the column by its number, for an exchange of columns.
    pub rebound: Rebound,
}

/// A leaf partition.
#[derive(Debug, Deserialize)]
pub struct LeafDefinition {
    /// Schema and name.
    pub name: QualifiedName,
    /// The number of its own foreign keys.
    pub keys: u64,
}

/// The cost of an exchange.
#[derive(Debug, Clone, Copy)]
pub struct Swapped {
    /// Milliseconds from the first exclusive lock to the end of the commit.
    pub held_ms: f64,
    /// The number of attempts.
    pub tries: u32,
}

impl Swapped {
    /// The result of the phase.
    pub fn outcome(&self) -> PhaseOutcome {
        PhaseOutcome::NamesExchanged { lock_held_ms: self.held_ms, attempt: self.tries }
    }

    /// The entry for the job's history.
    pub fn history(&self) -> History {
        History::LockHeld { held_ms: (self.held_ms * 10.0).round() / 10.0, attempt: self.tries }
    }
}

/// Makes attempts at an exchange.
#[derive(Debug)]
pub struct Exchanger<'a> {
    driver: &'a Driver,
    function: QualifiedName,
    definition: QualifiedName,
    /// The statements that created the two functions in their current form: the one that returns the definition, and
    /// the one that performs the exchange.
    there: RefCell<[Vec<String>; 2]>,
    in_turn: Cell<bool>,
    /// The query for the objects that refer to the column by its number.
    rebound: Option<String>,
}

impl<'a> Exchanger<'a> {
    /// Creates an exchanger that uses these names for its functions.
    pub fn new(driver: &'a Driver, function: QualifiedName, definition: QualifiedName) -> Self {
        let (there, in_turn) = (RefCell::default(), Cell::default());
        Self { driver, function, definition, there, in_turn, rebound: None }
    }

    /// The same, for an exchange of columns: `query` returns the objects that refer to the column by its number.
    #[must_use]
    pub fn with_rebound(self, query: String) -> Self {
        Self { rebound: Some(query), ..self }
    }

    /// Creates functions, unless they already exist in the required form.
    async fn create(&self, which: usize, statements: Vec<String>) -> Result<()> {
        if self.there.borrow()[which] == statements {
            return Ok(());
        }
        transaction(&self.driver.control, READ_COMMITTED, async |client| {
            self.driver.hold_epoch(client).await?;
            all(client, &statements).await
        })
        .await?;
        self.there.borrow_mut()[which] = statements;
        Ok(())
    }

    /// Reads the definition of `source` and the leaves of `partitioned`. This also plans the statement that the
    /// function runs under the lock.
    ///
    /// # Errors
    /// A definition cannot be created again safely; or the server returned an error.
    pub async fn look(&self, source: u32, partitioned: u32) -> Result<Definition> {
        #[derive(Deserialize)]
        struct Found {
            table: Option<Table>,
            leaves: Vec<LeafDefinition>,
            #[serde(default)]
            rebound: Rebound,
        }
        let trust = self.driver.plan.trust();
        untrusted_code::check_recreated(&self.driver.control, &[source], trust).await?;
        self.create(0, sql::create_definition(&self.definition, self.rebound.as_deref())).await?;
        let statement = self.driver.prepared(&sql::definition(&self.definition)).await?;
        let row = self.driver.control.query_one(&statement, &[&source, &partitioned]).await?;
        let found: Found = serde_json::from_value(row.get(1)).map_err(|e| {
            Error::failed(
                "the result of a catalog query could not be \
                parsed",
            )
            .caused_by(e)
        })?;
        let table = found.table.ok_or_else(|| {
            Error::failed(format!(
                "the relation with oid {source} no longer \
                exists"
            ))
            .hint("the table was dropped while the job was open; restore it, and run the same command again")
        })?;
        let Found { leaves, rebound, .. } = found;
        if !rebound.oids.is_empty() {
            untrusted_code::check_recreated(&self.driver.control, &rebound.oids, trust).await?;
        }
        Ok(Definition { hash: row.get(0), source, partitioned, table, leaves, rebound })
    }

    /// Creates the function of an exchange, and runs the statements `others`; blocks no session.
    ///
    /// # Errors
    /// The server returned an error.
    pub async fn ready(&self, exchange: &Exchange, others: Vec<String>) -> Result<()> {
        let mut all = exchange.create();
        all.extend(others);
        self.create(1, all).await
    }

    /// Sends the message; returns the new state and for how many milliseconds the locks were held. After an error with
    /// [`Retry::Again`], nothing was changed and no lock is held; [`failed_check`] returns the reason.
    ///
    /// # Errors
    /// Again if a lock was not granted in time, a change is pending, or the table was altered since `definition` was
    /// read; busy if another process has the job.
    pub async fn send(
        &self,
        exchange: &Exchange,
        definition: &Definition,
        first: String,
    ) -> Result<(State, f64)> {
        let client = &self.driver.control;
        let call = Call {
            first,
            job: self.driver.job.id,
            state: self.driver.state(),
            keep_s: self.driver.plan.keep_old().as_secs_f64(),
            epoch: self.driver.epoch(),
            definition: definition.hash,
            source: definition.source,
            partitioned: definition.partitioned,
            wait_ms: self.driver.plan.lock_timeout().as_millis(),
            in_turn: self.in_turn.replace(!self.in_turn.get()),
        };
        let message = exchange.message(&call);
        failpoint!("swap.ready");
        // The second message is sent without waiting for the answer to the first.
        let (exchanged, held) =
            tokio::join!(client.batch_execute(&message), client.query_typed(sql::HELD_MS, &[]));
        if let Err(error) = exchanged {
            // If this fails, the session is broken and the next statement returns the error.
            let _ = client.batch_execute("rollback").await;
            return Err(explained(error));
        }
        self.driver.reached(exchange.to);
        failpoint!("swap.done");
        let held_ms = held.ok().and_then(|rows| rows.first()?.try_get(0).ok()).unwrap_or_default();
        Ok((exchange.to, held_ms))
    }

    /// Drops the functions.
    ///
    /// # Errors
    /// The server returned an error.
    pub async fn drop(self) -> Result<()> {
        all(&self.driver.control, &Exchange::drop(&self.function, &self.definition)).await
    }
}

/// Why the function failed; none if the server raised the error.
pub fn failed_check(error: &Error) -> Option<FailedCheck> {
    FailedCheck::of(error.sqlstate()?)
}

fn explained(error: tokio_postgres::Error) -> Error {
    let statement = failed_statement(&error);
    let error = Error::from(error);
    match (failed_check(&error), statement) {
        (Some(FailedCheck::TakenOver), _) => lease::taken_over(),
        (Some(FailedCheck::Moved), _) => {
            Error::new(Kind::Busy, "the job is in another state: another process has advanced it")
                .hint("`pgstrata status` shows the state of the job")
        }
        (Some(_), _) => error.retry(Retry::Again),
        (None, Some(statement)) => error.context(format!("failed to run `{statement}`")),
        (None, None) => error,
    }
}
