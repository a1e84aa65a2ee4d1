//! Commands in every order: twice, at the same time, in the wrong state, after the plan or the table has changed. Each
//! refusal has a hint with the next step, and a refused command leaves nothing behind.

use crate::support::cluster::Database;
use crate::support::events::{self, plan_text};
use crate::support::kills::side_by_side;
use crate::support::process::{ended, refusal};

/// The tables and functions in schema `pgstrata`, and the states of the jobs.
const SCHEMA_CONTENTS: &str = "select string_agg(line, ', ' order by line) from (
  select relname::text from pg_class where relnamespace = 'pgstrata'::regnamespace and relkind = 'r'
  union all select proname from pg_proc where pronamespace = 'pgstrata'::regnamespace
  union all select 'job ' || state from pgstrata.jobs
  union all select 'a chunk' from pgstrata.chunks) own (line)";

#[tokio::test]
async fn abort_leaves_the_source_as_it_was() {
    let places = ["prepare.partition@3", "capture.done", "copy.chunk", "index.attached", "verify.done"];
    let cases: Vec<&str> = places.into_iter().chain(["rolled back"]).collect();
    side_by_side(cases, async |at| {
        let events = events::lab().await;
        let before = events.catalog().await;
        if at == "rolled back" {
            events.steps(&["run", "swap", "rollback"]).await;
        } else {
            events.killed("run", at).await;
        }
        assert_ne!(events.catalog().await, before);
        events.ok("abort").await;
        assert_eq!(events.catalog().await, before);
        let contents: String = events.db.client().await.query_one(SCHEMA_CONTENTS, &[]).await.unwrap().get(0);
        assert_eq!(contents, "chunks, events, job aborted, jobs, leases, objects, pace, settings, version");
        events.steps(&["run", "swap", "finalize --now"]).await;
        assert_eq!(events.db.count("select count(*) from events").await, 4_000);
    })
    .await;
}

