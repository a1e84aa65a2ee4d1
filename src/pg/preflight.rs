//! Preflight: reads the facts; [`crate::plan::check`] evaluates them. It changes nothing.
//!
//! The session must come from [`super::connect::Target`]: values are read as text, in the format that its settings
//! define.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::{Client, Row};

use crate::error::{Error, Result};
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::design::Design;
use crate::model::finding::{Finding, Findings};
use crate::model::granted_again::{self, GrantedAgain};
use crate::model::ident::{Ident, QualifiedName};
use crate::model::lock_estimate::LockTable;
use crate::model::partition::{Bound, ColumnKind};
use crate::model::table::{Column, ForeignKey, Table};
use crate::model::untrusted_code::Access;
use crate::plan::check::{
    self, Facts, Found, Grantor, OpenJob, Relation, Rights, Server, SessionLimit, Size, Surroundings, Text,
    UniqueFacts, UntrustedChild, Values, Writes, Writing,
};
use crate::plan::partitioning;
use crate::plan::{Backfill, Partitioning, Plan, Retype, Task};
use crate::sql::{
    catalog as catalog_sql, from_source, key_table, preflight as sql, surroundings as around,
    trial as trial_sql, writing as writing_sql,
};

use super::refused::{PLANS_SQL, has_errors, passed};
use super::{
    catalog, null_trial, orphans, partition_trial, rehearsal, row_trial, store, trial, untrusted_code,
};

/// The time limit for testing all foreign keys together.
const LOOK_FOR_ORPHANS: Duration = Duration::from_secs(5);

/// The findings, and what the job would build.
#[derive(Debug)]
pub struct Preflight {
    /// Every finding, the most severe first.
    pub findings: Findings,
    /// What the job would do, if no finding is an error, and everything that it depends on could be tested.
    pub design: Option<Design>,
    /// The estimated number of rows of the table, from the statistics; 0 if unknown.
    pub rows_estimated: i64,
    /// For a backfill: the estimated number of rows that match the plan's `where`.
    pub rows_to_fill: Option<f64>,
}

/// Checks the plan of a backfill against the live table.
///
/// # Errors
/// The server returned an error. Problems with the table or the plan are findings, not errors.
pub async fn backfill(client: &Client, plan: &Plan, backfill: &Backfill) -> Result<Preflight> {
    let facts = facts(client, plan.table(), "", Some(plan)).await?;
    let writing = match &facts.relation {
        Relation::There(found) => writing(client, found.table.oid).await?,
        Relation::Unread | Relation::Missing { .. } => Writing::default(),
    };
    let (mut rows_to_fill, mut complete) = (None, true);
    let (mut findings, mut filling) = check::backfill(plan, backfill, &facts, &writing);
    if let Some(filling) = &mut filling {
        let trial = trial::trial(client, filling, &writing, plan.trust()).await;
        if let Some(trial) = passed(trial, PLANS_SQL, &filling.table, &mut findings)? {
            findings.extend(check::tried(filling, &trial, &facts.server.user));
            if !filling.only_finishes() {
                findings.extend(check::space(plan, filling, &writing, trial.to_fill));
            }
            rows_to_fill = trial.to_fill;
        } else {
            complete = false;
        }
        let (table, from) = (&filling.table, trial_sql::whole(filling));
        findings.extend(readable_keys(client, table, &from, &filling.key).await?);
        if !has_errors(&findings) && complete && !filling.only_finishes() {
            let trial = row_trial::of_updates(client, table, &from, &filling.key, &filling.sql).await;
            if let Some(mut trial) = passed(trial, "a row", table, &mut findings)? {
                check::unmended(&mut trial, filling);
                findings.extend(check::table_tried(table, &trial, Writes::Updates));
            }
        }
    }
    let findings = Findings::new(findings);
    let design =
        filling.filter(|_| complete && findings.errors() == 0).map(|f| Design::Backfill(Box::new(f)));
    Ok(Preflight { findings, design, rows_estimated: rows_estimated(&facts), rows_to_fill })
}

