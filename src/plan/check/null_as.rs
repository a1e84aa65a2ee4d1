//! Findings about `null_as`, which a partition job carries out as a backfill of the rows with NULL.

use super::{Refusal, Report, rows_that};
use crate::model::filling::Filling;
use crate::model::finding::{Finding, Level};
use crate::model::ident::{Ident, plain};

/// Adds the findings that are not reported yet: the check of the backfill repeats some of those about the table.
pub fn add_new(findings: &mut Vec<Finding>, more: Vec<Finding>) {
    for one in more {
        let told = |known: &Finding| {
            known.code == one.code && (known.object == one.object || one.level == Level::Note)
        };
        if !findings.iter().any(told) {
            findings.push(one);
        }
    }
}

/// The findings of a backfill in the terms of `null_as`.
pub fn of_null_as(mut findings: Vec<Finding>) -> Vec<Finding> {
    for one in findings.iter_mut().filter(|one| one.code == "type_mismatch") {
        "null_as".clone_into(&mut one.object);
        one.message = one.message.replace("`set`", "`null_as`");
        "write an explicit cast: null_as = \"(...)::the_type\"".clone_into(&mut one.hint);
    }
    findings
}

/// Reports that the expression is NULL for `nulls` of the first `rows` rows with NULL.
pub fn null_as_null(f: &Filling, nulls: i64, rows: i64) -> Option<Finding> {
    let message = format!(
        "null_as returns NULL for {nulls} of the first {}: these rows would still belong in no partition",
        rows_that(rows, "with NULL", "with NULL")
    );
    let hint = "write an expression that never returns NULL, such as coalesce(..., now())";
    (nulls > 0).then(|| error(f, message, hint))
}

/// Reports that the expression fails for a row with NULL.
pub fn null_as_refused(f: &Filling, refusal: &Refusal) -> Finding {
    let message = format!("null_as fails for a row with NULL: {}", refusal.message);
    error(f, message, "correct the expression, or these rows")
}

fn error(f: &Filling, message: String, hint: &str) -> Finding {
    let column = f.set.first().map_or(String::new(), |(name, _): &(Ident, String)| plain(name.as_str()));
    let mut report = Report::default();
    report.error("null_as_null", column, message, hint);
    report.0.remove(0)
}
