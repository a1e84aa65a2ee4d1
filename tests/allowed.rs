//! On a table with any of these objects, one or many, either `check` reports an error that names the object, or the
//! whole job succeeds, including a rollback and finalize.

use pgstrata::engine::preflight;
use pgstrata::model::finding::Level;
use pgstrata::pg::connect::Target;
use pgstrata::plan::Plan;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::support::cluster::Database;

/// An object of a table: a part of the name under which a finding would report it, and the statements that create it.
type Thing = (&'static str, &'static str);

const TABLE: &str = "
    create table t (id bigint generated always as identity primary key, at timestamptz not null, a int, note text, n numeric);
    insert into t (at, a, note, n)
      select timestamptz '2024-01-15 00:00Z' + i * interval '6 hours', i, 'note ' || i, i / 7.0 from generate_series(0, 399) i;
    create table other (id int primary key, word text); insert into other select i, 'w' || i from generate_series(0, 399) i;
    create function plain(p text) returns text language plpgsql immutable as $$ begin return lower(p); end $$;
    create function slug(p text) returns text language sql immutable as 'select lower(p)';
    create function lost(p text) returns text language plpgsql immutable as $$ begin return slug(p); end $$;
    create function known(p int) returns boolean language plpgsql stable as
      $$ begin return p is null or p < 0 or exists (select from other where id < p + 1000); end $$;
    create function found(p int) returns boolean language plpgsql stable set search_path = public as
      $$ begin return p is null or p < 0 or exists (select from other where id < p + 1000); end $$;
    create function touch() returns trigger language plpgsql as $$ begin return new; end $$;";

