//! Key tables in dumps and on logical replication subscribers.

use pgstrata::demo::server::PrivateServer;

use super::{KeyedBy, Pair, SCHEMAS, outcome, rows, session};
use crate::support::cluster::{Database, Version, on_version};
use crate::support::wait::until;

// The distribution's pg_dump cannot read newer servers.
on_version!(oldest V14 a_restored_table_works);
on_version!(system System a_restored_table_works a_subscriber_follows);

const CHILDREN: [&str; 3] = ["cas", "noa", "nul"];

async fn fill(pair: &Pair) {
    for child in CHILDREN {
        pair.both(&format!("insert into {child} select g, g from generate_series(1, 4) g")).await;
    }
    pair.both("update t set ts = ts + 31 where id < 3; delete from t where id = 8; update t set id = 70 where id = 7").await;
}

/// A server with the programs of the distribution.
struct Dumps {
    server: PrivateServer,
}

impl Dumps {
    /// Runs `pg_dump` for schema `parted` with these options, and restores its output.
    async fn copy(&self, from: &Database, options: &str, server: &Self, to: &Database) {
        let copy = format!(
            "{} {options} -n parted {} | {} -q -v ON_ERROR_STOP=1 {}",
            self.program("pg_dump"),
            self.connect(from),
            self.program("psql"),
            server.connect(to)
        );
        let made = tokio::process::Command::new("bash")
            .args(["-o", "pipefail", "-c", &copy])
            .output()
            .await
            .unwrap();
        assert!(made.status.success(), "{copy}: {}", String::from_utf8_lossy(&made.stderr));
    }

    fn connect(&self, db: &Database) -> String {
        let server = &self.server;
        format!("-h {} -p {} -U postgres -d {}", server.socket_dir().display(), server.port(), db.name())
    }

    fn program(&self, name: &str) -> String {
        self.server.command(name).get_program().to_str().unwrap().to_owned()
    }
}

/// A dump of the schema and the data, also in two parts, gives a table that works like the original one.
async fn a_restored_table_works(version: Version) {
    let dumps = Dumps { server: version.start(&[]) };
    let pair =
        Pair::new(Database::on(&dumps.server).await, &KeyedBy::Primary.setup(true), super::BY_MONTH).await;
    pair.lab.ok("finalize --now").await;
    fill(&pair).await;
    for options in [&[""][..], &["-s", "-a --disable-triggers"]] {
        let restored = Database::on(&dumps.server).await;
        for option in options {
            dumps.copy(&pair.lab.db, option, &dumps, &restored).await;
        }
        assert_works(&pair, &restored, &format!("{options:?}")).await;
    }
}

/// Asserts that another database has the same rows, and that the key table follows changes there.
async fn assert_works(pair: &Pair, restored: &Database, what: &str) {
    let client = session(restored, SCHEMAS[1]).await;
    for query in [
        "select row(id, ts, v)::text from t order by 1",
        "select id::text from key_keys order by 1",
        "select row(n, tid)::text from cas order by 1",
        "select row(n, tid)::text from noa order by 1",
        "select conname || pg_get_constraintdef(oid) from pg_constraint where conrelid = 'key_keys'::regclass or confrelid = 'key_keys'::regclass order by 1",
    ] {
        assert_eq!(rows(&client, query).await, rows(&pair.clients[1], query).await, "{what}: {query}");
    }
    for (statement, expected) in [
        ("insert into t values (1, '2024-03-15', 'dup')", "23505 key"),
        ("insert into t values (8, '2024-03-15', 'again')", "ok 1"),
        ("update t set ts = ts + 31 where id = 2", "ok 1"),
        ("insert into t values (2, '2024-01-15', 'dup')", "23505 key"),
        ("insert into cas values (9, 7)", "23503 cas_fk"),
        ("delete from t where id = 1", "23503 noa_fk"),
        ("delete from noa", "ok 4"),
        ("delete from t where id = 1", "ok 1"),
        ("select from cas where tid = 1", "ok 0"),
        ("select from nul where tid is null", "ok 1"),
        ("update t set id = id + 100 where id > 4", "ok 4"),
        ("truncate t, cas, res, noa, nul, def, imm", "ok 0"),
        ("insert into t values (1, '2024-03-15', 'first')", "ok 1"),
    ] {
        assert_eq!(outcome(&client, statement).await, expected, "{what}: {statement}");
    }
    assert_eq!(rows(&client, "select id::text from key_keys").await, ["1"]);
}

