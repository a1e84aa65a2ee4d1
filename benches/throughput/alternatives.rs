//! The alternatives to pgstrata, on the same table. Each creates a target table and leaves it behind.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::plain;
use super::server::Server;
use super::table::{TABLE, TARGET, Table, indexes_on};

/// The default of pgslice.
const BATCH_ROWS: u64 = 10_000;

/// `CREATE TABLE AS`, then the indexes, in one session; returns the seconds. The target has no partitions, and
/// concurrent writes would be lost.
pub async fn create_table_as(server: &Server) -> Result<f64> {
    server.execute(&[format!("drop table if exists {TARGET} cascade"), "checkpoint".to_owned()]).await?;
    let mut statements = vec![format!("create table {TARGET} as select * from {TABLE}")];
    statements.extend(indexes_on(TARGET));
    plain::sessions(server, &statements, 1).await
}

/// Batches in key order into partitions that already have all indexes, in one session, like `pgslice fill`; returns the
/// seconds.
pub async fn indexed_batches(server: &Server, table: &Table) -> Result<f64> {
    table.create_target(server, true).await?;
    let batches = plain::chunks_by_key(server, BATCH_ROWS).await?;
    plain::sessions(server, &batches, 1).await
}

/// Binary `COPY TO` piped to `COPY FROM`, then the indexes of the partitions; returns the seconds.
pub async fn copy_pipe(server: &Server, table: &Table, workers: usize) -> Result<f64> {
    table.create_target(server, false).await?;
    let began = Instant::now();
    let mut from = server.program("psql");
    from.args(["-X", "-q", "-c", &format!("copy {TABLE} to stdout (format binary)")]);
    let mut from = from.stdout(Stdio::piped()).spawn()?;
    let pipe: Stdio = from.stdout.take().context("no pipe")?.try_into()?;
    let mut to = server.program("psql");
    to.args(["-X", "-q", "-c", &format!("copy {TARGET} from stdin (format binary)")]);
    let (from, to) = tokio::try_join!(from.wait(), to.stdin(pipe).status())?;
    if !from.success() || !to.success() {
        bail!("COPY TO ended with {from}, COPY FROM with {to}");
    }
    plain::sessions(server, &table.index_statements(), workers).await?;
    Ok(began.elapsed().as_secs_f64())
}

/// The version of pg_partman, if it is available on the server.
pub async fn partman_version(server: &Server) -> Result<Option<String>> {
    let versions = "select default_version from pg_available_extensions where name = 'pg_partman'";
    Ok(server.column(versions).await?.pop())
}

/// `partition_data_proc` of pg_partman, with its default batch of one month and without the pause of a second after
/// each batch; returns the seconds. It moves the rows out of the source. The number of batches is limited to the number
/// of months, because it would never end while an application inserts rows.
pub async fn partman(server: &Server, table: &Table, version: &str) -> Result<f64> {
    // Version 5 has other arguments.
    let (arguments, batches) = if version.starts_with("4.") {
        ("'native', 'monthly'", "p_batch")
    } else {
        ("'range', '1 month'", "p_loop_count")
    };
    let mut statements = vec![
        format!("drop table if exists {TARGET} cascade"),
        "drop schema if exists partman cascade".to_owned(),
        "create schema partman".to_owned(),
        "create extension pg_partman schema partman".to_owned(),
        format!("create table {TARGET} (like {TABLE} including defaults) partition by range (created_at)"),
    ];
    statements.extend(indexes_on(TARGET));
    statements.push(format!(
        "select partman.create_parent('public.{TARGET}', 'created_at', {arguments}, p_premake := 1,
             p_start_partition := '2024-01-01')"
    ));
    statements.push("checkpoint".to_owned());
    server.execute(&statements).await?;
    let began = Instant::now();
    let call = format!(
        "call partman.partition_data_proc('public.{TARGET}', p_source_table := 'public.{TABLE}', p_wait := 0,
             {batches} := {});\n",
        table.partitions
    );
    server.psql(&call).await?;
    Ok(began.elapsed().as_secs_f64())
}
