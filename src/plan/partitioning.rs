//! How a plan cuts its table: the scheme, the names, and the ranges that what is there needs.
//!
//! Both ends are whole intervals: the first partition is the one that `from` (or the oldest row) lies in, the last one
//! ends at the first mark at or above `to`.

use super::{IncomingKeys, Order, Plan, Retention, Rows};
use crate::error::Error;
use crate::model::ident::{Ident, QualifiedName};
use crate::model::partition::{Bound, ColumnKind, Every, Range, Scheme, Template};

/// The part of a plan that only partition jobs have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partitioning {
    /// The partition column, as the catalog holds its name.
    pub by: String,
    /// How much one partition holds.
    pub every: Every,
    /// Where a day or month begins, for a `timestamptz` column.
    pub timezone: chrono_tz::Tz,
    /// Where the first partition begins, as written; none: at the oldest row.
    pub from: Option<String>,
    /// Where the last partition ends, as written; none: at the newest row, and `ahead` beyond it.
    pub to: Option<String>,
    /// Partitions beyond the newest row.
    pub ahead: u32,
    /// The template of partition names; none: the interval's own.
    pub names: Option<String>,
    /// Whether there is a default partition for rows outside all bounds.
    pub default: bool,
    /// Unique indexes and constraints whose guarantee is given up, as the catalog holds their names; sorted.
    pub drop_unique: Vec<String>,
    /// In what order rows are read for the copy.
    pub order: Order,
    /// What verification compares.
    pub verify: Rows,
    /// What becomes of foreign keys of other tables that cannot point to the partitioned table.
    pub incoming_keys: IncomingKeys,
    /// How long partitions are kept; none: for good.
    pub retention: Option<Retention>,
}

impl Plan {
    /// What a plan would say of a table that is partitioned already, and nothing more.
    ///
    /// # Errors
    /// The interval is none that a plan can have.
    pub fn adopted(table: &QualifiedName, by: &Ident, scheme: &Scheme) -> Result<Self, Error> {
        let text = |text: &str| toml::Value::from(text).to_string();
        let toml = format!(
            "name = {}\ntable = {}\n[partition]\nby = {}\nevery = {}\ntimezone = {}\n",
            text("adopted"),
            text(&table.to_string()),
            text(&by.to_string()),
            text(&scheme.every().to_string()),
            text(scheme.zone().name())
        );
        Self::parse(&toml, &table.plain())
    }
}

/// How the plan cuts the partition column's values.
///
/// # Errors
/// The column's type and the interval do not go together.
pub fn scheme(plan: &Partitioning, base_type: &str) -> Result<Scheme, Error> {
    let kind = ColumnKind::from_sql(base_type).ok_or_else(|| {
        Error::usage(format!("a column of type {base_type} cannot be used as the partition column")).hint(
            "choose a column of type timestamptz, timestamp, date, smallint, integer or bigint under [partition] by",
        )
    })?;
    Scheme::new(kind, plan.every, plan.timezone).map_err(Error::usage)
}

/// How the plan names partitions.
///
/// # Errors
/// The template is wrong.
pub fn template(plan: &Partitioning) -> Result<Template, Error> {
    Template::parse(plan.names.as_deref().unwrap_or_else(|| Template::default_for(plan.every)))
        .map_err(Error::usage)
}

/// Whether the column holds times or dates, which go on with the clock; else it holds numbers.
pub fn is_time(kind: ColumnKind) -> bool {
    matches!(kind, ColumnKind::TimestampTz | ColumnKind::Timestamp | ColumnKind::Date)
}

/// Where the plan says that the first partition begins and the last one ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// The least value of the first partition.
    pub from: Option<Bound>,
    /// The least value above the last one.
    pub to: Option<Bound>,
}

/// The plan's own ends, moved outward to the marks of the interval.
///
/// # Errors
/// A sentence: one of them is no value of the column's type, or they are in the wrong order.
pub fn limits(plan: &Partitioning, scheme: &Scheme) -> Result<Limits, String> {
    let read = |text: Option<&str>| text.map(|text| scheme.start(text)).transpose();
    let (from, to) = (read(plan.from.as_deref())?, read(plan.to.as_deref())?);
    if let (Some(from), Some(to)) = (&from, &to)
        && to <= from
    {
        return Err(format!("`to` ({to}) is not greater than `from` ({from})"));
    }
    let from = from.map(|from| scheme.containing(&from)).transpose()?.map(|range| range.from);
    let to = match to {
        Some(to) => {
            let range = scheme.containing(&to)?;
            Some(if range.from == to { to } else { range.to })
        }
        None => None,
    };
    Ok(Limits { from, to })
}

/// The ranges of all partitions: from the plan's `from`, else `oldest`, to the plan's `to`, else `ahead` beyond `newest`.
///
/// # Errors
/// A sentence: too many of them, or none.
pub fn ranges(
    scheme: &Scheme,
    limits: &Limits,
    oldest: &Bound,
    newest: &Bound,
    ahead: u32,
) -> Result<Vec<Range>, String> {
    let first = limits.from.as_ref().unwrap_or(oldest);
    let Some(to) = &limits.to else { return scheme.cover(first, newest.max(first), ahead) };
    if to <= first {
        return Err(format!(
            "the last partition would end at {to}, before the start of the first partition \
            ({first})"
        ));
    }
    let mut ranges = scheme.cover(first, to, 0)?;
    ranges.retain(|range| range.from < *to);
    Ok(ranges)
}
