//! The throughput of a job, compared with alternatives that are measured in the same run, on a private server.
//!
//! `cargo bench --bench throughput -- [--quick] [PART...]`; parts: keys, application, swap, partitions, growth,
//! backfill, sweep; the default is all. `BENCH_ROWS` is the number of rows. The results are printed, and written to
//! `target/bench/` as JSON and as a page with plots.

mod alternatives;
mod application;
mod backfill;
mod bench;
mod cutover;
mod figure;
mod growth;
mod keys;
mod load;
mod ours;
mod partitions;
mod plain;
mod report;
mod server;
mod sweep;
mod table;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use bench::Bench;
use figure::{Machine, Results};
use server::Server;

/// The default number of rows.
const ROWS: u64 = 2_000_000;
/// Rows of a quick run.
const QUICK_ROWS: u64 = 200_000;
/// All parts, in their order.
const PARTS: [&str; 7] = ["keys", "application", "swap", "partitions", "growth", "backfill", "sweep"];
/// The part that a quick run omits.
const SLOW: &str = "sweep";

fn main() -> Result<()> {
    // Cargo adds --bench.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let quick = args.iter().any(|arg| arg == "--quick");
    let named: Vec<&str> = args.iter().map(String::as_str).filter(|arg| *arg != "--quick").collect();
    if let Some(unknown) = named.iter().find(|part| !PARTS.contains(part)) {
        bail!("no such part: {unknown}; parts: {}", PARTS.join(", "));
    }
    let selected =
        |part: &&str| if named.is_empty() { !quick || *part != SLOW } else { named.contains(part) };
    let parts: Vec<&str> = PARTS.into_iter().filter(selected).collect();
    tokio::runtime::Runtime::new()?.block_on(run(quick, &parts))
}

async fn run(quick: bool, parts: &[&str]) -> Result<()> {
    let mut bench = begin(quick).await?;
    if bench.rows < ROWS {
        bench.note(&format!(
            "the goals are for {ROWS} rows: with fewer rows, the fixed cost of a job has a larger share"
        ));
    }
    let began = Instant::now();
    let mut complete = true;
    for part in parts {
        eprintln!("\n{part}, after {:.0} s", began.elapsed().as_secs_f64());
        let measured = match *part {
            "keys" => keys::measure(&mut bench).await,
            "application" => application::measure(&mut bench).await,
            "swap" => cutover::measure(&mut bench).await,
            "partitions" => partitions::measure(&mut bench).await,
            "growth" => growth::measure(&mut bench).await,
            "backfill" => backfill::measure(&mut bench).await,
            _ => sweep::measure(&mut bench).await,
        };
        // Continue with the other parts after an error.
        if let Err(error) = measured {
            bench.note(&format!("failed to measure {part}: {error:#}"));
            complete = false;
        }
    }
    write(&bench.results)?;
    eprintln!("took {:.0} s", began.elapsed().as_secs_f64());
    ensure!(complete, "some parts could not be measured: see above");
    Ok(())
}

async fn begin(quick: bool) -> Result<Bench> {
    let rows = match std::env::var("BENCH_ROWS") {
        Ok(rows) => rows.replace('_', "").parse().context("BENCH_ROWS is not a number")?,
        Err(_) if quick => QUICK_ROWS,
        Err(_) => ROWS,
    };
    let server = Arc::new(Server::start(server::SHARED_BUFFERS).await?);
    let (version, settings) = server.environment().await?;
    let workers = std::thread::available_parallelism()?.get();
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let machine = Machine {
        began: chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string(),
        server: version,
        settings,
        cores: workers,
        load: load.and_then(|text| text.split(' ').next()?.parse().ok()),
        rows,
    };
    let (figures, points, latencies) = (Vec::new(), Vec::new(), Vec::new());
    let results = Results { machine, figures, points, latencies, runs: Vec::new(), notes: Vec::new() };
    let idle = Duration::from_secs(if quick { 5 } else { 20 });
    Ok(Bench { server, rows, workers, quick, idle, results })
}

fn write(results: &Results) -> Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("latest.json"), report::json(results)?)?;
    std::fs::write(dir.join("latest.html"), report::page(results)?)?;
    println!("\n{}", report::tables(results));
    println!("target/bench/latest.json, target/bench/latest.html");
    Ok(())
}
