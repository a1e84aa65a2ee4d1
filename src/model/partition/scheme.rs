//! Assigns a value to its range. [`super`] describes the rules.

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone};
use chrono_tz::Tz;

use super::{
    bound::{Bound, ColumnKind, MAXVALUE, Range, Value},
    every::Every,
    read::{END_YEAR, Fault, written},
};

/// The maximum number of partitions. Planning is slow with far fewer.
pub const MAX_PARTITIONS: u32 = 10_000;

const DAY_S: i64 = 86_400;

/// How a column is divided into ranges.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scheme {
    kind: ColumnKind,
    every: Every,
    zone: Tz,
}

/// The distance between marks in local time.
enum Stride {
    Seconds { step: i128, origin: i128 },
    Months(i128),
}

impl Scheme {
    /// Creates a scheme. `zone` only applies to `timestamptz`.
    ///
    /// # Errors
    /// A sentence if the interval does not fit the column's type.
    pub fn new(kind: ColumnKind, every: Every, zone: Tz) -> Result<Self, String> {
        match every {
            Every::Integers(_) if kind.integers().is_none() => Err(format!(
                "the interval `{every}` is a plain number, but the column has type {kind}: write an \
                 interval of time, such as \"1 month\""
            )),
            Every::Integers(n) if n < 1 => Err(format!("interval `{n}`: the number must be 1 or more")),
            Every::Integers(_) => Ok(Self { kind, every, zone }),
            _ if kind.integers().is_some() => Err(format!(
                "the interval `{every}` is an interval of time, but the column has type {kind}: write a \
                 plain number, such as \"100000\""
            )),
            _ if !(1..=Every::MOST_UNITS.into()).contains(&every.unit().0) => {
                Err(format!("interval `{every}`: the number must be between 1 and {}", Every::MOST_UNITS))
            }
            Every::Hours(_) if kind == ColumnKind::Date => Err(format!(
                "the interval `{every}` is in hours, but the column has type date: write \"1 day\" or \
                 longer"
            )),
            _ => Ok(Self { kind, every, zone }),
        }
    }

    /// The interval.
    pub fn every(&self) -> Every {
        self.every
    }

    /// The time zone for a `timestamptz` column.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The type of the column.
    pub fn kind(&self) -> ColumnKind {
        self.kind
    }

    /// Parses the server's output with `TimeZone = UTC` and `DateStyle = ISO`, including `maxvalue`.
    ///
    /// # Errors
    /// A sentence, without the value, if it is infinity, is beyond the year 261999, or has another format.
    pub fn value(&self, server_text: &str) -> Result<Bound, String> {
        let kind = self.kind;
        let form = || {
            format!(
                "the server returned a {kind} in an unexpected format: the session must have TimeZone = \
                 UTC and DateStyle = ISO"
            )
        };
        if server_text == MAXVALUE {
            return Ok(Bound(Value::Top));
        }
        if kind.integers().is_some() {
            let n = server_text.parse().ok().and_then(|n| self.within_reach(Value::Integer(n)));
            return n.ok_or_else(|| {
                format!(
                    "the server returned a {kind} that is not a number in its \
                range"
                )
            });
        }
        let written = written(server_text).map_err(|fault| match fault {
            Fault::Form => form(),
            Fault::Infinite => "no partition with bounds accepts infinity: let a default partition take \
                such rows (`default = true`), or set a finite value in them first"
                .to_owned(),
            Fault::Far => format!("the column contains a {kind} that is out of range: {}", Fault::REACH),
        })?;
        let value = match (kind, written.time, written.offset_s) {
            (ColumnKind::TimestampTz, Some(time), Some(offset_s)) => {
                Value::TimestampTz(written.day.and_time(time) - TimeDelta::seconds(offset_s.into()))
            }
            (ColumnKind::Timestamp, Some(time), None) => Value::Timestamp(written.day.and_time(time)),
            (ColumnKind::Date, None, None) => Value::Date(written.day),
            _ => return Err(form()),
        };
        self.within_reach(value)
            .ok_or_else(|| format!("the column contains a {kind} that is out of range: {}", Fault::REACH))
    }

