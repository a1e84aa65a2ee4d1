//! The drain: makes the target match the source at the places in the log, and deletes the log rows, with one snapshot.
//!
//! It does not depend on the order of changes, because its unit is a place (the values of the key and the partition
//! column), not a change. Every change at a place logs that place. A place without pending log rows therefore has the
//! same rows on both sides. For a place with pending log rows, the drain copies the current rows of the source.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::{Ident, QualifiedName, literal};
use crate::model::table::Column;

use super::capture::new_column;
use super::row_types::old_column;
use super::{equal, from_source, list};

/// The log rows that a batch processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// The rows in the blocks `[$1, $2)` of the log; both ends are `ctid` text.
    Blocks,
    /// All rows that are visible to the snapshot.
    All,
}

impl Batch {
    const BLOCKS: &str = "ctid >= $1::text::tid and ctid < $2::text::tid";

    /// The condition on log rows for a WHERE clause; none for all rows.
    fn condition(self) -> Option<&'static str> {
        match self {
            Self::Blocks => Some(Self::BLOCKS),
            Self::All => None,
        }
    }
}

/// The number of partitions in which one statement of a batch looks up places. With fewer, the fixed cost of the
/// statements exceeds the cost of the partition scans that they save; with 128, a drain over 1,000 partitions took 1.4
/// times as long.
const SLICE: usize = 32;

/// The distinct places in the log rows of a batch, under the source's column names.
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

/// Settings of a drain transaction. A batch has few places compared to the tables. Only a nested loop over the key of
/// the target prunes to the affected partitions, but without statistics, the planner would prefer to scan the tables.
/// The plan does not depend on the values, so it is cached: with many partitions, planning takes longer than execution.
pub const SETTINGS: &str = "set local enable_hashjoin = off; set local enable_mergejoin = off; \
    set local enable_seqscan = off; set local plan_cache_mode = force_generic_plan";

/// Deletes the rows at the places from the target.
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

/// Inserts the current rows of the source at the places into the target.
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

