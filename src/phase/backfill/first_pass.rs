//! The first pass fills the table in chunks along the key. Each chunk is a short transaction that also adds a row to
//! the ledger. A chunk waits at most 20 ms for a row that another session has locked, and is then rolled back: it holds
//! other locks while it waits, and the application's transaction could become the victim of a deadlock. Such a row is
//! filled in a separate transaction that locks nothing else, or is left to the second pass.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Row};

use crate::error::{Error, Result, Retry};
use crate::event::{ColumnWork, PhaseOutcome};
use crate::failpoint;
use crate::model::ident::QualifiedName;
use crate::model::key::{Key, KeyRange};
use crate::model::ledger_gaps::gaps;
use crate::model::sizer::ChunkSizer;
use crate::model::state::{State, Step};
use crate::model::untrusted_code::Access;
use crate::pg::connect::Session;
use crate::pg::store::{self, Chunk};
use crate::pg::transaction::{READ_COMMITTED, execute_text, query_text, transaction};
use crate::pg::{catalog, latency};
use crate::phase::job::meter::Meter;
use crate::phase::job::{chunks, workers};
use crate::sql::store::end_key;
use crate::sql::{copy as copy_sql, fill as sql, plan_sql};

use super::answer::{self, Counts, counts, key_of, named};
use super::{BackfillJob, in_force, leaves, unless_gone};

/// The minimum number of rows of a chunk, unless it is split because one of its rows cannot be filled. With fewer rows,
/// the fixed cost of a chunk exceeds that of its rows, and the pass would make no progress on a busy server.
const LEAST_ROWS: u64 = 50;
/// The maximum number of rows of a chunk: after a long part of the table without rows to fill, there can be a part in
/// which all rows must be filled.
const MOST_ROWS: u64 = 50_000;
/// The number of rows of the first chunk.
const FIRST_ROWS: u64 = 1_000;
/// The maximum number of locked rows that one chunk fills one by one; the others are left to the second pass.
const ONE_BY_ONE: u32 = 100;
/// If this many of them are still locked after a wait, the chunk leaves the others to the second pass.
const MOST_HELD: u32 = 3;
/// The step in the ledger for a chunk of the first pass.
const FILL: &str = "fill";
/// The step in the ledger for rows that were filled later.
pub(super) const LATE: &str = "late";

/// Fills the rows of every range that is missing in the ledger, one partition after the other.
///
/// # Errors
/// Stopped; the plan's SQL fails, or its condition still matches filled rows; or the server returned an error.
pub async fn pass(filler: &BackfillJob) -> Result<State> {
    let meter = filled(filler).await?;
    let state = filler.advance(&filler.control, Step::Fill).await?;
    failpoint!("fill.done");
    ended(filler, meter).await.map(|()| state)
}

/// Fills the rows; [`ended`] then reports their number.
#[tracing::instrument(name = "phase", level = "debug", skip_all, fields(name = "fill"))]
pub(super) async fn filled(filler: &BackfillJob) -> Result<Meter<'_>> {
    in_force(filler).await?;
    let f = &filler.filling;
    let oid = catalog::must_find(&filler.control, &f.table.name).await?;
    let reading = format!("read the size of {}", f.table.name.plain());
    let (rows, ..) = filler.retrying(&reading, async || catalog::size(&filler.control, oid).await).await?;
    let done: i64 =
        store::chunk_times(&filler.control, filler.job.id).await?.iter().map(|(rows, _)| rows).sum();
    let columns = f.set.iter().map(|(name, _)| crate::model::ident::plain(name.as_str())).collect::<Vec<_>>();
    let (table, workers) = (f.table.name.plain(), filler.gate.workers() as u64);
    let mut meter = Meter::begin(filler, ColumnWork::FillRows { table, columns, workers });
    meter.count("rows", u64::try_from(rows).unwrap_or(0), u64::try_from(done).unwrap_or(0));
    let pass = Pass::of(filler);
    let leaves = leaves(filler).await?;
    tokio::select! {
        done = pass.all(&leaves, &meter) => done?,
        kept = meter.beat() => kept?,
    }
    failpoint!("fill.chunks_done");
    Ok(meter)
}

