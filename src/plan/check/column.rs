//! Checks the partition column: its type, its values, and the partitions for these values.

use super::{Found, Report, Values, nearest, rows_that};
use crate::model::blueprint::Partition;
use crate::model::ident::{Ident, plain, plain_list};
use crate::model::partition::{Bound, ColumnKind, Range, Scheme, names};
use crate::model::table::{Column, Table};
use crate::plan::Partitioning;
use crate::plan::partitioning::{self, Limits};

/// The number of rows with NULL up to which an index is searched for them.
pub const NULLS_COUNTED: i64 = 100_000;

/// Returns the partitions, or adds the findings that rule them out.
pub(super) fn check(report: &mut Report, plan: &Partitioning, found: &Found) -> Option<Vec<Partition>> {
    let table = &found.table;
    let column = find(report, table, &plan.by)?;
    definition(report, column);
    kind(report, column)?;
    let scheme = match partitioning::scheme(plan, &column.base_type) {
        Ok(scheme) => scheme,
        Err(e) => {
            report.error(
                "interval",
                "partition.every",
                e.message().to_owned(),
                "change `every` under [partition]",
            );
            return None;
        }
    };
    if let Err(e) = partitioning::template(plan) {
        report.error("partition_names", "partition.names", e.message().to_owned(), "");
        return None;
    }
    // If the values could not be read, the missing privilege is a separate finding.
    let values = found.values.as_ref()?;
    contents(report, plan, table, column, values);
    let ends = beyond(plan, &scheme, values);
    if !ends.is_empty() {
        out_of_reach(report, plan, column, &ends);
        return None;
    }
    match ranges(plan, &scheme, values) {
        Ok((limits, ranges)) => {
            outside(report, plan, values, &limits);
            named(report, plan, table, &scheme, &ranges)
        }
        Err(message) => {
            report.error("bounds", &plan.by, message, "change `from`, `to` or `every` under [partition]");
            None
        }
    }
}

/// `from` and `to`, if the plan does not set them and the value in the rows is too far away to be a bound. If one of them
/// is, the other is included if it would be reported next.
fn beyond(plan: &Partitioning, scheme: &Scheme, values: &Values) -> Vec<&'static str> {
    let ends = [("from", &plan.from, &values.oldest), ("to", &plan.to, &values.newest)];
    let far = |text: &Option<String>| text.as_ref().is_some_and(|text| scheme.value(text).is_err());
    let missing = || ends.into_iter().filter(|(_, given, _)| given.is_none());
    let unreadable: Vec<&str> = missing().filter(|(.., found)| far(found)).map(|(name, ..)| name).collect();
    let near = |found: &Option<String>| found.clone().filter(|_| !far(found));
    let rest = Values { oldest: near(&values.oldest), newest: near(&values.newest), ..values.clone() };
    if !unreadable.is_empty() && ranges(plan, scheme, &rest).is_err() {
        return missing().map(|(name, ..)| name).collect();
    }
    unreadable
}

fn out_of_reach(report: &mut Report, plan: &Partitioning, column: &Column, ends: &[&str]) {
    let name = plain(column.name.as_str());
    let ends = ends.iter().map(|end| format!("`{end}`")).collect::<Vec<_>>().join(" and ");
    report.error(
        "bounds",
        &name,
        format!(
            "column {name} contains values after the year 261999, and covering them would take too \
            many partitions"
        ),
        if plan.default {
            format!("set {ends} under [partition]: rows outside the bounds go to the default partition")
        } else {
            format!("set {ends} under [partition], and `default = true` for the rows outside the bounds")
        },
    );
}

/// Finds the column. If there is none of that name, adds a finding that suggests a similar name.
pub(super) fn find<'a>(report: &mut Report, table: &'a Table, by: &str) -> Option<&'a Column> {
    let column = table.column(&Ident::new(by));
    if column.is_none() {
        let message = format!("table {} has no column {}", table.name.plain(), plain(by));
        let hint = match nearest(by, table.columns.iter().map(|c| c.name.as_str())) {
            Some(near) => format!("did you mean {}?", plain(near)),
            None => usable(table),
        };
        report.error("no_such_column", plain(by), message, hint);
    }
    column
}

