//! Waiting with a time limit: a timeout fails the test with a message and does not block the other tests.

use std::time::Duration;

/// The time limit: longer than any step takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(600);
/// The interval between two checks.
const INTERVAL: Duration = Duration::from_millis(10);

/// The result of a future; panics with `what` if it takes too long.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(result) => result,
        Err(_) => panic!("not within {} s: {what}", LIMIT.as_secs()),
    }
}

/// Checks a condition repeatedly until it is true.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !condition().await {
            tokio::time::sleep(INTERVAL).await;
        }
    })
    .await;
}
