//! `status`, and the JSON output: it has the documented fields, and each line is an object.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::events;
use crate::support::lab::Lab;
use crate::support::process::ended;

/// The fields of `status --json`.
const STATUS: [&str; 28] = [
    "job",
    "kind",
    "table",
    "state",
    "phase",
    "rows_estimated",
    "rows_copied",
    "rows_set",
    "rows_per_second",
    "eta_s",
    "chunks_done",
    "chunk_rows",
    "chunk_ms_p50",
    "chunk_ms_p99",
    "chunk_ms_max",
    "changes_pending",
    "replica_lag_s",
    "guarded",
    "hold",
    "holds",
    "replicas",
    "workers",
    "settings",
    "rates",
    "started_at",
    "updated_at",
    "swapped_at",
    "keep_old_until",
];
/// The fields of `verify --json`.
const VERIFY: [&str; 9] = [
    "job",
    "rows_in_use",
    "rows_inactive",
    "missing",
    "extra",
    "different",
    "pending",
    "verified",
    "examples",
];

/// Asserts that the object has exactly these fields.
fn has_exactly(object: &Value, fields: &[&str]) {
    let is: BTreeSet<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(is, fields.iter().copied().collect());
}

fn objects(stdout: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    let objects: Vec<Value> = stdout.lines().map(parse).collect();
    assert!(objects.iter().all(Value::is_object), "{stdout}");
    objects
}

async fn status(events: &Lab) -> Value {
    let mut all = objects(&events.ran("status --json").await.ok().stdout);
    assert_eq!(all.len(), 1);
    let status = all.remove(0);
    has_exactly(&status, &STATUS);
    status
}

/// The fields that do not depend on the machine; of others, whether they are set.
async fn facts(events: &Lab) -> String {
    let status = status(events).await;
    let of = |field: &str| format!("{field}={}", status[field]);
    let set = |field: &str| format!("{field}:{}", !status[field].is_null());
    let exact = ["job", "table", "state", "phase", "rows_copied", "changes_pending", "hold"].map(of);
    let present =
        ["rows_per_second", "eta_s", "chunk_rows", "chunk_ms_p50", "swapped_at", "keep_old_until"].map(set);
    format!("{}\n{}", exact.join(" "), present.join(" "))
}

#[tokio::test]
async fn status_follows_a_job_to_its_end() {
    let events = events::slow_lab().await;
    assert_eq!(events.db.pgstrata(&["status"]).await.ok().stdout, "no jobs\n");
    assert_eq!(events.db.pgstrata(&["status", "--json"]).await.ok().stdout, "");
    let run = events.start("run --json", &[]);
    events.copying().await;
    let copying = status(&events).await;
    assert_eq!((copying["state"].as_str(), copying["phase"].as_str()), (Some("capturing"), Some("copy")));
    let stream = objects(&ended(run).await.ok().stdout);
    let phases: Vec<&str> =
        stream.iter().filter(|e| e["event"] == "phase_started").filter_map(|e| e["phase"].as_str()).collect();
    insta::assert_snapshot!(phases.join(" "), @"prepare capture copy scrub index analyze drain verify");
    insta::assert_snapshot!(facts(&events).await, @r#"
    job="events" table="public.events" state="verified" phase=null rows_copied=4000 changes_pending=0 hold=null
    rows_per_second:false eta_s:false chunk_rows:true chunk_ms_p50:true swapped_at:false keep_old_until:false
    "#);
    events.db.execute("update events set note = 'x' where at < '2024-01-02'").await;
    insta::assert_snapshot!(facts(&events).await, @r#"
    job="events" table="public.events" state="verified" phase=null rows_copied=4000 changes_pending=48 hold=null
    rows_per_second:false eta_s:false chunk_rows:true chunk_ms_p50:true swapped_at:false keep_old_until:false
    "#);
    events.ok("swap").await;
    insta::assert_snapshot!(facts(&events).await, @r#"
    job="events" table="public.events" state="swapped" phase=null rows_copied=4000 changes_pending=0 hold=null
    rows_per_second:false eta_s:false chunk_rows:true chunk_ms_p50:true swapped_at:true keep_old_until:true
    "#);
    events.ok("rollback").await;
    insta::assert_snapshot!(facts(&events).await, @r#"
    job="events" table="public.events" state="rolled_back" phase=null rows_copied=4000 changes_pending=0 hold=null
    rows_per_second:false eta_s:false chunk_rows:true chunk_ms_p50:true swapped_at:false keep_old_until:false
    "#);
    events.steps(&["swap", "finalize --now"]).await;
    insta::assert_snapshot!(facts(&events).await, @r#"
    job="events" table="public.events" state="finalized" phase=null rows_copied=4000 changes_pending=null hold=null
    rows_per_second:false eta_s:false chunk_rows:false chunk_ms_p50:false swapped_at:true keep_old_until:true
    "#);
    assert_eq!(objects(&events.db.pgstrata(&["status", "--json"]).await.ok().stdout).len(), 1);
    assert!(events.ok("status").await.stdout.contains("finalized"), "the text output shows the state");
}

#[tokio::test]
async fn the_json_of_every_command_and_error_is_one_object_per_line() {
    let events = events::lab().await;
    let commands = [
        "check --json",
        "run --json",
        "verify --json",
        "sync --json",
        "swap --json",
        "rollback --json",
        "abort --json",
    ];
    for command in commands {
        let lines = objects(&events.ran(command).await.ok().stdout);
        assert!(!lines.is_empty(), "{command}");
        if command.starts_with("verify") {
            let report = lines.last().unwrap();
            has_exactly(report, &VERIFY);
            assert_eq!(report["verified"], true);
        }
    }
    let refused = events.ran("swap --json").await.exits(2);
    let error = &objects(&refused.stderr)[0]["error"];
    assert_eq!((&error["code"], &error["exit_code"]), (&"invalid_usage".into(), &2.into()));
    assert!(error["message"].is_string() && error["hint"].is_string());
}

/// The job is finalized between the query on its record and the query on its change log.
#[tokio::test]
async fn a_job_that_ends_while_status_reads_it_is_read_again() {
    let events = events::lab().await;
    events.steps(&["run", "swap"]).await;
    let finalizer = events.db.client().await;
    finalizer
        .batch_execute(
            "begin; drop table pgstrata.changes_events; update pgstrata.jobs set state = 'finalized'",
        )
        .await
        .unwrap();
    let status = events.start("status --json", &[]);
    let waiting = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and query like '%changes_events%'";
    while events.db.count(waiting).await == 0 {
        tokio::task::yield_now().await;
    }
    finalizer.batch_execute("commit").await.unwrap();
    let jobs = objects(&ended(status).await.ok().stdout);
    assert_eq!((jobs[0]["state"].as_str(), jobs[0]["changes_pending"].as_u64()), (Some("finalized"), None));
}
