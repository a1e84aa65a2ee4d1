//! How a plan partitions its table: the scheme, the names, and the bounds of the partitions for the existing rows.
//!
//! The first and the last partition are whole intervals: the first one contains `from` (or the oldest row), and the
//! last one ends at the first interval boundary at or above `to`.

use super::settings::Settings;
use super::{Backfill, Finish, IncomingKeys, KeepFilled, KeepUnique, Order, Plan, Retention, RowComparison};
use crate::error::Error;
use crate::model::ident::{Ident, QualifiedName};
use crate::model::partition::{Bound, ColumnKind, Every, Range, Scheme, Template};

/// The part of a plan that only partition jobs have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partitioning {
    /// The name of the partition column, as in the catalog.
    pub by: String,
    /// Whether the job keeps NULL out of a nullable partition column.
    pub not_null: bool,
    /// The expression with which NULL in the partition column is filled, over the row `t`; the job then keeps NULL out.
    pub null_as: Option<String>,
    /// The interval of one partition.
    pub every: Every,
    /// The time zone in which days and months begin, for a `timestamptz` column.
    pub timezone: chrono_tz::Tz,
    /// The lower bound of the first partition, as written; none: the oldest row.
    pub from: Option<String>,
    /// The upper bound of the last partition, as written; none: `ahead` partitions beyond the newest row.
    pub to: Option<String>,
    /// The number of partitions beyond the newest row.
    pub ahead: u32,
    /// The template of partition names; none: the default for the interval.
    pub names: Option<String>,
    /// Whether there is a default partition for rows outside all bounds.
    pub default: bool,
    /// Unique indexes without the partition column that stay unique.
    pub keep_unique: KeepUnique,
    /// Unique indexes and constraints that the partitioned table does not get; names as in the catalog, sorted.
    pub drop_unique: Vec<String>,
    /// The order in which the copy reads rows.
    pub order: Order,
    /// What verification compares.
    pub verify: RowComparison,
    /// How the job treats foreign keys of other tables that cannot reference the partitioned table.
    pub incoming_keys: IncomingKeys,
    /// How long partitions are kept; none: forever.
    pub retention: Option<Retention>,
}

impl Plan {
    /// A minimal plan for a table that is already partitioned.
    ///
    /// # Errors
    /// A plan cannot have this interval.
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

impl Partitioning {
    /// Whether the job keeps NULL out of the partition column, if it is nullable.
    pub fn keeps_null_out(&self) -> bool {
        self.not_null || self.null_as.is_some()
    }

    /// The backfill of rows with NULL in the partition column.
    pub fn null_backfill(&self) -> Option<Backfill> {
        Some(Backfill {
            add: Vec::new(),
            from: None,
            set: vec![(self.by.clone(), self.null_as.clone()?)],
            filter: Some(format!("t.{} is null", Ident::new(&self.by))),
            keep_filled: KeepFilled::UntilDone,
            finish: Finish::default(),
            settings: Settings::default(),
        })
    }
}

/// The scheme by which the plan divides the values of the partition column.
///
/// # Errors
/// The interval does not match the type of the column.
pub fn scheme(plan: &Partitioning, base_type: &str) -> Result<Scheme, Error> {
    let kind = ColumnKind::from_sql(base_type).ok_or_else(|| {
        Error::usage(format!("a column of type {base_type} cannot be used as the partition column")).hint(
            "choose a column of type timestamptz, timestamp, date, smallint, integer or bigint under [partition] by",
        )
    })?;
    Scheme::new(kind, plan.every, plan.timezone).map_err(Error::usage)
}

/// The template for the names of partitions.
///
/// # Errors
/// The template is invalid.
pub fn template(plan: &Partitioning) -> Result<Template, Error> {
    Template::parse(plan.names.as_deref().unwrap_or_else(|| Template::default_for(plan.every)))
        .map_err(Error::usage)
}

/// Whether the column contains times or dates, so that values grow with the clock. Otherwise it contains numbers.
pub fn is_time(kind: ColumnKind) -> bool {
    matches!(kind, ColumnKind::TimestampTz | ColumnKind::Timestamp | ColumnKind::Date)
}

/// The lower bound of the first partition and the upper bound of the last one, as set in the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// The lower bound of the first partition.
    pub from: Option<Bound>,
    /// The upper bound of the last partition.
    pub to: Option<Bound>,
}

/// `from` and `to` of the plan, extended outward to interval boundaries.
///
/// # Errors
/// One of them is not a value of the column's type, or `to` is not greater than `from`.
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

/// The bounds of all partitions. They begin at `from` of the plan, or else at `oldest`, and end at `to` of the plan, or
/// else `ahead` partitions beyond `newest`.
///
/// # Errors
/// There would be too many partitions, or none.
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
