//! The table of all measurements, and the empty partitioned targets of the alternatives.

use std::fmt;

use anyhow::Result;
use chrono::{Days, Months, NaiveDate};

use super::server::Server;

/// The name of the table.
pub const TABLE: &str = "bench_t";
/// The name of the alternatives' target.
pub const TARGET: &str = "bench_plain";
/// Bytes of a row without padding.
pub const ROW_BYTES: u64 = 140;

/// The kind of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Ascending in physical order.
    Bigint,
    /// Random: rows with adjacent keys are in different blocks.
    Uuid,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bigint => "bigint",
            Self::Uuid => "uuid",
        })
    }
}

/// The interval of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Month,
    Day,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Month => "month",
            Self::Day => "day",
        })
    }
}

/// The table: 11 columns, the key and three other indexes. The rows are distributed evenly over the partitions.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    pub rows: u64,
    pub key: Key,
    pub partitions: u32,
    pub unit: Unit,
    /// Additional bytes per row, in one column. Values of 2,000 bytes or more are stored in the TOAST table,
    /// uncompressed.
    pub padding: u64,
}

impl Table {
    /// A table with 24 monthly partitions.
    pub fn new(rows: u64, key: Key) -> Self {
        Self { rows, key, partitions: 24, unit: Unit::Month, padding: 0 }
    }

    /// The same with daily partitions.
    pub fn over_days(self, partitions: u32) -> Self {
        Self { partitions, unit: Unit::Day, ..self }
    }

    /// The upper bound of the last partition.
    pub fn end(&self) -> Option<NaiveDate> {
        let begin = NaiveDate::from_ymd_opt(2024, 1, 1)?;
        match self.unit {
            Unit::Month => begin.checked_add_months(Months::new(self.partitions)),
            Unit::Day => begin.checked_add_days(Days::new(self.partitions.into())),
        }
    }

    /// Creates and fills the table, after dropping all objects of earlier measurements.
    pub async fn create(&self, server: &Server) -> Result<()> {
        let Self { rows, partitions, unit, padding, .. } = self;
        let (key_type, key) = match self.key {
            Key::Bigint => ("bigint", "g"),
            Key::Uuid => ("uuid", "gen_random_uuid()"),
        };
        server
            .execute(&[
                format!("drop table if exists {TABLE}, {TABLE}_new, {TABLE}_old, {TARGET} cascade"),
                "drop sequence if exists bench_ids".to_owned(),
                "drop schema if exists pgstrata cascade".to_owned(),
                format!(
                    "create table {TABLE} (id {key_type} primary key, created_at timestamptz not null,
                       site integer not null, a text, b text, n numeric, f double precision, ok boolean, d date,
                       c integer, s smallint, padding text)"
                ),
                format!("alter table {TABLE} alter padding set storage external"),
                format!(
                    "insert into {TABLE} select {key}, timestamptz '2024-01-01'
                         + (timestamp '2024-01-01' + interval '{partitions} {unit}' - timestamp '2024-01-01')
                           * (g::double precision / {rows}),
                       g % 100, 'name ' || g, md5(g::text), g * 1.5, g / 3.0, g % 2 = 0,
                       '2024-01-01'::date + (g % 700)::integer, g, g % 1000,
                       nullif(repeat(md5(g::text), {padding} / 32), '')
                     from generate_series(0, {rows} - 1) g"
                ),
                format!("create index on {TABLE} (created_at)"),
                format!("create index on {TABLE} (site, created_at)"),
                format!("create index on {TABLE} (c)"),
                format!("vacuum analyze {TABLE}"),
                "checkpoint".to_owned(),
            ])
            .await
    }

    /// Creates the alternatives' target with its partitions, with all indexes or with none.
    pub async fn create_target(&self, server: &Server, indexed: bool) -> Result<()> {
        let Self { partitions, unit, .. } = self;
        let mut statements = vec![
            format!("drop table if exists {TARGET} cascade"),
            format!("create table {TARGET} (like {TABLE} including defaults) partition by range (created_at)"),
            format!(
                "do $$ declare t timestamptz; n int := 0; begin
                   while n < {partitions} loop
                     t := timestamptz '2024-01-01' + n * interval '1 {unit}';
                     execute format('create table {TARGET}_%s partition of {TARGET} for values from (%L) to (%L)',
                       n, t, t + interval '1 {unit}');
                     n := n + 1;
                   end loop; end $$"
            ),
        ];
        if indexed {
            statements.extend(indexes_on(TARGET));
        }
        statements.push("checkpoint".to_owned());
        server.execute(&statements).await
    }

    /// Statements that create the indexes of the target, partition by partition.
    pub fn index_statements(&self) -> Vec<String> {
        (0..self.partitions).flat_map(|n| indexes_on(&format!("{TARGET}_{n}"))).collect()
    }
}

/// Statements that create the same indexes as a job: the key and three others.
pub fn indexes_on(table: &str) -> Vec<String> {
    vec![
        format!("create unique index on {table} (id, created_at)"),
        format!("create index on {table} (created_at)"),
        format!("create index on {table} (site, created_at)"),
        format!("create index on {table} (c)"),
    ]
}
