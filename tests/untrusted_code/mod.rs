//! The owner of a table cannot make a job run code with privileges that the owner lacks, neither with objects that
//! exist before the check nor with objects that are added while the job runs.

mod casts;
mod further;
mod races;
mod recreated;

use std::path::PathBuf;

use crate::support::checks::errors;
use crate::support::cluster::{Database, Version, on_every_version, on_oldest_and_newest};
use crate::support::process::{Ran, ended, frozen, send};

on_every_version!(a_key_of_another_type_is_not_logged);
// Some 20 changes, each with the check and the run of three kinds of job.
on_oldest_and_newest!(code_of_the_owner_is_refused_in_every_kind_of_job);

/// The role that owns the table of a database.
fn owner(db: &Database) -> String {
    format!("owner_of_{}", db.name())
}

/// A database with a table of that role, and functions of the role, which record it if a superuser calls them.
async fn owned(version: Version) -> Database {
    let db = Database::of(version).await;
    let role = owner(&db);
    db.execute(&format!(
        "create role {role} login; grant create on schema public to {role}; create schema app authorization {role};
         do $$ begin execute format('grant create on database %I to {role}', current_database()); end $$;
         create table caught (who text); grant insert on caught to public;
         create sequence calls; grant usage on sequence calls to public;
         create function super_only(n int) returns boolean language sql immutable as 'select true';
         revoke execute on function super_only(int) from public;
         create function runs(n int) returns boolean language sql as 'select true';
         set role {role};
         create function app.note() returns void language plpgsql as $$ begin
           if (select rolsuper from pg_roles where rolname = current_user) then
             perform nextval('public.calls'); insert into public.caught values (current_user);
           end if;
         end $$;
         create function app.evil(n int) returns boolean language plpgsql immutable as $$ begin perform app.note(); return true; end $$;
         create function app.equal(a int, b int) returns boolean language plpgsql immutable as $$ begin perform app.note(); return a = b; end $$;
         create function app.differ(a int, b int) returns boolean language plpgsql immutable as $$ begin perform app.note(); return a <> b; end $$;
         create operator app.=== (leftarg = int, rightarg = int, function = app.equal);
         create operator app.=# (leftarg = int, rightarg = int, function = int4eq, negator = operator(app.<>#));
         create operator app.<># (leftarg = int, rightarg = int, function = app.differ, negator = operator(app.=#));
         create function app.fire() returns trigger language plpgsql as $$ begin perform app.note(); return new; end $$;
         create type app.en as enum ('a', 'b');
         create function app.check_report(v app.en) returns text language plpgsql as $$ begin perform app.note(); return 'a'; end $$;
         create view app.notes as select app.evil(1);
         create domain app.d as int check (app.evil(value));
         create type app.pair as (one app.d, two int);
         create table t (id int primary key, at timestamptz not null, n int, name varchar(20));
         insert into t select i, timestamptz '2024-01-01 00:00Z' + i * interval '1 hour', i, 'Name' || i from generate_series(1, 2000) i;
         analyze t"
    ))
    .await;
    db
}

/// Asserts that no superuser has called a function of the owner.
async fn owners_code_did_not_run(db: &Database, when: &str) {
    assert_eq!(db.count("select count(*) from caught").await, 0, "{when}");
    // A sequence is not rolled back, so it also records calls in aborted transactions.
    assert_eq!(db.count("select count(*) from calls where is_called").await, 0, "{when}");
}

fn plans(db: &Database, head: &str) -> [PathBuf; 3] {
    [
        "kind = 'partition'\n[partition]\nby = 'at'\nevery = '1 month'\n",
        "kind = 'backfill'\n[backfill]\nset = { name = 'pg_catalog.upper(t.name)' }\n",
        "kind = 'retype'\n[retype]\ncolumn = 'id'\nto = 'bigint'\n",
    ]
    .map(|task| db.plan(&format!("name = 'job'\ntable = 't'\n{head}{task}")))
}

