//! Sessions: where the server is, how to authenticate, and the settings that every session of pgstrata has.
//!
//! A [`Target`] is where to connect. A [`Session`] is a connection with fixed settings, whatever the settings of the
//! role or the database, so that text that is sent and text that is read back have the same meaning everywhere. No
//! `Debug` output or message contains a secret.
//!
//! Before a session is used, a check excludes a transaction-pooling proxy: settings sent through such a proxy would
//! stay on a server connection that an application gets next.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Notify, OnceCell},
    time::timeout,
};
use tokio_postgres::{AsyncMessage, Client, Config, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    connect_config::{self, Host},
    connect_error::{explain, is_about_encryption},
    passfile::{self, Login},
    pooler,
    settings::{self, Keywords, Lookup},
    tls::{self, Mode},
};
use crate::error::{Error, Result, Retry};
use crate::sql::locks;

/// The maximum length of an `application_name`, in bytes.
const NAME_MAX_BYTES: usize = 63;

/// The time limit for connecting to one server, unless `connect_timeout` sets another.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Sent in one message immediately after connecting.
///
/// - `search_path`: only the system's own functions and operators are found by an unqualified name, so that no role
///   can create objects that take precedence (CVE-2018-1058), and names in definitions are returned with their
///   schema.
/// - `timezone`, `datestyle`, `intervalstyle`, `extra_float_digits`, `bytea_output`, `xmloption`: a value that is
///   read as text is the same value when it is sent back, and rows have the same hash in every session.
/// - `standard_conforming_strings`: backslashes in our literals have no special meaning.
/// - `row_security = off`: a policy that would hide rows causes an error instead of missing rows in the copy.
/// - `default_tablespace`, `default_table_access_method`: objects without a tablespace or access method of their own
///   are created where their model is, whatever the defaults of the role or the database.
/// - `jit = off`: chunks are short, so compilation costs more than it saves.
/// - `max_parallel_workers_per_gather = 0`: the plan determines the number of workers.
/// - `lock_timeout` ([`locks::ANY_WAIT`]): other sessions wait behind a lock request, so every lock request is short.
/// - `idle_in_transaction_session_timeout`: if the process freezes or loses its connection within a transaction, the
///   server ends the transaction, so that its locks and its snapshot last no longer than this ([`locks::IDLE_MS`]).
/// - `statement_timeout`, `transaction_timeout` (17 and later): an index build may take hours; pgstrata sets limits
///   itself where they are needed.
/// - `idle_session_timeout` (14 and later): a session may be idle while others work, and the lease must not be lost.
/// - `default_transaction_*`: each phase requests what it needs beyond READ COMMITTED.
const SESSION_SETTINGS: &str = "
set search_path = pg_catalog;
set timezone = 'UTC';
set datestyle = 'ISO, YMD';
set intervalstyle = 'postgres';
set extra_float_digits = 1;
set bytea_output = 'hex';
set xmloption = content;
set standard_conforming_strings = on;
set row_security = off;
set default_tablespace = '';
set default_table_access_method = 'heap';
set jit = off;
set max_parallel_workers_per_gather = 0;
set client_min_messages = warning;
set statement_timeout = 0;
set idle_in_transaction_session_timeout = '2s';
set default_transaction_read_only = off;
set default_transaction_isolation = 'read committed';
select set_config('idle_session_timeout', '0', false) where current_setting('server_version_num')::int >= 140000;
select set_config('transaction_timeout', '0', false) where current_setting('server_version_num')::int >= 170000;
";

/// Where to connect, as which role, and how. Clones are cheap and share everything.
#[derive(Clone)]
pub struct Target(Arc<Inner>);

struct Inner {
    servers: Vec<Host>,
    /// Everything except host, port, password and encryption.
    config: Config,
    user: String,
    dbname: String,
    application_name: String,
    mode: Mode,
    tls: MakeRustlsConnect,
    limit: Duration,
    not_pooled: OnceCell<()>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.describe())
    }
}

impl Target {
    /// The target from `dsn` (or `DATABASE_URL`), the service file, the `PG*` variables and the password file.
    ///
    /// # Errors
    /// Settings that cannot be read, contradict each other, or are not supported.
    pub fn from_env(dsn: Option<&str>) -> Result<Self> {
        Self::from_lookup(dsn, &|name| std::env::var(name).ok())
    }

