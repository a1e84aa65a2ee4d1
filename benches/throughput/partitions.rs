//! Many partitions: whether every phase works, and whether drain and verify slow down. Also compares the drain with the
//! same statements from `psql`.

use std::time::Instant;

use anyhow::{Context as _, Result};
use pgstrata::model::blueprint::Direction;
use pgstrata::sql::drain::{self, Batch};

use super::bench::Bench;
use super::figure::{Figure, Goal};
use super::ours::{Job, blueprint};
use super::server::Server;
use super::table::{Key, TABLE, Table};

/// The number of partitions with which the others are compared.
const FEW: u32 = 24;
/// One row in so many is changed before a drain.
const CHANGED: u64 = 10;
/// Blocks of the change log in a batch from psql: about 40,000 changes.
const BATCH_BLOCKS: i64 = 300;

/// The durations of verify and drain.
#[derive(Debug, Clone, Copy)]
struct Took {
    verify_s: f64,
    drain_s: f64,
}

/// Runs this part of the benchmark.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let few = with(bench, FEW).await?;
    let others: &[u32] = if bench.quick { &[1_000] } else { &[12, 120, 1_000] };
    for partitions in others {
        let many = with(bench, *partitions).await?;
        let (on, few_partitions) = (format!("{partitions} partitions"), format!("{FEW} partitions"));
        bench.figures([
            Figure::new(&on, "verify", "s", many.verify_s)
                .against(&few_partitions, few.verify_s)
                .goal(Goal::RatioAtMost(1.5)),
            Figure::new(&on, "drain", "s", many.drain_s)
                .against(&few_partitions, few.drain_s)
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
        compare_with_psql(bench, drain_s).await?;
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

/// Changes every tenth row, which the triggers of the job log. It does not run a checkpoint, because the full-page
/// writes after a checkpoint would determine the duration of the drain.
async fn change(server: &Server) -> Result<()> {
    let update = format!("update {TABLE} set n = n + 1 where c % {CHANGED} = 0");
    server.execute(&[update, format!("vacuum {TABLE}, {TABLE}_new")]).await
}

async fn drain_seconds(job: &Job<'_>) -> Result<f64> {
    let phases = job.then("sync").await?;
    Ok(phases.iter().find(|p| p.name == "drain").context("sync drained nothing")?.seconds)
}

/// Makes the same changes again and drains them with psql, with pgstrata's statements, in batches of a fixed size.
async fn compare_with_psql(bench: &mut Bench, ours_s: f64) -> Result<()> {
    let server = &bench.server;
    let b = blueprint(server).await?;
    // Remove the dead rows of the first drain.
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