    /// Parses a bound in the format of a plan: `2024-01-01`, `2024-01-01 06:00`, `2024-01-01T06:00:00+02:00`, `1000`.
    ///
    /// For `timestamptz`, a time without an offset is in the time zone of the scheme: a skipped local time is the first
    /// instant after the gap, a repeated local time is the earlier instant. The value does not have to be a mark.
    ///
    /// # Errors
    /// A sentence that describes the expected format.
    pub fn start(&self, plan_text: &str) -> Result<Bound, String> {
        let kind = self.kind;
        if let Some((least, largest)) = kind.integers() {
            let n: i128 = plan_text.trim().replace('_', "").parse().map_err(|_| {
                format!(
                    "`{plan_text}` is not a whole number, but the column has type {kind}: write a number, \
                     such as \"1000\""
                )
            })?;
            return i64::try_from(n)
                .ok()
                .filter(|n| (least..=largest).contains(n))
                .map(|n| Bound(Value::Integer(n)))
                .ok_or_else(|| {
                    format!(
                        "`{plan_text}` is out of range for type {kind}, which has values from {least} \
                        to {largest}"
                    )
                });
        }
        let written = written(plan_text).map_err(|fault| match fault {
            Fault::Form => format!(
                "`{plan_text}` is not a date: write \"2024-01-31\" or \"2024-01-31 \
                06:00\""
            ),
            Fault::Infinite => format!("`{plan_text}` cannot be the bound of a partition: write a date"),
            Fault::Far => format!("`{plan_text}` is out of range: {}", Fault::REACH),
        })?;
        let at = written.day.and_time(written.time.unwrap_or(NaiveTime::MIN));
        let value = match (kind, written.offset_s) {
            (ColumnKind::TimestampTz, Some(offset_s)) => {
                Value::TimestampTz(at - TimeDelta::seconds(offset_s.into()))
            }
            (ColumnKind::TimestampTz, None) => Value::TimestampTz(first_instant(self.zone, at)),
            (_, Some(_)) => {
                return Err(format!(
                    "`{plan_text}` has an offset from UTC, but the column has type {kind}: remove the \
                     offset"
                ));
            }
            (ColumnKind::Timestamp, None) => Value::Timestamp(at),
            _ if at.time() != NaiveTime::MIN => {
                return Err(format!(
                    "`{plan_text}` has a time of day, but the column has type date: remove the time"
                ));
            }
            _ => Value::Date(written.day),
        };
        self.within_reach(value).ok_or_else(|| format!("`{plan_text}` is out of range: {}", Fault::REACH))
    }

    /// The range that contains `value`.
    ///
    /// # Errors
    /// A sentence if `value` is of another column's type, or is `maxvalue`.
    pub fn containing(&self, value: &Bound) -> Result<Range, String> {
        let mut cell = self.cell(value)?;
        // If the clock was set back, the local time can be before a mark that was already reached.
        while self.mark(cell + 1) <= *value {
            cell += 1;
        }
        Ok(Range { from: self.mark(cell), to: self.mark(cell + 1) })
    }

    /// The range that begins where `range` ends, even if `range` is not of this scheme.
    ///
    /// # Errors
    /// A sentence if `range` ends at `maxvalue`.
    pub fn next(&self, range: &Range) -> Result<Range, String> {
        Ok(Range { from: range.to.clone(), to: self.containing(&range.to)?.to })
    }

    /// The range that ends where `range` begins.
    ///
    /// # Errors
    /// A sentence if the column has no values below `range`.
    pub fn previous(&self, range: &Range) -> Result<Range, String> {
        let nothing = || format!("a {} has no values below {}", self.kind, range.from);
        let below =
            range.from.just_below().and_then(|below| self.within_reach(below.0)).ok_or_else(nothing)?;
        Ok(Range { from: self.containing(&below)?.from, to: range.from.clone() })
    }

