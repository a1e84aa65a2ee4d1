//! A private PostgreSQL server in a temporary directory: `pgstrata demo` and every test run on one.
//!
//! Invariant: nothing outlives the process that started it, however that ends. A small shell, the keeper, holds the
//! reading end of a pipe whose writing end is ours alone. When the pipe closes (drop, exit, panic, SIGKILL) it stops
//! the server and removes the directory. It and the server's programs sit in process groups of their own, so that a
//! terminal's Ctrl-C passes them by.
//!
//! The server listens on a Unix socket only, inside a directory that only its owner may enter; that is why it can
//! trust whoever connects. It never runs as root: as root, its programs drop to an unprivileged user.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::error::{Error, Result};

/// The oldest major version the tool works with.
const OLDEST_MAJOR: u32 = 14;

/// How long the server may take to start or to stop.
const LIMIT_S: &str = "60";

/// The socket's number; nothing else is in its directory, so it never clashes.
const PORT: u16 = 5432;

/// Reads one word or the end of the pipe; `keep` leaves the server alone.
const KEEPER: &str = r#"
read -r word
[ "$word" = keep ] && exit 0
"$1" -D "$2/data" -w -t 10 -m immediate stop
rm -rf "$2"
"#;

/// The user that a server started by root runs as.
#[derive(Debug, Clone, Copy)]
struct Unprivileged {
    uid: u32,
    gid: u32,
}

/// A running server with its directory; dropping it stops the one and removes the other.
#[derive(Debug)]
pub struct PrivateServer {
    dir: PathBuf,
    bin: PathBuf,
    user: Option<Unprivileged>,
    keeper: Child,
}

impl PrivateServer {
    /// Makes a server with these settings on top of its defaults, and waits until it answers.
    ///
    /// # Errors
    /// Where PostgreSQL 14 or later is not installed, or does not start within a minute.
    pub fn start(settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_from(find_bin()?, settings)
    }

    /// The same with the programs in the directory `bin`, which the server's user must be able to enter.
    ///
    /// # Errors
    /// Where they do not start within a minute.
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
        let own = [
            ("listen_addresses", ""),
            ("unix_socket_directories", socket_dir.as_str()),
            ("port", port.as_str()),
            ("logging_collector", "off"),
        ];
        for (name, value) in own.iter().chain(settings) {
            writeln!(conf, "{name} = '{}'", value.replace('\'', "''"))
                .map_err(|e| cannot("write postgresql.conf", &e))?;
        }
        Ok(())
    }

    /// Kills the server as a crash would; it can be started again.
    ///
    /// # Errors
    /// Where it does not end within a minute, or is not running.
    pub fn stop_immediate(&self) -> Result<()> {
        let mut stop = self.command("pg_ctl");
        stop.arg("-D").arg(self.data_dir()).args(["-w", "-t", LIMIT_S, "-m", "immediate", "stop"]);
        succeed(&mut stop, "pg_ctl stop").map(drop)
    }

    /// Starts the stopped server, and waits until it has recovered and answers.
    ///
    /// # Errors
    /// Where it does not answer within a minute, or is running already.
    pub fn start_again(&self) -> Result<()> {
        let mut start = self.command("pg_ctl");
        start.arg("-D").arg(self.data_dir()).arg("-l").arg(self.log_path());
        start.args(["-w", "-t", LIMIT_S, "start"]);
        succeed(&mut start, "pg_ctl start").map(drop).map_err(|e| e.cause(self.log_tail(5).join(" | ")))
    }

    /// A command for one of the server's programs (`pg_basebackup`, `pgbench`), or another in the path where the
    /// server has none of that name. It runs as the server's user, in its directory.
    pub fn command(&self, program: &str) -> Command {
        let own = self.bin.join(program);
        let program = if own.is_file() { own } else { PathBuf::from(program) };
        command(&program, self.user, &self.dir)
    }

    /// The directory of its socket, and of everything else it has.
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    /// The number in the socket's name.
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

    /// How to reach a database of it, as its superuser.
    pub fn dsn(&self, dbname: &str) -> String {
        format!("host={} port={PORT} user=postgres dbname={dbname}", self.dir.display())
    }

    /// The `psql` command that connects to a database of it.
    pub fn connect_hint(&self, dbname: &str) -> String {
        format!("psql -h {} -p {PORT} -U postgres -d {dbname}", self.dir.display())
    }

    /// The command that ends a kept server.
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

    /// Leaves the server up for good and says where it is.
    ///
    /// # Errors
    /// Where the keeper is gone, and nobody would have stopped it anyway.
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
        // Its own limits bound the wait; there is nobody to tell about a failure.
        let _ = self.keeper.wait();
    }
}

/// A directory for the server's user alone. Its path is short, because a socket's path must stay below some 100
/// bytes, which macOS's own temporary directory would use up.
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

/// The bin directory of the first suitable installation: the one asked for, the one in the path, the newest elsewhere.
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

/// The major version of the server in this bin directory, where it is whole.
fn major(dir: &Path) -> Option<u32> {
    if !dir.join("initdb").is_file() || !dir.join("pg_ctl").is_file() {
        return None;
    }
    let output = Command::new(dir.join("postgres")).arg("--version").output().ok()?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

/// `postgres (PostgreSQL) 17.2 (Debian ...)`, `postgres (PostgreSQL) 18beta1`.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_whitespace().nth(2)?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

/// Whom to run as: nobody else, unless we are root.
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

/// A command as the server's user, in a directory it may enter, blind to the PG* variables of ours, in a process group
/// of its own.
fn command(program: &Path, user: Option<Unprivileged>, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).stdin(Stdio::null()).process_group(0);
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    if let Some(Unprivileged { uid, gid }) = user {
        // Setting the user as root also gives up the supplementary groups.
        command.uid(uid).gid(gid).env("HOME", OsStr::new(dir));
    }
    command
}

fn succeed(command: &mut Command, name: &str) -> Result<Output> {
    let output = command.output().map_err(|e| cannot(&format!("start {name}"), &e))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " | ");
    Err(Error::failed(format!("{name} ended with {}", output.status)).cause(said))
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
    fn a_server_starts_comes_back_after_a_crash_and_leaves_nothing() {
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
    fn a_wrong_setting_is_named_and_nothing_is_left() {
        let error = PrivateServer::start(&[("no_such_setting", "1")]).unwrap_err();
        assert!(error.to_string().contains("no_such_setting"), "{error}");
    }

    #[test]
    fn a_kept_server_stays_until_it_is_stopped_as_said() {
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
