//! Missing privileges are reported with the GRANT that adds them, and these grants are sufficient.

use crate::support::checks::*;
use crate::support::cluster::Database;

/// A table in a schema without privileges for PUBLIC, owned by a role that has no other privileges.
async fn owned_by(owner: &str) -> Database {
    let db = Database::new().await;
    db.execute(&format!(
        "{GOOD}
         create role \"{owner}\" login;
         revoke create, usage on schema public from public;
         alter table t owner to \"{owner}\";
         create schema lab; create table lab.submissions (id bigint primary key);
         create function lab.touch() returns trigger language plpgsql as 'begin return new; end';
         revoke execute on function lab.touch() from public;
         create trigger touch before update on t for each row execute function lab.touch();
         alter table t add submission bigint references lab.submissions;
         create view v as select id from t"
    ))
    .await;
    db
}

#[tokio::test]
async fn missing_privileges_of_a_stranger() {
    let db = owned_by("priv_lab").await;
    db.execute("create role \"priv Guest\" login").await;
    insta::assert_snapshot!(check_as(&db, "'priv Guest'", MONTHS).await, @r#"
    error[missing_privilege]: public.t: role "priv Guest" lacks the privileges of role priv_lab, which owns public.t
      hint: grant priv_lab to "priv Guest"
    error[missing_privilege]: public.t: role "priv Guest" lacks SELECT on public.t
      hint: grant select on public.t to "priv Guest"
    error[missing_privilege]: public: role "priv Guest" lacks CREATE on schema public, in which the partitions are created
      hint: grant create on schema public to "priv Guest"
    error[missing_privilege]: lab: role "priv Guest" lacks USAGE on schema lab
      hint: grant usage on schema lab to "priv Guest"
    error[missing_privilege]: public: role "priv Guest" lacks USAGE on schema public
      hint: grant usage on schema public to "priv Guest"
    error[missing_privilege]: lab.submissions: role "priv Guest" lacks REFERENCES on lab.submissions, which a foreign key references
      hint: grant references on lab.submissions to "priv Guest"
    error[missing_privilege]: lab.touch(): role "priv Guest" lacks EXECUTE on lab.touch(), which a trigger calls
      hint: grant execute on function lab.touch() to "priv Guest"
    error[missing_privilege]: public.v: role "priv Guest" lacks the privileges of role postgres, which owns view public.v, and the swap replaces the view
      hint: grant postgres to "priv Guest", or alter view public.v owner to "priv Guest"
    error[missing_privilege]: DATABASE: role "priv Guest" lacks CREATE on database DATABASE, and schema pgstrata does not exist yet
      hint: grant create on database DATABASE to "priv Guest"
    warning[sessions_hidden]: "priv Guest": role "priv Guest" cannot see how long transactions of other roles have been open: one of them can block the swap, and applications then wait behind the swap for up to lock_timeout
      hint: grant pg_read_all_stats to "priv Guest"
    warning[replicas_hidden]: "priv Guest": role "priv Guest" cannot see the replica lag: if the server has standbys, or the plan sets a limit, the job is throttled until it can see the lag
      hint: grant pg_monitor to "priv Guest", or list the standbys under [throttle] replicas
    "#);
}

#[tokio::test]
async fn missing_privileges_of_the_owner() {
    let db = owned_by("priv_owner").await;
    db.execute("grant usage on schema public to priv_owner").await;
    insta::assert_snapshot!(check_as(&db, "priv_owner", MONTHS).await, @"
    error[missing_privilege]: public: role priv_owner lacks CREATE on schema public, in which the partitions are created
      hint: grant create on schema public to priv_owner
    error[missing_privilege]: lab: role priv_owner lacks USAGE on schema lab
      hint: grant usage on schema lab to priv_owner
    error[missing_privilege]: lab.submissions: role priv_owner lacks REFERENCES on lab.submissions, which a foreign key references
      hint: grant references on lab.submissions to priv_owner
    error[missing_privilege]: lab.touch(): role priv_owner lacks EXECUTE on lab.touch(), which a trigger calls
      hint: grant execute on function lab.touch() to priv_owner
    error[missing_privilege]: public.v: role priv_owner lacks the privileges of role postgres, which owns view public.v, and the swap replaces the view
      hint: grant postgres to priv_owner, or alter view public.v owner to priv_owner
    error[missing_privilege]: DATABASE: role priv_owner lacks CREATE on database DATABASE, and schema pgstrata does not exist yet
      hint: grant create on database DATABASE to priv_owner
    warning[sessions_hidden]: priv_owner: role priv_owner cannot see how long transactions of other roles have been open: one of them can block the swap, and applications then wait behind the swap for up to lock_timeout
      hint: grant pg_read_all_stats to priv_owner
    warning[replicas_hidden]: priv_owner: role priv_owner cannot see the replica lag: if the server has standbys, or the plan sets a limit, the job is throttled until it can see the lag
      hint: grant pg_monitor to priv_owner, or list the standbys under [throttle] replicas
    ");
    db.execute(&format!(
        "grant create on database {} to priv_owner; grant create on schema public to priv_owner;
         grant usage on schema lab to priv_owner; grant references on lab.submissions to priv_owner;
         grant execute on function lab.touch() to priv_owner; alter view v owner to priv_owner;
         grant pg_read_all_stats to priv_owner",
        db.dsn().rsplit_once("dbname=").unwrap().1
    ))
    .await;
    assert_eq!(check_as(&db, "priv_owner", MONTHS).await, "");
    db.execute("alter table t enable row level security, force row level security").await;
    insta::assert_snapshot!(check_as(&db, "priv_owner", MONTHS).await, @"
    error[row_security]: public.t: row-level security hides rows of public.t from role priv_owner
      hint: alter role priv_owner bypassrls, or alter table public.t no force row level security until the job is finalized
    ");
    db.execute("create schema pgstrata").await;
    insta::assert_snapshot!(check_as(&db, "priv_owner", MONTHS).await, @"
    error[missing_privilege]: pgstrata: role priv_owner lacks USAGE or CREATE on schema pgstrata, which another role created
      hint: connect as the role that owns schema pgstrata, or act as it; see SECURITY.md
    error[row_security]: public.t: row-level security hides rows of public.t from role priv_owner
      hint: alter role priv_owner bypassrls, or alter table public.t no force row level security until the job is finalized
    ");
}

/// Objects that the swap binds to the new table are in another schema and belong to other roles.
#[tokio::test]
async fn missing_privileges_beyond_the_schema() {
    let db = Database::new().await;
    let name = db.dsn().rsplit_once("dbname=").unwrap().1.to_owned();
    db.execute(&format!(
        "create type mood as enum ('good'); revoke usage on type mood from public;
         create table t (id bigint generated always as identity primary key, at timestamptz not null, mood mood, note text);
         insert into t (at) select timestamptz '2024-01-15 00:00Z' from generate_series(0, 99); analyze t;
         create role priv_beyond login; grant create on database {name} to priv_beyond; alter table t owner to priv_beyond;
         grant create on schema public to priv_beyond; grant pg_read_all_stats to priv_beyond;
         create schema lab; grant usage on schema lab to priv_beyond;
         create function lab.newest() returns timestamptz begin atomic select max(at) from t; end;
         create statistics lab.t_both on at, note from t;
         create table drafts (id bigint default nextval('t_id_seq'));
         create publication out for table t"
    ))
    .await;
    insta::assert_snapshot!(check_as(&db, "priv_beyond", MONTHS).await, @"
    error[missing_privilege]: lab: role priv_beyond lacks CREATE on schema lab, in which extended statistics t_both is created again
      hint: grant create on schema lab to priv_beyond
    error[missing_privilege]: lab: role priv_beyond lacks CREATE on schema lab, in which function lab.newest() is created again
      hint: grant create on schema lab to priv_beyond
    error[missing_privilege]: public.mood: role priv_beyond lacks USAGE on type public.mood, which a column uses
      hint: grant usage on type public.mood to priv_beyond
    error[missing_privilege]: extended statistics t_both: role priv_beyond lacks the privileges of role postgres, which owns extended statistics t_both, and the swap binds it to the new table
      hint: grant postgres to priv_beyond
    error[missing_privilege]: function lab.newest(): role priv_beyond lacks the privileges of role postgres, which owns function lab.newest(), and the swap binds it to the new table
      hint: grant postgres to priv_beyond
    error[missing_privilege]: publication out: role priv_beyond lacks the privileges of role postgres, which owns publication out, and the swap binds it to the new table
      hint: grant postgres to priv_beyond
    error[missing_privilege]: table public.drafts: role priv_beyond lacks the privileges of role postgres, which owns table public.drafts, and the swap binds it to the new table
      hint: grant postgres to priv_beyond
    ");
    db.execute(
        "grant create on schema lab to priv_beyond; grant usage on type mood to priv_beyond;
         alter function lab.newest() owner to priv_beyond; alter statistics lab.t_both owner to priv_beyond;
         alter table drafts owner to priv_beyond; alter publication out owner to priv_beyond",
    )
    .await;
    assert_eq!(check_as(&db, "priv_beyond", MONTHS).await, "");
    let file = db.plan(&MONTHS.replace("month", "year"));
    let dsn = format!("{} user=priv_beyond", db.dsn());
    let env = [("DATABASE_URL", dsn.as_str())];
    for args in [["run", file.to_str().unwrap()], ["swap", "t"], ["rollback", "t"], ["swap", "t"]] {
        db.pgstrata_with(&args, &env).await.ok();
    }
}

#[tokio::test]
async fn a_schema_created_beforehand_replaces_create_on_the_database() {
    let db = Database::new().await;
    db.execute(&format!(
        "{GOOD} create role priv_guest_of_schema login; alter table t owner to priv_guest_of_schema;
         grant create on schema public to priv_guest_of_schema;
         create schema pgstrata; grant usage, create on schema pgstrata to priv_guest_of_schema"
    ))
    .await;
    let file = db.plan(&MONTHS.replace("month", "year"));
    let dsn = format!("{} user=priv_guest_of_schema", db.dsn());
    let ran = db.pgstrata_with(&["run", file.to_str().unwrap()], &[("DATABASE_URL", &dsn)]).await;
    ran.ok();
}

/// `check` reports an error for a role whose connection limit is lower than what a job needs; a limit that is just high
/// enough is accepted.
#[tokio::test]
async fn a_connection_limit_is_reported_beforehand() {
    let db = Database::new().await;
    let name = db.dsn().rsplit_once("dbname=").unwrap().1.to_owned();
    db.execute(&format!(
        "{GOOD} create role few_sessions login connection limit 4; alter table t owner to few_sessions;
         grant create on schema public to few_sessions; grant create on database {name} to few_sessions;
         grant pg_read_all_stats to few_sessions"
    ))
    .await;
    insta::assert_snapshot!(check_as(&db, "few_sessions", MONTHS).await, @"
    error[connection_limit]: few_sessions: role few_sessions has a limit of 4 sessions, of which 0 are in use; the job needs 5
      hint: alter role few_sessions connection limit 5
    ");
    db.execute("alter role few_sessions connection limit 5").await;
    assert_eq!(check_as(&db, "few_sessions", MONTHS).await, "");
    let file = db.plan(&MONTHS.replace("month", "year"));
    let dsn = format!("{} user=few_sessions", db.dsn());
    let env = [("DATABASE_URL", dsn.as_str())];
    for args in [["run", file.to_str().unwrap()], ["swap", "t"], ["rollback", "t"]] {
        db.pgstrata_with(&args, &env).await.ok();
    }
}

/// A job grants a privilege again as the role that granted it, and the server looks the object up with the privileges of
/// that role.
#[tokio::test]
async fn grantors_that_lack_usage_on_the_schema_are_named() {
    let db = Database::new().await;
    let [one, other] = ["one", "other"].map(|role| format!("closed_{role}_{}", db.name()));
    db.execute(&format!(
        "create role {one}; create role {other}; create schema app; create schema views;
         create table app.t (id int generated always as identity primary key, at timestamptz not null, n int);
         insert into app.t (at, n) select timestamptz '2024-01-15 00:00Z' + i * interval '1 day', i from generate_series(0, 99) i;
         create view views.v as select id from app.t; create materialized view views.m as select at from app.t;
         create function views.whole(app.t) returns int language sql as 'select 1';
         revoke execute on function views.whole from public; analyze app.t"
    ))
    .await;
    let partition = db.plan(
        "name = 'job'\ntable = 'app.t'\n[partition]\nby = 'at'\nevery = '1 year'\nkeep_unique = false\n",
    );
    let retype =
        db.plan("name = 'job'\ntable = 'app.t'\nkind = 'retype'\n[retype]\ncolumn = 'id'\nto = 'bigint'\n");
    let error = |schema: &str| vec![format!("error[missing_privilege]: {schema}: role {one} lacks USAGE")];
    for (privilege, object, of_partition, of_retype) in [
        ("select", "app.t", "app", ""),
        ("select (id)", "app.t", "app", "app"),
        ("select (n)", "app.t", "app", ""),
        ("usage", "sequence app.t_id_seq", "app", "app"),
        ("select", "views.v", "", "views"),
        ("select", "views.m", "views", ""),
        ("execute", "function views.whole(app.t)", "views", ""),
        ("usage", "type app.t", "app", ""),
        ("usage", "type views.v", "", "views"),
        ("usage", "type views.m", "views", ""),
    ] {
        db.execute(&format!(
            "grant usage on schema app, views to {one};
             grant {privilege} on {object} to {one} with grant option; set role {one}; grant {privilege} on {object} to {other};
             reset role; revoke usage on schema app, views from {one}"
        ))
        .await;
        for (plan, schema) in [(&partition, of_partition), (&retype, of_retype)] {
            let check = db.pgstrata(&["check", plan.to_str().unwrap(), "--color", "never"]).await;
            let found = errors(&check.stdout);
            let wanted = if schema.is_empty() { Vec::new() } else { error(schema) };
            let about_rights = |e: &&String| e.starts_with("error[missing_privilege]");
            let found: Vec<&String> = found.iter().filter(about_rights).collect();
            assert_eq!(found.len(), wanted.len(), "{privilege} on {object}: {check:?}");
            assert!(
                wanted.iter().all(|line| check.stdout.contains(line)),
                "{privilege} on {object}: {check:?}"
            );
        }
        db.execute(&format!("revoke {privilege} on {object} from {one} cascade")).await;
    }
    // The grants of the hints are sufficient.
    db.execute(&format!(
        "grant usage on schema app to {one}; grant select (id) on app.t to {one} with grant option; set role {one};
         grant select (id) on app.t to {other}; reset role"
    ))
    .await;
    db.pgstrata(&["run", retype.to_str().unwrap()]).await.ok();
    db.pgstrata(&["swap", "job"]).await.ok();
    db.execute(&format!("drop owned by {one}, {other} cascade; drop role {one}, {other}")).await;
}
