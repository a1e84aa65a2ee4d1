//! Applications: `pgbench` at a fixed rate, each transaction in its log. Latency counts from when a transaction was due, so
//! that one that waits makes those behind it late.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use tokio::io::AsyncReadExt;
use tokio::process::Child;

use super::figure::{Latency, Spread};
use super::server::Server;
use super::table::{TABLE, Table};

/// Transactions a second.
const RATE: u32 = 300;
/// Sessions.
const CLIENTS: u32 = 8;
/// It is ended before; this ends it where we are ended ourselves.
const LIMIT_S: u32 = 3_600;
/// pgbench writes its log by blocks of 4 KiB, some 100 transactions: what was done this long ago has been written.
const WRITTEN: Duration = Duration::from_secs(2);

/// One line of the log.
#[derive(Debug, Clone, Copy)]
struct Transaction {
    /// When it ended, in seconds since 1970.
    at_s: f64,
    /// None where it failed.
    ms: Option<f64>,
}

/// Everything that applications saw.
#[derive(Debug)]
pub struct Seen {
    transactions: Vec<Transaction>,
    /// Why sessions gave up, as pgbench's do on most errors: one line each.
    pub gave_up: Vec<String>,
}

/// Applications at work.
#[derive(Debug)]
pub struct Load {
    child: Child,
    log: PathBuf,
}

/// Now, in seconds since 1970.
pub fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Load {
    /// Sets applications to work on the table: each transaction updates any row and adds one at the end.
    pub async fn start(server: &Server, table: &Table) -> Result<Self> {
        let (rows, end) = (table.rows, table.end().context("the table ends after all calendars")?);
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

    /// Ends them; what they saw.
    pub async fn stop(mut self) -> Result<Seen> {
        tokio::time::sleep(WRITTEN).await;
        self.child.kill().await?;
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut said).await?;
        }
        let log = std::fs::read_to_string(&self.log)?;
        // The last line may be half written.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        Ok(Seen {
            transactions: whole.lines().filter_map(transaction).collect(),
            gave_up: said.lines().filter(|line| line.contains("aborted")).map(str::to_owned).collect(),
        })
    }
}

/// `client number time script seconds microseconds lag`, the time in microseconds or `failed`.
fn transaction(line: &str) -> Option<Transaction> {
    let mut words = line.split(' ').skip(2);
    let time = words.next()?;
    let mut number = || words.next()?.parse::<f64>().ok();
    number()?;
    let at_s = number()? + number()? / 1e6;
    Some(Transaction { at_s, ms: time.parse::<f64>().ok().map(|us| us / 1000.0) })
}

impl Seen {
    /// What ended between two times, in seconds since 1970.
    pub fn between(&self, during: &str, from_s: f64, to_s: f64) -> Result<Latency> {
        let these = || self.transactions.iter().filter(|t| t.at_s >= from_s && t.at_s <= to_s);
        Ok(Latency {
            during: during.to_owned(),
            transactions: Spread::of(these().filter_map(|t| t.ms))?,
            failed: these().filter(|t| t.ms.is_none()).count() as u64,
        })
    }
}
