//! Pause, resume and set from another process: they take effect immediately and persist across a restart; invalid
//! settings are refused.

use rustix::process::Signal;

use super::{Slow, ended};
use crate::support::process::send;

#[tokio::test]
async fn pause_and_resume_work_from_another_process_and_across_a_restart() {
    let job = Slow::new("").await;
    let mut run = job.copying().await;
    job.ok("pause").await;
    job.held("paused").await;
    assert_eq!(job.says("paused").await["cause"]["job"], "events");
    job.stands_still().await;
    run.kill().await.unwrap();
    assert_eq!(job.status().await["settings"]["paused"], "true");
    let before = job.chunks().await;
    let run = job.start(&[]);
    job.until("select exists (select from pg_stat_activity where datname = current_database() and application_name like '%/pace')")
        .await;
    job.looks(3).await;
    job.says("paused").await;
    assert_eq!(job.chunks().await, before);
    // A paused job stops immediately on SIGINT.
    send(&run, Signal::INT);
    ended(run).await.exits(6);
    let run = job.start(&[]);
    job.ok("resume").await;
    job.resumes().await;
    job.finish(run).await;
}

#[tokio::test]
async fn set_takes_effect_within_a_second_and_persists() {
    let job = Slow::new("").await;
    let run = job.copying().await;
    job.ok("set workers=1 rows_per_second=300 max_replica_lag=5s").await;
    job.until("select workers = 1 from pgstrata.pace").await;
    let set = job.status().await["settings"].to_string();
    assert_eq!(set, r#"{"max_replica_lag":"5s","rows_per_second":"300","workers":"1"}"#);
    assert!(
        job.ok("status").await.stdout.contains("settings   max_replica_lag=5s rows_per_second=300 workers=1")
    );
    // Chunks become as small as the rate requires.
    job.until("select rows <= 120 from pgstrata.chunks order by done_at desc limit 1").await;
    ended_by_interrupt(run).await;
    let run = job.start(&[]);
    job.resumes().await;
    job.until("select workers = 1 from pgstrata.pace").await;
    job.ok("set workers=3").await;
    job.until("select workers = 3 from pgstrata.pace").await;
    let output = job.finish(run).await.stderr;
    assert!(output.contains("copy.workers is now 3"), "{output}");
    // The settings are deleted when the job ends.
    job.ok("abort").await;
    assert_eq!(job.db.count("select count(*) from pgstrata.settings").await, 0);
}

async fn ended_by_interrupt(run: tokio::process::Child) {
    send(&run, Signal::INT);
    ended(run).await.exits(6);
}

#[tokio::test]
async fn invalid_settings_are_refused_and_change_nothing() {
    let job = Slow::new("").await;
    let run = job.copying().await;
    let mut errors = Vec::new();
    for wrong in [
        "workers=0",
        "rows_per_second=-1",
        "max_replica_lag=1ms",
        "workrs=3",
        "every=week",
        "workers",
        "windows=always",
    ] {
        errors.push(job.ran(&format!("set {wrong}")).await.exits(2).stderr);
    }
    insta::assert_snapshot!(errors.concat(), @r#"
    error: set: copy.workers: 0 is not "auto" or a whole number between 1 and 64
    error: set: throttle.rows_per_second: -1 is not a whole number between 1 and 4294967295
    error: set: throttle.max_replica_lag: 1ms is not between 100ms and 1 days
    error: `workrs` is not a setting that can be changed while a job runs
    hint: did you mean `workers`?
    error: `every` is not a setting that can be changed while a job runs
    hint: known: workers, target_batch_ms, rows_per_second, wal_bytes_per_second, max_replica_lag, max_replica_lag_bytes, replicas, forget_replica_after, max_slot_retained_bytes, archiver, max_active_backends, max_commit_latency, max_dead_share, query, query_limit, windows, timezone
    error: `workers` is not a setting
    hint: write KEY=VALUE: rows_per_second=20000, max_replica_lag=5s
    error: set: throttle.windows: `always` is not a window: write days and times, such as "Mon-Fri 22:00-05:00", or only times
    "#);
    assert_eq!(job.status().await["settings"].to_string(), "{}");
    assert_eq!(job.db.pgstrata(&["set", "nothing", "workers=1"]).await.code, Some(2));
    job.finish(run).await;
}
