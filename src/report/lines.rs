//! Plain lines, for cron's mail and for logs: when a phase begins and ends, and every ten seconds how far it is.

use std::time::{Duration, Instant};

use super::paint::{Paint, harmless};
use crate::{
    error::Error,
    event::Event,
    model::{finding::Level, number},
};

/// The least time between two lines about how far a phase is.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Turns events into lines; says by the times handed in when progress was last told.
pub(super) struct Lines {
    paint: Paint,
    told: Option<Instant>,
}

impl Lines {
    pub(super) fn new(paint: Paint) -> Self {
        Self { paint, told: None }
    }

    /// The line for `event` at `now`, where it is worth one.
    pub(super) fn line(&mut self, event: &Event, now: Instant) -> Option<String> {
        match event {
            Event::Phase { .. } => self.told = Some(now),
            Event::Progress { .. } => {
                if self.told.is_some_and(|told| now.duration_since(told) < PROGRESS_EVERY) {
                    return None;
                }
                self.told = Some(now);
            }
            _ => {}
        }
        Some(text(event, self.paint))
    }
}

/// What an event says, on one line; a story's text keeps its lines.
pub(super) fn text(event: &Event, paint: Paint) -> String {
    match event {
        Event::Phase { phase, about, .. } => format!("{}: {}", paint.strong(phase), harmless(about)),
        Event::Progress { phase, .. } => format!("{}: {}", paint.strong(phase), progress(event)),
        Event::Done { phase, about, seconds, .. } => {
            let took = number::duration(Duration::try_from_secs_f64(*seconds).unwrap_or_default());
            let about = if about.is_empty() { String::new() } else { format!(": {}", harmless(about)) };
            format!("{}: done in {took}{about}", paint.strong(phase))
        }
        Event::Story { title, text } => {
            let title = if title.is_empty() { None } else { Some(format!("\n{}", paint.strong(title))) };
            title
                .into_iter()
                .chain(text.lines().map(|line| harmless(line).into_owned()))
                .collect::<Vec<_>>()
                .join("\n")
        }
        Event::Hold { about, .. } => format!("{}: {}", paint.strong("hold"), harmless(about)),
        Event::GoOn { signal, seconds, .. } => {
            let held = number::duration(Duration::try_from_secs_f64(*seconds).unwrap_or_default());
            format!("{}: {signal} held for {held}", paint.strong("go on"))
        }
        Event::Note { text } => format!("{}: {}", paint.level(Level::Note), harmless(text)),
        Event::Warning { text } => format!("{}: {}", paint.level(Level::Warning), harmless(text)),
    }
}

/// `1,234 of 12,345 rows (10 %), 340 rows/s, 32s left`; empty for what is no progress.
pub(super) fn progress(event: &Event) -> String {
    let Event::Progress { done, total, unit, per_second, eta_s, .. } = event else {
        return String::new();
    };
    let mut text = match total {
        0 => format!("{} {unit}", number::count(*done)),
        total => format!("{} of {} {unit}", number::count(*done), number::count(*total)),
    };
    if let Some(percent) = number::percent(*done, *total) {
        text.push_str(&format!(" ({percent})"));
    }
    if *per_second > 0.0 {
        text.push_str(&format!(", {} {unit}/s", number::rate(*per_second)));
    }
    if let Some(left_s) = eta_s {
        text.push_str(&format!(", {} left", number::seconds(*left_s)));
    }
    text
}

/// `error: …`, then `cause:` and `hint:` where there are such.
pub(super) fn error(error: &Error, paint: Paint) -> String {
    let mut text = format!("{}: {}", paint.level(Level::Error), harmless(error.message()));
    if let Some(code) = error.sqlstate() {
        text.push_str(&format!(" (SQLSTATE {code})"));
    }
    for (label, line) in [("cause", error.cause_text()), ("hint", error.hint_text())] {
        if let Some(line) = line {
            text.push_str(&format!("\n{}: {}", paint.strong(label), harmless(line)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress_of(done: u64, per_second: f64, eta_s: Option<u64>) -> Event {
        let job = "j".to_owned();
        Event::Progress { job, phase: "copy", done, total: 12_345_678, unit: "rows", per_second, eta_s }
    }

    #[test]
    fn a_phase_is_told_in_few_lines() {
        let mut lines = Lines::new(Paint(false));
        let begin = Instant::now();
        let mut said = Vec::new();
        let mut say = |event: &Event, s: u64| said.extend(lines.line(event, begin + Duration::from_secs(s)));
        let about = "copying rows into 24 partitions".to_owned();
        say(&Event::Phase { job: "j".to_owned(), phase: "copy", about }, 0);
        for s in 0..35 {
            say(&progress_of(s * 340_000, 340_000.4, Some(200 - s)), s);
        }
        say(&Event::Warning { text: "the replica\x1b[2J is behind".to_owned() }, 35);
        say(&Event::Note { text: "a note".to_owned() }, 35);
        let about = "12,345,678 rows in 25 chunks".to_owned();
        say(&Event::Done { job: "j".to_owned(), phase: "copy", about, seconds: 36.25 }, 36);
        say(&Event::Done { job: "j".to_owned(), phase: "swap", about: String::new(), seconds: 0.0123 }, 37);
        insta::assert_snapshot!(said.join("\n"), @r#"
        copy: copying rows into 24 partitions
        copy: 3,400,000 of 12,345,678 rows (27 %), 340,000 rows/s, 3m 10s left
        copy: 6,800,000 of 12,345,678 rows (55 %), 340,000 rows/s, 3m left
        copy: 10,200,000 of 12,345,678 rows (82 %), 340,000 rows/s, 2m 50s left
        warning: the replica\u{1b}[2J is behind
        note: a note
        copy: done in 36s: 12,345,678 rows in 25 chunks
        swap: done in 12 ms
        "#);
    }

    #[test]
    fn progress_without_an_end_in_sight_says_what_it_knows() {
        insta::assert_snapshot!(progress(&progress_of(0, 0.0, None)), @"0 of 12,345,678 rows (0 %)");
        let nothing = Event::Progress {
            job: String::new(),
            phase: "drain",
            done: 7,
            total: 0,
            unit: "changes",
            per_second: 2.5,
            eta_s: None,
        };
        insta::assert_snapshot!(progress(&nothing), @"7 changes, 2.5 changes/s");
    }

    #[test]
    fn a_story_keeps_its_lines_and_nothing_else() {
        let story = |title: &str, text: &str| Event::Story { title: title.to_owned(), text: text.to_owned() };
        let said = [story("1. A table", "one\n  two\x07\n"), story("", "three"), story("2.", "")];
        let said = said.map(|event| text(&event, Paint(false)));
        assert_eq!(said, ["\n1. A table\none\n  two\\u{7}", "three", "\n2."]);
    }

    #[test]
    fn an_error_says_what_why_and_what_to_do() {
        let it = Error::failed("could not connect to h:5432/d as u")
            .code("28P01")
            .cause("no\npassword")
            .hint("set it");
        insta::assert_snapshot!(error(&it, Paint(false)), @r#"
        error: could not connect to h:5432/d as u (SQLSTATE 28P01)
        cause: no\npassword
        hint: set it
        "#);
        insta::assert_snapshot!(error(&Error::failed("plain"), Paint(true)).escape_debug(), @r#"\u{1b}[1m\u{1b}[31merror\u{1b}[0m: plain"#);
    }
}
