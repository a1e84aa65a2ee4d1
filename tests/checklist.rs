//! The checklist of `check`: sessions, locks, slots and earlier jobs, without queries or values, also for a role that
//! sees little.

use serde_json::Value;

use crate::support::cluster::{Database, Version, on_every_version};
use crate::support::wait::until;

on_every_version!(the_checklist_shows_the_state_of_the_server);

const SETUP: &str = "
    create role app login;
    create table events (id bigint primary key, at timestamptz not null, note text);
    insert into events select i, timestamptz '2024-01-01Z' + i * interval '1 hour', 'x' from generate_series(1, 1000) i;
    grant select, update on events to app;
    select pg_create_physical_replication_slot('standby_slot', true);
    analyze;";
const PLAN: &str = "name = 'events'\ntable = 'public.events'\n[partition]\nby = 'at'\nevery = '1 month'\n";
/// Part of the query of a session, which must not be printed.
const SECRET: &str = "SECRET";

async fn checklist(db: &Database, plan: &str, seconds: &str) -> Value {
    let checked = db.pgstrata_with(&["check", plan, "--json"], &[("PGSTRATA_LONG", seconds)]).await;
    assert!(!checked.stdout.contains(SECRET), "{}", checked.stdout);
    let checked: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert!(checked["findings"].is_array());
    checked["checklist"].clone()
}

async fn the_checklist_shows_the_state_of_the_server(version: Version) {
    let server = version.start(&[("max_prepared_transactions", "5")]);
    let mut db = Database::on(&server).await;
    db.execute(SETUP).await;
    let plan = db.plan(PLAN).to_str().unwrap().to_owned();
    db.pgstrata(&["run", &plan]).await.ok();
    db.pgstrata(&["abort", "events"]).await.ok();

    let holder = db.connect_as("app").await;
    holder.batch_execute(&format!("begin; update events set note = '{SECRET}' where id = 1")).await.unwrap();
    let waiter = db.client().await;
    let wait = tokio::spawn(async move {
        waiter.batch_execute(&format!("update events set note = '{SECRET} too' where id = 1")).await
    });
    let client = db.client().await;
    until("the update waits", async || {
        let waits = "select count(*) > 0 from pg_locks where not granted";
        client.query_one(waits, &[]).await.unwrap().get(0)
    })
    .await;
    client.batch_execute("begin; create table prepared (); prepare transaction 'waits'").await.unwrap();

    let list = checklist(&db, &plan, "0").await;
    let pid: i32 = holder.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let of = |all: &str| list[all].as_array().unwrap().clone();
    let long = of("long_running");
    let held = long.iter().find(|one| one["pid"] == pid).unwrap();
    assert_eq!((&held["user"], &held["locks_table"]), (&"app".into(), &true.into()));
    assert_eq!(held["state"], "idle in transaction");
    assert!(held["transaction_s"].as_f64().unwrap() > 0.0 && held["query_s"].is_null());
    assert!(long.iter().any(|one| one["pid"] == 0 && one["state"] == "prepared transaction"), "{long:?}");
    assert!(long.iter().any(|one| one["query_s"].is_f64()), "the update that waits: {long:?}");
    let blockers = of("blockers");
    assert_eq!((blockers.len(), &blockers[0]["pid"], &blockers[0]["waiting"]), (1, &pid.into(), &1.into()));
    let slot = &of("slots")[0];
    assert_eq!((&slot["name"], &slot["active"]), (&"standby_slot".into(), &false.into()));
    assert!(slot["retained_bytes"].is_u64());
    let job = &of("earlier_jobs")[0];
    assert_eq!(
        (&job["job"], &job["kind"], &job["state"]),
        (&"events".into(), &"partition".into(), &"aborted".into())
    );
    assert_eq!(list["table"], "public.events");
    for key in ["database_bytes", "table_bytes", "connections_used", "freeze_max_age"] {
        assert!(list[key].as_u64().unwrap() > 0, "{key}: {list}");
    }
    assert_eq!((&list["connections_allowed"], &list["connections_reserved"]), (&300.into(), &3.into()));
    assert!(list["oldest_xid_age"].is_u64() && list["oldest_snapshot_age"].is_u64());
    assert!(list["directory"].as_str().unwrap().starts_with('/'));
    assert_eq!(list["not_visible"], serde_json::json!(["backup", "free_disk"]));
    assert!(checklist(&db, &plan, "600").await["long_running"].as_array().unwrap().is_empty());

    let text = db.pgstrata_with(&["check", &plan], &[("PGSTRATA_LONG", "0")]).await.stdout;
    assert!(!text.contains(SECRET) && text.contains("holds a lock on the table"), "{text}");
    assert!(
        text.lines().skip_while(|line| *line != "checklist").take(16).all(|line| line.len() <= 100),
        "{text}"
    );

    // A role without pg_read_all_stats, which cannot read schema pgstrata either.
    db.log_in_as("app");
    let list = checklist(&db, &plan, "0").await;
    assert_eq!((&list["sees_sessions"], &list["directory"]), (&false.into(), &Value::Null));
    assert_eq!(list["not_visible"], serde_json::json!(["backup", "free_disk", "other_sessions"]));
    assert!(list["connections_used"].as_u64().unwrap() >= 3, "{list}");
    assert!(list["earlier_jobs"].as_array().unwrap().is_empty());
    holder.batch_execute("rollback").await.unwrap();
    wait.await.unwrap().unwrap();
    client.batch_execute("rollback prepared 'waits'").await.unwrap();
}
