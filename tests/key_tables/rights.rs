//! The functions of a key table run with the privileges of their owner. No other role can use these, and the key
//! table stays correct when partitions and columns are changed by hand.

use super::{Pair, outcome};
use crate::support::checks::{check, errors};
use crate::support::cluster::{Database, Version, on_oldest_and_newest};

on_oldest_and_newest!(
    changes_of_referencing_keys_prevent_a_rollback,
    the_owner_of_a_referencing_table_must_be_trusted,
    constraint_triggers_of_others_run_as_the_writer,
    a_column_of_another_type_is_rejected,
    truncate_reads_no_table_of_others,
    truncate_calls_no_function_of_the_owner,
    truncate_in_an_old_snapshot_leaves_no_keys,
    a_partition_attached_by_hand_is_noticed_and_repaired,
    a_trigger_of_another_role_is_no_key_table,
    the_present_owner_gets_the_key_table,
    the_owner_needs_usage_on_the_schema,
    a_move_that_a_trigger_prevents_keeps_its_key,
    row_security_does_not_hide_keys_from_truncate,
);

const PLAN: &str = "table = 't'\n[partition]\nby = 'ts'\nevery = 10\nfrom = 0\nto = 30\nkeep_unique = true\n";

const TABLE: &str = "create table t (id int primary key, ts int not null, mail text unique);
    insert into t select i, i, 'm' || i from generate_series(1, 29) i; analyze t";

/// A database with the table, and two roles that belong to it alone: the owner of the table, and another one.
struct Roles {
    db: Database,
    owner: String,
    other: String,
}

impl Roles {
    async fn new(version: Version, setup: &str) -> Self {
        let db = Database::of(version).await;
        let [owner, other] = ["owner", "other"].map(|role| format!("{role}_of_{}", db.name()));
        db.execute(&format!(
            "create role {owner} login; create role {other} login; create schema other authorization {other};
             grant create, usage on schema public to {owner}; {}",
            setup.replace("OWNER", &owner).replace("OTHER", &other)
        ))
        .await;
        Self { db, owner, other }
    }

    async fn swapped(&self) {
        let plan = self.db.plan(PLAN);
        self.db.pgstrata(&["run", plan.to_str().unwrap(), "--swap"]).await.ok();
    }
}

/// A function that records the role that runs it, and returns its argument.
const NOTE: &str = "create table public.ran (role text); grant insert on public.ran to public;
    create function other.note() returns trigger language plpgsql as $$ begin insert into public.ran values (current_user); return null; end $$;
    alter function other.note() owner to OTHER;";

async fn the_owner_of_a_referencing_table_must_be_trusted(version: Version) {
    let roles = Roles::new(
        version,
        &format!("{TABLE}; grant references on t to OTHER; set role OTHER; create table other.c (t_id int references public.t on delete cascade); reset role"),
    )
    .await;
    let Roles { db, other, .. } = &roles;
    let report = check(db, PLAN).await;
    let trusting = format!("trust = ['{other}']\n{PLAN}");
    // Since PostgreSQL 18, AFTER triggers run as the role that queued them.
    let refused: &[&str] = if version == Version::V18 { &[] } else { &["error[key_table_trust]: other.c"] };
    assert_eq!(errors(&report), refused, "{report}");
    assert_eq!(errors(&check(db, &trusting).await), [""; 0]);
    let trusted = db.plan(&trusting);
    // Nobody but the job's role can create a foreign key to the key table before finalize.
    db.pgstrata(&["run", trusted.to_str().unwrap(), "--swap"]).await.ok();
    let may = format!("select has_table_privilege('{other}', 't_pkey_keys', 'references')::int::bigint");
    assert_eq!(db.count(&may).await, 0);
    db.pgstrata(&["finalize", "t", "--now"]).await.ok();
    assert_eq!(db.count(&may).await, i64::from(version == Version::V18));
}

