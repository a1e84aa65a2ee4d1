//! Derives the interval and the names from existing partitions that pgstrata did not create. If they cannot be derived
//! with certainty, that is an error: a guess would create unexpected partitions.

use chrono::{Datelike, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Weekday};
use chrono_tz::Tz;

use super::bound::{ColumnKind, Range, Value};
use super::every::Every;
use super::name::{Field, Piece, Template};
use super::scheme::Scheme;

/// The number of newest partitions that must follow one scheme: monthly partitions then include both clock changes of a
/// year. Older partitions may have been merged or split.
const YOUNGEST: usize = 12;

/// The two ends in the bounds of a range partition on one column: `FOR VALUES FROM ('a') TO ('b')`, as in the catalog.
pub fn ends(bound: &str) -> Option<(&str, &str)> {
    let (from, to) = bound.strip_prefix("FOR VALUES FROM (")?.strip_suffix(')')?.split_once(") TO (")?;
    Some((unquoted(from), unquoted(to)))
}

fn unquoted(end: &str) -> &str {
    end.strip_prefix('\'').and_then(|end| end.strip_suffix('\'')).unwrap_or(end)
}

/// The scheme of the newest partitions; `ranges` are in order. It uses the first of `zones` that matches all bounds.
///
/// # Errors
/// A sentence if there are too few partitions, or if their bounds are irregular.
pub fn scheme(kind: ColumnKind, ranges: &[Range], zones: &[Tz]) -> Result<Scheme, String> {
    let youngest = &ranges[ranges.len().saturating_sub(YOUNGEST)..];
    let Some(last) = youngest.last().filter(|_| youngest.len() > 1) else {
        return Err("the interval cannot be determined from fewer than two partitions with \
            bounds"
            .to_owned());
    };
    if last.to.0 == Value::Top {
        return Err(format!(
            "the last partition, {last}, has no upper bound, so no partition can follow \
            it"
        ));
    }
    let zones = if kind == ColumnKind::TimestampTz { zones } else { &[Tz::UTC] };
    let mut irregular = last;
    for zone in zones {
        let Some(scheme) = of_one(kind, last, *zone) else { continue };
        match youngest.iter().find(|range| scheme.containing(&range.from).as_ref() != Ok(*range)) {
            None => return Ok(scheme),
            Some(range) => irregular = range,
        }
    }
    let clock = match kind {
        ColumnKind::TimestampTz => {
            format!(" in time zone {}", zones.iter().map(|z| z.name()).collect::<Vec<_>>().join(" or "))
        }
        _ => String::new(),
    };
    Err(format!(
        "the bounds are irregular: {irregular} is not a whole hour, day, week, month, quarter or \
         year{clock}, is not a multiple of a fixed number, or differs in length from its neighbors"
    ))
}

/// The scheme in which `range` is one interval.
fn of_one(kind: ColumnKind, range: &Range, zone: Tz) -> Option<Scheme> {
    let every = match (&range.from.0, &range.to.0) {
        (Value::Integer(from), Value::Integer(to)) => Every::Integers(to.checked_sub(*from)?),
        _ => {
            let clock = Scheme::new(kind, Every::Days(1), zone).ok()?;
            interval(clock.wall(&range.from)?, clock.wall(&range.to)?)?
        }
    };
    Scheme::new(kind, every, zone).ok()
}

fn interval(from: NaiveDateTime, to: NaiveDateTime) -> Option<Every> {
    let midnight = from.time() == NaiveTime::MIN && to.time() == NaiveTime::MIN;
    if midnight && from.day() == 1 && to.day() == 1 {
        let months =
            i64::from(to.year() - from.year()) * 12 + i64::from(to.month()) - i64::from(from.month());
        let months = u32::try_from(months).ok().filter(|n| *n > 0)?;
        return Some(match months {
            n if n % 12 == 0 => Every::Years(n / 12),
            n if n % 3 == 0 && from.month0().is_multiple_of(3) => Every::Quarters(n / 3),
            n => Every::Months(n),
        });
    }
    let length = to - from;
    let whole = |n: i64| u32::try_from(n).ok().filter(|n| *n > 0);
    if midnight {
        let days = whole(length.num_days())?;
        let weeks = days % 7 == 0 && from.weekday() == Weekday::Mon;
        return Some(if weeks { Every::Weeks(days / 7) } else { Every::Days(days) });
    }
    let on_the_hour =
        from.minute() == 0 && from.second() == 0 && length == TimeDelta::try_hours(length.num_hours())?;
    whole(length.num_hours()).filter(|_| on_the_hour).map(Every::Hours)
}

