//! What `check` reports about backfills: plans that cannot be right, what each filled row triggers, the cost, and missing
//! privileges; and what only the first chunk can show.

use crate::support::checks::{check, check_as, errors, notes};
use crate::support::cluster::{Database, Version};

/// A hundred rows by a key, and what they can be joined with.
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
async fn told(setup: &str, more: &str) -> String {
    let db = Database::new().await;
    db.execute(&format!("{TABLES}{setup}")).await;
    check(&db, &fill(more)).await
}

/// The error of a run of that plan. Nothing of the chunk is kept.
async fn fails(setup: &str, more: &str) -> String {
    let db = Database::new().await;
    db.execute(&format!("{TABLES}{setup}")).await;
    let plan = db.plan(&fill(more));
    let ran = db.pgstrata(&["run", plan.to_str().unwrap()]).await.exits(1);
    assert_eq!(db.count("select count(*) from s where ci is not null").await, 0);
    assert_eq!(db.count("select count(*) from pgstrata.chunks").await, 0);
    ran.stderr.lines().skip_while(|line| !line.starts_with("error")).collect::<Vec<_>>().join("\n")
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
    let ran = db.pgstrata(&["check", plan.to_str().unwrap()]).await.ok();
    insta::assert_snapshot!(ran.stdout, @"
    note[growth]: public.s: about 60 of 100 rows to fill by the statistics: public.s grows by up to 9.6 KiB, less where vacuum comes in between; free space on disk cannot be seen from here
    0 errors, 0 warnings: the job can start
    ");
}

#[tokio::test]
async fn plans_that_cannot_be_right() {
    insta::assert_snapshot!(told("", "set = { id = 't.id + 1' }").await, @r#"
    error[sets_key]: id: column id is part of the key (id), by which rows are gone through
      hint: a key is changed by hand, or by a job of kind "retype"
    "#);
    insta::assert_snapshot!(told("", "set = { ci = 'random()' }").await, @r#"
    error[volatile_expression]: public.s: the plan's SQL gives another value each time, so that no row is ever as it would be set
      hint: write a where that tells a row that is filled, such as where = "t.column is null"
    "#);
    insta::assert_snapshot!(told("", "set = { ci = '1' }\nwhere = 'random() < 0.5'").await, @r#"
    error[volatile_where]: public.s: the plan's where means other rows each time: nobody could say that the job is done
      hint: write a where of the row's own values, such as where = "t.column is null"
    "#);
    insta::assert_snapshot!(told("alter table s drop constraint s_pkey", SET).await, @"
    error[no_usable_key]: public.s: table public.s has no primary key and no unique index
      hint: create unique index concurrently s_key on public.s (id); alter table public.s add primary key using index s_key
    ");
    insta::assert_snapshot!(told("", "set = { ci = 't.spent' }").await, @"
    error[sql_refused]: public.s: the server refuses the plan's SQL: column t.spent does not exist
      hint: the table is called t; names without a schema are looked for in its schema, then in public
    ");
}

#[tokio::test]
async fn types_that_do_not_fit() {
    insta::assert_snapshot!(told("", "set = { at = 't.name' }").await, @r#"
    error[type_mismatch]: set: the server refuses set: column "at" is of type date but expression is of type text
      hint: write the cast: set = { column = "(...)::the_type" }
    "#);
    insta::assert_snapshot!(told("create type mood as enum ('good'); alter table s add mood mood", "set = { mood = \"'good'\" }").await, @r#"
    error[type_mismatch]: set: the server refuses set: column "mood" is of type mood but expression is of type text
      hint: write the cast: set = { column = "(...)::the_type" }
    "#);
    assert_eq!(
        told(
            "create type mood as enum ('good'); alter table s add mood mood",
            "set = { mood = \"'good'::mood\" }"
        )
        .await,
        ""
    );
    insta::assert_snapshot!(told("", "add = { day = 'date', n = 'numeric(9, 2)', w = 'text collate \"C\"', all_of = 'numeric[]' }
        set = { day = 't.name', n = 't.id', w = 't.id', all_of = 'array[t.id]' }\nwhere = 't.w is null'").await, @r#"
        error[type_mismatch]: day: column day is set to an expression of type text, which its own type does not take
          hint: write the cast: set = { column = "(...)::the_type" }
        "#);
    insta::assert_snapshot!(told("", "add = { n = 'int' }\nset = { n = 'row(1, 2)' }\nwhere = 't.n is null'").await, @r#"
    error[sql_refused]: public.s: the server refuses the plan's SQL: cannot cast type record to integer
      hint: the table is called t; names without a schema are looked for in its schema, then in public
    error[type_mismatch]: n: column n is set to an expression of type record, which its own type does not take
      hint: write the cast: set = { column = "(...)::the_type" }
    "#);
}

#[tokio::test]
async fn columns_to_be_added() {
    insta::assert_snapshot!(told("", "add = { at2 = 'timestamptz default clock_timestamp()', at3 = 'timestamptz default now()' }
        set = { at2 = 'now()' }\nwhere = 't.at2 is null'").await, @"
        warning[volatile_default]: at2: the default of at2 differs from row to row: rows that are there already do not get it
          hint: nothing, if set gives at2 its value; it holds for rows that come after the column
        ");
    insta::assert_snapshot!(told("create domain share as float8 check (value <= 1); create domain half as share; create domain free as float8",
        "add = { a = 'share', b = 'half', c = 'free' }\nset = { a = '1', b = '1', c = '1' }").await, @"
        error[constrained_domain]: a: a would be of domain public.share, which has constraints: the server writes every row anew to add it, while everybody waits
          hint: add it with the domain's base type, and its conditions under finish: check = [...]
        error[constrained_domain]: b: b would be of domain public.half, which has constraints: the server writes every row anew to add it, while everybody waits
          hint: add it with the domain's base type, and its conditions under finish: check = [...]
        ");
    insta::assert_snapshot!(told("", "add = { a = 'serial' }\nset = { a = '1' }").await, @r#"
    error[sql_refused]: public.s: the server refuses the plan's SQL: type "serial" does not exist
      hint: the table is called t; names without a schema are looked for in its schema, then in public
    "#);
}

#[tokio::test]
async fn errors_that_only_the_first_chunk_finds() {
    insta::assert_snapshot!(fails("", "set = { ci = 't.spend' }\nwhere = 't.id > 10'").await, @"
    error: failed to fill a chunk
    cause: rows match the plan's where after they were set: the job would never end; among them, by key: 11; 12; 13; 14; 15; 16; 17; 18; 19; 20
    hint: write a where that is false for a row that is filled, such as `t.column is null`; nothing of this chunk was kept
    ");
    insta::assert_snapshot!(fails("insert into e values (7, 1)", "from = 'e on e.s_id = t.id'\nset = { ci = 'e.amount' }\nwhere = 't.ci is null'").await, @"
    error: failed to fill a chunk
    cause: the plan's from yields more than one row for one of the table; among them, by key: 7
    hint: group it, or select distinct, so that each row has one value; nothing of this chunk was kept
    ");
    insta::assert_snapshot!(fails("", "set = { ci = '1 / (t.id - 1)' }\nwhere = 't.ci is null'").await, @"
    error: failed to fill a chunk (SQLSTATE 22012)
    cause: the plan's SQL fails on a row of public.s: by key: 1: division by zero
    hint: `pgstrata check PLAN --sample 1000` looks for more such rows; change the row and run again; or abort the job, change the plan's expression or its where, and run it then: what is filled stays
    ");
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
    insta::assert_snapshot!(told(&format!("{function}{triggers}"), SET).await, @"
    warning[update_trigger]: a_audit: trigger a_audit calls public.f() after an update of public.s: for each filled row
      hint: see that it is meant for these writes too (audit tables grow by them, and clocks such as updated_at go on); to spare them it, make it anew with: when (current_setting('pgstrata.filling', true) is distinct from 'on')
    warning[update_trigger]: b_ci: trigger b_ci calls public.f() before an update of public.s: for each filled row, which it may change, or keep from being filled
      hint: see that it is meant for these writes too (audit tables grow by them, and clocks such as updated_at go on); to spare them it, make it anew with: when (current_setting('pgstrata.filling', true) is distinct from 'on')
    warning[update_trigger]: d_once: trigger d_once calls public.f() after an update of public.s: for each chunk
      hint: see that it is meant for these writes too (audit tables grow by them, and clocks such as updated_at go on); to spare them it, make it anew with: when (current_setting('pgstrata.filling', true) is distinct from 'on')
    ");
    insta::assert_snapshot!(told("create rule calm as on update to s do also nothing", SET).await, @"
    error[update_rule]: calm: rule calm rewrites every UPDATE of public.s: a batch would not do what it says
      hint: alter table public.s disable rule calm for the run, or make it a trigger
    ");
    insta::assert_snapshot!(told("create publication p for table s; alter table s replica identity nothing", SET).await, @"
    error[no_replica_identity]: public.s: updates of public.s are published, and it has no replica identity: the server refuses them
      hint: alter table public.s replica identity using index ..., or full
    ");
    let keys = "alter table s add unique (ci); create table pays (ci float8 references s (ci));
        create table follows (ci float8 references s (ci) on update cascade);
        create table elsewhere (s_id bigint references s)";
    insta::assert_snapshot!(told(keys, SET).await, @"
    warning[set_column_pointed_to]: follows_ci_fkey: foreign key follows_ci_fkey of public.follows follows column ci of public.s: a filled row writes the rows there that point to it
      hint: they are locked and written with the chunk: have an index there on the key's columns, and small chunks (target_batch_ms)
    warning[set_column_pointed_to]: pays_ci_fkey: foreign key pays_ci_fkey of public.pays points to column ci of public.s: a row that is pointed to cannot get another value
      hint: leave such rows out by where, or make the key ON UPDATE CASCADE first
    warning[index_on_set_column]: public.s: index s_ci_key is on columns that are set: no update can be HOT, each filled row is written to every index of 2
      hint: an index that nobody needs meanwhile is better built afterwards: drop it, and list it under finish: index = [...]
    ");
    let db = Database::new().await;
    db.execute(&format!("{TABLES} create publication p for all tables; create publication q for table s with (publish = 'insert')")).await;
    let plan = db.plan(&fill(SET));
    let ran = db.pgstrata(&["check", plan.to_str().unwrap()]).await.ok();
    let note: Vec<&str> =
        ran.stdout.lines().filter(|line| line.starts_with("note[filled_rows_published]")).collect();
    insta::assert_snapshot!(note.join("\n"), @"note[filled_rows_published]: public.s: publication p sends each filled row of public.s to subscribers: limit what their slots may keep with [throttle] max_slot_retained_bytes");
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
    error[sets_key]: at: column at is part of the key (id, at), by which rows are gone through
      hint: a key is changed by hand, or by a job of kind "retype"
    error[sets_partition_column]: at: column at decides in which partition a row of public.p belongs: it would have to move
      hint: move such rows by hand: insert and delete, in one transaction
    "#);
    insta::assert_snapshot!(check(&db, &plan("p1", "add = { n = 'int' }\nset = { n = '1' }")).await, @"
    error[partition_column]: n: public.p1 is a partition: a column can only be added to the whole table
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
    error[foreign_partition]: public.q2: partition public.q2 is a foreign table: its rows are on another server
      hint: fill them there; here, name the other partitions, each in a plan of its own
    ");
    let by_expression =
        "create table x (id bigint primary key, n int, ci float8) partition by range ((n % 10))";
    db.execute(&by_expression.replace("primary key", "not null")).await;
    insta::assert_snapshot!(check(&db, &plan("x", "set = { n = '1' }")).await, @"
    error[no_usable_key]: public.x: table public.x has no primary key and no unique index
      hint: create unique index concurrently x_key on public.x (id); alter table public.x add primary key using index x_key
    error[sets_partition_column]: n: column n decides in which partition a row of public.x belongs: it would have to move
      hint: move such rows by hand: insert and delete, in one transaction
    ");
}

#[tokio::test]
async fn the_cost_of_a_backfill() {
    insta::assert_snapshot!(told("create index s_ci on s (ci); create index s_less on s (id) where ci is null; create index s_more on s ((ci + 1))", SET).await, @"
    warning[index_on_set_column]: public.s: indexes s_ci, s_less, s_more are on columns that are set: no update can be HOT, each filled row is written to every index of 4
      hint: an index that nobody needs meanwhile is better built afterwards: drop it, and list it under finish: index = [...]
    ");
    insta::assert_snapshot!(told("alter table s set (autovacuum_enabled = off)", SET).await, @"
    warning[autovacuum_off]: public.s: autovacuum is off for public.s: nobody takes away the dead rows that filling leaves
      hint: alter table public.s reset (autovacuum_enabled), or vacuum it while the job runs
    ");
    insta::assert_snapshot!(told("drop table s; create table s (id int primary key, ci float8)", &SET.replace("t.spend", "1")).await, @"
    warning[no_statistics]: public.s: public.s has no statistics yet: nobody can say how many rows there are to fill, and how much it will grow
      hint: analyze public.s
    ");
    let db = Database::new().await;
    db.execute("create table s (id bigint primary key, ci float8) with (autovacuum_enabled = off);
        insert into s select i from generate_series(1, 100000) i;
        create table e (s_id bigint, amount numeric); insert into e select i, i from generate_series(1, 200000) i; analyze s; analyze e").await;
    let each = "from = '(select s_id, sum(amount) as ci from e group by s_id) x on x.s_id = t.id'\nset = { ci = 'x.ci' }\nwhere = 't.ci is null'";
    let plan = db.plan(&fill(each));
    let ran = db.pgstrata(&["check", plan.to_str().unwrap()]).await.ok();
    insta::assert_snapshot!(ran.stdout, @"
    warning[autovacuum_off]: public.s: autovacuum is off for public.s: nobody takes away the dead rows that filling leaves
      hint: alter table public.s reset (autovacuum_enabled), or vacuum it while the job runs
    note[from_read_by_every_chunk]: public.s: every chunk reads about 200,000 rows of e, 100 % of what a chunk of 1,000 rows costs: write from as lateral (select ... where ... = t.id) alias on true, and give the column in it an index, so that a chunk reads only what belongs to its rows
    note[growth]: public.s: about 100,000 of 100,000 rows to fill by the statistics: public.s grows by up to 3.5 MiB, its indexes by up to 2.2 MiB, less where vacuum comes in between; free space on disk cannot be seen from here; its pages are full, so that even updates that could be HOT write all indexes: where such updates come again, alter table public.s set (fillfactor = 90), for pages written from then on
    0 errors, 1 warning: the job can start
    ");
    db.execute("create index on e (s_id)").await;
    let lateral = "from = 'lateral (select sum(amount) as ci from e where s_id = t.id) x on true'\nset = { ci = 'x.ci' }\nwhere = 't.ci is null'";
    let plan = db.plan(&fill(lateral));
    let ran = db.pgstrata(&["check", plan.to_str().unwrap()]).await.ok();
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
    error[missing_privilege]: DATABASE: role fill_guest lacks CREATE on database DATABASE, and schema pgstrata is not there yet
      hint: grant create on database DATABASE to fill_guest
    warning[replicas_hidden]: fill_guest: role fill_guest cannot see how far standbys are behind: where the server has any, or the plan asks for a limit, the job holds until it can
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
        let told = check_as(
            &db,
            "fill_guest",
            &plan(
                &format!("{joined}\n{more}")
                    .replace("add = { more = 'int' }", "add = { more = 'int', ci = 'int' }"),
            ),
        )
        .await;
        assert!(errors(&told).contains(&"error[missing_privilege]: lab.s".to_owned()), "{told}");
    }
    // What the findings ask for is enough.
    let file = db.plan(&plan(joined));
    let dsn = format!("{} user=fill_guest", db.dsn());
    db.pgstrata_with(&["run", file.to_str().unwrap()], &[("DATABASE_URL", &dsn)]).await.ok();
    assert_eq!(db.count("select count(*) from lab.s where ci = spend").await, 100);
    db.execute("alter table lab.s enable row level security").await;
    insta::assert_snapshot!(check_as(&db, "fill_guest", &plan(joined)).await, @"
    error[row_security]: lab.s: row-level security hides rows of lab.s from role fill_guest
      hint: alter role fill_guest bypassrls, or alter table lab.s no force row level security for the run
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

/// What `check` asks the catalog is answered by every version.
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
