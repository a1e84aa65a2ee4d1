//! The time windows in which a job may run: times of the week in a time zone.

use std::fmt;

use chrono::{DateTime, Datelike, Duration, NaiveTime, Timelike, Utc, Weekday};
use chrono_tz::Tz;

/// The minutes of a day.
const DAY_MIN: u32 = 24 * 60;
/// How far to look ahead for the next window: windows repeat every week.
const AHEAD_MIN: u32 = 8 * DAY_MIN;

/// A time window: on each of `days`, from one minute of the day to another. If `until` is not after `from`, it ends on
/// the next day.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    days: [bool; 7],
    from_min: u32,
    until_min: u32,
}

/// Time windows. Without any, a job may always run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Windows {
    windows: Vec<Window>,
}

impl Windows {
    /// Parses `Mon-Fri 22:00-05:00`, `Sat,Sun 00:00-24:00`, `22:00-05:00` (every day).
    ///
    /// # Errors
    /// The error in the first window that cannot be parsed.
    pub fn parse<'a>(written: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let windows = written.into_iter().map(window).collect::<Result<_, _>>()?;
        Ok(Self { windows })
    }

    /// The windows in the format of a plan.
    pub fn written(&self) -> Vec<String> {
        self.windows.iter().map(ToString::to_string).collect()
    }

    /// Whether there are no windows, so that a job may always run.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Whether `at` is in a window, in time zone `zone`.
    pub fn open(&self, at: DateTime<Utc>, zone: Tz) -> bool {
        let local = at.with_timezone(&zone);
        let minute = local.hour() * 60 + local.minute();
        self.is_empty() || self.windows.iter().any(|window| window.holds(local.weekday(), minute))
    }

    /// The start of the next window after `at`, to the minute; none if no window opens.
    pub fn next_open(&self, at: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let minute = at.with_second(0)?.with_nanosecond(0)?;
        (1..AHEAD_MIN).map(|n| minute + Duration::minutes(n.into())).find(|then| self.open(*then, zone))
    }
}

impl Window {
    fn holds(&self, day: Weekday, minute: u32) -> bool {
        let on = |day: Weekday| self.days[day.num_days_from_monday() as usize];
        if self.from_min < self.until_min {
            return on(day) && (self.from_min..self.until_min).contains(&minute);
        }
        // A window across midnight belongs to the day on which it begins.
        on(day) && minute >= self.from_min || on(day.pred()) && minute < self.until_min
    }
}

fn window(written: &str) -> Result<Window, String> {
    let wrong = || {
        format!(
            "`{written}` is not a window: write days and times, such as \"Mon-Fri 22:00-05:00\", \
            or only times"
        )
    };
    let (days, times) = match written.trim().rsplit_once(char::is_whitespace) {
        Some((days, times)) => (parse_days(days).ok_or_else(wrong)?, times),
        None => ([true; 7], written.trim()),
    };
    let (from, until) = times.split_once('-').ok_or_else(wrong)?;
    let (from_min, until_min) = (minute(from).ok_or_else(wrong)?, minute(until).ok_or_else(wrong)?);
    if from_min == until_min || from_min == DAY_MIN {
        return Err(format!(
            "`{written}` is empty, because its start and end are the same; a whole day is \
            00:00-24:00"
        ));
    }
    Ok(Window { days, from_min, until_min })
}

/// `Mon-Fri`, `Sat,Sun`, `Fri-Mon`.
fn parse_days(written: &str) -> Option<[bool; 7]> {
    let mut days = [false; 7];
    for part in written.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (first.trim().parse::<Weekday>().ok()?, last.trim().parse::<Weekday>().ok()?);
        loop {
            days[day.num_days_from_monday() as usize] = true;
            if day == last {
                break;
            }
            day = day.succ();
        }
    }
    Some(days)
}

