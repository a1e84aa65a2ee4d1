//! The tables for the terminal.

use super::super::figure::Results;
use super::{HEADS, LATENCY_HEADS, POINT_HEADS, cells, circumstances, latency_cells, point_cells};

/// All results as text.
pub fn tables(results: &Results) -> String {
    let mut all = circumstances(results).join("\n");
    all.push_str("\n\n");
    all += &table(&HEADS, &results.figures.iter().map(cells).collect::<Vec<_>>());
    if !results.points.is_empty() {
        all += &table(&POINT_HEADS, &results.points.iter().map(point_cells).collect::<Vec<_>>());
    }
    if !results.latencies.is_empty() {
        all += &table(&LATENCY_HEADS, &latency_cells(results));
    }
    for note in &results.notes {
        all += &format!("{note}\n");
    }
    all
}

/// A table with aligned columns; columns of numbers are right-aligned.
fn table<const N: usize>(heads: &[&str; N], rows: &[[String; N]]) -> String {
    let widths: [usize; N] = std::array::from_fn(|i| {
        rows.iter().map(|row| row[i].chars().count()).chain([heads[i].chars().count()]).max().unwrap_or(0)
    });
    let right: [bool; N] = std::array::from_fn(|i| {
        rows.iter().all(|row| row[i].is_empty() || row[i].starts_with(|c: char| c.is_ascii_digit()))
    });
    let line = |row: [&str; N]| {
        let cells: [String; N] = std::array::from_fn(|i| {
            let width = widths[i];
            if right[i] { format!("{:>width$}", row[i]) } else { format!("{:<width$}", row[i]) }
        });
        format!("{}\n", cells.join("  ").trim_end())
    };
    let mut text = line(*heads);
    for row in rows {
        text += &line(std::array::from_fn(|i| row[i].as_str()));
    }
    text + "\n"
}
