//! What `check` reports about backfills: invalid plans, what each filled row triggers, the cost, and missing
//! privileges.

use crate::support::checks::{check, check_as, errors, notes};
use crate::support::cluster::{Database, Version};

/// A table with 100 rows and a primary key, and a table to join it with.
const TABLES: &str =
    "create table s (id bigint primary key, name text not null, spend numeric, at date, ci float8);
    insert into s select i, 'name ' || i, i, '2024-01-01' from generate_series(1, 100) i;
    create table e (s_id bigint, amount numeric); create index on e (s_id);
    insert into e select i, i from generate_series(1, 100) i; analyze s; analyze e;";

/// A plan for `s`; `more` continues the section `[backfill]`.
fn fill(more: &str) -> String {
    format!("name = 'j'\nkind = 'backfill'\ntable = 's'\n[backfill]\n{more}\n")
}

/// Errors and warnings of that plan, after `setup`.
async fn findings(setup: &str, more: &str) -> String {
    let db = Database::new().await;
    db.execute(&format!("{TABLES}{setup}")).await;
    check(&db, &fill(more)).await
}

/// The findings without the settings of the server.
fn without_settings(stdout: &str) -> String {
    stdout.lines().filter(|line| !line.contains("[plan_settings]")).map(|line| format!("{line}\n")).collect()
}

const SET: &str = "set = { ci = 't.spend' }\nwhere = 't.ci is null'";

