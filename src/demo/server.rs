//! A private PostgreSQL server in a temporary directory, for `pgstrata demo` and for tests.
//!
//! Invariant: the server and its directory are removed when the process that started it ends, in whatever way. A shell,
//! the keeper, reads from a pipe whose write end only this process holds. When the pipe closes (drop, exit, panic,
//! SIGKILL), the keeper stops the server and removes the directory. The keeper and the server's programs run in
//! separate process groups, so that Ctrl-C in a terminal does not reach them.
//!
//! The server listens only on a Unix socket, in a directory that only its owner can enter; therefore it can use trust
//! authentication. It never runs as root: if the process is root, its programs run as an unprivileged user.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::error::{Error, Result};

/// The oldest supported major version.
const OLDEST_MAJOR: u32 = 14;

/// The time limit for starting or stopping the server, in seconds.
const LIMIT_S: &str = "60";

/// The port number of the socket. It cannot conflict, because no other server uses the directory.
const PORT: u16 = 5432;

/// The keeper's script: it waits for one word, or for the end of the pipe. The word `keep` leaves the server running.
const KEEPER: &str = r#"
read -r word
[ "$word" = keep ] && exit 0
"$1" -D "$2/data" -w -t 10 -m immediate stop
rm -rf "$2"
"#;

/// The user as which the server runs if the process is root.
#[derive(Debug, Clone, Copy)]
struct Unprivileged {
    uid: u32,
    gid: u32,
}

/// A running server with its directory. Dropping it stops the server and removes the directory.
#[derive(Debug)]
pub struct PrivateServer {
    dir: PathBuf,
    bin: PathBuf,
    user: Option<Unprivileged>,
    keeper: Child,
}

impl PrivateServer {
    /// Creates and starts a server with these settings, and waits until it accepts connections.
    ///
    /// # Errors
    /// PostgreSQL 14 or later is not installed, or does not start within a minute.
    pub fn start(settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_from(find_bin()?, settings)
    }

    /// Like [`Self::start`], with the programs in the directory `bin`, which the server's user must be able to enter.
    ///
    /// # Errors
    /// The server does not start within a minute.
    pub fn start_from(bin: PathBuf, settings: &[(&str, &str)]) -> Result<Self> {
        let user = unprivileged_user()?;
        let dir = make_dir(user)?;
        let mut keeper = command(Path::new("sh"), user, dir.path());
        keeper.args(["-c", KEEPER, "sh"]).arg(bin.join("pg_ctl")).arg(dir.path());
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let keeper = keeper.spawn().map_err(|e| cannot("start a shell", &e))?;
        let server = Self { dir: dir.keep(), bin, user, keeper };
        server.init(settings)?;
        server.start_again()?;
        Ok(server)
    }

