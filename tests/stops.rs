//! Runs that receive SIGINT, and locks that cannot be acquired: nothing is lost, blockers are reported, and the same
//! command resumes the job later.

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::support::events::{self, slow_column};
use crate::support::lab::Lab;
use crate::support::process::{Ran, ended, refusal, send};
use crate::support::wait::{until, within};

fn interrupt(child: &Child) {
    send(child, Signal::INT);
}

#[tokio::test]
async fn a_first_signal_stops_between_chunks() {
    let events = events::slow_lab().await;
    let run = events.start("run", &[]);
    events.copying().await;
    interrupt(&run);
    insta::assert_snapshot!(refusal(&ended(run).await), @"
    exit 6
    error: stopped as requested; job events is capturing
    hint: run the same command again to continue
    ");
    let done = events.db.count("select count(*) from pgstrata.chunks").await;
    assert!(done > 0);
    events.ok("run").await;
    let redone =
        "select count(*) from (select after from pgstrata.chunks group by after having count(*) > 1) twice";
    assert_eq!(events.db.count(redone).await, 0);
    events.ok("swap").await;
    assert_eq!(events.db.count("select count(*) from events").await, 4_000);
}

const FAST_AGAIN: &str = "create or replace function slow(bigint) returns bigint language plpgsql immutable as 'begin return $1; end'";

/// Starts a run and waits until a worker copies a chunk that takes minutes.
async fn in_mid_chunk(events: &Lab) -> Child {
    events.db.execute(&slow_column(0.1)).await;
    let run = events.start("run", &[]);
    until("a worker copies a chunk", async || events.db.count(RUNNING_CHUNKS).await > 0).await;
    run
}

const RUNNING_CHUNKS: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and application_name like 'pgstrata/%/worker'
      and query like 'insert into %_new%' and state = 'active'";

/// Asserts that the job can be resumed and swapped.
async fn resumes(events: &Lab) {
    events.db.execute(FAST_AGAIN).await;
    events.ok("run").await;
    assert_eq!(events.db.count(RUNNING_CHUNKS).await, 0);
    events.ok("swap").await;
    assert_eq!(events.db.count("select count(*) from events where slow = id").await, 4_000);
}

#[tokio::test]
async fn a_second_signal_cancels_running_statements() {
    let events = events::lab().await;
    let mut run = in_mid_chunk(&events).await;
    // Two signals in quick succession may be delivered as one, so wait until the first was received.
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines();
    interrupt(&run);
    within("the run reports the first signal", async {
        while !lines.next_line().await.unwrap().unwrap().contains("stopping after the current chunks") {}
    })
    .await;
    interrupt(&run);
    let mut rest = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        rest += &format!("{line}\n");
    }
    let ran = ended(run).await;
    insta::assert_snapshot!(refusal(&Ran { stderr: rest, ..ran }), @"
    exit 6
    error: stopped as requested; the sessions of the job were ended
    cause: failed to copy a chunk of public.events
    hint: run the same command again to continue
    ");
    resumes(&events).await;
}

#[tokio::test]
async fn statements_that_a_killed_process_left_running_are_canceled() {
    let events = events::lab().await;
    let mut run = in_mid_chunk(&events).await;
    run.kill().await.unwrap();
    assert!(events.db.count(RUNNING_CHUNKS).await > 0);
    resumes(&events).await;
}

#[tokio::test]
async fn a_swap_whose_lock_is_held_reports_the_blocker_and_changes_nothing() {
    let events = events::lab().await;
    events.ok("run").await;
    let before = events.catalog().await;
    let mut client = events.db.client().await;
    client.batch_execute("set application_name = 'monthly report'").await.unwrap();
    let report = client.transaction().await.unwrap();
    report.batch_execute("select count(*) from events").await.unwrap();
    insta::assert_snapshot!(events.refused("swap").await, @r#"
    exit 5
    error: could not acquire the lock on public.events in # attempts (# s)
    cause: blocked by pid #, user postgres, application "monthly report", idle in transaction, transaction since #-#-# #:#:#.#+#, query since #-#-# #:#:#.#+#
    hint: nothing was changed, and changes are still logged; end the blocking session, or run the same command again when the server is less busy
    "#);
    assert_eq!(events.catalog().await, before);
    // Changes are still logged.
    events.db.execute("insert into events (at, note) values ('2024-03-03', 'meanwhile')").await;
    report.commit().await.unwrap();
    events.ok("swap").await;
    assert_eq!(
        events.db.count("select count(*) from only events_y2024m03 where note = 'meanwhile'").await,
        1
    );
    let report = client.transaction().await.unwrap();
    report.batch_execute("select count(*) from events").await.unwrap();
    assert_eq!(events.ran("rollback").await.code, Some(5));
    report.commit().await.unwrap();
    events.ok("rollback").await;
    assert_eq!(events.db.count("select count(*) from only events").await, 4_001);
}

#[tokio::test]
async fn run_abort_and_finalize_give_up_waiting_for_a_lock() {
    let events = events::lab().await;
    let mut client = events.db.client().await;
    for (command, then) in [("run", "status"), ("abort", "run"), ("finalize --now", "status")] {
        if command == "finalize --now" {
            events.ok("swap").await;
        }
        let writer = client.transaction().await.unwrap();
        writer.batch_execute("update events set note = 'open' where at = '2024-02-02'").await.unwrap();
        assert_eq!(events.ran(command).await.code, Some(5), "{command}");
        writer.rollback().await.unwrap();
        events.steps(&[command, then]).await;
    }
}

/// A common pattern of applications: they call nextval, and then insert the row.
#[tokio::test]
async fn an_insert_that_used_the_sequence_first_is_no_deadlock_victim() {
    let events = events::lab().await;
    events.ok("run").await;
    for command in ["swap", "rollback"] {
        // At this failpoint, the command has checked for blockers and is about to lock.
        let mut exchange = events.frozen(command, "swap.ready").await;
        let mut client = events.db.client().await;
        let writer = client.transaction().await.unwrap();
        let id: i64 = writer.query_one("select nextval('events_id_seq')", &[]).await.unwrap().get(0);
        send(&exchange, Signal::CONT);
        let waits = "select count(*) from pg_stat_activity where datname = current_database()
            and application_name like 'pgstrata/%' and wait_event_type = 'Lock'";
        until(waits, async || exchange.try_wait().unwrap().is_some() || events.db.count(waits).await > 0)
            .await;
        writer.execute("insert into events (id, at) values ($1, '2024-02-02')", &[&id]).await.unwrap();
        writer.commit().await.unwrap();
        let ran = ended(exchange).await;
        if ran.code != Some(0) {
            ran.exits(5);
            events.ok(command).await;
        }
        assert_eq!(events.db.count(&format!("select count(*) from events where id = {id}")).await, 1);
    }
}
