//! The throughput of the copy under different conditions. pgstrata adapts the size of its chunks, so chunk sizes are
//! measured with its chunk statement only, run in as many sessions as there are workers. Everything else is measured
//! with pgstrata.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;
use futures_util::future::try_join_all;
use pgstrata::model::blueprint::{Blueprint, Direction};
use pgstrata::model::key::KeyRange;
use pgstrata::pg::transaction::execute_text;
use pgstrata::sql::finalize::{self, Leaving};
use pgstrata::sql::{copy, prepare};

use super::bench::Bench;
use super::figure::{Point, Run};
use super::ours::{Job, blueprint};
use super::server::Server;
use super::table::{Key, ROW_BYTES, TABLE, Table};

/// Rows per chunk.
const SIZES: [u64; 8] = [1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000];
/// Numbers of workers.
const WORKERS: [usize; 3] = [1, 2, 4];
/// Bytes that are added to a row, and the label of the result.
const WIDTHS: [(u64, &str); 3] = [(0, "140 B"), (900, "1 kB"), (20_000, "20 kB, toasted")];

/// Runs this part of the benchmark.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    by_order(bench).await?;
    by_workers_and_chunk(bench).await?;
    by_width(bench).await?;
    by_cache(bench).await
}

/// Runs and aborts a job.
async fn copied(server: &Server, table: &Table, workers: usize, more: &str) -> Result<Run> {
    server.execute(&["checkpoint"]).await?;
    let job = Job::new(server, table, Some(workers), more)?;
    let run = job.run("sweep").await?;
    job.abort().await?;
    Ok(run)
}

async fn by_order(bench: &mut Bench) -> Result<()> {
    for key in [Key::Uuid, Key::Bigint] {
        let table = Table::new(bench.rows, key);
        table.create(&bench.server).await?;
        for order in ["keyset", "physical"] {
            let order_line = format!("order = \"{order}\"\n");
            let run = copied(&bench.server, &table, bench.workers, &order_line).await?;
            bench.point(run.point("order", &format!("{order}, {key} key"))?);
        }
    }
    Ok(())
}

async fn by_workers_and_chunk(bench: &mut Bench) -> Result<()> {
    let table = Table::new(bench.rows, Key::Bigint);
    table.create(&bench.server).await?;
    for workers in WORKERS {
        let run = copied(&bench.server, &table, workers, "").await?;
        bench.point(run.point("workers", &workers.to_string())?);
    }
    let b = blueprint(&bench.server).await?;
    let most = bench.rows;
    for rows in SIZES.into_iter().filter(|rows| *rows <= most) {
        let all = by_key(&bench.server, &b, rows).await?;
        let (rate, times) = sent(&bench.server, &b, &all, bench.workers).await?;
        bench.point(Point::new("rows per chunk, in key order", &rows.to_string(), rate, times)?);
    }
    for rows in SIZES.into_iter().filter(|rows| *rows <= most) {
        let all = by_block(&bench.server, &b, rows).await?;
        let (rate, times) = sent(&bench.server, &b, &all, bench.workers).await?;
        bench.point(Point::new("rows per chunk, in physical order", &rows.to_string(), rate, times)?);
    }
    Ok(())
}

/// Different widths of a row, with tables of the same size in bytes.
async fn by_width(bench: &mut Bench) -> Result<()> {
    for (padding, name) in WIDTHS {
        let rows = bench.rows * ROW_BYTES / (ROW_BYTES + padding);
        let table = Table { padding, ..Table::new(rows, Key::Bigint) };
        table.create(&bench.server).await?;
        let run = copied(&bench.server, &table, bench.workers, "").await?;
        bench.point(run.point("width of a row", name)?);
    }
    Ok(())
}

/// Small `shared_buffers`. The size of the operating system's cache does not change.
async fn by_cache(bench: &mut Bench) -> Result<()> {
    let tenth = format!("{}kB", bench.rows * ROW_BYTES / 10 / 1024);
    let small = Server::start(&tenth).await?;
    for key in [Key::Bigint, Key::Uuid] {
        let table = Table::new(bench.rows, key);
        table.create(&small).await?;
        let run = copied(&small, &table, bench.workers, "").await?;
        bench.point(run.point("shared_buffers", &format!("a tenth of the table, {key} key"))?);
    }
    Ok(())
}

/// A chunk: pgstrata's statement and its parameters.
type Chunk = (String, Vec<String>);

async fn by_key(server: &Server, b: &Blueprint, rows: u64) -> Result<Vec<Chunk>> {
    let ends: Vec<String> = server
        .column(&format!(
            "select id::text from (select id, row_number() over (order by id) n, count(*) over () total from {TABLE}) k
             where n % {rows} = 0 or n = total order by k.id"
        ))
        .await?;
    let mut after = None;
    let ranges = ends.into_iter().map(|end| {
        let through = Some(vec![end]);
        KeyRange { after: std::mem::replace(&mut after, through.clone()), through }
    });
    Ok(ranges.map(|range| copy::keyset_chunk(b, &range)).collect())
}

async fn by_block(server: &Server, b: &Blueprint, rows: u64) -> Result<Vec<Chunk>> {
    let (blocks, per_block): (i64, f64) = (
        server.value(&format!("select pg_relation_size('{TABLE}') / 8192")).await?,
        server
            .value(&format!(
                "select reltuples::float8 / relpages from pg_class where oid = '{TABLE}'::regclass"
            ))
            .await?,
    );
    let step = (rows as f64 / per_block).ceil().max(1.0) as usize;
    let range = |from: i64| vec![format!("({from},0)"), format!("({},0)", from + step as i64)];
    Ok((0..blocks).step_by(step).map(|from| (copy::physical_chunk(b), range(from))).collect())
}

/// Copies chunks to a target like that of a job, each in its own transaction. Returns the rows per second, and the
/// duration of each chunk in milliseconds.
async fn sent(server: &Server, b: &Blueprint, chunks: &[Chunk], workers: usize) -> Result<(f64, Vec<f64>)> {
    let partitions = b.partitions.iter().flat_map(|partition| prepare::partition(b, partition));
    let statements: Vec<String> = prepare::target(b).into_iter().chain(partitions).collect();
    server.execute(&statements).await?;
    server.execute(&["checkpoint"]).await?;
    let (next, began) = (AtomicUsize::new(0), Instant::now());
    let work = async || -> Result<Vec<(u64, f64)>> {
        let (client, mut done) = (server.client().await?, Vec::new());
        while let Some((statement, values)) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
            let began = Instant::now();
            let rows = execute_text(&client, statement, values).await?;
            done.push((rows, began.elapsed().as_secs_f64() * 1000.0));
        }
        Ok(done)
    };
    let done = try_join_all((0..workers).map(|_| work())).await?.concat();
    let seconds = began.elapsed().as_secs_f64();
    server.execute(&finalize::end(&Leaving::planned(b, Direction::Forward, &[]))).await?;
    let rows: u64 = done.iter().map(|(rows, _)| rows).sum();
    Ok((rows as f64 / seconds, done.into_iter().map(|(_, ms)| ms).collect()))
}