impl Template {
    /// The template for the names of the newest of `partitions` (range and name, in order). If several match, it is the
    /// template with the most fields, so that no digit of a date is mistaken for literal text.
    ///
    /// # Errors
    /// A sentence that includes a name.
    pub fn of(table: &str, scheme: &Scheme, partitions: &[(Range, &str)]) -> Result<Self, String> {
        let youngest = &partitions[partitions.len().saturating_sub(YOUNGEST)..];
        let mut found = Vec::new();
        if let Some((range, name)) = youngest.last() {
            let fields: Vec<(Field, String)> = fields(scheme)
                .iter()
                .filter_map(|field| Some((*field, field.text(scheme.wall_mark(range), &range.from)?)))
                .chain([(Field::Table, table.to_owned())])
                .collect();
            read(name, &fields, &mut Vec::new(), &mut found);
        }
        let fits = |template: &Self| {
            youngest.iter().all(|(range, name)| template.name(table, scheme, range).as_str() == *name)
        };
        let count = |template: &Self| template.pieces.iter().filter(|p| matches!(p, Piece::Field(_))).count();
        found.sort_by_key(|template| std::cmp::Reverse(count(template)));
        found.into_iter().find(fits).ok_or_else(|| {
            format!(
                "the names do not follow a known pattern: {} does not contain the start of the partition, \
                 or not in the same form as the partitions before it",
                youngest.last().map_or("", |(_, name)| *name)
            )
        })
    }
}

/// The fields that the name of a partition with this interval can contain.
fn fields(scheme: &Scheme) -> &'static [Field] {
    use Field::{Day, From, Hour, IsoWeek, IsoYear, Month, Quarter, Year};
    match scheme.every() {
        Every::Hours(_) => &[Year, Month, Day, Hour],
        Every::Weeks(_) => &[IsoYear, IsoWeek, Year, Month, Day],
        Every::Quarters(_) => &[Year, Quarter, Month, Day],
        Every::Days(_) | Every::Months(_) | Every::Years(_) => &[Year, Month, Day],
        Every::Integers(_) => &[From],
    }
}

