//! A proxy between a client and the server, on Unix sockets. It can break connections, add latency, and count the round
//! trips of a transaction.
//!
//! It parses the messages of the protocol as far as necessary to detect a COMMIT, so that it can break a connection
//! right before the server receives the COMMIT, or after the COMMIT took effect and before the client receives the
//! result.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The first message of a client that requests encryption.
const SSL_REQUEST: &[u8] = &80_877_103_u32.to_be_bytes();
const GSS_REQUEST: &[u8] = &80_877_104_u32.to_be_bytes();

/// Whether to cut before or after a COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// A requested cut.
#[derive(Debug)]
struct Armed {
    side: Side,
    needle: String,
}

/// A committed transaction.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The statements of the transaction.
    pub sql: String,
    /// The number of round trips between client and server, from BEGIN to COMMIT.
    pub round_trips: usize,
}

#[derive(Debug)]
struct ProxyState {
    latency: Duration,
    committed: Mutex<Vec<Committed>>,
    armed: Mutex<Option<Armed>>,
    /// Canceled to cut all open connections; then replaced.
    all: Mutex<CancellationToken>,
    cuts: watch::Sender<usize>,
    /// If true, connections stay open, but nothing passes in either direction.
    swallows: watch::Sender<bool>,
}

impl ProxyState {
    /// Waits until messages pass again.
    async fn passes(&self) {
        // An error is impossible, because `self` owns the sender.
        let _ = self.swallows.subscribe().wait_for(|swallows| !*swallows).await;
    }
}

/// A listening proxy; dropping it cuts all connections.
#[derive(Debug)]
pub struct Proxy {
    dir: TempDir,
    shared: Arc<ProxyState>,
    listening: CancellationToken,
}

impl Proxy {
    /// Starts a proxy for the server with this socket directory.
    pub async fn start(server: &Path) -> Self {
        Self::slow(server, Duration::ZERO).await
    }

    /// The same with a round trip of at least `latency`.
    pub async fn slow(server: &Path, latency: Duration) -> Self {
        let dir = tempfile::Builder::new().prefix("proxy-").tempdir_in("/tmp").unwrap();
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
        let shared = Arc::new(ProxyState {
            latency,
            committed: Mutex::default(),
            armed: Mutex::default(),
            all: Mutex::default(),
            cuts: watch::Sender::new(0),
            swallows: watch::Sender::new(false),
        });
        let listening = CancellationToken::new();
        let proxy = Self { dir, shared: shared.clone(), listening: listening.clone() };
        let server = server.join(".s.PGSQL.5432");
        tokio::spawn(listening.run_until_cancelled_owned(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = UnixStream::connect(&server).await else { continue };
                let all = shared.all.lock().unwrap().clone();
                let session = Session::new(client, server, shared.clone());
                tokio::spawn(all.run_until_cancelled_owned(session.run()));
            }
        }));
        proxy
    }

    /// The connection string `direct`, changed to connect through the proxy.
    pub fn dsn(&self, direct: &str) -> String {
        let host = format!("host={}", self.dir.path().display());
        direct
            .split(' ')
            .map(|part| if part.starts_with("host=") { &host } else { part })
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Cuts all open connections.
    pub fn cut_all(&self) {
        std::mem::take(&mut *self.shared.all.lock().unwrap()).cancel();
    }

    /// Stops passing messages while connections stay open, or passes them again.
    pub fn swallow(&self, all: bool) {
        self.shared.swallows.send_replace(all);
    }

    /// Cuts the connection that sends the next matching COMMIT, before the server receives it. A COMMIT matches if the
    /// initial `application_name` of the connection or a statement of the transaction contains the needle.
    pub fn cut_before_commit(&self, needle: &str) {
        self.arm(Side::Before, needle);
    }

    /// The same after the COMMIT took effect, and before the client receives the result.
    pub fn cut_after_commit(&self, needle: &str) {
        self.arm(Side::After, needle);
    }

    fn arm(&self, side: Side, needle: &str) {
        *self.shared.armed.lock().unwrap() = Some(Armed { side, needle: needle.to_owned() });
    }

    /// The transactions that were committed since the last call.
    pub fn committed(&self) -> Vec<Committed> {
        std::mem::take(&mut *self.shared.committed.lock().unwrap())
    }

    /// The number of cuts so far.
    pub fn cuts(&self) -> usize {
        *self.shared.cuts.borrow()
    }

    /// Waits until there were `n` cuts in total.
    pub async fn wait_for_cuts(&self, n: usize) {
        self.shared.cuts.subscribe().wait_for(|cuts| *cuts >= n).await.unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.cancel();
        self.cut_all();
    }
}

