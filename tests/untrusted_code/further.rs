//! Code that is not attached to the table itself: partition keys of a parent, and functions that others create later.

use super::{owned, owner, owners_code_did_not_run, plans, ran};
use crate::support::checks::errors;
use crate::support::cluster::{Database, Version};

/// A write to a partition checks its bounds with the expressions of the partition key.
#[tokio::test]
async fn the_partition_key_of_the_parent_counts_for_a_partition() {
    let db = owned(Version::System).await;
    let role = owner(&db);
    db.execute(&format!(
        "set role {role};
         create function app.place(n int) returns int language plpgsql immutable as 'begin perform app.note(); return n; end';
         create table app.p (id int, note text) partition by range (app.place(id));
         create table app.p1 (id int primary key, note text); alter table app.p attach partition app.p1 for values from (0) to (9)"
    ))
    .await;
    let plan = "name = 'job'\ntable = 'app.p1'\nkind = 'backfill'\n[backfill]\nset = { note = \"'x'\" }\n";
    let output = ran(&db, "run", &db.plan(plan)).await.exits(3);
    assert!(output.stdout.contains("error[untrusted_code]: app.p1"), "{output:?}");
    owners_code_did_not_run(&db, "the partition").await;
}

/// The job creates definitions again from their text, in which the server would find a better match for the arguments.
#[tokio::test]
async fn definitions_that_others_can_overload_are_refused() {
    let db = Database::new().await;
    let role = format!("eve_of_{}", db.name());
    db.execute(&format!(
        "create role {role}; create schema open; grant create, usage on schema open to {role};
         create function open.okay(v anyelement) returns boolean language sql immutable as 'select true';
         create table t (id int primary key, at timestamptz not null, n int, name varchar(20));
         insert into t select i, timestamptz '2024-01-01 00:00Z' + i * interval '1 hour', i, 'n' from generate_series(1, 99) i"
    ))
    .await;
    for (create, drop) in [
        ("alter table t add constraint c check (open.okay(name))", "alter table t drop constraint c"),
        ("create index i on t (open.okay(name))", "drop index i"),
        ("create policy p on t using (open.okay(name))", "drop policy p on t"),
        ("create view v as select id from t where open.okay(name)", "drop view v"),
    ] {
        db.execute(create).await;
        let [partition, backfill, retype] = plans(&db, "");
        for plan in [&partition, &retype] {
            let output = ran(&db, "check", plan).await.exits(3);
            assert!(
                errors(&output.stdout).iter().any(|e| e.starts_with("error[untrusted_schema]")),
                "{create}: {output:?}"
            );
        }
        // A backfill creates nothing again.
        ran(&db, "check", &backfill).await.ok();
        db.execute(&format!("revoke create on schema open from {role}")).await;
        ran(&db, "check", &partition).await.ok();
        db.execute(&format!("grant create on schema open to {role}; {drop}")).await;
    }
    db.execute(&format!("drop owned by {role}; drop role {role}")).await;
}

/// The server calls the checks of a domain when it parses a constant of an array of that domain.
#[tokio::test]
async fn definitions_with_constants_of_a_domain_are_refused() {
    let db = Database::new().await;
    let role = format!("eve_of_{}", db.name());
    db.execute(&format!(
        "create role {role}; create schema eve authorization {role};
         create table caught (who text); grant insert on caught to public;
         create table t (id int primary key, at timestamptz not null, n int, name varchar(20));
         insert into t select i, timestamptz '2024-01-01 00:00Z' + i * interval '1 hour', i, 'n' from generate_series(1, 99) i;
         create materialized view m as select id, name from t;
         set role {role};
         create function eve.note(n int) returns boolean language sql as 'select true';
         create domain eve.d as int check (eve.note(value)); create type eve.pair as (a eve.d, b int);
         create type eve.span as range (subtype = eve.d, subtype_opclass = int4_ops); reset role"
    ))
    .await;
    let body = "begin insert into public.caught select rolname from pg_roles where rolname = current_user and rolsuper; return true; end";
    let replace = |language: &str, body: &str| {
        format!(
            "set role {role}; create or replace function eve.note(n int) returns boolean language {language} as '{body}'; reset role"
        )
    };
    let (catch, harmless) = (replace("plpgsql", body), replace("sql", "select true"));
    for (create, drop) in [
        ("create policy p on t using (n < ('{5}'::eve.d[])[1])", "drop policy p on t"),
        ("create view v as select id from t where n < (('(5,6)'::eve.pair).b)", "drop view v"),
        ("create view v as select id from t where n::eve.d <@ '[5,6)'::eve.span", "drop view v"),
        ("create index i on m (id) where id < array_length('{5}'::eve.d[], 1)", "drop index i"),
        ("create view v as select id from m where id < array_length('{5}'::eve.d[], 1)", "drop view v"),
        ("alter table t alter n set default ('{5}'::eve.d[])[1]", "alter table t alter n drop default"),
    ] {
        db.execute(&format!("{create}; {catch}")).await;
        let [partition, _, retype] = plans(&db, "");
        for plan in [&partition, &retype] {
            let output = ran(&db, "check", plan).await.exits(3);
            let coded = |e: &String| e.starts_with("error[untrusted_code]");
            assert!(errors(&output.stdout).iter().any(coded), "{create}: {output:?}");
            assert!(output.stdout.contains("uses type eve.d of"), "{create}: {output:?}");
        }
        db.execute(&format!("{drop}; {harmless}")).await;
    }
    // The definition is created after the check.
    let [partition, ..] = plans(&db, "");
    ran(&db, "run", &partition).await.ok();
    db.execute(&format!("create policy p on t using (n < ('{{5}}'::eve.d[])[1]); {catch}")).await;
    let swap = db.pgstrata(&["swap", "job"]).await.exits(1);
    assert!(swap.stderr.contains("policy p on table public.t uses type eve.d"), "{swap:?}");
    db.execute("drop policy p on t").await;
    db.pgstrata(&["swap", "job"]).await.ok();
    assert_eq!(db.count("select count(*) from caught").await, 0);
    db.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}
