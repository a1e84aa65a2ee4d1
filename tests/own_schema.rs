//! Schema `pgstrata` under the control of other roles: if another role could make statements of the job run its code,
//! the command refuses before it uses the schema. Other roles have no privileges on the objects that pgstrata creates
//! in the schema.

use std::path::PathBuf;

use crate::support::cluster::{Database, Version};
use crate::support::process::Ran;

const PLAN: &str = "name = 'job'\ntable = 't'\n[partition]\nby = 'at'\nevery = 'month'\nto = '2024-07-01'\n";

const TABLE: &str = "create table t (id bigint generated always as identity primary key, at timestamptz not null, note text);
    insert into t (at) select timestamptz '2024-01-15 00:00Z' + i * interval '1 hour' from generate_series(0, 999) i;
    analyze t;";

/// A trigger function that makes the intruder a superuser with the privileges of its caller.
const ATTACK: &str = "create function pwn() returns trigger language plpgsql as $$ begin
        execute 'alter role ' || quote_ident(tg_argv[0]) || ' superuser'; return new; end $$;";

/// A database with a table and the role of an intruder, and a plan.
async fn lab(intruder: &str) -> (Database, PathBuf) {
    let db = Database::new().await;
    db.execute(&format!("{TABLE} create role {intruder} login; create schema eve authorization {intruder}"))
        .await;
    let plan = db.plan(PLAN);
    (db, plan)
}

/// The error of a command that must refuse to use the schema.
fn refused(ran: Ran) -> String {
    let ran = ran.exits(3);
    ran.stderr[ran.stderr.find("error:").unwrap_or(0)..].to_owned()
}

async fn is_superuser(db: &Database, role: &str) -> bool {
    db.count(&format!("select count(*) from pg_roles where rolname = '{role}' and rolsuper")).await == 1
}

