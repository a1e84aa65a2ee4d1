//! Tries what a backfill builds at the end, on an empty temporary table in a transaction that is rolled back. No row
//! is read, and no lock is acquired that could block another session.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::model::filling::{Filling, NewKey};
use crate::model::ident::{Ident, QualifiedName};
use crate::plan::check::{FinishTrial, Named, Referenced, Refusal, Standing};
use crate::sql::{fill, finish, finish_trial as sql, row_trial};

use super::refused::refusal;
use super::transaction::READ_COMMITTED;
use super::{catalog, resolve};

/// How the server responds to each object. `trust` lists the roles that the plan trusts.
///
/// # Errors
/// The connection was lost. What the server rejects is in the trial.
pub async fn trial(client: &Client, f: &Filling, trust: &[String]) -> Result<FinishTrial> {
    client.batch_execute(READ_COMMITTED).await?;
    let tried = rolled_back(client, f, trust).await;
    client.batch_execute("rollback").await?;
    tried
}

/// Names that the plan wants to give, and that something else has by now: on the table, whose columns exist, or on its
/// partitions.
///
/// # Errors
/// The server returned an error.
pub async fn taken(client: &Client, f: &Filling, trust: &[String]) -> Result<Vec<Ident>> {
    let oid = catalog::must_find(client, &f.table.name).await?;
    let now = Filling { table: catalog::table(client, oid).await?, ..f.clone() };
    let standing = trial(client, &now, trust).await?.standing;
    Ok(standing.into_iter().filter(|(_, one)| *one == Standing::Other).map(|(name, _)| name).collect())
}

async fn rolled_back(client: &Client, f: &Filling, trust: &[String]) -> Result<FinishTrial> {
    let row = client.query_one(sql::WHO, &[]).await?;
    let mut trial = FinishTrial {
        role: Ident::new(row.get::<_, String>(0)),
        database: Ident::new(row.get::<_, String>(1)),
        untried: None,
        refused: Vec::new(),
        standing: Vec::new(),
        alike: Vec::new(),
        keys: Vec::new(),
        partition_columns: Vec::new(),
        resolved: Vec::new(),
        named: Named::default(),
    };
    let oid = catalog::must_find(client, &f.table.name).await?;
    client.batch_execute(&fill::names(f)).await?;
    let oids = keys(client, f, &mut trial).await?;
    let levels = client.query(sql::PARTITIONED_BY, &[&oid]).await?;
    trial.partition_columns = levels
        .iter()
        .map(|row| row.get::<_, Option<Vec<String>>>(0).map(|all| all.into_iter().map(Ident::new).collect()))
        .collect();
    if let Err(error) = attempt(client, &[sql::stand_in(f)]).await? {
        trial.untried = Some(error.message);
        return Ok(trial);
    }
    // Before anything is built: CREATE INDEX and ADD CHECK call IMMUTABLE functions whose arguments are constants.
    trial.named = names(client, f, (oid, trust), &mut trial.refused).await?;
    if trial.named.is_refused(&f.sql) {
        return Ok(trial);
    }
    evaluated(client, f, &mut trial.refused).await?;
    let unread: Vec<Ident> = trial.refused.iter().map(|(name, _)| name.clone()).collect();
    let mut builds = sql::builds(f);
    let order: Vec<Ident> = builds.iter().map(|(name, _)| name.clone()).collect();
    builds.retain(|(name, _)| !unread.contains(name));
    for (n, (key, referenced)) in f.finish.foreign_keys.iter().zip(&trial.keys).enumerate() {
        if let Some(key) = referenced.as_ref().and_then(|referenced| led(key, referenced)) {
            builds.push((key.name.clone(), sql::key(f, &key, n)));
        }
    }
    for (name, statements) in builds {
        if let Err(refusal) = attempt(client, &statements).await? {
            trial.refused.push((name, real_names(f, refusal.message)));
        }
    }
    // In the order of the plan.
    trial.refused.sort_by_key(|(name, _)| order.iter().position(|one| one == name).unwrap_or(order.len()));
    let stand_in: u32 = client.query_one(sql::STAND_IN, &[&f.table.name.name.as_str()]).await?.get(0);
    let alike = client.query(&sql::alike(), &[&oid, &stand_in]).await?;
    let ident = |row: &tokio_postgres::Row, i: usize| Ident::new(row.get::<_, String>(i));
    trial.alike = alike.iter().map(|row| (ident(row, 0), ident(row, 1))).collect();
    trial.standing = standing(client, f, oid, stand_in, &oids).await?;
    client.batch_execute(resolve::OURS).await?;
    let resolved = client.query(&sql::resolved(), &[&stand_in]).await?;
    trial.resolved = resolved.iter().map(|row| (ident(row, 0), row.get(1))).collect();
    let oids: Vec<u32> = resolved.iter().map(|row| row.get(2)).collect();
    trial.named.add(resolve::named(client, (oid, trust), &oids, &f.sql).await?);
    trial.standing.retain(|(name, _)| trial.refused.iter().all(|(refused, _)| refused != name));
    Ok(trial)
}

