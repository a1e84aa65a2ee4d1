//! A private server for the benchmark, and its programs. It stops when it is dropped, and when this process dies.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use pgstrata::demo::server::PrivateServer;
use tokio_postgres::types::FromSql;
use tokio_postgres::{Client, NoTls};

/// The database of the benchmark.
const DATABASE: &str = "bench";
/// Large enough to cache all data. Other settings have their defaults: `fsync` and `synchronous_commit` are on.
pub const SHARED_BUFFERS: &str = "2GB";
/// Settings that prevent checkpoints and autovacuum during a measurement.
const SETTINGS: &[(&str, &str)] = &[
    ("max_wal_size", "16GB"),
    ("checkpoint_timeout", "1h"),
    ("autovacuum", "off"),
    ("max_connections", "200"),
    ("timezone", "UTC"),
];
/// The settings in the report.
const REPORTED_SETTINGS: [&str; 8] = [
    "shared_buffers",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "autovacuum",
    "maintenance_work_mem",
    "max_wal_size",
    "max_parallel_maintenance_workers",
];

/// A running server.
#[derive(Debug)]
pub struct Server(PrivateServer);

impl Server {
    /// Starts a server with this `shared_buffers` and an empty database.
    pub async fn start(shared_buffers: &str) -> Result<Self> {
        let shared_buffers = shared_buffers.to_owned();
        let start =
            move || PrivateServer::start(&[SETTINGS, &[("shared_buffers", &shared_buffers)]].concat());
        let server = Self(tokio::task::spawn_blocking(start).await??);
        let client = connect(&server.0.dsn("postgres")).await?;
        client.batch_execute(&format!("create database {DATABASE}")).await?;
        Ok(server)
    }

    /// The connection string of the database.
    pub fn dsn(&self) -> String {
        self.0.dsn(DATABASE)
    }

    /// A new session.
    pub async fn client(&self) -> Result<Client> {
        connect(&self.dsn()).await
    }

    /// Runs statements, each in its own transaction.
    pub async fn execute<S: AsRef<str>>(&self, statements: &[S]) -> Result<()> {
        let client = self.client().await?;
        client.batch_execute("set client_min_messages = error").await?;
        for statement in statements {
            let statement = statement.as_ref();
            client.batch_execute(statement).await.with_context(|| statement.to_owned())?;
        }
        Ok(())
    }

    /// The first column of every row.
    pub async fn column<T: for<'a> FromSql<'a>>(&self, sql: &str) -> Result<Vec<T>> {
        let rows = self.client().await?.query(sql, &[]).await.with_context(|| sql.to_owned())?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The first column of the only row.
    pub async fn value<T: for<'a> FromSql<'a>>(&self, sql: &str) -> Result<T> {
        self.column(sql).await?.pop().with_context(|| format!("no row: {sql}"))
    }

    /// A program of the server that connects to the database, run as the server's user in its directory.
    pub fn program(&self, name: &str) -> tokio::process::Command {
        let mut command = self.0.command(name);
        command
            .env("PGHOST", self.0.socket_dir())
            .env("PGPORT", self.0.port().to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", DATABASE);
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        command
    }

    /// The directory of the server, which its programs can read and write.
    pub fn dir(&self) -> &std::path::Path {
        self.0.socket_dir()
    }

    /// Runs `psql` with a script on its standard input.
    pub async fn psql(&self, script: &str) -> Result<()> {
        let mut file = tempfile::tempfile()?;
        file.write_all(script.as_bytes())?;
        std::io::Seek::rewind(&mut file)?;
        let mut psql = self.program("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        let output = psql.stdin(file).stdout(Stdio::null()).output().await?;
        if !output.status.success() {
            bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// The version, and the settings for the report.
    pub async fn environment(&self) -> Result<(String, Vec<(String, String)>)> {
        let mut settings = Vec::new();
        for name in REPORTED_SETTINGS {
            settings.push((name.to_owned(), self.value(&format!("select current_setting('{name}')")).await?));
        }
        Ok((self.value("select current_setting('server_version')").await?, settings))
    }
}

async fn connect(dsn: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