#[tokio::test]
async fn a_second_driver_is_refused_with_the_holder_of_the_lease() {
    let events = events::slow_lab().await;
    let first = events.start("run", &[]);
    events.copying().await;
    // Each command waits a moment for the lease, so start them all at once.
    let others = ["swap", "verify", "sync", "abort"].map(|command| events.start(command, &[]));
    insta::assert_snapshot!(events.refused("run").await, @"
    exit 7
    error: another process is already running this job
    cause: server process #, connected from this machine since #-#-# #:#:#.#+#, runs the job
    hint: wait until it ends, or stop pgstrata on that machine; if the machine is down: select pg_terminate_backend(#)
    ");
    for other in others {
        ended(other).await.exits(7);
    }
    ended(first).await.ok();
}

#[tokio::test]
async fn of_two_processes_that_start_a_job_one_runs_it() {
    let events = events::slow_lab().await;
    let (one, other) = (events.start("run", &[]), events.start("run", &[]));
    let mut ran = [ended(one).await, ended(other).await];
    ran.sort_by_key(|ran| ran.code);
    assert_eq!(ran.each_ref().map(|ran| ran.code), [Some(0), Some(7)], "{ran:?}");
}

#[tokio::test]
async fn every_command_may_be_given_twice() {
    let events = events::lab().await;
    for command in
        ["run", "verify", "sync", "swap", "verify", "sync", "rollback", "verify", "swap", "finalize --now"]
    {
        events.steps(&[command, command]).await;
    }
    // With --quiet, a successful command prints nothing on stderr.
    assert_eq!(events.ran("finalize --now --quiet").await.ok().stderr, "");
    insta::assert_snapshot!(events.ran("run").await.ok().stderr, @"note: job events is done: public.events is partitioned");
    let events = events::lab().await;
    events.steps(&["run", "abort", "abort", "run"]).await;
}

#[tokio::test]
async fn a_command_in_the_wrong_state_names_the_one_to_run_first() {
    let events = events::lab().await;
    insta::assert_snapshot!(events.refused("swap").await, @"
    exit 2
    error: this database has no job named events
    hint: this database has no open job; `pgstrata run PLAN` starts a job
    ");
    events.killed("run", "copy.chunk").await;
    insta::assert_snapshot!(events.refused("swap").await, @"
    exit 2
    error: job events is capturing: the copy is not complete
    hint: `pgstrata run PLAN` continues it
    ");
    for command in ["verify", "sync"] {
        assert_eq!(events.refused(command).await, events.refused("swap").await);
    }
    insta::assert_snapshot!(events.refused("rollback").await, @"
    exit 2
    error: job events is capturing: there is no swap to roll back
    hint: to remove everything that the job created: `pgstrata abort events`
    ");
    insta::assert_snapshot!(events.refused("finalize --now").await, @"
    exit 2
    error: job events is capturing: only a swapped job can be finalized
    hint: `pgstrata status events` shows the state of the job
    ");
    events.steps(&["run", "swap"]).await;
    insta::assert_snapshot!(events.refused("finalize").await, @"
    exit 6
    error: the old table is kept until #-#-# #:# UTC, as set in the plan
    hint: to drop it now: `pgstrata finalize --now events`
    ");
    insta::assert_snapshot!(events.refused("abort").await, @"
    exit 2
    error: job events is swapped, and cannot be aborted
    hint: run `pgstrata rollback events`, which keeps all writes, then `pgstrata abort events`
    ");
    events.ok("finalize --now").await;
    insta::assert_snapshot!(events.refused("swap").await, @"
    exit 2
    error: job events is already finalized: nothing is left to do
    hint: this database has no open job; `pgstrata run PLAN` starts a job
    ");
    insta::assert_snapshot!(events.refused("abort").await, @"
    exit 2
    error: job events is already finalized: nothing is left to do
    hint: this database has no open job; `pgstrata run PLAN` starts a job
    ");
    let ran = events.db.pgstrata(&["swap", "evens"]).await;
    insta::assert_snapshot!(refusal(&ran), @"
    exit 2
    error: this database has no job named evens
    hint: this database has no open job; `pgstrata run PLAN` starts a job
    ");
}

#[tokio::test]
async fn an_unknown_job_is_refused_with_a_list_of_the_open_ones() {
    let events = events::lab().await;
    events.killed("run", "job.created").await;
    let ran = events.db.pgstrata(&["swap", "evens"]).await;
    insta::assert_snapshot!(refusal(&ran), @"
    exit 2
    error: this database has no job named evens
    hint: open jobs: events
    ");
    let ran = events.db.pgstrata(&["status", "evens"]).await;
    insta::assert_snapshot!(refusal(&ran), @"
    exit 2
    error: this database has no job named evens
    hint: `pgstrata status` lists all jobs
    ");
}

#[tokio::test]
async fn a_plan_edited_during_a_job_is_refused_except_for_throttling() {
    let events = events::lab().await;
    events.killed("run", "copy.chunk").await;
    let other = events.db.plan(&plan_text("2 months", "[verify]\nrows = 'count'\n"));
    insta::assert_snapshot!(refusal(&events.run_plan(&other).await), @"
    exit 2
    error: the plan differs from the plan with which job events started
    cause: the plan's partition.every was # month when the job started, and is # months now; the plan's verify.rows was hash when the job started, and is count now
    hint: restore the plan and run it again; or end the job and start over with the new plan: `pgstrata abort events`
    ");
    let faster = events.db.plan(&plan_text("month", "[copy]\nworkers = 3\n"));
    let output = events.run_plan(&faster).await.ok().stderr;
    insta::assert_snapshot!(output.lines().next().unwrap(), @"note: the plan's settings have changed since the job began; the new settings apply from now on");
    let again = events.db.pgstrata(&["run", faster.to_str().unwrap(), "--json"]).await.ok();
    assert_eq!(again.events("plan_settings_changed").len(), 0, "{again:?}");
}

#[tokio::test]
async fn a_source_that_changed_during_the_job_is_not_swapped() {
    let events = events::lab().await;
    events.killed("run", "copy.chunk").await;
    let change = |sql: &'static str| events.db.execute(sql);
    change(
        "alter table events add column late int; drop index events_note; create index later on events (note)",
    )
    .await;
    events.ok("run").await;
    let before = events.catalog().await;
    insta::assert_snapshot!(events.refused("swap").await, @"
    exit 1
    error: failed to swap
    cause: public.events has changed since this job was planned: column late was added; index events_note was dropped; index later was added
    hint: undo the change, or abort the job and run it again from the new definition; nothing was swapped
    ");
    assert_eq!(events.catalog().await, before);
    change("alter table events drop column late; drop index later; revoke insert on events from public")
        .await;
    insta::assert_snapshot!(events.refused("swap").await, @"
    exit 1
    error: failed to swap
    cause: public.events has changed since this job was planned: index events_note was dropped
    hint: undo the change, or abort the job and run it again from the new definition; nothing was swapped
    ");
}

#[tokio::test]
async fn a_disabled_capture_trigger_is_found_before_anything_relies_on_it() {
    let events = events::lab().await;
    events.ok("run").await;
    events.db.execute("alter table events disable trigger all").await;
    insta::assert_snapshot!(events.refused("sync").await, @"
    exit 1
    error: the capture triggers on public.events are no longer enabled
    cause: pgstrata_capture or pgstrata_truncate was dropped or disabled, or is not enabled as ALWAYS; changes since then were not logged
    hint: abort the job and run it again: `pgstrata abort events`
    ");
    // The trigger fires again, but not for changes that a replication worker applies.
    events.db.execute("alter table events enable trigger all").await;
    for command in ["sync", "verify", "swap", "run"] {
        assert_eq!(events.ran(command).await.code, Some(1), "{command}");
    }
    events.steps(&["abort", "run", "swap"]).await;
    events.db.execute("alter table events_y2024m02 disable trigger all").await;
    insta::assert_snapshot!(events.refused("rollback").await, @"
    exit 1
    error: the capture triggers on public.events are no longer enabled
    cause: pgstrata_capture or pgstrata_truncate was dropped or disabled, or is not enabled as ALWAYS; changes since then were not logged
    hint: keep the partitioned table, and give up the rollback: `pgstrata finalize --now events`
    ");
    events.ok("finalize --now").await;
}

/// The table does not exist any more, so it cannot be locked; abort removes the objects of the job nevertheless.
#[tokio::test]
async fn a_job_whose_table_was_dropped_can_be_aborted() {
    for until in ["prepare.done", "capture.done", "copy.chunks_done", "drain.done"] {
        let events = events::lab().await;
        events.killed("run", until).await;
        events.db.execute("drop table events cascade").await;
        assert_eq!(events.ok("abort --json").await.event("remove_job")["exists"], false);
        let left = "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where nspname = 'public' and relname like 'events%' or relname ~ '^(changes|truncations)_'";
        assert_eq!(events.db.count(left).await, 0, "{until}");
        assert_eq!(
            events.db.count("select count(*) from pg_proc where proname ~ '^(capture|guard)_'").await,
            0
        );
        assert_eq!(events.status().await["state"], "aborted");
    }
}

/// `-v` prints job, phase and chunk, but no values of rows.
#[tokio::test]
async fn verbose_output_shows_more_steps_and_no_data() {
    let events = events::lab().await;
    let key = 6_482_915;
    events
        .db
        .execute(&format!("insert into events values ({key}, '2024-02-02 01:02:03.456789Z', 'a secret')"))
        .await;
    let run = events.ran("run -v").await.ok().stderr;
    for step in [
        r#"job{name="events"}:phase{name="copy"}:chunk{n=1}: item begins what="copy a chunk of public.events""#,
        r#"job{name="events"}:phase{name="index"}:chunk{n=1}: item begins"#,
        r#"job{name="events"}:phase{name="verify"}:chunk{n=1}: item ends what="verify a range of public.events" ok=true"#,
    ] {
        assert!(run.contains(step), "{step}\n{run}");
    }
    events.db.execute(&format!("update events set note = 'another secret' where id = {key}")).await;
    let swap = events.ran("swap -v").await.ok().stderr;
    assert!(swap.contains("a batch of the log's blocks from=0 to="), "{swap}");
    for value in [&key.to_string(), "secret", "456789"] {
        assert!(!run.contains(value) && !swap.contains(value), "{value}\n{run}\n{swap}");
    }
}

/// Names may contain control sequences of a terminal, and line breaks that would end a comment. The printed SQL escapes
/// them and keeps its meaning.
#[tokio::test]
async fn the_printed_statements_contain_no_control_characters() {
    let db = Database::new().await;
    db.execute(
        "create table \"t\x1b[2J\n;x\" (id bigint generated always as identity primary key, at timestamptz not null,
             \"c\u{9b}\\31m\" text default e'\x1b' check (\"c\u{9b}\\31m\" <> e'\u{202e}\\\\'));
         comment on column \"t\x1b[2J\n;x\".at is e'\x07 bell'; insert into \"t\x1b[2J\n;x\" (at) values ('2024-01-15Z')",
    )
    .await;
    let plan = db.plan(
        "name = 'odd'\ntable = \"\\\"t\\u001b[2J\\n;x\\\"\"\n[partition]\nby = 'at'\nevery = 'month'\nto = '2024-07-01'\n",
    );
    let printed = db.pgstrata(&["sql", plan.to_str().unwrap()]).await.ok().stdout;
    let is_control = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!printed.contains(is_control), "{printed:?}");
    assert!(printed.contains(r#"U&"t\001B[2J\000A;x_new""#), "{printed}");
    // The statements before capture can be run as printed.
    let prepare = printed.split("-- capture").next().unwrap();
    db.execute(prepare).await;
    let same = "select count(*) from (select attname, attnum, pg_get_expr(adbin, adrelid) from pg_attribute
          left join pg_attrdef on adrelid = attrelid and adnum = attnum where attnum = 3 and attrelid in
            (select oid from pg_class where relname in (E't\\x1b[2J\\n;x', E't\\x1b[2J\\n;x_new')) group by 1, 2, 3) x";
    assert_eq!(db.count(same).await, 1);
    for command in [vec!["--json", "check", plan.to_str().unwrap()], vec!["check", plan.to_str().unwrap()]] {
        let ran = db.pgstrata(&command).await;
        assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(is_control), "{ran:?}");
    }
}
