//! Writers that are faster than the drain: the change log stays bounded, the job reports the rates, and it ends once
//! the writers slow down. A log that has outgrown the table is not drained: the table is copied again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinHandle;

use crate::support::cluster::Database;
use crate::support::lab::Lab;
use crate::support::oracle;
use crate::support::process::ended;
use crate::support::wait::{until, within};

const ROWS: i64 = 10_000;

/// Rows per UPDATE statement: few enough that the job can acquire its locks and begin.
const AT_ONCE: i64 = 1_000;

/// Sessions that repeatedly update all rows, each its own share, until they are stopped.
async fn update_in_loops(db: &Database, sessions: i64, over: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    for n in 0..sessions {
        let (client, over) = (db.client().await, over.clone());
        let share = ROWS / sessions;
        tasks.push(tokio::spawn(async move {
            let mut from = 0;
            while !over.load(Ordering::Relaxed) {
                let first = n * share + from + 1;
                let update = "update t set n = n + 1 where id >= $1 and id < $2";
                client.execute(update, &[&first, &(first + AT_ONCE)]).await.unwrap();
                from = (from + AT_ONCE) % share;
            }
        }));
    }
    tasks
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_writers_fill_faster_than_it_is_drained_stays_bounded() {
    let db = Database::new().await;
    db.execute(&format!(
        "create table t (id bigint primary key, at timestamptz not null, n bigint not null default 0, note text);
         insert into t select i, '2024-01-01'::timestamptz + i * interval '10 minutes', 0, repeat('x', 100)
           from generate_series(1, {ROWS}) i;
         create index on t (n); create index on t (note, at); analyze t"
    ))
    .await;
    let over = Arc::new(AtomicBool::new(false));
    let plan = db.plan(
        "name = 'job'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\n[throttle]\nrows_per_second = 5000\n",
    );
    let mut run = db.command(&["run", plan.to_str().unwrap()]).spawn().unwrap();
    let client = db.client().await;
    until("the job captures changes", async || {
        let captured =
            client.query_one("select count(*) > 0 from pgstrata.jobs where state = 'capturing'", &[]).await;
        captured.is_ok_and(|row| row.get(0))
    })
    .await;
    let writers = update_in_loops(&db, 2, &over).await;
    // The job reports rates, size and advice, and compacts the log.
    let mut stderr = BufReader::new(run.stderr.take().unwrap()).lines();
    let (mut deficit, mut compacted) = (None, false);
    within("a report of the deficit, and a compaction", async {
        while deficit.is_none() || !compacted {
            let line = stderr.next_line().await.unwrap().expect("the job ended early");
            compacted |= line.contains("compacted the change log");
            if line.contains("changes are written faster than they are drained: ") {
                deficit = Some(line);
            }
        }
    })
    .await;
    let deficit = deficit.unwrap();
    for number in [
        " per second written",
        " per second drained",
        "the change log holds ",
        " per minute",
        "reduce the writes",
    ] {
        assert!(deficit.contains(number), "{number}: {deficit}");
    }
    // Without compaction, the log would have an entry for each change.
    let log = db.count("select count(*) from pgstrata.changes_job").await;
    let written = db.count("select sum(n)::bigint from t").await;
    assert!(log < written / 2, "{log} of {written}");
    over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    while stderr.next_line().await.unwrap().is_some() {}
    ended(run).await.ok();
    assert_eq!(db.count("select count(*) from pgstrata.jobs where state = 'verified'").await, 1);
    // Once the writers have stopped, no change is pending and none is lost.
    db.pgstrata(&["swap", "job"]).await.ok();
    oracle::compare(&db, "t", "t_old").await;
}

/// A job whose change log has an entry for each row when the drain begins, one of which belongs to an open transaction.
async fn outgrown() -> (Lab, tokio_postgres::Client) {
    let lab = Lab::new(
        "create table t (id bigint primary key, at timestamptz not null, n bigint not null default 0);
         insert into t select i, '2024-01-01'::timestamptz + i * interval '1 hour' from generate_series(1, 3000) i;
         create index on t (n); alter table t add constraint small check (n < 1000); analyze t",
        "name = 'job'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\n",
    )
    .await;
    lab.killed("run", "index.done").await;
    let open = lab.db.client().await;
    open.batch_execute(
        "begin; update t set n = n + 100 where id = 7; insert into t values (0, '2024-01-01')",
    )
    .await
    .unwrap();
    lab.db
        .execute(
            "update t set n = n + 1 where id <> 7; update t set n = n + 1 where id <> 7; delete from t where id % 10 = 3;
             update t set at = at + interval '2 months' where id % 10 = 4",
        )
        .await;
    (lab, open)
}

const RESYNCS: &str = "select count(*) from pgstrata.events where what = 'resync'";

#[tokio::test]
async fn a_table_that_its_change_log_has_outgrown_is_copied_again() {
    let (lab, open) = outgrown().await;
    lab.db.execute("create table truth as select * from t").await;
    // At the default rate, the log would be drained in no time.
    let slow = [("PGSTRATA_DRAIN_RATE", "1")];
    let killed = [slow[0], ("PGSTRATA_FAILPOINT", "resync.forgotten")];
    let ran = ended(lab.start("run --json", &killed)).await.killed("resync.forgotten");
    assert!(ran.stdout.contains("\"code\":\"copy_starts_over\""), "{ran:?}");
    // What is visible is left to the copy; what is not yet visible remains in the log.
    assert_eq!(lab.status().await["state"], "capturing");
    lab.none("select count(*) from pgstrata.changes_job").await;
    open.batch_execute("commit").await.unwrap();
    assert_eq!(lab.count("select count(*) from pgstrata.changes_job").await, 2);
    ended(lab.start("run", &slow)).await.ok();
    assert_eq!(lab.count(RESYNCS).await, 1);
    lab.steps(&["verify", "swap"]).await;
    lab.db
        .execute("update truth set n = n + 100 where id = 7; insert into truth values (0, '2024-01-01', 0)")
        .await;
    oracle::compare(&lab.db, "t", "truth").await;
    oracle::compare(&lab.db, "t_old", "truth").await;
    // The constraint and the indexes are those of the table, as after a single copy.
    lab.none("select count(*) from pg_constraint where conrelid = 't'::regclass and not convalidated").await;
    assert_eq!(
        lab.count("select count(*) from pg_index where indrelid = 't'::regclass and indisvalid").await,
        2
    );
    lab.steps(&["rollback", "swap", "finalize --now"]).await;
    oracle::compare(&lab.db, "t", "truth").await;
}

#[tokio::test]
async fn a_log_is_drained_if_the_table_was_copied_again_twice_or_something_depends_on_the_copy() {
    let (lab, open) = outgrown().await;
    open.batch_execute("rollback").await.unwrap();
    lab.db
        .execute("create table truth as select * from t; create view on_copy as select id from t_new")
        .await;
    let slow = [("PGSTRATA_DRAIN_RATE", "1")];
    ended(lab.start("run", &[slow[0], ("PGSTRATA_FAILPOINT", "drain.done")])).await.killed("drain.done");
    lab.none(RESYNCS).await;
    lab.db.execute("drop view on_copy").await;
    lab.steps(&["run", "swap"]).await;
    oracle::compare(&lab.db, "t", "truth").await;

    let (lab, open) = outgrown().await;
    open.batch_execute("rollback").await.unwrap();
    for resyncs in [1, 2] {
        let killed = [slow[0], ("PGSTRATA_FAILPOINT", "index.done")];
        ended(lab.start("run", &killed)).await.killed("index.done");
        assert_eq!(lab.count(RESYNCS).await, resyncs);
        lab.db.execute("update t set n = n + 1").await;
    }
    ended(lab.start("run", &slow)).await.ok();
    assert_eq!(lab.count(RESYNCS).await, 2);
    lab.db.execute("create table truth as select * from t").await;
    lab.steps(&["run", "swap"]).await;
    oracle::compare(&lab.db, "t", "truth").await;
}