/// Checks the plan of a retype against the live table.
///
/// # Errors
/// The server returned an error. Problems with the table or the plan are findings, not errors.
pub async fn retype(client: &Client, plan: &Plan, retype: &Retype) -> Result<Preflight> {
    let mut facts = facts(client, plan.table(), "", Some(plan)).await?;
    let mut column = None;
    if let Relation::There(found) = &mut facts.relation {
        let name = Ident::new(&retype.column);
        column = catalog::existing_column(client, found.table.oid, &name).await?;
        if let Some(column) = &column {
            let again = granted_again::of_retype(&found.table, &name, &column.rebound);
            found.rights.grantors = grantors(client, again).await?;
        }
    }
    let mut complete = true;
    let (mut findings, mut retyping) = check::retype(plan, retype, &facts, column.as_ref());
    if let (Some(retyping), Some(column)) = (&mut retyping, &column) {
        let rehearsal = rehearsal::rehearse(client, retyping, column, plan.trust()).await;
        if let Some(rehearsal) = passed(rehearsal, PLANS_SQL, &retyping.table, &mut findings)? {
            findings.extend(check::rehearsed(retyping, &rehearsal, &facts.server));
        } else {
            complete = false;
        }
        let (table, from) = (&retyping.table, format!("only {}", retyping.table.name));
        findings.extend(readable_keys(client, table, &from, &retyping.key).await?);
        // A job that has begun has constraints of its own, which not every row satisfies yet.
        let begun = |direction| table.column(&retyping.shadow(direction)).is_some();
        if complete && !has_errors(&findings) && !begun(Direction::Forward) && !begun(Direction::Reverse) {
            let trial = row_trial::of_updates(client, table, &from, &retyping.key, &retyping.sql).await;
            if let Some(mut trial) = passed(trial, "a row", table, &mut findings)? {
                let analyzed = row_trial::analyzed(client, table, &from, plan.trust(), &mut trial).await;
                passed(analyzed, "ANALYZE", table, &mut findings)?;
                findings.extend(check::table_tried(table, &trial, Writes::Updates));
            }
            findings.extend(orphaned(client, &retyping.keys, plan.trust()).await?);
        }
    }
    let findings = Findings::new(findings);
    let design = retyping.filter(|_| complete && findings.errors() == 0).map(|r| Design::Retype(Box::new(r)));
    Ok(Preflight { findings, design, rows_estimated: rows_estimated(&facts), rows_to_fill: None })
}

/// Checks the plan of a partition job against the live table.
///
/// # Errors
/// The server returned an error. Problems with the table or the plan are findings, not errors.
pub async fn partition(client: &Client, plan: &Plan, partitioning: &Partitioning) -> Result<Preflight> {
    let mut facts = facts(client, plan.table(), &partitioning.by, Some(plan)).await?;
    if let Relation::There(found) = &mut facts.relation {
        count_outside(client, partitioning, found).await?;
        found.rights.grantors = grantors(client, granted_again::of_partition_job(&found.table)).await?;
    }
    let mut complete = true;
    let (mut findings, mut blueprint) = check::check(plan, partitioning, &facts);
    // What a job that has begun created exists, and was tried before.
    if let (Some(b), Some(backfill)) = (&mut blueprint, partitioning.null_backfill())
        && b.not_null.contains(&b.by)
        && catalog::find(client, &b.target()).await?.is_none()
    {
        let writing = writing(client, b.table.oid).await?;
        b.null_as = null_trial::trial(client, plan, &backfill, (&facts, &writing), &mut findings).await?;
        complete = b.null_as.is_some();
    }
    if let Some(b) = &mut blueprint
        && complete
        && catalog::find(client, &b.target()).await?.is_none()
    {
        let from = from_source(&b.sides(Direction::Forward));
        findings.extend(readable_keys(client, &b.table, &from, &b.key).await?);
        if !has_errors(&findings) {
            let trial = partition_trial::trial(client, b, plan.trust()).await;
            if let Some(trial) = passed(trial, "the partitioned table", &b.table, &mut findings)? {
                findings.extend(check::table_tried(&b.table, &trial, Writes::Copies));
                b.violated_checks = trial.violated_checks();
            } else {
                complete = false;
            }
            let keys = b.own_keys().into_iter().chain(b.child_keys());
            findings.extend(orphaned(client, keys, plan.trust()).await?);
        }
    }
    let findings = Findings::new(findings);
    let design =
        blueprint.filter(|_| complete && findings.errors() == 0).map(|b| Design::Partition(Box::new(b)));
    let rows_estimated = rows_estimated(&facts);
    Ok(Preflight { findings, design, rows_estimated, rows_to_fill: None })
}

