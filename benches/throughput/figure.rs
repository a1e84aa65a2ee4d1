//! The results of a benchmark run. The table for the terminal, the JSON and the page are generated from this data only,
//! so that a recorded file gives the same report as the run.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// All results of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// The environment of the run.
    pub machine: Machine,
    /// Measured values, most of them with the value of an alternative.
    pub figures: Vec<Figure>,
    /// Measurements of the copy, each with one condition changed.
    pub points: Vec<Point>,
    /// Latencies of the application.
    pub latencies: Vec<Latency>,
    /// Jobs in detail, for the plots.
    pub runs: Vec<Run>,
    /// Measurements that were omitted, and why.
    pub notes: Vec<String>,
}

/// The environment of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// The start of the run, in UTC.
    pub began: String,
    /// The version of the server.
    pub server: String,
    /// The relevant settings of the server.
    pub settings: Vec<(String, String)>,
    /// The number of processors.
    pub cores: usize,
    /// The load average of the minute before the run; none if unknown.
    pub load: Option<f64>,
    /// Rows of the table.
    pub rows: u64,
}

/// The goal of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// The ratio of pgstrata's value to the alternative's is at most this.
    RatioAtMost(f64),
    /// The ratio of pgstrata's value to the alternative's is at least this.
    RatioAtLeast(f64),
    /// The alternative takes at least this many times as long.
    TimesFaster(f64),
    /// pgstrata's value is at most this, in the unit of the figure.
    AtMost(f64),
}

/// A value of pgstrata, and the value of an alternative, if any.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The table or the conditions of the measurement: `bigint key`.
    pub on: String,
    /// What was measured.
    pub what: String,
    /// `s`, `ms`, `MB`, `keys/s`.
    pub unit: String,
    /// The value of pgstrata; none if only an alternative was measured.
    pub ours: Option<f64>,
    /// The name of the alternative.
    pub against: Option<String>,
    /// The value of the alternative.
    pub theirs: Option<f64>,
    /// The goal.
    pub goal: Option<Goal>,
}

impl Figure {
    /// A value of pgstrata.
    pub fn new(on: &str, what: &str, unit: &str, ours: f64) -> Self {
        let (on, what, unit) = (on.to_owned(), what.to_owned(), unit.to_owned());
        Self { on, what, unit, ours: Some(ours), against: None, theirs: None, goal: None }
    }

    /// Adds the value of an alternative.
    pub fn against(self, what: &str, theirs: f64) -> Self {
        Self { against: Some(what.to_owned()), theirs: Some(theirs), ..self }
    }

    /// Adds a goal.
    pub fn goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// The ratio of pgstrata's value to the alternative's; the inverse if the goal is [`Goal::TimesFaster`].
    pub fn ratio(&self) -> Option<f64> {
        let (ours, theirs) = (self.ours?, self.theirs?);
        let (over, under) =
            if matches!(self.goal, Some(Goal::TimesFaster(_))) { (theirs, ours) } else { (ours, theirs) };
        (under != 0.0).then(|| over / under)
    }

    /// Whether the goal is met; none if there is no goal or no value.
    pub fn is_met(&self) -> Option<bool> {
        match self.goal? {
            Goal::RatioAtMost(limit) => self.ratio().map(|ratio| ratio <= limit),
            Goal::RatioAtLeast(limit) | Goal::TimesFaster(limit) => self.ratio().map(|ratio| ratio >= limit),
            Goal::AtMost(limit) => self.ours.map(|ours| ours <= limit),
        }
    }
}

/// Percentiles of durations, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The number of durations.
    pub count: u64,
    /// The median.
    pub p50_ms: f64,
    /// The 90th percentile.
    pub p90_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The maximum.
    pub max_ms: f64,
}

impl Spread {
    /// The percentiles of these durations, to three significant digits. Durations over an hour count as an hour.
    pub fn of(times_ms: impl IntoIterator<Item = f64>) -> anyhow::Result<Self> {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 3)?;
        for ms in times_ms {
            histogram.saturating_record((ms * 1000.0).max(1.0) as u64);
        }
        let ms = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Ok(Self {
            count: histogram.len(),
            p50_ms: ms(0.5),
            p90_ms: ms(0.9),
            p99_ms: ms(0.99),
            max_ms: ms(1.0),
        })
    }
}

/// A measurement of the copy with one condition changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The condition: `workers`.
    pub axis: String,
    /// The value of the condition.
    pub value: String,
    /// Rows copied per second.
    pub rows_per_second: f64,
    /// The durations of chunks.
    pub chunks: Spread,
}

impl Point {
    /// A point from the durations of the chunks, in milliseconds.
    pub fn new(
        axis: &str,
        value: &str,
        rows_per_second: f64,
        chunks_ms: impl IntoIterator<Item = f64>,
    ) -> anyhow::Result<Self> {
        let chunks = Spread::of(chunks_ms)?;
        Ok(Self { axis: axis.to_owned(), value: value.to_owned(), rows_per_second, chunks })
    }
}

/// The latency of the application during an activity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The activity.
    pub during: String,
    /// The durations of transactions.
    pub transactions: Spread,
    /// The number of failed transactions.
    pub failed: u64,
}

/// A phase of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// The name of the phase.
    pub name: String,
    /// The start, in seconds since the start of the job.
    pub from_s: f64,
    /// The duration.
    pub seconds: f64,
    /// The average number of rows per chunk, if the phase has chunks.
    pub chunk_rows: Option<u64>,
}

/// A completed chunk.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// The time of completion, in seconds since the start of the job.
    pub at_s: f64,
    /// The number of rows.
    pub rows: i64,
    /// The duration, in milliseconds.
    pub ms: f64,
}

/// A job in detail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The label of the job.
    pub name: String,
    /// The duration of the process.
    pub seconds: f64,
    /// The phases in their order.
    pub phases: Vec<Phase>,
    /// The chunks in the order of their completion.
    pub chunks: Vec<Chunk>,
    /// The peak memory of the process; none if unknown.
    pub memory_mb: Option<f64>,
}

impl Run {
    /// The duration of a phase; 0 if the job did not have it.
    pub fn seconds_of(&self, phase: &str) -> f64 {
        self.phases.iter().filter(|p| p.name == phase).map(|p| p.seconds).sum()
    }

    /// The average number of rows per chunk in a phase, from its event, because the chunks of a finished job are
    /// deleted.
    pub fn rows_a_chunk(&self, phase: &str) -> Option<u64> {
        self.phases.iter().find(|p| p.name == phase)?.chunk_rows
    }

    /// The number of rows of all chunks.
    pub fn rows(&self) -> i64 {
        self.chunks.iter().map(|chunk| chunk.rows).sum()
    }

    /// Rows copied per second during the copy phase.
    pub fn rows_per_second(&self) -> f64 {
        self.rows() as f64 / self.seconds_of("copy").max(1e-9)
    }

    /// The copy as a point of a sweep.
    pub fn point(&self, axis: &str, value: &str) -> anyhow::Result<Point> {
        Point::new(axis, value, self.rows_per_second(), self.chunks.iter().map(|chunk| chunk.ms))
    }
}
