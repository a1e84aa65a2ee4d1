//! A subscriber of another version keeps working through every swap: no table is copied again, nothing fails, no row is
//! missing.

use std::time::Duration;

use tokio_postgres::Client;

use crate::support::cluster::{Database, Version};
use crate::support::wait::until;
use crate::support::writers::Writers;

const TABLES: &str = "
    create table t (id bigint primary key, at timestamptz not null, note text);
    create table other (id bigint primary key, at timestamptz not null, note text)";
const ROWS: &str = "
    insert into t select i, timestamptz '2024-01-01 00:00Z' + i * interval '2 hours', 'note ' || i from generate_series(1, 4000) i;
    insert into other select * from t where id <= 10;
    create publication p for table t, other";

#[tokio::test]
async fn a_newer_subscriber_keeps_working() {
    if Version::V17.is_there() {
        keeps_working(Version::System, Version::V17).await;
    }
}

#[tokio::test]
async fn an_older_subscriber_keeps_working() {
    if Version::V17.is_there() {
        keeps_working(Version::V17, Version::System).await;
    }
}

/// Starts an application; the number of its first transaction is `from`.
async fn application(db: &Database, from: u64) -> Writers {
    let client = db.client().await;
    let mut writers = Writers::default();
    writers.add(|shift| async move {
        for n in from.. {
            let sql = format!(
                "begin;
                 insert into t values (10000 + {n}, timestamptz '2024-01-01 00:00Z' + {n} % 300 * interval '1 day', 'new');
                 update t set note = 'changed {n}' where id = {n} % 4000;
                 update t set at = timestamptz '2024-12-01 00:00Z' - {n} % 300 * interval '1 day' where id = ({n} * 7) % 4000;
                 delete from t where id = 10000 + {n} - 40 and {n} % 3 = 0;
                 update other set note = '{n}' where id = {n} % 10;
                 commit"
            );
            client.batch_execute(&sql).await.unwrap_or_else(|e| panic!("{e:?}"));
            shift.committed();
            if !shift.is_open() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    writers
}

/// Waits until a query returns true, and asserts that the subscription has no error meanwhile.
async fn until_true(client: &Client, sql: &str, subscriber: &Client) {
    let errors = "select coalesce(sum(apply_error_count + sync_error_count), 0)::bigint from pg_stat_subscription_stats";
    until(sql, async || {
        assert_eq!(subscriber.query_one(errors, &[]).await.unwrap().get::<_, i64>(0), 0);
        client.query_one(sql, &[]).await.unwrap().get(0)
    })
    .await;
}

/// The tables of the subscription, with the state and position of their initial synchronization.
async fn relations(subscriber: &Client) -> Vec<String> {
    let sql = "select format('%s %s %s', srrelid::regclass, srsubstate, srsublsn) from pg_subscription_rel order by 1";
    subscriber.query(sql, &[]).await.unwrap().iter().map(|r| r.get(0)).collect()
}

async fn content(client: &Client) -> Vec<(i64, String)> {
    let mut all = Vec::new();
    for table in ["t", "other"] {
        let sql = format!(
            "select count(*), md5(string_agg(row(id, at at time zone 'UTC', note)::text, '|' order by id)) from {table}"
        );
        let row = client.query_one(&sql, &[]).await.unwrap();
        all.push((row.get(0), row.get(1)));
    }
    all
}

async fn keeps_working(publisher: Version, subscriber: Version) {
    let (publisher, subscriber) = (publisher.start(&[("wal_level", "logical")]), subscriber.start(&[]));
    let (here, there) = (Database::on(&publisher).await, Database::on(&subscriber).await);
    here.execute(TABLES).await;
    here.execute(ROWS).await;
    there.execute(TABLES).await;
    there.execute(&format!("create subscription s connection '{}' publication p", here.dsn())).await;
    let (source, copy) = (here.client().await, there.client().await);
    let ready = "select count(*) = 2 from pg_subscription_rel where srsubstate = 'r'";
    until_true(&copy, ready, &copy).await;
    let before = relations(&copy).await;

    let plan = here.plan(
        "name = 'job'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\nto = '2025-01-01'\n\
         [swap]\nlock_timeout = '200ms'\nattempts = 1000\n",
    );
    let mut n = 1;
    for command in ["run", "swap", "rollback", "swap", "finalize"] {
        let writer = application(&here, n).await;
        match command {
            "run" => here.pgstrata(&["run", plan.to_str().unwrap()]).await.ok(),
            "finalize" => here.pgstrata(&["finalize", "job", "--now"]).await.ok(),
            _ => here.pgstrata(&[command, "job"]).await.ok(),
        };
        writer.commit_more(20).await;
        n += writer.stop().await;
        let reached: String =
            source.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
        let replayed = format!(
            "select coalesce(bool_and(replay_lsn >= '{reached}'), false) from pg_stat_replication where application_name = 's'"
        );
        until_true(&source, &replayed, &copy).await;
        assert_eq!(content(&copy).await, content(&source).await, "{command}");
        assert_eq!(relations(&copy).await, before, "{command}: tables were copied again");
    }
    there.execute("drop subscription s").await;
}