/// What the conditions and the indexes name, without planning them; those that the server cannot parse are added to
/// `refused`.
async fn names(
    client: &Client,
    f: &Filling,
    table: (u32, &[String]),
    refused: &mut Vec<(Ident, String)>,
) -> Result<Named> {
    let mut rules = Vec::new();
    for (n, (name, statement)) in sql::readings(f).into_iter().enumerate() {
        let read = match statement {
            Some(create) => attempt(client, &[create]).await?,
            None => Err(unreadable(client, f, &name).await?),
        };
        match read {
            Ok(()) => rules.push(client.query_one(sql::RULE, &[&sql::reading(n)]).await?.get(0)),
            Err(refusal) => refused.push((name, refusal.message)),
        }
    }
    let named = resolve::named(client, table, &rules, &f.sql).await?;
    client.batch_execute(&fill::names(f)).await?;
    Ok(named)
}

/// Evaluates the conditions and the index expressions on some rows. Rows that cannot be read, or that violate a constraint, are
/// not reported here.
async fn evaluated(client: &Client, f: &Filling, refused: &mut Vec<(Ident, String)>) -> Result<()> {
    let filled = [row_trial::SAMPLE_LIMIT.to_owned(), sql::some_rows(f)];
    if attempt(client, &filled).await?.is_err() {
        return Ok(());
    }
    for (n, (name, statement)) in sql::readings(f).into_iter().enumerate() {
        if statement.is_none() || refused.iter().any(|(one, _)| *one == name) {
            continue;
        }
        if let Err(refusal) = attempt(client, &sql::evaluate(f, n)).await? {
            refused.push((name, refusal.message));
        }
        client.batch_execute(&fill::names(f)).await?;
    }
    // The objects are built on an empty table: rows that violate them are found by the job, which fills the rows first.
    client.batch_execute(&sql::emptied(f)).await?;
    Ok(())
}

/// Why an index definition could not be separated into expressions: the server's syntax error, if it has one.
async fn unreadable(client: &Client, f: &Filling, name: &Ident) -> Result<Refusal> {
    let statements =
        sql::builds(f).into_iter().find(|(one, _)| one == name).map(|(_, statements)| statements);
    client.batch_execute("savepoint unreadable").await?;
    for statement in statements.unwrap_or_default() {
        // A statement of this kind is only parsed.
        if let Err(error) = client.prepare(&statement).await {
            client.batch_execute("rollback to unreadable").await?;
            return refusal(Error::from(error));
        }
    }
    Ok(Refusal { message: sql::NOT_READ.to_owned(), code: SqlState::SYNTAX_ERROR.code().to_owned() })
}

/// The key with the table that it refers to; none if that is impossible, which is reported without a trial.
fn led(key: &NewKey, referenced: &Referenced) -> Option<NewKey> {
    let columns = if key.referenced.is_empty() { &referenced.primary } else { &key.referenced };
    let can = referenced.lacking.is_empty() && columns.len() == key.columns.len();
    can.then(|| NewKey { references: referenced.name.clone(), ..key.clone() })
}

/// The message with the names of the real tables instead of the stand-ins'.
fn real_names(f: &Filling, mut message: String) -> String {
    for (n, key) in f.finish.foreign_keys.iter().enumerate().rev() {
        message = message.replace(sql::referenced(n).as_str(), key.references.name.as_str());
    }
    message
}

