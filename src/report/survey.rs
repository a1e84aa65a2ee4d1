//! The result of `plan`: the advice and what the user has to decide, or the plan itself.

use std::path::Path;

use serde::Serialize;

use super::paint::harmless;
use crate::model::finding::{Finding, Level};
use crate::model::number;
use crate::model::shell::word;
use crate::plan::advise::{Advice, head};
use crate::plan::survey::Survey;

/// The result as one object.
#[derive(Debug, Serialize)]
pub(super) struct SurveyFields<'a> {
    table: &'a str,
    kind: &'static str,
    by: Option<&'a str>,
    #[serde(flatten)]
    advice: &'a Advice,
    findings: &'a [Finding],
    file: Option<String>,
    plan: String,
}

pub(super) fn fields<'a>(table: &'a str, survey: &'a Survey, file: Option<&Path>) -> SurveyFields<'a> {
    SurveyFields {
        table,
        kind: survey.kind,
        by: survey.by.as_deref(),
        advice: &survey.advice,
        findings: survey.findings(),
        file: file.map(|file| file.display().to_string()),
        plan: survey.text(),
    }
}

/// The advice, and what is next for the plan that was written to `file`.
pub(super) fn text(survey: &Survey, file: &Path) -> String {
    let mut lines = Vec::new();
    if survey.kind == "partition" {
        lines.extend(
            head(&survey.advice, survey.requested.as_deref()).iter().map(|line| harmless(line).into_owned()),
        );
        lines.push(String::new());
    }
    let count = |level| survey.findings().iter().filter(|finding| finding.level == level).count() as u64;
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    let file = word(&file.display().to_string());
    lines.push(match (survey.complete, errors) {
        (true, 0) => format!(
            "{file} is written, with {} as comments; next: pgstrata check {file}",
            number::counted(warnings, "warning")
        ),
        (true, _) => format!(
            "{file} is written, with {} and {} as comments; correct the errors, then: pgstrata check {file}",
            number::counted(errors, "error"),
            number::counted(warnings, "warning")
        ),
        (false, _) => format!(
            "{file} is written; fill in the lines that are marked as required, then: pgstrata check {file}"
        ),
    });
    lines.join("\n")
}
