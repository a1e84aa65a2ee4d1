//! Concurrent transactions on a table with a key table: a statement waits for another one and then has the outcome that
//! it has on a plain table, and every snapshot of a random load has the same keys in both tables.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;

use super::{IDS, KeyedBy, Pair, SCHEMAS, outcome, session};
use crate::support::cluster::{Database, Version, on_oldest_and_newest};
use crate::support::wait::until;

on_oldest_and_newest!(
    a_statement_waits_and_has_the_same_outcome,
    every_snapshot_of_a_random_load_has_all_keys,
);

/// Two transactions: the statements of the first one, and that of the second one before the first one ends.
struct Race {
    first: &'static [&'static str],
    second: &'static str,
}

const fn race(first: &'static [&'static str], second: &'static str) -> Race {
    Race { first, second }
}

const RACES: &[Race] = &[
    // Duplicates: in the same partition, and in another one.
    race(&["insert into t values (20, '2024-01-15', 'a')"], "insert into t values (20, '2024-01-20', 'b')"),
    race(&["insert into t values (20, '2024-01-15', 'a')"], "insert into t values (20, '2024-02-20', 'b')"),
    race(&["insert into t values (20, '2024-01-15', 'a')"], "update t set id = 20 where id = 2"),
    race(
        &["update t set id = 20, ts = ts + 31 where id = 1"],
        "insert into t values (20, '2024-03-20', 'b')",
    ),
    race(&["update t set id = 20 where id = 1"], "insert into t values (1, '2024-03-20', 'b')"),
    race(&["delete from t where id = 1"], "insert into t values (1, '2024-03-20', 'b')"),
    race(
        &["delete from t where id = 1", "insert into t values (1, '2024-03-20', 'c')"],
        "insert into t values (1, '2024-02-20', 'b')",
    ),
    race(&["update t set ts = ts + 31 where id = 1"], "insert into t values (1, '2024-03-20', 'b')"),
    // Children and parents.
    race(&["insert into noa values (9, 8)"], "delete from t where id = 8"),
    race(&["insert into noa values (9, 8)"], "update t set id = 80 where id = 8"),
    race(&["insert into cas values (9, 8)"], "delete from t where id = 8"),
    race(&["delete from t where id = 8"], "insert into noa values (9, 8)"),
    race(&["delete from t where id = 8"], "insert into def values (9, 8)"),
    race(&["update t set id = 80 where id = 8"], "insert into cas values (9, 80)"),
    race(&["insert into t values (20, '2024-01-15', 'a')"], "insert into cas values (9, 20)"),
    race(&["truncate t, cas, res, noa, nul, def, imm"], "insert into t values (8, '2024-01-15', 'a')"),
    race(
        &["savepoint a", "insert into t values (20, '2024-01-15', 'a')", "rollback to a"],
        "insert into t values (20, '2024-02-20', 'b')",
    ),
];

async fn a_statement_waits_and_has_the_same_outcome(version: Version) {
    let server = version.start(&[("max_prepared_transactions", "4")]);
    let db = Database::on(&server).await;
    let pair = Pair::new(db, &KeyedBy::Primary.setup(true), super::BY_MONTH).await;
    let mut failed = Vec::new();
    for race in RACES {
        for isolation in ["read committed", "repeatable read", "serializable"] {
            let ends = ["commit", "rollback", "prepare transaction"];
            // Prepared transactions do not depend on the isolation level.
            for end in &ends[..if isolation == "read committed" { 3 } else { 2 }] {
                let mut outcomes = Vec::new();
                for schema in SCHEMAS {
                    outcomes.push(raced(&pair, schema, race, isolation, end).await);
                }
                // A snapshot that is older than the lock of TRUNCATE may lack keys, so TRUNCATE is rejected.
                if race.first[0].starts_with("truncate") && isolation != "read committed" {
                    assert_eq!(outcomes[1][0], "0A000", "{isolation}");
                } else if outcomes[0] != outcomes[1] {
                    failed.push(format!(
                        "{:?}, {}, {isolation}, {end}: {outcomes:#?}",
                        race.first, race.second
                    ));
                }
                pair.assert_in_sync(&IDS, race.second).await;
            }
        }
    }
    assert!(failed.is_empty(), "{} races differ:\n{}", failed.len(), failed.join("\n"));
}

