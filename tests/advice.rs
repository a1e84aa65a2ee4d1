//! `plan` proposes the partition column: for tables of many shapes, the written plan is accepted by `check`, or rejected only
//! for what a comment of the plan names.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::cluster::{Database, Version, on_every_version};

on_every_version! { every_shape_has_a_plan_that_check_accepts_or_that_names_what_is_missing }

/// A table, and what is expected of its plan.
struct AdvisedTable {
    table: &'static str,
    sql: &'static str,
    /// The proposed column; none if no column can be the partition column.
    by: Option<&'static str>,
    /// The errors that `check` reports about the written plan.
    errors: &'static [&'static str],
    /// What is given up, by code, on PostgreSQL 15 and later.
    gives_up: &'static [&'static str],
}

const SHAPES: [AdvisedTable; 16] = [
    AdvisedTable {
        table: "jobs",
        sql: "create table jobs (id bigserial primary key, queue text not null, payload jsonb, run_at timestamptz not null default now(), created_at timestamptz not null default now());
            create index on jobs (run_at);
            insert into jobs (queue, run_at, created_at) select 'q', t, t from generate_series(timestamptz '2024-01-01Z', timestamptz '2024-06-30Z', interval '1 hour') t",
        by: Some("id"),
        errors: &[],
        gives_up: &[],
    },
    AdvisedTable {
        table: "audit_log",
        sql: "create table audit_log (id bigserial primary key, actor int, action text, created_at timestamp default now());
            insert into audit_log (actor, action, created_at) select i, 'x', timestamp '2023-01-01' + i * interval '1 hour' from generate_series(1, 3000) i",
        by: Some("id"),
        errors: &[],
        gives_up: &[],
    },
    AdvisedTable {
        table: "entries",
        sql: "create table entries (id uuid primary key default gen_random_uuid(), action text, created_at timestamp default now());
            create index on entries (created_at);
            insert into entries (created_at) select timestamp '2023-01-01' + i * interval '1 hour' from generate_series(1, 3000) i;
            insert into entries (created_at) values (null), (null)",
        by: Some("created_at"),
        errors: &["null_in_partition_column"],
        gives_up: &["generated_key"],
    },
    AdvisedTable {
        table: "events",
        sql: "create table events (id bigserial primary key, external_id uuid not null default gen_random_uuid() unique, token text not null unique, kind int not null, created_at timestamptz not null default now());
            create index on events (created_at);
            insert into events (token, kind, created_at) select 't' || i, i % 7, timestamptz '2024-01-01Z' + i * interval '1 hour' from generate_series(1, 3000) i;
            create table event_a (event_id bigint references events on delete cascade);
            create table event_b (event_id bigint references events on delete set null);
            create table event_c (event_id bigint references events);
            create table event_d (external_id uuid references events (external_id));
            create table event_e (token text references events (token))",
        by: Some("id"),
        errors: &[],
        gives_up: &[],
    },
    AdvisedTable {
        table: "comments",
        sql: "create table comments (id serial primary key, parent_id int references comments, body text, created_at timestamptz not null default now());
            insert into comments (parent_id, created_at) select nullif(i / 2, 0), timestamptz '2024-01-01Z' + i * interval '1 hour' from generate_series(1, 3000) i",
        by: Some("id"),
        errors: &[],
        gives_up: &[],
    },
    AdvisedTable {
        table: "memberships",
        sql: "create table memberships (user_id int not null, group_id int not null, joined_at timestamptz not null default now());
            insert into memberships select i % 900, i % 500, timestamptz '2024-01-01Z' + i * interval '1 hour' from generate_series(1, 3000) i",
        by: Some("joined_at"),
        errors: &["no_usable_key"],
        gives_up: &[],
    },
    AdvisedTable {
        table: "statuses",
        sql: "create table statuses (id bigint primary key, account_id bigint not null, body text, created_at timestamptz not null);
            insert into statuses select (1000 * extract(epoch from t))::bigint << 16, 5, 'x', t from generate_series(timestamptz '2024-01-01Z', timestamptz '2024-06-30Z', interval '1 hour') t",
        by: Some("id"),
        errors: &[],
        gives_up: &[],
    },
    AdvisedTable {
        table: "sessions",
        sql: "create table sessions (id uuid primary key default gen_random_uuid(), token text not null unique, created_at timestamptz not null default now(), expires_at timestamptz not null, last_seen_at timestamptz not null default now());
            insert into sessions (token, created_at, expires_at) select 't' || i, timestamptz '2024-01-01Z' + i * interval '1 hour', timestamptz '2024-02-01Z' + (i * 7919 % 3000) * interval '1 hour' from generate_series(1, 3000) i",
        by: Some("created_at"),
        errors: &[],
        gives_up: &["generated_key"],
    },
    AdvisedTable {
        table: "versions",
        sql: "create table versions (item_type text not null, item_id int not null, version int not null, object jsonb, created_at timestamptz not null default now(), primary key (item_type, item_id, version));
            insert into versions select 'Post', i / 3, i % 3, '{}', timestamptz '2024-01-01Z' + i * interval '1 hour' from generate_series(1, 3000) i",
        by: Some("item_id"),
        errors: &[],
        gives_up: &[],
    },
    AdvisedTable {
        table: "settings",
        sql: "create table settings (key text primary key, value jsonb, updated_at timestamptz not null default now());
            insert into settings select 'k' || i, '{}', timestamptz '2024-01-01Z' + (i * 37 % 900) * interval '1 hour' from generate_series(1, 900) i",
        by: Some("updated_at"),
        errors: &[],
        gives_up: &["natural_key"],
    },
    AdvisedTable {
        table: "readings",
        sql: "create table readings (ts timestamptz not null, sensor int not null, value double precision);
            insert into readings select t, s, 1 from generate_series(timestamptz '2024-01-01Z', timestamptz '2024-02-28Z', interval '1 hour') t, generate_series(1, 4) s",
        by: Some("ts"),
        errors: &["no_usable_key"],
        gives_up: &[],
    },
    AdvisedTable {
        table: "sales",
        sql: "create table sales (day date not null, store text not null, amount numeric, primary key (store, day));
            insert into sales select d, 's' || s, 1 from generate_series(date '2020-01-01', date '2024-03-30', interval '1 day') d, generate_series(1, 4) s",
        by: Some("day"),
        errors: &[],
        gives_up: &[],
    },
    AdvisedTable {
        table: "clicks",
        sql: "create table clicks (id uuid primary key default gen_random_uuid(), url text, ts integer not null);
            insert into clicks (url, ts) select 'u', 1700000000 + i * 600 from generate_series(1, 3000) i",
        by: Some("ts"),
        errors: &[],
        gives_up: &["generated_key"],
    },
    AdvisedTable {
        table: "rooms",
        sql: "create extension if not exists btree_gist;
            create table rooms (id bigserial primary key, room int not null, during tstzrange not null, exclude using gist (room with =, during with &&));
            insert into rooms (room, during) select i % 10, tstzrange(timestamptz '2024-01-01Z' + i * interval '1 hour', timestamptz '2024-01-01Z' + i * interval '61 min') from generate_series(1, 300) i",
        by: Some("id"),
        errors: &["exclusion_constraint"],
        gives_up: &["unique"],
    },
    AdvisedTable {
        table: "tags",
        sql: "create table tags (name text primary key, id uuid unique); insert into tags select 't' || i from generate_series(1, 300) i",
        by: None,
        errors: &[],
        gives_up: &[],
    },
    AdvisedTable {
        table: "\"Odd \"\"Table\"",
        sql: "create table \"Odd \"\"Table\" (\"I d\" bigserial primary key, \"E mail\" text unique, \"A t\" timestamptz);
            insert into \"Odd \"\"Table\" (\"E mail\", \"A t\") select 'e' || i, timestamptz '2024-01-01Z' + i * interval '1 hour' from generate_series(1, 300) i",
        by: Some("\"I d\""),
        errors: &[],
        gives_up: &[],
    },
];