/// Finds all ways to split `rest` into literal text and fields, with each field at most once.
fn read(rest: &str, fields: &[(Field, String)], pieces: &mut Vec<Piece>, found: &mut Vec<Template>) {
    let Some(next) = rest.chars().next() else {
        let template = Template { pieces: pieces.clone() };
        let tells = |piece: &Piece| matches!(piece, Piece::Field(field) if *field != Field::Table);
        if template.pieces.iter().any(tells) {
            found.push(template);
        }
        return;
    };
    for (field, text) in fields {
        if let Some(behind) = rest.strip_prefix(text.as_str())
            && !text.is_empty()
            && !pieces.contains(&Piece::Field(*field))
        {
            pieces.push(Piece::Field(*field));
            read(behind, fields, pieces, found);
            pieces.pop();
        }
    }
    let before = pieces.clone();
    match pieces.last_mut() {
        Some(Piece::Text(text)) => text.push(next),
        _ => pieces.push(Piece::Text(next.to_string())),
    }
    read(&rest[next.len_utf8()..], fields, pieces, found);
    *pieces = before;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::ident::Ident;

    fn months(n: u32, kind: ColumnKind, zone: Tz) -> (Scheme, Vec<Range>) {
        let scheme = Scheme::new(kind, Every::Months(1), zone).unwrap();
        let first = scheme.start("2023-11-01").unwrap();
        let mut ranges = vec![scheme.containing(&first).unwrap()];
        for _ in 1..n {
            ranges.push(scheme.next(ranges.last().unwrap()).unwrap());
        }
        (scheme, ranges)
    }

    #[test]
    fn bounds_in_the_catalog_format_are_parsed() {
        assert_eq!(
            ends("FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')"),
            Some(("2024-01-01", "2024-02-01"))
        );
        assert_eq!(ends("FOR VALUES FROM (MINVALUE) TO (1000)"), Some(("MINVALUE", "1000")));
        assert_eq!(ends("FOR VALUES FROM ('-10') TO ('0')"), Some(("-10", "0")));
        assert_eq!(ends("DEFAULT"), None);
        assert_eq!(ends("FOR VALUES WITH (modulus 2, remainder 0)"), None);
    }

    #[test]
    fn the_zone_is_the_first_that_matches_every_bound() {
        let (_, utc) = months(14, ColumnKind::TimestampTz, Tz::UTC);
        let (_, berlin) = months(14, ColumnKind::TimestampTz, Tz::Europe__Berlin);
        let both = [Tz::UTC, Tz::Europe__Berlin];
        let of = |ranges, zones: &[Tz]| scheme(ColumnKind::TimestampTz, ranges, zones);
        assert_eq!(of(&utc, &both).unwrap().zone(), Tz::UTC);
        assert_eq!(of(&berlin, &both).unwrap().zone(), Tz::Europe__Berlin);
        insta::assert_snapshot!(of(&berlin, &[Tz::UTC, Tz::Asia__Tokyo]).unwrap_err(), @"the bounds are irregular: [2023-12-31 23:00:00+00, 2024-01-31 23:00:00+00) is not a whole hour, day, week, month, quarter or year in time zone UTC or Asia/Tokyo, is not a multiple of a fixed number, or differs in length from its neighbors");
    }

    #[test]
    fn irregular_bounds_are_errors() {
        let (scheme_, mut ranges) = months(3, ColumnKind::Date, Tz::UTC);
        let of = |ranges: &[Range]| scheme(ColumnKind::Date, ranges, &[Tz::UTC]).unwrap_err();
        insta::assert_snapshot!(of(&ranges[..1]), @"the interval cannot be determined from fewer than two partitions with bounds");
        ranges[1].to = scheme_.start("2024-01-02").unwrap();
        insta::assert_snapshot!(of(&ranges), @"the bounds are irregular: [2023-12-01, 2024-01-02) is not a whole hour, day, week, month, quarter or year, is not a multiple of a fixed number, or differs in length from its neighbors");
        ranges[2].to = Range { from: ranges[2].to.clone(), to: super::super::bound::Bound(Value::Top) }.to;
        insta::assert_snapshot!(of(&ranges), @"the last partition, [2024-01-01, maxvalue), has no upper bound, so no partition can follow it");
    }

    #[test]
    fn templates_are_derived_from_names() {
        let (scheme, ranges) = months(3, ColumnKind::Date, Tz::UTC);
        let template = |names: [&str; 3]| {
            let partitions: Vec<(Range, &str)> = ranges.iter().cloned().zip(names).collect();
            Template::of("t", &scheme, &partitions)
        };
        let next = |names| {
            let range = scheme.next(&ranges[2]).unwrap();
            template(names).map(|t| t.name("t", &scheme, &range).as_str().to_owned())
        };
        assert_eq!(next(["t_y2023m11", "t_y2023m12", "t_y2024m01"]).unwrap(), "t_y2024m02");
        assert_eq!(next(["t_p2023_11", "t_p2023_12", "t_p2024_01"]).unwrap(), "t_p2024_02");
        assert_eq!(next(["t_p20231101", "t_p20231201", "t_p20240101"]).unwrap(), "t_p20240201");
        assert_eq!(next(["11-2023 T", "12-2023 T", "01-2024 T"]).unwrap(), "02-2024 T");
        insta::assert_snapshot!(next(["t_1", "t_2", "t_3"]).unwrap_err(), @"the names do not follow a known pattern: t_3 does not contain the start of the partition, or not in the same form as the partitions before it");
        assert!(next(["t_y2023m11", "december", "t_y2024m01"]).is_err());
    }

    proptest! {
        /// The scheme and the template can be derived for any interval and template of pgstrata.
        #[test]
        fn generated_partitions_can_be_adopted(
            every in prop_oneof![
                (1u32..30).prop_map(Every::Hours), (1u32..40).prop_map(Every::Days), (1u32..9).prop_map(Every::Weeks),
                (1u32..30).prop_map(Every::Months), (1u32..9).prop_map(Every::Quarters), (1u32..4).prop_map(Every::Years),
                (1i64..1_000_000).prop_map(Every::Integers),
            ],
            at in 1_000_000i64..2_000_000_000, n in 3usize..30,
        ) {
            let integers = matches!(every, Every::Integers(_));
            let kind = if integers { ColumnKind::BigInt } else { ColumnKind::Timestamp };
            let made = Scheme::new(kind, every, Tz::UTC).unwrap();
            let at = match chrono::DateTime::from_timestamp(at, 0) {
                Some(time) if !integers => time.format("%Y-%m-%d %H:%M").to_string(),
                _ => at.to_string(),
            };
            let mut ranges = vec![made.containing(&made.start(&at).unwrap()).unwrap()];
            for _ in 1..n { ranges.push(made.next(ranges.last().unwrap()).unwrap()); }
            let next = made.next(&ranges[n - 1]).unwrap();
            let Ok(read) = scheme(kind, &ranges, &[Tz::UTC]) else {
                // The newest partitions may be as long as a month by chance; the others are not.
                prop_assert!(matches!(every, Every::Hours(_) | Every::Days(_) | Every::Weeks(_)));
                return Ok(());
            };
            let template = Template::parse(Template::default_for(every)).unwrap();
            let name = |range: &Range| template.name("t", &made, range);
            let names: Vec<Ident> = ranges.iter().map(name).collect();
            let partitions: Vec<(Range, &str)> = ranges.iter().cloned().zip(names.iter().map(Ident::as_str)).collect();
            let found = Template::of("t", &read, &partitions).unwrap();
            prop_assert_eq!(read.next(&ranges[n - 1]).unwrap(), next.clone());
            prop_assert_eq!(found.name("t", &read, &next), name(&next));
        }
    }
}