pub(super) async fn ended(filler: &BackfillJob, meter: Meter<'_>) -> Result<()> {
    let chunks = latency::of_chunks(&filler.control, filler.job.id).await?;
    let rows = store::rows_filled(&filler.control, filler.job.id).await?;
    meter.end(PhaseOutcome::RowsFilled { rows, chunks });
    Ok(())
}

fn sizer() -> ChunkSizer {
    ChunkSizer::new(FIRST_ROWS, LEAST_ROWS, MOST_ROWS, 1.0)
}

/// State that the chunks of one pass share.
pub(super) struct Pass<'a> {
    pub(super) filler: &'a BackfillJob,
    pub(super) sizer: RefCell<ChunkSizer>,
    /// Whether a chunk has verified that the condition no longer matches rows that were filled. This detects a plan
    /// that would never end in the first chunk.
    pub(super) proven: Cell<bool>,
    /// The statement that must follow each statement with the plan's SQL.
    look_up_again: String,
}

impl<'a> Pass<'a> {
    pub(super) fn of(filler: &'a BackfillJob) -> Self {
        let look_up_again = plan_sql::look_up_again(&filler.filling.sql);
        Self { filler, sizer: RefCell::new(sizer()), proven: Cell::new(false), look_up_again }
    }

    async fn all(&self, leaves: &[QualifiedName], meter: &Meter<'_>) -> Result<()> {
        for leaf in leaves {
            unless_gone(self.filler, leaf, self.one_leaf(leaf, meter).await).await?;
        }
        Ok(())
    }

    async fn one_leaf(&self, leaf: &QualifiedName, meter: &Meter<'_>) -> Result<()> {
        let filler = self.filler;
        let key = filler.filling.key_columns();
        let done =
            store::finished(&filler.control, filler.job.id, Some(&leaf.to_string()), &end_key(&key)).await?;
        let left = gaps(&done, None);
        let from = format!("only {leaf}");
        workers::run(
            filler,
            filler.plan.workers(),
            |_| format!("fill a chunk of {}", leaf.plain()),
            async |items| {
                let send = async |range, rows| items.send((range, rows)).await;
                for gap in left {
                    chunks::for_each_range(
                        filler,
                        (leaf, &from),
                        &key,
                        gap,
                        || self.sizer.borrow().rows(),
                        send,
                    )
                    .await?;
                }
                Ok(())
            },
            async |session, (range, expected)| {
                let counts = self.paced(session, leaf, range, *expected, FILL).await?;
                meter.add(counts.seen);
                failpoint!("fill.chunk");
                meter.keep().await
            },
        )
        .await
    }

    /// Fills a range when the gate permits it, in halves if the server rejects the whole range.
    pub(super) async fn paced(
        &self,
        session: &Session,
        leaf: &QualifiedName,
        range: &KeyRange,
        expected: u64,
        step: &'static str,
    ) -> Result<Counts> {
        let gate = &self.filler.gate;
        let permit = tokio::select! {
            permit = gate.admit_chunk(expected, 100.0) => permit,
            () = self.filler.interrupted() => {
                self.filler.check_stop()?;
                return Ok(Counts::default());
            }
        };
        let counts = self.halving(session, leaf, range, expected, step).await?;
        permit.done(counts.filled);
        self.observe(expected, counts.held);
        if counts.to_fill > counts.filled {
            self.one_by_one(session, leaf, range).await?;
        }
        Ok(counts)
    }

    /// Adjusts the number of rows by the time for which rows were locked. The time for the plan's `from` does not
    /// count: it does not depend on the number of rows, and smaller chunks would only repeat it more often.
    fn observe(&self, rows: u64, took: Duration) {
        let gate = &self.filler.gate;
        let mut sizer = self.sizer.borrow_mut();
        sizer.aim(gate.plan().target_batch().as_secs_f64() * 1000.0, MOST_ROWS.min(gate.most_rows(100.0)));
        if gate.must_shrink() {
            sizer.shrink();
        } else {
            sizer.observe(rows, took.as_secs_f64() * 1000.0);
        }
    }

