//! The gate that every chunk, index build and batch passes. It waits while a signal throttles the job, and until the
//! budgets of rows and WAL permit more.
//!
//! [`crate::model::pace`] makes the decisions; this module has the clock and the waiting. A gate that receives no
//! readings (for a command that a user waits for, such as `swap`) never waits.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use crate::model::pace::{Autoscaler, Budget, Cause, Change, Hold, Measured, Pace, Reading, Work};
use crate::plan::{Plan, Workers};

/// The longest sleep for a budget. It is short, because settings may change in the meantime.
const MAX_SLEEP: Duration = Duration::from_millis(200);
/// A chunk takes at most this many seconds of a budget; otherwise the rate would come in bursts.
const CHUNK_S: f64 = 0.4;
/// The weight of the previous mean of WAL per row.
const WAL_DECAY: f64 = 0.9;

/// The current settings of a job, including changes since the plan, and its throttling state.
#[derive(Debug)]
pub struct Gate {
    began: Instant,
    began_s: f64,
    /// Whether readings are received, so that signals can throttle the job.
    watched: bool,
    plan: RefCell<Plan>,
    pace: RefCell<Pace>,
    autoscaler: RefCell<Autoscaler>,
    rows: RefCell<Option<Budget>>,
    wal: RefCell<Wal>,
    changed: Notify,
    work: Cell<Work>,
    /// A session waits for the job, and the next chunk has not been made smaller yet.
    shrink: Cell<bool>,
    /// The progress of the phase.
    progress: Cell<Progress>,
}

/// The progress of a phase.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// The phase.
    pub phase: &'static str,
    /// Units done.
    pub done: u64,
    /// Units per second, over the last seconds.
    pub per_second: f64,
}

/// The budget of WAL. The WAL of a chunk is known only afterward, so each chunk pays an estimate, which is corrected
/// later.
#[derive(Debug, Default)]
struct Wal {
    budget: Option<Budget>,
    place: Option<u64>,
    /// The estimated bytes of chunks that have ended since the last reading.
    ended: f64,
    /// Rows copied since the last reading.
    rows: f64,
    sum_bytes: f64,
    sum_rows: f64,
    per_second: f64,
    read_s: f64,
}

/// A chunk that is running.
#[derive(Debug)]
pub struct Permit<'a> {
    gate: &'a Gate,
    rows: f64,
    bytes: f64,
    done: f64,
}

impl Gate {
    /// A gate for the plan's job. It only waits for signals if it is `watched`; then it also waits until the first
    /// reading.
    /// If the number of workers is automatic, it begins with `workers`.
    pub fn new(plan: &Plan, watched: bool, workers: usize) -> Self {
        let began_s =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let gate = Self {
            began: Instant::now(),
            began_s,
            watched,
            plan: RefCell::new(plan.clone()),
            pace: RefCell::default(),
            autoscaler: RefCell::new(autoscaler(plan, workers)),
            rows: RefCell::default(),
            wal: RefCell::default(),
            changed: Notify::new(),
            work: Cell::new(Work::Writes),
            shrink: Cell::new(false),
            progress: Cell::default(),
        };
        gate.budgets(plan);
        gate
    }

    /// Whether readings are received.
    pub fn watched(&self) -> bool {
        self.watched
    }

    /// The time in seconds since 1970, from a monotonic clock.
    pub fn now_s(&self) -> f64 {
        self.began_s + self.began.elapsed().as_secs_f64()
    }

    /// The plan, including settings that were changed since.
    pub fn plan(&self) -> Plan {
        self.plan.borrow().clone()
    }

    /// Changes the settings from now on.
    pub fn set(&self, plan: &Plan) {
        if plan.workers() != self.plan.borrow().workers() {
            *self.autoscaler.borrow_mut() = autoscaler(plan, 1);
        }
        self.budgets(plan);
        self.plan.replace(plan.clone());
        self.changed.notify_waiters();
    }

    fn budgets(&self, plan: &Plan) {
        let now_s = self.now_s();
        let renew = |old: Option<Budget>, rate: Option<f64>| match (old, rate) {
            (Some(mut budget), Some(rate)) => {
                budget.set(rate, now_s);
                Some(budget)
            }
            (_, rate) => rate.map(|rate| Budget::new(rate, now_s)),
        };
        let rows = self.rows.take();
        *self.rows.borrow_mut() = renew(rows, plan.throttle().rows_per_second.map(f64::from));
        let mut wal = self.wal.borrow_mut();
        wal.budget = renew(wal.budget.take(), plan.throttle().wal_bytes_per_second.map(|n| n as f64));
    }

