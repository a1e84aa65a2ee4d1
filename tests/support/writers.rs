//! Applications at work while a job runs: one task each, transaction after transaction until they are stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::{AbortHandle, JoinSet};

use super::wait::until;

/// What one writer shares with the test: whether to go on, and how many transactions are committed.
#[derive(Debug, Default, Clone)]
pub struct Shift {
    stopped: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
}

impl Shift {
    /// Whether to begin another transaction.
    pub fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    /// Counts a transaction that is committed.
    pub fn committed(&self) {
        self.committed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writers at work. What they write is the test's; a writer that fails panics, and so does the test.
#[derive(Debug, Default)]
pub struct Writers {
    shift: Shift,
    tasks: JoinSet<()>,
    handles: Vec<AbortHandle>,
}

impl Writers {
    /// Adds one writer, which works as long as its shift [goes on](Shift::goes_on).
    pub fn add<F>(&mut self, work: impl FnOnce(Shift) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.handles.push(self.tasks.spawn(work(self.shift.clone())));
    }

    /// How many transactions are committed.
    pub fn committed(&self) -> u64 {
        self.shift.committed.load(Ordering::Relaxed)
    }

    /// Waits until `n` more transactions are committed. A writer that ends before has panicked, and so does this.
    pub async fn commit_more(&self, n: u64) {
        let wanted = self.committed() + n;
        until(&format!("{n} more transactions"), async || {
            assert!(!self.handles.iter().any(AbortHandle::is_finished), "a writer failed");
            self.committed() >= wanted
        })
        .await;
    }

    /// Lets each writer complete its transaction; returns how many were committed in all.
    pub async fn stop(mut self) -> u64 {
        self.shift.stopped.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.committed()
    }
}