    /// The target from `dsn` alone, without the environment.
    ///
    /// # Errors
    /// Settings that cannot be read.
    pub fn from_dsn(dsn: &str) -> Result<Self> {
        Self::from_lookup(Some(dsn), &|_| None)
    }

    /// [`Target::from_env`] with the environment as a function.
    fn from_lookup(dsn: Option<&str>, var: Lookup<'_>) -> Result<Self> {
        let mut settings = settings::gather(dsn, var)?;
        let user = match settings.remove("user") {
            Some(user) => user,
            None => whoami::username().map_err(|e| {
                Error::usage(
                    "no user name was given, and the name of the operating system user could not \
                    be determined",
                )
                .caused_by(e)
                .hint("set PGUSER")
            })?,
        };
        let dbname = settings.remove("dbname").unwrap_or_else(|| user.clone());
        let passfile = settings
            .remove("passfile")
            .map(Into::into)
            .or_else(|| settings::home(var).map(|home| home.join(".pgpass")));
        let password = settings.remove("password");
        let mut servers = connect_config::servers(&mut settings)?;
        for server in &mut servers {
            let login =
                Login { host: server.passfile_name(), port: server.port, dbname: &dbname, user: &user };
            let found = match &password {
                Some(password) => Some(password.clone()),
                None => passfile.as_deref().and_then(|file| passfile::password(file, &login)),
            };
            server.password = found;
        }
        let (mode, tls) = encryption(&mut settings, var)?;
        let application_name = settings.remove("application_name").unwrap_or_else(|| "pgstrata".to_owned());
        let mut config = connect_config::config(settings)?;
        config.user(&user).dbname(&dbname);
        let limit = config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        config.connect_timeout(limit);
        let not_pooled = OnceCell::new();
        Ok(Self(Arc::new(Inner {
            servers,
            config,
            user,
            dbname,
            application_name,
            mode,
            tls,
            limit,
            not_pooled,
        })))
    }

    /// A standby of this target at `dsn`: with the same role, password and database, unless it specifies others.
    ///
    /// # Errors
    /// As [`Target::from_dsn`].
    pub fn standby(&self, dsn: &str) -> Result<Self> {
        let password = self.0.servers.first().and_then(|server| server.password.clone());
        Self::from_lookup(Some(dsn), &|name| match name {
            "PGUSER" => Some(self.0.user.clone()),
            "PGDATABASE" => Some(self.0.dbname.clone()),
            "PGPASSWORD" => password.clone().or_else(|| std::env::var(name).ok()),
            "PGHOST" | "PGHOSTADDR" | "PGPORT" | "PGTARGETSESSIONATTRS" => None,
            _ => std::env::var(name).ok(),
        })
    }

    /// `host:port/dbname as user`, without secrets.
    pub fn describe(&self) -> String {
        let servers: Vec<String> = self.0.servers.iter().map(ToString::to_string).collect();
        format!("{}/{} as {}", servers.join(","), self.0.dbname, self.0.user)
    }

    /// The `application_name` of sessions that do not drive a job: `PGAPPNAME`, otherwise `pgstrata`.
    pub fn application_name(&self) -> &str {
        &self.0.application_name
    }

    /// Opens a session with our settings, named [`visible_name`] of `application_name`.
    ///
    /// # Errors
    /// No server accepts the connection, or it leads through a transaction-pooling proxy.
    pub async fn connect(&self, application_name: &str) -> Result<Session> {
        refuse_pooler(self).await?;
        let session = self.open(application_name).await?;
        let settings = format!("{SESSION_SETTINGS}{}", locks::ANY_WAIT);
        let about = || format!("could not prepare the session on {}", self.describe());
        match timeout(self.0.limit, session.batch_execute(&settings)).await {
            Ok(set) => set.map_err(|e| Error::from(e).context(about()))?,
            Err(_) => {
                let message = format!("no answer within {} s", self.0.limit.as_secs());
                return Err(Error::failed(message).retry(Retry::Unknown).context(about()));
            }
        }
        Ok(session)
    }

    /// A connection without our settings, to the first server that accepts it.
    pub(super) async fn open(&self, application_name: &str) -> Result<Session> {
        let mut refusals: Vec<(String, Error)> = Vec::new();
        for server in &self.0.servers {
            match self.open_on(server, &visible_name(application_name)).await {
                Ok(session) => return Ok(session),
                Err(e) => {
                    // As in libpq: if a server rejects the login, the next server is not tried.
                    let known = e.sqlstate().is_some_and(|code| code.starts_with("28"));
                    refusals.push((server.to_string(), e));
                    if known {
                        break;
                    }
                }
            }
        }
        Err(self.refused(refusals))
    }

