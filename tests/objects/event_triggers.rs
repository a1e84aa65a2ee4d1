//! Event triggers that change the objects of the job: the job reverts the changes, or reports them.

use super::make_the_last_anew;
use crate::support::cluster::{Database, Version, on_version};
use crate::support::process::{Ran, refusal};

on_version!(system System row_security_stays_off);
on_version!(v14 V14 row_security_stays_off);
on_version!(v18 V18 row_security_stays_off);

const SETUP: &str = "
    create table t (id bigint primary key, at timestamptz not null default '2024-02-02Z', v text);
    insert into t select i, timestamptz '2024-01-01Z' + i * interval '3 hours', 'v' from generate_series(1, 1500) i;
    analyze t";

const PLAN: &str = "name = 'job'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\n";

/// An event trigger that runs a statement for each object that a command created; `%s` is replaced by its name.
fn for_each(tags: &str, condition: &str, statement: &str) -> String {
    format!(
        "create function meddle() returns event_trigger language plpgsql as $$
         declare made record;
         begin
           for made in select * from pg_event_trigger_ddl_commands() where {condition} loop
             execute format('{statement}', made.object_identity);
           end loop;
         end $$;
         create event trigger meddler on ddl_command_end {tags} execute function meddle()"
    )
}

const NEW_TABLES: &str =
    "command_tag = 'CREATE TABLE' and object_type = 'table' and schema_name in ('public', 'pgstrata')";

async fn with(version: Version, meddling: &str) -> Database {
    let db = Database::of(version).await;
    db.execute(SETUP).await;
    db.execute(meddling).await;
    db
}

async fn run(db: &Database) -> Ran {
    let plan = db.plan(PLAN);
    db.pgstrata(&["run", plan.to_str().unwrap()]).await
}

async fn row_security_stays_off(version: Version) {
    let tag = "when tag in ('CREATE TABLE', 'CREATE TABLE AS')";
    let on = for_each(
        tag,
        NEW_TABLES,
        "alter table %s enable row level security; alter table %1$s force row level security",
    );
    let db = with(version, &on).await;
    let reader = format!("reader_{}", db.dsn().len() + version as usize);
    db.execute(&format!("drop role if exists {reader}; create role {reader}; grant select on t to {reader}"))
        .await;
    run(&db).await.ok();
    for command in ["swap", "rollback", "swap"] {
        db.pgstrata(&[command, "job"]).await.ok();
        let client = db.client().await;
        client
            .batch_execute(&format!(
                "set role {reader}; insert into t values (-nextval('s'), default, 'new')"
            ))
            .await
            .err();
        client.batch_execute(&format!("set role {reader}")).await.unwrap();
        let seen: i64 = client.query_one("select count(*) from t where id > 0", &[]).await.unwrap().get(0);
        assert_eq!(seen, 1500, "after {command}");
    }
    let on = "select count(*) from pg_class where relrowsecurity or relforcerowsecurity";
    assert_eq!(db.count(on).await, 0);
    // Also for partitions that are created later.
    make_the_last_anew(&db).await;
    assert_eq!(db.count(on).await, 0);
    db.pgstrata(&["finalize", "job", "--now"]).await.ok();
    db.execute(&format!("drop owned by {reader}; drop role {reader}")).await;
}

