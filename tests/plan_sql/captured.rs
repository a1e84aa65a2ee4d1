//! A role that can create objects in a schema of the search path can create a better match for a function that the
//! plan's SQL calls. Its code does not run with the privileges of the job or of a writer, whether it exists before the
//! check or is created while the job runs.

use std::path::Path;

use tokio::process::Child;

use super::{backfill, database, none, ran, retype};
use crate::support::checks::errors;
use crate::support::cluster::Database;
use crate::support::process::{ended, frozen, send};

/// The name of a role that creates objects in `public`.
fn evil(n: u32) -> String {
    format!("evil_{n}_{}", std::process::id())
}

/// PUBLIC has CREATE on schema `public`, as by default on PostgreSQL 14.
fn setup(role: &str) -> String {
    format!(
        "create role {role} login; grant create on schema public to public;
         create table caught (who text); grant insert on caught to public;
         create table t (id int primary key, name varchar(20), twin varchar(20));
         insert into t (id, name) select i, 'Name' || i from generate_series(1, 1500) i; analyze t"
    )
}

/// Functions and operators of the role; each function records the role that ran it.
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
        let output = ran(&db, "check", &plan).await.exits(3);
        let found = errors(&output.stdout.replace("public.lower", "lower"));
        let wanted = "error[untrusted_object]: function lower(character varying)".to_owned();
        assert!(found.contains(&wanted), "{output:?}");
        ran(&db, "run", &plan).await.exits(3);
    }
    none(&db, "select count(*) from caught").await;
    // A name with its schema is unambiguous.
    let plan = backfill(&db, &FILL.replace("lower(", "pg_catalog.lower("));
    ran(&db, "run", &plan).await.ok();
    let trusted = backfill(&db, &format!("trust = ['{role}']\n{FILL}where = 't.twin is null'\n"));
    ran(&db, "check", &trusted).await.ok();
    none(&db, "select count(*) from caught").await;
    db.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}

/// While the run is stopped, the role creates its objects and an application writes; then the run continues.
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

/// Starts a run, which stops after its first chunk.
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

/// NULLIF and similar expressions look up their operator by name each time they are parsed.
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
    let output = ran(&db, "check", &plan).await.exits(3);
    assert_eq!(errors(&output.stdout), ["error[untrusted_schema]: public"]);
    let plan = backfill(
        &db,
        "table = 't'\n[backfill]\nset = { f = \"case when t.e operator(public.=) 'a'::public.citext then null else t.e end\" }\n",
    );
    ran(&db, "run", &plan).await.ok();
    none(&db, "select count(*) from t where f is distinct from case when id % 2 = 1 then 'b'::citext end")
        .await;
}

