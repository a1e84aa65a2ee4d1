//! The worker pool: items from one producer, done by so many sessions at a time, each with its own tries.

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

/// How many items may lie ready for each worker.
const READY: usize = 1;

/// Where a producer hands its items in.
pub struct Items<'a, T> {
    driver: &'a Driver,
    sender: mpsc::Sender<T>,
    /// How many were handed in and are not done.
    under_way: &'a watch::Sender<usize>,
}

impl<T> Items<'_, T> {
    /// Hands one in, and returns when it is time to look for the next: with several workers while they work, so that none of
    /// them waits. To look for an item takes the server a moment of its own: with one worker, who is to leave a processor to
    /// the applications, it is not done beside the work.
    ///
    /// # Errors
    /// A worker stopped, and has said why.
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

/// Runs `produce`, which hands items in, and `work` on each item, as many at a time as the gate has seats; each item passes the
/// gate first. `workers` says how many items lie ready.
///
/// The first failure stops the rest between two items: nobody is torn out of a transaction. `produce` learns of it because
/// sending fails.
///
/// # Errors
/// The first failure of a worker, else the producer's.
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

/// The next item for the worker of that number, once it has a seat and the gate is open; none when there are no more, or when
/// it is time to stop. `over`: somebody found that there are no more, so nobody need wait for a seat; whoever has an item keeps it.
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

/// One item, sent again while the server rolled it back for certain.
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

/// Where the server lets no more sessions in, the job goes on with those it has. One of them is left to the worker that got
/// none, and has an item to do.
fn fewer(driver: &Driver, error: &Error) {
    let open = usize::try_from(driver.pool.state().connections).unwrap_or(0);
    let most = open.saturating_sub(1).max(1);
    if error.is(&SqlState::TOO_MANY_CONNECTIONS) && open > 0 && driver.gate.at_most(most) {
        let (workers, error) = (most as u64, error.cause_text().unwrap_or(error.message()).to_owned());
        driver.events.warn(RunWarning::FewerWorkers { workers, error });
    }
}

/// [`run`] where all items are known.
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

/// The pool's error as ours.
pub fn pool_error(error: bb8::RunError<Error>) -> Error {
    match error {
        bb8::RunError::User(error) => error,
        bb8::RunError::TimedOut => {
            Error::failed("no session could be opened within the pool's time limit").retry(Retry::Unknown)
        }
    }
}