/// Conditions that together cover every place exactly once. Each is limited to about [`SLICE`] partitions, so that the
/// planner excludes the others: for every place, the server iterates over all partitions of its plan, even those that
/// it prunes. Returns one empty condition if there are few partitions, or if the side to search, `alias`, is not
/// `partitioned`.
fn slices(b: &Blueprint, alias: &str, partitioned: bool) -> Vec<String> {
    let by = b.by_column().filter(|_| partitioned);
    let cuts: Vec<&str> =
        b.partitions.chunks(SLICE).skip(1).filter_map(|c| Some(c.first()?.from.as_str())).collect();
    let (Some(by), false) = (by, cuts.is_empty()) else { return vec![String::new()] };
    // Each condition has the range for both sides: the planner derives it for the other side only from an equality.
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

/// Deletes the log rows.
pub fn forget(b: &Blueprint, batch: Batch) -> String {
    let condition = batch.condition().map_or(String::new(), |c| format!(" where {c}"));
    format!("delete from {}{condition}", b.log())
}

/// The relations that were truncated according to the log: the oid of the source, or of a leaf.
pub fn truncated(b: &Blueprint) -> String {
    format!("select distinct relation from {}", b.truncations())
}

/// Deletes the truncations that are visible to the snapshot.
pub fn forget_truncations(b: &Blueprint) -> String {
    format!("delete from {}", b.truncations())
}

/// Truncates the target after the source was truncated. Applications do not use the target, so the lock blocks no
/// session.
pub fn empty_target(b: &Blueprint, direction: Direction) -> String {
    format!("truncate {}", b.sides(direction).target)
}

/// Whether the role may truncate the relation with oid `$1`. An owner can revoke the privilege from itself.
pub const MAY_TRUNCATE: &str = "select pg_catalog.has_table_privilege($1::oid, 'TRUNCATE')";

/// Like [`empty_target`], for a role without the privilege TRUNCATE.
pub fn delete_from_target(b: &Blueprint, direction: Direction) -> String {
    format!("delete from {}", b.sides(direction).target)
}

/// Drops the target, to copy again. Without CASCADE: objects of others may depend on it.
pub fn drop_target(b: &Blueprint) -> String {
    format!("drop table {}", b.sides(Direction::Forward).target)
}

/// Deletes the rows of a truncated leaf of the source from the target; `constraint` is the partition constraint of
/// that leaf.
pub fn empty_leaf(b: &Blueprint, direction: Direction, constraint: &str) -> String {
    format!("delete from {} where {constraint}", b.sides(direction).target)
}

/// The partition constraint of the leaf with oid `$1`; null if it is no longer a leaf.
pub const LEAF_CONSTRAINT: &str = "select pg_catalog.pg_get_partition_constraintdef($1::oid)";

/// The length of the log in blocks, and whether it has a visible row.
pub fn pending(b: &Blueprint) -> String {
    let log = b.log();
    format!(
        "select pg_catalog.pg_relation_size('{0}'::regclass) / pg_catalog.current_setting('block_size')::bigint, \
         exists (select from {log}) or exists (select from {1})",
        log.to_string().replace('\'', "''"),
        b.truncations()
    )
}

/// The number of log rows from a block on; `$1` is the first place in that block, as `ctid` text.
pub fn rows_from(b: &Blueprint) -> String {
    format!("select pg_catalog.count(*) from {} where ctid >= $1::text::tid", b.log())
}

/// The number of pending log rows.
pub fn pending_count(b: &Blueprint) -> String {
    format!("select pg_catalog.count(*) from {}", b.log())
}

/// The smallest and the largest partition value among the pending new places outside all partitions; `$1` and `$2`
/// are the ends of the range that the partitions cover.
pub fn outside(b: &Blueprint) -> Option<String> {
    let by = b.by_column()?;
    let (column, base) = (new_column(by), &by.base_type);
    Some(format!(
        "select min({column})::text, max({column})::text from {} where {column} < $1::{base} or {column} >= $2::{base}",
        b.log()
    ))
}

/// The scrub: deletes every row whose place is in the log from the blocks `[$1, $2)` of `leaf`. A row that was copied
/// twice, or that changed after it was copied, changed after the capture began, so its place is in the log.
pub fn scrub(b: &Blueprint, leaf: &QualifiedName) -> String {
    format!(
        "delete from {leaf} t using (\n  {}\n) d\nwhere {}\n  and t.ctid >= $1::text::tid and t.ctid < $2::text::tid",
        places(b, Batch::All),
        equal("t", "d", &b.place_columns())
    )
}

/// The leaves that contain places in the log, as positions in the ascending bounds `$1` (as text); 0 is below the first
/// bound.
pub fn scrubbed_leaves(b: &Blueprint) -> Option<String> {
    let by = b.by_column()?;
    Some(format!(
        "select distinct pg_catalog.width_bucket(d.{}, $1::text[]::{}[]) from (\n  {}\n) d",
        by.name,
        by.base_type,
        places(b, Batch::All)
    ))
}

/// Removes dead rows of the log. Not in a transaction. With `shrink`, VACUUM truncates empty blocks at the end of the
/// log: it acquires the required lock only if no session holds a conflicting one, and releases it within 20 ms after
/// another session requests it. If autovacuum is already processing the log, the statement does nothing.
pub fn vacuum_log(b: &Blueprint, shrink: bool) -> String {
    format!("vacuum (truncate {shrink}, skip_locked) {}", b.log())
}

/// Compacts the blocks `[$1, $2)` of the log: deletes their rows and inserts one row for each place in them. This is
/// one statement, so that every snapshot sees each place as pending. Returns the numbers of deleted and of inserted
/// rows.
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
    fn slices_cover_all_values_without_overlaps() {
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
