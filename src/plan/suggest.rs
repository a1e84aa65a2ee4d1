//! Suggests the interval of a partition, based on statistics.
//!
//! A partition of 1 to 50 GiB is small enough for vacuum and index builds, and large enough to keep the number of
//! partitions low. The partitions of a small table should have at least a few thousand rows. The suggestions are
//! estimates; the user reviews them in the draft.

use std::collections::BTreeMap;

use chrono::{Datelike, Months, NaiveDate, NaiveDateTime, NaiveTime};
use indicatif::{HumanBytes, HumanCount};

use crate::model::partition::Every;

const MOST_BYTES: f64 = 50.0 * 1024.0 * 1024.0 * 1024.0;
const LEAST_ROWS: f64 = 5000.0;
const ROWS_OF_INTEGERS: f64 = 10_000_000.0;

const HOUR: (Every, &str) = (Every::Hours(1), "an hour");
const DAY: (Every, &str) = (Every::Days(1), "a day");
const WEEK: (Every, &str) = (Every::Weeks(1), "a week");
const MONTH: (Every, &str) = (Every::Months(1), "a month");
const QUARTER: (Every, &str) = (Every::Quarters(1), "a quarter");
const YEAR: (Every, &str) = (Every::Years(1), "a year");

/// Suggests an interval for a time column, with the reason. `rows` and `bytes` (including indexes) are spread over
/// `span_days`.
///
/// The interval is a month, or shorter if a month has more than 50 GiB, or longer if a month has fewer than 5000 rows.
pub fn suggest(rows: u64, bytes: u64, span_days: f64) -> (Every, String) {
    if rows == 0 {
        return (MONTH.0, "the table is empty, according to its statistics".to_owned());
    }
    // The rows of less than an hour do not allow an estimate of the rate.
    let span_days = if span_days.is_finite() { span_days.max(1.0 / 24.0) } else { 1.0 };
    let share = |(every, _): (Every, &str)| days(every).unwrap_or(span_days) / span_days;
    let rows_in = |unit| rows as f64 * share(unit);
    let bytes_in = |unit| bytes as f64 * share(unit);
    let (unit, why) = if bytes_in(MONTH) > MOST_BYTES {
        let unit = [WEEK, DAY].into_iter().find(|unit| bytes_in(*unit) <= MOST_BYTES).unwrap_or(HOUR);
        (unit, format!("; a month would contain {}", HumanBytes(bytes_in(MONTH) as u64)))
    } else if rows_in(MONTH) < LEAST_ROWS {
        let unit = if rows_in(QUARTER) < LEAST_ROWS { YEAR } else { QUARTER };
        (unit, format!("; a month would contain only {}", HumanCount(rows_in(MONTH) as u64)))
    } else {
        (MONTH, String::new())
    };
    let (rows, bytes) = (HumanCount(rows_in(unit) as u64), HumanBytes(bytes_in(unit) as u64));
    (unit.0, format!("{} contains about {rows} rows, {bytes}{why}", unit.1))
}

/// Suggests an interval for an integer column, with the reason: a round number (1, 2 or 5, and zeros) of integers that
/// contains about ten million rows, or 50 GiB if the rows are wide. `span` is the largest value minus the smallest.
pub fn suggest_integers(rows: u64, bytes: u64, span: u64) -> (Every, String) {
    if rows == 0 {
        return (Every::Integers(10_000_000), "the table is empty, according to its statistics".to_owned());
    }
    let bytes_per_row = bytes as f64 / rows as f64;
    let integers_per_row = (span as f64 + 1.0) / rows as f64;
    let wanted_rows = ROWS_OF_INTEGERS.min(MOST_BYTES / bytes_per_row.max(1.0));
    let n = round_number(wanted_rows * integers_per_row);
    let contained = n as f64 / integers_per_row;
    let (rows, bytes) = (HumanCount(contained as u64), HumanBytes((contained * bytes_per_row) as u64));
    (
        Every::Integers(n),
        format!("{} integers contain about {rows} rows, {bytes}", HumanCount(n.unsigned_abs())),
    )
}

/// The unit of times since 1970 in an integer column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
}

impl EpochUnit {
    /// The unit in which both values are times from 2000 to 2100; none if there is no such unit.
    pub fn of(oldest: i64, newest: i64) -> Option<Self> {
        const FROM_S: i64 = 946_684_800;
        const TO_S: i64 = 4_102_444_800;
        [Self::Seconds, Self::Milliseconds, Self::Microseconds].into_iter().find(|unit| {
            let times = FROM_S * unit.per_second()..TO_S * unit.per_second();
            times.contains(&oldest) && times.contains(&newest)
        })
    }

    fn per_second(self) -> i64 {
        match self {
            Self::Seconds => 1,
            Self::Milliseconds => 1_000,
            Self::Microseconds => 1_000_000,
        }
    }

