//! Verification: compares both sides of a range with one snapshot, first by count and hash, then row by row.
//!
//! Two rows match if an application reads the same values from both. A value is hashed directly if only identical
//! values of its type are equal; this is fast. All other values are hashed as the text that the server sends to
//! clients: types in which different values can be equal (numeric without a scale, real, double precision, interval,
//! jsonb, bpchar, and arrays of them), values with a nondeterministic collation, and types without a built-in hash,
//! such as json, ranges, composite types, citext and other extension types.

use crate::model::blueprint::{Blueprint, Direction, Sides};
use crate::model::ident::literal;
use crate::model::key::KeyRange;
use crate::model::table::Column;
use crate::plan::RowComparison;

use super::{as_written, drain, equal, from_source, in_range};

/// The hash of a row as a number. The combination of hashes does not depend on the order of rows.
fn row_hash(alias: &str, columns: &[Column], rows: RowComparison) -> String {
    if rows == RowComparison::Count {
        return "0::bigint".into();
    }
    let values: Vec<String> = columns.iter().map(|c| hashed(&format!("{alias}.{}", c.name), c)).collect();
    format!("pg_catalog.hash_record_extended(row({}), 0)", values.join(", "))
}

/// The expression that is hashed for a column.
fn hashed(value: &str, column: &Column) -> String {
    if column.hashable && column.deterministic && !equals_more_than_identical(column) {
        return value.to_owned();
    }
    // For some types, a cast to text is not the output function and loses information: that of bpchar removes trailing
    // spaces. In the text of a row, a value always has the format of the output function.
    let built_in = !column.base_type.contains('.') && !column.base_type.starts_with("bpchar");
    let text = if built_in { format!("{value}::text") } else { format!("row({value})::text") };
    if column.deterministic { text } else { format!("{text} collate \"C\"") }
}

/// Whether values of a built-in type with a hash can be equal without being identical. With a declared length or scale,
/// equal values of a char or numeric column are identical.
fn equals_more_than_identical(column: &Column) -> bool {
    let element = column.base_type.trim_end_matches("[]");
    match element {
        "real" | "double precision" | "interval" | "jsonb" => true,
        "numeric" => !column.sql_type.starts_with("numeric("),
        "bpchar" => !column.sql_type.starts_with("character("),
        _ => false,
    }
}

/// The count and hash of both sides of `range` over `by`: source count, source hash, target count, target hash.
pub fn summary(
    b: &Blueprint,
    direction: Direction,
    by: &[&Column],
    range: &KeyRange,
    rows: RowComparison,
) -> (String, Vec<String>) {
    let sides = b.sides(direction);
    let (condition, values) = in_range("r.", by, range, 1);
    let side = |table: &str| {
        format!(
            "select count(*) as n, coalesce(bit_xor({}), 0) as h from {table} r where {condition}",
            row_hash("r", &b.table.columns, rows)
        )
    };
    let sql = format!(
        "select s.n, s.h, t.n, t.h\nfrom ({}) s,\n  ({}) t",
        side(&from_source(&sides)),
        side(&sides.target.to_string())
    );
    (sql, values)
}

/// The count and hash, as in [`summary`], of the rows of `range` at places with pending changes, on both sides. The
/// hash is an exclusive or, so removing these rows from the sums leaves the sums of all other rows. This needs lookups
/// of a few keys instead of another scan of the range. Send it with the snapshot of the sums, and with
/// [`drain::SETTINGS`].
pub fn pending(
    b: &Blueprint,
    direction: Direction,
    by: &[&Column],
    range: &KeyRange,
    rows: RowComparison,
) -> (String, Vec<String>) {
    let sides = b.sides(direction);
    let (condition, values) = in_range("d.", by, range, 1);
    let side = |table: &str| {
        format!(
            "select count(*) as n, coalesce(bit_xor({}), 0) as h from pending p join {table} r on {}",
            row_hash("r", &b.table.columns, rows),
            equal("r", "p", &b.place_columns())
        )
    };
    let sql = format!(
        "with pending as materialized (select * from (\n  {}\n) d where {condition})\n\
         select s.n, s.h, t.n, t.h\nfrom ({}) s,\n  ({}) t",
        drain::places(b, drain::Batch::All),
        side(&from_source(&sides)),
        side(&sides.target.to_string())
    );
    (sql, values)
}

