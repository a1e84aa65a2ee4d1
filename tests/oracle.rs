//! A whole job under writers of every kind: each transaction makes the same changes to the table and to its truth copy,
//! and the two are equal whenever they are compared, before and after each swap.

use tokio_postgres::error::SqlState;

use crate::support::bench::{Bench, COPY, KEYSET, PHYSICAL, TABLE, TRUTH, shares_without_tool};
use crate::support::cluster::{Database, Version, on_oldest_and_newest};
use crate::support::tables::TableSpec;

const ROWS: u64 = 12_000;
/// Rows of a table whose copy must take some time.
const MORE_ROWS: u64 = 20_000;

on_oldest_and_newest!(values_that_move_by_key, rows_by_blocks);

async fn whole_job_on(version: Version, spec: TableSpec, partition: &str) {
    let bench = Bench::start_on(version, spec, partition).await;
    bench.run().await;
    bench.load.commit_more(100).await;
    bench.swap_and_back_and_swap().await;
    bench.end().await;
}

async fn values_that_move_by_key(version: Version) {
    whole_job_on(version, TableSpec::slots(TABLE, ROWS).truncating(300), KEYSET).await;
}

async fn rows_by_blocks(version: Version) {
    whole_job_on(version, TableSpec::bigint(TABLE, ROWS), PHYSICAL).await;
}

/// Runs the whole job, and the same load without a job: the job must not cause more failed transactions. `spec` is
/// called for each table.
async fn whole_job(spec: impl Fn() -> TableSpec, partition: &str) {
    let [plain, partitioned] = shares_without_tool(&spec).await;
    let bench = Bench::start(spec(), partition).await;
    bench.run().await;
    bench.load.commit_more(100).await;
    bench.swap_and_back_and_swap().await;
    let (_, report) = bench.end().await;
    let with = report.serialization_share();
    println!(
        "{report:?}\nserialization failures: without the tool {:.2} % on the plain table and {:.2} % on one partitioned by \
         hand, {:.2} % with it",
        plain * 100.0,
        partitioned * 100.0,
        with * 100.0
    );
    // The guard also rejects writes with a snapshot older than a swap: a few at each swap.
    assert!(with < 2.0 * plain.max(partitioned) + 0.03, "{plain}, {partitioned}, {with}: {report:#?}");
}

#[tokio::test]
async fn bigint_key() {
    whole_job(|| TableSpec::bigint(TABLE, ROWS), KEYSET).await;
}

#[tokio::test]
async fn uuid_key_by_blocks() {
    whole_job_on(Version::System, TableSpec::uuid(TABLE, ROWS), PHYSICAL).await;
}

/// With so many partitions that a statement of the drain does not look up rows in all of them.
#[tokio::test]
async fn composite_text_key_by_ten_days() {
    whole_job_on(
        Version::System,
        TableSpec::composite(TABLE, ROWS),
        &format!("every = \"10 days\"\n{KEYSET}"),
    )
    .await;
}

#[tokio::test]
async fn unique_values_that_move_between_rows() {
    whole_job(|| TableSpec::slots(TABLE, ROWS), COPY).await;
}

#[tokio::test]
async fn uuid_key_by_blocks_with_truncates() {
    whole_job_on(Version::System, TableSpec::uuid(TABLE, ROWS).truncating(300), PHYSICAL).await;
}

#[tokio::test]
async fn unique_values_that_move_with_truncates() {
    whole_job(|| TableSpec::slots(TABLE, ROWS).truncating(300), KEYSET).await;
}

#[tokio::test]
async fn mostly_deletes() {
    whole_job_on(Version::System, TableSpec::uuid(TABLE, ROWS).deleting(), COPY).await;
}

/// Writes like those of a logical replication apply worker: ordinary triggers do not fire.
#[tokio::test]
async fn writes_in_the_replica_role() {
    let replica = "set session_replication_role = replica";
    whole_job(|| TableSpec::slots(TABLE, ROWS).in_sessions(replica), PHYSICAL).await;
}