async fn ran(db: &Database, command: &str, plan: &std::path::Path) -> Ran {
    db.pgstrata(&[command, plan.to_str().unwrap(), "--color", "never"]).await
}

/// A change of the table by the owner, the statement that undoes it, and whether a partition job is still allowed.
const CODE: &[(&str, &str, bool)] = &[
    ("add constraint c check (app.evil(n))", "alter table t drop constraint c", false),
    ("add constraint c check (n operator(app.===) n)", "alter table t drop constraint c", false),
    ("add column g boolean generated always as (app.evil(n)) stored", "alter table t drop column g", false),
    ("add column x app.d", "alter table t drop column x", false),
    ("add column x app.pair[]", "alter table t drop column x", false),
    // Domains within expressions.
    ("add constraint c check (n::app.d is not null)", "alter table t drop constraint c", false),
    ("add column g int generated always as ((n::app.d)::int) stored", "alter table t drop column g", false),
    (
        "add constraint c check (pg_catalog.jsonb_populate_record(null::app.pair, jsonb_build_object('one', n, 'two', n)) is not null)",
        "alter table t drop constraint c",
        false,
    ),
    // The planner replaces an operator by its negator.
    ("add constraint c check (not (n operator(app.=#) -1))", "alter table t drop constraint c", false),
    // Functions of trusted roles that the owner cannot call, or that are volatile.
    ("add constraint c check (public.super_only(n)) not valid", "alter table t drop constraint c", false),
    ("add constraint c check (public.runs(n))", "alter table t drop constraint c", false),
    // A function of PostgreSQL that finds a type when it runs.
    (
        "add constraint c check (pg_catalog.domain_in('1', 'app.d'::pg_catalog.regtype, n) is not null) not valid",
        "alter table t drop constraint c",
        false,
    ),
    // A cast of the owner's type to text, because key values are read as text.
    (
        "add column e app.en; create cast (app.en as text) with function app.check_report(app.en)",
        "alter table t drop column e; drop cast (app.en as text)",
        false,
    ),
    // Functions of PostgreSQL that run SQL text.
    (
        "add constraint c check (pg_catalog.query_to_xml('select app.note()', true, true, '') is not null) not valid",
        "alter table t drop constraint c",
        false,
    ),
    (
        "add constraint c check (pg_catalog.table_to_xml('app.notes', true, true, '') is not null) not valid",
        "alter table t drop constraint c",
        false,
    ),
];
const STATEMENTS: &[(&str, &str, bool)] = &[
    // A domain counts even without a check: its owner could add one without a lock on the table.
    (
        "create domain app.bare as int; alter table t add column x app.bare",
        "alter table t drop column x; drop domain app.bare",
        false,
    ),
    ("create index i on t (app.evil(n))", "drop index i", false),
    ("create index i on t (n) where app.evil(n)", "drop index i", false),
    ("create index i on t (((n::app.d)::int))", "drop index i", false),
    // The planner evaluates constant expressions in it.
    ("create statistics app.s on (app.evil(1)), n from t", "drop statistics app.s", false),
    (
        "create trigger g before update on t for each row when ((new.n::app.d) is not null)
         execute function suppress_redundant_updates_trigger()",
        "drop trigger g on t",
        true,
    ),
    (
        "create trigger g before update on t for each row execute function app.fire()",
        "drop trigger g on t",
        true,
    ),
    ("create rule r as on update to t do also select app.note()", "drop rule r on t", true),
];

/// The server records no dependency on its result type.
const JSON_VALUE: (&str, &str, bool) = (
    "add constraint c check (json_value(jsonb_build_object('a', n), '$.a' returning app.d) is not null) not valid",
    "alter table t drop constraint c",
    false,
);

