//! A job that `check` allows does not fail later for a reason that already existed: `check` tries the statements of the
//! job, and evaluates the expressions of the table on rows.

use crate::support::checks::{GOOD, MONTHS, check, check_as, check_good, check_report, errors, findings};
use crate::support::cluster::Database;

/// Runs the job from `run` to `finalize`, with the statements in `between` between the steps.
async fn whole_job(db: &Database, plan: &str, between: &str) {
    let plan = db.plan(plan);
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    for args in [&["swap"][..], &["rollback"], &["swap"], &["finalize", "--now"]] {
        db.execute(between).await;
        db.pgstrata(&[&args[..1], &["j"], &args[1..]].concat()).await.ok();
    }
    db.execute(between).await;
}

/// The output of `check`.
async fn check_output(db: &Database, plan: &str) -> String {
    db.pgstrata(&["check", "--quiet", db.plan(plan).to_str().unwrap(), "--color", "never"]).await.stdout
}

fn months() -> String {
    format!("name = 'j'\n{MONTHS}")
}

#[tokio::test]
async fn definitions_that_the_server_rejects_when_created_again() {
    let trigger = "create function bump() returns trigger language plpgsql as $$ begin return new; end $$;
        create trigger bump before update on t for each row when (old is distinct from new) execute function bump();
        alter table t add length int generated always as (length(note)) stored";
    assert_eq!(findings(&check_good(trigger).await), ["error[not_creatable]: trigger bump"]);
    let index = "create function plain(text) returns text language plpgsql immutable as $$ begin return lower($1); end $$;
        create index t_plain on t (plain(note)); create index t_some on t (id) where plain(note) <> 'x';
        alter function plain(text) stable";
    assert_eq!(
        findings(&check_good(index).await),
        ["error[not_creatable]: index t_plain", "error[not_creatable]: index t_some"]
    );
    let whole_row = "alter table t add constraint t_row check (hash_record(t) is not null);
        create index t_hash on t (hash_record(t))";
    assert_eq!(
        findings(&check_good(whole_row).await),
        ["error[not_creatable]: constraint t_row", "error[not_creatable]: index t_hash"]
    );
}

#[tokio::test]
async fn functions_that_need_the_search_path_of_their_caller() {
    let dictionary = "create table dict (word text primary key); insert into dict values ('a');
        update t set note = 'a';
        create function known(p text) returns boolean language plpgsql stable as
          $$ begin return exists (select from dict where word = p); end $$;
        create function slug(p text) returns text language sql immutable as $$ select lower(p) $$;
        create function key_of(p text) returns text language plpgsql immutable as $$ begin return slug(p); end $$;";
    assert_eq!(
        findings(
            &check_good(&format!("{dictionary} alter table t add constraint t_known check (known(note))"))
                .await
        ),
        ["error[fails_for_job]: constraint t_known"]
    );
    assert_eq!(
        findings(&check_good(&format!("{dictionary} create index t_slug on t (key_of(note))")).await),
        ["error[fails_for_job]: index t_slug"]
    );
    assert_eq!(
        findings(
            &check_good(&format!(
                "{dictionary} alter table t add s text generated always as (key_of(note)) stored"
            ))
            .await
        ),
        ["error[fails_for_job]: generated column s", "error[fails_for_job]: public.t"]
    );
    assert_eq!(
        findings(
            &check_good(&format!("{dictionary} create statistics t_keys on (key_of(note)) from t")).await
        ),
        ["error[fails_for_job]: planner statistics of t, statistics t_keys"]
    );
    let helped = "alter function known(text) set search_path = public; alter function key_of(text) set search_path = public;
        alter table t add constraint t_known check (known(note)); create index t_slug on t (key_of(note))";
    assert_eq!(
        findings(&check_good(&format!("{dictionary} {helped}")).await),
        ["warning[check_may_change]: t_known"]
    );
}

