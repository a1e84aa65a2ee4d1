//! `null_as`: the job fills rows with NULL in the partition column, and those that are written with NULL until the swap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::error::SqlState;

use super::{CONSTRAINTS, PLAN, SETUP, definitions, write};
use crate::support::bench::{DEADLOCK_TIMEOUT, KEYSET, TABLE, TRUTH};
use crate::support::checks::{check, errors, findings};
use crate::support::cluster::{Database, Version, on_oldest_and_newest, on_version};
use crate::support::lab::Lab;
use crate::support::load::Load;
use crate::support::oracle;
use crate::support::tables::TableSpec;

on_oldest_and_newest!(null_is_filled_under_writers);
on_version!(system System null_is_filled_under_writers);

/// The value of `null_as` in tests under writers.
const VALUE: &str = "timestamptz '2024-06-15 12:00:00+00'";
/// The table as it would be with every NULL filled.
fn filled() -> String {
    format!(
        "(select id, coalesce(created_at, {VALUE}) as created_at, title, amount, doc, flag from {TABLE}) {TABLE}"
    )
}

/// A table with NULLs, and a load that writes more of them while [`TableSpec::nulls`] is set. The truth copy has the values.
async fn load_with_nulls(version: Version) -> (Lab, Load, Arc<AtomicBool>) {
    let db = Database::of(version).await;
    db.execute(DEADLOCK_TIMEOUT).await;
    let spec = TableSpec::bigint(TABLE, 6_000).nullable();
    spec.create(&db).await;
    db.execute(&format!(
        "create function fill() returns trigger language plpgsql as
           $$ begin new.created_at := coalesce(new.created_at, {VALUE}); return new; end $$;
         create trigger fill before insert or update on {TRUTH} for each row execute function fill();
         alter table {TRUTH} enable always trigger fill;
         update {TABLE} set created_at = null where id % 5 = 0; update {TRUTH} set created_at = null where id % 5 = 0"
    ))
    .await;
    let nulls = spec.nulls.clone();
    nulls.store(true, Ordering::Relaxed);
    let load = Load::start(db.dsn(), spec, 4, 7).await;
    let plan = format!(
        "table = '{TABLE}'\n[partition]\nby = 'created_at'\nevery = '1 month'\nnull_as = \"{VALUE}\"\n\
         [swap]\nlock_timeout = '1500ms'\nattempts = 1000\n{KEYSET}"
    );
    (Lab::on(db, &plan), load, nulls)
}

/// Lets the writers write NULL, or not, from the next transaction of each writer on; no earlier one is open.
async fn set(load: &Load, nulls: &AtomicBool, to: bool) {
    let _quiet = load.pause().await;
    nulls.store(to, Ordering::Relaxed);
}

async fn null_is_filled_under_writers(version: Version) {
    let (lab, load, nulls) = load_with_nulls(version).await;
    let before = definitions(&lab, version).await;
    let contained = format!("select count(*) from {TABLE} where created_at is null");
    load.commit_more(50).await;
    assert!(lab.count(&contained).await > 1_000);
    lab.killed("run", "fill.chunk").await;
    load.commit_more(20).await;
    lab.killed("run", "verify.range").await;
    lab.killed("run", "not_null.added").await;
    load.commit_more(20).await;
    lab.none(&contained).await;
    let ran = lab.ok("run").await;
    assert!(!ran.stderr.contains("filling columns"), "{}", ran.stderr);
    load.commit_more(50).await;
    lab.none(&contained).await;
    oracle::compare(&lab.db, TABLE, TRUTH).await;
    set(&load, &nulls, false).await;
    lab.ok("swap").await;
    load.commit_more(50).await;
    oracle::compare(&lab.db, TABLE, TRUTH).await;
    lab.ok("rollback").await;
    {
        let _quiet = load.pause().await;
        lab.none("select count(*) from pg_trigger where tgname like 'zz_pgstrata%'").await;
        lab.none(CONSTRAINTS).await;
    }
    set(&load, &nulls, true).await;
    load.commit_more(100).await;
    assert!(lab.count(&contained).await > 0);
    oracle::compare(&lab.db, &filled(), TRUTH).await;
    lab.killed("swap", "not_null.added").await;
    load.commit_more(50).await;
    lab.none(&contained).await;
    lab.killed("swap", "not_null.validated").await;
    set(&load, &nulls, false).await;
    lab.ok("swap").await;
    load.commit_more(50).await;
    oracle::compare(&lab.db, TABLE, TRUTH).await;
    lab.steps(&["rollback", "abort"]).await;
    assert_eq!(definitions(&lab, version).await, before);
    set(&load, &nulls, true).await;
    load.commit_more(20).await;
    lab.ok("run").await;
    set(&load, &nulls, false).await;
    lab.steps(&["swap", "finalize --now"]).await;
    load.commit_more(50).await;
    load.stop().await.assert_clean();
    oracle::compare(&lab.db, TABLE, TRUTH).await;
    lab.none("select count(*) from pg_proc where pronamespace = 'pgstrata'::regnamespace").await;
}

