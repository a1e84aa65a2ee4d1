//! A row that an application changes is filled from its newest version, never from an older one, and the job causes no
//! deadlock with an application. A trigger checks each row version as it is written.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::{LEFT_BEHIND, lab};
use crate::support::cluster::connect;
use crate::support::lab::Lab;
use crate::support::writers::Writers;

const ROWS: i64 = 6_000;
const WRITERS: i64 = 4;
/// Rows per writer. Only this writer and the job change them, so writers never deadlock with each other.
const OWN: i64 = 60;

/// `x` is computed from `v` and the row that `ref` references. The expression is slow, so that writes happen between
/// the snapshot and the row locks of a chunk.
const EXPRESSION: &str =
    "t.v * 10 + coalesce(e.rate, 0) + (select count(*) from generate_series(1, 500) s where s < 0)";

/// Records rows in which `x` does not match the other columns, and rows in which the job changed another column than
/// `x`.
const WATCH: &str = "
    create table wrong (who text, old_row text, new_row text);
    create function watch() returns trigger language plpgsql as $$ begin
        if new.x is distinct from new.v * 10 + new.ref * 1000
           or current_setting('application_name') like 'pgstrata/%'
              and to_jsonb(old) - 'x' is distinct from to_jsonb(new) - 'x' then
            insert into wrong values (current_setting('application_name'), old::text, new::text);
        end if;
        return null;
    end $$;
    create trigger watch after update on items for each row
        when (new.x is not null and new.x is distinct from old.x) execute function watch();";

fn table(partitioned: bool) -> String {
    let (key, rest) = if partitioned {
        let parts = (0..4).map(|n| format!("create table items_{n} partition of items for values in ({n});"));
        ("id, ref", format!(") partition by list (ref); {}", parts.collect::<String>()))
    } else {
        ("id", ");".to_owned())
    };
    format!(
        "create table refs (id int primary key, rate bigint not null);
         insert into refs select i, i * 1000 from generate_series(0, 3) i;
         create table items (id bigint, ref int not null, v bigint not null, note text, x bigint, primary key ({key}){rest}
         insert into items select i, i % 4, 0, 'note ' || i from generate_series(1, {ROWS}) i;
         analyze items; {WATCH}"
    )
}

fn plan(keep_filled: &str) -> String {
    format!(
        "table = 'items'\n[copy]\nworkers = 3\ntarget_batch_ms = 100\n[backfill]\nfrom = 'refs e on e.id = t.ref'\n\
         set = {{ x = '{EXPRESSION}' }}\nwhere = 't.x is null'\nkeep_filled = {keep_filled}\n"
    )
}

/// Starts applications; each of their transactions must succeed.
async fn applications(job: &Lab) -> Writers {
    let mut writers = Writers::default();
    for n in 0..WRITERS {
        let client = connect(job.db.dsn()).await;
        let rng = StdRng::seed_from_u64(n as u64);
        let own = (0..OWN).map(|i| i * (ROWS / OWN) + n + 1).collect();
        let mut writer = ItemWriter { client, rng, own, fresh: ROWS * 1000 + n, holds_long: n == 0 };
        writers.add(|shift| async move {
            while shift.is_open() {
                writer.transaction().await;
                shift.committed();
            }
        });
    }
    writers
}

struct ItemWriter {
    client: tokio_postgres::Client,
    rng: StdRng,
    own: Vec<i64>,
    fresh: i64,
    /// Whether it runs long transactions. Only one writer does, so that the job can create its trigger between them.
    holds_long: bool,
}

impl ItemWriter {
    /// Locks some of its own rows in random order and holds the locks, sometimes longer than the job waits for a lock.
    async fn transaction(&mut self) {
        let long = self.holds_long && self.rng.random_ratio(1, 60);
        let hold_ms = if long { 900 } else { self.rng.random_range(0..25) };
        let n = self.rng.random_range(1..=5);
        self.own.shuffle(&mut self.rng);
        self.execute("begin").await;
        for i in 0..n {
            self.step(i).await;
            tokio::time::sleep(Duration::from_millis(hold_ms / n as u64)).await;
        }
        self.execute("commit").await;
    }

    async fn step(&mut self, i: usize) {
        let id = self.own[i];
        let sql = match self.rng.random_range(0..12) {
            0 => format!("select from items where id = {id} for update"),
            1..=3 => format!("update items set ref = (ref + 1) % 4 where id = {id}"),
            4..=6 => format!("update items set v = v + 1 where id = {id}"),
            7 => format!("update items set v = v + 1, x = null where id = {id}"),
            8 => {
                // The new key is close to the old one, so that one chunk may contain both.
                self.own[i] = if id > ROWS { id - ROWS * 2 } else { -id };
                format!("update items set id = {} where id = {id}", self.own[i])
            }
            9 => format!(
                "savepoint here; update items set v = v + 100, x = -1 where id = {id}; rollback to savepoint here"
            ),
            10 => {
                self.fresh += WRITERS;
                format!("insert into items values ({}, 1, 5, 'new')", self.fresh)
            }
            _ => format!("update items set note = note || '!' where id = {id}"),
        };
        self.execute(&sql).await;
    }

    async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }
}

async fn is_filled_from_the_newest_version(partitioned: bool, keep_filled: &str) {
    let job = lab(&table(partitioned), &plan(keep_filled)).await;
    let writers = applications(&job).await;
    writers.commit_more(20).await;
    let ran = job.ok("run").await;
    writers.commit_more(50).await;
    job.none("select count(*) from wrong").await;
    writers.stop().await;
    if keep_filled != "\"always\"" {
        // Rows that were written after the scan had passed them are filled by the next run.
        job.ok("run").await;
    }
    let wrong = job.one("select coalesce(string_agg(wrong::text, e'\n'), '') from wrong").await;
    assert_eq!(wrong, "", "{}", ran.stderr);
    job.none("select count(*) from items where x is null").await;
    let left = i64::from(keep_filled == "\"always\"") * 2
        + if partitioned && keep_filled == "\"always\"" { 4 } else { 0 };
    assert_eq!(job.count(LEFT_BEHIND).await, left);
}

#[tokio::test]
async fn without_the_trigger() {
    is_filled_from_the_newest_version(false, "false").await;
}

#[tokio::test]
async fn with_the_trigger() {
    is_filled_from_the_newest_version(false, "true").await;
}

#[tokio::test]
async fn with_the_trigger_kept_after_the_job() {
    is_filled_from_the_newest_version(true, "\"always\"").await;
}

#[tokio::test]
async fn rows_that_move_between_partitions() {
    is_filled_from_the_newest_version(true, "false").await;
}
