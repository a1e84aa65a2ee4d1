//! Findings as text: errors first, each with its hint.

use super::paint::{Paint, harmless};
use crate::model::{finding::Findings, number};

/// Every finding, followed by the numbers of errors and warnings.
pub(super) fn text(findings: &Findings, paint: Paint) -> String {
    let mut lines = Vec::new();
    for finding in findings {
        let level = paint.level(finding.level);
        let (object, message) = (harmless(&finding.object), harmless(&finding.message));
        lines.push(format!("{level}[{}]: {object}: {message}", finding.code));
        if !finding.hint.is_empty() {
            lines.push(format!("  {}: {}", paint.strong("hint"), harmless(&finding.hint)));
        }
    }
    lines.push(summary(findings, paint));
    lines.join("\n")
}

fn summary(findings: &Findings, paint: Paint) -> String {
    let counted = |n: usize, noun: &str| number::counted(n as u64, noun);
    let found =
        format!("{}, {}", counted(findings.errors(), "error"), counted(findings.warnings(), "warning"));
    match findings.errors() {
        0 => format!("{}: the job can start", paint.good(&found)),
        _ => format!("{}: the job cannot start", paint.bad(&found)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::finding::{Finding, Level};

    fn findings() -> Findings {
        let finding = |level, code, object: &str, message: &str, hint: &str| Finding {
            level,
            code,
            object: object.to_owned(),
            message: message.to_owned(),
            hint: hint.to_owned(),
        };
        Findings::new(vec![
            finding(Level::Note, "log_size", "public.t", "the change log will need about 1.2 GiB", ""),
            finding(
                Level::Error,
                "unique_without_partition_column",
                "public.\"t\x1b[2J\"",
                "unique constraint t_email_key does not contain the partition column created_at",
                "add created_at to it, or give up the guarantee: list it under [partition] drop_unique",
            ),
            finding(
                Level::Warning,
                "long_transaction",
                "public.t",
                "a transaction is open for 2h",
                "end it first",
            ),
        ])
    }

    #[test]
    fn each_finding_has_its_hint() {
        insta::assert_snapshot!(text(&findings(), Paint(false)), @r#"
        error[unique_without_partition_column]: public."t\u{1b}[2J": unique constraint t_email_key does not contain the partition column created_at
          hint: add created_at to it, or give up the guarantee: list it under [partition] drop_unique
        warning[long_transaction]: public.t: a transaction is open for 2h
          hint: end it first
        note[log_size]: public.t: the change log will need about 1.2 GiB
        1 error, 1 warning: the job cannot start
        "#);
        insta::assert_snapshot!(text(&Findings::default(), Paint(false)), @"0 errors, 0 warnings: the job can start");
        insta::assert_snapshot!(super::super::json::result(&findings()), @r#"{"errors":1,"warnings":1,"findings":[{"level":"error","code":"unique_without_partition_column","object":"public.\"t\u001b[2J\"","message":"unique constraint t_email_key does not contain the partition column created_at","hint":"add created_at to it, or give up the guarantee: list it under [partition] drop_unique"},{"level":"warning","code":"long_transaction","object":"public.t","message":"a transaction is open for 2h","hint":"end it first"},{"level":"note","code":"log_size","object":"public.t","message":"the change log will need about 1.2 GiB","hint":""}]}"#);
    }
}
