//! Properties of all schemes.

use std::collections::HashSet;

use chrono::{Datelike, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike, Weekday};
use chrono_tz::{TZ_VARIANTS, Tz};
use proptest::{prelude::*, sample::select};

use crate::model::partition::{bound::Value, *};

const TIME_KINDS: [ColumnKind; 3] = [ColumnKind::TimestampTz, ColumnKind::Timestamp, ColumnKind::Date];
const INTEGER_KINDS: [ColumnKind; 3] = [ColumnKind::SmallInt, ColumnKind::Integer, ColumnKind::BigInt];

fn any_every() -> impl Strategy<Value = Every> {
    let n = || prop_oneof![4 => 1..=40_u32, 1 => 1..=Every::MOST_UNITS];
    prop_oneof![
        Just(Every::Hours(1)),
        Just(Every::Days(1)),
        n().prop_map(Every::Hours),
        n().prop_map(Every::Days),
        n().prop_map(Every::Weeks),
        n().prop_map(Every::Months),
        n().prop_map(Every::Quarters),
        n().prop_map(Every::Years),
    ]
}

/// An instant, often within two days of a clock change in the zone.
fn any_instant(zone: Tz) -> impl Strategy<Value = NaiveDateTime> {
    // 4714-11-24 BC and 262000-01-01, and the years with clock changes.
    let (first_s, end_s, changes_s) =
        (-210_866_803_200_i64, 8_205_727_680_000, -4_200_000_000..4_200_000_000_i64);
    let instant = |s: i64| chrono::DateTime::from_timestamp(s, 0).unwrap().naive_utc();
    let offset = move |s: i64| zone.offset_from_utc_datetime(&instant(s)).fix();
    let by_s = prop_oneof![3 => -7_200..7_200_i64, 1 => -172_800..172_800_i64];
    let near_change = (changes_s.clone(), by_s).prop_map(move |(s, by_s)| {
        let mut days = (0..400).map(|day| s + day * 86_400);
        let Some(mut day_s) = days.find(|s| offset(*s) != offset(s + 86_400)) else {
            return instant(s);
        };
        // The change is within this day: find it by bisection.
        let mut left_s = 86_400;
        while left_s > 1 {
            let half_s = left_s / 2;
            if offset(day_s) == offset(day_s + half_s) {
                day_s += half_s;
            }
            left_s -= half_s;
        }
        instant(day_s + 1 + by_s)
    });
    let whole = prop_oneof![
        6 => near_change,
        2 => changes_s.prop_map(instant),
        1 => (first_s..end_s).prop_map(instant),
        1 => select(vec![first_s, end_s - 1]).prop_map(instant),
    ];
    (whole, prop_oneof![Just(0_i64), 0..1_000_000_i64])
        .prop_map(|(whole, micros)| whole + TimeDelta::microseconds(micros))
}

/// A scheme for a time column of one of `kinds`, with three values of that column.
fn any_times(kinds: &[ColumnKind]) -> impl Strategy<Value = (Scheme, [Bound; 3])> {
    let zone = prop_oneof![
        select(TZ_VARIANTS.to_vec()),
        select(vec![
            Tz::America__New_York,
            Tz::America__Sao_Paulo,
            Tz::America__St_Johns,
            Tz::Australia__Lord_Howe,
            Tz::Africa__Monrovia,
            Tz::Asia__Kathmandu,
            Tz::Pacific__Apia,
            Tz::Pacific__Kwajalein,
            Tz::America__Juneau,
        ]),
    ];
    (select(kinds.to_vec()), any_every(), zone).prop_flat_map(|(kind, every, zone)| {
        let every = match every {
            Every::Hours(n) if kind == ColumnKind::Date => Every::Days(n),
            every => every,
        };
        let scheme = Scheme::new(kind, every, zone).unwrap();
        let value = move |at: NaiveDateTime| {
            Bound(match kind {
                ColumnKind::TimestampTz => Value::TimestampTz(at),
                ColumnKind::Timestamp => Value::Timestamp(at),
                _ => Value::Date(at.date()),
            })
        };
        let values = [any_instant(zone), any_instant(zone), any_instant(zone)];
        (Just(scheme), values.prop_map(move |all| all.map(value)))
    })
}

/// A scheme for an integer column, with three values of that column.
fn any_integers() -> impl Strategy<Value = (Scheme, [Bound; 3])> {
    let step = prop_oneof![1..=3_i64, 1..=100_000_i64, 1..=i64::MAX];
    (select(INTEGER_KINDS.to_vec()), step).prop_flat_map(|(kind, step)| {
        let (least, largest) = kind.integers().unwrap();
        let n = || {
            prop_oneof![
                least..=largest,
                (-200_000..=200_000_i64).prop_map(move |n| n.clamp(least, largest)),
                select(vec![least, largest, 0, -1]),
            ]
        };
        let scheme = Scheme::new(kind, Every::Integers(step), Tz::UTC).unwrap();
        (Just(scheme), [n(), n(), n()].prop_map(|all| all.map(|n| Bound(Value::Integer(n)))))
    })
}

fn any_scheme() -> impl Strategy<Value = (Scheme, [Bound; 3])> {
    prop_oneof![2 => any_times(&TIME_KINDS), 1 => any_integers()]
}

