//! Long phases can be throttled: index builds between two partitions, the drain between two batches. A swap is not.
//! The number of workers with `workers = auto`.

use std::collections::BTreeSet;

use super::{Slow, ended};
use crate::support::events::slow_column;
use crate::support::wait::until;

#[tokio::test]
async fn index_builds_can_be_paused_between_two_partitions() {
    let job = Slow::new("").await;
    // Building the index of a partition takes a while, and there are many partitions.
    job.db
        .execute(
            "create function slow(bigint) returns bigint language plpgsql immutable as 'begin return $1; end';
             create index events_slow on events (slow(id)) where id % 100 = 0;
             create or replace function slow(bigint) returns bigint language plpgsql immutable
                 as 'begin perform pg_sleep(0.01); return $1; end'",
        )
        .await;
    let run = job.copying().await;
    job.ok("set rows_per_second=off workers=1").await;
    let built = "select count(*) from pg_class where relname like '%\\_slow%' and relnamespace = 'public'::regnamespace";
    job.until(&format!("select ({built}) > 3")).await;
    job.ok("pause").await;
    job.held("paused").await;
    job.until(
        "select not exists (select from pg_stat_activity where datname = current_database()
             and application_name like 'pgstrata/%/worker' and state <> 'idle')",
    )
    .await;
    let before = job.db.count(built).await;
    job.looks(3).await;
    assert_eq!(job.db.count(built).await, before);
    assert!(job.status().await["state"] == "copied", "the builds ended before the pause");
    job.ok("resume").await;
    ended(run).await.ok();
}

#[tokio::test]
async fn a_pause_applies_to_sync_but_not_to_swap() {
    let job = Slow::new("").await;
    let run = job.copying().await;
    job.finish(run).await;
    job.db.execute("update events set note = note || '!' where id % 10 = 0").await;
    job.ok("pause").await;
    let sync = job.db.command(&["sync", "events"]).spawn().unwrap();
    job.until("select read_at > now() - interval '1 s' and holds::text like '%paused%' from pgstrata.pace")
        .await;
    job.looks(3).await;
    assert_eq!(job.status().await["changes_pending"], 20_000);
    job.ok("resume").await;
    ended(sync).await.ok();
    assert_eq!(job.status().await["changes_pending"], 0);
    job.ok("pause").await;
    job.ok("swap").await;
}

#[tokio::test]
async fn automatic_workers_copy_every_row_once() {
    let job = Slow::new("").await;
    job.db.execute("create index on events (note)").await;
    let run = job.copying().await;
    let cores = std::thread::available_parallelism().unwrap().get();
    job.ok("set workers=auto").await;
    job.until("select workers = 1 from pgstrata.pace").await;
    // Because of the limit on rows per second, two workers are not faster than one: the job tries two and returns to
    // one.
    job.until("select workers = 2 from pgstrata.pace").await;
    job.until("select workers = 1 from pgstrata.pace").await;
    assert!(cores > 1, "on one core, a job tries only one worker");
    job.finish(run).await;
}

/// With one worker, the control session does not search for the end of the next chunk while the worker copies, so that
/// a processor is left for the applications.
#[tokio::test]
async fn the_next_chunk_is_not_searched_for_while_one_worker_copies() {
    let job = Slow::new("").await;
    job.db.execute(&slow_column(0.02)).await;
    let run = job.copying().await;
    let looks = "select w.xact_start::text, c.query_start <= w.xact_start
        from pg_stat_activity w join pg_stat_activity c on c.datname = w.datname
        where w.datname = current_database() and w.application_name like 'pgstrata/%/worker' and w.query like 'insert into%'
          and clock_timestamp() > w.query_start + interval '100 ms' and w.state = 'active'
          and c.application_name like 'pgstrata/%/control' and (c.query like '%offset%' or c.query = 'commit')";
    let client = job.db.client().await;
    let mut seen = BTreeSet::new();
    until(looks, async || {
        for row in client.query(looks, &[]).await.unwrap() {
            assert!(row.get::<_, bool>(1), "the next chunk was searched for while the worker copied");
            seen.insert(row.get::<_, String>(0));
        }
        seen.len() == 5
    })
    .await;
    drop(run);
}
