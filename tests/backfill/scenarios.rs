//! The example backfills in `plans/`, run while applications write. They are checked with the criteria of their users:
//! counts before and after, no invented values, old rows unchanged.

use std::path::Path;
use std::time::Duration;

use super::LEFT_BEHIND;
use crate::support::cluster::Database;
use crate::support::process::Ran;
use crate::support::writers::Writers;

const FIXTURE: &str = include_str!("scenarios.sql");

async fn database() -> Database {
    let db = Database::new().await;
    db.execute(FIXTURE).await;
    db
}

/// Checks and runs a plan in `plans/`.
async fn run(db: &Database, name: &str) -> Ran {
    let plan = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans").join(name).with_extension("toml");
    let plan = plan.to_str().unwrap();
    db.pgstrata(&["check", plan]).await.ok();
    db.pgstrata(&["run", plan]).await.ok()
}

/// Once no application writes any more, another run fills the rows left by the first, and a third run has nothing to
/// do.
async fn settled(db: &Database, name: &str) {
    run(db, name).await;
    let again = run(db, name).await;
    assert!(again.stderr.contains("is done: no row of"), "{}", again.stderr);
    none(db, "select count(*) from pgstrata.chunks").await;
}

/// Starts a writer that repeatedly sends statements, with a number for `$n`; each must succeed.
async fn sending(db: &Database, sql: &'static str) -> Writers {
    let client = db.client().await;
    let mut writers = Writers::default();
    writers.add(|shift| async move {
        for n in 1_u64.. {
            let sql = sql.replace("$n", &n.to_string());
            client.batch_execute(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
            shift.committed();
            if !shift.is_open() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    writers.commit_more(20).await;
    writers
}

/// Stops the writer after its current statements; returns how often it sent them.
async fn stopped(writer: Writers) -> i64 {
    writer.stop().await.cast_signed()
}

async fn none(db: &Database, sql: &str) {
    assert_eq!(db.count(sql).await, 0, "{sql}");
}

#[tokio::test]
async fn suppliers_carbon_intensity() {
    let db = database().await;
    // The writer does not know the new column, and continues after the job.
    let writer = sending(
        &db,
        "insert into suppliers (id, name) values (100000 + $n, 'new'); update suppliers set name = name || '!' where id = $n % 3000 + 1",
    )
    .await;
    run(&db, "suppliers_carbon_intensity").await;
    let written = stopped(writer).await;
    settled(&db, "suppliers_carbon_intensity").await;
    assert_eq!(db.count("select count(*) from suppliers").await, 3_000 + written);
    none(
        &db,
        "select count(*) from suppliers s
         left join (select supplier_id, sum(total_emissions) / nullif(sum(spend_amount), 0) as ci from emissions group by 1) e
           on e.supplier_id = s.id
         where s.carbon_intensity is distinct from coalesce(e.ci, 0)::double precision",
    )
    .await;
    let zero = "select count(*) from suppliers where carbon_intensity = 0";
    assert!(db.count(zero).await >= 300 + written);
    let exclamations = "select sum(length(name) - length(replace(name, '!', '')))::bigint from suppliers";
    assert_eq!(db.count(exclamations).await, written, "no update is lost");
    guarantees(
        &db,
        "suppliers",
        &["CHECK ((carbon_intensity >= (0)::double precision))", "NOT NULL carbon_intensity"],
    )
    .await;
}

#[tokio::test]
async fn emissions_status() {
    let db = database().await;
    let writer = sending(
        &db,
        "update emissions set verified_at = now() where id = (select id from emissions order by id offset $n * 7 % 20000 limit 1)",
    )
    .await;
    run(&db, "emissions_status").await;
    writer.stop().await;
    settled(&db, "emissions_status").await;
    assert_eq!(db.count("select count(*) from emissions").await, 20_000);
    none(&db, "select count(*) from emissions where status is null").await;
    // A status is computed when the row is filled; a later version of the application sets the column itself.
    none(&db, "select count(*) from emissions where status = 'verified' and verified_at is null").await;
    none(&db, "select count(*) from emissions where status = 'draft' and submitted_at is not null").await;
    none(&db, LEFT_BEHIND).await;
    guarantees(
        &db,
        "emissions",
        &[
            "CHECK ((status = ANY (ARRAY['draft'::text, 'submitted'::text, 'verified'::text])))",
            "NOT NULL status",
        ],
    )
    .await;
}

/// Several stages with a possible pause between them, each with its own validation and rollback.
#[tokio::test]
async fn compliance_data_in_stages() {
    let db = database().await;
    let before = "select count(*)::bigint from (select summary_id, compliance_report_id, version, previous_id, credits_offset_a,
        credits_offset_b, credits_offset_c from compliance_report_summary except select i, i, 1 + i % 3, nullif(i - 1, 0), i, i, i
        from generate_series(1, 5000) i) changed";
    let writer =
        sending(&db, "update compliance_report_summary set credits_offset_a = credits_offset_a where summary_id = $n % 5000 + 1")
            .await;
    run(&db, "compliance_historical_snapshot").await;
    writer.stop().await;
    settled(&db, "compliance_historical_snapshot").await;
    none(
        &db,
        "select count(*) from compliance_report_summary t
         where historical_snapshot is distinct from
            (select jsonb_build_object('version', s.version, 'lines', s.lines) from legacy.compliance_report_snapshots s
             where s.report_id = t.compliance_report_id and s.version = 3)",
    )
    .await;
    assert_eq!(
        db.count("select count(*) from compliance_report_summary where historical_snapshot is null").await,
        500
    );
    none(&db, before).await;

    let writer = sending(
        &db,
        "insert into fse_compliance_reporting (charging_equipment_compliance_id, final_supply_equipment_id) values (10000 + $n, $n % 4000 + 1)",
    );
    // The application has to set the columns before they are NOT NULL, so it stops between the stages.
    let written = stopped(writer.await).await;
    run(&db, "fse_compliance_reporting").await;
    settled(&db, "fse_compliance_reporting").await;
    assert_eq!(db.count("select count(*) from fse_compliance_reporting").await, 6_000 + written);
    none(
        &db,
        "select count(*) from fse_compliance_reporting join final_supply_equipment e using (final_supply_equipment_id)
         where (fse_compliance_reporting.organization_id, is_active) is distinct from (e.organization_id, e.status = 'in use')",
    )
    .await;
    guarantees(
        &db,
        "fse_compliance_reporting",
        &[
            "FOREIGN KEY (organization_id) REFERENCES organization(organization_id)",
            "INDEX (organization_id)",
            "NOT NULL is_active",
            "NOT NULL organization_id",
        ],
    )
    .await;

    let wrong = "select count(*) from final_supply_equipment where supply_from_date > supply_to_date";
    let corrected = db.count(wrong).await;
    db.execute("create table was as select * from final_supply_equipment").await;
    run(&db, "final_supply_equipment_dates").await;
    settled(&db, "final_supply_equipment_dates").await;
    none(&db, wrong).await;
    assert!(corrected > 0);
    assert_eq!(
        db.count("select count(*) from final_supply_equipment_history").await,
        corrected,
        "another row was updated"
    );
    none(
        &db,
        "select count(*) from final_supply_equipment t join was using (final_supply_equipment_id)
         where (least(was.supply_from_date, was.supply_to_date), case when was.supply_to_date is not null
                then greatest(was.supply_from_date, was.supply_to_date) end)
            is distinct from (t.supply_from_date, t.supply_to_date)",
    )
    .await;
    none(&db, LEFT_BEHIND).await;
    guarantees(&db, "final_supply_equipment", &["CHECK ((supply_from_date <= supply_to_date))"]).await;
}

#[tokio::test]
async fn price_forecasts_by_curve() {
    let db = database().await;
    let total =
        db.count("select (sum(total) * 100)::bigint from \"Forecasts\".curve_definitions_compat").await;
    let writer = sending(
        &db,
        "insert into \"Forecasts\".\"PriceForecast\" (\"CurveName\", \"RunDate\", \"DeliveryHour\", \"Price\")
         values ('Curve ' || 1 + $n % 75, '2024-05-01', now(), 0)",
    )
    .await;
    run(&db, "price_forecast_curve").await;
    let written = stopped(writer).await;
    settled(&db, "price_forecast_curve").await;
    assert_eq!(db.count("select count(*) from \"Forecasts\".\"CurveInstance\"").await, 72);
    let prices = db.count("select count(*) from \"Forecasts\".\"PriceForecast\"").await;
    assert_eq!(prices, 7_500 + written);
    none(
        &db,
        "select count(*) from \"Forecasts\".\"PriceForecast\" p left join \"Forecasts\".\"CurveInstance\" c using (\"CurveName\", \"RunDate\")
         where (p.\"CurveInstanceId\", p.\"Quality\"::text)
            is distinct from (c.\"Id\", case c.\"IsFinal\" when true then 'Final' when false then 'Indicative' end)",
    )
    .await;
    // Three names have no curve: their rows stay NULL.
    let unknown = "select count(distinct \"CurveName\") from \"Forecasts\".\"PriceForecast\" where \"CurveInstanceId\" is null";
    assert_eq!(db.count(unknown).await, 3);
    assert_eq!(
        db.count("select (sum(total) * 100)::bigint from \"Forecasts\".curve_definitions_compat").await,
        total,
        "old queries still work through the view"
    );
    none(&db, LEFT_BEHIND).await;
    guarantees(
        &db,
        "\"Forecasts\".\"PriceForecast\"",
        &[
            "FOREIGN KEY (\"CurveInstanceId\") REFERENCES \"Forecasts\".\"CurveInstance\"(\"Id\")",
            "INDEX (\"CurveInstanceId\")",
        ],
    )
    .await;
}

/// Asserts that the constraints and indexes under `finish` exist and are valid.
async fn guarantees(db: &Database, table: &str, wanted: &[&str]) {
    let sql = format!(
        "select 'NOT NULL ' || quote_ident(attname) from pg_attribute where attrelid = '{table}'::regclass and attnotnull and attnum > 0
         union select pg_get_constraintdef(oid) from pg_constraint where conrelid = '{table}'::regclass and convalidated
         union select 'INDEX ' || substring(pg_get_indexdef(indexrelid) from '[(].*') from pg_index
               where indrelid = '{table}'::regclass and indisvalid"
    );
    let found: Vec<String> =
        db.client().await.query(&sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    for definition in wanted {
        assert!(found.iter().any(|is| is == definition), "{table} lacks {definition}: {found:#?}");
    }
}
