//! What `check` refuses, each with what to do; and what a job does not do.

use tokio_postgres::error::SqlState;

use super::{Database, LEFT_BEHIND, PLAN, errors, run, swapped};

const ORDERS: &str =
    "create table orders (id int generated always as identity primary key, note text, code text unique);
    create table kinds (id int primary key)";

/// The errors and warnings on the table after these statements, those left out that every retype has.
async fn told(more: &str, plan: &str) -> String {
    let db = Database::new().await;
    db.execute(ORDERS).await;
    db.execute(more).await;
    let plan = db.plan(plan);
    let ran = db.pgstrata(&["check", plan.to_str().unwrap()]).await;
    let usual = ["column_moves", "sequence_made_anew"];
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let mut told = String::new();
    for (i, line) in lines.iter().enumerate() {
        let hint = line.starts_with("  hint");
        let of = if hint { lines[i - 1] } else { line };
        if (of.starts_with("error[") || of.starts_with("warning["))
            && !usual.iter().any(|code| of.contains(code))
        {
            told += &format!("{line}\n");
        }
    }
    told + &ran.stderr
}

fn plan(retype: &str) -> String {
    format!("name = 'orders_id_bigint'\nkind = 'retype'\ntable = 'orders'\n[retype]\n{retype}")
}

#[tokio::test]
async fn a_plain_table_gets_no_finding() {
    assert_eq!(told("", PLAN).await, "");
}

