//! What a run of the benchmark found, as data: the terminal's table, the JSON and the page are made of this alone, so that
//! a recorded file shows what the run showed.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Everything that one run measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Results {
    /// Where and how it was measured.
    pub machine: Machine,
    /// One value beside its alternative each.
    pub figures: Vec<Figure>,
    /// The copy under one changed condition each.
    pub points: Vec<Point>,
    /// What applications saw.
    pub latencies: Vec<Latency>,
    /// Jobs in detail, for the plots.
    pub runs: Vec<Run>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// Where and how it was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// When it began, in UTC.
    pub began: String,
    /// The server's version.
    pub server: String,
    /// The server's settings that matter, as the server has them.
    pub settings: Vec<(String, String)>,
    /// Processors.
    pub cores: usize,
    /// Processes that wanted a processor, on average of the last minute before it began; none where it is not known.
    pub load: Option<f64>,
    /// Rows of the table.
    pub rows: u64,
}

/// What a figure has to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Ours over the alternative is no more than this.
    RatioAtMost(f64),
    /// Ours over the alternative is no less than this.
    RatioAtLeast(f64),
    /// The alternative takes at least so many times as long.
    TimesFaster(f64),
    /// Ours is no more than this, in the figure's unit.
    AtMost(f64),
}

/// One value of ours, beside an alternative's where there is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// On what: `bigint key`.
    pub on: String,
    /// What was measured.
    pub what: String,
    /// `s`, `ms`, `MB`, `keys/s`.
    pub unit: String,
    /// The tool's; none where only an alternative was measured.
    pub ours: Option<f64>,
    /// What it is held against.
    pub against: Option<String>,
    /// The alternative's value.
    pub theirs: Option<f64>,
    /// What it has to be.
    pub goal: Option<Goal>,
}

impl Figure {
    /// A value of ours.
    pub fn new(on: &str, what: &str, unit: &str, ours: f64) -> Self {
        let (on, what, unit) = (on.to_owned(), what.to_owned(), unit.to_owned());
        Self { on, what, unit, ours: Some(ours), against: None, theirs: None, goal: None }
    }

    /// Beside this.
    pub fn against(self, what: &str, theirs: f64) -> Self {
        Self { against: Some(what.to_owned()), theirs: Some(theirs), ..self }
    }

    /// With this goal.
    pub fn goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// Ours over the alternative; the other way round where the goal is told so.
    pub fn ratio(&self) -> Option<f64> {
        let (ours, theirs) = (self.ours?, self.theirs?);
        let (over, under) =
            if matches!(self.goal, Some(Goal::TimesFaster(_))) { (theirs, ours) } else { (ours, theirs) };
        (under != 0.0).then(|| over / under)
    }

    /// Whether the goal is reached; none where there is none.
    pub fn is_met(&self) -> Option<bool> {
        match self.goal? {
            Goal::RatioAtMost(limit) => self.ratio().map(|ratio| ratio <= limit),
            Goal::RatioAtLeast(limit) | Goal::TimesFaster(limit) => self.ratio().map(|ratio| ratio >= limit),
            Goal::AtMost(limit) => self.ours.map(|ours| ours <= limit),
        }
    }
}

/// Percentiles of times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many.
    pub count: u64,
    /// Half of them took at most this.
    pub p50_ms: f64,
    /// 90 % of them took at most this.
    pub p90_ms: f64,
    /// 99 % of them took at most this.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Spread {
    /// Of these times, to three digits; what takes more than an hour counts as an hour.
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

/// The copy under one changed condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// What is changed: `rows a chunk`.
    pub axis: String,
    /// To what.
    pub value: String,
    /// Rows copied a second.
    pub rows_per_second: f64,
    /// What chunks took.
    pub chunks: Spread,
}

impl Point {
    /// From the milliseconds that each chunk took.
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

/// What applications saw while something else went on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// While what.
    pub during: String,
    /// Their transactions.
    pub transactions: Spread,
    /// How many failed.
    pub failed: u64,
}

/// A phase of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// When it began, in seconds since the job began.
    pub from_s: f64,
    /// How long it took.
    pub seconds: f64,
    /// Mean rows of a chunk, where it has chunks.
    pub chunk_rows: Option<u64>,
}

/// A finished chunk.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// When it was done, in seconds since the job began.
    pub at_s: f64,
    /// Its rows.
    pub rows: i64,
    /// What it took, in milliseconds.
    pub ms: f64,
}

/// A job in detail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Which.
    pub name: String,
    /// From the process's start to its end.
    pub seconds: f64,
    /// In order.
    pub phases: Vec<Phase>,
    /// In the order they ended.
    pub chunks: Vec<Chunk>,
    /// The most memory that the process had; none where the system does not say.
    pub memory_mb: Option<f64>,
}

impl Run {
    /// What a phase took; nothing where the job did not come to it.
    pub fn seconds_of(&self, phase: &str) -> f64 {
        self.phases.iter().filter(|p| p.name == phase).map(|p| p.seconds).sum()
    }

    /// Mean rows of a chunk of a phase: the ledger of a job that is over is gone.
    pub fn rows_a_chunk(&self, phase: &str) -> Option<u64> {
        self.phases.iter().find(|p| p.name == phase)?.chunk_rows
    }

    /// Rows that were copied.
    pub fn rows(&self) -> i64 {
        self.chunks.iter().map(|chunk| chunk.rows).sum()
    }

    /// Rows copied a second while it copied.
    pub fn rows_per_second(&self) -> f64 {
        self.rows() as f64 / self.seconds_of("copy").max(1e-9)
    }

    /// The copy as a point of a sweep.
    pub fn point(&self, axis: &str, value: &str) -> anyhow::Result<Point> {
        Point::new(axis, value, self.rows_per_second(), self.chunks.iter().map(|chunk| chunk.ms))
    }
}
