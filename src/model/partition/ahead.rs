//! Determines the partitions to create ahead of time, and those that exceed the retention.

use chrono::{Days, Months, NaiveDateTime, TimeDelta};

use super::bound::{Bound, Range, Value};
use super::every::Every;
use super::scheme::{MAX_PARTITIONS, Scheme};

/// The ranges without a partition, from the end of the last partition (or from `present`, if that is earlier) to
/// `ahead` ranges after `present`. `have` is in order; `present` is the range with the current time or the newest row.
///
/// A gap among partitions older than `present` is assumed to be intended.
///
/// # Errors
/// A sentence if there would be more than [`MAX_PARTITIONS`].
pub fn missing(scheme: &Scheme, have: &[Range], present: &Range, ahead: u32) -> Result<Vec<Range>, String> {
    let mut end = present.clone();
    for _ in 0..ahead {
        if end.to.0 != Value::Top {
            end = scheme.next(&end)?;
        }
    }
    let from = match have.last() {
        Some(last) => present.from.clone().min(last.to.clone()),
        None => present.from.clone(),
    };
    gaps(scheme, have, from, &end.to)
}

/// The ranges between `from` and `to` that no range in `have`, which is in order, covers. Each extends to the next mark
/// or existing range.
///
/// # Errors
/// A sentence if there would be more than [`MAX_PARTITIONS`].
pub fn gaps(scheme: &Scheme, have: &[Range], mut from: Bound, to: &Bound) -> Result<Vec<Range>, String> {
    let mut gaps = Vec::new();
    while from < *to {
        if let Some(there) = have.iter().find(|range| range.from <= from && from < range.to) {
            from = there.to.clone();
            continue;
        }
        let mark = scheme.containing(&from)?.to;
        let next = have.iter().map(|range| &range.from).find(|at| **at > from);
        let end = next.map_or(mark.clone(), |next| mark.min(next.clone()));
        gaps.push(Range { from, to: end.clone() });
        if gaps.len() > MAX_PARTITIONS as usize {
            return Err(format!(
                "more than {MAX_PARTITIONS} partitions are missing up to {to}: create the partitions that \
                 you want by hand"
            ));
        }
        from = end;
    }
    Ok(gaps)
}

/// The start of the retention period: `keep` before `now`, in the scheme's time zone.
///
/// # Errors
/// A sentence if the interval does not fit the column's type, or exceeds its range.
pub fn horizon(scheme: &Scheme, now: &Bound, keep: Every) -> Result<Bound, String> {
    let far = || format!("{keep} before {now} is out of range for type {}", scheme.kind());
    match (keep, &now.0) {
        (Every::Integers(n), Value::Integer(at)) => {
            at.checked_sub(n).map(|at| Bound(Value::Integer(at))).ok_or_else(far)
        }
        (Every::Integers(_), _) | (_, Value::Integer(_)) => {
            Err(format!("the interval `{keep}` does not match a column of type {}", scheme.kind()))
        }
        _ => {
            let wall = scheme.wall(now).ok_or_else(far)?;
            before(wall, keep).and_then(|wall| scheme.at_wall(wall)).ok_or_else(far)
        }
    }
}