/// The number of filled rows is reported, and an aborted job leaves their values.
#[tokio::test]
async fn filled_rows_are_counted_and_stay() {
    let lab = Lab::new(
        SETUP,
        &PLAN.replace("not_null = true", "null_as = \"'2024-03-03'::timestamptz + t.n * interval '1 s'\""),
    )
    .await;
    lab.db.execute("update t set at = null where n < 40").await;
    let before = lab.catalog().await;
    let ran = lab.ok("run --json").await;
    let filled = ran.stdout.lines().find(|line| line.contains("\"rows_filled\"")).unwrap_or_default();
    assert!(filled.contains("\"rows\":40,"), "{}", ran.stdout);
    // The application's writes of NULL do not fail.
    assert_eq!(write(&lab.db, "insert into t (at, n) values (null, 1000)").await, None);
    assert_eq!(write(&lab.db, "update t set at = null where n = 100").await, None);
    lab.ok("abort").await;
    assert_eq!(lab.catalog().await, before);
    lab.none("select count(*) from t where at is null").await;
    let values = "select count(*) from t where at = '2024-03-03'::timestamptz + n * interval '1 s'";
    assert_eq!(lab.count(values).await, 42);
}

/// The expression is NULL, or fails, for some rows that the check does not look at.
#[tokio::test]
async fn an_expression_that_is_null_for_a_late_row() {
    let plan =
        PLAN.replace("not_null = true", "null_as = \"'2024-03-03'::timestamptz + t.n * interval '1 s'\"");
    let lab = Lab::new(SETUP, &plan).await;
    lab.killed("run", "prepare.done").await;
    lab.db.execute("insert into t (at, n) values (null, null), (null, 3)").await;
    let error = lab.refused("run").await;
    assert!(error.starts_with("exit 1\nerror: "), "{error}");
    assert!(error.contains("null_as"), "{error}");
    lab.none(CONSTRAINTS).await;
    lab.db.execute("update t set n = 5 where n is null").await;
    lab.ok("run").await;
    // From now on, the write of a row for which there is no value fails.
    assert_eq!(
        write(&lab.db, "insert into t (at, n) values (null, null)").await,
        Some(SqlState::CHECK_VIOLATION)
    );
    lab.steps(&["swap", "rollback"]).await;
    assert_eq!(write(&lab.db, "insert into t (at, n) values (null, null)").await, None);
    lab.refused("swap").await;
    lab.none(CONSTRAINTS).await;
    lab.db.execute("delete from t where n is null").await;
    lab.steps(&["swap", "finalize --now"]).await;
}

