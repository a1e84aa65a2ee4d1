//! Each command where it may be given and where it may not: twice, too early, too late, by two at once, after an
//! interruption, and after somebody changed the plan or the table under it. What is refused changes nothing, and says
//! what to do; where that can be done, it is done here, to see that it helps.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::Child;

use crate::support::cluster::{Database, Ran};

const FINGERPRINT: &str = include_str!("fingerprint.sql");
const ROWS: i64 = 2_000;
const PLAN: &str = "table = 'observations'\n[partition]\nby = 'at'\nevery = '3 months'\n";
/// A copy of twenty chunks, a second each: whoever waits for the first one finds it far from its end.
const SLOW: &str = "[throttle]\nrows_per_second = 100\n";

/// A table with one of each of what hangs on a table, in a database of its own.
async fn lab() -> Database {
    let db = Database::new().await;
    db.execute(&format!(
        "create table observations (id bigint generated always as identity primary key, at timestamptz not null,
           site int not null check (site > 0), note text default 'none');
         create index observations_site on observations (site, at);
         create function touch() returns trigger language plpgsql as 'begin return new; end';
         create trigger touch before update on observations for each row execute function touch();
         grant select on observations to public;
         comment on table observations is 'What people saw';
         insert into observations (at, site)
           select timestamptz '2024-01-15 00:00Z' + i * interval '6 hours', 1 + i % 7 from generate_series(0, {ROWS} - 1) i;
         analyze observations"
    ))
    .await;
    db
}

async fn run(db: &Database, plan: &str) -> Ran {
    db.pgstrata(&["run", db.plan(plan).to_str().unwrap()]).await
}

/// A job that is verified.
async fn verified() -> Database {
    let db = lab().await;
    run(&db, PLAN).await.ok();
    db
}

