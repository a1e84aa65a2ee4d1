//! Statements that wait for the lock of a swap: each takes effect on the table in use, however it is sent, and nothing
//! is lost.

use futures_util::{SinkExt, TryStreamExt};
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Statement};

use crate::support::bench::DEADLOCK_TIMEOUT;
use crate::support::cluster::{Database, Version, on_every_version};
use crate::support::lab::Lab;
use crate::support::oracle;
use crate::support::process::{ended, send};
use crate::support::wait::{until, within};

on_every_version!(statements_that_wait_for_the_lock_run_on_the_table_in_use);

/// Each kind of statement adds 1 to the sum of `n` over its rows: it updates a row, inserts a row, or deletes a row in which `n` is
/// -1.
const SETUP: &str = "
    create table kinds (kind int primary key);
    insert into kinds select generate_series(1, 60);
    create table t (id bigint, at timestamptz not null, kind int not null references kinds, n int not null, primary key (id, at));
    insert into t select kind * 100, '2024-02-03 00:00Z', kind, 0 from generate_series(1, 60) kind;
    insert into t select kind * 100 + i, timestamptz '2024-01-01 00:00Z' + i * interval '9 days', kind, -1
      from generate_series(1, 60) kind, generate_series(1, 30) i;
    create view v as select id, at, kind, n from t;
    create view nested as select * from v where n > -1;
    create table inbox (id bigint, at timestamptz, kind int);
    create rule into_t as on insert to inbox do instead insert into t values (new.id, new.at, new.kind, 1);
    create function in_plpgsql(k bigint) returns void language plpgsql as
      'begin update t set n = n + 1 where id = k; end';
    create function in_dynamic(k bigint) returns void language plpgsql as
      $$begin execute 'update t set n = n + 1 where id = $1' using k; end$$;
    create function in_string(k bigint) returns void language sql as 'update t set n = n + 1 where id = k';
    create function in_body(k bigint) returns void language sql begin atomic update t set n = n + 1 where id = k; end;
    create table events (id bigint);
    create function on_event() returns trigger language plpgsql as
      'begin update t set n = n + 1 where id = new.id; return new; end';
    create trigger on_event after insert on events for each row execute function on_event();
    analyze t";

const PLAN: &str = "name = 'job'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\nto = '2025-02-01'\n\
    [swap]\nlock_timeout = '10s'\nattempts = 1\n";

const UPDATE: &str = "update t set n = n + 1 where id = $1";

/// Sessions of the job that have locked the table and wait for one more lock.
const LOCKED: &str = "select count(*) from pg_stat_activity a join pg_locks l using (pid)
    where a.datname = current_database() and a.application_name like 'pgstrata/%' and a.wait_event_type = 'Lock'
      and l.relation = 't'::regclass and l.mode = 'AccessExclusiveLock' and l.granted";

