//! Objects that do not belong to the job but have names that the job uses: the job does not change them, and can still
//! be finalized or aborted.

mod columns;
mod event_triggers;
mod tablespaces;
mod two_jobs;

use crate::support::cluster::Database;
use crate::support::lab::Lab;
use crate::support::process::refusal;

const SETUP: &str = "
    create table obs (id bigint primary key, at timestamptz not null, note text);
    insert into obs select i, timestamptz '2024-01-01Z' + i * interval '1 hour', 'n' from generate_series(1, 2000) i;
    analyze obs";

const PLAN: &str = "name = 'job'\ntable = 'obs'\n[partition]\nby = 'at'\nevery = '1 month'\n";

const LEFT_BEHIND: &str = "select (select count(*) from pg_trigger where tgname like 'pgstrata%') + \
    (select count(*) from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname = 'pgstrata')";

/// Drops the last two partitions of `t`, which are empty, and runs `maintain`, which creates them again.
async fn make_the_last_anew(db: &Database) {
    const PARTITIONS: &str = "select count(*) from pg_class where relname ~ '^t_y[0-9]+m[0-9]+$' and relkind = 'r' and relispartition";
    let before = db.count(PARTITIONS).await;
    db.execute("do $$ declare last name; begin
    for last in select relname from pg_class where relname ~ '^t_y[0-9]+m[0-9]+$' and relkind = 'r' order by 1 desc limit 2 loop
      execute format('drop table %I', last);
    end loop; end $$").await;
    assert_eq!(db.count(PARTITIONS).await, before - 2);
    db.pgstrata(&["maintain", "job"]).await.ok();
    assert_eq!(db.count(PARTITIONS).await, before);
}

async fn verified() -> Database {
    let db = Database::new().await;
    db.execute(SETUP).await;
    let plan = db.plan(PLAN);
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    db
}

async fn swapped() -> Database {
    let db = verified().await;
    db.pgstrata(&["swap", "job"]).await.ok();
    db
}

/// Creates a table that does not belong to the job. [`untouched`] asserts that it has not changed.
async fn put_in(db: &Database, name: &str) {
    db.execute(&format!("create table {name} (id bigint, at timestamptz, note text); insert into {name} values (-1, '2024-02-02Z', 'own')")).await;
}

async fn untouched(db: &Database, name: &str) {
    let kept = db.count(&format!("select count(*) from {name} where id = -1 and note = 'own'")).await;
    let all = db.count(&format!("select count(*) from {name}")).await;
    assert_eq!((kept, all), (1, 1), "{name}");
}

async fn nothing_is_left_behind(db: &Database) {
    assert_eq!(db.count(LEFT_BEHIND).await, 0);
}

#[tokio::test]
async fn abort_keeps_a_table_that_has_the_name_of_its_target() {
    let db = verified().await;
    db.execute("drop table obs_new").await;
    put_in(&db, "obs_new").await;
    let ran = db.pgstrata(&["abort", "job", "--json"]).await.ok();
    assert_eq!(ran.event("table_not_own")["table"], "public.obs_new");
    untouched(&db, "obs_new").await;
    nothing_is_left_behind(&db).await;
}

#[tokio::test]
async fn abort_drops_its_target_under_another_name_and_in_another_schema() {
    let db = verified().await;
    db.execute("create schema other; alter table obs_new rename to mine; alter table mine set schema other")
        .await;
    put_in(&db, "obs_new").await;
    db.pgstrata(&["abort", "job"]).await.ok();
    untouched(&db, "obs_new").await;
    assert_eq!(db.count("select count(*) from pg_class where relname = 'mine'").await, 0);
    nothing_is_left_behind(&db).await;
}

#[tokio::test]
async fn finalize_keeps_a_table_that_has_the_name_of_the_old_one() {
    let db = swapped().await;
    db.execute("alter table obs_old rename to obs_archive").await;
    put_in(&db, "obs_old").await;
    let kept = db.pgstrata(&["finalize", "job", "--now", "--json"]).await.ok().event("table_renamed");
    assert_eq!((&kept["table"], &kept["now"]), (&"public.obs_old".into(), &"public.obs_archive".into()));
    untouched(&db, "obs_old").await;
    assert_eq!(db.count("select count(*) from obs_archive").await, 2000);
    nothing_is_left_behind(&db).await;
    // The kept table accepts writes.
    db.execute("insert into obs_archive values (5000, now(), 'x')").await;
}

#[tokio::test]
async fn a_replaced_target_is_neither_filled_nor_swapped() {
    let db = verified().await;
    db.execute("alter table obs_new rename to obs_saved").await;
    put_in(&db, "obs_new").await;
    db.execute("insert into obs values (9000, '2024-02-02Z', 'later'); truncate obs").await;
    for command in ["swap", "sync", "verify"] {
        let ran = db.pgstrata(&[command, "job"]).await;
        insta::allow_duplicates! { insta::assert_snapshot!(refusal(&ran), @"
        exit 1
        error: public.obs_new is not the table of job job
        cause: public.obs_new is now another table (oid #); the job's table has oid # and is now named public.obs_saved
        hint: rename public.obs_saved back to public.obs_new, and run the same command again; or abort the job and run it again: `pgstrata abort job`
        "); }
        untouched(&db, "obs_new").await;
    }
    db.execute("alter table obs_new rename to away; alter table obs_saved rename to obs_new").await;
    db.pgstrata(&["swap", "job"]).await.ok();
}

#[tokio::test]
async fn a_replaced_old_table_is_not_drained_into() {
    let db = swapped().await;
    db.execute("drop table obs_old").await;
    put_in(&db, "obs_old").await;
    db.execute("truncate obs").await;
    for command in ["sync", "verify", "rollback"] {
        let ran = db.pgstrata(&[command, "job"]).await;
        insta::allow_duplicates! { insta::assert_snapshot!(refusal(&ran), @"
        exit 1
        error: public.obs_old is not the table of job job
        cause: public.obs_old is now another table (oid #); the job's table, oid #, was dropped
        hint: keep the partitioned table, and give up the rollback: `pgstrata finalize --now job`
        "); }
        untouched(&db, "obs_old").await;
    }
    db.pgstrata(&["finalize", "job", "--now"]).await.ok();
    untouched(&db, "obs_old").await;
    nothing_is_left_behind(&db).await;
}

#[tokio::test]
async fn a_target_that_is_replaced_while_it_is_copied_is_not_written_to() {
    let lab = Lab::new(SETUP, PLAN).await;
    let db = &lab.db;
    lab.killed("run", "copy.frozen").await;
    db.execute("alter table obs_new rename to obs_saved").await;
    put_in(db, "obs_new").await;
    insta::assert_snapshot!(lab.refused("run").await, @"
    exit 1
    error: public.obs_new is not the table of job job
    cause: public.obs_new is now another table (oid #); the job's table has oid # and is now named public.obs_saved
    hint: rename public.obs_saved back to public.obs_new, and run the same command again; or abort the job and run it again: `pgstrata abort job`
    ");
    untouched(db, "obs_new").await;
    db.execute("alter table obs_new rename to away; alter table obs_saved rename to obs_new").await;
    lab.ok("run").await;
}

#[tokio::test]
async fn a_source_that_is_replaced_is_not_copied() {
    let db = verified().await;
    db.execute("alter table obs rename to obs_before; create table obs (like obs_before including all)")
        .await;
    let ran = db.pgstrata(&["swap", "job"]).await;
    insta::assert_snapshot!(refusal(&ran), @"
    exit 1
    error: public.obs is not the table of job job
    cause: public.obs is now another table (oid #); the job's table has oid # and is now named public.obs_before
    hint: rename public.obs_before back to public.obs, and run the same command again; or abort the job and run it again: `pgstrata abort job`
    ");
    db.pgstrata(&["abort", "job"]).await.ok();
    assert_eq!(db.count("select count(*) from obs_before").await, 2000);
    nothing_is_left_behind(&db).await;
}

#[tokio::test]
async fn abort_finds_its_triggers_on_a_table_that_was_renamed_or_moved() {
    for change in ["alter table obs rename to obs2", "create schema s; alter table obs set schema s"] {
        let db = verified().await;
        db.execute(change).await;
        db.pgstrata(&["abort", "job"]).await.ok();
        nothing_is_left_behind(&db).await;
        assert_eq!(db.count("select count(*) from pg_class where relname = 'obs_new'").await, 0, "{change}");
    }
}

#[tokio::test]
async fn finalize_finds_its_triggers_on_tables_that_were_detached_renamed_or_moved() {
    for change in [
        "alter table obs detach partition obs_y2024m01",
        "alter table obs detach partition obs_y2024m01; create schema s; alter table obs_y2024m01 set schema s",
        "alter table obs rename to obs2",
        "create schema s; alter table obs set schema s",
        "alter table obs_y2024m01 rename to january",
        "alter table obs rename to obs2; create table obs (id bigint)",
    ] {
        let db = swapped().await;
        db.execute(change).await;
        db.pgstrata(&["finalize", "job", "--now"]).await.ok();
        nothing_is_left_behind(&db).await;
        assert_eq!(db.count("select count(*) from pg_class where relname = 'obs_old'").await, 0, "{change}");
    }
}

#[tokio::test]
async fn abort_after_a_rollback_keeps_a_partition_that_was_detached() {
    let db = swapped().await;
    db.pgstrata(&["rollback", "job"]).await.ok();
    db.execute("alter table obs_new detach partition obs_y2024m01").await;
    let ran = db.pgstrata(&["abort", "job", "--json"]).await.ok();
    assert_eq!(ran.event("detached_partition_kept")["partition"], "public.obs_y2024m01");
    nothing_is_left_behind(&db).await;
    assert!(db.count("select count(*) from obs_y2024m01").await > 0);
}

#[tokio::test]
async fn a_job_that_an_earlier_version_started_resumes() {
    let db = swapped().await;
    db.execute(
        "drop table pgstrata.objects; alter table pgstrata.jobs drop column records; alter table pgstrata.leases drop column lock_key, drop column driver; update pgstrata.version set number = 3",
    )
    .await;
    db.pgstrata(&["rollback", "job"]).await.ok();
    db.pgstrata(&["abort", "job"]).await.ok();
    nothing_is_left_behind(&db).await;
    assert_eq!(
        db.count("select count(*) from pg_class where relname like 'obs\\_%' and relkind in ('r', 'p')")
            .await,
        0
    );
}

#[tokio::test]
async fn the_swap_renames_no_index_of_others() {
    let db = verified().await;
    db.execute("alter table obs_new drop constraint obs_pkey_new; create table u (id int); create index obs_pkey_new on u (id)")
        .await;
    let ran = db.pgstrata(&["swap", "job"]).await;
    insta::assert_snapshot!(refusal(&ran), @"
    exit 1
    error: failed to swap
    cause: the swap or rollback would rename objects that do not belong to the two tables of job job: public.obs_pkey_new: an index, sequence or statistics object of the tables was dropped, or another object was created under its name
    hint: nothing was changed; create the original object again, and run the same command again; or abort the job and run it again: `pgstrata abort job`
    ");
    let kept = "select count(*) from pg_indexes where indexname = 'obs_pkey_new' and tablename = 'u'";
    assert_eq!(db.count(kept).await, 1);
    db.pgstrata(&["abort", "job"]).await.ok();
    assert_eq!(db.count(kept).await, 1);
}

#[tokio::test]
async fn a_materialized_view_of_others_is_kept() {
    let db = Database::new().await;
    db.execute(SETUP).await;
    db.execute("create materialized view m as select note, count(*) from obs group by note").await;
    let plan = db.plan(PLAN);
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    db.execute("create materialized view m_new as select 'own' as note").await;
    let ran = db.pgstrata(&["swap", "job"]).await;
    insta::assert_snapshot!(refusal(&ran), @"
    exit 1
    error: public.m_new exists, and job job did not create it
    cause: the job needs that name to create public.m again
    hint: rename or drop it, and run the same command again
    ");
    assert_eq!(db.count("select count(*) from m_new where note = 'own'").await, 1);
    db.execute("alter materialized view m_new rename to mine").await;
    for command in ["swap", "sync", "rollback"] {
        db.pgstrata(&[command, "job"]).await.ok();
    }
    db.pgstrata(&["abort", "job"]).await.ok();
    assert_eq!(db.count("select count(*) from m").await, 1);
}
