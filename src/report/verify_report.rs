//! The result of a verification, as text.

use super::paint::{Paint, harmless};
use crate::model::{number, verify_report::VerifyReport};

/// The rows of both sides, the differences, and some of the keys.
pub(super) fn text(report: &VerifyReport, paint: Paint) -> String {
    let mut lines = vec![
        format!("source     {}", number::counted(report.rows_source, "row")),
        format!("target     {}", number::counted(report.rows_target, "row")),
    ];
    for (name, n) in [("missing", report.missing), ("extra", report.extra), ("different", report.different)] {
        if n > 0 {
            lines.push(format!("{name:<10} {}", number::counted(n, "row")));
        }
    }
    if report.pending > 0 {
        lines.push(format!(
            "pending    {}, changed during the comparison",
            number::counted(report.pending, "key")
        ));
    }
    for example in &report.examples {
        let place = example.place.as_deref().map(|place| format!(" in {}", harmless(place)));
        lines.push(format!("  {:<9} {}{}", example.kind, harmless(&example.key), place.unwrap_or_default()));
    }
    let job = harmless(&report.job);
    lines.push(if report.verified {
        format!("{}: {job}: both sides have the same rows", paint.good("verified"))
    } else {
        format!("{}: {job}: the sides differ", paint.bad("not verified"))
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
            rows_source: 2_000_000,
            rows_target: 2_000_000,
            verified: true,
            ..VerifyReport::default()
        };
        insta::assert_snapshot!(text(&same, Paint(false)), @"
        source     2,000,000 rows
        target     2,000,000 rows
        verified: t: both sides have the same rows
        ");
        let example = |kind, key: &str, place: Option<&str>| Example {
            kind,
            key: key.to_owned(),
            place: place.map(str::to_owned),
        };
        let differs = VerifyReport {
            rows_target: 2_000_001,
            missing: 1,
            extra: 2,
            different: 1,
            pending: 3,
            verified: false,
            examples: vec![
                example(MismatchKind::Missing, "(7)", None),
                example(MismatchKind::Misplaced, "(8,a\nb)", Some("t_y2024m02")),
                example(MismatchKind::Doubled, "(9)", None),
            ],
            ..same
        };
        insta::assert_snapshot!(text(&differs, Paint(false)), @r#"
        source     2,000,000 rows
        target     2,000,001 rows
        missing    1 row
        extra      2 rows
        different  1 row
        pending    3 keys, changed during the comparison
          missing   (7)
          misplaced (8,a\nb) in t_y2024m02
          doubled   (9)
        not verified: t: the sides differ
        "#);
        insta::assert_snapshot!(super::super::json::result(&differs), @r#"{"job":"t","rows_source":2000000,"rows_target":2000001,"missing":1,"extra":2,"different":1,"pending":3,"verified":false,"examples":[{"kind":"missing","key":"(7)","place":null},{"kind":"misplaced","key":"(8,a\nb)","place":"t_y2024m02"},{"kind":"doubled","key":"(9)","place":null}]}"#);
    }
}
