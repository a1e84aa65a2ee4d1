//! A backfill of a new column without an index, compared with the same batches from `psql` and with one UPDATE of all
//! rows.

use anyhow::{Context as _, Result};

use super::bench::Bench;
use super::figure::{Figure, Goal};
use super::ours::{FILLED, Job};
use super::plain;
use super::server::Server;
use super::table::{Key, TABLE, Table};

/// Runs this part of the benchmark, each measurement on a new table.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let table = Table::new(bench.rows, Key::Bigint);
    let on = "backfill";
    // The measurement without a goal comes first, because on a new server its WAL segments have to be created; later
    // measurements reuse them.
    with_column(&bench.server, &table).await?;
    let update = format!("update {TABLE} set {FILLED} = n * 2 where {FILLED} is null");
    let update_s = plain::sessions(&bench.server, &[update], 1).await?;

    table.create(&bench.server).await?;
    let run = Job::backfill(&bench.server, Some(bench.workers))?.run(on).await?;
    let same = run.rows_a_chunk("fill").context("the job reported no chunks")?;
    let same_s = batches(bench, &table, same).await?;
    let larger_s = batches(bench, &table, plain::CHUNK_ROWS).await?;

    let rate = |seconds: f64| bench.rows as f64 / seconds;
    let ours = Figure::new(on, "rows filled per second", "rows/s", rate(run.seconds_of("fill")));
    let memory =
        run.memory_mb.map(|mb| Figure::new(on, "memory of the process", "MB", mb).goal(Goal::AtMost(40.0)));
    let figures = [
        ours.clone()
            .against(&format!("the same batches from psql, of {same} rows"), rate(same_s))
            .goal(Goal::RatioAtLeast(0.9)),
        ours.clone().against(&format!("batches of {} rows from psql", plain::CHUNK_ROWS), rate(larger_s)),
        ours.against("one UPDATE, which locks every row until it ends", rate(update_s)),
    ];
    bench.figures(figures.into_iter().chain(memory));
    bench.results.runs.push(run);
    Ok(())
}

/// Runs batches of `rows` rows from `psql`, in as many sessions as there are workers; returns the seconds.
async fn batches(bench: &Bench, table: &Table, rows: u64) -> Result<f64> {
    with_column(&bench.server, table).await?;
    let batches = plain::fills_by_key(&bench.server, FILLED, rows).await?;
    plain::sessions(&bench.server, &batches, bench.workers).await
}

async fn with_column(server: &Server, table: &Table) -> Result<()> {
    table.create(server).await?;
    server.execute(&[format!("alter table {TABLE} add {FILLED} numeric"), "checkpoint".to_owned()]).await
}
