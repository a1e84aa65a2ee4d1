//! The plots, as SVG.

use anyhow::Result;
use hdrhistogram::Histogram;
use pgstrata::model::number::count;
use plotters::prelude::*;

use super::super::figure::{Chunk, Phase, Run};

const SMALL: (u32, u32) = (500, 240);
const WIDE: (u32, u32) = (1_000, 380);
const FONT: (&str, u32) = ("sans-serif", 13);
/// The colors of phases, in turn.
const COLORS: [RGBColor; 10] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(127, 127, 127),
    RGBColor(188, 189, 34),
    RGBColor(23, 190, 207),
];
/// The number of intervals into which the time of a job's chunks is divided.
const INTERVALS: usize = 30;

/// Rows copied or filled per second, over the time of a job's chunks.
pub fn throughput(run: &Run) -> Result<String> {
    let rates = rates(&run.chunks);
    let most_s = rates.iter().fold(0.001, |most: f64, (s, _)| most.max(*s));
    let most_rows = rates.iter().fold(1.0, |most: f64, (_, rows)| most.max(*rows));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SMALL).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(90)
            .build_cartesian_2d(0.0..most_s, 0.0..most_rows * 1.05)?;
        chart
            .configure_mesh()
            .label_style(FONT)
            .max_light_lines(1)
            .x_desc("seconds")
            .y_desc("rows per second")
            .y_label_formatter(&|rows| count(*rows as u64))
            .draw()?;
        chart.draw_series(LineSeries::new(rates, COLORS[0].stroke_width(2)))?;
        area.present()?;
    }
    Ok(svg)
}

/// The middle and the average rate of each interval. The rows of a chunk are distributed over its duration.
fn rates(chunks: &[Chunk]) -> Vec<(f64, f64)> {
    let from = chunks.iter().map(|c| c.at_s - c.ms / 1000.0).fold(f64::INFINITY, f64::min);
    let to = chunks.iter().map(|c| c.at_s).fold(from, f64::max);
    if chunks.is_empty() || to <= from {
        return Vec::new();
    }
    let interval_s = (to - from) / INTERVALS as f64;
    let rows_between = |begin: f64, end: f64| -> f64 {
        let within = chunks.iter().map(|chunk| {
            let seconds = (chunk.ms / 1000.0).max(1e-6);
            let share = (chunk.at_s.min(end) - (chunk.at_s - seconds).max(begin)) / seconds;
            chunk.rows as f64 * share.max(0.0)
        });
        within.sum()
    };
    let intervals = (0..INTERVALS).map(|n| (interval_s * n as f64, interval_s * (n + 1) as f64));
    intervals
        .map(|(begin, end)| ((begin + end) / 2.0, rows_between(from + begin, from + end) / interval_s))
        .collect()
}

/// A histogram of the durations of a job's chunks.
pub fn chunks(run: &Run) -> Result<String> {
    let bars = bars(&run.chunks)?;
    let most_ms = bars.iter().fold(10.0, |most: f64, (_, to, _)| most.max(*to));
    let most = bars.iter().fold(1, |most: u64, (_, _, count)| most.max(*count));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SMALL).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d((1.0..most_ms).log_scale(), 0..most + 1)?;
        chart
            .configure_mesh()
            .label_style(FONT)
            .max_light_lines(1)
            .x_desc("milliseconds")
            .y_desc("chunks")
            .draw()?;
        let bar = |(from, to, count)| Rectangle::new([(from, 0), (to, count)], COLORS[0].mix(0.7).filled());
        chart.draw_series(bars.into_iter().map(bar))?;
        area.present()?;
    }
    Ok(svg)
}

/// The bars of the histogram: from, to, and the number of chunks. Each bar is twice as wide as the one before.
fn bars(chunks: &[Chunk]) -> Result<Vec<(f64, f64, u64)>> {
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 3_600_000, 3)?;
    for chunk in chunks {
        histogram.saturating_record(chunk.ms.max(1.0) as u64);
    }
    let mut from_ms = 1.0;
    let bars = histogram.iter_log(1, 2.0).map(|step| {
        let to_ms = step.value_iterated_to() as f64 + 1.0;
        (std::mem::replace(&mut from_ms, to_ms), to_ms, step.count_since_last_iteration())
    });
    Ok(bars.collect())
}

/// The phases of each job, one after the other.
pub fn phases(runs: &[Run]) -> Result<String> {
    let most_s = runs.iter().map(|run| run.seconds).fold(1.0, f64::max);
    let mut names: Vec<&str> = Vec::new();
    for Phase { name, .. } in runs.iter().flat_map(|run| &run.phases) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, WIDE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(260)
            .build_cartesian_2d(0.0..most_s * 1.15, (0..runs.len().saturating_sub(1)).into_segmented())?;
        let label = |row: &SegmentValue<usize>| match row {
            SegmentValue::CenterOf(n) => runs.get(*n).map_or(String::new(), |run| run.name.clone()),
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .label_style(FONT)
            .x_desc("seconds")
            .y_label_formatter(&label)
            .y_labels(runs.len())
            .max_light_lines(1)
            .disable_y_mesh()
            .draw()?;
        for (n, name) in names.iter().enumerate() {
            let color = COLORS[n % COLORS.len()];
            let of_phase = runs.iter().enumerate().flat_map(|(row, run)| {
                let these = run.phases.iter().filter(|phase| phase.name == *name);
                these.map(move |phase| {
                    let corners = [
                        (phase.from_s, SegmentValue::Exact(row)),
                        (phase.from_s + phase.seconds, SegmentValue::Exact(row + 1)),
                    ];
                    let mut bar = Rectangle::new(corners, color.filled());
                    bar.set_margin(4, 4, 0, 0);
                    bar
                })
            });
            chart
                .draw_series(of_phase)?
                .label(*name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], color.filled()));
        }
        chart.configure_series_labels().label_font(FONT).background_style(WHITE.mix(0.8)).draw()?;
        area.present()?;
    }
    Ok(svg)
}
