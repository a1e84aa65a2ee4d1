//! The row type of a table or view has privileges and a comment of its own. Every exchange keeps them, and later changes
//! are carried over.

use crate::support::cluster::{Database, Version, on_oldest_and_newest};

on_oldest_and_newest!(the_row_type_of_a_partitioned_table_is_as_before, the_row_types_of_views_are_as_before);

/// A database with roles `A` and `B`, in which `{a}` and `{b}` of a statement stand for their names.
async fn with_roles(version: Version, setup: &str) -> (Database, impl Fn(&str) -> String) {
    let db = Database::of(version).await;
    let (a, b) = (format!("a_of_{}", db.name()), format!("b_of_{}", db.name()));
    let named = move |sql: &str| sql.replace("{a}", &a).replace("{b}", &b);
    db.execute(&named("create role {a}; create role {b}")).await;
    db.execute(&named(setup)).await;
    (db, named)
}

/// The privileges on the row type, and its comment.
async fn row_type(db: &Database, name: &str) -> String {
    let query = format!(
        "select concat_ws(' ', (select string_agg(x::text, ' ' order by x::text) from unnest(typacl) x), obj_description(oid, 'pg_type'))
         from pg_type where oid = '{name}'::regtype"
    );
    db.client().await.query_one(&query, &[]).await.unwrap().get(0)
}

async fn the_row_type_of_a_partitioned_table_is_as_before(version: Version) {
    let (db, named) = with_roles(
        version,
        "create table t (id bigint primary key, at timestamptz not null);
         insert into t select i, timestamptz '2024-01-01Z' + i * interval '1 hour' from generate_series(1, 1000) i;
         create materialized view m as select id from t;
         revoke usage on type t from public; grant usage on type t to {a} with grant option;
         set role {a}; grant usage on type t to {b}; reset role; comment on type t is 'a row';
         revoke usage on type m from public; comment on type m is 'a row of m'; analyze t",
    )
    .await;
    let plan = db.plan("name = 'j'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\n");
    let view = row_type(&db, "m").await;
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    let mut was = row_type(&db, "t").await;
    // In each window between two exchanges, a change.
    for (change, command) in [
        ("select", "swap"),
        ("revoke usage on type t from {a} cascade", "rollback"),
        ("grant usage on type t to public; comment on type t is null", "swap"),
        (
            "revoke usage on type t from public; grant usage on type t to {b}; comment on type t is 'again'",
            "rollback",
        ),
        ("alter table t owner to {a}", "swap"),
    ] {
        db.execute(&named(change)).await;
        if command == "rollback" || change != "select" {
            let now = row_type(&db, "t").await;
            assert_ne!(now, was, "{change}");
            was = now;
        }
        let done = db.pgstrata(&[command, "j"]).await.ok();
        assert!(!done.stderr.contains("unexpected"), "{done:?}");
        assert_eq!(row_type(&db, "t").await, was, "{change}, {command}");
        assert_eq!(row_type(&db, "m").await, view, "{command}");
    }
    // Without an exchange.
    db.execute(&named("revoke usage on type t from {b}")).await;
    db.pgstrata(&["sync", "j"]).await.ok();
    assert_eq!(row_type(&db, "t_old").await, row_type(&db, "t").await);
    db.pgstrata(&["finalize", "j", "--now"]).await.ok();
    db.execute(&named("drop owned by {a}, {b} cascade; drop role {a}, {b}")).await;
}

/// A column type change drops the views that read the column, and creates them again.
async fn the_row_types_of_views_are_as_before(version: Version) {
    let (db, named) = with_roles(
        version,
        "create table t (id bigint primary key, n int);
         insert into t select i, i from generate_series(1, 1000) i;
         create view v as select n from t; create materialized view m as select n from t;
         revoke usage on type t, v, m from public; grant usage on type v, m to {a}; comment on type t is 'a row';
         comment on type v is 'a row of v'; comment on type m is 'a row of m'; analyze t",
    )
    .await;
    let plan = db.plan("name = 'j'\nkind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'n'\nto = 'bigint'\n");
    let were = [row_type(&db, "t").await, row_type(&db, "v").await, row_type(&db, "m").await];
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    for command in ["swap", "rollback", "swap"] {
        db.pgstrata(&[command, "j"]).await.ok();
        let now = [row_type(&db, "t").await, row_type(&db, "v").await, row_type(&db, "m").await];
        assert_eq!(now, were, "{command}");
    }
    db.execute("revoke usage on type t from current_user; comment on type t is null").await;
    db.pgstrata(&["rollback", "j"]).await.ok();
    db.execute(&named("drop owned by {a}, {b} cascade; drop role {a}, {b}")).await;
}