/// Whether the second transaction waited, the outcomes of its statement and its end, and the rows that remain.
async fn raced(pair: &Pair, schema: &str, race: &Race, isolation: &str, end: &str) -> Vec<String> {
    let (first, second, watch) = (
        session(&pair.lab.db, schema).await,
        session(&pair.lab.db, schema).await,
        session(&pair.lab.db, schema).await,
    );
    watch.batch_execute(&format!("truncate t, cas, res, noa, nul, def, imm; {}", super::ROWS)).await.unwrap();
    for client in [&first, &second] {
        client.batch_execute(&format!("begin isolation level {isolation}")).await.unwrap();
    }
    // The snapshot of the second transaction, unless it is read committed, is older than the changes of the first one.
    let pid: i32 = second.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let mut seen = Vec::new();
    for statement in race.first {
        seen.push(outcome(&first, statement).await);
    }
    let statement = race.second;
    let mut pending = tokio::spawn(async move {
        let result = outcome(&second, statement).await;
        (result, second)
    });
    let mut waited = false;
    until("the second transaction waits or ends", async || {
        waited = waits(&watch, pid).await;
        waited || pending.is_finished()
    })
    .await;
    match end {
        "prepare transaction" => {
            seen.push(outcome(&first, "prepare transaction 'race'").await);
            let still = waits(&watch, pid).await;
            seen.push(format!("still waits: {still}"));
            seen.push(outcome(&first, "commit prepared 'race'").await);
        }
        _ => seen.push(outcome(&first, end).await),
    }
    let (result, second) = (&mut pending).await.unwrap();
    seen.extend([format!("waited: {waited}"), result, outcome(&second, "commit").await]);
    for query in
        ["select row(id, ts, v)::text from t order by 1", "select row(n, tid)::text from cas order by 1"]
    {
        seen.push(super::rows(&watch, query).await.join(" "));
    }
    seen
}

async fn waits(client: &Client, pid: i32) -> bool {
    let query = "select cardinality(pg_blocking_pids($1)) > 0";
    client.query_one(query, &[&pid]).await.unwrap().get(0)
}

/// The number of transactions of each writer.
const TRANSACTIONS: usize = 60;

/// What a statement of a transaction in conflict with others may fail with: a row that MERGE would change twice,
/// duplicates, references, conflicts, deadlocks, and the lock timeout.
const EXPECTED: [&str; 6] = ["21000", "23505", "23503", "40001", "40P01", "55P03"];

async fn every_snapshot_of_a_random_load_has_all_keys(version: Version) {
    let pair = KeyedBy::Primary.pair(version, true).await;
    pair.both("truncate t, cas, res, noa, nul, def, imm; alter table t drop constraint other").await;
    let db = &pair.lab.db;
    let mut writers = Vec::new();
    for seed in 0..9 {
        let client = session(db, SCHEMAS[1]).await;
        client.batch_execute("set deadlock_timeout = '50ms'; set lock_timeout = '3s'").await.unwrap();
        writers.push(tokio::spawn(write(client, seed, version)));
    }
    let mut snapshots = 0;
    while writers.iter().any(|writer| !writer.is_finished()) {
        assert_consistent(&pair.clients[1]).await;
        snapshots += 1;
    }
    let mut outcomes = BTreeMap::new();
    for writer in writers {
        for (isolation, outcome) in writer.await.unwrap() {
            *outcomes.entry((isolation, outcome)).or_insert(0) += 1;
        }
    }
    assert_consistent(&pair.clients[1]).await;
    assert!(snapshots > 10, "{snapshots}");
    let seen: BTreeSet<&str> = outcomes.keys().map(|(_, outcome)| outcome.as_str()).collect();
    for code in ["ok", "23505", "23503", "40001"] {
        assert!(seen.contains(code), "{code}: {outcomes:?}");
    }
    for code in seen {
        assert!(code == "ok" || EXPECTED.contains(&code), "{code}: {outcomes:?}");
    }
}