#[tokio::test]
async fn triggers_policies_columns_and_indexes_of_event_triggers_are_removed() {
    let audit = "
        create table audit_log (op text);
        create function audit() returns trigger language plpgsql as
          $$ begin insert into public.audit_log values (tg_op); return null; end $$;
        create trigger audit_i after insert or update or delete on t for each row execute function audit();";
    let more = for_each(
        "when tag in ('CREATE TABLE')",
        "command_tag = 'CREATE TABLE' and object_type = 'table'",
        "create trigger audit_x after insert or update or delete on %s for each row execute function public.audit();
         create policy p on %1$s using (false);
         create index on %1$s ((1));
         create rule r as on update to %1$s where false do instead nothing",
    );
    let db = with(Version::System, &format!("{audit}{more}")).await;
    run(&db).await.ok();
    db.pgstrata(&["swap", "job"]).await.ok();
    assert_eq!(db.count("select count(*) from audit_log").await, 0);
    db.execute("update t set v = 'w' where id <= 10").await;
    assert_eq!(db.count("select count(*) from audit_log").await, 10);
    db.pgstrata(&["rollback", "job"]).await.ok();
    db.execute("update t set v = 'x' where id <= 10").await;
    db.pgstrata(&["swap", "job"]).await.ok();
    assert_eq!(db.count("select count(*) from audit_log").await, 20);
    let added =
        "select (select count(*) from pg_policy) + (select count(*) from pg_rules where rulename = 'r')
      + (select count(*) from pg_trigger where tgname = 'audit_x')";
    assert_eq!(db.count(added).await, 0);
    db.pgstrata(&["finalize", "job", "--now"]).await.ok();
}

#[tokio::test]
async fn the_new_table_has_the_owner_of_the_source() {
    let db = with(Version::System, "create role objects_group").await;
    db.execute(&for_each(
        "",
        "command_tag = 'CREATE TABLE' and object_type = 'table'",
        "alter table %s owner to objects_group",
    ))
    .await;
    run(&db).await.ok();
    for command in ["swap", "rollback", "swap"] {
        db.execute("update t set v = v || '!' where id % 97 = 0").await;
        db.pgstrata(&[command, "job"]).await.ok();
    }
    db.pgstrata(&["finalize", "job", "--now"]).await.ok();
    let given =
        "select count(*) from pg_class where relkind in ('r', 'p') and relowner = 'objects_group'::regrole";
    assert_eq!(db.count(given).await, 0);
    db.execute("drop event trigger meddler; drop role objects_group").await;
}

