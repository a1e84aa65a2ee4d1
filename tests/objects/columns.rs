//! Columns, indexes and constraints that do not belong to the job, for a column type change and a backfill.

use crate::support::cluster::Database;
use crate::support::lab::Lab;
use crate::support::process::refusal;

const SETUP: &str = "
    create table orders (id integer primary key, n integer not null, note text, constraint positive check (n > 0));
    create index orders_n on orders (n);
    insert into orders select i, i, 'x' from generate_series(1, 2000) i;
    analyze orders";

const RETYPE: &str =
    "name = 'job'\nkind = 'retype'\ntable = 'orders'\n[retype]\ncolumn = 'n'\nto = 'bigint'\n";

const BACKFILL: &str = "name = 'job'\nkind = 'backfill'\ntable = 'orders'\n[backfill]\nset = { note = \"'y' || t.id\" }\n\
    keep_filled = true\nfinish = { index = ['(note)'], unique = [['note']], check = [\"note like 'y%'\"] }\n";

const TRIGGERS: &str = "select count(*) from pg_trigger where tgname like '%pgstrata%'";

async fn filled() -> Database {
    let db = Database::new().await;
    db.execute(SETUP).await;
    let plan = db.plan(RETYPE);
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    db
}

/// Adds a column that does not belong to the job.
async fn add_column_of_others(db: &Database, name: &str) {
    db.execute(&format!("alter table orders add column {name} text default 'own'")).await;
}

async fn untouched(db: &Database, name: &str) {
    assert_eq!(
        db.count(&format!("select count(*) from orders where {name}::text = 'own'")).await,
        2000,
        "{name}"
    );
}

