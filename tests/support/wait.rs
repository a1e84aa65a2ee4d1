//! Waiting for what must come, with a limit: what does not come ends its test and is told, and never the whole run.

use std::time::Duration;

/// How long anything may take: long beyond what a busy machine needs, short beyond what a run of all tests may take.
pub const LIMIT: Duration = Duration::from_secs(600);
/// How often it is asked.
const NAP: Duration = Duration::from_millis(10);

/// What comes of it; panics with `what` where nothing does.
pub async fn within<T>(what: &str, coming: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, coming).await {
        Ok(come) => come,
        Err(_) => panic!("not within {} s: {what}", LIMIT.as_secs()),
    }
}

/// Asks again and again until the answer is yes.
pub async fn until(what: &str, mut come: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !come().await {
            tokio::time::sleep(NAP).await;
        }
    })
    .await;
}