/// Asserts in one snapshot that the key table has the keys of the table, that they are unique, and that all references
/// exist.
async fn assert_consistent(client: &Client) {
    let sql = "select row(
        (select array_agg(id order by id) from t), (select array_agg(id order by id) from key_keys),
        (select count(*) - count(distinct id) from t),
        (select array_agg(tid) from cas where tid is not null and not exists (select from t where id = tid)),
        (select array_agg(tid) from noa where not exists (select from t where id = tid)))::text,
      (select array_agg(id order by id) from t) is not distinct from (select array_agg(id order by id) from key_keys)
      and (select count(*) = count(distinct id) from t)
      and not exists (select from cas where tid is not null and not exists (select from t where id = tid))
      and not exists (select from noa where not exists (select from t where id = tid))";
    let row = client.query_one(sql, &[]).await.unwrap();
    assert!(row.get::<_, bool>(1), "{}", row.get::<_, String>(0));
}

/// Random transactions; the isolation level and outcome of each statement.
async fn write(client: Client, seed: u64, version: Version) -> Vec<(&'static str, String)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let isolation = ["read committed", "repeatable read", "serializable"][(seed % 3) as usize];
    let mut outcomes = Vec::new();
    for _ in 0..TRANSACTIONS {
        client.batch_execute(&format!("begin isolation level {isolation}")).await.unwrap();
        for _ in 0..rng.random_range(1..=4) {
            let statement = statement(&mut rng, version);
            let guarded = rng.random_bool(0.5);
            if guarded {
                client.batch_execute("savepoint a").await.unwrap();
            }
            let result = outcome(&client, &statement).await;
            let code = result.split(' ').next().unwrap().to_owned();
            let failed = code != "ok";
            let fatal = failed && (!guarded || code.starts_with("40"));
            outcomes.push((isolation, code));
            if fatal {
                break;
            }
            if guarded && (failed || rng.random_bool(0.2)) {
                client.batch_execute("rollback to a").await.unwrap();
            }
        }
        let end = if rng.random_bool(0.75) { "commit" } else { "rollback" };
        let result = outcome(&client, end).await;
        outcomes.push((isolation, result.split(' ').next().unwrap().to_owned()));
        client.batch_execute("rollback").await.unwrap();
    }
    outcomes
}

fn statement(rng: &mut StdRng, version: Version) -> String {
    let (key, other) = (rng.random_range(1..=12), rng.random_range(1..=12));
    let day =
        |rng: &mut StdRng| format!("'2024-{:02}-{:02}'", rng.random_range(1..=4), rng.random_range(1..=28));
    let ts = day(rng);
    match rng.random_range(0..16) {
        0..3 => format!("insert into t values ({key}, {ts}, 'x')"),
        3 => format!("delete from t where id = {key}"),
        4..6 => format!("update t set ts = {ts} where id = {key}"),
        6 => format!("update t set id = {other} where id = {key}"),
        7 => format!("update t set id = {other}, ts = {ts} where id = {key}"),
        8 => format!("update t set ts = ts + 1 where id = {key} and extract(day from ts) < 28"),
        9 => format!(
            "with d as (delete from t where id = {key} returning id) insert into t select id, {ts}, 'c' from d"
        ),
        10 => format!(
            "insert into t values ({key}, '2024-01-05', 'o') on conflict (id, ts) do update set v = 'u'"
        ),
        11 => format!("insert into cas values (1, {key})"),
        12 => format!("insert into noa values (1, {key})"),
        13 => format!("delete from noa where tid = {key}"),
        14 if version != Version::V14 => format!(
            "merge into t using (values ({key}, 1), ({other}, 2)) s (i, a) on t.id = s.i
             when matched and a = 1 then update set ts = {ts} when matched then delete
             when not matched then insert values (i, {ts}, 'm')"
        ),
        _ => format!("delete from t where id = {key}; insert into t values ({key}, {ts}, 'd')"),
    }
}
