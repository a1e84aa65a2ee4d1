//! `verify` finds changes that bypassed the capture trigger, reports their keys, and reports no false mismatch under
//! load.

use serde_json::Value;

use crate::support::cluster::Database;
use crate::support::load::Load;
use crate::support::tables::TableSpec;
use crate::support::window::PERMIT_WRITES;

const PLAN: &str =
    "name = \"job\"\ntable = \"t\"\n[partition]\nby = \"at\"\nevery = \"3 months\"\nahead = 0\n";

/// A table with a verified job; `t_new` is the new table.
async fn verified() -> Database {
    let db = Database::new().await;
    db.execute(
        "create table t (id bigint primary key, at timestamptz not null, note text, data jsonb, amount numeric(9, 2));
         insert into t select g, '2024-01-01'::timestamptz + g * interval '6 hours', 'note ' || g,
           jsonb_build_object('n', g), g from generate_series(1, 2000) g;
         analyze t",
    )
    .await;
    let plan = db.plan(PLAN);
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    db
}

/// The report of `verify --json` after `damage`; the exit code is 4.
async fn found(db: &Database, damage: &str) -> Value {
    db.execute(damage).await;
    let ran = db.pgstrata(&["verify", "job", "--json"]).await.exits(4);
    let last = ran.stdout.lines().rfind(|line| line.contains("rows_in_use")).unwrap();
    serde_json::from_str(last).unwrap()
}

/// Kind and key of each example.
fn examples(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    report["examples"].as_array().unwrap().iter().map(|e| (text(&e["kind"]), text(&e["key"]))).collect()
}

/// Asserts that the report has exactly one mismatch: `field` is its counter, `kind` and `key` are its example.
fn assert_one_mismatch(report: &Value, field: &str, kind: &str, key: &str) {
    assert_eq!(report[field], 1, "{report}");
    assert_eq!(examples(report), [(kind.to_owned(), key.to_owned())], "{report}");
    assert_eq!(report["verified"], false);
}

#[tokio::test]
async fn a_missing_row() {
    let db = verified().await;
    assert_one_mismatch(&found(&db, "delete from t_new where id = 77").await, "missing", "missing", "77");
}

#[tokio::test]
async fn an_extra_row() {
    let db = verified().await;
    let report = found(&db, "insert into t_new (id, at) values (999999, '2024-03-03')").await;
    assert_one_mismatch(&report, "extra", "extra", "999999");
}

#[tokio::test]
async fn a_row_that_differs_in_one_column() {
    for damage in ["note = 'Note 500'", "note = null", "data = '{\"n\": 501}'", "amount = amount + 0.01"] {
        let db = verified().await;
        let report = found(&db, &format!("update t_new set {damage} where id = 500")).await;
        assert_one_mismatch(&report, "different", "different", "500");
    }
}

#[tokio::test]
async fn a_row_with_another_partition_column() {
    let db = verified().await;
    let report = found(&db, "update t_new set at = at + interval '6 months' where id = 42").await;
    assert_eq!((&report["missing"], &report["extra"]), (&Value::from(1), &Value::from(1)), "{report}");
    assert!(
        examples(&report).iter().all(|(kind, key)| kind == "partition_column_differs" && key == "42"),
        "{report}"
    );
}

#[tokio::test]
async fn a_duplicate_key() {
    let db = verified().await;
    let report = found(
        &db,
        "insert into t_new select id, at + interval '6 months', note, data, amount from t_new where id = 42",
    )
    .await;
    assert_one_mismatch(&report, "extra", "duplicate", "42");
}

#[tokio::test]
async fn the_old_table_is_compared_after_the_swap() {
    let db = verified().await;
    db.pgstrata(&["swap", "job"]).await.ok();
    db.execute(PERMIT_WRITES).await;
    assert_one_mismatch(&found(&db, "delete from t_old where id = 5").await, "missing", "missing", "5");
    // A rollback fails with the reason.
    let differ = db.pgstrata(&["rollback", "job", "--json"]).await.exits(4).event("tables_differ");
    assert_eq!(differ["missing"], 1, "{differ}");
    // After a repair, the rollback succeeds.
    db.execute("insert into t_old select * from t where id = 5").await;
    db.pgstrata(&["rollback", "job"]).await.ok();
}

/// Ranges along the partition column, as after a copy in physical order, and all kinds of mismatch at once.
#[tokio::test]
async fn all_kinds_of_mismatch_in_the_old_table() {
    let db = Database::new().await;
    db.execute(
        "create table t (id uuid primary key, at timestamptz not null, note text);
         insert into t select lpad(g::text, 32, '0')::uuid, '2024-01-01'::timestamptz + g * interval '6 hours', 'x'
           from generate_series(1, 2000) g;
         create index on t (at); analyze t",
    )
    .await;
    let plan = db.plan(&format!("{PLAN}[copy]\norder = \"physical\"\n"));
    db.pgstrata(&["run", plan.to_str().unwrap(), "--swap"]).await.ok();
    db.execute(PERMIT_WRITES).await;
    let id = |n: u32| format!("00000000-0000-0000-0000-{n:012}");
    let report = found(
        &db,
        &format!(
            "delete from t_old where id = '{}'; update t_old set at = at + interval '1 year' where id = '{}';
             update t_old set note = '' where id = '{}'; update t_old set note = null where id = '{}';
             insert into t_old values ('{}', '2030-01-01', 'x')",
            id(1),
            id(500),
            id(1000),
            id(1500),
            id(3000)
        ),
    )
    .await;
    let mut examples = examples(&report);
    examples.sort();
    let expected = [
        ("different", 1000),
        ("different", 1500),
        ("extra", 3000),
        ("missing", 1),
        ("partition_column_differs", 500),
        ("partition_column_differs", 500),
    ];
    assert_eq!(examples, expected.map(|(kind, n)| (kind.to_owned(), id(n))), "{report}");
}

