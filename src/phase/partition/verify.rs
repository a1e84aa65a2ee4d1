//! Verifies that the target matches the source. The invariant: with any snapshot taken after the first complete drain,
//! a place without pending changes has the same rows on both sides.
//!
//! Writes can therefore continue during the comparison. It compares range by range, each with one snapshot of both
//! sides. The ranges are contiguous and unbounded at both ends, so that extra rows are also found.
//!
//! - Step 1: compare the count and hash of both sides. If they match, the range is proven.
//! - Step 2: if they differ, subtract the rows at places with pending changes from the sums, with the same snapshot:
//!   the invariant does not apply to these places. If the sums now match, the range is proven. Under load, this is
//!   the usual case; it reads only a few keys.
//! - Step 3: if they still differ, compare the rows one by one, without the places with pending changes, with a new
//!   snapshot after a drain (after a TRUNCATE, everything is pending), up to three times. What still differs is a
//!   mismatch.
//!
//! No conclusion depends on more than one snapshot, so each snapshot can be short: a range is one transaction of about
//! the plan's batch time, and the comparison does not hold back VACUUM.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::error::Result;
use crate::event::{PhaseOutcome, TableWork};
use crate::failpoint;
use crate::model::blueprint::{Blueprint, Direction, Sides};
use crate::model::key::{Key, KeyRange};
use crate::model::sizer::ChunkSizer;
use crate::model::state::{State, Step};
use crate::model::table::Column;
use crate::model::untrusted_code::Access;
use crate::model::verify_report::{EXAMPLES_MAX, Example, MismatchKind, VerifyReport};
use crate::pg::catalog;
use crate::pg::transaction::{REPEATABLE_READ, query_text, transaction};
use crate::phase::job::kind::differs;
use crate::phase::job::meter::Meter;
use crate::phase::job::{chunks, workers};
use crate::phase::partition::deficit::Deficit;
use crate::phase::partition::{PartitionJob, capture, drain, key_tables, verify_chunks};
use crate::sql::{copy as copy_sql, drain as drain_sql, from_source, store as store_sql, verify as sql};

/// The size of the first ranges in bytes, estimated from the mean size of a row.
const FIRST_BYTES: i64 = 64 << 20;
/// The number of rows of the first ranges if the server has no statistics for the table.
const FIRST_ROWS: u64 = 20_000;
/// The maximum number of rows of a range.
const MOST_ROWS: u64 = 1_000_000;
/// The number of rows that are compared one by one at once: the server keeps them in memory.
const ROWS_ONE_BY_ONE: u64 = 100_000;
/// How often changes are drained while sums are computed: pending changes slow the comparison, and the log must not
/// grow.
const DRAIN: Duration = Duration::from_secs(5);
/// The maximum number of mismatches that are listed for one range.
const NAMED: u32 = 100;
/// How often a range that differs is drained and compared before a difference counts as a mismatch.
const LOOKS: u32 = 3;

/// Proof that this process compared both sides and that they match. Only [`verify`] creates it; a swap requires it.
#[derive(Debug)]
pub struct Verified(());

/// One place with a mismatch.
#[derive(Debug, Clone)]
struct DifferingPlace {
    key: Key,
    place: String,
    source: i64,
    target: i64,
}

/// The mismatches in a range, or in total: a list of some, and the number of each kind.
#[derive(Debug, Default)]
struct Differing {
    named: Vec<DifferingPlace>,
    missing: i64,
    extra: i64,
    different: i64,
}

impl Differing {
    fn add(&mut self, other: Self) {
        self.named.extend(other.named);
        self.missing += other.missing;
        self.extra += other.extra;
        self.different += other.different;
    }
}

/// Sums over ranges.
#[derive(Debug, Default)]
struct RangeTotals {
    rows_source: u64,
    rows_target: u64,
    suspects: Vec<KeyRange>,
}

