//! Writers on a parent table and its two child tables. Each transaction makes the same changes to the truth copy of
//! each table. Each writer changes only its own rows, so writers do not wait for each other, and a failure is never
//! caused by another writer.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::cluster::{Database, connect};
use crate::support::reads::{Question, Readers, Reading};
use crate::support::writers::{Shift, Writers};

/// Rows of the parent at the start.
pub const ROWS: i64 = 6_000;

/// Creates parent and children with their truth copies. `key` is the definition of the parent's column `id`.
pub async fn create(db: &Database, key: &str) {
    db.execute(&format!(
        "create table orders (id {key} primary key, customer int not null, note text);
         create table items (id int generated always as identity primary key, order_id int not null
           references orders on update cascade on delete cascade, qty int);
         create table refunds (order_id int references orders (id) on update cascade on delete set null
           deferrable initially deferred, cents int unique);
         create index orders_customer on orders (customer, id) where id <> 13;
         alter table orders add constraint known check (id <> 0);
         comment on column orders.id is 'the number';
         insert into orders (id, customer, note) overriding system value
           select i, i % 50, 'row ' || i from generate_series(1, {ROWS}) i;
         select setval(pg_get_serial_sequence('orders', 'id'), {ROWS} + 1);
         insert into items (order_id, qty) select i, i % 7 from generate_series(1, {ROWS}) i;
         insert into refunds select i * 3, i from generate_series(1, {ROWS} / 3) i;
         create table truth_orders as select id::bigint as id, customer, note from orders;
         create table truth_items as select order_id::bigint as order_id, qty from items;
         create table truth_refunds as select order_id::bigint as order_id, cents from refunds;
         create index on truth_orders (id); create index on truth_items (order_id);
         create index on truth_refunds (order_id);
         analyze orders; analyze items; analyze refunds"
    ))
    .await;
}

/// The running writers and readers of the three tables.
#[derive(Debug)]
pub struct Shop {
    writers: Writers,
    readers: Readers,
    /// Held for reading while a transaction is open.
    gate: Arc<RwLock<()>>,
}

/// Only two ways to read: the tests with the bank use all of them.
const READINGS: [Reading; 2] = [Reading::Snapshot("repeatable read", 200), Reading::Statement];

/// Whether the parent has the same contents as its truth copy.
fn question() -> Question {
    let sum = |table: &str| {
        format!(
            "(select row(count(*), sum(id::bigint), sum(customer), sum(hashtext(note)))::text from {table})"
        )
    };
    let query = format!("select ({} <> {})::int", sum("orders"), sum("truth_orders"));
    Question { query, by_function: "select differs()".to_owned(), right: 0 }
}

impl Shop {
    /// Starts `n` writers, and the readers.
    pub async fn open(db: &Database, n: i64) -> Self {
        let question = question();
        db.execute(&format!(
            "create function differs() returns int language plpgsql stable as $$ begin return ({}); end $$",
            question.query
        ))
        .await;
        let readers = Readers::start(db, &question, &READINGS);
        let (mut writers, gate) = (Writers::default(), Arc::<RwLock<()>>::default());
        for number in 0..n {
            let writer = ShopWriter {
                client: connect(db.dsn()).await,
                gate: gate.clone(),
                rng: StdRng::seed_from_u64(number as u64),
                number,
                fresh: 0,
                mine: (1..=ROWS).filter(|id| id % n == number).collect(),
            };
            writers.add(|shift| writer.work(shift));
        }
        Self { writers, readers, gate }
    }

    /// Waits until `n` more transactions are committed.
    pub async fn commit_more(&self, n: u64) {
        self.writers.commit_more(n).await;
    }

    /// Pauses all writers until the guard is dropped.
    pub async fn pause(&self) -> OwnedRwLockWriteGuard<()> {
        self.gate.clone().write_owned().await
    }

    /// Stops writers and readers; fails if any of them failed.
    pub async fn close(self) {
        assert!(self.writers.stop().await > 0);
        self.readers.stop().await;
    }
}

struct ShopWriter {
    client: Client,
    gate: Arc<RwLock<()>>,
    rng: StdRng,
    number: i64,
    fresh: i64,
    mine: Vec<i64>,
}

