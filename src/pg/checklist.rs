//! Reads the checklist of `check`.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Json;

use crate::error::Result;
use crate::model::checklist::{Checklist, EarlierJob};
use crate::plan::Plan;
use crate::plan::check::OLDEST_SERVER;
use crate::sql::{catalog as catalog_sql, checklist as sql};

use super::{catalog, store};

/// The errors of a statement that waited for a lock.
const WAITED: [&SqlState; 2] = [&SqlState::LOCK_NOT_AVAILABLE, &SqlState::QUERY_CANCELED];

/// The age of a transaction or query from which on it is listed, in seconds.
const LONG_S: f64 = 60.0;

/// [`LONG_S`], unless a test sets another value.
fn long_s() -> f64 {
    #[cfg(feature = "failpoints")]
    if let Some(s) = std::env::var("PGSTRATA_LONG").ok().and_then(|s| s.parse().ok()) {
        return s;
    }
    LONG_S
}

/// The state of the server and of the plan's table; none for a server that is not supported.
///
/// # Errors
/// The server returned an error.
pub async fn read(client: &Client, plan: &Plan) -> Result<Option<Checklist>> {
    if client.query_one(catalog_sql::SERVER, &[]).await?.get::<_, i32>(0) < OLDEST_SERVER {
        return Ok(None);
    }
    let table = plan.table();
    let oid = catalog::find(client, table).await?;
    let row = client.query_one(sql::STATE, &[&table.plain(), &oid, &long_s()]).await?;
    let Json(mut checklist): Json<Checklist> = row.try_get(0)?;
    if oid.is_some() {
        checklist.table_bytes = match client.query_one(sql::TABLE_BYTES, &[&oid]).await {
            Ok(row) => u64::try_from(row.get::<_, i64>(0)).ok(),
            // Another session has locked the table.
            Err(e) if e.code().is_some_and(|code| WAITED.contains(&code)) => None,
            Err(e) => return Err(e.into()),
        };
    }
    if client.query_one(sql::READS_JOBS, &[]).await?.get(0) {
        let on_table = |source: &str| source == table.plain();
        let jobs = store::jobs(client, None).await?.into_iter().filter(|job| on_table(&job.source));
        checklist.earlier_jobs = jobs
            .map(|job| EarlierJob {
                job: job.name,
                kind: job.kind,
                state: job.state,
                started_at: job.started_at,
            })
            .collect();
    }
    Ok(Some(checklist.with_not_visible()))
}
