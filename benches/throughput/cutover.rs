//! The swap: how long it holds its lock, with indexes and views.

use anyhow::Result;

use super::bench::Bench;
use super::figure::{Figure, Goal};
use super::ours::Job;
use super::table::{Key, TABLE, Table};

/// The table has one row in so many, because the swap reads no rows.
const SHARE: u64 = 10;

/// Measures swap, rollback and swap, with 36 partitions, four indexes and three views.
pub async fn measure(bench: &mut Bench) -> Result<()> {
    let table = Table { partitions: 36, ..Table::new(bench.rows / SHARE, Key::Bigint) };
    table.create(&bench.server).await?;
    bench
        .server
        .execute(&[
            format!("create view bench_recent as select id, a from {TABLE} where created_at > now() - interval '1 day'"),
            format!("create view bench_sites as select site, count(*) from {TABLE} group by site"),
            format!("create view bench_all as select * from {TABLE}"),
        ])
        .await?;
    let server = bench.server.clone();
    let job = Job::new(&server, &table, Some(bench.workers), "")?;
    job.run("36 partitions").await?;
    let on = "36 partitions, 4 indexes, 3 views";
    for (command, what) in
        [("swap", "swap: lock held"), ("rollback", "rollback: lock held"), ("swap", "second swap: lock held")]
    {
        job.then(command).await?;
        let figure = Figure::new(on, what, "ms", job.lock_held_ms().await?).goal(Goal::AtMost(50.0));
        bench.figures([figure]);
    }
    job.finalize().await
}
