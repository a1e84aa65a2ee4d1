//! How the cost grows with the table: a quarter of the rows, all rows, and four times as many.

use anyhow::Result;

use super::bench::Bench;
use super::figure::{Figure, Goal, Run};
use super::ours::Job;
use super::table::{Key, Table};

/// Runs this part of the benchmark.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let mut sizes = vec![bench.rows / 4, bench.rows];
    if !bench.quick {
        sizes.push(bench.rows * 4);
    }
    let mut before: Option<(u64, Run)> = None;
    for rows in sizes {
        let table = Table::new(rows, Key::Bigint);
        table.create(&bench.server).await?;
        let job = Job::new(&bench.server, &table, Some(bench.workers), "")?;
        let run = job.run(&format!("{rows} rows")).await?;
        job.abort().await?;
        compare(bench, rows, &run, before.as_ref());
        bench.point(run.point("rows of the table", &rows.to_string())?);
        bench.results.runs.push(run.clone());
        before = Some((rows, run));
    }
    Ok(())
}

fn compare(bench: &mut Bench, rows: u64, run: &Run, before: Option<&(u64, Run)>) {
    let on = format!("{rows} rows");
    let us_per_row = |rows: u64, run: &Run| run.seconds * 1e6 / rows as f64;
    let mut time = Figure::new(&on, "whole job, time per row", "us", us_per_row(rows, run));
    let mut memory =
        run.memory_mb.map(|mb| Figure::new(&on, "memory of the process", "MB", mb).goal(Goal::AtMost(40.0)));
    if let Some((fewer, smaller)) = before {
        let name = format!("{fewer} rows");
        time = time.against(&name, us_per_row(*fewer, smaller)).goal(Goal::RatioAtMost(1.1));
        memory = memory.zip(smaller.memory_mb).map(|(figure, mb)| figure.against(&name, mb));
    }
    bench.figures([time]);
    bench.figures(memory);
}
