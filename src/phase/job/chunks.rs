//! Divides a range of keys into chunks, for every phase that reads along the key.

use crate::error::Result;
use crate::model::ident::QualifiedName;
use crate::model::key::{Key, KeyRange};
use crate::model::table::Column;
use crate::pg::transaction::query_text;
use crate::phase::job::driver::Driver;
use crate::sql::copy as sql;
use tokio_postgres::Client;

/// Divides `range` over `columns` of `from` (`only "public"."t"`) into contiguous ranges of about `rows()` rows, in
/// order, and passes each to `send` with its expected number of rows. The last range ends where `range` ends, which may
/// be unbounded.
///
/// # Errors
/// The server or `send` returned an error.
pub async fn for_each_range(
    driver: &Driver,
    (table, from): (&QualifiedName, &str),
    columns: &[&Column],
    mut range: KeyRange,
    rows: impl Fn() -> u64,
    mut send: impl AsyncFnMut(KeyRange, u64) -> Result<()>,
) -> Result<()> {
    loop {
        driver.check_stop()?;
        let wanted = rows();
        let (sql, values) = sql::boundary(from, columns, &range, wanted);
        let found = driver
            .retrying(&format!("find the end of the next range of {}", table.plain()), async || {
                let read = async |client: &Client| query_text(client, &sql, &values).await;
                driver.reading(&driver.control, std::slice::from_ref(table), read).await
            })
            .await?;
        let Some(row) = found.first() else { return send(range, wanted).await };
        let key: Key = (0..columns.len()).map(|i| row.get(i)).collect();
        if range.through.as_ref() == Some(&key) {
            return send(range, wanted).await;
        }
        send(KeyRange { after: range.after.take(), through: Some(key.clone()) }, wanted).await?;
        range.after = Some(key);
    }
}