/// A run that has copied a part of the rows, and goes on.
async fn copying(db: &Database) -> Child {
    let plan = db.plan(&format!("{PLAN}{SLOW}"));
    let mut run = db.command(&["run", plan.to_str().unwrap()]).spawn().unwrap();
    for sql in ["select count(to_regclass('pgstrata.chunks'))", "select count(*) from pgstrata.chunks"] {
        while db.count(sql).await == 0 {
            assert_eq!(run.try_wait().unwrap(), None);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    run
}

/// Presses Ctrl-C, and waits for the end.
async fn interrupt(run: Child) -> Ran {
    let pid = Pid::from_raw(run.id().unwrap().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let output = run.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A job whose run was interrupted in the middle of its copy.
async fn interrupted() -> Database {
    let db = lab().await;
    interrupt(copying(&db).await).await.exits(6);
    assert!(db.count("select sum(rows)::bigint from pgstrata.chunks").await < ROWS);
    db
}

/// What the tool said last: why it failed and what to do; times left out.
fn told(ran: &Ran) -> String {
    let lines = ran.stderr.lines();
    let last: Vec<String> = lines
        .filter(|line| ["error: ", "cause: ", "hint: "].iter().any(|label| line.starts_with(label)))
        .map(|line| without_times(line, &["since ", "until "]))
        .collect();
    last.join("\n")
}

/// Puts `TIME` in the place of each time that follows one of `words`, up to a comma or the end.
fn without_times(line: &str, words: &[&str]) -> String {
    words.iter().fold(line.to_owned(), |line, word| {
        let mut parts = line.split(word);
        let mut kept = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = if part.starts_with("20") { part.find(',').unwrap_or(part.len()) } else { 0 };
            kept += &format!("{word}{}{}", if end > 0 { "TIME" } else { "" }, &part[end..]);
        }
        kept
    })
}

/// What `args` are refused with, by this exit code.
async fn refused(db: &Database, args: &[&str], code: i32) -> String {
    told(&db.pgstrata(args).await.exits(code))
}

async fn status(db: &Database) -> Value {
    let ran = db.pgstrata(&["status", "observations", "--json"]).await.ok();
    serde_json::from_str(&ran.stdout).unwrap()
}

async fn state(db: &Database) -> String {
    status(db).await["state"].as_str().unwrap().to_owned()
}

/// One text a row.
async fn texts(db: &Database, sql: &str) -> Vec<String> {
    let rows = db.client().await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Everything there is in the database outside the tool's own schema, and everything about the table.
async fn catalog(db: &Database) -> Vec<String> {
    let mut all = texts(
        db,
        "with mine as (select oid from pg_namespace where nspname in ('pgstrata', 'information_schema') or nspname ~ '^pg_')
         select format('%s %s', relkind, oid::regclass) from pg_class where relnamespace not in (select oid from mine)
         union all select format('function %s', oid::regprocedure) from pg_proc where pronamespace not in (select oid from mine)
         union all select format('trigger %s of %s, %s', tgname, tgrelid::regclass, tgenabled) from pg_trigger where not tgisinternal
         order by 1",
    )
    .await;
    let rows = db.client().await.query(FINGERPRINT, &[&"observations"]).await.unwrap();
    all.extend(rows.iter().map(|r| format!("{}: {}", r.get::<_, String>(0), r.get::<_, String>(1))));
    all
}

/// The ledger's ranges follow one another without a gap, and hold every row.
async fn assert_ledger_complete(db: &Database) {
    assert_eq!(db.count("select sum(rows)::bigint from pgstrata.chunks").await, ROWS);
    let gaps = "select count(*) from pgstrata.chunks c where (after is not null) and not exists
        (select from pgstrata.chunks b where b.step = c.step and b.through = c.after)";
    assert_eq!(db.count(gaps).await, 0);
    assert_eq!(db.count("select count(*) - count(distinct (step, after)) from pgstrata.chunks").await, 0);
}

#[tokio::test]
async fn a_job_has_one_driver() {
    let db = lab().await;
    let first = copying(&db).await;
    let ran = run(&db, PLAN).await.exits(7);
    let holder = "select pid::bigint from pg_locks where locktype = 'advisory' and database =
        (select oid from pg_database where datname = current_database())";
    let said = told(&ran).replace(&db.count(holder).await.to_string(), "PID");
    insta::assert_snapshot!(said, @"
    error: another process drives this job
    cause: its lease is held by backend PID for a client at this machine, since TIME
    hint: wait for it, or stop it there; if that machine is dead: select pg_terminate_backend(PID)
    ");
    interrupt(first).await.exits(6);
    run(&db, PLAN).await.ok();
    assert_ledger_complete(&db).await;
}

#[tokio::test]
async fn an_interrupted_copy_goes_on_where_it_was() {
    let db = lab().await;
    let ran = interrupt(copying(&db).await).await.exits(6);
    insta::assert_snapshot!(told(&ran), @"
    error: stopped as asked; job observations is capturing
    hint: run the same command again to go on
    ");
    let copied = db.count("select sum(rows)::bigint from pgstrata.chunks").await;
    assert!((1..ROWS).contains(&copied), "{copied}");
    run(&db, PLAN).await.ok();
    assert_ledger_complete(&db).await;
    assert_eq!(db.count("select count(distinct epoch) from pgstrata.chunks").await, 2);
    assert_eq!(state(&db).await, "verified");
}

#[tokio::test]
async fn abort_leaves_the_table_as_it_was_and_its_name_free_for_a_new_run() {
    let db = lab().await;
    let before = catalog(&db).await;
    for (plan, is_verified) in [(format!("{PLAN}{SLOW}"), false), (PLAN.to_owned(), true)] {
        if is_verified {
            run(&db, &plan).await.ok();
        } else {
            interrupt(copying(&db).await).await.exits(6);
        }
        assert_ne!(catalog(&db).await, before);
        db.pgstrata(&["abort", "observations"]).await.ok();
        assert_eq!(catalog(&db).await, before);
        let left = texts(
            &db,
            "select format('%s %s', relkind, relname) from pg_class where relnamespace = 'pgstrata'::regnamespace
               and relkind <> 'i' union all
             select proname::text from pg_proc where pronamespace = 'pgstrata'::regnamespace order by 1",
        )
        .await;
        insta::allow_duplicates!(insta::assert_snapshot!(left.join("\n"), @"
        S events_id_seq
        S jobs_id_seq
        r chunks
        r events
        r jobs
        r leases
        r settings
        r version
        "));
        assert_eq!(db.count("select count(*) from pgstrata.chunks").await, 0);
        assert_eq!(db.count("select count(*) from observations").await, ROWS);
    }
    run(&db, PLAN).await.ok();
    db.pgstrata(&["swap", "observations"]).await.ok();
    assert_eq!(db.count("select count(*) from observations").await, ROWS);
    assert_eq!(
        texts(&db, "select state from pgstrata.jobs order by id").await,
        ["aborted", "aborted", "swapped"]
    );
}

#[tokio::test]
async fn a_plan_edited_in_the_middle_of_its_job() {
    let db = interrupted().await;
    let monthly = run(&db, &PLAN.replace("3 months", "1 month")).await.exits(2);
    insta::assert_snapshot!(told(&monthly), @"
    error: the plan is not the one that job observations began with
    cause: the plan's partition.every was 3 months when the job started and is 1 month now
    hint: put it back and run again; or `pgstrata abort observations` and start over with the new plan
    ");
    assert_eq!(state(&db).await, "capturing");
    let more_workers = run(&db, &format!("{PLAN}[copy]\nworkers = 3\n")).await.ok();
    let notes: Vec<&str> = more_workers.stderr.lines().filter(|line| line.starts_with("note: ")).collect();
    insta::assert_snapshot!(notes.join("\n"), @"
    note: the plan's settings changed since the job began; the new ones hold from here on
    ");
    assert_ledger_complete(&db).await;
}

#[tokio::test]
async fn a_table_changed_in_the_middle_of_its_job_is_not_swapped() {
    let db = interrupted().await;
    db.execute("alter table observations add column weight int; create index by_note on observations (note)")
        .await;
    run(&db, PLAN).await.ok();
    insta::assert_snapshot!(refused(&db, &["swap", "observations"], 1).await, @"
    error: failed to swap
    cause: public.observations is no longer what this job was planned from: column weight was added; index by_note was added
    hint: undo the change, or abort the job and run it again from the new definition; nothing was swapped
    ");
    db.execute("alter table observations drop column weight").await;
    insta::assert_snapshot!(refused(&db, &["swap", "observations"], 1).await, @"
    error: failed to swap
    cause: public.observations is no longer what this job was planned from: index by_note was added
    hint: undo the change, or abort the job and run it again from the new definition; nothing was swapped
    ");
    assert_eq!(state(&db).await, "verified");
    db.execute("drop index by_note").await;
    db.pgstrata(&["swap", "observations"]).await.ok();
}

#[tokio::test]
async fn capture_that_somebody_broke_is_noticed_by_every_command() {
    let db = verified().await;
    db.execute("alter table observations disable trigger all; alter table observations enable trigger all")
        .await;
    insta::assert_snapshot!(refused(&db, &["swap", "observations"], 1).await, @"
    error: the capture triggers on public.observations are not in force any more
    cause: somebody dropped or disabled pgstrata_capture or pgstrata_truncate, or enabled them other than ALWAYS; changes since then are not known
    hint: abort the job and run it again: `pgstrata abort observations`
    ");
    let said = refused(&db, &["swap", "observations"], 1).await;
    for command in ["sync", "verify"] {
        assert_eq!(refused(&db, &[command, "observations"], 1).await, said);
    }
    assert_eq!(told(&run(&db, PLAN).await.exits(1)), said);
    db.pgstrata(&["abort", "observations"]).await.ok();
    run(&db, PLAN).await.ok();
    db.pgstrata(&["swap", "observations"]).await.ok();
}

#[tokio::test]
async fn every_command_may_be_given_twice() {
    let db = lab().await;
    let plan = db.plan(PLAN);
    let run: &[&str] = &["run", plan.to_str().unwrap()];
    let on = |command: &'static str| -> Vec<&str> { vec![command, "observations"] };
    for args in [on("verify"), on("sync"), on("abort"), on("verify"), on("swap")] {
        // A job that was aborted or not begun is begun.
        db.pgstrata(run).await.ok();
        db.pgstrata(run).await.ok();
        db.pgstrata(&args).await.ok();
        db.pgstrata(&args).await.ok();
    }
    assert_eq!(state(&db).await, "swapped");
    for command in ["sync", "verify", "rollback", "sync", "verify", "swap"] {
        db.pgstrata(&on(command)).await.ok();
        db.pgstrata(&on(command)).await.ok();
        db.pgstrata(run).await.ok();
    }
    db.pgstrata(&["finalize", "observations", "--now"]).await.ok();
    db.pgstrata(&["finalize", "observations", "--now"]).await.ok();
    db.pgstrata(run).await.ok();
    assert_eq!(state(&db).await, "finalized");
    assert_eq!(db.count("select count(*) from observations").await, ROWS);
}

#[tokio::test]
async fn commands_before_their_time_are_refused() {
    let db = interrupted().await;
    insta::assert_snapshot!(refused(&db, &["swap", "observations"], 2).await, @"
    error: job observations is capturing: the copy is not complete yet
    hint: `pgstrata run PLAN` goes on with it
    ");
    assert_eq!(
        refused(&db, &["verify", "observations"], 2).await,
        refused(&db, &["sync", "observations"], 2).await
    );
    insta::assert_snapshot!(refused(&db, &["rollback", "observations"], 2).await, @"
    error: job observations is capturing: there is no swap to take back
    hint: to remove what the job made: `pgstrata abort observations`
    ");
    insta::assert_snapshot!(refused(&db, &["finalize", "observations", "--now"], 2).await, @"
    error: job observations is capturing: only a swapped job can be finalized
    hint: `pgstrata status observations` says what comes next
    ");
    insta::assert_snapshot!(refused(&db, &["swap", "sightings"], 2).await, @"
    error: there is no job sightings in this database
    hint: open jobs: observations
    ");
    insta::assert_snapshot!(refused(&db, &["status", "sightings"], 2).await, @"
    error: there is no job sightings in this database
    hint: `pgstrata status` lists all jobs
    ");
    assert_eq!(state(&db).await, "capturing");
}

#[tokio::test]
async fn commands_after_their_time_are_refused() {
    let db = verified().await;
    db.pgstrata(&["swap", "observations"]).await.ok();
    insta::assert_snapshot!(refused(&db, &["abort", "observations"], 2).await, @"
    error: job observations is swapped; only a job before its swap can be aborted
    hint: `pgstrata rollback observations` first: it loses nothing
    ");
    insta::assert_snapshot!(refused(&db, &["finalize", "observations"], 6).await, @"
    error: the old table is kept until TIME, as the plan says
    hint: to drop it now: `pgstrata finalize observations --now`
    ");
    assert_eq!(state(&db).await, "swapped");
    db.pgstrata(&["finalize", "observations", "--now"]).await.ok();
    insta::assert_snapshot!(refused(&db, &["rollback", "observations"], 2).await, @"
    error: job observations is finalized, there is nothing left to do
    hint: no job is open here; `pgstrata run PLAN` starts one
    ");
    insta::assert_snapshot!(refused(&db, &["swap", "observations"], 2).await, @"
    error: job observations is finalized, there is nothing left to do
    hint: no job is open here; `pgstrata run PLAN` starts one
    ");
}

#[tokio::test]
async fn a_lock_that_is_not_to_be_had_leaves_all_as_it_was() {
    let db = lab().await;
    run(&db, &format!("{PLAN}[swap]\nattempts = 2\n")).await.ok();
    let before = catalog(&db).await;
    let report = db.client().await;
    report
        .batch_execute(
            "set application_name = 'reporting'; begin; lock table observations in access share mode",
        )
        .await
        .unwrap();
    let pid: i32 = report.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let said = refused(&db, &["swap", "observations"], 5).await.replace(&format!("pid {pid}"), "pid PID");
    insta::assert_snapshot!(said, @r#"
    error: the lock on public.observations was not to be had in 2 attempts
    cause: in the way: pid PID, user postgres, application "reporting", idle in transaction, transaction since TIME, query since TIME
    hint: nothing was changed, and changes go on being logged; end the session in the way, or try at a quieter time, with the same command
    "#);
    assert_eq!(catalog(&db).await, before);
    db.execute("insert into observations (at, site) values ('2024-05-05', 3)").await;
    assert_eq!(status(&db).await["changes_pending"], 1);
    drop(report);
    db.pgstrata(&["swap", "observations"]).await.ok();
    assert_eq!(db.count("select count(*) from observations").await, ROWS + 1);
}

#[tokio::test]
async fn status_as_json_has_the_documented_fields() {
    let db = verified().await;
    let fields = [
        "job",
        "kind",
        "table",
        "state",
        "phase",
        "rows_estimated",
        "rows_copied",
        "rows_per_second",
        "eta_s",
        "chunks_done",
        "chunk_rows",
        "chunk_ms_p50",
        "chunk_ms_p99",
        "chunk_ms_max",
        "changes_pending",
        "replica_lag_s",
        "hold",
        "started_at",
        "updated_at",
        "swapped_at",
        "keep_old_until",
    ];
    let at_verified = status(&db).await;
    assert_eq!(sorted(at_verified.as_object().unwrap().keys()), sorted(fields));
    assert_eq!(at_verified["rows_copied"], ROWS);
    assert_eq!(at_verified["swapped_at"], Value::Null);
    db.pgstrata(&["swap", "observations"]).await.ok();
    assert!(status(&db).await["keep_old_until"].is_string());
    db.pgstrata(&["finalize", "observations", "--now"]).await.ok();
    let over = status(&db).await;
    assert_eq!(sorted(over.as_object().unwrap().keys()), sorted(fields));
    assert_eq!((&over["state"], &over["changes_pending"]), (&Value::from("finalized"), &Value::Null));
}

fn sorted(names: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_finished_job_is_told_as_finished() {
    let db = verified().await;
    db.pgstrata(&["swap", "observations"]).await.ok();
    db.pgstrata(&["finalize", "observations", "--now"]).await.ok();
    let said = db.pgstrata(&["status", "observations"]).await.ok().stdout;
    let timeless =
        |line: &str| line.find(" 20").map_or(line.to_owned(), |at| format!("{} TIME", &line[..at]));
    let said: Vec<String> = said.lines().map(timeless).collect();
    insta::assert_snapshot!(said.join("\n"), @"
    job        observations
    table      public.observations (partition)
    state      finalized
    rows       2,000 of about 2,000 (100 %)
    started    TIME
    updated    TIME
    swapped    TIME
    keeps old  until TIME
    ");
}

#[tokio::test]
async fn a_run_as_json_says_one_object_a_line() {
    let db = lab().await;
    // A warning that is printed before the events: the primary key gets one more column.
    let plan = db.plan(PLAN);
    let objects = json_lines(&db.pgstrata(&["run", plan.to_str().unwrap(), "--json"]).await.ok());
    assert!(objects.iter().any(|o| o["event"] == "done" && o["phase"] == "verify"), "{objects:?}");
    let objects = json_lines(&db.pgstrata(&["verify", "observations", "--json"]).await.ok());
    assert!(objects.iter().any(|o| o["verified"] == true && o["rows_target"] == ROWS), "{objects:?}");
    let failed = db.pgstrata(&["rollback", "observations", "--json"]).await.exits(2);
    let error: Value = serde_json::from_str(&failed.stderr).unwrap();
    assert_eq!(error["error"]["exit_code"], 2);
    assert_eq!(db.pgstrata(&["check", plan.to_str().unwrap(), "--json"]).await.stderr, "");
}

fn json_lines(ran: &Ran) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    ran.stdout.lines().map(parse).inspect(|value: &Value| assert!(value.is_object(), "{value}")).collect()
}