/// How a statement reaches the server.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Simple protocol, statement by statement. `{row}` is the row of the kind, `{kind}` its number, `{new}` a new id,
    /// and `{gone}` a row to delete.
    Simple(&'static [&'static str]),
    /// The same, but the statement may fail with a serialization failure and is retried then, because its snapshot, or
    /// the body of a function, is older than its lock.
    Retried(&'static [&'static str]),
    /// Extended protocol with an unnamed statement; `$1` is the row.
    Unnamed(&'static str),
    /// A prepared statement, which is executed so many times before it has to wait; `$1` is the row.
    Prepared(&'static str, usize),
    /// COPY FROM STDIN.
    CopyIn,
    /// COPY TO STDOUT of the rows that an update returns. It may fail like `Retried`.
    CopyOut,
}

use Way::{Prepared, Retried, Simple, Unnamed};

/// The statement with which a session begins, and its kind of statement.
const KINDS: &[(&str, Way)] = &[
    ("", Simple(&["insert into t values ({new}, '2024-05-05', {kind}, 1)"])),
    ("", Simple(&["update t set n = n + 1 where id = {row}"])),
    (
        "",
        Simple(&[
            "update t set n = n + 1, at = timestamptz '2024-03-03Z' + n * interval '1 month' where id = {row}",
        ]),
    ),
    ("", Simple(&["delete from t where id = {gone} and n = -1"])),
    ("", Simple(&["with u as (update t set n = n + 1 where id = {row} returning n) select n from u"])),
    ("", Unnamed(UPDATE)),
    ("", Prepared(UPDATE, 0)),
    ("", Prepared(UPDATE, 1)),
    ("", Prepared(UPDATE, 7)),
    ("set plan_cache_mode = force_custom_plan", Prepared(UPDATE, 3)),
    ("set plan_cache_mode = force_generic_plan", Prepared(UPDATE, 3)),
    (
        "set plan_cache_mode = force_generic_plan",
        Prepared("update t set n = n + 1 where id = $1 returning at", 2),
    ),
    ("prepare p as update t set n = n + 1 where id = $1", Simple(&["execute p({row})"])),
    (
        "set plan_cache_mode = force_generic_plan; prepare p as insert into t values ($1, '2024-06-06', $2, 1) returning id",
        Simple(&["execute p({new}, {kind})"]),
    ),
    ("", Simple(&["select in_plpgsql({row})"])),
    ("set plan_cache_mode = force_generic_plan", Prepared("select in_plpgsql($1)", 2)),
    ("", Simple(&["select in_dynamic({row})"])),
    ("", Simple(&["select in_string({row})"])),
    ("set plan_cache_mode = force_generic_plan", Prepared("select in_string($1)", 2)),
    ("", Simple(&["do 'begin update t set n = n + 1 where id = {row}; end'"])),
    ("", Simple(&["insert into events values ({row})"])),
    ("", Way::CopyIn),
    (
        "",
        Simple(&[
            "insert into t values ({row}, '2024-02-03Z', {kind}, 1) on conflict (id, at) do update set n = t.n + 1",
        ]),
    ),
    (
        "",
        Simple(&[
            "insert into t values ({row}, '2024-02-03Z', {kind}, 1) on conflict on constraint t_pkey do update set n = t.n + 1",
        ]),
    ),
    (
        "",
        Simple(&[
            "begin",
            "declare c cursor for select * from t where id = {row} for update",
            "fetch c",
            "update t set n = n + 1 where current of c",
            "commit",
        ]),
    ),
    (
        "",
        Simple(&[
            "begin",
            "select * from t where id = {row} for update",
            "update t set n = n + 1 where id = {row}",
            "commit",
        ]),
    ),
    (
        "",
        Simple(&[
            "begin",
            "lock table t in row exclusive mode",
            "update t set n = n + 1 where id = {row}",
            "commit",
        ]),
    ),
    ("", Way::CopyOut),
    (
        "set default_transaction_isolation = 'repeatable read'",
        Retried(&["update t set n = n + 1 where id = {row}"]),
    ),
    ("set default_transaction_isolation = 'serializable'", Retried(&["select in_string({row})"])),
    // Objects that are bound by oid.
    ("", Simple(&["update v set n = n + 1 where id = {row}"])),
    ("", Simple(&["update nested set n = n + 1 where id = {row}"])),
    ("", Simple(&["insert into v values ({new}, '2024-05-05', {kind}, 1)"])),
    ("set plan_cache_mode = force_generic_plan", Prepared("update nested set n = n + 1 where id = $1", 2)),
    ("", Simple(&["insert into inbox values ({new}, '2024-05-05', {kind})"])),
    (
        "set plan_cache_mode = force_generic_plan; prepare p as insert into inbox values ($1, '2024-06-06', $2)",
        Simple(&["execute p({new}, {kind})"]),
    ),
    // Functions are not locked: a call that waits has already read the body that the swap replaces.
    ("", Retried(&["select in_body({row})"])),
    (
        "set plan_cache_mode = force_generic_plan; prepare p as select in_body($1)",
        Retried(&["execute p({row})"]),
    ),
];

/// The same for statements that exist since version 15.
const SINCE_15: &[(&str, Way)] = &[
    (
        "",
        Simple(&[
            "merge into t using (values ({row}::bigint)) s (id) on t.id = s.id when matched then update set n = t.n + 1",
        ]),
    ),
    (
        "set plan_cache_mode = force_generic_plan",
        Prepared(
            "merge into t using (select $1::bigint as id) s on t.id = s.id when matched then update set n = t.n + 1",
            2,
        ),
    ),
];

/// A session of the application with its kind of statement.
struct ApplicationSession {
    client: Client,
    way: Way,
    prepared: Option<Statement>,
    kind: usize,
    calls: i64,
}

impl ApplicationSession {
    async fn new(db: &Database, kind: usize, (begin, way): (&'static str, Way)) -> Self {
        let client = db.client().await;
        client.batch_execute("set application_name = 'application'").await.unwrap();
        client.batch_execute(begin).await.unwrap();
        let (prepared, warm) = match way {
            Prepared(sql, calls) => (Some(client.prepare_typed(sql, &[Type::INT8]).await.unwrap()), calls),
            Simple(_) | Retried(_) => (None, 2),
            _ => (None, 0),
        };
        let mut session = Self { client, way, prepared, kind, calls: 0 };
        for _ in 0..warm {
            session.call().await;
        }
        session
    }

    /// Runs the statement once.
    async fn call(&mut self) {
        self.calls += 1;
        if let Err(error) = self.try_call().await {
            let is_retried = matches!(self.way, Retried(_) | Way::CopyOut)
                && error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE);
            assert!(is_retried, "{:?}: {error:?}", self.way);
            self.try_call().await.unwrap_or_else(|e| panic!("{:?}: {e:?}", self.way));
        }
    }

    async fn try_call(&self) -> Result<(), tokio_postgres::Error> {
        let row = self.kind as i64 * 100;
        let new = 1_000_000 * self.kind as i64 + self.calls;
        match (self.way, &self.prepared) {
            (Simple(all) | Retried(all), _) => {
                for sql in all {
                    let sql = sql
                        .replace("{row}", &row.to_string())
                        .replace("{gone}", &(row + self.calls).to_string())
                        .replace("{new}", &new.to_string())
                        .replace("{kind}", &self.kind.to_string());
                    self.client.simple_query(&sql).await?;
                }
            }
            (Unnamed(sql), _) => drop(self.client.query_typed(sql, &[(&row, Type::INT8)]).await?),
            (_, Some(statement)) => drop(self.client.query(statement, &[&row]).await?),
            (Way::CopyOut, _) => {
                let sql = format!("copy (update t set n = n + 1 where id = {row} returning n) to stdout");
                self.client.copy_out(&sql).await?.try_collect::<Vec<_>>().await?;
            }
            _ => {
                let sink = self.client.copy_in("copy t from stdin").await?;
                let mut sink = std::pin::pin!(sink);
                let line = format!("{new}\t2024-04-04 00:00Z\t{}\t1\n", self.kind);
                sink.send(std::io::Cursor::new(line.into_bytes())).await?;
                assert_eq!(sink.finish().await?, 1);
            }
        }
        Ok(())
    }
}

/// The sum of `n` of each kind in a table.
async fn sums(lab: &Lab, table: &str) -> Vec<(i32, i64)> {
    let sql = format!("select kind, sum(n) from {table} group by kind order by kind");
    lab.db.client().await.query(&sql, &[]).await.unwrap().iter().map(|r| (r.get(0), r.get(1))).collect()
}

/// Waits until `n` sessions of the application wait for a lock.
async fn waiting(lab: &Lab, n: usize) {
    let sql = "select count(*) from pg_stat_activity
        where datname = current_database() and application_name = 'application' and wait_event_type = 'Lock'";
    let client = lab.db.client().await;
    until(sql, async || client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) >= n as i64).await;
}

