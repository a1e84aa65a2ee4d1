//! The worker pool: items from one producer, processed concurrently by a number of sessions, each with its own
//! retries.

use std::cell::Cell;

use futures_util::future::join_all;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use tokio_postgres::error::SqlState;

use crate::error::{Error, Result, Retry};
use crate::event::RunWarning;
use crate::model::pace::MOST_WORKERS;
use crate::pg::connect::Session;
use crate::phase::job::driver::Driver;
use crate::plan::Workers;
use crate::sql::locks;

/// How many items may be queued for each worker.
const READY: usize = 1;

/// Where a producer submits its items.
pub struct Items<'a, T> {
    driver: &'a Driver,
    sender: mpsc::Sender<T>,
    /// The number of items that were submitted and are not done.
    under_way: &'a watch::Sender<usize>,
}

impl<T> Items<'_, T> {
    /// Submits an item, and returns when the next one should be prepared: with several workers while they work, so
    /// that none of them waits. Preparing an item takes time on the server. With one worker, which should leave a
    /// core to the applications, it is therefore not done concurrently with the work.
    ///
    /// # Errors
    /// A worker stopped, and has reported why.
    pub async fn send(&self, item: T) -> Result<()> {
        self.under_way.send_modify(|n| *n += 1);
        self.sender.send(item).await.map_err(|_| Error::failed("the workers have stopped"))?;
        if self.driver.gate.workers() == 1 {
            // Only a sender that is gone would be an error.
            let _ = self.under_way.subscribe().wait_for(|n| *n == 0).await;
        }
        Ok(())
    }
}

/// Runs `produce`, which submits items, and `work` on each item, as many at a time as the gate permits; each item
/// passes the gate first. `workers` determines how many items are queued.
///
/// The first failure stops the others between two items; no transaction is interrupted. `produce` notices it because
/// submitting fails.
///
/// # Errors
/// The first failure of a worker, otherwise the producer's.
pub async fn run<T>(
    driver: &Driver,
    workers: Workers,
    what: &str,
    produce: impl AsyncFnOnce(Items<'_, T>) -> Result<()>,
    work: impl AsyncFn(&Session, &T) -> Result<()>,
) -> Result<()> {
    let (sender, receiver) = mpsc::channel(READY * workers.fixed().unwrap_or(1));
    let receiver = Mutex::new(receiver);
    let under_way = watch::Sender::new(0);
    let (halt, over) = (CancellationToken::new(), CancellationToken::new());
    let taken = Cell::new(0_u64);
    let one = async |worker| {
        while let Some(item) = next(driver, worker, &receiver, &halt, &over).await {
            taken.set(taken.get() + 1);
            // By number: what an item is made of are keys.
            let span = tracing::debug_span!("chunk", n = taken.get());
            let done = attempt(driver, what, &item, &work).instrument(span).await;
            under_way.send_modify(|n| *n -= 1);
            if let Err(error) = done {
                halt.cancel();
                return Err(error);
            }
        }
        over.cancel();
        Ok(())
    };
    let all = async {
        let results = join_all((0..MOST_WORKERS).map(one)).await;
        // With nobody left to take items, a producer that waits to send one must fail, and what was not taken is waited for
        // by nobody.
        receiver.lock().await.close();
        under_way.send_replace(0);
        results.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    };
    let items = Items { driver, sender, under_way: &under_way };
    let (produced, worked) = tokio::join!(produce(items), all);
    worked?;
    driver.go_on()?;
    produced
}

/// The next item for the worker of that number, once it may work and the gate is open; none if there are no more, or
/// if it is time to stop. `over`: a worker found that there are no more items, so none need wait for permission; a
/// worker with an item keeps it.
async fn next<T>(
    driver: &Driver,
    worker: usize,
    receiver: &Mutex<mpsc::Receiver<T>>,
    halt: &CancellationToken,
    over: &CancellationToken,
) -> Option<T> {
    tokio::select! {
        biased;
        () = halt.cancelled() => None,
        () = driver.interrupted() => None,
        item = async {
            tokio::select! {
                () = driver.gate.seat(worker) => {}
                () = over.cancelled() => return None,
            }
            let item = receiver.lock().await.recv().await?;
            driver.gate.pass().await;
            Some(item)
        } => item,
    }
}

/// Processes one item, repeating it while the server certainly rolled it back.
async fn attempt<T>(
    driver: &Driver,
    what: &str,
    item: &T,
    work: &impl AsyncFn(&Session, &T) -> Result<()>,
) -> Result<()> {
    tracing::debug!(what, "begins");
    let result = driver
        .retrying(what, async || {
            let session = driver.pool.get().await.map_err(pool_error).inspect_err(|e| fewer(driver, e))?;
            if driver.standby_left.get() {
                session.batch_execute(locks::LEAVE_STANDBY).await?;
            }
            work(&session, item).await
        })
        .await;
    tracing::debug!(what, ok = result.is_ok(), "ends");
    result
}

/// If the server accepts no more sessions, the job continues with those that it has. One of them is left to the
/// worker that got none and has an item.
fn fewer(driver: &Driver, error: &Error) {
    let open = usize::try_from(driver.pool.state().connections).unwrap_or(0);
    let most = open.saturating_sub(1).max(1);
    if error.is(&SqlState::TOO_MANY_CONNECTIONS) && open > 0 && driver.gate.at_most(most) {
        let (workers, error) = (most as u64, error.cause_text().unwrap_or(error.message()).to_owned());
        driver.events.warn(RunWarning::FewerWorkers { workers, error });
    }
}

/// [`run`] if all items are known in advance.
///
/// # Errors
/// The first failure of a worker.
pub async fn each<T>(
    driver: &Driver,
    what: &str,
    items: impl IntoIterator<Item = T>,
    work: impl AsyncFn(&Session, &T) -> Result<()>,
) -> Result<()> {
    let produce = async |all: Items<'_, T>| {
        for item in items {
            all.send(item).await?;
        }
        Ok(())
    };
    run(driver, driver.plan.workers(), what, produce, work).await
}

/// Converts the error of the pool.
pub fn pool_error(error: bb8::RunError<Error>) -> Error {
    match error {
        bb8::RunError::User(error) => error,
        bb8::RunError::TimedOut => {
            Error::failed("no session could be opened within the pool's time limit").retry(Retry::Unknown)
        }
    }
}