/// One connection through the proxy.
struct Session {
    client: UnixStream,
    server: UnixStream,
    shared: Arc<ProxyState>,
    application_name: String,
    /// The texts of prepared statements, by name.
    statements: HashMap<Vec<u8>, String>,
    /// The statements of the open transaction so far.
    transaction: String,
    /// Whether the bound statement is a COMMIT.
    commit_is_bound: bool,
    /// The number of round trips of the open transaction.
    round_trips: usize,
    /// Whether the server has answered since the client last sent something.
    answered: bool,
}

impl Session {
    fn new(client: UnixStream, server: UnixStream, shared: Arc<ProxyState>) -> Self {
        Self {
            client,
            server,
            shared,
            application_name: String::new(),
            statements: HashMap::new(),
            transaction: String::new(),
            commit_is_bound: false,
            round_trips: 0,
            answered: true,
        }
    }

    /// Forwards messages until client or server close the connection, or the connection is cut.
    async fn run(mut self) -> std::io::Result<()> {
        self.start_up().await?;
        let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                read = self.client.read_buf(&mut from_client) => {
                    let read = read?;
                    self.shared.passes().await;
                    if read == 0 { return Ok(()) }
                    tokio::time::sleep(self.shared.latency / 2).await;
                }
                read = self.server.read_buf(&mut from_server) => {
                    let read = read?;
                    self.shared.passes().await;
                    if read == 0 { return Ok(()) }
                    tokio::time::sleep(self.shared.latency / 2).await;
                    self.client.write_all(&from_server).await?;
                    from_server.clear();
                    self.answered = true;
                }
            }
            while let Some(message) = take_message(&mut from_client) {
                let cut = if self.is_commit(&message) { self.matching_cut() } else { None };
                if cut == Some(Side::Before) {
                    return self.cut();
                }
                self.server.write_all(&message).await?;
                if cut == Some(Side::After) {
                    // With the extended protocol, the rest of the batch contains the Sync message after the COMMIT.
                    self.server.write_all(&from_client).await?;
                    return self.cut_when_done().await;
                }
            }
        }
    }

    /// Forwards the startup message and records the `application_name`. Declines encryption.
    async fn start_up(&mut self) -> std::io::Result<()> {
        let (length, body) = loop {
            let length = self.client.read_u32().await?;
            let mut body = vec![0; length as usize - 4];
            self.client.read_exact(&mut body).await?;
            self.shared.passes().await;
            if ![SSL_REQUEST, GSS_REQUEST].contains(&&body[..4]) {
                break (length, body);
            }
            self.client.write_all(b"N").await?;
        };
        self.server.write_u32(length).await?;
        self.server.write_all(&body).await?;
        let mut words = body[4..].split(|byte| *byte == 0);
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            if name == b"application_name" {
                self.application_name = text(value);
            }
        }
        Ok(())
    }

    /// Whether this message makes the server commit. Records the statements of the transaction.
    fn is_commit(&mut self, message: &[u8]) -> bool {
        if matches!(message[0], b'Q' | b'S') && std::mem::take(&mut self.answered) {
            self.round_trips += 1;
        }
        let mut words = message[5..].split(|byte| *byte == 0);
        let mut word = || words.next().unwrap_or_default();
        let sent = match message[0] {
            b'Q' => text(word()),
            b'P' => {
                let (name, sql) = (word().to_vec(), text(word()));
                self.statements.insert(name, sql);
                return false;
            }
            b'B' => {
                let (_portal, name) = (word(), word());
                let sql = self.statements.get(name).cloned().unwrap_or_default();
                self.commit_is_bound = ends_in_commit(&sql);
                self.transaction += &sql;
                return false;
            }
            b'E' => return std::mem::take(&mut self.commit_is_bound),
            _ => return false,
        };
        if sent
            .trim_start()
            .get(..5)
            .is_some_and(|start| ["begin", "start"].contains(&&*start.to_lowercase()))
        {
            self.transaction.clear();
            self.round_trips = 1;
        }
        self.transaction += &sent;
        self.transaction += ";";
        if ends_in_commit(&sent) {
            let (sql, round_trips) = (self.transaction.clone(), self.round_trips);
            self.shared.committed.lock().unwrap().push(Committed { sql, round_trips });
        }
        ends_in_commit(&sent)
    }

    /// Takes the requested cut if it matches this transaction.
    fn matching_cut(&mut self) -> Option<Side> {
        let transaction = std::mem::take(&mut self.transaction);
        let mut armed = self.shared.armed.lock().unwrap();
        let matches = armed.as_ref().is_some_and(|Armed { needle, .. }| {
            self.application_name.contains(needle) || transaction.contains(needle)
        });
        if matches { armed.take().map(|armed| armed.side) } else { None }
    }

    fn cut(self) -> std::io::Result<()> {
        let Self { client, server, shared, .. } = self;
        drop((client, server));
        shared.cuts.send_modify(|cuts| *cuts += 1);
        Ok(())
    }

    /// Waits for the server's answer to the COMMIT, does not forward it to the client, and cuts the connection.
    async fn cut_when_done(mut self) -> std::io::Result<()> {
        let mut from_server = Vec::new();
        loop {
            while let Some(message) = take_message(&mut from_server) {
                if message[0] == b'Z' {
                    return self.cut();
                }
            }
            let mut more = [0; 4096];
            tokio::select! {
                read = self.server.read_buf(&mut from_server) => if read? == 0 { return Ok(()) },
                read = self.client.read(&mut more) => {
                    let n = read?;
                    self.server.write_all(&more[..n]).await?;
                }
            }
        }
    }
}

