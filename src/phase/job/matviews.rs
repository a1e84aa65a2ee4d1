//! Builds materialized views again after an exchange, to read the table or the column in use.

use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::event::{PhaseOutcome, TableWork};
use crate::failpoint;
use crate::model::dependent::Matview;
use crate::model::ident::Ident;
use crate::model::objects::Role;
use crate::pg::transaction::{READ_COMMITTED, all, transaction};
use crate::pg::{catalog, objects as pg};
use crate::sql::{matview, objects as objects_sql};

use super::driver::Driver;
use super::locks::LockRetry;
use super::meter::Meter;

/// Builds the view under another name, and then exchanges it with the previous one.
///
/// # Errors
/// The view cannot be built; a lock could not be acquired; or the connection was lost.
pub async fn rebuild(driver: &Driver, m: &Matview, operator_schemas: &[Ident]) -> Result<()> {
    let client = &driver.control;
    let view = m.view.name.plain();
    let meter = Meter::begin(driver, TableWork::RebuildMaterializedView { view: view.clone() });
    let made = driver
        .retrying(&format!("create {} from the table in use", matview::new_name(m).plain()), async || {
            build(driver, m, operator_schemas).await
        })
        .await?;
    let (m, readers) = existing_readers(client, m).await?;
    failpoint!("settle.matview");
    let lock_retry = LockRetry::on(driver, vec![m.view.name.clone()]);
    let step = format!("replace materialized view {view}");
    let exchanged = lock_retry.run(
        &step,
        || driver.check_stop(),
        async || {
            lock_retry.look().await?;
            transaction(client, READ_COMMITTED, async |client| {
                lock_retry.begin(client, &matview::first_lock(&m)).await?;
                client.batch_execute(&objects_sql::must_be(&matview::new_name(&m), made)).await?;
                all(client, &matview::exchange(&m)).await?;
                all(client, &readers).await
            })
            .await
        },
    );
    exchanged.await?;
    failpoint!("settle.exchanged");
    meter.end(PhaseOutcome::MaterializedViewRebuilt { view });
    Ok(())
}

/// The materialized view without the views that were dropped in the meantime, and statements that check, once the others
/// are replaced, that they are still the same: the server would create a view that was dropped as the job's role.
async fn existing_readers(client: &Client, m: &Matview) -> Result<(Matview, Vec<String>)> {
    let (mut existing, mut checks) = (m.clone(), Vec::new());
    existing.readers.clear();
    for reader in &m.readers {
        if let Some(oid) = catalog::find(client, &reader.name).await? {
            checks.push(objects_sql::must_be(&reader.name, oid));
            existing.readers.push(reader.clone());
        }
    }
    Ok((existing, checks))
}

/// Builds a materialized view under its temporary name; returns its oid.
async fn build(driver: &Driver, m: &Matview, operator_schemas: &[Ident]) -> Result<u32> {
    let (name, job) = (matview::new_name(m), driver.job.id);
    transaction(&driver.control, READ_COMMITTED, async |client| {
        if left_behind(driver, m).await? {
            client.batch_execute(&matview::drop(&name)).await?;
        }
        all(client, &matview::build(m, operator_schemas, driver.plan.trust())).await?;
        pg::record(client, job, Role::Matview, &name).await?;
        catalog::must_find(client, &name).await
    })
    .await
}

/// Whether an interrupted command left behind a materialized view with the temporary name.
///
/// # Errors
/// The object with that name does not belong to the job.
pub async fn left_behind(driver: &Driver, m: &Matview) -> Result<bool> {
    let (name, client) = (matview::new_name(m), &driver.control);
    let Some(oid) = catalog::find(client, &name).await? else { return Ok(false) };
    if driver.job.records && !pg::recorded(client, driver.job.id).await?.made(Role::Matview, oid) {
        let job = &driver.job.name;
        return Err(Error::failed(format!("{} exists, and job {job} did not create it", name.plain()))
            .cause(format!("the job needs that name to create {} again", m.view.name.plain()))
            .hint("rename or drop it, and run the same command again"));
    }
    Ok(true)
}
