//! Builds that do not complete: the process is killed, stopped or aborted, or a row is inserted that violates the
//! constraint.

use futures_util::{StreamExt, stream};
use pgstrata::failpoint;
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{FINISH, PARTITIONED, PLAIN, guarantees, lab, lab_with, plan_text, state};
use crate::support::cluster::Version;
use crate::support::lab::Lab;
use crate::support::process::{ended, send};
use crate::support::wait::within;

/// Marks an index as invalid, as the server leaves it after an interrupted build.
const UNFINISHED: &str = "update pg_index set indisvalid = false
    where indexrelid in (select oid from pg_class where relname ~ '^suppliers.*amount_kind_idx$' and relkind = 'i')";

#[tokio::test]
async fn an_index_that_was_left_unfinished_is_built_again() {
    let lab = lab(Version::System, PLAIN).await;
    lab.killed("run", "finish.index@2").await;
    lab.db.execute(UNFINISHED).await;
    let ran = lab.ok("run --json").await;
    assert_eq!(ran.event("index_rebuilt")["index"], "public.suppliers_amount_kind_idx");
    assert!(!guarantees(&lab).await.contains("INVALID"));
}

#[tokio::test]
async fn a_build_reports_what_it_waits_for_and_a_killed_one_is_repeated() {
    let lab = lab_with(Version::System, PLAIN, "finish = { index = ['(amount)'] }").await;
    let other = lab.db.client().await;
    other.batch_execute("set application_name = 'nightly report'").await.unwrap();
    other.batch_execute("begin isolation level repeatable read; select count(*) from kinds").await.unwrap();
    let mut child = lab.start("run --json", &[]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let waits = within("a build that reports what it waits for", async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the run ended without a report");
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["code"] == "index_waits" {
                return event;
            }
        }
    });
    let waits = waits.await;
    assert_eq!(waits["blockers"][0]["application"], "nightly report", "{waits}");
    child.kill().await.unwrap();
    assert!(guarantees(&lab).await.contains("INVALID"));
    other.batch_execute("rollback").await.unwrap();
    lab.ok("run").await;
    assert_eq!(guarantees(&lab).await, "suppliers index using btree (amount)\n");
}

#[tokio::test]
async fn a_build_that_waits_is_canceled_at_the_deadline() {
    let lab = lab_with(Version::System, PLAIN, "finish = { index = ['(amount)'] }").await;
    let other = lab.db.client().await;
    other.batch_execute("begin isolation level repeatable read; select count(*) from kinds").await.unwrap();
    lab.ran("run --for 3s").await.exits(6);
    other.batch_execute("rollback").await.unwrap();
    lab.ok("run").await;
    assert_eq!(guarantees(&lab).await, "suppliers index using btree (amount)\n");
}

/// The row violates a constraint, and is written after the job searched for violations and before the constraint
/// exists.
#[tokio::test]
async fn a_row_that_is_inserted_after_the_check_is_reported() {
    for (finish, sql, named) in [
        (
            "unique = [['amount']]",
            "insert into suppliers (id, amount, kind, code) values (77001, 5, 1, 'late')",
            ["(amount)", "5 and 77001"],
        ),
        (
            "foreign_key = ['(kind) references kinds']",
            "insert into suppliers (id, amount, kind, code) values (77001, 70000, 55, 'late')",
            ["(kind) to public.kinds", "77001"],
        ),
    ] {
        let finish = format!("finish = {{ not_null = ['code'], {finish} }}");
        let lab = lab_with(Version::System, PLAIN, &finish).await;
        let run = lab.frozen("run", "finish.added").await;
        lab.db.execute(sql).await;
        send(&run, Signal::CONT);
        let stderr = ended(run).await.exits(4).stderr;
        assert!(named.iter().all(|part| stderr.contains(part)), "{stderr}");
        assert!(!guarantees(&lab).await.contains("INVALID"));
        lab.db.execute("delete from suppliers where id = 77001").await;
        lab.ok("run").await;
    }
}

/// Without a trigger, rows that are inserted after the last pass are not filled.
#[tokio::test]
async fn rows_inserted_after_the_last_pass_are_filled_before_constraints_are_built() {
    let plan = plan_text(FINISH).replace("keep_filled = true", "keep_filled = false");
    let lab = Lab::new(PLAIN, &plan).await;
    lab.killed("run", "verify.done").await;
    lab.db.execute("insert into suppliers (amount) values (7), (8)").await;
    lab.ok("run").await;
    assert_eq!(lab.db.count("select count(*) from suppliers where code in ('c7', 'c8')").await, 4);
    assert!(guarantees(&lab).await.contains("code not null"));
}

/// Versions differ in how foreign keys of a partitioned table are built.
#[tokio::test]
async fn a_build_killed_at_every_failpoint_is_completed_by_the_next_run() {
    let whole = lab(Version::System, PARTITIONED).await;
    whole.ok("run").await;
    let built = guarantees(&whole).await;
    let failpoints = failpoint::NAMES.iter().filter(|name| name.starts_with("finish."));
    let later = ["finish.validated@3", "finish.index@4", "finish.attached@2", "finish.key@2"];
    let live = async |at: &str| {
        let lab = lab(Version::System, PARTITIONED).await;
        if at == "finish.dropped" {
            lab.killed("run", "finish.parent@2").await;
            lab.db.execute(UNFINISHED).await;
        }
        lab.killed("run", at).await;
        lab.ok("run").await;
        assert_eq!((guarantees(&lab).await, state(&lab).await), (built.clone(), "finalized".into()), "{at}");
    };
    stream::iter(failpoints.chain(&later)).for_each_concurrent(3, |at| live(at)).await;
}

#[tokio::test]
async fn an_abort_removes_what_is_not_complete() {
    for (setup, at) in [
        (PLAIN, "finish.added"),
        (PLAIN, "finish.validated@2"),
        (PARTITIONED, "finish.index@3"),
        (PARTITIONED, "finish.parent"),
        (PARTITIONED, "finish.attached"),
        (PARTITIONED, "finish.key"),
    ] {
        let lab = lab(Version::System, setup).await;
        lab.killed("run", at).await;
        let output = lab.ok("abort --json").await;
        let built = guarantees(&lab).await;
        assert!(!built.contains("NOT VALID") && !built.contains("INVALID"), "{at}: {built}");
        let helpers = "select count(*) from pg_constraint where conname like 'pgstrata%'";
        assert_eq!(lab.db.count(helpers).await, 0, "{at}");
        match at {
            "finish.added" => assert_eq!(built, "", "{at}"),
            "finish.key" => {
                let kept = output.events("built_and_kept");
                assert!(kept.iter().any(|event| event["name"] == "suppliers_code_id_key"), "{kept:?}");
                assert!(!built.contains("FOREIGN KEY"), "{built}");
            }
            _ => {}
        }
    }
}
