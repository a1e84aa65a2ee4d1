//! The search path of the plan's SQL, and of the application's triggers and functions.

use std::path::Path;

use super::{backfill, database, none, ran, retype, swapped_both_ways};
use crate::support::cluster::Database;
use crate::support::process::Ran;
use crate::support::wait::within;

/// A trigger of the application that relies on the search path of the database, as [`PATH`] sets it.
const AUDITED: &str = "create schema app; create schema audit;
    create table audit.history (tbl text, op text);
    create function app.note() returns trigger language plpgsql as
        $$ begin insert into history (tbl, op) values (tg_table_name, tg_op); return null; end $$;
    create table app.t (id serial primary key, a int, b int);
    insert into app.t (a) select i from generate_series(1, 1500) i; analyze app.t;";
const PATH: &str = "search_path = app, audit, public";

#[tokio::test]
async fn triggers_of_the_application_run_under_the_search_path_of_the_database() {
    for kind in ["trigger note after", "constraint trigger note after"] {
        let deferred = if kind.starts_with("constraint") { "deferrable initially deferred" } else { "" };
        let setup = format!(
            "{AUDITED} create {kind} update on app.t {deferred} for each row execute function app.note()"
        );
        let db = database(&[PATH], &setup).await;
        let plan =
            backfill(&db, "table = 'app.t'\n[backfill]\nset = { b = 't.a * 2' }\nwhere = 't.b is null'\n");
        ran(&db, "check", &plan).await.ok();
        db.pgstrata(&["check", plan.to_str().unwrap(), "--sample", "100"]).await.ok();
        none(&db, "select count(*) from audit.history").await;
        ran(&db, "run", &plan).await.ok();
        assert_eq!(db.count("select count(*) from audit.history").await, 1_500);
        none(&db, "select count(*) from app.t where b is distinct from a * 2").await;

        let db = database(&[PATH], &setup).await;
        let plan = retype(&db, "table = 'app.t'\n[retype]\ncolumn = 'a'\nto = 'bigint'\n");
        ran(&db, "run", &plan).await.ok();
        swapped_both_ways(&db).await;
        db.pgstrata(&["finalize", "job", "--now"]).await.ok();
    }
}

/// Runs `check` or `run`. On a busy machine, the trial of the update may take too long and give up: then once more.
async fn tried(db: &Database, command: &str, plan: &Path) -> Ran {
    within("a trial that does not give up", async {
        loop {
            let ran = db.pgstrata(&[command, plan.to_str().unwrap(), "--json"]).await;
            if !ran.stdout.contains(r#""code":"untried""#) {
                return ran;
            }
            db.pgstrata(&["abort", "job"]).await;
        }
    })
    .await
}

