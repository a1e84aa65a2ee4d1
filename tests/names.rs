//! The server reads a name that pgstrata quotes as the original name.

use pgstrata::model::ident::{Ident, MAX_BYTES, QualifiedName};
use proptest::prelude::{Strategy, TestCaseError, any, prop_assert, prop_assert_eq};
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Handle;
use tokio_postgres::Client;

use crate::support::cluster::{Database, Version, on_every_version};

on_every_version!(a_quoted_name_comes_back_from_the_server_unchanged);

const READ: &str = "select n.nspname::text, c.relname::text, a.attname::text
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
      join pg_attribute a on a.attrelid = c.oid and a.attnum = 1
    where c.oid = $1::text::regclass";

async fn a_quoted_name_comes_back_from_the_server_unchanged(version: Version) {
    let client = Database::of(version).await.client().await;
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || round_trips(&client, &runtime)).await.unwrap();
}

fn round_trips(client: &Client, runtime: &Handle) {
    let name = || {
        any::<String>().prop_map(|text| {
            let text = text.replace('\0', "");
            Ident::derived(if text.is_empty() { "\"" } else { &text })
        })
    };
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let round_trip = |(schema, table, column): (Ident, Ident, Ident)| {
        let name = QualifiedName { schema, name: table };
        let qualified = name.to_string();
        let create =
            format!("create schema if not exists {}; create table {qualified} ({column} int)", name.schema);
        runtime.block_on(client.batch_execute(&create)).map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
        let row = runtime.block_on(client.query_one(READ, &[&qualified])).unwrap();
        prop_assert_eq!(row.get::<_, &str>(0), name.schema.as_str());
        prop_assert_eq!(row.get::<_, &str>(1), name.name.as_str());
        prop_assert_eq!(row.get::<_, &str>(2), column.as_str());
        prop_assert!([&name.schema, &name.name, &column].iter().all(|n| n.as_str().len() <= MAX_BYTES));
        runtime.block_on(client.batch_execute(&format!("drop table {qualified}"))).unwrap();
        prop_assert_eq!(QualifiedName::parse(&qualified), Ok(name));
        Ok(())
    };
    runner.run(&(name(), name(), name()), round_trip).unwrap();
}
