//! Transactions whose snapshot is older than an exchange: depending on the plan, the job waits for them and reports
//! them, cancels them, or accepts them. The mirror, which keeps the change log empty meanwhile, is always switched off
//! again.

use rustix::process::Signal;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::bank::{self, Bank};
use crate::support::cluster::{Database, Version};
use crate::support::lab::Lab;
use crate::support::process::{ended, send};
use crate::support::wait::until;

const SETUP: &str = "
    do $$ begin create role old_app login; exception when duplicate_object or unique_violation then null; end $$;
    create table t (id bigint primary key, at timestamptz not null, n int not null);
    insert into t select i, timestamptz '2026-01-01Z' + i * interval '1 hour', 1 from generate_series(1, 500) i;
    create table other (n int);
    grant all on t, other to old_app";
const PARTITION: &str = "[partition]\nby = 'at'\nevery = '1 month'\n";
const RETYPE: &str = "kind = 'retype'\n[retype]\ncolumn = 'n'\nto = 'bigint'\n";
/// Whether the job has queried the transactions that hold snapshots.
const CHECKED_SNAPSHOTS: &str =
    "select exists (select from pg_stat_activity where datname = current_database()
    and application_name like 'pgstrata/%' and query like '%virtualxid%')";

/// A verified job; `swap` is appended to section `[swap]` of its plan.
async fn verified(kind: &str, swap: &str) -> Lab {
    let lab = lab(Database::new().await, kind, swap).await;
    lab.ok("run").await;
    lab
}

/// A lab with the table and the plan of a job.
async fn lab(db: Database, kind: &str, swap: &str) -> Lab {
    db.execute(SETUP).await;
    let head = if kind.starts_with("kind") { "" } else { "kind = 'partition'\n" };
    Lab::on(db, &format!("table = 't'\n{head}{kind}[swap]\nlock_timeout = '190ms'\nattempts = 1000\n{swap}"))
}

/// A session of a role that is not a superuser.
async fn app(lab: &Lab) -> Client {
    lab.db.connect_as("old_app").await
}

/// A session with a snapshot that has not used the table yet.
async fn with_a_snapshot(lab: &Lab) -> Client {
    let app = app(lab).await;
    app.batch_execute(
        "set application_name = 'night report'; begin isolation level repeatable read; select from pg_class limit 1",
    )
    .await
    .unwrap();
    app
}

/// Asserts that the command reports the holder of an older snapshot and exits with code 5, that the holder reads
/// correct data, and that the command succeeds once the holder has committed.
async fn waits_and_reports(lab: &Lab, command: &str, app: Client) {
    let ran = lab.ran(&format!("{command} --json")).await.exits(5);
    let waits = ran.events("waiting_for_snapshots");
    assert!(!waits.is_empty(), "{ran:?}");
    for wait in waits {
        let holder = &wait["holders"]["named"][0]["blocker"];
        let is = |field: &str, value: &str| holder[field] == value;
        assert!(is("user", "old_app") && is("application", "night report"), "{wait}");
        assert!(is("state", "idle in transaction"), "{wait}");
    }
    let who = "user old_app, application \"night report\", idle in transaction";
    assert!(ran.error()["cause"].as_str().unwrap().contains(who), "{ran:?}");
    assert_eq!(
        app.query_one("select count(*), sum(n)::bigint from t", &[]).await.unwrap().get::<_, i64>(1),
        500
    );
    app.batch_execute("commit").await.unwrap();
    lab.ok(command).await;
}

#[tokio::test]
async fn a_partition_job_waits_for_an_older_snapshot_and_reports_its_holder() {
    let lab = verified(PARTITION, "give_up_after = '4s'\n").await;
    for command in ["swap", "rollback"] {
        let app = with_a_snapshot(&lab).await;
        waits_and_reports(&lab, command, app).await;
    }
}

