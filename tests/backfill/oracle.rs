//! Backfills under writers of every kind. Each transaction makes the same changes to the table and to its truth copy,
//! in which the filled column is a generated column. With the trigger, and after every row was checked, the two are
//! equal in every snapshot. Without the trigger, they are equal once no application writes and the plan has run again.

use rustix::process::Signal;
use tokio::process::Child;

use super::{LEFT_BEHIND, named};
use crate::support::bench::{DEADLOCK_TIMEOUT, TABLE, TRUTH, by_hand};
use crate::support::cluster::Database;
use crate::support::lab::Lab;
use crate::support::load::Load;
use crate::support::oracle;
use crate::support::process::{ended, send};
use crate::support::tables::TableSpec;

const ROWS: u64 = 8_000;
const WRITERS: usize = 6;
/// A partition of the table that is partitioned by hand, and the month of its rows.
const MONTH: (&str, &str) =
    ("p7", "created_at >= '2024-08-01 00:00+00' and created_at < '2024-09-01 00:00+00'");

/// Uses columns that writers change all the time.
const EXPRESSION: &str = "md5(coalesce(title, '-') || amount || flag || doc::text)";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Plain,
    Partitioned,
    OnePartition,
}

/// A table under load, and the backfill that fills a column of it.
struct BackfillUnderLoad {
    job: Lab,
    load: Load,
    /// The two relations that are compared.
    sides: [&'static str; 2],
}

impl BackfillUnderLoad {
    async fn start(spec: TableSpec, shape: Shape, keep_filled: &str) -> Self {
        let db = Database::new().await;
        db.execute(DEADLOCK_TIMEOUT).await;
        spec.create(&db).await;
        if shape != Shape::Plain {
            db.execute(&by_hand(&spec)).await;
        }
        // The column already exists, with wrong values. Writers do not name it, but their inserts set it to its
        // default.
        db.execute(&format!(
            "alter table {TABLE} add column digest text default 'wrong';
             alter table {TRUTH} add column digest text generated always as ({EXPRESSION}) stored"
        ))
        .await;
        let (table, sides) = match shape {
            Shape::OnePartition => {
                let (partition, within) = MONTH;
                db.execute(&format!("create view truth_part as select * from {TRUTH} where {within}")).await;
                (partition, [partition, "truth_part"])
            }
            _ => (TABLE, [TABLE, TRUTH]),
        };
        let plan = format!(
            "table = '{table}'\n[copy]\nworkers = 3\ntarget_batch_ms = 20\n[swap]\nlock_timeout = '1500ms'\nattempts = 1000\n\
             [backfill]\nset = {{ digest = \"{}\" }}\nkeep_filled = {keep_filled}\n",
            EXPRESSION.replace("title", "t.title")
        );
        let load = Load::start(db.dsn(), spec, WRITERS, 7).await;
        load.commit_more(50).await;
        Self { job: Lab::on(db, &named(&plan)), load, sides }
    }

    async fn compare(&self) {
        oracle::compare(&self.job.db, self.sides[0], self.sides[1]).await;
    }

    /// Starts a run, which freezes when every row has been checked and the trigger still exists.
    async fn frozen(&self) -> Child {
        self.job.frozen("run", "verify.done").await
    }

    async fn end(self) -> Lab {
        self.load.stop().await.assert_clean();
        self.job
    }
}

/// The trigger keeps filled rows up to date until the job ends.
async fn with_the_trigger(spec: TableSpec, shape: Shape) {
    let bench = BackfillUnderLoad::start(spec, shape, "true").await;
    let run = bench.frozen().await;
    for _ in 0..3 {
        bench.compare().await;
        bench.load.commit_more(50).await;
    }
    let quiet = bench.load.pause().await;
    send(&run, Signal::CONT);
    ended(run).await.ok();
    bench.compare().await;
    bench.job.none(LEFT_BEHIND).await;
    drop(quiet);
    bench.end().await;
}

#[tokio::test]
async fn bigint_key() {
    with_the_trigger(TableSpec::bigint(TABLE, ROWS), Shape::Plain).await;
}

#[tokio::test]
async fn uuid_key_with_truncates() {
    with_the_trigger(TableSpec::uuid(TABLE, ROWS).truncating(200), Shape::Plain).await;
}

#[tokio::test]
async fn key_of_two_columns_that_ignores_case() {
    with_the_trigger(TableSpec::composite(TABLE, ROWS), Shape::Plain).await;
}

#[tokio::test]
async fn partitions_that_rows_move_between() {
    with_the_trigger(TableSpec::slots(TABLE, ROWS), Shape::Partitioned).await;
}

#[tokio::test]
async fn one_partition_that_rows_move_to_and_from() {
    with_the_trigger(TableSpec::uuid(TABLE, ROWS), Shape::OnePartition).await;
}

/// Writes like those of a logical replication apply worker.
#[tokio::test]
async fn writes_in_the_replica_role() {
    let spec = TableSpec::bigint(TABLE, ROWS).in_sessions("set session_replication_role = replica");
    with_the_trigger(spec, Shape::Partitioned).await;
}

#[tokio::test]
async fn a_trigger_that_is_kept() {
    let bench = BackfillUnderLoad::start(TableSpec::bigint(TABLE, ROWS), Shape::Plain, "\"always\"").await;
    bench.job.ok("run").await;
    bench.compare().await;
    bench.load.commit_more(100).await;
    bench.compare().await;
    // If no row is left to fill, another run of the same plan does nothing, and keeps the trigger.
    let again = bench.job.ok("run").await;
    assert!(again.stderr.contains("no row of public.observations is left to fill"), "{}", again.stderr);
    bench.load.commit_more(50).await;
    bench.compare().await;
    let job = bench.end().await;
    oracle::compare(&job.db, TABLE, TRUTH).await;
    job.none("select count(*) from pgstrata.chunks").await;
}

async fn without_the_trigger(spec: TableSpec, shape: Shape) {
    let bench = BackfillUnderLoad::start(spec, shape, "false").await;
    bench.job.ok("run").await;
    bench.load.commit_more(50).await;
    let job = bench.end().await;
    job.ok("run").await;
    oracle::compare(&job.db, TABLE, TRUTH).await;
    job.none(LEFT_BEHIND).await;
}

#[tokio::test]
async fn without_the_trigger_the_next_run_fills_the_rest() {
    without_the_trigger(TableSpec::bigint(TABLE, ROWS).truncating(300), Shape::Plain).await;
}

#[tokio::test]
async fn without_the_trigger_on_partitions() {
    without_the_trigger(TableSpec::uuid(TABLE, ROWS), Shape::Partitioned).await;
}
