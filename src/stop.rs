//! A wish to stop between two chunks, and whose: clones share it.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Asked once, heard everywhere.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    token: CancellationToken,
    why: Arc<OnceLock<String>>,
}

impl Stop {
    /// Asks for a stop; `why` goes on from "stopped", and the first one counts.
    pub fn ask(&self, why: impl Into<String>) {
        let _ = self.why.set(why.into());
        self.token.cancel();
    }

    /// Whether it was asked for.
    pub fn is_asked(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until it is asked for.
    pub async fn asked(&self) {
        self.token.cancelled().await;
    }

    /// Why, as [`Stop::ask`] said.
    pub fn why(&self) -> &str {
        self.why.get().map_or("as requested", String::as_str)
    }
}

/// Waits for Ctrl-C, or for the signal that a service manager sends.
pub async fn interrupted() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending::<()>().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}
