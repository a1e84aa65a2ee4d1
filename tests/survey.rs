//! `plan` drafts a plan from a live table.

use crate::support::cluster::Database;
use crate::support::process::Ran;

#[tokio::test]
async fn plan_drafts_a_plan_of_a_live_table() {
    let db = Database::new().await;
    let table = "\"p\"\"l. a;--🦠\"";
    db.execute(&format!(
        "create table {table} (\"I d\" bigint primary key, \"A t\" timestamptz not null);
         insert into {table} select i, timestamptz '2024-01-01Z' + i * interval '1 hour' from generate_series(0, 9999) i;
         analyze {table}"
    ))
    .await;
    let file = db.plan("");
    let path = file.to_str().unwrap();
    db.pgstrata(&["plan", table, "--by", "A t", "-o", path]).await.ok();
    let text = std::fs::read_to_string(path).unwrap();
    // Sizes in bytes depend on the server.
    let found: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("ahead"))
        .filter(|line| !line.contains("iB"))
        .collect();
    insta::assert_snapshot!(found.join("\n"), @r#"
    # A plan for pgstrata, drafted from the live table. Review it, then keep it with your migrations.
    #
    # as requested: partition by "A t" (timestamp with time zone), every 1 year, about 1 partition
    #   + it is the time of the row: old partitions can be dropped by age
    #   - gives up: uniqueness of ("I d") alone
    #   - a lookup by ("I d") alone reads every partition
    #   - no index starts with "A t": `check` reads the whole table
    #   - all rows fit into one partition: the table is small, or needs a shorter interval (--every)
    #
    #   by     every     partitions  keeps   gives up               costs
    #   "I d"  10000000  1           all 1   nothing                -
    # > "A t"  1 year    1           0 of 1  uniqueness of ("I d")  lookup by ("I d") reads all;
    #                                        alone                  no index
    #
    # "reads all": reads all partitions; to choose another column: --by '"I d"'
    #
    # column  "A t", timestamp with time zone
    # oldest  2024-01-01 00:00:00+00
    # newest  2025-02-20 15:00:00+00
    # key     primary key ("I d"); becomes ("I d", "A t"), because the key of a partitioned table must contain the partition column
    # carried over: 2 columns, 1 index
    #
    # approximate rows, according to the statistics:
    #   2024-01  745
    #   2024-02  696
    #   2024-03  744
    #   2024-04  720
    #   2024-05  744
    #   2024-06  720
    #   2024-07  744
    #   2024-08  744
    #   2024-09  720
    #   2024-10  744
    #   2024-11  720
    #   2024-12  744
    #   2025-01  744
    #   2025-02  471

    name  = 'p"l. a;--🦠'           # the job
    kind  = "partition"
    table = 'public."p""l. a;--🦠"'

    [partition]
    # warning[key_widened]: the partition column is added to the key "p""l. a;--🦠_pkey" ("I d"):
    #   after the swap, only ("I d", "A t") is unique, not ("I d") alone, and ON CONFLICT ("I d")
    #   fails
    #   hint: look for ON CONFLICT ("I d") in the applications, and make sure that the values of ("I
    #     d") come from a sequence or are random uuids
    by       = '"A t"'
    every    = "1 year"            # about 1 partition
    timezone = "UTC"               # time zone in which days and months begin
    # from   = "2024-01-01 00:00:00+00"  # lower bound of the first partition; default: the oldest row
    "#);
    db.pgstrata(&["check", path]).await.ok();
}

#[tokio::test]
async fn plan_names_a_table_that_does_not_exist() {
    let db = Database::new().await;
    let output = db.pgstrata(&["plan", "lpa", "--by", "at"]).await.exits(2).stderr;
    insta::assert_snapshot!(output, @"
    error: table public.lpa does not exist
    hint: write the name as in SQL: schema.table, in double quotes where SQL requires them
    ");
}

/// Plans the change, and returns the text of the plan and the output of its check.
async fn planned(db: &Database, options: &[&str]) -> (String, Ran) {
    let file = db.plan("");
    let path = file.to_str().unwrap();
    db.pgstrata(&[&["plan"], options, &["-o", path]].concat()).await.ok();
    (std::fs::read_to_string(path).unwrap(), db.pgstrata(&["check", path, "--json"]).await)
}

const SUPPLIERS: &str = "create table suppliers (id serial primary key, name text not null, country text);
    insert into suppliers (name) select 'Name ' || i from generate_series(1, 500) i;
    create table notes (text text); analyze";

#[tokio::test]
async fn plan_drafts_a_backfill() {
    let db = Database::new().await;
    db.execute(SUPPLIERS).await;
    let complete =
        ["suppliers", "--backfill", "--add", "search_name=text", "--set", "search_name=lower(t.name)"];
    let (text, checked) = planned(&db, &complete).await;
    checked.ok();
    assert!(
        text.contains("\nset = { search_name = ") || text.contains("\nset = { \"search_name\" = "),
        "{text}"
    );
    // Required keys that the command line does not set are marked in the plan.
    let (text, checked) = planned(&db, &["suppliers", "--backfill"]).await;
    assert!(checked.exits(2).stderr.contains("backfill.set "));
    assert!(text.contains("\n# set = { COLUMN = \"EXPRESSION\" }  # required"), "{text}");
    let (text, checked) =
        planned(&db, &["suppliers", "--backfill", "--set", "search_name=lower(t.name)"]).await;
    checked.exits(3);
    assert!(
        text.contains("\n# error[no_such_column]: ") && text.contains("# required: these columns"),
        "{text}"
    );
    let (text, _) = planned(&db, &["notes", "--backfill"]).await;
    assert!(
        text.contains("\n# error[no_usable_key]: ") && text.contains("create unique index concurrently"),
        "{text}"
    );
    let wrong = db.pgstrata(&["plan", "suppliers", "--backfill", "--set", "name"]).await.exits(2).stderr;
    assert!(wrong.contains("--set name "), "{wrong}");
}

#[tokio::test]
async fn plan_drafts_a_column_type_change() {
    let db = Database::new().await;
    db.execute(SUPPLIERS).await;
    let (text, checked) = planned(&db, &["suppliers", "--retype", "id=bigint"]).await;
    checked.ok();
    assert!(text.contains("\ncolumn = \"id\"") && text.contains("\nto     = \"bigint\"\n"), "{text}");
    for (written, code) in [
        ("idd=bigint", "no_such_column"),
        ("name=no_such_type", "type_refused"),
        ("id=integer", "already_that_type"),
    ] {
        let (text, checked) = planned(&db, &["suppliers", "--retype", written]).await;
        assert!(checked.exits(3).stdout.contains(code));
        let above = text.lines().skip_while(|line| !line.starts_with("[retype]"));
        assert!(above.take(16).any(|line| line.starts_with(&format!("# error[{code}]: "))), "{text}");
    }
}

#[tokio::test]
async fn plan_accepts_the_name_of_a_column_as_in_sql() {
    let db = Database::new().await;
    db.execute("create table t (id bigint primary key, \"A t\" timestamptz not null); analyze t").await;
    let mut drafted = Vec::new();
    for written in ["A t", "\"A t\""] {
        drafted.push(db.pgstrata(&["plan", "t", "--by", written]).await.ok().stdout);
    }
    assert_eq!(drafted[0], drafted[1]);
}
