//! Readers for the values of a plan. Each reports what is wrong with its value.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use chrono_tz::{TZ_VARIANTS, Tz};
use toml::Value;

use super::file::Setting;
use super::identity::duration_text;
use super::problem::Problem;
use crate::model::ident::QualifiedName;

/// Why a value is wrong, and what to write instead.
pub(super) struct Wrong {
    pub(super) fact: String,
    pub(super) hint: Option<String>,
}

pub(super) type Read<T> = Result<T, Wrong>;

impl From<String> for Wrong {
    fn from(fact: String) -> Self {
        Self { fact, hint: None }
    }
}

pub(super) fn wrong<T>(fact: impl Into<String>, hint: impl Into<String>) -> Read<T> {
    Err(Wrong { fact: fact.into(), hint: Some(hint.into()) })
}

/// The problems found so far. After a wrong value, reading continues, to find the other problems.
#[derive(Default)]
pub(super) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        leaf: &Option<Setting>,
        read: impl FnOnce(&Value) -> Read<T>,
    ) -> Option<T> {
        let leaf = leaf.as_ref()?;
        match read(leaf.get_ref()) {
            Ok(value) => Some(value),
            Err(Wrong { fact, hint }) => {
                let problem = Problem::new(Some(leaf.span()), format!("{key}: {fact}"));
                self.0.push(match hint {
                    Some(hint) => problem.hint(hint),
                    None => problem,
                });
                None
            }
        }
    }

    pub(super) fn required<T>(
        &mut self,
        key: &str,
        leaf: &Option<Setting>,
        example: &str,
        read: impl FnOnce(&Value) -> Read<T>,
    ) -> Option<T> {
        if leaf.is_none() {
            let hint = match key.split_once('.') {
                Some((section, _)) => format!("write {example} under [{section}]"),
                None => format!("write {example}"),
            };
            self.0.push(Problem::new(None, format!("{key} is missing")).hint(hint));
        }
        self.optional(key, leaf, read)
    }
}

/// Reads one name as in SQL. It is read as the last part of a qualified name, so that the same quoting and folding
/// rules apply.
pub(super) fn column(written: &str) -> Read<String> {
    match QualifiedName::parse(&format!("x.{}", written.trim())) {
        Ok(two) => Ok(two.name.as_str().to_owned()),
        Err(_) => wrong(
            format!("`{written}` is not a single name"),
            "write the name as in SQL, in double quotes if it has characters other than letters, digits \
             and _: '\"My Column\"'",
        ),
    }
}

pub(super) fn zone(written: &str) -> Read<Tz> {
    Tz::from_str_insensitive(written).or_else(|_| {
        wrong(format!("`{written}` is not a time zone"), format!("did you mean {}?", nearest_zones(written)))
    })
}

/// The three most similar zones, by the whole name or only by the city: `Berlin` matches `Europe/Berlin`.
fn nearest_zones(written: &str) -> String {
    let written = written.to_lowercase();
    let likeness = |zone: &Tz| {
        let name = zone.name().to_lowercase();
        let city = name.rsplit('/').next().unwrap_or_default();
        strsim::jaro_winkler(&written, &name).max(strsim::jaro_winkler(&written, city))
    };
    let mut zones: Vec<(f64, &str)> = TZ_VARIANTS.iter().map(|zone| (likeness(zone), zone.name())).collect();
    zones.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let [first, second, third] = [0, 1, 2].map(|i: usize| zones.get(i).map_or("UTC", |zone| zone.1));
    format!("{first}, {second} or {third}")
}

pub(super) fn text(value: &Value) -> Read<&str> {
    match value {
        Value::String(text) => Ok(text),
        other => wrong(format!("{other} is not a string"), "write it in double quotes"),
    }
}

/// Reads a string, or an integer or a date without quotes.
pub(super) fn plain_text(value: &Value) -> Read<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(n) => Ok(n.to_string()),
        Value::Datetime(moment) => Ok(moment.to_string()),
        other => wrong(format!("{other} is not a string"), "write it in double quotes"),
    }
}

/// Reads a list of strings.
pub(super) fn plain_texts(value: &Value) -> Read<Vec<String>> {
    match value {
        Value::Array(all) => all.iter().map(|one| text(one).map(str::to_owned)).collect(),
        other => wrong(format!("{other} is not a list"), "write it in brackets: [\"...\"]"),
    }
}

pub(super) fn flag(value: &Value) -> Read<bool> {
    value
        .as_bool()
        .map_or_else(|| wrong(format!("{value} is not true or false"), "write it without quotes"), Ok)
}

pub(super) fn number<T>(range: RangeInclusive<T>) -> impl FnOnce(&Value) -> Read<T>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    move |value| {
        let number = value.as_integer().and_then(|n| T::try_from(n).ok()).filter(|n| range.contains(n));
        number.ok_or_else(|| {
            Wrong::from(format!(
                "{value} is not a whole number between {} and {}",
                range.start(),
                range.end()
            ))
        })
    }
}

pub(super) fn duration(value: &Value, example: &str, range: RangeInclusive<Duration>) -> Read<Duration> {
    let written = plain_text(value)?;
    let Ok(duration) = humantime::parse_duration(&written) else {
        return wrong(
            format!("`{written}` is not a duration"),
            format!("write a whole number and its unit (ms, s, min, h, days): \"{example}\""),
        );
    };
    if !range.contains(&duration) {
        let (least, most) = (duration_text(*range.start()), duration_text(*range.end()));
        return Err(format!("{written} is not between {least} and {most}").into());
    }
    Ok(duration)
}

pub(super) fn one_of<T: Copy, const N: usize>(
    all: [T; N],
    name: fn(T) -> &'static str,
) -> impl FnOnce(&Value) -> Read<T> {
    move |value| {
        let found = all.into_iter().find(|one| value.as_str() == Some(name(*one)));
        found.ok_or_else(|| {
            let known = all.map(|one| format!("\"{}\"", name(one)));
            Wrong::from(format!("{value} is not {}", known.join(" or ")))
        })
    }
}
