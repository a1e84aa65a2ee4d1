//! Further migrations of users, each with its plan in `plans/`, while applications write: tables that are partitioned,
//! constraints and indexes without a long lock, and a column that is renamed with a compatibility period.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::cluster::Database;
use crate::support::oracle;
use crate::support::process::Ran;
use crate::support::writers::Writers;

const FIXTURE: &str = include_str!("migrations.sql");
const RENAMED_COLUMN: &str = include_str!("../docs/renamed-column.md");
const WRITERS: u64 = 2;

async fn database() -> Database {
    let db = Database::new().await;
    db.execute(FIXTURE).await;
    db
}

fn plan(name: &str) -> String {
    format!("{}/plans/{name}.toml", env!("CARGO_MANIFEST_DIR"))
}

async fn run(db: &Database, name: &str) -> Ran {
    db.pgstrata(&["check", &plan(name)]).await.ok();
    db.pgstrata(&["run", &plan(name)]).await.ok()
}

/// A table, and what its applications write. In statements, `@` is the table and `$n` a number that no other writer
/// uses.
struct Written {
    table: &'static str,
    truth: &'static str,
    insert: &'static str,
    /// A change of the row with number `$n`, and its deletion.
    change: &'static str,
    delete: &'static str,
}

impl Written {
    /// Starts writers; each transaction makes the same changes to the table and to its truth table.
    async fn writers(&'static self, db: &Database) -> Writers {
        let mut writers = Writers::default();
        for writer in 0..WRITERS {
            let client = db.client().await;
            writers.add(|shift| async move {
                for turn in 0_u64.. {
                    self.transaction(&client, 1 + turn * WRITERS + writer).await;
                    shift.committed();
                    if !shift.is_open() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(4)).await;
                }
            });
        }
        writers
    }

    async fn transaction(&self, client: &Client, n: u64) {
        let Self { table, truth, insert, change, delete } = self;
        let sql = format!(
            "begin; with new as ({insert} returning *) insert into {truth} select * from new; \
             {}; {}; {}; {}; commit",
            change.replace('@', table),
            change.replace('@', truth),
            delete.replace('@', table),
            delete.replace('@', truth)
        );
        let sql = sql.replace('@', table).replace("$n", &n.to_string());
        client.batch_execute(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// Runs the whole job, with a rollback, under writers. `swapped` asserts what holds while the table is partitioned.
    async fn migrate(&'static self, db: &Database, job: &str, swapped: impl AsyncFn()) {
        let writers = self.writers(db).await;
        writers.commit_more(20).await;
        run(db, job).await;
        for command in ["swap", "rollback", "swap"] {
            writers.commit_more(20).await;
            db.pgstrata(&[command, job]).await.ok();
            writers.commit_more(20).await;
            oracle::compare(db, self.table, self.truth).await;
            if command == "swap" {
                swapped().await;
            }
        }
        db.pgstrata(&["verify", job]).await.ok();
        let kept = db.pgstrata(&["finalize", job]).await.exits(6);
        assert!(kept.stderr.contains("the old table is kept until"), "{kept:?}");
        db.pgstrata(&["finalize", job, "--now"]).await.ok();
        writers.commit_more(20).await;
        writers.stop().await;
        oracle::compare(db, self.table, self.truth).await;
        swapped().await;
    }
}

/// The rows of a query with one text column.
async fn texts(db: &Database, sql: &str) -> Vec<String> {
    db.client().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn partitions(db: &Database, table: &str) -> Vec<String> {
    let sql = format!(
        "select relname::text from pg_inherits join pg_class c on c.oid = inhrelid where inhparent = '{table}'::regclass order by 1"
    );
    texts(db, &sql).await
}

static EMISSIONS: Written = Written {
    table: "emissions",
    truth: "truth_emissions",
    insert: "insert into @ (supplier_id, reporting_period, total_emissions) values ($n % 50, date '2024-01-01' + ($n * 17 % 1000)::integer, 1)",
    change: "update @ set reporting_period = reporting_period + 40, note = 'moved' where id = md5(($n * 7 % 5000)::text)::uuid and $n % 2 = 0",
    delete: "delete from @ where id = md5(($n * 11)::text)::uuid",
};

#[tokio::test]
async fn emissions_by_quarter() {
    let db = database().await;
    EMISSIONS
        .migrate(&db, "emissions", async || {
            let quarters = (2024..=2026).flat_map(|year| (1..=4).map(move |q| format!("emissions_{year}_q{q}")));
            let mut expected: Vec<String> = quarters.collect();
            expected.push("emissions_default".to_owned());
            assert_eq!(partitions(&db, "emissions").await, expected);
            let fourth = "select pg_get_expr(relpartbound, oid) from pg_class where relname = 'emissions_2024_q4'";
            assert_eq!(texts(&db, fourth).await, ["FOR VALUES FROM ('2024-10-01') TO ('2025-01-01')"]);
            let outside = "select count(*) from emissions_default where reporting_period >= '2024-01-01' and reporting_period < '2027-01-01'";
            assert_eq!(db.count(outside).await, 0);
        })
        .await;
}

static AUDIT_LOGS: Written = Written {
    table: "audit_logs",
    truth: "truth_audit_logs",
    insert: "insert into @ (actor, details) values ('writer', '{\"n\": $n}')",
    change: "update @ set details = '{\"seen\": true}' where id = $n * 7 % 5000 and $n % 2 = 0",
    delete: "delete from @ where id = $n * 11 and $n < 400",
};

#[tokio::test]
async fn audit_logs_by_month() {
    let db = database().await;
    AUDIT_LOGS
        .migrate(&db, "audit_logs", async || {
            let months = "select 'audit_logs_' || to_char(m, 'YYYY_MM') from generate_series(
                  (select date_trunc('month', min(created_at) at time zone 'UTC') from truth_audit_logs),
                  date_trunc('month', now() at time zone 'UTC') + interval '3 months', interval '1 month') m
                union all select 'audit_logs_default' order by 1";
            assert_eq!(partitions(&db, "audit_logs").await, texts(&db, months).await);
            assert_eq!(db.count("select count(*) from audit_logs_default").await, 0);
        })
        .await;
    db.pgstrata(&["maintain", "audit_logs"]).await.ok();
    oracle::compare(&db, "audit_logs", "truth_audit_logs").await;
}

static CLIMATE: Written = Written {
    table: "climate_measurements",
    truth: "truth_climate_measurements",
    insert: "insert into @ values (md5($n::text)::uuid, timestamptz '2025-06-01Z' + $n * interval '1 minute', 20, 50)
        on conflict (uuid, recorded_at) do update set temperature = excluded.temperature",
    change: "update @ set humidity = 42 where uuid = md5(($n % 40)::text)::uuid and recorded_at < '2025-01-04Z' and $n % 2 = 0",
    delete: "delete from @ where uuid = md5(($n % 40)::text)::uuid and recorded_at = timestamptz '2025-01-01Z' + $n * interval '1 hour'",
};

/// The key already contains the partition column. The same plan runs against two databases, and again.
#[tokio::test]
async fn climate_measurements_keep_their_key() {
    let key = "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'climate_measurements'::regclass and contype = 'p'";
    let (first, second) = (database().await, database().await);
    for db in [&first, &second] {
        CLIMATE
            .migrate(db, "climate_measurements", async || {
                assert_eq!(texts(db, key).await, ["PRIMARY KEY (uuid, recorded_at)"]);
                assert!(partitions(db, "climate_measurements").await.len() > 7);
            })
            .await;
        let again = db.pgstrata(&["run", &plan("climate_measurements")]).await.ok();
        assert!(again.stderr.contains("is done"), "{}", again.stderr);
        oracle::compare(db, CLIMATE.table, CLIMATE.truth).await;
    }
}

static MEASUREMENTS: Written = Written {
    table: "measurements",
    truth: "truth_measurements",
    insert: "insert into @ (asset_uuid, recorded_at, value) values (md5(($n % 40)::text)::uuid, now(), $n)",
    change: "update @ set value = value + 1 where id = $n * 7 % 5000 and $n % 2 = 0",
    delete: "delete from @ where id = $n * 11 and $n < 400",
};

#[tokio::test]
async fn measurements_with_an_index_by_asset() {
    let db = database().await;
    let indexed = |table: &str| {
        format!(
            "select count(*) from pg_index where indrelid = '{table}'::regclass and indisvalid
               and pg_get_indexdef(indexrelid) like '%(asset_uuid, recorded_at DESC)'"
        )
    };
    let writers = MEASUREMENTS.writers(&db).await;
    for _ in 0..2 {
        run(&db, "measurements_index").await;
        assert_eq!(db.count(&indexed("measurements")).await, 1);
    }
    writers.stop().await;
    db.execute("truncate truth_measurements; insert into truth_measurements select * from measurements")
        .await;
    db.execute("alter sequence measurements_id_seq restart 100000").await;
    MEASUREMENTS
        .migrate(&db, "measurements", async || {
            assert_eq!(db.count(&indexed("measurements")).await, 1);
            for partition in partitions(&db, "measurements").await {
                assert_eq!(db.count(&indexed(&partition)).await, 1, "{partition}");
            }
        })
        .await;
}

static ASSETS: Written = Written {
    table: "assets",
    truth: "truth_assets",
    insert: "insert into @ (name, site_name, installed_on) values ('new', 'site ' || 1 + $n % 20, date '2020-01-01' + ($n % 900)::integer)",
    change: "update @ set name = name || '!' where uuid = md5(($n * 7 % 4000)::text)::uuid and $n % 2 = 0",
    delete: "delete from @ where uuid = md5(($n * 11)::text)::uuid",
};

/// A column is added and filled; then the table is rebuilt by copy and swap, and the old one is dropped later.
#[tokio::test]
async fn assets_with_a_new_column() {
    let db = database().await;
    let client = db.client().await;
    let writing = async |turns: std::ops::Range<u64>| {
        for n in turns {
            ASSETS.transaction(&client, n).await;
        }
    };
    // The truth table has no site_uuid, so the writers send their statements between the steps of the backfill.
    writing(1..30).await;
    let truth = "alter table truth_assets add column site_uuid uuid";
    db.pgstrata(&["check", &plan("assets_site")]).await.ok();
    let ran = db.pgstrata(&["run", &plan("assets_site")]).await.ok();
    assert!(!ran.stderr.contains("error"), "{}", ran.stderr);
    db.execute(&format!(
        "{truth}; update truth_assets t set site_uuid = s.uuid from sites s where s.name = t.site_name"
    ))
    .await;
    oracle::compare(&db, "assets", "truth_assets").await;
    let wrong = "select count(*) from assets a left join sites s on s.name = a.site_name where a.site_uuid is distinct from s.uuid";
    assert_eq!(db.count(wrong).await, 0);
    assert!(
        db.count("select count(*) from assets where site_uuid is null").await > 0,
        "a site that does not exist"
    );
    ASSETS
        .migrate(&db, "assets", async || {
            assert!(partitions(&db, "assets").await.contains(&"assets_y2018".to_owned()));
            // The trigger that stays fills rows that an older version of the application writes.
            assert_eq!(db.count(wrong).await, 0);
        })
        .await;
    db.execute("alter table assets drop column site_name").await;
}

static PRICES: Written = Written {
    table: "\"Forecasts\".price_forecasts",
    truth: "truth_price_forecasts",
    insert: "insert into @ (\"CurveName\", \"DeliveryHour\", \"Price\") values ('Curve 1', timestamptz '2024-06-01Z' + $n * interval '1 hour', $n)",
    change: "update @ set \"Quality\" = 'Final' where \"PriceId\" = md5(($n * 7 % 5000)::text)::uuid and $n % 2 = 0",
    delete: "delete from @ where \"PriceId\" = md5(($n * 11)::text)::uuid",
};

#[tokio::test]
async fn price_forecasts_with_a_compatibility_view() {
    let db = database().await;
    PRICES
        .migrate(&db, "price_forecasts", async || {
            // In one snapshot: writers write.
            let differ = "select count(*) from (
                select curve_name, delivery_hour, price, is_final from \"Forecasts\".price_forecasts_compat
                except all select \"CurveName\", \"DeliveryHour\", \"Price\", \"Quality\" = 'Final' from truth_price_forecasts) x";
            assert_eq!(db.count(differ).await, 0);
            let reads = "select count(*) from pg_depend d join pg_rewrite w on w.oid = d.objid
                where w.ev_class = '\"Forecasts\".price_forecasts_compat'::regclass and d.refobjid = '\"Forecasts\".price_forecasts'::regclass";
            assert!(db.count(reads).await > 0, "the view reads another table");
            let bound = "select pg_get_expr(relpartbound, oid) from pg_class where relname = 'price_forecasts_y2024m06'";
            assert!(texts(&db, bound).await[0].contains("2024-05-31 22:00:00+00"), "midnight in Berlin");
        })
        .await;
}

#[tokio::test]
async fn a_unique_constraint_a_check_and_an_index_are_added_to_suppliers() {
    let db = database().await;
    db.execute("update suppliers set email = 'mail1@example.com' where id = 2").await;
    let refused = db.pgstrata(&["run", &plan("suppliers_email")]).await;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(refused.stderr.contains("email"), "{}", refused.stderr);
    db.execute("update suppliers set email = 'mail2@example.com' where id = 2").await;
    let client = db.client().await;
    let mut writers = Writers::default();
    writers.add(|shift| async move {
        for n in 1_u64.. {
            let sql = format!(
                "insert into suppliers (name, email) values ('new', 'new{n}@example.com');
                 update suppliers set name = name || '!' where id = {n} % 3000 + 1"
            );
            client.batch_execute(&sql).await.unwrap();
            shift.committed();
            if !shift.is_open() {
                return;
            }
        }
    });
    writers.commit_more(20).await;
    for _ in 0..2 {
        run(&db, "suppliers_email").await;
    }
    writers.commit_more(20).await;
    writers.stop().await;
    let constraints =
        "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'suppliers'::regclass
        and convalidated and contype in ('c', 'u') order by 1";
    assert_eq!(texts(&db, constraints).await, ["CHECK ((email ~~ '%_@_%'::text))", "UNIQUE (email)"]);
    let index = "select count(*) from pg_index where indrelid = 'suppliers'::regclass and indisvalid
        and pg_get_indexdef(indexrelid) like '%(lower(name))'";
    assert_eq!(db.count(index).await, 1);
    let client = db.client().await;
    for (sql, expected) in [
        ("insert into suppliers (name, email) values ('x', 'mail7@example.com')", SqlState::UNIQUE_VIOLATION),
        ("insert into suppliers (name, email) values ('x', 'nobody')", SqlState::CHECK_VIOLATION),
    ] {
        assert_eq!(client.batch_execute(sql).await.unwrap_err().code(), Some(&expected), "{sql}");
    }
}

/// The SQL block of `docs/renamed-column.md` that begins with this comment.
fn documented(comment: &str) -> &'static str {
    let at = RENAMED_COLUMN.find(comment).unwrap_or_else(|| panic!("the document has no block `{comment}`"));
    RENAMED_COLUMN[at..].split("```").next().unwrap()
}

