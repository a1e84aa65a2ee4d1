//! Definitions that are created again from their text keep their meaning: IS DISTINCT FROM, NULLIF, CASE and JOIN USING do
//! not name their operator, which for citext is not that of text.

use crate::support::checks::findings;
use crate::support::cluster::{Database, Version, on_oldest_and_newest};

on_oldest_and_newest!(operators_of_an_extension_stay);

const SETUP: &str = "
    create extension citext;
    revoke create on schema public from public;
    create table t (id bigint primary key, at timestamptz not null default '2024-02-02Z', a citext not null, b citext,
      constraint c check (a is distinct from 'never'));
    insert into t select i, timestamptz '2024-01-01Z' + i * interval '3 hours', 'a' || i, 'b' from generate_series(1, 500) i;
    create index i on t (nullif(a, 'x'));
    create index w on t (id) where case a when 'x' then true else false end;
    create policy p on t using (a is distinct from 'hidden');
    create function touch() returns trigger language plpgsql as $$ begin new.b := 'touched'; return new; end $$;
    create trigger g before update on t for each row when (old.a is distinct from new.a) execute function touch();
    create statistics s on (nullif(a, b)), id from t;
    create table dict (a citext primary key, word text);
    create policy q on dict using (a is distinct from (select max(a) from t));
    create view v as select t.id, word from t join dict using (a);
    create materialized view m as select id from t where a is distinct from 'x';
    create function f() returns bigint begin atomic select count(*) from t where nullif(a, 'x') is not null; end;
    create rule r as on delete to t where old.a is not distinct from 'kept' do instead nothing;
    analyze";

/// What refers to the `=` of citext, except the inactive table and what belongs to it.
const REFERENCES: &str = "
    with recursive depends as (
      select distinct d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) as what
      from pg_depend d join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
      where o.oprname = '=' and o.oprleft = 'citext'::regtype
    )
    select coalesce(string_agg(what, e'\\n' order by what), '') from depends
    where what !~ 't_old|t_new|_old$|_new$|t_y20|operator|t_default'";

const PLAN: &str = "name = 'j'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\n";

async fn references(db: &Database) -> String {
    db.client().await.query_one(REFERENCES, &[]).await.unwrap().get(0)
}

async fn operators_of_an_extension_stay(version: Version) {
    let db = Database::of(version).await;
    db.execute(SETUP).await;
    let before = references(&db).await;
    for object in [
        "constraint c ",
        "index i",
        "index w",
        "policy p ",
        "policy q ",
        "trigger g ",
        "statistics",
        "function f",
    ] {
        assert!(before.contains(object), "{object} is not among\n{before}");
    }
    let plan = db.plan(PLAN);
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    for command in ["swap", "rollback", "swap"] {
        if command == "rollback" {
            // A trigger that is created while the partitioned table is in use is carried over.
            db.execute("create trigger h before update on t for each row when (nullif(old.a, new.a) is not null) execute function touch()").await;
        }
        db.pgstrata(&[command, "j"]).await.ok();
        let now = references(&db).await;
        let now: Vec<&str> = now.lines().filter(|line| !line.starts_with("trigger h")).collect();
        assert_eq!(now.join("\n"), before.lines().collect::<Vec<_>>().join("\n"), "{command}");
        db.execute("update t set b = 'b'; update t set a = upper(a) where id = 1").await;
        assert_eq!(db.count("select count(*) from t where b = 'touched'").await, 0, "{command}");
    }
    db.pgstrata(&["finalize", "j", "--now"]).await.ok();
}

#[tokio::test]
async fn a_schema_that_others_can_write_to_is_not_searched() {
    let db = Database::new().await;
    db.execute(SETUP).await;
    db.execute("grant create on schema public to public").await;
    let plan = db.plan(PLAN);
    let ran = db.pgstrata(&["check", plan.to_str().unwrap(), "--color", "never"]).await.exits(3);
    let changes = findings(&ran.stdout).into_iter().filter(|one| one.starts_with("error[meaning_changes]"));
    let changes: Vec<String> = changes.map(|one| one.replace("error[meaning_changes]: ", "")).collect();
    let expected = [
        "constraint c",
        "policy p",
        "trigger g",
        "statistics s",
        "index i",
        "index w",
        "function public.f()",
        "policy q on public.dict",
        "view v",
        "materialized view m",
    ];
    let mut missing: Vec<&str> =
        expected.into_iter().filter(|one| !changes.iter().any(|change| change.starts_with(one))).collect();
    missing.sort_unstable();
    assert!(missing.is_empty(), "{missing:?} are missing in {}", ran.stdout);
    assert!(
        ran.stdout.contains("it would no longer refer to operator public.=(public.citext,public.citext)"),
        "{}",
        ran.stdout
    );
}

