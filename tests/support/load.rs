//! The load of most tests: writers that run random transactions on a table and on its truth copy, a plain copy of the
//! table.
//!
//! Each statement runs on the table and then on the truth copy. If it affects another number of rows in one than in the
//! other, a write is lost. A transaction takes the keys that it uses out of a shared pool and puts them back when it
//! ends, so writers never wait for rows of each other and never deadlock with each other. A key is in the pool only
//! once its row is committed, so every snapshot of a transaction contains the rows that it looks for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

use super::tables::{Key, TableSpec};
use super::transaction::{Trouble, Writer};
use super::wait::until;
use super::writers::{Shift, Writers};

/// The results of the writers' transactions.
#[derive(Debug, Default, Clone)]
pub struct LoadReport {
    /// All transactions.
    pub transactions: u64,
    pub committed: u64,
    /// Rolled back by the application.
    pub rolled_back: u64,
    /// SQLSTATE 40001: expected, applications retry.
    pub serialization_failures: u64,
    /// Transactions that lost their connection, for example because the server was killed.
    pub disconnects: u64,
    /// Writes that affected another number of rows in the table than in the truth copy.
    pub lost: u64,
    /// Lost writes and other errors; the first 20 of them.
    pub failures: Vec<String>,
    /// The duration of the longest statement on the table.
    pub longest_wait_ms: u64,
}

impl LoadReport {
    /// The share of transactions that ended in a serialization failure.
    pub fn serialization_share(&self) -> f64 {
        self.serialization_failures as f64 / self.transactions as f64
    }

    /// Panics if a transaction failed, except for serialization failures.
    pub fn assert_clean(&self) {
        assert_eq!(self.disconnects, 0, "{self:#?}");
        self.assert_nothing_lost();
    }

    /// The same for a test that kills the server: lost connections are permitted.
    pub fn assert_nothing_lost(&self) {
        assert!(self.failures.is_empty() && self.lost == 0, "{self:#?}");
        assert!(self.committed > 0, "no transaction was committed: {self:#?}");
    }
}

/// Keys that no transaction uses, of existing and of deleted rows.
#[derive(Debug, Default, Clone)]
pub struct Keys {
    pub alive: Vec<Key>,
    pub dead: Vec<Key>,
}

impl Keys {
    /// Takes up to so many random keys of each kind.
    fn take(&mut self, rng: &mut StdRng, alive: usize, dead: usize) -> Self {
        let mut random = |from: &mut Vec<Key>, n: usize| -> Vec<Key> {
            (0..n.min(from.len())).map(|_| from.swap_remove(rng.random_range(0..from.len()))).collect()
        };
        Self { alive: random(&mut self.alive, alive), dead: random(&mut self.dead, dead) }
    }

    fn put_back(&mut self, keys: Self) {
        self.alive.extend(keys.alive);
        self.dead.extend(keys.dead);
    }
}

/// The shared state of all writers of a table.
#[derive(Debug)]
struct LoadState {
    spec: Arc<TableSpec>,
    keys: Mutex<Keys>,
    /// Transactions hold it for reading; a TRUNCATE and [`Load::pause`] hold it for writing.
    gate: Arc<RwLock<()>>,
    report: Mutex<LoadReport>,
}

/// Running writers of a table and its truth copy; [`Load::stop`] returns the report.
#[derive(Debug)]
pub struct Load {
    state: Arc<LoadState>,
    writers: Writers,
}

impl Load {
    /// Starts `n` writers on an existing table, with different isolation levels.
    pub async fn start(dsn: &str, spec: TableSpec, n: usize, seed: u64) -> Self {
        let spec = Arc::new(spec);
        let known = Writer::connect(dsn, &spec, seed).await.unwrap().known_keys(None).await.unwrap();
        let state = Arc::new(LoadState {
            spec,
            keys: Mutex::new(Keys { alive: known, dead: Vec::new() }),
            gate: Arc::default(),
            report: Mutex::default(),
        });
        let mut writers = Writers::default();
        for i in 0..n as u64 {
            writers.add(|shift| work(state.clone(), shift, dsn.to_owned(), seed * 1000 + i));
        }
        Self { state, writers }
    }