    /// Records that nothing could be read, with the reason.
    pub fn blind(&self, why: Cause) -> Vec<Change> {
        let changes = self.pace.borrow_mut().blind(self.now_s(), why);
        self.changed.notify_waiters();
        changes
    }

    /// Processes readings.
    pub fn observe(&self, readings: &[Reading]) -> Vec<Change> {
        let changes = self.pace.borrow_mut().observe(self.now_s(), readings);
        for change in &changes {
            if let Change::Throttled(hold) = change {
                self.autoscaler.borrow_mut().held();
                self.shrink.set(self.shrink.get() || hold.signal.is_ours());
            }
        }
        self.changed.notify_waiters();
        changes
    }

    /// All signals that currently throttle the job.
    pub fn holds(&self) -> Vec<Hold> {
        self.pace.borrow().holds(Work::Writes).cloned().collect()
    }

    /// The kind of work from now on, unless a step specifies another.
    pub fn set_work(&self, work: Work) {
        self.work.set(work);
        self.changed.notify_waiters();
    }

    /// The current kind of work.
    pub fn work(&self) -> Work {
        self.work.get()
    }

    /// Waits while a signal throttles the current kind of work.
    pub async fn wait(&self) {
        self.wait_for(self.work()).await;
    }

    /// Waits while a signal throttles that kind of work.
    pub async fn wait_for(&self, work: Work) {
        while self.watched && !self.pace.borrow().may_continue(work) {
            self.changed.notified().await;
        }
    }

    /// Waits until the worker with that number, counted from 0, may work.
    pub async fn wait_for_worker(&self, worker: usize) {
        while worker >= self.workers() {
            self.changed.notified().await;
        }
    }

    /// The current number of workers.
    pub fn workers(&self) -> usize {
        self.autoscaler.borrow().workers()
    }

    /// Limits the number of workers from now on; returns whether it was higher.
    pub fn at_most(&self, workers: usize) -> bool {
        let fewer = self.autoscaler.borrow_mut().at_most(workers);
        self.changed.notify_waiters();
        fewer
    }

    /// Records a measurement during which the job was not throttled.
    pub fn measured(&self, now: Measured) {
        self.autoscaler.borrow_mut().measured(now);
        self.changed.notify_waiters();
    }

    /// Another kind of work begins.
    pub fn begins(&self) {
        self.autoscaler.borrow_mut().begins();
        self.changed.notify_waiters();
    }

    /// Waits until a chunk of about `rows` rows may begin, each of about `width` bytes.
    pub async fn admit_chunk(&self, rows: u64, width: f64) -> Permit<'_> {
        loop {
            self.wait().await;
            let now_s = self.now_s();
            let rows_s = self.rows.borrow_mut().as_mut().map_or(0.0, |budget| budget.wait_s(now_s));
            let wal_s = self.wal.borrow_mut().budget.as_mut().map_or(0.0, |budget| budget.wait_s(now_s));
            let wait_s = f64::max(rows_s, wal_s);
            if wait_s <= 0.0 {
                break;
            }
            tokio::time::sleep(Duration::from_secs_f64(wait_s).clamp(Duration::from_millis(1), MAX_SLEEP))
                .await;
        }
        let rows = rows as f64;
        let bytes = rows * self.wal.borrow().per_row(width);
        if let Some(budget) = self.rows.borrow_mut().as_mut() {
            budget.pay(rows);
        }
        if let Some(budget) = self.wal.borrow_mut().budget.as_mut() {
            budget.pay(bytes);
        }
        Permit { gate: self, rows, bytes, done: 0.0 }
    }

    /// Records that the server's WAL was at `place`.
    pub fn wal_at(&self, place: u64) {
        self.wal.borrow_mut().read(self.now_s(), place);
    }

    /// Bytes of WAL per second, as last measured.
    pub fn wal_per_second(&self) -> f64 {
        self.wal.borrow().per_second
    }

    /// The maximum rows of a chunk, of about `width` bytes each.
    pub fn most_rows(&self, width: f64) -> u64 {
        let rows = self.rows.borrow().as_ref().map_or(f64::INFINITY, |budget| budget.per_second() * CHUNK_S);
        let wal = self.wal.borrow();
        let by_wal =
            wal.budget.as_ref().map_or(f64::INFINITY, |b| b.per_second() * CHUNK_S / wal.per_row(width));
        // A limit above any possible size has no effect.
        rows.min(by_wal).max(1.0) as u64
    }

    /// Whether the next chunk must be smaller because a session waited for a chunk; true once for each time.
    pub fn must_shrink(&self) -> bool {
        self.shrink.take()
    }

    /// The progress of the phase.
    pub fn progress(&self) -> Progress {
        self.progress.get()
    }

    /// Records the progress of the phase.
    pub fn report(&self, progress: Progress) {
        self.progress.set(progress);
    }
}