/// Another role created the schema, and in it a table with the name of a pgstrata table and with a trigger.
#[tokio::test]
async fn a_schema_that_another_role_created_is_refused() {
    let (db, plan) = lab("schema_eve").await;
    let plan = plan.to_str().unwrap();
    db.execute(&format!(
        "create schema pgstrata authorization schema_eve; set role schema_eve; set search_path = eve; {ATTACK}
         create table pgstrata.version (number integer not null);
         create trigger pwn before insert on pgstrata.version for each row execute function pwn('schema_eve');
         grant usage, create on schema pgstrata to public"
    ))
    .await;
    for command in [&["check", plan][..], &["run", plan], &["status"], &["abort", "job"]] {
        let output = refused(db.pgstrata(command).await);
        insta::allow_duplicates! {
            insta::assert_snapshot!(output, @"
            error: schema pgstrata is not safe for role postgres to use
            cause: it belongs to role schema_eve; role PUBLIC can create objects in it; pgstrata.version belongs to role schema_eve; pgstrata.version has trigger pwn
            hint: connect as the role that owns the schema, or correct what the cause lists: only postgres, its members and superusers may own the schema and its objects, or write there; see SECURITY.md
            ");
        }
    }
    assert!(!is_superuser(&db, "schema_eve").await);
    db.execute("drop schema pgstrata cascade").await;
    db.pgstrata(&["run", plan]).await.ok();
}

/// A change of the schema, the cause in the error message, and the statements that undo the change.
const ATTACKS: &[(&str, &str, &str)] = &[
        (
            "grant usage on schema pgstrata to schema_mallory; grant trigger on pgstrata.jobs to schema_mallory;
             set role schema_mallory; set search_path = eve;
             create function pwn() returns trigger language plpgsql as 'begin return new; end';
             create trigger pwn before update on pgstrata.jobs for each row execute function pwn()",
            "pgstrata.jobs has trigger pwn; role schema_mallory can write to pgstrata.jobs",
            "drop trigger pwn on pgstrata.jobs; revoke all on pgstrata.jobs from schema_mallory; drop function eve.pwn()",
        ),
        (
            "grant insert (plan) on pgstrata.jobs to schema_mallory",
            "role schema_mallory can write to pgstrata.jobs",
            "revoke insert (plan) on pgstrata.jobs from schema_mallory",
        ),
        (
            "alter table pgstrata.changes_job rename to kept;
             create view pgstrata.changes_job as select * from pgstrata.kept; alter view pgstrata.changes_job owner to schema_mallory",
            "pgstrata.changes_job is a view, not a table; pgstrata.changes_job belongs to role \
             schema_mallory",
            "drop view pgstrata.changes_job; alter table pgstrata.kept rename to changes_job",
        ),
        (
            "alter table pgstrata.changes_job rename to kept; create table pgstrata.changes_job (like pgstrata.kept);
             alter table pgstrata.changes_job owner to schema_mallory",
            "pgstrata.changes_job belongs to role schema_mallory",
            "drop table pgstrata.changes_job; alter table pgstrata.kept rename to changes_job",
        ),
        (
            "create rule pwn as on insert to pgstrata.events do also nothing",
            "pgstrata.events has rule pwn",
            "drop rule pwn on pgstrata.events",
        ),
        (
            "create policy pwn on pgstrata.events using (true)",
            "pgstrata.events has row security or policies",
            "drop policy pwn on pgstrata.events",
        ),
        (
            "create table eve.child () inherits (pgstrata.events)",
            "pgstrata.events has parents or children",
            "drop table eve.child",
        ),
        (
            "create function eve.now() returns timestamptz language sql as 'select now()';
             alter table pgstrata.events alter column at set default eve.now()",
            "pgstrata.events uses function eve.now()",
            "alter table pgstrata.events alter column at set default clock_timestamp(); drop function eve.now()",
        ),
        (
            "alter table pgstrata.events add constraint pwn check (what <> '')",
            "pgstrata.events has constraint pwn",
            "alter table pgstrata.events drop constraint pwn",
        ),
        (
            "alter table pgstrata.events add g text generated always as (what) stored",
            "pgstrata.events has generated columns",
            "alter table pgstrata.events drop column g",
        ),
        (
            "create index pwn on pgstrata.events ((eve.twice(what)))",
            "pgstrata.events uses function eve.twice(text)",
            "drop index pgstrata.pwn",
        ),
        (
            "create function pgstrata.pwn() returns integer language sql as 'select 1';
             alter function pgstrata.pwn() owner to schema_mallory",
            "function pgstrata.pwn belongs to role schema_mallory",
            "drop function pgstrata.pwn()",
        ),
];

/// During a job, a role uses privileges on the schema that an administrator granted by mistake.
#[tokio::test]
async fn changes_of_the_schema_by_other_roles_are_refused() {
    let (db, plan) = lab("schema_mallory").await;
    let plan = plan.to_str().unwrap();
    db.pgstrata(&["run", plan]).await.ok();
    db.execute("create function eve.twice(text) returns text immutable language sql as 'select $1 || $1'")
        .await;
    for (attack, found, undo) in ATTACKS {
        db.execute(attack).await;
        for command in [&["swap", "job"][..], &["status"]] {
            let output = refused(db.pgstrata(command).await);
            assert!(output.contains(&format!("cause: {found}\n")), "{attack}: {output}");
        }
        db.execute(undo).await;
    }
    db.pgstrata(&["swap", "job"]).await.ok();
    // Privileges to read are permitted.
    db.execute("grant usage on schema pgstrata to schema_mallory; grant select on pgstrata.jobs to public")
        .await;
    db.pgstrata(&["finalize", "job", "--now"]).await.ok();
}

/// If another role owns the schema, it could make a superuser's job run its code with the privileges of the superuser.
#[tokio::test]
async fn a_superuser_does_not_use_a_schema_that_another_role_owns() {
    let (db, plan) = lab("schema_lesser").await;
    db.execute(
        "do $$ begin execute format('grant create on database %I to schema_lesser', current_database()); end $$;
         grant create on schema public to schema_lesser; alter table t owner to schema_lesser",
    )
    .await;
    let plan = plan.to_str().unwrap();
    let dsn = db.dsn().replace("user=postgres", "user=schema_lesser");
    let owner = [("DATABASE_URL", dsn.as_str())];
    db.pgstrata_with(&["run", plan], &owner).await.ok();
    let output = refused(db.pgstrata(&["swap", "job"]).await);
    assert!(output.contains(" schema_lesser"), "{output}");
    db.pgstrata_with(&["swap", "job"], &owner).await.ok();
    // The reverse is permitted: the table owner can use a schema that a superuser owns.
    db.execute(
        "alter schema pgstrata owner to postgres; grant usage, create on schema pgstrata to schema_lesser",
    )
    .await;
    db.pgstrata_with(&["rollback", "job"], &owner).await.ok();
}

/// Privileges that other roles get through ALTER DEFAULT PRIVILEGES are revoked.
async fn default_privileges_are_revoked(version: Version) {
    let db = Database::of(version).await;
    let eve = format!("schema_default_{version:?}").to_lowercase();
    db.execute(&format!(
        "{TABLE} create role {eve} login;
         alter default privileges grant all on schemas to {eve}; alter default privileges grant all on tables to {eve};
         alter default privileges grant all on sequences to {eve}; alter default privileges grant all on functions to {eve};
         create table u (id integer generated always as identity primary key, note text); insert into u (note) values ('');
         revoke all on u from {eve}; revoke all on sequence u_id_seq from {eve}"
    ))
    .await;
    let no_privileges = async |after: &str| {
        let privileges = format!(
            "select count(*) from (select relacl from pg_class where relnamespace in ('pgstrata'::regnamespace, 'public'::regnamespace)
               union all select proacl from pg_proc where pronamespace = 'pgstrata'::regnamespace and prosecdef
               union all select nspacl from pg_namespace where nspname = 'pgstrata') x (acl), aclexplode(acl) a
             where a.grantee = '{eve}'::regrole"
        );
        assert_eq!(db.count(&privileges).await, 0, "{after}");
    };
    let plan = db.plan(PLAN);
    for command in
        [&["run", plan.to_str().unwrap()][..], &["swap", "job"], &["rollback", "job"], &["swap", "job"]]
    {
        db.pgstrata(command).await.ok();
        no_privileges(&format!("{command:?}")).await;
    }
    let others = [
        "name = 'fill'\nkind = 'backfill'\ntable = 'u'\n[backfill]\nset = { note = \"'filled'\" }\nwhere = \"t.note = ''\"\nkeep_filled = true\n",
        "name = 'wide'\nkind = 'retype'\ntable = 'u'\n[retype]\ncolumn = 'id'\nto = 'bigint'\n",
    ];
    for text in others {
        db.pgstrata(&["run", db.plan(text).to_str().unwrap()]).await.ok();
        no_privileges(text).await;
    }
    for command in
        [&["swap", "wide"][..], &["rollback", "wide"], &["swap", "wide"], &["finalize", "wide", "--now"]]
    {
        db.pgstrata(command).await.ok();
        no_privileges(&format!("{command:?}")).await;
    }
}

crate::support::cluster::on_every_version!(default_privileges_are_revoked);

#[tokio::test]
async fn a_superuser_that_acts_as_another_role_is_refused() {
    let mut db = Database::new().await;
    db.execute(&format!(
        "create role schema_boss superuser login; create role schema_acted; alter role schema_boss set role = schema_acted;
         grant create on database {} to schema_acted; create table t (id bigint primary key, at date not null);
         alter table t owner to schema_acted",
        db.name()
    ))
    .await;
    let plan = db.plan("table = 't'\n[partition]\nby = 'at'\nevery = '1 month'\n");
    db.log_in_as("schema_boss");
    for command in ["check", "run"] {
        let ran = db.pgstrata(&[command, plan.to_str().unwrap()]).await.exits(3);
        assert!(ran.stderr.contains(" schema_boss "), "{ran:?}");
    }
    assert_eq!(db.count("select count(*) from pg_namespace where nspname = 'pgstrata'").await, 0);
}