/// Runs statements that may fail; a failure is part of the result.
async fn attempt(client: &Client, statements: &[String]) -> Result<std::result::Result<(), Refusal>> {
    client.batch_execute("savepoint attempt").await?;
    for statement in statements {
        if let Err(error) = client.batch_execute(statement).await {
            let refused = refusal(Error::from(error))?;
            client.batch_execute("rollback to attempt").await?;
            return Ok(Err(refused));
        }
    }
    client.batch_execute("release attempt").await?;
    Ok(Ok(()))
}

/// The tables that the foreign keys refer to; returns the oids of those that exist, by the key's name.
async fn keys(client: &Client, f: &Filling, trial: &mut FinishTrial) -> Result<(Vec<String>, Vec<u32>)> {
    let (mut names, mut oids) = (Vec::new(), Vec::new());
    for key in &f.finish.foreign_keys {
        let columns: Vec<&str> = key.referenced.iter().map(Ident::as_str).collect();
        let (schema, name) = (key.references.schema.as_str(), key.references.name.as_str());
        let row = client.query_opt(sql::REFERENCED, &[&schema, &name, &key.unqualified, &columns]).await?;
        trial.keys.push(row.map(|row| {
            names.push(key.name.as_str().to_owned());
            oids.push(row.get(2));
            Referenced {
                name: QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1)),
                primary: row.get::<_, Vec<String>>(3).into_iter().map(Ident::new).collect(),
                lacking: row.get(4),
            }
        }));
    }
    Ok((names, oids))
}

/// Existing objects with the wanted names, on the table and its partitions.
async fn standing(
    client: &Client,
    f: &Filling,
    oid: u32,
    stand_in: u32,
    (key_names, key_oids): &(Vec<String>, Vec<u32>),
) -> Result<Vec<(Ident, Standing)>> {
    let text = |name: &Ident| name.as_str().to_owned();
    let unique: Vec<String> = f.finish.unique.iter().map(|(name, _)| text(name)).collect();
    let mut constraints: Vec<String> = f.finish.checks.iter().map(|(name, _)| text(name)).collect();
    constraints.extend(unique.iter().cloned());
    constraints.extend(f.finish.foreign_keys.iter().map(|key| text(&key.name)));
    let mut indexes: Vec<String> = f.finish.indexes.iter().map(|(name, _)| text(name)).collect();
    indexes.extend(unique.iter().cloned());
    let mut found: Vec<(String, Standing)> = Vec::new();
    let of = |row: &tokio_postgres::Row| match (row.get(2), row.get(1)) {
        (false, _) => Standing::Other,
        (true, true) => Standing::Same,
        (true, false) => Standing::Unfinished,
    };
    for row in
        client.query(&sql::constraints(), &[&oid, &stand_in, &constraints, key_names, key_oids]).await?
    {
        found.push((row.get(0), of(&row)));
    }
    for row in client.query(&sql::indexes(), &[&oid, &stand_in, &indexes]).await? {
        let (name, standing): (String, _) = (row.get(0), of(&row));
        if found.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let lacks_constraint = standing == Standing::Same && unique.contains(&name);
        found.push((name, if lacks_constraint { Standing::Unfinished } else { standing }));
    }
    let mut all: Vec<(Ident, Standing)> = found.into_iter().map(|(name, s)| (Ident::new(name), s)).collect();
    let names = f.finish.unique.iter().map(|(name, _)| name);
    let names: Vec<&Ident> = names.chain(f.finish.indexes.iter().map(|(name, _)| name)).collect();
    all.extend(parts_taken(client, f, oid, &names).await?.into_iter().map(|name| (name, Standing::Other)));
    Ok(all)
}

/// Names that the indexes of partitions need, and that another object has.
async fn parts_taken(client: &Client, f: &Filling, oid: u32, names: &[&Ident]) -> Result<Vec<Ident>> {
    let (mut schemas, mut wanted, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    for row in client.query(finish::TREE, &[&oid]).await? {
        let part = QualifiedName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        for name in names.iter().filter(|_| part != f.table.name) {
            let index = f.index_name(name, &part);
            schemas.push(index.schema.as_str().to_owned());
            wanted.push(index.name.as_str().to_owned());
            parts.push(row.get::<_, u32>(2));
        }
    }
    let rows = client.query(sql::PARTS_TAKEN, &[&schemas, &wanted, &parts]).await?;
    Ok(rows.iter().map(|row| Ident::new(row.get::<_, String>(0))).collect())
}