async fn constraint_triggers_of_others_run_as_the_writer(version: Version) {
    let roles = Roles::new(
        version,
        &format!(
            "{TABLE}; {NOTE} create table c (t_id int, constraint same_name foreign key (t_id) references t);
            grant usage, create on schema public to OTHER; grant delete on t to OTHER"
        ),
    )
    .await;
    roles.swapped().await;
    let db = &roles.db;
    let client = db.connect_as(&roles.other).await;
    client
        .batch_execute(
            "create table m (id int); create constraint trigger same_name after insert on m deferrable initially deferred for each row execute function other.note();
             begin; insert into m values (1); delete from t where false; commit",
        )
        .await
        .unwrap();
    assert_eq!(db.count(&format!("select count(*) from ran where role <> '{}'", roles.other)).await, 0);
    assert_eq!(db.count("select count(*) from ran").await, 1);
}

async fn a_column_of_another_type_is_rejected(version: Version) {
    let roles = Roles::new(
        version,
        &format!("{TABLE}; {NOTE} alter table t owner to OWNER; grant usage on schema other to OWNER"),
    )
    .await;
    roles.swapped().await;
    let (db, owner) = (&roles.db, &roles.owner);
    db.execute(&format!(
        "set role {owner}; create type e as enum ('a', 'b');
         create function cast_of(e) returns text language plpgsql as $$ begin insert into public.ran values (current_user); return 'x'; end $$;
         create cast (e as text) with function cast_of(e) as assignment;
         alter table t rename mail to was; alter table t add mail e"
    ))
    .await;
    let client = db.connect_as(owner).await;
    for statement in [
        "insert into t (id, ts, was, mail) values (100, 1, 'n', 'a')",
        "update t set was = 'o' where id = 1",
        "delete from t where id = 1",
    ] {
        assert_eq!(outcome(&client, statement).await, "42804", "{statement}");
    }
    assert_eq!(db.count("select count(*) from ran").await, 0);
}

async fn truncate_reads_no_table_of_others(version: Version) {
    let roles = Roles::new(
        version,
        &format!(
            "{TABLE}; {NOTE} grant references on t to OTHER; create role OTHER_app login; grant truncate on t to OTHER_app;
             create function other.volatile() returns void language sql as 'insert into public.ran values (current_user)';
             create function other.immutable(int) returns int language plpgsql immutable as $$ begin perform other.volatile(); return $1; end $$;
             alter function other.volatile() owner to OTHER; alter function other.immutable owner to OTHER;
             create table other.c (t_id int references public.t); alter table other.c owner to OTHER;
             grant select on other.c to public; grant usage on schema other to public"
        ),
    )
    .await;
    let Roles { db, other, .. } = &roles;
    let plan = db.plan(&format!("trust = ['{other}']\n{PLAN}"));
    db.pgstrata(&["run", plan.to_str().unwrap(), "--swap"]).await.ok();
    db.execute(&format!("set role {other}; create index on other.c ((t_id + other.immutable(1)))")).await;
    db.execute("truncate ran").await;
    let app = db.connect_as(&format!("{other}_app")).await;
    assert_eq!(outcome(&app, "truncate t").await, "ok 0");
    assert_eq!(db.count("select count(*) from t_pkey_keys").await, 0);
    // The foreign key reads the referencing table as its owner.
    assert_eq!(db.count(&format!("select count(*) from ran where role <> '{other}'")).await, 0);
}

/// TRUNCATE of a partition reads the other ones, whose indexes the owner can create while the functions belong to a superuser.
async fn truncate_calls_no_function_of_the_owner(version: Version) {
    let roles = Roles::new(version, &format!("{TABLE}; {NOTE} alter table t owner to OWNER")).await;
    roles.swapped().await;
    let (db, owner) = (&roles.db, &roles.owner);
    let leaf = "(select min(relid::regclass::text) from pg_partition_tree('t') where isleaf)";
    let other = "(select max(relid::regclass::text) from pg_partition_tree('t') where isleaf)";
    db.execute(&format!(
        "set role {owner}; create function noted() returns void language sql as 'insert into public.ran values (current_user)';
         create function evil(int) returns int language plpgsql immutable as $$ begin perform public.noted(); return $1; end $$;
         do $$ begin execute format('alter table %s owner to {owner}', {other}); execute format('create index on %s ((id + evil(1)))', {other}); end $$"
    ))
    .await;
    db.execute("truncate ran").await;
    let client = db.connect_as(owner).await;
    let leaf: String = client.query_one(&format!("select {leaf}"), &[]).await.unwrap().get(0);
    assert_eq!(outcome(&client, &format!("truncate {leaf}")).await, "42501");
    assert_eq!(db.count(&format!("select count(*) from ran where role <> '{owner}'")).await, 0);
}

