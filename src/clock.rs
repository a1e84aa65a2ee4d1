//! The current time, for windows and deadlines. Tests of schedules set the clock instead of waiting.
//!
//! Without the cargo feature `failpoints`, it is the system clock. With it, if `PGSTRATA_CLOCK` names a file, the
//! time is the instant in that file, in RFC 3339 format, until a test writes another one there.

use chrono::{DateTime, Utc};

/// The current time.
#[cfg(not(feature = "failpoints"))]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// The current time, or the one that a test has set.
#[cfg(feature = "failpoints")]
pub fn now() -> DateTime<Utc> {
    let set = || {
        let file = std::env::var_os("PGSTRATA_CLOCK")?;
        DateTime::parse_from_rfc3339(std::fs::read_to_string(file).ok()?.trim()).ok()
    };
    set().map_or_else(Utc::now, |at| at.to_utc())
}
