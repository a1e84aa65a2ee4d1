//! Sends an exchange, of tables or of columns: looks at the definition, creates the function without a lock, then sends one
//! message from BEGIN to COMMIT that calls it.

use std::cell::{Cell, RefCell};

use serde::Deserialize;

use crate::error::{Error, Kind, Result, Retry};
use crate::event::PhaseOutcome;
use crate::failpoint;
use crate::model::history::History;
use crate::model::ident::QualifiedName;
use crate::model::state::State;
use crate::model::table::Table;
use crate::pg::lease;
use crate::pg::retry::failed_statement;
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::phase::job::driver::Driver;
use crate::sql::exchange::{self as sql, Call, Exchange, Refused};

/// The table, and the leaves of the partitioned one of the two, as they were at one moment.
#[derive(Debug)]
pub struct Definition {
    /// Tells whether it is still the same.
    hash: i64,
    /// The oid of the table that applications use.
    source: u32,
    /// The oid of the partitioned one.
    partitioned: u32,
    /// The table that applications use.
    pub table: Table,
    /// The leaves of the partitioned one.
    pub leaves: Vec<Leaf>,
}

/// A leaf.
#[derive(Debug, Deserialize)]
pub struct Leaf {
    /// Schema and name.
    pub name: QualifiedName,
    /// How many foreign keys of its own it has.
    pub keys: u64,
}

/// What a swap took.
#[derive(Debug, Clone, Copy)]
pub struct Swapped {
    /// Milliseconds from the first exclusive lock to the commit's return.
    pub held_ms: f64,
    /// Tries it took.
    pub tries: u32,
}

impl Swapped {
    /// The result of the phase.
    pub fn outcome(&self) -> PhaseOutcome {
        PhaseOutcome::NamesExchanged { lock_held_ms: self.held_ms, attempt: self.tries }
    }

    /// For the job's history.
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
    /// What created the function that describes the table, and the one that exchanges, as they are there now.
    there: RefCell<[Vec<String>; 2]>,
    in_turn: Cell<bool>,
}

impl<'a> Exchanger<'a> {
    /// By functions of these names.
    pub fn new(driver: &'a Driver, function: QualifiedName, definition: QualifiedName) -> Self {
        let (there, in_turn) = (RefCell::default(), Cell::default());
        Self { driver, function, definition, there, in_turn }
    }

    /// Creates functions, unless they are there already as they should be.
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

    /// Reads the definition of `source`, and the leaves of `partitioned`. It also plans the statement that the function runs
    /// under the lock.
    ///
    /// # Errors
    /// What the server said.
    pub async fn look(&self, source: u32, partitioned: u32) -> Result<Definition> {
        #[derive(Deserialize)]
        struct Found {
            table: Option<Table>,
            leaves: Vec<Leaf>,
        }
        self.create(0, sql::create_definition(&self.definition)).await?;
        let statement = self.driver.prepared(&sql::definition(&self.definition)).await?;
        let row = self.driver.control.query_one(&statement, &[&source, &partitioned]).await?;
        let found: Found = serde_json::from_value(row.get(1))
            .map_err(|e| Error::failed("the catalog's answer is not understood").cause(e.to_string()))?;
        let table =
            found.table.ok_or_else(|| Error::failed(format!("relation with oid {source} is gone")))?;
        Ok(Definition { hash: row.get(0), source, partitioned, table, leaves: found.leaves })
    }

    /// Creates the function of an exchange, and what `others` create; nobody waits for it.
    ///
    /// # Errors
    /// What the server said.
    pub async fn ready(&self, exchange: &Exchange, others: Vec<String>) -> Result<()> {
        let mut all = exchange.create();
        all.extend(others);
        self.create(1, all).await
    }

    /// Sends the message; the state that was reached, and for how many milliseconds the locks were held. After an error with
    /// [`Retry::Again`] nothing was changed and nothing is locked; [`refused`] says whether a change was pending.
    ///
    /// # Errors
    /// Again where a lock was not granted in time, a change is pending, or the table was altered since `definition` was read;
    /// busy where the job is another process's.
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
        // The second is sent right behind the first, and answered by itself.
        let (exchanged, held) =
            tokio::join!(client.batch_execute(&message), client.query_typed(sql::HELD_MS, &[]));
        if let Err(error) = exchanged {
            // A session that cannot even roll back is broken, and the next statement will show that.
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
    /// What the server said.
    pub async fn drop(self) -> Result<()> {
        all(&self.driver.control, &Exchange::drop(&self.function, &self.definition)).await
    }
}

/// Why the function refused; none where it was the server that did.
pub fn refused(error: &Error) -> Option<Refused> {
    Refused::of(error.sqlstate()?)
}

fn explained(error: tokio_postgres::Error) -> Error {
    let statement = failed_statement(&error);
    let error = Error::from(error);
    match (refused(&error), statement) {
        (Some(Refused::TakenOver), _) => lease::taken_over(),
        (Some(Refused::Moved), _) => {
            Error::new(Kind::Busy, "the job is in another state by now: another process moved it on")
        }
        (Some(_), _) => error.retry(Retry::Again),
        (None, Some(statement)) => error.context(format!("failed to run `{statement}`")),
        (None, None) => error,
    }
}
