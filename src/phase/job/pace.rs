//! Runs concurrently with every throttled phase: evaluates the signals twice a second, updates the gate, and reports in
//! the log and the database why the job is throttled. A signal that cannot be read throttles the job. If the server's
//! signals cannot be read for a long time, the run ends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::json;
use tokio::time::timeout;
use tokio_postgres::Statement;

use crate::clock;
use crate::error::{Error, Result, Retry};
use crate::event::{Event, JobNote, RunWarning, ThrottleWarning};
use crate::model::history::{History, PaceSample};
use crate::model::number;
use crate::model::pace::{Behind, Cause, Change, ClosedWindows, Hold, Measured, Reading, Standby, Standbys};
use crate::model::status::StoredHold;
use crate::pg::connect::Session;
use crate::pg::signals::{self, Polled, Seen};
use crate::pg::{lease, store};
use crate::phase::job::driver::{Driver, Pacing};
use crate::phase::job::evaluate;
use crate::phase::job::evaluate::Sources;
use crate::plan::{Plan, Throttle};
use crate::sql::pace as sql;
use crate::throttle::Progress;

/// How often the signals are evaluated. A notification triggers an evaluation immediately.
const LOOK: Duration = Duration::from_millis(500);
/// The time limit for an evaluation, or for the small transaction. When it expires, the session is closed.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long the signals may be unreadable before the run ends.
const UNREADABLE_LIMIT: Duration = Duration::from_secs(300);
/// How long the first evaluation waits for standbys and the user's query.
const FIRST: Duration = Duration::from_secs(3);
/// How often a sample is added to the job's history.
const SAMPLE: Duration = Duration::from_secs(10);
/// The duration of one measurement of the throughput, which determines the number of workers.
const MEASURE: Duration = Duration::from_secs(3);
/// The phases with such measurements: they have many similar units.
const MEASURED: [&str; 2] = ["copy", "fill"];
/// The weight of a new reading in the smoothed commit latency.
const NEW_WEIGHT: f64 = 0.3;

