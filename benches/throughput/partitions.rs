//! Many partitions: that every phase still works, and whether drain and verify slow down; and the drain beside the same
//! statements from `psql`.

use std::time::Instant;

use anyhow::{Context as _, Result};
use pgstrata::model::blueprint::Direction;
use pgstrata::sql::drain::{self, Batch};

use super::bench::Bench;
use super::figure::{Figure, Goal};
use super::ours::{Job, blueprint};
use super::server::Server;
use super::table::{Key, TABLE, Table};

/// What the others are held against.
const FEW: u32 = 24;
/// One row in so many is changed for a drain.
const CHANGED: u64 = 10;
/// Blocks of the log in a batch of psql's: some 40,000 changes.
const BATCH_BLOCKS: i64 = 300;

/// What a job with so many partitions took.
#[derive(Debug, Clone, Copy)]
struct Took {
    verify_s: f64,
    drain_s: f64,
}

/// Measures it.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let few = with(bench, FEW).await?;
    let others: &[u32] = if bench.quick { &[1_000] } else { &[12, 120, 1_000] };
    for partitions in others {
        let many = with(bench, *partitions).await?;
        let (on, than) = (format!("{partitions} partitions"), format!("{FEW} partitions"));
        bench.figures([
            Figure::new(&on, "verify", "s", many.verify_s)
                .against(&than, few.verify_s)
                .goal(Goal::RatioAtMost(1.5)),
            Figure::new(&on, "drain", "s", many.drain_s)
                .against(&than, few.drain_s)
                .goal(Goal::RatioAtMost(1.5)),
        ]);
    }
    Ok(())
}

async fn with(bench: &mut Bench, partitions: u32) -> Result<Took> {
    let table = Table::new(bench.rows, Key::Bigint).over_days(partitions);
    let server = bench.server.clone();
    table.create(&server).await?;
    let job = Job::new(&server, &table, Some(bench.workers), "")?;
    let run = job.run(&format!("{partitions} partitions")).await?;
    change(&server).await?;
    let drain_s = drain_seconds(&job).await?;
    if partitions == FEW {
        beside_psql(bench, drain_s).await?;
    }
    job.then("swap").await?;
    let on = format!("{partitions} partitions");
    bench.figures([Figure::new(&on, "swap: lock held", "ms", job.lock_held_ms().await?)]);
    job.finalize().await?;
    bench.point(run.point("partitions", &partitions.to_string())?);
    let took = Took { verify_s: run.seconds_of("verify"), drain_s };
    bench.results.runs.push(run);
    Ok(took)
}

/// Changes every tenth row, which the job's triggers log. No checkpoint follows: which pages the log of the server holds
/// whole already would decide how long a drain takes.
async fn change(server: &Server) -> Result<()> {
    let update = format!("update {TABLE} set n = n + 1 where c % {CHANGED} = 0");
    server.execute(&[update, format!("vacuum {TABLE}, {TABLE}_new")]).await
}

async fn drain_seconds(job: &Job<'_>) -> Result<f64> {
    let phases = job.then("sync").await?;
    Ok(phases.iter().find(|p| p.name == "drain").context("sync drained nothing")?.seconds)
}

/// The same changes again, drained by psql with the tool's own statements, in batches of a fixed size.
async fn beside_psql(bench: &mut Bench, ours_s: f64) -> Result<()> {
    let server = &bench.server;
    let b = blueprint(server).await?;
    // The first drain's dead rows are no part of the second.
    server.execute(&[drain::vacuum_log(&b, true)]).await?;
    change(server).await?;
    let changed: i64 = server.value(&format!("select count(*) from {TABLE} where c % {CHANGED} = 0")).await?;
    let blocks: i64 = server.value(&format!("select pg_relation_size('{}') / 8192", b.log())).await?;
    let forward = Direction::Forward;
    let mut statements = drain::clear(&b, forward, Batch::Blocks);
    statements.extend(drain::fill(&b, forward, Batch::Blocks));
    statements.push(drain::forget(&b, Batch::Blocks));
    let mut script = String::new();
    for (n, statement) in statements.iter().enumerate() {
        script += &format!("prepare s{n}(text, text) as {statement};\n");
    }
    for from in (0..blocks).step_by(BATCH_BLOCKS.unsigned_abs() as usize) {
        let to = from + BATCH_BLOCKS;
        let all: String =
            (0..statements.len()).map(|n| format!("execute s{n}('({from},0)', '({to},0)');\n")).collect();
        script += &format!("begin isolation level repeatable read;\n{};\n{all}commit;\n", drain::SETTINGS);
    }
    let began = Instant::now();
    server.psql(&script).await?;
    let psql_s = began.elapsed().as_secs_f64();
    let rate = |seconds: f64| changed as f64 / seconds;
    bench.figures([Figure::new(&format!("{FEW} partitions"), "drain", "keys/s", rate(ours_s))
        .against("the same statements from psql", rate(psql_s))
        .goal(Goal::RatioAtLeast(0.9))]);
    Ok(())
}
