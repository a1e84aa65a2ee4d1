//! Events as plain lines, for logs and for mail from cron: the start and the end of a phase, and its progress every ten
//! seconds.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use super::findings;
use super::paint::{Paint, harmless};
use super::sentence;
use crate::{
    error::Error,
    event::Event,
    model::{finding::Level, number},
};

/// The minimum time between two progress lines.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Converts events into lines. The caller passes the time, which limits how often progress is printed.
pub(super) struct Lines {
    paint: Paint,
    progress_at: Option<Instant>,
}

impl Lines {
    pub(super) fn new(paint: Paint) -> Self {
        Self { paint, progress_at: None }
    }

    /// The line for `event` at `now`; none for progress soon after the previous line.
    pub(super) fn line(&mut self, event: &Event, now: Instant) -> Option<String> {
        match event {
            Event::PhaseStarted { .. } => self.progress_at = Some(now),
            Event::Progress { .. } => {
                if self.progress_at.is_some_and(|last| now.duration_since(last) < PROGRESS_EVERY) {
                    return None;
                }
                self.progress_at = Some(now);
            }
            _ => {}
        }
        Some(text(event, self.paint))
    }
}

/// An event as one line. The text of a story keeps its line breaks.
pub(super) fn text(event: &Event, paint: Paint) -> String {
    let sentence = sentence::of(event).unwrap_or_default();
    let sentence = harmless(&sentence);
    match event {
        Event::PhaseStarted { phase, .. } | Event::Progress { phase, .. } => {
            format!("{}: {sentence}", paint.strong(phase))
        }
        Event::PhaseDone { phase, duration_ms, outcome, .. } => {
            let took = number::duration(Duration::from_secs_f64(duration_ms / 1000.0));
            let result = if sentence.is_empty() { String::new() } else { format!(": {sentence}") };
            let end = if outcome.is_success() { "complete" } else { "failed" };
            format!("{}: {end} ({took}){result}", paint.strong(phase))
        }
        Event::Story { title, text } => {
            let title = if title.is_empty() { None } else { Some(format!("\n{}", paint.strong(title))) };
            title
                .into_iter()
                .chain(text.lines().map(|line| harmless(line).into_owned()))
                .collect::<Vec<_>>()
                .join("\n")
        }
        Event::Throttled { .. } => format!("{}: {sentence}", paint.strong("throttled")),
        Event::Resumed { .. } => format!("{}: {sentence}", paint.strong("resumed")),
        Event::Checked(findings) => findings::text(findings, paint),
        Event::Maintained(_) => sentence.into_owned(),
        Event::Note(_) => format!("{}: {sentence}", paint.level(Level::Note)),
        Event::Warning(_) => format!("{}: {sentence}", paint.level(Level::Warning)),
    }
}