async fn code_of_the_owner_is_refused_in_every_kind_of_job(version: Version) {
    let db = owned(version).await;
    let json_value = Some(JSON_VALUE).filter(|_| matches!(version, Version::V17 | Version::V18));
    let role = owner(&db);
    let altered = CODE
        .iter()
        .chain(&json_value)
        .map(|(change, undo, allowed)| (format!("alter table t {change}"), *undo, *allowed));
    let others = STATEMENTS.iter().map(|(change, undo, allowed)| ((*change).to_owned(), *undo, *allowed));
    for (change, undo, allowed) in altered.chain(others) {
        db.execute(&format!("set role {role}; {change}")).await;
        let [partition, backfill, retype] = plans(&db, "");
        let refused = if allowed { vec![backfill, retype] } else { vec![partition, backfill, retype] };
        for plan in refused {
            let output = ran(&db, "check", &plan).await.exits(3);
            let found = errors(&output.stdout);
            assert!(found.contains(&"error[untrusted_code]: public.t".to_owned()), "{change}: {found:?}");
            assert!(output.stdout.contains(&format!("trust = [\"{role}\"]")), "{change}: {}", output.stdout);
            ran(&db, "run", &plan).await.exits(3);
        }
        owners_code_did_not_run(&db, &change).await;
        db.execute(&format!("set role {role}; {undo}")).await;
    }
    for plan in plans(&db, "") {
        let output = ran(&db, "check", &plan).await.ok();
        assert!(!output.stdout.contains("[untrusted_code]"), "{}", output.stdout);
    }
    owners_code_did_not_run(&db, "all changes are undone").await;
}

#[tokio::test]
async fn a_copy_does_not_fire_the_triggers_of_the_table() {
    let db = owned(Version::System).await;
    let role = owner(&db);
    db.execute(&format!(
        "set role {role}; create trigger g before insert or update or delete on t for each row execute function app.fire()"
    ))
    .await;
    let [partition, ..] = plans(&db, "");
    ran(&db, "run", &partition).await.ok();
    db.execute(&format!("set role {role}; update t set n = n + 1 where id < 50")).await;
    for command in ["swap", "rollback", "swap"] {
        db.pgstrata(&[command, "job"]).await.ok();
        db.execute(&format!("set role {role}; update t set n = n + 1 where id < 50")).await;
    }
    owners_code_did_not_run(&db, "both tables were written").await;
}

/// A function that uses the search path of its caller does not find objects that an untrusted role creates in it.
#[tokio::test]
async fn schemas_in_which_untrusted_roles_can_create_are_not_searched() {
    let db = Database::new().await;
    let stranger = format!("lent_stranger_{}", db.name());
    db.execute(&format!(
        "create role {stranger}; grant create on schema public to {stranger}; create table caught (who text); grant insert on caught to public;
         create sequence calls;
         create function okay(v varchar) returns boolean language plpgsql immutable as $$ begin return length(v) > 0; end $$;
         create table t (id int primary key, at timestamptz not null, n int, name varchar(20) check (public.okay(name)));
         insert into t select i, timestamptz '2024-01-01 00:00Z' + i * interval '1 hour', i, 'Name' || i from generate_series(1, 300) i;
         analyze t; set role {stranger};
         create function public.length(varchar) returns int language plpgsql as $$ begin
           if current_user <> '{stranger}' then insert into public.caught values (current_user); end if; return 1; end $$"
    ))
    .await;
    for plan in plans(&db, "") {
        ran(&db, "run", &plan).await.ok();
        owners_code_did_not_run(&db, "a job ran").await;
        db.execute("update pgstrata.jobs set name = 'done' || id where state = 'finalized'").await;
        if db.count("select count(*) from pgstrata.jobs where name = 'job'").await > 0 {
            db.pgstrata(&["abort", "job"]).await.ok();
        }
    }
}

/// A job run by the owner may run the owner's code.
#[tokio::test]
async fn the_owner_runs_a_job_with_code() {
    let mut db = owned(Version::System).await;
    let role = owner(&db);
    db.execute(&format!("set role {role}; alter table t add constraint c check (app.evil(n))")).await;
    db.log_in_as(&role);
    let [partition, ..] = plans(&db, "");
    ran(&db, "run", &partition).await.ok();
    for command in ["swap", "rollback"] {
        db.pgstrata(&[command, "job"]).await.ok();
    }
}

