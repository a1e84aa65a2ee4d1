//! Applications that block a swap are not disturbed: none becomes the victim of a deadlock, and the swap waits or
//! reports them, and succeeds later.

use std::io::Read;
use std::process::Stdio;

use pgstrata::demo::server::PrivateServer;
use rustix::process::Signal;
use tokio_postgres::Client;

use crate::support::bench::DEADLOCK_TIMEOUT;
use crate::support::cluster::{Database, Version, on_oldest_and_newest};
use crate::support::oracle;
use crate::support::process::{Ran, ended, frozen, send};
use crate::support::wait::until;

on_oldest_and_newest!(an_application_that_locks_in_another_order_is_no_deadlock_victim);

const SETUP: &str = "
    create table sites (site_id int primary key, name text);
    insert into sites select i, 'site' from generate_series(1, 9) i;
    create table t (id bigint, at timestamptz not null, site_id int references sites, n int not null default 0, note text,
      primary key (id, at));
    insert into t select i, timestamptz '2024-01-01 00:00Z' + i * interval '1 hour', 1 + i % 9, 0, repeat('x', 500)
      from generate_series(1, 4000) i;
    create view v as select id, at, site_id, n from t;
    create table inbox (id bigint, at timestamptz);
    create rule into_t as on insert to inbox do instead insert into t values (new.id, new.at, 1);
    create table remarks (id bigint);
    alter table remarks enable row level security;
    create policy known on remarks using (exists (select from t where t.id = remarks.id));
    analyze t";

/// For versions in which a foreign key can reference a partitioned table.
const CHILD: &str = "
    create table results (id bigint, at timestamptz, foreign key (id, at) references t on delete cascade)";

fn plan_text(lock_timeout: &str, attempts: u32) -> String {
    format!(
        "name = 'job'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\nto = '2024-09-01'\n\
         [swap]\nlock_timeout = '{lock_timeout}'\nattempts = {attempts}\n"
    )
}

/// A table with a verified job.
async fn verified(db: &Database, more: &str, lock_timeout: &str, attempts: u32) {
    verified_by(db, more, &plan_text(lock_timeout, attempts)).await;
}

async fn verified_by(db: &Database, more: &str, plan: &str) {
    db.execute(SETUP).await;
    db.execute(more).await;
    let plan = db.plan(plan);
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
}

/// Asserts that the command cannot acquire its lock, and reports the blocker.
async fn refused(db: &Database, command: &str, blocker: &str) {
    let ran = db.pgstrata(&[command, "job", "--json"]).await.exits(5);
    assert_eq!(ran.events("waiting_for_snapshots").len(), 0, "{ran:?}");
    assert!(ran.error()["cause"].as_str().unwrap().contains(blocker), "{ran:?}");
}

/// Asserts that the command gives up waiting for a transaction with an older snapshot, and reports it.
async fn waited_in_vain(db: &Database, command: &str, blocker: &str) {
    let ran = db.pgstrata(&[command, "job", "--json"]).await.exits(5);
    assert!(!ran.events("waiting_for_snapshots").is_empty(), "{ran:?}");
    assert!(ran.error()["cause"].as_str().unwrap().contains(blocker), "{ran:?}");
}

async fn ok(db: &Database, command: &str) {
    db.pgstrata(&[command, "job"]).await.ok();
}

async fn named(db: &Database, name: &str) -> Client {
    let client = db.client().await;
    client.batch_execute(&format!("set application_name = '{name}'")).await.unwrap();
    client
}

/// The first statement of a transaction, and the second, which it runs while the swap waits for the locks of the first.
const ORDERS: &[(&str, &str)] = &[
    ("select count(*) from v", "update t set n = n + 1 where id = 1"),
    ("update t set n = n + 1 where id = 2", "update v set n = n + 1 where id = 2"),
    ("update v set n = n + 1 where id = 3", "update t set n = n + 1 where id = 3"),
    (
        "update sites set name = 'changed' where site_id = 1",
        "update t set n = n + 1, site_id = 1 where id = 4",
    ),
    ("insert into t values (-5, '2024-05-05', 2, 1)", "update sites set name = 'changed' where site_id = 2"),
    ("select count(*) from inbox", "insert into inbox values (-6, '2024-06-06')"),
    ("select count(*) from remarks", "update t set n = n + 1 where id = 7"),
    ("update t set n = n + 1 where id = 8", "insert into remarks values (8)"),
    ("lock table v in share mode", "update t set n = n + 1 where id = 9"),
    (
        "lock table t in share mode",
        "lock table t in access exclusive mode; update t set n = n + 1 where id = 10",
    ),
    ("select count(*) from t", "lock table t in access exclusive mode; update t set n = n + 1 where id = 11"),
];

