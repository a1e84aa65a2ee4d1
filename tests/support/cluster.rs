//! One server of each version for the whole test process, and a separate database for each test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use pgstrata::demo::server::PrivateServer;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::process::{Ran, ended};
use super::wait::{LIMIT, until};

/// The settings of every test server: enough resources for many concurrent tests, and no `fsync`. Commits are still
/// synchronous, because a killed server must keep them; the cache of the operating system is sufficient for that.
pub const SETTINGS: &[(&str, &str)] = &[
    ("max_connections", "300"),
    ("shared_buffers", "256MB"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("max_wal_size", "4GB"),
    ("deadlock_timeout", "400ms"),
];

/// The servers that tests run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The version that is installed on this machine.
    System,
    V14,
    V16,
    V17,
    V18,
}

impl Version {
    /// Whether this version is installed: `tests/setup.sh versions` installs them. A missing one is reported, and fails
    /// the test if all versions are required.
    pub fn is_there(self) -> bool {
        let installed = self == Self::System || self.bin().is_dir();
        if !installed {
            let message = format!("skipped: {self:?} is not in target/servers (tests/setup.sh versions)");
            assert!(std::env::var_os("PGSTRATA_ALL_VERSIONS").is_none(), "{message}");
            // The test harness captures the output of eprintln! and prints it only if the test fails.
            std::io::stderr().write_all(format!("{message}\n").as_bytes()).unwrap();
        }
        installed
    }

    fn bin(self) -> PathBuf {
        let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers");
        servers.join(format!("{self:?}").trim_start_matches('V')).join("bin")
    }

    fn server(self) -> &'static PrivateServer {
        /// Statics are never dropped: the keeper process of a server stops it when this process ends.
        static SERVERS: [OnceLock<PrivateServer>; 5] = [const { OnceLock::new() }; 5];
        SERVERS[self as usize].get_or_init(|| self.start(&[]))
    }

    /// Starts a server for one test, with more settings.
    pub fn start(self, more: &[(&str, &str)]) -> PrivateServer {
        let settings = [SETTINGS, more].concat();
        match self {
            Self::System => PrivateServer::start(&settings).unwrap(),
            // Follow the symbolic link, because the server's user may have no access to the project's directory.
            _ => PrivateServer::start_from(self.bin().canonicalize().unwrap(), &settings).unwrap(),
        }
    }
}

/// Defines a test for each version that calls `async fn name(version: Version)`: `system::name`, `v14::name` and so on.
macro_rules! on_every_version {
    ($($name:ident),* $(,)?) => {
        $crate::support::cluster::on_version!(system System $($name)*);
        $crate::support::cluster::on_other_versions!($($name),*);
    };
}
pub(crate) use on_every_version;

/// The same without the system's version, for which a separate test exists.
macro_rules! on_other_versions {
    ($($name:ident),* $(,)?) => {
        $crate::support::cluster::on_version!(v14 V14 $($name)*);
        $crate::support::cluster::on_version!(v16 V16 $($name)*);
        $crate::support::cluster::on_version!(v17 V17 $($name)*);
        $crate::support::cluster::on_version!(v18 V18 $($name)*);
    };
}
pub(crate) use on_other_versions;

/// The same for the oldest and the newest version only, for long tests under load. Other tests cover the differences in
/// SQL and catalogs on all versions.
macro_rules! on_oldest_and_newest {
    ($($name:ident),* $(,)?) => {
        $crate::support::cluster::on_version!(oldest V14 $($name)*);
        $crate::support::cluster::on_version!(newest V18 $($name)*);
    };
}
pub(crate) use on_oldest_and_newest;

macro_rules! on_version {
    ($module:ident $version:ident $($name:ident)*) => {
        mod $module {
            use $crate::support::cluster::Version;
            $(
                #[tokio::test]
                async fn $name() {
                    if Version::$version.is_there() {
                        super::$name(Version::$version).await;
                    }
                }
            )*
        }
    };
}
pub(crate) use on_version;

/// A separate database, with a directory for its plans.
#[derive(Debug)]
pub struct Database {
    socket_dir: PathBuf,
    dsn: String,
    plans: TempDir,
}

impl Database {
    /// Creates a database on the shared server of the system's version.
    pub async fn new() -> Self {
        Self::of(Version::System).await
    }

    /// Creates a database on the shared server of this version.
    pub async fn of(version: Version) -> Self {
        let server = tokio::task::spawn_blocking(move || version.server()).await.unwrap();
        Self::on(server).await
    }