#[tokio::test]
async fn code_of_a_role_that_the_plan_trusts_is_run() {
    let db = owned(Version::System).await;
    let role = owner(&db);
    db.execute(&format!("set role {role}; alter table t add constraint c check (app.evil(n))")).await;
    let [partition, backfill, retype] = plans(&db, &format!("trust = ['{role}']\n"));
    for (plan, is_backfill) in [(partition, false), (backfill, true), (retype, false)] {
        ran(&db, "run", &plan).await.ok();
        assert!(db.count("select count(*) from caught").await > 0, "{}", plan.display());
        if !is_backfill {
            db.pgstrata(&["abort", "job"]).await.ok();
        }
        db.execute("truncate caught").await;
    }
}

/// The new table or column of the job also belongs to the owner, who can add a constraint to it.
#[tokio::test]
async fn code_that_is_added_while_a_job_runs_stops_it() {
    for (number, at) in ["copy.frozen", "fill.chunk", "capture.done"].into_iter().enumerate() {
        let db = owned(Version::System).await;
        let role = owner(&db);
        let plan = &plans(&db, "")[number];
        let plan_file = plan.to_str().unwrap();
        db.pgstrata_with(&["run", plan_file], &[("PGSTRATA_FAILPOINT", at)]).await.killed(at);
        let table = if number == 0 { "t_new" } else { "t" };
        db.execute(&format!(
            "set role {role}; alter table {table} add constraint c check (app.evil(n)) not valid"
        ))
        .await;
        let stopped = ran(&db, "run", plan).await;
        assert_ne!(stopped.code, Some(0), "{}", stopped.stderr);
        let output = stopped.stdout + &stopped.stderr;
        assert!(output.contains("code of other roles with the privileges of"), "{number}: {output}");
        owners_code_did_not_run(&db, plan_file).await;
    }
}

/// A type of the owner, and a cast from it that records its callers.
const CAST: &str = "create type app.k as (v int);
    create function app.to_k(v int) returns app.k language sql immutable as 'select row($1)::app.k';
    create function app.from_k(k app.k) returns int language plpgsql as $$ begin perform app.note(); return (k).v; end $$;
    create cast (app.k as int) with function app.from_k(app.k) as assignment;
    grant usage on schema app to public";

/// The capture trigger runs with the privileges of the job's role.
async fn a_key_of_another_type_is_not_logged(version: Version) {
    let db = owned(version).await;
    let role = owner(&db);
    let [partition, ..] = plans(&db, "");
    ran(&db, "run", &partition).await.ok();
    db.execute(&format!(
        "set role {role}; {CAST}; alter table t drop constraint t_pkey; alter table t alter id type app.k using app.to_k(id)"
    ))
    .await;
    for write in ["update t set n = n + 1 where n = 5", "delete from t where n = 7"] {
        let stopped = db.as_role(&role).await.batch_execute(write).await.unwrap_err();
        let stopped = stopped.as_db_error().unwrap().message().to_owned();
        assert!(stopped.contains("the type of column id of table public.t was changed"), "{stopped}");
    }
    owners_code_did_not_run(&db, "the table was written").await;
    db.pgstrata(&["sync", "job"]).await;
    owners_code_did_not_run(&db, "the log was applied").await;
    db.execute("truncate t").await;
}

/// A domain over the type of the log needs no cast.
#[tokio::test]
async fn keys_of_the_owner_s_types_are_logged() {
    for of in
        ["create domain app.key as int", "create domain app.one as int; create domain app.key as app.one"]
    {
        let db = owned(Version::System).await;
        let role = owner(&db);
        db.execute(&format!("set role {role}; {of}; alter table t alter id type app.key")).await;
        let [partition, ..] = plans(&db, &format!("trust = ['{role}']\n"));
        ran(&db, "run", &partition).await.ok();
        db.execute(&format!(
            "set role {role}; update t set n = n + 1 where id = 5; delete from t where id = 6; truncate t"
        ))
        .await;
        db.pgstrata(&["swap", "job"]).await.ok();
    }
}