async fn truncate_in_an_old_snapshot_leaves_no_keys(version: Version) {
    let roles = Roles::new(version, TABLE).await;
    roles.swapped().await;
    let db = &roles.db;
    let client = db.client().await;
    for (statement, works) in [("truncate t_p0_to_10", false), ("truncate t", true)] {
        client.batch_execute("begin isolation level repeatable read; select from t").await.unwrap();
        db.execute("insert into t values (1000, 5, 'new')").await;
        let leaf = "select oid::regclass::text from pg_class where relispartition and relkind = 'r' and
            pg_get_expr(relpartbound, oid) ~ 'FROM \\(0\\)'";
        let leaf: String = client.query_one(leaf, &[]).await.unwrap().get(0);
        let outcome = outcome(&client, &statement.replace("t_p0_to_10", &leaf)).await;
        assert_eq!(outcome, if works { "ok 0" } else { "0A000" }, "{statement}");
        client.batch_execute(if works { "commit" } else { "rollback" }).await.unwrap();
        db.execute("delete from t where id = 1000").await;
        db.execute("insert into t values (1000, 5, 'new'); delete from t where id = 1000").await;
    }
}

async fn a_partition_attached_by_hand_is_noticed_and_repaired(version: Version) {
    let roles = Roles::new(version, TABLE).await;
    roles.swapped().await;
    let db = &roles.db;
    let level = "select (select count(*) from t) - (select count(*) from t_pkey_keys) + (select count(*) from t) - (select count(*) from t_mail_key_keys)";
    db.execute(
        "create table more partition of t for values from (30) to (40); insert into t values (35, 35, 'm35')",
    )
    .await;
    // In the window, the job creates the trigger.
    db.pgstrata(&["verify", "t"]).await.ok();
    let repaired = "select t_pkey_keys_repair('t'::regclass) + t_mail_key_keys_repair('t'::regclass)";
    assert_eq!(db.count(repaired).await, 0);
    db.pgstrata(&["verify", "t"]).await.ok();
    db.execute("truncate more").await;
    assert_eq!(db.count(level).await, 0);
    db.pgstrata(&["finalize", "t", "--now"]).await.ok();
    // The functions for ATTACH and DETACH; the trigger of the partition comes and goes.
    db.execute(
        "begin; create table by_hand (like t including all); insert into by_hand values (45, 45, 'm45');
         select t_pkey_keys_add('by_hand'::regclass), t_mail_key_keys_add('by_hand'::regclass);
         alter table t attach partition by_hand for values from (40) to (50); commit",
    )
    .await;
    assert_eq!(db.count(level).await, 0);
    db.execute(
        "begin; select t_pkey_keys_remove('by_hand'::regclass), t_mail_key_keys_remove('by_hand'::regclass);
         alter table t detach partition by_hand; commit",
    )
    .await;
    assert_eq!(db.count(level).await, 0);
    // Keys without a row, and rows without a key.
    db.execute("insert into t values (36, 36, 'm36')").await;
    db.execute("alter table t attach partition by_hand for values from (40) to (50); alter table t detach partition more").await;
    assert_eq!(db.count(repaired).await, 4);
    assert_eq!(db.count(level).await, 0);
    db.execute("create table last partition of t for values from (60) to (70)").await;
    db.pgstrata(&["maintain"]).await.ok();
    db.execute("insert into t values (65, 65, 'm65'); truncate last").await;
    assert_eq!(db.count(level).await, 0);
}