#[tokio::test]
async fn checks_that_rows_no_longer_satisfy() {
    // Rows satisfy the constraint only in a session with that setting.
    let expired = "set trial.open = 'on';
        alter table t add constraint t_open check (coalesce(current_setting('trial.open', true), '') = 'on')";
    assert_eq!(findings(&check_good(expired).await), ["warning[check_violated]: t_open"]);
    let past = "alter table t add constraint t_past check (at < now() or at is null)";
    assert_eq!(findings(&check_good(past).await), ["warning[check_may_change]: t_past"]);
    let function = |limit: u32| {
        format!(
            "create or replace function small(n bigint) returns boolean language sql immutable as 'select n < {limit}'"
        )
    };
    let changed = format!(
        "{}; alter table t add constraint t_small check (small(id)); {}",
        function(1000),
        function(90)
    );
    let output = check_good(&changed).await;
    insta::assert_snapshot!(output, @"
    warning[check_violated]: t_small: 10 rows of public.t do not satisfy constraint t_small, such as the one with key 90: the partitioned table gets the constraint as NOT VALID, after the copy
      hint: no action is needed if old rows may stay as they are; otherwise correct them before the job starts
    ");
    // Existing rows are kept, new rows are checked.
    let db = Database::new().await;
    db.execute(&format!("{GOOD} {changed}")).await;
    whole_job(&db, &months(), "update t set note = 'x' where id = 7").await;
    assert_eq!(db.count("select count(*) from t where id >= 90").await, 10);
    assert!(db.client().await.batch_execute("insert into t values (91000, '2024-02-01')").await.is_err());
    // A constraint that is NOT VALID is not validated on the new table either.
    let db = Database::new().await;
    db.execute(&format!("{GOOD} alter table t add constraint t_few check (id < 50) not valid")).await;
    whole_job(&db, &months(), "update t set note = 'x' where id = 7").await;
}

#[tokio::test]
async fn expressions_that_use_tableoid() {
    let oid = "alter table t add constraint t_oid check (tableoid <> 0::oid);
        alter table t add constraint t_me check (tableoid = 'public.t'::regclass::oid);
        create policy mine on t using (tableoid::regclass::text = 't');
        alter table t add origin oid generated always as (tableoid) stored;
        create function bump() returns trigger language plpgsql as $$ begin return new; end $$;
        create trigger moved after update on t for each row when (new.tableoid = 't'::regclass) execute function bump()";
    assert_eq!(
        findings(&check_good(oid).await),
        [
            "error[names_tableoid]: generated column origin",
            "error[names_tableoid]: constraint t_me",
            "error[names_tableoid]: constraint t_oid",
            "error[names_tableoid]: policy mine",
            "error[names_tableoid]: trigger moved",
            "warning[trigger_on_move]: public.t"
        ]
    );
}

#[tokio::test]
async fn a_function_that_its_owner_cannot_create_again() {
    let db = Database::new().await;
    let function = "create role trial_owner login; grant create on schema public to trial_owner;
        create function trial_count() returns bigint language sql set session_replication_role = replica
          begin atomic select count(*) from t; end;
        do $$ begin execute format('grant create, temporary on database %I to trial_owner', current_database()); end $$;
        alter table t owner to trial_owner; alter function trial_count() owner to trial_owner;
        create table other (t_id bigint); alter table other enable row level security; alter table other owner to trial_owner;
        create policy known on other using (exists (select from t where t.id = other.t_id and other.t_id > 0))";
    db.execute(&format!("{GOOD} {function}")).await;
    let output = check_as(&db, "trial_owner", &months()).await;
    assert_eq!(errors(&output), ["error[not_creatable]: function public.trial_count()"], "{output}");
    db.execute("alter function trial_count() reset session_replication_role").await;
    let output = check_as(&db, "trial_owner", &months()).await;
    assert_eq!(errors(&output), Vec::<String>::new(), "{output}");
}

#[tokio::test]
async fn a_policy_that_names_its_table() {
    let db = Database::new().await;
    let policy = "create table members (team int, who name); insert into members values (1, 'trial_member');
        do $$ begin create role trial_member; exception when duplicate_object then null; end $$;
        grant select on members to trial_member; grant select on t to trial_member;
        alter table t add team int default 1; update t set team = 2 where id % 2 = 0;
        alter table t enable row level security;
        create policy theirs on t for select to trial_member
          using (exists (select from members m where m.team = t.team and m.who = current_user))";
    db.execute(&format!("{GOOD} {policy}")).await;
    let seen = "do $$ declare n bigint; begin
          set local role trial_member; select count(*) into n from t; reset role;
          if n <> 50 then raise exception '% rows are seen', n; end if; end $$";
    db.execute(seen).await;
    whole_job(&db, &months(), seen).await;
    let shown =
        "select count(*) from pg_policy where pg_get_expr(polqual, polrelid) like '%m.team = t.team%'";
    assert_eq!(db.count(shown).await, 1);
}

const NAMELESS: &str = "create function helper() returns int language sql stable as 'select 42';
    create function calls() returns int language plpgsql stable as 'begin return helper(); end';
    create materialized view mv as select id, calls() as c from t where id > 3;
    create view vw as select id, calls() as c from t";

#[tokio::test]
async fn a_materialized_view_by_a_function_that_needs_the_search_path() {
    let db = Database::new().await;
    db.execute(&format!("{GOOD} {NAMELESS}")).await;
    whole_job(&db, &months(), "update t set note = 'x' where id = 7").await;
    assert_eq!(db.count("select sum(c)::bigint from mv where id > 97").await, 84);
    assert_eq!(db.count("select max(c)::bigint from vw").await, 42);
}

#[tokio::test]
async fn a_check_by_a_function_on_a_retyped_column() {
    let db = Database::new().await;
    db.execute(
        "create table dict (n int primary key); insert into dict select generate_series(1, 2000);
         create function known(p bigint) returns boolean language plpgsql stable as
           $$ begin return exists (select from public.dict where n = p); end $$;
         create table t (id int primary key, a int constraint a_known check (known(a)));
         insert into t select i, i from generate_series(1, 1500) i; analyze",
    )
    .await;
    let plan = "name = 'j'\nkind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'a'\nto = 'bigint'\n";
    whole_job(&db, plan, "update t set a = a + 1 where id % 9 = 0 and a < 1900").await;
}

/// The row type of the table changes while the job is open. An index on the whole row cannot be built a second time.
#[tokio::test]
async fn a_retype_of_a_table_whose_definitions_use_the_whole_row() {
    let table = "create table t (id int primary key, a int, b int, v text); insert into t select i, i, i, 'v' from generate_series(1, 200) i;
        alter table t add constraint t_row check (hash_record(t) is not null);
        alter table t add constraint t_oid check (tableoid = 't'::regclass and a is not null);
        alter table t enable row level security; create policy seen on t using (tableoid = 't'::regclass);";
    let plan = "name = 'j'\nkind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'a'\nto = 'bigint'\n";
    let indexed = format!("{table} create index t_hash on t (hash_record(t)); analyze t");
    assert_eq!(errors(&check_report(&indexed, plan).await), ["error[not_in_new_type]: index t_hash"]);
    let db = Database::new().await;
    db.execute(table).await;
    whole_job(&db, plan, "update t set a = a + 1, v = 'w' where id % 9 = 0").await;
    let kept = "select count(*) from pg_constraint where conrelid = 't'::regclass and convalidated and conname in ('t_row', 't_oid')";
    assert_eq!(db.count(kept).await, 2);
}

#[tokio::test]
async fn foreign_keys_that_the_new_type_cannot_have() {
    let tables = "create table t (id int primary key, v text); create table c (t_id int references t);
        insert into t select i, 'v' from generate_series(1, 100) i; analyze";
    let plan = |to: &str| format!("kind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'id'\nto = '{to}'\n");
    assert_eq!(errors(&check_report(tables, &plan("text")).await), ["error[foreign_key_types]: c_t_id_fkey"]);
    assert!(errors(&check_report(tables, &plan("bigint")).await).is_empty());
    let child = "kind = 'retype'\ntable = 'c'\n[retype]\ncolumn = 't_id'\nto = 'uuid'\nusing = 'null'\nback = 'null'\n";
    let keyed = "alter table c add id int generated always as identity primary key";
    assert_eq!(
        errors(&check_report(&format!("{tables}; {keyed}"), child).await),
        ["error[foreign_key_types]: c_t_id_fkey"]
    );
}

#[tokio::test]
async fn a_table_without_room_for_a_column() {
    let table = "do $$ begin
          execute (select format('create table t (id int primary key, %s)', string_agg(format('c%s int', i), ', '))
            from generate_series(1, 1599) i);
          execute (select 'alter table t ' || string_agg(format('drop c%s', i), ', ') from generate_series(1, 100) i);
        end $$; analyze t";
    let backfill = "kind = 'backfill'\ntable = 't'\n[backfill]\nadd = { extra = 'int' }\nset = { extra = '1' }\nwhere = 't.extra is null'\n";
    let retype = "kind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'c101'\nto = 'bigint'\n";
    let db = Database::new().await;
    db.execute(table).await;
    assert_eq!(errors(&check(&db, backfill).await), ["error[too_many_columns]: public.t"]);
    assert_eq!(errors(&check(&db, retype).await), ["error[too_many_columns]: public.t"]);
}

#[tokio::test]
async fn values_beyond_every_bound() {
    let far = "insert into t values (200, '9999-12-31Z'), (201, '294276-12-31 23:59:59.999999Z'), (202, '4713-01-01 00:00Z BC'),
        (203, 'infinity')";
    let output = check_good(far).await;
    assert_eq!(errors(&output), ["error[bounds]: at"]);
    assert!(output.contains("hint: set `from` and `to` under [partition]: "), "{output}");
    let newest = check_good("insert into t values (201, '294276-12-31 23:59:59.999999Z')").await;
    assert!(newest.contains("hint: set `to` under [partition]: "), "{newest}");
    let db = Database::new().await;
    db.execute(&format!("{GOOD} {far}")).await;
    let ends = format!("{}from = '2024-01-01'\nto = '2024-03-01'\n", months());
    let changes = "update t set note = note || 'x' where id % 20 in (1, 2, 3);
        update t set at = at + interval '40 days' where id = 41";
    whole_job(&db, &ends, changes).await;
    assert_eq!(db.count("select count(*) from t_default where id >= 200").await, 4);
    let dates = "create table t (id int primary key, at date not null);
        insert into t select i, date '2024-06-01' + i % 90 from generate_series(1, 500) i;
        insert into t values (-1, 'infinity'), (-2, '0044-03-15 BC'), (-3, '5874897-12-31'); analyze";
    let db = Database::new().await;
    db.execute(dates).await;
    let ends = format!("{}from = '2024-06-01'\nto = '2024-09-01'\n", months());
    whole_job(
        &db,
        &ends,
        "update t set at = at + 1 where id between 1 and 50; update t set at = at where id < 0",
    )
    .await;
}

#[tokio::test]
async fn rows_whose_update_fails() {
    let table = "create table t (id int primary key, v text); insert into t select i, 'a' from generate_series(1, 100) i;
        create schema other; create table other.dict (word text);
        create function known(p text) returns boolean language plpgsql stable as
          $$ begin return not exists (select from dict where word = p); end $$;
        create function key_of(p text) returns text language plpgsql immutable as
          $$ begin return (select max(word) from dict); end $$;
        set search_path = public, other; ";
    let plan = "kind = 'backfill'\ntable = 't'\n[backfill]\nset = { v = \"'b'\" }\n";
    let check = format!("{table} alter table t add constraint t_known check (known(v)); analyze");
    assert_eq!(errors(&check_report(&check, plan).await), ["error[fails_for_job]: constraint t_known"]);
    let index = format!("{table} create index t_key on t (key_of(v)); analyze");
    assert_eq!(errors(&check_report(&index, plan).await), ["error[fails_for_job]: index t_key"]);
    let old = format!("{table} alter table t add constraint t_new check (id > 10) not valid; analyze");
    assert_eq!(errors(&check_report(&old, plan).await), ["error[check_violated]: t_new"]);
    // The backfill corrects the rows that violate the constraint.
    let corrected = format!("{table} alter table t add constraint t_new check (v <> 'a') not valid; analyze");
    assert!(errors(&check_report(&corrected, plan).await).is_empty());
    let retype = "kind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'v'\nto = 'varchar'\n";
    assert_eq!(errors(&check_report(&corrected, retype).await), ["error[check_violated]: t_new"]);
}

/// The job works with such functions, or the check names them.
#[tokio::test]
async fn functions_that_need_the_search_path_of_their_caller_in_other_jobs() {
    let table = "create table dict (val int primary key); insert into dict select generate_series(1, 2000);
        create function in_dict(p bigint) returns boolean language plpgsql stable as
          $$ begin return exists (select 1 from dict where val = p); end $$;
        create function least_of(p bigint) returns bigint language plpgsql immutable as
          $$ begin return (select min(val) from dict where val >= p); end $$;
        create table t (id int primary key, a int, v text); insert into t select i, i from generate_series(1, 1500) i";
    let retype = "name = 'j'\nkind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'a'\nto = 'bigint'\n";
    let between = "update t set a = a + 1 where id % 9 = 0 and a < 1900";
    let db = Database::new().await;
    db.execute(&format!("{table}; alter table t add constraint a_known check (in_dict(a)); analyze")).await;
    whole_job(&db, retype, between).await;
    for (more, named) in [
        ("create index t_least on t (least_of(a))", "index t_least"),
        ("create index t_part on t (id) where in_dict2(a)", "index t_part"),
        ("create statistics t_stat on (least_of(a)), id from t", "t_stat"),
    ] {
        let db = Database::new().await;
        let immutable = "create function in_dict2(p bigint) returns boolean language plpgsql immutable as
            $$ begin return exists (select 1 from dict where val = p); end $$";
        db.execute(&format!("{table}; {immutable}; {more}; analyze")).await;
        let found = errors(&check_output(&db, retype).await);
        if found.is_empty() {
            whole_job(&db, retype, between).await;
        } else {
            assert!(found.iter().any(|one| one.contains(named)), "{more}: {found:?}");
        }
    }
    let backfill = "name = 'j'\nkind = 'backfill'\ntable = 't'\n[backfill]\nset = { v = \"'b'\" }\nfinish = ";
    for finish in [
        "{ check = ['in_dict(a)'] }",
        "{ index = ['(least_of(a))'] }",
        "{ unique = [['a']], check = ['in_dict(id)'] }",
    ] {
        let db = Database::new().await;
        db.execute(&format!("{table}; analyze")).await;
        let plan = format!("{backfill}{finish}\n");
        if errors(&check_output(&db, &plan).await).is_empty() {
            db.pgstrata(&["run", db.plan(&plan).to_str().unwrap()]).await.ok();
        }
    }
}

/// If another session holds a lock, `check` reports a warning and no error.
#[tokio::test]
async fn a_lock_of_another_session_leaves_the_plan_untried() {
    let db = Database::new().await;
    let role = format!("trial_owner_{}", db.name());
    db.execute(&format!(
        "create role {role}; create table t (id int primary key, at timestamptz not null, n int, twin text);
         insert into t select i, now(), i from generate_series(1, 100) i; alter table t owner to {role}; analyze t"
    ))
    .await;
    let mut other = db.client().await;
    let held = other.transaction().await.unwrap();
    held.batch_execute("lock table t in share row exclusive mode").await.unwrap();
    for task in [
        "kind = 'partition'\n[partition]\nby = 'at'\nevery = '1 month'\n",
        "kind = 'backfill'\n[backfill]\nset = { twin = 't.n::text' }\n",
        "kind = 'backfill'\n[backfill]\nset = { n = 't.id' }\n",
        "kind = 'retype'\n[retype]\ncolumn = 'n'\nto = 'bigint'\n",
    ] {
        let plan = db.plan(&format!("name = 'job'\ntable = 't'\n{task}"));
        let plan = plan.to_str().unwrap();
        let checked = db.pgstrata(&["check", plan, "--color", "never"]).await.ok();
        assert!(checked.stdout.contains("warning[untried]"), "{task}: {}", checked.stdout);
        assert!(!checked.stdout.contains("error["), "{task}: {}", checked.stdout);
    }
}