fn minute(written: &str) -> Option<u32> {
    if written.trim() == "24:00" {
        return Some(DAY_MIN);
    }
    let time = NaiveTime::parse_from_str(written.trim(), "%H:%M").ok()?;
    Some(time.hour() * 60 + time.minute())
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != [true; 7] {
            let all = [
                Weekday::Mon,
                Weekday::Tue,
                Weekday::Wed,
                Weekday::Thu,
                Weekday::Fri,
                Weekday::Sat,
                Weekday::Sun,
            ];
            let days = all.iter().zip(self.days).filter(|(_, on)| *on).map(|(day, _)| day.to_string());
            write!(f, "{} ", days.collect::<Vec<_>>().join(","))?;
        }
        let time = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
        write!(f, "{}-{}", time(self.from_min), time(self.until_min))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn windows(written: &[&str]) -> Windows {
        Windows::parse(written.iter().copied()).unwrap()
    }

    #[test]
    fn a_window_across_midnight_belongs_to_its_first_day() {
        let nights = windows(&["Mon-Fri 22:00-05:00"]);
        let open = |text: &str| nights.open(at(text), Tz::UTC);
        // 2026-01-05 is a Monday.
        let moments =
            ["2026-01-05T04:59:00Z", "2026-01-05T21:59:59Z", "2026-01-05T22:00:00Z", "2026-01-06T04:59:59Z"];
        assert_eq!(moments.map(open), [false, false, true, true]);
        let weekend =
            ["2026-01-09T23:00:00Z", "2026-01-10T04:00:00Z", "2026-01-10T05:00:00Z", "2026-01-10T23:00:00Z"];
        assert_eq!(weekend.map(open), [true, true, false, false]);
        assert_eq!(nights.next_open(at("2026-01-10T05:00:30Z"), Tz::UTC), Some(at("2026-01-12T22:00:00Z")));
    }

    #[test]
    fn windows_are_in_the_time_zone() {
        let early = windows(&["02:00-03:00"]);
        assert!(early.open(at("2026-01-15T01:30:00Z"), Tz::Europe__Berlin));
        assert!(early.open(at("2026-07-15T00:30:00Z"), Tz::Europe__Berlin));
        assert!(!early.open(at("2026-07-15T01:30:00Z"), Tz::Europe__Berlin));
        // The hour is skipped in this night, so the window opens in the next one.
        let next = early.next_open(at("2026-03-29T00:00:00Z"), Tz::Europe__Berlin);
        assert_eq!(next, Some(at("2026-03-30T00:00:00Z")));
        assert!(Windows::default().open(at("2026-07-15T01:30:00Z"), Tz::UTC));
    }

    #[test]
    fn days_and_times_have_several_formats() {
        let of = |text: &str| windows(&[text]).written().remove(0);
        let read = [
            "Mon-Fri 22:00-05:00",
            "fri-Mon 0:00-24:00",
            "Sat, Sun 10:30-11:00",
            "monday 1:00-2:00",
            " 22:00-05:00 ",
        ];
        assert_eq!(
            read.map(of),
            [
                "Mon,Tue,Wed,Thu,Fri 22:00-05:00",
                "Mon,Fri,Sat,Sun 00:00-24:00",
                "Sat,Sun 10:30-11:00",
                "Mon 01:00-02:00",
                "22:00-05:00",
            ]
        );
        for wrong in [
            "",
            "Mon",
            "Mon-Fri",
            "Mon 25:00-26:00",
            "Mo-Fr 22:00-05:00",
            "22:00",
            "05:00-05:00",
            "24:00-05:00",
            "Mon 22-5",
        ] {
            assert!(Windows::parse([wrong]).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn windows_round_trip(days in any::<[bool; 7]>(), from_min in 0..DAY_MIN, until_min in 0..=DAY_MIN) {
            prop_assume!(from_min != until_min && days != [false; 7]);
            let one = Windows { windows: vec![Window { days, from_min, until_min }] };
            let written = one.written();
            prop_assert_eq!(Windows::parse(written.iter().map(String::as_str)), Ok(one));
        }

        #[test]
        fn the_next_window_is_open_at_its_start(minute in 0..60_000_i64, from_min in 0..DAY_MIN, until_min in 0..=DAY_MIN) {
            prop_assume!(from_min != until_min);
            let some = Windows { windows: vec![Window { days: [false, true, false, false, true, false, false], from_min, until_min }] };
            let now = at("2026-01-05T00:00:00Z") + Duration::minutes(minute);
            let next = some.next_open(now, Tz::UTC).unwrap();
            prop_assert!(next > now && some.open(next, Tz::UTC));
        }
    }
}
