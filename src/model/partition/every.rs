//! The interval of a plan: the size of the range of one partition.

use std::{fmt, str::FromStr};

/// The size of the range of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Every {
    /// Hours.
    Hours(u32),
    /// Days.
    Days(u32),
    /// ISO weeks, from Monday.
    Weeks(u32),
    /// Months.
    Months(u32),
    /// Quarters.
    Quarters(u32),
    /// Years.
    Years(u32),
    /// Integers.
    Integers(i64),
}

impl Every {
    /// The largest number of hours, days, ... in one interval.
    pub const MOST_UNITS: u32 = 10_000;

    /// The number and its unit; the unit is empty for integers.
    pub(super) fn unit(self) -> (u64, &'static str) {
        match self {
            Self::Hours(n) => (n.into(), "hour"),
            Self::Days(n) => (n.into(), "day"),
            Self::Weeks(n) => (n.into(), "week"),
            Self::Months(n) => (n.into(), "month"),
            Self::Quarters(n) => (n.into(), "quarter"),
            Self::Years(n) => (n.into(), "year"),
            Self::Integers(n) => (n.unsigned_abs(), ""),
        }
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit() {
            (n, "") => write!(f, "{n}"),
            (1, unit) => write!(f, "1 {unit}"),
            (n, unit) => write!(f, "{n} {unit}s"),
        }
    }
}

impl FromStr for Every {
    type Err = String;

    /// Parses `1 month`, `month`, `2 weeks`, `100_000`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is not an interval: write a number of hours, days, weeks, months, quarters or \
                 years (\"1 month\"), or a plain number for an integer column"
            )
        };
        let lower = text.trim().to_ascii_lowercase().replace('_', "");
        let split = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
        let (number, unit) = lower.split_at(split);
        let unit = unit.trim();
        if unit.is_empty() {
            let n: i64 = number.parse().map_err(|_| wrong())?;
            return if n > 0 { Ok(Self::Integers(n)) } else { Err(wrong()) };
        }
        let n: u32 = if number.is_empty() { 1 } else { number.parse().map_err(|_| wrong())? };
        if !(1..=Self::MOST_UNITS).contains(&n) {
            return Err(format!("`{text}`: the number must be between 1 and {}", Self::MOST_UNITS));
        }
        match unit.strip_suffix('s').unwrap_or(unit) {
            "hour" => Ok(Self::Hours(n)),
            "day" => Ok(Self::Days(n)),
            "week" => Ok(Self::Weeks(n)),
            "month" => Ok(Self::Months(n)),
            "quarter" => Ok(Self::Quarters(n)),
            "year" => Ok(Self::Years(n)),
            _ => Err(wrong()),
        }
    }
}
