//! What a careful person would write by hand, sent by `psql`: chunks into partitions without indexes, in as many sessions as
//! the tool has workers, then each partition's indexes. No capture, no ledger.

use std::time::Instant;

use anyhow::Result;

use super::server::Server;
use super::table::{Key, TABLE, TARGET, Table};

/// Rows of a chunk along the key.
pub const CHUNK_ROWS: u64 = 20_000;
/// Blocks of a chunk by the heap.
const CHUNK_BLOCKS: u64 = 600;

/// What the prototype took, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    pub copy_s: f64,
    pub index_s: f64,
}

/// Runs statements in so many sessions of psql, each taking the next but so many; seconds.
pub async fn sessions(server: &Server, statements: &[String], sessions: usize) -> Result<f64> {
    let scripts: Vec<String> = (0..sessions)
        .map(|n| {
            let own = statements.iter().skip(n).step_by(sessions);
            own.map(|statement| format!("{statement};\n")).collect()
        })
        .collect();
    let began = Instant::now();
    futures_util::future::try_join_all(scripts.iter().map(|script| server.psql(script))).await?;
    Ok(began.elapsed().as_secs_f64())
}

/// The prototype, in the order that suits the key: a bigint key follows the heap, a uuid does not.
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

/// Statements that copy so many rows each, along the key.
pub async fn chunks_by_key(server: &Server, rows: u64) -> Result<Vec<String>> {
    by_key(server, &format!("insert into {TARGET} select * from {TABLE} where"), rows).await
}

/// The statement for each range of so many keys.
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

/// Statements that fill the new column of so many rows each, along the key.
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
