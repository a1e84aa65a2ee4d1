//! Plans that do not fit their table or server: `check` reports all errors of a plan at once, and `run` changes
//! nothing.

use pgstrata::demo::server::PrivateServer;
use pgstrata::engine::preflight;
use pgstrata::model::design::Design;
use pgstrata::pg::connect::Target;
use pgstrata::plan::Plan;

use crate::support::checks::*;
use crate::support::cluster::{Database, SETTINGS};

#[tokio::test]
async fn a_good_table_gets_a_design() {
    let db = Database::new().await;
    db.execute(GOOD).await;
    let plan = Plan::parse(&format!("{MONTHS}to = '2024-05-15'\n"), "plan.toml").unwrap();
    let session = Target::from_env(Some(db.dsn())).unwrap().connect("preflight").await.unwrap();
    let found = preflight(&session, &plan).await.unwrap();
    let findings: Vec<String> =
        found.findings.iter().map(|f| format!("{} {}: {}", f.level, f.code, f.message)).collect();
    // Sizes depend on the server, and some servers have undocumented storage parameters.
    let by_server = |line: &str| line.contains("iB") || line.starts_with("note locks");
    let kept = |line: &&str| !by_server(line) && !line.contains("unknown_options");
    let findings: Vec<&str> = findings.iter().map(String::as_str).filter(kept).collect();
    insta::assert_snapshot!(findings.join("\n"), @"
    warning key_widened: the partition column is added to the key t_pkey (id): after the swap, only (id, at) is unique, not (id) alone, and ON CONFLICT (id) fails
    note no_index_on_partition_column: no index starts with column at: its smallest and largest values were found by reading the whole table
    note carried: carried over: 3 columns, 1 index
    note partitions: 5 partitions from 2024-01-01 00:00:00+00 to 2024-06-01 00:00:00+00 and a default partition
    ");
    let Some(Design::Partition(b)) = found.design else { panic!("no blueprint") };
    let parts: Vec<String> =
        b.partitions.iter().map(|p| format!("{} {} {}", p.name.plain(), p.from, p.to)).collect();
    insta::assert_snapshot!(parts.join("\n"), @"
    public.t_y2024m01 2024-01-01 00:00:00+00 2024-02-01 00:00:00+00
    public.t_y2024m02 2024-02-01 00:00:00+00 2024-03-01 00:00:00+00
    public.t_y2024m03 2024-03-01 00:00:00+00 2024-04-01 00:00:00+00
    public.t_y2024m04 2024-04-01 00:00:00+00 2024-05-01 00:00:00+00
    public.t_y2024m05 2024-05-01 00:00:00+00 2024-06-01 00:00:00+00
    ");
    assert_eq!(found.rows_estimated, 100);
}

#[tokio::test]
async fn run_does_nothing_where_check_finds_an_error() {
    let db = Database::new().await;
    db.execute(&format!("{GOOD} alter table t alter at drop not null;")).await;
    let file = db.plan(MONTHS);
    let ran = db.pgstrata(&["run", file.to_str().unwrap()]).await.exits(3);
    assert_eq!(errors(&ran.stdout), ["error[nullable_partition_column]: at"]);
    assert_eq!(db.count("select count(*) from pg_namespace where nspname = 'pgstrata'").await, 0);
    assert_eq!(
        db.count("select count(*) from pg_class where relnamespace = 'public'::regnamespace").await,
        2
    );
}

#[tokio::test]
async fn no_such_table() {
    insta::assert_snapshot!(check_report("create table observations ()", "table = 'obsrevations'\n[partition]\nby = 'at'\nevery = 'month'\n").await, @"
    error[no_such_table]: public.obsrevations: table public.obsrevations does not exist
      hint: did you mean public.observations?
    ");
    insta::assert_snapshot!(check_report("create schema lab create table t ()", MONTHS).await, @"
    error[no_such_table]: public.t: table public.t does not exist
      hint: did you mean lab.t?
    ");
    insta::assert_snapshot!(check_report("", MONTHS).await, @"
    error[no_such_table]: public.t: table public.t does not exist
      hint: write the name as in SQL: schema.table, in double quotes where SQL requires them
    ");
}

#[tokio::test]
async fn relations_that_are_not_plain_tables() {
    insta::assert_snapshot!(check_report("create view t as select 1 as id, now() as at", MONTHS).await, @"
    error[is_view]: public.t: public.t is a view, not a table
      hint: name the table that the view reads
    ");
    insta::assert_snapshot!(check_report("create materialized view t as select 1 as id, now() as at", MONTHS).await, @"
    error[is_view]: public.t: public.t is a materialized view, not a table
      hint: name the table that the view reads
    ");
    insta::assert_snapshot!(check_report("create sequence t", MONTHS).await, @"
    error[not_a_table]: public.t: public.t is not a table
      hint: name a table
    ");
    let foreign = "create foreign data wrapper w; create server s foreign data wrapper w;
        create foreign table t (id bigint, at timestamptz) server s";
    insta::assert_snapshot!(check_report(foreign, MONTHS).await, @"
    error[is_foreign_table]: public.t: public.t is a foreign table: its rows are stored on another server
      hint: run the job on that server
    ");
    insta::assert_snapshot!(check_report("create table t (at timestamptz) partition by range (at)", MONTHS).await, @"
    error[already_partitioned]: public.t: public.t is already partitioned
      hint: to create further partitions, run `pgstrata maintain --table`
    ");
    let partition =
        "create table p (at timestamptz) partition by range (at); create table t partition of p default";
    insta::assert_snapshot!(check_report(partition, MONTHS).await, @"
    error[is_partition]: public.t: public.t is itself a partition
      hint: name the partitioned table, or detach the partition first
    ");
    insta::assert_snapshot!(check_report("", "table = 'pg_catalog.pg_class'\n[partition]\nby = 'oid'\nevery = 1000\n").await, @"
    error[system_table]: pg_catalog.pg_class: pg_catalog.pg_class is a table of the system or of pgstrata itself
      hint: name a table of your own
    ");
}

#[tokio::test]
async fn inheritance_and_types() {
    insta::assert_snapshot!(check_good("create table child () inherits (t)").await, @"
    error[inheritance_children]: public.t: public.t has 1 inheriting table, which a partitioned table cannot have
      hint: detach each child: alter table <child> no inherit public.t
    ");
    insta::assert_snapshot!(check_good("create table parent (note text); alter table t inherit parent").await, @"
    error[inheritance_parents]: public.t: public.t inherits from another table, which a partitioned table cannot
      hint: detach it: alter table public.t no inherit <parent>
    ");
    let typed = "create type row as (id bigint, at timestamptz);
        create table t of row (id primary key, at not null); analyze t";
    insta::assert_snapshot!(check_report(typed, MONTHS).await, @"
    error[typed_table]: public.t: public.t was created OF a composite type, and the partitioned table would lose its link to the type
      hint: alter table public.t not of
    ");
}

#[tokio::test]
async fn no_usable_key() {
    let columns = "create table t (id bigint, at timestamptz not null, code text not null);";
    insta::assert_snapshot!(check_report(&format!("{columns} analyze t"), MONTHS).await, @"
    error[no_usable_key]: public.t: table public.t has no primary key and no unique index
      hint: alter table public.t add constraint id_not_null check (id is not null) not valid; alter table public.t validate constraint id_not_null; alter table public.t alter column id set not null; alter table public.t drop constraint id_not_null; create unique index concurrently t_key on public.t (id); alter table public.t add primary key using index t_key
    ");
    insta::assert_snapshot!(check_report(&format!("{columns} create unique index t_id on t (id); analyze t"), MONTHS).await, @"
    error[no_usable_key]: public.t: table public.t has no usable key: t_id has nullable columns (id); now, 0 rows contain NULL in id
      hint: set not_null = true under [partition]; the job then keeps NULL out of these columns
    ");
    let others = "create unique index a on t (code) where id > 0; create unique index b on t (lower(code));
        create unique index c on t (code text_pattern_ops); create unique index d on t (code desc); analyze t";
    insta::assert_snapshot!(check_report(&format!("{columns} {others}"), &format!("{MONTHS}drop_unique = ['a', 'b', 'c', 'd']")).await, @"
    error[no_usable_key]: public.t: table public.t has no usable key: a covers only some of the rows; b is on an expression; c does not have the default ascending order of its types (the operators in pg_catalog); d does not have the default ascending order of its types (the operators in pg_catalog)
      hint: alter table public.t add constraint id_not_null check (id is not null) not valid; alter table public.t validate constraint id_not_null; alter table public.t alter column id set not null; alter table public.t drop constraint id_not_null; create unique index concurrently t_key on public.t (id); alter table public.t add primary key using index t_key
    warning[unique_given_up]: a: after the swap, index a is no longer unique: nothing prevents duplicates of (code), and a rollback fails as long as there are any
      hint: make sure that the application does not rely on the guarantee, for example with ON CONFLICT
    warning[unique_given_up]: b: after the swap, index b is no longer unique: nothing prevents duplicates of the values of its expression, and a rollback fails as long as there are any
      hint: make sure that the application does not rely on the guarantee, for example with ON CONFLICT
    warning[unique_given_up]: c: after the swap, index c is no longer unique: nothing prevents duplicates of (code), and a rollback fails as long as there are any
      hint: make sure that the application does not rely on the guarantee, for example with ON CONFLICT
    warning[unique_given_up]: d: after the swap, index d is no longer unique: nothing prevents duplicates of (code), and a rollback fails as long as there are any
      hint: make sure that the application does not rely on the guarantee, for example with ON CONFLICT
    ");
}

#[tokio::test]
async fn the_partition_column() {
    insta::assert_snapshot!(check_good("alter table t rename at to created_at").await, @"
    error[no_such_column]: at: table public.t has no column at
      hint: columns with a usable type: id, created_at
    ");
    insta::assert_snapshot!(check_report(GOOD, &MONTHS.replace("'at'", "'att'")).await, @"
    error[no_such_column]: att: table public.t has no column att
      hint: did you mean at?
    ");
    insta::assert_snapshot!(check_report(GOOD, &MONTHS.replace("'at'", "'note'")).await, @"
    error[unusable_type]: note: partition column note has type text, which cannot be divided into ranges of equal length
      hint: choose a column of type timestamptz, timestamp, date, smallint, integer or bigint
    ");
    insta::assert_snapshot!(check_report(GOOD, &MONTHS.replace("'at'", "'id'")).await, @r#"
    error[interval]: partition.every: the interval `1 month` is an interval of time, but the column has type bigint: write a plain number, such as "100000"
      hint: change `every` under [partition]
    "#);
    let generated =
        "create table t (id bigint primary key, s bigint, at bigint not null generated always as (s) stored);
        analyze t";
    insta::assert_snapshot!(check_report(generated, &MONTHS.replace("'month'", "1000")).await, @"
    error[generated_partition_column]: at: partition column at is a generated column, and PostgreSQL does not support generated partition columns
      hint: choose the column from which it is computed, or an ordinary column
    ");
}

#[tokio::test]
async fn nulls_and_infinities_are_counted() {
    let nulls = "alter table t alter at drop not null; update t set at = null where id < 3;";
    insta::assert_snapshot!(check_good(nulls).await, @r#"
    error[nullable_partition_column]: at: partition column at is nullable (3 rows contain NULL now), but it becomes part of the key
      hint: set null_as = "..." under [partition], an SQL expression that gives these rows a value; or set a value in them, and set not_null = true under [partition]; the job then keeps NULL out of the column
    "#);
    insta::assert_snapshot!(check_good("alter table t alter at drop not null; create index on t (at)").await, @"
    error[nullable_partition_column]: at: partition column at is nullable (0 rows contain NULL now), but it becomes part of the key
      hint: set not_null = true under [partition]; the job then keeps NULL out of the column
    ");
    let infinite = format!(
        "{GOOD} update t set at = 'infinity' where id = 1; update t set at = '-infinity' where id in (2, 3)"
    );
    insta::assert_snapshot!(check_report(&infinite, MONTHS).await, @"warning[infinite_values]: at: 3 rows contain infinity or -infinity in column at, which no partition with bounds accepts: they go to the default partition");
    insta::assert_snapshot!(check_report(&format!("{infinite}; create index on t (at)"), &format!("{MONTHS}default = false\n")).await, @"
    error[infinite_values]: at: 3 rows contain infinity or -infinity in column at, which no partition with bounds accepts
      hint: set a finite value in these rows, or set default = true under [partition]
    ");
}

#[tokio::test]
async fn rows_outside_the_bounds_are_counted() {
    let rows = "insert into t values (-1, '2023-12-31 23:59:59Z', ''), (-2, '-infinity', '')";
    insta::assert_snapshot!(check_report(&format!("{GOOD}{rows}"), SPRING).await, @"
    error[infinite_values]: at: 1 row contains infinity or -infinity in column at, which no partition with bounds accepts
      hint: set a finite value in these rows, or set default = true under [partition]
    error[rows_outside_bounds]: at: 1 row lies below 2024-01-01 00:00:00+00, 23 rows lie at or above 2024-04-01 00:00:00+00: no partition accepts them, because default = false
      hint: widen `from` and `to` under [partition], or set default = true
    ");
    insta::assert_snapshot!(check_report(&format!("{GOOD}{rows}"), &SPRING.replace("false", "true")).await, @"
    warning[infinite_values]: at: 1 row contains infinity or -infinity in column at, which no partition with bounds accepts: they go to the default partition
    warning[rows_outside_bounds]: at: 1 row lies below 2024-01-01 00:00:00+00, 23 rows lie at or above 2024-04-01 00:00:00+00: they go to the default partition
    ");
    insta::assert_snapshot!(check_report(GOOD, &SPRING.replace("2024-04-01", "2023-04-01")).await, @"
    error[bounds]: at: `to` (2023-04-01 00:00:00+00) is not greater than `from` (2024-01-01 00:00:00+00)
      hint: change `from`, `to` or `every` under [partition]
    ");
    insta::assert_snapshot!(check_report(GOOD, &SPRING.replace("2024-04-01", "April")).await, @r#"
    error[bounds]: at: `April` is not a date: write "2024-01-31" or "2024-01-31 06:00"
      hint: change `from`, `to` or `every` under [partition]
    "#);
    insta::assert_snapshot!(check_report(GOOD, &SPRING.replace("month", "hour").replace("2024-04", "2034-04")).await, @"
    error[bounds]: at: the interval `1 hour` from 2024-01-01 00:00:00+00 to 2034-04-01 01:00:00+00 with 0 partitions ahead results in 89833 partitions, more than 10000: choose a longer interval, or set a later `from` and let a default partition take older rows
      hint: change `from`, `to` or `every` under [partition]
    ");
    insta::assert_snapshot!(check_report(GOOD, &format!("{MONTHS}names = '{{table}}_{{mm}}'\nto = '2025-04-01'")).await, @r#"
    error[partition_names]: partition.names: the partitions [2024-01-01 00:00:00+00, 2024-02-01 00:00:00+00) and [2025-01-01 00:00:00+00, 2025-02-01 00:00:00+00) would both have the name "t_01": add {yyyy} to `names`
      hint: change `names` under [partition]
    "#);
}

#[tokio::test]
async fn indexes_that_partitions_cannot_have() {
    insta::assert_snapshot!(check_good("alter table t add constraint t_note_key unique (note)").await, @"
    error[unique_without_partition_column]: t_note_key: unique constraint t_note_key does not contain the partition column at
      hint: keep it with a key table: list it under [partition] keep_unique; or add at to it; or give up the guarantee: list it under drop_unique
    ");
    insta::assert_snapshot!(check_good("create unique index t_lower on t (lower(note))").await, @"
    error[unique_on_expression]: t_lower: unique index t_lower is on an expression and cannot be enforced across partitions
      hint: keep it with a key table: list it under [partition] keep_unique; or give up the guarantee: list it under drop_unique
    ");
    insta::assert_snapshot!(check_good("create index t_at on t (at); update pg_index set indisvalid = false where indexrelid = 't_at'::regclass").await, @"
    error[invalid_index]: t_at: index t_at is invalid: a concurrent build failed or is still running
      hint: run `drop index concurrently public.t_at` or `reindex index concurrently public.t_at`
    ");
    let plan = format!("{MONTHS}drop_unique = ['t_nope', 't_pkey', 't_at', 't_note_key']\n");
    insta::assert_snapshot!(check_report(&format!("{GOOD} create index t_at on t (at); create unique index t_note on t (note)"), &plan).await, @"
    error[unique_without_partition_column]: t_note: unique index t_note does not contain the partition column at
      hint: keep it with a key table: list it under [partition] keep_unique; or add at to it; or give up the guarantee: list it under drop_unique
    error[drop_unique]: t_at: drop_unique lists t_at, which is not unique
      hint: remove it from the list: an index that is not unique is carried over in any case
    error[drop_unique]: t_nope: drop_unique lists t_nope, but public.t has no such index
      hint: did you mean t_note?
    error[drop_unique]: t_note_key: drop_unique lists t_note_key, but public.t has no such index
      hint: did you mean t_note?
    error[drop_unique]: t_pkey: drop_unique lists t_pkey, which is the key
      hint: remove it from the list: the partition column is added to the key
    ");
}

#[tokio::test]
async fn dependents_that_cannot_be_carried_over() {
    insta::assert_snapshot!(check_good("create table c (t_id bigint references t); alter table t add parent bigint references t").await, @r#"
    error[incoming_foreign_key]: c_t_id_fkey: foreign key c_t_id_fkey of table public.c references public.t: the partitioned table is not unique on (id) alone
      hint: keep it with a key table: set [dependents] incoming_fk = "keep", and do not set keep_unique = false; or drop it at the swap with [dependents] incoming_fk = "drop", or drop it by hand: alter table public.c drop constraint c_t_id_fkey; or change it so that it also references at
    error[incoming_foreign_key]: t_parent_fkey: foreign key t_parent_fkey of the table itself references public.t: the partitioned table is not unique on (id) alone
      hint: keep it with a key table: set [dependents] incoming_fk = "keep", and do not set keep_unique = false; or drop it at the swap with [dependents] incoming_fk = "drop", or drop it by hand: alter table public.t drop constraint t_parent_fkey; or change it so that it also references at
    "#);
    insta::assert_snapshot!(check_good("create view v as select id, note from t group by id; create view w as select t from t").await, @"
    error[view_bound_to_key]: public.v: view public.v groups by the primary key alone or has a whole row as a column, so it cannot be redirected to another table
      hint: list the columns explicitly in the view
    error[view_bound_to_key]: public.w: view public.w groups by the primary key alone or has a whole row as a column, so it cannot be redirected to another table
      hint: list the columns explicitly in the view
    ");
    insta::assert_snapshot!(check_good("create materialized view m as select id, note from t; create materialized view n as select id from m").await, @"
    error[materialized_view]: public.m: materialized view public.n depends on materialized view public.m, which is created again after the swap
      hint: drop materialized view public.n before the run, and create it again once the job is finalized
    ");
    let triggers = "create function f() returns trigger language plpgsql as 'begin return new; end';
        create trigger before before insert on t for each row execute function f();
        create trigger transition after insert on t referencing new table as n for each row execute function f()";
    insta::assert_snapshot!(check_good(triggers).await, @"
    error[trigger_with_transition_table]: transition: row trigger transition uses a transition table, which row triggers of a partitioned table do not support
      hint: make it a statement trigger, or rewrite it without the transition table
    warning[trigger_on_move]: public.t: an update that moves a row to another partition fires the row triggers for DELETE and INSERT, but of those for UPDATE only BEFORE triggers: before, transition
      hint: check that this is correct if the application updates the partition column
    warning[before_insert_trigger]: before: row trigger before fires before an insert: on a partitioned table, it must not change the partition column so that the row belongs in another partition
      hint: read the trigger function
    ");
    // A function that another function calls is not created again: the other would keep the former one.
    let others = "create function g(t) returns int language sql as 'select 1';
        create function k(t) returns int begin atomic select g($1); end;
        create table u (whole t, many t[]); create domain d as t check ((value).id > 0)";
    insta::assert_snapshot!(check_good(others).await, @"
    error[unclassified_dependent]: constraint d_check: constraint d_check depends on public.t, and this version does not carry it over
      hint: drop it before the run, and create it again once the job is finalized
    error[row_type_function]: function public.g(public.t): function public.g(public.t) takes or returns the row type of public.t, and cannot be created again for the row type of the new table
      hint: drop what depends on it, or list the columns explicitly (arguments, or returns table (...)), or drop it before the run, and create it again once the job is finalized
    error[row_type_column]: table public.u: table public.u uses the row type of public.t, which remains the row type of the old table
      hint: use a separate composite type: create type ... as (...)
    error[row_type_column]: type public.d: type public.d uses the row type of public.t, which remains the row type of the old table
      hint: use a separate composite type: create type ... as (...)
    ");
}

#[tokio::test]
async fn event_triggers() {
    let setup = "create function f() returns event_trigger language plpgsql as 'begin end';
        create event trigger watch on ddl_command_end execute function f()";
    insta::assert_snapshot!(check_good(setup).await, @"
    warning[event_triggers]: watch: event triggers are enabled and may fire on statements of the job
      hint: make sure that they neither reject nor change the statements that `pgstrata sql` prints
    ");
}

#[tokio::test]
async fn names_that_are_taken() {
    let taken = "create table t_new (); create view t_old as select 1; create table t_y2024m02 (); create table t_default ();
        create index t_pkey_new on t (note); create type t_y2024m03 as enum ('a'); create sequence t_y2024m01_pkey;";
    insta::assert_snapshot!(check_report(&format!("{GOOD}{taken}"), SPRING).await, @"
    error[rows_outside_bounds]: at: 23 rows lie at or above 2024-04-01 00:00:00+00: no partition accepts them, because default = false
      hint: widen `from` and `to` under [partition], or set default = true
    error[name_taken]: public.t_new: the job needs the name public.t_new for the partitioned table (until the swap), but a table has it
      hint: rename or drop it
    error[name_taken]: public.t_old: the job needs the name public.t_old for the old table (after the swap), but a view has it
      hint: rename or drop it
    error[name_taken]: public.t_y2024m02: the job needs the name public.t_y2024m02 for a partition, but a table has it
      hint: rename or drop it
    error[name_taken]: public.t_y2024m03: the job needs the name public.t_y2024m03 for a partition, but a type has it
      hint: rename or drop it
    error[name_taken]: public.t_pkey_new: the job needs the name public.t_pkey_new for index t_pkey of the partitioned table, but an index has it
      hint: rename or drop it
    error[name_taken]: public.t_y2024m01_pkey: the job needs the name public.t_y2024m01_pkey for index t_pkey of a partition, but a sequence has it
      hint: rename or drop it
    ");
    let many = "do 'begin for m in 1..12 loop execute format(''create table t_y2024m%s ()'', to_char(m, ''FM00'')); end loop; end'";
    insta::assert_snapshot!(check_report(&format!("{GOOD}{many}"), &format!("{MONTHS}to = '2025-01-01'\n")).await, @"
    error[name_taken]: public.t_y2024m01: the job needs the name public.t_y2024m01 for a partition, but a table has it
      hint: rename or drop it
    error[name_taken]: public.t_y2024m02: the job needs the name public.t_y2024m02 for a partition, but a table has it
      hint: rename or drop it
    error[name_taken]: public.t_y2024m03: the job needs the name public.t_y2024m03 for a partition, but a table has it
      hint: rename or drop it
    error[name_taken]: public.t_y2024m04: the job needs the name public.t_y2024m04 for a partition, but a table has it
      hint: rename or drop it
    error[name_taken]: public.t_y2024m05: the job needs the name public.t_y2024m05 for a partition, but a table has it
      hint: rename or drop it
    error[name_taken]: public.t_y2024m06: the job needs the name public.t_y2024m06 for a partition, but a table has it
      hint: rename or drop it
    error[name_taken]: public.t_y2024m07: the job needs the name public.t_y2024m07 for a partition, but a table has it
      hint: rename or drop it
    error[name_taken]: public.t_y2024m08: the job needs the name public.t_y2024m08 for a partition, but a table has it
      hint: rename or drop it
    error[name_taken]: public.t_y2024m09: the job needs the name public.t_y2024m09 for a partition, but a table has it
      hint: rename or drop it
    error[name_taken]: public.t_y2024m10: the job needs the name public.t_y2024m10 for a partition, but a table has it
      hint: rename or drop it
    error[name_taken]: public: 2 more names in schema public are not available
      hint: rename or drop the objects that have these names, or change `names` under [partition]
    ");
    let collision = "create index t_by_at on t (at); create index by_at on t (at desc)";
    insta::assert_snapshot!(check_report(&format!("{GOOD}{collision}"), &format!("{MONTHS}to = '2024-06-01'\n")).await, @"
    error[names_collide]: public.t_y2024m01_by_at: index t_by_at of a partition and index by_at of a partition would have the same name, public.t_y2024m01_by_at
      hint: rename the index, or change `names` under [partition]
    error[names_collide]: public.t_y2024m02_by_at: index t_by_at of a partition and index by_at of a partition would have the same name, public.t_y2024m02_by_at
      hint: rename the index, or change `names` under [partition]
    error[names_collide]: public.t_y2024m03_by_at: index t_by_at of a partition and index by_at of a partition would have the same name, public.t_y2024m03_by_at
      hint: rename the index, or change `names` under [partition]
    error[names_collide]: public.t_y2024m04_by_at: index t_by_at of a partition and index by_at of a partition would have the same name, public.t_y2024m04_by_at
      hint: rename the index, or change `names` under [partition]
    error[names_collide]: public.t_y2024m05_by_at: index t_by_at of a partition and index by_at of a partition would have the same name, public.t_y2024m05_by_at
      hint: rename the index, or change `names` under [partition]
    error[names_collide]: public.t_default_by_at: index t_by_at of a partition and index by_at of a partition would have the same name, public.t_default_by_at
      hint: rename the index, or change `names` under [partition]
    ");
}

#[tokio::test]
async fn other_jobs() {
    let db = Database::new().await;
    const YEARS: &str = "table = 't'\n[partition]\nby = 'at'\nevery = 'year'\n";
    db.execute(&format!("{GOOD} create table u (like t including all)")).await;
    let file = db.plan(&format!("name = 'first'\n{YEARS}"));
    db.pgstrata(&["run", file.to_str().unwrap()]).await.ok();
    insta::assert_snapshot!(check(&db, YEARS).await, @"
    error[table_in_other_job]: public.t: job first is open on the same table (verified)
      hint: continue that job, or end it: `pgstrata abort first`
    ");
    insta::assert_snapshot!(check(&db, &format!("name = 'first'\n{}", YEARS.replace("'t'", "'u'"))).await, @r#"
    error[job_name_taken]: first: another job with the name first is open on table public.t (verified)
      hint: choose another name: name = "..." at the top of the plan
    warning[no_statistics]: public.u: public.u has no statistics yet (16.0 KiB with indexes): progress and the order of the copy are guesses
      hint: analyze public.u
    "#);
    assert_eq!(check(&db, &format!("name = 'first'\n{YEARS}")).await, "");
}

#[tokio::test]
async fn a_prepared_transaction_and_a_standby() {
    let settings = [SETTINGS, &[("max_prepared_transactions", "2")]].concat();
    let server = tokio::task::spawn_blocking(move || PrivateServer::start(&settings)).await.unwrap().unwrap();
    let db = Database::on(&server).await;
    db.execute(GOOD).await;
    db.execute("begin; update t set note = '' where id = 1; prepare transaction 'it''s'").await;
    insta::assert_snapshot!(check(&db, MONTHS).await, @"
    error[prepared_transaction]: it's: prepared transaction it's holds a lock on public.t
      hint: run `commit prepared 'it''s'` or `rollback prepared 'it''s'`
    ");
    db.execute("rollback prepared 'it''s'").await;
    server.stop_immediate().unwrap();
    std::fs::write(server.data_dir().join("standby.signal"), "").unwrap();
    server.start_again().unwrap();
    insta::assert_snapshot!(check(&db, MONTHS).await, @"
    error[standby]: server: the server is a standby, which cannot be written to
      hint: connect to the primary; if the connection string lists several hosts, add target_session_attrs=read-write
    ");
}

#[tokio::test]
async fn a_lock_timeout_at_the_servers_deadlock_timeout() {
    insta::assert_snapshot!(check_report(GOOD, &format!("{MONTHS}[swap]\nlock_timeout = '1s'\n")).await, @r#"
    error[lock_timeout_too_long]: swap.lock_timeout: lock_timeout is 1000 ms, and the server's deadlock_timeout is 400 ms: the swap must give up before the server checks for deadlocks
      hint: set lock_timeout below 400 ms under [swap], such as "200 ms"
    "#);
}

#[tokio::test]
async fn a_table_without_statistics() {
    insta::assert_snapshot!(check_report("create table t (id bigint primary key, at timestamptz not null)", MONTHS).await, @"
    warning[no_statistics]: public.t: public.t has no statistics yet (8.0 KiB with indexes): progress and the order of the copy are guesses
      hint: analyze public.t
    ");
}