async fn a_trigger_of_another_role_is_no_key_table(version: Version) {
    let roles = Roles::new(version, &format!("{TABLE}; {NOTE}")).await;
    roles.swapped().await;
    let (db, other) = (&roles.db, &roles.other);
    db.pgstrata(&["finalize", "t", "--now"]).await.ok();
    db.execute(&format!(
        "grant trigger on t to {other}; grant create, usage on schema public to {other}; set role {other};
         create table x_keys (); create function x_keys_truncate() returns trigger language plpgsql as $$ begin return null; end $$;
         create function x_keys_remove(regclass) returns bigint language sql as 'insert into public.ran values (current_user) returning 1::bigint';
         create trigger \"!pgstrata_truncate_x\" after truncate on t for each statement execute function x_keys_truncate()"
    ))
    .await;
    db.execute("insert into t values (200, 25, 'm200')").await;
    let plan = db.plan(&format!("name = 'later'\n{PLAN}[retention]\nkeep = 10\n"));
    db.pgstrata(&["maintain", plan.to_str().unwrap()]).await;
    db.pgstrata(&["maintain", "--table", "t"]).await;
    assert_eq!(db.count("select count(*) from ran").await, 0);
    assert_eq!(
        db.count("select count(*) from pg_trigger where tgname = '!pgstrata_truncate_x' and tgrelid <> 't'::regclass").await,
        0
    );
}

async fn the_present_owner_gets_the_key_table(version: Version) {
    let roles = Roles::new(
        version,
        &format!("{TABLE}; alter table t owner to OWNER; grant create, usage on schema public to OTHER"),
    )
    .await;
    roles.swapped().await;
    let Roles { db, other, .. } = &roles;
    db.execute(&format!(
        "do $$ declare part regclass; begin for part in select relid from pg_partition_tree('t') loop
           execute format('alter table %s owner to {other}', part); end loop; end $$"
    ))
    .await;
    db.pgstrata(&["finalize", "t", "--now"]).await.ok();
    let own = "select count(*) from (select relowner as owner from pg_class where relname = 't_mail_key_keys'
        union all select proowner from pg_proc where proname like 't\\_mail\\_key\\_keys\\_%') x where owner <> ";
    assert_eq!(db.count(&format!("{own} '{other}'::regrole")).await, 0);
    let client = db.connect_as(other).await;
    assert_eq!(outcome(&client, "insert into t values (100, 1, 'm1')").await, "23505 t_mail_key");
    assert_eq!(outcome(&client, "insert into t values (100, 1, 'm100')").await, "ok 1");
}

async fn the_owner_needs_usage_on_the_schema(version: Version) {
    let roles = Roles::new(
        version,
        "create schema s; create table s.t (id int primary key, ts int not null, mail text unique);
         insert into s.t select i, i, 'm' || i from generate_series(1, 29) i; analyze s.t;
         alter table s.t owner to OWNER; grant all on s.t to OTHER; grant usage on schema s to OTHER",
    )
    .await;
    let Roles { db, owner, other } = &roles;
    let plan = db.plan(&PLAN.replace("'t'", "'s.t'"));
    let report = check(db, &PLAN.replace("'t'", "'s.t'")).await;
    assert!(errors(&report).contains(&"error[key_table_usage]: owner_of_DATABASE".to_owned()), "{report}");
    db.execute(&format!("grant usage on schema s to {owner}")).await;
    db.pgstrata(&["run", plan.to_str().unwrap(), "--swap"]).await.ok();
    db.execute(&format!("revoke usage on schema s from {owner}")).await;
    db.pgstrata(&["finalize", "t", "--now"]).await.exits(1);
    db.execute(&format!("grant usage on schema s to {owner}")).await;
    db.pgstrata(&["finalize", "t", "--now"]).await.ok();
    let client = db.connect_as(other).await;
    assert_eq!(outcome(&client, "insert into s.t values (100, 1, 'm100')").await, "ok 1");
}

