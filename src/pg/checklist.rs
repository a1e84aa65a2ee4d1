//! Reads the checklist of `check`.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Json;

use crate::error::Result;
use crate::model::checklist::{Checklist, EarlierJob};
use crate::plan::Plan;
use crate::plan::check::OLDEST_SERVER;
use crate::sql::{catalog as catalog_sql, checklist as sql, space};

use super::{catalog, store};

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
        checklist.table_bytes = match store::size(client, space::TREE, table).await {
            Ok(bytes) => Some(bytes),
            // Another session has locked the table.
            Err(e) if e.is_any(&[&SqlState::LOCK_NOT_AVAILABLE, &SqlState::QUERY_CANCELED]) => None,
            Err(e) => return Err(e),
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