    /// Fills a range. A chunk that was certainly rolled back (deadlock, timeout) is repeated as two halves, down to
    /// single rows. A single row that still fails is left to the second pass, which waits longer. A chunk that fails
    /// because of one row is also repeated in halves, to find that row.
    async fn halving(
        &self,
        session: &Session,
        leaf: &QualifiedName,
        range: &KeyRange,
        rows: u64,
        step: &'static str,
    ) -> Result<Counts> {
        let (mut sum, mut left) = (Counts::default(), vec![(range.clone(), rows)]);
        while let Some((range, rows)) = left.pop() {
            match self.chunk(session, leaf, &range, rows, step).await {
                Ok(counts) => sum.add(counts),
                Err(e) if e.retry_class() == Retry::Again || e.is_about_a_row() => {
                    tracing::debug!(rows, error = %e, "the chunk is split");
                    self.filler.check_stop()?;
                    match self.middle(session, leaf, &range, rows).await? {
                        Some((middle, below)) => {
                            let upper =
                                KeyRange { after: Some(middle.clone()), through: range.through.clone() };
                            left.push((upper, rows.saturating_sub(below).max(1)));
                            left.push((KeyRange { after: range.after, through: Some(middle) }, below));
                        }
                        None if e.retry_class() == Retry::Again => {
                            sum.add(self.pass_by(session, leaf, &range, step).await?);
                        }
                        None => return Err(self.refused(session, leaf, &range, e).await),
                    }
                }
                Err(e) => return Err(e),
            }
        }
        Ok(sum)
    }

    /// The key in the middle of a range, and the number of rows up to it; none if the range has only one row.
    async fn middle(
        &self,
        session: &Session,
        leaf: &QualifiedName,
        range: &KeyRange,
        rows: u64,
    ) -> Result<Option<(Key, u64)>> {
        let (from, key) = (format!("only {leaf}"), self.filler.filling.key_columns());
        // The expected number of rows can be wrong: the last range is unbounded, and rows may have been added or
        // deleted.
        for rows in [(rows / 2).max(1), 1] {
            let (statement, values) = copy_sql::boundary(&from, &key, range, rows);
            let found = self
                .filler
                .retrying(&format!("find the middle of a chunk of {}", leaf.plain()), async || {
                    let read = async |client: &Client| query_text(client, &statement, &values).await;
                    self.filler.reading(session, std::slice::from_ref(leaf), read).await
                })
                .await?;
            let middle = found.first().map(key_of);
            if let Some(middle) = middle.filter(|key| range.through.as_ref() != Some(key)) {
                return Ok(Some((middle, rows)));
            }
        }
        Ok(None)
    }

    /// Records in the ledger that the pass has processed a row that cannot be filled now.
    async fn pass_by(
        &self,
        session: &Session,
        leaf: &QualifiedName,
        range: &KeyRange,
        step: &'static str,
    ) -> Result<Counts> {
        let counts = Counts { seen: 1, to_fill: 1, ..Counts::default() };
        transaction(session, READ_COMMITTED, async |client| {
            self.filler.hold_epoch(client).await?;
            self.record(client, leaf, range, step, counts, Instant::now()).await
        })
        .await?;
        Ok(counts)
    }

