//! Unusual tables and plans: partitions that are attached or dropped during the run, dropped and generated columns,
//! names that need quotes, SQL with quotes and comments that could end a statement too early, and invalid plans.

use rustix::process::Signal;

use super::{LEFT_BEHIND, lab};
use crate::support::lab::Lab;
use crate::support::process::{ended, send};

/// Names in mixed case, dropped columns, a generated column, and SQL that uses objects of the table's schema without
/// naming the schema.
#[tokio::test]
async fn names_columns_and_sql_of_every_kind() {
    let job = lab(
        r#"create schema "Odd Schema";
           create function "Odd Schema".shout(text) returns text language sql immutable as 'select upper($1)';
           create table "Odd Schema".words (word text primary key, rank int);
           insert into "Odd Schema".words select 'w' || i, i from generate_series(0, 9) i;
           create table "Odd Schema"."The ""Items""" (
               gone int, "Key, Part" bigint, "Word" text, also_gone text, twice bigint generated always as ("Key, Part" * 2) stored,
               "Loud -- Word" text, primary key ("Key, Part"));
           alter table "Odd Schema"."The ""Items""" drop column gone, drop column also_gone;
           insert into "Odd Schema"."The ""Items""" ("Key, Part", "Word") select i, 'w' || i % 10 from generate_series(1, 2000) i;
           create view truth as select *, upper("Word") || ' it''s; "' || coalesce((select rank from "Odd Schema".words where word = "Word"), -1) || '$1' || twice as expected
               from "Odd Schema"."The ""Items""";"#,
        r#"table = '"Odd Schema"."The ""Items"""'
[backfill]
from = """words w -- the schema's own
  on w.word = t."Word" -- as it stands"""
keep_filled = true
where = "t.\"Loud -- Word\" is null -- not yet"
[backfill.set]
'"Loud -- Word"' = """shout(t."Word") -- it's loud
  || ' it''s; "' || coalesce(w.rank, -1) || $a$$1$a$ || coalesce(t.twice, 0) -- the end"""
"#,
    )
    .await;
    let checked = job.ok("check").await;
    assert!(checked.stdout.contains("0 errors"), "{}", checked.stdout);
    job.ok("sql").await;
    let run = job.frozen("run", "fill.chunks_done").await;
    job.db
        .execute(
            r#"insert into "Odd Schema"."The ""Items""" ("Key, Part", "Word") values (-1, 'w3'), (-2, 'w11');
               update "Odd Schema"."The ""Items""" set "Loud -- Word" = null where "Key, Part" = 7"#,
        )
        .await;
    resume_and_finish(&job, run).await;
    job.none(r#"select count(*) from truth where "Loud -- Word" is distinct from expected"#).await;
    assert_eq!(job.count("select count(*) from truth").await, 2_002);
}

/// Continues a frozen run, which must succeed and leave nothing behind.
async fn resume_and_finish(job: &Lab, run: tokio::process::Child) {
    send(&run, Signal::CONT);
    let ran = ended(run).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    job.none(LEFT_BEHIND).await;
}

const PARTED: &str = "create table events (id bigint, at date, day text, primary key (id, at)) partition by range (at);
    create table events_1 partition of events for values from ('2024-01-01') to ('2024-02-01');
    create table events_2 partition of events for values from ('2024-02-01') to ('2024-03-01') partition by hash (id);
    create table events_2_0 partition of events_2 for values with (modulus 2, remainder 0);
    create table events_2_1 partition of events_2 for values with (modulus 2, remainder 1);
    create table events_3 partition of events for values from ('2024-03-01') to ('2024-04-01');
    insert into events select i, date '2024-01-01' + i % 90 from generate_series(1, 3000) i;
    create table events_4 (like events including all);
    insert into events_4 select i, date '2024-04-01' + i % 30 from generate_series(1, 1000) i;
    create table events_5 (like events including all);
    insert into events_5 select i, date '2024-05-01' + i % 30 from generate_series(1, 1000) i;
    analyze events";

/// With one worker, no other worker has an open transaction while the run is frozen.
const PARTED_PLAN: &str = "table = 'events'\n[copy]\nworkers = 1\n[backfill]\nset = { day = \"to_char(t.at, 'Day')\" }\nwhere = 't.day is null'\n";

#[tokio::test]
async fn partitions_that_are_attached_meanwhile_are_filled() {
    for (at, keep_filled) in [("fill.chunk", "true"), ("fill.done", "false"), ("verify.range", "false")] {
        let job = lab(PARTED, &format!("{PARTED_PLAN}keep_filled = {keep_filled}\n")).await;
        let run = job.frozen("run", at).await;
        job.db
            .execute(
                "alter table events attach partition events_4 for values from ('2024-04-01') to ('2024-05-01');
                 alter table events attach partition events_5 for values from ('2024-05-01') to ('2024-06-01')",
            )
            .await;
        resume_and_finish(&job, run).await;
        let left = "select coalesce(string_agg(distinct tableoid::regclass::text, ' '), '') from events where day is null";
        assert_eq!(job.one(left).await, "", "attached at {at}");
        assert_eq!(job.count("select count(*) from events").await, 5_000);
    }
}

#[tokio::test]
async fn partitions_that_are_dropped_meanwhile_do_not_fail_the_run() {
    for at in ["fill.chunk", "fill.chunks_done", "verify.range"] {
        let job = lab(PARTED, &format!("{PARTED_PLAN}keep_filled = true\n")).await;
        let run = job.frozen("run", at).await;
        job.db.execute("drop table events_3; alter table events detach partition events_2").await;
        resume_and_finish(&job, run).await;
        job.none("select count(*) from events where day is null").await;
    }
}

const ITEMS: &str = "create table items (id bigint primary key, kind int, note text, n int);
    insert into items select i, i % 10 from generate_series(1, 2000) i;
    create table kinds (kind int, name text);
    insert into kinds select i, 'kind ' || i from generate_series(0, 9) i;
    analyze items";

/// With one worker, the same chunk is always the first.
const ONE_WORKER: &str = "table = 'items'\n[copy]\nworkers = 1\n";

/// The error of a run that fails at its first chunk, which is rolled back. The statements in `spoil` run after the
/// check.
async fn refused(spoil: &str, plan: &str) -> String {
    refused_from(spoil, plan, 0).await
}

/// The error of a run that fails at a row. The rows with smaller keys stay filled.
async fn refused_from(spoil: &str, plan: &str, key: u32) -> String {
    let job = lab(ITEMS, &format!("{ONE_WORKER}[backfill]\n{plan}")).await;
    let run = job.frozen("run", "job.created").await;
    job.db.execute(spoil).await;
    send(&run, Signal::CONT);
    let ran = ended(run).await.exits(1);
    job.none(&format!(
        "select count(*) from items where (note is not null or n is not null) and id >= {key}"
    ))
    .await;
    let at = ran.stderr.find("error: ").unwrap();
    ran.stderr[at..].to_owned()
}

/// The check updates some rows as the job would, and rolls back.
#[tokio::test]
async fn rows_that_a_run_would_fail_on_are_found_by_the_check() {
    let suppress = "create function no() returns trigger language plpgsql as 'begin return null; end';
        create trigger no before update on items for each row execute function no()";
    let refuse = "create function no() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
        create trigger no after update on items for each row execute function no()";
    let later = refuse
        .replace("create trigger", "create constraint trigger")
        .replace("for each", "deferrable initially deferred for each");
    let joined = "from = 'kinds k on k.kind = t.kind'\nset = { note = 'k.name' }\n";
    for (spoil, plan, code) in [
        ("insert into kinds values (7, 'again')", joined, "row_yielded_twice"),
        ("select", "set = { n = 't.kind + 1' }\nwhere = 't.kind >= 0'\n", "row_still_matches"),
        (suppress, "set = { n = '1' }\nwhere = 't.n is null'\n", "update_suppressed"),
        (refuse, "set = { n = '1' }\nwhere = 't.n is null'\n", "row_refused"),
        (&later, "set = { n = '1' }\nwhere = 't.n is null'\n", "row_refused"),
        (refuse, "add = { m = 'int' }\nset = { m = '1' }\nwhere = 't.m is null'\n", "row_refused"),
        ("select", "set = { n = '10 / (t.kind - 3)' }\nwhere = 't.n is null'\n", "row_refused"),
        (
            "alter table items add check (n > 5) not valid",
            "set = { n = '1' }\nwhere = 't.n is null'\n",
            "row_refused",
        ),
        ("select", "set = { n = '1' }\nwhere = '10 / (t.kind - 3) > 100'\n", "row_refused"),
    ] {
        let job = lab(&format!("{ITEMS};{spoil}"), &format!("{ONE_WORKER}[backfill]\n{plan}")).await;
        for command in ["check", "run"] {
            let found = job.ran(&format!("{command} --json")).await.exits(3).stdout;
            assert!(
                found.contains(&format!(r#""level":"error","code":"{code}""#)),
                "{command} {plan}: {found}"
            );
        }
        job.none("select count(*) from items where note is not null or n is not null").await;
    }
}

#[tokio::test]
async fn a_from_that_matches_a_row_twice_is_refused_at_the_first_chunk() {
    for filter in ["", "where = 't.note is null'\n"] {
        let plan = format!("from = 'kinds k on k.kind = t.kind'\nset = {{ note = 'k.name' }}\n{filter}");
        let error = refused("insert into kinds values (7, 'again')", &plan).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(error, @"
            error: failed to fill a chunk of public.items
            cause: the plan's `from` matches more than one row for some rows of the table; among them, by key: 7; 17; 27; 37; 47; 57; 67; 77; 87; 97
            hint: this chunk was rolled back; abort the job, use GROUP BY or DISTINCT in `from` so that each row matches at most once, and run the plan again: filled rows stay filled
            ");
        }
    }
}

#[tokio::test]
async fn a_where_that_stays_true_is_refused_at_the_first_chunk() {
    let plan = "set = { n = 't.kind + 1' }\nwhere = 't.kind >= 100'\n";
    insta::assert_snapshot!(refused("update items set kind = kind + 100", plan).await, @"
    error: failed to fill a chunk of public.items
    cause: rows still match the plan's `where` after they were filled, so the job would never end; among them, by key: 1; 2; 3; 4; 5; 6; 7; 8; 9; 10
    hint: this chunk was rolled back; abort the job, write a `where` that is false for a filled row, such as `t.column is null`, and run the plan again: filled rows stay filled
    ");
}

/// The rows of the first chunk are correct.
#[tokio::test]
async fn a_where_that_stays_true_for_some_rows_is_refused_at_the_end() {
    let job = lab(
        &format!("{ITEMS}; update items set kind = null where id = 1999"),
        &format!("{ONE_WORKER}[backfill]\nset = {{ n = 't.kind + 1' }}\nwhere = 't.n is null'\n"),
    )
    .await;
    let ran = job.ran("run").await.exits(1);
    let at = ran.stderr.find("error: ").unwrap();
    insta::assert_snapshot!(ran.stderr[at..], @"
    error: failed to check a range of public.items again
    cause: rows still match the plan's `where` after they were filled, so the job would never end; among them, by key: 1999
    hint: this chunk was rolled back; abort the job, write a `where` that is false for a filled row, such as `t.column is null`, and run the plan again: filled rows stay filled
    ");
    assert_eq!(job.count("select count(*) from items where n is null").await, 1);
}

#[tokio::test]
async fn a_trigger_that_suppresses_the_update_is_named() {
    let setup = "create function no() returns trigger language plpgsql as 'begin return null; end';
        create trigger no before update on items for each row execute function no()";
    insta::assert_snapshot!(refused(setup, "set = { n = '1' }\nwhere = 't.n is null'\n").await, @"
    error: failed to fill a chunk of public.items
    cause: a trigger suppressed the update of a row of public.items: its key: 1
    hint: a BEFORE UPDATE trigger that returns NULL prevents the update; disable it until the job is finalized
    ");
}

#[tokio::test]
async fn a_row_that_the_expression_fails_on_ends_the_run() {
    let plan = "set = { n = '10 / (t.kind - 30)' }\nwhere = 't.n is null'\n";
    let spoil = "update items set kind = 30 where kind = 3";
    insta::assert_snapshot!(refused_from(spoil, plan, 3).await, @"
    error: failed to fill a chunk of public.items (SQLSTATE 22012)
    cause: the plan's SQL fails on a row of public.items: by key: 3: division by zero
    hint: correct the row and run again (`pgstrata check PLAN --sample 1000` looks for more such rows); or abort the job, change the expression or `where` in the plan, and run again: filled rows stay filled
    ");
}

/// A write of the application succeeds even if the expression fails on the row. The job fails when it reaches the row.
#[tokio::test]
async fn a_write_of_an_application_never_fails_because_of_the_expression() {
    let job = lab(
        ITEMS,
        "table = 'items'\n[backfill]\nset = { n = '10 / (t.kind - 30)' }\nwhere = 't.n is null'\nkeep_filled = true\n",
    )
    .await;
    let run = job.frozen("run", "fill.chunks_done").await;
    job.db.execute("insert into items values (-5, 30), (-6, 31)").await;
    assert_eq!(
        job.one(
            "select string_agg(id || ':' || coalesce(n::text, '-'), ' ' order by id) from items where id < 0"
        )
        .await,
        "-6:10 -5:-"
    );
    send(&run, Signal::CONT);
    let ran = ended(run).await.exits(1);
    let at = ran.stderr.find("error: ").unwrap();
    insta::assert_snapshot!(ran.stderr[at..], @"
    error: failed to check a range of public.items again (SQLSTATE 22012)
    cause: the plan's SQL fails on a row of public.items: by key: -5: division by zero
    hint: correct the row and run again (`pgstrata check PLAN --sample 1000` looks for more such rows); or abort the job, change the expression or `where` in the plan, and run again: filled rows stay filled
    ");
    job.db.execute("update items set kind = 29 where id = -5").await;
    job.ok("run").await;
    assert_eq!(job.one("select n::text from items where id = -5").await, "-10");
}