/// `error: …`, followed by its details, `cause:` and `hint:` if the error has them.
pub(super) fn error(error: &Error, paint: Paint) -> String {
    let mut text = format!("{}: {}", paint.level(Level::Error), harmless(error.message()));
    if let Some(code) = error.sqlstate() {
        text.push_str(&format!(" (SQLSTATE {code})"));
    }
    for line in error.detail_lines() {
        text.push_str(&format!("\n  {}", harmless(line)));
    }
    for (label, line) in [("cause", error.cause_text()), ("hint", error.hint_text().map(Cow::from))] {
        if let Some(line) = line {
            text.push_str(&format!("\n{}: {}", paint.strong(label), harmless(&line)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{JobNote, PhaseOutcome, TableWork, ThrottleWarning};
    use crate::model::latency::Latency;

    fn sentence(event: &Event) -> String {
        sentence::of(event).unwrap_or_default()
    }

    fn progress_of(done: u64, per_second: f64, eta_s: Option<u64>) -> Event {
        let job = "j".to_owned();
        Event::Progress { job, phase: "copy", done, total: 12_345_678, unit: "rows", per_second, eta_s }
    }

    #[test]
    fn a_phase_is_reported_in_few_lines() {
        let mut lines = Lines::new(Paint(false));
        let begin = Instant::now();
        let mut printed = Vec::new();
        let mut print =
            |event: &Event, s: u64| printed.extend(lines.line(event, begin + Duration::from_secs(s)));
        let job = || "j".to_owned();
        let work = TableWork::CopyRows { physical: false, workers: 2 };
        print(&Event::PhaseStarted { job: job(), phase: "copy", work: work.into() }, 0);
        for s in 0..35 {
            print(&progress_of(s * 340_000, 340_000.4, Some(200 - s)), s);
        }
        let error = "the standby\x1b[2J is behind".to_owned();
        print(&Event::Warning(ThrottleWarning::StandbyUnusable { error }.into()), 35);
        print(&Event::Note(JobNote::JobNotPaused { job: job() }.into()), 35);
        let chunks =
            Latency { chunks: 25, chunk_rows: 493_827, p50_ms: 480.0, p99_ms: 900.0, max_ms: 1_234.0 };
        let outcome = PhaseOutcome::RowsCopied { rows: 12_345_678, chunks };
        print(&Event::PhaseDone { job: job(), phase: "copy", outcome, duration_ms: 36_250.0 }, 36);
        let outcome = PhaseOutcome::Completed;
        print(&Event::PhaseDone { job: job(), phase: "swap", outcome, duration_ms: 12.3 }, 37);
        insta::assert_snapshot!(printed.join("\n"), @r#"
        copy: copying rows in key order with 2 workers; the table stays in use
        copy: 3,400,000 of 12,345,678 rows (27 %), 340,000 rows/s, 3m 10s left
        copy: 6,800,000 of 12,345,678 rows (55 %), 340,000 rows/s, 3m left
        copy: 10,200,000 of 12,345,678 rows (82 %), 340,000 rows/s, 2m 50s left
        warning: cannot query a standby of the plan: the standby\u{1b}[2J is behind
        note: job j is resumed
        copy: complete (36s): 12,345,678 rows copied; 25 chunks of 493,827 rows, p50 480 ms, p99 900 ms, longest 1234 ms
        swap: complete (12 ms)
        "#);
    }

    #[test]
    fn progress_without_a_total() {
        insta::assert_snapshot!(sentence(&progress_of(0, 0.0, None)), @"0 of 12,345,678 rows (0 %)");
        let nothing = Event::Progress {
            job: String::new(),
            phase: "drain",
            done: 7,
            total: 0,
            unit: "changes",
            per_second: 2.5,
            eta_s: None,
        };
        insta::assert_snapshot!(sentence(&nothing), @"7 changes, 2.5 changes/s");
    }

    #[test]
    fn a_story_keeps_its_line_breaks() {
        let story = |title: &str, text: &str| Event::Story { title: title.to_owned(), text: text.to_owned() };
        let lines = [story("1. A table", "one\n  two\x07\n"), story("", "three"), story("2.", "")];
        let lines = lines.map(|event| text(&event, Paint(false)));
        assert_eq!(lines, ["\n1. A table\none\n  two\\u{7}", "three", "\n2."]);
    }

    #[test]
    fn an_error_has_message_cause_and_hint() {
        let it = Error::failed("could not connect to h:5432/d as u")
            .code("28P01")
            .cause("no\npassword")
            .hint("set it");
        insta::assert_snapshot!(error(&it, Paint(false)), @r#"
        error: could not connect to h:5432/d as u (SQLSTATE 28P01)
        cause: no\npassword
        hint: set it
        "#);
        let problems = Error::usage("p.toml has 2 errors").details(vec![
            "p.toml:1:1: unknown key `a\nb`".to_owned(),
            "p.toml: table is missing".to_owned(),
            "  hint: write table = \"schema.name\"".to_owned(),
        ]);
        insta::assert_snapshot!(error(&problems, Paint(false)), @r#"
        error: p.toml has 2 errors
          p.toml:1:1: unknown key `a\nb`
          p.toml: table is missing
            hint: write table = "schema.name"
        "#);
        let outer = problems.context("failed to read the job");
        insta::assert_snapshot!(error(&outer, Paint(false)), @r#"
        error: failed to read the job
        cause: p.toml has 2 errors: p.toml:1:1: unknown key `a\nb`; p.toml: table is missing; hint: write table = "schema.name"
        "#);
        insta::assert_snapshot!(error(&Error::failed("plain"), Paint(true)).escape_debug(), @r#"\u{1b}[1m\u{1b}[31merror\u{1b}[0m: plain"#);
    }
}
