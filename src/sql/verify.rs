//! Verification: both sides of a range at one snapshot, first as count and hash, then row by row.
//!
//! Two rows are the same where an application reads the same from both. A value goes into the hash as it is where its type
//! calls only identical values equal; that is the fast way. Everything else goes in as the text that the server gives to
//! clients: the types whose `=` is coarser (numeric without a scale, real, double precision, interval, jsonb, bpchar, and
//! arrays of them), whatever a nondeterministic collation calls equal, and types that have no built-in hash, such as json,
//! ranges, composite types, citext and other types of extensions.

use crate::model::blueprint::{Blueprint, Direction, Sides};
use crate::model::ident::literal;
use crate::model::key::KeyRange;
use crate::model::table::Column;
use crate::plan::Rows;

use super::{drain, equal, from_source, in_range};

/// A row as one number, order-free to sum up.
fn row_hash(alias: &str, columns: &[Column], rows: Rows) -> String {
    if rows == Rows::Count {
        return "0::bigint".into();
    }
    let values: Vec<String> = columns.iter().map(|c| hashed(&format!("{alias}.{}", c.name), c)).collect();
    format!("pg_catalog.hash_record_extended(row({}), 0)", values.join(", "))
}

/// What goes into the hash for a column.
fn hashed(value: &str, column: &Column) -> String {
    if column.hashable && column.deterministic && !equals_more_than_identical(column) {
        return value.to_owned();
    }
    // A cast to text is a function of its own for some types, and loses what the output has: bpchar's drops trailing blanks.
    // As a field of a row, a value is always written by its type's output function.
    let built_in = !column.base_type.contains('.') && !column.base_type.starts_with("bpchar");
    let text = if built_in { format!("{value}::text") } else { format!("row({value})::text") };
    if column.deterministic { text } else { format!("{text} collate \"C\"") }
}

/// Whether a built-in type with a hash calls values equal that are not identical. A declared length or scale makes all values
/// of a char or numeric column alike in what `=` leaves out.
fn equals_more_than_identical(column: &Column) -> bool {
    let element = column.base_type.trim_end_matches("[]");
    match element {
        "real" | "double precision" | "interval" | "jsonb" => true,
        "numeric" => !column.sql_type.starts_with("numeric("),
        "bpchar" => !column.sql_type.starts_with("character("),
        _ => false,
    }
}

/// Count and hash of both sides of `range` over `by`: source count, source hash, target count, target hash.
pub fn summary(
    b: &Blueprint,
    direction: Direction,
    by: &[&Column],
    range: &KeyRange,
    rows: Rows,
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

/// Count and hash of those rows of `range` that stand at pending places, on both sides, as [`summary`] gives them. The hash is
/// an exclusive or, so taking these out of the sums leaves the sums of all other rows: a look at a few keys instead of
/// another read of the range. To be sent at the snapshot of the sums, under [`drain::SETTINGS`].
pub fn pending(
    b: &Blueprint,
    direction: Direction,
    by: &[&Column],
    range: &KeyRange,
    rows: Rows,
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

/// What differs in `range`, row by row, pending places left out: the key's and the partition column's values as text, how
/// many rows the source has at that place and how many the target has; then, on every row, how many places in all are
/// missing, extra and different. At most `limit` rows.
///
/// A TRUNCATE of the source that is still pending makes every place pending: what the source holds came after it and is in
/// the log, and what the target holds goes with it.
pub fn differences(
    b: &Blueprint,
    direction: Direction,
    by: &[&Column],
    range: &KeyRange,
    rows: Rows,
    limit: u32,
) -> (String, Vec<String>) {
    let sides = b.sides(direction);
    let place = b.place_columns();
    let (condition, values) = in_range("r.", by, range, 1);
    // The places' columns are numbered: whatever they are called, it could be what we call ours.
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
    let text = numbered("x.").iter().map(|p| format!("{p}::text")).collect::<Vec<_>>().join(", ");
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

/// How many rows of the target have the key given as text in `$1 …`.
pub fn occurrences(b: &Blueprint, sides: &Sides) -> String {
    let key = b.key_columns();
    let conditions: Vec<String> =
        key.iter().enumerate().map(|(i, c)| format!("{} = ${}::{}", c.name, i + 1, c.base_type)).collect();
    format!("select count(*) from {} where {}", sides.target, conditions.join(" and "))
}

/// How a column of a plain table lies: `pg_stats.correlation` and how many rows share a value; no row where it was never
/// analyzed. `$1` schema, `$2` table, `$3` column.
pub const LIE: &str = "select s.correlation, case when s.n_distinct > 0 \
        then greatest(c.reltuples, 0) / s.n_distinct else -1 / nullif(s.n_distinct, 0) end::float8 \
    from pg_catalog.pg_stats s join pg_catalog.pg_namespace n on n.nspname = s.schemaname \
        join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = s.tablename \
    where s.schemaname = $1 and s.tablename = $2 and s.attname = $3 and not s.inherited";

/// Leaves of the relation with oid `$1`: schema, name, and rows as the planner guesses them, from the last known density and
/// the size now; null where nothing is known.
pub const LEAF_ROWS: &str = "select n.nspname, c.relname, case \
        when pg_catalog.pg_relation_size(c.oid) = 0 then 0 \
        when c.relpages > 0 then c.reltuples / c.relpages * pg_catalog.pg_relation_size(c.oid) \
            / pg_catalog.current_setting('block_size')::bigint end::float8 \
    from pg_catalog.pg_inherits h join pg_catalog.pg_class c on c.oid = h.inhrelid \
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
    where h.inhparent = $1";
