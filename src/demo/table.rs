//! The demo's table, and its witness: a plain copy that the writers change in the same transactions. pgstrata does not
//! touch the witness, so a row that it loses, duplicates or damages shows as a difference.

use chrono::{Datelike, Months, Utc};
use tokio_postgres::Client;

use crate::error::Result;

/// The table.
pub(super) const TABLE: &str = "petri_observations";
/// The witness.
pub(super) const WITNESS: &str = "petri_observations_witness";

/// The number of rows of the table; a fifth of them in a test build, because many tests run in parallel.
const ROWS: u32 = if cfg!(feature = "failpoints") { 60_000 } else { 300_000 };
/// The month to query, counted back from the current one.
const MONTHS_AGO: u32 = 8;

const CREATE: &str = "
create table petri_observations (
    observation_id uuid primary key,
    submission_id uuid not null,
    site_id uuid not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    growth_stage text not null default 'none',
    growth_mm numeric(6,2),
    readings jsonb not null default '{}',
    notes text
);
create index petri_observations_submission_idx on petri_observations (submission_id);
create index petri_observations_site_idx on petri_observations (site_id, created_at desc);
create index petri_observations_growing_idx on petri_observations (growth_stage, created_at)
    where growth_stage <> 'none';
create table petri_observations_witness (like petri_observations including defaults);
alter table petri_observations_witness add primary key (observation_id);
";

/// Inserts rows in the order of time, as applications do, with random keys: 24 whole months and the current one.
const FILL: &str = "
insert into petri_observations
select gen_random_uuid(), md5('submission ' || i / 8)::uuid, md5('site ' || i % 60)::uuid, at, at,
       (array['none', 'none', 'none', 'trace', 'low', 'moderate', 'high'])[1 + i % 7],
       case when i % 7 > 2 then (i * 7919 % 9000) / 100.0 end,
       jsonb_build_object('temperature_c', 18 + i % 90 / 10.0, 'humidity', 40 + i % 50),
       case when i % 5 = 0 then 'colony ' || i || ' photographed, margin irregular' end
from (select date_trunc('month', now(), 'UTC') - interval '24 months') first (month),
     generate_series(1, $1::bigint) i,
     lateral (select first.month + (now() - first.month) * (i / $1::float8)) t (at)
";

/// Creates the table with its rows, and the witness with the same rows. Returns the number of rows.
pub(super) async fn create(client: &Client) -> Result<u64> {
    client.batch_execute(CREATE).await?;
    let rows = client.execute(FILL, &[&i64::from(ROWS)]).await?;
    client.batch_execute(&format!("insert into {WITNESS} table {TABLE}; analyze {TABLE}, {WITNESS}")).await?;
    Ok(rows)
}

/// The size of the table with its indexes, in bytes.
pub(super) async fn bytes(client: &Client) -> Result<u64> {
    let bytes: i64 =
        client.query_one("select pg_total_relation_size($1::text::regclass)", &[&TABLE]).await?.get(0);
    Ok(bytes.unsigned_abs())
}

/// A query for one whole month some months ago.
pub(super) fn month_query() -> String {
    let this = Utc::now().date_naive();
    let this = this.with_day(1).unwrap_or(this);
    let (from, to) = (this - Months::new(MONTHS_AGO), this - Months::new(MONTHS_AGO - 1));
    format!(
        "select count(*), avg(growth_mm) from {TABLE}\nwhere created_at >= '{from}' and created_at < '{to}'"
    )
}

/// The execution plan of a query.
#[derive(Debug, Clone)]
pub(super) struct Explained {
    /// The output of `EXPLAIN`.
    pub(super) lines: Vec<String>,
    /// The number of pages of 8 KiB read, from memory or disk.
    pub(super) pages: u64,
}

/// Executes the query, and returns its plan.
pub(super) async fn explain(client: &Client, query: &str) -> Result<Explained> {
    let explain = format!("explain (analyze, buffers, costs off, timing off, summary off) {query}");
    let lines = client.query(&explain, &[]).await?.into_iter().map(|row| row.get::<_, String>(0));
    let lines: Vec<String> = lines.take_while(|line| !line.starts_with("Planning")).collect();
    // The line of the top node includes the pages of the nodes below it.
    let buffers = lines.iter().find(|line| line.trim_start().starts_with("Buffers: "));
    Ok(Explained { pages: buffers.map_or(0, |line| pages(line)), lines })
}

/// `Buffers: shared hit=6800 read=24 dirtied=1` are 6,824 pages.
fn pages(buffers: &str) -> u64 {
    let words = buffers.split_whitespace();
    let number = |word: &str| word.strip_prefix("hit=").or(word.strip_prefix("read="))?.parse::<u64>().ok();
    words.filter_map(number).sum()
}

/// The result of a comparison of both tables, in one snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compared {
    /// The number of rows of the table.
    pub(super) rows: u64,
    /// The number of rows that only one of the two has. A different row counts on both sides.
    pub(super) differing: u64,
}

/// Compares the table with the witness, while the writers are active.
pub(super) async fn compare(client: &Client) -> Result<Compared> {
    let row = client
        .query_one(
            "select (select count(*) from petri_observations),
                    (select count(*) from (table petri_observations except all table petri_observations_witness) x)
                  + (select count(*) from (table petri_observations_witness except all table petri_observations) x)",
            &[],
        )
        .await?;
    let number = |i: usize| row.get::<_, i64>(i).unsigned_abs();
    Ok(Compared { rows: number(0), differing: number(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_include_hits_and_reads() {
        assert_eq!(pages("  Buffers: shared hit=6800 read=24 dirtied=1 written=3"), 6_824);
        assert_eq!(pages("Buffers: shared read=7"), 7);
    }
}