fn before(wall: NaiveDateTime, keep: Every) -> Option<NaiveDateTime> {
    let months = |n: u32, each: u32| wall.checked_sub_months(Months::new(n.checked_mul(each)?));
    match keep {
        Every::Hours(n) => wall.checked_sub_signed(TimeDelta::try_hours(n.into())?),
        Every::Days(n) => wall.checked_sub_days(Days::new(n.into())),
        Every::Weeks(n) => wall.checked_sub_days(Days::new(u64::from(n) * 7)),
        Every::Months(n) => months(n, 1),
        Every::Quarters(n) => months(n, 3),
        Every::Years(n) => months(n, 12),
        Every::Integers(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;
    use proptest::prelude::*;

    use super::*;
    use crate::model::partition::ColumnKind;

    fn scheme(kind: ColumnKind, every: Every, zone: Tz) -> Scheme {
        Scheme::new(kind, every, zone).unwrap()
    }

    fn range(scheme: &Scheme, from: &str, to: &str) -> Range {
        Range { from: scheme.start(from).unwrap(), to: scheme.start(to).unwrap() }
    }

    fn shown(ranges: &[Range]) -> String {
        ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ranges_continue_from_the_last_bound_or_include_the_present() {
        let months = scheme(ColumnKind::Date, Every::Months(1), Tz::UTC);
        let have = [range(&months, "2024-01-01", "2024-02-01"), range(&months, "2024-02-01", "2024-03-01")];
        let at = |day: &str| months.containing(&months.start(day).unwrap()).unwrap();
        assert_eq!(shown(&missing(&months, &have, &at("2024-01-10"), 1).unwrap()), "");
        insta::assert_snapshot!(shown(&missing(&months, &have, &at("2024-02-10"), 2).unwrap()), @"[2024-03-01, 2024-04-01) [2024-04-01, 2024-05-01)");
        // There was no maintenance for two months.
        insta::assert_snapshot!(shown(&missing(&months, &have, &at("2024-05-10"), 0).unwrap()), @"[2024-03-01, 2024-04-01) [2024-04-01, 2024-05-01) [2024-05-01, 2024-06-01)");
        // A gap before the present range is intended, one after it is not. The next range continues from an irregular
        // bound.
        let odd = [range(&months, "2023-01-01", "2023-02-01"), range(&months, "2024-04-11", "2024-05-05")];
        insta::assert_snapshot!(shown(&missing(&months, &odd, &at("2024-03-10"), 3).unwrap()), @"[2024-03-01, 2024-04-01) [2024-04-01, 2024-04-11) [2024-05-05, 2024-06-01) [2024-06-01, 2024-07-01)");
    }

    #[test]
    fn nothing_follows_an_unbounded_partition() {
        let tens = scheme(ColumnKind::SmallInt, Every::Integers(10_000), Tz::UTC);
        let last = Range { from: tens.start("20000").unwrap(), to: Bound(Value::Top) };
        assert_eq!(missing(&tens, std::slice::from_ref(&last), &last, 5).unwrap(), []);
        let hours = scheme(ColumnKind::Timestamp, Every::Hours(1), Tz::UTC);
        let have = [range(&hours, "1990-01-01 00:00", "1990-01-01 01:00")];
        let now = hours.containing(&hours.start("2024-01-01").unwrap()).unwrap();
        let message = missing(&hours, &have, &now, 3).unwrap_err();
        insta::assert_snapshot!(message, @"more than 10000 partitions are missing up to 2024-01-01 04:00:00: create the partitions that you want by hand");
    }

    #[test]
    fn the_retention_is_computed_in_local_time() {
        let berlin = scheme(ColumnKind::TimestampTz, Every::Months(1), Tz::Europe__Berlin);
        let now = berlin.value("2024-07-31 10:00:00+00").unwrap();
        let kept = |keep| horizon(&berlin, &now, keep).unwrap().to_string();
        assert_eq!(kept(Every::Months(5)), "2024-02-29 11:00:00+00");
        assert_eq!(kept(Every::Years(2)), "2022-07-31 10:00:00+00");
        assert_eq!(kept(Every::Weeks(1)), "2024-07-24 10:00:00+00");
        assert!(horizon(&berlin, &now, Every::Integers(5)).is_err());
        let numbers = scheme(ColumnKind::Integer, Every::Integers(100), Tz::UTC);
        let newest = numbers.value("12345").unwrap();
        assert_eq!(horizon(&numbers, &newest, Every::Integers(345)).unwrap().to_string(), "12000");
        assert!(horizon(&numbers, &newest, Every::Days(1)).is_err());
    }

    proptest! {
        #[test]
        fn nothing_is_missing_after_creation(first in -500i64..500, last in 0usize..20, present in -500i64..900, ahead in 0u32..9, gone in any::<prop::sample::Index>()) {
            let tens = scheme(ColumnKind::Integer, Every::Integers(10), Tz::UTC);
            let cell = |n: i64| tens.containing(&Bound(Value::Integer(n))).unwrap();
            let mut have = vec![cell(first)];
            for _ in 0..last { have.push(tens.next(have.last().unwrap()).unwrap()); }
            if have.len() > 1 { have.remove(gone.index(have.len())); }
            let present = cell(present);
            let made = missing(&tens, &have, &present, ahead).unwrap();
            for range in &made {
                prop_assert!(range.from < range.to);
                prop_assert!(have.iter().all(|there| range.to <= there.from || there.to <= range.from), "{} overlaps", range);
            }
            have.extend(made);
            have.sort();
            prop_assert_eq!(missing(&tens, &have, &present, ahead).unwrap(), vec![]);
            prop_assert!(have.iter().any(|range| range.from <= present.from && present.to <= range.to));
        }
    }
}
