//! Signals of the server: the archiver, vacuum, load, sessions that wait for the job, and the query of the plan.

use pgstrata::demo::server::PrivateServer;

use super::Slow;
use crate::support::cluster::{Database, SETTINGS};
use crate::support::events::slow_column;
use crate::support::wait::within;

#[tokio::test]
async fn a_failing_archiver_throttles_the_job() {
    let archive = [("archive_mode", "on"), ("archive_command", "true")];
    let server = PrivateServer::start(&[SETTINGS, &archive].concat()).unwrap();
    let job = Slow::on(Database::on(&server).await, "").await;
    let run = job.copying().await;
    job.db.execute("alter system set archive_command = 'false'").await;
    job.db.execute("select pg_reload_conf()").await;
    job.db.execute("select pg_switch_wal()").await;
    job.until("select failed_count > 0 from pg_stat_archiver").await;
    let hold = job.holds("archiver_failing").await;
    assert!(hold["cause"]["wal_file"].as_str().unwrap().starts_with("0000"), "{hold}");
    job.stands_still().await;
    job.db.execute("alter system set archive_command = 'true'").await;
    job.db.execute("select pg_reload_conf()").await;
    job.resumes().await;
    job.finish(run).await;
}

#[tokio::test]
async fn a_session_that_waits_for_the_job_throttles_it_and_chunks_shrink() {
    // A chunk takes seconds, so that a session can wait for it.
    let job = Slow::new("").await;
    job.db.execute(&slow_column(0.02)).await;
    let run = job.copying().await;
    let before: i64 = job.db.count("select max(rows) from pgstrata.chunks").await;
    // The ALTER TABLE acquires its lock when the current chunks are complete, because no other chunk begins. If it
    // waits too short a time to be detected, another one follows.
    let held = "select count(*) from pgstrata.events where what = 'throttled'
        and detail::jsonb ->> 'signal' = 'blocked_sessions' and (detail::jsonb ->> 'value')::float8 = 1
        and (detail::jsonb -> 'cause' ->> 'pid')::int > 0";
    within("the job is paused because a session waits for it", async {
        for n in 0.. {
            job.db.execute(&format!("alter table events add column more{n} int")).await;
            if job.db.count(held).await > 0 {
                break;
            }
        }
    })
    .await;
    let done = job.chunks().await;
    job.until(&format!("select count(*) >= {done} + 6 from pgstrata.chunks")).await;
    let after: i64 = job
        .db
        .count("select min(rows) from (select rows from pgstrata.chunks order by done_at desc limit 6) last")
        .await;
    assert!(after <= before / 5, "chunks had {before} rows, and {after} rows after a session had waited");
    drop(run);
}

#[tokio::test]
async fn an_autovacuum_that_prevents_wraparound_throttles_the_job() {
    let slow = [
        ("autovacuum_vacuum_cost_delay", "100"),
        ("autovacuum_vacuum_cost_limit", "1"),
        ("autovacuum_naptime", "1s"),
    ];
    let server = PrivateServer::start(&[SETTINGS, &slow].concat()).unwrap();
    let job = Slow::on(Database::on(&server).await, "").await;
    job.db
        .execute("alter table events set (autovacuum_enabled = off, autovacuum_freeze_max_age = 100000)")
        .await;
    let run = job.copying().await;
    job.db
        .execute(
            "create table burnt (); create procedure burn() language plpgsql as $$ begin
                 for i in 1..100500 loop perform pg_current_xact_id(); commit; end loop; end $$; set synchronous_commit = off",
        )
        .await;
    job.db.execute("call burn()").await;
    job.until(
        "select exists (select from pg_stat_activity where backend_type = 'autovacuum worker' and datname = current_database()
             and query like '%public.events (to prevent wraparound)')",
    )
    .await;
    job.holds("wraparound_vacuum").await;
    let hold = job.says("wraparound_vacuum").await;
    assert_eq!(
        (&hold["cause"]["code"], &hold["cause"]["table"]),
        (&"vacuum".into(), &"public.events".into())
    );
    job.stands_still().await;
    // A running autovacuum keeps its cost delay, so terminate it; the next one runs at full speed.
    job.db.execute("alter system set autovacuum_vacuum_cost_delay = 0").await;
    job.db.execute("select pg_reload_conf()").await;
    job.db
        .execute("select pg_terminate_backend(pid) from pg_stat_activity where query like '%(to prevent wraparound)'")
        .await;
    job.resumes().await;
    job.finish(run).await;
}

