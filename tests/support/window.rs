//! A table between swap and finalize: 100 rows per year from 2021 to 2024, one partition per year.

use super::cluster::Database;
use super::oracle;

/// The old table rejects all writes except those of the job; this statement permits a test to damage it.
pub const PERMIT_WRITES: &str = "alter table t_old disable trigger pgstrata_guard";

const PLAN: &str = "name = \"job\"\ntable = \"t\"\n[partition]\nby = \"at\"\nevery = \"1 year\"\nahead = 0\n\
    [swap]\nlock_timeout = \"190ms\"\nold_snapshots = \"accept\"\n";

/// The table with a verified job.
pub async fn verified() -> Database {
    let db = Database::new().await;
    db.execute(
        "create table t (id bigint primary key, at timestamptz not null, note text);
         insert into t select i, timestamptz '2021-01-01 00:00+00' + i * interval '3.6525 days', 'note ' || i
           from generate_series(0, 399) i;
         analyze t",
    )
    .await;
    let plan = db.plan(PLAN);
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    db
}

/// The table after its swap.
pub async fn swapped() -> Database {
    let db = verified().await;
    db.pgstrata(&["swap", "job"]).await.ok();
    db
}

/// Asserts that a rollback loses no row, and swaps again.
pub async fn rolls_back_and_swaps(db: &Database) {
    db.execute("create table kept as table t").await;
    db.pgstrata(&["rollback", "job"]).await.ok();
    oracle::compare(db, "t", "kept").await;
    db.execute("insert into t values (-1, '2022-02-02', 'back'); delete from t where id = 399").await;
    db.pgstrata(&["swap", "job"]).await.ok();
    assert_eq!(db.count("select count(*) from t where id in (-1, 399)").await, 1);
}