#[tokio::test]
async fn a_change_of_case_is_found_under_a_collation_that_ignores_case() {
    let db = Database::new().await;
    if db.count("select count(*) from pg_collation where collprovider = 'i'").await == 0 {
        println!("this server was built without ICU");
        return;
    }
    db.execute(
        "create collation any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         create table t (id bigint primary key, at timestamptz not null, name text collate any_case);
         insert into t select g, '2024-01-01'::timestamptz + g * interval '6 hours', 'name' from generate_series(1, 500) g",
    )
    .await;
    let plan = db.plan(PLAN);
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    assert_one_mismatch(
        &found(&db, "update t_new set name = 'NAME' where id = 9").await,
        "different",
        "different",
        "9",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_false_mismatch_is_reported_while_applications_write() {
    let db = Database::new().await;
    let spec = TableSpec::bigint("t", 5_000).truncating(300);
    spec.create(&db).await;
    let load = Load::start(db.dsn(), spec, 4, 11).await;
    let plan = db.plan(&PLAN.replace("\"at\"", "\"created_at\""));
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    for command in ["verify", "verify", "swap", "verify", "verify", "rollback", "verify"] {
        load.commit_more(50).await;
        db.pgstrata(&[command, "job"]).await.ok();
    }
    load.stop().await.assert_clean();
}

/// Rows with pending changes are excluded from the sums: concurrent writes do not make a range differ, so no range is
/// read twice.
#[tokio::test(flavor = "multi_thread")]
async fn pending_changes_make_no_range_suspect() {
    let db = Database::new().await;
    let spec = TableSpec::uuid("t", 20_000);
    spec.create(&db).await;
    let load = Load::start(db.dsn(), spec, 4, 12).await;
    let plan = db.plan(&PLAN.replace("\"at\"", "\"created_at\""));
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    for command in ["verify", "verify", "swap", "verify", "verify"] {
        load.commit_more(50).await;
        let ran = db.pgstrata(&[command, "job", "--json"]).await.ok();
        let events = ran.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let compared: Vec<Value> = events.filter(|event| event["code"] == "tables_match").collect();
        assert!(!compared.is_empty(), "{}", ran.stdout);
        assert!(compared.iter().all(|event| event["ranges"] == 0), "{compared:?}");
    }
    load.stop().await.assert_clean();
}

/// A range consists of several small partitions, a part of a large partition, or the rows of the default partition
/// below or above the other partitions. Every row is in exactly one range.
#[tokio::test]
async fn every_row_is_compared_once() {
    let db = Database::new().await;
    db.execute(
        "create table t (id uuid primary key, at timestamptz not null, note text);
         insert into t select gen_random_uuid(), '2019-01-01'::timestamptz + g * interval '10 minutes', 'x'
           from generate_series(1, 160000) g;
         insert into t select gen_random_uuid(), '2020-03-01'::timestamptz + g * interval '7 seconds', 'x'
           from generate_series(1, 250000) g;
         create index on t (at); analyze t",
    )
    .await;
    let plan = db.plan(
        "name = \"job\"\ntable = \"t\"\n[partition]\nby = \"at\"\nevery = \"1 month\"\nfrom = \"2019-07-01\"\nto = \"2021-03-01\"\n\
         default = true\n",
    );
    db.pgstrata(&["run", plan.to_str().unwrap(), "--swap"]).await.ok();
    for (table, other) in [("t_old", "t"), ("t_new", "t")] {
        db.execute(&PERMIT_WRITES.replace("t_old", table)).await;
        // One row from each: below, above, from the middle of the large partition, from a small one.
        let report = found(
            &db,
            &format!(
                "delete from {table} where at in (
                    (select min(at) from {other}), (select max(at) from {other}),
                    (select min(at) from {other} where at > '2020-03-10'), (select min(at) from {other} where at > '2019-09-09'))"
            ),
        )
        .await;
        assert_eq!(
            (&report["rows_in_use"], &report["missing"]),
            (&Value::from(410_000), &Value::from(4)),
            "{report}"
        );
        assert_eq!(
            (&report["rows_inactive"], &report["extra"]),
            (&Value::from(409_996), &Value::from(0)),
            "{report}"
        );
        db.execute(&format!("insert into {table} select * from {other} except select * from {table}")).await;
        if table == "t_old" {
            db.pgstrata(&["rollback", "job"]).await.ok();
        }
    }
}
