//! The bounds of partitions, and their names.
//!
//! There is one rule: marks form a fixed grid on the scale of the column, and a partition extends from one mark to the
//! next. The grid depends only on the interval, never on the data or on the start of a run, so that a partition that is
//! added a year later adjoins the existing ones.
//!
//! | interval | marks |
//! |---|---|
//! | months, quarters, years | counted from January of the year 0 (1 BC), so that 10 years are a decade |
//! | weeks | Mondays, counted from the first ISO week of 1970 (1969-12-29) |
//! | days, hours | counted from 1970-01-01 00:00 |
//! | integers | multiples of the number, including negative ones |
//!
//! On a `timestamptz` column, marks are local times in the plan's time zone, also for hours. The bound is **the first
//! instant at which the clock shows the mark or a later time**. For a mark that daylight saving time skips, this is the
//! first instant after the gap; for a mark that is repeated, it is the earlier instant. Bounds therefore never
//! decrease, regardless of clock changes. If two marks are the same instant (2011-12-30 in Samoa), there is no
//! partition between them. For a repeated hour, `1 hour` results in one partition of two hours, so that its name, which
//! contains the local time, is unique. If a clock is set back across midnight (Newfoundland until 2011), the repeated
//! time belongs to the new day. This is the only case in which a bound differs from the server's `date_trunc`, which
//! uses the later instant.
//!
//! Limits: bounds are exact from the first instant that PostgreSQL supports (4714-11-24 BC) to the year 261999, the
//! limit of the calendar library; a later value is an error. A range that would extend beyond that, or beyond the
//! largest number of an integer column, ends at `maxvalue`, so that the largest number has a partition. After 2100, the
//! time zone database has no rules, and the last offset applies.

mod adopt;
mod ahead;
mod bound;
mod every;
mod name;
mod read;
mod scheme;

pub use adopt::{ends, scheme as adopted_scheme};
pub use ahead::{gaps, horizon, missing};
pub use bound::{Bound, ColumnKind, Range};
pub use every::Every;
pub use name::{Template, names};
pub use scheme::{MAX_PARTITIONS, Scheme};

#[cfg(test)]
mod tests;
