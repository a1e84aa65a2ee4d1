//! When retries end.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::number;

/// When retries end: after so many attempts, after that time, or with whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RetryLimit {
    /// So many attempts.
    pub attempts: Option<u32>,
    /// That many milliseconds.
    pub time_ms: Option<u64>,
}

impl RetryLimit {
    /// After so many attempts.
    pub fn attempts(attempts: u32) -> Self {
        Self { attempts: Some(attempts), time_ms: None }
    }

    /// After that time.
    pub fn time(time: Duration) -> Self {
        Self { attempts: None, time_ms: Some(number::whole_ms(time)) }
    }

    /// After so many attempts, or that time.
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
