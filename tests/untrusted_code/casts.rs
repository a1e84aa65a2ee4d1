//! The owner of a type can create casts from it and to it without changing the table. A job never calls them, whoever owns
//! the table.

use std::path::{Path, PathBuf};

use super::{owned, owner, owners_code_did_not_run, ran};
use crate::support::checks::errors;
use crate::support::cluster::{Database, Version};

/// Casts of the owner's types to text, from text and to JSON, which record their callers.
fn casts(role: &str) -> String {
    let mut all = format!("set role {role};");
    for (of, value) in [("app.mood", "(enum_range(null::app.mood))[1]"), ("app.duo", "row(1, 'x')::app.duo")]
    {
        for (from, to, value) in [(of, "text", "'a'"), ("text", of, value), (of, "json", "'1'")] {
            let name = format!("app.cast_{}_{}", from.replace("app.", ""), to.replace("app.", ""));
            all += &format!(
                "create function {name}({from}) returns {to} language plpgsql
                   as $$ begin perform app.note(); return {value}; end $$;
                 create cast ({from} as {to}) with function {name}({from}) as assignment;"
            );
        }
    }
    all += "reset role";
    all
}

/// A table of a trusted role, whose key has types of another role.
async fn with_types_of_another_role() -> Database {
    let db = owned(Version::System).await;
    db.execute(&format!(
        "set role {}; create type app.mood as enum ('a', 'b', 'c');
         create type app.duo as (n int, v text); grant usage on schema app to public; reset role; create domain feeling as app.mood;
         create table moods (mood app.mood, duo app.duo, primary key (mood, duo));
         insert into moods select m, row(p, 'x')::app.duo from unnest(enum_range(null::app.mood)) m, generate_series(0, 9) p;
         create table k (id int, mood app.mood, felt feeling, duo app.duo, at timestamptz not null, name varchar(20),
           primary key (mood, duo, id), constraint of_mood foreign key (mood, duo) references moods);
         insert into k select i, (enum_range(null::app.mood))[1 + i % 3], (enum_range(null::app.mood))[1 + i % 2], row(i % 10, 'x')::app.duo,
             timestamptz '2024-01-01 00:00Z' + i * interval '1 hour', 'Name' || i
           from generate_series(1, 2000) i;
         analyze k",
        owner(&db)
    ))
    .await;
    db.execute(&casts(&owner(&db))).await;
    db
}

/// A plan of the kind that the first section of `task` names, with the top-level settings `head`.
fn plan(db: &Database, head: &str, task: &str) -> PathBuf {
    let kind = task.split(['[', ']']).nth(1).unwrap();
    db.plan(&format!("name = 'job'\ntable = 'k'\nkind = '{kind}'\n{head}{task}"))
}

/// Runs the job, which is killed once at each of the places.
async fn interrupted(db: &Database, plan: &Path, at: &[&str]) {
    for at in at {
        let run = ["run", plan.to_str().unwrap()];
        db.pgstrata_with(&run, &[("PGSTRATA_FAILPOINT", at)]).await.killed(at.split('@').next().unwrap());
    }
    ran(db, "run", plan).await.ok();
}

#[tokio::test]
async fn a_partition_job_calls_no_cast_of_the_types_of_its_key() {
    let db = with_types_of_another_role().await;
    let orphan = "set session_replication_role = replica; insert into k values (-1, 'b', 'a', row(99, 'y'), '2024-02-02', 'orphan');
        set session_replication_role = origin";
    for order in ["keyset", "physical"] {
        let plan =
            plan(&db, "", &format!("[partition]\nby = 'at'\nevery = '1 month'\n[copy]\norder = '{order}'\n"));
        db.execute(orphan).await;
        let refused = ran(&db, "check", &plan).await.exits(3);
        assert!(errors(&refused.stdout).iter().any(|e| e.contains("foreign_key_violated")), "{refused:?}");
        assert!(refused.stdout.contains("b, (99,y), -1"), "{refused:?}");
        db.execute("delete from k where id = -1").await;
        interrupted(&db, &plan, &["copy.chunk"]).await;
        db.execute("update k_new set name = 'other' where id = 5").await;
        let mismatch = db.pgstrata(&["verify", "job"]).await.exits(4);
        assert!(mismatch.stdout.contains("(5,x)") || mismatch.stderr.contains("(5,x)"), "{mismatch:?}");
        db.execute("update k_new set name = 'Name5' where id = 5").await;
        for command in ["swap", "rollback"] {
            db.execute("update k set name = name || '.' where id < 9; update k set mood = 'c' where id = 2")
                .await;
            db.pgstrata(&[command, "job"]).await.ok();
        }
        db.pgstrata(&["abort", "job"]).await.ok();
        owners_code_did_not_run(&db, order).await;
    }
}

