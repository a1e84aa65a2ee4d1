//! Properties of all schemes, and the days on which clocks and calendars do something else.

use std::collections::HashSet;

use chrono::{Datelike, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike, Weekday};
use chrono_tz::{TZ_VARIANTS, Tz};
use proptest::{prelude::*, sample::select};

use super::{bound::Value, *};

const TIME_KINDS: [ColumnKind; 3] = [ColumnKind::TimestampTz, ColumnKind::Timestamp, ColumnKind::Date];
const INTEGER_KINDS: [ColumnKind; 3] = [ColumnKind::SmallInt, ColumnKind::Integer, ColumnKind::BigInt];

fn scheme(kind: ColumnKind, every: &str, zone: &str) -> Scheme {
    Scheme::new(kind, every.parse().unwrap(), zone.parse().unwrap()).unwrap()
}

fn at(text: &str) -> NaiveDateTime {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap()
}

/// The lines `name: range` of what covers `oldest` to `newest`, as the server would have them.
fn shown(scheme: &Scheme, oldest: &str, newest: &str) -> String {
    let cover = scheme.cover(&scheme.start(oldest).unwrap(), &scheme.start(newest).unwrap(), 0).unwrap();
    let template = Template::parse(Template::default_for(scheme.every())).unwrap();
    let names = names(&template, "t", scheme, &cover).unwrap();
    names
        .iter()
        .zip(cover)
        .map(|(name, range)| format!("{}: {range}", name.as_str()))
        .collect::<Vec<_>>()
        .join("\n")
}

fn any_every() -> impl Strategy<Value = Every> {
    let n = || prop_oneof![4 => 1..=40_u32, 1 => 1..=Every::MOST_UNITS];
    prop_oneof![
        n().prop_map(Every::Hours),
        n().prop_map(Every::Days),
        n().prop_map(Every::Weeks),
        n().prop_map(Every::Months),
        n().prop_map(Every::Quarters),
        n().prop_map(Every::Years),
    ]
}

