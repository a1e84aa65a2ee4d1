//! Tries a retype's SQL, and the definitions that the column's new type must bear, on an empty table of the session's own, in
//! a transaction that is rolled back. The server writes down how each definition reads on another column; nothing of it is
//! guessed from text.

use serde_json::Value;
use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::model::blueprint::Direction;
use crate::model::retyping::Retyping;
use crate::model::table::Check;
use crate::plan::check::{ColumnFacts, How, Rehearsal};
use crate::sql::fill as fill_sql;
use crate::sql::retype::facts::{self as sql, Side};
use crate::sql::row_trial as row_sql;

use super::row_trial::{self, Attempt};
use super::transaction::{READ_COMMITTED, all};
use super::trial::scans_probe;

/// What the server says; the definitions are kept in `r`.
///
/// # Errors
/// The server is gone. What it refuses is in the rehearsal.
pub async fn rehearse(client: &Client, r: &mut Retyping, column: &ColumnFacts) -> Result<Rehearsal> {
    let mut rehearsal = Rehearsal::default();
    for side in [Side::Old, Side::New] {
        client.batch_execute(READ_COMMITTED).await?;
        let tried = one_side(client, r, side, &mut rehearsal).await;
        client.batch_execute("rollback").await?;
        tried?;
        if rehearsal.no_scratch || rehearsal.type_refused.is_some() {
            return Ok(rehearsal);
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
    Ok(rehearsal)
}

async fn one_side(client: &Client, r: &mut Retyping, side: Side, rehearsal: &mut Rehearsal) -> Result<()> {
    if let Err(e) = all(client, &sql::scratch(r, side)).await {
        match e.sqlstate() {
            Some("42501") => rehearsal.no_scratch = true,
            _ => rehearsal.type_refused = Some(refusal(e)?),
        }
        return Ok(());
    }
    let beside = client.query_one(sql::BESIDE_TYPE, &[]).await?;
    let (which, expression) = match side {
        Side::Old => {
            r.new_type = beside.get(0);
            if !beside.get::<_, bool>(1) {
                (r.looks.storage, r.looks.compression) = (None, None);
            }
            ("using", r.using.clone())
        }
        Side::New => ("back", r.back.clone()),
    };
    match probe(client, r, &expression).await? {
        Probed::Stable => {}
        Probed::Volatile => rehearsal.volatile.push(which),
        Probed::Refused(message) => rehearsal.sql_refused.push((which, message)),
    }
    for (number, one) in r.indexes.iter().enumerate() {
        let shown = format!("index {}", crate::model::ident::plain(one.index.name.as_str()));
        attempt(client, &sql::index(&one.index, number), shown, rehearsal).await?;
    }
    if side == Side::Old && !r.indexes.is_empty() {
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
        attempt(client, &sql::check(&check, number), shown, rehearsal).await?;
    }
    if let Some(default) = r.column.default.as_ref().filter(|_| side == Side::New) {
        attempt(client, &sql::default(&r.column.name, default), "the default".to_owned(), rehearsal).await?;
    }
    let direction = if side == Side::New { Direction::Forward } else { Direction::Reverse };
    client.batch_execute(&sql::rename(&r.column.name, &r.beside(direction))).await?;
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

/// Computes the column's indexes of some rows, as building them will.
async fn index_rows(client: &Client, r: &Retyping, rehearsal: &mut Rehearsal) -> Result<()> {
    // An index of columns alone calls no function of the application.
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

/// What the server thinks of an expression.
enum Probed {
    Stable,
    Volatile,
    Refused(String),
}

/// Plans what is done with the expression.
async fn probe(client: &Client, r: &Retyping, expression: &str) -> Result<Probed> {
    let mut volatile = false;
    client.batch_execute("savepoint probe").await?;
    client.batch_execute(&fill_sql::names(&r.filling())).await?;
    for statement in sql::probes(expression) {
        match client.query_one(&statement, &[]).await {
            Ok(row) => {
                volatile |= row.try_get::<_, Value>(0).is_ok_and(|plan| scans_probe(&plan));
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

async fn attempt(client: &Client, statement: &str, shown: String, rehearsal: &mut Rehearsal) -> Result<()> {
    client.batch_execute("savepoint attempt").await?;
    if let Err(e) = client.batch_execute(statement).await {
        rehearsal.refused.push((shown, refusal(e.into())?));
        client.batch_execute("rollback to attempt").await?;
    }
    Ok(())
}

/// What the server said of the SQL; other errors are ours.
fn refusal(error: Error) -> Result<String> {
    if error.sqlstate().is_none() {
        return Err(error);
    }
    Ok(error.cause_text().map_or_else(|| error.message().to_owned(), |cause| cause.to_owned()))
}
