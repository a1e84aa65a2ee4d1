//! Standbys and slots: replica lag in seconds or bytes, standbys that disappear, standbys that the role cannot see, and
//! standbys that the plan lists.

use pgstrata::demo::server::PrivateServer;

use super::{Slow, ended};
use crate::support::checks::findings;
use crate::support::cluster::{Database, SETTINGS, connect};
use crate::support::standby::Standby;

/// A server that standbys and logical slots can follow.
fn primary() -> PrivateServer {
    PrivateServer::start(&[SETTINGS, &[("wal_level", "logical"), ("wal_keep_size", "256MB")]].concat())
        .unwrap()
}

#[tokio::test]
async fn the_larger_replica_lag_of_two_standbys_throttles_the_job() {
    let server = primary();
    let (one, two) = (Standby::of(&server, "one", 5501).await, Standby::of(&server, "two", 5502).await);
    let job = Slow::on(Database::on(&server).await, "max_replica_lag = '1s'\n").await;
    let run = job.copying().await;
    for (standby, name) in [(&one, "one"), (&two, "two"), (&one, "one")] {
        standby.replays(false).await;
        // The replica lag exceeds the limit after a second.
        job.held("replica_lag_s").await;
        let hold = job.says("replica_lag_s").await;
        assert_eq!(hold["limit"], 1.0);
        assert_eq!(hold["cause"]["standby"], name, "{hold}");
        job.stands_still().await;
        let status = job.status().await;
        assert!(
            status["replica_lag_s"].as_f64().unwrap() > 1.0
                && status["replicas"].as_array().unwrap().len() == 2
        );
        standby.replays(true).await;
        job.resumes().await;
    }
    let output = job.finish(run).await.stderr;
    assert!(
        output.contains("throttled: replica_lag_s is ")
            && output.contains("resumed: replica_lag_s throttled the job for "),
        "{output}"
    );
}

#[tokio::test]
async fn lag_in_bytes_is_read_from_a_listed_standby() {
    let server = primary();
    let standby = Standby::of(&server, "listed", 5503).await;
    let throttle = format!(
        "max_replica_lag = 'off'\nmax_replica_lag_bytes = '64 KiB'\nreplicas = [\"{}\"]\n",
        standby.listed()
    );
    let job = Slow::on(Database::on(&server).await, &throttle).await;
    let run = job.copying().await;
    standby.replays(false).await;
    job.held("replica_lag_bytes").await;
    let hold = job.says("replica_lag_bytes").await;
    assert!(hold["value"].as_f64().unwrap() > 65_536.0 && hold["limit"] == 65_536.0, "{hold}");
    assert!(hold["cause"]["standby"].as_str().unwrap().contains("5503/"), "{hold}");
    job.stands_still().await;
    standby.replays(true).await;
    job.resumes().await;
    // From now on, the limit is on the replica lag in seconds.
    job.ok("set max_replica_lag_bytes=off max_replica_lag=1s").await;
    standby.replays(false).await;
    job.held("replica_lag_s").await;
    job.stands_still().await;
    standby.replays(true).await;
    job.resumes().await;
    job.finish(run).await;
}

#[tokio::test]
async fn a_standby_that_disappears_throttles_the_job_until_it_is_back_or_ignored() {
    let server = primary();
    let standby = Standby::of(&server, "gone", 5504).await;
    let job = Slow::on(Database::on(&server).await, "").await;
    let run = job.copying().await;
    job.looks(1).await;
    drop(standby);
    job.until("select not exists (select from pg_stat_replication)").await;
    let hold = job.holds("replica_gone_s").await;
    assert_eq!(hold["limit"], 300.0);
    assert!(hold["cause"]["code"] == "standby_gone" && hold["cause"]["standby"] == "gone", "{hold}");
    job.stands_still().await;
    let back = Standby::start(&server, "gone", 5504).await;
    job.resumes().await;
    job.ok("set forget_replica_after=1s").await;
    drop(back);
    job.held("replica_gone_s").await;
    job.resumes().await;
    let output = job.finish(run).await.stderr;
    assert!(
        output.contains("warning: standby gone has been disconnected for 1.0 s: ignoring it from now on"),
        "{output}"
    );
}

#[tokio::test]
async fn a_listed_standby_that_does_not_answer_throttles_the_job_from_the_start() {
    let server = primary();
    let throttle = format!("replicas = [\"host={} port=5999\"]\n", server.socket_dir().display());
    let job = Slow::on(Database::on(&server).await, &throttle).await;
    let run = job.start(&[]);
    job.held("replica_gone_s").await;
    assert!(job.says("replica_gone_s").await["cause"]["standby"].as_str().unwrap().contains("5999"));
    assert_eq!(job.chunks().await, 0);
    job.ok("set replicas=off").await;
    job.resumes().await;
    job.finish(run).await;
}

#[tokio::test]
async fn a_role_that_cannot_see_standbys_is_warned_and_throttled_by_a_limit() {
    let server = primary();
    let db = Database::on(&server).await;
    db.execute(
        "create role app login; grant create on schema public to app;
         do $$ begin execute format('grant create on database %I to app', current_database()); end $$",
    )
    .await;
    let mut job = Slow::on(db, "max_replica_lag = '5s'\n").await;
    job.db.execute("alter table events owner to app").await;
    job.db.log_in_as("app");
    let plan = job.plan.display().to_string();
    let checked = job.db.pgstrata(&["check", &plan]).await.ok();
    let found = findings(&checked.stdout);
    assert!(found.contains(&"warning[replicas_hidden]: app".to_owned()), "{found:?}");
    let run = job.start(&[]);
    job.held("replica_lag_s").await;
    let hold = job.says("replica_lag_s").await;
    assert!(hold["cause"]["code"] == "not_permitted" && hold["cause"]["role"] == "app", "{hold}");
    assert_eq!(job.chunks().await, 0);
    connect(&server.dsn("postgres")).await.batch_execute("grant pg_monitor to app").await.unwrap();
    job.resumes().await;
    job.db
        .execute("insert into pgstrata.settings select id, 'rows_per_second', 'off' from pgstrata.jobs")
        .await;
    ended(run).await.ok();
}

#[tokio::test]
async fn a_slot_that_nobody_reads_throttles_the_job() {
    let server = primary();
    let job = Slow::on(Database::on(&server).await, "max_slot_retained_bytes = '4 MiB'\n").await;
    job.db.execute("select pg_create_logical_replication_slot('nobody', 'test_decoding')").await;
    let run = job.copying().await;
    // Other sessions write more WAL than the slot may retain.
    job.db.execute("create table noise as select i, repeat('x', 500) from generate_series(1, 16000) i").await;
    let hold = job.holds("slot_retained_bytes").await;
    assert!(hold["value"].as_f64().unwrap() > 4_194_304.0 && hold["limit"] == 4_194_304.0, "{hold}");
    assert_eq!(hold["cause"]["slot"], "nobody", "{hold}");
    job.stands_still().await;
    job.db.execute("select pg_drop_replication_slot('nobody')").await;
    job.resumes().await;
    job.finish(run).await;
}
