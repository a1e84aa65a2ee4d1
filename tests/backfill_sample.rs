//! `check --sample` reports rows that fail, still match after they are set, or are matched twice. It leaves nothing
//! behind and blocks no other session.

use serde_json::Value;

use crate::support::cluster::Database;
use crate::support::process::Ran;

/// A table with 5,000 rows and a key of two columns; one tenth of the rows is filled.
const TABLE: &str = "create table s (region text, id int, spend numeric, note text, ci numeric, primary key (region, id));
    insert into s select 'eu', i, i, 'note ' || i, case when i % 10 = 0 then 1 end from generate_series(1, 5000) i; analyze s;";

async fn database(more: &str) -> Database {
    let db = Database::new().await;
    db.execute(&format!("{TABLE}{more}")).await;
    db
}

async fn sampled(db: &Database, backfill: &str, rows: u32, more: &[&str]) -> Ran {
    let plan = db.plan(&format!("name = 'j'\nkind = 'backfill'\ntable = 's'\n[backfill]\n{backfill}\n"));
    let rows = rows.to_string();
    let args = [&["check", plan.to_str().unwrap(), "--sample", rows.as_str()], more].concat();
    let ran = db.pgstrata(&args).await;
    // No value of a row is printed.
    assert!((1..=9).all(|n| !ran.stdout.contains(&format!("note {n}"))), "{}", ran.stdout);
    ran
}