impl Permit<'_> {
    /// The chunk is done, with this many rows.
    pub fn done(mut self, rows: u64) {
        self.done = rows as f64;
    }
}

impl Drop for Permit<'_> {
    /// Corrects the estimate by the number of rows done. If nothing was done, returns all of it.
    fn drop(&mut self) {
        if let Some(budget) = self.gate.rows.borrow_mut().as_mut() {
            budget.pay(self.done - self.rows);
        }
        let mut wal = self.gate.wal.borrow_mut();
        wal.ended += self.bytes;
        wal.rows += self.done;
    }
}

impl Wal {
    /// Bytes of WAL per row, including the writes of other sessions. Before the first measurement, slightly more than
    /// the width of a row.
    fn per_row(&self, width: f64) -> f64 {
        if self.sum_rows > 0.0 { (self.sum_bytes / self.sum_rows).max(1.0) } else { 1.2 * width }
    }

    fn read(&mut self, at_s: f64, place: u64) {
        let was = self.place.replace(place);
        let ended = std::mem::take(&mut self.ended);
        let (rows, span_s) =
            (std::mem::take(&mut self.rows), at_s - std::mem::replace(&mut self.read_s, at_s));
        let Some(was) = was else { return };
        let written = place.saturating_sub(was) as f64;
        if let Some(budget) = &mut self.budget {
            budget.wait_s(at_s);
            budget.pay(written - ended);
        }
        if span_s > 0.0 {
            self.per_second = written / span_s;
        }
        if rows > 0.0 {
            self.sum_bytes = WAL_DECAY * self.sum_bytes + written;
            self.sum_rows = WAL_DECAY * self.sum_rows + rows;
        }
    }
}

fn autoscaler(plan: &Plan, first: usize) -> Autoscaler {
    match plan.workers() {
        Workers::Fixed(n) => Autoscaler::fixed(n),
        Workers::Auto => Autoscaler::auto(first, std::thread::available_parallelism().map_or(1, usize::from)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(throttle: &str) -> Gate {
        let plan = format!("table = 't'\n[partition]\nby = 'at'\nevery = 'month'\n[throttle]\n{throttle}");
        Gate::new(&Plan::parse(&plan, "p.toml").unwrap(), false, 1)
    }

    #[test]
    fn wal_is_paid_by_estimate_and_corrected_by_the_reading() {
        let mut wal = Wal { budget: Some(Budget::new(1000.0, 0.0)), ..Wal::default() };
        wal.read(0.0, 5_000);
        assert_eq!(wal.per_row(100.0), 120.0);
        let pay = |wal: &mut Wal, bytes| wal.budget.as_mut().unwrap().pay(bytes);
        pay(&mut wal, 3_000.0);
        (wal.ended, wal.rows) = (3_000.0, 10.0);
        // The estimate was exact, and three seconds have passed: the budget is balanced.
        wal.read(3.0, 8_000);
        assert_eq!(wal.budget.as_mut().unwrap().wait_s(3.0), 0.0);
        pay(&mut wal, 1.0);
        assert!(wal.budget.as_mut().unwrap().wait_s(3.0) > 0.0);
        assert_eq!((wal.per_row(100.0), wal.per_second), (300.0, 1_000.0));
    }

    #[tokio::test]
    async fn an_unused_permit_is_returned() {
        let gate = gate("rows_per_second = 1000\n");
        assert_eq!(gate.most_rows(100.0), 400);
        drop(gate.admit_chunk(1_000_000, 1.0).await);
        let permit = gate.admit_chunk(10_000, 1.0).await;
        permit.done(1);
        drop(gate.admit_chunk(1, 1.0).await);
        assert_eq!(gate_without_limits().most_rows(100.0), u64::MAX);
    }

    fn gate_without_limits() -> Gate {
        gate("")
    }
}
