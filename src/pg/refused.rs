//! The errors of the server for SQL that is only tried.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::plan::check::Refusal;
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

/// The same for an error.
pub(super) fn refusal(error: Error) -> Result<Refusal> {
    match error.sqlstate() {
        Some(code) => Ok(Refusal { message: error.message().to_owned(), code: code.to_owned() }),
        None => Err(error),
    }
}
