//! Unique constraints that lack the partition column, and foreign keys that reference them, work after a job as they did
//! before: every statement has the same effect, or fails with the same SQLSTATE and constraint name, on a table that a
//! job has partitioned and on a plain one. Differences that cannot be avoided are listed with their reason.

mod cases;
mod concurrent;
mod dump;
mod hostile;
mod kind_cases;
mod kinds;
mod maintain;
mod reference_cases;
mod rights;
mod statements;
mod trigger_cases;

use futures_util::SinkExt;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::cluster::{Database, Version};
use crate::support::lab::Lab;

/// The schema of the plain table, and that of the partitioned one.
const SCHEMAS: [&str; 2] = ["plain", "parted"];

/// A database with the same tables in both schemas. `t` in the second schema has been partitioned by a job.
#[derive(Debug)]
struct Pair {
    lab: Lab,
    /// A session for each schema, which is first in its search path.
    clients: [Client; 2],
}

impl Pair {
    /// Runs `setup` in both schemas, and the job with `plan`, which follows the name of the job and the table.
    async fn new(db: Database, setup: &str, plan: &str) -> Self {
        for schema in SCHEMAS {
            db.execute(&format!("create schema {schema}; set search_path = {schema}, public; {setup}")).await;
        }
        let lab = Lab::on(db, &format!("name = 'job'\ntable = 'parted.t'\n{plan}"));
        lab.steps(&["check", "run", "swap"]).await;
        let clients = [session(&lab.db, SCHEMAS[0]).await, session(&lab.db, SCHEMAS[1]).await];
        Self { lab, clients }
    }

    /// Runs statements in both schemas; each must succeed.
    async fn both(&self, sql: &str) {
        for (client, schema) in self.clients.iter().zip(SCHEMAS) {
            client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{schema}: {sql}: {e:?}"));
        }
    }

    /// The outcomes of statements in each schema. A statement that starts with the name of a schema and a colon is only
    /// run there.
    async fn outcomes(&self, statements: &[&str]) -> [Vec<String>; 2] {
        let mut all = [Vec::new(), Vec::new()];
        for (i, schema) in SCHEMAS.into_iter().enumerate() {
            let other = format!("{}: ", SCHEMAS[1 - i]);
            let own = format!("{schema}: ");
            for statement in statements.iter().filter(|one| !one.starts_with(&other)) {
                let statement = statement.strip_prefix(&own).unwrap_or(statement);
                all[i].push(outcome(&self.clients[i], statement).await);
            }
            // A transaction that is still open is not part of the comparison.
            outcome(&self.clients[i], "rollback").await;
        }
        all
    }

    /// The rows that a query returns in each schema, as text.
    async fn rows(&self, query: &str) -> [Vec<String>; 2] {
        [rows(&self.clients[0], query).await, rows(&self.clients[1], query).await]
    }

    /// Asserts that a key table has exactly the keys of the table. Values are compared bit by bit.
    async fn assert_in_sync(&self, keys: &KeyColumns, when: &str) {
        let text =
            |list: &str, from: &str| format!("select row({list})::text collate \"C\" from {from} order by 1");
        let KeyColumns { key_table, values, columns, has_key } = keys;
        let own = rows(&self.clients[1], &text(values, &format!("t where {has_key}"))).await;
        let in_key_table = rows(&self.clients[1], &text(columns, key_table)).await;
        assert_eq!(in_key_table, own, "{key_table} differs from the table: {when}");
    }
}

/// The keys of `t`, and of the key table.
#[derive(Debug, Clone, Copy)]
pub struct KeyColumns {
    key_table: &'static str,
    /// The key columns or expressions of the table, and the condition for rows that have a key.
    values: &'static str,
    has_key: &'static str,
    /// The columns of the key table.
    columns: &'static str,
}

/// The keys of the table of most tests.
const IDS: KeyColumns =
    KeyColumns { key_table: "key_keys", values: "id", has_key: "id is not null", columns: "id" };

