//! The oracle's verdict over the whole job: writers of every kind write all the while, each transaction on the table and
//! on its truth, and the two are the same at every look, whichever table carries the name.

use std::path::PathBuf;

use crate::support::cluster::Database;
use crate::support::load::{LoadReport, Writers};
use crate::support::oracle;
use crate::support::tables::TableSpec;

const TABLE: &str = "observations";
const TRUTH: &str = "truth_observations";
const ROWS: u64 = 20_000;

/// Chunks so short that writes fall between and into them.
const COPY: &str = "[copy]\nworkers = 3\ntarget_batch_ms = 20\n";
/// On a machine with more to do than it can, a transaction takes long; so the lock's budget is large, and below
/// `deadlock_timeout`, as it must be.
const SWAP: &str = "[swap]\nlock_timeout = \"1500ms\"\nattempts = 1000\n";
const DEADLOCK_TIMEOUT: &str = "do $$ begin execute format('alter database %I set deadlock_timeout = ''3s''', current_database()); end $$";

/// A table under eight writers, and the plan of its job.
pub struct Bench {
    pub db: Database,
    pub writers: Writers,
    plan: PathBuf,
}

impl Bench {
    /// Sets the writers to work on a new table; `more` is the rest of the plan.
    pub async fn start(spec: TableSpec, more: &str) -> Self {
        let db = Database::new().await;
        db.execute(DEADLOCK_TIMEOUT).await;
        spec.create(&db).await;
        let plan = db.plan(&format!(
            "table = \"{TABLE}\"\n{SWAP}[partition]\nby = \"created_at\"\nevery = \"1 month\"\n{more}"
        ));
        let writers = Writers::start(db.dsn(), spec, 8, 7).await;
        writers.commit_more(50).await;
        Self { db, writers, plan }
    }

    /// `run`: to verified.
    pub async fn run(&self) {
        self.db.pgstrata(&["run", self.plan.to_str().unwrap()]).await.ok();
    }

    /// Another command of the job; then some writing, and a look.
    pub async fn then(&self, command: &[&str]) {
        self.db.pgstrata(&[command, &[TABLE]].concat()).await.ok();
        self.writers.commit_more(100).await;
        oracle::compare(&self.db, TABLE, TRUTH).await;
    }

    /// Brings the table that is not in use level while nobody writes: it holds the truth, too.
    pub async fn is_level(&self, other: &str) {
        let _quiet = self.writers.pause().await;
        self.db.pgstrata(&["sync", TABLE]).await.ok();
        oracle::compare(&self.db, other, TRUTH).await;
    }

    /// There, back, there again and done.
    pub async fn swap_and_back_and_swap(&self) {
        self.then(&["swap"]).await;
        self.is_level("observations_old").await;
        self.then(&["rollback"]).await;
        self.is_level("observations_new").await;
        self.then(&["swap"]).await;
        self.then(&["finalize", "--now"]).await;
    }

    /// The writers' last word.
    pub async fn end(self) -> LoadReport {
        let report = self.writers.stop().await;
        report.assert_clean();
        oracle::compare(&self.db, TABLE, TRUTH).await;
        report
    }
}

/// The share of transactions that the same load loses to serialization failures with no tool about.
async fn share_without_tool(spec: TableSpec) -> f64 {
    let db = Database::new().await;
    spec.create(&db).await;
    let writers = Writers::start(db.dsn(), spec, 8, 7).await;
    writers.commit_more(1_000).await;
    let report = writers.stop().await;
    report.assert_clean();
    share(&report)
}

fn share(report: &LoadReport) -> f64 {
    report.serialization_failures as f64 / report.transactions as f64
}

/// The whole job; `spec` makes the table twice, once for the load alone.
async fn whole_job(spec: impl Fn() -> TableSpec, more: &str) {
    let without = share_without_tool(spec()).await;
    let bench = Bench::start(spec(), more).await;
    bench.run().await;
    bench.writers.commit_more(100).await;
    bench.swap_and_back_and_swap().await;
    let report = bench.end().await;
    let with = share(&report);
    println!(
        "{report:?}\nserialization failures: {:.2} % without the tool, {:.2} % with it",
        without * 100.0,
        with * 100.0
    );
    // Besides what the load has anyway, the guard refuses those whose snapshot a swap overtook: some at each swap.
    assert!(with < 3.0 * without + 0.05, "{with} against {without}: {report:#?}");
}

#[tokio::test]
async fn bigint_key() {
    whole_job(|| TableSpec::bigint(TABLE, ROWS), &format!("{COPY}order = \"keyset\"")).await;
}

#[tokio::test]
async fn uuid_key_by_blocks() {
    whole_job(|| TableSpec::uuid(TABLE, ROWS), &format!("{COPY}order = \"physical\"")).await;
}

#[tokio::test]
async fn composite_text_key() {
    whole_job(|| TableSpec::composite(TABLE, ROWS), &format!("{COPY}order = \"keyset\"")).await;
}

#[tokio::test]
async fn unique_values_that_move_between_rows() {
    whole_job(|| TableSpec::slots(TABLE, ROWS), COPY).await;
}

#[tokio::test]
async fn uuid_key_by_blocks_with_truncates() {
    whole_job(|| TableSpec::uuid(TABLE, ROWS).truncating(300), &format!("{COPY}order = \"physical\"")).await;
}

#[tokio::test]
async fn unique_values_that_move_with_truncates() {
    whole_job(|| TableSpec::slots(TABLE, ROWS).truncating(300), &format!("{COPY}order = \"keyset\"")).await;
}
