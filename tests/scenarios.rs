//! The partitioning plans in `plans/`, run while applications write, and checked with the criteria of their users.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pgstrata::plan::Plan;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::cluster::{Database, connect};
use crate::support::oracle;
use crate::support::tables::random_instant;
use crate::support::writers::{Shift, Writers};

const FIXTURE: &str = include_str!("scenarios.sql");
const ROWS: i64 = 100_000;
const WRITERS: u64 = 3;

fn plans() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plans")
}

#[test]
fn every_plan_in_plans_is_valid() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(plans()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let plan = Plan::parse(&text, &name).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(plan.name(), name, "the file of a plan has the name of the job");
        assert!(text.starts_with("# "), "{name} begins with a comment about its purpose");
        names.push(name);
    }
    names.sort();
    let expected = [
        "assets",
        "assets_site",
        "audit_logs",
        "climate_measurements",
        "compliance_historical_snapshot",
        "emissions",
        "emissions_status",
        "final_supply_equipment_dates",
        "fse_compliance_reporting",
        "gasifier_observations",
        "measurements",
        "measurements_index",
        "orders_id_bigint",
        "petri_observations",
        "price_forecast_curve",
        "price_forecasts",
        "suppliers_carbon_intensity",
        "suppliers_email",
    ];
    assert_eq!(names, expected);
}

/// Starts the field workers of a table: each transaction writes to the table and to its truth copy, and reads the table
/// through the view.
async fn field_workers(db: &Database, table: &'static str, code: &'static str) -> Writers {
    let mut writers = Writers::default();
    for n in 0..WRITERS {
        let client = db.connect_as("field").await;
        let theirs = format!(
            "select observation_id from truth_{table} order by observation_id offset {} limit 300",
            n * 300
        );
        let owned = ids(&client, &theirs).await;
        let worker = FieldWorker { client, table, code, owned, rng: StdRng::seed_from_u64(n) };
        writers.add(|shift| worker.work(shift));
    }
    writers
}

struct FieldWorker {
    client: Client,
    table: &'static str,
    code: &'static str,
    /// Observations that no other worker changes.
    owned: Vec<String>,
    rng: StdRng,
}

impl FieldWorker {
    async fn work(mut self, shift: Shift) {
        while shift.is_open() {
            self.client.batch_execute("begin").await.unwrap();
            for _ in 0..self.rng.random_range(1..=3) {
                self.step().await;
            }
            self.read_view().await;
            self.client.batch_execute("commit").await.unwrap();
            shift.committed();
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..10))).await;
        }
    }

    async fn step(&mut self) {
        let (table, code) = (self.table, self.code);
        let at = random_instant(&mut self.rng);
        let index = self.rng.random_range(0..self.owned.len());
        let id = self.owned[index].clone();
        match self.rng.random_range(0..10) {
            0..=3 => {
                let sql = format!(
                    "with new as (
                        insert into {table} (submission_id, site_id, {code}, note, created_at)
                        select submission_id, site_id, 'new', 'now', '{at}' from submissions order by random() limit 2
                        returning *)
                     insert into truth_{table} select * from new returning observation_id"
                );
                self.owned.extend(ids(&self.client, &sql).await);
            }
            4 => {
                // Without a value for created_at, the row belongs to today, in the default partition.
                let sql = format!(
                    "with new as (
                        insert into {table} (submission_id, site_id, {code})
                        select submission_id, site_id, 'today' from submissions order by random() limit 1 returning *)
                     insert into truth_{table} select * from new returning observation_id"
                );
                self.owned.extend(ids(&self.client, &sql).await);
            }
            5..=7 => self.on_both(&id, "update @ set note = note || '!', updated_at = now()").await,
            8 => self.on_both(&id, &format!("update @ set created_at = '{at}'")).await,
            _ => {
                self.on_both(&id, "delete from @").await;
                self.owned.swap_remove(index);
            }
        }
    }

    async fn on_both(&self, id: &str, sql: &str) {
        for table in [self.table.to_owned(), format!("truth_{}", self.table)] {
            let sql = format!("{} where observation_id = '{id}'", sql.replace('@', &table));
            let changed = self.client.execute(&sql, &[]).await.unwrap();
            assert_eq!(changed, 1, "lost: {sql}");
        }
    }

    /// Asserts that the view contains what the transaction wrote, whichever table the view reads.
    async fn read_view(&self) {
        let Some(id) = self.owned.last() else { return };
        let sql = format!(
            "select v.observation_id from {0}_with_names v join truth_{0} t using (observation_id)
             where v.observation_id = '{id}' and v.note is not distinct from t.note and v.created_at = t.created_at",
            self.table
        );
        assert_eq!(ids(&self.client, &sql).await, [id.as_str()], "lost: {sql}");
    }
}