/// Whether a partition job first fills rows with NULL in the partition column.
fn fills_nulls(task: &Task) -> bool {
    matches!(task, Task::Partition(partitioning) if partitioning.null_as.is_some())
}

/// The findings of a trial of the definitions that the job would create, without reading all rows.
///
/// # Errors
/// The server returned an error.
pub(super) async fn definitions(client: &Client, plan: &Plan, b: &Blueprint) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    if catalog::find(client, &b.target()).await?.is_some() {
        return Ok(findings);
    }
    let trial = partition_trial::definitions(client, b, plan.trust()).await;
    if let Some(trial) = passed(trial, "the partitioned table", &b.table, &mut findings)? {
        findings.extend(check::table_tried(&b.table, &trial, Writes::Copies));
    }
    Ok(findings)
}

/// Whether the job can read the keys of the rows of `from`, in a database whose encoding accepts any bytes.
async fn readable_keys(client: &Client, table: &Table, from: &str, key: &[Ident]) -> Result<Vec<Finding>> {
    let key: Vec<&Column> = key.iter().filter_map(|name| table.column(name)).collect();
    let unreadable = row_trial::unreadable_keys(client, from, &key).await?;
    Ok(unreadable.map_or(Vec::new(), |rows| check::unreadable_keys(table, rows)))
}

/// Rows that violate foreign keys that the swap creates again, as far as they are found in a short time; the job
/// looks for them again.
async fn orphaned<'a>(
    client: &Client,
    keys: impl IntoIterator<Item = &'a ForeignKey>,
    trust: &[String],
) -> Result<Vec<Finding>> {
    let valid = keys.into_iter().filter(|key| key.validated);
    Ok(check::orphaned(&orphans::find_violations(client, valid, LOOK_FOR_ORPHANS, trust).await?.found))
}

fn rows_estimated(facts: &Facts) -> i64 {
    match &facts.relation {
        Relation::There(found) => found.size.rows,
        Relation::Unread | Relation::Missing { .. } => 0,
    }
}

/// The facts about a table and the column called `by`, except for rows outside the bounds in the plan.
pub(super) async fn facts(
    client: &Client,
    table: &QualifiedName,
    by: &str,
    plan: Option<&Plan>,
) -> Result<Facts> {
    let server = server(client).await?;
    if server.version < check::OLDEST_SERVER {
        return Ok(Facts { server, relation: Relation::Unread, jobs: Vec::new(), fill_triggers: Vec::new() });
    }
    store::no_acting_superuser(client).await?;
    let Some(oid) = catalog::find(client, table).await? else {
        let relation = Relation::Missing { name: table.clone(), tables: tables(client).await? };
        return Ok(Facts { server, relation, jobs: Vec::new(), fill_triggers: Vec::new() });
    };
    let found = found(client, by, oid, plan).await?;
    let readable = found.rights.own_schema.as_ref().is_some_and(|own| own.usage && own.tables);
    let jobs = if readable { open_jobs(client).await? } else { Vec::new() };
    let triggers = client.query(sql::FILL_TRIGGERS, &[]).await?;
    let trigger = |row: &Row| {
        let table = QualifiedName::new(row.get::<_, String>(1), row.get::<_, String>(2));
        (Ident::new(row.get::<_, String>(0)), table)
    };
    let fill_triggers = triggers.iter().map(trigger).collect();
    Ok(Facts { server, relation: Relation::There(Box::new(found)), jobs, fill_triggers })
}

