//! Column type changes while applications write: swap, rollback, swap and finalize.

mod rebound;
mod refusals;
mod shop;

use std::path::Path;
use std::process::Stdio;

use crate::support::bench::DEADLOCK_TIMEOUT;
use crate::support::cluster::{Database, Version, on_version};
use crate::support::kills::side_by_side;
use crate::support::lab::Lab;
use crate::support::oracle;
use crate::support::process::{Ran, ended};
use shop::Shop;

on_version!(system System serial_key identity_key);
on_version!(v14 V14 serial_key identity_key);
on_version!(v18 V18 serial_key identity_key);

/// The example plan in plans/.
const PLAN: &str = include_str!("../plans/orders_id_bigint.toml");

/// The plan with longer limits, for an overloaded machine.
fn patient(plan: &str) -> String {
    format!("{plan}\n[swap]\nlock_timeout = \"1500ms\"\nattempts = 1000\n[copy]\ntarget_batch_ms = 20\n")
}

async fn run(db: &Database, plan: &Path) -> Ran {
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok()
}

/// The definition of the table: columns, indexes, constraints, sequences and triggers.
async fn described(db: &Database) -> String {
    let client = db.client().await;
    let rows = client
        .query(
            "select 'column ' || attname || ' ' || format_type(atttypid, atttypmod)
                 || case when attnotnull then ' not null' else '' end
                 || case attidentity when 'a' then ' always' when 'd' then ' by default' else '' end
                 || coalesce(' default ' || pg_get_expr(adbin, adrelid), '')
                 || coalesce(' -- ' || col_description(attrelid, attnum), '')
             from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
             where attrelid = 'orders'::regclass and attnum > 0 and not attisdropped
             union all select 'index ' || pg_get_indexdef(indexrelid) from pg_index where indrelid = 'orders'::regclass
             union all select 'constraint ' || conname || ' on ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid)
             from pg_constraint where (conrelid = 'orders'::regclass or confrelid = 'orders'::regclass) and contype <> 'n'
             union all select 'sequence ' || s.seqrelid::regclass || ' ' || format_type(seqtypid, null) || ' to ' || seqmax
             from pg_sequence s join pg_depend d on d.objid = seqrelid and d.refobjid = 'orders'::regclass
             union all select 'trigger ' || tgname from pg_trigger where tgrelid = 'orders'::regclass and not tgisinternal
             order by 1",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get::<_, String>(0) + "\n").collect()
}

async fn equals_truth(db: &Database) {
    for table in ["orders", "items", "refunds"] {
        oracle::compare(db, table, &format!("truth_{table}")).await;
    }
}

/// Objects of the job that finalize should have removed.
const LEFT_BEHIND: &str = "select
    (select count(*) from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname = 'pgstrata')
  + (select count(*) from pg_trigger where tgname like '%pgstrata%')
  + (select count(*) from pg_constraint where conname like '%pgstrata%' or conname ~ '_(new|old)$')
  + (select count(*) from pg_attribute where attname ~ '_(new|old)$' and attrelid = 'orders'::regclass)
  + (select count(*) from pg_class where relname ~ '_(new|old)$')
  + (select count(*) from pgstrata.chunks)";

/// Runs a job through all its steps while applications write.
async fn whole_life(version: Version, key: &str) -> Database {
    let db = Database::of(version).await;
    db.execute(DEADLOCK_TIMEOUT).await;
    shop::create(&db, key).await;
    let before = described(&db).await;
    let shop = Shop::open(&db, 4).await;
    let lab = Lab::on(db, &patient(PLAN));
    let db = &lab.db;
    shop.commit_more(50).await;
    lab.ok("run").await;
    equals_truth(db).await;
    for command in ["swap", "rollback", "swap", "finalize --now"] {
        shop.commit_more(100).await;
        lab.ok(command).await;
        shop.commit_more(50).await;
        equals_truth(db).await;
        if command == "rollback" {
            let _quiet = shop.pause().await;
            lab.ok("verify").await;
            let now = described(db).await;
            let extra: Vec<&str> = now.lines().filter(|line| !before.contains(line)).collect();
            let missing: Vec<&str> = before.lines().filter(|line| !now.contains(line)).collect();
            assert_eq!(missing, Vec::<&str>::new(), "{now}");
            assert!(extra.iter().all(|line| line.contains("_new") || line.contains("pgstrata")), "{extra:?}");
        }
    }
    shop.close().await;
    equals_truth(db).await;
    lab.none(LEFT_BEHIND).await;
    assert_eq!(
        before.replace("id integer", "id bigint"),
        with_former_sequence(&before, &described(db).await)
    );
    // Run the same plan again, as a scheduler would.
    let again = lab.ok("run").await;
    assert!(again.stderr.contains("is done"), "{}", again.stderr);
    lab.db
}

/// The description `now` with the sequence as in `before`, because the type of the sequence is expected to change.
fn with_former_sequence(before: &str, now: &str) -> String {
    let sequence = |text: &str| text.lines().find(|line| line.starts_with("sequence")).map(str::to_owned);
    match (sequence(before), sequence(now)) {
        (Some(was), Some(is)) => {
            assert!(is.contains("bigint to 9223372036854775807"), "{is}");
            now.replace(&is, &was)
        }
        _ => now.to_owned(),
    }
}

async fn serial_key(version: Version) {
    let db = whole_life(version, "serial").await;
    db.execute("select setval('orders_id_seq', 3000000000); insert into orders (customer) values (1)").await;
    assert_eq!(db.count("select max(id) from orders").await, 3_000_000_001);
}

async fn identity_key(version: Version) {
    let db = whole_life(version, "int generated by default as identity (increment by 2)").await;
    db.execute("alter table orders alter id restart 3000000000; insert into orders (customer) values (1)")
        .await;
    assert_eq!(db.count("select max(id) from orders").await, 3_000_000_000);
}

/// A column GENERATED ALWAYS AS IDENTITY stays one, and no number is generated twice.
#[tokio::test]
async fn an_identity_column_generates_no_number_twice() {
    let db = whole_life(Version::System, "int generated always as identity").await;
    assert_eq!(db.count("select count(*) - count(distinct id) from orders").await, 0);
}

/// An index on expressions that do not use the column, and a CHECK that uses no column, are not copied.
#[tokio::test]
async fn indexes_on_expressions_without_the_column_are_left_alone() {
    let db = Database::new().await;
    db.execute(
        "create table u2 (id int primary key, name text, check (true));
         create unique index u2_lower on u2 (lower(name)); create index u2_both on u2 (lower(name), (id + 1));
         insert into u2 select i, 'n' || i from generate_series(1, 100) i",
    )
    .await;
    let lab =
        Lab::on(db, "name = 'u2'\nkind = 'retype'\ntable = 'u2'\n[retype]\ncolumn = 'id'\nto = 'bigint'\n");
    let left = "select (select count(*) from pg_class where relname ~ '^u2.*_(new|old)$')
        + (select count(*) from pg_constraint where conrelid = 'u2'::regclass and conname ~ '_(new|old)$')";
    lab.steps(&["run", "abort"]).await;
    lab.none(left).await;
    lab.steps(&["run", "swap", "rollback", "swap", "finalize --now"]).await;
    lab.none(left).await;
    assert_eq!(
        lab.count("select count(*) from pg_index where indrelid = 'u2'::regclass and indisvalid").await,
        3
    );
}

/// Creates a small table and swaps its column.
async fn swapped(db: &Database) {
    db.execute(
        "create table orders (id serial primary key, note text);
         create table items (order_id int references orders);
         insert into orders (note) select 'row ' || i from generate_series(1, 300) i; insert into items select 7",
    )
    .await;
    let plan = db.plan(PLAN);
    run(db, &plan).await;
    db.pgstrata(&["swap", "orders_id_bigint"]).await.ok();
}

/// Pause, change of settings and resume from another process. With `when = "verified"`, the run swaps by itself.
#[tokio::test]
async fn a_retype_is_controlled_like_any_job_and_swaps_if_the_plan_requests_it() {
    let db = Database::new().await;
    db.execute("create table orders (id serial primary key, note text); insert into orders select i from generate_series(1, 20000) i")
        .await;
    let plan = db.plan(&format!("{PLAN}[throttle]\nrows_per_second = 500\n[swap]\nwhen = \"verified\"\n"));
    let until = async |what: &str| db.until(&format!("select ({what})::int::bigint"), 1).await;
    let mut command = db.command(&["run", plan.to_str().unwrap()]);
    let job = command.stderr(Stdio::piped()).spawn().unwrap();
    until("to_regclass('pgstrata.chunks') is not null").await;
    until("exists (select from pgstrata.chunks)").await;
    db.pgstrata(&["pause", "orders_id_bigint"]).await.ok();
    until("exists (select from pgstrata.pace where holds::text like '%paused%')").await;
    let chunks = "select count(*) from pgstrata.chunks";
    let held = db.count(chunks).await;
    db.pgstrata(&["set", "orders_id_bigint", "rows_per_second=off", "workers=1"]).await.ok();
    until("exists (select from pgstrata.pace where workers = 1)").await;
    assert_eq!(db.count(chunks).await, held);
    db.pgstrata(&["resume", "orders_id_bigint"]).await.ok();
    ended(job).await.ok();
    assert_eq!(db.count("select count(*) from pgstrata.jobs where state = 'swapped'").await, 1);
    db.execute("insert into orders (id) values (5000000000)").await;
}

/// A value that does not fit into the old type does not make the application's write fail; it makes a rollback fail.
#[tokio::test]
async fn values_beyond_the_old_type() {
    let db = Database::new().await;
    swapped(&db).await;
    db.execute(
        "insert into orders (id, note) values (5000000000, 'far'), (5000000001, 'far');
         update orders set id = 6000000000 where id = 12; update orders set note = 'near' where id = 13",
    )
    .await;
    let verify = db.pgstrata(&["verify", "orders_id_bigint"]).await.exits(4);
    assert!(verify.stdout.contains('3'), "{}", verify.stdout);
    let refused = db.pgstrata(&["rollback", "orders_id_bigint"]).await.exits(4);
    insta::assert_snapshot!(errors(&refused), @"
    error: 3 rows of public.orders cannot be converted back to type integer in column id
    cause: by key: 5000000000; 5000000001; 6000000000
    hint: nothing was changed; change or delete these rows, then roll back; or keep the new type: `pgstrata finalize --now orders_id_bigint`
    ");
    db.execute("delete from orders where note = 'far'; update orders set id = 12 where id = 6000000000")
        .await;
    db.execute("select setval('orders_id_seq', 2147483648)").await;
    let refused = db.pgstrata(&["rollback", "orders_id_bigint"]).await.exits(1);
    insta::assert_snapshot!(errors(&refused), @r#"
    error: failed to roll back (SQLSTATE 22023)
    cause: failed to run `alter sequence "public"."orders_id_seq" as integer`: RESTART value (2147483648) cannot be greater than MAXVALUE (2147483647)
    hint: the last value of sequence public.orders_id_seq exceeds the maximum of the old type: set it to an unused value with setval(), or keep the new type: `pgstrata finalize --now orders_id_bigint`
    "#);
    // The failed rollback has left nothing behind that rejects a large value.
    db.execute("insert into orders (id) values (7000000000); delete from orders where id = 7000000000").await;
    db.execute("select setval('orders_id_seq', 1000)").await;
    db.pgstrata(&["rollback", "orders_id_bigint"]).await.ok();
    db.execute("insert into orders (note) values ('after')").await;
    assert_eq!(db.count("select max(id)::bigint from orders").await, 1001);
    assert_eq!(db.count("select count(*) from orders where id_new = id").await, 301);
    db.pgstrata(&["abort", "orders_id_bigint"]).await.ok();
    assert_eq!(db.count(LEFT_BEHIND).await, 0);
}

/// The error message at the end of the output.
fn errors(ran: &Ran) -> String {
    let at = ran.stderr.find("error: ").unwrap_or_else(|| panic!("{}", ran.stderr));
    ran.stderr[at..].to_owned()
}

const VISITS: &str = "create table orders (n bigint primary key, at text not null default '1970-01-01', who int);
    create unique index orders_at on orders (at desc, who);
    insert into orders select i, to_char(timestamp '2024-01-01' + i * interval '1 minute', 'DD.MM.YYYY HH24:MI'), i
      from generate_series(1, 2000) i";

const VISITS_PLAN: &str = "name = 'orders_at'\nkind = 'retype'\ntable = 'orders'\n[retype]\ncolumn = 'at'\nto = 'timestamptz'
using = \"case when t.at ~ '^\\\\d{4}' then t.at::timestamptz else to_timestamp(t.at || '+00', 'DD.MM.YYYY HH24:MITZH') end\"
back = \"to_char(t.at at time zone 'UTC', 'DD.MM.YYYY HH24:MI')\"\n";

/// With the expressions `using` and `back`. After a rollback, rows that were not changed have their original values,
/// and changed rows have the values of `back`.
#[tokio::test]
async fn text_to_timestamptz() {
    let db = Database::new().await;
    db.execute(VISITS).await;
    db.execute(
        "alter table orders alter at drop default; insert into orders values (0, '2023-12-31 23:00', 0)",
    )
    .await;
    let plan = db.plan(VISITS_PLAN);
    run(&db, &plan).await;
    db.execute(
        "insert into orders values (3000, '01.02.2025 03:04', 1); update orders set who = -1 where n = 5",
    )
    .await;
    db.pgstrata(&["swap", "orders_at"]).await.ok();
    insta::assert_snapshot!(described(&db).await, @"
    column at timestamp with time zone not null
    column at_old text
    column n bigint not null
    column who integer
    constraint orders_pkey on orders PRIMARY KEY (n)
    index CREATE UNIQUE INDEX orders_at ON public.orders USING btree (at DESC, who)
    index CREATE UNIQUE INDEX orders_at_old ON public.orders USING btree (at_old DESC, who)
    index CREATE UNIQUE INDEX orders_pkey ON public.orders USING btree (n)
    trigger zz_pgstrata_fill_orders_at
    ");
    db.execute(
        "set timezone = 'Asia/Tokyo'; set datestyle = 'German';
         insert into orders (n, at, who) values (3001, '2025-02-01 03:05+00', 1), (3002, '2025-02-01 03:05:06+00', 1);
         update orders set who = 9 where n in (0, 6); update orders set at = at + interval '1 day' where n = 7",
    )
    .await;
    let verify = db.pgstrata(&["verify", "orders_at"]).await.exits(4);
    insta::assert_snapshot!(verify.stdout, @"
    in use     2,004 rows
    inactive   2,003 rows
    missing    1 row: the inactive column has no value
      missing: key 3002
    not verified: orders_at: the two columns differ
    ");
    db.execute("update orders set at = date_trunc('minute', at) + interval '1 minute' where n = 3002").await;
    db.pgstrata(&["rollback", "orders_at"]).await.ok();
    let client = db.client().await;
    let rows = client
        .query("select n || ': ' || at from orders where n in (0, 1, 6, 7, 3000, 3001, 3002) order by n", &[])
        .await
        .unwrap();
    let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    insta::assert_snapshot!(rows.join("\n"), @"
    0: 2023-12-31 23:00
    1: 01.01.2024 00:01
    6: 01.01.2024 00:06
    7: 02.01.2024 00:07
    3000: 01.02.2025 03:04
    3001: 01.02.2025 03:05
    3002: 01.02.2025 03:06
    ");
    db.pgstrata(&["swap", "orders_at"]).await.ok();
    db.pgstrata(&["finalize", "orders_at", "--now"]).await.ok();
    assert_eq!(db.count(LEFT_BEHIND).await, 0);
}

/// Every property of a column besides its type is carried over, in both directions.
#[tokio::test]
async fn the_properties_of_a_column_are_carried_over() {
    let db = Database::new().await;
    db.execute(
        "create table kinds (id int primary key); insert into kinds select generate_series(1, 9);
         create table orders (n bigint primary key, id int default 5 constraint known references kinds, note text);
         alter table orders add constraint small check (id < 100), add constraint once unique (id, n) include (note);
         create index later on orders (note) include (id) where id > 2; comment on index later is 'often used';
         comment on constraint small on orders is 'not yet'; comment on column orders.id is 'its kind';
         comment on constraint once on orders is 'each'; comment on constraint known on orders is 'of a kind';
         alter table orders alter id set statistics 250; alter table orders cluster on once;
         create role reader_of_kinds; grant select (id) on orders to reader_of_kinds;
         insert into orders select i, nullif(i % 10, 0), 'x' from generate_series(1, 500) i",
    )
    .await;
    let before = [described(&db).await, other_properties(&db).await].concat();
    let plan = db.plan(PLAN);
    run(&db, &plan).await;
    for command in ["swap", "rollback", "swap"] {
        db.pgstrata(&[command, "orders_id_bigint"]).await.ok();
        db.execute("insert into orders (n, note) select 1 + max(n), 'y' from orders").await;
        assert_eq!(other_properties(&db).await, before[before.find("statistics").unwrap()..], "{command}");
    }
    db.pgstrata(&["finalize", "orders_id_bigint", "--now"]).await.ok();
    let after = [described(&db).await, other_properties(&db).await].concat();
    assert_eq!(after, before.replace("id integer", "id bigint"));
    assert_eq!(db.count("select count(*) from orders where id = 5 and note = 'y'").await, 3);
    db.execute("drop owned by reader_of_kinds; drop role reader_of_kinds").await;
}

/// The properties of the column that `described` omits: statistics target, privileges, comments, clustering and
/// validation.
async fn other_properties(db: &Database) -> String {
    let client = db.client().await;
    let row = client
        .query_one(
            "select concat_ws(E'\\n', 'statistics ' || attstattarget, 'privileges ' || attacl::text,
               (select string_agg(c.relname || coalesce(' ' || obj_description(c.oid), ''), ', ' order by 1) from pg_index x
                join pg_class c on c.oid = indexrelid where indrelid = attrelid and indisclustered),
               (select string_agg(conname || ' ' || obj_description(oid, 'pg_constraint'), ', ' order by conname)
                from pg_constraint where conrelid = attrelid),
               (select string_agg(conname || ' ' || convalidated, ', ' order by conname)
                from pg_constraint where conrelid = attrelid and contype = 'f'))
             from pg_attribute where attrelid = 'orders'::regclass and attname = 'id'",
            &[],
        )
        .await
        .unwrap();
    row.get(0)
}

/// The commands of a job, each with the failpoints at which it is killed, in the order in which it reaches them.
type Steps = &'static [(&'static str, &'static [&'static str])];

const JOBS: [Steps; 3] = [
    &[
        (
            "run",
            &[
                "job.created",
                "lease.taken",
                "prepare.before_commit",
                "prepare.done",
                "capture.before_commit",
                "capture.done",
                "fill.before_commit",
                "fill.chunk",
                "fill.chunks_done",
                "fill.done",
                "retype.index",
                "retype.check",
                "retype.proof",
                "index.analyzed",
                "index.done",
                "verify.recorded",
                "verify.done",
            ],
        ),
        ("swap", &["swap.ready", "swap.done", "settle.key"]),
        ("finalize --now", &["finalize.before_commit", "finalize.done"]),
    ],
    &[
        ("run", &[]),
        ("swap", &["swap.recorded"]),
        ("rollback", &["retype.check", "retype.proof", "swap.ready", "swap.done", "settle.key"]),
        ("swap", &[]),
        ("finalize --now", &[]),
    ],
    &[
        ("run", &[]),
        ("abort", &["abort.before_commit"]),
        ("run", &[]),
        ("swap", &[]),
        ("finalize --now", &[]),
    ],
];

async fn killed_at_every_failpoint(steps: Steps) {
    let db = Database::new().await;
    db.execute(DEADLOCK_TIMEOUT).await;
    shop::create(&db, "serial").await;
    let shop = Shop::open(&db, 1).await;
    let lab = Lab::on(db, &patient(PLAN));
    for (command, failpoints) in steps {
        for at in *failpoints {
            shop.commit_more(5).await;
            lab.killed(command, at).await;
            shop.commit_more(5).await;
            equals_truth(&lab.db).await;
        }
        lab.ok(command).await;
    }
    shop.close().await;
    equals_truth(&lab.db).await;
    lab.none(LEFT_BEHIND).await;
}

#[tokio::test]
async fn a_retype_killed_at_every_failpoint_resumes_and_loses_nothing() {
    side_by_side(JOBS.to_vec(), killed_at_every_failpoint).await;
}

/// A privilege on the column that was granted with a grant option belongs to the role that granted it.
#[tokio::test]
async fn grantors_of_privileges_on_the_column_stay() {
    let db = Database::new().await;
    let [one, other] = ["one", "other"].map(|role| format!("grantor_{role}_{}", db.name()));
    db.execute(&format!(
        "create role {one}; create role {other}; grant usage on schema public to {one};
         create table orders (id int primary key); insert into orders select generate_series(1, 50);
         grant select (id) on orders to {one} with grant option; set role {one}; grant select (id) on orders to {other}"
    ))
    .await;
    let plan = db.plan(PLAN);
    run(&db, &plan).await;
    for command in ["swap", "rollback", "swap"] {
        db.pgstrata(&[command, "orders_id_bigint"]).await.ok();
        let columns = "from pg_attribute a, aclexplode(attacl) x where attrelid = 'orders'::regclass";
        let by_one = format!(
            "select count(*) {columns} and x.grantor = '{one}'::regrole and x.grantee = '{other}'::regrole"
        );
        assert_eq!(db.count(&by_one).await, 2, "{command}: on both columns");
    }
    db.execute(&format!("revoke select (id) on orders from {one} cascade")).await;
    assert_eq!(
        db.count(&format!("select has_column_privilege('{other}', 'orders', 'id', 'select')::int::bigint"))
            .await,
        0
    );
    db.pgstrata(&["finalize", "orders_id_bigint", "--now"]).await.ok();
    db.execute(&format!("drop owned by {one}, {other} cascade; drop role {one}, {other}")).await;
}
