//! Sessions that block a swap are reported, and are canceled or terminated only if the plan requests it.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::lab::Lab;

const SETUP: &str = "
    do $$ begin create role way_app login; exception when duplicate_object or unique_violation then null; end $$;
    create table t (id bigint primary key, at timestamptz not null);
    insert into t select i, timestamptz '2026-01-01Z' + i * interval '1 hour' from generate_series(1, 500) i;
    grant all on t to way_app";

/// A verified job; `swap` is appended to section `[swap]` of its plan.
async fn verified(swap: &str) -> Lab {
    let plan = "table = 't'\n[partition]\nby = 'at'\nevery = '1 month'\n[swap]\nlock_timeout = '50ms'\n";
    let lab = Lab::new(SETUP, &format!("{plan}{swap}")).await;
    lab.ok("run").await;
    lab
}

/// A session of a role that is not a superuser.
async fn app(lab: &Lab) -> Client {
    lab.db.connect_as("way_app").await
}

#[tokio::test]
async fn a_blocking_session_is_reported_and_left_alone() {
    let lab = verified("attempts = 2\n").await;
    let app = app(&lab).await;
    app.batch_execute("set application_name = 'night report'; begin; select from t").await.unwrap();
    let output = lab.ran("swap").await.exits(5);
    assert!(
        output.stderr.contains("user way_app, application \"night report\", idle in transaction"),
        "{output:?}"
    );
    app.batch_execute("insert into t values (1000, '2026-01-05Z'); commit").await.unwrap();
    lab.ok("swap").await;
    assert_eq!(lab.db.count("select count(*) from t").await, 501);
}

#[tokio::test]
async fn the_total_limit_ends_the_attempts() {
    let lab = verified("attempts = 1000\ngive_up_after = '1s'\n").await;
    let app = app(&lab).await;
    app.batch_execute("begin; select from t").await.unwrap();
    lab.ran("swap").await.exits(5);
}

#[tokio::test]
async fn a_blocking_statement_is_canceled_if_the_plan_requests_it() {
    let lab = verified("cancel_blockers_after = '0s'\n").await;
    let app = app(&lab).await;
    let (swapped, canceled) = tokio::join!(
        async {
            lab.db.until("select count(*) from pg_stat_activity where query like 'select pg_sleep(1000)%' and state = 'active'", 1).await;
            lab.ran("swap").await
        },
        app.batch_execute("select pg_sleep(1000) from t limit 1")
    );
    swapped.ok();
    assert_eq!(canceled.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    app.batch_execute("insert into t values (1000, '2026-01-05Z')").await.unwrap();
}

#[tokio::test]
async fn an_idle_blocking_session_is_terminated_if_the_plan_requests_it() {
    let lab = verified("cancel_blockers_after = '0s'\n").await;
    let app = app(&lab).await;
    app.batch_execute("begin; insert into t values (1000, '2026-01-05Z')").await.unwrap();
    let ended = lab.ok("swap --json").await.event("session_terminated");
    assert_eq!(ended["blocker"]["user"], "way_app");
    assert!(app.batch_execute("commit").await.is_err());
    assert_eq!(lab.db.count("select count(*) from t").await, 500);
}

#[tokio::test]
async fn a_session_of_a_superuser_is_never_terminated() {
    let lab = verified("attempts = 3\ncancel_blockers_after = '0s'\n").await;
    let root = lab.db.client().await;
    root.batch_execute("begin; select from t").await.unwrap();
    lab.ran("swap").await.exits(5);
    root.batch_execute("commit").await.unwrap();
    lab.ok("swap").await;
}