/// The phase: drains, compares, and records the result.
///
/// # Errors
/// The sides do not match; or the server returned an error.
pub async fn verify(context: &PartitionJob) -> Result<(State, Verified, VerifyReport)> {
    let report = compare(context).await?;
    if !report.verified {
        return Err(differs(&report));
    }
    context.control.execute(store_sql::RECORD_VERIFIED, &[&context.job.id]).await?;
    failpoint!("verify.recorded");
    let state = context.advance(&context.control, Step::Verify).await?;
    failpoint!("verify.done");
    Ok((state, Verified(()), report))
}

/// Drains and compares both sides without changing the job's state.
///
/// # Errors
/// The server returned an error. A mismatch is not an error.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "verify"))]
pub async fn compare(context: &PartitionJob) -> Result<VerifyReport> {
    capture::in_force(context).await?;
    capture::watch_leaves(context).await?;
    let b = context.blueprint();
    let sides = b.sides(context.direction());
    let (source, target) = (sides.source.plain(), sides.target.plain());
    let mut meter = Meter::begin(context, TableWork::CompareTables { source, target });
    meter.count("changes", 0, 0);
    drain::catch_up(context, &meter).await?;
    let dimension = verify_chunks::dimension(context, &b).await?;
    let size = async || {
        let client = &context.control;
        catalog::size(client, catalog::must_find(client, &b.table.name).await?).await
    };
    let (rows, bytes, _) =
        context.retrying(&format!("read the size of {}", b.table.name.plain()), size).await?;
    meter.count("rows", u64::try_from(rows).unwrap_or(0), 0);
    let sizer = sizer(context, &dimension, rows, bytes);
    let tally = sums(context, &b, &dimension, sizer, &meter).await?;
    key_tables::compare(context).await?;
    let suspects = tally.suspects.len();
    let findings = look_again(context, &b, &dimension.columns, tally.suspects, &meter).await?;
    let report = report(context, &b, &sides, &findings, tally.rows_source, tally.rows_target).await?;
    let VerifyReport { missing, extra, different, .. } = report;
    meter.end(if report.verified {
        PhaseOutcome::TablesMatch { rows: report.rows_in_use, ranges: suspects as u64 }
    } else {
        PhaseOutcome::TablesDiffer { missing, extra, different }
    });
    Ok(report)
}

/// The sizer for ranges. Each takes about the plan's batch time, and there are enough of them that the workers finish
/// at about the same time. If the ranges are scattered over the heap, there are fewer, because each reads many pages.
fn sizer(
    context: &PartitionJob,
    dimension: &verify_chunks::Dimension<'_>,
    rows: i64,
    bytes: i64,
) -> RefCell<ChunkSizer> {
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    let first = match rows {
        // The table was never analyzed.
        0 => FIRST_ROWS,
        _ => count(FIRST_BYTES / (bytes / rows).max(1)).clamp(1_000, 100_000),
    };
    let shares = context.gate.workers() * if dimension.scattered { 1 } else { 4 };
    let most = match rows {
        0 => MOST_ROWS,
        _ => (count(rows) / shares as u64 + 1).clamp(first, MOST_ROWS),
    };
    let target_ms = context.gate.plan().target_batch().as_secs_f64() * 1000.0;
    RefCell::new(ChunkSizer::new(first, 500, most, target_ms))
}

/// Computes the sums of every range. A range that they do not prove is suspect.
async fn sums(
    context: &PartitionJob,
    b: &Blueprint,
    dimension: &verify_chunks::Dimension<'_>,
    sizer: RefCell<ChunkSizer>,
    meter: &Meter<'_>,
) -> Result<RangeTotals> {
    let tally = RefCell::new(RangeTotals::default());
    let drained = Cell::new(Instant::now());
    let deficit = Deficit::default();
    workers::run(
        context,
        context.plan.workers(),
        |_| format!("verify a range of {}", b.table.name.plain()),
        async |items| {
            let rows = || sizer.borrow().rows();
            let send = async |range| {
                if drained.get().elapsed() >= DRAIN {
                    drain::once(context, &deficit).await?;
                    drained.set(Instant::now());
                }
                items.send(range).await
            };
            verify_chunks::cut(context, b, dimension, rows, send).await
        },
        async |session, range| {
            let began = Instant::now();
            let (sums, proven) = prove(context, session, b, &dimension.columns, range).await?;
            let count = |n: i64| u64::try_from(n).unwrap_or(0);
            let rows = count(sums.source.0);
            let mut tally = tally.borrow_mut();
            tally.rows_source += rows;
            tally.rows_target += count(sums.target.0);
            if !proven {
                tally.suspects.push(range.clone());
            }
            drop(tally);
            sizer.borrow_mut().observe(rows, began.elapsed().as_secs_f64() * 1000.0);
            meter.add(rows);
            failpoint!("verify.range");
            Ok(())
        },
    )
    .await?;
    Ok(tally.into_inner())
}

