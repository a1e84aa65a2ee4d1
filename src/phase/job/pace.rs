//! Beside every throttled phase: looks at the signals twice a second, tells the gate, and says in log and database why the job
//! waits. What it cannot read holds; what it cannot read for long ends the run.

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
use crate::model::status::Hold as Said;
use crate::pg::connect::Session;
use crate::pg::signals::{self, Asked, Seen};
use crate::pg::{lease, store};
use crate::phase::job::driver::{Driver, Pacing};
use crate::phase::job::evaluate;
use crate::phase::job::evaluate::Sources;
use crate::plan::{Plan, Throttle};
use crate::sql::pace as sql;
use crate::throttle::Progress;

/// How often the signals are looked at; a notification is heard at once.
const LOOK: Duration = Duration::from_millis(500);
/// How long a look, or the tiny transaction, may take before the session is given up.
const SAY: Duration = Duration::from_secs(10);
/// How long nothing can be read before the run ends.
const BLIND: Duration = Duration::from_secs(300);
/// How long the first look waits for standbys and the user's query.
const FIRST: Duration = Duration::from_secs(3);
/// How often a sample goes into the job's history.
const SAMPLE: Duration = Duration::from_secs(10);
/// Over how long the number of workers is measured,
const MEASURE: Duration = Duration::from_secs(3);
/// and in which phases: their units are alike, and there are many of them.
const MEASURED: [&str; 2] = ["copy", "fill"];
/// The weight of a new reading in the smoothed commit latency.
const NEW: f64 = 0.3;

