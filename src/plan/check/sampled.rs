//! Findings from a trial update of a few rows, for jobs that update rows.

use super::Report;
use crate::model::finding::Finding;
use crate::model::number;
use crate::model::sample::{RowError, Sample};
use crate::model::table::Table;

/// Returns the findings: the job would fail on rows like these.
pub fn sampled(table: &Table, sample: &Sample) -> Vec<Finding> {
    let mut report = Report::default();
    let name = table.name.plain();
    for (message, keys) in by_message(&sample.errors) {
        let rows = if keys.len() == 1 { "row" } else { "rows" };
        report.error(
            "row_refused",
            &name,
            format!("the update of {rows} {} of {name} fails: {message}", keys.join("; ")),
            "correct the row, the plan's SQL, or the trigger or constraint that rejects the row; if a function does not find a name, \
             set its search_path: alter function ... set search_path = ...",
        );
    }
    if sample.suppressed > 0 {
        report.error(
            "update_suppressed",
            &name,
            format!(
                "a BEFORE UPDATE trigger suppresses the update of {} of {name} in the sample: the job would stop at these rows",
                number::counted(sample.suppressed, "row")
            ),
            format!("find the trigger that returns NULL, and disable it until the job is finalized: alter table \
             {name} disable trigger ..."),
        );
    }
    if sample.still_matching.rows > 0 {
        report.error(
            "row_still_matches",
            &name,
            format!(
                "{} of {name} still satisfy the plan's `where` after the update; by key: {}",
                number::counted(sample.still_matching.rows, "row"),
                sample.still_matching.keys.join("; ")
            ),
            "write a `where` that a filled row does not satisfy, such as where = \"t.column is null\"; see what the table's triggers \
             change in the row",
        );
    }
    if sample.yielded_twice.rows > 0 {
        report.error(
            "row_yielded_twice",
            &name,
            format!(
                "the plan's `from` matches {} of {name} more than once; by key: {}",
                number::counted(sample.yielded_twice.rows, "row"),
                sample.yielded_twice.keys.join("; ")
            ),
            "write a `from` that returns at most one row for each row of the table, such as lateral (select ... limit 1)",
        );
    }
    report.0
}

/// The keys of failing rows, grouped by error message.
fn by_message(errors: &[RowError]) -> Vec<(String, Vec<&str>)> {
    let mut all: Vec<(String, Vec<&str>)> = Vec::new();
    for error in errors {
        let message = format!("{} (SQLSTATE {})", error.message, error.sqlstate);
        match all.iter_mut().find(|(other, _)| *other == message) {
            Some((_, keys)) => keys.push(&error.key),
            None => all.push((message, vec![&error.key])),
        }
    }
    all
}

/// Reports that the update could not be tested.
pub fn sample_untried(table: &Table, message: &str) -> Vec<Finding> {
    let mut report = Report::default();
    let name = table.name.plain();
    report.warning(
        "untried",
        &name,
        format!("the update of rows of {name} could not be tested: {message}"),
        "run the check again when there is less load on the table",
    );
    report.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixture;

    #[test]
    fn rows_that_fail_alike_are_one_finding() {
        let error = |key: &str, message: &str| RowError {
            key: key.to_owned(),
            message: message.to_owned(),
            sqlstate: "22012".to_owned(),
        };
        let sample = Sample {
            errors: vec![error("1", "division by zero"), error("2", "no"), error("3", "division by zero")],
            ..Sample::default()
        };
        let messages: Vec<String> =
            sampled(&fixture::petri(), &sample).into_iter().map(|finding| finding.message).collect();
        insta::assert_snapshot!(messages.join("\n"), @"
        the update of rows 1; 3 of public.petri_observations fails: division by zero (SQLSTATE 22012)
        the update of row 2 of public.petri_observations fails: no (SQLSTATE 22012)
        ");
    }
}
