//! Reads what `pgstrata plan` needs to know about a live table; [`crate::plan::survey`] writes the plan. For a partition
//! job, the values of the columns come from indexes, statistics and a sample: the whole table is never read.

use std::collections::HashMap;

use tokio_postgres::Client;

use crate::error::Result;
use crate::model::ident::QualifiedName;
use crate::model::partition::Every;
use crate::model::table::{Column, Table};
use crate::plan::advise::ColumnProfile;
use crate::plan::check::{Facts, Relation, Values};
use crate::plan::survey as plan;
use crate::plan::survey::Survey;
use crate::sql::row_trial::sampled;
use crate::sql::survey as sql;

use super::{preflight, row_trial};

/// The statistics of a column.
struct ColumnStatistics {
    distinct: f64,
    correlation: Option<f64>,
    null_share: f64,
    histogram: Vec<String>,
    common: Vec<String>,
}

/// A commented plan that partitions the table by the column, or by the best one, in intervals of `every`, or of a length
/// that suits its size.
///
/// # Errors
/// The server returned an error; the table or the column does not exist; or the column cannot be a partition column.
pub async fn survey(
    client: &Client,
    table: &QualifiedName,
    by: Option<&str>,
    every: Option<Every>,
) -> Result<Survey> {
    let facts = preflight::facts(client, table, "", None).await?;
    let by = by.map(|written| plan::column_named(written, &facts));
    let by = by.as_deref();
    let profiles = profiles(client, &facts, by).await?;
    let mut survey = plan::survey(&facts, by, every, &profiles)?;
    if let Some(plan) = survey.plan()?
        && let Some(b) = plan::blueprint(&facts, &profiles, &plan)
    {
        survey.extend(preflight::definitions(client, &plan, &b).await?);
    }
    Ok(survey)
}

/// A commented plan of a backfill that adds the columns `add`, each with its type, and sets the columns `set`, each to its
/// expression.
///
/// # Errors
/// The server returned an error; the table does not exist; or the columns and expressions are not those of a plan.
pub async fn backfill(
    client: &Client,
    table: &QualifiedName,
    set: &[(String, String)],
    add: &[(String, String)],
) -> Result<Survey> {
    let facts = preflight::facts(client, table, "", None).await?;
    let mut survey = plan::backfill(&facts, set, add)?;
    if let Some(plan) = survey.plan()? {
        let found = preflight::backfill(client, &plan, plan.backfill()?).await?;
        survey.extend(found.findings.iter().cloned());
    }
    Ok(survey)
}

/// A commented plan that changes the type of a column.
///
/// # Errors
/// The server returned an error, or the table does not exist.
pub async fn retype(client: &Client, table: &QualifiedName, column: &str, to: &str) -> Result<Survey> {
    let facts = preflight::facts(client, table, "", None).await?;
    let mut survey = plan::retype(&facts, column, to)?;
    if let Some(plan) = survey.plan()? {
        let found = preflight::retype(client, &plan, plan.retype()?).await?;
        survey.extend(found.findings.iter().cloned());
    }
    Ok(survey)
}

async fn profiles(client: &Client, facts: &Facts, by: Option<&str>) -> Result<Vec<ColumnProfile>> {
    let columns = plan::candidates(facts, by)?;
    let Relation::There(found) = &facts.relation else { return Ok(Vec::new()) };
    let table = &found.table;
    let statistics = statistics(client, &table.name).await?;
    let readable = preflight::is_readable(table, &found.rights);
    let sampled = sampled(row_trial::blocks(client, table.oid).await?);
    let mut profiles = Vec::new();
    for column in columns {
        let of = statistics.get(column.name.as_str());
        let values = if readable {
            Some(values(client, table, column, of, found.size.rows, &sampled).await?)
        } else {
            None
        };
        profiles.push(ColumnProfile {
            name: column.name.as_str().to_owned(),
            values,
            distinct: of.map(|of| of.distinct),
            correlation: of.and_then(|of| of.correlation),
            indexed: preflight::leads(table, column),
            histogram: of.map(|of| of.histogram.clone()).unwrap_or_default(),
        });
    }
    Ok(profiles)
}

async fn statistics(client: &Client, table: &QualifiedName) -> Result<HashMap<String, ColumnStatistics>> {
    let rows = client.query(sql::STATISTICS, &[&table.schema.as_str(), &table.name.as_str()]).await?;
    let of = |row: &tokio_postgres::Row| ColumnStatistics {
        distinct: row.get(1),
        correlation: row.get(2),
        null_share: row.get(3),
        histogram: row.get(4),
        common: row.get(5),
    };
    Ok(rows.iter().map(|row| (row.get(0), of(row))).collect())
}

/// The values of a column: from its index; without one, from its statistics and a sample.
async fn values(
    client: &Client,
    table: &Table,
    column: &Column,
    statistics: Option<&ColumnStatistics>,
    rows: i64,
    sampled: &str,
) -> Result<Values> {
    let (time, by_index) = (preflight::is_time(column), preflight::leads(table, column));
    let expected_nulls = statistics.map_or(0.0, |of| of.null_share * rows.max(0) as f64) as i64;
    let row = if by_index {
        client.query_one(&sql::from_index(&table.name, column, time), &[]).await?
    } else {
        let known: Vec<&String> =
            statistics.iter().flat_map(|of| of.histogram.iter().chain(&of.common)).collect();
        client.query_one(&sql::from_sample(&table.name, column, time, sampled), &[&known]).await?
    };
    let mut values = Values {
        by_index,
        oldest: row.get(0),
        newest: row.get(1),
        nulls: row.get(2),
        infinite: row.get(3),
        now: row.get(4),
        estimated: !by_index,
        ..Values::default()
    };
    if !by_index || values.nulls > sql::MOST_COUNTED {
        values.estimated = true;
        values.nulls = values.nulls.max(expected_nulls);
    }
    Ok(values)
}