#[tokio::test]
async fn a_good_plan_gets_its_cost_and_no_finding() {
    let db = Database::new().await;
    db.execute(&format!(
        "{TABLES} alter table s add more int; update s set ci = 1 where id <= 40; analyze s"
    ))
    .await;
    let plan = db.plan(&fill(SET));
    let ran = db.pgstrata(&["check", "--quiet", plan.to_str().unwrap()]).await.ok();
    assert!(notes(&ran.stdout).contains(&"note[plan_settings]: public.s".to_owned()), "{}", ran.stdout);
    insta::assert_snapshot!(without_settings(&ran.stdout), @"
    note[growth]: public.s: about 60 of 100 rows to fill, according to the statistics: public.s grows by up to 9.6 KiB, or less if a vacuum runs in between; check the free disk space, which pgstrata cannot see
    0 errors, 0 warnings: the job can start
    ");
}

#[tokio::test]
async fn invalid_plans() {
    insta::assert_snapshot!(findings("", "set = { id = 't.id + 1' }").await, @r#"
    error[sets_key]: id: column id is part of the key (id), and the job processes the table in the order of the key
      hint: change key values by hand; to change the type of the key, use a plan with kind = "retype"
    "#);
    insta::assert_snapshot!(findings("", "set = { ci = 'random()' }").await, @r#"
    error[volatile_expression]: public.s: the plan's SQL returns a different value at each evaluation, so no row would ever count as filled
      hint: write a `where` that is false for a filled row, such as where = "t.column is null"
    "#);
    insta::assert_snapshot!(findings("", "set = { ci = '1' }\nwhere = 'random() < 0.5'").await, @r#"
    error[volatile_where]: public.s: the plan's `where` selects different rows at each evaluation, so the job could never finish
      hint: write a `where` that depends only on the values of the row, such as where = "t.column is null"
    "#);
    insta::assert_snapshot!(findings("alter table s drop constraint s_pkey", SET).await, @"
    error[no_usable_key]: public.s: table public.s has no primary key and no unique index
      hint: create unique index concurrently s_key on public.s (id); alter table public.s add primary key using index s_key
    ");
    insta::assert_snapshot!(findings("", "set = { ci = 't.spent' }").await, @"
    error[sql_refused]: public.s: the server rejects the plan's SQL: column t.spent does not exist
      hint: in the plan's SQL, the table is called t; names without a schema are looked up in its schema, then in public
    ");
}

#[tokio::test]
async fn types_that_do_not_fit() {
    insta::assert_snapshot!(findings("", "set = { at = 't.name' }").await, @r#"
    error[type_mismatch]: set: the server rejects `set`: column "at" is of type date but expression is of type text
      hint: write an explicit cast: set = { column = "(...)::the_type" }
    "#);
    insta::assert_snapshot!(findings("create type mood as enum ('good'); alter table s add mood mood", "set = { mood = \"'good'\" }").await, @r#"
    error[type_mismatch]: set: the server rejects `set`: column "mood" is of type mood but expression is of type text
      hint: write an explicit cast: set = { column = "(...)::the_type" }
    "#);
    assert_eq!(
        findings(
            "create type mood as enum ('good'); alter table s add mood mood",
            "set = { mood = \"'good'::mood\" }"
        )
        .await,
        ""
    );
    insta::assert_snapshot!(findings("", "add = { day = 'date', n = 'numeric(9, 2)', w = 'text collate \"C\"', all_of = 'numeric[]' }
        set = { day = 't.name', n = 't.id', w = 't.id', all_of = 'array[t.id]' }\nwhere = 't.w is null'").await, @r#"
        error[type_mismatch]: day: column day does not accept an expression of type text
          hint: write an explicit cast: set = { column = "(...)::the_type" }
        "#);
    insta::assert_snapshot!(findings("", "add = { n = 'int' }\nset = { n = 'row(1, 2)' }\nwhere = 't.n is null'").await, @r#"
    error[sql_refused]: public.s: the server rejects the plan's SQL: cannot cast type record to integer
      hint: in the plan's SQL, the table is called t; names without a schema are looked up in its schema, then in public
    error[type_mismatch]: n: column n does not accept an expression of type record
      hint: write an explicit cast: set = { column = "(...)::the_type" }
    "#);
}

#[tokio::test]
async fn columns_to_be_added() {
    insta::assert_snapshot!(findings("", "add = { at2 = 'timestamptz default clock_timestamp()', at3 = 'timestamptz default now()' }
        set = { at2 = 'now()' }\nwhere = 't.at2 is null'").await, @"
        warning[volatile_default]: at2: the default of at2 differs from row to row: existing rows do not get it
          hint: no action is needed if `set` sets at2; the default applies only to rows that are inserted later
        ");
    insta::assert_snapshot!(findings("create domain share as float8 check (value <= 1); create domain half as share; create domain free as float8",
        "add = { a = 'share', b = 'half', c = 'free' }\nset = { a = '1', b = '1', c = '1' }").await, @"
        error[constrained_domain]: a: a would have the domain public.share, which has constraints: to add the column, the server rewrites every row, and all other sessions wait
          hint: add the column with the base type of the domain, and the conditions under finish: check = [...]
        error[constrained_domain]: b: b would have the domain public.half, which has constraints: to add the column, the server rewrites every row, and all other sessions wait
          hint: add the column with the base type of the domain, and the conditions under finish: check = [...]
        ");
    insta::assert_snapshot!(findings("", "add = { a = 'serial' }\nset = { a = '1' }").await, @r#"
    error[sql_refused]: public.s: the server rejects the plan's SQL: type "serial" does not exist
      hint: in the plan's SQL, the table is called t; names without a schema are looked up in its schema, then in public
    "#);
}

#[tokio::test]
async fn what_each_filled_row_triggers() {
    let function = "create function f() returns trigger language plpgsql as 'begin return new; end';";
    let triggers = "create trigger a_audit after insert or update on s for each row execute function f();
        create trigger b_ci before update of ci on s for each row execute function f();
        create trigger c_other before update of name on s for each row execute function f();
        create trigger d_once after update on s for each statement execute function f();
        create trigger e_off before update on s for each row execute function f(); alter table s disable trigger e_off;
        create trigger g_spared before update on s for each row
            when (current_setting('pgstrata.filling', true) is distinct from 'on') execute function f();
        create trigger h_new before insert on s for each row execute function f()";
    insta::assert_snapshot!(findings(&format!("{function}{triggers}"), SET).await, @"
    warning[update_trigger]: a_audit: trigger a_audit calls public.f() after an update of public.s: for each filled row
      hint: check that it should fire for these writes too (audit tables grow, and columns such as updated_at change); to exclude them, create it with: when (current_setting('pgstrata.filling', true) is distinct from 'on')
    warning[update_trigger]: b_ci: trigger b_ci calls public.f() before an update of public.s: for each filled row, which it can change or leave unfilled
      hint: check that it should fire for these writes too (audit tables grow, and columns such as updated_at change); to exclude them, create it with: when (current_setting('pgstrata.filling', true) is distinct from 'on')
    warning[update_trigger]: d_once: trigger d_once calls public.f() after an update of public.s: for each chunk
      hint: check that it should fire for these writes too (audit tables grow, and columns such as updated_at change); to exclude them, create it with: when (current_setting('pgstrata.filling', true) is distinct from 'on')
    ");
    insta::assert_snapshot!(findings("create rule calm as on update to s do also nothing", SET).await, @"
    error[update_rule]: calm: rule calm rewrites every UPDATE of public.s: the job's UPDATE statements would not have the intended effect
      hint: disable it until the job is finalized (alter table public.s disable rule calm), or replace it by a trigger
    ");
    insta::assert_snapshot!(findings("create publication p for table s; alter table s replica identity nothing", SET).await, @"
    error[no_replica_identity]: public.s: updates of public.s are published, but it has no replica identity: the server would reject them
      hint: set a replica identity: alter table public.s replica identity using index ..., or full
    ");
    let keys = "alter table s add unique (ci); create table pays (ci float8 references s (ci));
        create table follows (ci float8 references s (ci) on update cascade);
        create table elsewhere (s_id bigint references s)";
    insta::assert_snapshot!(findings(keys, SET).await, @"
    warning[set_column_pointed_to]: follows_ci_fkey: foreign key follows_ci_fkey of public.follows cascades updates of column ci of public.s: filling a row also updates the rows of public.follows that reference it
      hint: create an index on the referencing columns, and keep chunks small (target_batch_ms): the referencing rows are locked and updated with each chunk
    warning[set_column_pointed_to]: pays_ci_fkey: foreign key pays_ci_fkey of public.pays references column ci of public.s: a referenced row cannot get another value
      hint: exclude such rows with `where`, or make the foreign key ON UPDATE CASCADE first
    warning[index_on_set_column]: public.s: index s_ci_key is on columns that the plan sets: no update can be HOT, and each filled row adds an entry to every index of 2
      hint: drop indexes that are not needed during the run, and list them under finish: index = [...]
    ");
    let db = Database::new().await;
    db.execute(&format!("{TABLES} create publication p for all tables; create publication q for table s with (publish = 'insert')")).await;
    let plan = db.plan(&fill(SET));
    let ran = db.pgstrata(&["check", "--quiet", plan.to_str().unwrap()]).await.ok();
    let note: Vec<&str> =
        ran.stdout.lines().filter(|line| line.starts_with("note[filled_rows_published]")).collect();
    insta::assert_snapshot!(note.join("\n"), @"note[filled_rows_published]: public.s: publication p sends each filled row of public.s to subscribers: limit the WAL that their slots may retain with [throttle] max_slot_retained_bytes");
}

#[tokio::test]
async fn partitions() {
    let parts =
        "create table p (id bigint, at date, ci float8, primary key (id, at)) partition by range (at);
        create table p1 partition of p for values from ('2024-01-01') to ('2024-02-01');";
    let plan = |table: &str, set: &str| fill(set).replace("'s'", &format!("'{table}'"));
    let db = Database::new().await;
    db.execute(&format!("{parts} analyze p; insert into p values (1, '2024-01-01'); analyze p1")).await;
    insta::assert_snapshot!(check(&db, &plan("p", "add = { n = 'int' }\nset = { at = \"'2024-01-02'\", n = '1' }")).await, @r#"
    error[sets_key]: at: column at is part of the key (id, at), and the job processes the table in the order of the key
      hint: change key values by hand; to change the type of the key, use a plan with kind = "retype"
    error[sets_partition_column]: at: column at determines the partition of a row of public.p: filled rows would have to move to another partition
      hint: move such rows by hand: insert and delete them in one transaction
    "#);
    insta::assert_snapshot!(check(&db, &plan("p1", "add = { n = 'int' }\nset = { n = '1' }")).await, @"
    error[partition_column]: n: public.p1 is a partition: a column can only be added to the partitioned table
      hint: name the partitioned table
    ");
    assert_eq!(check(&db, &plan("p1", "set = { ci = '1' }")).await, "");
    db.execute(
        "create foreign data wrapper w; create server far foreign data wrapper w;
        create table q (id bigint, at date, ci float8) partition by range (at);
        create table q1 (id bigint primary key, at date, ci float8);
        alter table q attach partition q1 for values from ('2024-01-01') to ('2024-02-01');
        create foreign table q2 partition of q for values from ('2024-02-01') to ('2024-03-01') server far",
    )
    .await;
    insta::assert_snapshot!(check(&db, &plan("q", "set = { ci = '1' }")).await, @"
    error[no_usable_key]: public.q: table public.q has no primary key and no unique index
      hint: alter table public.q add constraint id_not_null check (id is not null) not valid; alter table public.q validate constraint id_not_null; alter table public.q alter column id set not null; alter table public.q drop constraint id_not_null; create unique index concurrently q_key on public.q (id); alter table public.q add primary key using index q_key
    error[foreign_partition]: public.q2: partition public.q2 is a foreign table: its rows are stored on another server
      hint: fill its rows on that server; on this server, write a separate plan for each of the other partitions
    ");
    let by_expression =
        "create table x (id bigint primary key, n int, ci float8) partition by range ((n % 10))";
    db.execute(&by_expression.replace("primary key", "not null")).await;
    insta::assert_snapshot!(check(&db, &plan("x", "set = { n = '1' }")).await, @"
    error[no_usable_key]: public.x: table public.x has no primary key and no unique index
      hint: create unique index concurrently x_key on public.x (id); alter table public.x add primary key using index x_key
    error[sets_partition_column]: n: column n determines the partition of a row of public.x: filled rows would have to move to another partition
      hint: move such rows by hand: insert and delete them in one transaction
    ");
}

#[tokio::test]
async fn the_cost_of_a_backfill() {
    insta::assert_snapshot!(findings("create index s_ci on s (ci); create index s_less on s (id) where ci is null; create index s_more on s ((ci + 1))", SET).await, @"
    warning[index_on_set_column]: public.s: indexes s_ci, s_less, s_more are on columns that the plan sets: no update can be HOT, and each filled row adds an entry to every index of 4
      hint: drop indexes that are not needed during the run, and list them under finish: index = [...]
    ");
    insta::assert_snapshot!(findings("alter table s set (autovacuum_enabled = off)", SET).await, @"
    warning[autovacuum_off]: public.s: autovacuum is off for public.s: nothing removes the dead rows that the backfill leaves behind
      hint: alter table public.s reset (autovacuum_enabled), or vacuum it while the job runs
    ");
    insta::assert_snapshot!(findings("drop table s; create table s (id int primary key, ci float8)", &SET.replace("t.spend", "1")).await, @"
    warning[no_statistics]: public.s: public.s has no statistics yet: the number of rows to fill and the growth of the table are unknown
      hint: analyze public.s
    ");
    let db = Database::new().await;
    db.execute("create table s (id bigint primary key, ci float8) with (autovacuum_enabled = off);
        insert into s select i from generate_series(1, 100000) i;
        create table e (s_id bigint, amount numeric); insert into e select i, i from generate_series(1, 200000) i; analyze s; analyze e").await;
    let each = "from = '(select s_id, sum(amount) as ci from e group by s_id) x on x.s_id = t.id'\nset = { ci = 'x.ci' }\nwhere = 't.ci is null'";
    let plan = db.plan(&fill(each));
    let found = db.pgstrata(&["check", "--quiet", plan.to_str().unwrap()]).await.ok().stdout;
    // On a busy machine, the trial of the update may take too long and give up.
    let stable: Vec<&str> = found
        .lines()
        .filter(|line| {
            !line.starts_with("warning[untried]")
                && !line.contains("[plan_settings]")
                && !line.contains("less load")
                && !line.starts_with("0 errors")
        })
        .collect();
    insta::assert_snapshot!(stable.join("\n"), @"
    warning[autovacuum_off]: public.s: autovacuum is off for public.s: nothing removes the dead rows that the backfill leaves behind
      hint: alter table public.s reset (autovacuum_enabled), or vacuum it while the job runs
    note[from_read_by_every_chunk]: public.s: every chunk reads about 200,000 rows of e, which is 100 % of the cost of a chunk of 1,000 rows: write from as lateral (select ... where ... = t.id) alias on true, and create an index on the column in its where, so that a chunk reads only what belongs to its rows
    note[growth]: public.s: about 100,000 of 100,000 rows to fill, according to the statistics: public.s grows by up to 3.5 MiB, its indexes by up to 2.2 MiB, or less if a vacuum runs in between; check the free disk space, which pgstrata cannot see; its pages are full, so even updates that could be HOT write to all indexes: if you plan more such updates, alter table public.s set (fillfactor = 90), which applies to pages written from then on
    ");
    db.execute("create index on e (s_id)").await;
    let lateral = "from = 'lateral (select sum(amount) as ci from e where s_id = t.id) x on true'\nset = { ci = 'x.ci' }\nwhere = 't.ci is null'";
    let plan = db.plan(&fill(lateral));
    let ran = db.pgstrata(&["check", "--quiet", plan.to_str().unwrap()]).await.ok();
    assert!(
        !notes(&ran.stdout).iter().any(|note| note.starts_with("note[from_read_by_every_chunk]")),
        "{}",
        ran.stdout
    );
}

#[tokio::test]
async fn missing_privileges_of_a_backfill() {
    let db = Database::new().await;
    db.execute(&format!(
        "{TABLES} create schema lab; alter table s set schema lab; create role fill_guest login;
        revoke all on schema public from public"
    ))
    .await;
    let name = db.dsn().rsplit_once("dbname=").unwrap().1.to_owned();
    let plan = |more: &str| fill(more).replace("'s'", "'lab.s'");
    let joined = "from = '(select s_id, sum(amount) as ci from public.e group by s_id) x on x.s_id = t.id'\nset = { ci = 'x.ci' }\nwhere = 't.ci is null'";
    insta::assert_snapshot!(check_as(&db, "fill_guest", &plan(joined)).await, @"
    error[missing_privilege]: lab: role fill_guest lacks USAGE on schema lab
      hint: grant usage on schema lab to fill_guest
    error[missing_privilege]: lab.s: role fill_guest lacks SELECT on lab.s
      hint: grant select on lab.s to fill_guest
    error[missing_privilege]: lab.s: role fill_guest lacks UPDATE on lab.s
      hint: grant update on lab.s to fill_guest
    error[missing_privilege]: DATABASE: role fill_guest lacks CREATE on database DATABASE, and schema pgstrata does not exist yet
      hint: grant create on database DATABASE to fill_guest
    warning[replicas_hidden]: fill_guest: role fill_guest cannot see the replica lag: if the server has standbys, or the plan sets a limit, the job is throttled until it can see the lag
      hint: grant pg_monitor to fill_guest, or list the standbys under [throttle] replicas
    ");
    db.execute(&format!(
        "grant usage on schema lab to fill_guest; grant select, update on lab.s to fill_guest;
        grant create on database {name} to fill_guest; grant pg_monitor to fill_guest"
    ))
    .await;
    insta::assert_snapshot!(check_as(&db, "fill_guest", &plan(joined)).await, @"
    error[missing_privilege]: public: role fill_guest: permission denied for schema public
      hint: grant usage on schema public to fill_guest
    ");
    db.execute("grant usage on schema public to fill_guest").await;
    insta::assert_snapshot!(check_as(&db, "fill_guest", &plan(joined)).await, @"
    error[missing_privilege]: e: role fill_guest: permission denied for table e
      hint: grant select on e to fill_guest
    ");
    db.execute("grant select on e to fill_guest").await;
    assert_eq!(check_as(&db, "fill_guest", &plan(joined)).await, "");
    for more in ["add = { more = 'int' }", "keep_filled = true", "finish = { not_null = ['ci'] }"] {
        let findings = check_as(
            &db,
            "fill_guest",
            &plan(
                &format!("{joined}\n{more}")
                    .replace("add = { more = 'int' }", "add = { more = 'int', ci = 'int' }"),
            ),
        )
        .await;
        assert!(errors(&findings).contains(&"error[missing_privilege]: lab.s".to_owned()), "{findings}");
    }
    // The privileges that the findings list are sufficient.
    let file = db.plan(&plan(joined));
    let dsn = format!("{} user=fill_guest", db.dsn());
    db.pgstrata_with(&["run", file.to_str().unwrap()], &[("DATABASE_URL", &dsn)]).await.ok();
    assert_eq!(db.count("select count(*) from lab.s where ci = spend").await, 100);
    db.execute("alter table lab.s enable row level security").await;
    insta::assert_snapshot!(check_as(&db, "fill_guest", &plan(joined)).await, @"
    error[row_security]: lab.s: row-level security hides rows of lab.s from role fill_guest
      hint: alter role fill_guest bypassrls, or alter table lab.s no force row level security until the job is finalized
    ");
}

#[tokio::test]
async fn partitions_of_partitions() {
    let db = Database::new().await;
    db.execute(
        "create table s (id bigint, at date, ci float8, primary key (id, at)) partition by range (at);
         create table s24 partition of s for values from ('2024-01-01') to ('2025-01-01') partition by range (at);
         create table s24a partition of s24 for values from ('2024-01-01') to ('2024-07-01');
         create table s24b partition of s24 default;
         create table s25 partition of s for values from ('2025-01-01') to ('2026-01-01');
         insert into s select i, date '2024-01-01' + i from generate_series(0, 699) i; analyze s",
    )
    .await;
    let plan = db.plan(&fill(&SET.replace("t.spend", "t.id")));
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    assert_eq!(db.count("select count(*) from s where ci = id").await, 700);
}

/// The catalog queries of `check` work on every version.
#[tokio::test]
async fn on_every_version() {
    for version in [Version::V14, Version::V16, Version::V17, Version::V18] {
        if version.is_there() {
            let db = Database::of(version).await;
            db.execute(TABLES).await;
            let plan = format!("{SET}\nkeep_filled = true\nfrom = 'e on e.s_id = t.id'");
            assert_eq!(check(&db, &fill(&plan)).await, "", "{version:?}");
        }
    }
}
