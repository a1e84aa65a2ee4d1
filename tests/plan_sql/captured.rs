//! Whoever may create objects in a schema that is searched makes a better match for what the plan's SQL calls. Their code is
//! not run with the job's rights, nor with a writer's, whether it is there before the check or made while the job runs.

use std::path::Path;

use tokio::process::Child;

use super::{backfill, database, none, ran, retype};
use crate::support::checks::errors;
use crate::support::cluster::Database;
use crate::support::process::{ended, frozen, send};

/// Everybody may create in `public`, as by default on PostgreSQL 14, and a role does.
fn evil(n: u32) -> String {
    format!("evil_{n}_{}", std::process::id())
}

fn setup(role: &str) -> String {
    format!(
        "create role {role} login; grant create on schema public to public;
         create table caught (who text); grant insert on caught to public;
         create table t (id int primary key, name varchar(20), twin varchar(20));
         insert into t (id, name) select i, 'Name' || i from generate_series(1, 1500) i; analyze t"
    )
}

/// The functions of the role: each records who ran it.
fn planted(role: &str) -> String {
    let body = |result: &str| {
        format!(
            "language plpgsql set search_path = pg_catalog as $$ begin insert into public.caught values (current_user); return {result}; end $$"
        )
    };
    format!(
        "set role {role};
         create function public.lower(varchar) returns text {};
         create function public.same(varchar, varchar) returns boolean {};
         create operator public.= (leftarg = varchar, rightarg = varchar, function = public.same);
         create operator public.|| (leftarg = varchar, rightarg = varchar, function = public.same);
         create function public.length(varchar) returns int {};
         create function public.upper(varchar) returns text {};
         reset role",
        body("pg_catalog.lower($1)"),
        body("true"),
        body("1"),
        body("pg_catalog.upper($1)"),
    )
}

const FILL: &str = "table = 't'\n[backfill]\nset = { twin = 'lower(t.name)' }\n";
const RETYPE: &str =
    "table = 't'\n[retype]\ncolumn = 'name'\nto = 'text'\nusing = 'lower(t.name)'\nback = 'upper(t.name)'\n";

#[tokio::test]
async fn objects_created_before_the_check_are_refused_by_name() {
    let role = evil(1);
    let db = database(&[], &setup(&role)).await;
    db.execute(&planted(&role)).await;
    for plan in [backfill(&db, FILL), retype(&db, RETYPE)] {
        let told = ran(&db, "check", &plan).await.exits(3);
        let found = errors(&told.stdout.replace("public.lower", "lower"));
        let wanted = "error[untrusted_object]: function lower(character varying)".to_owned();
        assert!(found.contains(&wanted), "{told:?}");
        ran(&db, "run", &plan).await.exits(3);
    }
    none(&db, "select count(*) from caught").await;
    // With its schema, it is clear what is meant.
    let plan = backfill(&db, &FILL.replace("lower(", "pg_catalog.lower("));
    ran(&db, "run", &plan).await.ok();
    let trusted = backfill(&db, &format!("trust = ['{role}']\n{FILL}where = 't.twin is null'\n"));
    ran(&db, "check", &trusted).await.ok();
    none(&db, "select count(*) from caught").await;
    db.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}

/// A run that stands still while the role makes its objects, and an application writes.
async fn thawed(db: &Database, run: Child, role: &str) {
    db.execute(&planted(role)).await;
    db.execute(
        "create temp table text (x int); create domain pg_temp.varchar as pg_catalog.text;
         create function pg_temp.lower(varchar) returns pg_catalog.text language sql as 'select ''x''::pg_catalog.text';
         insert into t (id, name) values (-1, 'New'); update t set name = 'Other' where id = 7",
    )
    .await;
    send(&run, rustix::process::Signal::CONT);
    ended(run).await.ok();
}

/// A run that is frozen after its first chunk.
async fn frozen_in_a_chunk(db: &Database, plan: &Path) -> Child {
    let mut run = db.command(&["run", plan.to_str().unwrap()]);
    frozen(run.env("PGSTRATA_FAILPOINT", "fill.chunk=stop").spawn().unwrap()).await
}

