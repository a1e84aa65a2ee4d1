//! Verification: both sides of a range at one snapshot, first as count and hash, then row by row.

use crate::model::blueprint::{Blueprint, Direction, Sides};
use crate::model::ident::literal;
use crate::model::key::KeyRange;
use crate::model::table::Column;
use crate::plan::Rows;

use super::{drain, from_source, in_range};

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
    let conditions: Vec<String> = key
        .iter()
        .enumerate()
        .map(|(i, c)| format!("{} = ${}::text::{}", c.name, i + 1, c.base_type))
        .collect();
    format!("select count(*) from {} where {}", sides.target, conditions.join(" and "))
}
