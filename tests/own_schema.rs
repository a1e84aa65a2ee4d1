//! Schema `pgstrata` under the control of others: whoever could make our statements run their code is found before anything in
//! the schema is used, and what we create there is closed to everybody else.

use std::path::PathBuf;

use crate::support::cluster::{Database, Version};
use crate::support::process::Ran;

const PLAN: &str = "name = 'job'\ntable = 't'\n[partition]\nby = 'at'\nevery = 'month'\nto = '2024-07-01'\n";

const TABLE: &str = "create table t (id bigint generated always as identity primary key, at timestamptz not null, note text);
    insert into t (at) select timestamptz '2024-01-15 00:00Z' + i * interval '1 hour' from generate_series(0, 999) i;
    analyze t;";

/// A function of the intruder's that makes its caller give the intruder all that the caller has.
const ATTACK: &str = "create function pwn() returns trigger language plpgsql as $$ begin
        execute 'alter role ' || quote_ident(tg_argv[0]) || ' superuser'; return new; end $$;";

/// A table, an intruder, and a plan.
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

/// The schema was made by somebody else, and has a table of ours with a trigger of theirs.
#[tokio::test]
async fn a_schema_that_somebody_else_made_is_refused() {
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
        let said = refused(db.pgstrata(command).await);
        insta::allow_duplicates! {
            insta::assert_snapshot!(said, @"
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

/// What somebody does to the schema, what is found, and what undoes it.
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

/// A role uses what an administrator granted it by mistake, during a job.
#[tokio::test]
async fn what_others_put_on_our_tables_is_found() {
    let (db, plan) = lab("schema_mallory").await;
    let plan = plan.to_str().unwrap();
    db.pgstrata(&["run", plan]).await.ok();
    db.execute("create function eve.twice(text) returns text immutable language sql as 'select $1 || $1'")
        .await;
    for (attack, found, undo) in ATTACKS {
        db.execute(attack).await;
        for command in [&["swap", "job"][..], &["status"]] {
            let said = refused(db.pgstrata(command).await);
            assert!(said.contains(&format!("cause: {found}\n")), "{attack}: {said}");
        }
        db.execute(undo).await;
    }
    db.pgstrata(&["swap", "job"]).await.ok();
    // Reading is nobody's harm.
    db.execute("grant usage on schema pgstrata to schema_mallory; grant select on pgstrata.jobs to public")
        .await;
    db.pgstrata(&["finalize", "job", "--now"]).await.ok();
}

/// A superuser's job in a schema that a lesser role owns would run as the superuser what that role likes.
#[tokio::test]
async fn a_superuser_is_not_lent_to_the_role_that_owns_the_schema() {
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
    let said = refused(db.pgstrata(&["swap", "job"]).await);
    assert!(said.contains("it belongs to role schema_lesser"), "{said}");
    db.pgstrata_with(&["swap", "job"], &owner).await.ok();
    // The other way, a superuser's schema is as safe as the server.
    db.execute(
        "alter schema pgstrata owner to postgres; grant usage, create on schema pgstrata to schema_lesser",
    )
    .await;
    db.pgstrata_with(&["rollback", "job"], &owner).await.ok();
}

/// Everything that default privileges grant is revoked, whomever they name.
async fn default_privileges_open_nothing(version: Version) {
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
    let closed = async |after: &str| {
        let open = format!(
            "select count(*) from (select relacl from pg_class where relnamespace in ('pgstrata'::regnamespace, 'public'::regnamespace)
               union all select proacl from pg_proc where pronamespace = 'pgstrata'::regnamespace and prosecdef
               union all select nspacl from pg_namespace where nspname = 'pgstrata') x (acl), aclexplode(acl) a
             where a.grantee = '{eve}'::regrole"
        );
        assert_eq!(db.count(&open).await, 0, "{after}");
    };
    let plan = db.plan(PLAN);
    for command in
        [&["run", plan.to_str().unwrap()][..], &["swap", "job"], &["rollback", "job"], &["swap", "job"]]
    {
        db.pgstrata(command).await.ok();
        closed(&format!("{command:?}")).await;
    }
    let others = [
        "name = 'fill'\nkind = 'backfill'\ntable = 'u'\n[backfill]\nset = { note = \"'filled'\" }\nwhere = \"t.note = ''\"\nkeep_filled = true\n",
        "name = 'wide'\nkind = 'retype'\ntable = 'u'\n[retype]\ncolumn = 'id'\nto = 'bigint'\n",
    ];
    for text in others {
        db.pgstrata(&["run", db.plan(text).to_str().unwrap()]).await.ok();
        closed(text).await;
    }
    for command in
        [&["swap", "wide"][..], &["rollback", "wide"], &["swap", "wide"], &["finalize", "wide", "--now"]]
    {
        db.pgstrata(command).await.ok();
        closed(&format!("{command:?}")).await;
    }
}

crate::support::cluster::on_every_version!(default_privileges_open_nothing);
