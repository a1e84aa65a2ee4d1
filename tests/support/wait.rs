//! Waiting with a limit: what does not happen in time fails its test with a message, and never blocks the whole run.

use std::time::Duration;

/// How long anything may take: longer than a busy machine ever needs, shorter than a run of all tests may take.
pub const LIMIT: Duration = Duration::from_secs(600);
/// The time between two questions.
const NAP: Duration = Duration::from_millis(10);

/// The result of a future; panics with `what` if it takes too long.
pub async fn within<T>(what: &str, coming: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, coming).await {
        Ok(come) => come,
        Err(_) => panic!("not within {} s: {what}", LIMIT.as_secs()),
    }
}

/// Asks repeatedly until the answer is yes.
pub async fn until(what: &str, mut come: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !come().await {
            tokio::time::sleep(NAP).await;
        }
    })
    .await;
}
