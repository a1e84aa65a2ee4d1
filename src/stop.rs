//! A request to stop between two chunks, with its reason; shared by clones.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Requested once, visible to all clones.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    token: CancellationToken,
    why: Arc<OnceLock<String>>,
}

impl Stop {
    /// Requests a stop; `why` continues the message "stopped", and the first reason counts.
    pub fn request(&self, why: impl Into<String>) {
        let _ = self.why.set(why.into());
        self.token.cancel();
    }

    /// Whether a stop was requested.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until a stop is requested.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// The reason, as given to [`Stop::request`].
    pub fn reason(&self) -> &str {
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