async fn server(client: &Client) -> Result<Server> {
    let server = client.query_one(catalog_sql::SERVER, &[]).await?;
    let event_triggers = client.query(sql::EVENT_TRIGGERS, &[]).await?;
    let limits = client.query(sql::SESSION_LIMITS, &[]).await?;
    let limit =
        |row: &Row| SessionLimit { of: row.get(0), name: row.get(1), most: row.get(2), used: row.get(3) };
    Ok(Server {
        version: server.get(0),
        in_recovery: server.get(1),
        database: server.get(2),
        user: server.get(3),
        deadlock_timeout_ms: server.get(4),
        lock_table: LockTable {
            per_transaction: server.get::<_, i64>(5).unsigned_abs(),
            sessions: server.get::<_, i64>(6).unsigned_abs(),
        },
        event_triggers: event_triggers.iter().map(|row| row.get(0)).collect(),
        session_limits: limits.iter().map(limit).collect(),
    })
}

/// All tables, for the hint of an error.
async fn tables(client: &Client) -> Result<Vec<QualifiedName>> {
    let rows = client.query(catalog_sql::TABLE_NAMES, &[]).await?;
    Ok(rows.iter().map(|r| QualifiedName::new(r.get::<_, &str>(0), r.get::<_, &str>(1))).collect())
}

async fn open_jobs(client: &Client) -> Result<Vec<OpenJob>> {
    let jobs = store::jobs(client, None).await?;
    Ok(jobs
        .into_iter()
        .filter(|job| !job.state.is_final())
        .map(|job| OpenJob {
            is_swapped: job.design.planned().is_swapped(),
            partitions: job.design.planned().updates().is_none(),
            used_by: job.design.planned().source().dependents.of_other_tables(),
            name: job.name,
            source: job.source,
            state: job.state,
        })
        .collect())
}

async fn found(client: &Client, by: &str, oid: u32, plan: Option<&Plan>) -> Result<Found> {
    let mut table = catalog::table(client, oid).await?;
    let rights: serde_json::Value = client.query_one(sql::RIGHTS, &[&oid]).await?.get(0);
    let mut rights: Rights = understood(rights)?;
    // Before anything reads the table: the planner may call functions of an index or a CHECK.
    let (trust, task) = plan.map_or((&[][..], None), |plan| (plan.trust(), Some(plan.task())));
    table.operator_schemas = catalog::operator_schemas(client, oid, trust).await?;
    let access = match task {
        Some(task) if task.purpose().updates_rows() || fills_nulls(task) => {
            Access::Updates { cascades: true }
        }
        _ => Access::Copies,
    };
    if untrusted_code::untrusted_owner(client, std::slice::from_ref(&table.name), trust, access)
        .await?
        .is_some()
    {
        rights.untrusted_code = untrusted_code::code(client, &[oid], trust, access).await?;
    }
    let recreates = task.is_none_or(|task| task.purpose().is_swapped());
    let (code, overloads) = untrusted_code::recreated(client, &[oid], trust, recreates).await?;
    rights.untrusted_code.extend(code);
    rights.overloads = overloads;
    let readable = is_readable(&table, &rights);
    let column = table.column(&Ident::new(by)).filter(|c| ColumnKind::from_sql(&c.base_type).is_some());
    let values = match column {
        Some(column) if readable => Some(values(client, &table, column).await?),
        _ => None,
    };
    let names = client.query(sql::NAMES, &[&table.name.schema.as_str()]).await?;
    let names: BTreeMap<Ident, String> =
        names.iter().map(|r| (Ident::new(r.get::<_, &str>(0)), r.get(1))).collect();
    let prepared = client.query(sql::PREPARED, &[&oid]).await?.iter().map(|row| row.get(0)).collect();
    let keys = key_facts(client, oid, trust).await?;
    let key_nulls = null_trial::key_nulls(client, &table, readable && plan.is_some()).await?;
    let around = surroundings(client, &table).await?;
    let size = size(client, oid).await?;
    Ok(Found { table, rights, values, size, names, prepared, key_nulls, keys, around })
}

