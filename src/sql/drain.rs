//! The drain: makes the places that the log names on the target what they are on the source, and takes the log rows away,
//! all at one snapshot.
//!
//! Why it needs no order: the unit is a place (key and partition column), not a change. Every change to what stands at a
//! place logs that place, so a place without a pending log row is the same on both sides; and one with, is made the same
//! by reading the source again.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::{Ident, QualifiedName, literal};
use crate::model::table::Column;

use super::capture::{new_column, old_column};
use super::{equal, from_source, list};

/// Which log rows a batch takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// Those in the log's blocks `[$1, $2)`, both ends as `ctid` text.
    Blocks,
    /// All that the snapshot sees.
    All,
}

impl Batch {
    const BLOCKS: &str = "ctid >= $1::text::tid and ctid < $2::text::tid";

    /// The condition on log rows, as it stands behind WHERE; none for all.
    fn condition(self) -> Option<&'static str> {
        match self {
            Self::Blocks => Some(Self::BLOCKS),
            Self::All => None,
        }
    }
}

/// Partitions that one statement of a batch looks places up in. Fewer, and the statements' own cost weighs more than the passes
/// over partitions that they save; with 128, a drain over 1,000 took 1.4 times as long.
const SLICE: usize = 32;

/// The distinct places that the log rows of a batch name, under the source's column names.
pub(super) fn places(b: &Blueprint, batch: Batch) -> String {
    distinct_places(b, &b.log().to_string(), batch.condition().as_slice())
}

fn distinct_places(b: &Blueprint, log: &str, conditions: &[&str]) -> String {
    let place = b.place_columns();
    let half = |of: fn(&Column) -> Ident| {
        let columns: Vec<String> = place.iter().map(|c| format!("{} as {}", of(c), c.name)).collect();
        let present = place.first().map(|c| format!("{} is not null", of(c)));
        let all: Vec<String> = conditions.iter().map(|c| (*c).to_owned()).chain(present).collect();
        format!("select {} from {log} where {}", columns.join(", "), all.join(" and "))
    };
    format!("{}\n  union\n  {}", half(old_column), half(new_column))
}

/// Settings of a drain's transaction. Few places against large tables: only a nested loop over the target's key prunes to
/// the partitions that are touched, and a planner that knows no statistics yet would rather read everything. The plan does
/// not depend on the values, so it is made once and kept: over many partitions, planning takes longer than running.
pub const SETTINGS: &str = "set local enable_hashjoin = off; set local enable_mergejoin = off; \
    set local enable_seqscan = off; set local plan_cache_mode = force_generic_plan";

/// Clears the places on the target.
pub fn clear(b: &Blueprint, direction: Direction, batch: Batch) -> Vec<String> {
    let clear = |slice: String| {
        format!(
            "delete from {} t using (\n  {}\n) d\nwhere {}{slice}",
            b.sides(direction).target,
            places(b, batch),
            equal("t", "d", &b.place_columns())
        )
    };
    slices(b, "t", direction == Direction::Forward).into_iter().map(clear).collect()
}

/// Writes to the target what the source has at the places now.
pub fn fill(b: &Blueprint, direction: Direction, batch: Batch) -> Vec<String> {
    let sides = b.sides(direction);
    let columns: Vec<_> = b.table.written_columns().map(|c| &c.name).collect();
    let fill = |slice: String| {
        format!(
            "insert into {} ({}) overriding system value\nselect {}\nfrom (\n  {}\n) d join {} s on {}{slice}",
            sides.target,
            list("", columns.iter().copied()),
            list("s.", columns.iter().copied()),
            places(b, batch),
            from_source(&sides),
            equal("s", "d", &b.place_columns())
        )
    };
    slices(b, "s", direction == Direction::Reverse).into_iter().map(fill).collect()
}

/// Conditions that together let every place pass once: each keeps to some [`SLICE`] partitions, so that the planner leaves the
/// others out. For every place the server goes over all partitions of its plan, whichever it prunes to. One empty condition
/// where there are few, and where `alias`, the side that is looked up, is not `partitioned`.
fn slices(b: &Blueprint, alias: &str, partitioned: bool) -> Vec<String> {
    let by = b.by_column().filter(|_| partitioned);
    let cuts: Vec<&str> =
        b.partitions.chunks(SLICE).skip(1).filter_map(|c| Some(c.first()?.from.as_str())).collect();
    let (Some(by), false) = (by, cuts.is_empty()) else { return vec![String::new()] };
    // The planner carries over equality from one side to the other, but no range.
    let ends = |operator: &str, cut: Option<&&str>| {
        let end = |cut: &&str| {
            let value = format!("{}::{}", literal(cut), by.base_type);
            format!("\n  and {alias}.{0} {operator} {value} and d.{0} {operator} {value}", by.name)
        };
        cut.map_or(String::new(), end)
    };
    let first = std::iter::once(None).chain(cuts.iter().map(Some));
    first
        .zip(cuts.iter().map(Some).chain([None]))
        .map(|(from, to)| ends(">=", from) + &ends("<", to))
        .collect()
}

/// Takes the log rows away.
pub fn forget(b: &Blueprint, batch: Batch) -> String {
    let condition = batch.condition().map_or(String::new(), |c| format!(" where {c}"));
    format!("delete from {}{condition}", b.log())
}

/// Relations that were truncated, as capture saw them: the source's own oid, or a leaf's.
pub fn truncated(b: &Blueprint) -> String {
    format!("select distinct relation from {}", b.truncations())
}