/// A column type change creates the indexes and constraints of the column again.
#[tokio::test]
async fn operators_of_an_extension_stay_in_a_retype() {
    let db = Database::new().await;
    db.execute(
        "create extension citext; revoke create on schema public from public;
         create table t (id int primary key, n int, a citext not null, b citext,
           constraint c check (n > 0 or a is distinct from 'never'));
         insert into t select i, i, 'a' || i, 'b' from generate_series(1, 500) i;
         create index i on t (nullif(a, 'x'), n);
         create index w on t (n) where case a when 'x' then true else false end; analyze",
    )
    .await;
    let plan = db.plan("name = 'j'\nkind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'n'\nto = 'bigint'\n");
    let definitions = "select string_agg(what, ', ' order by what) from (
        select pg_describe_object(d.classid, d.objid, 0) as what from pg_depend d
          join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
        where o.oprname = '=' and o.oprleft = 'citext'::regtype) x
      where what in ('constraint c on table t', 'index i', 'index w')";
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    for command in ["swap", "rollback", "swap"] {
        db.pgstrata(&[command, "j"]).await.ok();
        let kept: String = db.client().await.query_one(definitions, &[]).await.unwrap().get(0);
        assert_eq!(kept, "constraint c on table t, index i, index w", "{command}");
    }
    db.pgstrata(&["finalize", "j", "--now"]).await.ok();
}

/// What the job created was replaced by something else of the same name.
#[tokio::test]
async fn a_copy_with_another_meaning_is_not_swapped() {
    let db = Database::new().await;
    db.execute(SETUP).await;
    let plan = db.plan(PLAN);
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    db.execute(
        "alter table t_new drop constraint c, add constraint c check (a::text is distinct from 'never')",
    )
    .await;
    let ran = db.pgstrata(&["swap", "j"]).await.exits(1);
    assert!(ran.stderr.contains("definitions of public.t_new differ from those of public.t"), "{ran:?}");
    assert!(ran.stderr.contains("constraint c: it would"), "{ran:?}");
    db.execute("alter table t_new drop constraint c, add constraint c check (a is distinct from 'never')")
        .await;
    db.pgstrata(&["swap", "j"]).await.ok();
}

/// Roles that the plan trusts can create objects in the schema of an operator.
#[tokio::test]
async fn a_schema_that_trusted_roles_can_write_to_is_searched() {
    let db = Database::new().await;
    let role = format!("librarian_of_{}", db.name());
    db.execute(SETUP).await;
    db.execute(&format!("create role {role}; grant create on schema public to {role}")).await;
    let before = references(&db).await;
    let plan = db.plan(PLAN);
    let refused = db.pgstrata(&["check", plan.to_str().unwrap(), "--color", "never"]).await.exits(3);
    assert!(refused.stdout.contains("error[meaning_changes]: constraint c"), "{refused:?}");
    let plan = db.plan(&PLAN.replace("table = 't'", &format!("table = 't'\ntrust = ['{role}']")));
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    for command in ["swap", "rollback", "swap"] {
        if command == "rollback" {
            db.execute("create trigger h before update on t for each row when (nullif(old.a, new.a) is not null) execute function touch()").await;
        }
        db.pgstrata(&[command, "j"]).await.ok();
        let now = references(&db).await;
        let now: Vec<&str> = now.lines().filter(|line| !line.starts_with("trigger h")).collect();
        assert_eq!(now.join("\n"), before, "{command}");
    }
    db.pgstrata(&["finalize", "j", "--now"]).await.ok();
    db.execute(&format!("drop owned by {role}; drop role {role}")).await;
}