    fn init(&self, settings: &[(&str, &str)]) -> Result<()> {
        let mut initdb = self.command("initdb");
        initdb.arg("-D").arg(self.data_dir()).args(["--username=postgres", "--auth=trust"]);
        initdb.args(["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]);
        succeed(&mut initdb, "initdb")?;
        let conf = self.data_dir().join("postgresql.conf");
        let mut conf = fs::OpenOptions::new()
            .append(true)
            .open(&conf)
            .map_err(|e| cannot(&format!("open {}", conf.display()), &e))?;
        let socket_dir = self.dir.display().to_string();
        let port = PORT.to_string();
        let required = [
            ("listen_addresses", ""),
            ("unix_socket_directories", socket_dir.as_str()),
            ("port", port.as_str()),
            ("logging_collector", "off"),
        ];
        for (name, value) in required.iter().chain(settings) {
            writeln!(conf, "{name} = '{}'", value.replace('\'', "''"))
                .map_err(|e| cannot("write postgresql.conf", &e))?;
        }
        Ok(())
    }

    /// Stops the server immediately, like a crash. It can be started again.
    ///
    /// # Errors
    /// The server does not stop within a minute, or is not running.
    pub fn stop_immediate(&self) -> Result<()> {
        let mut stop = self.command("pg_ctl");
        stop.arg("-D").arg(self.data_dir()).args(["-w", "-t", LIMIT_S, "-m", "immediate", "stop"]);
        succeed(&mut stop, "pg_ctl stop").map(drop)
    }

    /// Starts the stopped server, and waits until it has recovered and accepts connections.
    ///
    /// # Errors
    /// The server does not accept connections within a minute, or is already running.
    pub fn start_again(&self) -> Result<()> {
        let mut start = self.command("pg_ctl");
        start.arg("-D").arg(self.data_dir()).arg("-l").arg(self.log_path());
        start.args(["-w", "-t", LIMIT_S, "start"]);
        succeed(&mut start, "pg_ctl start").map(drop).map_err(|e| e.cause(self.log_tail(5).join(" | ")))
    }

    /// A command for one of the server's programs (`pg_basebackup`, `pgbench`), or for a program in the path if the
    /// server has none of that name. It runs as the server's user, in the server's directory.
    pub fn command(&self, program: &str) -> Command {
        let in_bin = self.bin.join(program);
        let program = if in_bin.is_file() { in_bin } else { PathBuf::from(program) };
        command(&program, self.user, &self.dir)
    }

    /// The directory of the server's socket and of all its other files.
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    /// The port number in the socket's name.
    pub fn port(&self) -> u16 {
        PORT
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The connection string for a database, as the superuser.
    pub fn dsn(&self, dbname: &str) -> String {
        format!("host={} port={PORT} user=postgres dbname={dbname}", self.dir.display())
    }

    /// The `psql` command that connects to a database.
    pub fn connect_hint(&self, dbname: &str) -> String {
        format!("psql -h {} -p {PORT} -U postgres -d {dbname}", self.dir.display())
    }

    /// The command that stops a server that was left running, and removes its directory.
    pub fn stop_hint(&self) -> String {
        let dir = self.dir.display();
        let pid = format!("{dir}/data/postmaster.pid");
        // The server's processes may still write to the directory until the file is gone.
        format!("kill -QUIT $(head -n 1 {pid}) && while [ -e {pid} ]; do sleep 0.1; done && rm -rf {dir}")
    }

    /// The last `n` lines of the server's log.
    pub fn log_tail(&self, n: usize) -> Vec<String> {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(n)..].iter().map(ToString::to_string).collect()
    }

    /// Leaves the server running, and returns its directory.
    ///
    /// # Errors
    /// The keeper does not run any more.
    pub fn keep(mut self) -> Result<PathBuf> {
        if let Some(mut pipe) = self.keeper.stdin.take() {
            pipe.write_all(b"keep\n").map_err(|e| cannot("tell the keeper to keep the server", &e))?;
        }
        Ok(self.dir.clone())
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // The keeper's time limits bound the wait. `drop` cannot report an error.
        let _ = self.keeper.wait();
    }
}

/// Creates a directory that only the server's user can enter. Its path is short, because the path of a socket is
/// limited to about 100 bytes, and the default temporary directory of macOS is too long.
fn make_dir(user: Option<Unprivileged>) -> Result<tempfile::TempDir> {
    let dir = tempfile::Builder::new()
        .prefix("pgstrata-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in("/tmp")
        .map_err(|e| cannot("create a directory in /tmp", &e))?;
    if let Some(Unprivileged { uid, gid }) = user {
        chown(dir.path(), Some(uid), Some(gid))
            .map_err(|e| cannot("change the owner of the directory", &e))?;
    }
    Ok(dir)
}

/// The bin directory of PostgreSQL: from PGSTRATA_PG_BIN, or the first suitable one in the path, or the newest one
/// elsewhere.
fn find_bin() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("PGSTRATA_PG_BIN") {
        let dir = PathBuf::from(dir);
        return match major(&dir) {
            Some(found) if found >= OLDEST_MAJOR => Ok(dir),
            _ => Err(no_server(format!("{} does not contain PostgreSQL 14 or later", dir.display()))),
        };
    }
    let in_path =
        env::var_os("PATH").into_iter().flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    let in_path =
        in_path.filter_map(|dir| Some(fs::canonicalize(dir.join("initdb")).ok()?.parent()?.to_owned()));
    let mut elsewhere = Vec::new();
    for (root, prefix) in
        [("/usr/lib/postgresql", ""), ("/opt/homebrew/opt", "postgresql@"), ("/usr/local/opt", "postgresql@")]
    {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                elsewhere.push(entry.path().join("bin"));
            }
        }
    }
    elsewhere.sort_by_key(|dir| std::cmp::Reverse(major(dir)));
    in_path
        .chain(elsewhere)
        .find(|dir| major(dir).is_some_and(|found| found >= OLDEST_MAJOR))
        .ok_or_else(|| no_server("PostgreSQL 14 or later is not installed".to_owned()))
}