/// The versions of the application before and after the rename write at the same time, and each reads what the other
/// wrote.
#[tokio::test]
async fn a_column_is_renamed_with_a_compatibility_period() {
    let db = database().await;
    db.execute(documented("-- 1.")).await;
    let mut writers = Writers::default();
    let old = db.client().await;
    old.batch_execute("set search_path = app_v1, public").await.unwrap();
    writers.add(|shift| async move {
        for n in 1_u64.. {
            let sql = format!(
                "insert into suppliers (name) values ('old, default');
                 insert into suppliers (name, spend) values ('old, given', {n}), ('old, zero', 0);
                 update suppliers set spend = spend + 1 where id = {n} % 3000 + 1;
                 insert into suppliers (id, name, spend) values ({n} % 3000 + 1, 'old', 1)
                   on conflict (id) do update set spend = suppliers.spend + excluded.spend"
            );
            old.batch_execute(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            shift.committed();
            if !shift.is_open() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    writers.commit_more(20).await;
    db.execute(documented("-- 2.")).await;
    writers.commit_more(20).await;
    let new = db.client().await;
    new.batch_execute(
        "insert into suppliers (name) values ('new, default');
         insert into suppliers (name, spend_amount) values ('new, given', 7), ('new, zero', 0)",
    )
    .await
    .unwrap();
    writers.commit_more(20).await;
    let turns = writers.stop().await.cast_signed();
    // Each version reads what the other wrote; a default is a default, and a given value is that value.
    assert_eq!(db.count("select spend::bigint from app_v1.suppliers where name = 'new, given'").await, 7);
    assert_eq!(
        db.count("select sum(spend_amount)::bigint from suppliers where name = 'old, given'").await,
        turns * (turns + 1) / 2
    );
    let zero =
        "select count(*) from suppliers where name in ('old, default', 'old, zero') and spend_amount = 0";
    assert_eq!(db.count(zero).await, 2 * turns);
    assert_eq!(db.count("select sum(spend_amount)::bigint from suppliers where id <= 3000").await, 2 * turns);
    db.execute(documented("-- 3.")).await;
    assert_eq!(db.count("select count(*) from pg_namespace where nspname = 'app_v1'").await, 0);
}