#[tokio::test]
async fn publications_and_labels_of_the_column() {
    let label = "insert into pg_seclabel select 'orders'::regclass, 'pg_class'::regclass, n, 'guard', 'secret' from generate_series(0, 2) n";
    insta::assert_snapshot!(told(label, PLAN).await, @"
    error[security_label]: public.orders.id: column public.orders.id has a security label for guard, and the new column would have none
      hint: take it away, and put it on again after the swap: security label for guard on column public.orders.id is null
    error: 1 finding in the way; nothing was changed
    ");
}

#[tokio::test]
async fn objects_that_refer_to_the_column_by_its_number() {
    insta::assert_snapshot!(told("create view v as select id from orders", PLAN).await, @"
    error[column_in_use]: view public.v: view public.v reads column id of public.orders, and cannot be carried to the new column
      hint: drop it for the run, and make it again after the swap: it is bound to the column's number and type
    error: 1 finding in the way; nothing was changed
    ");
    insta::assert_snapshot!(told("create materialized view v as select max(id) from orders", PLAN).await, @"
    error[column_in_use]: materialized view public.v: materialized view public.v reads column id of public.orders, and cannot be carried to the new column
      hint: drop it for the run, and make it again after the swap: it is bound to the column's number and type
    error: 1 finding in the way; nothing was changed
    ");
    insta::assert_snapshot!(told("create view v as select id, note, count(*) from orders group by id", PLAN).await, @"
    error[column_in_use]: view public.v: view public.v reads column id of public.orders, and cannot be carried to the new column
      hint: drop it for the run, and make it again after the swap: it is bound to the column's number and type
    error: 1 finding in the way; nothing was changed
    ");
    insta::assert_snapshot!(told("create policy p on orders using (id > 3)", PLAN).await, @"
    error[column_in_use]: policy p on table public.orders: policy p on table public.orders names column id of public.orders, and cannot be carried to the new column
      hint: drop the policy for the run, and make it again after the swap; or write it by other columns
    error: 1 finding in the way; nothing was changed
    ");
    insta::assert_snapshot!(told("alter table orders add twice int generated always as (id * 2) stored", PLAN).await, @"
    error[column_in_use]: default value for column twice of table public.orders: default value for column twice of table public.orders is made from column id of public.orders, and cannot be carried to the new column
      hint: drop the generated column for the run, and add it again after the swap
    error: 1 finding in the way; nothing was changed
    ");
    insta::assert_snapshot!(told("create function f() returns int begin atomic select max(id) from orders; end", PLAN).await, @"
    error[column_in_use]: function public.f(): function public.f() has an SQL body that names column id of public.orders, and cannot be carried to the new column
      hint: write its body as a string (as $$ ... $$), which finds the column by name
    error: 1 finding in the way; nothing was changed
    ");
    insta::assert_snapshot!(told("create statistics s on id, note from orders", PLAN).await, @"
    error[column_in_use]: statistics object public.s: statistics object public.s is on column id of public.orders, and cannot be carried to the new column
      hint: drop these statistics, and make them again after the swap
    error: 1 finding in the way; nothing was changed
    ");
    insta::assert_snapshot!(told("create publication p for table orders", PLAN).await, @"
    error[published]: p: publication p has public.orders: its subscribers would stop at a column that they do not have
      hint: take the table out of the publication for the run, and let subscribers copy it anew
    error: 1 finding in the way; nothing was changed
    ");
    insta::assert_snapshot!(told("alter table orders replica identity using index orders_pkey", PLAN).await, @"
    error[column_in_use]: index public.orders_pkey: index public.orders_pkey tells subscribers rows apart by column id of public.orders, and cannot be carried to the new column
      hint: alter table ... replica identity default, or full, for the run
    error: 1 finding in the way; nothing was changed
    ");
    insta::assert_snapshot!(told("alter table orders add exclude using btree (id with =)", PLAN).await, @"
    error[column_in_use]: constraint public.orders_id_excl: constraint public.orders_id_excl excludes by column id of public.orders, and cannot be carried to the new column
      hint: drop the constraint for the run, and add it again after the swap
    error: 1 finding in the way; nothing was changed
    ");
    let function = "create function f() returns trigger language plpgsql as 'begin return new; end';";
    let of = "create trigger g after update of id on orders for each row execute function f()";
    insta::assert_snapshot!(told(&format!("{function} {of}"), PLAN).await, @"
    error[column_in_use]: trigger g on table public.orders: trigger g on table public.orders has an UPDATE OF or WHEN with column id of public.orders, and cannot be carried to the new column
      hint: make the trigger without it for the run, and ask in its function
    error: 1 finding in the way; nothing was changed
    ");
    let behind = "create trigger zzz before update on orders for each row execute function f()";
    insta::assert_snapshot!(told(&format!("{function} {behind}"), PLAN).await, @"
    error[trigger_behind]: zzz: trigger zzz fires behind ours, zz_pgstrata_fill_orders_id_bigint, which has to see what it makes of the row
      hint: rename it: triggers fire in the order of their names
    warning[trigger_fires]: zzz: trigger zzz fires on every update of a row of public.orders, the job's too: each row is updated once
      hint: nothing, if it may; else give it WHEN (current_setting('pgstrata.filling', true) is distinct from 'on')
    error: 1 finding in the way; nothing was changed
    ");
    // What names another column is in nobody's way.
    assert_eq!(told("create view v as select note from orders", PLAN).await, "");
}

#[tokio::test]
async fn constraints_and_names_that_prevent_a_retype() {
    insta::assert_snapshot!(told("alter table orders drop constraint orders_pkey, add primary key (id) deferrable", PLAN).await, @"
    error[deferrable_constraint]: orders_pkey: index orders_pkey is of a deferrable constraint: the new column's index would refuse at once what that lets pass until the commit
      hint: make the constraint not deferrable for the run
    error: 1 finding in the way; nothing was changed
    ");
    insta::assert_snapshot!(told("alter table orders add id_new int; create table orders_pkey_old ()", PLAN).await, @"
    error[name_taken]: id_new: public.orders has a column id_new already, the name that the job needs
      hint: rename or drop it
    error[name_taken]: public.orders_pkey_old: a table is called public.orders_pkey_old, the name that index orders_pkey needs beside
      hint: rename or drop it
    error: 2 findings in the way; nothing was changed
    ");
    insta::assert_snapshot!(told("create table p (id int references orders, at date) partition by range (at)", PLAN).await, @"
    error[foreign_key_of_partitioned]: p_id_fkey: foreign key p_id_fkey of public.p, a partitioned table, cannot be added without a look at every row
      hint: drop it for the run, and add it again after the swap
    warning[child_keeps_type]: public.p: foreign key p_id_fkey of public.p goes from a column of type integer: it can refer to no value beyond that type
      hint: retype that column by a job of its own, before id needs the room
    error: 1 finding in the way; nothing was changed
    ");
    let partitioned = "drop table orders; create table orders (id int primary key) partition by range (id)";
    insta::assert_snapshot!(told(partitioned, PLAN).await, @"
    error[not_a_plain_table]: public.orders: public.orders is partitioned
      hint: this version retypes plain tables only; retype before partitioning
    error: 1 finding in the way; nothing was changed
    ");
    insta::assert_snapshot!(told("create table more () inherits (orders)", PLAN).await, @"
    error[not_a_plain_table]: public.orders: public.orders is inherited by other tables
      hint: this version retypes plain tables only; detach them first
    error: 1 finding in the way; nothing was changed
    ");
}

#[tokio::test]
async fn plans_that_cannot_be() {
    insta::assert_snapshot!(told("", &plan("column = 'ids'\nto = 'bigint'")).await, @"
    error[no_such_column]: ids: public.orders has no column ids
      hint: did you mean id?
    error: 1 finding in the way; nothing was changed
    ");
    insta::assert_snapshot!(told("", &plan("column = 'id'\nto = 'integer'")).await, @"
    error[already_that_type]: public.orders.id: column public.orders.id is integer already
      hint: there is nothing to do
    error: 1 finding in the way; nothing was changed
    ");
    insta::assert_snapshot!(told("", &plan("column = 'id'\nto = 'bigints'")).await, @r#"
    error[type_refused]: bigints: the server refuses the type: type "bigints" does not exist
      hint: write a type as in SQL: to = "bigint"
    error: 1 finding in the way; nothing was changed
    "#);
    insta::assert_snapshot!(told("", &plan("column = 'code'\nto = 'varchar(5)'")).await, @r#"
    error[cuts_values]: public.orders.code: a cast to varchar(5) cuts longer values without a word
      hint: write using = "t.code", which fails on them; or the cast, if that is meant
    error: 1 finding in the way; nothing was changed
    "#);
    insta::assert_snapshot!(told("", &plan("column = 'code'\nto = 'date'\nusing = 't.cod::date'\nback = 'random()::text'")).await, @r#"
    error[sql_refused]: public.orders.code: the server refuses using: column t.cod does not exist
      hint: write using = "..." over t, such as t."code"::date
    error[volatile_expression]: public.orders.code: back gives another value each time: no row would ever be level
      hint: write an expression of the row alone
    warning[refused_early]: public.orders.code: from the phase index on, a value that using cannot turn, or turns into one that NOT NULL, UNIQUE or CHECK of the column refuse, is refused to the application already
      hint: nothing, if applications write no such values; the swap would refuse them in any case
    error: 2 findings in the way; nothing was changed
    "#);
    insta::assert_snapshot!(told("create index on orders (code text_pattern_ops)", &plan("column = 'code'\nto = 'date'")).await, @r#"
    error[not_in_new_type]: index orders_code_idx: index orders_code_idx cannot be had on date: operator class "text_pattern_ops" does not accept data type date
      hint: drop it before the run, and make it anew for the new type after the swap
    warning[refused_early]: public.orders.code: from the phase index on, a value that using cannot turn, or turns into one that NOT NULL, UNIQUE or CHECK of the column refuse, is refused to the application already
      hint: nothing, if applications write no such values; the swap would refuse them in any case
    error: 1 finding in the way; nothing was changed
    "#);
}

/// A snapshot older than the filled rows would read NULL under the column's name: the swap waits for it.
#[tokio::test]
async fn the_swap_waits_for_older_snapshots() {
    let db = Database::new().await;
    db.execute("create table orders (n int primary key, id int); insert into orders select i, i from generate_series(1, 50) i").await;
    let client = db.client().await;
    client.batch_execute("begin isolation level repeatable read; select 1").await.unwrap();
    client.batch_execute("select count(*) from pg_class").await.unwrap();
    let plan = db.plan(&format!("{PLAN}[swap]\ngive_up_after = '2s'\n"));
    run(&db, &plan).await;
    let refused = db.pgstrata(&["swap", "orders_id_bigint"]).await.exits(5);
    assert!(errors(&refused).contains("with a snapshot older than"), "{}", refused.stderr);
    assert_eq!(client.query_one("select count(id) from orders", &[]).await.unwrap().get::<_, i64>(0), 50);
    client.batch_execute("commit").await.unwrap();
    db.pgstrata(&["swap", "orders_id_bigint"]).await.ok();
    db.pgstrata(&["rollback", "orders_id_bigint"]).await.ok();
    db.pgstrata(&["abort", "orders_id_bigint"]).await.ok();
    assert_eq!(db.count(LEFT_BEHIND).await, 0);
}

/// What `check` warns of: a statement that is prepared once and returns the column fails, as after any ALTER TABLE.
#[tokio::test]
async fn a_prepared_select_of_all_columns_fails_once_and_can_be_prepared_again() {
    let db = Database::new().await;
    db.execute("create table orders (id serial primary key, note text); insert into orders values (1, 'a')")
        .await;
    let client = db.client().await;
    let all = client.prepare("select * from orders").await.unwrap();
    let note = client.prepare("select note from orders where id = $1").await.unwrap();
    assert_eq!(client.query(&all, &[]).await.unwrap().len(), 1);
    let plan = db.plan(PLAN);
    run(&db, &plan).await;
    for command in [&["swap"][..], &["rollback"], &["swap"], &["finalize", "--now"]] {
        let failed = client.query(&all, &[]).await.unwrap_err();
        assert_eq!(failed.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED), "{failed:?}");
        // A statement that does not return the column keeps working.
        assert_eq!(client.query(&note, &[&1_i32]).await.unwrap().len(), 1);
        let anew = client.prepare("select * from orders").await.unwrap();
        assert_eq!(client.query(&anew, &[]).await.unwrap().len(), 1);
        db.pgstrata(&[command, &["orders_id_bigint"]].concat()).await.ok();
    }
}

/// A job that was swapped is not aborted, one that is not swapped not rolled back.
#[tokio::test]
async fn commands_in_the_wrong_state() {
    let db = Database::new().await;
    swapped(&db).await;
    insta::assert_snapshot!(errors(&db.pgstrata(&["abort", "orders_id_bigint"]).await.exits(2)), @"
    error: job orders_id_bigint is swapped; only a job before its swap can be aborted
    hint: `pgstrata rollback orders_id_bigint` first: it loses nothing
    ");
    insta::assert_snapshot!(errors(&db.pgstrata(&["finalize", "orders_id_bigint"]).await.exits(6)).replace(|c: char| c.is_ascii_digit(), "0"), @"
    error: the old column is kept until 0000-00-00 00:00 UTC, as the plan says
    hint: to drop it now: `pgstrata finalize --now orders_id_bigint`
    ");
    db.execute("alter table orders add more int").await;
    insta::assert_snapshot!(errors(&db.pgstrata(&["rollback", "orders_id_bigint"]).await.exits(1)), @"
    error: failed to roll back
    cause: public.orders was changed after the swap, and a rollback would lose that: column more was added
    hint: undo the change and roll back then; or keep the new type, and finalize
    ");
}