    /// Waits until `n` more transactions are committed.
    pub async fn commit_more(&self, n: u64) {
        let wanted = self.writers.committed() + n;
        until(&format!("{n} more transactions"), async || {
            assert!(self.state.report.lock().unwrap().failures.len() < 20, "{:#?}", self.report());
            self.writers.committed() >= wanted
        })
        .await;
    }

    /// The report so far.
    pub fn report(&self) -> LoadReport {
        self.state.report.lock().unwrap().clone()
    }

    /// Waits for the open transactions to end; new ones begin when the guard is dropped.
    pub async fn pause(&self) -> OwnedRwLockWriteGuard<()> {
        self.state.gate.clone().write_owned().await
    }

    /// Stops the writers after their current transactions.
    pub async fn stop(self) -> LoadReport {
        self.writers.stop().await;
        self.state.report.lock().unwrap().clone()
    }
}

async fn work(state: Arc<LoadState>, shift: Shift, dsn: String, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut writer, mut connection_seed) = (None, seed);
    while shift.is_open() {
        let mut connected = match writer.take() {
            Some(writer) => writer,
            None => match Writer::connect(&dsn, &state.spec, connection_seed).await {
                Ok(writer) => {
                    // Another seed for the next connection, so that no random key is generated twice. The isolation
                    // level stays the same.
                    connection_seed += 4_000_000;
                    writer
                }
                Err(trouble) => {
                    state.count(&Err(trouble), Duration::ZERO);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        let truncate = state.spec.truncate_one_in.is_some_and(|n| rng.random_ratio(1, n));
        let ended = if truncate {
            state.truncate(&mut connected, &shift, &dsn).await
        } else {
            state.transact(&mut connected, &shift, &dsn, &mut rng).await
        };
        state.count(&ended, connected.longest_wait);
        if matches!(ended, Ok(true)) {
            shift.committed();
        }
        if connected.is_open() {
            writer = Some(connected);
        }
        // Pause as an application does, and leave processor time to other tests.
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..70_000))).await;
    }
}

impl LoadState {
    /// Runs one transaction; returns true if it was committed.
    async fn transact(
        &self,
        writer: &mut Writer,
        shift: &Shift,
        dsn: &str,
        rng: &mut StdRng,
    ) -> Result<bool, Trouble> {
        let _open = self.gate.read().await;
        let (alive, dead) = (rng.random_range(2..12), rng.random_range(0..3));
        let before = self.keys.lock().unwrap().take(rng, alive, dead);
        let mut mine = before.clone();
        let ended = writer.transaction(&mut mine).await;
        let after = match &ended {
            Ok(true) => mine,
            // It is unknown whether the transaction was committed. Dead keys are dropped, because an equal key in
            // another spelling may be alive.
            Err(Trouble::Disconnected) => {
                let all = [before.alive, mine.alive, mine.dead].concat();
                Keys { alive: self.ask(shift, dsn, Some(&all)).await, dead: Vec::new() }
            }
            Ok(false) | Err(_) => before,
        };
        self.keys.lock().unwrap().put_back(after);
        ended
    }

    /// Truncates both tables while no other transaction is open.
    async fn truncate(&self, writer: &mut Writer, shift: &Shift, dsn: &str) -> Result<bool, Trouble> {
        let _alone = self.gate.write().await;
        let ended = writer.truncate().await;
        let alive = self.ask(shift, dsn, None).await;
        *self.keys.lock().unwrap() = Keys { alive, dead: Vec::new() };
        ended.map(|()| true)
    }