/// Evaluates the signals until it is dropped. Run it concurrently with the work. Returns an error if the signals could
/// not be read for a long time.
pub async fn watch(driver: &Driver) -> Error {
    let mut watch = Watch::new(driver);
    let mut blind: Option<Instant> = None;
    loop {
        match watch.look().await {
            Ok(()) => blind = None,
            Err(error) => {
                let since = blind.get_or_insert_with(Instant::now).elapsed();
                if since > UNREADABLE_LIMIT {
                    return gives_up(error, since);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = watch.heard() => {}
        }
    }
}

/// The error for a run that was throttled for too long because the signals could not be read.
fn gives_up(last: Error, since: Duration) -> Error {
    let hint = last.hint_text().map_or(String::new(), |hint| format!("{hint}; then "));
    last.context(format!("the server's signals could not be read for {}", number::duration(since)))
        .retry(Retry::Never)
        .hint(format!("{hint}run the same command again to continue: the job's state is kept"))
}

struct Watch<'a> {
    driver: &'a Driver,
    session: Option<Asking>,
    listed: Vec<Polled<Standby>>,
    query: Option<Polled<f64>>,
    standbys: Standbys,
    behind: Vec<Behind>,
    latency_ms: Option<f64>,
    /// The settings that override the plan, as last applied.
    settings: BTreeMap<String, String>,
    sampled: Instant,
    span: Span,
}

/// The session for the queries, with prepared statements: planning them takes as long as running them.
struct Asking {
    session: Session,
    signals: Statement,
    say: Statement,
}

/// The period of one measurement of the throughput.
struct Span {
    since: Instant,
    phase: &'static str,
    /// The number of units done before it.
    done: u64,
    held: bool,
    /// The durations of the small transactions, in milliseconds.
    took_ms: Vec<f64>,
}

impl Span {
    fn begin(progress: Progress) -> Self {
        let Progress { phase, done, .. } = progress;
        Self { since: Instant::now(), phase, done, held: false, took_ms: Vec::new() }
    }

    /// Ends the measurement; returns none if the job was throttled or nothing was done.
    fn measured(mut self, now: Progress) -> Option<Measured> {
        if self.held || self.took_ms.is_empty() || self.done == 0 || now.done <= self.done {
            return None;
        }
        self.took_ms.sort_by(f64::total_cmp);
        Some(Measured {
            per_second: (now.done - self.done) as f64 / self.since.elapsed().as_secs_f64(),
            latency_ms: self.took_ms[self.took_ms.len() / 2],
        })
    }
}

impl<'a> Watch<'a> {
    fn new(driver: &'a Driver) -> Self {
        let mut watch = Self {
            driver,
            session: None,
            listed: Vec::new(),
            query: None,
            standbys: Standbys::default(),
            behind: Vec::new(),
            latency_ms: None,
            settings: driver.settings.clone(),
            sampled: Instant::now(),
            span: Span::begin(Progress::default()),
        };
        watch.ask(&Throttle::default(), driver.gate.plan().throttle());
        watch
    }

    /// Starts to query the listed standbys and the user's query.
    fn ask(&mut self, was: &Throttle, is: &Throttle) {
        let driver = self.driver;
        let name = lease::session_name(driver.job.id, driver.epoch(), "pace");
        if was.replicas != is.replicas {
            (self.listed, self.standbys) = (Vec::new(), Standbys::default());
            for dsn in &is.replicas {
                match signals::standby(driver.target(), dsn, &name) {
                    Ok(asked) => {
                        self.standbys.expect(driver.gate.now_s(), &asked.name);
                        self.listed.push(asked);
                    }
                    // `set` rejects such a value. If it was stored in another way, it counts as a standby that does
                    // not answer, so that the limit on the replica lag stays in force.
                    Err(e) => {
                        let error = e.message().to_owned();
                        driver.events.warn(ThrottleWarning::StandbyUnusable { error });
                        self.standbys.expect(driver.gate.now_s(), "listed under [throttle] replicas");
                    }
                }
            }
        }
        if was.query != is.query {
            self.query = is.query.as_ref().map(|query| signals::query(driver.target(), query, &name));
        }
    }

    async fn heard(&self) {
        match &self.session {
            Some(asking) => asking.session.heard().await,
            None => std::future::pending().await,
        }
    }

    /// Evaluates the signals once, and applies and reports the result.
    async fn look(&mut self) -> Result<()> {
        let gate = &self.driver.gate;
        let seen = timeout(ANSWER_LIMIT, self.see()).await;
        let seen = match seen.unwrap_or_else(|_| Err(Error::failed("the server does not answer"))) {
            Ok(seen) => seen,
            Err(e) => {
                self.session = None;
                let changes = gate.blind(Cause::ServerUnreadable { error: e.message().to_owned() });
                self.report(changes).await;
                return Err(e);
            }
        };
        self.apply(&seen.settings);
        self.first_answers().await;
        gate.wal_at(seen.place);
        let readings = self.readings(&seen);
        let changes = gate.observe(&readings);
        self.report(changes).await;
        if let Err(e) = self.store().await {
            tracing::debug!(error = %e, "could not store the pace");
            self.session = None;
        }
        self.windows();
        self.measure();
        Ok(())
    }

    async fn see(&mut self) -> Result<Seen> {
        let driver = self.driver;
        let asking = match self.session.take() {
            Some(asking) => asking,
            None => {
                let session = driver.session("pace").await?;
                session.batch_execute(&sql::listen(driver.job.id)).await?;
                session.execute(sql::BEGIN_PACE, &[&driver.job.id]).await?;
                let (signals, say) =
                    (session.prepare(sql::SIGNALS).await?, session.prepare(sql::STORE_PACE).await?);
                Asking { session, signals, say }
            }
        };
        let table = driver.plan.table().to_string();
        let least_dead = driver.gate.plan().dead_limit().map_or(i64::MAX, |limit| limit.least);
        let prefix = lease::prefix(driver.job.id);
        let Asking { session, signals, .. } = &asking;
        let seen = signals::read(session, signals, &prefix, driver.job.id, &table, least_dead).await;
        self.session = Some(asking);
        seen
    }

    /// Before the first evaluation, waits for a limited time until the standbys and the query have answered.
    async fn first_answers(&self) {
        let until = Instant::now() + FIRST;
        let missing = || {
            let query = self.query.as_ref().is_some_and(|query| query.last().is_none());
            query || self.listed.iter().any(|asked| asked.last().is_none())
        };
        while missing() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Applies changed settings.
    fn apply(&mut self, settings: &BTreeMap<String, String>) {
        if *settings == self.settings {
            return;
        }
        let driver = self.driver;
        match driver.plan.with(settings) {
            Ok(plan) => {
                let was = driver.gate.plan();
                driver.gate.set(&plan);
                self.ask(was.throttle(), plan.throttle());
                for change in differences(&was, &plan) {
                    driver.events.note(change);
                }
            }
            Err(e) => {
                driver.events.warn(ThrottleWarning::UnknownSettings { error: e.brief() });
            }
        }
        self.settings = settings.clone();
    }

    fn readings(&mut self, seen: &Seen) -> Vec<Reading> {
        let driver = self.driver;
        let now_s = driver.gate.now_s();
        let plan = driver.gate.plan();
        let throttle = plan.throttle();
        let listed: Vec<_> = self.listed.iter().map(|asked| (asked.name.clone(), asked.last())).collect();
        let query = self.query.as_ref().map(signals::Polled::last);
        let standbys = evaluate::standbys(seen, &listed);
        self.behind = self.standbys.observe(now_s, seen.place, &standbys);
        let forget_s = throttle.forget_replica_after.as_secs_f64();
        for standby in self.standbys.forget(now_s, forget_s) {
            let gone_ms = number::whole_ms(throttle.forget_replica_after);
            driver.events.warn(ThrottleWarning::StandbyForgotten { standby, gone_ms });
        }
        let sources = Sources {
            seen,
            listed: &listed,
            behind: &self.behind,
            gone: self.standbys.gone(now_s),
            latency_ms: self.latency_ms,
            query,
        };
        evaluate::of(&sources, &plan, &driver.job.name)
    }

    /// Reports changes as events and in the job's history.
    async fn report(&self, changes: Vec<Change>) {
        let driver = self.driver;
        for change in changes {
            let job = driver.job.name.clone();
            let (history, event) = match change {
                Change::Throttled(hold) => (History::Throttled(hold.clone()), Event::Throttled { job, hold }),
                Change::Resumed { signal, throttled_s } => {
                    let throttled_s = (throttled_s * 10.0).round() / 10.0;
                    (History::Resumed { signal, throttled_s }, Event::Resumed { job, signal, throttled_s })
                }
            };
            driver.events.send(event);
            if let Some(Asking { session, .. }) = &self.session {
                let _ = timeout(ANSWER_LIMIT, store::event(session, driver.job.id, &history)).await;
            }
        }
    }

    /// Stores the causes of throttling for `status`. This is the small transaction whose duration is the commit
    /// latency.
    async fn store(&mut self) -> Result<()> {
        let Some(Asking { session, say, .. }) = &self.session else { return Ok(()) };
        let gate = &self.driver.gate;
        let held = gate.holds();
        let holds: Vec<StoredHold> = held.iter().map(stored).collect();
        let workers = i32::try_from(gate.workers()).unwrap_or(i32::MAX);
        let (holds_json, behind) = (json!(holds), json!(self.behind));
        let began = Instant::now();
        timeout(ANSWER_LIMIT, session.execute(say, &[&self.driver.job.id, &workers, &holds_json, &behind]))
            .await
            .map_err(|_| Error::failed(format!("no answer within {} s", ANSWER_LIMIT.as_secs())))??;
        let ms = began.elapsed().as_secs_f64() * 1000.0;
        self.span.took_ms.push(ms);
        self.latency_ms = Some(self.latency_ms.map_or(ms, |was| was + NEW_WEIGHT * (ms - was)));
        if self.sampled.elapsed() >= SAMPLE {
            self.sampled = Instant::now();
            let progress = gate.progress();
            let sample = PaceSample {
                phase: progress.phase,
                done: progress.done,
                per_second: progress.per_second.round(),
                workers,
                wal_bytes_per_second: gate.wal_per_second().round(),
                commit_latency_ms: (ms * 10.0).round() / 10.0,
                replicas: self.behind.clone(),
                holds: held.iter().map(|hold| hold.signal).collect(),
            };
            store::event(session, self.driver.job.id, &History::Sample(sample)).await?;
        }
        Ok(())
    }

    /// Requests a stop when the window of the job closes.
    fn windows(&self) {
        let driver = self.driver;
        if driver.pacing() == Pacing::Windowed
            && !driver.stop.is_requested()
            && let Some(windows) = closed(&driver.gate.plan(), clock::now())
        {
            driver.events.warn(RunWarning::WindowClosed { windows: windows.clone() });
            driver.stop.request(format!("because {windows}"));
        }
    }

    /// Measures the throughput without throttling and the latency of the server, which determine the number of workers.
    fn measure(&mut self) {
        let gate = &self.driver.gate;
        let progress = gate.progress();
        self.span.held |= !gate.holds().is_empty();
        if progress.phase != self.span.phase {
            self.span = Span::begin(progress);
            if MEASURED.contains(&progress.phase) {
                gate.begins();
            }
        } else if self.span.since.elapsed() >= MEASURE {
            let span = std::mem::replace(&mut self.span, Span::begin(progress));
            if let Some(measured) = span.measured(progress).filter(|_| MEASURED.contains(&progress.phase)) {
                gate.measured(measured);
            }
        }
    }
}

/// The closed windows, if the job may not run now; none if it may.
pub fn closed(plan: &Plan, now: DateTime<Utc>) -> Option<ClosedWindows> {
    let throttle = plan.throttle();
    if throttle.windows.open(now, throttle.timezone) {
        return None;
    }
    let next = throttle.windows.next_open(now, throttle.timezone);
    let next = next.map(|next| next.with_timezone(&throttle.timezone));
    Some(ClosedWindows { windows: throttle.windows.written(), next })
}

fn stored(hold: &Hold) -> StoredHold {
    StoredHold {
        signal: hold.signal.name().to_owned(),
        value: hold.value,
        limit: hold.limit,
        unread: hold.unread,
        cause: hold.cause.clone(),
        about: String::new(),
        since: DateTime::from_timestamp_millis((hold.since_s * 1000.0) as i64).unwrap_or_default(),
    }
}

/// The settings that differ.
fn differences(was: &Plan, is: &Plan) -> Vec<JobNote> {
    let (was, is) = (was.tunables(), is.tunables());
    let keys: std::collections::BTreeSet<&str> = was.keys().chain(is.keys()).copied().collect();
    let of = |one: &BTreeMap<&'static str, String>, key: &str| one.get(key).cloned();
    keys.into_iter()
        .filter(|key| of(&was, key) != of(&is, key))
        .map(|key| JobNote::SettingChanged { key: key.to_owned(), value: of(&is, key) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_has_the_duration_and_a_hint() {
        let last = Error::failed("too many connections").code("53300").retry(Retry::Again).hint("close some");
        let error = gives_up(last, Duration::from_secs(301));
        assert_eq!(error.retry_class(), Retry::Never);
        insta::assert_snapshot!(error, @r"
        the server's signals could not be read for 5m 1s (SQLSTATE 53300)
        cause: too many connections
        hint: close some; then run the same command again to continue: the job's state is kept
        ");
    }
}