/// The trigger of a backfill does not fill a row if the type of a column that it uses was changed to a type of the
/// owner.
#[tokio::test]
async fn columns_of_another_type_are_not_filled() {
    for set in ["name = \"x.name || t.n\"", "n = \"x.id\""] {
        let db = owned(Version::System).await;
        let role = owner(&db);
        db.execute(
            "create table names (id int primary key, name text);
             insert into names select i, 'x' from generate_series(1, 9000) i",
        )
        .await;
        let plan = db.plan(&format!(
            "name = 'job'\ntable = 't'\nkind = 'backfill'\n[backfill]\nset = {{ {set} }}\n\
             from = 'names x on x.id = t.id'\nkeep_filled = 'always'\n"
        ));
        ran(&db, "run", &plan).await.ok();
        db.execute(&format!(
            "set role {role}; {CAST};
             create function app.text_of_k(k app.k) returns text language plpgsql as $$ begin perform app.note(); return 'x'; end $$;
             create cast (app.k as text) with function app.text_of_k(app.k) as implicit;
             create function app.k_of_int(i int) returns app.k language plpgsql as $$ begin perform app.note(); return row(i)::app.k; end $$;
             create cast (int as app.k) with function app.k_of_int(int) as assignment;
             alter table t alter n type app.k using app.to_k(n); update t set at = at"
        ))
        .await;
        owners_code_did_not_run(&db, set).await;
    }
}

/// A member of the owner's role could alter the mirror's function, which belongs to the owner.
#[tokio::test]
async fn a_member_of_the_owner_that_reaches_the_schema_is_found() {
    let db = owned(Version::System).await;
    let role = owner(&db);
    let [partition, ..] = plans(&db, "");
    ran(&db, "run", &partition).await.ok();
    db.execute(&format!(
        "create role {role}_between; create role {role}_member; grant {role} to {role}_between; grant {role}_between to {role}_member"
    ))
    .await;
    let client = db.client().await;
    let reaches = async |trust: &[String]| {
        let row = client.query_opt(pgstrata::sql::mirror::REACHES_SCHEMA, &[&role, &trust]).await.unwrap();
        row.map(|row| row.get::<_, String>(0))
    };
    assert_eq!(reaches(&[]).await, None);
    let member = format!("{role}_member");
    db.execute(&format!("grant usage on schema pgstrata to {member}")).await;
    assert_eq!(reaches(&[]).await, Some(member.clone()));
    assert_eq!(reaches(std::slice::from_ref(&member)).await, None);
    db.execute(&format!("drop owned by {member}; drop role {member}; drop role {role}_between")).await;
}

/// After the swap, the job keeps the old table in sync, which belongs to the owner.
#[tokio::test]
async fn code_on_the_old_table_stops_sync_and_rollback() {
    let db = owned(Version::System).await;
    let role = owner(&db);
    let [partition, ..] = plans(&db, "");
    ran(&db, "run", &partition).await.ok();
    db.pgstrata(&["swap", "job"]).await.ok();
    db.execute(&format!(
        "set role {role}; update t set n = n + 1; alter table t_old add constraint c check (app.evil(n)) not valid"
    ))
    .await;
    for command in ["sync", "rollback"] {
        let stopped = db.pgstrata(&[command, "job"]).await;
        assert_ne!(stopped.code, Some(0), "{command}");
    }
    owners_code_did_not_run(&db, "the old table was written").await;
    db.execute(&format!("set role {role}; alter table t_old drop constraint c")).await;
    db.pgstrata(&["rollback", "job"]).await.ok();
}