/// The grantors on whose behalf the session cannot grant privileges again, each once for each reason.
async fn grantors(client: &Client, again: Vec<GrantedAgain>) -> Result<Vec<Grantor>> {
    let roles: Vec<&str> = again.iter().map(|one| one.grantor.as_str()).collect();
    let schemas: Vec<&str> = again.iter().map(|one| one.schema.as_str()).collect();
    let rows = client.query(sql::GRANTORS, &[&roles, &schemas]).await?;
    let mut all: Vec<Grantor> = Vec::new();
    for row in &rows {
        let Some(one) = again.get(row.get::<_, i64>(0) as usize - 1) else { continue };
        let closed = row.get::<_, bool>(1).then(|| one.schema.clone());
        if !all.iter().any(|other| other.name == one.grantor && other.closed == closed) {
            all.push(Grantor { name: one.grantor.clone(), on: one.on.clone(), closed });
        }
    }
    Ok(all)
}

async fn key_facts(client: &Client, oid: u32, trust: &[String]) -> Result<UniqueFacts> {
    let indexes = understood(client.query_one(key_table::UNIQUE_INDEXES, &[&oid]).await?.get(0))?;
    let ambiguous = client.query(key_table::AMBIGUOUS, &[&oid]).await?;
    Ok(UniqueFacts {
        indexes,
        ambiguous: ambiguous.iter().map(|row| Ident::new(row.get::<_, &str>(0))).collect(),
        untrusted: untrusted_children(client, &[oid], oid, trust).await?,
        owner_has_usage: client.query_one(key_table::OWNER_HAS_USAGE, &[&oid]).await?.get(0),
    })
}

/// The tables that reference one of the `relations` and whose owners could run code with the privileges of the owner of a
/// key table of relation `table`.
pub async fn untrusted_children(
    client: &Client,
    relations: &[u32],
    table: u32,
    trust: &[String],
) -> Result<Vec<UntrustedChild>> {
    let rows = client.query(key_table::UNTRUSTED_CHILDREN, &[&relations, &table, &trust]).await?;
    let child = |row: &Row| UntrustedChild {
        index: Ident::new(row.get::<_, &str>(0)),
        table: QualifiedName::new(row.get::<_, &str>(1), row.get::<_, &str>(2)),
        owner: row.get(3),
        role: row.get(4),
    };
    Ok(rows.iter().map(child).collect())
}

/// Whether the session can read rows of the table without running code of roles that are not trusted.
pub(super) fn is_readable(table: &Table, rights: &Rights) -> bool {
    table.relkind == "r"
        && rights.select
        && !rights.rows_hidden
        && rights.schemas_without_usage.is_empty()
        && rights.untrusted_code.is_empty()
        && rights.overloads.is_empty()
}

