//! The errors of the server for SQL that is only tried: which are part of the result, and which mean that the trial is skipped,
//! such as a lock that another session holds.

use serde_json::Value;
use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::model::finding::{Finding, Level};
use crate::model::table::Table;
use crate::plan::check::{self, Refusal, TableTrial, Writes};
use crate::sql::trial as sql;

/// Whether a plan has a separate scan for the part of the probe.
pub(super) fn scans_probe(plan: &Value) -> bool {
    match plan {
        Value::Object(node) => {
            node.get("CTE Name").and_then(Value::as_str) == Some(sql::PROBE) || node.values().any(scans_probe)
        }
        Value::Array(all) => all.iter().any(scans_probe),
        _ => false,
    }
}

/// Whether an error is no evidence about what was tried: a lock that others hold, or an expired time limit.
pub(super) fn is_passing(code: &str) -> bool {
    let passing = [SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED, SqlState::T_R_DEADLOCK_DETECTED];
    passing.iter().any(|state| state.code() == code)
}

/// The result of a trial; none if it failed with an error that is no evidence about what was tried, which is recorded.
pub(super) fn passing<T>(tried: Result<T>, what: &str, trial: &mut TableTrial) -> Result<Option<T>> {
    match tried {
        Ok(it) => Ok(Some(it)),
        Err(e) if e.sqlstate().is_some_and(is_passing) => {
            trial.untried.push((what.to_owned(), e.message().to_owned()));
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// The server's error about what was tried; other errors are returned as errors.
pub(super) fn refusal(error: Error) -> Result<Refusal> {
    match error.sqlstate() {
        Some(code) if !is_passing(code) => {
            Ok(Refusal { message: error.message().to_owned(), code: code.to_owned() })
        }
        _ => Err(error),
    }
}

/// The results of the trials on the server, for a job that computes values.
pub(super) const PLANS_SQL: &str = "the plan's SQL";

/// The result of a trial; none, with a warning, if it failed because of a lock that others hold or a time limit.
pub(super) fn passed<T>(
    tried: Result<T>,
    what: &str,
    table: &Table,
    findings: &mut Vec<Finding>,
) -> Result<Option<T>> {
    let mut trial = TableTrial::default();
    let result = passing(tried, what, &mut trial)?;
    findings.extend(check::table_tried(table, &trial, Writes::Updates));
    Ok(result)
}

/// Whether one of the findings is an error.
pub(super) fn has_errors(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.level == Level::Error)
}
