//! Concurrent writers: each is a task that runs transactions until it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::{AbortHandle, JoinSet};

use super::wait::until;

/// The state that a writer shares with the test: whether to continue, and the number of committed transactions.
#[derive(Debug, Default, Clone)]
pub struct Shift {
    stopped: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
}

impl Shift {
    /// Whether the writer should begin another transaction.
    pub fn is_open(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    /// Counts a committed transaction.
    pub fn committed(&self) {
        self.committed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Running writers. The test defines what they write. If a writer fails, it panics, and the test fails.
#[derive(Debug, Default)]
pub struct Writers {
    shift: Shift,
    tasks: JoinSet<()>,
    handles: Vec<AbortHandle>,
}

impl Writers {
    /// Adds a writer, which must run as long as [`Shift::goes_on`] returns true.
    pub fn add<F>(&mut self, work: impl FnOnce(Shift) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.handles.push(self.tasks.spawn(work(self.shift.clone())));
    }

    /// The number of committed transactions.
    pub fn committed(&self) -> u64 {
        self.shift.committed.load(Ordering::Relaxed)
    }

    /// Waits until `n` more transactions are committed. Panics if a writer has ended, because it has failed then.
    pub async fn commit_more(&self, n: u64) {
        let wanted = self.committed() + n;
        until(&format!("{n} more transactions"), async || {
            assert!(!self.handles.iter().any(AbortHandle::is_finished), "a writer failed");
            self.committed() >= wanted
        })
        .await;
    }

    /// Stops the writers after their current transactions; returns the total number of committed transactions.
    pub async fn stop(mut self) -> u64 {
        self.shift.stopped.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.committed()
    }
}