/// The owner of the table is checked in each transaction.
#[tokio::test]
async fn a_change_of_the_owner_while_a_job_runs_stops_it() {
    for number in [1, 2] {
        let db = owned(Version::System).await;
        let role = owner(&db);
        db.execute("alter table t owner to current_user").await;
        let plan = plans(&db, "")[number].clone();
        let start = db
            .command(&["run", plan.to_str().unwrap()])
            .env("PGSTRATA_FAILPOINT", "fill.chunk=stop")
            .spawn()
            .unwrap();
        let run = frozen(start).await;
        db.execute(&format!(
            "alter table t owner to {role}; set role {role};
             create trigger evil before update on t for each row execute function app.fire()"
        ))
        .await;
        send(&run, rustix::process::Signal::CONT);
        let stopped = ended(run).await.exits(1);
        assert!(stopped.stderr.contains("code of other roles with the privileges of"), "{}", stopped.stderr);
        owners_code_did_not_run(&db, "the table had another owner").await;
    }
}

/// Even a command that only reads makes the planner evaluate constant expressions of indexes and statistics.
#[tokio::test]
async fn code_that_is_added_after_a_run_stops_commands_that_only_read() {
    for number in 0..3 {
        let db = owned(Version::System).await;
        let role = owner(&db);
        let plan = &plans(&db, "")[number];
        let at = if number == 1 { "fill.chunks_done" } else { "" };
        if number == 1 {
            db.pgstrata_with(&["run", plan.to_str().unwrap()], &[("PGSTRATA_FAILPOINT", at)])
                .await
                .killed(at);
        } else {
            ran(&db, "run", plan).await.ok();
        }
        db.execute(&format!("set role {role}; create index i on t (n) where app.evil(1)")).await;
        let commands: &[&str] = if number == 1 { &["verify"] } else { &["verify", "swap"] };
        for command in commands {
            let stopped = db.pgstrata(&[command, "job"]).await;
            assert_ne!(stopped.code, Some(0), "{number} {command}: {stopped:?}");
        }
        ran(&db, "run", plan).await;
        owners_code_did_not_run(&db, plan.to_str().unwrap()).await;
    }
}

/// Foreign keys connect tables of different owners: an update may cascade, and validating a foreign key reads both
/// tables.
#[tokio::test]
async fn code_at_the_other_end_of_a_foreign_key_is_not_run() {
    let db = owned(Version::System).await;
    let role = owner(&db);
    db.execute(&format!(
        "create table ours (id int primary key, code text unique, at timestamptz default now());
         insert into ours select i, 'c' || i from generate_series(1, 500) i;
         grant references, select on ours to {role};
         set role {role};
         create table app.child (id int primary key, c text references public.ours (code) on update cascade);
         insert into app.child select i, 'c' || i from generate_series(1, 500) i;
         create trigger g after update on app.child for each row execute function app.fire();
         create table app.other (id int references public.ours);
         create index on app.other (id) where app.evil(1);
         reset role; analyze"
    ))
    .await;
    let fill = db.plan("name = 'fill'\nkind = 'backfill'\ntable = 'ours'\n[backfill]\nset = { code = \"t.code || 'x'\" }\nwhere = \"t.code not like '%x'\"\n");
    let found = ran(&db, "check", &fill).await.exits(3).stdout;
    assert!(errors(&found).contains(&"error[untrusted_code]: public.ours".to_owned()), "{found}");
    ran(&db, "run", &fill).await.exits(3);
    // Either the foreign key is not checked, or the job stops.
    let retype =
        db.plan("name = 'retype'\nkind = 'retype'\ntable = 'ours'\n[retype]\ncolumn = 'id'\nto = 'bigint'\n");
    ran(&db, "check", &retype).await;
    ran(&db, "run", &retype).await;
    db.pgstrata(&["swap", "retype"]).await;
    owners_code_did_not_run(&db, "a table was read by a foreign key").await;
}