/// Before the swap, a snapshot is older if it was taken before the rows of the new column were filled.
#[tokio::test]
async fn a_retype_waits_for_an_older_snapshot_and_reports_its_holder() {
    let lab = lab(Database::new().await, RETYPE, "give_up_after = '4s'\n").await;
    let app = with_a_snapshot(&lab).await;
    lab.ok("run").await;
    waits_and_reports(&lab, "swap", app).await;
    let app = with_a_snapshot(&lab).await;
    waits_and_reports(&lab, "rollback", app).await;
}

async fn cancels(kind: &str) {
    let swap = "old_snapshots = 'cancel'\ncancel_blockers_after = '0s'\n";
    let lab = lab(Database::new().await, kind, swap).await;
    let app = with_a_snapshot(&lab).await;
    lab.ok("run").await;
    let ended = lab.ok("swap --json").await.event("session_terminated");
    assert_eq!(ended["blocker"]["user"], "old_app");
    assert!(app.batch_execute("select from t").await.is_err());
}

#[tokio::test]
async fn a_partition_job_terminates_older_snapshots_if_the_plan_requests_it() {
    cancels(PARTITION).await;
}

#[tokio::test]
async fn a_retype_terminates_older_snapshots_if_the_plan_requests_it() {
    cancels(RETYPE).await;
}

#[tokio::test]
async fn a_superusers_snapshot_is_never_canceled() {
    let swap = "old_snapshots = 'cancel'\ncancel_blockers_after = '0s'\ngive_up_after = '4s'\n";
    let lab = verified(PARTITION, swap).await;
    let root = lab.db.client().await;
    root.batch_execute("begin isolation level repeatable read; select from pg_class limit 1").await.unwrap();
    lab.ran("swap").await.exits(5);
    root.batch_execute("commit").await.unwrap();
    lab.ok("swap").await;
}

#[tokio::test]
async fn an_accepted_older_snapshot_cannot_write() {
    let lab = verified(PARTITION, "old_snapshots = 'accept'\n").await;
    let app = with_a_snapshot(&lab).await;
    lab.ok("swap").await;
    let refused = app.batch_execute("update t set n = 1 where id = 5").await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE));
}

/// The job does not wait for transactions without a snapshot: an open transaction that has written to another table,
/// and a prepared transaction.
#[tokio::test]
async fn an_open_transaction_without_a_snapshot_delays_nothing() {
    let server = Version::System.start(&[("max_prepared_transactions", "5")]);
    let lab = lab(Database::on(&server).await, PARTITION, "give_up_after = '60s'\n").await;
    lab.ok("run").await;
    let app = app(&lab).await;
    let prepared = "begin; insert into other values (1); prepare transaction 'p'";
    app.batch_execute(prepared).await.unwrap();
    app.batch_execute("begin; insert into other values (2)").await.unwrap();
    for command in ["swap", "rollback"] {
        lab.db.execute("update t set n = n + 1 where id < 50").await;
        lab.ok(command).await;
    }
    app.batch_execute("commit").await.unwrap();
    app.batch_execute("rollback prepared 'p'").await.unwrap();
}

/// The transaction that imports the snapshot is younger than the last drain, but the snapshot is older.
#[tokio::test]
async fn an_imported_snapshot_is_waited_for() {
    let lab = verified(PARTITION, "give_up_after = '60s'\n").await;
    let exporter = with_a_snapshot(&lab).await;
    let id: String = exporter.query_one("select pg_export_snapshot()", &[]).await.unwrap().get(0);
    lab.db.execute("insert into t values (1000, '2026-01-05Z', 0)").await;
    let mut swap = lab.start("swap", &[]);
    let watch = lab.db.client().await;
    until(CHECKED_SNAPSHOTS, async || watch.query_one(CHECKED_SNAPSHOTS, &[]).await.unwrap().get(0)).await;
    let importer = app(&lab).await;
    importer
        .batch_execute(&format!("begin isolation level repeatable read; set transaction snapshot '{id}'"))
        .await
        .unwrap();
    exporter.batch_execute("commit").await.unwrap();
    // Long enough for many checks by the job.
    for _ in 0..100 {
        watch.batch_execute("select pg_sleep(0.02)").await.unwrap();
        assert!(swap.try_wait().unwrap().is_none());
    }
    assert_eq!(importer.query_one("select count(*) from t", &[]).await.unwrap().get::<_, i64>(0), 500);
    importer.batch_execute("commit").await.unwrap();
    ended(swap).await.ok();
    assert_eq!(lab.db.count("select count(*) from t").await, 501);
}

