//! The same work with plain SQL from `psql`: chunks into partitions without indexes, in as many sessions as there are
//! workers, then the indexes of each partition. Changes are not captured, and progress is not recorded.

use std::time::Instant;

use anyhow::Result;

use super::server::Server;
use super::table::{Key, TABLE, TARGET, Table};

/// Rows of a chunk in key order.
pub const CHUNK_ROWS: u64 = 20_000;
/// Blocks of a chunk in physical order.
const CHUNK_BLOCKS: u64 = 600;

/// The durations of the prototype, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    pub copy_s: f64,
    pub index_s: f64,
}

/// Runs statements in so many sessions of psql, among which they are distributed in turn; returns the seconds.
pub async fn sessions(server: &Server, statements: &[String], sessions: usize) -> Result<f64> {
    let scripts: Vec<String> = (0..sessions)
        .map(|n| {
            let share = statements.iter().skip(n).step_by(sessions);
            share.map(|statement| format!("{statement};\n")).collect()
        })
        .collect();
    let began = Instant::now();
    futures_util::future::try_join_all(scripts.iter().map(|script| server.psql(script))).await?;
    Ok(began.elapsed().as_secs_f64())
}

/// Runs the prototype, in key order for a bigint key, which is in physical order, and in physical order for a uuid key.
pub async fn prototype(server: &Server, table: &Table, workers: usize) -> Result<Took> {
    table.create_target(server, false).await?;
    let chunks = match table.key {
        Key::Bigint => chunks_by_key(server, CHUNK_ROWS).await?,
        Key::Uuid => chunks_by_block(server).await?,
    };
    let copy_s = sessions(server, &chunks, workers).await?;
    let index_s = sessions(server, &table.index_statements(), workers).await?;
    Ok(Took { copy_s, index_s })
}

/// Statements that copy `rows` rows each, in key order.
pub async fn chunks_by_key(server: &Server, rows: u64) -> Result<Vec<String>> {
    by_key(server, &format!("insert into {TARGET} select * from {TABLE} where"), rows).await
}

/// The statement for each range of `rows` keys.
async fn by_key(server: &Server, statement: &str, rows: u64) -> Result<Vec<String>> {
    server
        .column(&format!(
            "select concat('{statement} ', 'id > ' || quote_literal(lag(id) over (order by id)) || ' and ',
                 'id <= ', quote_literal(id))
             from (select id, row_number() over (order by id) n, count(*) over () total from {TABLE}) k
             where n % {rows} = 0 or n = total order by id"
        ))
        .await
}

/// Statements that fill the new column of `rows` rows each, in key order.
pub async fn fills_by_key(server: &Server, column: &str, rows: u64) -> Result<Vec<String>> {
    let update = format!("update {TABLE} set {column} = n * 2 where {column} is null and");
    by_key(server, &update, rows).await
}

async fn chunks_by_block(server: &Server) -> Result<Vec<String>> {
    server
        .column(&format!(
            "select format('insert into {TARGET} select * from {TABLE} where ctid >= ''(%s,0)'' and ctid < ''(%s,0)''',
                 b, b + {CHUNK_BLOCKS})
             from generate_series(0, pg_relation_size('{TABLE}') / 8192, {CHUNK_BLOCKS}) b"
        ))
        .await
}