/// A session whose search path starts with this schema.
async fn session(db: &Database, schema: &str) -> Client {
    let client = db.client().await;
    client
        .batch_execute(&format!("set search_path = {schema}, public; set tests.schema = '{schema}'"))
        .await
        .unwrap();
    client
}

/// What a statement did: the number of rows, or the SQLSTATE and the constraint of the error. `copy TABLE from stdin|`
/// is followed by the rows.
async fn outcome(client: &Client, statement: &str) -> String {
    let answer = match statement.split_once('|') {
        Some((copy, rows)) if copy.ends_with("from stdin") => copied(client, copy, rows).await,
        _ => client.simple_query(statement).await.map(|messages| rows_affected(&messages)),
    };
    match answer {
        Ok(rows) => format!("ok {rows}"),
        Err(error) => {
            let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error:?}"));
            [error.code().code(), error.constraint().unwrap_or_default()].join(" ").trim_end().to_owned()
        }
    }
}

async fn copied(client: &Client, copy: &str, rows: &str) -> Result<u64, tokio_postgres::Error> {
    let sink = client.copy_in(copy).await?;
    let mut sink = std::pin::pin!(sink);
    sink.send(std::io::Cursor::new(rows.to_owned().into_bytes())).await?;
    sink.finish().await
}

fn rows_affected(messages: &[SimpleQueryMessage]) -> u64 {
    messages
        .iter()
        .map(|message| if let SimpleQueryMessage::CommandComplete(n) = message { *n } else { 0 })
        .sum()
}

/// The rows that a query with one column returns.
async fn rows(client: &Client, query: &str) -> Vec<String> {
    let messages = client.simple_query(query).await.unwrap_or_else(|e| panic!("{query}: {e:?}"));
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

/// The plan of most tests, where `ts` is a date.
const BY_MONTH: &str = "[partition]\nby = 'ts'\nevery = '1 month'\nfrom = '2024-01-01'\nto = '2024-05-01'\nkeep_unique = true\n\
    [swap]\nlock_timeout = '200ms'\nattempts = 1000\n";

/// A table with eight rows in four partitions, and its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyedBy {
    /// `id` is unique, and may be NULL.
    Unique,
    /// `id` is the primary key.
    Primary,
}

impl KeyedBy {
    /// The table, and its children: one for each kind of foreign key, if they are `referenced`. They are empty.
    fn setup(self, referenced: bool) -> String {
        let key = match self {
            Self::Unique => {
                "constraint key unique (id), seq uuid default gen_random_uuid(), primary key (seq, ts)"
            }
            Self::Primary => "constraint key primary key (id)",
        };
        let mut sql = format!(
            "create table t (id bigint, ts date not null, v text, parent bigint, {key},
               constraint wide unique (id, ts), constraint other unique (v, ts));
             {ROWS};"
        );
        if referenced {
            sql += "alter table t add constraint self foreign key (parent) references t (id);";
            for (child, actions) in CHILDREN {
                sql += &format!(
                    "create table {child} (n int, tid bigint constraint {child}_fk references t (id) {actions});"
                );
            }
        }
        sql + "analyze t"
    }

    /// The table and the partitioned table of a job.
    async fn pair(self, version: Version, referenced: bool) -> Pair {
        let pair = Pair::new(Database::of(version).await, &self.setup(referenced), BY_MONTH).await;
        pair.assert_in_sync(&IDS, "after the swap").await;
        pair
    }
}

/// The rows of the table.
const ROWS: &str =
    "insert into t select g, date '2024-01-10' + (g - 1) % 4 * 30, 'v' || g from generate_series(1, 8) g";

/// The children, each with the actions of its foreign key.
const CHILDREN: [(&str, &str); 6] = [
    ("cas", "on delete cascade on update cascade"),
    ("res", "on delete restrict on update restrict"),
    ("noa", ""),
    ("nul", "on delete set null on update set null"),
    ("def", "deferrable initially deferred"),
    ("imm", "deferrable"),
];
