//! A bank, to check reads: in every snapshot, the sum of the accounts is the initial sum plus the sum of the journal.
//! Writers change both in one transaction; readers compare them in one snapshot.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;

use super::cluster::{Database, connect};
use super::reads::{Question, READINGS, Readers, Reading, is_refused};
use super::writers::{Shift, Writers};

/// The initial number of accounts.
const ACCOUNTS: i64 = 3_000;
/// The initial amount of each account.
const AMOUNT: i64 = 100;
/// The number of writers; each has a row in the journal.
const WRITERS: i64 = 4;
/// The sum of all accounts minus the sum of the journal: it is constant.
const BALANCE: &str = "select sum(amount)::bigint - (select sum(n)::bigint from journal) from bank";
/// The same through a function: the table is locked only when the function is called.
const BY_FUNCTION: &str = "select bank_sum() - (select sum(n)::bigint from journal)";

/// Creates the bank; `amount` is the type of the column `amount`.
pub async fn create(db: &Database, amount: &str) {
    db.execute(&format!(
        "create table bank (id bigint primary key, at timestamptz not null, amount {amount} not null);
         insert into bank select i, timestamptz '2025-01-01 00:00+00' + (i % 300) * interval '1 day', {AMOUNT}
           from generate_series(1, {ACCOUNTS}) i;
         create table journal (w int primary key, n bigint not null);
         insert into journal select i, 0 from generate_series(1, {WRITERS}) i;
         create function bank_sum() returns bigint language plpgsql stable as
           $$ begin return (select sum(amount) from bank); end $$;
         analyze bank"
    ))
    .await;
}

/// The running writers and readers.
#[derive(Debug)]
pub struct Bank {
    writers: Writers,
    readers: Readers,
}

impl Bank {
    /// Starts the writers, and a reader for each way to read.
    pub async fn open(db: &Database) -> Self {
        let mut writers = Writers::default();
        for number in 1..=WRITERS {
            let client = connect(db.dsn()).await;
            writers.add(|shift| write(shift, client, number));
        }
        Self { writers, readers: Readers::start(db, &question(), &READINGS) }
    }

    /// Adds a reader, for example on a standby.
    pub fn add(&mut self, dsn: &str, reading: Reading, on: &'static str) {
        self.readers.add(dsn, &question(), reading, on);
    }

    /// Waits until `n` more transactions are committed.
    pub async fn commit_more(&self, n: u64) {
        self.writers.commit_more(n).await;
    }

    /// Stops writers and readers; fails if any read was wrong.
    pub async fn close(self) {
        println!("{} transactions", self.writers.stop().await);
        self.readers.stop().await;
    }
}

/// The query for the balance.
fn question() -> Question {
    Question { query: BALANCE.to_owned(), by_function: BY_FUNCTION.to_owned(), right: ACCOUNTS * AMOUNT }
}

/// A writer: it changes amounts, moves accounts to other days, and opens and closes an account, each with an entry in
/// the journal.
async fn write(shift: Shift, client: Client, number: i64) {
    let mut rng = StdRng::seed_from_u64(number.cast_unsigned());
    let isolation = ["read committed", "repeatable read", "serializable", "read committed"]
        [usize::try_from(number).unwrap() % 4];
    let mut open_account = None;
    let mut last = number * 1_000_000;
    while shift.is_open() {
        // Each writer has its own accounts, because an update fails if a concurrent transaction moves the row to
        // another partition.
        let mut account = || rng.random_range(0..ACCOUNTS / WRITERS) * WRITERS + number;
        let (a, c) = (account(), account());
        let b = rng.random_range(0..2) * 40;
        let (account, opened, paid) = match open_account {
            _ if !rng.random_ratio(1, 5) => (String::new(), open_account, 1),
            None => {
                last += 1;
                (
                    format!("insert into bank (id, at, amount) values ({last}, '2025-03-03', 1);"),
                    Some(last),
                    2,
                )
            }
            Some(id) => (format!("delete from bank where id = {id};"), None, 0),
        };
        let sql = format!(
            "begin isolation level {isolation};
             update journal set n = n + {paid} where w = {number};
             update bank set amount = amount - 1 where id = {a};
             update bank set amount = amount + 2, at = at + {b} * interval '1 day' where id = {c};
             {account} commit"
        );
        match client.batch_execute(&sql).await {
            Ok(()) => {
                open_account = opened;
                shift.committed();
            }
            Err(e) => {
                let expected = is_refused(&e) && isolation != "read committed";
                assert!(expected, "{isolation}: {e:?}");
                client.batch_execute("rollback").await.unwrap();
            }
        }
        tokio::time::sleep(Duration::from_millis(8)).await;
    }
}