/// The first column, as text.
async fn ids(client: &Client, sql: &str) -> Vec<String> {
    let answer = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let first = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
        _ => None,
    };
    answer.iter().filter_map(first).collect()
}

/// One of the two tables, with its dependent objects.
struct Observations {
    table: &'static str,
    code: &'static str,
    views: &'static [&'static str],
}

const PETRI: Observations = Observations {
    table: "petri_observations",
    code: "petri_code",
    views: &["petri_observations_summary", "petri_observations_with_names"],
};
const GASIFIER: Observations = Observations {
    table: "gasifier_observations",
    code: "gasifier_code",
    views: &["gasifier_observations_with_names"],
};

impl Observations {
    fn plan(&self) -> String {
        plans().join(self.table).with_extension("toml").to_str().unwrap().to_owned()
    }

    /// Asserts what must hold before and after a swap: no row is lost, and views, foreign keys and policies are in
    /// force.
    async fn holds(&self, db: &Database) {
        let table = self.table;
        oracle::compare(db, table, &format!("truth_{table}")).await;
        // The check of the users: counts, and keys that are in only one of the tables. One statement, so that it has
        // one snapshot.
        let missing = format!(
            "select (select count(*) from {table} full join truth_{table} t using (observation_id)
                     where {table}.submission_id is null or t.submission_id is null)
                  + abs((select count(*) from {table}) - (select count(*) from truth_{table}))
                  + (select count(*) - count(distinct observation_id) from {table})"
        );
        assert_eq!(db.count(&missing).await, 0);
        let client = db.client().await;
        let views = format!(
            "select distinct w.ev_class::regclass::text from pg_depend d join pg_rewrite w on w.oid = d.objid
             where d.classid = 'pg_rewrite'::regclass and d.refobjid = '{table}'::regclass order by 1"
        );
        assert_eq!(ids(&client, &views).await, self.views);
        let keys = format!(
            "select conname || ' ' || convalidated || ' ' || pg_get_constraintdef(oid) from pg_constraint
             where conrelid = '{table}'::regclass and contype = 'f' order by 1"
        );
        let expected = [
            format!("{table}_site_id_fkey true FOREIGN KEY (site_id) REFERENCES sites(site_id)"),
            format!(
                "{table}_submission_id_fkey true FOREIGN KEY (submission_id) REFERENCES submissions(submission_id) \
                 ON DELETE CASCADE"
            ),
        ];
        assert_eq!(ids(&client, &keys).await, expected);
        self.foreign_keys_are_in_force(&client).await;
        self.policies_hold(db).await;
    }

    /// Asserts that the foreign keys are in force, in a transaction that is rolled back.
    async fn foreign_keys_are_in_force(&self, client: &Client) {
        let (table, code) = (self.table, self.code);
        let orphan = format!(
            "insert into {table} (submission_id, site_id, {code})
             values (gen_random_uuid(), (select min(site_id::text)::uuid from sites), 'orphan')"
        );
        let error = client.batch_execute(&orphan).await.expect_err("an orphan was inserted");
        assert_eq!(error.code(), Some(&SqlState::FOREIGN_KEY_VIOLATION), "{error:?}");
        let cascaded = format!(
            "begin;
             create temporary table gone as select submission_id from submissions order by created_at desc limit 1;
             insert into {table} (submission_id, site_id, {code}, created_at)
               select submission_id, site_id, 'child', '2024-05-05Z' from submissions join gone using (submission_id);
             delete from submissions where submission_id in (select submission_id from gone);
             select count(*) from {table} where submission_id in (select submission_id from gone);
             rollback"
        );
        assert_eq!(ids(client, &cascaded).await, ["0"], "on delete cascade");
    }

    /// Asserts that a role without a policy sees no row in the table, and cannot read the partitions.
    async fn policies_hold(&self, db: &Database) {
        let client = connect(&db.dsn().replace("user=postgres", "user=stranger")).await;
        assert_eq!(ids(&client, &format!("select count(*) from {}", self.table)).await, ["0"]);
        let open = format!(
            "select inhrelid::regclass from pg_inherits
             where inhparent = '{}'::regclass and has_table_privilege('stranger', inhrelid, 'select')",
            self.table
        );
        assert_eq!(ids(&client, &open).await, [""; 0]);
    }

    /// Asserts the properties of the partitioned table: partitions, pruning and fresh statistics.
    async fn is_partitioned(&self, db: &Database) {
        let table = self.table;
        let client = db.client().await;
        let parts = format!(
            "select inhrelid::regclass::text from pg_inherits where inhparent = '{table}'::regclass order by 1"
        );
        let mut expected: Vec<String> = vec![format!("{table}_default")];
        for year in [2024, 2025] {
            expected.extend((1..=12).map(|month| format!("{table}_y{year}m{month:02}")));
        }
        assert_eq!(ids(&client, &parts).await, expected);
        let march = format!(
            "explain (costs off) select count(*) from {table}
             where created_at >= '2024-03-01Z' and created_at < '2024-04-01Z' and note is null"
        );
        let plan = ids(&client, &march).await.join("\n");
        assert!(plan.contains(&format!("{table}_y2024m03")), "{plan}");
        assert_eq!(plan.matches("_y202").count(), 1, "no pruning: {plan}");
        assert!(!plan.contains("_default"), "no pruning: {plan}");
        // Every month has about 4,000 rows; writers add few.
        let stale = format!(
            "select inhrelid::regclass from pg_inherits join pg_class c on c.oid = inhrelid
             where inhparent = '{table}'::regclass and relname like '%\\_y%' and reltuples not between 3500 and 8000"
        );
        assert_eq!(ids(&client, &stale).await, [""; 0], "partitions without fresh statistics");
        let columns = format!("select count(*) from pg_stats where tablename = '{table}' and inherited");
        assert_eq!(db.count(&columns).await, 8, "columns with statistics of the partitioned table");
    }
}

