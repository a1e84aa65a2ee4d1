//! A job through PgBouncer: in transaction mode, session locks do not work, so the job must not start; in session mode,
//! everything works.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};

use pgstrata::demo::server::PrivateServer;
use tokio_postgres::NoTls;

use crate::support::cluster::{Database, SETTINGS};
use crate::support::wait::until;

const PORT: u16 = 6432;
const PLAN: &str = "table = 't'\n[partition]\nby = 'at'\nevery = '3 months'\n";
/// Stops PgBouncer when the standard input closes, that is when this process ends for any reason.
const KEEPER: &str = "exec 3<&0; \"$1\" -q \"$2\" </dev/null & read -r _ <&3; kill -TERM $!; wait $!";

/// PgBouncer in front of a server; its socket is in the server's socket directory.
struct Pooler {
    dir: String,
    keeper: Child,
}

impl Pooler {
    async fn start(server: &PrivateServer, mode: &str) -> Self {
        let dir = server.socket_dir().display().to_string();
        let ini = server.socket_dir().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={dir} port={} user=postgres\n[pgbouncer]\nlisten_port = {PORT}\nunix_socket_dir = {dir}\n\
             auth_type = any\npool_mode = {mode}\nlogfile = {dir}/pgbouncer.log\n",
            server.port()
        );
        std::fs::write(&ini, text).unwrap();
        std::fs::set_permissions(&ini, std::fs::Permissions::from_mode(0o644)).unwrap();
        let installed = ["/usr/sbin/pgbouncer", "/opt/homebrew/bin/pgbouncer"];
        let program = installed.into_iter().find(|p| Path::new(p).exists()).unwrap_or("pgbouncer");
        let mut keeper = server.command("sh");
        keeper.args(["-c", KEEPER, "sh", program]).arg(&ini).stdin(Stdio::piped());
        let mut pooler = Self { dir, keeper: keeper.spawn().unwrap() };
        until("a pooler that answers", async || {
            assert_eq!(pooler.keeper.try_wait().unwrap(), None);
            tokio_postgres::connect(&pooler.dsn("postgres"), NoTls).await.is_ok()
        })
        .await;
        pooler
    }

    fn dsn(&self, dbname: &str) -> String {
        format!("host={} port={PORT} user=postgres dbname={dbname}", self.dir)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// A server, a pooler in front of it, and a database with a table.
async fn pooled(mode: &str) -> (PrivateServer, Pooler, Database) {
    let server = tokio::task::spawn_blocking(|| PrivateServer::start(SETTINGS).unwrap()).await.unwrap();
    let pooler = Pooler::start(&server, mode).await;
    let db = Database::on(&server).await;
    db.execute(
        "create table t (id bigint primary key, at timestamptz not null);
         insert into t select i, timestamptz '2024-01-15 00:00Z' + i * interval '6 hours' from generate_series(1, 2000) i",
    )
    .await;
    (server, pooler, db)
}

#[tokio::test]
async fn a_pool_in_transaction_mode_is_refused() {
    let (_server, pooler, db) = pooled("transaction").await;
    let name = db.dsn().rsplit_once('=').unwrap().1;
    let dsn = pooler.dsn(name);
    let plan = db.plan(PLAN);
    for command in ["check", "run"] {
        let args = [command, plan.to_str().unwrap()];
        let ran = db.pgstrata_with(&args, &[("DATABASE_URL", &dsn)]).await.exits(3);
        assert_eq!(ran.stdout, "");
        let output = ran.stderr.replace(&pooler.dir, "DIR").replace(name, "DATABASE");
        insta::allow_duplicates!(insta::assert_snapshot!(output, @"
        error: DIR:6432/DATABASE as postgres is a connection pooler in transaction mode
        cause: two statements of one connection run in different server processes, so the job cannot rely on session locks and settings, which ensure that only one process runs it
        hint: connect to the server directly, or to a pooler in session mode
        "));
    }
    assert_eq!(db.count("select count(to_regnamespace('pgstrata'))").await, 0);
}

#[tokio::test]
async fn a_whole_job_runs_through_a_pool_in_session_mode() {
    let (_server, pooler, db) = pooled("session").await;
    let dsn = pooler.dsn(db.dsn().rsplit_once('=').unwrap().1);
    let plan = db.plan(PLAN);
    let plan = plan.to_str().unwrap();
    for args in [
        &["check", plan][..],
        &["run", plan],
        &["swap", "t"],
        &["sync", "t"],
        &["rollback", "t"],
        &["verify", "t"],
    ] {
        db.pgstrata_with(args, &[("DATABASE_URL", &dsn)]).await.ok();
    }
    for args in [&["swap", "t"][..], &["finalize", "t", "--now"], &["status", "t"]] {
        db.pgstrata_with(args, &[("DATABASE_URL", &dsn)]).await.ok();
    }
    assert_eq!(db.count("select count(*) from t").await, 2000);
    assert_eq!(
        db.count("select count(*) from pg_partitioned_table where partrelid = 't'::regclass").await,
        1
    );
}
