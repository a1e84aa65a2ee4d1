//! The results of filling a sample, as text.

use std::time::Duration;

use super::paint::{Paint, harmless};
use crate::model::number;
use crate::model::sample::{Keys, Sample};

/// The rows before and after, problems with the keys of the affected rows, and the estimated duration.
pub(super) fn text(sample: &Sample, paint: Paint) -> String {
    let rows = |n: u64| number::counted(n, "row");
    let of = sample
        .rows_to_fill
        .map_or_else(String::new, |all| format!(" of about {} to fill", number::count(all)));
    let done = if sample.updated {
        "updated and rolled back"
    } else {
        "only computed, because a column does not exist yet"
    };
    let mut lines = vec![
        format!("sample     {}{of}; {done}", rows(sample.rows)),
        format!("before     {} match", number::count(sample.rows)),
        format!("after      {} still match", number::count(sample.still_matching.rows)),
    ];
    lines.extend(named(&sample.still_matching));
    for null in &sample.nulls {
        lines.push(format!("null       {} set to NULL in {}", harmless(&null.column), rows(null.rows)));
    }
    if sample.yielded_twice.rows > 0 {
        lines
            .push(format!("twice      {} matched more than once by `from`", rows(sample.yielded_twice.rows)));
        lines.extend(named(&sample.yielded_twice));
    }
    if !sample.errors.is_empty() {
        lines.push(format!("errors     {}", rows(sample.errors.len() as u64)));
        for error in &sample.errors {
            let (key, message) = (harmless(&error.key), harmless(&error.message));
            lines.push(format!("  key {key}: {message} (SQLSTATE {})", error.sqlstate));
        }
    }
    if sample.suppressed > 0 {
        lines.push(format!(
            "kept       {} not updated: a BEFORE UPDATE trigger returns NULL",
            rows(sample.suppressed)
        ));
    }
    if sample.busy > 0 {
        lines.push(format!(
            "busy       {} not updated: another session held a lock that they need",
            rows(sample.busy)
        ));
    }
    if sample.untried > 0 {
        lines.push(format!(
            "untried    {} not tested: too many errors, or the time limit of one minute",
            rows(sample.untried)
        ));
    }
    if let Some(ms) = sample.ms_per_1000_rows {
        let all = sample.all_rows_s.map_or_else(String::new, |s| {
            format!(
                ", {} for all rows with one worker",
                number::duration(Duration::try_from_secs_f64(s).unwrap_or_default())
            )
        });
        let what = if sample.updated { "" } else { ", not counting the update itself" };
        lines.push(format!("time       {ms:.1} ms for 1,000 rows{all}{what}"));
    }
    lines.push(match (sample.is_bad(), sample.rows) {
        (true, _) => paint.bad("some rows of the sample cannot be filled correctly"),
        (false, 0) => "no row of the sample matches".to_owned(),
        (false, _) => paint.good("the sample can be filled"),
    });
    lines.join("\n")
}

fn named(keys: &Keys) -> Option<String> {
    let more = keys.rows.saturating_sub(keys.keys.len() as u64);
    let more = if more > 0 { format!("; {} more", number::count(more)) } else { String::new() };
    (keys.rows > 0).then(|| format!("  keys {}{more}", harmless(&keys.keys.join("; "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sample::{Nulls, RowError};

    #[test]
    fn a_sample_lists_keys() {
        let good = Sample {
            rows: 1_000,
            rows_to_fill: Some(2_000_000),
            updated: true,
            ms_per_1000_rows: Some(12.34),
            all_rows_s: Some(24.7),
            ..Sample::default()
        };
        insta::assert_snapshot!(text(&good, Paint(false)), @"
        sample     1,000 rows of about 2,000,000 to fill; updated and rolled back
        before     1,000 match
        after      0 still match
        time       12.3 ms for 1,000 rows, 25s for all rows with one worker
        the sample can be filled
        ");
        let keys = |n: u32, rows| Keys { rows, keys: (1..=n).map(|i| format!("{i}, a\nb")).collect() };
        let bad = Sample {
            updated: false,
            still_matching: keys(2, 12),
            yielded_twice: keys(1, 1),
            errors: vec![RowError {
                key: "7".to_owned(),
                message: "division by zero".to_owned(),
                sqlstate: "22012".to_owned(),
            }],
            nulls: vec![Nulls { column: "ci".to_owned(), rows: 3 }],
            suppressed: 2,
            busy: 1,
            untried: 400,
            all_rows_s: None,
            ..good
        };
        insta::assert_snapshot!(text(&bad, Paint(false)), @r#"
        sample     1,000 rows of about 2,000,000 to fill; only computed, because a column does not exist yet
        before     1,000 match
        after      12 still match
          keys 1, a\nb; 2, a\nb; 10 more
        null       ci set to NULL in 3 rows
        twice      1 row matched more than once by `from`
          keys 1, a\nb
        errors     1 row
          key 7: division by zero (SQLSTATE 22012)
        kept       2 rows not updated: a BEFORE UPDATE trigger returns NULL
        busy       1 row not updated: another session held a lock that they need
        untried    400 rows not tested: too many errors, or the time limit of one minute
        time       12.3 ms for 1,000 rows, not counting the update itself
        some rows of the sample cannot be filled correctly
        "#);
        insta::assert_snapshot!(super::super::json::result(&bad), @r#"{"rows":1000,"rows_to_fill":2000000,"updated":false,"still_matching":{"rows":12,"keys":["1, a\nb","2, a\nb"]},"yielded_twice":{"rows":1,"keys":["1, a\nb"]},"errors":[{"key":"7","message":"division by zero","sqlstate":"22012"}],"nulls":[{"column":"ci","rows":3}],"suppressed":2,"busy":1,"untried":400,"ms_per_1000_rows":12.34,"all_rows_s":null}"#);
        insta::assert_snapshot!(text(&Sample::default(), Paint(false)), @"
        sample     0 rows; only computed, because a column does not exist yet
        before     0 match
        after      0 still match
        no row of the sample matches
        ");
    }
}