/// Whether the mirror is on.
async fn is_mirrored(db: &Database) -> bool {
    let functions = "select count(*) from pg_proc where pronamespace = 'pgstrata'::regnamespace and proname = 'mirror_job'";
    db.count(functions).await > 0
}

/// A bank with running writers, and a verified job on it.
async fn busy() -> (Lab, Bank) {
    let db = Database::new().await;
    bank::create(&db, "bigint").await;
    // The mirror runs with the privileges of the table's owner, which is not the job's role here.
    let owner = format!("bank_of_{}", db.name());
    db.execute(&format!(
        "create role {owner}; grant create, usage on schema public to {owner}; alter table bank owner to {owner}"
    ))
    .await;
    let bank = Bank::open(&db).await;
    let lab = Lab::on(
        db,
        "name = 'job'\ntable = 'bank'\n[partition]\nby = 'at'\nevery = '1 month'\n[swap]\nlock_timeout = '190ms'\nattempts = 1000\n",
    );
    lab.ok("run").await;
    bank.commit_more(50).await;
    (lab, bank)
}

/// A process is killed or frozen while the mirror is on. The next command switches the mirror off, and all writes and
/// reads are correct meanwhile.
#[tokio::test]
async fn a_mirror_that_was_left_on_is_switched_off_by_the_next_command() {
    let (lab, bank) = busy().await;
    for later in ["sync", "verify"] {
        lab.killed("swap", "mirror.on").await;
        assert!(is_mirrored(&lab.db).await);
        bank.commit_more(100).await;
        lab.ok("status").await;
        lab.ok(&format!("{later} --json")).await.event("mirror_switched_off");
        assert!(!is_mirrored(&lab.db).await);
    }
    for at in ["mirror.on", "mirror.off"] {
        lab.killed("swap", at).await;
        assert_eq!(is_mirrored(&lab.db).await, at == "mirror.on");
    }
    let frozen = lab.frozen("swap", "mirror.on").await;
    bank.commit_more(100).await;
    send(&frozen, Signal::CONT);
    ended(frozen).await.ok();
    assert!(!is_mirrored(&lab.db).await);
    lab.ok("rollback").await;
    assert!(!is_mirrored(&lab.db).await);
    bank.close().await;
}

/// A TRUNCATE and a bulk write while the mirror is on are carried over.
#[tokio::test]
async fn changes_that_the_mirror_cannot_carry_over_are_logged() {
    let (lab, bank) = busy().await;
    let frozen = lab.frozen("swap", "mirror.on").await;
    bank.close().await;
    let pending = "select count(*) from pgstrata.changes_job";
    assert!(is_mirrored(&lab.db).await);
    let more = async |sql: &str| {
        let before = lab.db.count(pending).await;
        lab.db.execute(sql).await;
        lab.db.count(pending).await - before
    };
    // Rows whose last change is still in the log may be logged again.
    let logged = more("update bank set amount = amount where id <= 40").await;
    assert!(logged < 30, "{logged} of 40");
    let logged = more("update bank set amount = amount where id <= 1000").await;
    assert!((950..=990).contains(&logged), "{logged} of 1,000: the mirror takes 50 rows per transaction");
    let truncated = "begin; truncate bank; insert into bank values (1, '2025-02-02', 7); commit;
        insert into bank values (2, '2025-03-03', 8)";
    assert_eq!(more(truncated).await, 2);
    send(&frozen, Signal::CONT);
    ended(frozen).await.ok();
    assert_eq!(lab.db.count("select sum(amount)::bigint from bank").await, 15);
    assert_eq!(lab.db.count("select count(*) from bank").await, 2);
    lab.ok("verify").await;
}
