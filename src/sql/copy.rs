//! The copy: statements that find the ends of chunks, and the statement that copies a chunk.

use crate::model::blueprint::{Blueprint, Direction, Sides};
use crate::model::key::KeyRange;
use crate::model::table::Column;

use super::{as_written, from_source, in_range, list};

/// `r."a"::text, r."b"::text` for built-in types: a key in the format of the ledger. The columns are qualified here and
/// in ORDER BY, where an unqualified name would refer to the text instead of the column.
fn as_text(columns: &[&Column]) -> String {
    columns.iter().map(|c| as_written(&format!("r.{}", c.name), c)).collect::<Vec<_>>().join(", ")
}

/// The largest key; no row if the table is empty.
pub fn largest(sides: &Sides, columns: &[&Column]) -> String {
    let order = columns.iter().map(|c| format!("r.{} desc", c.name)).collect::<Vec<_>>().join(", ");
    format!("select {} from {} r order by {order} limit 1", as_text(columns), from_source(sides))
}

/// The key of the last row of the next chunk of `from` in `range`, which has `rows` rows; no row if fewer rows remain.
pub fn boundary(from: &str, columns: &[&Column], range: &KeyRange, rows: u64) -> (String, Vec<String>) {
    let (condition, values) = in_range("r.", columns, range, 1);
    let sql = format!(
        "select {} from {from} r where {condition} order by {} offset {} limit 1",
        as_text(columns),
        list("r.", columns.iter().map(|c| &c.name)),
        rows.saturating_sub(1)
    );
    (sql, values)
}

/// The smallest and the largest partition value of the source outside all partitions; `$1` and `$2` are the ends of
/// the range that the partitions cover.
pub fn outside(b: &Blueprint) -> Option<String> {
    let by = b.by_column()?;
    let (column, base) = (&by.name, &by.base_type);
    Some(format!(
        "select min({column})::text, max({column})::text from {} where {column} < $1::{base} or {column} >= $2::{base}",
        from_source(&b.sides(Direction::Forward))
    ))
}

/// Copies the rows of one key range.
///
/// It does not use ON CONFLICT, which needs the unique index, triples the time, and hides errors. It does not lock
/// rows, which would write to the pages of the source.
pub fn keyset_chunk(b: &Blueprint, range: &KeyRange) -> (String, Vec<String>) {
    let (condition, values) = in_range("", &b.key_columns(), range, 1);
    (insert(b, &condition), values)
}

/// Copies the rows in the heap blocks `[$1, $2)`; both ends are given as `ctid` text.
pub fn physical_chunk(b: &Blueprint) -> String {
    insert(b, "ctid >= $1::text::tid and ctid < $2::text::tid")
}

pub(super) fn insert(b: &Blueprint, condition: &str) -> String {
    let sides = b.sides(Direction::Forward);
    let columns = list("", b.table.written_columns().map(|c| &c.name));
    format!(
        "insert into {} ({columns}) overriding system value\nselect {columns} from {} where {condition}",
        sides.target,
        from_source(&sides)
    )
}

/// Acquires the lock that prevents a TRUNCATE or a rewrite until the transaction ends. Send it before any statement
/// that takes a snapshot: with a snapshot older than a TRUNCATE, the table appears empty, although its rows existed
/// then.
pub fn lock_against_truncate(sides: &Sides) -> String {
    format!("lock table {} in access share mode", from_source(sides))
}

/// The file of the heap, which a rewrite (VACUUM FULL, CLUSTER, TRUNCATE) replaces, and its length in blocks; `$1` is
/// the oid.
pub const HEAP: &str = "select pg_catalog.pg_relation_filenode($1::oid), \
    pg_catalog.pg_relation_size($1::oid) / pg_catalog.current_setting('block_size')::bigint";

/// The correlation between the first column of the key and the physical order of the heap (`pg_stats.correlation`);
/// `$1` schema, `$2` table, `$3` column.
pub const CORRELATION: &str = "select correlation from pg_catalog.pg_stats \
    where schemaname = $1 and tablename = $2 and attname = $3 and not inherited";
