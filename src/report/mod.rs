//! The only printer. Results go to stdout, everything that is said on the way to stderr; with `--json` both are JSON,
//! and what a run says on the way goes to stdout too, one object a line, because it is what was asked for.
//!
//! Nothing that is printed can fail a job: a closed pipe or a terminal that went away is no reason to stop.

mod bar;
mod explain;
mod findings;
mod json;
mod lines;
mod paint;
mod sample;
mod sentence;
mod status;
mod verify_report;

use std::{
    io::{self, IsTerminal, Write},
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
        explanation::Explanation, finding::Findings, sample::Sample, status::Status,
        verify_report::VerifyReport,
    },
};

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// JSON instead of text.
    pub json: bool,
    /// Nothing but results, warnings and errors.
    pub quiet: bool,
    /// Colors on stdout.
    pub color_stdout: bool,
    /// Colors on stderr.
    pub color_stderr: bool,
    /// Whether somebody watches stderr: a bar that moves, instead of lines.
    pub terminal: bool,
}

impl Output {
    /// As the options say, and where they leave it open, as the process's streams are (and `NO_COLOR`, no-color.org).
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

/// Prints what comes out of `events` until the last sender is gone; ends when everything is written.
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

/// Whether an event is printed: the findings of a check with no errors and no warnings are not. With `quiet`, only
/// warnings and results that need attention are.
fn is_wanted(event: &Event, quiet: bool) -> bool {
    match event {
        Event::Checked(findings) => findings.errors() > 0 || findings.warnings() > 0,
        Event::Maintained(done) => !(quiet && done.is_idle()),
        Event::Warning(_) => true,
        _ => !quiet,
    }
}

/// Says why the process ends. A quiet run that found another one at work, or stopped as requested, has nothing to say: cron would mail it.
pub fn print_error(output: &Output, error: &Error) {
    if output.quiet && matches!(error.kind(), Kind::Busy | Kind::Stopped) {
        return;
    }
    let text = if output.json { json::error(error) } else { lines::error(error, Paint(output.color_stderr)) };
    to_stderr(&text);
}

/// A plan, statements: text that is itself the result, without a line end of ours.
pub fn print_text(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Where one job is.
pub fn print_status(output: &Output, status: &Status) {
    let status = &status::with_sentences(status);
    print_result(output, status, || status::block(status));
}

/// Where all jobs are: a table, or one JSON object a line.
pub fn print_statuses(output: &Output, statuses: &[Status]) {
    if output.json {
        statuses.iter().for_each(|one| to_stdout(&json::result(&status::with_sentences(one))));
    } else {
        to_stdout(&status::table(statuses));
    }
}

/// What a check found.
pub fn print_findings(output: &Output, findings: &Findings) {
    print_result(output, findings, || findings::text(findings, Paint(output.color_stdout)));
}

/// What a finding means.
pub fn print_explanation(output: &Output, one: &Explanation) {
    print_result(output, one, || explain::entry(one, Paint(output.color_stdout)));
}

/// All codes, or one JSON object a line.
pub fn print_explanations(output: &Output, all: &[Explanation]) {
    if output.json {
        all.iter().for_each(|one| to_stdout(&json::result(one)));
    } else {
        to_stdout(&explain::list(all, Paint(output.color_stdout)));
    }
}

/// What a check found, and what became of a sample: in JSON one object.
pub fn print_checked(output: &Output, findings: &Findings, sample: &Sample) {
    #[derive(Serialize)]
    struct Checked<'a> {
        #[serde(flatten)]
        findings: &'a Findings,
        sample: &'a Sample,
    }
    let paint = Paint(output.color_stdout);
    print_result(output, &Checked { findings, sample }, || {
        format!("{}\n{}", findings::text(findings, paint), sample::text(sample, paint))
    });
}

/// What a comparison found.
pub fn print_verdict(output: &Output, report: &VerifyReport) {
    print_result(output, report, || verify_report::text(report, Paint(output.color_stdout)));
}

/// `status --watch`: each look in the place of the one before where stdout is a terminal, else one below the other.
#[derive(Debug, Default)]
pub struct Watch {
    height: usize,
}

impl Watch {
    /// Prints the next look at the jobs.
    pub fn print(&mut self, output: &Output, statuses: &[Status]) {
        if output.json {
            return print_statuses(output, statuses);
        }
        let text = match statuses {
            [one] => status::block(&status::with_sentences(one)),
            all => status::table(all),
        };
        if io::stdout().is_terminal() && self.height > 0 {
            // Up to where the last look began, and clear from there on.
            print_text(&format!("\x1b[{}A\x1b[J", self.height));
        }
        self.height = text.lines().count();
        to_stdout(&text);
    }
}

/// Prints a result: as one line of JSON, or as `text` says it.
pub fn print_result<T: Serialize>(output: &Output, value: &T, text: impl FnOnce() -> String) {
    to_stdout(&if output.json { json::result(value) } else { text() });
}

fn to_stdout(line: &str) {
    print_text(&format!("{line}\n"));
}

fn to_stderr(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