    /// Fills one chunk and adds it to the ledger, in one transaction: with a plain UPDATE if possible, or, if another
    /// session blocks it, with the statement that skips locked rows.
    async fn chunk(
        &self,
        session: &Session,
        leaf: &QualifiedName,
        range: &KeyRange,
        rows: u64,
        step: &'static str,
    ) -> Result<Counts> {
        // The first chunk uses the other statement, which returns why a row was not filled. So does the last range,
        // because its number of rows is not known.
        if step == FILL
            && self.proven.get()
            && range.through.is_some()
            && let Some(plain) = sql::plain(&self.filler.filling, leaf, range)
        {
            let fill = async |client: &Client| {
                let began = Instant::now();
                let (filled, names) = tokio::join!(
                    execute_text(client, &plain.0, &plain.1),
                    client.batch_execute(&self.look_up_again)
                );
                let filled = filled?;
                names?;
                Ok(Counts { seen: rows, to_fill: filled, filled, held: self.filler.work(began.elapsed(), 1) })
            };
            match self.recorded(session, leaf, range, step, &[sql::END_EARLY], fill).await {
                Err(e) if e.retry_class() == Retry::Again => {
                    tracing::debug!(rows, error = %e, "another session holds a lock");
                }
                other => return other,
            }
        }
        let fill = async |client: &Client| Ok(self.batch(client, leaf, sql::Rows::Free(range)).await?.0);
        self.recorded(session, leaf, range, step, &[], fill).await
    }

    /// Runs `fill` and adds the chunk to the ledger, in one transaction, with the additional settings `more`.
    async fn recorded(
        &self,
        session: &Session,
        leaf: &QualifiedName,
        range: &KeyRange,
        step: &'static str,
        more: &[&str],
        fill: impl AsyncFnOnce(&Client) -> Result<Counts>,
    ) -> Result<Counts> {
        let (filler, f) = (self.filler, &self.filler.filling);
        let began = Instant::now();
        transaction(session, READ_COMMITTED, async |client| {
            filler.hold_epoch(client).await?;
            let cascades = f.changes_unique();
            filler
                .check_untrusted_code(client, std::slice::from_ref(leaf), Access::Updates { cascades })
                .await?;
            let names = sql::names(f);
            let settings = [&[names.as_str(), sql::OWN_WRITES, sql::WAIT_BRIEFLY], more].concat();
            client.batch_execute(&settings.join("; ")).await?;
            let counts = fill(client).await?;
            if counts.filled > 0 && !self.proven.get() {
                self.prove(client, leaf, sql::Rows::Free(range)).await?;
                self.proven.set(true);
            }
            self.record(client, leaf, range, step, counts, began).await?;
            failpoint!("fill.before_commit");
            Ok(counts)
        })
        .await
    }

    /// Fills rows in the caller's transaction, including those that changed between the snapshot and their lock.
    /// Returns the numbers of rows, and how many rows were locked by this transaction but not filled.
    async fn batch(
        &self,
        client: &Client,
        leaf: &QualifiedName,
        rows: sql::Rows<'_>,
    ) -> Result<(Counts, u64)> {
        let (statement, values) = sql::batch(&self.filler.filling, leaf, rows);
        let run = async || counts(&self.asked(client, &statement, &values).await?);
        let (mut counts, locked) = run().await?;
        if locked == counts.filled {
            return Ok((counts, 0));
        }
        let (again, locked) = run().await?;
        counts.filled += again.filled;
        counts.held += again.held;
        Ok((counts, locked.saturating_sub(again.filled)))
    }

    /// Sends a statement with the plan's SQL and, in the same round trip, one that resets the application's search
    /// path: no other statement of the job may be parsed with that path.
    async fn asked(&self, client: &Client, statement: &str, values: &[String]) -> Result<Vec<Row>> {
        let (answer, names) =
            tokio::join!(query_text(client, statement, values), client.batch_execute(&self.look_up_again));
        let answer = answer?;
        names?;
        Ok(answer)
    }

    async fn record(
        &self,
        client: &Client,
        leaf: &QualifiedName,
        range: &KeyRange,
        step: &'static str,
        counts: Counts,
        began: Instant,
    ) -> Result<()> {
        let (filler, leaf) = (self.filler, leaf.to_string());
        let late = step == LATE;
        if late && counts.filled == 0 {
            return Ok(());
        }
        let done = Chunk {
            step,
            leaf: Some(&leaf),
            range,
            rows: counts.filled,
            // The first pass has already counted these rows.
            seen: Some(if late { 0 } else { counts.seen }),
            ms: began.elapsed().as_secs_f64() * 1000.0,
        };
        // Deferred triggers run at the commit. They must run with the application's search path, as other triggers do.
        let path = plan_sql::applications(&filler.filling.sql);
        let (added, path) = tokio::join!(
            store::add_chunk(client, filler.job.id, filler.epoch(), &done),
            client.batch_execute(&path)
        );
        added?;
        Ok(path?)
    }

