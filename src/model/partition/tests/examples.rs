//! Irregular days of clocks and calendars, the limits of types, and errors.

use chrono_tz::Tz;

use crate::model::partition::{bound::Value, *};

fn scheme(kind: ColumnKind, every: &str, zone: &str) -> Scheme {
    Scheme::new(kind, every.parse().unwrap(), zone.parse().unwrap()).unwrap()
}

/// Formats the ranges that cover `oldest` to `newest`, in the server's format, as lines of the form `name: range`.
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
fn clock_changes() {
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
fn a_local_time_that_is_skipped_or_repeated() {
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
fn a_clock_that_goes_back_across_midnight_does_not_go_back_a_day() {
    let days = scheme(ColumnKind::TimestampTz, "1 day", "America/St_Johns");
    // At 02:31 UTC, the clock went from 00:01 on the 7th to 23:01 on the 6th.
    for (value, from) in [
        ("2010-11-07 02:29:59.999999+00", "2010-11-06 02:30:00+00"),
        ("2010-11-07 02:30:30+00", "2010-11-07 02:30:00+00"),
        ("2010-11-07 02:45:00+00", "2010-11-07 02:30:00+00"),
    ] {
        let range = days.containing(&days.value(value).unwrap()).unwrap();
        assert_eq!(range.from.to_string(), from, "{value}");
    }
}

#[test]
fn the_next_range_adjoins_an_irregular_range() {
    let months = scheme(ColumnKind::Date, "1 month", "UTC");
    let odd = Range { from: months.start("2024-01-15").unwrap(), to: months.start("2024-02-10").unwrap() };
    assert_eq!(months.next(&odd).unwrap().to_string(), "[2024-02-10, 2024-03-01)");
    assert_eq!(months.previous(&odd).unwrap().to_string(), "[2024-01-01, 2024-01-15)");
}

#[test]
fn errors_of_schemes() {
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
    the interval `5` is a plain number, but the column has type timestamp with time zone: write an interval of time, such as "1 month"
    the interval `1 month` is an interval of time, but the column has type bigint: write a plain number, such as "100000"
    the interval `6 hours` is in hours, but the column has type date: write "1 day" or longer
    interval `0 days`: the number must be between 1 and 10000
    interval `4294967295 years`: the number must be between 1 and 10000
    interval `0`: the number must be 1 or more
    no partition with bounds accepts infinity: let a default partition take such rows (`default = true`), or set a finite value in them first
    the server returned a timestamp with time zone in an unexpected format: the session must have TimeZone = UTC and DateStyle = ISO
    the column contains a timestamp with time zone that is out of range: bounds must be between 4714-11-24 BC and the end of the year 261999
    the column contains a date that is out of range: bounds must be between 4714-11-24 BC and the end of the year 261999
    the server returned a smallint that is not a number in its range
    `-infinity` cannot be the bound of a partition: write a date
    `01/02/2024` is not a date: write "2024-01-31" or "2024-01-31 06:00"
    `4714-11-23 BC` is out of range: bounds must be between 4714-11-24 BC and the end of the year 261999
    `300000-01-01` is out of range: bounds must be between 4714-11-24 BC and the end of the year 261999
    `2024-01-01 00:00:00+02` has an offset from UTC, but the column has type timestamp without time zone: remove the offset
    `2024-01-01 06:00` has a time of day, but the column has type date: remove the time
    `40000` is out of range for type smallint, which has values from -32768 to 32767
    `2024-01-01` is not a whole number, but the column has type smallint: write a number, such as "1000"
    no partition can follow maxvalue
    a smallint has no values below -32768
    the column has type smallint, but the value has another type
    the interval `1 hour` from 2000-01-01 00:00:00+00 to 2024-07-01 01:00:00+00 with 3 partitions ahead results in 214756 partitions, more than 10000: choose a longer interval, or set a later `from` and let a default partition take older rows
    the newest value is before the oldest value
    "#);
}

#[test]
fn errors_of_names() {
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
    `{table}_{year}` has the unknown field {year}; the fields are {table} {yyyy} {mm} {dd} {hh} {q} {iyyy} {ww} {from}
    `{table}_{yyyy` has an unmatched brace; the fields are {table} {yyyy} {mm} {dd} {hh} {q} {iyyy} {ww} {from}
    `{table}_yyyy}` has an unmatched brace; the fields are {table} {yyyy} {mm} {dd} {hh} {q} {iyyy} {ww} {from}
    `{table}_part` gives every partition the same name; the fields are {table} {yyyy} {mm} {dd} {hh} {q} {iyyy} {ww} {from}
    `` gives every partition the same name; the fields are {table} {yyyy} {mm} {dd} {hh} {q} {iyyy} {ww} {from}
    the partitions [2024-01-01, 2024-01-02) and [2024-01-02, 2024-01-03) would both have the name "t_2024_01": add {dd} to `names`
    the partitions [2024-01-01, 2024-01-02) and [2024-01-02, 2024-01-03) would both have the name "t_2024": add {mm} and {dd} to `names`
    the partitions [2024-01-01, 2024-01-08) and [2024-12-30, 2025-01-06) would both have the name "t_2024w01": add {iyyy} to `names`
    the names use the field {yyyy}, which does not apply to a column of type integer: write, for example, `{table}_{from}`
    the names use the field {from}, which does not apply to a column of type date: write, for example, `{table}_y{yyyy}m{mm}d{dd}`
    "#);
}