/// The owner of the table runs the job and is not a superuser; the application has only privileges on the table, and the
/// expression calls a function that it may not call.
#[tokio::test]
async fn null_is_filled_for_roles_with_few_privileges() {
    let db = Database::new().await;
    let (owner, app) = (format!("{}_owner", db.name()), format!("{}_app", db.name()));
    db.execute(&format!(
        "revoke all on schema public from public; create role {owner} login; create role {app} login;
         grant create on database {} to {owner}; create schema \"Ap p\" authorization {owner}; set role {owner};
         create table \"Ap p\".\"T\" (id bigint generated by default as identity primary key, \"At\" timestamptz, n int);
         insert into \"Ap p\".\"T\" (\"At\", n) select nullif('2024-01-01'::timestamptz + i * interval '1 day', '2024-01-09'), i
           from generate_series(0, 300) i;
         create function \"Ap p\".\"when\"(n int) returns timestamptz language sql immutable
           as $$ select timestamptz '2024-04-04 00:00+00' + n * interval '1 minute' $$;
         revoke all on function \"Ap p\".\"when\" from public;
         grant usage on schema \"Ap p\" to {app}; grant select, insert, update on \"Ap p\".\"T\" to {app};
         analyze \"Ap p\".\"T\"; reset role",
        db.name()
    ))
    .await;
    let plan = db.plan(
        "name = 'job'\ntable = '\"Ap p\".\"T\"'\n[partition]\nby = '\"At\"'\nevery = '1 month'\n\
         null_as = '\"when\"(t.n)'\n",
    );
    let as_owner = async |args: &[&str]| {
        let dsn = db.dsn_of(&owner);
        db.pgstrata_with(args, &[("DATABASE_URL", &dsn)]).await.ok()
    };
    let application = db.as_role(&app).await;
    let plan = plan.to_str().unwrap();
    as_owner(&["run", plan]).await;
    application.batch_execute("insert into \"Ap p\".\"T\" (n) values (1000)").await.unwrap();
    as_owner(&["swap", "job"]).await;
    as_owner(&["rollback", "job"]).await;
    application.batch_execute("insert into \"Ap p\".\"T\" (n) values (1001)").await.unwrap();
    as_owner(&["swap", "job"]).await;
    as_owner(&["finalize", "job", "--now"]).await;
    let values = "select count(*) from \"Ap p\".\"T\" where \"At\" = timestamptz '2024-04-04 00:00+00' + n * interval '1 minute'";
    assert_eq!(db.count(values).await, 3);
}

#[tokio::test]
async fn what_check_reports_about_null_as() {
    let db = Database::new().await;
    db.execute(&format!("{SETUP}; insert into t (at, n) values (null, 0), (null, null)")).await;
    let codes = async |value: &str| -> Vec<String> {
        let plan = PLAN.replace("not_null = true", &format!("null_as = \"{value}\""));
        let code = |line: &String| line.split(['[', ']']).nth(1).unwrap_or_default().to_owned();
        errors(&check(&db, &plan).await).iter().map(code).collect()
    };
    assert_eq!(codes("now()").await, [""; 0]);
    assert_eq!(codes("t.at").await, ["null_as_null"]);
    assert_eq!(codes("now() + t.n * interval '1 s'").await, ["null_as_null"]);
    assert_eq!(codes("now() + 1 / coalesce(t.n, 1) * interval '1 s'").await, ["null_as_null"]);
    assert_eq!(codes("t.n").await, ["type_mismatch"]);
    assert_eq!(codes("nowhere(t.n)").await, ["sql_refused"]);
    let plan = PLAN.replace("not_null = true", "null_as = \"now()\"");
    let found = findings(&check(&db, &plan).await);
    assert!(found.iter().any(|one| one.starts_with("warning[null_filled]")), "{found:?}");
    // A function of a role that is not trusted would run with the job's privileges.
    let role = format!("{}_other", db.name());
    db.execute(&format!(
        "create role {role}; create schema theirs authorization {role}; set role {role};
         create function theirs.f() returns timestamptz language sql as 'select now()'; reset role"
    ))
    .await;
    assert!(!codes("theirs.f()").await.is_empty());
}
