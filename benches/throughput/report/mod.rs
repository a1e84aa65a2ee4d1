//! The reports for people: tables for the terminal, and a page with plots for a browser. Both are generated from
//! [`Results`] only.

mod page;
mod plot;
mod table;
mod tried;

use super::figure::{Figure, Goal, Point, Results};

use anyhow::Result;
use serde_json::{Value, json};

pub use page::page;
pub use table::tables;

/// The results as JSON, each figure with its ratio and whether its goal is met.
pub fn json(results: &Results) -> Result<String> {
    let mut all = serde_json::to_value(results)?;
    if let Some(figures) = all["figures"].as_array_mut() {
        for (value, figure) in figures.iter_mut().zip(&results.figures) {
            (value["ratio"], value["met"]) = (json!(figure.ratio()), json!(figure.is_met()));
        }
    }
    Ok(serde_json::to_string_pretty::<Value>(&all)?)
}

/// A figure in one line, which is printed as soon as it is measured.
pub fn line(figure: &Figure) -> String {
    cells(figure)
        .map(|cell| cell.trim().to_owned())
        .into_iter()
        .filter(|cell| !cell.is_empty())
        .collect::<Vec<_>>()
        .join("  ")
}

/// A point of a sweep in one line.
pub fn point_line(point: &Point) -> String {
    point_cells(point).join("  ")
}

/// The headings of [`cells`].
const HEADS: [&str; 8] = ["on", "what", "pgstrata", "against", "", "ratio", "goal", ""];

/// A figure as a row of a table.
fn cells(figure: &Figure) -> [String; 8] {
    let value =
        |value: Option<f64>| value.map_or(String::new(), |v| format!("{} {}", number(v), figure.unit));
    [
        figure.on.clone(),
        figure.what.clone(),
        value(figure.ours),
        figure.against.clone().unwrap_or_default(),
        value(figure.theirs),
        figure.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}")),
        figure.goal.map_or(String::new(), |goal| words(goal, &figure.unit)),
        figure.is_met().map_or("", |met| if met { "met" } else { "MISSED" }).to_owned(),
    ]
}

fn words(goal: Goal, unit: &str) -> String {
    match goal {
        Goal::RatioAtMost(limit) => format!("at most {limit:.2}"),
        Goal::RatioAtLeast(limit) => format!("at least {limit:.2}"),
        Goal::TimesFaster(limit) => format!("{limit:.1} times faster"),
        Goal::AtMost(limit) => format!("at most {limit} {unit}").trim_end().to_owned(),
    }
}

/// The headings of [`point_cells`].
const POINT_HEADS: [&str; 8] = ["changed", "to", "rows/s", "chunks", "p50 ms", "p90 ms", "p99 ms", "max ms"];

fn point_cells(point: &Point) -> [String; 8] {
    let chunks = &point.chunks;
    [
        point.axis.clone(),
        point.value.clone(),
        number(point.rows_per_second),
        chunks.count.to_string(),
        number(chunks.p50_ms),
        number(chunks.p90_ms),
        number(chunks.p99_ms),
        number(chunks.max_ms),
    ]
}

/// The headings of [`latency_cells`].
const LATENCY_HEADS: [&str; 6] =
    ["applications, during", "transactions", "p50 ms", "p99 ms", "max ms", "failed"];

/// The latencies of the application, as rows of a table.
fn latency_cells(results: &Results) -> Vec<[String; 6]> {
    let row = |l: &super::figure::Latency| {
        let seen = &l.transactions;
        let [count, failed] = [seen.count, l.failed].map(|n| n.to_string());
        [l.during.clone(), count, number(seen.p50_ms), number(seen.p99_ms), number(seen.max_ms), failed]
    };
    results.latencies.iter().map(row).collect()
}

/// The environment of the run, in two lines.
fn circumstances(results: &Results) -> Vec<String> {
    let machine = &results.machine;
    let settings: Vec<String> =
        machine.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let load = machine.load.map_or(String::new(), |load| format!(", load {load:.1} when it began"));
    let rows = pgstrata::model::number::count(machine.rows);
    vec![
        format!(
            "{rows} rows; PostgreSQL {}; {} processors{load}; {}",
            machine.server, machine.cores, machine.began
        ),
        settings.join(", "),
    ]
}

/// A number with about three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1000.0 => pgstrata::model::number::count(large.round() as u64),
        large if large >= 100.0 => format!("{value:.0}"),
        some if some >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
