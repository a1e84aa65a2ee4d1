//! The test oracle: compares a table with its truth copy, and fails with the rows that differ.
//!
//! Writers change both in one transaction, so the two are equal in every snapshot, even while they write.

use tokio_postgres::Client;

use super::cluster::Database;

/// The columns of a table, separated by commas.
pub async fn columns(client: &Client, table: &str) -> String {
    let sql = "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
        where attrelid = $1::text::regclass and attnum > 0 and not attisdropped";
    client.query_one(sql, &[&table]).await.unwrap().get(0)
}

/// Compares the rows in one snapshot by their text, byte by byte: values differ even if a collation considers them
/// equal.
pub async fn compare(db: &Database, table: &str, truth: &str) {
    let client = db.client().await;
    let columns = columns(&client, truth).await;
    let differing = client
        .query(
            &format!(
                "with t as (select row({columns})::text as r from {table}),
                      truth as (select row({columns})::text as r from {truth}),
                      differing as (
                          select '+ ' as side, r from (select r from t except all select r from truth) extra
                          union all
                          select '- ', r from (select r from truth except all select r from t) missing)
                 select side || r, count(*) over () from differing order by r limit 5"
            ),
            &[],
        )
        .await
        .unwrap();
    if let Some(first) = differing.first() {
        let rows: Vec<String> = differing.iter().map(|row| row.get(0)).collect();
        panic!(
            "{} rows differ between {table} (+) and {truth} (-):\n{}",
            first.get::<_, i64>(1),
            rows.join("\n")
        );
    }
}
