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
        for plan in plans(&db, "") {
            let output = ran(&db, "check", &plan).await.exits(3);
            assert!(
                errors(&output.stdout).iter().any(|e| e.starts_with("error[untrusted_schema]")),
                "{create}: {output:?}"
            );
        }
        db.execute(&format!("revoke create on schema open from {role}")).await;
        let [partition, ..] = plans(&db, "");
        ran(&db, "check", &partition).await.ok();
        db.execute(&format!("grant create on schema open to {role}; {drop}")).await;
    }
    db.execute(&format!("drop owned by {role}; drop role {role}")).await;
}