    async fn open_on(&self, server: &Host, application_name: &str) -> Result<Session> {
        let attempts = if server.is_socket() { &[SslMode::Disable] } else { self.0.mode.attempts() };
        let mut refusal = Error::failed("no attempt was made");
        for ssl_mode in attempts {
            let mut config = self.0.config.clone();
            config
                .host(&server.host)
                .port(server.port)
                .application_name(application_name)
                .ssl_mode(*ssl_mode);
            if let Some(address) = server.address {
                config.hostaddr(address);
            }
            if let Some(password) = &server.password {
                config.password(password);
            }
            match timeout(self.0.limit, config.connect(self.0.tls.clone())).await {
                Ok(Ok((client, connection))) => {
                    let heard = Arc::new(Notify::new());
                    tokio::spawn(serve(connection, heard.clone()));
                    return Ok(Session { client, tls: self.0.tls.clone(), heard });
                }
                Ok(Err(e)) => {
                    let about_encryption = is_about_encryption(&e);
                    refusal = explain(e, server.is_socket());
                    if !about_encryption {
                        break;
                    }
                }
                Err(_) => {
                    let limit_s = self.0.limit.as_secs();
                    return Err(Error::failed(format!("no answer within {limit_s} s"))
                        .retry(Retry::Unknown)
                        .hint(
                            "check host, port and firewall, or increase connect_timeout \
                             (PGCONNECT_TIMEOUT)",
                        ));
                }
            }
        }
        Err(refusal)
    }

    fn refused(&self, mut refusals: Vec<(String, Error)>) -> Error {
        let about = format!("could not connect to {}", self.describe());
        let Some((at, last)) = refusals.pop() else {
            return Error::usage(about);
        };
        if refusals.is_empty() {
            return last.context(about);
        }
        let mut error = Error::failed(about).retry(last.retry_class());
        if let Some(code) = last.sqlstate() {
            error = error.code(code);
        }
        if let Some(hint) = last.hint_text() {
            error = error.hint(hint);
        }
        refusals.push((at, last));
        let each: Vec<String> = refusals.iter().map(|(at, e)| format!("{at}: {}", e.message())).collect();
        error.cause(each.join("; "))
    }
}

/// `name` as every version of the server stores and shows it: characters that are not printable ASCII are replaced by
/// question marks, and it is truncated at 63 bytes. Use this name to find a session.
pub fn visible_name(name: &str) -> String {
    let printable = name.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' });
    printable.take(NAME_MAX_BYTES).collect()
}

/// Fails if a transaction-pooling proxy is in between. The result is cached.
///
/// # Errors
/// There is such a proxy ([`crate::error::Kind::Preflight`]), or no server accepts the connection.
pub async fn refuse_pooler(target: &Target) -> Result<()> {
    let look = async || {
        let name = target.application_name();
        let (a, b) = (target.open(name).await?, target.open(name).await?);
        pooler::refuse(&a, &b, &target.describe()).await
    };
    target.0.not_pooled.get_or_try_init(look).await.copied()
}

/// Processes a connection until it ends. Notices are dropped; notifications are only signaled, without their content.
/// An error ends every pending call, which reports it.
async fn serve<S, T>(mut connection: tokio_postgres::Connection<S, T>, heard: Arc<Notify>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
        if let AsyncMessage::Notification(_) = message {
            heard.notify_one();
        }
    }
}

/// A connection with our settings; it is closed when this is dropped.
pub struct Session {
    client: Client,
    tls: MakeRustlsConnect,
    heard: Arc<Notify>,
}

impl Session {
    /// Waits for a notification that the session listens for.
    pub async fn heard(&self) {
        self.heard.notified().await;
    }

    /// Cancels the running statement of this session, from any task.
    pub fn cancel_token(&self) -> Cancel {
        Cancel { token: self.client.cancel_token(), tls: self.tls.clone() }
    }

    /// Whether the connection is closed.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

/// Cancels the running statement of a session, over a connection that is encrypted like the session's own.
#[derive(Clone)]
pub struct Cancel {
    token: tokio_postgres::CancelToken,
    tls: MakeRustlsConnect,
}

impl Cancel {
    /// Requests the cancellation. It may come too late; the server does not report that.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn cancel(&self) -> Result<()> {
        self.token.cancel_query(self.tls.clone()).await.map_err(Error::from)
    }
}