/// The report on the sample, without times and estimates.
fn report(ran: &Ran) -> String {
    let lines = ran.stdout.lines().skip_while(|line| !line.starts_with("sample "));
    let stable = lines.map(|line| match line.split_once(" of about ") {
        _ if line.starts_with("time  ") => "time          ...".to_owned(),
        Some((rows, rest)) => format!("{rows} of ...{}", rest.trim_start_matches(|c| c != ' ')),
        None => line.to_owned(),
    });
    stable.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_sample_is_updated_and_rolled_back() {
    let db = database(
        "create table log (id int); create function f() returns trigger language plpgsql as
           'begin insert into log values (new.id); return new; end';
         create trigger audit after update on s for each row execute function f();",
    )
    .await;
    let plan = "set = { ci = 't.spend + 1', note = \"nullif(t.note, 'note 7')\" }\nwhere = 't.ci is null'";
    let ran = sampled(&db, plan, 100_000, &[]).await.ok();
    insta::assert_snapshot!(report(&ran), @"
    sample        4,500 rows of ... to fill; updated and rolled back
    still match   0 rows after they are filled
    set to NULL   1 row: column note
    time          ...
    no problem was found in the sample
    ");
    assert_eq!(db.count("select count(*) from s where ci is null").await, 4_500);
    assert_eq!(db.count("select count(*) from log").await, 0);
    let ran = sampled(&db, plan, 200, &["--json"]).await;
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    let sample = &json["sample"];
    assert_eq!(json["errors"], 0);
    assert_eq!(sample["rows"].as_u64().unwrap(), 200);
    assert_eq!(sample["updated"], true);
    assert!(sample["ms_per_1000_rows"].is_number() && sample["all_rows_s"].is_number(), "{sample}");
}

#[tokio::test]
async fn a_column_that_does_not_exist_is_only_computed() {
    let db = database("").await;
    let ran = sampled(
        &db,
        "add = { n = 'int', w = 'text' }\nset = { n = 't.id' }\nwhere = 't.n is null'",
        300,
        &[],
    )
    .await
    .ok();
    insta::assert_snapshot!(report(&ran), @"
    sample        300 rows of ... to fill; only computed, because a column does not exist yet
    still match   0 rows after they are filled
    time          ...
    no problem was found in the sample
    ");
    let ran = sampled(
        &db,
        "add = { n = 'int' }\nset = { n = 'nullif(t.id, 4)' }\nwhere = 't.n is null'",
        100_000,
        &[],
    )
    .await
    .exits(3);
    insta::assert_snapshot!(report(&ran), @"
    sample        5,000 rows of ... to fill; only computed, because a column does not exist yet
    still match   1 row after they are filled
      keys eu, 4
    set to NULL   1 row: column n
    time          ...
    some rows of the sample cannot be filled correctly
    ");
    assert_eq!(
        db.count("select count(*) from pg_attribute where attrelid = 's'::regclass and attname = 'n'").await,
        0
    );
}

#[tokio::test]
async fn rows_that_cannot_be_filled_are_reported_by_their_keys() {
    let db = database("alter table s add constraint small check (ci < 4990) not valid;").await;
    let ran =
        sampled(&db, "set = { ci = '1 / (t.id - 77)' }\nwhere = 't.ci is null'", 100_000, &[]).await.exits(3);
    insta::assert_snapshot!(report(&ran), @"
    sample        4,500 rows of ... to fill; updated and rolled back
    still match   0 rows after they are filled
    failed        1 row
      key eu, 77: division by zero (SQLSTATE 22012)
    time          ...
    some rows of the sample cannot be filled correctly
    ");
    // Without a `where`, the expression determines which rows to fill.
    let ran = sampled(
        &db,
        "set = { ci = 'substr(t.note, 6)::int / nullif(t.id % 2000, 1) + 1 / (t.id - 9)' }",
        100_000,
        &[],
    )
    .await
    .exits(3);
    insta::assert_snapshot!(report(&ran), @"
    sample        4,799 rows of ... to fill; updated and rolled back
    still match   0 rows after they are filled
    failed        3 rows
      key eu, 2000: division by zero (SQLSTATE 22012)
      key eu, 4000: division by zero (SQLSTATE 22012)
      key eu, 9: division by zero (SQLSTATE 22012)
    time          ...
    some rows of the sample cannot be filled correctly
    ");
    let ran = sampled(&db, "set = { ci = 't.spend' }\nwhere = 't.ci is null'", 100_000, &[]).await.exits(3);
    insta::assert_snapshot!(report(&ran), @r#"
    sample        4,500 rows of ... to fill; updated and rolled back
    still match   0 rows after they are filled
    failed        9 rows
      key eu, 4991: new row for relation "s" violates check constraint "small" (SQLSTATE 23514)
      key eu, 4992: new row for relation "s" violates check constraint "small" (SQLSTATE 23514)
      key eu, 4993: new row for relation "s" violates check constraint "small" (SQLSTATE 23514)
      key eu, 4994: new row for relation "s" violates check constraint "small" (SQLSTATE 23514)
      key eu, 4995: new row for relation "s" violates check constraint "small" (SQLSTATE 23514)
      key eu, 4996: new row for relation "s" violates check constraint "small" (SQLSTATE 23514)
      key eu, 4997: new row for relation "s" violates check constraint "small" (SQLSTATE 23514)
      key eu, 4998: new row for relation "s" violates check constraint "small" (SQLSTATE 23514)
      key eu, 4999: new row for relation "s" violates check constraint "small" (SQLSTATE 23514)
    time          ...
    some rows of the sample cannot be filled correctly
    "#);
    let ran = sampled(&db, "set = { ci = 't.note::int' }\nwhere = 't.ci is null'", 1_000, &[]).await.exits(3);
    assert!(
        ran.stdout.contains("failed        10 rows") && ran.stdout.contains("not tested"),
        "{}",
        ran.stdout
    );
}

#[tokio::test]
async fn rows_that_match_again_appear_twice_or_are_kept_by_a_trigger() {
    let db = database("create table e (id int, v int); insert into e values (3, 1), (3, 2), (4, 1);").await;
    let ran = sampled(&db, "set = { ci = 't.spend' }\nwhere = 't.id < 30'", 100, &[]).await.exits(3);
    insta::assert_snapshot!(report(&ran), @"
    sample        29 rows of ... to fill; updated and rolled back
    still match   29 rows after they are filled
      keys eu, 1; eu, 2; eu, 3; eu, 4; eu, 5; eu, 6; eu, 7; eu, 8; eu, 9; eu, 10; 19 more
    time          ...
    some rows of the sample cannot be filled correctly
    ");
    let ran = sampled(
        &db,
        "from = 'e on e.id = t.id'\nset = { ci = 'e.v' }\nwhere = 't.ci is null and e.id is not null'",
        100,
        &[],
    )
    .await
    .exits(3);
    insta::assert_snapshot!(report(&ran), @"
    sample        2 rows of ... to fill; updated and rolled back
    still match   0 rows after they are filled
    matched twice 1 row: `from` returns more than one match
      keys eu, 3
    time          ...
    some rows of the sample cannot be filled correctly
    ");
    db.execute(
        "create function f() returns trigger language plpgsql as 'begin return null; end';
         create trigger quiet before update on s for each row when (new.id < 3) execute function f()",
    )
    .await;
    let ran = sampled(&db, "set = { ci = 't.spend' }\nwhere = 't.ci is null'", 100_000, &[]).await.exits(3);
    insta::assert_snapshot!(report(&ran), @"
    sample        4,500 rows of ... to fill; updated and rolled back
    still match   0 rows after they are filled
    suppressed    2 rows: not updated, because a BEFORE UPDATE trigger returned NULL
    time          ...
    some rows of the sample cannot be filled correctly
    ");
}

#[tokio::test]
async fn a_sample_of_a_partitioned_table() {
    let db = Database::new().await;
    db.execute(
        "create table s (id int primary key, ci int) partition by range (id);
         create table s1 partition of s for values from (0) to (3000);
         create table s2 partition of s for values from (3000) to (6000);
         insert into s select i from generate_series(0, 5999) i; analyze s",
    )
    .await;
    let ran = sampled(&db, "set = { ci = 't.id' }\nwhere = 't.ci is null'", 100, &[]).await.ok();
    insta::assert_snapshot!(report(&ran), @"
    sample        100 rows of ... to fill; updated and rolled back
    still match   0 rows after they are filled
    time          ...
    no problem was found in the sample
    ");
    let ran =
        sampled(&db, "add = { n = 'int' }\nset = { n = 't.id' }\nwhere = 't.n is null'", 100, &[]).await.ok();
    insta::assert_snapshot!(report(&ran), @"
    sample        100 rows of ... to fill; only computed, because a column does not exist yet
    still match   0 rows after they are filled
    time          ...
    no problem was found in the sample
    ");
}

#[tokio::test]
async fn a_sample_does_not_wait_for_locks() {
    let db = database("").await;
    let client = db.client().await;
    client.batch_execute("begin; update s set note = '' where id <= 55 and ci is null").await.unwrap();
    let ran = sampled(&db, "set = { ci = 't.spend' }\nwhere = 't.ci is null'", 100_000, &[]).await.ok();
    insta::assert_snapshot!(report(&ran), @"
    sample        4,500 rows of ... to fill; updated and rolled back
    still match   0 rows after they are filled
    locked        50 rows: not updated, because another session held a lock that the update needs
    time          ...
    no problem was found in the sample
    ");
}

#[tokio::test]
async fn only_a_backfill_can_be_sampled() {
    let db = database("").await;
    let plan = db.plan("table = 's'\n[partition]\nby = 'id'\nevery = 1000\n");
    let ran = db.pgstrata(&["check", plan.to_str().unwrap(), "--sample", "10"]).await.exits(2);
    insta::assert_snapshot!(ran.stderr, @r#"
    error: --sample does not apply to a plan of kind "partition"
    hint: remove --sample: it is for backfills only
    "#);
    db.pgstrata(&["check", plan.to_str().unwrap(), "--sample", "0"]).await.exits(2);
}
