//! Who is in the way of a swap: told, and asked to let go only where the plan says so.

use std::path::PathBuf;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::support::cluster::{Database, connect};

const SETUP: &str = "
    do $$ begin create role way_app login; exception when duplicate_object or unique_violation then null; end $$;
    create table t (id bigint primary key, at timestamptz not null);
    insert into t select i, timestamptz '2026-01-01Z' + i * interval '1 hour' from generate_series(1, 500) i;
    grant all on t to way_app";

struct Lab {
    db: Database,
    plan: PathBuf,
}

impl Lab {
    /// A verified job, with `swap` behind the plan's `[swap]`.
    async fn verified(swap: &str) -> Self {
        let db = Database::new().await;
        db.execute(SETUP).await;
        let plan = db.plan(&format!(
            "table = 't'\n[partition]\nby = 'at'\nevery = '1 month'\n[swap]\nlock_timeout = '50ms'\n{swap}"
        ));
        db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
        Self { db, plan }
    }

    /// A session of a role without rights of its own.
    async fn app(&self) -> Client {
        connect(&self.db.dsn().replace("user=postgres", "user=way_app")).await
    }
}

#[tokio::test]
async fn a_session_in_the_way_is_told_and_left_alone() {
    let lab = Lab::verified("attempts = 2\n").await;
    let app = lab.app().await;
    app.batch_execute("set application_name = 'night report'; begin; select from t").await.unwrap();
    let told = lab.db.pgstrata(&["swap", "t"]).await.exits(5);
    assert!(
        told.stderr.contains("user way_app, application \"night report\", idle in transaction"),
        "{told:?}"
    );
    assert!(told.stderr.contains("could not be acquired in 2 attempts"), "{told:?}");
    app.batch_execute("insert into t values (1000, '2026-01-05Z'); commit").await.unwrap();
    lab.db.pgstrata(&["swap", "t"]).await.ok();
    assert_eq!(lab.db.count("select count(*) from t").await, 501);
    drop(lab.plan);
}

#[tokio::test]
async fn the_total_limit_ends_the_tries() {
    let lab = Lab::verified("attempts = 1000\ngive_up_after = '1s'\n").await;
    let app = lab.app().await;
    app.batch_execute("begin; select from t").await.unwrap();
    lab.db.pgstrata(&["swap", "t"]).await.exits(5);
}

#[tokio::test]
async fn a_statement_in_the_way_is_cancelled_if_the_plan_says_so() {
    let lab = Lab::verified("cancel_blockers_after = '0s'\n").await;
    let app = lab.app().await;
    let (swapped, cancelled) = tokio::join!(
        async {
            lab.db.until("select count(*) from pg_stat_activity where query like 'select pg_sleep(1000)%' and state = 'active'", 1).await;
            lab.db.pgstrata(&["swap", "t"]).await
        },
        app.batch_execute("select pg_sleep(1000) from t limit 1")
    );
    swapped.ok();
    assert_eq!(cancelled.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    app.batch_execute("insert into t values (1000, '2026-01-05Z')").await.unwrap();
}

#[tokio::test]
async fn a_session_that_only_waits_is_ended_if_the_plan_says_so() {
    let lab = Lab::verified("cancel_blockers_after = '0s'\n").await;
    let app = lab.app().await;
    app.batch_execute("begin; insert into t values (1000, '2026-01-05Z')").await.unwrap();
    let told = lab.db.pgstrata(&["swap", "t"]).await.ok();
    assert!(
        told.stderr.contains("terminating the session of the blocker, as the plan requests: pid "),
        "{told:?}"
    );
    assert!(app.batch_execute("commit").await.is_err());
    assert_eq!(lab.db.count("select count(*) from t").await, 500);
}

#[tokio::test]
async fn a_superusers_session_is_never_ended() {
    let lab = Lab::verified("attempts = 3\ncancel_blockers_after = '0s'\n").await;
    let root = lab.db.client().await;
    root.batch_execute("begin; select from t").await.unwrap();
    lab.db.pgstrata(&["swap", "t"]).await.exits(5);
    root.batch_execute("commit").await.unwrap();
    lab.db.pgstrata(&["swap", "t"]).await.ok();
}
