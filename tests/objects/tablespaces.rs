//! Objects that the job creates are in the tablespaces of the original objects.

use super::make_the_last_anew;
use crate::support::cluster::{Database, SETTINGS};
use pgstrata::demo::server::PrivateServer;

const SETUP: &str = "
    create table t (id bigint primary key, at timestamptz not null, v text, n integer not null check (n > 0));
    insert into t select i, timestamptz '2024-01-01Z' + i * interval '3 hours', 'v', i from generate_series(1, 1500) i;
    create index t_v on t (v) where v <> 'w';
    create index t_n on t (n) with (fillfactor = 50);
    create unique index t_id_n on t (id, at, n);
    create materialized view m as select v, count(*) as n from t group by v;
    create unique index m_v on m (v);
    analyze t";

const PLAN: &str = "name = 'job'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\n";

/// A server with two additional tablespaces, and a database on it.
async fn database() -> (PrivateServer, Database) {
    let server = PrivateServer::start(SETTINGS).unwrap();
    let db = Database::on(&server).await;
    let client = db.client().await;
    client.batch_execute("set allow_in_place_tablespaces = on").await.unwrap();
    for space in ["fast", "cold"] {
        client.batch_execute(&format!("create tablespace {space} location ''")).await.unwrap();
    }
    (server, db)
}

/// The number of relations that are not in the tablespace that the SQL expression `wanted` returns for them.
async fn misplaced(db: &Database, wanted: &str) -> i64 {
    db.count(&format!(
        "select count(*) from pg_class c left join pg_tablespace s on s.oid = c.reltablespace
         where c.relnamespace in (to_regnamespace('public'), to_regnamespace('pgstrata')) and c.relkind in ('r', 'p', 'i', 'I', 'm', 'S')
           and coalesce(s.spcname, '') <> ({wanted})"
    ))
    .await
}

async fn whole_life(db: &Database, plan: &str, wanted: &str) {
    assert_eq!(misplaced(db, wanted).await, 0, "before");
    let file = db.plan(plan);
    db.pgstrata(&["run", file.to_str().unwrap()]).await.ok();
    assert_eq!(misplaced(db, wanted).await, 0, "run");
    for command in ["swap", "rollback", "swap"] {
        db.pgstrata(&[command, "job"]).await.ok();
        assert_eq!(misplaced(db, wanted).await, 0, "{command}");
    }
    db.pgstrata(&["finalize", "job", "--now"]).await.ok();
    assert_eq!(misplaced(db, wanted).await, 0, "finalize");
}

#[tokio::test]
async fn each_index_is_in_the_tablespace_of_the_original() {
    const WANTED: &str = "case when c.relname ~ '^t.*_(v|pkey)(_new|_old|$)' then 'fast' \
        when c.relname ~ '_id_n(_new|_old|$)|^m_v' then 'cold' else '' end";
    let (_server, db) = database().await;
    db.execute(SETUP).await;
    db.execute(
        "alter index t_v set tablespace fast; alter index t_pkey set tablespace fast; alter index t_id_n set tablespace cold;
         alter index m_v set tablespace cold",
    )
    .await;
    whole_life(&db, PLAN, WANTED).await;
    // Also for partitions that are created later.
    make_the_last_anew(&db).await;
    assert_eq!(misplaced(&db, WANTED).await, 0, "maintain");
}

#[tokio::test]
async fn default_tablespace_is_not_used() {
    let (_server, db) = database().await;
    db.execute(SETUP).await;
    db.execute("do $$ begin execute format('alter database %I set default_tablespace = fast', current_database()); end $$").await;
    whole_life(&db, PLAN, "''").await;
    // A table and a materialized view that are in another tablespace stay there.
    let (_server, db) = database().await;
    db.execute(SETUP).await;
    db.execute("alter table t set tablespace cold; alter materialized view m set tablespace fast").await;
    db.execute("do $$ begin execute format('alter database %I set default_tablespace = fast', current_database()); end $$").await;
    whole_life(
        &db,
        PLAN,
        "case when c.relkind in ('r', 'p') and c.relname ~ '^t' and c.relnamespace = 'public'::regnamespace \
        then 'cold' when c.relkind = 'm' then 'fast' else '' end",
    )
    .await;
}

#[tokio::test]
async fn a_retyped_columns_indexes_stay_where_they_are() {
    let (_server, db) = database().await;
    db.execute(SETUP).await;
    db.execute("drop materialized view m; alter index t_n set tablespace fast; alter index t_pkey set tablespace cold").await;
    db.execute("do $$ begin execute format('alter database %I set default_tablespace = cold', current_database()); end $$").await;
    let retype = |column: &str, to: &str| {
        format!("name = 'job'\nkind = 'retype'\ntable = 't'\n[retype]\ncolumn = '{column}'\nto = '{to}'\n")
    };
    const WANTED: &str = "case when c.relname ~ '^t_n(_new|_old|$)' then 'fast' when c.relname ~ '^t_pkey' then 'cold' else '' end";
    whole_life(&db, &retype("n", "bigint"), WANTED).await;
    whole_life(&db, &retype("id", "numeric"), WANTED).await;
}