/// Lists the columns that can be the partition column.
fn usable(table: &Table) -> String {
    let usable = table.columns.iter().filter(|c| ColumnKind::from_sql(&c.base_type).is_some());
    match plain_list(usable.map(|c| &c.name)).as_str() {
        "" => "the table has no column of a usable type: timestamptz, timestamp, date, smallint, integer or bigint".to_owned(),
        names => format!("columns with a usable type: {names}"),
    }
}

/// The kind of the column's values. Adds a finding if the column cannot be the partition column.
pub(super) fn kind(report: &mut Report, column: &Column) -> Option<ColumnKind> {
    let kind = ColumnKind::from_sql(&column.base_type);
    if kind.is_none() {
        let name = plain(column.name.as_str());
        report.error(
            "unusable_type",
            &name,
            format!(
                "partition column {name} has type {}, which cannot be divided into ranges of equal length",
                column.sql_type
            ),
            "choose a column of type timestamptz, timestamp, date, smallint, integer or bigint",
        );
    }
    kind
}

fn definition(report: &mut Report, column: &Column) {
    let name = plain(column.name.as_str());
    if !column.generated.is_empty() {
        report.error(
            "generated_partition_column",
            &name,
            format!(
                "partition column {name} is a generated column, and PostgreSQL does not support \
                generated partition columns"
            ),
            "choose the column from which it is computed, or an ordinary column",
        );
    }
}

/// Reports NULLs, and what keeps them out.
fn nulls(report: &mut Report, plan: &Partitioning, table: &Table, column: &Column, values: &Values) {
    let (name, table) = (plain(column.name.as_str()), table.name.plain());
    if column.not_null {
        return;
    }
    let mut nulls = rows_that(values.nulls, "contains NULL", "contain NULL");
    if values.nulls >= NULLS_COUNTED {
        nulls = format!("at least {nulls}");
    } else if values.estimated {
        nulls = format!("about {nulls}");
    }
    if !plan.keeps_null_out() {
        let keep = "set not_null = true under [partition]; the job then keeps NULL out of the column";
        let hint = match values.nulls {
            0 => keep.to_owned(),
            _ => format!(
                "set null_as = \"...\" under [partition], an SQL expression that gives these rows a value; or set a value in them, and {keep}"
            ),
        };
        let message =
            format!("partition column {name} is nullable ({nulls} now), but it becomes part of the key");
        report.error("nullable_partition_column", &name, message, hint);
        return;
    }
    if plan.null_as.is_some() {
        report.warning(
            "null_filled",
            &name,
            format!(
                "{nulls} in column {name} of {table}: the job sets the value of null_as there, and in every row that is \
                 written with NULL until the swap; abort and rollback do not set these rows to NULL again; from the swap \
                 on, every INSERT or UPDATE that leaves NULL in the column fails"
            ),
            "make sure that no application writes NULL there after the swap: a default applies only to INSERTs without \
             the column",
        );
        return;
    }
    if values.nulls > 0 {
        report.error(
            "null_in_partition_column",
            &name,
            format!("{nulls} in partition column {name}: such rows belong in no partition"),
            format!(
                "set null_as = \"...\" under [partition], an SQL expression that gives these rows a value; or set a value in \
                 them: select * from {table} where {name} is null"
            ),
        );
    }
    report.warning(
        "null_rejected",
        &name,
        format!(
            "from the start of the job, every INSERT or UPDATE that leaves NULL in column {name} of {table} fails: \
             a CHECK constraint rejects it until the swap, NOT NULL of the partitioned table after it"
        ),
        "make sure that no application writes NULL there: a default applies only to INSERTs without the column",
    );
}