/// An instant, often within two days of a change of the zone's clocks.
fn any_instant(zone: Tz) -> impl Strategy<Value = NaiveDateTime> {
    // 4714-11-24 BC and 262000-01-01, and the years with clock changes.
    let (first_s, end_s, changes_s) =
        (-210_866_803_200_i64, 8_205_727_680_000, -4_200_000_000..4_200_000_000_i64);
    let instant = |s: i64| chrono::DateTime::from_timestamp(s, 0).unwrap().naive_utc();
    let offset = move |at: &NaiveDateTime| zone.offset_from_utc_datetime(at).fix();
    let near_change = (changes_s.clone(), -172_800..172_800_i64).prop_map(move |(s, by_s)| {
        let days = (0..400).map(|day| instant(s) + TimeDelta::days(day));
        let change = days.clone().zip(days.skip(1)).find(|(a, b)| offset(a) != offset(b));
        change.map_or(instant(s), |(before, _)| before + TimeDelta::seconds(by_s))
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

/// A scheme for a time column, with three values of it.
fn any_times() -> impl Strategy<Value = (Scheme, [Bound; 3])> {
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
    (select(TIME_KINDS.to_vec()), any_every(), zone).prop_flat_map(|(kind, every, zone)| {
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

/// A scheme for an integer column, with three values of it.
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
    prop_oneof![2 => any_times(), 1 => any_integers()]
}

fn holds(range: &Range, value: &Bound) -> bool {
    range.from <= *value && *value < range.to
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn text_reads_back((scheme, [value, ..]) in any_scheme()) {
        prop_assert_eq!(scheme.value(&value.to_string()), Ok(value.clone()));
        let range = scheme.containing(&value).unwrap();
        for bound in [range.from, range.to] {
            prop_assert_eq!(scheme.value(&bound.to_string()), Ok(bound));
        }
    }

    #[test]
    fn ranges_join((scheme, [value, ..]) in any_scheme()) {
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
    fn a_cover_holds_every_value_once((scheme, mut values) in any_scheme(), ahead in 0..4_u32) {
        values.sort();
        let [oldest, between, newest] = values;
        // A cover too long is refused; then a short one, of the oldest alone.
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
        for table in ["t", "Ein Name mit ü, der für die Endung keinen Platz mehr lassen wird"] {
            let names = names(&template, table, &scheme, &cover).unwrap();
            prop_assert_eq!(names.iter().collect::<HashSet<_>>().len(), cover.len());
            prop_assert!(names.iter().all(|name| name.as_str().len() <= 63));
        }
    }

    /// Against the definition: at the bound the clock shows the mark or later, and never did so before.
    #[test]
    fn a_bound_is_the_first_instant_of_its_mark((scheme, [value, ..]) in any_times(), zone in select(TZ_VARIANTS.to_vec())) {
        let Bound(Value::TimestampTz(value)) = value else { return Ok(()) };
        let scheme = Scheme::new(ColumnKind::TimestampTz, scheme.every(), zone).unwrap();
        let range = scheme.containing(&Bound(Value::TimestampTz(value))).unwrap();
        let Bound(Value::TimestampTz(from)) = range.from else { return Err(TestCaseError::fail("type")) };
        let mark = scheme.wall_mark(&range).unwrap();
        let clock = |at: NaiveDateTime| zone.from_utc_datetime(&at).naive_local();
        prop_assert!(clock(from) >= mark);
        if from != at("-4713-11-24 00:00") {
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
            Every::Quarters(_) => mark.day() == 1 && mark.month0() % 3 == 0,
            Every::Years(_) => mark.ordinal() == 1,
            Every::Integers(_) => false,
        };
        prop_assert!(aligned && mark.second() == 0);
    }

    #[test]
    fn whatever_is_read_is_refused_in_words_or_reads_back(text in "[0-9TZBC +:.-]{0,34}|\\PC{0,12}") {
        for kind in TIME_KINDS.into_iter().chain(INTEGER_KINDS) {
            let every = if kind.integers().is_some() { Every::Integers(7) } else { Every::Days(1) };
            let scheme = Scheme::new(kind, every, Tz::America__Sao_Paulo).unwrap();
            for bound in [scheme.value(&text), scheme.start(&text)].into_iter().flatten() {
                prop_assert_eq!(scheme.value(&bound.to_string()), Ok(bound));
            }
        }
    }
}

#[test]
fn year_ends_and_leap_days() {
    let shown = [
        shown(&scheme(ColumnKind::TimestampTz, "1 month", "UTC"), "2023-12-31", "2024-03-01"),
        shown(&scheme(ColumnKind::Date, "1 day", "UTC"), "2024-02-28", "2024-03-01"),
        shown(&scheme(ColumnKind::Date, "1 day", "UTC"), "2023-02-28", "2023-03-01"),
        shown(&scheme(ColumnKind::Timestamp, "1 week", "UTC"), "2020-12-31", "2021-01-04"),
        shown(&scheme(ColumnKind::Timestamp, "quarter", "UTC"), "2023-12-31 23:59", "2024-01-01"),
        shown(&scheme(ColumnKind::Date, "10 years", "UTC"), "2019-12-31", "2020-01-01"),
        shown(&scheme(ColumnKind::TimestampTz, "6 hours", "UTC"), "2023-12-31 18:00", "2024-01-01"),
    ]
    .join("\n\n");
    insta::assert_snapshot!(shown, @r#"
    t_y2023m12: [2023-12-01 00:00:00+00, 2024-01-01 00:00:00+00)
    t_y2024m01: [2024-01-01 00:00:00+00, 2024-02-01 00:00:00+00)
    t_y2024m02: [2024-02-01 00:00:00+00, 2024-03-01 00:00:00+00)
    t_y2024m03: [2024-03-01 00:00:00+00, 2024-04-01 00:00:00+00)

    t_y2024m02d28: [2024-02-28, 2024-02-29)
    t_y2024m02d29: [2024-02-29, 2024-03-01)
    t_y2024m03d01: [2024-03-01, 2024-03-02)

    t_y2023m02d28: [2023-02-28, 2023-03-01)
    t_y2023m03d01: [2023-03-01, 2023-03-02)

    t_y2020w53: [2020-12-28 00:00:00, 2021-01-04 00:00:00)
    t_y2021w01: [2021-01-04 00:00:00, 2021-01-11 00:00:00)

    t_y2023q4: [2023-10-01 00:00:00, 2024-01-01 00:00:00)
    t_y2024q1: [2024-01-01 00:00:00, 2024-04-01 00:00:00)

    t_y2010: [2010-01-01, 2020-01-01)
    t_y2020: [2020-01-01, 2030-01-01)

    t_y2023m12d31h18: [2023-12-31 18:00:00+00, 2024-01-01 00:00:00+00)
    t_y2024m01d01h00: [2024-01-01 00:00:00+00, 2024-01-01 06:00:00+00)
    "#);
}

#[test]
fn clocks_that_jump() {
    let of = |every: &str, zone: &str, oldest: &str, newest: &str| {
        let scheme = scheme(ColumnKind::TimestampTz, every, zone);
        format!("{every}, {zone}\n{}", shown(&scheme, oldest, newest))
    };
    let shown = [
        of("1 day", "America/New_York", "2024-03-09", "2024-03-11"),
        of("1 hour", "America/New_York", "2024-03-10 01:00", "2024-03-10 03:00"),
        of("1 hour", "America/New_York", "2024-11-03 00:00", "2024-11-03 02:00"),
        of("1 month", "Europe/Berlin", "2024-03-01", "2024-04-01"),
        of("1 day", "Asia/Kathmandu", "1985-12-31", "1986-01-01"),
        of("1 day", "Pacific/Apia", "2011-12-29", "2011-12-31"),
        of("1 day", "Africa/Monrovia", "1972-01-06", "1972-01-08"),
        of("1 hour", "Australia/Lord_Howe", "2024-04-07 00:00", "2024-04-07 02:00"),
        of("1 hour", "Australia/Lord_Howe", "2024-10-06 01:00", "2024-10-06 03:00"),
        of("1 day", "America/Sao_Paulo", "2018-11-03", "2018-11-05"),
        of("1 day", "America/St_Johns", "2010-11-06", "2010-11-08"),
    ]
    .join("\n\n");
    insta::assert_snapshot!(shown, @r#"
    1 day, America/New_York
    t_y2024m03d09: [2024-03-09 05:00:00+00, 2024-03-10 05:00:00+00)
    t_y2024m03d10: [2024-03-10 05:00:00+00, 2024-03-11 04:00:00+00)
    t_y2024m03d11: [2024-03-11 04:00:00+00, 2024-03-12 04:00:00+00)

    1 hour, America/New_York
    t_y2024m03d10h01: [2024-03-10 06:00:00+00, 2024-03-10 07:00:00+00)
    t_y2024m03d10h03: [2024-03-10 07:00:00+00, 2024-03-10 08:00:00+00)

    1 hour, America/New_York
    t_y2024m11d03h00: [2024-11-03 04:00:00+00, 2024-11-03 05:00:00+00)
    t_y2024m11d03h01: [2024-11-03 05:00:00+00, 2024-11-03 07:00:00+00)
    t_y2024m11d03h02: [2024-11-03 07:00:00+00, 2024-11-03 08:00:00+00)

    1 month, Europe/Berlin
    t_y2024m03: [2024-02-29 23:00:00+00, 2024-03-31 22:00:00+00)
    t_y2024m04: [2024-03-31 22:00:00+00, 2024-04-30 22:00:00+00)

    1 day, Asia/Kathmandu
    t_y1985m12d31: [1985-12-30 18:30:00+00, 1985-12-31 18:30:00+00)
    t_y1986m01d01: [1985-12-31 18:30:00+00, 1986-01-01 18:15:00+00)

    1 day, Pacific/Apia
    t_y2011m12d29: [2011-12-29 10:00:00+00, 2011-12-30 10:00:00+00)
    t_y2011m12d31: [2011-12-30 10:00:00+00, 2011-12-31 10:00:00+00)

    1 day, Africa/Monrovia
    t_y1972m01d06: [1972-01-06 00:44:30+00, 1972-01-07 00:44:30+00)
    t_y1972m01d07: [1972-01-07 00:44:30+00, 1972-01-08 00:00:00+00)
    t_y1972m01d08: [1972-01-08 00:00:00+00, 1972-01-09 00:00:00+00)

    1 hour, Australia/Lord_Howe
    t_y2024m04d07h00: [2024-04-06 13:00:00+00, 2024-04-06 14:00:00+00)
    t_y2024m04d07h01: [2024-04-06 14:00:00+00, 2024-04-06 15:30:00+00)
    t_y2024m04d07h02: [2024-04-06 15:30:00+00, 2024-04-06 16:30:00+00)

    1 hour, Australia/Lord_Howe
    t_y2024m10d06h01: [2024-10-05 14:30:00+00, 2024-10-05 15:30:00+00)
    t_y2024m10d06h02: [2024-10-05 15:30:00+00, 2024-10-05 16:00:00+00)
    t_y2024m10d06h03: [2024-10-05 16:00:00+00, 2024-10-05 17:00:00+00)

    1 day, America/Sao_Paulo
    t_y2018m11d03: [2018-11-03 03:00:00+00, 2018-11-04 03:00:00+00)
    t_y2018m11d04: [2018-11-04 03:00:00+00, 2018-11-05 02:00:00+00)
    t_y2018m11d05: [2018-11-05 02:00:00+00, 2018-11-06 02:00:00+00)

    1 day, America/St_Johns
    t_y2010m11d06: [2010-11-06 02:30:00+00, 2010-11-07 02:30:00+00)
    t_y2010m11d07: [2010-11-07 02:30:00+00, 2010-11-08 03:30:00+00)
    t_y2010m11d08: [2010-11-08 03:30:00+00, 2010-11-09 03:30:00+00)
    "#);
}

#[test]
fn first_and_last() {
    let at_end = |kind, every: &str, value: &str| {
        let scheme = scheme(kind, every, "UTC");
        let range = scheme.containing(&scheme.start(value).unwrap()).unwrap();
        let name = Template::parse(Template::default_for(scheme.every())).unwrap().name("t", &scheme, &range);
        let sql = format!("from ({}) to ({})", range.from.sql(), range.to.sql());
        format!("{kind}, {every}, {value}\n{}: {sql}", name.as_str())
    };
    let shown = [
        at_end(ColumnKind::TimestampTz, "1 month", "0044-03-15 BC"),
        at_end(ColumnKind::Date, "1 year", "0001-12-31 BC"),
        at_end(ColumnKind::Date, "1 year", "0001-01-01"),
        at_end(ColumnKind::Timestamp, "100 years", "4714-11-24 BC"),
        at_end(ColumnKind::TimestampTz, "1 hour", "99999-12-31 23:00"),
        at_end(ColumnKind::Date, "1 week", "261999-12-31"),
        at_end(ColumnKind::SmallInt, "1000", "-32768"),
        at_end(ColumnKind::SmallInt, "1000", "-1"),
        at_end(ColumnKind::SmallInt, "1000", "32_767"),
        at_end(ColumnKind::Integer, "1", "2147483646"),
        at_end(ColumnKind::BigInt, "1", "9223372036854775807"),
        at_end(ColumnKind::BigInt, "9223372036854775807", "-9223372036854775808"),
        at_end(ColumnKind::BigInt, "9223372036854775807", "-9223372036854775807"),
    ]
    .join("\n");
    insta::assert_snapshot!(shown, @r#"
    timestamp with time zone, 1 month, 0044-03-15 BC
    t_ybc0044m03: from ('0044-03-01 00:00:00+00 BC') to ('0044-04-01 00:00:00+00 BC')
    date, 1 year, 0001-12-31 BC
    t_ybc0001: from ('0001-01-01 BC') to ('0001-01-01')
    date, 1 year, 0001-01-01
    t_y0001: from ('0001-01-01') to ('0002-01-01')
    timestamp without time zone, 100 years, 4714-11-24 BC
    t_ybc4801: from ('4714-11-24 00:00:00 BC') to ('4701-01-01 00:00:00 BC')
    timestamp with time zone, 1 hour, 99999-12-31 23:00
    t_y99999m12d31h23: from ('99999-12-31 23:00:00+00') to ('100000-01-01 00:00:00+00')
    date, 1 week, 261999-12-31
    t_y261999w52: from ('261999-12-27') to (maxvalue)
    smallint, 1000, -32768
    t_neg32768: from ('-32768') to ('-32000')
    smallint, 1000, -1
    t_neg1000: from ('-1000') to ('0')
    smallint, 1000, 32_767
    t_32000: from ('32000') to (maxvalue)
    integer, 1, 2147483646
    t_2147483646: from ('2147483646') to ('2147483647')
    bigint, 1, 9223372036854775807
    t_9223372036854775807: from ('9223372036854775807') to (maxvalue)
    bigint, 9223372036854775807, -9223372036854775808
    t_neg9223372036854775808: from ('-9223372036854775808') to ('-9223372036854775807')
    bigint, 9223372036854775807, -9223372036854775807
    t_neg9223372036854775807: from ('-9223372036854775807') to ('0')
    "#);
}

#[test]
fn a_wall_time_that_is_skipped_or_shown_twice() {
    let new_york = scheme(ColumnKind::TimestampTz, "1 day", "America/New_York");
    for (written, meant) in [
        ("2024-03-10 02:30", "2024-03-10 07:00:00+00"),
        ("2024-11-03 01:30", "2024-11-03 05:30:00+00"),
        ("2024-11-03 01:30:00-05:00", "2024-11-03 06:30:00+00"),
        ("2024-01-01", "2024-01-01 05:00:00+00"),
    ] {
        assert_eq!(new_york.start(written).unwrap().to_string(), meant, "{written}");
    }
}

#[test]
fn a_range_that_is_no_cell_is_joined() {
    let months = scheme(ColumnKind::Date, "1 month", "UTC");
    let odd = Range { from: months.start("2024-01-15").unwrap(), to: months.start("2024-02-10").unwrap() };
    assert_eq!(months.next(&odd).unwrap().to_string(), "[2024-02-10, 2024-03-01)");
    assert_eq!(months.previous(&odd).unwrap().to_string(), "[2024-01-01, 2024-01-15)");
}

#[test]
fn refusals() {
    let tz = scheme(ColumnKind::TimestampTz, "1 month", "UTC");
    let day = scheme(ColumnKind::Date, "1 day", "UTC");
    let local = scheme(ColumnKind::Timestamp, "1 day", "UTC");
    let small = scheme(ColumnKind::SmallInt, "1000", "UTC");
    let hours = scheme(ColumnKind::TimestampTz, "1 hour", "UTC");
    let new = |kind, every| Scheme::new(kind, every, Tz::UTC).map(|_| ());
    let top = Range { from: small.start("0").unwrap(), to: Bound(Value::Top) };
    let (old, young) = (hours.start("2000-01-01").unwrap(), hours.start("2024-07-01").unwrap());
    let said = [
        new(ColumnKind::TimestampTz, Every::Integers(5)),
        new(ColumnKind::BigInt, Every::Months(1)),
        new(ColumnKind::Date, Every::Hours(6)),
        new(ColumnKind::Date, Every::Days(0)),
        new(ColumnKind::Date, Every::Years(u32::MAX)),
        new(ColumnKind::Integer, Every::Integers(0)),
        tz.value("infinity").map(|_| ()),
        tz.value("2024-01-01 00:00:00").map(|_| ()),
        tz.value("294276-12-31 00:00:00+00").map(|_| ()),
        day.value("5874897-12-31").map(|_| ()),
        small.value("32768").map(|_| ()),
        tz.start("-infinity").map(|_| ()),
        tz.start("01/02/2024").map(|_| ()),
        tz.start("4714-11-23 BC").map(|_| ()),
        tz.start("300000-01-01").map(|_| ()),
        local.start("2024-01-01 00:00:00+02").map(|_| ()),
        day.start("2024-01-01 06:00").map(|_| ()),
        small.start("40000").map(|_| ()),
        small.start("2024-01-01").map(|_| ()),
        small.next(&top).map(|_| ()),
        small
            .previous(&Range { from: small.start("-32768").unwrap(), to: small.start("0").unwrap() })
            .map(|_| ()),
        small.containing(&day.start("2024-01-01").unwrap()).map(|_| ()),
        hours.cover(&old, &young, 3).map(|_| ()),
        hours.cover(&young, &old, 3).map(|_| ()),
    ]
    .map(Result::unwrap_err)
    .join("\n");
    insta::assert_snapshot!(said, @r#"
    an interval of `5` is a plain number, but the column is of type timestamp with time zone: write a time, such as "1 month"
    an interval of `1 month` is a time, but the column is of type bigint: write a plain number, such as "100000"
    an interval of `6 hours` is in hours, but the column is of type date: write "1 day" or longer
    an interval of `0 days`: the number must lie between 1 and 10000
    an interval of `4294967295 years`: the number must lie between 1 and 10000
    an interval of `0`: the number must be 1 or more
    infinity lies in no partition with bounds: leave such rows to a default partition (`default = true`) or give them a date first
    the server's text for a timestamp with time zone is not of the form expected: the session must have TimeZone = UTC and DateStyle = ISO
    the column holds a timestamp with time zone out of reach: bounds reach from 4714-11-24 BC to the end of the year 261999
    the column holds a date out of reach: bounds reach from 4714-11-24 BC to the end of the year 261999
    the server's text for a smallint is not of the form expected: the session must have TimeZone = UTC and DateStyle = ISO
    `-infinity` is no bound of a partition: write a date
    `01/02/2024` is no date: write "2024-01-31" or "2024-01-31 06:00"
    `4714-11-23 BC` is out of reach: bounds reach from 4714-11-24 BC to the end of the year 261999
    `300000-01-01` is out of reach: bounds reach from 4714-11-24 BC to the end of the year 261999
    `2024-01-01 00:00:00+02` has an offset from UTC, but the column is of type timestamp without time zone: leave it out
    `2024-01-01 06:00` has a time of day, but the column is of type date: leave it out
    `40000` does not fit a smallint: it holds -32768 to 32767
    `2024-01-01` is no whole number, but the column is of type smallint: write one, such as "1000"
    nothing lies beyond maxvalue
    the column is of type smallint, but a value of another type was given
    the column is of type smallint, but a value of another type was given
    an interval of `1 hour` from 2000-01-01 00:00:00+00 to 2024-07-01 01:00:00+00 with 3 ahead makes 214756 partitions, more than 10000: choose a longer interval, or begin later with `from` and leave what is older to a default partition
    the newest value lies before the oldest: there is nothing to cover
    "#);
}

#[test]
fn names_that_are_refused() {
    let days = scheme(ColumnKind::Date, "1 day", "UTC");
    let weeks = scheme(ColumnKind::Date, "1 week", "UTC");
    let numbers = scheme(ColumnKind::Integer, "1000", "UTC");
    let named = |template: &str, scheme: &Scheme, oldest: &str, newest: &str| {
        let cover = scheme.cover(&scheme.start(oldest).unwrap(), &scheme.start(newest).unwrap(), 0).unwrap();
        names(&Template::parse(template).unwrap(), "t", scheme, &cover).unwrap_err()
    };
    let said = [
        Template::parse("{table}_{year}").unwrap_err(),
        Template::parse("{table}_{yyyy").unwrap_err(),
        Template::parse("{table}_yyyy}").unwrap_err(),
        Template::parse("{table}_part").unwrap_err(),
        Template::parse("").unwrap_err(),
        named("{table}_{yyyy}_{mm}", &days, "2024-01-01", "2024-01-03"),
        named("{table}_{yyyy}", &days, "2024-01-01", "2024-01-03"),
        named("{table}_{yyyy}w{ww}", &weeks, "2024-01-01", "2025-01-01"),
        named("{table}_{yyyy}", &numbers, "0", "5000"),
        named("{table}_{from}", &days, "2024-01-01", "2024-01-03"),
    ]
    .join("\n");
    insta::assert_snapshot!(said, @r#"
    `{table}_{year}` has the unknown field {year}: fields are {table} {yyyy} {mm} {dd} {hh} {q} {iyyy} {ww} {from}
    `{table}_{yyyy` has a brace without its partner: fields are {table} {yyyy} {mm} {dd} {hh} {q} {iyyy} {ww} {from}
    `{table}_yyyy}` has a brace without its partner: fields are {table} {yyyy} {mm} {dd} {hh} {q} {iyyy} {ww} {from}
    `{table}_part` gives every partition the same name: fields are {table} {yyyy} {mm} {dd} {hh} {q} {iyyy} {ww} {from}
    `` gives every partition the same name: fields are {table} {yyyy} {mm} {dd} {hh} {q} {iyyy} {ww} {from}
    the partitions [2024-01-01, 2024-01-02) and [2024-01-02, 2024-01-03) would both be called "t_2024_01": add {dd} to the names
    the partitions [2024-01-01, 2024-01-02) and [2024-01-02, 2024-01-03) would both be called "t_2024": add {mm} and {dd} to the names
    the partitions [2024-01-01, 2024-01-08) and [2024-12-30, 2025-01-06) would both be called "t_2024w01": add {iyyy} to the names
    the names have the field {yyyy}, which says nothing about a integer: write `{table}_{from}`, for instance
    the names have the field {from}, which says nothing about a date: write `{table}_y{yyyy}m{mm}d{dd}`, for instance
    "#);
}
