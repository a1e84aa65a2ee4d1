//! The bounds of partitions, and their text format.

use std::fmt;

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike};

use crate::model::ident::literal;

/// The unbounded upper end, in the format of the server and of pgstrata.
pub(super) const MAXVALUE: &str = "maxvalue";

/// The type of the partition column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnKind {
    /// `timestamp with time zone`.
    TimestampTz,
    /// `timestamp without time zone`.
    Timestamp,
    /// `date`.
    Date,
    /// `smallint`, 16 bits.
    SmallInt,
    /// `integer`, 32 bits.
    Integer,
    /// `bigint`, 64 bits.
    BigInt,
}

impl ColumnKind {
    /// The kind of a column of that type, in the server's format; none if a column of that type cannot be a partition
    /// column.
    pub fn from_sql(base_type: &str) -> Option<Self> {
        [Self::TimestampTz, Self::Timestamp, Self::Date, Self::SmallInt, Self::Integer, Self::BigInt]
            .into_iter()
            .find(|kind| kind.to_string() == base_type)
    }

    /// The smallest and the largest number of an integer column.
    pub(super) fn integers(self) -> Option<(i64, i64)> {
        match self {
            Self::SmallInt => Some((i16::MIN.into(), i16::MAX.into())),
            Self::Integer => Some((i32::MIN.into(), i32::MAX.into())),
            Self::BigInt => Some((i64::MIN, i64::MAX)),
            Self::TimestampTz | Self::Timestamp | Self::Date => None,
        }
    }
}

impl fmt::Display for ColumnKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimestampTz => "timestamp with time zone",
            Self::Timestamp => "timestamp without time zone",
            Self::Date => "date",
            Self::SmallInt => "smallint",
            Self::Integer => "integer",
            Self::BigInt => "bigint",
        })
    }
}

/// A value of the partition column, or the unbounded end above all of them (`maxvalue`).
///
/// Displayed in the server's format with `TimeZone = UTC` and `DateStyle = ISO`, which the server also accepts. Bounds
/// of one column have the order of the column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bound(pub(super) Value);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Value {
    /// In UTC, in whole microseconds.
    TimestampTz(NaiveDateTime),
    Timestamp(NaiveDateTime),
    Date(NaiveDate),
    Integer(i64),
    /// The last variant, so that it sorts above all others.
    Top,
}

impl Bound {
    /// The bound in `for values from (...) to (...)`: a quoted literal, or the keyword `maxvalue`.
    pub fn sql(&self) -> String {
        match self.0 {
            Value::Top => MAXVALUE.to_owned(),
            _ => literal(&self.to_string()),
        }
    }

    /// The largest value of the column below this one, if there is one.
    pub(super) fn just_below(&self) -> Option<Self> {
        let microsecond = TimeDelta::microseconds(1);
        Some(Self(match &self.0 {
            Value::TimestampTz(at) => Value::TimestampTz(at.checked_sub_signed(microsecond)?),
            Value::Timestamp(at) => Value::Timestamp(at.checked_sub_signed(microsecond)?),
            Value::Date(day) => Value::Date(day.pred_opt()?),
            Value::Integer(n) => Value::Integer(n.checked_sub(1)?),
            Value::Top => return None,
        }))
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, time, zone) = match &self.0 {
            Value::TimestampTz(at) => (at.date(), Some(at.time()), "+00"),
            Value::Timestamp(at) => (at.date(), Some(at.time()), ""),
            Value::Date(day) => (*day, None, ""),
            Value::Integer(n) => return write!(f, "{n}"),
            Value::Top => return f.write_str(MAXVALUE),
        };
        let (year, era) = year_and_era(day.year());
        write!(f, "{year:04}-{:02}-{:02}", day.month(), day.day())?;
        if let Some(time) = time {
            write!(f, " {}{zone}", Clock(time))?;
        }
        f.write_str(if era == Era::Bc { " BC" } else { "" })
    }
}

/// The era of a year: before or after the beginning of year 1, which follows 1 BC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Era {
    Bc,
    Ad,
}

/// Converts an astronomical year (0 is 1 BC) to the year and era in the server's format.
pub(super) fn year_and_era(year: i32) -> (i32, Era) {
    if year > 0 { (year, Era::Ad) } else { (1 - year, Era::Bc) }
}

/// The time of day in the server's format: fractions without trailing zeros.
struct Clock(NaiveTime);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}:{:02}", self.0.hour(), self.0.minute(), self.0.second())?;
        match self.0.nanosecond() / 1000 {
            0 => Ok(()),
            micros => write!(f, ".{}", format!("{micros:06}").trim_end_matches('0')),
        }
    }
}

/// The range of one partition: from `from`, inclusive, to `to`, exclusive. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// The lower bound, inclusive.
    pub from: Bound,
    /// The upper bound, exclusive.
    pub to: Bound,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.from, self.to)
    }
}
