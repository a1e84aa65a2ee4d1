//! One transaction of an application: some random statements, each on the table and on its truth copy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::SinkExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, Statement};

use super::load::Keys;
use super::tables::{Key, TableSpec, copy_line, key_literals, literal, literals, random_instant};

/// Why a transaction ended early.
#[derive(Debug)]
pub enum Trouble {
    Serialization,
    Disconnected,
    /// A statement affected another number of rows in the table than in the truth copy.
    Lost(String),
    Other(String),
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        let gone = [
            &SqlState::ADMIN_SHUTDOWN,
            &SqlState::CRASH_SHUTDOWN,
            &SqlState::CANNOT_CONNECT_NOW,
            &SqlState::CONNECTION_FAILURE,
        ];
        match error.code() {
            None => Self::Disconnected,
            Some(code) if gone.contains(&code) => Self::Disconnected,
            Some(&SqlState::T_R_SERIALIZATION_FAILURE) => Self::Serialization,
            Some(code) => Self::Other(format!("{} {error:?}", code.code())),
        }
    }
}

/// A session of the application, with its isolation level and a prepared statement that it keeps.
#[derive(Debug)]
pub struct Writer {
    client: Client,
    spec: Arc<TableSpec>,
    rng: StdRng,
    retitle: [Statement; 2],
    /// A COPY failed. If the server rejects a COPY before the first row, the client library gets out of sync with the
    /// protocol.
    out_of_sync: bool,
    /// The duration of the longest statement on the table.
    pub longest_wait: Duration,
}

/// A step of a transaction.
#[derive(Debug, Clone, Copy)]
enum Step {
    Insert,
    InsertMany,
    Revive,
    Copy,
    Upsert,
    Update,
    UpdatePrepared,
    UpdateMany,
    Rekey,
    Respell,
    Move,
    Delete,
    DeleteMany,
    SwapSlots,
    TakeSlot,
}

/// The relative frequency of each step.
const WEIGHTS: [(Step, u32); 15] = [
    (Step::Insert, 16),
    (Step::InsertMany, 5),
    (Step::Revive, 6),
    (Step::Copy, 3),
    (Step::Upsert, 8),
    (Step::Update, 10),
    (Step::UpdatePrepared, 12),
    (Step::UpdateMany, 6),
    (Step::Rekey, 8),
    (Step::Respell, 4),
    (Step::Move, 10),
    (Step::Delete, 8),
    (Step::DeleteMany, 4),
    (Step::SwapSlots, 8),
    (Step::TakeSlot, 5),
];

/// A test may set timeouts of the database for the sessions of the job.
const NO_TIMEOUTS: &str = "options='-c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0 \
    -c idle_in_transaction_session_timeout=0'";

impl Writer {
    /// Connects, with an isolation level that depends on the seed.
    pub async fn connect(dsn: &str, spec: &Arc<TableSpec>, seed: u64) -> Result<Self, Trouble> {
        let dsn = format!("{dsn} {NO_TIMEOUTS}");
        let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await?;
        tokio::spawn(connection);
        let isolation =
            ["read committed", "repeatable read", "serializable", "read committed"][seed as usize % 4];
        client
            .batch_execute(&format!(
                "set application_name = 'writer'; set timezone = 'UTC'; set default_transaction_isolation = '{isolation}'"
            ))
            .await?;
        client.batch_execute(spec.session).await?;
        let retitle = |name: &str| {
            let key: Vec<_> = spec
                .key_columns()
                .iter()
                .enumerate()
                .map(|(i, (_, of))| format!("${}::text::{of}", i + 2))
                .collect();
            format!("update {name} set title = $1 where ({}) = ({})", spec.key_list(), key.join(", "))
        };
        let retitle =
            [client.prepare(&retitle(&spec.table)).await?, client.prepare(&retitle(&spec.truth)).await?];
        let rng = StdRng::seed_from_u64(seed);
        let (spec, longest_wait) = (spec.clone(), Duration::ZERO);
        Ok(Self { client, spec, rng, retitle, out_of_sync: false, longest_wait })
    }

    /// Whether the session can be used again.
    pub fn is_open(&self) -> bool {
        !self.client.is_closed() && !self.out_of_sync
    }

    /// The keys that have rows, among `of` or among all.
    pub async fn known_keys(&self, of: Option<&[Key]>) -> Result<Vec<Key>, Trouble> {
        let condition = match of {
            Some([]) => return Ok(Vec::new()),
            Some(keys) => self.spec.is_one_of(keys),
            None => "true".to_owned(),
        };
        let sql = format!("select {} from {} where {condition}", self.spec.key_list(), self.spec.truth);
        Ok(rows_of(&self.client.simple_query(&sql).await?))
    }

