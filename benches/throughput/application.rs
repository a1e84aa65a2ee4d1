//! The latency of the application: without a job, in each phase of a job and its swap, and while the alternatives run.

use std::time::Duration;

use anyhow::Result;

use super::alternatives;
use super::bench::Bench;
use super::figure::{Figure, Goal, Latency, Phase};
use super::load::{Load, Seen, now_s};
use super::ours::Job;
use super::table::{Key, Table};

/// The time after which pgbench has reached its rate.
const WARM_UP: Duration = Duration::from_secs(2);
/// The time after the swap in which transactions end that waited for its lock.
const AFTER_SWAP_S: f64 = 1.0;

/// Runs this part of the benchmark.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let table = Table::new(bench.rows, Key::Bigint);
    let (server, all) = (bench.server.clone(), bench.workers);
    let job = Job::new(&server, &table, None, "")?;
    during(bench, &table, &job, "the whole job with its swap, with default settings", true).await?;
    let job = Job::new(&server, &table, Some(all), "")?;
    during(bench, &table, &job, "the same with one worker per processor", false).await?;
    let job = Job::backfill(&server, None)?;
    during(bench, &table, &job, "a backfill with default settings", true).await?;
    alternative(bench, &table, "key ranges into indexed partitions", async |bench| {
        alternatives::indexed_batches(&bench.server, &table).await
    })
    .await?;
    alternative(bench, &table, "COPY pipe, then indexes", async |bench| {
        alternatives::copy_pipe(&bench.server, &table, bench.workers).await
    })
    .await?;
    if let Some(version) = alternatives::partman_version(&bench.server).await? {
        alternative(bench, &table, "pg_partman, partition_data_proc", async |bench| {
            alternatives::partman(&bench.server, &table, &version).await
        })
        .await?;
    }
    Ok(())
}

/// Measures the latency during a job and its swap, if it has one. The same sessions of the application run before and
/// during the job.
async fn during(bench: &mut Bench, table: &Table, job: &Job<'_>, what: &str, has_goals: bool) -> Result<()> {
    table.create(&bench.server).await?;
    let load = Load::start(&bench.server, table).await?;
    tokio::time::sleep(WARM_UP).await;
    let idle_s = now_s();
    tokio::time::sleep(bench.idle).await;
    let run_s = now_s();
    let run = job.run(what).await?;
    let swap_s = now_s();
    let swap = if job.swaps { job.then("swap").await? } else { Vec::new() };
    let end_s = now_s();
    tokio::time::sleep(Duration::from_secs_f64(AFTER_SWAP_S)).await;
    let seen = load.stop().await?;
    if job.swaps {
        job.finalize().await?;
    }

    let idle = seen.between(&format!("no job, before {what}"), idle_s, run_s)?;
    let whole = seen.between(what, run_s, end_s + AFTER_SWAP_S)?;
    let failed = (whole.failed as usize + seen.gave_up.len()) as f64;
    let p99 =
        Figure::new(what, "p99", "ms", whole.transactions.p99_ms).against("no job", idle.transactions.p99_ms);
    let p50 =
        Figure::new(what, "p50", "ms", whole.transactions.p50_ms).against("no job", idle.transactions.p50_ms);
    bench.figures([
        p50,
        if has_goals { p99.goal(Goal::RatioAtMost(2.0)) } else { p99 },
        Figure::new(what, "failed transactions", "", failed).goal(Goal::AtMost(0.0)),
    ]);
    let swapping = phases(&seen, "swap", swap_s, &swap, AFTER_SWAP_S)?;
    if let Some(swap) = swapping.iter().find(|l| l.during == "swap: swap") {
        bench.figures([Figure::new(what, "longest wait at the swap", "ms", swap.transactions.max_ms)
            .goal(Goal::AtMost(250.0))]);
    }
    seen.gave_up.iter().for_each(|line| bench.note(line));
    bench.results.latencies.extend([idle, whole]);
    bench.results.latencies.extend(phases(&seen, "run", run_s, &run.phases, 0.0)?);
    bench.results.latencies.extend(swapping);
    bench.results.runs.push(run);
    Ok(())
}

fn phases(seen: &Seen, command: &str, from_s: f64, phases: &[Phase], after_s: f64) -> Result<Vec<Latency>> {
    let of = |p: &Phase| {
        let from_s = from_s + p.from_s;
        seen.between(&format!("{command}: {}", p.name), from_s, from_s + p.seconds + after_s)
    };
    phases.iter().map(of).collect()
}

async fn alternative(
    bench: &mut Bench,
    table: &Table,
    name: &str,
    work: impl AsyncFn(&Bench) -> Result<f64>,
) -> Result<()> {
    table.create(&bench.server).await?;
    let load = Load::start(&bench.server, table).await?;
    tokio::time::sleep(WARM_UP).await;
    let from_s = now_s();
    let worked = work(bench).await;
    let to_s = now_s();
    if let Err(error) = worked {
        bench.note(&format!("{name}, with a concurrent application: {error:#}"));
    }
    let seen = load.stop().await?;
    bench.results.latencies.push(seen.between(name, from_s, to_s)?);
    Ok(())
}