#[tokio::test]
async fn a_backfill_calls_no_cast_of_the_types_of_its_key() {
    let db = with_types_of_another_role().await;
    let plan = plan(
        &db,
        "",
        "[backfill]\nset = { name = 'pg_catalog.upper(t.name)' }\nwhere = \"t.name <> pg_catalog.upper(t.name)\"\n",
    );
    db.pgstrata(&["check", plan.to_str().unwrap(), "--sample", "50"]).await.ok();
    let run = ["run", plan.to_str().unwrap()];
    db.pgstrata_with(&run, &[("PGSTRATA_FAILPOINT", "fill.chunk")]).await.killed("fill.chunk");
    db.pgstrata_with(&run, &[("PGSTRATA_FAILPOINT", "fill.done")]).await.killed("fill.done");
    db.execute("update k set name = 'again' where id < 30").await;
    ran(&db, "run", &plan).await.ok();
    assert_eq!(db.count("select count(*) from k where name <> upper(name)").await, 0);
    owners_code_did_not_run(&db, "the table was filled").await;
}

#[tokio::test]
async fn a_column_type_change_calls_no_cast_of_the_types_of_its_key() {
    let db = with_types_of_another_role().await;
    let plan = plan(&db, "", "[retype]\ncolumn = 'id'\nto = 'bigint'\n");
    interrupted(&db, &plan, &["fill.chunk", "fill.done"]).await;
    for command in ["swap", "rollback", "swap"] {
        db.execute("update k set name = name || '.' where id < 9").await;
        db.pgstrata(&[command, "job"]).await.ok();
    }
    db.pgstrata(&["finalize", "job", "--now"]).await.ok();
    owners_code_did_not_run(&db, "the type was changed").await;
}

/// The SQL of a plan is parsed again in each transaction, when its owner may have created a cast.
#[tokio::test]
async fn sql_that_reads_a_type_of_another_role_is_refused() {
    let db = owned(Version::System).await;
    let role = owner(&db);
    db.execute(&format!(
        "set role {role}; create type app.mood as enum ('a', 'b');
         grant usage on schema app to public; reset role; create domain feeling as app.mood;
         create table k (id int primary key, mood app.mood, felt feeling, moods app.mood[], name text);
         insert into k select i, 'a', 'b', '{{a}}', 'x' from generate_series(1, 100) i; analyze k"
    ))
    .await;
    for task in [
        "[backfill]\nset = { name = 't.mood::text' }\n",
        "[backfill]\nset = { name = 't.felt::text' }\n",
        "[backfill]\nset = { name = 't.moods::text' }\n",
        "[backfill]\nset = { name = \"pg_catalog.to_json(t) ->> 'mood'\" }\n",
        "[backfill]\nset = { name = \"'x'\" }\nwhere = \"t.mood::text = 'a' and t.name <> 'x'\"\n",
        "[retype]\ncolumn = 'mood'\nto = 'text'\n",
    ] {
        let refused = ran(&db, "check", &plan(&db, "", task)).await.exits(3);
        let found = errors(&refused.stdout);
        assert!(found.contains(&"error[untrusted_object]: type app.mood".to_owned()), "{task}: {refused:?}");
        let trusted = plan(&db, &format!("trust = ['{role}']\n"), task);
        ran(&db, "check", &trusted).await.ok();
    }
    // Columns that the SQL does not read do not count.
    ran(&db, "check", &plan(&db, "", "[backfill]\nset = { name = 'pg_catalog.upper(t.name)' }\n")).await.ok();
    // The code on a table whose owner is not trusted is looked for in each transaction.
    db.execute(&format!("alter table k owner to {role}")).await;
    ran(&db, "check", &plan(&db, "", "[backfill]\nset = { name = 't.mood::text' }\n")).await.ok();
}
