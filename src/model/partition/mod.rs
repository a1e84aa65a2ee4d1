//! Where partitions begin and end, and what they are called.
//!
//! One rule for all: there is a fixed grid of marks on the column's own scale, and a partition reaches from
//! one mark to the next. The grid depends on the interval alone, never on the data or on where a run starts,
//! so that a partition added a year later joins the ones that are there.
//!
//! | interval | marks |
//! |---|---|
//! | months, quarters, years | counted from January of the year 0 (1 BC), so that 10 years are a decade |
//! | weeks | Mondays, counted from the first ISO week of 1970 (1969-12-29) |
//! | days, hours | counted from 1970-01-01 00:00 |
//! | integers | multiples of the number, also below zero |
//!
//! On a `timestamptz` column marks are times on the wall clock of the plan's zone, hours included. The bound
//! is **the first instant at which that clock shows the mark or a later time**. So a mark that daylight saving
//! skips falls on the first instant after the gap, one that is shown twice on the earlier of the two, and
//! bounds never run backwards whatever a zone has done to its clock. Where two marks fall on one instant
//! (2011-12-30 in Samoa) there is no partition between them. In the hour that comes twice, `1 hour` makes one
//! partition of two hours, so that a wall-clock name stays unique; where a clock goes back across midnight
//! (Newfoundland until 2011) what it shows a second time belongs to the new day.
//! There alone a bound differs from the server's `date_trunc`, which takes the later of the two instants.
//!
//! Ends: bounds are exact from the first instant PostgreSQL knows (4714-11-24 BC) up to the year 261999, which
//! is as far as the calendar library goes; a value beyond is refused. The range that would reach over that, or
//! over the largest number of an integer column, ends at `maxvalue`, so that the largest number has a place.
//! After 2100 the zone database has no rules left and its last offset goes on.

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
