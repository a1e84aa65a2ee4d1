//! How long locks are held by the exchange of two tables or two columns, and by every other transaction that can block
//! applications, even if the network, the process or a standby fails.

use std::time::Duration;

use rustix::process::Signal;
use tokio_postgres::error::SqlState;

use crate::support::cluster::{Database, Version, connect};
use crate::support::lab::Lab;
use crate::support::oracle;
use crate::support::process::{ended, send};
use crate::support::proxy::Proxy;
use crate::support::standby::Standby;

/// The round-trip time of a distant client.
const LATENCY: Duration = Duration::from_millis(50);

const SETUP: &str = "
    create table sites (site_id int primary key);
    insert into sites select generate_series(1, 9);
    create table t (id bigint, at timestamptz not null, site_id int references sites, n int not null default 0,
      m int, primary key (id, at));
    insert into t select i, timestamptz '2024-01-01 00:00Z' + i * interval '1 hour', 1 + i % 9, 0, i
      from generate_series(1, 2000) i;
    create view v as select id, n from t;
    analyze t";

const PARTITION: &str = "name = 'job'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\nto = '2024-09-01'\n\
    [swap]\nlock_timeout = '300ms'\nattempts = 1000\n";

const BACKFILL: &str = "name = 'job'\nkind = 'backfill'\ntable = 't'\n[backfill]\nadd = { total = 'int' }\n\
    set = { total = 't.n + 1' }\nwhere = 't.total is null'\nkeep_filled = true\nfinish = { not_null = ['total'] }\n\
    [swap]\nlock_timeout = '300ms'\nattempts = 1000\n";

const RETYPE: &str = "name = 'job'\nkind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'm'\nto = 'bigint'\n\
    [swap]\nlock_timeout = '300ms'\nattempts = 1000\n";

/// A lab with the table `t`.
async fn lab(plan: &str) -> Lab {
    Lab::new(SETUP, plan).await
}

/// The same in an existing database.
async fn lab_on(db: Database, plan: &str) -> Lab {
    db.execute(SETUP).await;
    Lab::on(db, plan)
}

/// The same with a verified job.
async fn verified(plan: &str) -> Lab {
    let lab = lab(plan).await;
    lab.ok("run").await;
    lab
}

/// Sessions of the job that hold the table's lock and wait for another.
const IN_THE_EXCHANGE: &str = "select count(*) from pg_stat_activity a join pg_locks l using (pid)
    where a.datname = current_database() and a.application_name like 'pgstrata/%' and a.wait_event_type = 'Lock'
      and l.relation = 't'::regclass and l.mode = 'AccessExclusiveLock' and l.granted";

fn deadlock_timeout(ms: u32) -> String {
    format!(
        "do $$ begin execute format('alter database %I set deadlock_timeout = {ms}', current_database()); end $$"
    )
}

/// Whether a transaction acquires an ACCESS EXCLUSIVE lock.
fn locks(sql: &str) -> bool {
    sql.contains("select \"pgstrata\".\"exchange_")
        || sql.contains("in access exclusive mode") && !sql.contains("create function")
}

#[tokio::test]
async fn a_lock_is_held_for_one_round_trip() {
    let exchanges = async |plan: &str| {
        let lab = verified(plan).await;
        let proxy = Proxy::slow(lab.db.socket_dir(), LATENCY).await;
        for command in ["swap", "rollback"] {
            let env = [("DATABASE_URL", proxy.dsn(lab.db.dsn()))];
            ended(lab.command(command).envs(env).spawn().unwrap()).await.ok();
            let locking: Vec<_> = proxy.committed().into_iter().filter(|t| locks(&t.sql)).collect();
            assert_eq!(locking.len(), 1, "{command}: {locking:#?}");
            assert!(locking.iter().all(|t| t.round_trips <= 3), "{command}: {locking:#?}");
        }
        lab.ok("abort").await;
    };
    // Both mostly wait for the network, so run them at the same time.
    tokio::join!(exchanges(PARTITION), exchanges(RETYPE));
}

/// The change log has 100,000 entries for one row. The drain needs few batches, because it attributes the long duration
/// of a batch to the network and does not make batches smaller.
#[tokio::test]
async fn a_drain_does_not_mistake_latency_for_work() {
    let lab = verified(&format!("{PARTITION}[copy]\ntarget_batch_ms = 500\n")).await;
    lab.db
        .execute(
            "insert into pgstrata.changes_job (old_id, old_at, new_id, new_at)
             select id, at, id, at from t, generate_series(1, 100000) where id = 1",
        )
        .await;
    let proxy = Proxy::slow(lab.db.socket_dir(), 2 * LATENCY).await;
    let env = [("DATABASE_URL", proxy.dsn(lab.db.dsn()))];
    ended(lab.command("sync").envs(env).spawn().unwrap()).await.ok();
    let batches = |sql: &str| sql.contains("delete from \"pgstrata\".\"changes_job\"");
    let batches = proxy.committed().iter().filter(|t| batches(&t.sql)).count();
    assert!((1..16).contains(&batches), "{batches} batches");
    oracle::compare(&lab.db, "t", "t_new").await;
}