/// The other users of the table. Statements are included only if pg_stat_statements is loaded and readable.
async fn surroundings(client: &Client, table: &Table) -> Result<Surroundings> {
    let json: serde_json::Value = client.query_one(&around::surroundings(), &[&table.oid]).await?.get(0);
    let mut found: Surroundings = understood(json)?;
    if let Some(row) = client.query_opt(around::STATEMENTS_SCHEMA, &[]).await? {
        let view = QualifiedName::new(row.get::<_, &str>(0), "pg_stat_statements");
        let name = table.name.name.as_str().to_lowercase();
        match client.query(&around::statements(&view), &[&name]).await {
            Ok(rows) => {
                let text = |row: &Row| Text { name: row.get(0), text: row.get(1) };
                found.statements = rows.iter().map(text).collect();
            }
            Err(e) if e.as_db_error().is_some() => tracing::debug!("pg_stat_statements could not be read"),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(found)
}

/// What updates of rows of the relation with that oid trigger.
pub(super) async fn writing(client: &Client, oid: u32) -> Result<Writing> {
    understood(client.query_one(writing_sql::WRITING, &[&oid]).await?.get(0))
}

fn understood<T: serde::de::DeserializeOwned>(json: serde_json::Value) -> Result<T> {
    serde_json::from_value(json).map_err(|e| {
        Error::failed(
            "the result of a catalog query could not be \
            parsed",
        )
        .caused_by(e)
    })
}

/// How large a table is, and how often it changes.
async fn size(client: &Client, oid: u32) -> Result<Size> {
    let (rows, bytes, _) = catalog::size(client, oid).await?;
    let row = client.query_one(sql::ACTIVITY, &[&oid]).await?;
    Ok(Size {
        rows,
        analyzed: row.get(0),
        bytes,
        changes: row.get(1),
        observed_s: row.get(2),
        since_known: row.get(3),
        attributes: row.get::<_, i16>(4).into(),
    })
}

/// Whether a usable index begins with the column.
pub(super) fn leads(table: &Table, column: &Column) -> bool {
    table.indexes.iter().any(|index| {
        let first = index.columns.as_ref().and_then(|columns| columns.first());
        index.valid && !index.partial && index.tail.starts_with("btree ") && first == Some(&column.name)
    })
}

/// The range of the column's values, and values that it must not have.
async fn values(client: &Client, table: &Table, column: &Column) -> Result<Values> {
    let by_index = leads(table, column);
    let row = client.query_one(&sql::values(&table.name, column, by_index, is_time(column)), &[]).await?;
    Ok(Values {
        by_index,
        oldest: row.get(0),
        newest: row.get(1),
        nulls: row.get(2),
        infinite: row.get(3),
        now: row.get(4),
        ..Values::default()
    })
}

/// Counts the rows outside the plan's bounds, if the smallest or the largest value shows that there are any.
async fn count_outside(client: &Client, plan: &Partitioning, found: &mut Found) -> Result<()> {
    let (Some(values), Some(column)) = (&mut found.values, found.table.column(&Ident::new(&plan.by))) else {
        return Ok(());
    };
    // The check reports a plan that does not fit the column.
    let Ok(scheme) = partitioning::scheme(plan, &column.base_type) else { return Ok(()) };
    let Ok(limits) = partitioning::limits(plan, &scheme) else { return Ok(()) };
    // A value for which no bound can be computed is outside any.
    let value = |text: &Option<String>| text.as_deref().map(|text| scheme.value(text));
    let below = limits.from.filter(|from| {
        value(&values.oldest).is_some_and(|oldest| oldest.map_or(true, |oldest| oldest < *from))
    });
    let above = limits
        .to
        .filter(|to| value(&values.newest).is_some_and(|newest| newest.map_or(true, |newest| newest >= *to)));
    if below.is_none() && above.is_none() {
        return Ok(());
    }
    let text = |bound: Option<Bound>| bound.map(|bound| bound.to_string());
    let statement = sql::outside(&found.table.name, column, is_time(column));
    let row = client.query_one(&statement, &[&text(below), &text(above)]).await?;
    (values.below, values.above) = (row.get(0), row.get(1));
    Ok(())
}

pub(super) fn is_time(column: &Column) -> bool {
    ColumnKind::from_sql(&column.base_type).is_some_and(partitioning::is_time)
}
