//! Key tables are kept in sync by functions that have the privileges of the table's owner. A role that may only write to the
//! table cannot use them for anything else: neither with its own search path, nor with settings, nor by calls.

use tokio_postgres::Client;

use super::{IDS, KeyColumns, KeyedBy, Pair, outcome, rows};
use crate::support::cluster::{Database, Version, on_oldest_and_newest};

on_oldest_and_newest!(
    a_search_path_of_the_writer_changes_nothing,
    settings_of_the_writer_change_nothing,
    functions_of_key_tables_serve_nobody_else,
);

/// The table with a referenced key, and an index on an expression with a condition. It does not reference itself, so that
/// a partition can be truncated.
fn setup(name: &str) -> String {
    format!(
        "{}; alter table t drop constraint self; create unique index expression on t ((lower(v) || '!')) where v <> 'none';
         alter table t owner to owner_of_{name};
         do $$ begin execute format('grant usage on schema %I to writer_of_{name}; grant all on schema %1$I to owner_of_{name};
           grant all on all tables in schema %1$I to writer_of_{name}, owner_of_{name}', current_schema); end $$",
        KeyedBy::Primary.setup(true)
    )
}

const EXPRESSION: KeyColumns = KeyColumns {
    key_table: "expression_keys",
    values: "lower(v) || '!'",
    has_key: "v <> 'none'",
    columns: "key_1",
};

/// The tables, owned by one role, and a session of another role, which may write to them.
async fn pair(version: Version) -> (Pair, Client) {
    let db = Database::of(version).await;
    let name = db.name().to_owned();
    db.execute(&format!(
        "create role owner_of_{name}; create role writer_of_{name} login;
         create schema evil authorization writer_of_{name};
         alter default privileges revoke execute on functions from public"
    ))
    .await;
    let pair = Pair::new(db, &setup(&name), super::BY_MONTH).await;
    let leaves = "parted.t_y2024m01, parted.t_y2024m02";
    pair.lab.db.execute(&format!("grant truncate on {leaves} to writer_of_{name}")).await;
    let writer = pair.lab.db.connect_as(&format!("writer_of_{name}")).await;
    (pair, writer)
}

/// Asserts that both key tables have the keys of the table.
async fn assert_in_sync(pair: &Pair, when: &str) {
    pair.assert_in_sync(&IDS, when).await;
    pair.assert_in_sync(&EXPRESSION, when).await;
}

/// Statements that change rows in every way, and whether each succeeds.
const STATEMENTS: &[(&str, bool)] = &[
    ("insert into t values (20, '2024-01-15', 'a'), (21, '2024-02-15', 'b')", true),
    ("insert into t values (20, '2024-03-15', 'c')", false),
    ("insert into t values (23, '2024-03-15', 'A')", false),
    ("copy t (id, ts, v) from stdin|30\t2024-01-11\tz\n31\t2024-02-11\ty\n", true),
    ("insert into cas values (1, 20), (2, 31)", true),
    ("update t set ts = ts + 31 where id = 20", true),
    ("update t set ts = ts + 31, id = 25, v = 'n' where id = 20", true),
    ("update t set ts = ts + 1, v = 'none' where id = 25", true),
    ("update t set id = 26, v = 'm' where id = 25", true),
    ("update t set id = 30 where id = 26", false),
    ("delete from t where id = 26", true),
    ("truncate t_y2024m01", false),
    ("delete from cas", true),
    // Like TRUNCATE of a plain table: the referencing tables must be truncated too, even if they have no rows.
    ("truncate t_y2024m01", false),
    ("truncate t_y2024m01, cas, res, noa, nul, def, imm", true),
    ("truncate t_y2024m02", true),
    ("insert into t values (26, '2024-01-15', 'm')", true),
    ("truncate t, cas, res, noa, nul, def, imm", true),
];

async fn change(pair: &Pair, writer: &Client, when: &str) {
    for (statement, succeeds) in STATEMENTS {
        let outcome = outcome(writer, statement).await;
        assert_eq!(outcome.starts_with("ok"), *succeeds, "{when}: {statement}: {outcome}");
        assert_in_sync(pair, &format!("{when}: {statement}")).await;
    }
}

/// Functions, operators, types and views with the names of those that functions of key tables could use. A sequence
/// counts the calls by another role than the writer: it is not rolled back.
const EVIL: &str = r#"
    create sequence evil.calls; grant usage on sequence evil.calls to public;
    create function evil.note() returns boolean language plpgsql as $$ begin
      if current_user operator(pg_catalog.<>) session_user then
        perform pg_catalog.nextval('evil.calls'::pg_catalog.regclass);
      end if;
      return true;
    end $$;
    do $$ declare one record; begin
      for one in select * from (values ('||', 'text', 'textcat', 'text'), ('=', 'text', 'texteq', 'boolean'),
          ('<>', 'text', 'textne', 'boolean'), ('~~', 'text', 'textlike', 'boolean'), ('=', 'bigint', 'int8eq', 'boolean'),
          ('=', 'int', 'int4eq', 'boolean'), ('>', 'int', 'int4gt', 'boolean'), ('-', 'int', 'int4mi', 'int'),
          ('=', 'date', 'date_eq', 'boolean'), ('=', 'oid', 'oideq', 'boolean'), ('=', 'regclass', 'oideq', 'boolean'),
          ('=', 'tid', 'tideq', 'boolean'), ('=', 'boolean', 'booleq', 'boolean'), ('<>', 'boolean', 'boolne', 'boolean'),
          ('=', '"char"', 'chareq', 'boolean'), ('=', 'name', 'nameeq', 'boolean')) o (name, type, function, result)
      loop
        execute format('create function evil.%s_%s(a %s, b %3$s) returns %4$s language plpgsql as '
          '''begin perform evil.note(); return pg_catalog.%1$s(a, b); end''',
          one.function, md5(one.type), one.type, one.result);
        execute format('create operator evil.%s (leftarg = %s, rightarg = %2$s, function = evil.%3$s_%4$s)',
          one.name, one.type, one.function, md5(one.type));
      end loop;
    end $$;
    create function evil.lower(a text) returns text language plpgsql as $$ begin
      perform evil.note(); return pg_catalog.lower(a); end $$;
    create function evil.concat(variadic a text[]) returns text language plpgsql as $$ begin
      perform evil.note(); return pg_catalog.array_to_string(a, ''); end $$;
    create function evil.format(a text, variadic b text[]) returns text language plpgsql as $$ begin
      perform evil.note(); return pg_catalog.format(a, variadic b); end $$;
    create function evil.current_setting(a text, b boolean) returns text language plpgsql as $$ begin
      perform evil.note(); return pg_catalog.current_setting(a, b); end $$;
    create function evil.set_config(a text, b text, c boolean) returns text language plpgsql as $$ begin
      perform evil.note(); return pg_catalog.set_config(a, b, c); end $$;
    create function evil.pg_trigger_depth() returns int language plpgsql as $$ begin
      perform evil.note(); return pg_catalog.pg_trigger_depth(); end $$;
    create function evil.pg_current_xact_id() returns xid8 language plpgsql as $$ begin
      perform evil.note(); return pg_catalog.pg_current_xact_id(); end $$;
    do $$ declare one record; begin
      for one in select unnest('{text,oid,tid,regclass,name,int8,int4,bool,date}'::text[]) as name loop
        execute format('create domain evil.%I as pg_catalog.%1$I check (evil.note())', one.name);
        execute format('create domain pg_temp.%I as pg_catalog.%1$I check (evil.note())', one.name);
      end loop;
      for one in select unnest('{pg_class,pg_constraint,pg_inherits,pg_trigger,pg_namespace}'::text[]) as name loop
        execute format('create view evil.%I as select * from pg_catalog.%1$I where evil.note()', one.name);
        execute format('create temp view %I as select * from pg_catalog.%1$I where evil.note()', one.name);
      end loop;
    end $$;
    grant usage on schema evil to public; grant all on all tables in schema evil to public"#;

async fn a_search_path_of_the_writer_changes_nothing(version: Version) {
    let (pair, writer) = pair(version).await;
    writer.batch_execute(EVIL).await.unwrap_or_else(|e| panic!("{e:?}"));
    let calls = "select count(*) from evil.calls where is_called";
    // Types and relations are first searched for in pg_temp.
    writer.batch_execute("set search_path = evil, pg_catalog, parted").await.unwrap();
    change(&pair, &writer, "search_path").await;
    assert_eq!(pair.lab.count(calls).await, 0);
    // The trap works: a function of the owner that trusts the search path calls a function of the writer.
    let owner = format!("owner_of_{}", pair.lab.db.name());
    pair.lab
        .db
        .execute(&format!(
            "create function parted.trusting() returns text language plpgsql security definer as
               $$ begin return lower('A'); end $$;
             alter function parted.trusting() owner to {owner}; grant execute on function parted.trusting() to public"
        ))
        .await;
    writer.batch_execute("set search_path = evil, pg_catalog; select parted.trusting()").await.unwrap();
    assert_eq!(pair.lab.count(calls).await, 1);
}

async fn settings_of_the_writer_change_nothing(version: Version) {
    let (pair, writer) = pair(version).await;
    writer.batch_execute("set search_path = parted").await.unwrap();
    let settings = "select distinct m[1] from pg_proc, regexp_matches(prosrc, '(pgstrata[.][a-z_]+)', 'g') m
                    where pronamespace = 'parted'::regnamespace";
    let oids =
        "select oid from pg_class where oid in ('t'::regclass, 'key_keys'::regclass, 't_y2024m01'::regclass)";
    let oids = rows(&pair.clients[1], oids).await;
    for setting in rows(&pair.clients[1], settings).await {
        for value in oids.iter().map(String::as_str).chain(["", "on"]) {
            writer.batch_execute(&format!("set {setting} = '{value}'")).await.unwrap();
            change(&pair, &writer, &format!("{setting} = '{value}'")).await;
            // With the lock that TRUNCATE of the whole table takes.
            let truncate = format!(
                "begin; lock table t in access exclusive mode; set local {setting} = '{value}'; truncate t_y2024m01; commit"
            );
            writer.batch_execute("insert into t values (40, '2024-01-15', 'q')").await.unwrap();
            writer.batch_execute(&truncate).await.unwrap();
            assert_in_sync(&pair, &truncate).await;
        }
        writer.batch_execute(&format!("reset {setting}")).await.unwrap();
    }
}

async fn functions_of_key_tables_serve_nobody_else(version: Version) {
    let (pair, writer) = pair(version).await;
    writer
        .batch_execute(
            "set search_path = parted; create table evil.mine (id bigint, ts date, v text, key_1 text)",
        )
        .await
        .unwrap();
    let functions = |condition: &str| {
        format!(
            "select format('%I.%I', 'parted', proname) from pg_proc
             where pronamespace = 'parted'::regnamespace and {condition} order by 1"
        )
    };
    let triggers = rows(&pair.clients[1], &functions("prorettype = 'trigger'::regtype and prosecdef")).await;
    assert!(triggers.len() >= 4, "{triggers:?}");
    for function in &triggers {
        for (fires, level) in [("after insert", "row"), ("before truncate", "statement")] {
            let create = format!(
                "create trigger mine {fires} on evil.mine for each {level} execute function {function}()"
            );
            assert_eq!(outcome(&writer, &create).await, "42501", "{create}");
        }
    }
    for statement in [
        "select from key_keys",
        "insert into key_keys (id) values (99)",
        "update key_keys set id = 99",
        "delete from expression_keys",
        "truncate key_keys",
    ] {
        assert_eq!(outcome(&writer, statement).await, "42501", "{statement}");
    }
    let with_place =
        "prorettype <> 'trigger'::regtype and pg_get_function_arguments(oid) ~ 'oid, (.* )?tid$'";
    let calls = rows(&pair.clients[1], &functions(with_place)).await;
    assert!(!calls.is_empty());
    for function in calls {
        for statement in [
            format!("select {function}(tableoid, ctid) from t"),
            format!("update t set ts = ts + 31, v = v || {function}(tableoid, ctid)::text where id < 5"),
            format!(
                "with d as (delete from t where id = 6 returning {function}(tableoid, ctid)) select from d"
            ),
        ] {
            let outcome = outcome(&writer, &statement).await;
            assert!(outcome.starts_with("ok"), "{statement}: {outcome}");
            assert_in_sync(&pair, &statement).await;
        }
    }
}