const THINGS: &[Thing] = &[
    ("c_plain", "alter table t add constraint c_plain check (n >= 0 and length(note) > 0)"),
    ("c_old", "alter table t add constraint c_old check (a > 10) not valid"),
    ("c_lost", "alter table t add constraint c_lost check (known(a))"),
    ("c_found", "alter table t add constraint c_found check (found(a))"),
    ("c_row", "alter table t add constraint c_row check (hash_record(t) is not null)"),
    ("c_alone", "alter table t add constraint c_alone check (a is distinct from -1) no inherit"),
    ("c_oid", "alter table t add constraint c_oid check (tableoid > 0::oid)"),
    ("c_past", "alter table t add constraint c_past check (at < now() + interval '10 years')"),
    (
        "c_never",
        "create function never(int) returns boolean language sql immutable as 'select true';
        alter table t add constraint c_never check (never(a));
        create or replace function never(int) returns boolean language sql immutable as 'select $1 < 7'",
    ),
    (
        "i_lower",
        "create index i_lower on t (lower(note) desc nulls last, a) include (n) where note <> ' USING '",
    ),
    ("i_fn", "create index i_fn on t (plain(note))"),
    ("i_lost", "create index i_lost on t (lost(note))"),
    (
        "i_stable",
        "create function stable_now(text) returns text language sql immutable as 'select $1';
        create index i_stable on t (stable_now(note)); alter function stable_now(text) stable",
    ),
    ("i_row", "create index i_row on t (hash_record(t))"),
    ("i_hash", "create index \"i_hash ON t USING\" on t using hash (note)"),
    ("i_gin", "create index i_gin on t using gin (to_tsvector('simple', note)) with (fastupdate = off)"),
    ("i_brin", "create index i_brin on t using brin (at) with (pages_per_range = 4)"),
    ("u_at", "alter table t add constraint u_at unique (id, at) deferrable"),
    ("g_plain", "alter table t add g_plain text generated always as (plain(note)) stored"),
    ("g_lost", "alter table t add g_lost text generated always as (lost(note)) stored"),
    (
        "s_plain",
        "create statistics s_plain on extract(day from at at time zone 'UTC'), (note || ' FROM ') from t",
    ),
    ("s_lost", "create statistics s_lost on (lost(note)), a from t"),
    ("s_alone", "create statistics s_alone on (lost(note)) from t"),
    (
        "t_before",
        "create trigger t_before before update of note on t for each row when (old.note <> new.note)
        execute function touch()",
    ),
    (
        "t_row",
        "create trigger t_row before update on t for each row when (old.* is distinct from new.*) execute function touch()",
    ),
    (
        "t_late",
        "create constraint trigger t_late after insert on t deferrable initially deferred for each row
        execute function touch()",
    ),
    (
        "t_old",
        "create trigger t_old after update on t referencing old table as before_it for each statement
        execute function touch()",
    ),
    (
        "p_plain",
        "alter table t enable row level security; create policy p_plain on t using (a >= 0) with check (a > 0)",
    ),
    (
        "p_own",
        "create policy p_own on t for select to public using (exists (select from other o where o.id = t.a))",
    ),
    ("v_plain", "create view v_plain as select id, note from t; create view v_over as select * from v_plain"),
    ("v_key", "create view v_key as select id, note, count(*) from t group by id"),
    ("v_row", "create view v_row as select t from t"),
    (
        "m_plain",
        "create materialized view m_plain as select id, plain(note) as p from t; create unique index m_id on m_plain (id)",
    ),
    ("m_lost", "create materialized view m_lost as select id, lost(note) as p from t"),
    (
        "m_bad",
        "create function divisor() returns int language sql stable as 'select 1';
        create materialized view m_bad as select id, 1 / divisor() as p from t;
        create or replace function divisor() returns int language sql stable as 'select 0'",
    ),
    (
        "r_also",
        "create rule r_also as on delete to t where old.a < -1 do also delete from other where id = -1",
    ),
    ("f_out", "alter table t add constraint f_out foreign key (a) references other not valid"),
    (
        "f_self",
        "alter table t add constraint u_self unique (id, at), add p_id bigint, add p_at timestamptz,
        add constraint f_self foreign key (p_id, p_at) references t (id, at)",
    ),
    (
        "f_late",
        "alter table t add constraint f_late foreign key (a) references other on delete cascade on update cascade
        deferrable initially deferred; create index on t (a)",
    ),
    (
        "f_parts",
        "create table parts (id int primary key) partition by range (id);
        create table parts_1 partition of parts for values from (0) to (1000); insert into parts select id from other;
        alter table t add constraint f_parts foreign key (a) references parts",
    ),
    (
        "f_unlogged",
        "create unlogged table q (id int primary key); insert into q select id from other;
        alter table t set unlogged; alter table t add constraint f_unlogged foreign key (a) references q",
    ),
    ("unlogged", "alter table t set unlogged"),
    (
        "f_wide",
        "alter table t add constraint u_wide unique (id, at);
        create table wide (t_id bigint, t_at timestamptz, constraint f_wide foreign key (t_id, t_at) references t (id, at)
          on delete cascade deferrable);
        insert into wide select id, at from t where id % 40 = 1",
    ),
    (
        "f_int",
        "alter table t add constraint u_int unique (a);
        create table small (t_a int constraint f_int references t (a)); insert into small select a from t where a % 40 = 1",
    ),
    (
        "o_citext",
        "create extension citext; alter table t add c citext default 'x'; revoke create on schema public from public;
        alter table t add constraint o_citext check (c is distinct from 'y')",
    ),
    ("f_in", "create table child (t_id bigint constraint f_in references t)"),
    (
        "d_email",
        "create domain d_email as text check (value ~ '@'); alter table t add e d_email; update t set e = id || '@x'",
    ),
    (
        "e_kind",
        "create type e_kind as enum ('a', 'b'); alter table t add k e_kind default 'a', add ks e_kind[]",
    ),
    ("full", "alter table t replica identity full"),
    ("pub_t", "create publication pub_t for table t with (publish = 'insert')"),
    (
        "options",
        "alter table t set (fillfactor = 70, toast.autovacuum_enabled = off);
        alter table t alter note set storage external, alter a set statistics 7",
    ),
    ("body", "create function body() returns bigint begin atomic select count(*) from t; end"),
    (
        "comments",
        "comment on table t is 'it''s'; comment on column t.note is 'n'; comment on constraint t_pkey on t is 'k'",
    ),
    ("dropped", "alter table t add x1 int, add x2 int; alter table t drop x1"),
];

