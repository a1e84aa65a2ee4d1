//! Tries a partition job before it starts: creates what the job will create, next to the table, in a transaction that
//! is rolled back, and evaluates the table's own expressions on some of its rows. Other sessions see none of it, and
//! existing objects are only locked as by a SELECT.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use crate::error::Result;
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::{Ident, QualifiedName};
use crate::model::table::Check;
use crate::model::untrusted_code::Access;
use crate::plan::check::{How, TableTrial};
use crate::sql::matview;
use crate::sql::partition_trial as sql;
use crate::sql::prepare::{self, Part};

use super::references;
use super::row_trial::{self, Attempt, attempt, blocks, failed, queried};
use super::transaction::READ_COMMITTED;
use super::{catalog, untrusted_code};

/// The responses of the server. `trust` lists the roles that the plan trusts.
///
/// # Errors
/// The connection was lost, or a role that is not trusted has put code on the table. What the server rejects is in the trial.
pub async fn trial(client: &Client, b: &Blueprint, trust: &[String]) -> Result<TableTrial> {
    let (mut trial, doubtful) = tried(client, b, trust).await?;
    for (check, depends_on_more) in doubtful {
        row_trial::violations(client, b, check, depends_on_more, trust, &mut trial).await?;
    }
    Ok(trial)
}

/// [`trial`] without the CHECK constraints that must be tested on all rows.
///
/// # Errors
/// As [`trial`].
pub async fn definitions(client: &Client, b: &Blueprint, trust: &[String]) -> Result<TableTrial> {
    tried(client, b, trust).await.map(|(trial, _)| trial)
}