fn encryption(settings: &mut Keywords, var: Lookup<'_>) -> Result<(Mode, MakeRustlsConnect)> {
    let root_cert = settings.remove("sslrootcert");
    let mode = match settings.remove("sslmode") {
        Some(name) => Mode::parse(&name)?,
        None if root_cert.as_deref() == Some("system") => Mode::VerifyFull,
        None => Mode::Prefer,
    };
    let default = || {
        let file = settings::home(var)?.join(".postgresql/root.crt");
        file.exists().then(|| file.display().to_string())
    };
    let tls = tls::connector(mode, root_cert.or_else(default).as_deref())?;
    Ok((mode, tls))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn target(dsn: &str) -> Result<Target> {
        Target::from_lookup(Some(dsn), &|_| None)
    }

    fn described(dsn: &str) -> String {
        target(dsn).unwrap().describe()
    }

    fn refused(dsn: &str) -> String {
        target(dsn).unwrap_err().to_string()
    }

    #[test]
    fn a_description_names_every_server_and_no_secret() {
        let dsn =
            "host=a,b hostaddr=10.0.0.1,::1 port=1,2 user=u password=s3cret dbname=d options='-c x=s3cret'";
        let target = target(dsn).unwrap();
        insta::assert_snapshot!(target.describe(), @"a:1,b:2/d as u");
        insta::assert_snapshot!(format!("{target:?}"), @"Target(a:1,b:2/d as u)");
        insta::assert_snapshot!(described("hostaddr=::1 user=u"), @"[::1]:5432/u as u");
        insta::assert_snapshot!(described("postgres://u@a,b:7/d"), @"a:5432,b:7/d as u");
        insta::assert_snapshot!(described("host=a,b port=9 user=u"), @"a:9,b:9/u as u");
    }

    #[test]
    fn settings_that_cannot_be_used_are_refused() {
        insta::assert_snapshot!(refused("host=a,b port=1,2,3 user=u"), @"
        host, hostaddr and port list 2, 0 and 3 servers
        hint: give the same number of each, or one port for all
        ");
        insta::assert_snapshot!(refused("host=a port=70000 user=u"), @"port is not a number between 1 and 65535");
        insta::assert_snapshot!(refused("host=a sslmode=maybe user=u"), @"
        sslmode has an unknown value
        hint: use disable, allow, prefer, require, verify-ca or verify-full
        ");
        insta::assert_snapshot!(refused("host=a target_session_attrs=standby user=u"), @"
        the connection settings are not usable
        cause: invalid value for option `target_session_attrs`
        ");
    }

    #[test]
    fn each_server_gets_its_own_password() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pgpass");
        fs::write(&file, "a:*:*:*:of a\nlocalhost:7:*:*:of socket\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let of = |more: &str| -> Vec<Option<String>> {
            let dsn = format!("host=a,/tmp,b port=7 user=u passfile='{}' {more}", file.display());
            target(&dsn).unwrap().0.servers.iter().map(|server| server.password.clone()).collect()
        };
        assert_eq!(of(""), [Some("of a".to_owned()), Some("of socket".to_owned()), None]);
        assert_eq!(of("password=all"), vec![Some("all".to_owned()); 3]);
    }

    #[test]
    fn several_refusals_are_all_named() {
        let target = target("host=a,b user=u").unwrap();
        let refusal = |what: &str| Error::failed(what).retry(Retry::Unknown).hint(format!("after {what}"));
        let all = vec![("a:5432".to_owned(), refusal("no")), ("b:5432".to_owned(), refusal("never"))];
        let error = target.refused(all);
        assert_eq!(error.retry_class(), Retry::Unknown);
        insta::assert_snapshot!(error.to_string(), @"
        could not connect to a:5432,b:5432/u as u
        cause: a:5432: no; b:5432: never
        hint: after never
        ");
    }

    #[test]
    fn names_are_what_the_server_shows() {
        assert_eq!(visible_name("pgstrata größe 7"), "pgstrata gr??e 7");
        assert_eq!(visible_name("a\nb"), "a?b");
        assert_eq!(visible_name(&"x".repeat(80)).len(), 63);
    }
}