/// The count and hash of the rows of each side.
#[derive(Debug, Clone, Copy)]
struct Sums {
    source: (i64, i64),
    target: (i64, i64),
}

impl Sums {
    async fn ask(client: &Client, (statement, values): (String, Vec<String>)) -> Result<Self> {
        let row = query_text(client, &statement, &values).await?.remove(0);
        Ok(Self { source: (row.get(0), row.get(1)), target: (row.get(2), row.get(3)) })
    }

    /// Whether both sides match without the rows `some`, which these sums include.
    fn same_without(self, some: Self) -> bool {
        let rest = |all: (i64, i64), some: (i64, i64)| (all.0 - some.0, all.1 ^ some.1);
        rest(self.source, some.source) == rest(self.target, some.target)
    }
}

/// Returns the sums of a range, and whether they prove that every place in it without pending changes has the same rows
/// on both sides.
async fn prove(
    context: &PartitionJob,
    client: &Client,
    b: &Blueprint,
    by: &[&Column],
    range: &KeyRange,
) -> Result<(Sums, bool)> {
    let (direction, rows) = (context.direction(), context.partitioning.verify);
    at_one_snapshot(context, client, &b.sides(direction), async |client| {
        let sums = Sums::ask(client, sql::summary(b, direction, by, range, rows)).await?;
        if sums.source == sums.target {
            return Ok((sums, true));
        }
        client.batch_execute(drain_sql::SETTINGS).await?;
        let pending = Sums::ask(client, sql::pending(b, direction, by, range, rows)).await?;
        Ok((sums, sums.same_without(pending)))
    })
    .await
}

/// Compares suspect ranges row by row. Ranges that differ are drained and compared again; only what still differs
/// counts.
async fn look_again(
    context: &PartitionJob,
    b: &Blueprint,
    by: &[&Column],
    mut suspects: Vec<KeyRange>,
    meter: &Meter<'_>,
) -> Result<Differing> {
    let sides = b.sides(context.direction());
    let mut found = Vec::new();
    for _ in 0..LOOKS {
        if suspects.is_empty() {
            break;
        }
        drain::catch_up(context, meter).await?;
        let results: RefCell<Vec<(KeyRange, Differing)>> = RefCell::default();
        workers::run(
            context,
            context.plan.workers(),
            |_| format!("compare rows of {}", b.table.name.plain()),
            async |items| {
                let send = async |range, _| items.send(range).await;
                for range in &suspects {
                    chunks::for_each_range(
                        context,
                        (&sides.source, &from_source(&sides)),
                        by,
                        range.clone(),
                        || ROWS_ONE_BY_ONE,
                        send,
                    )
                    .await?;
                }
                Ok(())
            },
            async |session, range| {
                let findings = differences(context, session, b, by, range).await?;
                if !findings.named.is_empty() {
                    results.borrow_mut().push((range.clone(), findings));
                }
                Ok(())
            },
        )
        .await?;
        (suspects, found) = results.into_inner().into_iter().unzip();
    }
    let mut all = Differing::default();
    found.into_iter().for_each(|range| all.add(range));
    Ok(all)
}

