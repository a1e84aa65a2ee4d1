//! Tries a retype's SQL, and the definitions that the new type of the column must support, on an empty temporary
//! table in a transaction that is rolled back. The server prints each definition for the other column; nothing is
//! derived from text.

use std::borrow::Cow;

use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::model::blueprint::Direction;
use crate::model::ident::QualifiedName;
use crate::model::plan_sql::PlanSql;
use crate::model::retyping::{Retyping, default_cast};
use crate::model::table::Check;
use crate::model::untrusted_code::Access;
use crate::plan::check::{ColumnFacts, How, Rehearsal};
use crate::sql::fill as fill_sql;
use crate::sql::retype::facts::{self as sql, Side};
use crate::sql::retype::rebound as rebound_sql;
use crate::sql::row_trial as row_sql;

use super::catalog;
use super::refused::{is_passing, scans_probe};
use super::resolve;
use super::row_trial::{self, Attempt};
use super::transaction::{READ_COMMITTED, all};
use super::untrusted_code;

/// The responses of the server; the definitions, and the plan's SQL with its names resolved, are stored in `r`.
/// `trust` lists the roles that the plan trusts.
///
/// # Errors
/// The connection was lost. What the server rejects is in the rehearsal.
pub async fn rehearse(
    client: &Client,
    r: &mut Retyping,
    column: &ColumnFacts,
    trust: &[String],
) -> Result<Rehearsal> {
    let mut rehearsal = Rehearsal::default();
    let mut asked = r.sql.clone();
    resolve::settings(client, &mut asked, &r.filling().key_columns()).await?;
    let mut resolved = PlanSql { resolved: true, lookup: Vec::new(), names_others: false, ..asked.clone() };
    for side in [Side::Old, Side::New] {
        r.sql = asked.clone();
        client.batch_execute(READ_COMMITTED).await?;
        let tried = async {
            untrusted_code::check(
                client,
                std::slice::from_ref(&r.table.name),
                trust,
                Access::Updates { cascades: false },
            )
            .await?;
            one_side(client, r, side, trust, &mut rehearsal).await
        }
        .await;
        client.batch_execute("rollback").await?;
        tried?;
        if rehearsal.no_scratch || rehearsal.type_refused.is_some() || rehearsal.named.is_refused(&r.sql) {
            return Ok(rehearsal);
        }
        resolved.names_others |= r.sql.names_others;
        if r.sql.resolved && resolved.lookup.is_empty() {
            resolved.lookup.clone_from(&r.sql.lookup);
        }
    }
    for key in &column.keys {
        let (columns, referenced) = key.types(&r.new_type);
        client.batch_execute(READ_COMMITTED).await?;
        let tried = all(client, &sql::key(&referenced, &columns)).await;
        client.batch_execute("rollback").await?;
        if let Err(e) = tried {
            refusal(e)?;
            rehearsal.keys_refused.push((key.clone(), columns, referenced));
        }
    }
    r.sql = resolved;
    resolve::search_path(client, &mut r.sql, trust).await?;
    client.batch_execute(READ_COMMITTED).await?;
    let tried = rebound(client, r, trust, &mut rehearsal).await;
    client.batch_execute("rollback").await?;
    tried?;
    Ok(rehearsal)
}

/// Tries the objects that refer to the column on a temporary table with the table's name, in which the column has the new
/// type.
async fn rebound(client: &Client, r: &Retyping, trust: &[String], rehearsal: &mut Rehearsal) -> Result<()> {
    if r.rebound.names().is_empty() || !rehearsal.refused.is_empty() {
        return Ok(());
    }
    let mut oids = vec![r.table.oid];
    oids.extend(&r.rebound.oids);
    if let Err(error) = untrusted_code::check_recreated(client, &oids, trust).await {
        let shown = "what depends on the column".to_owned();
        rehearsal.refused.push((shown, error.message().to_owned()));
        return Ok(());
    }
    let (table, column) = (&r.table.name, &r.column.name);
    client.batch_execute(&rebound_sql::trial_path(table, &r.rebound)).await?;
    let now = catalog::rebound(client, r.table.oid, column).await?;
    let matviews = catalog::table(client, r.table.oid).await?.dependents.matviews;
    let matviews: Vec<(QualifiedName, String)> = matviews
        .into_iter()
        .filter(|m| now.matviews.contains(&m.view.name))
        .map(|m| (m.view.name, m.view.query))
        .collect();
    let mut created = Rehearsal::default();
    let statements = rebound_sql::trial_table(table, column, &r.to).join(";\n");
    attempt(client, &statements, String::new(), &mut created).await?;
    if !created.refused.is_empty() {
        return Ok(());
    }
    for (shown, statements) in rebound_sql::trials(table, &now, &matviews) {
        attempt(client, &statements.join(";\n"), shown, rehearsal).await?;
    }
    Ok(())
}