const WITH_CHILD: &[(&str, &str)] = &[
    (
        "insert into results select id, at from t where id = 12",
        "update t set n = n + 1 where id = 12; delete from results where id = 12",
    ),
    ("update t set n = n + 1 where id = 13", "insert into results select id, at from t where id = 13"),
    ("select count(*) from results", "delete from t where id = 14"),
];

async fn an_application_that_locks_in_another_order_is_no_deadlock_victim(version: Version) {
    let db = Database::of(version).await;
    db.execute(DEADLOCK_TIMEOUT).await;
    let (child, with_child) = if version == Version::V14 { ("", &[][..]) } else { (CHILD, WITH_CHILD) };
    verified(&db, child, "700ms", 2).await;
    let mut commands = ["swap", "rollback"].into_iter().cycle();
    for (first, second) in ORDERS.iter().chain(with_child) {
        let command = commands.next().unwrap();
        let stop = [("PGSTRATA_FAILPOINT", "swap.ready=stop")];
        // At this failpoint, the command has checked for blockers and is about to lock.
        let mut exchange = frozen(db.command(&[command, "job"]).envs(stop).spawn().unwrap()).await;
        let client = named(&db, "application").await;
        let watch = db.client().await;
        client.batch_execute(&format!("begin; {first}")).await.unwrap();
        send(&exchange, Signal::CONT);
        let waits = "select count(*) from pg_stat_activity where datname = current_database()
            and application_name like 'pgstrata/%' and wait_event_type = 'Lock'";
        until(waits, async || {
            exchange.try_wait().unwrap().is_some()
                || watch.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) > 0
        })
        .await;
        let done = client.batch_execute(&format!("{second}; commit")).await;
        done.unwrap_or_else(|e| panic!("{command}: {first}; {second}: {e:?}"));
        let ran = ended(exchange).await;
        if ran.code != Some(0) {
            ran.exits(5);
            ok(&db, command).await;
        }
    }
    let written = "select count(*) from t where n > 0 and (id < 0 or id <= 13) and note is not null";
    let updated =
        ORDERS.iter().chain(with_child).filter(|(a, b)| [a, b].iter().any(|s| s.contains("n + 1"))).count();
    assert_eq!(db.count(written).await, updated as i64);
    ok(&db, "sync").await;
    let other = if commands.next() == Some("swap") { "t_new" } else { "t_old" };
    oracle::compare(&db, "t", other).await;
}

/// A private server with prepared transactions and a short autovacuum_naptime.
fn server() -> PrivateServer {
    Version::System.start(&[("max_prepared_transactions", "10"), ("autovacuum_naptime", "1s")])
}

#[tokio::test]
async fn a_prepared_transaction_is_reported_and_nothing_is_lost() {
    let server = server();
    let db = Database::on(&server).await;
    verified(&db, CHILD, "100ms", 2).await;
    for (command, id) in [("swap", -1), ("rollback", -2), ("swap", -3)] {
        db.execute(&format!(
            "begin; insert into t values ({id}, '2024-02-02', 1); prepare transaction 'later'"
        ))
        .await;
        refused(&db, command, "prepared transaction later of postgres, since 20").await;
        db.execute("commit prepared 'later'").await;
        ok(&db, command).await;
        assert_eq!(db.count(&format!("select count(*) from t where id = {id}")).await, 1);
    }
    // A prepared transaction that holds a lock on another relation that the swap locks.
    for (command, held) in [
        ("rollback", "select from v limit 1"),
        ("swap", "insert into results select id, at from t where id = 5"),
    ] {
        db.execute(&format!("begin; {held}; prepare transaction 'later'")).await;
        refused(&db, command, "prepared transaction later").await;
        db.execute("rollback prepared 'later'").await;
        ok(&db, command).await;
    }
}

/// Makes autovacuum slow, and needed after few changes.
const VACUUM: &str =
    "alter table t set (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 20,
    autovacuum_vacuum_threshold = 10, autovacuum_vacuum_scale_factor = 0)";

#[tokio::test]
async fn autovacuum_gives_way() {
    let server = server();
    let db = Database::on(&server).await;
    verified(&db, VACUUM, "200ms", 100).await;
    let client = db.client().await;
    for command in ["swap", "rollback"] {
        client.batch_execute("update t set n = n + 1").await.unwrap();
        let vacuumed = "select count(*) from pg_stat_progress_vacuum p join pg_stat_activity a using (pid)
            where a.backend_type = 'autovacuum worker' and (p.relid = 't'::regclass
              or p.relid in (select inhrelid from pg_inherits where inhparent = 't'::regclass))";
        let at_work = async || client.query_one(vacuumed, &[]).await.unwrap().get::<_, i64>(0) > 0;
        until(vacuumed, at_work).await;
        ok(&db, command).await;
    }
    assert_eq!(db.count("select count(*) from t where n = 2").await, 4_000);
}