    /// The keys that have rows, among `of` or among all; retries until the server answers.
    async fn ask(&self, shift: &Shift, dsn: &str, of: Option<&[Key]>) -> Vec<Key> {
        while shift.is_open() {
            if let Ok(writer) = Writer::connect(dsn, &self.spec, 0).await
                && let Ok(alive) = writer.known_keys(of).await
            {
                return alive;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Vec::new()
    }

    fn count(&self, ended: &Result<bool, Trouble>, longest_wait: Duration) {
        let mut report = self.report.lock().unwrap();
        report.transactions += 1;
        report.longest_wait_ms = report.longest_wait_ms.max(longest_wait.as_millis() as u64);
        let failure = match ended {
            Ok(true) => {
                report.committed += 1;
                return;
            }
            Ok(false) => return report.rolled_back += 1,
            Err(Trouble::Serialization) => return report.serialization_failures += 1,
            Err(Trouble::Disconnected) => return report.disconnects += 1,
            Err(Trouble::Lost(what)) => {
                report.lost += 1;
                format!("lost: {what}")
            }
            Err(Trouble::Other(what)) => what.clone(),
        };
        if report.failures.len() < 20 {
            report.failures.push(failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::cluster::Database;
    use crate::support::oracle;

    /// Without a job, no transaction of the load fails.
    async fn runs_clean(spec: TableSpec, seed: u64) {
        let (table, truth) = (spec.table.clone(), spec.truth.clone());
        let db = Database::new().await;
        spec.create(&db).await;
        let load = Load::start(db.dsn(), spec, 8, seed).await;
        load.commit_more(1000).await;
        oracle::compare(&db, &table, &truth).await;
        let report = load.stop().await;
        report.assert_clean();
        assert!(
            report.rolled_back > 0 && report.serialization_failures * 4 < report.committed,
            "{report:#?}"
        );
        println!("{table}: {report:?}");
        oracle::compare(&db, &table, &truth).await;
    }

    #[tokio::test]
    async fn bigint_load_runs_clean() {
        runs_clean(TableSpec::bigint("observations", 5_000), 1).await;
    }

    #[tokio::test]
    async fn uuid_load_with_truncates_runs_clean() {
        runs_clean(TableSpec::uuid("observations", 5_000).truncating(200), 2).await;
    }

    #[tokio::test]
    async fn composite_load_runs_clean() {
        runs_clean(TableSpec::composite("observations", 5_000), 3).await;
    }

    #[tokio::test]
    async fn slots_load_with_truncates_runs_clean() {
        runs_clean(TableSpec::slots("observations", 5_000).truncating(200), 4).await;
    }

    #[tokio::test]
    async fn the_load_survives_a_crash_of_the_server() {
        let server = pgstrata::demo::server::PrivateServer::start(crate::support::cluster::SETTINGS).unwrap();
        let db = Database::on(&server).await;
        let spec = TableSpec::bigint("observations", 2_000);
        spec.create(&db).await;
        let load = Load::start(db.dsn(), spec, 8, 5).await;
        load.commit_more(200).await;
        server.stop_immediate().unwrap();
        server.start_again().unwrap();
        load.commit_more(200).await;
        let report = load.stop().await;
        report.assert_nothing_lost();
        assert!(report.disconnects > 0, "{report:#?}");
        oracle::compare(&db, "observations", "truth_observations").await;
    }

    #[tokio::test]
    async fn a_write_to_only_one_of_the_two_tables_is_detected() {
        let db = Database::new().await;
        let spec = TableSpec::bigint("observations", 200);
        spec.create(&db).await;
        let load = Load::start(db.dsn(), spec, 2, 6).await;
        let quiet = load.pause().await;
        db.execute("delete from observations where id >= 0").await;
        drop(quiet);
        until("a lost write is reported", async || load.report().lost > 0).await;
        let report = load.stop().await;
        assert!(report.failures.iter().all(|what| what.starts_with("lost: ")), "{report:#?}");
        let compared =
            tokio::spawn(async move { oracle::compare(&db, "observations", "truth_observations").await });
        assert!(compared.await.is_err());
    }
}
