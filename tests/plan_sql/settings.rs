//! Casts use the settings of the database, both in the job and in the trigger, whatever the settings of a writer's
//! session are.

use std::path::Path;

use super::{backfill, database, none, ran, retype};
use crate::support::checks::errors;
use crate::support::cluster::{Database, connect};

const MOMENTS: &str =
    "create table t (id serial primary key, created_at timestamptz not null, day date, label text, spent text);
    insert into t (created_at) select timestamptz '2025-03-01 20:00Z' + i * interval '17 minutes' from generate_series(1, 1500) i;
    analyze t";

/// Existing rows, and rows that an application writes in a session with other settings.
#[tokio::test]
async fn old_and_new_rows_are_interpreted_in_the_same_way() {
    let settings = ["timezone = 'Asia/Tokyo'", "datestyle = 'SQL, DMY'", "intervalstyle = 'iso_8601'"];
    let db = database(&settings, MOMENTS).await;
    let plan = backfill(
        &db,
        "table = 't'\n[backfill]\nset = { day = 't.created_at::date', label = 't.created_at::text', spent = \"(t.id * interval '1 min')::text\" }
keep_filled = 'always'\n",
    );
    let output = ran(&db, "check", &plan).await.ok();
    assert!(
        output.stdout.contains(
            "the plan's SQL runs with TimeZone Asia/Tokyo, DateStyle SQL, DMY, IntervalStyle iso_8601, and the functions that it calls with search_path public, pg_temp, also in the trigger"
        ),
        "{output:?}"
    );
    ran(&db, "run", &plan).await.ok();
    db.execute(
        "set timezone = 'America/New_York'; set datestyle = 'ISO, MDY'; set intervalstyle = 'sql_standard';
         insert into t (created_at) values ('2025-03-01 20:00Z')",
    )
    .await;
    none(
        &db,
        "select count(*) from t where day is distinct from (created_at at time zone 'Asia/Tokyo')::date
            or label is distinct from to_char(created_at at time zone 'Asia/Tokyo', 'DD/MM/YYYY HH24:MI:SS \"JST\"')
            or spent not like 'PT%'",
    )
    .await;
}

/// Settings of the locale and of text search change values, too.
#[tokio::test]
async fn the_locale_and_the_text_search_configuration_are_those_of_the_job() {
    let db = database(
        &[
            "lc_numeric = 'C'",
            "lc_time = 'C'",
            "lc_monetary = 'C'",
            "default_text_search_config = 'pg_catalog.english'",
        ],
        "create table t (id serial primary key, name text default 'running', label text, words text);
         insert into t (id) select generate_series(1, 500); select setval('t_id_seq', 500); analyze t",
    )
    .await;
    let plan = backfill(
        &db,
        "table = 't'\n[backfill]\nset = { label = \"concat_ws(' ', current_setting('lc_numeric'), current_setting('lc_time'), \
         current_setting('lc_monetary'))\", words = 'to_tsvector(t.name)::text' }\nkeep_filled = 'always'\n",
    );
    ran(&db, "run", &plan).await.ok();
    db.execute(
        "set lc_numeric = 'C.UTF-8'; set lc_time = 'C.UTF-8'; set lc_monetary = 'C.UTF-8';
         set default_text_search_config = 'pg_catalog.simple'; insert into t default values",
    )
    .await;
    none(&db, "select count(*) from t where label is distinct from 'C C C' or words not like '%run''%'")
        .await;
}

/// Keys are read as text under the settings of the plan, and are sent back as text.
#[tokio::test]
async fn keys_survive_the_settings_of_the_plan() {
    for (kind, value) in [
        ("date", "date '2024-01-01' + i"),
        ("timestamptz", "timestamptz '2024-10-26 20:00Z' + i * interval '3 minutes'"),
    ] {
        let setup = format!(
            "create table t (id {kind} primary key, n int);
             insert into t select {value} from generate_series(1, 3000) i; analyze t"
        );
        let db = database(&["timezone = 'Europe/Berlin'", "datestyle = 'German, DMY'"], &setup).await;
        // Locked rows are filled one by one, with their keys as text.
        let client = db.client().await;
        client.batch_execute("begin; select from t where n is null limit 40 for update").await.unwrap();
        let plan = backfill(&db, "table = 't'\n[backfill]\nset = { n = '1' }\n");
        let run = db.command(&["run", plan.to_str().unwrap()]).spawn().unwrap();
        crate::support::wait::until("most rows are filled", async || {
            db.count("select count(*) from t where n = 1").await >= 2_900
        })
        .await;
        client.batch_execute("commit").await.unwrap();
        crate::support::process::ended(run).await.ok();
        none(&db, "select count(*) from t where n is null").await;
    }
}

