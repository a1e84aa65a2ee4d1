//! The lease of a job: other roles cannot stop the job or take it over, and a lease that was deleted or whose holder is
//! hidden does not prevent a job from resuming.

use rustix::process::Signal;
use tokio::process::Child;

use crate::support::cluster::{Database, connect};
use crate::support::process::{ended, frozen, refusal, send};

const PLAN: &str = "name = 'job'\ntable = 't'\n[partition]\nby = 'at'\nevery = 'month'\nto = '2024-07-01'\n";

/// A table, and roles with LOGIN and without privileges on it. Role names must be unique on the server.
async fn with_roles(roles: &[&str]) -> Database {
    let db = Database::new().await;
    for role in roles {
        db.execute(&format!("create role {role} login")).await;
    }
    db.execute(
        "create table t (id bigint generated always as identity primary key, at timestamptz not null);
         insert into t (at) select timestamptz '2024-01-15 00:00Z' + i * interval '1 hour' from generate_series(0, 999) i;
         analyze t",
    )
    .await;
    db
}

/// Makes `owner` the owner of the table and grants it the privileges that a job needs.
async fn give(db: &Database, owner: &str) {
    db.execute(&format!(
        "do $$ begin execute format('grant create on database %I to {owner}', current_database()); end $$;
         grant create on schema public to {owner}; alter table t owner to {owner}"
    ))
    .await;
}

fn dsn_of(db: &Database, role: &str) -> String {
    db.dsn().replace("user=postgres", &format!("user={role}"))
}

fn run_as(db: &Database, role: &str, at: Option<&str>) -> Child {
    let plan = db.plan(PLAN).display().to_string();
    let mut command = db.command(&["run", &plan]);
    command.env("DATABASE_URL", dsn_of(db, role));
    if let Some(at) = at {
        command.env("PGSTRATA_FAILPOINT", at);
    }
    command.spawn().unwrap()
}

/// A session of another role has the application_name of a job's session, and holds the lock that older versions used.
#[tokio::test]
async fn a_session_of_another_role_with_the_name_of_a_job_stops_no_job() {
    let db = with_roles(&["lease_namesake"]).await;
    let namesake = connect(&dsn_of(&db, "lease_namesake")).await;
    namesake
        .batch_execute(
            "set application_name = 'pgstrata/1/1/worker'; select pg_advisory_lock(7041, 0), pg_advisory_lock(7041, 1)",
        )
        .await
        .unwrap();
    ended(run_as(&db, "postgres", None)).await.ok();
    db.pgstrata(&["swap", "job"]).await.ok();
    // The session was not terminated.
    namesake.batch_execute("select 1").await.unwrap();
}

const LOCKS: &str = "from pg_locks where locktype = 'advisory'
    and database = (select oid from pg_database where datname = current_database())";

/// Every role can see in `pg_locks` which advisory lock a driver holds, and can wait for it.
#[tokio::test]
async fn a_role_that_takes_the_lock_of_the_driver_stops_no_job() {
    let db = with_roles(&["lease_heir"]).await;
    let driver = frozen(run_as(&db, "postgres", Some("copy.chunk=stop"))).await;
    let heir = connect(&dsn_of(&db, "lease_heir")).await;
    let (classid, objid): (i64, i64) = {
        let row =
            heir.query_one(&format!("select classid::bigint, objid::bigint {LOCKS}"), &[]).await.unwrap();
        (row.get(0), row.get(1))
    };
    let key = (classid << 32) | objid;
    let take = async { heir.query_one("select pg_advisory_lock($1)", &[&key]).await };
    let end = async {
        db.until(&format!("select count(*) {LOCKS} and not granted"), 1).await;
        send(&driver, Signal::KILL);
        ended(driver).await
    };
    let (taken, _) = tokio::join!(take, end);
    taken.unwrap();
    ended(run_as(&db, "postgres", None)).await.ok();
    db.pgstrata(&["swap", "job"]).await.ok();
    let held = format!("select count(*) {LOCKS} and granted");
    assert_eq!(db.count(&held).await, 1, "the other role's session was terminated");
}

/// Two roles log in and SET ROLE to the same role: neither can see details of the other's sessions.
#[tokio::test]
async fn a_driver_whose_session_is_hidden_is_reported_without_details() {
    let db = with_roles(&["lease_group", "lease_one", "lease_other"]).await;
    db.execute(
        "grant lease_group to lease_one, lease_other;
         alter role lease_one set role = lease_group; alter role lease_other set role = lease_group",
    )
    .await;
    give(&db, "lease_group").await;
    let driver = frozen(run_as(&db, "lease_one", Some("copy.chunk=stop"))).await;
    insta::assert_snapshot!(refusal(&ended(run_as(&db, "lease_other", None)).await), @"
    exit 7
    error: another process is already running this job
    cause: server process #, whose details this role cannot see, runs the job
    hint: wait until it ends, or stop pgstrata on that machine; if the machine is down: select pg_terminate_backend(#)
    ");
    send(&driver, Signal::CONT);
    ended(driver).await.ok();
    ended(run_as(&db, "lease_other", None)).await.ok();
}

/// `current_user` differs from the role that logged in.
#[tokio::test]
async fn a_role_with_a_default_role_can_take_over_its_own_job() {
    let db = with_roles(&["lease_owner", "lease_member"]).await;
    db.execute("grant lease_owner to lease_member; alter role lease_member set role = lease_owner").await;
    give(&db, "lease_owner").await;
    let driver = frozen(run_as(&db, "lease_member", Some("copy.chunk=stop"))).await;
    let lease = "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and application_name ~ '^pgstrata/[0-9]+/$'";
    assert_eq!(db.count(lease).await, 1);
    ended(run_as(&db, "lease_member", None)).await.ok();
    send(&driver, Signal::CONT);
    ended(driver).await.exits(7);
}

#[tokio::test]
async fn a_lease_that_somebody_deleted_is_created_again() {
    let db = with_roles(&[]).await;
    ended(run_as(&db, "postgres", Some("copy.chunk"))).await.killed("copy.chunk");
    let frozen = frozen(run_as(&db, "postgres", Some("index.leaf=stop"))).await;
    db.execute("delete from pgstrata.leases").await;
    // The driver whose lease was deleted cannot write any more, although the new lease has an epoch again.
    ended(run_as(&db, "postgres", None)).await.ok();
    send(&frozen, Signal::CONT);
    ended(frozen).await.exits(7);
    db.pgstrata(&["swap", "job"]).await.ok();
    assert_eq!(db.count("select count(*) from t").await, 1_000);
}