#[tokio::test]
async fn abort_keeps_a_column_with_the_name_of_the_jobs_column() {
    let db = filled().await;
    db.execute("alter table orders drop column n_new").await;
    add_column_of_others(&db, "n_new").await;
    let ran = db.pgstrata(&["swap", "job"]).await;
    insta::assert_snapshot!(refusal(&ran), @"
    exit 1
    error: column n_new is not the column of job job
    cause: the job's column was dropped
    hint: rename it back, and run the same command again; or abort the job and run it again: `pgstrata abort job`
    ");
    let ran = db.pgstrata(&["abort", "job", "--json"]).await.ok();
    assert_eq!(ran.event("column_not_own")["column"], "n_new");
    untouched(&db, "n_new").await;
    assert_eq!(db.count(TRIGGERS).await, 0);
}

#[tokio::test]
async fn finalize_keeps_an_old_column_that_was_renamed_and_one_that_took_its_name() {
    let db = filled().await;
    db.pgstrata(&["swap", "job"]).await.ok();
    db.execute("alter table orders rename column n_old to n_archive").await;
    add_column_of_others(&db, "n_old").await;
    let ran = db.pgstrata(&["rollback", "job"]).await;
    insta::assert_snapshot!(refusal(&ran), @"
    exit 1
    error: column n_old is not the column of job job
    cause: the job's column is now named n_archive
    hint: rename it back, and run the same command again; or keep the new column, and give up the rollback: `pgstrata finalize --now job`
    ");
    let kept = db.pgstrata(&["finalize", "job", "--now", "--json"]).await.ok().event("column_renamed");
    assert_eq!((&kept["column"], &kept["now"]), (&"n_old".into(), &"n_archive".into()));
    untouched(&db, "n_old").await;
    assert_eq!(db.count("select count(*) from orders where n_archive = n").await, 2000);
    assert_eq!(db.count(TRIGGERS).await, 0);
}

#[tokio::test]
async fn a_retype_can_end_after_its_table_was_renamed_moved_or_replaced() {
    for change in [
        "alter table orders rename to orders2",
        "create schema s; alter table orders set schema s",
        "alter table orders rename to orders2; create table orders (id int, n_new text, n_old text)",
    ] {
        for last in ["abort", "finalize"] {
            let db = filled().await;
            let mut args = vec![last, "job"];
            if last == "finalize" {
                db.pgstrata(&["swap", "job"]).await.ok();
                args.push("--now");
            }
            db.execute(change).await;
            db.pgstrata(&args).await.ok();
            assert_eq!(db.count(TRIGGERS).await, 0, "{change}");
            let left =
                "select count(*) from pg_attribute join pg_class c on c.oid = attrelid and relkind = 'r'
                 where attname in ('n_new', 'n_old') and not attisdropped";
            let foreign = if change.contains("create table") { 2 } else { 0 };
            assert_eq!(db.count(left).await, foreign, "{change}, {last}");
        }
    }
}

#[tokio::test]
async fn a_retype_neither_drops_nor_takes_over_an_index_or_a_constraint_of_others() {
    let lab = Lab::new(SETUP, RETYPE).await;
    let db = &lab.db;
    lab.killed("run", "capture.done").await;
    db.execute("create table u (id int); create index orders_n_new on u (id)").await;
    insta::assert_snapshot!(lab.refused("run").await, @"
    exit 1
    error: public.orders_n_new is not the object that job job created under that name
    cause: the job's object was dropped, or another object was created under its name
    hint: rename or drop it, and run the same command again
    ");
    assert_eq!(
        db.count("select count(*) from pg_indexes where indexname = 'orders_n_new' and tablename = 'u'")
            .await,
        1
    );
    db.execute("drop index orders_n_new; alter table orders add constraint positive_new check (id > 0)")
        .await;
    insta::assert_snapshot!(lab.refused("run").await, @"
    exit 1
    error: public.positive_new is not the object that job job created under that name
    cause: the job's object was dropped, or another object was created under its name
    hint: rename or drop it, and run the same command again
    ");
    assert_eq!(db.count("select count(*) from pg_constraint where conname = 'positive_new'").await, 1);
    db.execute("alter table orders drop constraint positive_new").await;
    lab.ok("run").await;
    // The same for an index of the same table that replaces the index of the job.
    db.execute("drop index orders_n_new; create index orders_n_new on orders (id)").await;
    insta::assert_snapshot!(lab.refused("swap").await, @"
    exit 1
    error: public.orders_n_new is not the object that job job created under that name
    cause: the job's object was dropped, or another object was created under its name
    hint: rename or drop it, and run the same command again
    ");
    db.execute("drop index orders_n_new").await;
    lab.ok("swap").await;
    // A rollback recognizes the old index by its name and its definition.
    db.execute("drop index orders_n_old; create index orders_n_old on orders (id)").await;
    insta::assert_snapshot!(lab.refused("rollback").await, @"
    exit 1
    error: failed to roll back
    cause: public.orders_n_old is not the object that job job created under that name: the job's object was dropped, or another object was created under its name
    hint: rename or drop it, and run the same command again
    ");
    db.execute("drop index orders_n_old").await;
    lab.ok("rollback").await;
    lab.ok("swap").await;
    lab.ok("finalize --now").await;
}

#[tokio::test]
async fn a_retype_that_an_earlier_version_started_resumes() {
    let db = filled().await;
    db.execute("drop table pgstrata.objects; alter table pgstrata.jobs drop column records; alter table pgstrata.leases drop column lock_key, drop column driver; update pgstrata.version set number = 3")
        .await;
    db.pgstrata(&["swap", "job"]).await.ok();
    db.pgstrata(&["rollback", "job"]).await.ok();
    db.pgstrata(&["abort", "job"]).await.ok();
    assert_eq!(
        db.count("select count(*) from pg_attribute where attname = 'n_new' and not attisdropped").await,
        0
    );
}

#[tokio::test]
async fn a_backfill_that_is_aborted_drops_only_what_it_made() {
    let lab = Lab::new(SETUP, BACKFILL).await;
    let db = &lab.db;
    lab.killed("run", "finish.added").await;
    // Invalid indexes that another session creates meanwhile, under names from the plan.
    for name in ["orders_note_idx", "orders_note_key"] {
        db.execute(&format!("create index {name} on orders (note)")).await;
        db.execute(&format!("update pg_index set indisvalid = false where indexrelid = '{name}'::regclass"))
            .await;
    }
    insta::assert_snapshot!(lab.refused("run").await, @"
    exit 1
    error: orders_note_key exists in schema public, and is not what the plan describes under that name
    cause: it was created or changed after the check
    hint: rename or drop it, then run again
    ");
    db.execute("alter index orders_note_key rename to others").await;
    insta::assert_snapshot!(lab.refused("run").await, @"
    exit 1
    error: failed to build index public.orders_note_idx
    cause: index public.orders_note_idx is not usable, and job job did not create it: a build by another session has not ended, or was not completed
    hint: wait until the build ends, or drop the index; then run again
    ");
    lab.ok("abort").await;
    let kept = "select count(*) from pg_indexes where indexname in ('orders_note_idx', 'others')";
    assert_eq!(db.count(kept).await, 2);
    assert_eq!(db.count(TRIGGERS).await, 0);
}

#[tokio::test]
async fn an_aborted_backfill_drops_the_index_that_it_was_building() {
    let lab = Lab::new(SETUP, BACKFILL).await;
    let db = &lab.db;
    lab.killed("run", "finish.index").await;
    db.execute("update pg_index set indisvalid = false where indexrelid = (select oid from pg_class where relname ~ '^orders_note_')")
        .await;
    lab.ok("abort").await;
    assert_eq!(db.count("select count(*) from pg_indexes where indexname ~ '^orders_note_'").await, 0);
    assert_eq!(db.count(TRIGGERS).await, 0);
}

#[tokio::test]
async fn a_backfill_can_be_aborted_after_its_table_was_renamed() {
    let lab = Lab::new(SETUP, BACKFILL).await;
    let db = &lab.db;
    lab.killed("run", "capture.done").await;
    db.execute("alter table orders rename to orders2").await;
    lab.ok("abort").await;
    assert_eq!(db.count(TRIGGERS).await, 0);
}

#[tokio::test]
async fn a_backfill_refuses_objects_that_took_a_name_after_the_check() {
    for (take, undo) in [
        ("create index orders_note_idx on orders (id)", "drop index orders_note_idx"),
        ("create unique index orders_note_key on orders (id)", "drop index orders_note_key"),
        ("create index orders_note_key on orders (note)", "drop index orders_note_key"),
        (
            "alter table orders add constraint orders_note_like_y_check_bd006bec check (id > 0)",
            "alter table orders drop constraint orders_note_like_y_check_bd006bec",
        ),
    ] {
        let lab = Lab::new(SETUP, BACKFILL).await;
        let db = &lab.db;
        lab.killed("run", "job.created").await;
        db.execute(take).await;
        let refused = lab.ran("run --json").await.exits(1).error()["message"].to_string();
        let name = undo.rsplit(' ').next().unwrap();
        assert!(refused.contains(name), "{take}: {refused}");
        db.execute(undo).await;
        lab.ok("run").await;
        let built = "select count(*) from pg_constraint where conrelid = 'orders'::regclass and convalidated
            and (contype = 'u' or pg_get_constraintdef(oid) like '%note%')";
        assert_eq!(db.count(built).await, 2, "{take}");
    }
}