const PLANS: [(&str, &str); 3] = [
    ("partition", "name = 'j'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\nto = '2024-06-01'\n"),
    (
        "backfill",
        "name = 'j'\nkind = 'backfill'\ntable = 't'\n[backfill]\nadd = { extra = 'text' }\nset = { extra = \"t.note || '!'\" }\n",
    ),
    ("retype", "name = 'j'\nkind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'a'\nto = 'bigint'\n"),
];

/// The errors of `check` for the plan.
async fn errors(db: &Database, plan: &str) -> Vec<String> {
    let session = Target::from_env(Some(db.dsn())).unwrap().connect("allowed").await.unwrap();
    let found = preflight(&session, &Plan::parse(plan, "plan.toml").unwrap()).await.unwrap();
    let errors = found.findings.iter().filter(|finding| finding.level == Level::Error);
    errors
        .map(|finding| format!("{}[{}]: {} ({})", finding.level, finding.code, finding.message, finding.hint))
        .collect()
}

async fn with(things: &[Thing]) -> Database {
    let db = Database::new().await;
    db.execute(TABLE).await;
    for (_, statements) in things {
        // Some objects exclude each other: an object that the server refuses next to the others is omitted.
        let created = db.client().await.batch_execute(statements).await;
        assert!(created.is_ok() || things.len() > 1, "{statements}: {created:?}");
    }
    db.execute("analyze").await;
    db
}

/// Runs the whole job, with writes between its steps.
async fn whole_job(db: &Database, kind: &str, plan: &str, things: &[Thing]) {
    let names: Vec<&str> = things.iter().map(|(name, _)| *name).collect();
    let ok = async |args: &[&str]| {
        let ran = db.pgstrata(args).await;
        assert_eq!(ran.code, Some(0), "{kind} {args:?} with {names:?}: {}{}", ran.stdout, ran.stderr);
    };
    let plan = db.plan(plan);
    ok(&["run", plan.to_str().unwrap()]).await;
    if kind == "backfill" {
        return;
    }
    for args in [&["swap", "j"][..], &["rollback", "j"], &["swap", "j"], &["finalize", "j", "--now"]] {
        // A constraint may have become false, so that the application's own updates fail.
        let write = "update t set note = note || '.' where id % 40 = 23; delete from t where id = 391 - (select count(*) from t) % 7";
        db.client().await.batch_execute(write).await.ok();
        ok(args).await;
    }
}

/// Whether an error names the object, or the function that it calls.
fn is_named(errors: &[String], thing: &str) -> bool {
    errors.iter().any(|error| {
        error.contains(thing) || thing.ends_with("_lost") && error.contains("function public.lost(")
    })
}

/// The objects that `check` allows for each kind of job, each tested alone.
async fn allowed() -> [Vec<Thing>; 3] {
    let mut allowed = [const { Vec::new() }; 3];
    for thing in THINGS {
        let db = with(&[*thing]).await;
        for ((_, plan), allowed) in PLANS.iter().zip(&mut allowed) {
            let errors = errors(&db, plan).await;
            if errors.is_empty() {
                allowed.push(*thing);
            } else {
                assert!(is_named(&errors, thing.0), "{}: {errors:#?}", thing.0);
            }
        }
    }
    allowed
}

/// `PGSTRATA_ALLOWED` is the number of tables with random objects that each kind of job is tested on.
#[tokio::test]
async fn what_check_allows_succeeds() {
    let tries: u64 = std::env::var("PGSTRATA_ALLOWED").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    for ((kind, plan), allowed) in PLANS.into_iter().zip(allowed().await) {
        let names: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
        insta::assert_snapshot!(format!("allowed_for_{kind}"), names.join(" "));
        for seed in 0..tries {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut things = allowed.clone();
            things.shuffle(&mut rng);
            things.truncate(rng.random_range(1..=12).max(usize::from(seed == 0) * 12));
            let db = with(&things).await;
            let errors = errors(&db, plan).await;
            if errors.is_empty() {
                whole_job(&db, kind, plan, &things).await;
            } else {
                let named = things.iter().any(|(name, _)| is_named(&errors, name));
                assert!(named, "{kind} with {things:?}: {errors:#?}");
            }
        }
    }
}