#[tokio::test]
async fn objects_created_while_a_backfill_runs_are_not_used() {
    let role = evil(2);
    let db = database(&[], &setup(&role)).await;
    let text = format!(
        "{FILL}keep_filled = 'always'\nfinish = {{ check = ['lower(twin) = twin'], index = ['(lower(twin))'] }}\n[copy]\nworkers = 1\n"
    );
    let plan = backfill(&db, &text);
    thawed(&db, frozen_in_a_chunk(&db, &plan).await, &role).await;
    db.execute("insert into t (id, name) values (-2, 'Last')").await;
    none(&db, "select count(*) from caught").await;
    none(&db, "select count(*) from t where twin::text operator(pg_catalog.<>) pg_catalog.lower(name::text)")
        .await;
    none(
        &db,
        "select count(*) from pg_depend d join pg_proc p on d.refclassid = 'pg_proc'::regclass and p.oid = d.refobjid
         where p.pronamespace = 'public'::regnamespace and d.classid in ('pg_constraint'::regclass, 'pg_class'::regclass)",
    )
    .await;
    db.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}

#[tokio::test]
async fn objects_created_while_a_retype_runs_are_not_used() {
    let role = evil(3);
    let db = database(&[], &setup(&role)).await;
    let plan = retype(&db, &format!("{RETYPE}[copy]\nworkers = 1\n"));
    thawed(&db, frozen_in_a_chunk(&db, &plan).await, &role).await;
    for command in ["swap", "rollback", "swap"] {
        db.pgstrata(&[command, "job"]).await.ok();
        db.execute("update t set id = id + 0 where id in (3, 4); update t set name = 'again' where id = 5")
            .await;
    }
    db.pgstrata(&["verify", "job"]).await.ok();
    none(&db, "select count(*) from caught").await;
    db.pgstrata(&["finalize", "job", "--now"]).await.ok();
    db.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}

/// NULLIF and its kin look their operator up by name, each time they are read.
#[tokio::test]
async fn an_operator_that_has_no_schema_in_the_sql() {
    let setup = "create extension citext; create table t (id int primary key, e citext, f citext);
        insert into t (id, e) select i, case when i % 2 = 0 then 'A' else 'b' end from generate_series(1, 100) i; analyze t";
    let db = database(&[], setup).await;
    let plan = backfill(
        &db,
        "table = 't'\n[backfill]\nset = { f = \"nullif(t.e, 'a')\" }\nkeep_filled = 'always'\n",
    );
    ran(&db, "run", &plan).await.ok();
    db.execute("insert into t (id, e) values (102, 'A'), (101, 'b')").await;
    none(&db, "select count(*) from t where f is distinct from case when id % 2 = 1 then 'b'::citext end")
        .await;

    let db = database(&[], &format!("{setup}; grant create on schema public to public")).await;
    let plan = backfill(&db, "table = 't'\n[backfill]\nset = { f = \"nullif(t.e, 'a')\" }\n");
    let told = ran(&db, "check", &plan).await.exits(3);
    assert_eq!(errors(&told.stdout), ["error[untrusted_schema]: public"]);
    let plan = backfill(
        &db,
        "table = 't'\n[backfill]\nset = { f = \"case when t.e operator(public.=) 'a'::public.citext then null else t.e end\" }\n",
    );
    ran(&db, "run", &plan).await.ok();
    none(&db, "select count(*) from t where f is distinct from case when id % 2 = 1 then 'b'::citext end")
        .await;
}

