//! What applications see: idle, in each phase of the job and its swap, and while people's alternatives are at work.

use std::time::Duration;

use anyhow::Result;

use super::alternatives;
use super::bench::Bench;
use super::figure::{Figure, Goal, Latency, Phase};
use super::load::{Load, Seen, now_s};
use super::ours::Job;
use super::table::{Key, Table};

/// After its start, pgbench takes this long to find its pace.
const SETTLES: Duration = Duration::from_secs(2);
/// Who waited behind the swap's lock ends after it.
const AFTER_SWAP_S: f64 = 1.0;

/// Measures it.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let table = Table::new(bench.rows, Key::Bigint);
    table.create(&bench.server).await?;
    job(bench, &table).await?;
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

/// One load over everything, so that idle and busy are the same sessions.
async fn job(bench: &mut Bench, table: &Table) -> Result<()> {
    let job = Job::new(&bench.server, table, bench.workers, "")?;
    let load = Load::start(&bench.server, table).await?;
    tokio::time::sleep(SETTLES).await;
    let idle_s = now_s();
    tokio::time::sleep(bench.idle).await;
    let run_s = now_s();
    let run = job.run("bigint key, applications at work").await?;
    let swap_s = now_s();
    let swap = job.then("swap").await?;
    let end_s = now_s();
    tokio::time::sleep(Duration::from_secs_f64(AFTER_SWAP_S)).await;
    let seen = load.stop().await?;
    job.finalize().await?;

    let idle = seen.between("idle", idle_s, run_s)?;
    let whole = seen.between("the whole job with its swap", run_s, end_s + AFTER_SWAP_S)?;
    let swapping = phases(&seen, "swap", swap_s, &swap, AFTER_SWAP_S)?;
    let waited_ms = swapping.iter().find(|l| l.during == "swap: swap").map_or(0.0, |l| l.transactions.max_ms);
    let failed = (whole.failed as usize + seen.gave_up.len()) as f64;
    let on = "applications";
    bench.figures([
        Figure::new(on, "p99 during the whole job", "ms", whole.transactions.p99_ms)
            .against("idle", idle.transactions.p99_ms)
            .goal(Goal::RatioAtMost(2.0)),
        Figure::new(on, "failed transactions", "", failed).goal(Goal::AtMost(0.0)),
        Figure::new(on, "longest wait at the swap", "ms", waited_ms).goal(Goal::AtMost(250.0)),
    ]);
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
    tokio::time::sleep(SETTLES).await;
    let from_s = now_s();
    let worked = work(bench).await;
    let to_s = now_s();
    if let Err(error) = worked {
        bench.note(&format!("{name}, beside applications: {error:#}"));
    }
    let seen = load.stop().await?;
    bench.results.latencies.push(seen.between(name, from_s, to_s)?);
    Ok(())
}
