//! The application: `pgbench` at a fixed rate, which logs each transaction. Latency counts from the scheduled start of
//! a transaction, so a transaction that waits also delays the following ones.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use tokio::io::AsyncReadExt;
use tokio::process::Child;

use super::figure::{Latency, Spread};
use super::server::Server;
use super::table::{TABLE, Table};

/// Transactions per second.
const RATE: u32 = 300;
/// Sessions.
const CLIENTS: u32 = 8;
/// The time limit of pgbench, in case this process dies before it stops pgbench.
const LIMIT_S: u32 = 3_600;
/// pgbench writes its log in blocks of 4 KiB, about 100 transactions: after this time, a transaction is in the log.
const LOG_DELAY: Duration = Duration::from_secs(2);

/// A transaction in the log.
#[derive(Debug, Clone, Copy)]
struct Transaction {
    /// The end of the transaction, in seconds since 1970.
    at_s: f64,
    /// The latency; none if the transaction failed.
    ms: Option<f64>,
}

/// All transactions and errors of the application.
#[derive(Debug)]
pub struct Seen {
    transactions: Vec<Transaction>,
    /// The messages of aborted sessions: pgbench aborts a session after most errors.
    pub gave_up: Vec<String>,
}

/// The running application.
#[derive(Debug)]
pub struct Load {
    child: Child,
    log: PathBuf,
}

/// The current time, in seconds since 1970.
pub fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Load {
    /// Starts the application: each transaction updates a random row and inserts a row at the end.
    pub async fn start(server: &Server, table: &Table) -> Result<Self> {
        let (rows, end) = (table.rows, table.end().context("the end of the table is out of range")?);
        let next = format!("create sequence bench_ids start {rows}");
        server.execute(&[next]).await?;
        let script = format!(
            "\\set id random(0, {rows} - 1)\n\\set before random(0, 999999)\nbegin;\n\
             update {TABLE} set n = n + 1 where id = :id;\n\
             insert into {TABLE} (id, created_at, site, a, n) values (nextval('bench_ids'),
                 timestamptz '{end}' - (:before + 1) / 1000000.0 * interval '1 day', :id % 100, 'new', 1);\ncommit;\n"
        );
        std::fs::write(server.dir().join("load.sql"), script)?;
        let mut pgbench = server.program("pgbench");
        pgbench.args(["-n", "-M", "prepared", "-l", "--log-prefix=load", "-f", "load.sql", "-j", "1"]);
        pgbench
            .arg(format!("--rate={RATE}"))
            .arg(format!("--client={CLIENTS}"))
            .arg(format!("--time={LIMIT_S}"));
        let child = pgbench.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let log = server.dir().join(format!("load.{}", child.id().context("no process")?));
        Ok(Self { child, log })
    }

    /// Stops the application and reads its log.
    pub async fn stop(mut self) -> Result<Seen> {
        tokio::time::sleep(LOG_DELAY).await;
        self.child.kill().await?;
        let mut messages = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut messages).await?;
        }
        let log = std::fs::read_to_string(&self.log)?;
        // The last line may be incomplete.
        let complete = log.rsplit_once('\n').map_or("", |(complete, _)| complete);
        Ok(Seen {
            transactions: complete.lines().filter_map(transaction).collect(),
            gave_up: messages.lines().filter(|line| line.contains("aborted")).map(str::to_owned).collect(),
        })
    }
}

/// Parses `client number time script seconds microseconds lag`; the time is in microseconds, or `failed`.
fn transaction(line: &str) -> Option<Transaction> {
    let mut words = line.split(' ').skip(2);
    let time = words.next()?;
    let mut number = || words.next()?.parse::<f64>().ok();
    number()?;
    let at_s = number()? + number()? / 1e6;
    Some(Transaction { at_s, ms: time.parse::<f64>().ok().map(|us| us / 1000.0) })
}

impl Seen {
    /// The latency of the transactions that ended between two times, in seconds since 1970.
    pub fn between(&self, during: &str, from_s: f64, to_s: f64) -> Result<Latency> {
        let these = || self.transactions.iter().filter(|t| t.at_s >= from_s && t.at_s <= to_s);
        Ok(Latency {
            during: during.to_owned(),
            transactions: Spread::of(these().filter_map(|t| t.ms))?,
            failed: these().filter(|t| t.ms.is_none()).count() as u64,
        })
    }
}
