//! What time it is, for windows and deadlines: schedules are tested by a clock that the test sets, not by waiting.
//!
//! Without the cargo feature `failpoints` it is the machine's clock. With it, where `PGSTRATA_CLOCK` names a file, it stands
//! at the instant in that file, as RFC 3339 writes it, until somebody writes another one there.

use chrono::{DateTime, Utc};

/// Now.
#[cfg(not(feature = "failpoints"))]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// Now, or what the test says.
#[cfg(feature = "failpoints")]
pub fn now() -> DateTime<Utc> {
    let set = || {
        let file = std::env::var_os("PGSTRATA_CLOCK")?;
        DateTime::parse_from_rfc3339(std::fs::read_to_string(file).ok()?.trim()).ok()
    };
    set().map_or_else(Utc::now, |at| at.to_utc())
}
