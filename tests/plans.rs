//! The query plans that the planner chooses before and after a swap, with the statistics that the job collects.

use std::path::PathBuf;

use tokio_postgres::Client;

use crate::support::cluster::{Database, Version, on_every_version};

on_every_version! {
    a_query_by_the_partition_column_reads_one_partition,
    statistics_are_fresh_after_the_swap,
}

const EVENTS: &str = "create table events (id bigint primary key, at timestamptz not null, kind int not null, note text);
    create index events_at on events (at);
    insert into events select i, timestamptz '2024-01-01 00:00Z' + i * interval '10 minutes', i % 7, repeat('x', 50)
    from generate_series(0, 29999) i;
    analyze events";

const PLAN: &str =
    "table = 'events'\n[partition]\nby = 'at'\nevery = 'month'\nto = '2024-08-01'\nahead = 0\n";

const BY_COLUMN: &str = "select count(note) from events where at >= '2024-03-10Z' and at < '2024-03-11Z'";
const BY_KEY: &str = "select note from events where id = 4711";
const BY_BOTH: &str = "select note from events where id = 4711 and at = '2024-02-02 17:10Z'";

/// A table with autovacuum disabled, and the plan of its job.
async fn events(version: Version) -> (Database, PathBuf) {
    let db = Database::of(version).await;
    db.execute(EVENTS).await;
    db.execute("alter table events set (autovacuum_enabled = off)").await;
    let plan = db.plan(PLAN);
    (db, plan)
}

/// The scans in the query plan, without costs.
async fn scans(client: &Client, query: &str) -> Vec<String> {
    let rows = client.query(&format!("explain (costs off) {query}"), &[]).await.unwrap();
    let lines = rows.iter().map(|row| row.get::<_, &str>(0).trim_start_matches([' ', '-', '>']).to_owned());
    lines.filter(|line| line.contains("Scan")).collect()
}

async fn explained(db: &Database) -> String {
    let client = db.client().await;
    // Settings as on an idle machine with fast storage.
    client.batch_execute("set random_page_cost = 1.1; set enable_bitmapscan = off").await.unwrap();
    let mut output = String::new();
    for query in [BY_COLUMN, BY_KEY] {
        output += &format!("{query}\n");
        for scan in scans(&client, query).await {
            output += &format!("  {scan}\n");
        }
    }
    output
}

async fn a_query_by_the_partition_column_reads_one_partition(version: Version) {
    let (db, plan) = events(version).await;
    let before = explained(&db).await;
    insta::allow_duplicates! { insta::assert_snapshot!(before, @"
    select count(note) from events where at >= '2024-03-10Z' and at < '2024-03-11Z'
      Index Scan using events_at on events
    select note from events where id = 4711
      Index Scan using events_pkey on events
    ") }
    db.pgstrata(&["run", plan.to_str().unwrap(), "--swap"]).await.ok();
    let after = explained(&db).await;
    insta::allow_duplicates! { insta::assert_snapshot!(after, @"
    select count(note) from events where at >= '2024-03-10Z' and at < '2024-03-11Z'
      Index Scan using events_y2024m03_at on events_y2024m03 events
    select note from events where id = 4711
      Index Scan using events_y2024m01_pkey on events_y2024m01 events_1
      Index Scan using events_y2024m02_pkey on events_y2024m02 events_2
      Index Scan using events_y2024m03_pkey on events_y2024m03 events_3
      Index Scan using events_y2024m04_pkey on events_y2024m04 events_4
      Index Scan using events_y2024m05_pkey on events_y2024m05 events_5
      Index Scan using events_y2024m06_pkey on events_y2024m06 events_6
      Index Scan using events_y2024m07_pkey on events_y2024m07 events_7
      Seq Scan on events_default events_8
    ") }
    // The planner may use either index, because they cost the same.
    let both = scans(&db.client().await, BY_BOTH).await;
    assert!(both.len() == 1 && both[0].contains(" on events_y2024m02 "), "{both:?}");
    db.pgstrata(&["rollback", "events"]).await.ok();
    assert_eq!(explained(&db).await, before);
}

/// The number of rows that the planner expects.
async fn expected(client: &Client, query: &str) -> f64 {
    let row = client.query_one(&format!("explain (format json) {query}"), &[]).await.unwrap();
    let plan: serde_json::Value = row.get(0);
    plan[0]["Plan"]["Plan Rows"].as_f64().unwrap()
}

async fn statistics_are_fresh_after_the_swap(version: Version) {
    let (db, plan) = events(version).await;
    let client = db.client().await;
    let by_kind = "select * from events where kind = 3";
    let was = expected(&client, by_kind).await;
    db.pgstrata(&["run", plan.to_str().unwrap(), "--swap"]).await.ok();
    let is = expected(&client, by_kind).await;
    assert!((is / was - 1.0).abs() < 0.3, "{was} rows were expected, now {is}");
    for (what, sql) in [
        ("rows of the parent", "select reltuples::bigint from pg_class where oid = 'events'::regclass"),
        (
            "rows of the partitions",
            "select sum(reltuples)::bigint from pg_inherits join pg_class on oid = inhrelid where inhparent = 'events'::regclass",
        ),
    ] {
        assert_eq!(db.count(sql).await, 30_000, "{what}");
    }
    let columns = "select count(distinct attname) from pg_stats where tablename = 'events' and inherited";
    assert_eq!(db.count(columns).await, 4);
}