    /// Verifies that the plan's condition no longer matches the rows that were filled.
    async fn prove(&self, client: &Client, leaf: &QualifiedName, rows: sql::Rows<'_>) -> Result<()> {
        let (statement, values) = sql::still_matching(&self.filler.filling, leaf, rows);
        let rows = self.asked(client, &statement, &values).await?;
        if rows.is_empty() {
            return Ok(());
        }
        Err(answer::never_filled(self.filler, &named(&rows)))
    }

    /// Fills the rows that other sessions had locked, each in a separate transaction that holds no other lock while it
    /// waits for the row. No such transaction begins while the job is throttled.
    async fn one_by_one(&self, session: &Session, leaf: &QualifiedName, range: &KeyRange) -> Result<()> {
        let f = &self.filler.filling;
        let read = async |client: &Client| {
            client.batch_execute(&sql::names(f)).await?;
            let (statement, values) = sql::to_fill(f, leaf, range, ONE_BY_ONE);
            Ok(query_text(client, &statement, &values).await?.iter().map(key_of).collect())
        };
        let keys: Vec<Key> = self.filler.reading(session, std::slice::from_ref(leaf), read).await?;
        let mut held = 0;
        for key in keys {
            self.filler.permitted().await?;
            match self.single(session, leaf, &key).await {
                Ok(()) => {}
                // Several rows have been locked for a long time, so the remaining ones may be too. The second pass
                // processes them again.
                Err(e) if e.retry_class() == Retry::Again && held == MOST_HELD => break,
                Err(e) if e.retry_class() == Retry::Again => held += 1,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The error for a range that contains one row.
    async fn refused(
        &self,
        session: &Session,
        leaf: &QualifiedName,
        range: &KeyRange,
        error: Error,
    ) -> Error {
        let from = format!("only {leaf}");
        let (statement, values) = copy_sql::boundary(&from, &self.filler.filling.key_columns(), range, 1);
        let read = async |client: &Client| query_text(client, &statement, &values).await;
        match self.filler.reading(session, std::slice::from_ref(leaf), read).await.as_deref() {
            Ok([row, ..]) => answer::refused(self.filler, session, leaf, &key_of(row), error).await,
            _ => error,
        }
    }

    /// Fills one row, and waits for its lock.
    pub(super) async fn single(&self, session: &Session, leaf: &QualifiedName, key: &Key) -> Result<()> {
        let (filler, f) = (self.filler, &self.filler.filling);
        let (rows, began) = (sql::Rows::One(key), Instant::now());
        let done = transaction(session, READ_COMMITTED, async |client| {
            filler.hold_epoch(client).await?;
            let cascades = f.changes_unique();
            filler
                .check_untrusted_code(client, std::slice::from_ref(leaf), Access::Updates { cascades })
                .await?;
            client.batch_execute(&format!("{}; {}", sql::names(f), sql::OWN_WRITES)).await?;
            let (counts, kept) = self.batch(client, leaf, rows).await?;
            if kept > 0 {
                return Err(Error::failed(format!(
                    "a trigger suppressed the update of a row of {}",
                    leaf.plain()
                ))
                .cause(format!("its key: {}", key.join(", ")))
                .hint(
                    "a BEFORE UPDATE trigger that returns NULL prevents the update; disable it until \
                     the job is finalized",
                ));
            }
            if counts.filled > 0 {
                self.prove(client, leaf, rows).await?;
            }
            let range = KeyRange { after: None, through: Some(key.clone()) };
            self.record(client, leaf, &range, LATE, counts, began).await?;
            failpoint!("fill.single");
            Ok(())
        })
        .await;
        match done {
            Err(e) if e.is_about_a_row() => Err(answer::refused(filler, session, leaf, key, e).await),
            other => other,
        }
    }
}
