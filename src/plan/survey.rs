//! From a live table's facts to the first plan of it, with what a check would find as warnings.

use super::check::{self, Facts, Found, Relation};
use super::draft::{self, draft};
use super::suggest::{histogram_by_month, moment, suggest, suggest_integers};
use super::{Plan, partitioning};
use crate::error::{Error, Kind};
use crate::model::finding::{Finding, Level};
use crate::model::partition::{ColumnKind, Every, Scheme, Template};
use crate::model::table::{Column, Index};

/// The commented plan for partitioning by the column called `by`. `histogram` holds the bounds of its statistics as text.
///
/// # Errors
/// There is no such table or column, the column cannot be partitioned by, `every` does not fit it, or no key can be had.
pub fn survey(facts: &Facts, by: &str, every: Option<Every>, histogram: &[String]) -> Result<String, Error> {
    let found = match &facts.relation {
        Relation::There(found) => found,
        Relation::Missing { name, tables } => return Err(refusal(check::no_such_table(name, tables))),
        Relation::Unread => {
            return Err(Error::new(Kind::Preflight, "the server is older than PostgreSQL 14"));
        }
    };
    let (column, kind, key) = check::candidates(&found.table, by).map_err(refusal)?;
    if let Some(every) = every {
        Scheme::new(kind, every, chrono_tz::Tz::UTC).map_err(Error::usage)?;
    }
    let mut drafted = describe(found, column, kind, key, every, histogram);
    let plan = Plan::parse(&draft(&drafted), "the draft")?;
    let (findings, _) = check::check(&plan, facts);
    let worth_it = findings.into_iter().filter(|finding| finding.level != Level::Note);
    drafted.warnings = worth_it
        .map(|finding| match finding.hint.as_str() {
            "" => finding.message,
            hint => format!("{}; {hint}", finding.message),
        })
        .collect();
    Ok(draft(&drafted))
}

fn refusal(finding: Finding) -> Error {
    let error = Error::usage(finding.message);
    if finding.hint.is_empty() { error } else { error.hint(finding.hint) }
}

fn describe(
    found: &Found,
    column: &Column,
    kind: ColumnKind,
    key: &Index,
    every: Option<Every>,
    histogram: &[String],
) -> draft::Facts {
    let (rows, bytes) = (found.size.rows.unsigned_abs(), found.size.bytes.unsigned_abs());
    let values = found.values.clone().unwrap_or_default();
    let ends = values.oldest.as_deref().zip(values.newest.as_deref());
    let (suggested, because) = if partitioning::is_time(kind) {
        let span_s =
            ends.and_then(|(oldest, newest)| Some((moment(newest)? - moment(oldest)?).num_seconds()));
        suggest(rows, bytes, span_s.unwrap_or(0) as f64 / 86_400.0)
    } else {
        let span = ends.and_then(|(oldest, newest)| {
            Some(newest.parse::<i64>().ok()?.abs_diff(oldest.parse::<i64>().ok()?))
        });
        suggest_integers(rows, bytes, span.unwrap_or(0))
    };
    let per_month =
        if partitioning::is_time(kind) { histogram_by_month(histogram, rows) } else { Vec::new() };
    let key_kind = if key.constraint == "p" { "primary key" } else { "unique index" };
    let columns = key.columns.iter().flatten().map(|name| name.as_str().to_owned());
    draft::Facts {
        table: found.table.name.clone(),
        by: column.name.as_str().to_owned(),
        by_type: column.base_type.clone(),
        key: columns.collect(),
        key_kind: key_kind.to_owned(),
        rows_estimated: rows,
        bytes,
        oldest: values.oldest,
        newest: values.newest,
        per_month,
        suggested,
        because,
        every,
        zone: chrono_tz::Tz::UTC,
        names: Template::default_for(every.unwrap_or(suggested)).to_owned(),
        warnings: Vec::new(),
    }
}
