//! The progress and speed of a phase: counts units, reports them at most twice a second, and stores the rate for
//! `status`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::event::{Event, PhaseOutcome, PhaseWork};
use crate::phase::job::driver::Driver;
use crate::sql::store as sql;
use crate::throttle::Progress;

/// How often progress is reported.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// How often the rate is stored for `status`.
const STORE_EVERY: Duration = Duration::from_secs(2);
/// The rate is the mean over this time.
const WINDOW: Duration = Duration::from_secs(10);
/// The remaining time is estimated from the mean over this time, including the time during which the job was throttled.
const LONG_WINDOW: Duration = Duration::from_secs(600);
/// The time between two samples for the longer mean.
const LONG_STEP: Duration = Duration::from_secs(5);
/// How often [`Meter::beat`] reports.
const BEAT: Duration = Duration::from_secs(1);

/// Counts the units of one phase.
#[derive(Debug)]
pub struct Meter<'a> {
    driver: &'a Driver,
    phase: &'static str,
    unit: &'static str,
    done: Cell<u64>,
    total: Cell<u64>,
    begun: Instant,
    reported: Cell<Option<Instant>>,
    stored: Cell<Instant>,
    samples: RefCell<VecDeque<(Instant, u64)>>,
    long_samples: RefCell<VecDeque<(Instant, u64)>>,
}

impl<'a> Meter<'a> {
    /// Begins a phase, and reports what it does.
    pub fn begin(driver: &'a Driver, work: impl Into<PhaseWork>) -> Self {
        let phase = driver.events.phase_started(&driver.job.name, work);
        let now = Instant::now();
        Self {
            driver,
            phase,
            unit: "rows",
            done: Cell::new(0),
            total: Cell::new(0),
            begun: now,
            reported: Cell::new(None),
            stored: Cell::new(now),
            samples: RefCell::new(VecDeque::from([(now, 0)])),
            long_samples: RefCell::new(VecDeque::from([(now, 0)])),
        }
    }

    /// Sets the unit, the total number of units, and the number that an earlier run has done.
    pub fn count(&mut self, unit: &'static str, total: u64, done: u64) {
        self.unit = unit;
        self.total.set(total);
        self.done.set(done);
        *self.samples.borrow_mut() = VecDeque::from([(Instant::now(), done)]);
        *self.long_samples.borrow_mut() = VecDeque::from([(Instant::now(), done)]);
    }

    /// Sets the number of units done.
    pub fn reached(&self, units: u64) {
        self.done.set(units);
    }

    /// Sets the number of units left; none if it is not known.
    pub fn left(&self, units: Option<u64>) {
        self.total.set(units.map_or(0, |units| self.done.get() + units));
    }

    /// The name of the phase.
    pub fn phase(&self) -> &'static str {
        self.phase
    }

    /// The number of units done.
    pub fn done_units(&self) -> u64 {
        self.done.get()
    }

    /// Adds `units` to the number of units done.
    pub fn add(&self, units: u64) {
        self.done.set(self.done.get() + units);
        let now = Instant::now();
        self.samples.borrow_mut().push_back((now, self.done.get()));
        let mut samples = self.long_samples.borrow_mut();
        if samples.back().is_none_or(|(at, _)| now - *at >= LONG_STEP) {
            samples.push_back((now, self.done.get()));
        }
        drop(samples);
        self.report();
        if self.reported.get().is_none_or(|at| now - at >= REPORT_EVERY) {
            self.reported.set(Some(now));
            self.send_progress();
        }
    }

    /// Units per second over the last seconds. The rate falls while nothing is done.
    fn rate(&self) -> f64 {
        self.mean(&mut self.samples.borrow_mut(), WINDOW)
    }

    fn mean(&self, samples: &mut VecDeque<(Instant, u64)>, over: Duration) -> f64 {
        let now = Instant::now();
        while samples.len() > 1 && samples.get(1).is_some_and(|(at, _)| now - *at > over) {
            samples.pop_front();
        }
        match samples.front() {
            Some((at, from)) if now > *at => {
                self.done.get().saturating_sub(*from) as f64 / (now - *at).as_secs_f64()
            }
            _ => 0.0,
        }
    }

    fn eta_s(&self) -> Option<u64> {
        let rate = self.mean(&mut self.long_samples.borrow_mut(), LONG_WINDOW);
        let left = self.total.get().saturating_sub(self.done.get());
        (rate > 0.0 && self.total.get() > 0).then(|| (left as f64 / rate).ceil() as u64)
    }

    fn report(&self) {
        let (phase, done, per_second) = (self.phase, self.done.get(), self.rate());
        self.driver.gate.report(Progress { phase, done, per_second });
    }

    /// Continues to report the rate while nothing is done. Run it concurrently with the work.
    ///
    /// # Errors
    /// The server returned an error.
    pub async fn beat(&self) -> Result<()> {
        loop {
            tokio::time::sleep(BEAT).await;
            self.report();
            self.keep().await?;
        }
    }

    fn send_progress(&self) {
        self.driver.events.send(Event::Progress {
            job: self.driver.job.name.clone(),
            phase: self.phase,
            done: self.done.get(),
            // 0 means that the total is not known; the number of units done does not replace it.
            total: if self.total.get() == 0 { 0 } else { self.total.get().max(self.done.get()) },
            unit: self.unit,
            per_second: self.rate(),
            eta_s: self.eta_s(),
        });
    }

    /// Stores the rate and the remaining time for `status`, unless they were stored recently.
    ///
    /// # Errors
    /// The server returned an error.
    pub async fn keep(&self) -> Result<()> {
        if self.stored.get().elapsed() < STORE_EVERY {
            return Ok(());
        }
        self.stored.set(Instant::now());
        let eta = self.eta_s().and_then(|s| i64::try_from(s).ok());
        self.driver.control.execute(sql::REPORT_RATE, &[&self.driver.job.id, &self.rate(), &eta]).await?;
        Ok(())
    }

    /// Ends the phase, and reports its result.
    pub fn end(&self, outcome: PhaseOutcome) {
        if self.total.get() > 0 {
            self.send_progress();
        }
        self.driver.events.phase_done(&self.driver.job.name, self.phase, outcome, self.begun.elapsed());
    }
}
