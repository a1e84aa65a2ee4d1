//! Findings from a trial on the server, which creates the table's definitions a second time and evaluates them on some
//! of its rows.

use super::words::Words;
use super::{Report, rows_that};
use crate::model::filling::Filling;
use crate::model::finding::Finding;
use crate::model::ident::{Ident, plain};
use crate::model::number;
use crate::model::orphans::Orphans;
use crate::model::table::{Check, Table};

/// SQLSTATE: a name refers to a table that is not in the statement.
const UNDEFINED_TABLE: &str = "42P01";

/// The result of the trial.
#[derive(Debug, Clone, Default)]
pub struct TableTrial {
    /// What the server rejects: the action, the object, and the error.
    pub refused: Vec<(How, String, Refused)>,
    /// Objects that would refer to other functions, operators or types when they are created again, and the difference.
    pub changed: Vec<(String, String)>,
    /// CHECK constraints that could be tested on rows, each with the number of violating rows.
    pub violated: Vec<Violated>,
    /// What could not be tested, and why.
    pub untried: Vec<(String, String)>,
}

impl TableTrial {
    /// Whether the server rejected that object.
    pub fn names(&self, what: &str) -> bool {
        self.refused.iter().any(|(_, object, _)| object == what)
    }

    /// CHECK constraints that rows violate.
    pub fn violated_checks(&self) -> Vec<Ident> {
        let violated = self.violated.iter().filter(|check| check.rows > 0);
        violated.map(|violated| violated.check.name.clone()).collect()
    }
}

/// The action that the server rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Creating the object.
    Created,
    /// Evaluating it on a row.
    Computed,
}

/// The server's error.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Its message.
    pub message: String,
    /// Its SQLSTATE.
    pub code: String,
    /// The function of the application in which it occurred.
    pub context: Option<String>,
}

/// A CHECK constraint, and the rows that violate it.
#[derive(Debug, Clone)]
pub struct Violated {
    /// The constraint.
    pub check: Check,
    /// The number of rows.
    pub rows: i64,
    /// The key of one of them.
    pub key: Option<String>,
    /// Whether it depends on more than the row: it calls functions that are not IMMUTABLE.
    pub depends_on_more: bool,
    /// Whether every row was tested, instead of a sample.
    pub whole: bool,
}

/// Returns the findings of the trial.
pub fn table_tried(table: &Table, trial: &TableTrial, job: Writes) -> Vec<Finding> {
    let mut report = Report::default();
    for (how, what, refused) in &trial.refused {
        match how {
            How::Created => not_creatable(&mut report, what, refused),
            How::Computed => fails_for_job(&mut report, table, what, refused),
        }
    }
    for (what, difference) in &trial.changed {
        meaning_changes(&mut report, what, difference);
    }
    for one in &trial.violated {
        if one.rows > 0 {
            violated(&mut report, table, one, job);
        } else if one.depends_on_more {
            may_change(&mut report, table, &one.check);
        }
    }
    for (what, message) in &trial.untried {
        let message = format!("{what} could not be tested: {message}");
        report.warning(
            "untried",
            what,
            message,
            "run the check again when the server is less busy, or with the privilege that the message \
             names",
        );
    }
    report.0
}

/// Removes violations that may not prevent the backfill: those of CHECK constraints on columns that it sets, and all of
/// them if the plan has a `where`, which may exclude the violating rows.
pub fn unmended(trial: &mut TableTrial, filling: &Filling) {
    let sets = |check: &Check| {
        let words = Words::of(&check.definition);
        filling.set.iter().any(|(name, _)| words.has(&[name.as_str()]))
    };
    trial.violated.retain(|one| filling.filter.is_none() && !sets(&one.check));
}

/// How the job writes the table's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// The job inserts them into another table.
    Copies,
    /// The job updates them in the table itself.
    Updates,
}

fn meaning_changes(report: &mut Report, what: &str, difference: &str) {
    report.error(
        "meaning_changes",
        what,
        format!("{what} would change its meaning when it is created again: {difference}"),
        "write it with an explicit operator, a OPERATOR(schema.=) b in place of IS DISTINCT FROM, NULLIF, CASE or JOIN USING; or \
         revoke CREATE on the schema of the operator or function from roles that the job does not trust",
    );
}

