//! A CHECK constraint that calls functions of the application can become false for rows that satisfied it when they were
//! written. It stops no job, and does not prevent `sync` or `rollback`.

use rustix::process::Signal;

use crate::support::checks::findings;
use crate::support::cluster::Database;
use crate::support::lab::Lab;
use crate::support::process::{Ran, ended, send};

const SETUP: &str = "
    create table most (n int); insert into most values (100);
    create function most() returns int language sql stable set search_path = public as 'select n from most';
    create table t (id bigint primary key, at timestamptz not null default '2024-02-02Z', v text,
      constraint short check (length(v) < most()), constraint positive check (id > 0));
    insert into t select i, timestamptz '2024-01-01Z' + i * interval '1 hour', 'value ' || i from generate_series(1, 1000) i;
    analyze t";

const PLAN: &str = "name = 'j'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\n";

async fn constraint(db: &Database, table: &str) -> String {
    let query = format!(
        "select coalesce(string_agg(conname || case when convalidated then '' else ' not valid' end, ', ' order by conname), '')
         from pg_constraint where conrelid = '{table}'::regclass and contype = 'c'"
    );
    db.client().await.query_one(&query, &[]).await.unwrap().get(0)
}

/// The tables from which a command with `--json` dropped the constraint `short`.
fn dropped_from(ran: &Ran) -> Vec<String> {
    let events = ran.events("check_left_out").into_iter().filter(|event| event["constraint"] == "short");
    events.map(|event| event["table"].as_str().unwrap().to_owned()).collect()
}

async fn rows(db: &Database, table: &str) -> String {
    let query = format!("select md5(string_agg(r::text, ',' order by id)) from {table} r");
    db.client().await.query_one(&query, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn rows_that_violate_it_when_they_are_copied() {
    let lab = Lab::new(SETUP, PLAN).await;
    lab.killed("run", "prepare.done").await;
    let db = &lab.db;
    db.execute("update most set n = 8").await;
    let ran = lab.ok("run --json").await;
    assert_eq!(dropped_from(&ran), ["public.t_new"]);
    let before = rows(db, "t").await;
    let swap = db.pgstrata(&["swap", "j", "--json"]).await.ok();
    assert_eq!(swap.events("unexpected_difference").len(), 0, "{swap:?}");
    assert_eq!(rows(db, "t").await, before);
    assert_eq!(constraint(db, "t").await, "positive, short not valid");
    let refused =
        db.client().await.batch_execute("insert into t values (7777, default, 'longer than seven')").await;
    assert!(refused.is_err(), "the constraint does not apply to new rows");
    db.pgstrata(&["finalize", "j", "--now"]).await.ok();
    assert_eq!(constraint(db, "t").await, "positive, short not valid");
}

/// A constraint that became false before the job.
#[tokio::test]
async fn rows_that_violate_it_from_the_start() {
    let db = Database::new().await;
    db.execute(SETUP).await;
    db.execute("update most set n = 8").await;
    let plan = db.plan(PLAN);
    let ran = db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    assert!(findings(&ran.stdout).contains(&"warning[check_violated]: short".to_owned()), "{ran:?}");
    for (id, command) in ["swap", "rollback", "swap"].into_iter().enumerate() {
        db.execute(&format!("update t set v = 'v' where id = {id} + 1")).await;
        let before = rows(&db, "t").await;
        db.pgstrata(&[command, "j"]).await.ok();
        assert_eq!(rows(&db, "t").await, before, "{command}");
        assert!(constraint(&db, "t").await.contains("short"), "{command}");
    }
}

/// The exchange is prepared before the last changes are applied.
#[tokio::test]
async fn rows_that_violate_it_just_before_the_exchange() {
    let lab = Lab::new(SETUP, PLAN).await;
    lab.ok("run").await;
    let swap = lab.frozen("swap --json", "swap.ready").await;
    lab.db.execute("update t set v = 'changed again' where id = 1; update most set n = 8").await;
    send(&swap, Signal::CONT);
    let swap = ended(swap).await.ok();
    assert_eq!(dropped_from(&swap), ["public.t_new"]);
    assert_eq!(constraint(&lab.db, "t").await, "positive, short not valid");
}

#[tokio::test]
async fn rows_that_violate_it_when_changes_are_applied() {
    let db = Database::new().await;
    db.execute(SETUP).await;
    let plan = db.plan(PLAN);
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    db.pgstrata(&["swap", "j"]).await.ok();
    for (command, inactive, id) in [("sync", "t_old", 1), ("rollback", "t_new", 2), ("swap", "t_old", 3)] {
        db.execute("update most set n = 100").await;
        db.execute(&format!("update t set v = 'changed again {id}' where id = {id}; update most set n = 8"))
            .await;
        let before = rows(&db, "t").await;
        let ran = db.pgstrata(&[command, "j", "--json"]).await.ok();
        let dropped = dropped_from(&ran).contains(&"public.t_old".to_owned());
        assert_eq!(dropped, command == "sync", "{ran:?}");
        assert_eq!(rows(&db, "t").await, before, "{command}");
        assert!(constraint(&db, "t").await.contains("short"), "{command}");
        db.pgstrata(&["sync", "j"]).await.ok();
        assert_eq!(rows(&db, inactive).await, before, "{command}");
    }
    db.pgstrata(&["verify", "j"]).await.ok();
    db.pgstrata(&["finalize", "j", "--now"]).await.ok();
    assert!(constraint(&db, "t").await.starts_with("positive, short"));
}

/// A function in one constraint raises the error that a violation of another constraint would cause. The other one is kept.
#[tokio::test]
async fn an_error_that_names_another_constraint_drops_nothing() {
    let db = Database::new().await;
    db.execute(
        "create table strict (yes boolean); insert into strict values (false);
         create function accepts(int) returns boolean language plpgsql as $$ begin
           if (select yes from public.strict) and $1 = 7 then
             raise check_violation using constraint = 'good', table = 't_new', schema = 'public', message = 'not now';
           end if;
           return true;
         end $$;
         create table other (n int, constraint good check (n > 0));
         create function copies(int) returns boolean language plpgsql as $$ begin
           if (select yes from public.strict) and $1 = 8 then insert into public.other values (-1); end if;
           return true;
         end $$;
         create table t (id bigint primary key, at timestamptz not null default '2024-02-02Z', n int,
           constraint good check (n > 0), constraint bad check (accepts(n)), constraint worse check (copies(n)));
         insert into t select i, timestamptz '2024-01-01Z' + i * interval '1 hour', i from generate_series(1, 1000) i;
         analyze t",
    )
    .await;
    let plan = db.plan(PLAN);
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    for n in [7, 8] {
        db.execute(&format!(
            "update strict set yes = false; update t set n = n where n = {n}; update strict set yes = true"
        ))
        .await;
        let sync = db.pgstrata(&["sync", "j"]).await.exits(1);
        assert!(!sync.stderr.contains("dropped constraint"), "{sync:?}");
        assert_eq!(constraint(&db, "t_new").await, "bad, good, worse", "{n}");
        db.execute("update strict set yes = false").await;
        db.pgstrata(&["sync", "j"]).await.ok();
    }
    db.pgstrata(&["swap", "j"]).await.ok();
    assert_eq!(constraint(&db, "t").await, "bad, good, worse");
}