async fn differences(
    context: &PartitionJob,
    client: &Client,
    b: &Blueprint,
    by: &[&Column],
    range: &KeyRange,
) -> Result<Differing> {
    let direction = context.direction();
    let (statement, values) = sql::differences(b, direction, by, range, context.partitioning.verify, NAMED);
    let rows = at_one_snapshot(context, client, &b.sides(direction), async |client| {
        query_text(client, &statement, &values).await
    })
    .await?;
    let (places, keys) = (b.place_columns(), b.key_columns());
    let at = places.iter().position(|c| c.name == b.by).unwrap_or(0);
    let count = |column: usize| rows.first().map_or(0, |r| r.get(places.len() + 2 + column));
    Ok(Differing {
        missing: count(0),
        extra: count(1),
        different: count(2),
        named: rows
            .iter()
            .map(|r| DifferingPlace {
                key: (0..keys.len()).map(|i| r.get(i)).collect(),
                place: r.get(at),
                source: r.get(places.len()),
                target: r.get(places.len() + 1),
            })
            .collect(),
    })
}

/// Runs `work` in a transaction with one snapshot. The tables are locked first, so that no TRUNCATE can invalidate the
/// snapshot.
async fn at_one_snapshot<T>(
    context: &PartitionJob,
    client: &Client,
    sides: &Sides,
    work: impl AsyncFnOnce(&Client) -> Result<T>,
) -> Result<T> {
    transaction(client, REPEATABLE_READ, async |client| {
        client.batch_execute(&copy_sql::lock_against_truncate(sides)).await?;
        let both = [sides.source.clone(), sides.target.clone()];
        context.check_untrusted_code(client, &both, Access::Reads).await?;
        work(client).await
    })
    .await
}

async fn report(
    context: &PartitionJob,
    b: &Blueprint,
    sides: &Sides,
    differing: &Differing,
    rows_source: u64,
    rows_target: u64,
) -> Result<VerifyReport> {
    let pending: i64 = context.control.query_one(&drain_sql::pending_count(b), &[]).await?.get(0);
    let findings = &differing.named;
    let missing: HashSet<&Key> = findings.iter().filter(|f| f.target == 0).map(|f| &f.key).collect();
    let extra: HashSet<&Key> = findings.iter().filter(|f| f.source == 0).map(|f| &f.key).collect();
    let mut examples = Vec::new();
    for finding in findings.iter().take(EXAMPLES_MAX) {
        let moved = missing.contains(&finding.key) && extra.contains(&finding.key);
        let kind = match (finding.source, finding.target) {
            _ if moved => MismatchKind::PartitionColumnDiffers,
            (_, 0) => MismatchKind::Missing,
            (0, _) if occurrences(context, b, sides, &finding.key).await? > 1 => MismatchKind::Duplicate,
            (0, _) => MismatchKind::Extra,
            (s, t) if t > s => MismatchKind::Duplicate,
            _ => MismatchKind::Different,
        };
        examples.push(Example { kind, key: finding.key.join(", "), place: Some(finding.place.clone()) });
    }
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    Ok(VerifyReport {
        job: context.job.name.clone(),
        sides: "tables",
        swapped: context.direction() == Direction::Reverse,
        rows_in_use: rows_source,
        rows_inactive: rows_target,
        missing: count(differing.missing),
        extra: count(differing.extra),
        different: count(differing.different),
        pending: count(pending),
        verified: findings.is_empty(),
        examples,
    })
}

async fn occurrences(context: &PartitionJob, b: &Blueprint, sides: &Sides, key: &Key) -> Result<i64> {
    let statement = sql::occurrences(b, sides);
    let read = async |client: &Client| query_text(client, &statement, key).await;
    let rows = context.reading(&context.control, &[sides.source.clone(), sides.target.clone()], read).await?;
    Ok(rows.first().map_or(0, |r| r.get(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_can_be_subtracted_from_sums() {
        let (a, b, c) = (0x1234_5678_i64, -99, i64::MIN);
        let all = Sums { source: (3, a ^ b ^ c), target: (2, a ^ c) };
        assert!(all.same_without(Sums { source: (1, b), target: (0, 0) }));
        assert!(!all.same_without(Sums { source: (0, 0), target: (0, 0) }));
        assert!(!all.same_without(Sums { source: (1, c), target: (0, 0) }));
        // The hash alone is not enough: two rows with the same hash cancel each other out.
        assert!(!all.same_without(Sums { source: (2, b), target: (3, 0) }));
    }
}