#[tokio::test]
async fn a_retype_casts_as_alter_table_does() {
    let cases = [
        ("datestyle = 'SQL, DMY'", "text", "'03/02/04'", "date", "a <> date '2004-02-03'"),
        (
            "timezone = 'Europe/Berlin'",
            "timestamp",
            "'2024-07-01 12:00'",
            "timestamptz",
            "a <> '2024-07-01 10:00Z'",
        ),
    ];
    for (setting, from, value, to, wrong) in cases {
        let setup = format!(
            "create table t (id int primary key, a {from} not null);
             insert into t select i, {value} from generate_series(1, 1500) i; analyze t"
        );
        let db = database(&[setting], &setup).await;
        let plan = retype(&db, &format!("table = 't'\n[retype]\ncolumn = 'a'\nto = '{to}'\n"));
        ran(&db, "run", &plan).await.ok();
        let writer = format!(
            "set timezone = 'Asia/Tokyo'; set datestyle = 'ISO, YMD'; insert into t values (-1, {value})"
        );
        db.execute(&writer).await;
        db.pgstrata(&["swap", "job"]).await.ok();
        none(&db, &format!("select count(*) from t where {wrong}")).await;
        db.pgstrata(&["rollback", "job"]).await.ok();
        none(&db, &format!("select count(*) from t where a <> {value}")).await;
        db.pgstrata(&["swap", "job"]).await.ok();
        db.pgstrata(&["finalize", "job", "--now"]).await.ok();
        none(&db, &format!("select count(*) from t where {wrong}")).await;
    }
}

/// The settings of the plan override those of the database.
#[tokio::test]
async fn settings_of_the_plan() {
    let db = database(&["timezone = 'Asia/Tokyo'"], MOMENTS).await;
    let plan = backfill(
        &db,
        "table = 't'\n[backfill]\nset = { day = 't.created_at::date' }\nsettings = { timezone = 'America/New_York' }\n",
    );
    ran(&db, "run", &plan).await.ok();
    none(&db, "select count(*) from t where day <> (created_at at time zone 'America/New_York')::date").await;
    let wrong = backfill(
        &db,
        "table = 't'\n[backfill]\nset = { day = 't.created_at::date' }\nsettings = { timezone = 'Mars/Olympus' }\n",
    );
    let output = ran(&db, "check", &wrong).await.exits(3);
    assert_eq!(errors(&output.stdout), ["error[sql_refused]: public.t"]);
}

/// The note of `check` about the settings of the plan's SQL.
async fn settings_note(db: &Database, plan: &Path) -> Option<String> {
    let output = ran(db, "check", plan).await.ok();
    output.stdout.lines().find(|line| line.starts_with("note[plan_settings]")).map(str::to_owned)
}

/// Settings of the job's role, in all databases or in one, are those of its sessions.
#[tokio::test]
async fn settings_of_the_role() {
    let role = format!("settings_{}", std::process::id());
    let mut db = database(&["timezone = 'Europe/Berlin'"], MOMENTS).await;
    db.execute(&format!(
        "create role {role} login; alter table t add a text not null default '03/02/04'; alter table t owner to {role};
         grant create on schema public to {role};
         do $$ begin execute format('grant create, temporary on database %I to {role}', current_database()); end $$"
    ))
    .await;
    let superuser = db.dsn().to_owned();
    let fill = db.plan(
        "name = 'a'\nkind = 'backfill'\ntable = 't'\n[backfill]\nset = { day = 't.created_at::date', label = 't.created_at::text' }\nkeep_filled = 'always'\n",
    );
    let change =
        db.plan("name = 'change'\nkind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'a'\nto = 'date'\n");
    db.log_in_as(&role);
    assert!(
        settings_note(&db, &fill).await.unwrap().contains("with TimeZone Europe/Berlin, DateStyle ISO, MDY,")
    );
    let admin = connect(&superuser).await;
    admin
        .batch_execute(&format!(
            "alter role {role} set timezone = 'Asia/Tokyo'; alter role {role} set datestyle = 'ISO, MDY';
             alter role {role} in database {} set datestyle = 'SQL, DMY'",
            db.name()
        ))
        .await
        .unwrap();
    for plan in [&fill, &change] {
        let note = settings_note(&db, plan).await.unwrap();
        assert!(note.contains("with TimeZone Asia/Tokyo, DateStyle SQL, DMY,"), "{note}");
    }
    // The default settings of PostgreSQL are reported as well.
    let plain = "table = 't'\n[backfill]\nset = { day = 't.created_at::date' }\n\
        settings = { timezone = 'UTC', datestyle = 'ISO, MDY', intervalstyle = 'postgres' }\n";
    let note = settings_note(&db, &backfill(&db, plain)).await.unwrap();
    assert!(note.contains("with TimeZone UTC, DateStyle ISO, MDY, IntervalStyle postgres"), "{note}");
    ran(&db, "run", &fill).await.ok();
    ran(&db, "run", &change).await.ok();
    // A writer has the settings of its own role.
    admin.batch_execute("insert into t (created_at) values ('2025-03-01 20:00Z')").await.unwrap();
    none(
        &db,
        "select count(*) from t where day is distinct from (created_at at time zone 'Asia/Tokyo')::date
            or label is distinct from to_char(created_at at time zone 'Asia/Tokyo', 'DD/MM/YYYY HH24:MI:SS \"JST\"')",
    )
    .await;
    db.pgstrata(&["swap", "change"]).await.ok();
    admin
        .batch_execute("insert into t (created_at, a) values ('2025-03-01 20:00Z', '2004-02-03')")
        .await
        .unwrap();
    none(&db, "select count(*) from t where a <> date '2004-02-03'").await;
    db.pgstrata(&["rollback", "change"]).await.ok();
    none(&db, "select count(*) from t where a <> '03/02/2004' and a <> '03/02/04'").await;
    drop(admin);
    let admin = connect(&superuser).await;
    admin
        .batch_execute(&format!(
            "drop schema pgstrata cascade; alter role {role} in database {} reset all; drop owned by {role} cascade; drop role {role}",
            db.name()
        ))
        .await
        .unwrap();
}
