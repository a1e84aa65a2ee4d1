//! `plan` drafts a plan from a live table.

use crate::support::cluster::Database;

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
    #
    # warning: the partition column is added to the key "p""l. a;--🦠_pkey" ("I d"): after the swap, only ("I d", "A t") is unique, not ("I d") alone, and ON CONFLICT ("I d") fails; look for ON CONFLICT ("I d") in the applications, and make sure that the values of ("I d") come from a sequence or are random uuids

    name  = 'p"l. a;--🦠'           # the job
    kind  = "partition"
    table = 'public."p""l. a;--🦠"'

    [partition]
    by       = '"A t"'
    every    = "1 year"            # about 1 partition
    timezone = "UTC"               # time zone in which days and months begin
    # from   = "2024-01-01 00:00:00+00"  # lower bound of the first partition; default: the oldest row
    "#);
    db.pgstrata(&["check", path]).await.ok();
    db.pgstrata(&["plan", table, "--by", "\"A t\"", "-o", path]).await.ok();
    let quoted = std::fs::read_to_string(path).unwrap();
    let of_table =
        |text: &str| text.lines().filter(|line| !line.contains("iB")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(of_table(&quoted), of_table(&text));
    let output = db.pgstrata(&["plan", "lpa", "--by", "at"]).await.exits(2).stderr;
    insta::assert_snapshot!(output, @"
    error: table public.lpa does not exist
    hint: write the name as in SQL: schema.table, in double quotes where SQL requires them
    ");
}
