//! The limit for retries.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::number;

/// The limit for retries: a number of attempts, a time, or whichever is reached first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RetryLimit {
    /// The maximum number of attempts.
    pub attempts: Option<u32>,
    /// The maximum time in milliseconds.
    pub time_ms: Option<u64>,
}

impl RetryLimit {
    /// A limit on the number of attempts.
    pub fn attempts(attempts: u32) -> Self {
        Self { attempts: Some(attempts), time_ms: None }
    }

    /// A limit on the time.
    pub fn time(time: Duration) -> Self {
        Self { attempts: None, time_ms: Some(number::whole_ms(time)) }
    }

    /// A limit on both.
    pub fn either(attempts: u32, time: Duration) -> Self {
        Self { attempts: Some(attempts), ..Self::time(time) }
    }
}

impl fmt::Display for RetryLimit {
    /// `30 attempts or 10m`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = self.attempts.map(|n| number::counted(n.into(), "attempt"));
        let time = self.time_ms.map(|ms| number::duration(Duration::from_millis(ms)));
        f.write_str(&attempts.into_iter().chain(time).collect::<Vec<_>>().join(" or "))
    }
}
