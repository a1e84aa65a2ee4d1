//! A limited pool of sessions for the workers, based on bb8.

use std::time::Duration;

use bb8::{ManageConnection, Pool, RunError};

use super::connect::{Session, Target, refuse_pooler};
use super::lease;
use crate::error::{Error, Result, Retry};

/// How long a worker waits for a session of the pool, which has one for each worker.
const WAIT: Duration = Duration::from_secs(60);

/// Opens the sessions of the workers: where to connect, and for which job and epoch.
#[derive(Debug, Clone)]
pub struct Sessions {
    target: Target,
    job: i64,
    epoch: i64,
}

impl ManageConnection for Sessions {
    type Connection = Session;
    type Error = Error;

    async fn connect(&self) -> Result<Session> {
        lease::session(&self.target, self.job, self.epoch, "worker").await
    }

    /// Without a round trip: a connection that broke while it was idle is known to be closed, and the caller must
    /// handle one that breaks later in any case.
    async fn is_valid(&self, session: &mut Session) -> Result<()> {
        if session.is_closed() {
            return Err(Error::failed("the connection is closed").retry(Retry::Unknown));
        }
        Ok(())
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.is_closed()
    }
}

/// A session that does not open in time is treated like one that was lost: the driver connects again, within its own
/// limit.
impl From<RunError<Error>> for Error {
    fn from(e: RunError<Error>) -> Self {
        match e {
            RunError::User(e) => e,
            RunError::TimedOut => {
                Self::failed(format!("no session became available within {} s", WAIT.as_secs()))
                    .retry(Retry::Unknown)
            }
        }
    }
}

/// A pool of at most `size` sessions, which are opened when needed.
///
/// If a session cannot be opened, the caller gets the error at once, because the caller decides when to try again.
///
/// # Errors
/// As [`refuse_pooler`].
pub async fn pool(target: &Target, size: u32, job: i64, epoch: i64) -> Result<Pool<Sessions>> {
    refuse_pooler(target).await?;
    let sessions = Sessions { target: target.clone(), job, epoch };
    Pool::builder()
        .max_size(size)
        .connection_timeout(WAIT)
        .retry_connection(false)
        // Sessions live as long as the job: none is closed because of its age or because it is idle.
        .max_lifetime(None)
        .idle_timeout(None)
        .build(sessions)
        .await
}