/// Forgets the truncations that the snapshot sees.
pub fn forget_truncations(b: &Blueprint) -> String {
    format!("delete from {}", b.truncations())
}

/// Empties the target, after the source was truncated. Nobody but us uses it, so its lock harms nobody.
pub fn empty_target(b: &Blueprint, direction: Direction) -> String {
    format!("truncate {}", b.sides(direction).target)
}

/// Deletes from the target what belonged to a leaf of the source that was truncated; `constraint` is that leaf's.
pub fn empty_leaf(b: &Blueprint, direction: Direction, constraint: &str) -> String {
    format!("delete from {} where {constraint}", b.sides(direction).target)
}

/// The partition constraint of the leaf with oid `$1`; null where it is no longer one.
pub const LEAF_CONSTRAINT: &str = "select pg_catalog.pg_get_partition_constraintdef($1::oid)";

/// The log's length in blocks, and whether any row is visible.
pub fn pending(b: &Blueprint) -> String {
    let log = b.log();
    format!(
        "select pg_catalog.pg_relation_size('{0}'::regclass) / pg_catalog.current_setting('block_size')::bigint, \
         exists (select from {log}) or exists (select from {1})",
        log.to_string().replace('\'', "''"),
        b.truncations()
    )
}

/// How many log rows there are from a block on, whose first place is `$1`.
pub fn rows_from(b: &Blueprint) -> String {
    format!("select pg_catalog.count(*) from {} where ctid >= $1::text::tid", b.log())
}

/// How many log rows are pending.
pub fn pending_count(b: &Blueprint) -> String {
    format!("select pg_catalog.count(*) from {}", b.log())
}

/// Smallest and largest partition value among the pending new places that no partition takes: `$1` and `$2` are the ends
/// of what the partitions cover.
pub fn outside(b: &Blueprint) -> Option<String> {
    let by = b.by_column()?;
    let (column, base) = (new_column(by), &by.base_type);
    Some(format!(
        "select min({column})::text, max({column})::text from {} where {column} < $1::{base} or {column} >= $2::{base}",
        b.log()
    ))
}

/// The scrub: deletes from `leaf`'s blocks `[$1, $2)` every row whose place the log names. What was copied twice, or copied
/// and then changed, was changed since capture began, so it is in the log.
pub fn scrub(b: &Blueprint, leaf: &QualifiedName) -> String {
    format!(
        "delete from {leaf} t using (\n  {}\n) d\nwhere {}\n  and t.ctid >= $1::text::tid and t.ctid < $2::text::tid",
        places(b, Batch::All),
        equal("t", "d", &b.place_columns())
    )
}

/// Which leaves the log's places fall into, by the position in the ascending bounds `$1` (as text): 0 is below the first.
pub fn scrubbed_leaves(b: &Blueprint) -> Option<String> {
    let by = b.by_column()?;
    Some(format!(
        "select distinct pg_catalog.width_bucket(d.{}, $1::text[]::{}[]) from (\n  {}\n) d",
        by.name,
        by.base_type,
        places(b, Batch::All)
    ))
}

/// Sweeps up the log's dead rows. Not in a transaction. With `shrink`, empty blocks at its end go back to the system: for
/// that VACUUM takes the log's lock where it is free, and gives it back within 20 ms of somebody asking for it. Where
/// autovacuum is at it already, nothing is left to do.
pub fn vacuum_log(b: &Blueprint, shrink: bool) -> String {
    format!("vacuum (truncate {shrink}, skip_locked) {}", b.log())
}

/// Compacts the log's blocks `[$1, $2)`: takes their rows away and puts each place that they name back, once. One statement,
/// so that a place is pending before and after. Answers with how many rows are gone, and how many were put back.
pub fn compact(b: &Blueprint) -> String {
    let place = b.place_columns();
    let condition = Batch::BLOCKS;
    format!(
        "with gone as (delete from {0} where {condition} returning *),\n  put as (insert into {0} ({1})\n  {2}\n  returning 1)\n\
         select (select pg_catalog.count(*) from gone), (select pg_catalog.count(*) from put)",
        b.log(),
        place.iter().map(|c| new_column(c).to_string()).collect::<Vec<_>>().join(", "),
        distinct_places(b, "gone", &[])
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blueprint::Partition;
    use crate::model::blueprint::tests::blueprint;

    #[test]
    fn slices_meet_at_bounds_and_leave_nothing_out() {
        let mut b = blueprint();
        let part = |n: usize| Partition {
            name: QualifiedName::new("public", format!("p{n}")),
            from: n.to_string(),
            to: (n + 1).to_string(),
        };
        for partitions in [0, 1, SLICE, SLICE + 1, 3 * SLICE, 1000] {
            b.partitions = (0..partitions).map(part).collect();
            let all = slices(&b, "t", true);
            assert_eq!(all.len(), partitions.div_ceil(SLICE).max(1));
            for (n, slice) in all.iter().enumerate() {
                let end = |operator: &str, n: usize| format!("t.\"created_at\" {operator} '{}'::", n * SLICE);
                assert_eq!(slice.contains(" >= "), n > 0);
                assert_eq!(slice.contains(" < "), n + 1 < all.len());
                assert!(n == 0 || slice.contains(&end(">=", n)), "{slice}");
                assert!(n + 1 == all.len() || slice.contains(&end("<", n + 1)), "{slice}");
            }
            assert_eq!(slices(&b, "t", false), [""]);
        }
    }
}