fn holds(range: &Range, value: &Bound) -> bool {
    range.from <= *value && *value < range.to
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn text_round_trips((scheme, [value, ..]) in any_scheme()) {
        prop_assert_eq!(scheme.value(&value.to_string()), Ok(value.clone()));
        let range = scheme.containing(&value).unwrap();
        for bound in [range.from, range.to] {
            prop_assert_eq!(scheme.value(&bound.to_string()), Ok(bound));
        }
    }

    #[test]
    fn ranges_are_contiguous((scheme, [value, ..]) in any_scheme()) {
        let range = scheme.containing(&value).unwrap();
        prop_assert!(holds(&range, &value), "{range} {value}");
        prop_assert_eq!(scheme.containing(&range.from), Ok(range.clone()));
        if let Some(last) = range.to.just_below() {
            prop_assert_eq!(scheme.containing(&last), Ok(range.clone()));
            let next = scheme.next(&range).unwrap();
            prop_assert_eq!(&next.from, &range.to);
            prop_assert_eq!(scheme.containing(&range.to), Ok(next.clone()));
            prop_assert_eq!(scheme.previous(&next), Ok(range.clone()));
        } else {
            prop_assert!(scheme.next(&range).is_err());
        }
        if let Ok(before) = scheme.previous(&range) {
            prop_assert_eq!(scheme.next(&before), Ok(range));
        }
    }

    #[test]
    fn a_cover_contains_every_value_once((scheme, mut values) in any_scheme(), ahead in 0..4_u32) {
        values.sort();
        let [oldest, between, newest] = values;
        // A cover that is too long is an error. In that case, use a short one for the oldest value.
        let (cover, newest) = match scheme.cover(&oldest, &newest, ahead) {
            Ok(cover) => (cover, newest),
            Err(_) => (scheme.cover(&oldest, &oldest, ahead).unwrap(), oldest.clone()),
        };
        for pair in cover.windows(2) {
            prop_assert_eq!(&pair[0].to, &pair[1].from);
        }
        prop_assert!(cover.iter().all(|range| range.from < range.to));
        prop_assert!(holds(&cover[0], &oldest));
        let at = cover.iter().position(|range| holds(range, &newest)).unwrap();
        let beyond = cover.len() - 1 - at;
        prop_assert!(beyond == ahead as usize || cover.last().unwrap().to.0 == Value::Top);
        let times = cover.iter().filter(|range| holds(range, &between)).count();
        prop_assert_eq!(times, usize::from(between <= newest || times == 1));

        let template = Template::parse(Template::default_for(scheme.every())).unwrap();
        let short = names(&template, "t", &scheme, &cover).unwrap();
        prop_assert_eq!(short.iter().collect::<HashSet<_>>().len(), cover.len());
        // Among thousands of truncated names, two may have the same 32-bit hash, which is an error.
        let few = &cover[..cover.len().min(100)];
        let long = "Ein Name mit ü, der für die Endung keinen Platz mehr lassen wird";
        let cut = names(&template, long, &scheme, few).unwrap();
        prop_assert_eq!(cut.iter().collect::<HashSet<_>>().len(), few.len());
        prop_assert!(short.iter().chain(&cut).all(|name| name.as_str().len() <= 63));
    }

    /// Checks the definition: at the bound, the clock shows the mark or a later time, and it did not do so before.
    #[test]
    fn a_bound_is_the_first_instant_of_its_mark((scheme, [value, ..]) in any_times(&[ColumnKind::TimestampTz])) {
        let range = scheme.containing(&value).unwrap();
        let Value::TimestampTz(from) = range.from.0.clone() else { return Err(TestCaseError::fail("type")) };
        let zone = scheme.zone();
        let mark = scheme.wall_mark(&range).unwrap();
        let clock = |at: NaiveDateTime| zone.from_utc_datetime(&at).naive_local();
        prop_assert!(clock(from) >= mark);
        if scheme.previous(&range).is_ok() {
            prop_assert!(clock(from - TimeDelta::microseconds(1)) < mark);
            for quarter_hours in 1..200 {
                prop_assert!(clock(from - TimeDelta::minutes(15 * quarter_hours)) < mark);
            }
        }
        let aligned = match scheme.every() {
            Every::Hours(_) => mark.minute() == 0,
            Every::Days(_) => mark.hour() == 0,
            Every::Weeks(_) => mark.weekday() == Weekday::Mon && mark.hour() == 0,
            Every::Months(_) => mark.day() == 1,
            Every::Quarters(_) => mark.day() == 1 && mark.month0().is_multiple_of(3),
            Every::Years(_) => mark.ordinal() == 1,
            Every::Integers(_) => false,
        };
        prop_assert!(aligned && mark.second() == 0);
    }

    #[test]
    fn any_text_is_rejected_or_round_trips(text in "[0-9TZBC +:.-]{0,34}|\\PC{0,12}") {
        for kind in TIME_KINDS.into_iter().chain(INTEGER_KINDS) {
            let every = if kind.integers().is_some() { Every::Integers(7) } else { Every::Days(1) };
            let scheme = Scheme::new(kind, every, Tz::America__Sao_Paulo).unwrap();
            for bound in [scheme.value(&text), scheme.start(&text)].into_iter().flatten() {
                prop_assert_eq!(scheme.value(&bound.to_string()), Ok(bound));
            }
        }
    }
}