async fn one_side(
    client: &Client,
    r: &mut Retyping,
    side: Side,
    trust: &[String],
    rehearsal: &mut Rehearsal,
) -> Result<()> {
    let mut scratch = vec![fill_sql::names(&r.filling())];
    scratch.extend(sql::scratch(r, side));
    scratch.push(resolve::OURS.to_owned());
    if let Err(e) = all(client, &scratch).await {
        if e.is(&SqlState::INSUFFICIENT_PRIVILEGE) {
            rehearsal.no_scratch = true;
        } else {
            rehearsal.type_refused = Some(refusal(e)?);
        }
        return Ok(());
    }
    let shadow = client.query_one(sql::SHADOW_TYPE, &[&r.column.name.as_str()]).await?;
    if side == Side::Old {
        rehearsal.same_type = shadow.get(3);
        (r.new_type, r.to) = (shadow.get(0), shadow.get(2));
        if !shadow.get::<_, bool>(1) {
            (r.looks.storage, r.looks.compression) = (None, None);
        }
        r.comparable = compared(client).await?;
    }
    plans_sql(client, r, side, trust, rehearsal).await?;
    if rehearsal.named.is_refused(&r.sql) {
        return Ok(());
    }
    for (number, one) in r.indexes.iter().enumerate() {
        let shown = format!("index {}", crate::model::ident::plain(one.index.name.as_str()));
        attempt(client, &sql::index(r, &one.index, number), shown, rehearsal).await?;
    }
    // Rows of the scratch table call the CHECKs of the new type.
    if side == Side::Old && !r.indexes.is_empty() && rehearsal.sql_refused.is_empty() {
        index_rows(client, r, rehearsal).await?;
    }
    for (number, pair) in r.checks.iter().enumerate() {
        let shown = format!("constraint {}", crate::model::ident::plain(pair.name.as_str()));
        let check = Check {
            name: pair.name.clone(),
            definition: pair.definition.clone(),
            validated: true,
            no_inherit: false,
        };
        attempt(client, &sql::check(r, &check, number), shown, rehearsal).await?;
    }
    if let Some(default) = r.column.default.as_ref().filter(|_| side == Side::New) {
        let default = default.clone();
        defaults(client, r, &default, rehearsal).await?;
    }
    let direction = if side == Side::New { Direction::Forward } else { Direction::Reverse };
    client.batch_execute(&sql::rename(&r.column.name, &r.shadow(direction))).await?;
    for row in client.query(sql::DEFINITIONS, &[]).await? {
        let (kind, number, definition): (&str, i32, String) = (row.get(0), row.get(1), row.get(2));
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        if kind == "i" {
            let Some(one) = r.indexes.get_mut(number) else { continue };
            *(if side == Side::New { &mut one.tail_new } else { &mut one.tail_old }) = definition;
        } else {
            let Some(one) = r.checks.get_mut(number) else { continue };
            *(if side == Side::New { &mut one.definition_new } else { &mut one.definition_old }) = definition;
        }
    }
    Ok(())
}

/// Evaluates the column's indexes on some rows, as building them will.
async fn index_rows(client: &Client, r: &Retyping, rehearsal: &mut Rehearsal) -> Result<()> {
    // An index on columns only calls no function of the application.
    let computed = r.indexes.iter().filter(|one| one.index.columns.is_none() || one.index.partial);
    let names: Vec<String> =
        computed.map(|one| crate::model::ident::plain(one.index.name.as_str())).collect();
    if names.is_empty() {
        return Ok(());
    }
    let sampled = row_sql::sampled(row_trial::blocks(client, r.table.oid).await?);
    let columns = r.table.columns.iter().map(|c| &c.name);
    let fill = row_sql::fill(sql::SCRATCH, &format!("only {}", r.table.name), columns, &sampled);
    if let Attempt::Refused(refused) = row_trial::attempt(client, &[fill], true).await? {
        let what = format!("index {}", names.join(", "));
        row_trial::failed(&mut rehearsal.rows, How::Computed, what, refused);
    }
    Ok(())
}