/// Removes the first complete message from the buffer: one byte for its type, four bytes for its length, and its body.
fn take_message(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = u32::from_be_bytes(buffer.get(1..5)?.try_into().unwrap()) as usize + 1;
    (buffer.len() >= length).then(|| buffer.drain(..length).collect())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ends_in_commit(sql: &str) -> bool {
    sql.rsplit(';')
        .find(|part| !part.trim().is_empty())
        .is_some_and(|last| last.trim().eq_ignore_ascii_case("commit"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::cluster::{Database, connect};

    async fn database() -> (Database, Proxy) {
        let db = Database::new().await;
        db.execute("create table t (id int)").await;
        let proxy = Proxy::start(db.socket_dir()).await;
        (db, proxy)
    }

    async fn rows(db: &Database) -> i64 {
        db.count("select count(*) from t").await
    }

    #[tokio::test]
    async fn a_proxy_forwards_everything_until_it_cuts_all() {
        let (db, proxy) = database().await;
        let client = connect(&proxy.dsn(db.dsn())).await;
        client.execute("insert into t select generate_series(1, $1::int)", &[&50_000]).await.unwrap();
        assert_eq!(client.query("select id from t", &[]).await.unwrap().len(), 50_000);
        proxy.cut_all();
        assert!(client.execute("select 1", &[]).await.is_err());
        connect(&proxy.dsn(db.dsn())).await.execute("select 1", &[]).await.unwrap();
    }

    #[tokio::test]
    async fn swallowed_messages_are_delivered_later() {
        let (db, proxy) = database().await;
        let client = connect(&proxy.dsn(db.dsn())).await;
        proxy.swallow(true);
        let insert = client.execute("insert into t values (1)", &[]);
        tokio::pin!(insert);
        let early = tokio::time::timeout(std::time::Duration::from_millis(200), &mut insert).await;
        assert!(early.is_err());
        assert_eq!(rows(&db).await, 0);
        proxy.swallow(false);
        insert.await.unwrap();
        assert_eq!(rows(&db).await, 1);
    }

    #[tokio::test]
    async fn a_cut_before_a_commit_loses_the_transaction() {
        let (db, proxy) = database().await;
        proxy.cut_before_commit("insert into t");
        let mut client = connect(&proxy.dsn(db.dsn())).await;
        let other = client.transaction().await.unwrap();
        other.execute("select 1", &[]).await.unwrap();
        other.commit().await.unwrap();
        let cut = client.transaction().await.unwrap();
        cut.execute("insert into t values (1)", &[]).await.unwrap();
        assert!(cut.commit().await.is_err());
        proxy.wait_for_cuts(1).await;
        assert_eq!(rows(&db).await, 0);
    }

    #[tokio::test]
    async fn a_cut_after_a_commit_keeps_the_transaction() {
        let (db, proxy) = database().await;
        proxy.cut_after_commit("by name");
        let mut client = connect(&format!("{} application_name='it is by name'", proxy.dsn(db.dsn()))).await;
        let cut = client.transaction().await.unwrap();
        cut.execute("insert into t values (1)", &[]).await.unwrap();
        assert!(cut.commit().await.is_err());
        assert_eq!((proxy.cuts(), rows(&db).await), (1, 1));
    }

    #[tokio::test]
    async fn a_prepared_commit_is_detected() {
        for (after, expected) in [(false, 0), (true, 1)] {
            let (db, proxy) = database().await;
            let client = connect(&proxy.dsn(db.dsn())).await;
            client.batch_execute("begin; insert into t values (1)").await.unwrap();
            if after {
                proxy.cut_after_commit("");
            } else {
                proxy.cut_before_commit("");
            }
            assert!(client.execute("COMMIT", &[]).await.is_err());
            proxy.wait_for_cuts(1).await;
            assert_eq!(rows(&db).await, expected);
        }
    }
}
