//! Databases whose encoding is SQL_ASCII: text can contain any bytes.

use std::path::Path;

use tokio_postgres::Client;

use crate::support::checks::{MONTHS, check_as, findings};
use crate::support::cluster::{Database, connect};
use crate::support::process::Ran;

/// A database of that encoding.
struct Ascii {
    db: Database,
    dsn: String,
    client: Client,
}

async fn database(setup: &str) -> Ascii {
    let db = Database::new().await;
    let name = format!("{}_bytes", db.name());
    db.execute(&format!(
        "create database {name} encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C' template template0"
    ))
    .await;
    let dsn = format!("{} dbname={name}", db.dsn());
    let client = connect(&dsn).await;
    client.batch_execute(setup).await.unwrap();
    Ascii { db, dsn, client }
}

impl Ascii {
    async fn pgstrata(&self, args: &[&str]) -> Ran {
        self.db.pgstrata_with(args, &[("DATABASE_URL", &self.dsn)]).await
    }

    async fn run(&self, plan: &Path) -> Ran {
        self.pgstrata(&["run", plan.to_str().unwrap()]).await
    }

    /// Asserts that a query counts nothing.
    async fn none(&self, sql: &str) {
        let found: i64 = self.client.query_one(sql, &[]).await.unwrap().get(0);
        assert_eq!(found, 0, "{sql}");
    }
}

const TABLE: &str = r"create table t (id int primary key, at timestamptz not null, name text not null, other text, n text not null);
    insert into t select i, timestamptz '2024-01-15 00:00Z' + i * interval '1 day', E'caf\351 ' || i, null, i
      from generate_series(0, 199) i; create index t_name on t (name); analyze t;";

#[tokio::test]
async fn a_key_that_is_not_valid_utf8() {
    let db = database(
        r"create table t (id text primary key, at timestamptz not null);
          insert into t select 'k' || i, timestamptz '2024-01-15 00:00Z' + i * interval '1 day' from generate_series(0, 99) i;
          analyze t",
    )
    .await;
    let Ascii { db, dsn, client } = db;
    let user = format!("postgres dbname={}", dsn.rsplit_once("dbname=").unwrap().1);
    assert_eq!(findings(&check_as(&db, &user, MONTHS).await), ["warning[key_not_utf8]: public.t"]);
    client.batch_execute(r"update t set id = E'caf\351' where id = 'k7'").await.unwrap();
    assert_eq!(findings(&check_as(&db, &user, MONTHS).await), ["error[key_not_utf8]: public.t"]);
}

#[tokio::test]
async fn bytes_that_are_not_utf8_are_carried_over() {
    let db = database(TABLE).await;
    let write = r"insert into t values (1000, '2024-03-03Z', E'\377\376', E'\200', '7');
        update t set name = E'\351t\351' where id = 7; update t set at = at + interval '40 days', other = E'\303' where id = 8;
        delete from t where id = 9";
    let plan = db.db.plan(&format!("name = 'months'\n{MONTHS}"));
    db.run(&plan).await.ok();
    db.client.batch_execute(write).await.unwrap();
    db.pgstrata(&["swap", "months"]).await.ok();
    db.client.batch_execute(r"update t set name = name || E'\377' where id = 10").await.unwrap();
    for command in ["verify", "rollback", "swap"] {
        db.pgstrata(&[command, "months"]).await.ok();
    }
    db.pgstrata(&["finalize", "months", "--now"]).await.ok();
    db.none(r"select count(*) from t where name is distinct from case id when 1000 then E'\377\376' when 7 then E'\351t\351'
        when 10 then E'caf\351 10\377' else E'caf\351 ' || id end").await;
    db.none("select 200 - count(*) from t").await;
}

#[tokio::test]
async fn bytes_that_are_not_utf8_are_filled() {
    let db = database(TABLE).await;
    let plan = db.db.plan(
        "name = 'fill'\nkind = 'backfill'\ntable = 't'\n[backfill]\nset = { other = \"upper(t.name) || convert_from('\\\\xff'::bytea, 'SQL_ASCII')\" }\n\
         keep_filled = 'always'\nfinish = { not_null = ['other'], unique = [['other']], index = ['(lower(other))'] }\n",
    );
    let checked = db.pgstrata(&["check", plan.to_str().unwrap(), "--sample", "200"]).await.ok();
    assert!(!checked.stdout.contains("warning[key_not_utf8]"), "{checked:?}");
    db.run(&plan).await.ok();
    db.client
        .batch_execute(r"insert into t values (1000, '2024-03-03Z', E'\377\376', null, '7')")
        .await
        .unwrap();
    db.none(r"select count(*) from t where other is distinct from upper(name) || E'\377'").await;
}

#[tokio::test]
async fn bytes_that_are_not_utf8_are_converted() {
    let db = database(TABLE).await;
    let plan = |to: &str, using: &str| {
        db.db.plan(&format!(
            "name = 'as'\nkind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'name'\nto = '{to}'\nusing = '{using}'\n"
        ))
    };
    db.run(&plan("varchar(40)", "t.name")).await.ok();
    for command in ["swap", "rollback", "swap"] {
        db.client.batch_execute(r"update t set name = E'\351' || id where id in (7, 8)").await.unwrap();
        db.pgstrata(&[command, "as"]).await.ok();
    }
    db.pgstrata(&["verify", "as"]).await.ok();
    db.pgstrata(&["finalize", "as", "--now"]).await.ok();
    db.none(r"select count(*) from t where name is distinct from case when id in (7, 8) then E'\351' || id else E'caf\351 ' || id end").await;
    // A value that cannot be converted: its row is reported by key.
    let refused = db.run(&plan("bigint", "t.name::bigint")).await.exits(3);
    assert!(refused.stdout.contains("error[row_refused]: public.t: the update of rows "), "{refused:?}");
}