/// A function with polymorphic arguments can have a better match, and a function that uses the search path of its
/// caller can find other objects.
#[tokio::test]
async fn functions_that_others_can_overload_or_shadow() {
    let setup = "grant create on schema public to public; create schema app;
        create table t (id int primary key, a text, b text); insert into t select i, 'x' from generate_series(1, 100) i;
        create function public.show(anyelement) returns text language sql immutable as 'select pg_catalog.concat($1)';
        create function app.shout(text) returns text language plpgsql immutable as 'begin return lower($1); end';
        create function app.within(text) returns text language sql immutable begin atomic select app.shout($1); end;
        create domain app.loud as text check (app.shout(value) = value);
        create operator app.!! (rightarg = text, function = app.shout);
        create function app.louder(text, text) returns text language plpgsql immutable as 'begin return greatest($1, lower($2)); end';
        create aggregate app.loudest(text) (sfunc = app.louder, stype = text);
        create view app.shouts as select id, app.shout(a) as a from t;
        create function app.calm(text) returns text language plpgsql immutable set search_path = pg_catalog as 'begin return lower($1); end';
        analyze t";
    let db = database(&[], setup).await;
    for (from, set, object) in [
        ("", "public.show(t.a)", "function public.show(anyelement)"),
        ("", "app.shout(t.a)", "function app.shout(text)"),
        // Reached through an SQL body, an operator, an aggregate, a domain and a view.
        ("", "app.within(t.a)", "function app.shout(text)"),
        ("", "operator(app.!!) t.a", "function app.shout(text)"),
        ("", "(select app.loudest(x.a) from t x)", "function app.louder(text,text)"),
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

/// The trigger function has only the privileges of the writer, unless the plan's SQL reads tables on which writers may
/// lack privileges.
#[tokio::test]
async fn the_trigger_has_the_privileges_of_the_writer_if_they_are_sufficient() {
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

/// Each batch looks up the table by name, so its owner, or the owner of its schema, could replace it with a view.
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

/// The planner calls IMMUTABLE functions with constant arguments, so the owners of all functions are checked before a
/// statement is planned.
#[tokio::test]
async fn owners_are_checked_before_a_statement_is_planned() {
    let role = evil(5);
    let db = database(&[], &setup(&role)).await;
    let body = |of: &str| {
        format!(
            "{of} language plpgsql immutable set search_path = pg_catalog as $$ begin raise 'evil ran'; end $$"
        )
    };
    db.execute(&format!(
        "create schema theirs authorization {role}; grant usage on schema theirs to public; set role {role};
         create function public.lower(varchar) returns text {}; create function theirs.evil(int) returns boolean {};
         create view theirs.v as select 1 as id, 'x' as name where theirs.evil(1); reset role;
         grant select on theirs.v to public",
        body(""),
        body(""),
    ))
    .await;
    let finish = |what: &str| format!("{}finish = {{ {what} }}\n", FILL.replace("lower(t.name)", "t.name"));
    let fill = |more: &str| format!("table = 't'\n[backfill]\n{more}\n");
    for plan in [
        backfill(&db, &fill("set = { twin = \"lower('ABC'::varchar) || t.name\" }")),
        backfill(
            &db,
            &fill("add = { x = \"text default lower('ABC'::varchar)\" }\nset = { x = \"t.name\" }"),
        ),
        backfill(&db, &fill("set = { twin = 't.name' }\nwhere = \"lower('ABC'::varchar) = t.name\"")),
        backfill(&db, &fill("from = 'theirs.v v on true'\nset = { twin = 'v.name' }")),
        backfill(&db, &finish("check = [\"twin <> lower('ABC'::varchar)\"]")),
        backfill(&db, &finish("index = [\"(twin) where twin <> lower('ABC'::varchar)\"]")),
        backfill(&db, &finish("index = [\"(public.lower('ABC'::varchar), twin)\"]")),
        backfill(&db, &finish("index = [\"using btree ((lower('ABC'::varchar) || twin) desc)\"]")),
        retype(
            &db,
            "table = 't'\n[retype]\ncolumn = 'name'\nto = 'text'\nusing = \"lower('ABC'::varchar) || t.name\"\nback = 't.name'\n",
        ),
        retype(
            &db,
            "table = 't'\n[retype]\ncolumn = 'name'\nto = 'text'\nusing = 't.name'\nback = \"lower('ABC'::varchar) || t.name\"\n",
        ),
    ] {
        let output = ran(&db, "check", &plan).await.exits(3);
        let text = std::fs::read_to_string(&plan).unwrap();
        assert!(output.stdout.contains("error[untrusted_object]"), "{text}: {output:?}");
        assert!(!output.stdout.contains("evil ran"), "{text}: {output:?}");
    }
    db.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}

/// The owner of a table that a view reads can create an index or statistics whose code the planner runs. The same
/// applies to partitions.
#[tokio::test]
async fn tables_that_are_read_through_views_belong_to_trusted_roles() {
    let role = evil(6);
    let db = database(&[], &setup(&role)).await;
    db.execute(&format!(
        "create schema app; create schema util; create table app.src (id int, name text); alter table app.src owner to {role};
         create view util.v as select id, name from app.src;
         create table app.whole (id int, name text) partition by list (id); create table app.part (id int, name text);
         alter table app.part owner to {role}; alter table app.whole attach partition app.part for values in (1);
         create view util.w as select id, name from app.whole; grant select on app.src, app.part to public"
    ))
    .await;
    for (view, object) in [("util.v", "app.src"), ("util.w", "app.part")] {
        let more = format!("from = '{view} v on v.id = t.id'\nset = {{ twin = 'v.name' }}\n");
        let found =
            ran(&db, "check", &backfill(&db, &format!("table = 't'\n[backfill]\n{more}"))).await.exits(3);
        let wanted = format!("error[untrusted_object]: table {object}");
        assert!(found.stdout.contains(&wanted), "{found:?}");
        let trusted = backfill(&db, &format!("table = 't'\ntrust = ['{role}']\n[backfill]\n{more}"));
        ran(&db, "check", &trusted).await.ok();
    }
    db.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}

/// A type of a trusted role contains a domain of an untrusted role: each value of the type runs the CHECK of the
/// domain.
#[tokio::test]
async fn the_types_that_a_type_contains_belong_to_trusted_roles() {
    let role = evil(7);
    let db = database(&[], &setup(&role)).await;
    db.execute(&format!(
        "create schema app; create domain app.theirs as text; create domain app.ours as app.theirs;
         create type app.pair as (a int, b app.theirs); create type app.span as range (subtype = app.theirs);
         alter domain app.theirs owner to {role}"
    ))
    .await;
    for value in [
        "(t.name::app.ours)::text",
        "(row(1, t.name)::app.pair)::text",
        "(array[t.name]::app.ours[])::text",
        "lower(app.span(t.name, null))::text",
    ] {
        let plan = backfill(&db, &format!("table = 't'\n[backfill]\nset = {{ twin = '{value}' }}\n"));
        let found = ran(&db, "check", &plan).await.exits(3);
        assert!(found.stdout.contains("error[untrusted_object]: type app.theirs"), "{value}: {found:?}");
    }
    db.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}

/// The role created a function while it had the privilege, which has been revoked since.
#[tokio::test]
async fn objects_that_were_created_before_a_revoke_are_not_used() {
    let role = evil(8);
    let db = database(&[], &setup(&role)).await;
    db.execute(&planted(&role)).await;
    db.execute(
        "revoke create on schema public from public; create schema app;
         create function app.shout(varchar) returns text language plpgsql immutable as 'begin return lower($1); end';
         create function app.note() returns trigger language plpgsql as
            $$ begin new.id := new.id + length(lower(new.name)) * 0; return new; end $$;
         create trigger note before update on t for each row execute function app.note()",
    )
    .await;
    let plan = backfill(&db, "table = 't'\n[backfill]\nset = { twin = 'app.shout(t.name)' }\n");
    let found = ran(&db, "check", &plan).await.exits(3);
    assert!(found.stdout.contains("error[untrusted_schema]: function app.shout"), "{found:?}");
    assert!(found.stdout.contains("owns objects in schema public"), "{found:?}");
    let plan = backfill(&db, "table = 't'\n[backfill]\nset = { twin = 't.name' }\n");
    ran(&db, "run", &plan).await.ok();
    none(&db, "select count(*) from caught").await;
    db.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}

/// In a SECURITY DEFINER trigger function, `"$user"` in the search path stands for the definer. A writer creates a
/// schema with the name of the definer; the trigger must not search it.
#[tokio::test]
async fn a_schema_that_a_writer_creates_is_not_searched_by_the_trigger() {
    let role = evil(9);
    let setup = setup(&role) + "; create table names (id int primary key, name text)";
    let db = database(&[], &setup).await;
    db.execute(&format!(
        "revoke create on schema public from public; create function public.helper(text) returns text language sql as 'select $1';
         create function public.twin(text) returns text language plpgsql as 'begin return helper($1); end';
         grant insert, select on t to {role}; do $$ begin execute format('grant create on database %I to {role}', current_database()); end $$"
    ))
    .await;
    let plan = backfill(
        &db,
        "table = 't'\n[backfill]\nset = { twin = 'public.twin(t.name)' }\nwhere = 't.twin is null'\nkeep_filled = 'always'\n",
    );
    ran(&db, "run", &plan).await.ok();
    let definer: String = db.client().await.query_one("select current_user::text", &[]).await.unwrap().get(0);
    db.execute(&format!(
        "set session authorization {role}; create schema \"{definer}\"; grant usage on schema \"{definer}\" to public;
         create function \"{definer}\".helper(text) returns text language plpgsql as
            $$ begin insert into public.caught values (current_user); return $1; end $$;
         insert into public.t (id, name) values (-1, 'New'); reset session authorization"
    ))
    .await;
    none(&db, "select count(*) from caught").await;
    none(&db, "select count(*) from t where id = -1 and twin is distinct from 'New'").await;
    db.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}

/// A role that gets CREATE on a schema of the path while the trigger exists: without that schema, the function would find
/// the writer's temporary view.
#[tokio::test]
async fn temporary_objects_of_a_writer_do_not_replace_a_schema_that_is_no_longer_safe() {
    let role = evil(10);
    let db = database(&[], &setup(&role)).await;
    db.execute(&format!(
        "revoke create on schema public from public, {role}; create table names (id int, name text);
         insert into names select i, 'One' from generate_series(-1, 4) i;
         create function twin(int) returns text language plpgsql as 'begin return (select n.name from names n where n.id = $1 limit 1); end';
         grant insert, select on t to {role}"
    ))
    .await;
    let plan = backfill(
        &db,
        "table = 't'\n[backfill]\nset = { twin = 'public.twin(t.id)' }\nwhere = 't.twin is null and t.id < 5'\nkeep_filled = 'always'\n",
    );
    ran(&db, "run", &plan).await.ok();
    db.execute(&format!(
        "grant create on schema public to {role}; set session authorization {role};
         create function public.note() returns text language plpgsql as
            $$ begin insert into public.caught values (current_user); return 'x'; end $$;
         create temp view names as select i as id, public.note() as name from generate_series(-1, 4) i; grant select on names to public;
         insert into public.t (id, name) values (-1, 'New'); reset session authorization"
    ))
    .await;
    none(&db, "select count(*) from caught").await;
    none(&db, "select count(*) from t where id = -1 and twin is not null").await;
    db.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}

/// Functions such as to_json call the cast of a value's type.
#[tokio::test]
async fn casts_of_the_types_of_columns_belong_to_trusted_roles() {
    let role = evil(11);
    let db = database(&[], &setup(&role)).await;
    db.execute(&format!(
        "set role {role}; create type public.mood as enum ('a');
         create function public.check_report(public.mood) returns json language plpgsql as
            $$ begin insert into public.caught values (current_user); return '1'; end $$;
         create cast (public.mood as json) with function public.check_report(public.mood); reset role;
         alter table t add mood public.mood default 'a'"
    ))
    .await;
    let plan = backfill(&db, "table = 't'\n[backfill]\nset = { twin = 'to_json(t.mood)::text' }\n");
    let found = ran(&db, "check", &plan).await.exits(3);
    assert!(found.stdout.contains("function public.check_report(public.mood)"), "{found:?}");
    none(&db, "select count(*) from caught").await;
    db.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}
