//! Column type changes that `check` refuses, with their hints; and the limits of a job.

use tokio_postgres::error::SqlState;

use super::{Database, LEFT_BEHIND, PLAN, errors, run, swapped};

const ORDERS: &str =
    "create table orders (id int generated always as identity primary key, note text, code text unique);
    create table kinds (id int primary key)";

/// The errors and warnings for the table after `more`, without the warnings that every retype gets.
async fn findings(more: &str, plan: &str) -> String {
    let db = Database::new().await;
    db.execute(ORDERS).await;
    db.execute(more).await;
    let plan = db.plan(plan);
    let ran = db.pgstrata(&["check", plan.to_str().unwrap()]).await;
    let ignored = ["column_moves", "sequence_made_anew"];
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let mut findings = String::new();
    for (i, line) in lines.iter().enumerate() {
        let hint = line.starts_with("  hint");
        let of = if hint { lines[i - 1] } else { line };
        if (of.starts_with("error[") || of.starts_with("warning["))
            && !ignored.iter().any(|code| of.contains(code))
        {
            findings += &format!("{line}\n");
        }
    }
    findings + &ran.stderr
}

fn plan(retype: &str) -> String {
    format!("name = 'orders_id_bigint'\nkind = 'retype'\ntable = 'orders'\n[retype]\n{retype}")
}

#[tokio::test]
async fn a_plain_table_gets_no_finding() {
    assert_eq!(findings("", PLAN).await, "");
}

