//! Formats numbers in readable form. JSON output contains plain numbers.

use std::time::Duration;

const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];

/// `12,345,678`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `12,345,678 rows`: `n` with the singular noun `one`.
pub fn counted(n: u64, one: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {one}{plural}", count(n))
}

/// `512 B`, `1.2 GiB`.
pub fn bytes(n: u64) -> String {
    let mut value = n as f64;
    let mut unit = "B";
    for larger in UNITS {
        // 1023.95 would be formatted as 1024.0.
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") }
}

/// A duration in whole milliseconds; `u64::MAX` if it is longer.
pub fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `480 ms`, `3.4 s`; longer durations as in [`seconds`].
pub fn duration(time: Duration) -> String {
    let s = time.as_secs_f64();
    match s {
        _ if s < 0.9995 => format!("{:.0} ms", s * 1000.0),
        _ if s < 9.95 => format!("{s:.1} s"),
        _ => seconds(s.round() as u64),
    }
}

/// `7s`, `3m 20s`, `1h 2m`, `2days 1h`: at most two units.
pub fn seconds(s: u64) -> String {
    // For hours, seconds are omitted; for days, minutes.
    let step = match s {
        86_400.. => 3_600,
        3_600.. => 60,
        _ => 1,
    };
    humantime::format_duration(Duration::from_secs(s / step * step)).to_string()
}

/// `34,000`, `3.5`: a rate without its unit.
pub fn rate(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.1}") } else { count(per_second.round() as u64) }
}

/// `10 %`; `100 %` only if everything is done. None if `total` is zero.
pub fn percent(done: u64, total: u64) -> Option<String> {
    let share = done.checked_mul(100)?.checked_div(total)?;
    Some(format!("{} %", share.min(if done < total { 99 } else { 100 })))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_readable() {
        let counts = [0, 7, 999, 1_000, 12_345_678].map(count);
        assert_eq!(counts, ["0", "7", "999", "1,000", "12,345,678"]);
        assert_eq!(
            [counted(0, "row"), counted(1, "row"), counted(2_000, "row")],
            ["0 rows", "1 row", "2,000 rows"]
        );
        let sizes = [0, 1_023, 1_024, 1_048_575, 1_288_490_188].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.2 GiB"]);
        let times =
            [0.0, 0.48, 0.9996, 3.42, 9.96, 59.6, 200.4, 3_725.0, 176_461.0].map(Duration::from_secs_f64);
        assert_eq!(
            times.map(duration),
            ["0 ms", "480 ms", "1.0 s", "3.4 s", "10s", "1m", "3m 20s", "1h 2m", "2days 1h"]
        );
        assert_eq!([0.0, 3.46, 9.99, 34_000.4].map(rate), ["0.0", "3.5", "10.0", "34,000"]);
        assert_eq!(percent(0, 0), None);
        let shares = [(0, 10), (999, 1_000), (10, 10), (11, 10)].map(|(done, total)| percent(done, total));
        assert_eq!(shares.map(Option::unwrap), ["0 %", "99 %", "100 %", "100 %"]);
    }

    proptest! {
        #[test]
        fn a_count_keeps_its_digits(n: u64) {
            let text = count(n);
            prop_assert_eq!(text.replace(',', ""), n.to_string());
            prop_assert!(text.rsplit(',').skip(1).all(|group| group.len() <= 3 && !group.is_empty()));
        }
    }
}
