//! A run that is asked to stop, and locks that cannot be acquired: nothing is lost, who was in the way is said, and the same
//! command goes on later.

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use super::commands::{Events, refusal};
use super::pace::slow_column;
use super::support::process::{Ran, ended, frozen, send};
use super::support::wait::{until, within};

fn interrupt(child: &Child) {
    send(child, Signal::INT);
}

#[tokio::test]
async fn a_first_signal_stops_between_chunks() {
    let events = Events::slow().await;
    let run = events.start("run", &[]);
    events.copying().await;
    interrupt(&run);
    insta::assert_snapshot!(refusal(&ended(run).await), @"
    exit 6
    error: stopped as asked; job events is capturing
    hint: run the same command again to go on
    ");
    let done = events.db.count("select count(*) from pgstrata.chunks").await;
    assert!(done > 0);
    events.ok(&["run"]).await;
    let redone =
        "select count(*) from (select after from pgstrata.chunks group by after having count(*) > 1) twice";
    assert_eq!(events.db.count(redone).await, 0);
    events.ok(&["swap"]).await;
    assert_eq!(events.db.count("select count(*) from events").await, 4_000);
}

const FAST_AGAIN: &str = "create or replace function slow(bigint) returns bigint language plpgsql immutable as 'begin return $1; end'";

/// A run, once a worker is in the midst of a chunk that takes minutes.
async fn in_mid_chunk(events: &Events) -> Child {
    events.db.execute(&slow_column(0.1)).await;
    let run = events.start("run", &[]);
    until("a chunk at work", async || events.db.count(CHUNKS_AT_WORK).await > 0).await;
    run
}

const CHUNKS_AT_WORK: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and application_name like 'pgstrata/%/worker'
      and query like 'insert into %_new%' and state = 'active'";

async fn goes_on(events: &Events) {
    events.db.execute(FAST_AGAIN).await;
    events.ok(&["run"]).await;
    assert_eq!(events.db.count(CHUNKS_AT_WORK).await, 0);
    events.ok(&["swap"]).await;
    assert_eq!(events.db.count("select count(*) from events where slow = id").await, 4_000);
}

#[tokio::test]
async fn a_second_signal_cancels_what_is_under_way() {
    let events = Events::new().await;
    let mut run = in_mid_chunk(&events).await;
    // Two signals at once would be one: the second counts when the first was heard.
    let mut said = BufReader::new(run.stderr.take().unwrap()).lines();
    interrupt(&run);
    within("a run that has heard the signal", async {
        while !said.next_line().await.unwrap().unwrap().contains("stopping after the current chunks") {}
    })
    .await;
    interrupt(&run);
    let mut rest = String::new();
    while let Some(line) = said.next_line().await.unwrap() {
        rest += &format!("{line}\n");
    }
    let ran = ended(run).await;
    insta::assert_snapshot!(refusal(&Ran { stderr: rest, ..ran }), @"
    exit 6
    error: stopped as asked; what was under way was cancelled
    cause: failed to copy a chunk
    hint: run the same command again to go on
    ");
    goes_on(&events).await;
}

#[tokio::test]
async fn what_a_killed_process_left_at_work_on_the_server_is_ended() {
    let events = Events::new().await;
    let mut run = in_mid_chunk(&events).await;
    run.kill().await.unwrap();
    assert!(events.db.count(CHUNKS_AT_WORK).await > 0);
    goes_on(&events).await;
}

#[tokio::test]
async fn a_swap_whose_lock_is_held_names_the_holder_and_changes_nothing() {
    let events = Events::new().await;
    events.ok(&["run"]).await;
    let before = events.catalog().await;
    let mut client = events.db.client().await;
    client.batch_execute("set application_name = 'monthly report'").await.unwrap();
    let report = client.transaction().await.unwrap();
    report.batch_execute("select count(*) from events").await.unwrap();
    insta::assert_snapshot!(events.refused("swap").await, @r#"
    exit 5
    error: the lock on public.events could not be acquired in # attempts (# s)
    cause: in the way: pid #, user postgres, application "monthly report", idle in transaction, transaction since #-#-# #:#:#.#+#, query since #-#-# #:#:#.#+#
    hint: nothing was changed, and changes go on being logged; end the session in the way, or try at a quieter time, with the same command
    "#);
    assert_eq!(events.catalog().await, before);
    // Changes go on being logged.
    events.db.execute("insert into events (at, note) values ('2024-03-03', 'meanwhile')").await;
    report.commit().await.unwrap();
    events.ok(&["swap"]).await;
    assert_eq!(
        events.db.count("select count(*) from only events_y2024m03 where note = 'meanwhile'").await,
        1
    );
    let report = client.transaction().await.unwrap();
    report.batch_execute("select count(*) from events").await.unwrap();
    assert_eq!(events.ran("rollback").await.code, Some(5));
    report.commit().await.unwrap();
    events.ok(&["rollback"]).await;
    assert_eq!(events.db.count("select count(*) from only events").await, 4_001);
}

#[tokio::test]
async fn the_ends_of_a_job_wait_no_longer_for_a_lock_than_they_may() {
    let events = Events::new().await;
    let mut client = events.db.client().await;
    for (command, then) in [("run", "status"), ("abort", "run"), ("finalize --now", "status")] {
        if command == "finalize --now" {
            events.ok(&["swap"]).await;
        }
        let writer = client.transaction().await.unwrap();
        writer.batch_execute("update events set note = 'open' where at = '2024-02-02'").await.unwrap();
        assert_eq!(events.ran(command).await.code, Some(5), "{command}");
        writer.rollback().await.unwrap();
        events.ok(&[command, then]).await;
    }
}

/// The pattern of many an application: a value of the sequence first, then the row.
#[tokio::test]
async fn who_took_a_value_of_the_sequence_first_is_not_chosen_as_a_deadlock_s_victim() {
    let events = Events::new().await;
    events.ok(&["run"]).await;
    for command in ["swap", "rollback"] {
        // It has looked who is in the way, and is about to lock.
        let stop = [("PGSTRATA_FAILPOINT", "swap.ready=stop")];
        let mut exchange = frozen(events.start(command, &stop)).await;
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
            events.ok(&[command]).await;
        }
        assert_eq!(events.db.count(&format!("select count(*) from events where id = {id}")).await, 1);
    }
}
