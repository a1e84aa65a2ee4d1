//! Drives a job: acquires its lease, does the work, and retries for a limited time after a lost connection or a server
//! outage.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result, Retry};
use crate::model::backoff::Backoff;
use crate::model::retry_limit::RetryLimit;
use crate::pg::connect::Target;
use crate::phase::{Driver, JobKind, Opening, Pacing, Retried, Retries, pace};
use crate::plan::Plan;

use super::{Engine, space};

/// How long the server may be unavailable before the command gives up. Running the command again continues the job.
const OUTAGE: Duration = Duration::from_secs(300);
/// If a driver worked for this long before it lost its connection, the time limit starts again.
const SETTLED: Duration = Duration::from_secs(10);

/// Pauses between attempts to continue a job.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The time limit for opening a driver's sessions and terminating those of the previous driver.
const OPEN: Duration = Duration::from_secs(90);
/// How long running work may take to end after the connection of the lease was lost.
const GRACE: Duration = Duration::from_secs(5);
/// The maximum time for which a job can appear to work although the server does not answer.
const SILENCE: Duration = Duration::from_secs(30);

impl Engine {
    /// Acquires the lease and does `work`. After a lost connection, or a statement that was canceled or timed out,
    /// does the work again, starting from the state in the database.
    pub(super) async fn drive<K: JobKind, T>(
        &self,
        plan: &Plan,
        job: i64,
        pacing: Pacing,
        work: impl AsyncFn(&K) -> Result<T>,
    ) -> Result<T> {
        self.driving.store(job, Ordering::SeqCst);
        let limit = outage_limit();
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut outage: Option<Outage<'_>> = None;
        let mut drove = false;
        loop {
            let mut worked = Duration::ZERO;
            let opening = Opening {
                plan: plan.clone(),
                job,
                events: self.events.clone(),
                stop: self.stop.clone(),
                holder: &self.holder,
                again: drove,
                pacing,
            };
            let result = match open(&self.target, opening).await {
                Ok(driver) => {
                    drove = true;
                    let own = K::from_driver(driver)?;
                    let began = Instant::now();
                    let tidied_and_worked = async {
                        own.tidy_up().await?;
                        with_pace(&own, &work).await
                    };
                    let result = while_answered(&own, tidied_and_worked).await;
                    let silence = if own.has_lost_lease() { SILENCE } else { Duration::ZERO };
                    worked = began.elapsed().saturating_sub(silence);
                    own.into_driver().close().await;
                    result
                }
                Err(e) => Err(e),
            };
            let Err(error) = result else { return result };
            if error.retry_class() == Retry::Never {
                return Err(space::explained(&self.target, plan, error).await);
            }
            if self.stop.is_requested() {
                return Err(Error::new(
                    Kind::Stopped,
                    "stopped as requested; the sessions of the job were ended",
                )
                .cause(error.message())
                .hint("run the same command again to continue"));
            }
            if worked > SETTLED {
                (outage, backoff) = (None, Backoff::new(FIRST_PAUSE, LONGEST_PAUSE));
            }
            let outage = outage.get_or_insert_with(|| Outage {
                since: Instant::now(),
                retries: Retries::of(&self.events, Retried::Job(plan.name()), RetryLimit::time(limit)),
            });
            outage.retries.failed(&error);
            if outage.since.elapsed() > limit {
                let spent = outage.retries.spent();
                return Err(error
                    .context(format!("job {} could not be continued after {spent}", plan.name()))
                    .hint(
                        "the job's state is kept; run the same command again when the server is \
                        available",
                    ));
            }
            tokio::time::sleep(backoff.next(rand::random())).await;
        }
    }
}

/// A period in which the job cannot be driven.
struct Outage<'a> {
    since: Instant,
    retries: Retries<'a>,
}

/// [`OUTAGE`], unless a test sets another value, in seconds.
fn outage_limit() -> Duration {
    #[cfg(feature = "failpoints")]
    if let Some(s) = std::env::var("PGSTRATA_OUTAGE").ok().and_then(|s| s.parse().ok()) {
        return Duration::from_secs(s);
    }
    OUTAGE
}

/// [`Driver::open`] with a time limit, because the server may not answer.
async fn open(target: &Target, opening: Opening<'_>) -> Result<Driver> {
    let opened = tokio::time::timeout(OPEN, Driver::open(target, opening)).await;
    opened.unwrap_or_else(|_| {
        let message = format!("the server did not answer within {} s", OPEN.as_secs());
        Err(Error::failed(message).retry(Retry::Unknown))
    })
}

/// Does `work` while the server answers on the connection of the lease. A network that drops all packets does not close
/// a connection, so the work could otherwise wait for an answer forever.
async fn while_answered<K: JobKind, T>(own: &K, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        result = work => result,
        () = own.silent(GRACE) => Err(Error::failed(
            "the server does not answer: the connection that holds the job's lease is lost, and a \
             statement is still running",
        )
        .retry(Retry::Unknown)),
    }
}

/// Does `work` and, if signals may throttle it, evaluates them concurrently.
async fn with_pace<K: JobKind, T>(own: &K, work: &impl AsyncFn(&K) -> Result<T>) -> Result<T> {
    if own.pacing() == Pacing::AtOnce {
        return work(own).await;
    }
    tokio::select! {
        result = work(own) => result,
        error = pace::watch(own) => Err(error),
    }
}
