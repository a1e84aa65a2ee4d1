//! A table with eight concurrent writers, and the job that partitions it.

use super::cluster::{Database, Version};
use super::lab::Lab;
use super::load::{Load, LoadReport};
use super::oracle;
use super::process::Ran;
use super::reads::{Question, Readers, Reading};
use super::tables::TableSpec;

/// The table that is partitioned; the job is named after it.
pub const TABLE: &str = "observations";
/// The truth copy, to which every transaction makes the same changes.
pub const TRUTH: &str = "truth_observations";
/// Short chunks, so that many writes happen before, during and after a chunk.
pub const COPY: &str = "[copy]\nworkers = 3\ntarget_batch_ms = 20\n";
/// The same in the order of the key.
pub const KEYSET: &str = "[copy]\nworkers = 3\ntarget_batch_ms = 20\norder = \"keyset\"\n";
/// The same in physical order.
pub const PHYSICAL: &str = "[copy]\nworkers = 3\ntarget_batch_ms = 20\norder = \"physical\"\n";

/// Transactions are slow on an overloaded machine, so the lock timeout is long. It must be less than
/// `deadlock_timeout`.
const SWAP: &str = "[swap]\nlock_timeout = \"1500ms\"\nattempts = 1000\n";
/// Sets `deadlock_timeout` for jobs with a lock timeout of more than a second.
pub const DEADLOCK_TIMEOUT: &str = "do $$ begin execute format('alter database %I set deadlock_timeout = ''3s''', current_database()); end $$";

/// Only one way to read, because each read scans the whole table. The tests with the bank use all ways.
const READINGS: [Reading; 1] = [Reading::Snapshot("repeatable read", 300)];

/// The number of writers.
const WRITERS: usize = 8;

/// A lab whose table is under load.
#[derive(Debug)]
pub struct Bench {
    pub lab: Lab,
    pub load: Load,
    readers: Readers,
}

impl Bench {
    /// Creates the table and starts the writers. `partition` is appended to section `[partition]` of the plan, and may
    /// add sections. Partitions are monthly unless `partition` contains `every`.
    pub async fn start(spec: TableSpec, partition: &str) -> Self {
        Self::start_on(Version::System, spec, partition).await
    }

    /// The same on the server of this version.
    pub async fn start_on(version: Version, spec: TableSpec, partition: &str) -> Self {
        let db = Database::of(version).await;
        db.execute(DEADLOCK_TIMEOUT).await;
        spec.create(&db).await;
        let every = if partition.contains("every = ") { "" } else { "every = \"1 month\"\n" };
        let plan = format!("table = \"{TABLE}\"\n{SWAP}[partition]\nby = \"created_at\"\n{every}{partition}");
        // A TRUNCATE is visible to older snapshots, so reads can be wrong.
        let readings = if spec.truncate_one_in.is_some() { &[][..] } else { &READINGS };
        let readers = Readers::start(&db, &question(&db).await, readings);
        let load = Load::start(db.dsn(), spec, WRITERS, 7).await;
        load.commit_more(50).await;
        Self { lab: Lab::on(db, &plan), load, readers }
    }

    /// Runs the job until it is verified.
    pub async fn run(&self) -> Ran {
        self.lab.ok("run").await
    }

    /// Runs another command, and compares the table with its truth copy after more writes.
    pub async fn then(&self, command: &str) {
        self.lab.ok(command).await;
        self.load.commit_more(100).await;
        oracle::compare(&self.lab.db, TABLE, TRUTH).await;
    }

    /// Syncs the inactive table while the writers are paused, and compares it with the truth copy.
    pub async fn is_in_sync(&self, other: &str) {
        let _quiet = self.load.pause().await;
        self.lab.ok("sync").await;
        oracle::compare(&self.lab.db, other, TRUTH).await;
    }

    /// Swaps, rolls back, swaps again and finalizes.
    pub async fn swap_and_back_and_swap(&self) {
        self.then("swap").await;
        self.is_in_sync("observations_old").await;
        self.then("rollback").await;
        self.is_in_sync("observations_new").await;
        self.then("swap").await;
        self.then("finalize --now").await;
    }

    /// Stops the writers; returns the database and their report.
    pub async fn end(self) -> (Database, LoadReport) {
        let report = self.load.stop().await;
        report.assert_clean();
        self.readers.stop().await;
        oracle::compare(&self.lab.db, TABLE, TRUTH).await;
        (self.lab.db, report)
    }
}

/// A query that compares the table with its truth copy.
async fn question(db: &Database) -> Question {
    let columns = oracle::columns(&db.client().await, TRUTH).await;
    let sum = |table: &str| {
        format!("(select coalesce(sum(hashtextextended(row({columns})::text, 0)::numeric), 0) from {table})")
    };
    let query = format!("select ({} <> {})::int", sum(TABLE), sum(TRUTH));
    db.execute(&format!(
        "create function differs() returns int language plpgsql stable as $$ begin return ({query}); end $$"
    ))
    .await;
    Question { query, by_function: "select differs()".to_owned(), right: 0 }
}

/// The share of transactions that fail with a serialization failure under the same load without a job: on the plain
/// table, and on a table partitioned by hand. A partitioned table has more failures, because the server detects
/// conflicts per index page, and the index of a partition has few pages.
pub async fn shares_without_tool(spec: impl Fn() -> TableSpec) -> [f64; 2] {
    let mut shares = [0.0, 0.0];
    for (share, partitioned) in shares.iter_mut().zip([false, true]) {
        let (db, spec) = (Database::new().await, spec());
        spec.create(&db).await;
        if partitioned {
            db.execute(&by_hand(&spec)).await;
        }
        let load = Load::start(db.dsn(), spec, WRITERS, 7).await;
        load.commit_more(1_000).await;
        let report = load.stop().await;
        report.assert_clean();
        *share = report.serialization_share();
    }
    shares
}

/// Statements that partition the table while nobody uses it.
pub fn by_hand(spec: &TableSpec) -> String {
    let slots = if spec.has_slots() { ", unique (created_at, slot)" } else { "" };
    // A value above the existing rows, and below the keys that writers generate.
    let identity = spec.key_columns()[0].1 == "bigint";
    let restart =
        if identity { format!("alter table {TABLE} alter id restart 1000000000;") } else { String::new() };
    let partitions: String = (0..24)
        .map(|m| {
            let month = |m: i32| format!("'{}-{:02}-01 00:00+00'", 2024 + m / 12, m % 12 + 1);
            format!(
                "create table p{m} partition of {TABLE} for values from ({}) to ({});",
                month(m),
                month(m + 1)
            )
        })
        .collect();
    format!(
        "alter table {TABLE} rename to plain; alter table plain rename constraint {TABLE}_pkey to plain_pkey;
         create table {TABLE} (like plain including defaults including identity,
           constraint {TABLE}_pkey primary key ({}, created_at){slots}) partition by range (created_at);
         {partitions}
         insert into {TABLE} select * from plain;
         {restart}
         drop table plain; analyze {TABLE}",
        spec.key_list()
    )
}
