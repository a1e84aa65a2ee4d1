//! The result of a verification, as text.

use super::paint::{Paint, harmless};
use crate::model::{number, verify_report::VerifyReport};

/// The rows of both sides, the differences, and some of the keys.
pub(super) fn text(report: &VerifyReport, paint: Paint) -> String {
    let mut lines = vec![
        format!("in use     {}", number::counted(report.rows_in_use, "row")),
        format!("inactive   {}", number::counted(report.rows_inactive, "row")),
    ];
    let missing = if report.sides == "columns" {
        "the inactive column has no value"
    } else {
        "not in the inactive table"
    };
    let extra = "only in the inactive table, or duplicated there";
    for (name, n, meaning) in [
        ("missing", report.missing, missing),
        ("extra", report.extra, extra),
        ("different", report.different, "the values differ"),
    ] {
        if n > 0 {
            lines.push(format!("{name:<10} {}: {meaning}", number::counted(n, "row")));
        }
    }
    if report.pending > 0 {
        let keys = number::counted(report.pending, "key");
        lines.push(format!(
            "pending    {keys}: not compared, because their rows changed during the comparison"
        ));
    }
    for example in &report.examples {
        let place = example.place.as_deref().map(|place| format!(" (partition column: {})", harmless(place)));
        let (kind, key) = (example.kind, harmless(&example.key));
        lines.push(format!("  {kind}: key {key}{}", place.unwrap_or_default()));
    }
    let (job, sides) = (harmless(&report.job), report.sides);
    lines.push(if report.verified {
        format!("{}: {job}: the two {sides} match", paint.good("verified"))
    } else {
        format!("{}: {job}: the two {sides} differ", paint.bad("not verified"))
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::verify_report::{Example, MismatchKind};

    #[test]
    fn differences_are_listed_by_key() {
        let same = VerifyReport {
            job: "t".to_owned(),
            sides: "tables",
            rows_in_use: 2_000_000,
            rows_inactive: 2_000_000,
            verified: true,
            ..VerifyReport::default()
        };
        insta::assert_snapshot!(text(&same, Paint(false)), @"
        in use     2,000,000 rows
        inactive   2,000,000 rows
        verified: t: the two tables match
        ");
        let example = |kind, key: &str, place: Option<&str>| Example {
            kind,
            key: key.to_owned(),
            place: place.map(str::to_owned),
        };
        let differs = VerifyReport {
            rows_inactive: 2_000_001,
            missing: 1,
            extra: 2,
            different: 1,
            pending: 3,
            verified: false,
            examples: vec![
                example(MismatchKind::Missing, "7", None),
                example(MismatchKind::PartitionColumnDiffers, "8, a\nb", Some("2024-02-01 00:00:00+00")),
                example(MismatchKind::Duplicate, "9", None),
            ],
            ..same
        };
        insta::assert_snapshot!(text(&differs, Paint(false)), @r#"
        in use     2,000,000 rows
        inactive   2,000,001 rows
        missing    1 row: not in the inactive table
        extra      2 rows: only in the inactive table, or duplicated there
        different  1 row: the values differ
        pending    3 keys: not compared, because their rows changed during the comparison
          missing: key 7
          partition column differs: key 8, a\nb (partition column: 2024-02-01 00:00:00+00)
          duplicate: key 9
        not verified: t: the two tables differ
        "#);
        insta::assert_snapshot!(super::super::json::result(&differs), @r#"{"job":"t","rows_in_use":2000000,"rows_inactive":2000001,"missing":1,"extra":2,"different":1,"pending":3,"verified":false,"examples":[{"kind":"missing","key":"7","place":null},{"kind":"partition_column_differs","key":"8, a\nb","place":"2024-02-01 00:00:00+00"},{"kind":"duplicate","key":"9","place":null}]}"#);
    }
}