/// Without that search path, the trigger fails in every session. `check` reports this for both kinds of job.
#[tokio::test]
async fn a_trigger_that_fails_is_found_by_the_check() {
    for kind in ["trigger note after", "constraint trigger note after"] {
        let deferred = if kind.starts_with("constraint") { "deferrable initially deferred" } else { "" };
        let setup = format!(
            "{AUDITED} create {kind} update on app.t {deferred} for each row execute function app.note()"
        );
        let db = database(&[], &setup).await;
        for plan in [
            backfill(&db, "table = 'app.t'\n[backfill]\nset = { b = 't.a * 2' }\nwhere = 't.b is null'\n"),
            backfill(
                &db,
                "table = 'app.t'\n[backfill]\nadd = { c = 'int' }\nset = { c = 't.a' }\nwhere = 't.c is null'\n",
            ),
            retype(&db, "table = 'app.t'\n[retype]\ncolumn = 'a'\nto = 'bigint'\n"),
        ] {
            for command in ["check", "run"] {
                let found = tried(&db, command, &plan).await.exits(3).stdout;
                assert!(found.contains(r#""code":"row_refused","object":"app.t""#), "{command}: {found}");
            }
        }
    }
}

/// Functions that the plan's SQL calls resolve names as in any other session, also in the trigger.
#[tokio::test]
async fn functions_of_the_plan_run_under_the_search_path_of_the_database() {
    let setup = format!(
        "{AUDITED} create function audit.twice(int) returns int language sql immutable as 'select $1 * 2';
         create function app.value(int) returns int language plpgsql immutable as 'begin return twice($1); end'"
    );
    let db = database(&[PATH], &setup).await;
    let plan = backfill(
        &db,
        "table = 'app.t'\n[backfill]\nset = { b = 'value(t.a)' }\nwhere = 't.b is null'\nkeep_filled = 'always'\n",
    );
    ran(&db, "run", &plan).await.ok();
    db.execute("set search_path = pg_catalog; insert into app.t (a) values (7)").await;
    none(&db, "select count(*) from app.t where b is distinct from a * 2").await;
    // By default, names are looked up in the table's schema and in public.
    let other = backfill(&db, "table = 'app.t'\n[backfill]\nset = { b = 'twice(t.a)' }\n");
    let output = ran(&db, "check", &other).await.exits(3);
    assert!(output.stdout.contains("function twice(integer) does not exist"), "{output:?}");
    let stated = backfill(
        &db,
        "table = 'app.t'\n[backfill]\nset = { b = 'twice(t.a) * 2' }\nsettings = { search_path = 'audit, app' }\n",
    );
    ran(&db, "check", &stated).await.ok();
}

/// A type without its schema is found in the table's schema, or in public.
#[tokio::test]
async fn types_are_looked_up_in_the_documented_schemas() {
    for (schema, of_type) in [("public", "public"), ("app", "public"), ("app", "app")] {
        let setup = format!(
            "create schema if not exists {schema}; create type {of_type}.mood as enum ('sad', 'ok');
             create table {schema}.t (id serial primary key, m text not null default 'ok', n text);
             insert into {schema}.t (m) select (array['sad', 'ok'])[1 + i % 2] from generate_series(1, 1500) i;
             create index on {schema}.t (m); analyze {schema}.t"
        );
        let db = database(&[], &setup).await;
        let plan = backfill(
            &db,
            &format!(
                "table = '{schema}.t'\n[backfill]\nadd = {{ k = \"mood default 'sad'\" }}\nset = {{ k = 't.m::mood' }}\nkeep_filled = true\n"
            ),
        );
        ran(&db, "run", &plan).await.ok();
        none(&db, &format!("select count(*) from {schema}.t where k::text <> m")).await;
        let plan = db.plan(&format!(
            "name = 'two'\nkind = 'retype'\ntable = '{schema}.t'\n[retype]\ncolumn = 'm'\nto = 'mood'\n"
        ));
        ran(&db, "check", &plan).await.ok();
        ran(&db, "run", &plan).await.ok();
        for command in ["swap", "rollback", "swap"] {
            db.execute(&format!(
                "update {schema}.t set m = 'ok' where id % 9 = 0; insert into {schema}.t default values"
            ))
            .await;
            db.pgstrata(&[command, "two"]).await.ok();
        }
        db.pgstrata(&["finalize", "two", "--now"]).await.ok();
        none(&db, &format!("select count(*) from {schema}.t where id % 9 = 0 and m <> 'ok'")).await;
    }
}

/// SQL of every kind keeps its meaning when the server deparses it.
#[tokio::test]
async fn every_kind_of_sql_keeps_its_meaning() {
    let db = database(
        &[],
        r#"create schema app; create collation app.plain from "C";
           create function app.twice(n int default 1, variadic more int[] default '{}') returns int language sql immutable as 'select $1 * 2';
           create function app.named(a int, b int default 10) returns int language sql immutable as 'select $1 + $2';
           create type app.pair as (x int, y text); create domain app.small as numeric(4, 1) check (value < 900);
           create table app.words (word text primary key, rank int); insert into app.words select 'w' || i, i from generate_series(0, 9) i;
           create table app."T t" (id int primary key, "w -- W" text, at timestamptz default now(), gen int generated always as (id * 2) stored, d app.small);
           insert into app."T t" (id, "w -- W") select i, 'w' || i % 10 from generate_series(1, 600) i; analyze app."T t""#,
    )
    .await;
    let plan = backfill(
        &db,
        r#"table = 'app."T t"'
[backfill]
from = """(select w.word, w.rank, count(*) over () as n from words w) as w (word, r, n)
  left join lateral (select max(x.rank) from words as x where x.rank <= w.r) as best (r) on true
  on w.word = t."w -- W" -- as it stands"""
keep_filled = 'always'
add = { a = 'int', b = 'text collate plain', c = 'pair', e = 'text[]', f = 'int', g = 'boolean', h = 'jsonb' }
[backfill.set]
a = """(with t as (select rank from words where word = 'w3') select t.rank + w.r from t) -- a t of its own"""
b = '''case when t."w -- W" ~ '^w[0-4]$' and t.id between 1 and 1000 then U&'\0441' || $x$'"\$x$ else 'AS pgstrata_0_1_,' end'''
c = "row(t.id, t.\"w -- W\")::pair"
d = "t.id / 7.0"
e = "array(select word from words where rank < w.r order by rank desc nulls last limit 2)"
f = "twice(t.gen) + named(b => 1, a => best.r) + extract(epoch from interval '1 s')::int"
g = "(t.id, 1) < (300, w.r) or t.id in (select rank from words) or t is null"
h = "to_jsonb(t) - 'h' - 'at' - 'c' - 'a' - 'b' - 'd' - 'e' - 'f' - 'g'"
"#,
    );
    ran(&db, "check", &plan).await.ok();
    ran(&db, "run", &plan).await.ok();
    db.execute(r#"insert into app."T t" (id, "w -- W") values (601, 'w1'), (602, 'none'); update app."T t" set "w -- W" = 'w9' where id = 3"#)
        .await;
    none(
        &db,
        r#"select count(*) from app."T t" t left join app.words w on w.word = t."w -- W"
           where a is distinct from 3 + w.rank
             or b <> (case when "w -- W" ~ '^w[0-4]$' then U&'\0441' || $x$'"\$x$ else 'AS pgstrata_0_1_,' end)
             or c is distinct from row(id, "w -- W")::app.pair or d <> round(id / 7.0, 1)
             or e is distinct from array(select word from app.words x where x.rank < w.rank order by rank desc limit 2)
             or f is distinct from id * 4 + w.rank + 2 or g is null
             or id <= 600 and h is distinct from jsonb_build_object('id', id, 'w -- W', "w -- W", 'gen', gen)"#,
    )
    .await;
    let collation =
        "select count(*) from pg_attribute a where attname = 'b' and attrelid = 'app.\"T t\"'::regclass
        and attcollation <> (select oid from pg_collation where collname = 'plain')";
    none(&db, collation).await;
}

/// A trigger or constraint of the application rejects a row: the error reports the key of the row, and that a trigger
/// or constraint rejected it.
#[tokio::test]
async fn an_error_for_a_row_is_reported_with_the_row() {
    let setup = "create table t (id serial primary key, locked boolean, a int, b int check (b <> 222));
        insert into t (locked, a) select i = 333, i from generate_series(1, 1500) i; analyze t;
        create function frozen() returns trigger language plpgsql as
            $$ begin if old.locked then raise exception 'period is closed'; end if; return new; end $$;";
    let trigger = "create trigger frozen before update on t for each row execute function frozen();";
    for (more, cause) in [
        (trigger, "by key: 333: period is closed"),
        ("alter table t drop constraint t_b_check;", ""),
        ("", "by key: 222: new row for relation \"t\" violates check constraint \"t_b_check\""),
    ] {
        let db = database(&[], &format!("{setup} {more}")).await;
        let plan = backfill(
            &db,
            "table = 't'\n[copy]\nworkers = 1\n[backfill]\nset = { b = 't.a' }\nwhere = 't.b is null'\n",
        );
        if cause.is_empty() {
            ran(&db, "run", &plan).await.ok();
            continue;
        }
        if more == trigger {
            db.execute("alter table t drop constraint t_b_check").await;
        }
        let ended = ran(&db, "run", &plan).await.exits(1);
        assert!(ended.stderr.contains(cause), "{ended:?}");
        assert!(ended.stderr.contains("a trigger or constraint of public.t rejects"), "{ended:?}");
        none(&db, "select count(*) from t where id < 200 and b is null").await;
    }
}