#[tokio::test]
async fn publications_and_labels_of_the_column() {
    let label = "insert into pg_seclabel select 'orders'::regclass, 'pg_class'::regclass, n, 'guard', 'secret' from generate_series(0, 2) n";
    insta::assert_snapshot!(findings(label, PLAN).await, @"
    error[security_label]: public.orders.id: column public.orders.id has a security label for guard, and the new column would not have it
      hint: remove the label and set it again once the job is finalized: security label for guard on column public.orders.id is null
    error: the check found 1 error; nothing was changed
    ");
}

#[tokio::test]
async fn objects_that_refer_to_the_column_by_its_number() {
    // These are created again for the new column.
    for carried in [
        "create view v as select id, note, count(*) from orders group by id",
        "create materialized view v as select max(id) from orders",
        "create policy p on orders using (id > 3)",
        "create function f() returns int begin atomic select max(id) from orders; end",
        "create statistics s on id, note from orders",
        // A view on another column is not affected.
        "create view v as select note from orders",
    ] {
        assert_eq!(findings(carried, PLAN).await, "", "{carried}");
    }
    insta::assert_snapshot!(findings("create view v as select id from orders; create function f(v) returns int language sql return 1; create materialized view w as select id from v", PLAN).await, @"
    error[column_in_use]: function public.f(public.v): function public.f(public.v) depends on view public.v, which must be created again: it cannot be carried over to the new column id of public.orders
      hint: drop it before the run, and create it again once the job is finalized
    error[column_in_use]: materialized view public.w: materialized view public.w depends on view public.v, which must be created again: it cannot be carried over to the new column id of public.orders
      hint: drop it before the run, and create it again once the job is finalized
    error: the check found 2 errors; nothing was changed
    ");
    insta::assert_snapshot!(findings("create materialized view v as select id, note from orders group by id", PLAN).await, @"
    error[column_in_use]: materialized view public.v: materialized view public.v groups by a key of the table alone, or names it in ON CONFLICT: it cannot be carried over to the new column id of public.orders
      hint: drop it before the run, and create it again once the job is finalized
    error: the check found 1 error; nothing was changed
    ");
    insta::assert_snapshot!(findings("alter table orders add twice int generated always as (id * 2) stored", PLAN).await, @"
    error[column_in_use]: default value for column twice of table public.orders: default value for column twice of table public.orders is computed from column id of public.orders and cannot be carried over to the new column
      hint: drop the generated column before the run, and add it again once the job is finalized
    error: the check found 1 error; nothing was changed
    ");
    insta::assert_snapshot!(findings("create publication p for table orders", PLAN).await, @"
    error[published]: p: publication p contains public.orders: its subscribers would stop at a column that they do not have
      hint: remove the table from the publication until the job is finalized, and let subscribers copy it again afterwards
    error: the check found 1 error; nothing was changed
    ");
    insta::assert_snapshot!(findings("alter table orders replica identity using index orders_pkey", PLAN).await, @"
    error[column_in_use]: index public.orders_pkey: index public.orders_pkey is the replica identity and contains column id of public.orders and cannot be carried over to the new column
      hint: choose another replica identity until the job is finalized: alter table ... replica identity default, or full
    error: the check found 1 error; nothing was changed
    ");
    insta::assert_snapshot!(findings("alter table orders add exclude using btree (id with =)", PLAN).await, @"
    error[column_in_use]: constraint public.orders_id_excl: constraint public.orders_id_excl is an exclusion constraint on column id of public.orders and cannot be carried over to the new column
      hint: drop the constraint before the run, and add it again once the job is finalized
    error: the check found 1 error; nothing was changed
    ");
}

#[tokio::test]
async fn triggers_that_the_updates_of_a_retype_fire() {
    let function = "create function f() returns trigger language plpgsql as 'begin return new; end';";
    let of = "create trigger g after update of id on orders for each row execute function f()";
    insta::assert_snapshot!(findings(&format!("{function} {of}"), PLAN).await, @"
    error[column_in_use]: trigger g on table public.orders: trigger g on table public.orders has an UPDATE OF or WHEN clause on column id of public.orders and cannot be carried over to the new column
      hint: until the job is finalized, replace it by a trigger without that clause that tests the condition in its function
    error: the check found 1 error; nothing was changed
    ");
    let behind = "create trigger zzz before update on orders for each row execute function f()";
    insta::assert_snapshot!(findings(&format!("{function} {behind}"), PLAN).await, @"
    error[trigger_behind]: zzz: trigger zzz fires after the job's trigger zz_pgstrata_fill_orders_id_bigint, which must see the row as zzz leaves it
      hint: rename it so that it fires first: triggers fire in the order of their names
    warning[trigger_fires]: zzz: trigger zzz fires on every update of public.orders, including the job's updates: the job updates each row once
      hint: no action is needed if this is intended; otherwise add WHEN (current_setting('pgstrata.filling', true) is distinct from 'on')
    error: the check found 1 error; nothing was changed
    ");
    let hinted = "when (current_setting('pgstrata.filling', true) is distinct from 'on')";
    let all = [
        "a after update on orders for each statement",
        &format!("b after update on orders for each row {hinted}"),
        &format!("c after insert or update on orders {hinted}"),
        "d after insert on orders",
    ];
    let all = all.map(|one| format!("create trigger {one} execute function f();")).concat();
    insta::assert_snapshot!(findings(&format!("{function} {all}"), PLAN).await, @"
    warning[trigger_fires]: a: trigger a fires on every update of public.orders, including the job's updates: once for each chunk
      hint: no action is needed if this is intended; otherwise add WHEN (current_setting('pgstrata.filling', true) is distinct from 'on')
    ");
}

/// Definitions that are not possible with the new type are found on a temporary table.
#[tokio::test]
async fn definitions_that_the_new_type_cannot_have() {
    let to_text = plan("column = 'id'\nto = 'text'\n");
    let objects = "create view v as select note from orders where id > 3; create view w as select note || 'x' as x from v;
        create policy p on orders using (id < 10); create policy q on kinds using (id in (select o.id from orders o))";
    let found = findings(objects, &to_text).await;
    let refused: Vec<&str> = found.lines().filter(|line| line.contains("operator does not exist")).collect();
    for name in ["view public.v", "policy p on public.orders", "policy q on public.kinds"] {
        assert!(refused.iter().any(|line| line.contains(name)), "{name}: {found}");
    }
}

#[tokio::test]
async fn constraints_and_names_that_prevent_a_retype() {
    insta::assert_snapshot!(findings("alter table orders drop constraint orders_pkey, add primary key (id) deferrable", PLAN).await, @"
    error[deferrable_constraint]: orders_pkey: index orders_pkey belongs to a deferrable constraint: the index of the new column would reject immediately what the constraint allows until commit
      hint: drop the constraint, and add it again without DEFERRABLE; it can be deferrable again once the job is finalized
    error: the check found 1 error; nothing was changed
    ");
    insta::assert_snapshot!(findings("alter table orders add id_new int; create table orders_pkey_old ()", PLAN).await, @"
    error[name_taken]: id_new: the job needs the name id_new for the new column of public.orders, but another column has it
      hint: rename or drop it
    error[name_taken]: public.orders_pkey_old: the job needs the name public.orders_pkey_old for the counterpart of index orders_pkey on the old column of public.orders after the swap, but a table has it
      hint: rename or drop it
    error: the check found 2 errors; nothing was changed
    ");
    insta::assert_snapshot!(findings("create table p (id int references orders, at date) partition by range (at)", PLAN).await, @"
    error[foreign_key_of_partitioned]: p_id_fkey: foreign key p_id_fkey belongs to the partitioned table public.p: before PostgreSQL 18, it cannot be added without reading every row under a lock
      hint: drop it before the run, and add it again once the job is finalized
    warning[child_keeps_type]: public.p: foreign key p_id_fkey of public.p is on a column of type integer, which cannot refer to a value beyond the range of that type
      hint: change the type of that column with a separate job before id exceeds that range
    error: the check found 1 error; nothing was changed
    ");
    let partitioned = "drop table orders; create table orders (id int primary key) partition by range (id)";
    insta::assert_snapshot!(findings(partitioned, PLAN).await, @"
    error[not_a_plain_table]: public.orders: public.orders is partitioned
      hint: a column type change supports only plain tables: change the type before you partition the table
    error: the check found 1 error; nothing was changed
    ");
    insta::assert_snapshot!(findings("create table more () inherits (orders)", PLAN).await, @"
    error[not_a_plain_table]: public.orders: public.orders is inherited by other tables
      hint: a column type change supports only plain tables: detach the children first
    error: the check found 1 error; nothing was changed
    ");
}

#[tokio::test]
async fn invalid_plans() {
    insta::assert_snapshot!(findings("", &plan("column = 'ids'\nto = 'bigint'")).await, @"
    error[no_such_column]: ids: public.orders has no column ids
      hint: did you mean id?
    error: the check found 1 error; nothing was changed
    ");
    insta::assert_snapshot!(findings("", &plan("column = 'id'\nto = 'integer'")).await, @"
    error[already_that_type]: public.orders.id: column public.orders.id already has type integer
      hint: correct `column` or `to` under [retype]
    error: the check found 1 error; nothing was changed
    ");
    insta::assert_snapshot!(findings("", &plan("column = 'id'\nto = 'bigints'")).await, @r#"
    error[type_refused]: bigints: the server rejects the type: type "bigints" does not exist
      hint: write the type as in SQL: to = "bigint"
    error: the check found 1 error; nothing was changed
    "#);
    insta::assert_snapshot!(findings("", &plan("column = 'code'\nto = 'varchar(5)'")).await, @r#"
    error[cuts_values]: public.orders.code: a cast to varchar(5) silently truncates longer values
      hint: write using = "t.code", which fails for such values, or write the cast explicitly if you want to truncate them
    error: the check found 1 error; nothing was changed
    "#);
    insta::assert_snapshot!(findings("", &plan("column = 'code'\nto = 'date'\nusing = 't.cod::date'\nback = 'random()::text'")).await, @r#"
    error[sql_refused]: public.orders.code: the server rejects using: column t.cod does not exist
      hint: write using = "..." as an expression on t, such as t."code"::date
    error[volatile_expression]: public.orders.code: back returns a different value at each evaluation, so the columns would never be in sync
      hint: write an expression that depends only on the values of the row
    warning[refused_early]: public.orders.code: from the index phase on, writes fail if `using` cannot convert the value, or if the converted value violates a NOT NULL, UNIQUE or CHECK constraint of the column
      hint: no action is needed if applications write no such values; after the swap, the column would reject them in any case
    error: the check found 2 errors; nothing was changed
    "#);
    insta::assert_snapshot!(findings("create index on orders (code text_pattern_ops)", &plan("column = 'code'\nto = 'date'")).await, @r#"
    error[not_in_new_type]: index orders_code_idx: index orders_code_idx is not possible on date: operator class "text_pattern_ops" does not accept data type date
      hint: drop it before the run, and create a suitable one for the new type once the job is finalized
    warning[refused_early]: public.orders.code: from the index phase on, writes fail if `using` cannot convert the value, or if the converted value violates a NOT NULL, UNIQUE or CHECK constraint of the column
      hint: no action is needed if applications write no such values; after the swap, the column would reject them in any case
    error: the check found 1 error; nothing was changed
    "#);
}

/// A transaction whose snapshot is older than the filled rows would read NULL in the column after the swap: the swap
/// waits for it.
#[tokio::test]
async fn the_swap_waits_for_older_snapshots() {
    let db = Database::new().await;
    db.execute("create table orders (n int primary key, id int); insert into orders select i, i from generate_series(1, 50) i").await;
    let client = db.client().await;
    client.batch_execute("begin isolation level repeatable read; select 1").await.unwrap();
    client.batch_execute("select count(*) from pg_class").await.unwrap();
    let plan = db.plan(&format!("{PLAN}[swap]\ngive_up_after = '2s'\n"));
    run(&db, &plan).await;
    let refused = db.pgstrata(&["swap", "orders_id_bigint", "--json"]).await.exits(5);
    assert!(!refused.events("waiting_for_snapshots").is_empty(), "{refused:?}");
    assert_eq!(client.query_one("select count(id) from orders", &[]).await.unwrap().get::<_, i64>(0), 50);
    client.batch_execute("commit").await.unwrap();
    db.pgstrata(&["swap", "orders_id_bigint"]).await.ok();
    db.pgstrata(&["rollback", "orders_id_bigint"]).await.ok();
    db.pgstrata(&["abort", "orders_id_bigint"]).await.ok();
    assert_eq!(db.count(LEFT_BEHIND).await, 0);
}

/// `check` warns about this: a prepared statement that returns the column fails after the swap, as after any change of
/// a result column's type.
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
        let again = client.prepare("select * from orders").await.unwrap();
        assert_eq!(client.query(&again, &[]).await.unwrap().len(), 1);
        db.pgstrata(&[command, &["orders_id_bigint"]].concat()).await.ok();
    }
}

/// Abort of a swapped job, finalize while the plan still keeps the old column, and rollback of a table that has
/// changed.
#[tokio::test]
async fn commands_in_the_wrong_state() {
    let db = Database::new().await;
    swapped(&db).await;
    insta::assert_snapshot!(errors(&db.pgstrata(&["abort", "orders_id_bigint"]).await.exits(2)), @"
    error: job orders_id_bigint is swapped, and cannot be aborted
    hint: run `pgstrata rollback orders_id_bigint`, which keeps all writes, then `pgstrata abort orders_id_bigint`
    ");
    insta::assert_snapshot!(errors(&db.pgstrata(&["finalize", "orders_id_bigint"]).await.exits(6)).replace(|c: char| c.is_ascii_digit(), "0"), @"
    error: the old column is kept until 0000-00-00 00:00 UTC, as set in the plan
    hint: to drop it now: `pgstrata finalize --now orders_id_bigint`
    ");
    db.execute("alter table orders add more int").await;
    insta::assert_snapshot!(errors(&db.pgstrata(&["rollback", "orders_id_bigint"]).await.exits(1)), @"
    error: failed to roll back
    cause: public.orders was changed after the swap, and a rollback would lose the change: column more was added
    hint: undo the change, then roll back; or keep the new type and finalize the job
    ");
}
