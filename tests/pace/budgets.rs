//! Budgets: over 20 seconds, the rate of rows and of WAL is close to the limit.

use std::time::{Duration, Instant};

use pgstrata::demo::server::PrivateServer;

use super::ended;
use crate::support::cluster::{Database, SETTINGS};
use crate::support::wait::until;

/// The duration of a measurement.
const SPAN: Duration = Duration::from_secs(20);

/// Runs a job on a table of two million rows; returns the rows per second and the bytes of WAL per second, measured
/// during the copy.
async fn measured(throttle: &str) -> (f64, f64) {
    let server = PrivateServer::start(SETTINGS).unwrap();
    let db = Database::on(&server).await;
    db.execute(
        "create table events (id bigint primary key, at timestamptz not null, note text) with (autovacuum_enabled = off);
         insert into events select i, timestamptz '2024-01-01 00:00Z' + i * interval '10 seconds', 'note ' || i
             from generate_series(1, 2000000) i;
         analyze events; checkpoint",
    )
    .await;
    let plan = db
        .plan(&format!("table = 'events'\n[partition]\nby = 'at'\nevery = 'month'\n[throttle]\n{throttle}"));
    let mut run = db.command(&["run", plan.to_str().unwrap()]).spawn().unwrap();
    let client = db.client().await;
    let so_far =
        "select coalesce(sum(rows), 0)::float8, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8,
        count(*) from pgstrata.chunks";
    let is_copying = async || client.query_one(so_far, &[]).await.is_ok_and(|row| row.get::<_, i64>(2) >= 8);
    until("the job copies", is_copying).await;
    let read = async || {
        let row = client.query_one(so_far, &[]).await.unwrap();
        (Instant::now(), row.get::<_, f64>(0), row.get::<_, f64>(1))
    };
    let (began_at, rows_before, wal_before) = read().await;
    tokio::time::sleep(SPAN).await;
    let (ended_at, rows_after, wal_after) = read().await;
    assert!(run.try_wait().unwrap().is_none(), "the copy ended during the measurement");
    let sampled = "select count(*) from pgstrata.events where what = 'sample'
        and detail::jsonb ->> 'phase' = 'copy' and (detail::jsonb ->> 'per_second')::float8 > 0
        and (detail::jsonb ->> 'wal_bytes_per_second')::float8 > 0 and detail::jsonb -> 'holds' = '[]'";
    assert!(client.query_one(sampled, &[]).await.unwrap().get::<_, i64>(0) > 0);
    run.start_kill().unwrap();
    ended(run).await;
    let s = (ended_at - began_at).as_secs_f64();
    ((rows_after - rows_before) / s, (wal_after - wal_before) / s)
}

#[tokio::test]
async fn rows_per_second_limit_the_job() {
    let (rows, _) = measured("rows_per_second = 50_000\n").await;
    println!("{rows:.0} rows per second, limit 50,000");
    assert!((0.8 * 50_000.0..=1.1 * 50_000.0).contains(&rows), "{rows} rows per second");
}

#[tokio::test]
async fn wal_bytes_per_second_limit_the_job() {
    let (_, wal) = measured("wal_bytes_per_second = '5 MiB'\n").await;
    let limit = f64::from(5 << 20);
    println!("{:.0} % of the limit", wal / limit * 100.0);
    assert!((0.8 * limit..=1.1 * limit).contains(&wal), "{wal} bytes per second, limit {limit}");
}