#[tokio::test]
async fn a_dump_completes() {
    let server = server();
    let db = Database::on(&server).await;
    verified_by(&db, "", &(plan_text("100ms", 2) + "give_up_after = '2s'\n")).await;
    let (mut rows, client) = (4_000, db.client().await);
    let name: String = client.query_one("select current_database()::text", &[]).await.unwrap().get(0);
    for (command, id) in [("swap", -1), ("rollback", -2)] {
        let mut dump = server.command("pg_dump");
        dump.args(["-U", "postgres", "-p", &server.port().to_string(), "-h"])
            .arg(server.socket_dir())
            .arg(&name);
        // Nothing reads the output of pg_dump, so it blocks.
        let mut dump = dump.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let writes = "select count(*) from pg_stat_activity
            where datname = current_database() and application_name = 'pg_dump' and wait_event = 'ClientWrite'";
        db.until(writes, 1).await;
        client.batch_execute(&format!("insert into t values ({id}, '2024-02-02', 1)")).await.unwrap();
        waited_in_vain(&db, command, "application \"pg_dump\"").await;
        let dumped = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            dump.stdout.take().unwrap().read_to_string(&mut text).unwrap();
            let mut error = String::new();
            dump.stderr.take().unwrap().read_to_string(&mut error).unwrap();
            assert!(dump.wait().unwrap().success(), "{error}");
            text
        });
        // The dump contains both tables completely.
        assert_eq!(dumped.await.unwrap().matches("xxxxx\n").count(), 2 * 4_000, "{command}");
        rows += 1;
        ok(&db, command).await;
        assert_eq!(db.count("select count(*) from t").await, rows);
    }
}

/// A session that reads a partition by its own name blocks a rollback.
#[tokio::test]
async fn a_session_that_reads_a_partition_is_reported() {
    let db = Database::new().await;
    verified(&db, "", "100ms", 2).await;
    ok(&db, "swap").await;
    let reader = named(&db, "reader of one month").await;
    reader.batch_execute("begin; select count(*) from t_y2024m02").await.unwrap();
    refused(&db, "rollback", "application \"reader of one month\"").await;
    reader.batch_execute("commit").await.unwrap();
    ok(&db, "rollback").await;
}

/// The lock can never be acquired: the source is untouched, changes are still logged, and the swap succeeds later.
#[tokio::test]
async fn a_swap_that_gave_up_succeeds_later() {
    let db = Database::new().await;
    verified(&db, CHILD, "100ms", 2).await;
    db.execute("create table truth (like t including defaults); insert into truth table t").await;
    let mut ids = 1_i64..;
    for (held, command) in [
        ("select from v limit 1", "swap"),
        ("lock table sites in row share mode", "rollback"),
        ("select from inbox", "swap"),
        ("select from results", "rollback"),
        ("lock table t in share mode", "swap"),
    ] {
        let client = named(&db, "night shift").await;
        client.batch_execute(&format!("begin; {held}")).await.unwrap();
        let ran: Ran = db.pgstrata(&[command, "job"]).await.exits(5);
        assert!(ran.stderr.contains("application \"night shift\""), "{held}: {}", ran.stderr);
        client.batch_execute("commit").await.unwrap();
        let id = ids.next().unwrap();
        for table in ["t", "truth"] {
            let change = format!(
                "insert into {table} values (-{id}, '2024-02-02', 1); delete from {table} where id = {id};
                 update {table} set at = at + interval '2 months' where id = {id} + 100"
            );
            client.batch_execute(&change).await.unwrap();
        }
        ok(&db, command).await;
        oracle::compare(&db, "t", "truth").await;
    }
}

/// The end of a job drops what it created; an object that somebody made on it prevents that, and is named.
#[tokio::test]
async fn objects_that_depend_on_what_a_job_removes_are_named() {
    const PARTITION: &str = "name = 'j'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 year'\n";
    const RETYPE: &str = "name = 'j'\nkind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'id'\nto = 'bigint'\n";
    for (plan, swaps, view, end) in [
        (PARTITION, false, "select id from t_new", &["abort", "j"][..]),
        (PARTITION, true, "select id from t_old", &["finalize", "j", "--now"]),
        (RETYPE, false, "select id_new from t", &["abort", "j"]),
        (RETYPE, true, "select id_old from t", &["finalize", "j", "--now"]),
    ] {
        let db = Database::new().await;
        db.execute("create table t (id int primary key, at date not null); insert into t values (1, '2024-01-01'); analyze t")
            .await;
        let plan = db.plan(plan);
        let run = ["run", plan.to_str().unwrap(), "--swap"];
        db.pgstrata(&run[..2 + usize::from(swaps)]).await.ok();
        db.execute(&format!("create view on_it as {view}")).await;
        let refused = db.pgstrata(end).await.exits(1).stderr;
        let again = format!("then run `pgstrata {} j`", end[0]);
        assert!(refused.contains("on_it depends on") && refused.contains(&again), "{view}: {refused}");
        db.execute("drop view on_it").await;
        db.pgstrata(end).await.ok();
    }
}