/// The trial, and the CHECK constraints that rows may violate; for each, whether it depends on more than the row.
async fn tried<'a>(
    client: &Client,
    b: &'a Blueprint,
    trust: &[String],
) -> Result<(TableTrial, Vec<(&'a Check, bool)>)> {
    client.batch_execute(READ_COMMITTED).await?;
    let tried = async {
        untrusted_code::check(client, std::slice::from_ref(&b.table.name), trust, Access::Copies).await?;
        rolled_back(client, b, trust).await
    }
    .await;
    client.batch_execute("rollback").await?;
    tried
}

async fn rolled_back<'a>(
    client: &Client,
    b: &'a Blueprint,
    trust: &[String],
) -> Result<(TableTrial, Vec<(&'a Check, bool)>)> {
    let mut trial = TableTrial::default();
    client.batch_execute("set local lock_timeout = '100ms'").await?;
    client.batch_execute(crate::sql::row_trial::SAMPLE_LIMIT).await?;
    let blocks = blocks(client, b.table.oid).await?;
    let sampled = crate::sql::row_trial::sampled(blocks);
    for column in &b.table.columns {
        if let Some(statement) = sql::generate(b, column, &sampled) {
            let what = format!("generated column {}", crate::model::ident::plain(column.name.as_str()));
            computed(client, &statement, what, &mut trial).await?;
        }
    }
    if !created(client, prepare::parts(b), &mut trial).await? {
        return Ok((trial, Vec::new()));
    }
    if let Some(first) = sql::first_partition(b) {
        create(client, &first, true, &mut trial).await?;
    }
    if !create(client, &sql::whole_partition(b), false, &mut trial).await? {
        return Ok((trial, Vec::new()));
    }
    let doubtful = checks(client, b, &sampled, &mut trial).await?;
    computed(client, &sql::copy(b, &sampled), "a row".to_owned(), &mut trial).await?;
    for part in sql::leaf_indexes(b).iter().chain(&sql::finish(b)) {
        create(client, part, false, &mut trial).await?;
    }
    let target = catalog::must_find(client, &b.target()).await?;
    let changed = references::changed(client, b, Direction::Forward, [b.table.oid, target]).await?;
    trial.changed.extend(changed);
    dependents(client, b, trust, &mut trial).await?;
    Ok((trial, doubtful))
}

/// Tries the objects that the swap redirects.
async fn dependents(client: &Client, b: &Blueprint, trust: &[String], trial: &mut TableTrial) -> Result<()> {
    for function in &b.table.dependents.functions {
        let (part, name) = (sql::function(b, function), &function.name);
        let copy = (references::OF_FUNCTION, vec![name.clone()]);
        compared(client, &part, copy.clone(), copy, trial).await?;
    }
    for function in &b.table.dependents.row_functions {
        let copy = (references::OF_FUNCTION, vec![function.name.clone()]);
        compared(client, &sql::row_function(b, function), copy.clone(), copy, trial).await?;
    }
    for policy in &b.table.dependents.policies {
        let part = sql::other_policy(b, policy);
        on_namesake(client, &part, &policy.table, (references::OF_POLICY, &policy.name), trial).await?;
    }
    for default in &b.table.dependents.defaults {
        let part = sql::other_default(b, default);
        on_namesake(client, &part, &default.table, (references::OF_DEFAULT, &default.column), trial).await?;
    }
    for (number, view) in b.table.views.iter().enumerate() {
        let (name, part) = sql::view(b, number, view);
        let of = |view: &QualifiedName| (references::OF_VIEW, vec![view.to_string()]);
        compared(client, &part, of(&view.name), of(&name), trial).await?;
    }
    for view in &b.table.dependents.matviews {
        let of = |name: &QualifiedName| (references::OF_VIEW, vec![name.to_string()]);
        let (original, copy) = (of(&view.view.name), of(&matview::new_name(view)));
        compared_if(client, &sql::materialized_view(b, view, trust), original, copy, trial, fill).await?;
    }
    Ok(())
}

/// Compares an object of another table with one that is created on an empty table of the same name: the query for its
/// references, and its name.
async fn on_namesake(
    client: &Client,
    part: &Part,
    table: &QualifiedName,
    (query, name): (&'static str, &Ident),
    trial: &mut TableTrial,
) -> Result<()> {
    if let Attempt::Refused(refused) = attempt(client, &[sql::empty_namesake(table)], false).await? {
        trial.untried.push((part.what.clone(), refused.message));
        return Ok(());
    }
    let of = |table: &QualifiedName| (query, vec![table.to_string(), name.as_str().to_owned()]);
    let namesake = QualifiedName { schema: Ident::new("pg_temp"), name: table.name.clone() };
    compared(client, part, of(table), of(&namesake), trial).await?;
    client.batch_execute(&sql::drop_namesake(table)).await.map_err(Into::into)
}

/// Creates and fills a materialized view; returns whether the server accepted it. A view that is not filled within the
/// time limit is not an error.
async fn fill(client: &Client, part: &Part, trial: &mut TableTrial) -> Result<bool> {
    match attempt(client, &part.statements, false).await? {
        Attempt::Done => return Ok(true),
        Attempt::Refused(refused) if refused.code == SqlState::QUERY_CANCELED.code() => {}
        Attempt::Refused(refused) => failed(trial, How::Computed, part.what.clone(), refused),
    }
    Ok(false)
}

/// A query for the references of one object, and its parameters.
type Query = (&'static str, Vec<String>);

/// Creates one object, compares what it refers to with what the original refers to, and rolls back.
async fn compared(
    client: &Client,
    part: &Part,
    original: Query,
    copy: Query,
    trial: &mut TableTrial,
) -> Result<()> {
    let create =
        async |client: &Client, part: &Part, trial: &mut TableTrial| create(client, part, false, trial).await;
    compared_if(client, part, original, copy, trial, create).await
}

/// [`compared`], for an object that `create` creates.
async fn compared_if(
    client: &Client,
    part: &Part,
    original: Query,
    copy: Query,
    trial: &mut TableTrial,
    create: impl AsyncFnOnce(&Client, &Part, &mut TableTrial) -> Result<bool>,
) -> Result<()> {
    let of = async |(query, names): &Query| {
        let names: Vec<&(dyn ToSql + Sync)> = names.iter().map(|name| name as _).collect();
        references::of(client, query, &names).await
    };
    let before = of(&original).await?;
    client.batch_execute("savepoint compared").await?;
    if create(client, part, trial).await?
        && let Some(difference) = references::difference(&before, &of(&copy).await?)
    {
        trial.changed.push((part.what.clone(), difference));
    }
    client.batch_execute("rollback to compared; release compared").await?;
    Ok(())
}

/// Creates the table and the objects on it; returns whether there is a table to continue with.
async fn created(client: &Client, parts: Vec<Part>, trial: &mut TableTrial) -> Result<bool> {
    for (number, part) in parts.iter().enumerate() {
        if !create(client, part, false, trial).await? && number == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Creates one object; returns whether the server accepted it. The creation is rolled back if it failed, or if `back`
/// is set.
async fn create(client: &Client, part: &Part, back: bool, trial: &mut TableTrial) -> Result<bool> {
    // An object that depends on a rejected one fails for that reason.
    if trial.names(&part.what) {
        return Ok(false);
    }
    match attempt(client, &part.statements, back).await? {
        Attempt::Done => Ok(true),
        Attempt::Refused(refused) => {
            // If code of the application raises the error, the object could be created without rows.
            let how = if refused.context.is_some() { How::Computed } else { How::Created };
            failed(trial, how, part.what.clone(), refused);
            Ok(false)
        }
    }
}

/// Evaluates something on rows.
async fn computed(client: &Client, statement: &str, what: String, trial: &mut TableTrial) -> Result<()> {
    if let Attempt::Refused(refused) = attempt(client, &[statement.to_owned()], false).await? {
        failed(trial, How::Computed, what, refused);
    }
    Ok(())
}

/// Tests each CHECK on the sample. Those that cannot be evaluated, or that rows violate, are dropped from the target.
async fn checks<'a>(
    client: &Client,
    b: &'a Blueprint,
    sampled: &str,
    trial: &mut TableTrial,
) -> Result<Vec<(&'a Check, bool)>> {
    let by_users = row_trial::made_by_users(client, b.table.oid).await?;
    let mut doubtful = Vec::new();
    for check in &b.table.checks {
        let index = [sql::depends_on_row_alone(b, check)];
        let depends_on_more = matches!(attempt(client, &index, true).await?, Attempt::Refused(r) if r.code == SqlState::INVALID_OBJECT_DEFINITION.code());
        let statement = crate::sql::row_trial::violations(&sql::source(b), &b.key, check, Some(sampled));
        let violated = match queried(client, &statement).await? {
            Ok(row) => row.get::<_, i64>(0) > 0,
            Err(refused) => {
                let what = format!("constraint {}", crate::model::ident::plain(check.name.as_str()));
                if !trial.names(&what) {
                    failed(trial, How::Computed, what, refused);
                }
                client.batch_execute(&sql::without(b, &check.name)).await?;
                continue;
            }
        };
        if violated {
            client.batch_execute(&sql::without(b, &check.name)).await?;
        }
        if depends_on_more || check.validated && (violated || by_users.contains(&check.name)) {
            doubtful.push((check, depends_on_more));
        }
    }
    Ok(doubtful)
}