    /// All ranges from the one that contains `oldest` to the one that contains `newest`, and `ahead` more. Each begins
    /// where the previous range ends. There are fewer at the end of the column's type.
    ///
    /// # Errors
    /// A sentence if there would be more than [`MAX_PARTITIONS`], or `newest` is before `oldest`.
    pub fn cover(&self, oldest: &Bound, newest: &Bound, ahead: u32) -> Result<Vec<Range>, String> {
        if newest < oldest {
            return Err("the newest value is before the oldest value".to_owned());
        }
        let count = self.cell(newest)? - self.cell(oldest)? + 1 + i128::from(ahead);
        if count > i128::from(MAX_PARTITIONS) {
            return Err(format!(
                "the interval `{}` from {} to {} with {ahead} partitions ahead results in {count} \
                 partitions, more than {MAX_PARTITIONS}: choose a longer interval, or set a later `from` \
                 and let a default partition take older rows",
                self.every,
                self.containing(oldest)?.from,
                self.containing(newest)?.to,
            ));
        }
        let mut ranges = vec![self.containing(oldest)?];
        let mut left = ahead;
        while let Some(last) = ranges.last().filter(|last| last.to.0 != Value::Top) {
            if last.to > *newest {
                if left == 0 {
                    break;
                }
                left -= 1;
            }
            ranges.push(self.next(last)?);
        }
        Ok(ranges)
    }

    /// The local time of the mark at which, or just after which, `range` begins; none for integers.
    pub(super) fn wall_mark(&self, range: &Range) -> Option<NaiveDateTime> {
        self.wall_at(self.cell_of_wall(self.wall(&range.from)?)?)
    }

    /// The number of the cell of the grid that contains the local time of `value`. The result type can also represent
    /// the number of the cell after the last.
    fn cell(&self, value: &Bound) -> Result<i128, String> {
        let cell = match (self.every, self.kind.integers(), &value.0) {
            (_, _, Value::Top) => return Err("no partition can follow maxvalue".to_owned()),
            (Every::Integers(step), Some((least, largest)), Value::Integer(n)) => {
                (least..=largest).contains(n).then(|| i128::from(n.div_euclid(step)))
            }
            _ => self.wall(value).and_then(|wall| self.cell_of_wall(wall)),
        };
        cell.ok_or_else(|| format!("the column has type {}, but the value has another type", self.kind))
    }

    /// The start of a cell, limited to the range of the column's type.
    fn mark(&self, cell: i128) -> Bound {
        if let (Every::Integers(step), Some((least, largest))) = (self.every, self.kind.integers()) {
            let mark = cell * i128::from(step);
            return Bound(match i64::try_from(mark.max(least.into())) {
                Ok(n) if n <= largest => Value::Integer(n),
                _ => Value::Top,
            });
        }
        let Some(at) = self.wall_at(cell).filter(|wall| wall.year() <= END_YEAR) else {
            return Bound(Value::Top);
        };
        let at = match self.kind {
            ColumnKind::TimestampTz => first_instant(self.zone, at),
            _ => at,
        };
        let at = at.max(FIRST.and_time(NaiveTime::MIN));
        Bound(match self.kind {
            _ if at.year() >= END_YEAR => Value::Top,
            ColumnKind::TimestampTz => Value::TimestampTz(at),
            ColumnKind::Timestamp => Value::Timestamp(at),
            _ => Value::Date(at.date()),
        })
    }

    /// The local time of a value.
    pub(super) fn wall(&self, value: &Bound) -> Option<NaiveDateTime> {
        match (self.kind, &value.0) {
            (ColumnKind::TimestampTz, Value::TimestampTz(at)) => {
                Some(self.zone.from_utc_datetime(at).naive_local())
            }
            (ColumnKind::Timestamp, Value::Timestamp(at)) => Some(*at),
            (ColumnKind::Date, Value::Date(day)) => Some(day.and_time(NaiveTime::MIN)),
            _ => None,
        }
    }

