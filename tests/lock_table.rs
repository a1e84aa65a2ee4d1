//! The server's lock table: `check` rejects a job whose swap or rollback would need too many entries, and a job that
//! finds the table full stops at once.

use crate::support::checks::{check, errors};
use crate::support::cluster::{Database, Version};

/// A server whose lock table has about 400 entries.
fn server() -> pgstrata::demo::server::PrivateServer {
    Version::System.start(&[
        ("max_locks_per_transaction", "10"),
        ("max_connections", "20"),
        ("max_wal_senders", "0"),
        ("wal_level", "replica"),
        ("superuser_reserved_connections", "0"),
    ])
}

const TABLE: &str = "create table t (id int, at int not null, primary key (id, at));
    insert into t select i, i from generate_series(0, 59) i; analyze t";

fn plan(every: u32) -> String {
    format!("table = 't'\n[partition]\nby = 'at'\nevery = {every}\nfrom = 0\nto = 60\n[copy]\nworkers = 1\n")
}

#[tokio::test]
async fn a_rollback_that_would_not_fit_is_refused() {
    let server = server();
    let db = Database::on(&server).await;
    db.execute(TABLE).await;
    assert_eq!(errors(&check(&db, &plan(5)).await), [""; 0]);
    db.execute("create table c (id int, at int, foreign key (id, at) references t); create table d (like c, foreign key (id, at) references t)")
        .await;
    assert_eq!(errors(&check(&db, &plan(5)).await), [""; 0]);
    assert_eq!(errors(&check(&db, &plan(1)).await), ["error[lock_table_full]: public.t"]);
    // A job that fits can be swapped and rolled back.
    let file = db.plan(&plan(5));
    db.pgstrata(&["run", file.to_str().unwrap(), "--swap"]).await.ok();
    db.pgstrata(&["rollback", "t"]).await.ok();
}

#[tokio::test]
async fn a_full_lock_table_stops_the_job_at_once() {
    let server = server();
    let db = Database::on(&server).await;
    db.execute(TABLE).await;
    let file = db.plan(&plan(5));
    db.pgstrata(&["run", file.to_str().unwrap()]).await.ok();
    for i in 0..20 {
        let tables: Vec<String> = (0..20).map(|j| format!("create table other_{i}_{j} ()")).collect();
        db.execute(&tables.join("; ")).await;
    }
    // Another session holds locks until the table is full.
    let hog = db.client().await;
    hog.batch_execute("begin").await.unwrap();
    let mut full = false;
    'fill: for i in 0..20 {
        for j in 0..20 {
            let lock = format!("savepoint a; lock table other_{i}_{j}");
            if hog.batch_execute(&lock).await.is_err() {
                full = true;
                hog.batch_execute("rollback to a").await.unwrap();
                break 'fill;
            }
        }
    }
    assert!(full, "400 locks fit");
    let ran = db.pgstrata(&["swap", "t"]).await.exits(1);
    assert!(ran.stderr.contains("max_locks_per_transaction"), "{}", ran.stderr);
    hog.batch_execute("rollback").await.unwrap();
    db.pgstrata(&["swap", "t"]).await.ok();
}