/// The process dies or freezes while the exchange holds a lock and waits for another.
#[tokio::test]
async fn a_process_that_dies_or_freezes_in_the_exchange_leaves_no_lock() {
    for (plan, signal) in
        [(PARTITION, Signal::KILL), (PARTITION, Signal::STOP), (RETYPE, Signal::KILL), (RETYPE, Signal::STOP)]
    {
        let lab = lab(&plan.replace("300ms", "3s")).await;
        lab.db.execute(&deadlock_timeout(60_000)).await;
        // The table that the exchange locks after `t`.
        let last = if plan == RETYPE {
            lab.db.execute("alter table t add unique (m); create table u (m int references t (m))").await;
            "u"
        } else {
            "sites"
        };
        lab.ok("run").await;
        let mut exchange = lab.frozen("swap", "swap.ready").await;
        let blocker = lab.db.client().await;
        blocker.batch_execute(&format!("begin; lock table {last} in access share mode")).await.unwrap();
        send(&exchange, Signal::CONT);
        lab.db.until(IN_THE_EXCHANGE, 1).await;
        send(&exchange, signal);
        // The server ends the transaction by itself, because of its timeouts.
        let application = lab.db.client().await;
        application
            .batch_execute("set statement_timeout = '30s'; update t set n = 1 where id = 1")
            .await
            .unwrap();
        blocker.batch_execute("rollback").await.unwrap();
        exchange.kill().await.unwrap();
        lab.ok("swap").await;
        assert_eq!(lab.db.count("select count(*) from t where n = 1").await, 1);
        lab.ok("rollback").await;
        assert_eq!(lab.db.count("select count(*) from t where n = 1").await, 1);
    }
}

/// For each kind of job, the failpoints inside a transaction that holds locks: plan, commands that run before, command
/// that freezes, failpoint.
const FAILPOINTS: &[(&str, &[&str], &str, &str)] = &[
    (PARTITION, &[], "run", "capture.before_commit"),
    (PARTITION, &["run", "swap"], "finalize --now", "finalize.before_commit"),
    (PARTITION, &["run"], "abort", "abort.before_commit"),
    (BACKFILL, &[], "run", "prepare.before_commit"),
    (BACKFILL, &[], "run", "capture.before_commit"),
    (BACKFILL, &[], "run", "fill.before_commit"),
    (BACKFILL, &[], "run", "finish.before_commit"),
    (RETYPE, &[], "run", "prepare.before_commit"),
    (RETYPE, &[], "run", "capture.before_commit"),
    (RETYPE, &["run", "swap"], "finalize --now", "finalize.before_commit"),
    (RETYPE, &["run"], "abort", "abort.before_commit"),
];

#[tokio::test]
async fn a_frozen_process_blocks_the_application_for_seconds_only() {
    for (plan, before, command, at) in FAILPOINTS {
        let lab = lab(plan).await;
        for command in *before {
            lab.ok(command).await;
        }
        let process = lab.frozen(command, at).await;
        // Much longer than the job's idle_in_transaction_session_timeout, much shorter than a minute.
        let application = lab.db.client().await;
        application.batch_execute("set statement_timeout = '25s'").await.unwrap();
        let wrote = application.batch_execute("update t set n = 7 where id = 1").await;
        wrote.unwrap_or_else(|e| panic!("{command} at {at}: {e:?}"));
        send(&process, Signal::CONT);
        ended(process).await.ok();
        assert_eq!(lab.db.count("select count(*) from t where n = 7").await, 1, "{command} at {at}");
    }
}

/// A transaction that reads a view and then writes to its table can deadlock with an exchange that locks the table in
/// between. The exchange gives up before the server checks for deadlocks, even if deadlock_timeout was lowered later.
#[tokio::test]
async fn lowering_deadlock_timeout_later_makes_no_application_a_victim() {
    let lab = lab(&PARTITION.replace("300ms", "700ms")).await;
    lab.db.execute(&deadlock_timeout(3_000)).await;
    lab.ok("run").await;
    for command in ["swap", "rollback"] {
        lab.db.execute(&deadlock_timeout(3_000)).await;
        let exchange = lab.frozen(command, "swap.ready").await;
        lab.db.execute(&deadlock_timeout(100)).await;
        send(&exchange, Signal::CONT);
        let mut writers = tokio::task::JoinSet::new();
        for n in 1..=4 {
            let client = lab.db.client().await;
            writers.spawn(async move {
                let sql = format!(
                    "begin; select count(*) from v; select pg_sleep(0.03); update t set n = n + 1 where id = {n}; commit"
                );
                for _ in 0..50 {
                    let done = client.batch_execute(&sql).await;
                    done.unwrap_or_else(|e| panic!("{:?}", e.as_db_error()));
                }
            });
        }
        writers.join_all().await;
        ended(exchange).await.ok();
    }
    assert_eq!(lab.db.count("select sum(n) from t where id <= 4").await, 2 * 4 * 50);
}

