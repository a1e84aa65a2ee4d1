//! Adds constraints that require a check of all rows: as NOT VALID under a short lock. They are then validated without
//! blocking writers.

use crate::error::Result;
use crate::event::{ConstraintWork, PhaseOutcome};
use crate::failpoint;
use crate::model::filling::NewKey;
use crate::model::ident::{Ident, QualifiedName, plain, plain_list};
use crate::model::untrusted_code::Access;
use crate::pg::connect::Session;
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::pg::{catalog, objects as pg};
use crate::phase::job::locks::briefly;
use crate::phase::job::meter::Meter;
use crate::phase::job::workers;
use crate::sql::{fill, finish as sql, plan_sql};

use super::super::BackfillJob;
use super::{Open, TablePart, constraints_of, tree, with_violations};

/// The lock for a validation blocks no reader or writer, so the job can wait for it, long enough for autovacuum to
/// cancel itself.
const PATIENT: &str = "set local lock_timeout = '5s'";

/// Adds the CHECK and NOT NULL constraints.
///
/// # Errors
/// A row that was written in the meantime violates a constraint; or the server returned an error.
pub async fn checks(filler: &BackfillJob, open: &Open<'_>) -> Result<()> {
    let f = &filler.filling;
    let wanted: Vec<(Ident, String)> = sql::checks(f, &open.not_null)
        .into_iter()
        .filter(|(name, _)| open.checks.contains(name) || !f.finish.checks.iter().any(|(n, _)| n == name))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let (table, checks) = (f.table.name.plain(), wanted.len() as u64);
    let meter = Meter::begin(filler, ConstraintWork::AddChecks { table, checks });
    let oid = catalog::must_find(&filler.control, &f.table.name).await?;
    let there = constraints_of(&filler.control, oid).await?;
    let missing: Vec<(Ident, String)> =
        wanted.iter().filter(|(name, _)| !there.contains_key(name.as_str())).cloned().collect();
    if !missing.is_empty() {
        let statements = [fill::names(f), sql::add_checks(f, &missing)];
        let step = format!(
            "add constraints {} to {}",
            plain_list(missing.iter().map(|(name, _)| name)),
            f.table.name.plain()
        );
        briefly(filler, vec![f.table.name.clone()], &step, async || {
            all(&filler.control, &statements).await?;
            for (name, _) in &missing {
                pg::record_constraint(&filler.control, filler.job.id, oid, name).await?;
            }
            Ok(())
        })
        .await?;
        failpoint!("finish.added");
    }
    let names: Vec<&Ident> = wanted.iter().map(|(name, _)| name).collect();
    if let Err(error) = validate(filler, &names).await {
        return Err(with_violations(filler, open, error).await);
    }
    if !open.not_null.is_empty() {
        let statements = sql::set_not_null(f, &open.not_null);
        let step = format!(
            "set columns {} of {} NOT NULL",
            plain_list(open.not_null.iter().copied()),
            f.table.name.plain()
        );
        briefly(filler, vec![f.table.name.clone()], &step, async || all(&filler.control, &statements).await)
            .await?;
        failpoint!("finish.not_null");
    }
    meter.end(PhaseOutcome::ConstraintsValid);
    Ok(())
}

/// Validates constraints part by part, and those of the whole table last: by then, those of all parts are valid, and no
/// rows are read again.
async fn validate(filler: &BackfillJob, all: &[&Ident]) -> Result<()> {
    let parts = tree(filler).await?;
    let (leaves, above): (Vec<&TablePart>, Vec<&TablePart>) = parts.iter().partition(|part| part.leaf);
    let names = plain_list(all.iter().copied());
    let step = |part: &TablePart| format!("validate constraints {names} of {}", part.name.plain());
    workers::each(
        filler,
        |part| step(part),
        leaves,
        async |session, part| one_part(filler, session, part, all).await,
    )
    .await?;
    for part in above.into_iter().rev() {
        filler.retrying(&step(part), async || one_part(filler, &filler.control, part, all).await).await?;
    }
    Ok(())
}

async fn one_part(filler: &BackfillJob, session: &Session, part: &TablePart, names: &[&Ident]) -> Result<()> {
    let there = constraints_of(session, part.oid).await?;
    for name in names {
        if there.get(name.as_str()).is_some_and(|one| !one.valid) {
            transaction(session, READ_COMMITTED, async |client| {
                client.batch_execute(PATIENT).await?;
                filler.check_untrusted_code(client, std::slice::from_ref(&part.name), Access::Copies).await?;
                client.batch_execute(&plan_sql::applications(&filler.filling.sql)).await?;
                Ok(client.batch_execute(&sql::validate(&part.name, name)).await?)
            })
            .await?;
            failpoint!("finish.validated");
        }
    }
    Ok(())
}

/// Adds the foreign keys. Before PostgreSQL 18, a partitioned table does not support NOT VALID foreign keys. Therefore,
/// each partition gets its own foreign key, and the foreign key of the table attaches them when they are valid.
///
/// # Errors
/// A row that was written in the meantime violates a foreign key; or the server returned an error.
pub async fn foreign_keys(filler: &BackfillJob, open: &Open<'_>) -> Result<()> {
    if open.keys.is_empty() {
        return Ok(());
    }
    let f = &filler.filling;
    let (table, keys) = (f.table.name.plain(), open.keys.len() as u64);
    let meter = Meter::begin(filler, ConstraintWork::AddForeignKeys { table, keys });
    let on_parent: bool = filler.control.query_one(sql::KEYS_ON_PARENT, &[]).await?.get(0);
    let by_leaf = f.is_partitioned() && !on_parent;
    for key in &open.keys {
        if by_leaf {
            for part in tree(filler).await?.iter().filter(|part| part.leaf) {
                add(filler, &part.name, part.oid, key).await?;
            }
        } else {
            let oid = catalog::must_find(&filler.control, &f.table.name).await?;
            add(filler, &f.table.name, oid, key).await?;
        }
        if let Err(error) = validate(filler, &[&key.name]).await {
            return Err(with_violations(filler, open, error).await);
        }
        if by_leaf {
            let oid = catalog::must_find(&filler.control, &f.table.name).await?;
            lock_both(filler, (&f.table.name, oid), key, sql::tie_key(f, key)).await?;
            failpoint!("finish.tied");
        }
    }
    meter.end(PhaseOutcome::ConstraintsValid);
    Ok(())
}

async fn add(filler: &BackfillJob, table: &QualifiedName, oid: u32, key: &NewKey) -> Result<()> {
    if constraints_of(&filler.control, oid).await?.contains_key(key.name.as_str()) {
        return Ok(());
    }
    lock_both(filler, (table, oid), key, sql::add_key(table, key)).await?;
    failpoint!("finish.key");
    Ok(())
}

/// Adds a foreign key with a statement that blocks writers of both tables, for a short time in each attempt.
async fn lock_both(
    filler: &BackfillJob,
    (table, oid): (&QualifiedName, u32),
    key: &NewKey,
    statement: String,
) -> Result<()> {
    let statements = [fill::names(&filler.filling), statement];
    let tables = vec![table.clone(), key.references.clone()];
    let step = format!("add foreign key {} to {}", plain(key.name.as_str()), table.plain());
    briefly(filler, tables, &step, async || {
        all(&filler.control, &statements).await?;
        pg::record_constraint(&filler.control, filler.job.id, oid, &key.name).await
    })
    .await?;
    Ok(())
}