/// A subscriber with the same tables has the same keys, although changes of the key table are published, too.
async fn a_subscriber_follows(version: Version) {
    let (publisher, subscriber) =
        (version.start(&[("wal_level", "logical")]), Dumps { server: version.start(&[]) });
    let dumps = Dumps { server: publisher };
    let pair =
        Pair::new(Database::on(&dumps.server).await, &KeyedBy::Primary.setup(true), super::BY_MONTH).await;
    pair.lab.ok("finalize --now").await;
    fill(&pair).await;
    pair.lab
        .db
        .execute(
            "do $$ declare one regclass; begin
               for one in select oid from pg_class where relnamespace = 'parted'::regnamespace and relkind = 'r' and relname !~ '^key' loop
                 execute format('alter table %s replica identity full', one);
               end loop;
             end $$;
             create publication p for tables in schema parted",
        )
        .await;
    // The schema is restored on the other server.
    let there = Database::on(&subscriber.server).await;
    dumps.copy(&pair.lab.db, "-s", &subscriber, &there).await;
    there.execute(&format!("create subscription s connection '{}' publication p", pair.lab.db.dsn())).await;
    let copied = session(&there, SCHEMAS[1]).await;
    let ready = "select 'ready' from pg_subscription_rel having bool_and(srsubstate = 'r')";
    until("the subscription is ready", async || rows(&copied, ready).await == ["ready"]).await;
    for statement in [
        "insert into t values (800, '2024-01-01', 'r')",
        "update t set ts = ts + 31 where id in (800, 2)",
        "update t set id = 801 where id = 800",
        "update noa set tid = 4 where tid = 3",
        "delete from noa where tid = 2",
        "update t set id = 822, ts = ts - 31 where id = 2",
        "update t set ts = ts + 1 where id = 5",
        "delete from t where id = 3",
        "insert into cas values (7, 822)",
    ] {
        assert!(outcome(&pair.clients[1], statement).await.starts_with("ok"), "{statement}");
    }
    same(&pair, &copied).await;
    pair.clients[1]
        .batch_execute(
            "truncate t, cas, res, noa, nul, def, imm; insert into t values (5, '2024-02-02', 'new')",
        )
        .await
        .unwrap();
    same(&pair, &copied).await;
    there.execute("drop subscription s").await;
}

/// Waits until the subscriber has the rows of the publisher; asserts that it has the keys, and had no error.
async fn same(pair: &Pair, copied: &tokio_postgres::Client) {
    let publisher = pair.lab.db.client().await;
    let reached: String = publisher.query_one("select pg_current_wal_lsn()::text", &[]).await.unwrap().get(0);
    let replayed = format!(
        "select coalesce(bool_and(replay_lsn >= '{reached}'), false) from pg_stat_replication where application_name = 's'"
    );
    until(&replayed, async || publisher.query_one(&replayed, &[]).await.unwrap().get(0)).await;
    for query in [
        "select row(id, ts, v)::text from t order by 1",
        "select id::text from key_keys order by 1",
        "select row(n, tid)::text from cas order by 1",
        "select row(n, tid)::text from noa order by 1",
    ] {
        assert_eq!(rows(copied, query).await, rows(&pair.clients[1], query).await, "{query}");
    }
    let errors =
        "select coalesce(sum(apply_error_count + sync_error_count), 0)::text from pg_stat_subscription_stats";
    assert_eq!(rows(copied, errors).await, ["0"]);
}
