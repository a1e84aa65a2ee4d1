//! Functions that take or return rows of the table, as job queues have them: a partition job creates them again for the row
//! type of the table in use, in both directions, while applications call them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::error::SqlState;

use crate::support::checks::errors;
use crate::support::cluster::{Database, Version, on_oldest_and_newest};
use crate::support::lab::Lab;

on_oldest_and_newest!(a_job_queue_follows_in_both_directions);

const PLAN: &str =
    "name = 'job'\ntable = 'jobs'\n[partition]\nby = 'run_at'\nevery = '1 month'\n[swap]\nattempts = 1000\n";

/// A queue with a function of each kind.
const QUEUE: &str = r#"
    create table jobs (id bigint generated always as identity primary key, run_at timestamptz not null default now(),
      payload text, worker text, done boolean not null default false);
    insert into jobs (run_at, payload) select now() - i * interval '1 hour', 'p' || i from generate_series(1, 1500) i;
    create function get_job(name text) returns jobs language plpgsql as $f$
    declare j jobs;
    begin
      update jobs set worker = name where id = (
        select id from jobs where worker is null order by id limit 1 for update skip locked) returning * into j;
      return j;
    end $f$;
    create function complete(j jobs) returns jobs language plpgsql as $f$
    begin
      update jobs set done = true where id = j.id and run_at = j.run_at returning * into j;
      return j;
    end $f$;
    create function add_job(text, at timestamptz default now()) returns setof jobs language sql security definer
      set search_path = public, pg_temp as 'insert into jobs (payload, run_at) values ($1, $2) returning *';
    create function label(jobs) returns text language sql stable begin atomic select $1.payload || ' #' || $1.id; end;
    create function many(jobs[]) returns int language sql immutable strict cost 7 as 'select cardinality($1)';
    create procedure note(j jobs) language plpgsql as 'begin perform 1; end';
    alter function complete(jobs) owner to ROLE_a;
    grant select, update on jobs to ROLE_a;
    revoke all on function get_job(text) from public;
    grant execute on function complete(jobs) to ROLE_b with grant option;
    comment on function get_job(text) is 'it''s next'; comment on procedure note(jobs) is 'notes';
    create view labels as select id, label(jobs.*) as label from jobs;
"#;

/// The functions with everything that belongs to them.
async fn described(db: &Database) -> Vec<String> {
    let sql = "select format('%s %s %s %s %s', pg_get_functiondef(oid), proowner::regrole,
          (select array_agg(a::text order by a::text) from unnest(coalesce(proacl, acldefault('f', proowner))) a),
          obj_description(oid, 'pg_proc'), oid::regprocedure)
        from pg_proc where pronamespace = 'public'::regnamespace order by 1";
    db.client().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// The functions for the row type of the table in use, and all others.
const BOUND: &str = "select count(*) filter (where d.refobjid in (t.oid, t.typarray)) * 100 + count(*) filter (where d.refobjid not in (t.oid, t.typarray))
    from pg_depend d join pg_proc f on f.oid = d.objid and d.classid = 'pg_proc'::regclass
      join pg_type y on y.oid = d.refobjid and d.refclassid = 'pg_type'::regclass, pg_type t
    where t.oid = 'jobs'::regtype and f.pronamespace = 'public'::regnamespace and (y.typtype = 'c' or y.typelem <> 0 and y.typcategory = 'A' and y.typname ~ 'jobs')";

async fn a_job_queue_follows_in_both_directions(version: Version) {
    let db = Database::of(version).await;
    let with_roles = |sql: &str| sql.replace("ROLE", db.name());
    db.execute(&with_roles(
        "create role ROLE_a; create role ROLE_b; grant create on schema public to ROLE_a",
    ))
    .await;
    db.execute(&with_roles(QUEUE)).await;
    let end = with_roles("drop owned by ROLE_a, ROLE_b; drop role ROLE_a, ROLE_b");
    let before = described(&db).await;
    let bound = db.count(BOUND).await;
    assert_eq!(bound % 100, 0);
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(tokio::spawn(work(db.client().await, stop.clone())));
    }
    let lab = Lab::on(db, PLAN);
    let db = &lab.db;
    for command in ["run", "swap", "rollback", "swap"] {
        lab.ok(command).await;
        assert_eq!(described(db).await, before, "{command}");
        assert_eq!(db.count(BOUND).await, bound, "{command}");
        assert_eq!(
            db.count("select count(*) from (select label from labels limit 5) l where label like '% #%'")
                .await,
            5
        );
    }
    // A change during the job is carried over, too.
    db.execute("comment on function get_job(text) is 'next'; create function late(jobs) returns int language sql as 'select 1'").await;
    stop.store(true, Ordering::Relaxed);
    let mut completed = 0;
    for worker in workers {
        completed += worker.await.unwrap();
    }
    lab.steps(&["rollback", "swap", "finalize --now"]).await;
    assert_eq!(db.count("select count(*) from jobs where done").await, completed);
    assert_eq!(
        db.count("select count(late(j)) + count(*) - count(distinct id) from jobs j where id < 100").await,
        99
    );
    let late = "select count(*) from pg_proc where obj_description(oid, 'pg_proc') = 'next' or proname ~ 'pgstrata_former'";
    assert_eq!(db.count(late).await, 1);
    db.execute(&end).await;
}

/// Takes and completes jobs until it is stopped; returns the number of completed jobs.
async fn work(client: tokio_postgres::Client, stop: Arc<AtomicBool>) -> i64 {
    let mut completed = 0;
    while !stop.load(Ordering::Relaxed) {
        let one = "with added as (select count(*) from add_job('new'))
            select (complete(j)).done from added, get_job('w') j where j.id is not null";
        match client.query(one, &[]).await {
            Ok(rows) => {
                completed +=
                    rows.iter().filter(|row| row.get::<_, Option<bool>>(0) == Some(true)).count() as i64;
            }
            // The guard rejects a statement whose snapshot is older than the exchange.
            Err(e) if e.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => {}
            Err(e) => panic!("{e:?}"),
        }
    }
    completed
}

/// The server does not let the owner create a function with a setting that a superuser added. The check reports this before
/// the swap would fail.
#[tokio::test]
async fn functions_that_their_owner_cannot_create_are_refused() {
    let db = Database::new().await;
    let role = format!("owner_of_{}", db.name());
    db.execute(&format!(
        "create role {role}; create schema own authorization {role};
         create table jobs (id bigint primary key, run_at timestamptz not null);
         insert into jobs select i, timestamptz '2024-01-01Z' + i * interval '1 hour' from generate_series(1, 1000) i;
         analyze jobs;
         set role {role}; create function own.f(j public.jobs) returns int language sql as 'select 1'; reset role;
         alter function own.f set log_min_messages = 'error'"
    ))
    .await;
    let plan = db.plan(PLAN);
    let coded = |ran: &crate::support::process::Ran| {
        errors(&ran.stdout).iter().any(|e| e.starts_with("error[not_creatable]: function own.f"))
    };
    let check = ["check", plan.to_str().unwrap(), "--color", "never"];
    let refused = db.pgstrata(&check).await.exits(3);
    assert!(coded(&refused), "{refused:?}");
    db.execute("alter function own.f reset log_min_messages; revoke usage on type jobs from public").await;
    let refused = db.pgstrata(&check).await.exits(3);
    assert!(coded(&refused), "{refused:?}");
    db.execute("grant usage on type jobs to public").await;
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    db.pgstrata(&["swap", "job"]).await.ok();
    db.execute(&format!("drop owned by {role} cascade; drop role {role}")).await;
}
