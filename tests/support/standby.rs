//! Streaming standbys of a private server, created with `pg_basebackup` in a subdirectory of the server's directory.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use pgstrata::demo::server::PrivateServer;
use tokio_postgres::Client;

use super::cluster::{Database, connect};
use super::wait::until;

/// Runs the server command until standard input closes, so that the standby stops when its test ends for any reason.
const KEEPER: &str = r#"
log=$1; shift
"$@" >"$log" 2>&1 &
server=$!
read -r _
kill -QUIT $server
wait $server
"#;

/// A standby, which stops immediately when it is dropped.
#[derive(Debug)]
pub struct Standby {
    socket_dir: PathBuf,
    port: u16,
    keeper: Child,
}

impl Standby {
    /// Creates a standby named `name` of `primary`, on this port, and waits until it streams.
    pub async fn of(primary: &PrivateServer, name: &str, port: u16) -> Self {
        let data = primary.socket_dir().join(name);
        let mut backup = primary.command("pg_basebackup");
        backup.arg("-h").arg(primary.socket_dir()).args([
            "-p",
            &primary.port().to_string(),
            "-U",
            "postgres",
        ]);
        backup.arg("-D").arg(&data).args(["-R", "-X", "stream", "-c", "fast", "--no-sync"]);
        let made = backup.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self::start(primary, name, port).await
    }

    /// Starts an existing standby.
    pub async fn start(primary: &PrivateServer, name: &str, port: u16) -> Self {
        let data = primary.socket_dir().join(name);
        let mut server = vec![primary.command("postgres").get_program().to_owned()];
        let options = [format!("port={port}"), format!("cluster_name={name}"), "hot_standby=on".to_owned()];
        server.extend(["-D".into(), data.into()]);
        server.extend(options.iter().flat_map(|option| ["-c".into(), option.into()]));
        Self::run(primary, name, port, &server, &[]).await
    }

    /// Runs a command that starts a standby named `name` on this port, and waits until it streams.
    pub async fn run(
        primary: &PrivateServer,
        name: &str,
        port: u16,
        server: &[OsString],
        env: &[(String, String)],
    ) -> Self {
        let log = primary.socket_dir().join(name).with_extension("log");
        let mut keeper: Command = primary.command("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(&log).args(server).envs(env.iter().cloned());
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let standby =
            Self { socket_dir: primary.socket_dir().to_owned(), port, keeper: keeper.spawn().unwrap() };
        let streams = format!(
            "select count(*) from pg_stat_replication where application_name = '{name}' and state = 'streaming'"
        );
        let client = connect(&primary.dsn("postgres")).await;
        until(&format!("the standby streams; its log is {}", log.display()), async || {
            client.query_one(&streams, &[]).await.unwrap().get::<_, i64>(0) == 1
        })
        .await;
        standby
    }

    /// The connection string without a database.
    pub fn listed(&self) -> String {
        format!("host={} port={}", self.socket_dir.display(), self.port)
    }

    /// A session of the superuser.
    pub async fn client(&self) -> Client {
        connect(&self.dsn_of("postgres")).await
    }

    /// The connection string of the superuser for a database.
    pub fn dsn_of(&self, dbname: &str) -> String {
        format!("{} user=postgres dbname={dbname}", self.listed())
    }

    /// Waits until the standby has replayed everything that was committed in a database of its primary.
    pub async fn has(&self, db: &Database) {
        let wal = "select pg_current_wal_lsn()::text";
        let wal: String = db.client().await.query_one(wal, &[]).await.unwrap().get(0);
        let replayed = format!("select pg_last_wal_replay_lsn() >= '{wal}'");
        let client = self.client().await;
        until(&replayed, async || client.query_one(&replayed, &[]).await.unwrap().get(0)).await;
    }

    /// Resumes or pauses the replay.
    pub async fn replays(&self, yes: bool) {
        let sql = if yes { "select pg_wal_replay_resume()" } else { "select pg_wal_replay_pause()" };
        self.client().await.batch_execute(sql).await.unwrap();
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
