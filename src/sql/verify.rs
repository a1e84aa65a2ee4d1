//! Verification: both sides of a range at one snapshot, first as count and hash, then row by row.

use crate::model::blueprint::{Blueprint, Direction, Sides};
use crate::model::ident::literal;
use crate::model::key::KeyRange;
use crate::model::table::Column;
use crate::plan::Rows;

use super::{drain, equal, from_source, in_range};

/// A row as one number, order-free to sum up. A type without a hash of its own goes through text, and so does what a
/// nondeterministic collation would call equal; the other columns are hashed as they are, which is faster.
fn row_hash(alias: &str, columns: &[Column], rows: Rows) -> String {
    if rows == Rows::Count {
        return "0::bigint".into();
    }
    let values: Vec<String> = columns
        .iter()
        .map(|c| match (c.hashable, c.deterministic) {
            (true, true) => format!("{alias}.{}", c.name),
            (_, true) => format!("{alias}.{}::text", c.name),
            (_, false) => format!("{alias}.{}::text collate \"C\"", c.name),
        })
        .collect();
    format!("pg_catalog.hash_record_extended(row({}), 0)", values.join(", "))
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
    let columns =
        |alias: &str| place.iter().map(|c| format!("{alias}.{}", c.name)).collect::<Vec<_>>().join(", ");
    let side = |table: &str| {
        format!(
            "select {0}, count(*) as n, bit_xor({1}) as h from {table} r where {condition} group by {0}",
            columns("r"),
            row_hash("r", &b.table.columns, rows)
        )
    };
    let merged =
        place.iter().map(|c| format!("coalesce(s.{0}, t.{0}) as {0}", c.name)).collect::<Vec<_>>().join(", ");
    let text = place.iter().map(|c| format!("x.{}::text", c.name)).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "with s as materialized ({}),\n  t as materialized ({}),\n  pending as materialized (\n  {}\n),\n  \
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
        equal("s", "t", &place),
        equal("p", "x", &place),
        b.truncations(),
        literal(&sides.source.to_string()),
    );
    (sql, values)
}

/// How many rows of the target have the key given as text in `$1 …`.
pub fn occurrences(b: &Blueprint, sides: &Sides) -> String {
    let key = b.key_columns();
    let conditions: Vec<String> = key
        .iter()
        .enumerate()
        .map(|(i, c)| format!("{} = ${}::text::{}", c.name, i + 1, c.base_type))
        .collect();
    format!("select count(*) from {} where {}", sides.target, conditions.join(" and "))
}