    /// Creates a database on a private server, which the test may stop.
    pub async fn on(server: &PrivateServer) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", LAST.fetch_add(1, Ordering::Relaxed));
        let admin = connect(&server.dsn("postgres")).await;
        admin.batch_execute(&format!("create database {name}")).await.unwrap();
        let socket_dir = server.socket_dir().to_owned();
        Self { socket_dir, dsn: server.dsn(&name), plans: tempfile::tempdir().unwrap() }
    }

    /// The connection string of the superuser, or of the role set with [`Database::log_in_as`].
    pub fn dsn(&self) -> &str {
        &self.dsn
    }

    /// Uses this role for all connections from now on.
    pub fn log_in_as(&mut self, role: &str) {
        self.dsn = self.dsn_of(role);
    }

    /// The name of the database.
    pub fn name(&self) -> &str {
        self.dsn.rsplit_once("dbname=").unwrap().1
    }

    /// The socket directory of its server.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// A new session; it ends when the client is dropped.
    pub async fn client(&self) -> Client {
        connect(&self.dsn).await
    }

    /// A new session of another role, which must have LOGIN.
    pub async fn connect_as(&self, role: &str) -> Client {
        connect(&self.dsn_of(role)).await
    }

    /// The connection string of another role.
    pub fn dsn_of(&self, role: &str) -> String {
        self.dsn.replace("user=postgres", &format!("user={role}"))
    }

    /// A session of the superuser after `set role`.
    pub async fn as_role(&self, role: &str) -> Client {
        let client = self.client().await;
        client.batch_execute(&format!("set role {role}")).await.unwrap();
        client
    }

    /// Runs statements, as the superuser.
    pub async fn execute(&self, sql: &str) {
        self.client().await.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// The first column of the only row.
    pub async fn count(&self, sql: &str) -> i64 {
        self.client().await.query_one(sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
    }

    /// Waits until the count is `wanted`.
    pub async fn until(&self, sql: &str, wanted: i64) {
        let client = self.client().await;
        let reached = async || client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == wanted;
        until(&format!("{wanted} of {sql}"), reached).await;
    }

    /// Writes a plan to a file.
    pub fn plan(&self, text: &str) -> PathBuf {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let path = self.plans.path().join(format!("{}.toml", LAST.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs the binary on this database until it exits.
    pub async fn pgstrata(&self, args: &[&str]) -> Ran {
        self.pgstrata_with(args, &[]).await
    }

    /// The same with additional environment variables, such as `PGSTRATA_FAILPOINT` or the `DATABASE_URL` of a proxy.
    pub async fn pgstrata_with(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        ended(self.command(args).envs(env.iter().copied()).spawn().unwrap()).await
    }

    /// A command that is not started yet, for a test that kills it; the process is killed when dropped.
    pub fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pgstrata"));
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command.args(args).env("DATABASE_URL", &self.dsn).stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// A session that ends when the client is dropped. A statement that runs too long fails.
pub async fn connect(dsn: &str) -> Client {
    let dsn = format!("{dsn} options='-c statement_timeout={}s'", LIMIT.as_secs());
    let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await.unwrap_or_else(|e| panic!("{e:?}"));
    tokio::spawn(connection);
    client
}

on_other_versions!(a_server_is_of_its_version);

async fn a_server_is_of_its_version(version: Version) {
    let major = "select current_setting('server_version_num')::bigint / 10000";
    assert_eq!(format!("V{}", Database::of(version).await.count(major).await), format!("{version:?}"));
}

#[tokio::test]
async fn databases_are_separate() {
    let (first, second) = (Database::new().await, Database::new().await);
    first.execute("create table t (id int)").await;
    assert_eq!(second.count("select count(*) from pg_class where relname = 't'").await, 0);
    assert_eq!(std::fs::read_to_string(first.plan("table = 't'")).unwrap(), "table = 't'");
}

#[tokio::test]
async fn a_private_server_can_be_killed_and_restarted() {
    let server = PrivateServer::start(SETTINGS).unwrap();
    let db = Database::on(&server).await;
    db.execute("create table t (id int)").await;
    server.stop_immediate().unwrap();
    assert!(tokio_postgres::connect(db.dsn(), NoTls).await.is_err());
    server.start_again().unwrap();
    assert_eq!(db.count("select count(*) from t").await, 0);
}

#[tokio::test]
async fn the_real_binary_runs() {
    let ran = Database::new().await.pgstrata(&["--help"]).await.ok();
    assert_eq!(ran.stderr, "", "{}", ran.stdout);
}
