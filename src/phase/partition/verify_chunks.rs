//! Divides the two tables into ranges for a comparison: contiguous, unbounded at both ends, and cheap to read on both
//! sides. Any bounds are correct, because every value is in exactly one range; their choice only affects the speed.
//! NULLs would be in no range, but there are none: `check` requires NOT NULL for the key and the partition column.

use std::collections::HashMap;

use crate::error::Result;
use crate::model::blueprint::{Blueprint, Direction, Sides};
use crate::model::ident::{Ident, QualifiedName};
use crate::model::key::{Key, KeyRange};
use crate::model::table::Column;
use crate::pg::catalog;
use crate::phase::job::chunks;
use crate::phase::partition::PartitionJob;
use crate::phase::partition::copy::FOLLOWS_HEAP;
use crate::sql::{from_source, verify as sql};

/// The partition column is not suitable if more rows than this share a value, because a range cannot end between
/// them.
const MOST_ALIKE: f64 = 5_000.0;

/// The columns that define the ranges.
#[derive(Debug)]
pub(super) struct Dimension<'b> {
    /// An index of the source begins with them.
    pub(super) columns: Vec<&'b Column>,
    /// Whether the order of that index differs from that of the heap. In that case, smaller ranges read each page more
    /// often.
    pub(super) scattered: bool,
    partitioned: bool,
}

/// The distribution of a column in the plain table.
#[derive(Default)]
struct Distribution {
    follows_heap: bool,
    rows_alike: Option<f64>,
}

async fn distribution(context: &PartitionJob, plain: &QualifiedName, column: &Ident) -> Result<Distribution> {
    let names = [plain.schema.as_str(), plain.name.as_str(), column.as_str()];
    let row = context.control.query_opt(sql::LIE, &[&names[0], &names[1], &names[2]]).await?;
    Ok(row.map_or_else(Distribution::default, |row| Distribution {
        follows_heap: row.get::<_, Option<f32>>(0).is_some_and(|c| c.abs() >= FOLLOWS_HEAP),
        rows_alike: row.get(1),
    }))
}

/// Chooses the columns. The partition column, if an index begins with it: then each range is in few partitions, and
/// their bounds are known. Otherwise the key; also if only the index of the key has the order of the heap.
///
/// # Errors
/// The server returned an error.
pub(super) async fn dimension<'b>(context: &PartitionJob, b: &'b Blueprint) -> Result<Dimension<'b>> {
    let sides = b.sides(context.direction());
    let plain = if sides.plain_source { &sides.source } else { &sides.target };
    let key = match b.key.first() {
        Some(first) => distribution(context, plain, first).await?,
        None => Distribution::default(),
    };
    let indexed = b.table.indexes.iter().any(|i| {
        i.valid
            && !i.partial
            && i.tail.starts_with("btree")
            && i.columns.as_ref().is_some_and(|c| c.first() == Some(&b.by))
    });
    if let Some(column) = b.by_column().filter(|_| indexed) {
        let by = distribution(context, plain, &b.by).await?;
        if by.rows_alike.is_some_and(|n| n <= MOST_ALIKE) && (by.follows_heap || !key.follows_heap) {
            return Ok(Dimension { columns: vec![column], scattered: !by.follows_heap, partitioned: true });
        }
    }
    Ok(Dimension { columns: b.key_columns(), scattered: !key.follows_heap, partitioned: false })
}

/// Divides the tables into ranges of about `rows()` rows, and passes them to `send`, in order. If the partition column
/// defines the ranges, they consist of whole partitions where the server knows their number of rows: otherwise, the
/// search for bounds in the index takes a seventh of the time of the comparison.
///
/// # Errors
/// The server or `send` returned an error.
pub(super) async fn cut(
    context: &PartitionJob,
    b: &Blueprint,
    dimension: &Dimension<'_>,
    rows: impl Fn() -> u64,
    mut send: impl AsyncFnMut(KeyRange) -> Result<()>,
) -> Result<()> {
    let sides = b.sides(context.direction());
    let (from, columns) = (from_source(&sides), &dimension.columns);
    if !dimension.partitioned {
        let whole = KeyRange { after: None, through: None };
        return chunks::for_each_range(
            context,
            (&sides.source, &from),
            columns,
            whole,
            &rows,
            async |range, _| send(range).await,
        )
        .await;
    }
    let known = leaf_rows(context, &sides).await?;
    let rows_of = |leaf: &QualifiedName| known.get(leaf).copied().flatten().unwrap_or(f64::INFINITY);
    // The rows of the default partition are below the first partition or above the last.
    let stray = b.default.as_ref().map_or(0.0, rows_of);
    let mut piece = async |range: KeyRange, held: f64| {
        if held <= rows() as f64 {
            return send(range).await;
        }
        chunks::for_each_range(context, (&sides.source, &from), columns, range, &rows, async |range, _| {
            send(range).await
        })
        .await
    };
    let (mut after, mut held): (Option<Key>, f64) = (None, stray);
    for partition in &b.partitions {
        let here = rows_of(&partition.name);
        let most = rows() as f64;
        let from = Some(vec![partition.from.clone()]);
        if held + here > most && after != from {
            let range = KeyRange { after: after.take(), through: from.clone() };
            piece(range, held).await?;
            (after, held) = (from, 0.0);
        }
        if here > most && partition.to != "maxvalue" {
            let to = Some(vec![partition.to.clone()]);
            piece(KeyRange { after: after.take(), through: to.clone() }, here).await?;
            after = to;
        } else {
            held += here;
        }
    }
    piece(KeyRange { after, through: None }, held + stray).await
}

/// The estimated number of rows of each partition; none if it is not known.
async fn leaf_rows(context: &PartitionJob, sides: &Sides) -> Result<HashMap<QualifiedName, Option<f64>>> {
    let partitioned = match context.direction() {
        Direction::Forward => &sides.target,
        Direction::Reverse => &sides.source,
    };
    let oid = catalog::must_find(&context.control, partitioned).await?;
    let rows = context.control.query(sql::LEAF_ROWS, &[&oid]).await?;
    Ok(rows
        .iter()
        .map(|r| (QualifiedName::new(r.get::<_, &str>(0), r.get::<_, &str>(1)), r.get(2)))
        .collect())
}
