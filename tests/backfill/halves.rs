//! A chunk that fails because of a lock is split in halves. A single row that cannot be locked is left to the second
//! pass. The job causes no deadlock with applications.

use std::time::Duration;

use super::lab;
use crate::support::lab::Lab;
use crate::support::process::ended;

const ROWS: i64 = 3_000;

const SETUP: &str = "create table items (id bigint primary key, code text unique, note text);
    insert into items (id) select i from generate_series(1, 3000) i;
    analyze items";

/// Asserts that the recorded chunks cover every row once, are adjacent, and have at most `most` rows.
async fn each_row_is_in_one_chunk(job: &Lab, most: i64) {
    let seen = "select sum(seen)::bigint from pgstrata.chunks where step = 'fill'";
    assert_eq!(job.count(seen).await, ROWS);
    job.none(&format!("select count(*) from pgstrata.chunks where seen > {most}")).await;
    job.none(
        "select count(*) from (
             select \"after\", lag(through) over (order by through[1]::bigint nulls last) as before
             from pgstrata.chunks where step = 'fill') c where \"after\" is distinct from before",
    )
    .await;
}

#[tokio::test]
async fn a_chunk_that_deadlocks_is_split_in_halves() {
    for code in ["40P01", "55P03"] {
        let job = lab(
            &format!(
                "{SETUP};
                 create function few() returns trigger language plpgsql as $$ begin
                     if (select count(*) from changed) > 50 then raise 'too many' using errcode = '{code}'; end if;
                     return null;
                 end $$;
                 create trigger few after update on items referencing new table as changed
                     for each statement execute function few()"
            ),
            "table = 'items'\n[backfill]\nset = { note = \"'n' || t.id\" }\n",
        )
        .await;
        job.killed("run", "fill.chunks_done").await;
        each_row_is_in_one_chunk(&job, 50).await;
        job.ok("run").await;
        job.none("select count(*) from items where note is distinct from 'n' || id").await;
    }
}

/// The first pass skips the rows that fail.
#[tokio::test]
async fn a_row_that_cannot_be_locked_is_left_to_the_second_pass() {
    let job = lab(
        &format!(
            "{SETUP};
             create table busy (id bigint); insert into busy values (1), (777), (3000);
             create function wait() returns trigger language plpgsql as $$ begin
                 if exists (select from busy where id = new.id) then raise 'busy' using errcode = '55P03'; end if;
                 return new;
             end $$;
             create trigger wait before update on items for each row execute function wait()"
        ),
        "table = 'items'\n[backfill]\nset = { note = \"'n' || t.id\" }\n",
    )
    .await;
    job.killed("run", "fill.done").await;
    each_row_is_in_one_chunk(&job, ROWS).await;
    assert_eq!(
        job.one("select string_agg(id::text, ' ' order by id) from items where note is null").await,
        "1 777 3000"
    );
    let run = job.start("run", &[]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    job.db.execute("delete from busy").await;
    ended(run).await.ok();
    job.none("select count(*) from items where note is distinct from 'n' || id").await;
}

#[tokio::test]
async fn a_row_that_is_locked_for_long_delays_no_other() {
    let job = lab(
        SETUP,
        "table = 'items'\n[swap]\nattempts = 4\n[backfill]\nset = { note = \"'n' || t.id\" }\nwhere = 't.note is null'\n",
    )
    .await;
    let mut client = job.db.client().await;
    let holder = client.transaction().await.unwrap();
    holder.execute("select from items where id between 1500 and 1505 for update", &[]).await.unwrap();
    let ran = job.ran("run").await.exits(5);
    let named = ran.stderr.contains(" public.items ") && ran.stderr.contains("key: 1500\n");
    assert!(named, "{}", ran.stderr);
    assert_eq!(job.count("select count(*) from items where note is null").await, 6, "a row was not filled");
    assert_eq!(job.one("select state from pgstrata.jobs").await, "filled");
    // The transaction that holds the locks changes and deletes its rows.
    holder.execute("update items set id = -id where id = 1501", &[]).await.unwrap();
    holder.execute("delete from items where id = 1502", &[]).await.unwrap();
    let run = job.start("run", &[]);
    job.until(
        "select exists (select from pg_stat_activity where datname = current_database()
             and application_name like 'pgstrata/%' and wait_event_type = 'Lock')",
    )
    .await;
    holder.commit().await.unwrap();
    ended(run).await.ok();
    job.ok("run").await;
    job.none("select count(*) from items where note is null").await;
}

/// The application inserts a unique value that the job is about to set in another row, and then updates a row that the
/// job has locked: a deadlock if both waited long enough.
#[tokio::test]
async fn an_application_is_never_a_deadlock_victim() {
    let job = lab(
        SETUP,
        "table = 'items'\n[backfill]\nset = { code = \"'c' || t.id\" }\nwhere = 't.code is null'\nkeep_filled = true\n\
         [throttle]\nrows_per_second = 1500\n",
    )
    .await;
    let client = job.db.client().await;
    let run = job.start("run", &[]);
    job.until("select exists (select from pgstrata.jobs where state = 'capturing')").await;
    let mut n = 0;
    while job.count("select count(*) from pgstrata.jobs where state = 'capturing'").await == 1 {
        n += 1;
        let far = ROWS - (n * 37) % 1000;
        let near = (n * 41) % ROWS + 1;
        let sql = format!(
            "begin; insert into items (id, code) values ({}, 'c{far}') on conflict do nothing; select pg_sleep(0.01);
             update items set note = 'mine' where id in ({near}, {});
             rollback",
            1_000_000 + n,
            (near + 500) % ROWS + 1
        );
        client.batch_execute(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }
    assert!(n > 10, "{n} transactions");
    ended(run).await.ok();
    job.none("select count(*) from items where code is distinct from 'c' || id").await;
}