/// The recorded chunks show that the copy did not exceed the limit on rows per second. A slow machine copies fewer
/// rows.
#[tokio::test]
async fn a_limited_copy() {
    let bench = Bench::start(
        TableSpec::bigint(TABLE, MORE_ROWS),
        &format!("{KEYSET}[throttle]\nrows_per_second = 8_000\n"),
    )
    .await;
    bench.run().await;
    let rate =
        "select (sum(rows) filter (where done_at > first) / extract(epoch from max(done_at) - first))::bigint
                from pgstrata.chunks, (select min(done_at) as first from pgstrata.chunks) _ group by first";
    let rate = bench.lab.db.count(rate).await;
    // On a busy machine, delayed chunks end close together, so the measured rate can be above the limit.
    assert!(rate < 12_000, "{rate} rows per second");
    bench.swap_and_back_and_swap().await;
    bench.end().await;
}

/// A copy in physical order detects that the table was rewritten and starts over, because rows have moved to other
/// blocks.
#[tokio::test]
async fn a_heap_that_is_rewritten_in_mid_copy() {
    let slowly = format!("{PHYSICAL}[throttle]\nrows_per_second = 5_000\n");
    let bench = Bench::start(TableSpec::uuid(TABLE, MORE_ROWS), &slowly).await;
    let rewrite = async {
        for rewrite in [format!("vacuum full {TABLE}"), format!("cluster {TABLE} using {TABLE}_pkey")] {
            bench.lab.until("select to_regclass('pgstrata.chunks') is not null").await;
            bench.lab.until("select count(*) >= 2 from pgstrata.chunks").await;
            bench.lab.db.execute(&rewrite).await;
            let filenode =
                format!("select copy_filenode = pg_relation_filenode('{TABLE}') from pgstrata.jobs");
            bench.lab.until(&filenode).await;
        }
    };
    let (ran, ()) = tokio::join!(bench.run(), rewrite);
    assert_eq!(ran.stderr.matches("starts over").count(), 2, "{}", ran.stderr);
    bench.swap_and_back_and_swap().await;
    bench.end().await;
}

/// Without a default partition, the drain creates partitions for rows beyond the last one. After the swap, the
/// application's insert of such a row fails, as in any partitioned table.
#[tokio::test]
async fn rows_beyond_the_last_partition() {
    let partition = format!("default = false\nahead = 0\n{KEYSET}");
    let bench = Bench::start(TableSpec::bigint(TABLE, ROWS), &partition).await;
    let beyond = async {
        bench.lab.until("select to_regclass('pgstrata.jobs') is not null").await;
        bench
            .lab
            .until("select exists (select from pgstrata.jobs where state not in ('planned', 'prepared'))")
            .await;
        write_beyond(&bench.lab.db, 0).await
    };
    let job = async {
        bench.run().await;
        bench.then("swap").await;
    };
    let (written, ()) = tokio::join!(beyond, job);
    bench.then("rollback").await;
    let (again, ()) = tokio::join!(write_beyond(&bench.lab.db, written), async {
        bench.load.commit_more(200).await;
        bench.then("swap").await;
    });
    bench.then("finalize --now").await;
    let (db, _) = bench.end().await;
    let beyond = db.count(&format!("select count(*) from {TABLE} where created_at >= '2026-01-01'")).await;
    println!("{written} rows beyond the last partition, then {}: {beyond} are left", again - written);
    assert!(0 < written && written < again);
}

/// Inserts rows for months without a partition until an insert fails; returns the number of the next row.
async fn write_beyond(db: &Database, from: i64) -> i64 {
    let client = db.client().await;
    for n in from.. {
        let id = (1_i64 << 50) + n;
        let row = format!("({id}, timestamptz '2026-01-01 00:00+00' + {n} * interval '6 hours', true)");
        let statements: String = [TABLE, TRUTH]
            .iter()
            .map(|name| {
                format!(
                    "insert into {name} (id, created_at, flag) values {row};
                     update {name} set created_at = created_at - interval '1 year' where id = {id} - 2 and {n} % 3 = 0;
                     delete from {name} where id = {id} - 5;"
                )
            })
            .collect();
        match client.batch_execute(&format!("begin; {statements} commit")).await {
            Ok(()) => {}
            Err(e) if e.code() == Some(&SqlState::CHECK_VIOLATION) => return n,
            Err(e) => panic!("{e:?}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    unreachable!("no insert failed");
}
