//! The results of filling a sample, as text.

use std::time::Duration;

use super::paint::{Paint, harmless};
use crate::model::number;
use crate::model::sample::{Keys, Sample};

/// The width of the labels.
const WIDTH: usize = 13;

/// The number of rows, problems with the keys of the affected rows, and the estimated duration.
pub(super) fn text(sample: &Sample, paint: Paint) -> String {
    let rows = |n: u64| number::counted(n, "row");
    let line = |label: &str, text: String| format!("{label:<WIDTH$} {text}");
    let of = sample
        .rows_to_fill
        .map_or_else(String::new, |all| format!(" of about {} to fill", number::count(all)));
    let done = if sample.updated {
        "updated and rolled back"
    } else {
        "only computed, because a column does not exist yet"
    };
    let mut lines = vec![
        line("sample", format!("{}{of}; {done}", rows(sample.rows))),
        line("still match", format!("{} after they are filled", rows(sample.still_matching.rows))),
    ];
    lines.extend(named(&sample.still_matching));
    for null in &sample.nulls {
        lines.push(line("set to NULL", format!("{}: column {}", rows(null.rows), harmless(&null.column))));
    }
    if sample.yielded_twice.rows > 0 {
        let twice = format!("{}: `from` returns more than one match", rows(sample.yielded_twice.rows));
        lines.push(line("matched twice", twice));
        lines.extend(named(&sample.yielded_twice));
    }
    if !sample.errors.is_empty() {
        lines.push(line("failed", rows(sample.errors.len() as u64)));
        for error in &sample.errors {
            let (key, message) = (harmless(&error.key), harmless(&error.message));
            lines.push(format!("  key {key}: {message} (SQLSTATE {})", error.sqlstate));
        }
    }
    for (label, n, reason) in [
        ("suppressed", sample.suppressed, "not updated, because a BEFORE UPDATE trigger returned NULL"),
        ("locked", sample.busy, "not updated, because another session held a lock that the update needs"),
        ("not tested", sample.untried, "too many errors, or the time limit of one minute was reached"),
    ] {
        if n > 0 {
            lines.push(line(label, format!("{}: {reason}", rows(n))));
        }
    }
    if let Some(ms) = sample.ms_per_1000_rows {
        let all = sample.all_rows_s.map_or_else(String::new, |s| {
            format!(
                ", {} for all rows with one worker",
                number::duration(Duration::try_from_secs_f64(s).unwrap_or_default())
            )
        });
        let what = if sample.updated { "" } else { ", not counting the update itself" };
        lines.push(line("time", format!("{ms:.1} ms for 1,000 rows{all}{what}")));
    }
    lines.push(match (sample.is_bad(), sample.rows) {
        (true, _) => paint.bad("some rows of the sample cannot be filled correctly"),
        (false, 0) => "the sample contains no row to fill".to_owned(),
        (false, _) => paint.good("no problem was found in the sample"),
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
        sample        1,000 rows of about 2,000,000 to fill; updated and rolled back
        still match   0 rows after they are filled
        time          12.3 ms for 1,000 rows, 25s for all rows with one worker
        no problem was found in the sample
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
        sample        1,000 rows of about 2,000,000 to fill; only computed, because a column does not exist yet
        still match   12 rows after they are filled
          keys 1, a\nb; 2, a\nb; 10 more
        set to NULL   3 rows: column ci
        matched twice 1 row: `from` returns more than one match
          keys 1, a\nb
        failed        1 row
          key 7: division by zero (SQLSTATE 22012)
        suppressed    2 rows: not updated, because a BEFORE UPDATE trigger returned NULL
        locked        1 row: not updated, because another session held a lock that the update needs
        not tested    400 rows: too many errors, or the time limit of one minute was reached
        time          12.3 ms for 1,000 rows, not counting the update itself
        some rows of the sample cannot be filled correctly
        "#);
        insta::assert_snapshot!(super::super::json::result(&bad), @r#"{"rows":1000,"rows_to_fill":2000000,"updated":false,"still_matching":{"rows":12,"keys":["1, a\nb","2, a\nb"]},"yielded_twice":{"rows":1,"keys":["1, a\nb"]},"errors":[{"key":"7","message":"division by zero","sqlstate":"22012"}],"nulls":[{"column":"ci","rows":3}],"suppressed":2,"busy":1,"untried":400,"ms_per_1000_rows":12.34,"all_rows_s":null}"#);
        insta::assert_snapshot!(text(&Sample::default(), Paint(false)), @"
        sample        0 rows; only computed, because a column does not exist yet
        still match   0 rows after they are filled
        the sample contains no row to fill
        ");
    }
}