fn not_creatable(report: &mut Report, what: &str, refused: &Refused) {
    report.error(
        "not_creatable",
        what,
        format!("{what} cannot be created again: {}", refused.message),
        match refused.code.as_str() {
            UNDEFINED_TABLE => {
                "it refers to the whole row, which cannot be carried over to another table: list the columns \
                 explicitly, or drop it before the run"
            }
            _ => "change it so that the server accepts it, or drop it before the run",
        },
    );
}

fn fails_for_job(report: &mut Report, table: &Table, what: &str, refused: &Refused) {
    let name = table.name.plain();
    let context = refused.context.as_ref().map_or(String::new(), |context| format!(" ({context})"));
    let (what, object) = if what == "a row" {
        (format!("a row of {name}"), name.clone())
    } else {
        (what.to_owned(), what.to_owned())
    };
    let hint = match &refused.context {
        Some(_) => {
            "if a function cannot find a name, set its search_path: alter function ... set search_path = \
             ...; otherwise correct the function, or drop the object that calls it until the job is finalized"
        }
        None => "correct it, or drop it until the job is finalized",
    };
    report.error(
        "fails_for_job",
        object,
        format!("{what} fails in the job's sessions: {}{context}", refused.message),
        hint,
    );
}

fn violated(report: &mut Report, table: &Table, one: &Violated, job: Writes) {
    let (name, table) = (plain(one.check.name.as_str()), table.name.plain());
    let least = if one.whole { "" } else { "at least " };
    let rows = rows_that(one.rows, "of", "of");
    let verb = if one.rows == 1 { "does" } else { "do" };
    let key = one.key.as_ref().map_or(String::new(), |key| format!(", such as the one with key {key}"));
    let fact = format!("{least}{rows} {table} {verb} not satisfy constraint {name}{key}");
    if job == Writes::Copies {
        return report.warning(
            "check_violated",
            &name,
            format!("{fact}: the partitioned table gets the constraint as NOT VALID, after the copy"),
            "no action is needed if old rows may stay as they are; otherwise correct them before the job starts",
        );
    }
    report.error(
        "check_violated",
        &name,
        format!("{fact}: updates of them would fail"),
        format!(
            "correct the rows, or drop the constraint before the run: alter table {table} drop constraint {name}"
        ),
    );
}

fn may_change(report: &mut Report, table: &Table, check: &Check) {
    let (name, table) = (plain(check.name.as_str()), table.name.plain());
    report.warning(
        "check_may_change",
        &name,
        format!(
            "constraint {name} calls functions that are not IMMUTABLE: if a row no longer satisfies it when it is \
             copied, the next swap or rollback adds the constraint as NOT VALID"
        ),
        format!(
            "no action is needed if a row that once satisfied it always does; otherwise correct such rows after the swap and run: \
             alter table {table} validate constraint {name}"
        ),
    );
}

/// Reports rows that violate foreign keys. The swap creates these keys again, and their validation would fail.
pub fn orphaned(found: &[Orphans]) -> Vec<Finding> {
    let mut report = Report::default();
    for orphans in found {
        report.error(
            "foreign_key_violated",
            plain(&orphans.key),
            format!("{}, by key: {}", orphans.fact(), orphans.named()),
            "correct or delete these rows, or insert the rows that they refer to; or drop the foreign key \
             and add it again as NOT VALID",
        );
    }
    report.0
}

/// Reports rows whose key is not valid UTF-8, because the job's sessions read keys as UTF-8 text.
pub fn unreadable_keys(table: &Table, rows: i64) -> Vec<Finding> {
    let mut report = Report::default();
    let name = table.name.plain();
    if rows > 0 {
        report.error(
            "key_not_utf8",
            &name,
            format!(
                "{} of {name} have key values that are not valid UTF-8, which the job cannot read in an \
                 SQL_ASCII database",
                number::counted(rows.unsigned_abs(), "row")
            ),
            "correct the keys, or move the data into a database that has their encoding",
        );
    } else {
        report.warning(
            "key_not_utf8",
            &name,
            format!(
                "the encoding of the database is SQL_ASCII, and the key of {name} contains text: \
                the job stops at a key that is not valid UTF-8"
            ),
            "no action is needed if the application writes no such keys",
        );
    }
    report.0
}
