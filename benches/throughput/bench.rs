//! One run of the benchmark: its server, what it is asked to do, and what it found so far.

use std::sync::Arc;
use std::time::Duration;

use super::figure::{Figure, Point, Results};
use super::server::Server;

/// A run.
#[derive(Debug)]
pub struct Bench {
    /// Its server, with everything cached.
    pub server: Arc<Server>,
    /// Rows of the table.
    pub rows: u64,
    /// As many as the machine has processors.
    pub workers: usize,
    /// Less of everything, in two minutes.
    pub quick: bool,
    /// How long applications are watched while nothing else goes on.
    pub idle: Duration,
    /// What it found.
    pub results: Results,
}

impl Bench {
    /// Keeps figures, and says each at once.
    pub fn figures(&mut self, figures: impl IntoIterator<Item = Figure>) {
        for figure in figures {
            eprintln!("{}", super::report::line(&figure));
            self.results.figures.push(figure);
        }
    }

    /// Keeps what the copy did under one changed condition, and says it at once.
    pub fn point(&mut self, point: Point) {
        eprintln!("{}", super::report::point_line(&point));
        self.results.points.push(point);
    }

    /// Keeps what was left out, and why.
    pub fn note(&mut self, text: &str) {
        eprintln!("{text}");
        self.results.notes.push(text.to_owned());
    }
}
