//! A backfill of one new column without an index, beside the same batches from `psql` and one big UPDATE.

use anyhow::Result;

use super::bench::Bench;
use super::figure::{Figure, Goal};
use super::ours::{FILLED, Job};
use super::plain;
use super::server::Server;
use super::table::{Key, TABLE, Table};

/// Measures it; each on a fresh table.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let table = Table::new(bench.rows, Key::Bigint);
    let on = "backfill";
    table.create(&bench.server).await?;
    let run = Job::backfill(&bench.server, Some(bench.workers))?.run(on).await?;

    with_column(&bench.server, &table).await?;
    let batches = plain::fills_by_key(&bench.server, FILLED).await?;
    let batches_s = plain::sessions(&bench.server, &batches, bench.workers).await?;

    with_column(&bench.server, &table).await?;
    let update = format!("update {TABLE} set {FILLED} = n * 2 where {FILLED} is null");
    let update_s = plain::sessions(&bench.server, &[update], 1).await?;

    let rate = |seconds: f64| bench.rows as f64 / seconds;
    let ours = Figure::new(on, "rows filled a second", "rows/s", rate(run.seconds_of("fill")));
    let memory =
        run.memory_mb.map(|mb| Figure::new(on, "memory of the process", "MB", mb).goal(Goal::AtMost(40.0)));
    let figures = [
        ours.clone().against("batches from psql", rate(batches_s)).goal(Goal::RatioAtLeast(0.9)),
        ours.against("one UPDATE, which locks every row to its end", rate(update_s)),
    ];
    bench.figures(figures.into_iter().chain(memory));
    bench.results.runs.push(run);
    Ok(())
}

async fn with_column(server: &Server, table: &Table) -> Result<()> {
    table.create(server).await?;
    server.execute(&[format!("alter table {TABLE} add {FILLED} numeric"), "checkpoint".to_owned()]).await
}