    /// The first value of the column at which the clock shows `at` or a later time; none if the column has none.
    pub(super) fn at_wall(&self, at: NaiveDateTime) -> Option<Bound> {
        self.within_reach(match self.kind {
            ColumnKind::TimestampTz => Value::TimestampTz(first_instant(self.zone, at)),
            ColumnKind::Timestamp => Value::Timestamp(at),
            ColumnKind::Date => Value::Date(at.date()),
            ColumnKind::SmallInt | ColumnKind::Integer | ColumnKind::BigInt => return None,
        })
    }

    fn cell_of_wall(&self, wall: NaiveDateTime) -> Option<i128> {
        Some(match self.stride()? {
            Stride::Seconds { step, origin } => {
                (i128::from(wall.and_utc().timestamp()) - origin).div_euclid(step)
            }
            Stride::Months(step) => {
                (i128::from(wall.year()) * 12 + i128::from(wall.month0())).div_euclid(step)
            }
        })
    }

    /// The mark at the start of a cell; none outside the calendar.
    fn wall_at(&self, cell: i128) -> Option<NaiveDateTime> {
        match self.stride()? {
            Stride::Seconds { step, origin } => {
                let at_s = i64::try_from(cell * step + origin).ok()?;
                DateTime::from_timestamp(at_s, 0).map(|at| at.naive_utc())
            }
            Stride::Months(step) => {
                let months = cell * step;
                let year = i32::try_from(months.div_euclid(12)).ok()?;
                let month = u32::try_from(months.rem_euclid(12)).ok()? + 1;
                NaiveDate::from_ymd_opt(year, month, 1).map(|day| day.and_time(NaiveTime::MIN))
            }
        }
    }

    fn stride(&self) -> Option<Stride> {
        let seconds = |n: u32, unit_s: i64, origin: i64| Stride::Seconds {
            step: i128::from(n) * i128::from(unit_s),
            origin: origin.into(),
        };
        Some(match self.every {
            Every::Hours(n) => seconds(n, 3600, 0),
            Every::Days(n) => seconds(n, DAY_S, 0),
            // 1970-01-01 was a Thursday.
            Every::Weeks(n) => seconds(n, 7 * DAY_S, -3 * DAY_S),
            Every::Months(n) => Stride::Months(n.into()),
            Every::Quarters(n) => Stride::Months(i128::from(n) * 3),
            Every::Years(n) => Stride::Months(i128::from(n) * 12),
            Every::Integers(_) => return None,
        })
    }

    /// Returns the value if it is a number in the range of the column, or a time that PostgreSQL supports and that is
    /// before [`END_YEAR`].
    fn within_reach(&self, value: Value) -> Option<Bound> {
        let day = match &value {
            Value::TimestampTz(at) | Value::Timestamp(at) => at.date(),
            Value::Date(day) => *day,
            Value::Integer(n) => {
                let (least, largest) = self.kind.integers()?;
                return (least..=largest).contains(n).then_some(Bound(value));
            }
            Value::Top => return Some(Bound(value)),
        };
        (day >= FIRST && day.year() < END_YEAR).then_some(Bound(value))
    }
}

/// The first day that PostgreSQL supports: Julian day 0, 4714-11-24 BC.
const FIRST: NaiveDate = match NaiveDate::from_ymd_opt(-4713, 11, 24) {
    Some(day) => day,
    None => NaiveDate::MIN,
};

/// The first instant, in UTC, at which the clocks of `zone` show `wall` or a later time.
fn first_instant(zone: Tz, wall: NaiveDateTime) -> NaiveDateTime {
    if let Some(at) = zone.from_local_datetime(&wall).earliest() {
        return at.naive_utc();
    }
    // The clocks skip `wall`. No time zone differs from UTC by a whole day, and clocks change on whole seconds.
    let earliest = wall - Days::new(1);
    let shows_wall = |after_s: i64| {
        zone.from_utc_datetime(&(earliest + TimeDelta::seconds(after_s))).naive_local() >= wall
    };
    let (mut before_s, mut after_s) = (0, 2 * DAY_S);
    while after_s - before_s > 1 {
        let middle_s = before_s.midpoint(after_s);
        if shows_wall(middle_s) {
            after_s = middle_s;
        } else {
            before_s = middle_s;
        }
    }
    earliest + TimeDelta::seconds(after_s)
}
