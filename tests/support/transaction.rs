//! One application transaction: a few random statements, each on the table and on its truth.

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
    /// A statement found another number of rows in the table than in the truth.
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

/// A connection of the application, with its isolation level and a statement that it keeps prepared for its lifetime.
#[derive(Debug)]
pub struct Writer {
    client: Client,
    spec: Arc<TableSpec>,
    rng: StdRng,
    retitle: [Statement; 2],
    /// A COPY failed: if the server refuses it before the first row, the driver loses count of the server's answers.
    out_of_step: bool,
    /// The duration of the longest statement on the table.
    pub longest_wait: Duration,
}

/// What a transaction can do next.
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

/// How often each is chosen.
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

impl Writer {
    /// Connects, with an isolation level that depends on the seed.
    pub async fn connect(dsn: &str, spec: &Arc<TableSpec>, seed: u64) -> Result<Self, Trouble> {
        let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
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
        Ok(Self { client, spec, rng, retitle, out_of_step: false, longest_wait })
    }

    /// Whether the connection can be used again.
    pub fn is_open(&self) -> bool {
        !self.client.is_closed() && !self.out_of_step
    }

    /// The keys that have rows, of these or of all.
    pub async fn known_keys(&self, of: Option<&[Key]>) -> Result<Vec<Key>, Trouble> {
        let condition = match of {
            Some([]) => return Ok(Vec::new()),
            Some(keys) => self.spec.is_one_of(keys),
            None => "true".to_owned(),
        };
        let sql = format!("select {} from {} where {condition}", self.spec.key_list(), self.spec.truth);
        Ok(rows_of(&self.client.simple_query(&sql).await?))
    }

    /// Empties both tables.
    pub async fn truncate(&mut self) -> Result<(), Trouble> {
        self.begin().await?;
        let ended = self.both("truncate @").await.map(drop);
        self.end(ended.map(|()| true)).await.map(drop)
    }

    /// One transaction on the keys it owns; true if committed. If not, what it did to `mine` did not happen.
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

    /// The statements of a transaction; false if it wants to be rolled back.
    async fn steps(&mut self, mine: &mut Keys) -> Result<bool, Trouble> {
        if self.rng.random_bool(0.05) {
            // The snapshot of a stricter isolation level is old by the time of the first write.
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

    /// A step that this table supports and for which there are enough keys.
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

    /// Inserts a key that was deleted before.
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
        self.out_of_step = true;
        self.copy_rows(mine).await?;
        self.out_of_step = false;
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

    /// Names the constraint, and gives the row's own partition column: so it means the same row whether or not the
    /// constraint's columns include the partition column.
    async fn upsert(&mut self, mine: &mut Keys) -> Result<(), Trouble> {
        let key = mine.alive[0].clone();
        let Some(created_at) = self.look(&key, "created_at::text").await?.into_iter().next() else {
            return Err(Trouble::Lost(format!("{key:?} is in the pool, but not in the truth")));
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

    /// Gives a row another key: a new one, or one that was deleted before.
    async fn rekey(&mut self, mine: &mut Keys) -> Result<(), Trouble> {
        let to = mine.dead.pop().unwrap_or_else(|| self.spec.fresh_key(&mut self.rng));
        let from = mine.alive.swap_remove(0);
        self.set_key(&from, &to).await?;
        mine.dead.push(from);
        mine.alive.push(to);
        Ok(())
    }

    /// Gives a row a key that its collation considers the same.
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

    /// Two rows exchange their values of the second unique index, by way of a value of no row.
    async fn swap_slots(&mut self, mine: &Keys) -> Result<(), Trouble> {
        let (one, other) = (&mine.alive[0], &mine.alive[1]);
        let (slot_of_one, slot_of_other) = (self.slot(one).await?, self.slot(other).await?);
        self.set_slot(one, "created_at, -slot - 1").await?;
        self.set_slot(other, &slot_of_one).await?;
        self.set_slot(one, &slot_of_other).await
    }

    /// A row takes over the values of the second unique index from a deleted one.
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

    /// What the truth holds for a key.
    async fn look(&mut self, key: &Key, columns: &str) -> Result<Key, Trouble> {
        let condition = self.spec.is_one_of(std::slice::from_ref(key));
        let sql = format!("select {columns} from {} where {condition}", self.spec.truth);
        Ok(rows_of(&self.client.simple_query(&sql).await?).pop().unwrap_or_default())
    }

    /// A statement on the table and on the truth, whose names stand at the `@`s; how many rows it found.
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
    Err(Trouble::Lost(format!("{on_table} rows in the table, {on_truth} in the truth: {what}")))
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
