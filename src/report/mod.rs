//! The only code that prints. Results go to stdout, and events of a run go to stderr. With `--json`, both are JSON, and
//! events go to stdout too, one object per line.
//!
//! Errors while printing are ignored, so that a closed pipe or terminal does not stop a job.

mod bar;
mod checklist;
mod explain;
mod findings;
mod json;
mod lines;
mod paint;
mod sample;
mod sentence;
mod status;
mod survey;
mod verify_report;

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    time::Instant,
};

use clap::ColorChoice;
use serde::Serialize;
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinHandle};

use self::{bar::Bar, lines::Lines, paint::Paint};
use crate::{
    error::{Error, Kind},
    event::Event,
    model::{
        checklist::Checklist, explanation::Explanation, finding::Findings, sample::Sample, status::Status,
        verify_report::VerifyReport,
    },
    plan::survey::Survey,
};

/// Options for printing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// JSON instead of text.
    pub json: bool,
    /// Only results, warnings and errors.
    pub quiet: bool,
    /// Colors on stdout.
    pub color_stdout: bool,
    /// Colors on stderr.
    pub color_stderr: bool,
    /// Whether stderr is a terminal, so that a progress bar is shown instead of lines.
    pub terminal: bool,
}

impl Output {
    /// Combines the options with the properties of stdout and stderr, and with `NO_COLOR` (no-color.org).
    pub fn detect(json: bool, quiet: bool, color: ColorChoice) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colored = |is_terminal: bool| match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => is_terminal && !plain,
        };
        let terminal = io::stderr().is_terminal();
        let color_stdout = colored(io::stdout().is_terminal());
        Self { json, quiet, color_stdout, color_stderr: colored(terminal), terminal }
    }
}

/// Prints the events until the last sender is dropped. The task ends after everything is written.
pub fn spawn(output: Output, events: UnboundedReceiver<Event>) -> JoinHandle<()> {
    tokio::spawn(print_events(output, events))
}

async fn print_events(output: Output, mut events: UnboundedReceiver<Event>) {
    let paint = Paint(output.color_stderr);
    let mut lines = Lines::new(paint);
    let mut bar = (output.terminal && !output.json && !output.quiet).then(|| Bar::new(paint));
    while let Some(event) = events.recv().await {
        if !is_wanted(&event, output.quiet) {
            continue;
        }
        if output.json {
            to_stdout(&json::line(&event));
        } else if matches!(event, Event::Checked(_) | Event::Maintained(_)) {
            let print = || to_stdout(&lines::text(&event, Paint(output.color_stdout)));
            bar.as_ref().map_or_else(print, |bar| bar.above(print));
        } else if let Some(bar) = &mut bar {
            bar.show(&event);
        } else if let Some(line) = lines.line(&event, Instant::now()) {
            to_stderr(&line);
        }
    }
    if let Some(bar) = bar {
        bar.end();
    }
}

/// Whether an event is printed. Findings without errors and warnings are not. With `quiet`, only warnings and results
/// that need attention are.
fn is_wanted(event: &Event, quiet: bool) -> bool {
    match event {
        Event::Checked(findings) => findings.errors() > 0 || findings.warnings() > 0,
        Event::Maintained(done) => !(quiet && done.is_idle()),
        Event::Warning(_) => true,
        _ => !quiet,
    }
}

/// Prints the error that ends the process. A quiet run prints nothing if another process runs the job, or if it stopped
/// as requested, because cron would mail the output.
pub fn print_error(output: &Output, error: &Error) {
    if output.quiet && matches!(error.kind(), Kind::Busy | Kind::Stopped) {
        return;
    }
    let text = if output.json { json::error(error) } else { lines::error(error, Paint(output.color_stderr)) };
    to_stderr(&text);
}

/// Prints a text result, such as a plan or statements, without adding a newline.
pub fn print_text(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Prints the status of one job.
pub fn print_status(output: &Output, status: &Status) {
    let status = &status::with_sentences(status);
    print_result(output, status, || status::block(status));
}

/// Prints the status of all jobs: a table, or one JSON object per line.
pub fn print_statuses(output: &Output, statuses: &[Status]) {
    if output.json {
        statuses.iter().for_each(|status| to_stdout(&json::result(&status::with_sentences(status))));
    } else {
        to_stdout(&status::table(statuses));
    }
}

/// Prints what `plan` found: the plan, or, if it was written to `file`, the advice.
pub fn print_survey(output: &Output, table: &str, survey: &Survey, file: Option<&Path>) {
    match file {
        _ if output.json => to_stdout(&json::result(&survey::fields(table, survey, file))),
        None => print_text(&survey.text()),
        Some(_) if output.quiet => {}
        Some(file) => to_stdout(&survey::text(survey, file)),
    }
}

/// Prints the findings of a check.
pub fn print_findings(output: &Output, findings: &Findings) {
    print_result(output, findings, || findings::text(findings, Paint(output.color_stdout)));
}

/// The results of `check`; one JSON object.
#[derive(Debug, Serialize)]
pub struct Checked<'a> {
    /// The findings.
    #[serde(flatten)]
    pub findings: &'a Findings,
    /// The state of the server and of the table; none for a server that is not supported.
    pub checklist: Option<&'a Checklist>,
    /// The results of a sample, if one was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<&'a Sample>,
}

/// Prints the explanation of a finding.
pub fn print_explanation(output: &Output, explanation: &Explanation) {
    print_result(output, explanation, || explain::entry(explanation, Paint(output.color_stdout)));
}

/// Prints all codes, or one JSON object per line.
pub fn print_explanations(output: &Output, all: &[Explanation]) {
    if output.json {
        all.iter().for_each(|one| to_stdout(&json::result(one)));
    } else {
        to_stdout(&explain::list(all, Paint(output.color_stdout)));
    }
}

/// Prints the results of `check`: the checklist, then the findings, then the sample. A quiet check has no checklist.
pub fn print_checked(output: &Output, checked: &Checked<'_>) {
    let paint = Paint(output.color_stdout);
    print_result(output, checked, || {
        let checklist = checked.checklist.filter(|_| !output.quiet).map(|list| checklist::text(list, paint));
        let findings = Some(findings::text(checked.findings, paint));
        let sample = checked.sample.map(|sample| sample::text(sample, paint));
        [checklist, findings, sample].into_iter().flatten().collect::<Vec<_>>().join("\n")
    });
}

/// Prints the result of a verification.
pub fn print_verdict(output: &Output, report: &VerifyReport) {
    print_result(output, report, || verify_report::text(report, Paint(output.color_stdout)));
}

/// The output of `status --watch`. On a terminal, each status replaces the previous one.
#[derive(Debug, Default)]
pub struct StatusWatch {
    height: usize,
}

impl StatusWatch {
    /// Prints the current status of the jobs.
    pub fn print(&mut self, output: &Output, statuses: &[Status]) {
        if output.json {
            return print_statuses(output, statuses);
        }
        let text = match statuses {
            [one] => status::block(&status::with_sentences(one)),
            all => status::table(all),
        };
        if io::stdout().is_terminal() && self.height > 0 {
            // Move up to the start of the previous status, and clear the rest of the screen.
            print_text(&format!("\x1b[{}A\x1b[J", self.height));
        }
        self.height = text.lines().count();
        to_stdout(&text);
    }
}

/// Prints a result as one line of JSON, or as the text that `text` returns.
pub fn print_result<T: Serialize>(output: &Output, value: &T, text: impl FnOnce() -> String) {
    to_stdout(&if output.json { json::result(value) } else { text() });
}

fn to_stdout(line: &str) {
    print_text(&format!("{line}\n"));
}

fn to_stderr(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
