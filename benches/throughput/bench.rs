//! One run of the benchmark: its server, its options, and its results so far.

use std::sync::Arc;
use std::time::Duration;

use super::figure::{Figure, Point, Results};
use super::server::Server;

/// A run.
#[derive(Debug)]
pub struct Bench {
    /// The server, with all data cached.
    pub server: Arc<Server>,
    /// Rows of the table.
    pub rows: u64,
    /// The number of processors.
    pub workers: usize,
    /// Whether to run a subset, in two minutes.
    pub quick: bool,
    /// How long the latency of the application is measured without a job.
    pub idle: Duration,
    /// The results so far.
    pub results: Results,
}

impl Bench {
    /// Prints and records figures.
    pub fn figures(&mut self, figures: impl IntoIterator<Item = Figure>) {
        for figure in figures {
            eprintln!("{}", super::report::line(&figure));
            self.results.figures.push(figure);
        }
    }

    /// Prints and records a point.
    pub fn point(&mut self, point: Point) {
        eprintln!("{}", super::report::point_line(&point));
        self.results.points.push(point);
    }

    /// Prints and records a note.
    pub fn note(&mut self, text: &str) {
        eprintln!("{text}");
        self.results.notes.push(text.to_owned());
    }
}