/// Tries the expression for that side, and resolves its names.
async fn plans_sql(
    client: &Client,
    r: &mut Retyping,
    side: Side,
    trust: &[String],
    rehearsal: &mut Rehearsal,
) -> Result<()> {
    let (which, expression) =
        if side == Side::Old { ("using", r.using.clone()) } else { ("back", r.back.clone()) };
    // The default cast would truncate a value that is too long for a domain.
    let casts = match side {
        Side::Old => r.casts,
        Side::New => r.back == default_cast(&r.column.name, &r.column.sql_type),
    };
    let to_resolve = if casts { format!("t.{}", r.column.name) } else { expression.clone() };
    // Before anything is planned: the planner calls IMMUTABLE functions whose arguments are constants.
    client.batch_execute("savepoint resolve").await?;
    let scratch = QualifiedName::new("pg_temp", "pgstrata_scratch");
    let mut settings = r.sql.clone();
    let table = (r.table.oid, trust);
    let resolved =
        resolve::expression(client, &mut settings, (&to_resolve, &scratch, sql::SHADOW), table).await;
    client.batch_execute("rollback to resolve").await?;
    let resolved = match resolved {
        Ok((resolved, named)) => {
            rehearsal.named.add(named);
            if rehearsal.named.is_refused(&settings) {
                r.sql = settings;
                return Ok(());
            }
            Ok(resolved)
        }
        Err(e) => Err(refusal(e)?),
    };
    let parsed = probe(client, r, &expression, Depth::Parsed).await?;
    let resolved = match (parsed, resolved) {
        (Probed::Refused(message), _) | (_, Err(message)) => {
            rehearsal.sql_refused.push((which, message));
            return Ok(());
        }
        (_, Ok(resolved)) => resolved,
    };
    r.sql = settings;
    match probe(client, r, &resolved, Depth::Planned).await? {
        Probed::Stable => {}
        Probed::Volatile => rehearsal.volatile.push(which),
        Probed::Refused(message) => rehearsal.sql_refused.push((which, message)),
    }
    *(if side == Side::Old { &mut r.using } else { &mut r.back }) = resolved;
    Ok(())
}

/// Whether the new type has an operator `=` that our own search path finds.
async fn compared(client: &Client) -> Result<bool> {
    client.batch_execute("savepoint compared").await?;
    let compared = client.query_one(sql::COMPARED, &[]).await;
    client.batch_execute("rollback to compared").await?;
    match compared {
        Ok(_) => Ok(true),
        Err(e) if e.as_db_error().is_some() => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// The server's response to an expression.
enum Probed {
    Stable,
    Volatile,
    Refused(String),
}

/// How far the server goes with a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// It looks up the names; nothing runs.
    Parsed,
    /// It plans, which can call functions.
    Planned,
}

/// The server's response to the use of the expression.
async fn probe(client: &Client, r: &Retyping, expression: &str, depth: Depth) -> Result<Probed> {
    let mut volatile = false;
    client.batch_execute("savepoint probe").await?;
    client.batch_execute(&fill_sql::names(&r.filling())).await?;
    for statement in sql::probes(expression) {
        let tried = match depth {
            Depth::Parsed => client.prepare(&statement).await.map(|_| None),
            Depth::Planned => client.query_one(&statement, &[]).await.map(Some),
        };
        match tried {
            Ok(row) => {
                let plan = row.and_then(|row| row.try_get::<_, Value>(0).ok());
                volatile |= plan.is_some_and(|plan| scans_probe(&plan));
            }
            Err(e) => {
                let message = refusal(e.into())?;
                client.batch_execute("rollback to probe").await?;
                return Ok(Probed::Refused(message));
            }
        }
    }
    client.batch_execute("rollback to probe").await?;
    Ok(if volatile { Probed::Volatile } else { Probed::Stable })
}

/// Tries the default in the new type; if `using` is a cast, the default may need the cast too.
async fn defaults(client: &Client, r: &mut Retyping, default: &str, rehearsal: &mut Rehearsal) -> Result<()> {
    let shown = || "the default".to_owned();
    let mut as_it_is = Rehearsal::default();
    attempt(client, &sql::default(&r.column.name, default), shown(), &mut as_it_is).await?;
    if as_it_is.refused.is_empty() || !r.casts {
        rehearsal.refused.append(&mut as_it_is.refused);
        return Ok(());
    }
    let cast = format!("cast(({default}) as {})", r.new_type);
    let before = rehearsal.refused.len();
    attempt(client, &sql::default(&r.column.name, &cast), shown(), rehearsal).await?;
    if rehearsal.refused.len() == before {
        r.default_new = Some(cast);
    }
    Ok(())
}

async fn attempt(client: &Client, statement: &str, shown: String, rehearsal: &mut Rehearsal) -> Result<()> {
    client.batch_execute("savepoint attempt").await?;
    if let Err(e) = client.batch_execute(statement).await {
        // The same definition is tried with each type of the column.
        let refused = (shown, refusal(e.into())?);
        if !rehearsal.refused.contains(&refused) {
            rehearsal.refused.push(refused);
        }
        client.batch_execute("rollback to attempt").await?;
    }
    Ok(())
}

/// The server's error about the SQL; other errors are returned as errors.
fn refusal(error: Error) -> Result<String> {
    if error.sqlstate().is_none_or(is_passing) {
        return Err(error);
    }
    Ok(error.cause_text().map_or_else(|| error.message().to_owned(), Cow::into_owned))
}
