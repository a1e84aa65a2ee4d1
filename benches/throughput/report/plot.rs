//! The plots, as SVG.

use anyhow::Result;
use hdrhistogram::Histogram;
use pgstrata::model::number::count;
use plotters::prelude::*;

use super::super::figure::{Chunk, Phase, Run};

const SIZE: (u32, u32) = (1_000, 380);
const FONT: (&str, u32) = ("sans-serif", 13);
/// Runs, or phases, in turn.
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
/// Into how many pieces of time a copy is cut.
const PIECES: usize = 30;

type Line = (String, Vec<(f64, f64)>);

/// Rows copied a second, over the time of each job.
pub fn throughput(runs: &[Run]) -> Result<String> {
    let lines: Vec<Line> = runs.iter().map(|run| (run.name.clone(), rates(&run.chunks))).collect();
    let points = || lines.iter().flat_map(|(_, line)| line);
    let x = points().fold(1.0, |most: f64, (x, _)| most.max(*x));
    let y = points().fold(1.0, |most: f64, (_, y)| most.max(*y));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(80)
            .build_cartesian_2d(0.0..x, 0.0..y * 1.05)?;
        chart
            .configure_mesh()
            .label_style(FONT)
            .max_light_lines(1)
            .x_desc("seconds")
            .y_desc("rows a second")
            .y_label_formatter(&|y| count(*y as u64))
            .draw()?;
        draw(&mut chart, &lines)?;
        area.present()?;
    }
    Ok(svg)
}

/// The mean of each piece of a copy's time: a chunk's rows are spread over the time it took.
fn rates(chunks: &[Chunk]) -> Vec<(f64, f64)> {
    let from = chunks.iter().map(|c| c.at_s - c.ms / 1000.0).fold(f64::INFINITY, f64::min);
    let to = chunks.iter().map(|c| c.at_s).fold(from, f64::max);
    if chunks.is_empty() || to <= from {
        return Vec::new();
    }
    let piece_s = (to - from) / PIECES as f64;
    (0..PIECES)
        .map(|n| {
            let (begin, end) = (from + piece_s * n as f64, from + piece_s * (n + 1) as f64);
            let rows: f64 = chunks
                .iter()
                .map(|chunk| {
                    let seconds = (chunk.ms / 1000.0).max(1e-6);
                    let within = chunk.at_s.min(end) - (chunk.at_s - seconds).max(begin);
                    chunk.rows as f64 * within.max(0.0) / seconds
                })
                .sum();
            (begin + piece_s / 2.0, rows / piece_s)
        })
        .collect()
}

/// What share of its chunks took how long.
pub fn chunks(runs: &[Run]) -> Result<String> {
    let mut lines: Vec<Line> = Vec::new();
    for run in runs {
        lines.push((run.name.clone(), shares(&run.chunks)?));
    }
    let points = || lines.iter().flat_map(|(_, line)| line);
    let most_ms = points().fold(10.0, |most: f64, (x, _)| most.max(*x));
    let most_share = points().fold(10.0, |most: f64, (_, y)| most.max(*y));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(80)
            .build_cartesian_2d((1.0..most_ms).log_scale(), 0.0..most_share * 1.05)?;
        chart
            .configure_mesh()
            .label_style(FONT)
            .max_light_lines(1)
            .x_desc("milliseconds a chunk")
            .y_desc("% of chunks")
            .draw()?;
        draw(&mut chart, &lines)?;
        area.present()?;
    }
    Ok(svg)
}

/// By milliseconds that double: steps of a line.
fn shares(chunks: &[Chunk]) -> Result<Vec<(f64, f64)>> {
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 3_600_000, 3)?;
    for chunk in chunks {
        histogram.saturating_record(chunk.ms.max(1.0) as u64);
    }
    let mut line = Vec::new();
    let mut from_ms = 1.0;
    for step in histogram.iter_log(1, 2.0) {
        let to_ms = step.value_iterated_to() as f64 + 1.0;
        let share = step.count_since_last_iteration() as f64 * 100.0 / histogram.len().max(1) as f64;
        line.extend([(from_ms, share), (to_ms, share)]);
        from_ms = to_ms;
    }
    Ok(line)
}

/// Draws lines with their names.
fn draw<'a, X>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, plotters::coord::types::RangedCoordf64>>,
    lines: &[Line],
) -> Result<()>
where
    X: plotters::coord::ranged1d::Ranged<ValueType = f64>,
{
    for (n, (name, line)) in lines.iter().enumerate() {
        let color = COLORS[n % COLORS.len()];
        chart
            .draw_series(LineSeries::new(line.iter().copied(), color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 15, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(FONT)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}

/// Each job's phases, one behind the other.
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
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
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