/// Runs the command while every session waits for its lock: it holds the lock on the table, and waits for the lock on
/// the table that the foreign key references.
async fn while_all_wait(
    lab: &Lab,
    command: &str,
    sessions: Vec<ApplicationSession>,
) -> Vec<ApplicationSession> {
    let exchange = lab.frozen(command, "swap.ready").await;
    let blocker = lab.db.client().await;
    blocker.batch_execute("begin; lock table kinds in access share mode").await.unwrap();
    send(&exchange, Signal::CONT);
    lab.db.until(LOCKED, 1).await;
    let n = sessions.len();
    let mut calls = JoinSet::new();
    for mut session in sessions {
        calls.spawn(async move {
            session.call().await;
            session
        });
    }
    waiting(lab, n).await;
    blocker.batch_execute("commit").await.unwrap();
    ended(exchange).await.ok();
    within("calls that end", calls.join_all()).await
}

async fn statements_that_wait_for_the_lock_run_on_the_table_in_use(version: Version) {
    let db = Database::of(version).await;
    db.execute(&DEADLOCK_TIMEOUT.replace("3s", "60s")).await;
    db.execute(SETUP).await;
    let lab = Lab::on(db, PLAN);
    lab.ok("run").await;
    let later: &[_] = if version == Version::V14 { &[] } else { SINCE_15 };
    let mut sessions = Vec::new();
    for (number, kind) in (1..).zip(KINDS.iter().chain(later)) {
        sessions.push(ApplicationSession::new(&lab.db, number, *kind).await);
    }
    for (command, other) in [("swap", "t_old"), ("rollback", "t_new"), ("swap", "t_old")] {
        let before = sums(&lab, "t").await;
        sessions = while_all_wait(&lab, command, sessions).await;
        sessions.sort_by_key(|session| session.kind);
        assert_eq!(sums(&lab, other).await, before, "{command}: a write took effect on the inactive table");
        let after = sums(&lab, "t").await;
        for session in &sessions {
            assert_eq!(after[session.kind - 1].1, session.calls - 30, "{command}: {:?}", session.way);
        }
        lab.ok("sync").await;
        oracle::compare(&lab.db, "t", other).await;
    }
}
