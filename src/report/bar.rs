//! The progress bar on a terminal: phase, percentage, rows, rate, time left. Lines that should remain visible are
//! printed above it.

use std::io;
use std::time::Duration;

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::{
    lines,
    paint::{Paint, harmless},
    sentence,
};
use crate::{event::Event, model::number};

/// How often the bar is redrawn without new events, so that the process is visibly alive.
const TICK: Duration = Duration::from_millis(200);

/// The bar is narrow, so that the message after it fits into 80 columns.
const WITH_TOTAL: &str = "{prefix:>8} [{bar:12}] {wide_msg}";
const WITHOUT_TOTAL: &str = "{prefix:>8} {spinner} {wide_msg}";

/// Free columns at the right for the `^C` that the terminal prints after the bar. Without them, `^C` would go to the
/// next line, and the line of the bar could not be cleared.
const FREE: u16 = 4;
/// The maximum number of redraws per second.
const DRAWS: u8 = 20;

/// The terminal at stderr, with a reduced width.
#[derive(Debug)]
struct Narrowed(Term);

impl TermLike for Narrowed {
    fn width(&self) -> u16 {
        self.0.size().1.saturating_sub(FREE).max(1)
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_left(n)
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        self.0.write_line(s)
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.0.write_str(s)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}

fn new_bar() -> ProgressBar {
    let terminal = Box::new(Narrowed(Term::buffered_stderr()));
    ProgressBar::with_draw_target(None, ProgressDrawTarget::term_like_with_hz(terminal, DRAWS))
}

pub(super) struct Bar {
    paint: Paint,
    bar: Option<ProgressBar>,
}

impl Bar {
    pub(super) fn new(paint: Paint) -> Self {
        Self { paint, bar: None }
    }

    /// Shows `event`.
    pub(super) fn show(&mut self, event: &Event) {
        match event {
            Event::PhaseStarted { phase, .. } => {
                self.clear();
                let bar = new_bar();
                bar.set_style(style(false));
                bar.set_prefix(*phase);
                let sentence = sentence::of(event).unwrap_or_default();
                bar.set_message(harmless(&sentence).into_owned());
                bar.enable_steady_tick(TICK);
                self.bar = Some(bar);
            }
            Event::Progress { phase, done, total, .. } => {
                let bar = self.bar.get_or_insert_with(new_bar);
                // Each of these calls may draw. Set the text first, so that a new bar is never drawn with old text.
                bar.set_prefix(*phase);
                bar.set_message(message(event));
                bar.set_position(*done);
                if bar.length() != Some(*total) {
                    bar.set_length(*total);
                    bar.set_style(style(*total > 0));
                }
            }
            Event::PhaseDone { .. } => {
                self.clear();
                super::to_stderr(&lines::text(event, self.paint));
            }
            Event::Throttled { .. }
            | Event::Resumed { .. }
            | Event::Story { .. }
            | Event::Note(_)
            | Event::Warning(_) => {
                let line = lines::text(event, self.paint);
                self.above(|| super::to_stderr(&line));
            }
            Event::Checked(_) | Event::Maintained(_) => {}
        }
    }

    /// Calls `print` while the bar is hidden.
    pub(super) fn above(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Removes the bar.
    pub(super) fn end(mut self) {
        self.clear();
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// `27 % 3,400,000/12,345,678 rows 340,000/s 3m 10s left`.
fn message(event: &Event) -> String {
    let Event::Progress { done, total, unit, per_second, eta_s, .. } = event else {
        return String::new();
    };
    let of = match total {
        0 => String::new(),
        total => format!("/{}", number::count(*total)),
    };
    let mut words = Vec::from_iter(number::percent(*done, *total));
    words.push(format!("{}{of} {unit}", number::count(*done)));
    if *per_second > 0.0 {
        words.push(format!("{}/s", number::rate(*per_second)));
    }
    words.extend(eta_s.map(|left_s| format!("{} left", number::seconds(left_s))));
    words.join(" ")
}

/// A bar if the total is known, otherwise a spinner.
fn style(has_total: bool) -> ProgressStyle {
    let template = if has_total { WITH_TOTAL } else { WITHOUT_TOTAL };
    let base = ProgressStyle::default_bar().progress_chars("=> ");
    base.clone().template(template).unwrap_or(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_are_valid() {
        let base = || ProgressStyle::default_bar();
        for template in [WITH_TOTAL, WITHOUT_TOTAL] {
            assert!(base().template(template).is_ok());
        }
    }

    #[test]
    fn a_line_fits_into_80_columns() {
        let progress = |done, total, eta_s| Event::Progress {
            job: String::new(),
            phase: "copy",
            done,
            total,
            unit: "rows",
            per_second: 340_000.0,
            eta_s,
        };
        let text = message(&progress(3_400_000, 12_345_678, Some(190)));
        insta::assert_snapshot!(text, @"27 % 3,400,000/12,345,678 rows 340,000/s 3m 10s left");
        assert!("rollback [            ] ".len() + text.len() <= 80);
        insta::assert_snapshot!(message(&progress(7, 0, None)), @"7 rows 340,000/s");
    }
}
