//! The design of a job, by kind. It is determined once, before the job starts, and stored with the job.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Result, Value};

use super::blueprint::Blueprint;
use super::filling::Filling;
use super::ident::{Ident, QualifiedName};
use super::kind::{TaskKind, each_kind};
use super::retyping::Retyping;
use super::shell::word;
use super::state::State;
use super::table::Table;

/// The design of a job, including all names.
#[derive(Debug, Clone, PartialEq)]
pub enum Design {
    /// A partition job.
    Partition(Box<Blueprint>),
    /// A backfill.
    Backfill(Box<Filling>),
    /// A job that changes the type of a column.
    Retype(Box<Retyping>),
}

/// Properties of a job of any kind that do not require its driver.
pub trait Planned {
    /// The table of the job, as it was when the job was planned.
    fn source(&self) -> &Table;

    /// The phase that a driver runs while the job is in that state.
    fn phase(&self, state: State) -> &'static str;

    /// Whether the job logs changes in that state, so that it has a number of pending changes.
    fn logs_changes(&self, _state: State) -> bool {
        false
    }

    /// Whether the job fills columns of rows in that state; `status` then shows the number of rows.
    fn fills_rows(&self, state: State) -> bool;

    /// How the job updates rows in place; none for a job that copies them.
    fn updates(&self) -> Option<Filling> {
        None
    }

    /// Whether the job ends with a swap.
    fn is_swapped(&self) -> bool {
        true
    }

    /// The object that is in use after the job was finalized: `partitioned table`, `new column`.
    fn result(&self) -> &'static str;

    /// The message for a command that this kind of job does not support, and a hint.
    fn other_command(&self, name: &str) -> (String, String);
}

impl Planned for Blueprint {
    fn source(&self) -> &Table {
        &self.table
    }

    fn phase(&self, state: State) -> &'static str {
        match state {
            State::Planned => "prepare",
            State::Prepared => "capture",
            State::Capturing => "copy",
            State::Filled | State::Synced | State::Verified | State::RolledBack => "verify",
            State::Copied => "index",
            State::Indexed => "drain",
            State::Swapped => "sync",
            State::Finalized | State::Aborted => "over",
        }
    }

    fn logs_changes(&self, state: State) -> bool {
        state.is_captured()
    }

    fn fills_rows(&self, _state: State) -> bool {
        false
    }

    fn result(&self) -> &'static str {
        "partitioned table"
    }

    fn other_command(&self, name: &str) -> (String, String) {
        let table = self.table.name.plain();
        (
            format!("job {name} is a partition job: it copies {table} and does not fill columns"),
            format!("`pgstrata status {}` shows its progress", word(name)),
        )
    }
}

impl Planned for Filling {
    fn source(&self) -> &Table {
        &self.table
    }

    fn updates(&self) -> Option<Filling> {
        Some(self.clone())
    }

    fn phase(&self, state: State) -> &'static str {
        match state {
            State::Planned => "prepare",
            State::Prepared => "capture",
            State::Capturing => "fill",
            State::Verified => "finish",
            State::Finalized | State::Aborted => "over",
            _ => "verify",
        }
    }

    fn fills_rows(&self, _state: State) -> bool {
        true
    }

    fn is_swapped(&self) -> bool {
        false
    }

    fn result(&self) -> &'static str {
        "filled column"
    }

    fn other_command(&self, name: &str) -> (String, String) {
        let (table, typed) = (self.table.name.plain(), word(name));
        (
            format!("job {name} is a backfill: it updates {table} in place, and there is no second table"),
            format!(
                "`pgstrata run PLAN` continues it to its end; `pgstrata verify {typed}` checks every row \
                 again; `pgstrata abort {typed}` ends it"
            ),
        )
    }
}

impl Planned for Retyping {
    fn source(&self) -> &Table {
        &self.table
    }

    fn updates(&self) -> Option<Filling> {
        Some(self.filling())
    }

    fn phase(&self, state: State) -> &'static str {
        match state {
            State::Planned => "prepare",
            State::Prepared => "capture",
            State::Capturing => "fill",
            State::Filled | State::RolledBack => "index",
            State::Copied | State::Indexed | State::Synced | State::Verified => "verify",
            State::Swapped => "sync",
            State::Finalized | State::Aborted => "over",
        }
    }

    fn fills_rows(&self, state: State) -> bool {
        !state.is_final()
    }

    fn result(&self) -> &'static str {
        "new column"
    }

    fn other_command(&self, name: &str) -> (String, String) {
        let table = self.table.name.plain();
        (
            format!(
                "job {name} is a column type change: it changes a column of {table} and does not copy \
                the table"
            ),
            format!("`pgstrata status {}` shows its progress", word(name)),
        )
    }
}

impl Design {
    /// Parses the stored design of a job of that kind; none if this version does not know the kind.
    ///
    /// # Errors
    /// The document is not a design of that kind.
    pub fn read(kind: &str, stored: Value) -> Result<Option<Self>> {
        fn boxed<T: DeserializeOwned>(stored: Value) -> Result<Box<T>> {
            serde_json::from_value(stored)
        }
        let Some(kind) = TaskKind::named(kind) else { return Ok(None) };
        let read: fn(Value) -> Result<Self> = kind.pick([
            |stored| boxed(stored).map(Self::Partition),
            |stored| boxed(stored).map(Self::Backfill),
            |stored| boxed(stored).map(Self::Retype),
        ]);
        read(stored).map(Some)
    }

    /// The document to store.
    ///
    /// # Errors
    /// The design cannot be serialized as JSON.
    pub fn stored(&self) -> Result<Value> {
        fn value<T: Serialize>(one: &T) -> Result<Value> {
            serde_json::to_value(one)
        }
        each_kind!(self, Self, one => value(one))
    }

    /// The properties that every kind has.
    pub fn planned(&self) -> &dyn Planned {
        each_kind!(self, Self, one => &**one)
    }

    /// The design of a partition job.
    pub fn blueprint(&self) -> Option<&Blueprint> {
        if let Self::Partition(blueprint) = self { Some(blueprint) } else { None }
    }

    /// The design of a backfill.
    pub fn filling(&self) -> Option<&Filling> {
        if let Self::Backfill(filling) = self { Some(filling) } else { None }
    }

    /// The design of a column type change.
    pub fn retyping(&self) -> Option<&Retyping> {
        if let Self::Retype(retyping) = self { Some(retyping) } else { None }
    }

    /// The oid and the owner of the application's table.
    pub fn owned(&self) -> (u32, &Ident) {
        let table = self.planned().source();
        (table.oid, &table.owner)
    }

    /// The table of the job.
    pub fn table(&self) -> &QualifiedName {
        &self.planned().source().name
    }
}
