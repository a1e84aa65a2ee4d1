//! `maintain` keeps key tables in sync with the partitioned table when partitions come and go.

use crate::support::cluster::{Database, Version, on_oldest_and_newest};

/// A table with rows of a year, and rows that reference some of them.
const SETUP: &str = "
    create table t (id int primary key, code text not null unique, at date not null);
    insert into t select i, 'c' || i, now()::date - i from generate_series(0, 364) i;
    create table c (t_id int references t);
    insert into c select i from generate_series(0, 99) i; analyze t";

/// Whether both key tables have exactly the keys of the table.
const LEVEL: &str = "select count(*) from (
    (select id::text from t except all select id::text from t_pkey_keys) union all (select id::text from t_pkey_keys except all select id::text from t)
    union all (select code from t except all select code from t_code_key_keys) union all (select code from t_code_key_keys except all select code from t)) x";

async fn partitions_come_and_go(version: Version) {
    for default in [true, false] {
        let db = Database::of(version).await;
        db.execute(SETUP).await;
        let plan = db.plan(&format!(
            "table = 't'\n[partition]\nby = 'at'\nevery = 'month'\ndefault = {default}\n[retention]\nkeep = '6 months'\nhow = 'drop'"
        ));
        db.pgstrata(&["run", plan.to_str().unwrap(), "--swap"]).await.ok();
        db.pgstrata(&["finalize", "t", "--now"]).await.ok();
        let before = db.count("select count(*) from t").await;
        db.pgstrata(&["maintain"]).await.ok();
        assert!(db.count("select count(*) from t").await < before - 100);
        assert_eq!(db.count(LEVEL).await, 0);
        // A key of a row that is gone may be used again.
        db.execute("insert into t values (364, 'c364', now())").await;
        db.execute("update t set at = now() + interval '5 months' where false").await;
        // A new partition removes its keys when it is truncated.
        let newest =
            "select relid::regclass::text from pg_partition_tree('t') join pg_class c on c.oid = relid
            where isleaf and relname !~ 'default' order by relname desc limit 1";
        db.execute("drop table c").await;
        db.execute(&format!(
            "do $$ declare leaf text := ({newest}); bound text; begin
               select (regexp_match(pg_get_expr(relpartbound, oid), 'FROM \\(''(.*)''\\) TO'))[1] into bound
                 from pg_class where oid = leaf::regclass;
               execute format('insert into t values (9999, ''c9999'', %L)', bound);
               execute format('truncate %s', leaf); end $$"
        ))
        .await;
        assert_eq!(db.count("select count(*) from t where id = 9999").await, 0);
        assert_eq!(db.count(LEVEL).await, 0);
    }
}

async fn a_partition_with_referenced_rows_stays(version: Version) {
    let db = Database::of(version).await;
    db.execute(&format!("{SETUP}; insert into c values (364)")).await;
    let plan = db.plan(
        "table = 't'\n[partition]\nby = 'at'\nevery = 'month'\n[retention]\nkeep = '6 months'\nhow = 'drop'",
    );
    db.pgstrata(&["run", plan.to_str().unwrap(), "--swap"]).await.ok();
    db.pgstrata(&["finalize", "t", "--now"]).await.ok();
    let ran = db.pgstrata(&["maintain"]).await;
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert_eq!(db.count("select count(*) from t where id = 364").await, 1);
    assert_eq!(db.count(LEVEL).await, 0);
    db.execute("delete from c where t_id = 364").await;
    db.pgstrata(&["maintain"]).await.ok();
    assert_eq!(db.count("select count(*) from t where id = 364").await, 0);
    assert_eq!(db.count(LEVEL).await, 0);
}

on_oldest_and_newest!(partitions_come_and_go, a_partition_with_referenced_rows_stays);