    /// The name, in the plural.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Microseconds => "microseconds",
        }
    }
}

/// Suggests an interval for an integer column of times since 1970, with the reason: a whole number of days or hours.
pub fn suggest_epoch(rows: u64, bytes: u64, span: u64, unit: EpochUnit) -> (Every, String) {
    let per_second = unit.per_second();
    let (every, because) = suggest(rows, bytes, span as f64 / per_second as f64 / 86_400.0);
    let hours = match every {
        Every::Hours(n) => i64::from(n),
        every => (days(every).unwrap_or(1.0).floor() as i64) * 24,
    };
    let length = if hours % 24 == 0 { format!("{} days", hours / 24) } else { format!("{hours} hours") };
    let integers = Every::Integers(hours * 3600 * per_second);
    (integers, format!("{length} in {}; {because}", unit.name()))
}

/// The nearest number (by ratio) of 1, 2, 5, 10, 20, 50, and so on.
fn round_number(wanted: f64) -> i64 {
    let rounds = (0..=17).flat_map(|zeros| [1, 2, 5].map(|digit| digit * 10_i64.pow(zeros)));
    let distance = |n: &i64| (*n as f64 / wanted.max(1.0)).ln().abs();
    rounds.min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(1)
}

/// The length of an interval in days, for months and longer intervals on average; none for integers.
pub(super) fn days(every: Every) -> Option<f64> {
    const DAYS_OF_YEAR: f64 = 365.2425;
    match every {
        Every::Hours(n) => Some(f64::from(n) / 24.0),
        Every::Days(n) => Some(f64::from(n)),
        Every::Weeks(n) => Some(f64::from(n) * 7.0),
        Every::Months(n) => Some(f64::from(n) * DAYS_OF_YEAR / 12.0),
        Every::Quarters(n) => Some(f64::from(n) * DAYS_OF_YEAR / 4.0),
        Every::Years(n) => Some(f64::from(n) * DAYS_OF_YEAR),
        Every::Integers(_) => None,
    }
}

/// Rows by month (`2024-01`), estimated from `pg_stats.histogram_bounds` as ISO text.
///
/// The number of rows between two adjacent bounds is the same for all, and they are assumed to be evenly distributed.
/// Bounds that cannot be read as a date (`infinity`, BC, years of five digits) are ignored.
pub fn histogram_by_month(bounds: &[String], rows: u64) -> Vec<(String, u64)> {
    let moments: Vec<NaiveDateTime> = bounds.iter().filter_map(|bound| moment(bound)).collect();
    let buckets = moments.len().saturating_sub(1).max(1);
    let rows_of_bucket = rows as f64 / buckets as f64;
    let mut months: BTreeMap<NaiveDate, f64> = BTreeMap::new();
    for pair in moments.windows(2) {
        let [from, to] = [pair[0], pair[1]];
        let length_s = (to - from).num_seconds().max(1) as f64;
        let mut at = from;
        while let Some(month) = at.date().with_day(1) {
            let next = month.checked_add_months(Months::new(1)).map(|next| next.and_time(NaiveTime::MIN));
            let end = next.filter(|next| *next < to).unwrap_or(to);
            let part_s = if to > from { (end - at).num_seconds() as f64 } else { 1.0 };
            *months.entry(month).or_default() += rows_of_bucket * part_s / length_s;
            if end >= to {
                break;
            }
            at = end;
        }
    }
    months.into_iter().map(|(month, rows)| (month.format("%Y-%m").to_string(), rows.round() as u64)).collect()
}