/// Looks until dropped; to be run beside the work. Returns why it gives up where the server could not be read for long.
pub async fn watch(driver: &Driver) -> Error {
    let mut watch = Watch::new(driver);
    let mut blind: Option<Instant> = None;
    loop {
        match watch.look().await {
            Ok(()) => blind = None,
            Err(error) => {
                let since = blind.get_or_insert_with(Instant::now).elapsed();
                if since > BLIND {
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

/// What a run ends with that was held for that long because nothing could be read.
fn gives_up(last: Error, since: Duration) -> Error {
    let hint = last.hint_text().map_or(String::new(), |hint| format!("{hint}; then "));
    last.context(format!("the server's signals could not be read for {}", number::duration(since)))
        .retry(Retry::Never)
        .hint(format!("{hint}run the same command again to go on: the job's state is kept"))
}

struct Watch<'a> {
    driver: &'a Driver,
    session: Option<Asking>,
    listed: Vec<Asked<Standby>>,
    query: Option<Asked<f64>>,
    standbys: Standbys,
    behind: Vec<Behind>,
    latency_ms: Option<f64>,
    /// What differs from the plan, as last applied.
    settings: BTreeMap<String, String>,
    sampled: Instant,
    span: Span,
}

/// The session that asks, with what it sends twice a second: planning that takes as long as doing it.
struct Asking {
    session: Session,
    signals: Statement,
    say: Statement,
}

/// Over which the number of workers is measured.
struct Span {
    since: Instant,
    phase: &'static str,
    /// Units done before.
    done: u64,
    held: bool,
    /// What our tiny transactions took, in milliseconds.
    took_ms: Vec<f64>,
}

impl Span {
    fn begin(progress: Progress) -> Self {
        let Progress { phase, done, .. } = progress;
        Self { since: Instant::now(), phase, done, held: false, took_ms: Vec::new() }
    }

    /// What was measured; none where something held, or nothing was done.
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

    /// Begins to ask the standbys that are listed, and the user's query.
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
                    // Refused where it is set; what came in by another way is no freedom either.
                    Err(e) => {
                        let error = e.message().to_owned();
                        driver.events.warn(ThrottleWarning::StandbyUnusable { error });
                        self.standbys.expect(driver.gate.now_s(), "of [throttle] replicas");
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

    /// One look, and everything that follows from it.
    async fn look(&mut self) -> Result<()> {
        let gate = &self.driver.gate;
        let seen = timeout(SAY, self.see()).await;
        let seen = match seen.unwrap_or_else(|_| Err(Error::failed("the server does not answer"))) {
            Ok(seen) => seen,
            Err(e) => {
                self.session = None;
                let changes = gate.blind(Cause::ServerUnreadable { error: e.message().to_owned() });
                self.tell(changes).await;
                return Err(e);
            }
        };
        self.apply(&seen.settings);
        self.first_answers().await;
        gate.wal_at(seen.place);
        let readings = self.readings(&seen);
        let changes = gate.observe(&readings);
        self.tell(changes).await;
        if let Err(e) = self.say().await {
            tracing::debug!(error = %e, "the pace could not be said");
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
                    (session.prepare(sql::SIGNALS).await?, session.prepare(sql::SAY_PACE).await?);
                Asking { session, signals, say }
            }
        };
        let table = driver.plan.table().to_string();
        let least_dead = driver.gate.plan().dead_limit().map_or(i64::MAX, |limit| limit.least);
        let prefix = lease::prefix(driver.job.id);
        let Asking { session, signals, .. } = &asking;
        let seen = signals::look(session, signals, &prefix, driver.job.id, &table, least_dead).await;
        self.session = Some(asking);
        seen
    }

    /// At the first look, those that are asked elsewhere get the time to answer.
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

    /// Settings that somebody changed hold from now on.
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
                driver.events.warn(ThrottleWarning::UnknownSettings { error: e.message().to_owned() });
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
        let query = self.query.as_ref().map(signals::Asked::last);
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

    /// Says what has changed, here and in the job's history.
    async fn tell(&self, changes: Vec<Change>) {
        let driver = self.driver;
        for change in changes {
            let job = driver.job.name.clone();
            let (history, event) = match change {
                Change::Held(hold) => (History::Throttled(hold.clone()), Event::Throttled { job, hold }),
                Change::Released { signal, held_s } => {
                    let throttled_s = (held_s * 10.0).round() / 10.0;
                    (History::Resumed { signal, throttled_s }, Event::Resumed { job, signal, throttled_s })
                }
            };
            driver.events.send(event);
            if let Some(Asking { session, .. }) = &self.session {
                let _ = timeout(SAY, store::event(session, driver.job.id, &history)).await;
            }
        }
    }

    /// Writes the holds down for `status`: the tiny transaction whose time is the commit latency.
    async fn say(&mut self) -> Result<()> {
        let Some(Asking { session, say, .. }) = &self.session else { return Ok(()) };
        let gate = &self.driver.gate;
        let held = gate.holds();
        let holds: Vec<Said> = held.iter().map(said).collect();
        let workers = i32::try_from(gate.workers()).unwrap_or(i32::MAX);
        let (holds_json, behind) = (json!(holds), json!(self.behind));
        let began = Instant::now();
        timeout(SAY, session.execute(say, &[&self.driver.job.id, &workers, &holds_json, &behind]))
            .await
            .map_err(|_| Error::failed(format!("no answer within {} s", SAY.as_secs())))??;
        let ms = began.elapsed().as_secs_f64() * 1000.0;
        self.span.took_ms.push(ms);
        self.latency_ms = Some(self.latency_ms.map_or(ms, |was| was + NEW * (ms - was)));
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

    /// Asks for a stop when the time of a scheduled job is over.
    fn windows(&self) {
        let driver = self.driver;
        if driver.pacing() == Pacing::Windowed
            && !driver.stop.is_asked()
            && let Some(windows) = closed(&driver.gate.plan(), clock::now())
        {
            driver.events.warn(RunWarning::WindowClosed { windows: windows.clone() });
            driver.stop.ask(format!("because {windows}"));
        }
    }

    /// How much was done while nothing held, and how soon the server answered, for the number of workers.
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

/// Why it is not the time to run, where it is not.
pub fn closed(plan: &Plan, now: DateTime<Utc>) -> Option<ClosedWindows> {
    let throttle = plan.throttle();
    if throttle.windows.open(now, throttle.timezone) {
        return None;
    }
    let next = throttle.windows.next_open(now, throttle.timezone);
    let next = next.map(|next| next.with_timezone(&throttle.timezone));
    Some(ClosedWindows { windows: throttle.windows.written(), next })
}

fn said(hold: &Hold) -> Said {
    Said {
        signal: hold.signal.name().to_owned(),
        value: hold.value,
        limit: hold.limit,
        unread: hold.unread,
        cause: hold.cause.clone(),
        about: String::new(),
        since: DateTime::from_timestamp_millis((hold.since_s * 1000.0) as i64).unwrap_or_default(),
    }
}

/// What is set otherwise now.
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
    fn a_run_that_gives_up_says_for_how_long_and_what_to_do() {
        let last = Error::failed("too many connections").code("53300").retry(Retry::Again).hint("close some");
        let error = gives_up(last, Duration::from_secs(301));
        assert_eq!(error.retry_class(), Retry::Never);
        insta::assert_snapshot!(error, @r"
        the server's signals could not be read for 5m 1s (SQLSTATE 53300)
        cause: too many connections
        hint: close some; then run the same command again to go on: the job's state is kept
        ");
    }
}