#[tokio::test]
async fn a_query_of_the_plan_throttles_the_job_while_it_is_true_or_over_its_limit() {
    let job = Slow::new("query = 'select busy from load'\n").await;
    job.db.execute("create table load (busy text); insert into load values ('f')").await;
    let run = job.copying().await;
    for (pausing, resuming) in [("t", "f"), ("11", "8")] {
        if pausing == "11" {
            let query = "query=select busy from load where busy ~ '^[0-9]'";
            job.db.pgstrata(&["set", "events", "query_limit=10", query]).await.ok();
        }
        job.db.execute(&format!("update load set busy = '{pausing}'")).await;
        let hold = job.holds("query").await;
        assert_eq!(hold["cause"]["code"], "plan_query", "{hold}");
        job.stands_still().await;
        job.db.execute(&format!("update load set busy = '{resuming}'")).await;
        job.resumes().await;
    }
    // A query that fails also throttles the job.
    job.db.execute("alter table load rename to loads").await;
    job.held("query").await;
    let hold = job.says("query").await;
    assert!(hold["unread"] == true && hold["cause"]["code"] == "plan_query_failed", "{hold}");
    assert!(hold["cause"]["error"].as_str().unwrap().contains("relation \"load\" does not exist"), "{hold}");
    job.db.execute("alter table loads rename to load").await;
    job.resumes().await;
    job.finish(run).await;
}

#[tokio::test]
async fn dead_rows_throttle_the_job_until_a_vacuum_removes_them() {
    let job = Slow::filling("max_dead_share = 0.4\n").await;
    job.db.execute("alter table events set (autovacuum_enabled = off)").await;
    let run = job.copying().await;
    job.db.execute("update events set at = at").await;
    job.held("dead_share").await;
    let hold = job.says("dead_share").await;
    let cause = &hold["cause"];
    // Dead rows of the update, and of the rows that were filled before the job was throttled.
    assert!(cause["table"] == "public.events" && cause["dead_rows"].as_u64().unwrap() >= 200_000, "{hold}");
    assert!(cause["autovacuum"] == false && cause["kept_by"].is_null(), "{hold}");
    assert_eq!(hold["limit"], 0.4);
    job.stands_still().await;
    job.db.execute("vacuum events").await;
    job.resumes().await;
    // Removing the limit resumes the job.
    job.db.execute("update events set at = at").await;
    job.held("dead_share").await;
    job.ok("set max_dead_share=off").await;
    job.resumes().await;
    job.ok("set rows_per_second=off").await;
    super::ended(run).await.ok();
    assert_eq!(job.one("select count(*)::text from events where note = upper(note)").await, "200000");
}

#[tokio::test]
async fn active_sessions_throttle_the_job() {
    let server = PrivateServer::start(SETTINGS).unwrap();
    let job = Slow::on(Database::on(&server).await, "max_active_backends = 6\n").await;
    let run = job.copying().await;
    let pgbench = |args: &[&str]| {
        let mut command = server.command("pgbench");
        command.arg("-h").arg(server.socket_dir()).args(["-p", &server.port().to_string(), "-U", "postgres"]);
        command.args(args).arg("postgres");
        command
    };
    assert!(pgbench(&["-i", "-s", "1", "-q"]).output().unwrap().status.success());
    let mut load = pgbench(&["-c", "12", "-T", "60"]).spawn().unwrap();
    job.until(
        "select count(*) > 8 from pg_stat_activity where state = 'active' and application_name = 'pgbench'",
    )
    .await;
    job.held("active_backends").await;
    // The number of active sessions varies, so the job may have resumed meanwhile: check the recorded event.
    load.kill().unwrap();
    load.wait().unwrap();
    job.resumes().await;
    let held =
        job.one("select detail from pgstrata.events where what = 'throttled' order by id limit 1").await;
    let held: serde_json::Value = serde_json::from_str(&held).unwrap();
    assert!(held["limit"] == 6.0 && held["cause"]["code"] == "other_sessions", "{held}");
    job.finish(run).await;
}

#[tokio::test]
async fn commit_latency_of_the_source_throttles_the_job() {
    // commit_delay applies only to commits that flush WAL to disk.
    let server = PrivateServer::start(&[SETTINGS, &[("fsync", "on")]].concat()).unwrap();
    let job = Slow::on(Database::on(&server).await, "max_commit_latency = '1s'\n").await;
    let run = job.copying().await;
    // Every commit takes at least 0.1 s, as with a slow disk or a slow synchronous standby.
    job.db.execute("alter system set commit_delay = 100000").await;
    job.db.execute("alter system set commit_siblings = 0").await;
    job.db.execute("select pg_reload_conf()").await;
    job.ok("set max_commit_latency=60ms").await;
    job.held("commit_latency_ms").await;
    assert_eq!(job.says("commit_latency_ms").await["limit"], 60.0);
    job.stands_still().await;
    job.db.execute("alter system reset commit_delay").await;
    job.db.execute("select pg_reload_conf()").await;
    job.resumes().await;
    job.finish(run).await;
}
