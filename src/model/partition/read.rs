//! Parses a date, or a date and time, in the formats of the server and of a plan.

use chrono::{NaiveDate, NaiveTime};

/// The first year that is not supported: the calendar library ends at 262142, and time zones need a margin.
pub(super) const END_YEAR: i32 = 262_000;

/// A parsed date, with its time and offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) day: NaiveDate,
    pub(super) time: Option<NaiveTime>,
    /// Seconds east of UTC.
    pub(super) offset_s: Option<i32>,
}

/// The reason for which a text cannot be parsed as a [`Written`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not in the format of a date and time, or not a day of the calendar.
    Form,
    /// `infinity` or `-infinity`.
    Infinite,
    /// It is outside the range for which bounds can be computed.
    Far,
}

impl Fault {
    /// The range for which bounds can be computed.
    pub(super) const REACH: &'static str = "bounds must be between 4714-11-24 BC and the end of the year \
        261999";
}

/// Parses `2024-01-01`, with optional time (` 06:00`, `T06:00:00.5`), offset (`+02`, `-05:30`, `Z`) and ` BC`.
pub(super) fn written(text: &str) -> Result<Written, Fault> {
    let text = text.trim();
    if matches!(text, "infinity" | "-infinity") {
        return Err(Fault::Infinite);
    }
    let (text, bc) = match text.strip_suffix(" BC") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (day, clock) = match text.split_once([' ', 'T']) {
        Some((day, clock)) => (day, Some(clock)),
        None => (text, None),
    };
    let day = date(day, bc)?;
    let Some(clock) = clock else { return Ok(Written { day, time: None, offset_s: None }) };
    let (time, offset_s) = match clock.find(['Z', '+', '-']) {
        Some(at) => (clock[..at].trim_end(), Some(offset(&clock[at..]).ok_or(Fault::Form)?)),
        None => (clock, None),
    };
    Ok(Written { day, time: Some(time_of_day(time).ok_or(Fault::Form)?), offset_s })
}

fn date(text: &str, bc: bool) -> Result<NaiveDate, Fault> {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return Err(Fault::Form) };
    // With two digits, the century and the order of the three numbers would be ambiguous.
    if year.len() < 4 {
        return Err(Fault::Form);
    }
    let (year, month, day) = (
        digits(year).ok_or(Fault::Form)?,
        two_digits(month).ok_or(Fault::Form)?,
        two_digits(day).ok_or(Fault::Form)?,
    );
    let year = i32::try_from(year).ok().filter(|year| *year < END_YEAR).ok_or(Fault::Far)?;
    if year == 0 {
        return Err(Fault::Form);
    }
    NaiveDate::from_ymd_opt(if bc { 1 - year } else { year }, month, day).ok_or(Fault::Form)
}

fn time_of_day(text: &str) -> Option<NaiveTime> {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (text, None),
    };
    let micros = match fraction {
        Some(f) if (1..=6).contains(&f.len()) => digits(&format!("{f:0<6}"))?,
        Some(_) => return None,
        None => 0,
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let (hour, minute, second) = match parts[..] {
        [hour, minute] if fraction.is_none() => (hour, minute, "00"),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    NaiveTime::from_hms_micro_opt(two_digits(hour)?, two_digits(minute)?, two_digits(second)?, micros)
}

/// Parses `Z`, `+02`, `+02:00`, `+0200`, `-05:30:15` to seconds east of UTC.
fn offset(text: &str) -> Option<i32> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+')?),
    };
    let parts: Vec<&str> = match rest.len() {
        4 => vec![rest.get(..2)?, rest.get(2..)?],
        _ => rest.split(':').collect(),
    };
    if parts.len() > 3 {
        return None;
    }
    let mut seconds = 0;
    for (part, (unit_s, below)) in parts.iter().zip([(3600, 16), (60, 60), (1, 60)]) {
        let n = i32::try_from(two_digits(part)?).ok().filter(|n| *n < below)?;
        seconds += n * unit_s;
    }
    Some(sign * seconds)
}

fn two_digits(text: &str) -> Option<u32> {
    if text.len() == 2 { digits(text) } else { None }
}

/// Parses digits only: `parse` alone would accept a sign. A number that is too large for `u32` becomes the maximum.
fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match written(text) {
            Ok(w) => format!("{:?} {:?} {:?}", w.day, w.time, w.offset_s),
            Err(fault) => format!("{fault:?}"),
        }
    }

    #[test]
    fn parses_the_formats_of_the_server_and_of_plans() {
        let all = [
            "2024-02-29",
            "2024-01-01 00:00:00.123+00",
            "0044-03-15 12:00:00-05:30:15 BC",
            "12024-01-01 00:00:00",
            "2024-01-01T06:00Z",
            "2024-01-01 06:00 +0200",
        ]
        .map(|text| format!("{text} = {}", read(text)))
        .join("\n");
        insta::assert_snapshot!(all, @r#"
        2024-02-29 = 2024-02-29 None None
        2024-01-01 00:00:00.123+00 = 2024-01-01 Some(00:00:00.123) Some(0)
        0044-03-15 12:00:00-05:30:15 BC = -0043-03-15 Some(12:00:00) Some(-19815)
        12024-01-01 00:00:00 = +12024-01-01 Some(00:00:00) None
        2024-01-01T06:00Z = 2024-01-01 Some(06:00:00) Some(0)
        2024-01-01 06:00 +0200 = 2024-01-01 Some(06:00:00) Some(7200)
        "#);
    }

    #[test]
    fn rejects_other_formats() {
        for text in [
            "",
            "2024",
            "2024-1-1",
            "24-01-01",
            "2023-02-29",
            "2024-13-01",
            "0000-01-01",
            "+2024-01-01",
            "2024-01-01 24:00",
            "2024-01-01 06",
            "2024-01-01 06:00.5",
            "2024-01-01 06:00:00.",
            "2024-01-01 06:00:00.1234567",
            "2024-01-01 06:00+",
            "2024-01-01 06:00+2",
            "2024-01-01 06:00+16",
            "2024-01-01 06:00+ü1",
            "2024-01-01 06:00:60",
            "01/02/2024",
            "2024-01-01 06:00 Europe/Berlin",
        ] {
            assert_eq!(written(text), Err(Fault::Form), "{text}");
        }
        for text in ["262000-01-01", "5874897-12-31", "99999999999-01-01"] {
            assert_eq!(written(text), Err(Fault::Far), "{text}");
        }
        for text in ["infinity", "-infinity"] {
            assert_eq!(written(text), Err(Fault::Infinite), "{text}");
        }
    }
}
