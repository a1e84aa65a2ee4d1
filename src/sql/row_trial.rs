//! Evaluates a table's own expressions on some of its rows.

use crate::model::ident::{Ident, QualifiedName, literal};
use crate::model::table::{Check, Column};

use super::{key_text, list};

/// The number of blocks of the table from which rows are read, and the maximum number of rows in each.
const BLOCKS: i64 = 64;
const ROWS_OF_BLOCK: i64 = 16;

/// A condition for rows in the sample. Its blocks are spread evenly over the `blocks` of the table.
pub fn sampled(blocks: i64) -> String {
    let count = blocks.clamp(1, BLOCKS);
    let last = (blocks - 1).max(0);
    let places = (0..count).map(|i| if count == 1 { 0 } else { last * i / (count - 1) });
    let rows: Vec<String> =
        places.flat_map(|block| (1..=ROWS_OF_BLOCK).map(move |row| format!("\"({block},{row})\""))).collect();
    format!("ctid = any ('{{{}}}'::tid[])", rows.join(","))
}

/// The length of the heap in blocks; `$1` is the oid.
pub const HEAP_BLOCKS: &str =
    "select pg_catalog.pg_relation_size($1::oid) / pg_catalog.current_setting('block_size')::bigint";

/// The condition of a CHECK constraint, from its definition in the catalog.
pub(super) fn condition(check: &Check) -> &str {
    check.definition.strip_prefix("CHECK ").unwrap_or(&check.definition)
}

/// The number of rows that violate the CHECK constraint, in the sample or in the whole table, and the key of one.
pub fn violations(from: &str, key: &[Ident], check: &Check, sampled: Option<&str>) -> String {
    let of = sampled.map_or(String::new(), |sampled| format!(" and {sampled}"));
    format!("select count(*), min({}) from {from} where not {}{of}", key_text("", key), condition(check))
}

/// CHECK constraints of the relation with oid `$1` that call user-defined functions or operators.
pub const MADE_BY_USERS: &str = "select k.conname::text from pg_catalog.pg_constraint k
where k.conrelid = $1 and k.contype = 'c' and exists (
  select from pg_catalog.pg_depend d
  where d.classid = 'pg_catalog.pg_constraint'::regclass and d.objid = k.oid
    and d.refclassid in ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass))";

/// The time limit for the test of a CHECK constraint on all rows, in seconds.
pub const LIMIT_S: u32 = 30;

/// Sets [`LIMIT_S`] until the transaction ends.
pub fn limit() -> String {
    format!("set local statement_timeout = {}", literal(&format!("{LIMIT_S}s")))
}

/// The time limit for a sample: a function of the application may take a second for each row.
pub const SAMPLE_LIMIT: &str = "set local statement_timeout = '5s'";

/// Creates an empty temporary table with the generated columns, indexes and, with `with_checks`, the CHECK constraints
/// of the table.
pub fn empty(table: &QualifiedName, with_checks: bool) -> String {
    let checks = if with_checks { " including constraints" } else { "" };
    format!(
        "create temporary table pgstrata_rows (like {table} including generated including indexes{checks}) on commit drop"
    )
}

/// Replaces the temporary table by one without indexes.
pub fn without_indexes(table: &QualifiedName) -> String {
    format!(
        "drop table {ROWS}; create temporary table pgstrata_rows (like {table} including generated) on commit drop; "
    )
}

/// Creates an empty temporary table with the generated columns and the extended statistics of the table.
pub fn with_statistics(table: &QualifiedName) -> String {
    format!(
        "create temporary table pgstrata_rows (like {table} including generated including statistics) on commit drop"
    )
}

/// Computes these statistics.
pub const ANALYZE: &str = "analyze pg_temp.pgstrata_rows";

/// The name of the temporary table.
pub const ROWS: &str = "pg_temp.pgstrata_rows";

/// Copies the sample into a table.
pub fn fill<'a>(
    into: &str,
    from: &str,
    columns: impl IntoIterator<Item = &'a Ident>,
    sampled: &str,
) -> String {
    let columns = list("", columns);
    format!("insert into {into} ({columns}) select {columns} from {from} where {sampled}")
}

/// Whether the database can contain text that is not valid UTF-8.
pub const ANY_BYTES: &str = "select pg_catalog.current_setting('server_encoding') = 'SQL_ASCII'";

/// Rows whose key, as text, is not valid UTF-8.
pub fn not_utf8(from: &str, key: &[&Column]) -> String {
    const UTF8: &str = r"^([\x01-\x7f]|[\xc2-\xdf][\x80-\xbf]|\xe0[\xa0-\xbf][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}|\xed[\x80-\x9f][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2})*$";
    let conditions: Vec<String> = key.iter().map(|c| format!("{}::text !~ '{UTF8}'", c.name)).collect();
    format!("select count(*) from {from} where {}", conditions.join(" or "))
}