#[tokio::test]
async fn a_synchronous_standby_that_is_gone_blocks_no_reader() {
    let server = Version::System.start(&[("wal_level", "logical"), ("wal_keep_size", "256MB")]);
    let mut standby = Some(Standby::of(&server, "sync", 5521).await);
    let lab = lab_on(Database::on(&server).await, PARTITION).await;
    lab.ok("run").await;
    let admin = connect(&server.dsn("postgres")).await;
    admin.batch_execute("alter system set synchronous_standby_names = 'sync'").await.unwrap();
    admin.batch_execute("select pg_reload_conf()").await.unwrap();
    for (command, kind) in [("swap", "p"), ("rollback", "r")] {
        lab.db.until("select count(*) from pg_stat_replication where sync_state = 'sync'", 1).await;
        let exchange = lab.frozen(&format!("{command} --json"), "swap.ready").await;
        drop(standby.take());
        send(&exchange, Signal::CONT);
        let exchanged =
            format!("select count(*) from pg_class where oid = 't'::regclass and relkind = '{kind}'");
        lab.db.until(&exchanged, 1).await;
        let reader = lab.db.client().await;
        reader.batch_execute("set statement_timeout = '20s'; select count(*) from t").await.unwrap();
        let ran = ended(exchange).await.ok();
        assert!(!ran.events("standby_not_confirmed").is_empty(), "{ran:?}");
        standby = Some(Standby::start(&server, "sync", 5521).await);
    }
}

/// Swaps and kills the process before the command removes the guard.
async fn guarded(lab: &Lab) {
    lab.ok("run").await;
    lab.killed("swap", "swap.recorded").await;
}

const GUARDS: &str =
    "select count(*) from pg_trigger where tgname = 'pgstrata_guard' and tgrelid = 't'::regclass";

#[tokio::test]
async fn a_guard_that_stays_is_reported_and_the_next_command_removes_it() {
    for command in ["verify", "sync", "rollback"] {
        let lab = lab(PARTITION).await;
        guarded(&lab).await;
        assert_eq!(lab.db.count(GUARDS).await, 1);
        assert_eq!(lab.status().await["guarded"], true);
        lab.ok(command).await;
        assert_eq!(lab.db.count(GUARDS).await, 0, "{command}");
        assert_eq!(lab.status().await["guarded"], false);
    }
}

/// The dump is restored in another cluster, whose transaction IDs are lower.
#[tokio::test]
async fn a_guard_restored_from_a_dump_rejects_no_write() {
    let (from, to) = (Version::System.start(&[]), Version::System.start(&[]));
    let lab = lab_on(Database::on(&from).await, PARTITION).await;
    lab.db
        .execute("do $$ begin for i in 1..5000 loop perform pg_current_xact_id(); commit; end loop; end $$")
        .await;
    guarded(&lab).await;
    let restored = Database::on(&to).await;
    let name = |dsn: &str| dsn.split(' ').find_map(|part| part.strip_prefix("dbname=")).unwrap().to_owned();
    let (source, target) = (name(lab.db.dsn()), name(restored.dsn()));
    let program = |name: &str| to.command(name).get_program().to_str().unwrap().to_owned();
    let copy = format!(
        "{} -h {} -U postgres -p {} {source} | {} -h {} -U postgres -p {} -v ON_ERROR_STOP=1 -q -d {target}",
        program("pg_dump"),
        from.socket_dir().display(),
        from.port(),
        program("psql"),
        to.socket_dir().display(),
        to.port()
    );
    let made = to.command("bash").args(["-o", "pipefail", "-c", &copy]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(restored.count(GUARDS).await, 1);
    let client = restored.client().await;
    for isolation in ["read committed", "repeatable read", "serializable"] {
        let write = format!(
            "begin isolation level {isolation}; insert into t values (-1, '2024-02-02', 1); update t set n = 2 where id = -1;
             delete from t where id = -1; commit"
        );
        client.batch_execute(&write).await.unwrap();
    }
    // The inactive table still rejects writes.
    let refused = client.batch_execute("update t_old set n = 3").await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE));
    // The application_name of pgstrata alone does not permit a write.
    client
        .batch_execute(
            "create role stranger; grant all on t_old to stranger; set session authorization stranger;
             set application_name = 'pgstrata/1/1/control'",
        )
        .await
        .unwrap();
    let refused = client.batch_execute("update t_old set n = 3").await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE));
}
