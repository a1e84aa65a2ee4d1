//! Behind a pool that lends its connections by the transaction nothing is begun; behind one that lends them by the session
//! the job runs.

use std::process::{Child, Stdio};
use std::time::Duration;

use pgstrata::demo::server::PrivateServer;

use super::commands::refusal;
use super::support::cluster::{Database, SETTINGS, connect};

/// A running pgbouncer; it ends when dropped.
struct Pool {
    process: Child,
    dsn: String,
}

impl Drop for Pool {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Pool {
    /// One in front of the server, on a socket in the same directory.
    async fn start(server: &PrivateServer, mode: &str, database: &str) -> Self {
        let dir = server.socket_dir().display();
        let settings = format!(
            "[databases]\n* = host={dir} port={} user=postgres\n[pgbouncer]\nlisten_addr =\nunix_socket_dir = {dir}\n\
             listen_port = 6432\nauth_type = any\npool_mode = {mode}\nlogfile = {dir}/bouncer.log\n",
            server.port()
        );
        let file = server.socket_dir().join("bouncer.ini");
        std::fs::write(&file, settings).unwrap();
        let mut command = server.command("pgbouncer");
        let process = command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let dsn = format!("host={dir} port=6432 user=postgres dbname={database}");
        let pool = Self { process, dsn };
        while !server.socket_dir().join(".s.PGSQL.6432").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        connect(&pool.dsn).await;
        pool
    }
}

/// A server of its own, a table, and a plan for it.
async fn behind(mode: &str) -> (PrivateServer, Pool, Database, String) {
    let server = PrivateServer::start(SETTINGS).unwrap();
    let db = Database::on(&server).await;
    db.execute(
        "create table events (id bigint primary key, at date not null);
         insert into events select i, date '2024-01-01' + i::int % 100 from generate_series(1, 3000) i; analyze events",
    )
    .await;
    let name: String =
        db.client().await.query_one("select current_database()::text", &[]).await.unwrap().get(0);
    let pool = Pool::start(&server, mode, &name).await;
    let plan = "table = 'events'\n[partition]\nby = 'at'\nevery = 'month'\nto = '2024-06-01'\n[swap]\nlock_timeout = '100ms'\n";
    let plan = db.plan(plan).display().to_string();
    (server, pool, db, plan)
}

#[tokio::test]
async fn a_transaction_pool_is_refused_and_nothing_is_changed() {
    let (_server, pool, db, plan) = behind("transaction").await;
    let through = [("DATABASE_URL", pool.dsn.as_str())];
    let refused =
        |ran| refusal(&ran).replace(&pool.dsn["host=".len()..pool.dsn.find(" port").unwrap()], "DIR");
    insta::assert_snapshot!(refused(db.pgstrata_with(&["run", &plan], &through).await), @"
    exit 3
    error: a transaction-pooling proxy is at DIR:#/test_# as postgres
    cause: two statements of one connection reach different server processes, so session locks and settings, which keep a job to one driver, do not hold
    hint: connect to the server itself, or to a pool in session mode
    ");
    for command in ["check", "sql"] {
        db.pgstrata_with(&[command, &plan], &through).await.exits(3);
    }
    db.pgstrata_with(&["status"], &through).await.exits(3);
    assert_eq!(db.count("select count(*) from pg_namespace where nspname = 'pgstrata'").await, 0);
}

#[tokio::test]
async fn through_a_session_pool_the_whole_job_runs() {
    let (_server, pool, db, plan) = behind("session").await;
    let through = [("DATABASE_URL", pool.dsn.as_str())];
    for command in [
        vec!["check", &plan],
        vec!["run", &plan],
        vec!["swap", "events"],
        vec!["rollback", "events"],
        vec!["swap", "events"],
        vec!["finalize", "events", "--now"],
    ] {
        db.pgstrata_with(&command, &through).await.ok();
    }
    assert_eq!(db.count("select count(*) from events").await, 3_000);
}
