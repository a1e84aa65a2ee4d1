//! The whole job with both kinds of key, compared with the alternatives.

use anyhow::{Result, ensure};

use super::bench::Bench;
use super::figure::{Figure, Goal, Run};
use super::ours::Job;
use super::table::{Key, TABLE, Table};
use super::{alternatives, plain};

/// Runs this part of the benchmark.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    for (key, faster) in [(Key::Bigint, 2.5), (Key::Uuid, 5.0)] {
        let table = Table::new(bench.rows, key);
        table.create(&bench.server).await?;
        let on = format!("{key} key");
        let took = plain::prototype(&bench.server, &table, bench.workers).await?;
        let run = ours(bench, &table, &on).await?;
        against_prototype(bench, &on, &run, took);
        others(bench, &table, &on, &run, faster).await?;
        bench.results.runs.push(run);
    }
    Ok(())
}

async fn ours(bench: &Bench, table: &Table, name: &str) -> Result<Run> {
    bench.server.execute(&["drop table if exists bench_plain cascade", "checkpoint"]).await?;
    let job = Job::new(&bench.server, table, Some(bench.workers), "")?;
    let run = job.run(name).await?;
    job.abort().await?;
    Ok(run)
}

fn against_prototype(bench: &mut Bench, on: &str, run: &Run, took: plain::Took) {
    let plain::Took { copy_s, index_s } = took;
    let (copy, index, verify) = (run.seconds_of("copy"), run.seconds_of("index"), run.seconds_of("verify"));
    let prototype = "prototype in plain SQL";
    bench.figures([
        Figure::new(on, "copy and index", "s", copy + index)
            .against(prototype, copy_s + index_s)
            .goal(Goal::RatioAtMost(1.1)),
        Figure::new(on, "copy", "s", copy).against(prototype, copy_s),
        Figure::new(on, "index", "s", index).against(prototype, index_s),
        Figure::new(on, "verify", "s", verify)
            .against("copy of the same job", copy)
            .goal(Goal::RatioAtMost(0.5)),
    ]);
}

async fn others(bench: &mut Bench, table: &Table, on: &str, run: &Run, faster: f64) -> Result<()> {
    let whole = Figure::new(on, "whole job, until verified", "s", run.seconds);
    // The alternatives collect no statistics and do not verify.
    let same_s = run.seconds - run.seconds_of("analyze") - run.seconds_of("verify");
    let same = Figure::new(on, "whole job without analyze and verify", "s", same_s);
    let batches = alternatives::indexed_batches(&bench.server, table).await?;
    let pipe = alternatives::copy_pipe(&bench.server, table, bench.workers).await?;
    let ctas = alternatives::create_table_as(&bench.server).await?;
    bench.figures([
        whole.clone().against("key ranges into indexed partitions", batches).goal(Goal::TimesFaster(faster)),
        same.clone().against("key ranges into indexed partitions", batches),
        whole.clone().against("COPY pipe, then indexes", pipe),
        whole.clone().against("CREATE TABLE AS, then indexes", ctas),
    ]);
    // pg_partman comes last, because it moves the rows out of the table.
    if table.key == Key::Bigint {
        match alternatives::partman_version(&bench.server).await? {
            Some(version) => {
                let took = alternatives::partman(&bench.server, table, &version).await?;
                let left: i64 = bench.server.value(&format!("select count(*) from {TABLE}")).await?;
                ensure!(left == 0, "pg_partman left {left} rows in the source");
                let name = format!("pg_partman {version}, partition_data_proc");
                bench.figures([
                    whole.against(&name, took).goal(Goal::TimesFaster(4.0)),
                    same.against(&name, took),
                ]);
            }
            None => bench.note("pg_partman is not installed: its figures are omitted"),
        }
    }
    Ok(())
}