/// Runs a command for both tables, one after the other.
async fn for_both(db: &Database, command: &[&str]) {
    for observations in [&PETRI, &GASIFIER] {
        db.pgstrata(&[command, &[observations.table]].concat()).await.ok();
    }
}

#[tokio::test]
async fn petri_and_gasifier_observations() {
    let db = Database::new().await;
    db.execute(FIXTURE).await;
    // The default of PostgreSQL; the test servers have a lower value.
    db.execute(&format!("alter database {} set deadlock_timeout = '1s'", name_of(&db).await)).await;
    let both = [&PETRI, &GASIFIER];
    for observations in both {
        assert_eq!(db.count(&format!("select count(*) from {}", observations.table)).await, ROWS);
    }
    let mut workers_of_tables = Vec::new();
    for observations in both {
        workers_of_tables.push(field_workers(&db, observations.table, observations.code).await);
    }
    let more = async || {
        for workers in &workers_of_tables {
            workers.commit_more(30).await;
        }
    };
    more().await;
    let (petri, gasifier) = (PETRI.plan(), GASIFIER.plan());
    let run = async |plan: &str| db.pgstrata(&["run", plan]).await.ok();
    // Two jobs in one database, at the same time.
    tokio::join!(run(&petri), run(&gasifier));
    more().await;
    for command in ["swap", "rollback", "swap"] {
        for_both(&db, &[command]).await;
        more().await;
        for observations in both {
            observations.holds(&db).await;
            if command == "swap" {
                observations.is_partitioned(&db).await;
            }
        }
    }
    for observations in both {
        let kept = db.pgstrata(&["finalize", observations.table]).await.exits(6);
        assert!(kept.stderr.contains("the old table is kept until"), "{kept:?}");
    }
    for_both(&db, &["verify"]).await;
    for_both(&db, &["finalize", "--now"]).await;
    more().await;
    for workers in workers_of_tables {
        workers.stop().await;
    }
    for observations in both {
        observations.holds(&db).await;
        observations.is_partitioned(&db).await;
    }
    let left = "select count(*) from pg_class where relname like '%\\_old%' or relname like '%\\_new'
        or relname like 'changes\\_%' or relname like 'truncations\\_%'";
    assert_eq!(db.count(left).await, 0);
}

async fn name_of(db: &Database) -> String {
    ids(&db.client().await, "select current_database()").await.remove(0)
}