/// The mismatches in `range`, row by row, without places with pending changes: the values of the key and the partition
/// column as text, and the number of rows that the source and the target have at that place; also, in every row of the
/// result, the total numbers of missing, extra and different places. At most `limit` rows.
///
/// While a TRUNCATE of the source is pending, every place counts as pending: rows in the source were written after it
/// and are in the log, and the next drain removes the rows in the target.
pub fn differences(
    b: &Blueprint,
    direction: Direction,
    by: &[&Column],
    range: &KeyRange,
    rows: RowComparison,
    limit: u32,
) -> (String, Vec<String>) {
    let sides = b.sides(direction);
    let place = b.place_columns();
    let (condition, values) = in_range("r.", by, range, 1);
    // The columns of the places are numbered, because their names could conflict with those of this query.
    let numbered = |prefix: &str| (1..=place.len()).map(|i| format!("{prefix}p{i}")).collect::<Vec<_>>();
    let both = |left: &str, right: &str| {
        let pairs = numbered(left).into_iter().zip(numbered(right));
        pairs.map(|(l, r)| format!("{l} = {r}")).collect::<Vec<_>>().join(" and ")
    };
    let columns = place.iter().map(|c| format!("r.{}", c.name)).collect::<Vec<_>>().join(", ");
    let side = |table: &str| {
        format!(
            "select {columns}, count(*), bit_xor({}) from {table} r where {condition} group by {columns}",
            row_hash("r", &b.table.columns, rows)
        )
    };
    let names = numbered("").join(", ");
    let merged =
        (1..=place.len()).map(|i| format!("coalesce(s.p{i}, t.p{i}) as p{i}")).collect::<Vec<_>>().join(", ");
    let text =
        numbered("x.").iter().zip(&place).map(|(p, c)| as_written(p, c)).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "with s ({names}, n, h) as materialized ({}),\n  t ({names}, n, h) as materialized ({}),\n  \
         pending ({names}) as materialized (\n  {}\n),\n  \
         x as (\n    select {merged}, coalesce(s.n, 0) as source_n, coalesce(t.n, 0) as target_n\n    from s full join t on {}\n    \
         where s.n is distinct from t.n or s.h is distinct from t.h\n  )\n\
         select {text}, x.source_n, x.target_n,\n  \
         count(*) filter (where x.target_n = 0) over (),\n  \
         count(*) filter (where x.target_n > x.source_n) over (),\n  \
         count(*) filter (where x.target_n > 0 and x.target_n <= x.source_n) over ()\nfrom x\n\
         where not exists (select from pending p where {})\n  \
         and not exists (select from {} where relation = {}::pg_catalog.regclass)\nlimit {limit}",
        side(&from_source(&sides)),
        side(&sides.target.to_string()),
        drain::places(b, drain::Batch::All),
        both("s.", "t."),
        both("p.", "x."),
        b.truncations(),
        literal(&sides.source.to_string()),
    );
    (sql, values)
}

/// The number of rows of the target with the key that is given as text in `$1 …`.
pub fn occurrences(b: &Blueprint, sides: &Sides) -> String {
    let key = b.key_columns();
    let conditions: Vec<String> =
        key.iter().enumerate().map(|(i, c)| format!("{} = ${}::{}", c.name, i + 1, c.base_type)).collect();
    format!("select count(*) from {} where {}", sides.target, conditions.join(" and "))
}

/// The distribution of a column of a plain table: `pg_stats.correlation`, and the estimated number of rows with the
/// same value; no row if the table was never analyzed. `$1` schema, `$2` table, `$3` column.
pub const LIE: &str = "select s.correlation, case when s.n_distinct > 0 \
        then greatest(c.reltuples, 0) / s.n_distinct else -1 / nullif(s.n_distinct, 0) end::float8 \
    from pg_catalog.pg_stats s join pg_catalog.pg_namespace n on n.nspname = s.schemaname \
        join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = s.tablename \
    where s.schemaname = $1 and s.tablename = $2 and s.attname = $3 and not s.inherited";

/// Leaves of the relation with oid `$1`: schema, name, and the number of rows, estimated from the last known density
/// and the current size; null if it is not known.
pub const LEAF_ROWS: &str = "select n.nspname, c.relname, case \
        when pg_catalog.pg_relation_size(c.oid) = 0 then 0 \
        when c.relpages > 0 then c.reltuples / c.relpages * pg_catalog.pg_relation_size(c.oid) \
            / pg_catalog.current_setting('block_size')::bigint end::float8 \
    from pg_catalog.pg_inherits h join pg_catalog.pg_class c on c.oid = h.inhrelid \
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
    where h.inhparent = $1";