    /// Truncates both tables.
    pub async fn truncate(&mut self) -> Result<(), Trouble> {
        self.begin().await?;
        let ended = self.both("truncate @").await.map(drop);
        self.end(ended.map(|()| true)).await.map(drop)
    }

    /// Runs one transaction on the keys `mine`; returns true if it was committed. If not, the changes to `mine` are
    /// invalid.
    pub async fn transaction(&mut self, mine: &mut Keys) -> Result<bool, Trouble> {
        self.begin().await?;
        let ended = self.steps(mine).await;
        self.end(ended).await
    }

    async fn begin(&mut self) -> Result<(), Trouble> {
        Ok(self.client.batch_execute("begin").await?)
    }

    async fn end(&mut self, ended: Result<bool, Trouble>) -> Result<bool, Trouble> {
        if let Ok(true) = ended {
            self.timed("commit").await?;
        } else if self.is_open() {
            self.client.batch_execute("rollback").await?;
        }
        ended
    }

    /// Runs the statements of a transaction; returns false if the transaction is to be rolled back.
    async fn steps(&mut self, mine: &mut Keys) -> Result<bool, Trouble> {
        if self.rng.random_bool(0.05) {
            // Take a snapshot some time before the first write, which matters at the higher isolation levels.
            self.client.batch_execute("select 1").await?;
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(1..50))).await;
        }
        for _ in 0..self.rng.random_range(1..=4) {
            if self.rng.random_bool(0.15) {
                let before = mine.clone();
                self.client.batch_execute("savepoint here").await?;
                self.step(mine).await?;
                if self.rng.random_bool(0.5) {
                    self.client.batch_execute("rollback to savepoint here").await?;
                    *mine = before;
                } else {
                    self.client.batch_execute("release savepoint here").await?;
                }
            } else {
                self.step(mine).await?;
            }
        }
        Ok(self.rng.random_bool(0.93))
    }

    async fn step(&mut self, mine: &mut Keys) -> Result<(), Trouble> {
        match self.choose(mine) {
            Step::Insert if self.spec.has_default_key() => self.insert_default(mine).await,
            Step::Insert => self.insert(mine, 1).await,
            Step::InsertMany => self.insert(mine, 5).await,
            Step::Revive => self.revive(mine).await,
            Step::Copy => self.copy(mine).await,
            Step::Upsert => self.upsert(mine).await,
            Step::Update => self.update(&mine.alive[..1]).await,
            Step::UpdatePrepared => self.update_prepared(&mine.alive[0]).await,
            Step::UpdateMany => self.update(&mine.alive).await,
            Step::Rekey => self.rekey(mine).await,
            Step::Respell => self.respell(mine).await,
            Step::Move => {
                let condition = self.spec.is_one_of(&mine.alive[..1]);
                let to = random_instant(&mut self.rng);
                self.both(&format!("update @ set created_at = '{to}' where {condition}")).await.map(drop)
            }
            Step::Delete => self.delete(mine, 1).await,
            Step::DeleteMany => self.delete(mine, 4).await,
            Step::SwapSlots => self.swap_slots(mine).await,
            Step::TakeSlot => self.take_slot(mine).await,
        }
    }

    /// Chooses a step that this table supports and for which there are enough keys.
    fn choose(&mut self, mine: &Keys) -> Step {
        let possible = |step: Step| match step {
            Step::Insert | Step::InsertMany | Step::Copy => true,
            Step::Revive => !mine.dead.is_empty(),
            Step::SwapSlots | Step::TakeSlot => self.spec.has_slots() && mine.alive.len() >= 2,
            Step::Respell => self.spec.key_columns().len() > 1 && !mine.alive.is_empty(),
            _ => !mine.alive.is_empty(),
        };
        let weighed = |step: Step, weight: u32| match step {
            Step::Delete | Step::DeleteMany => (step, weight * self.spec.deletes),
            _ => (step, weight),
        };
        let possible: Vec<_> =
            WEIGHTS.into_iter().filter(|(step, _)| possible(*step)).map(|(s, w)| weighed(s, w)).collect();
        let mut at = self.rng.random_range(0..possible.iter().map(|(_, weight)| weight).sum());
        for (step, weight) in possible {
            if at < weight {
                return step;
            }
            at -= weight;
        }
        Step::Insert
    }

    async fn insert_default(&mut self, mine: &mut Keys) -> Result<(), Trouble> {
        let payload = literals(&self.spec.payload(&mut self.rng));
        let columns = self.spec.payload_columns().join(", ");
        let key_list = self.spec.key_list();
        let sql =
            format!("insert into {} ({columns}) values ({payload}) returning {key_list}", self.spec.table);
        let answer = self.timed(&sql).await?;
        let key = rows_of(&answer).pop().ok_or(Trouble::Lost(sql))?;
        let sql = format!(
            "insert into {} ({key_list}, {columns}) values ({}, {payload})",
            self.spec.truth,
            key_literals(&key)
        );
        self.client.simple_query(&sql).await?;
        mine.alive.push(key);
        Ok(())
    }

    async fn insert(&mut self, mine: &mut Keys, n: usize) -> Result<(), Trouble> {
        let keys: Vec<_> = (0..n).map(|_| self.spec.fresh_key(&mut self.rng)).collect();
        self.insert_keys(&keys, "").await?;
        mine.alive.extend(keys);
        Ok(())
    }

    /// Inserts a row with a key that was deleted before.
    async fn revive(&mut self, mine: &mut Keys) -> Result<(), Trouble> {
        let key = mine.dead.remove(0);
        self.insert_keys(std::slice::from_ref(&key), "").await?;
        mine.alive.push(key);
        Ok(())
    }

    async fn insert_keys(&mut self, keys: &[Key], tail: &str) -> Result<u64, Trouble> {
        let rows: Vec<_> = keys
            .iter()
            .map(|key| format!("({}, {})", key_literals(key), literals(&self.spec.payload(&mut self.rng))))
            .collect();
        let columns = self.spec.payload_columns().join(", ");
        let key_list = self.spec.key_list();
        self.both(&format!("insert into @ ({key_list}, {columns}) values {} {tail}", rows.join(", "))).await
    }

    async fn copy(&mut self, mine: &mut Keys) -> Result<(), Trouble> {
        self.out_of_sync = true;
        self.copy_rows(mine).await?;
        self.out_of_sync = false;
        Ok(())
    }

    async fn copy_rows(&mut self, mine: &mut Keys) -> Result<(), Trouble> {
        let mut lines = String::new();
        for _ in 0..self.rng.random_range(1..8) {
            let key = self.spec.fresh_key(&mut self.rng);
            let values: Vec<_> =
                key.iter().cloned().map(Some).chain(self.spec.payload(&mut self.rng)).collect();
            lines += &copy_line(&values);
            mine.alive.push(key);
        }
        let mut counts = [0, 0];
        for (name, count) in [&self.spec.table, &self.spec.truth].into_iter().zip(&mut counts) {
            let columns = self.spec.payload_columns().join(", ");
            let sql = format!("copy {name} ({}, {columns}) from stdin", self.spec.key_list());
            let began = Instant::now();
            let sink = self.client.copy_in(&sql).await?;
            let mut sink = std::pin::pin!(sink);
            sink.send(std::io::Cursor::new(lines.clone().into_bytes())).await?;
            *count = sink.finish().await?;
            if *name == self.spec.table {
                self.longest_wait = self.longest_wait.max(began.elapsed());
            }
        }
        same(counts, "copy")
    }

    /// Names the constraint and uses the row's current value of the partition column, so that the statement affects the
    /// same row whether the constraint contains the partition column or not.
    async fn upsert(&mut self, mine: &mut Keys) -> Result<(), Trouble> {
        let key = mine.alive[0].clone();
        let Some(created_at) = self.look(&key, "created_at::text").await?.into_iter().next() else {
            return Err(Trouble::Lost(format!("{key:?} is in the pool, but not in the truth copy")));
        };
        let columns = self.spec.payload_columns().join(", ");
        let mut payload = self.spec.payload(&mut self.rng);
        payload[0] = Some(created_at);
        let (key_list, key) = (self.spec.key_list(), key_literals(&key));
        let payload = literals(&payload);
        self.both(&format!(
            "insert into @ ({key_list}, {columns}) values ({key}, {payload})
             on conflict on constraint @_pkey do update set title = excluded.title, amount = @.amount + 1"
        ))
        .await?;
        let fresh = self.spec.fresh_key(&mut self.rng);
        self.insert_keys(
            std::slice::from_ref(&fresh),
            "on conflict on constraint @_pkey do update set flag = not @.flag",
        )
        .await?;
        mine.alive.push(fresh);
        Ok(())
    }

    async fn update(&mut self, keys: &[Key]) -> Result<(), Trouble> {
        let condition = self.spec.is_one_of(keys);
        let n: u32 = self.rng.random();
        let sql = format!(
            "update @ set amount = {}, doc = doc || '{{\"n\": {n}}}', flag = not flag where {condition}",
            n % 10_000
        );
        self.both(&sql).await.map(drop)
    }

    async fn update_prepared(&mut self, key: &Key) -> Result<(), Trouble> {
        let title = format!("title {}", self.rng.random::<u32>());
        let mut parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = vec![&title];
        for value in key {
            parameters.push(value);
        }
        let began = Instant::now();
        let on_table = self.client.execute(&self.retitle[0], &parameters).await?;
        self.longest_wait = self.longest_wait.max(began.elapsed());
        let on_truth = self.client.execute(&self.retitle[1], &parameters).await?;
        same([on_table, on_truth], &format!("prepared update of {key:?}"))
    }

    /// Changes the key of a row to a new one, or to one that was deleted before.
    async fn rekey(&mut self, mine: &mut Keys) -> Result<(), Trouble> {
        let to = mine.dead.pop().unwrap_or_else(|| self.spec.fresh_key(&mut self.rng));
        let from = mine.alive.swap_remove(0);
        self.set_key(&from, &to).await?;
        mine.dead.push(from);
        mine.alive.push(to);
        Ok(())
    }

    /// Changes the key of a row to one that its collation considers equal.
    async fn respell(&mut self, mine: &mut Keys) -> Result<(), Trouble> {
        let from = mine.alive[0].clone();
        if let Some(to) = self.spec.respelled(&from) {
            self.set_key(&from, &to).await?;
            mine.alive[0] = to;
        }
        Ok(())
    }

    async fn set_key(&mut self, from: &Key, to: &Key) -> Result<(), Trouble> {
        let condition = self.spec.is_one_of(std::slice::from_ref(from));
        let key_list = self.spec.key_list();
        self.both(&format!("update @ set ({key_list}) = row({}) where {condition}", key_literals(to)))
            .await
            .map(drop)
    }

    async fn delete(&mut self, mine: &mut Keys, n: usize) -> Result<(), Trouble> {
        let keys: Vec<_> = mine.alive.drain(..n.min(mine.alive.len())).collect();
        self.both(&format!("delete from @ where {}", self.spec.is_one_of(&keys))).await?;
        mine.dead.extend(keys);
        Ok(())
    }

    /// Exchanges the values of the second unique index of two rows, with a temporary value.
    async fn swap_slots(&mut self, mine: &Keys) -> Result<(), Trouble> {
        let (first, second) = (&mine.alive[0], &mine.alive[1]);
        let (first_slot, second_slot) = (self.slot(first).await?, self.slot(second).await?);
        self.set_slot(first, "created_at, -slot - 1").await?;
        self.set_slot(second, &first_slot).await?;
        self.set_slot(first, &second_slot).await
    }

    /// Deletes a row and sets its values of the second unique index in another row.
    async fn take_slot(&mut self, mine: &mut Keys) -> Result<(), Trouble> {
        let slot = self.slot(&mine.alive[0]).await?;
        self.delete(mine, 1).await?;
        self.set_slot(&mine.alive[0], &slot).await
    }

    async fn slot(&mut self, key: &Key) -> Result<String, Trouble> {
        let values = self.look(key, "created_at::text, slot::text").await?;
        Ok(values.iter().map(|value| literal(Some(value))).collect::<Vec<_>>().join(", "))
    }

    async fn set_slot(&mut self, key: &Key, to: &str) -> Result<(), Trouble> {
        let condition = self.spec.is_one_of(std::slice::from_ref(key));
        self.both(&format!("update @ set (created_at, slot) = row({to}) where {condition}")).await.map(drop)
    }

    /// The values of a row in the truth copy.
    async fn look(&mut self, key: &Key, columns: &str) -> Result<Key, Trouble> {
        let condition = self.spec.is_one_of(std::slice::from_ref(key));
        let sql = format!("select {columns} from {} where {condition}", self.spec.truth);
        Ok(rows_of(&self.client.simple_query(&sql).await?).pop().unwrap_or_default())
    }

    /// Runs a statement on the table and on the truth copy, whose names replace `@`; returns the number of affected
    /// rows.
    async fn both(&mut self, sql: &str) -> Result<u64, Trouble> {
        let on_table = sql.replace('@', &self.spec.table);
        let on_table = rows_affected(&self.timed(&on_table).await?);
        let on_truth = sql.replace('@', &self.spec.truth);
        let on_truth = rows_affected(&self.client.simple_query(&on_truth).await?);
        same([on_table, on_truth], sql)?;
        Ok(on_table)
    }

    async fn timed(&mut self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Trouble> {
        let began = Instant::now();
        let answer = self.client.simple_query(sql).await;
        self.longest_wait = self.longest_wait.max(began.elapsed());
        Ok(answer?)
    }
}

fn same([on_table, on_truth]: [u64; 2], what: &str) -> Result<(), Trouble> {
    if on_table == on_truth {
        return Ok(());
    }
    Err(Trouble::Lost(format!("{on_table} rows in the table, {on_truth} in the truth copy: {what}")))
}

fn rows_affected(answer: &[SimpleQueryMessage]) -> u64 {
    answer
        .iter()
        .map(|message| if let SimpleQueryMessage::CommandComplete(n) = message { *n } else { 0 })
        .sum()
}

fn rows_of(answer: &[SimpleQueryMessage]) -> Vec<Key> {
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|i| row.get(i).unwrap_or_default().to_owned()).collect())
        }
        _ => None,
    };
    answer.iter().filter_map(row).collect()
}