/// The codes of the findings with that level.
fn codes(result: &Value, level: &str) -> BTreeSet<String> {
    let findings = result["findings"].as_array().unwrap().iter();
    let of_level = findings.filter(|finding| finding["level"] == level);
    of_level.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

async fn every_shape_has_a_plan_that_check_accepts_or_that_names_what_is_missing(version: Version) {
    let db = Database::of(version).await;
    for shape in &SHAPES {
        db.execute(shape.sql).await;
    }
    db.execute("analyze").await;
    for AdvisedTable { table, by, errors, gives_up, .. } in &SHAPES {
        let file = db.plan("");
        let path = file.to_str().unwrap();
        let planned = db.pgstrata(&["plan", table, "-o", path, "--json"]).await.ok().stdout;
        let planned: Value = serde_json::from_str(&planned).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(planned["plan"], text.as_str());
        // Before PostgreSQL 15, a foreign key cannot reference the key of a partitioned table, only a key table.
        let keeps_more = version == Version::V14 && ["events", "comments"].contains(table);
        let by = if keeps_more { Some("created_at") } else { *by };
        assert_eq!(planned["by"].as_str(), by, "{table}");
        assert!(text.lines().all(|line| line.len() < 130 || line.contains("    alter")), "{text}");
        let ran = db.pgstrata(&["check", path, "--json"]).await;
        if by.is_none() {
            assert!(ran.exits(2).stderr.contains("partition.by "));
            assert!(text.contains("# by    = \"COLUMN\""), "{text}");
            continue;
        }
        let checked: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
        let expected: BTreeSet<String> = errors
            .iter()
            .map(|code| (*code).to_owned())
            // Before PostgreSQL 17, and by another column, an exclusion constraint cannot be kept.
            .collect();
        assert_eq!(codes(&checked, "error"), expected, "{table}: {text}");
        // Whatever `check` reports is a comment of the plan, and nothing else is.
        for level in ["error", "warning"] {
            let codes = codes(&checked, level);
            assert_eq!(codes, self::codes(&planned, level), "{table}: {text}");
            assert!(codes.iter().all(|code| text.contains(&format!("# {level}[{code}]: "))), "{text}");
        }
        if version != Version::V14 {
            let choice =
                planned["choices"].as_array().unwrap().iter().find(|one| one["column"] == planned["by"]);
            let lost = choice.unwrap()["gives_up"].as_array().unwrap().iter().map(|point| &point["code"]);
            assert_eq!(lost.collect::<Vec<_>>(), *gives_up, "{table}");
        }
    }
}

#[tokio::test]
async fn plan_reads_no_large_table_as_a_whole() {
    let db = Database::new().await;
    db.execute(
        "create table events (id uuid primary key, at timestamptz, seq bigint not null, filler text) with (autovacuum_enabled = off);
         insert into events select gen_random_uuid(), timestamptz '2024-01-01Z' + i * interval '1 minute', i, repeat('x', 1800) from generate_series(1, 60000) i;
         update events set at = null where seq > 50000; analyze events",
    )
    .await;
    // The counters of a session are complete when it has ended.
    let others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    db.until(others, 0).await;
    db.execute("select pg_stat_reset()").await;
    let printed = db.pgstrata(&["plan", "events", "--json"]).await.ok().stdout;
    let planned: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(planned["by"], "seq");
    db.until(others, 0).await;
    let read =
        "select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables where relname = 'events'";
    let rows = db.count(read).await;
    assert!(rows < 5000, "{rows} rows were read");
    let asked = db.pgstrata(&["plan", "events", "--by", "at", "--json"]).await.ok().stdout;
    let asked: Value = serde_json::from_str(&asked).unwrap();
    let nulls = asked["findings"][0]["message"].as_str().unwrap();
    // Estimated from the statistics, which ANALYZE computes from a random sample.
    assert!(nulls.starts_with("about ") && nulls.contains(" rows contain NULL "), "{nulls}");
}

#[tokio::test]
async fn the_advice_is_printed_when_the_plan_goes_to_a_file() {
    let db = Database::new().await;
    db.execute(
        "create table t (id bigserial primary key, created_at timestamptz not null default now()); analyze t",
    )
    .await;
    let file = db.plan("");
    let path = file.to_str().unwrap();
    let printed = db.pgstrata(&["plan", "t", "-o", path]).await.ok().stdout;
    assert!(printed.starts_with("proposal: partition by id (bigint)"), "{printed}");
    assert!(printed.contains("\n> id ") && printed.contains("\n  created_at "), "{printed}");
    let asked = db.pgstrata(&["plan", "t", "--by", "created_at", "-o", path]).await.ok().stdout;
    assert!(
        asked.starts_with("as requested: partition by created_at") && asked.contains("\n> created_at "),
        "{asked}"
    );
    assert_eq!(db.pgstrata(&["plan", "t", "-o", path, "--quiet"]).await.ok().stdout, "");
    db.pgstrata(&["check", path]).await.ok();
}
