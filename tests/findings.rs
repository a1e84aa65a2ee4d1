//! What `check` reports about the dependents of a table. Each finding is also tested with a similar table that must not
//! get it.

use pgstrata::demo::server::PrivateServer;

use crate::support::checks::{GOOD, MONTHS, check, check_good, check_on, check_report, findings};
use crate::support::cluster::{Database, SETTINGS, Version};

/// Asserts that `check` reports nothing about the table after these statements.
async fn nothing_after(more: &str) {
    assert_eq!(check_good(more).await, "", "{more}");
}

#[tokio::test]
async fn a_trigger_that_moves_the_row() {
    let function = |body: &str| {
        format!(
            "create function f() returns trigger language plpgsql as $$ begin {body} return new; end $$;
             create trigger stamp before insert on t for each row execute function f();"
        )
    };
    insta::assert_snapshot!(check_good(&function("NEW.at := coalesce(new.at, now());")).await, @"
    error[trigger_moves_row]: stamp: row trigger stamp sets column at before an insert, when the partition has already been chosen: the insert fails if the value belongs in another partition
      hint: set the value with a default, in the application, or with a trigger on a view; then drop the trigger: drop trigger stamp on public.t
    warning[trigger_on_move]: public.t: an update that moves a row to another partition fires the row triggers for DELETE and INSERT, but of those for UPDATE only BEFORE triggers: stamp
      hint: check that this is correct if the application updates the partition column
    ");
    insta::assert_snapshot!(check_good(&function("if new.at = now() then new.note = ''; end if;")).await, @"
    warning[trigger_on_move]: public.t: an update that moves a row to another partition fires the row triggers for DELETE and INSERT, but of those for UPDATE only BEFORE triggers: stamp
      hint: check that this is correct if the application updates the partition column
    warning[before_insert_trigger]: stamp: row trigger stamp fires before an insert: on a partitioned table, it must not change the partition column so that the row belongs in another partition
      hint: read the trigger function
    ");
    nothing_after(&function("new.at := now();").replace("insert", "update")).await;
}

#[tokio::test]
async fn triggers_that_act_on_partitions() {
    let function = "create function f() returns trigger language plpgsql as $$ begin
        raise log '% %', tg_op, TG_TABLE_NAME; return null; end $$;";
    let trigger = |when: &str| format!("{function} create trigger told after {when} execute function f();");
    insta::assert_snapshot!(check_good(&trigger("update or delete on t for each row")).await, @"
    warning[trigger_on_move]: public.t: an update that moves a row to another partition fires the row triggers for DELETE and INSERT, but of those for UPDATE only BEFORE triggers: told
      hint: check that this is correct if the application updates the partition column
    warning[trigger_names_partition]: told: the function of row trigger told reads TG_TABLE_NAME, which identifies the partition after the swap
      hint: pass the name of the table as an argument of the trigger (TG_ARGV)
    ");
    nothing_after(&trigger("update or delete on t for each statement")).await;
    let before = "create function f() returns trigger language plpgsql as 'begin return new; end';
        create trigger touch before update on t for each row execute function f()";
    nothing_after(before).await;
}

#[tokio::test]
async fn constraints_that_change() {
    insta::assert_snapshot!(check_good("alter table t add constraint t_some check (id > -5) no inherit").await, @"warning[no_inherit]: t_some: constraint t_some is NO INHERIT, which partitioned tables do not support: the partitioned table gets it without NO INHERIT");
    nothing_after("alter table t add constraint t_some check (id > -5)").await;
    let key = "create table u (id bigint primary key); alter table t add u bigint;
        alter table t add constraint t_u foreign key (u) references u";
    insta::assert_snapshot!(check_good(&format!("{key} not valid")).await, @"
    warning[foreign_key_not_valid]: t_u: foreign key t_u is NOT VALID: after the swap, each partition has it, but the partitioned table itself does not
      hint: validate it first: alter table public.t validate constraint t_u
    ");
    nothing_after(key).await;
    insta::assert_snapshot!(check_good("create index t_at on t (at); cluster t using t_at; analyze t").await, @"
    warning[cluster_on]: t_at: index t_at is marked for CLUSTER: only partitions can have such a mark, a partitioned table cannot
      hint: after the swap, cluster each partition, or in PostgreSQL 15 and later: cluster public.t using t_at
    ");
    nothing_after("create index t_at on t (at)").await;
}

#[tokio::test]
async fn comments_labels_and_statistics_of_the_table() {
    let label = "insert into pg_seclabel select 't'::regclass, 'pg_class'::regclass, n, 'guard', 'secret' from generate_series(0, 1) n";
    insta::assert_snapshot!(check_good(label).await, @"
    error[security_label]: public.t: table public.t has a security label for guard, and the partitioned table would not have it
      hint: remove the label and set it again once the job is finalized: security label for guard on table public.t is null
    error[security_label]: public.t.id: column public.t.id has a security label for guard, and the partitioned table would not have it
      hint: remove the label and set it again once the job is finalized: security label for guard on column public.t.id is null
    ");
    let tied = "create extension btree_gist; create index t_note on t using gist (note);";
    nothing_after(tied).await;
    insta::assert_snapshot!(check_good(&format!("{tied} alter index t_note depends on extension btree_gist")).await, @"
    warning[depends_on_extension]: index public.t_note: index public.t_note depends on extension btree_gist; its counterpart on the partitioned table will not depend on it
      hint: after the swap, run: alter index public.t_note depends on extension btree_gist
    ");
}

/// Functions and rules whose bodies are parsed when they are created.
#[tokio::test]
async fn bodies_bound_to_the_key() {
    let bound = "create function f() returns void begin atomic insert into t values (1, now()) on conflict (id) do nothing; end;
        create function g() returns setof text begin atomic select note from t group by id; end;
        create table u (n int);
        create rule r as on insert to u do also insert into t values (new.n, now()) on conflict (id) do update set note = excluded.note";
    insta::assert_snapshot!(check_good(bound).await, @"
    error[bound_to_key]: function public.f(): function public.f() groups by (id) alone or uses ON CONFLICT (id), but the key of the partitioned table also contains at
      hint: list all columns in its GROUP BY, add at to its ON CONFLICT, or drop it
    error[bound_to_key]: function public.g(): function public.g() groups by (id) alone or uses ON CONFLICT (id), but the key of the partitioned table also contains at
      hint: list all columns in its GROUP BY, add at to its ON CONFLICT, or drop it
    error[bound_to_key]: rule r on public.u: rule r on public.u groups by (id) alone or uses ON CONFLICT (id), but the key of the partitioned table also contains at
      hint: list all columns in its GROUP BY, add at to its ON CONFLICT, or drop it
    ");
    let free = "create table u (id int primary key);
        create function f() returns void begin atomic insert into t values (1, now()) on conflict do nothing; end;
        create function g() returns void begin atomic insert into t values (1, now()) on conflict on constraint t_pkey do nothing; end;
        create function h() returns void begin atomic insert into u select id from t on conflict (id) do nothing; end;
        create table w (id int);
        create rule r as on insert to w do also insert into t values (new.id, now()) on conflict do nothing";
    nothing_after(free).await;
    let wide = "alter table t drop constraint t_pkey; alter table t add primary key (id, at);
        create function f() returns void begin atomic insert into t values (1, now()) on conflict (id, at) do nothing; end";
    nothing_after(wide).await;
}

#[tokio::test]
async fn functions_that_name_the_table() {
    let function = |n: usize, body: &str| {
        format!(
            "create function f{n}() returns void language plpgsql as $$ declare was bool; begin {body}; end $$;"
        )
    };
    let of =
        |bodies: &[&str]| bodies.iter().enumerate().map(|(n, body)| function(n, body)).collect::<String>();
    let reported = of(&[
        "insert into public.t values (1, now()) on conflict (id) do update set note = ''",
        "execute 'insert into t values ($1, now()) on conflict (id) do nothing' using 1",
        "insert into t values (1, now()) returning (xmax = 0) into strict was",
        "delete from t where ctid in (select ctid from t limit 10)",
        "copy t (id, at) to '/tmp/t'",
        "truncate table only t",
        "perform pg_total_relation_size('public.t')",
    ]);
    insta::assert_snapshot!(check_good(&reported).await, @"
    warning[on_conflict_key]: public.t: function public.f0(), function public.f1(): ON CONFLICT (id) fails after the swap, because no unique index is on (id) alone
      hint: write ON CONFLICT (id, at), and insert a value for each of these columns
    warning[returning_system_column]: public.t: function public.f2(): INSERT ... RETURNING xmin or xmax fails on a partitioned table
      hint: use a column of the table to distinguish inserted rows from updated rows
    warning[ctid]: public.t: function public.f3(): a ctid is unique only within a partition, so ctid in (...) also matches rows of other partitions
      hint: compare (tableoid, ctid), or the key
    warning[copy_to]: public.t: function public.f4(): COPY public.t TO fails on a partitioned table
      hint: write copy (select * from public.t) to ...; pg_dump needs no change
    warning[only]: public.t: function public.f5(): after the swap, ONLY public.t returns no rows, and TRUNCATE ONLY fails
      hint: remove ONLY
    warning[relation_size]: public.t: function public.f6(): after the swap, the size of public.t itself is 0, because the rows are in its partitions
      hint: write select sum(pg_relation_size(relid)) from pg_partition_tree('public.t')
    ");
    let unreported = of(&[
        "insert into t values (1, now()) on conflict do nothing; insert into u values (1) on conflict (id) do nothing",
        "update t set note = null returning xmin = '1' into was",
        "delete from t where (tableoid, ctid) in (select tableoid, ctid from t limit 10)",
        "copy (select * from t) to '/tmp/t'; copy t from '/tmp/t'",
        "truncate only u; truncate t",
        "perform pg_total_relation_size('t_pkey')",
        "perform t from t /* on conflict (id) */",
    ]);
    nothing_after(&unreported).await;
}

/// Findings that need a server with logical replication and pg_stat_statements.
#[tokio::test]
async fn publications_slots_and_statements_that_name_the_table() {
    let settings =
        [SETTINGS, &[("wal_level", "logical"), ("shared_preload_libraries", "pg_stat_statements")]].concat();
    let server = tokio::task::spawn_blocking(move || PrivateServer::start(&settings)).await.unwrap().unwrap();
    let db = Database::on(&server).await;
    db.execute(&format!("{GOOD} create extension pg_stat_statements; create publication named for table t"))
        .await;
    let client = db.client().await;
    let nothing = async || assert_eq!(check(&db, MONTHS).await, "");
    nothing().await;
    db.execute("create publication every for all tables with (publish = 'insert')").await;
    insta::assert_snapshot!(check(&db, MONTHS).await, @"
    warning[published]: every: publication every publishes all tables of the database or of a schema, including public.t: it will also publish the partitioned table, and a subscriber without that table stops
      hint: first create the partitioned table and its partitions on the subscribers, or publish tables by name
    ");
    db.execute("select pg_create_logical_replication_slot('lagging', 'pgoutput')").await;
    insta::assert_snapshot!(check(&db, MONTHS).await, @"
    error[published]: every: publication every publishes all tables of the database or of a schema, including public.t: its subscriber (slot lagging) does not have the partitioned table and would stop
      hint: until the job is finalized, publish tables by name: drop publication every; create publication every for table ...
    ");
    db.execute("drop publication every").await;
    nothing().await;
    db.execute("select pg_create_logical_replication_slot('cdc', 'test_decoding')").await;
    insta::assert_snapshot!(check(&db, MONTHS).await, @"
    warning[logical_slot]: cdc: slot cdc (plugin test_decoding) decodes the changes of every table: it receives the copy and, after the swap, the changes of the partitions under their own names
      hint: make sure that the consumer of the slot skips the copy and recognizes the partitions
    ");
    db.execute("select pg_drop_replication_slot('cdc')").await;
    client.batch_execute("set application_name = 'postgres_fdw'").await.unwrap();
    insta::assert_snapshot!(check(&db, MONTHS).await, @"
    warning[postgres_fdw]: public.t: postgres_fdw of another server has 1 session here: postgres_fdw may update rows of public.t by ctid, which is not unique across partitions
      hint: make sure that every UPDATE and DELETE of the foreign table is pushed down to this server as a whole
    ");
    client.batch_execute("reset application_name").await.unwrap();
    client.batch_execute("select t from t limit 0; copy t to '/dev/null'").await.unwrap();
    insta::assert_snapshot!(numberless(&check(&db, MONTHS).await), @"
    warning[copy_to]: public.t: statement N of pg_stat_statements: COPY public.t TO fails on a partitioned table
      hint: write copy (select * from public.t) to ...; pg_dump needs no change
    warning[whole_row]: public.t: statement N of pg_stat_statements: if it is a prepared statement, it fails once after the swap: cached plan must not change result type
      hint: list the columns explicitly, or make sure that the application prepares the statement Nagain
    ");
    db.execute("select pg_stat_statements_reset()").await;
    nothing().await;
}

/// Replaces the query IDs of statements.
fn numberless(text: &str) -> String {
    let of = |line: &str| match line.split_once("statement ") {
        Some((head, tail)) => {
            format!(
                "{head}statement N{}\n",
                tail.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-')
            )
        }
        None => format!("{line}\n"),
    };
    text.lines().map(of).collect()
}

#[tokio::test]
async fn publications_that_the_swap_touches() {
    let others = "create table p (id int primary key) partition by range (id); create table p1 partition of p default;";
    insta::assert_snapshot!(check_good(&format!("{others} create publication shared for table t, p")).await, @"
    warning[publication_via_root]: shared: publication shared contains 1 partition of other tables: after the swap of public.t, their changes are published under the name of their root table
      hint: use a separate publication for the table, or make sure that the subscribers have the root tables
    ");
    nothing_after(&format!(
        "{others} create publication shared for table t; create publication other for table p"
    ))
    .await;
    nothing_after(&format!(
        "{others} create publication shared for table t, p with (publish_via_partition_root)"
    ))
    .await;
    insta::assert_snapshot!(check_good("create publication narrow for table t (id, note)").await, @"
    error[publication_columns]: narrow: publication narrow publishes only the columns (id, note), without at, which the key will contain: updates and deletes would fail after the swap
      hint: alter publication narrow set table public.t (id, note, at), followed by its other tables
    ");
    nothing_after("create publication narrow for table t (id, at)").await;
    nothing_after("create publication narrow for table t (id) with (publish = 'insert, truncate')").await;
    insta::assert_snapshot!(check_good("create publication whole for tables in schema public").await, @"
    error[published]: whole: publication whole publishes all tables of the database or of a schema, including public.t: PostgreSQL would reject updates and deletes on the tables that the job creates, until they have a key
      hint: until the job is finalized, publish tables by name: drop publication whole; create publication whole for table ...
    ");
    let other = format!(
        "{GOOD} update t set note = ''; alter table t alter note set not null; create unique index t_note on t (note, id);"
    );
    let gives_up = format!("{MONTHS}drop_unique = ['t_note']\n");
    let identity = format!("{other} alter table t replica identity using index t_note");
    insta::assert_snapshot!(check_report(&identity, &gives_up).await, @"
    error[replica_identity]: t_note: drop_unique lists t_note, which is the replica identity
      hint: remove it from drop_unique, or choose another replica identity: alter table public.t replica identity using index ...
    warning[unique_given_up]: t_note: after the swap, index t_note is no longer unique: nothing prevents duplicates of (note, id), and a rollback fails as long as there are any
      hint: make sure that the application does not rely on the guarantee, for example with ON CONFLICT
    ");
    assert_eq!(findings(&check_report(&other, &gives_up).await), ["warning[unique_given_up]: t_note"]);
}

#[tokio::test]
async fn a_table_that_a_subscription_fills() {
    let subscription =
        "create subscription \"From\" connection 'dbname=nowhere' publication p with (connect = false);";
    nothing_after(subscription).await;
    let fills = "insert into pg_subscription_rel select oid, 't'::regclass, 'r', null from pg_subscription
        where subdbid = (select oid from pg_database where datname = current_database())";
    insta::assert_snapshot!(check_good(&format!("{subscription}{fills}")).await, @r#"
    error[subscribed]: subscription "From": subscription "From" writes to public.t; after the swap it would silently skip the partitioned table until it is refreshed
      hint: remove the table from the publication on the other server, then run: alter subscription "From" refresh publication
    "#);
}

#[tokio::test]
async fn roles_with_strict_transactions() {
    let db = Database::new().await;
    let name = db.dsn().rsplit_once("dbname=").unwrap().1;
    db.execute(&format!("{GOOD} create role strict_one; alter database {name} set default_transaction_isolation = 'serializable';
        alter role strict_one in database {name} set default_transaction_isolation = 'repeatable read'")).await;
    insta::assert_snapshot!(check(&db, MONTHS).await, @"
    warning[strict_isolation]: public.t: the default isolation level is REPEATABLE READ or SERIALIZABLE for every role in database DATABASE, role strict_one in database DATABASE: transactions that begin before the swap and write after it fail with SQLSTATE 40001
      hint: make sure that the application retries, as it must at these isolation levels anyway
    ");
    db.execute(&format!(
        "alter database {name} reset all; alter role strict_one in database {name} reset all"
    ))
    .await;
    assert_eq!(check(&db, MONTHS).await, "");
}

#[tokio::test]
async fn exclusion_constraints() {
    let with_column = format!(
        "{GOOD} create extension btree_gist;
         alter table t add constraint t_excl exclude using gist (at with =, int8range(id, id + 1) with &&)"
    );
    insta::assert_snapshot!(check_on(Version::System, &with_column, MONTHS).await, @"
         error[exclusion_constraint]: t_excl: exclusion constraint t_excl cannot be kept on a partitioned table before PostgreSQL 17
           hint: drop it: alter table public.t drop constraint t_excl
         ");
    let without = with_column.replace("at with =", "note with =");
    for version in [Version::V17, Version::V18] {
        if version.is_there() {
            assert_eq!(check_on(version, &with_column, MONTHS).await, "");
            let findings = check_on(version, &without, MONTHS).await;
            insta::allow_duplicates! { insta::assert_snapshot!(findings, @"
            error[exclusion_constraint]: t_excl: exclusion constraint t_excl cannot be kept on a partitioned table because it does not contain at WITH =
              hint: drop it: alter table public.t drop constraint t_excl
            ") }
        }
    }
}

#[tokio::test]
async fn constraints_of_version_18() {
    if !Version::V18.is_there() {
        return;
    }
    let after = async |more: &str| check_on(Version::V18, &format!("{GOOD}{more}"), MONTHS).await;
    let period = "create extension btree_gist; alter table t add during tstzrange;
        alter table t add constraint t_during unique (id, during without overlaps)";
    insta::assert_snapshot!(after(period).await, @"
    error[unique_without_partition_column]: t_during: unique constraint t_during does not contain the partition column at
      hint: keep it with a key table: list it under [partition] keep_unique; or add at to it; or give up the guarantee: list it under drop_unique
    error[over_a_period]: constraint t_during on table public.t: constraint t_during on table public.t is defined with WITHOUT OVERLAPS or PERIOD, and such constraints are not carried over
      hint: drop it before the run
    ");
    insta::assert_snapshot!(after("alter table t add constraint t_note not null note not valid").await, @"
    error[not_null_not_valid]: constraint t_note on table public.t: constraint t_note on table public.t is NOT VALID, but on the partitions it would be valid
      hint: validate it: alter table ... validate constraint ...
    ");
    insta::assert_snapshot!(after("alter table t add constraint t_some check (id > 5) not enforced").await, @"
    error[not_enforced]: constraint t_some on table public.t: constraint t_some on table public.t is NOT ENFORCED, but on the partitions it would be enforced
      hint: drop it before the run, and add it again once the job is finalized
    ");
    insta::assert_snapshot!(after("alter table t alter at drop not null; alter table t add constraint t_at not null at no inherit").await, @"warning[no_inherit]: t_at: constraint t_at is NO INHERIT, which partitioned tables do not support: the partitioned table gets it without NO INHERIT");
    assert_eq!(after("alter table t add constraint t_some check (id > -5)").await, "");
}