fn contents(report: &mut Report, plan: &Partitioning, table: &Table, column: &Column, values: &Values) {
    let name = plain(column.name.as_str());
    nulls(report, plan, table, column, values);
    if values.infinite > 0 {
        let mut infinite = rows_that(values.infinite, "contains", "contain");
        if values.estimated {
            infinite = format!("at least {infinite}");
        }
        let message = format!(
            "{infinite} infinity or -infinity in column {name}, which no partition with bounds \
                accepts"
        );
        if plan.default {
            report.warning("infinite_values", &name, message + ": they go to the default partition", "");
        } else {
            let hint = "set a finite value in these rows, or set default = true under [partition]";
            report.error("infinite_values", &name, message, hint);
        }
    }
    if !values.by_index {
        let message = format!(
            "no index starts with column {name}: its smallest and largest values were \
            found by reading the whole table"
        );
        report.note("no_index_on_partition_column", &name, message);
    }
}

fn ranges(plan: &Partitioning, scheme: &Scheme, values: &Values) -> Result<(Limits, Vec<Range>), String> {
    let limits = partitioning::limits(plan, scheme)?;
    let read = |text: &Option<String>| text.as_deref().map(|text| scheme.value(text)).transpose();
    // If the plan sets `from` or `to`, values beyond it do not matter.
    let oldest = if limits.from.is_none() { read(&values.oldest)? } else { limits.from.clone() };
    let newest = if limits.to.is_none() { read(&values.newest)? } else { limits.to.clone() };
    let now = read(&values.now)?;
    let start = match &now {
        Some(now) => now.clone(),
        None => scheme.value("0")?,
    };
    let newest = match newest {
        // Partitions of a time column extend beyond today, even if the newest row is older; those of an integer column
        // extend beyond the largest value.
        Some(newest) => now.map_or(newest.clone(), |now: Bound| now.max(newest)),
        None => start.clone(),
    };
    // The partitions of an empty table begin today.
    let oldest = oldest.unwrap_or(start);
    let ranges = partitioning::ranges(scheme, &limits, &oldest, &newest, plan.ahead)?;
    Ok((limits, ranges))
}

/// Reports rows outside the bounds of all partitions.
fn outside(report: &mut Report, plan: &Partitioning, values: &Values, limits: &Limits) {
    if values.below == 0 && values.above == 0 {
        return;
    }
    let mut outside = Vec::new();
    if let Some(from) = limits.from.as_ref().filter(|_| values.below > 0) {
        outside.push(format!("{} below {from}", rows_that(values.below, "lies", "lie")));
    }
    if let Some(to) = limits.to.as_ref().filter(|_| values.above > 0) {
        outside.push(format!("{} at or above {to}", rows_that(values.above, "lies", "lie")));
    }
    let message = outside.join(", ");
    if plan.default {
        let message = format!("{message}: they go to the default partition");
        report.warning("rows_outside_bounds", &plan.by, message, "");
    } else {
        let message = format!("{message}: no partition accepts them, because default = false");
        let hint = "widen `from` and `to` under [partition], or set default = true";
        report.error("rows_outside_bounds", &plan.by, message, hint);
    }
}

fn named(
    report: &mut Report,
    plan: &Partitioning,
    table: &Table,
    scheme: &Scheme,
    ranges: &[Range],
) -> Option<Vec<Partition>> {
    let names = partitioning::template(plan)
        .map_err(|e| e.message().to_owned())
        .and_then(|template| names(&template, table.name.name.as_str(), scheme, ranges));
    match names {
        Ok(names) => {
            let part = |(range, name): (&Range, Ident)| Partition {
                name: table.name.sibling(name),
                from: range.from.to_string(),
                to: range.to.to_string(),
            };
            Some(ranges.iter().zip(names).map(part).collect())
        }
        Err(message) => {
            report.error("partition_names", "partition.names", message, "change `names` under [partition]");
            None
        }
    }
}