fn no_server(fact: String) -> Error {
    Error::failed(fact).hint(
        "install it (apt-get install postgresql, or brew install postgresql@17), or set PGSTRATA_PG_BIN to the \
         directory of its initdb",
    )
}

/// The major version of the server in this bin directory; none if required programs are missing.
fn major(dir: &Path) -> Option<u32> {
    if !dir.join("initdb").is_file() || !dir.join("pg_ctl").is_file() {
        return None;
    }
    let output = Command::new(dir.join("postgres")).arg("--version").output().ok()?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

/// Reads `postgres (PostgreSQL) 17.2 (Debian ...)` or `postgres (PostgreSQL) 18beta1`.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_whitespace().nth(2)?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

/// The user as which the server runs; none, for the current user, unless that is root.
fn unprivileged_user() -> Result<Option<Unprivileged>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let user = ["postgres", "nobody"].iter().find_map(|name| {
        let id = |which: &str| {
            let output = Command::new("id").args([which, name]).output().ok()?;
            String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().ok()
        };
        Some(Unprivileged { uid: id("-u")?, gid: id("-g")? }).filter(|user| user.uid != 0)
    });
    user.map(Some).ok_or_else(|| {
        Error::failed(
            "a PostgreSQL server cannot run as root, and neither user postgres nor user nobody \
            exists",
        )
        .hint("run the demo as another user")
    })
}

/// A command that runs as the server's user, in a directory that it can enter, without the PG* variables of this
/// process, in a separate process group.
fn command(program: &Path, user: Option<Unprivileged>, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).stdin(Stdio::null()).process_group(0);
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    if let Some(Unprivileged { uid, gid }) = user {
        // Setting the user as root also drops the supplementary groups.
        command.uid(uid).gid(gid).env("HOME", OsStr::new(dir));
    }
    command
}

fn succeed(command: &mut Command, name: &str) -> Result<Output> {
    let output = command.output().map_err(|e| cannot(&format!("start {name}"), &e))?;
    if output.status.success() {
        return Ok(output);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " | ");
    Err(Error::failed(format!("{name} ended with {}", output.status)).cause(stderr))
}

fn cannot(what: &str, cause: &std::io::Error) -> Error {
    Error::failed(format!("cannot {what}")).cause(cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("mysqld"), None);
    }

    #[test]
    fn a_server_starts_recovers_after_a_crash_and_is_removed() {
        let server = PrivateServer::start(&[("fsync", "off"), ("application_name", "it's")]).unwrap();
        let dir = server.socket_dir().to_owned();
        assert!(dir.join(format!(".s.PGSQL.{}", server.port())).exists());
        server.stop_immediate().unwrap();
        server.start_again().unwrap();
        assert!(server.log_tail(50).iter().any(|line| line.contains("automatic recovery")));
        let twice = server.start_again().unwrap_err().to_string();
        assert!(twice.contains("pg_ctl start ended with"), "{twice}");
        drop(server);
        assert!(!dir.exists());
    }

    #[test]
    fn an_error_names_an_invalid_setting() {
        let error = PrivateServer::start(&[("no_such_setting", "1")]).unwrap_err();
        assert!(error.to_string().contains("no_such_setting"), "{error}");
    }

    #[test]
    fn a_kept_server_runs_until_its_stop_command() {
        let server = PrivateServer::start(&[("fsync", "off")]).unwrap();
        let (stop, connect) = (server.stop_hint(), server.connect_hint("postgres"));
        let dir = server.keep().unwrap();
        let answer =
            Command::new("sh").args(["-c", &format!("{connect} -Atc 'select 41 + 1'")]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "42");
        assert!(Command::new("sh").args(["-c", &stop]).status().unwrap().success());
        assert!(!dir.exists());
    }
}
