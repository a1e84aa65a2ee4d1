//! Closed time windows, as events and errors report them.

use std::fmt;

use chrono::DateTime;
use chrono_tz::Tz;
use serde::{Serialize, Serializer};

/// The current time is outside the plan's windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClosedWindows {
    /// The windows, in the format of the plan.
    pub windows: Vec<String>,
    /// The start of the next window, in the plan's time zone.
    #[serde(serialize_with = "rfc3339")]
    pub next: Option<DateTime<Tz>>,
}

fn rfc3339<S: Serializer>(next: &Option<DateTime<Tz>>, serializer: S) -> Result<S::Ok, S::Error> {
    next.map(|next| next.to_rfc3339()).serialize(serializer)
}

impl fmt::Display for ClosedWindows {
    /// `the time is outside the windows Mon-Fri 22:00-05:00; the next window opens Mon 2026-11-30 22:00 CET`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the time is outside the windows {}; ", self.windows.join(", "))?;
        match self.next {
            Some(next) => write!(f, "the next window opens {}", next.format("%a %Y-%m-%d %H:%M %Z")),
            None => f.write_str("no window opens again"),
        }
    }
}