/// A trigger marks rows instead of letting them be deleted, even if an update moves them to another partition.
async fn a_move_that_a_trigger_prevents_keeps_its_key(version: Version) {
    let setup = "create table t (id int primary key, ts int not null, mail text unique, deleted bool);
        insert into t (id, ts, mail) select i, i, 'm' || i from generate_series(1, 29) i; analyze t;
        create table ch (t_id int references t on update cascade);
        insert into ch values (5), (6);
        create function soft() returns trigger language plpgsql as $$ begin
          update t set deleted = true where id = old.id; return null; end $$;
        create trigger soft before delete on t for each row execute function soft()";
    let plan = PLAN.strip_prefix("table = 't'\n").unwrap();
    let pair = Pair::new(Database::of(version).await, setup, plan).await;
    let client = &pair.clients[1];
    // The server skips the move; the plain table has no partitions, so it is not compared.
    assert_eq!(outcome(client, "update t set id = 105, ts = 15 where id in (5)").await, "ok 0");
    assert_eq!(outcome(client, "update t set ts = 15, mail = 'x' where id = 6").await, "ok 0");
    let level = "select count(*)::text from (
        (select id::text from t except all select id::text from t_pkey_keys) union all (select id::text from t_pkey_keys except all select id::text from t)
        union all (select mail from t except all select mail from t_mail_key_keys) union all (select mail from t_mail_key_keys except all select mail from t)
        union all select t_id::text from ch where t_id not in (select id from t)
        union all select pgstrata_former from t_pkey_keys where coalesce(pgstrata_former, pgstrata_moving) is not null) x";
    assert_eq!(super::rows(client, level).await, ["0"]);
    assert_eq!(outcome(client, "insert into t values (5, 1, 'other')").await, "23505 t_pkey");
}

async fn row_security_does_not_hide_keys_from_truncate(version: Version) {
    let roles = Roles::new(
        version,
        &format!("{TABLE}; alter table t owner to OWNER; alter table t enable row level security; alter table t force row level security;
            create policy few on t using (id < 3)"),
    )
    .await;
    roles.swapped().await;
    let (db, owner) = (&roles.db, &roles.owner);
    db.pgstrata(&["finalize", "t", "--now"]).await.ok();
    let client = db.connect_as(owner).await;
    let leaf: String = db
        .client()
        .await
        .query_one("select min(relid::regclass::text) from pg_partition_tree('t') where isleaf", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(outcome(&client, &format!("truncate {leaf}")).await, "ok 0");
    let level = "select (select count(*) from t) - (select count(*) from t_mail_key_keys)";
    assert_eq!(db.count(level).await, 0);
}

/// A rollback would lose each of these changes, or leave a foreign key on the key table of the inactive table.
async fn changes_of_referencing_keys_prevent_a_rollback(version: Version) {
    let children = "create table c (t_id int references t); insert into c values (5)";
    let roles = Roles::new(version, &format!("{TABLE}; {children}")).await;
    roles.swapped().await;
    let db = &roles.db;
    let add = "add constraint c_t_id_fkey foreign key (t_id) references t_pkey_keys (id)";
    for (change, undo) in [
        (
            "create table m (id int constraint m_fkey references t_pkey_keys (id) on delete cascade)"
                .to_owned(),
            "drop table m".to_owned(),
        ),
        ("alter table c drop constraint c_t_id_fkey".to_owned(), format!("alter table c {add} deferrable")),
        (
            format!("alter table c drop constraint c_t_id_fkey, {add} on delete cascade deferrable"),
            format!("alter table c drop constraint c_t_id_fkey, {add} deferrable"),
        ),
        (
            "alter table c rename constraint c_t_id_fkey to other".to_owned(),
            "alter table c rename constraint other to c_t_id_fkey".to_owned(),
        ),
        ("alter table c rename to cc".to_owned(), "alter table cc rename to c".to_owned()),
        (
            "drop table c".to_owned(),
            format!("{children}; alter table c drop constraint c_t_id_fkey, {add} deferrable")
                .replace(" references t)", " constraint c_t_id_fkey references t_pkey_keys (id))"),
        ),
    ] {
        db.execute(&change).await;
        let ran = db.pgstrata(&["rollback", "t"]).await.exits(1);
        assert!(ran.stderr.contains("_fkey") || ran.stderr.contains("other"), "{change}: {}", ran.stderr);
        db.execute(&undo).await;
    }
    db.pgstrata(&["rollback", "t"]).await.ok();
    db.execute("create table m (id int references t_pkey_keys (id))").await;
    db.pgstrata(&["sync", "t"]).await;
    db.pgstrata(&["swap", "t"]).await.exits(1);
    db.execute("drop table m").await;
    db.pgstrata(&["swap", "t"]).await.ok();
}
