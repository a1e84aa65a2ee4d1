//! The worker pool: one producer submits items, and a number of sessions process them concurrently, each with its own
//! retries.

use std::cell::Cell;

use futures_util::future::join_all;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::event::RunWarning;
use crate::model::pace::MOST_WORKERS;
use crate::pg::connect::Session;
use crate::phase::job::driver::Driver;
use crate::plan::Workers;
use crate::sql::locks;

/// The number of items that may be queued for each worker.
const READY: usize = 1;

/// The producer's end of the queue.
pub struct Items<'a, T> {
    driver: &'a Driver,
    sender: mpsc::Sender<T>,
    /// The number of items that were submitted and are not yet done.
    under_way: &'a watch::Sender<usize>,
}

impl<T> Items<'_, T> {
    /// Submits an item, and returns when the producer should prepare the next one. With several workers, that is while
    /// they work, so that none of them waits. With one worker, that is when the item is done: preparing an item takes
    /// time on the server, and one worker should use only one core.
    ///
    /// # Errors
    /// The workers have stopped; [`run`] returns the cause.
    pub async fn send(&self, item: T) -> Result<()> {
        self.under_way.send_modify(|n| *n += 1);
        self.sender.send(item).await.map_err(|_| Error::failed("the workers have stopped"))?;
        if self.driver.gate.workers() == 1 {
            // This fails only if the sender is gone.
            let _ = self.under_way.subscribe().wait_for(|n| *n == 0).await;
        }
        Ok(())
    }
}

/// Runs `produce`, which submits items, and `work` on each item, concurrently on as many items as the gate permits.
/// Each item first passes the gate. `workers` determines how many items are queued. `step` names the work on an item, as
/// an infinitive, for messages; it must not contain keys, which are user data.
///
/// After the first failure, the other workers stop when their current item is done; no transaction is interrupted.
/// `produce` stops because it can no longer submit items.
///
/// # Errors
/// The first failure of a worker, otherwise that of the producer.
pub async fn run<T>(
    driver: &Driver,
    workers: Workers,
    step: impl Fn(&T) -> String,
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
            // The span has a number, not the item: items contain keys, which are user data.
            let span = tracing::debug_span!("chunk", n = taken.get());
            let done = attempt(driver, &step(&item), &item, &work).instrument(span).await;
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
        // No worker takes items any longer: make a producer that waits to submit one fail, and let it not wait for
        // items that no worker has taken.
        receiver.lock().await.close();
        under_way.send_replace(0);
        results.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    };
    let items = Items { driver, sender, under_way: &under_way };
    let (produced, worked) = tokio::join!(produce(items), all);
    worked?;
    driver.check_stop()?;
    produced
}

/// Returns the next item for the worker with that number, when the worker may work and the gate is open; none if there
/// are no more items, or if the worker must stop. `over` is canceled when a worker found that there are no more items:
/// then no worker waits for permission any longer, but a worker that has an item keeps it.
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
                () = driver.gate.wait_for_worker(worker) => {}
                () = over.cancelled() => return None,
            }
            let item = receiver.lock().await.recv().await?;
            driver.gate.wait().await;
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
    tracing::debug!(what, "item begins");
    let result = driver
        .retrying(what, async || {
            let session = driver.pool.get().await.map_err(Error::from).inspect_err(|e| fewer(driver, e))?;
            if driver.standby_left.get() {
                session.batch_execute(locks::LEAVE_STANDBY).await?;
            }
            work(&session, item).await
        })
        .await;
    tracing::debug!(what, ok = result.is_ok(), "item ends");
    result
}

/// If the server accepts no more sessions, reduces the number of workers to the number of open sessions less one. The
/// worker that could not open a session uses that one for its item.
fn fewer(driver: &Driver, error: &Error) {
    let open = usize::try_from(driver.pool.state().connections).unwrap_or(0);
    let most = open.saturating_sub(1).max(1);
    if error.is(&SqlState::TOO_MANY_CONNECTIONS) && open > 0 && driver.gate.at_most(most) {
        let (workers, error) =
            (most as u64, error.cause_text().unwrap_or(error.message().into()).into_owned());
        driver.events.warn(RunWarning::FewerWorkers { workers, error });
    }
}

/// [`run`] for items that are known in advance.
///
/// # Errors
/// The first failure of a worker.
pub async fn each<T>(
    driver: &Driver,
    step: impl Fn(&T) -> String,
    items: impl IntoIterator<Item = T>,
    work: impl AsyncFn(&Session, &T) -> Result<()>,
) -> Result<()> {
    let produce = async |all: Items<'_, T>| {
        for item in items {
            all.send(item).await?;
        }
        Ok(())
    };
    run(driver, driver.plan.workers(), step, produce, work).await
}