impl ShopWriter {
    async fn work(mut self, shift: Shift) {
        let retitle = self.client.prepare("update orders set note = $1 where id = $2").await.unwrap();
        let retitle_truth =
            self.client.prepare("update truth_orders set note = $1 where id = $2").await.unwrap();
        // A prepared statement keeps the parameter types that it was prepared with.
        let narrow = |id: i64| i32::try_from(id).unwrap();
        while shift.is_open() {
            let open: OwnedRwLockReadGuard<()> = self.gate.clone().read_owned().await;
            let strict = self.rng.random_bool(0.2);
            let before = self.mine.clone();
            let begin = if strict { "begin isolation level repeatable read" } else { "begin" };
            self.client.batch_execute(begin).await.unwrap();
            let mut result = Ok(());
            for _ in 0..self.rng.random_range(1..4) {
                result = if self.rng.random_bool(0.15) {
                    let (note, id) = (format!("prepared {}", self.rng.random::<u16>()), self.pick());
                    match self.client.execute(&retitle, &[&note, &narrow(id)]).await {
                        Ok(found) => {
                            let truth = self.client.execute(&retitle_truth, &[&note, &id]).await;
                            truth.map(|n| assert_eq!(n, found, "{id}"))
                        }
                        Err(e) => Err(e),
                    }
                } else {
                    self.step().await
                };
                if result.is_err() {
                    break;
                }
            }
            let commits = result.is_ok() && self.rng.random_bool(0.9);
            if commits {
                result = self.client.batch_execute("commit").await;
            }
            match result {
                Ok(()) if commits => shift.committed(),
                Ok(()) => self.roll_back(before).await,
                // Under repeatable read, a write fails on a row that the job has filled since the snapshot.
                Err(e) if strict && e.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => {
                    self.roll_back(before).await;
                }
                Err(e) => panic!("a writer failed: {e:?}"),
            }
            drop(open);
            tokio::time::sleep(Duration::from_micros(self.rng.random_range(0..30_000))).await;
        }
    }

    async fn roll_back(&mut self, before: Vec<i64>) {
        self.client.batch_execute("rollback").await.unwrap();
        self.mine = before;
    }

    fn pick(&mut self) -> i64 {
        self.mine[self.rng.random_range(0..self.mine.len())]
    }

    /// A key that no row has had before. It is negative, because the sequence generates only positive values.
    fn fresh(&mut self) -> i64 {
        self.fresh += 1;
        -(self.number * 1_000_000 + self.fresh)
    }

    async fn step(&mut self) -> Result<(), tokio_postgres::Error> {
        let id = self.pick();
        let n = self.rng.random_range(0..1000);
        match self.rng.random_range(0..10) {
            0 | 1 => {
                let insert = format!("insert into orders (customer, note) values ({n}, 'new') returning id");
                let rows = self.client.simple_query(&insert).await?;
                let id = rows.iter().find_map(|m| match m {
                    SimpleQueryMessage::Row(row) => row.get(0).and_then(|id| id.parse::<i64>().ok()),
                    _ => None,
                });
                let id = id.unwrap();
                self.mine.push(id);
                self.run(&format!("insert into truth_orders values ({id}, {n}, 'new')")).await
            }
            2 => {
                let id = self.fresh();
                self.mine.push(id);
                self.run(&format!(
                    "insert into orders (id, customer) overriding system value values ({id}, {n});
                     insert into truth_orders values ({id}, {n}, null)"
                ))
                .await
            }
            3 => {
                self.run(&format!(
                    "insert into orders (id, customer) overriding system value values ({id}, 1)
                       on conflict (id) do update set customer = {n};
                     update truth_orders set customer = {n} where id = {id}"
                ))
                .await
            }
            4 if self.mine.len() > 100 => {
                self.mine.retain(|mine| *mine != id);
                self.run(&format!(
                    "delete from orders where id = {id}; delete from truth_orders where id = {id};
                     delete from truth_items where order_id = {id};
                     update truth_refunds set order_id = null where order_id = {id}"
                ))
                .await
            }
            5 => {
                let to = self.fresh();
                self.mine.retain(|mine| *mine != id);
                self.mine.push(to);
                self.rekey(id, to).await
            }
            6 | 7 => {
                self.run(&format!(
                    "insert into items (order_id, qty) values ({id}, {n});
                     insert into truth_items values ({id}, {n})"
                ))
                .await
            }
            _ => {
                self.run(&format!(
                    "update orders set note = 'updated {n}' where id = {id};
                     update truth_orders set note = 'updated {n}' where id = {id}"
                ))
                .await
            }
        }
    }

    /// Changes the key of a row. A column GENERATED ALWAYS AS IDENTITY cannot be updated, so the row is inserted again
    /// and deleted.
    async fn rekey(&self, id: i64, to: i64) -> Result<(), tokio_postgres::Error> {
        self.run(&format!(
            "do $$ begin
               if (select attidentity from pg_attribute where attrelid = 'orders'::regclass and attname = 'id') = 'a' then
                 insert into orders (id, customer, note) overriding system value
                   select {to}, customer, note from orders where id = {id};
                 update items set order_id = {to} where order_id = {id};
                 update refunds set order_id = {to} where order_id = {id};
                 delete from orders where id = {id};
               else
                 update orders set id = {to} where id = {id};
               end if;
             end $$;
             update truth_orders set id = {to} where id = {id};
             update truth_items set order_id = {to} where order_id = {id};
             update truth_refunds set order_id = {to} where order_id = {id}"
        ))
        .await
    }

    async fn run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(sql).await
    }
}