#[tokio::test]
async fn objects_that_are_created_each_time_are_reported_by_name() {
    let grants = for_each(
        "",
        "command_tag in ('CREATE TABLE', 'REVOKE') and object_type = 'table' and schema_name = 'public'",
        "grant select on %s to public",
    );
    let again = "create function again() returns event_trigger language plpgsql as
        $$ begin if to_regclass('public.t_new') is not null and not exists
             (select from pg_policy where polrelid = to_regclass('public.t_new')) then
           execute 'create policy p on public.t_new using (false)'; end if; end $$;
        create event trigger again on ddl_command_end when tag in ('ALTER TABLE') execute function again()";
    let db = with(Version::System, &format!("{grants}; {again}")).await;
    insta::assert_snapshot!(refusal(&run(&db).await), @"
    exit 1
    error: public.t_new has objects or properties that public.t does not have
    cause: public.t_new: policy p; enabled event triggers: again, meddler
    hint: undo these changes, disable the event trigger that makes them, and run the same command again; or abort the job and run it again: `pgstrata abort job`
    ");
    db.pgstrata(&["abort", "job"]).await.ok();
}

#[tokio::test]
async fn objects_that_are_created_before_the_swap_are_reported() {
    let db = with(Version::System, "select 1").await;
    run(&db).await.ok();
    db.execute("alter table t_y2024m01 enable row level security; create policy p on t_new using (false)")
        .await;
    let ran = db.pgstrata(&["swap", "job"]).await;
    insta::assert_snapshot!(refusal(&ran), @"
    exit 1
    error: failed to swap
    cause: public.t_new has objects or properties that public.t does not have: public.t_new: policy p; public.t_y#m#: row-level security is on
    hint: undo these changes, disable the event trigger that makes them, and run the same command again; or abort the job and run it again: `pgstrata abort job`
    ");
    db.execute("alter table t_y2024m01 disable row level security; drop policy p on t_new").await;
    db.pgstrata(&["swap", "job"]).await.ok();
}

#[tokio::test]
async fn properties_that_are_changed_before_the_swap_are_reported() {
    let db = with(Version::System, "select 1").await;
    run(&db).await.ok();
    let of_both = [
        ("alter column v set not null", "alter column v drop not null", "column v: NOT NULL"),
        ("alter column v set default 'x'", "alter column v drop default", "column v: default"),
        (
            "alter column v set statistics 7",
            "alter column v set statistics -1",
            "column v: statistics target",
        ),
        ("alter column v set storage external", "alter column v set storage extended", "column v: storage"),
        (
            "alter column v set compression pglz",
            "alter column v set compression default",
            "column v: compression",
        ),
        ("alter column v set (n_distinct = 5)", "alter column v reset (n_distinct)", "column v: options"),
        ("force row level security", "no force row level security", "row-level security is forced"),
    ];
    let of_partitions = [
        ("set (fillfactor = 70)", "reset (fillfactor)", "storage parameters"),
        (
            "set (toast.autovacuum_enabled = off)",
            "reset (toast.autovacuum_enabled)",
            "TOAST storage parameters",
        ),
        ("replica identity full", "replica identity default", "replica identity"),
        ("set unlogged", "set logged", "persistence"),
        ("add exclude (id with =)", "drop constraint t_y2024m01_id_excl", "index t_y2024m01_id_excl"),
    ];
    let of_partitions = of_both.iter().chain(&of_partitions).map(|change| ("t_y2024m01", change));
    for (made, (change, undo, reported)) in
        of_both.iter().map(|change| ("t_new", change)).chain(of_partitions)
    {
        // A change of the partitioned table alone would not change the partition.
        let alone = made == "t_new" && !change.starts_with("alter column v set not null");
        let only = if alone { "only " } else { "" };
        db.execute(&format!("alter table {only}{made} {change}")).await;
        let ran = db.pgstrata(&["swap", "job"]).await.exits(1);
        assert!(ran.stderr.contains(&format!("public.{made}: {reported}")), "{}", ran.stderr);
        db.execute(&format!("alter table {only}{made} {undo}")).await;
    }
    db.execute("create index more on t_new (v)").await;
    let ran = db.pgstrata(&["swap", "job"]).await.exits(1);
    assert!(ran.stderr.contains("public.t_new: index more"), "{}", ran.stderr);
    db.execute("drop index more").await;
    for command in ["swap", "rollback"] {
        db.pgstrata(&[command, "job"]).await.ok();
    }
    // A partition may have had properties of its own while it was in use.
    db.execute("alter table t_y2024m01 set (fillfactor = 70); create policy p on t_new using (false)").await;
    let ran = db.pgstrata(&["swap", "job"]).await.exits(1);
    assert!(
        ran.stderr.contains("public.t_new: policy p") && !ran.stderr.contains("y2024m01"),
        "{}",
        ran.stderr
    );
    db.execute("drop policy p on t_new").await;
    db.pgstrata(&["swap", "job"]).await.ok();
}

#[tokio::test]
async fn columns_are_carried_over_without_what_belongs_to_others() {
    let plans = [
        "name = 'job'\nkind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'v'\nto = 'varchar(50)'\nusing = 't.v'\n",
        "name = 'job'\nkind = 'backfill'\ntable = 't'\n[backfill]\nadd = { w = 'text' }\nset = { w = 't.v' }\n",
    ];
    for plan in plans {
        let more = for_each(
            "when tag in ('ALTER TABLE')",
            "object_type in ('table', 'table column') and objid = 'public.t'::regclass",
            "drop policy if exists p on public.t; create policy p on public.t using (false)",
        );
        let db = with(Version::System, &more).await;
        let file = db.plan(plan);
        let ran = db.pgstrata(&["run", file.to_str().unwrap(), "--json"]).await.exits(1);
        assert_eq!(
            ran.error()["cause"],
            "ALTER TABLE public.t ADD COLUMN changed more than the new columns: policy p was added; enabled event triggers: meddler"
        );
        let left = "select (select count(*) from pg_policy) + (select count(*) from pg_attribute where attrelid = 't'::regclass and attnum > 3)";
        assert_eq!(db.count(left).await, 0, "the failed phase left objects behind");
    }
}
