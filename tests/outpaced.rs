//! Writers that are faster than the drain: the change log stays bounded, the job reports the rates, and it ends once
//! the writers slow down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinHandle;

use crate::support::cluster::Database;
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
