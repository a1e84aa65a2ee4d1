//! The time between swap and finalize: manual changes to partitions, and transactions whose snapshot is older than the
//! swap.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::cluster::Database;
use crate::support::window::{rolls_back_and_swaps, swapped, verified};

#[tokio::test]
async fn a_truncated_partition_is_emptied_by_a_rollback() {
    let db = swapped().await;
    // Rows are inserted, moved and deleted before and after the TRUNCATE.
    db.execute(
        "insert into t values (1000, '2022-05-05', 'before'), (1001, '2023-05-05', 'moves away');
         update t set at = '2022-06-06' where id = 1; update t set at = '2021-06-06' where id = 150;
         truncate t_y2022;
         insert into t values (1002, '2022-07-07', 'after'); update t set at = '2022-08-08' where id = 1001;
         insert into t_y2022 values (1003, '2022-09-09', 'straight into it')",
    )
    .await;
    assert_eq!(db.count("select count(*) from t where at >= '2022-01-01' and at < '2023-01-01'").await, 3);
    rolls_back_and_swaps(&db).await;
}

#[tokio::test]
async fn a_truncated_table_is_emptied_by_a_rollback() {
    let db = swapped().await;
    db.execute(
        "truncate t; insert into t values (7, '2024-07-07', 'the only one'), (399, '2024-08-08', 'x')",
    )
    .await;
    rolls_back_and_swaps(&db).await;
}

/// Rows that disappear without a DELETE are not in the change log. A rollback would restore them, so it fails.
#[tokio::test]
async fn a_detached_or_dropped_partition_prevents_a_rollback() {
    let db = swapped().await;
    let refused = async || {
        let ran = db.pgstrata(&["rollback", "job", "--json"]).await.exits(4);
        let differ = ran.event("tables_differ");
        assert!(differ["missing"] == 0 && differ["extra"].as_u64().unwrap() > 0, "{differ}");
        assert!(ran.error().to_string().contains("extra: key 1"), "{ran:?}");
    };
    db.execute("alter table t detach partition t_y2022").await;
    refused().await;
    db.execute("alter table t attach partition t_y2022 for values from ('2022-01-01 00:00+00') to ('2023-01-01 00:00+00')")
        .await;
    rolls_back_and_swaps(&db).await;
    db.execute("drop table t_y2022").await;
    refused().await;
}

/// A transaction that has a snapshot but has not used the table yet.
async fn with_a_snapshot(db: &Database, isolation: &str) -> Client {
    let client = db.client().await;
    client
        .batch_execute(&format!("begin isolation level {isolation}; select count(*) from pg_class"))
        .await
        .unwrap();
    client
}

async fn is_guarded(db: &Database) -> bool {
    db.count("select count(*) from pg_trigger where tgname = 'pgstrata_guard' and tgrelid = 't'::regclass")
        .await
        > 0
}

/// The snapshot does not contain the changes of the last drain, so a write would silently find no row. Instead it fails
/// with a serialization failure, which an application retries at these isolation levels anyway.
async fn is_guarded_after(db: &Database, command: &str) {
    let writes = [
        "update t set note = 'late' where id = 5",
        "delete from t where id = 6",
        "insert into t values (2000, '2023-03-03', 'late')",
        "insert into t values (7, '2021-01-26 07:12+00', 'late') on conflict do nothing",
    ];
    let mut late = Vec::new();
    for (write, isolation) in writes.into_iter().zip(["repeatable read", "serializable"].into_iter().cycle())
    {
        late.push((write, with_a_snapshot(db, isolation).await));
    }
    // A change that only the last drain applies: the snapshots contain it in neither table.
    db.execute("update t set note = 'written while they waited' where id = 5").await;
    db.pgstrata(&[command, "job"]).await.ok();
    db.execute("update t set note = note || '!' where id = 5").await;
    assert!(is_guarded(db).await, "after {command}");
    for (write, client) in &late {
        let error = client.batch_execute(write).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{write}: {error:?}");
        client.batch_execute("rollback").await.unwrap();
    }
    let client = with_a_snapshot(db, "serializable").await;
    assert_eq!(client.execute("update t set note = 'in time' where id = 5", &[]).await.unwrap(), 1);
    client.batch_execute("commit").await.unwrap();
    // The guard is dropped once the last old snapshot is gone. A running autovacuum also has a snapshot.
    while is_guarded(db).await {
        db.pgstrata(&["sync", "job"]).await.ok();
    }
    db.pgstrata(&["verify", "job"]).await.ok();
}

#[tokio::test]
async fn a_write_with_a_snapshot_older_than_the_swap_fails() {
    let db = verified().await;
    is_guarded_after(&db, "swap").await;
    is_guarded_after(&db, "rollback").await;
}
