//! Names of partitions, from a template. Dates in a name are those of the mark in local time, so that the name of a day
//! that begins at 01:00 still contains its date.

use std::collections::HashMap;

use chrono::{Datelike, NaiveDateTime, Timelike};

use super::{
    bound::{Bound, Era, Range, Value, year_and_era},
    every::Every,
    scheme::Scheme,
};
use crate::model::ident::Ident;

/// The template of a name, such as `{table}_y{yyyy}m{mm}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub(super) pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Field(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Table,
    Year,
    Month,
    Day,
    Hour,
    Quarter,
    IsoYear,
    IsoWeek,
    From,
}

const FIELDS: [(&str, Field); 9] = [
    ("{table}", Field::Table),
    ("{yyyy}", Field::Year),
    ("{mm}", Field::Month),
    ("{dd}", Field::Day),
    ("{hh}", Field::Hour),
    ("{q}", Field::Quarter),
    ("{iyyy}", Field::IsoYear),
    ("{ww}", Field::IsoWeek),
    ("{from}", Field::From),
];

impl Template {
    /// Parses a template. Years BC are written as `bc0044`, negative numbers as `neg1000`.
    ///
    /// # Errors
    /// A sentence if a field is unknown or a brace is not closed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let known = || FIELDS.map(|(name, _)| name).join(" ");
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, field) = rest.split_at(at);
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let end = field.find('}').filter(|_| field.starts_with('{'));
            let end =
                end.ok_or_else(|| format!("`{text}` has an unmatched brace; the fields are {}", known()))?;
            let (field, behind) = field.split_at(end + 1);
            let found = FIELDS.iter().find(|(name, _)| *name == field);
            let (_, found) = found.ok_or_else(|| {
                format!("`{text}` has the unknown field {field}; the fields are {}", known())
            })?;
            pieces.push(Piece::Field(*found));
            rest = behind;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        if text.contains('\0') {
            return Err("a template for names contains a zero byte".to_owned());
        }
        if !pieces.iter().any(|piece| matches!(piece, Piece::Field(field) if *field != Field::Table)) {
            return Err(format!("`{text}` gives every partition the same name; the fields are {}", known()));
        }
        Ok(Self { pieces })
    }

    /// The default template for an interval.
    pub fn default_for(every: Every) -> &'static str {
        match every {
            Every::Hours(_) => "{table}_y{yyyy}m{mm}d{dd}h{hh}",
            Every::Days(_) => "{table}_y{yyyy}m{mm}d{dd}",
            Every::Weeks(_) => "{table}_y{iyyy}w{ww}",
            Every::Months(_) => "{table}_y{yyyy}m{mm}",
            Every::Quarters(_) => "{table}_y{yyyy}q{q}",
            Every::Years(_) => "{table}_y{yyyy}",
            Every::Integers(_) => "{table}_{from}",
        }
    }

    /// The name of the partition of `table` for `range`, truncated as in [`Ident::derived`].
    ///
    /// A field that does not apply to the column's type, which [`names`] rejects, is not replaced.
    pub fn name(&self, table: &str, scheme: &Scheme, range: &Range) -> Ident {
        let mark = scheme.wall_mark(range);
        let name: String = self
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Field(Field::Table) => table.to_owned(),
                Piece::Field(field) => {
                    field.text(mark, &range.from).unwrap_or_else(|| field.name().to_owned())
                }
            })
            .collect();
        Ident::derived(&name)
    }

    fn has(&self, field: Field) -> bool {
        self.pieces.contains(&Piece::Field(field))
    }

    /// Rejects a field that does not apply to the column's type.
    fn fits(&self, scheme: &Scheme) -> Result<(), String> {
        let kind = scheme.kind();
        let foreign = FIELDS.iter().find(|(_, field)| {
            let of_integers = *field == Field::From;
            *field != Field::Table && self.has(*field) && of_integers == kind.integers().is_none()
        });
        match foreign {
            Some((name, _)) => Err(format!(
                "the names use the field {name}, which does not apply to a column of type {kind}: write, \
                 for example, `{}`",
                Self::default_for(scheme.every())
            )),
            None => Ok(()),
        }
    }

    /// The missing fields that would distinguish partitions of this interval, such as `{mm} and {dd}`.
    fn missing(&self, every: Every) -> String {
        let needed = Self::default_for(every);
        let missing = FIELDS.iter().filter(|(name, field)| needed.contains(name) && !self.has(*field));
        missing
            .filter(|(_, field)| *field != Field::Table)
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(" and ")
    }
}

impl Field {
    fn name(self) -> &'static str {
        FIELDS.iter().find(|(_, field)| *field == self).map_or("", |(name, _)| name)
    }

    pub(super) fn text(self, mark: Option<NaiveDateTime>, from: &Bound) -> Option<String> {
        match (self, &from.0) {
            (Self::From, Value::Integer(n)) if *n < 0 => return Some(format!("neg{}", n.unsigned_abs())),
            (Self::From, Value::Integer(n)) => return Some(n.to_string()),
            _ => {}
        }
        let mark = mark?;
        match self {
            Self::Year => Some(year(mark.year())),
            Self::Month => Some(format!("{:02}", mark.month())),
            Self::Day => Some(format!("{:02}", mark.day())),
            Self::Hour => Some(format!("{:02}", mark.hour())),
            Self::Quarter => Some(mark.quarter().to_string()),
            Self::IsoYear => Some(year(mark.iso_week().year())),
            Self::IsoWeek => Some(format!("{:02}", mark.iso_week().week())),
            Self::Table | Self::From => None,
        }
    }
}

fn year(year: i32) -> String {
    match year_and_era(year) {
        (year, Era::Ad) => format!("{year:04}"),
        (year, Era::Bc) => format!("bc{year:04}"),
    }
}

/// The names of all partitions, in the order of `ranges`.
///
/// # Errors
/// A sentence if a field does not fit the column, or two partitions would have the same name.
pub fn names(
    template: &Template,
    table: &str,
    scheme: &Scheme,
    ranges: &[Range],
) -> Result<Vec<Ident>, String> {
    template.fits(scheme)?;
    let mut taken: HashMap<Ident, &Range> = HashMap::new();
    let mut all = Vec::with_capacity(ranges.len());
    for range in ranges {
        let name = template.name(table, scheme, range);
        if let Some(other) = taken.insert(name.clone(), range) {
            let missing = template.missing(scheme.every());
            let way_out = if missing.is_empty() {
                "choose names that differ within the first 63 bytes".to_owned()
            } else {
                format!("add {missing} to `names`")
            };
            return Err(format!(
                "the partitions {other} and {range} would both have the name {name}: \
                {way_out}"
            ));
        }
        all.push(name);
    }
    Ok(all)
}