/// Reads a date or timestamp that the server wrote with DateStyle ISO, without its time zone.
pub(super) fn moment(text: &str) -> Option<NaiveDateTime> {
    if text.ends_with("BC") {
        return None;
    }
    let (date, time) = text.split_once([' ', 'T']).unwrap_or((text, ""));
    let date = NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
    let time = time.get(..8).and_then(|time| NaiveTime::parse_from_str(time, "%H:%M:%S").ok());
    Some(date.and_time(time.unwrap_or(NaiveTime::MIN)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    fn text((every, why): (Every, String)) -> String {
        format!("{every}: {why}")
    }

    #[test]
    fn intervals_for_time() {
        assert_snapshot!(text(suggest(0, 0, 0.0)), @"1 month: the table is empty, according to its statistics");
        assert_snapshot!(text(suggest(300_000, 40_000_000, 730.0)), @"1 month: a month contains about 12,508 rows, 1.59 MiB");
        assert_snapshot!(text(suggest(20_000, 3_000_000, 730.0)), @"1 year: a year contains about 10,006 rows, 1.43 MiB; a month would contain only 833");
        assert_snapshot!(text(suggest(500, 100_000, 730.0)), @"1 year: a year contains about 250 rows, 48.86 KiB; a month would contain only 20");
        assert_snapshot!(text(suggest(4_000_000_000, 500 * GIB, 730.0)), @"1 month: a month contains about 166,777,397 rows, 20.85 GiB");
        assert_snapshot!(text(suggest(40_000_000_000, 5_000 * GIB, 730.0)), @"1 week: a week contains about 383,561,643 rows, 47.95 GiB; a month would contain 208.47 GiB");
        assert_snapshot!(text(suggest(40_000_000_000, 20_000 * GIB, 730.0)), @"1 day: a day contains about 54,794,520 rows, 27.40 GiB; a month would contain 833.89 GiB");
        assert_snapshot!(text(suggest(40_000_000_000, 20_000 * GIB, 20.0)), @"1 hour: an hour contains about 83,333,333 rows, 41.67 GiB; a month would contain 29.72 TiB");
        assert_snapshot!(text(suggest(10, 8192, 0.0)), @"1 month: a month contains about 7,304 rows, 5.71 MiB");
    }

    #[test]
    fn intervals_for_integers() {
        assert_snapshot!(text(suggest_integers(0, 0, 0)), @"10000000: the table is empty, according to its statistics");
        assert_snapshot!(text(suggest_integers(2_000_000_000, 200 * GIB, 2_000_000_500)), @"10000000: 10,000,000 integers contain about 9,999,997 rows, 1024.00 MiB");
        assert_snapshot!(text(suggest_integers(2_000_000_000, 100_000 * GIB, 2_000_000_500)), @"1000000: 1,000,000 integers contain about 999,999 rows, 50.00 GiB");
        assert_snapshot!(text(suggest_integers(50_000_000, 9 * GIB, 500_000_000)), @"100000000: 100,000,000 integers contain about 9,999,999 rows, 1.80 GiB");
        assert_snapshot!(text(suggest_integers(1, 1, u64::MAX)), @"500000000000000000: 500,000,000,000,000,000 integers contain about 0 rows, 0 B");
    }

    #[test]
    fn rows_by_month() {
        let bounds = [
            "-infinity",
            "0044-03-15 00:00:00 BC",
            "2024-01-01 00:00:00+00",
            "2024-01-31",
            "2024-03-02 12:00:00.5+01",
            "2024-03-02 12:00:00.5+01",
            "infinity",
        ];
        let rows = histogram_by_month(&bounds.map(str::to_owned), 300_000);
        let rows: Vec<(&str, u64)> = rows.iter().map(|(month, rows)| (month.as_str(), *rows)).collect();
        assert_eq!(rows, [("2024-01", 103_175), ("2024-02", 92_063), ("2024-03", 104_762)]);
        assert_eq!(histogram_by_month(&[], 5), []);
        assert_eq!(histogram_by_month(&["2024-01-01".to_owned()], 5), []);
    }

    #[test]
    fn intervals_for_times_in_integers() {
        let (second, day) = (1_700_000_000_i64, 86_400);
        assert_eq!(EpochUnit::of(second, second + day), Some(EpochUnit::Seconds));
        assert_eq!(EpochUnit::of(second * 1000, second * 1000 + day), Some(EpochUnit::Milliseconds));
        assert_eq!(EpochUnit::of(second * 1_000_000, second * 1_000_000), Some(EpochUnit::Microseconds));
        assert_eq!(EpochUnit::of(1, second), None);
        assert_eq!(EpochUnit::of(second, second * 1000), None);
        let suggested = |unit| text(suggest_epoch(300_000, 40_000_000, 730 * 86_400, unit));
        assert_snapshot!(suggested(EpochUnit::Seconds), @"2592000: 30 days in seconds; a month contains about 12,508 rows, 1.59 MiB");
    }

    proptest! {
        #[test]
        fn months_add_up_to_all_rows(mut days in prop::collection::vec(0..40_000_i32, 2..50), rows: u32) {
            days.sort_unstable();
            let from = NaiveDate::from_ymd_opt(1950, 1, 1).unwrap();
            let bound = |days: &i32| (from + chrono::Duration::days((*days).into())).to_string();
            let bounds: Vec<String> = days.iter().map(bound).collect();
            let months = histogram_by_month(&bounds, rows.into());
            let sum: u64 = months.iter().map(|(_, rows)| rows).sum();
            prop_assert!(sum.abs_diff(rows.into()) <= months.len() as u64);
        }

        #[test]
        fn there_is_an_interval_for_every_size(rows: u64, bytes: u64, span: u64, span_days: f64) {
            let (Every::Integers(n), _) = suggest_integers(rows, bytes, span) else { panic!("no number") };
            prop_assert!(n > 0);
            let (every, _) = suggest(rows, bytes, span_days);
            prop_assert!(days(every).is_some());
        }
    }
}