/// A function that takes anything can have a better match; and one that looks names up as its caller does finds other ones.
#[tokio::test]
async fn functions_that_others_can_overload_or_shadow() {
    let setup = "grant create on schema public to public; create schema app;
        create table t (id int primary key, a text, b text); insert into t select i, 'x' from generate_series(1, 100) i;
        create function public.show(anyelement) returns text language sql immutable as 'select pg_catalog.concat($1)';
        create function app.shout(text) returns text language plpgsql immutable as 'begin return lower($1); end';
        create function app.within(text) returns text language sql immutable begin atomic select app.shout($1); end;
        create domain app.loud as text check (app.shout(value) = value);
        create view app.shouts as select id, app.shout(a) as a from t;
        create function app.calm(text) returns text language plpgsql immutable set search_path = pg_catalog as 'begin return lower($1); end';
        analyze t";
    let db = database(&[], setup).await;
    for (from, set, object) in [
        ("", "public.show(t.a)", "function public.show(anyelement)"),
        ("", "app.shout(t.a)", "function app.shout(text)"),
        // Reached through an SQL body, a domain and a view.
        ("", "app.within(t.a)", "function app.shout(text)"),
        ("", "t.a::app.loud::text", "function app.shout(text)"),
        ("from = 'app.shouts s on s.id = t.id'\n", "s.a", "function app.shout(text)"),
    ] {
        let plan = backfill(&db, &format!("table = 't'\n[backfill]\n{from}set = {{ b = '{set}' }}\n"));
        let checked = ran(&db, "check", &plan).await.exits(3);
        assert!(checked.stdout.contains(&format!("error[untrusted_schema]: {object}")), "{set}: {checked:?}");
    }
    let plan = backfill(&db, "table = 't'\n[backfill]\nset = { b = 'app.calm(t.a)' }\n");
    ran(&db, "run", &plan).await.ok();
    none(&db, "select count(*) from t where b is null").await;
}

/// The trigger's function has no more rights than the writer, unless the plan's SQL names what a writer may have no right to.
#[tokio::test]
async fn the_trigger_has_the_privileges_of_the_writer_where_they_are_enough() {
    let db = database(
        &[],
        "create table names (id int primary key, name text);
         create table t (id int primary key, a text, b text); insert into t select i, 'x' from generate_series(1, 100) i",
    )
    .await;
    for (set, from, definer) in [
        ("upper(t.a)", "", 0),
        ("n.name", "from = 'names n on n.id = t.id'\n", 1),
        ("(select max(name) from names)", "", 1),
    ] {
        db.execute("drop schema if exists pgstrata cascade").await;
        let plan = backfill(
            &db,
            &format!("table = 't'\n[backfill]\n{from}set = {{ b = '{set}' }}\nkeep_filled = 'always'\n"),
        );
        ran(&db, "run", &plan).await.ok();
        let found = db
            .count("select count(*) from pg_proc where pronamespace = 'pgstrata'::regnamespace and proname like 'fill%' and prosecdef")
            .await;
        assert_eq!(found, definer, "{set}");
    }
}

/// A table is found by name in each batch, so its owner, or the owner of its schema, could put a view in its place.
#[tokio::test]
async fn a_table_of_another_role_that_the_sql_reads_is_refused() {
    let role = evil(4);
    let db = database(&[], &setup(&role)).await;
    db.execute(&format!(
        "create schema theirs authorization {role}; create table theirs.ours (id int primary key, name text);
         create table public.lookup (id int primary key, name text); insert into public.lookup select id, name from t;
         alter table public.lookup owner to {role}; analyze"
    ))
    .await;
    for (table, code) in [
        ("public.lookup", "error[untrusted_object]: table public.lookup"),
        ("theirs.ours", "error[untrusted_schema]: table theirs.ours"),
    ] {
        let more = format!("from = '{table} o on o.id = t.id'\nset = {{ twin = 'o.name' }}\n");
        let plan = backfill(&db, &format!("table = 't'\n[backfill]\n{more}"));
        let found = ran(&db, "run", &plan).await.exits(3);
        assert!(found.stdout.contains(code), "{found:?}");
        let trusted = backfill(&db, &format!("table = 't'\ntrust = ['{role}']\n[backfill]\n{more}"));
        ran(&db, "check", &trusted).await.ok();
    }
    db.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}
