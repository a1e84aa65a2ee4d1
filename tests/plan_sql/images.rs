//! Values are compared by their binary image: values that are equal by `=` but not identical, values that the column
//! rounds, and types without `=`.

use super::{backfill, database, none, ran, retype, swapped_both_ways};

/// Runs a backfill that sets every row; a second run sets none.
async fn filled(setup: &str, plan: &str, wrong: &str) {
    let db = database(&[], setup).await;
    let plan = backfill(&db, plan);
    ran(&db, "check", &plan).await.ok();
    ran(&db, "run", &plan).await.ok();
    none(&db, &format!("select count(*) from t where {wrong}")).await;
    ran(&db, "run", &plan).await.ok();
    assert_eq!(db.count("select count(*) from pgstrata.jobs").await, 1, "the second run started a job");
}

#[tokio::test]
async fn values_are_compared_as_the_column_keeps_them() {
    filled(
        "create table t (id serial primary key, price numeric, f float8, cents int, r real, ts timestamp(0), c char(10), v varchar(20),
             money numeric(12, 2), b bit varying(8), at timestamptz(3)[], i interval day to minute);
         insert into t (price, f) select i / 7.0, i / 7.0 from generate_series(1, 1500) i; analyze t",
        "table = 't'\n[backfill]\nadd = { late = 'int', d = 'numeric(8,1)' }\n
[backfill.set]\ncents = 't.price * 100'\nr = 't.f'\nts = \"timestamp '2025-01-01 00:00:00.6' + t.id * interval '1.3 s'\"
c = \"'ab'\"\nv = \"'x' || t.id\"\nmoney = 't.price'\nb = \"b'101'\"\nat = \"array[timestamptz '2025-01-01Z' + interval '1.23456 s']\"
late = 't.price * 100'\nd = 't.price * 1.5'\ni = \"t.id * interval '61.7 s'\"\n",
        "cents <> round(price * 100) or r <> f::real or money <> round(price, 2) or late <> cents or d <> round(price * 1.5, 1)
             or c <> 'ab' or v <> 'x' || id or b <> b'101' or i is null",
    )
    .await;
}

/// The trigger stores what the column keeps, and its rows are not filled again.
#[tokio::test]
async fn the_trigger_stores_values_as_the_column_keeps_them() {
    let db = database(
        &[],
        "create table t (id serial primary key, price numeric not null, money numeric(12, 2), cents int, ts timestamp(0), v varchar(5), r real);
         insert into t (price) select i / 7.0 from generate_series(1, 300) i; analyze t",
    )
    .await;
    let plan = backfill(
        &db,
        "table = 't'\n[backfill]\nkeep_filled = 'always'\n[backfill.set]\nmoney = 't.price'\ncents = 't.price * 100'\n\
         ts = \"timestamp '2025-01-01 00:00:00.6' + t.id * interval '1.3 s'\"\nv = \"t.id::text\"\nr = 't.price'\n",
    );
    ran(&db, "run", &plan).await.ok();
    db.execute("insert into t (price) select i / 7.0 from generate_series(301, 400) i; update t set price = price + 1 / 3.0 where id % 5 = 0")
        .await;
    let wrong = "money is distinct from round(price, 2) or cents is distinct from round(price * 100) or r is distinct from price::real
        or ts is distinct from (timestamp '2025-01-01 00:00:00.6' + id * interval '1.3 s')::timestamp(0) or v is distinct from id::text";
    none(&db, &format!("select count(*) from t where {wrong}")).await;
    ran(&db, "run", &plan).await.ok();
    assert_eq!(db.count("select count(*) from pgstrata.jobs").await, 1, "the second run started a job");
    // A value that the column cannot keep fails no write: the next run reports its row.
    db.execute("insert into t (id, price) values (1234567, 1)").await;
    none(&db, "select count(*) from t where id > 1000 and v is not null").await;
    let output = ran(&db, "run", &plan).await.exits(1);
    assert!(output.stderr.contains("by key: 1234567: value too long"), "{output:?}");
}

/// A value that is too long is reported with the key of its row; it is not truncated.
#[tokio::test]
async fn a_value_that_is_too_long_is_an_error() {
    for (kind, value) in
        [("varchar(3)", "'abcdef'"), ("char(3)", "'abcdef'"), ("bit(3)", "b'11111'"), ("short", "'abcdef'")]
    {
        let db = database(
            &[],
            &format!(
                "create domain short as varchar(3); create table t (id int primary key, a {kind});
                 insert into t select i from generate_series(1, 100) i; analyze t"
            ),
        )
        .await;
        let set = format!("case when t.id = 77 then {value} end");
        let plan = backfill(&db, &format!("table = 't'\n[backfill]\nset = {{ a = \"{set}\" }}\n"));
        let output = ran(&db, "run", &plan).await.exits(1);
        assert!(output.stderr.contains("by key: 77: "), "{kind}: {output:?}");
        none(&db, "select count(*) from t where a is not null").await;
    }
}

/// The same for a column type change to a domain with a length limit.
#[tokio::test]
async fn a_retype_to_a_limited_domain_truncates_nothing() {
    let db = database(
        &[],
        "create domain short as varchar(3); create table t (id int primary key, a text);
         insert into t select i, case when i = 77 then 'abcdef' else 'abc' end from generate_series(1, 100) i; analyze t",
    )
    .await;
    let plan = retype(&db, "table = 't'\n[retype]\ncolumn = 'a'\nto = 'short'\n");
    let output = ran(&db, "run", &plan).await.exits(1);
    assert!(output.stderr.contains("by key: 77: value too long"), "{output:?}");
    db.execute("update t set a = 'xyz' where id = 77").await;
    ran(&db, "run", &plan).await.ok();
    swapped_both_ways(&db).await;
    none(&db, "select count(*) from t where a not in ('abc', 'xyz')").await;
}

#[tokio::test]
async fn types_without_equality_are_filled() {
    filled(
        "create table t (id int primary key, j json, x xml, p point, a json[]);
         insert into t select i from generate_series(1, 1500) i; analyze t",
        "table = 't'\n[backfill]\nkeep_filled = true
[backfill.set]\nj = \"json_build_object('a', t.id)\"\nx = \"xmlelement(name a, t.id)\"\np = 'point(t.id, 1)'\na = \"array['{}'::json]\"\n",
        "j ->> 'a' <> id::text or j is null or x is null or p[0] <> id or a is null",
    )
    .await;
}

/// A job that changes citext values to lower case, and a trigger that stores changes of case.
#[tokio::test]
async fn a_change_of_case_alone_is_filled() {
    filled(
        "create extension citext; create table t (id serial primary key, e citext);
         insert into t (e) select 'USER' || i from generate_series(1, 1500) i; analyze t",
        "table = 't'\n[backfill]\nset = { e = 'lower(t.e::text)::citext' }\n",
        "e::text <> lower(e::text)",
    )
    .await;
    let db = database(
        &[],
        "create extension citext; create table t (id int primary key, name text, slug citext, n numeric, m numeric);
         insert into t select i, 'Name' || i, null, 1.5 from generate_series(1, 500) i; analyze t",
    )
    .await;
    let plan = backfill(
        &db,
        "table = 't'\n[backfill]\nset = { slug = 't.name::public.citext', m = 't.n' }\nkeep_filled = 'always'\n",
    );
    ran(&db, "run", &plan).await.ok();
    db.execute("update t set name = upper(name), n = 1.50").await;
    none(&db, "select count(*) from t where slug::text <> name or m::text <> n::text").await;
}

#[tokio::test]
async fn a_retype_compares_the_value_as_the_new_type_stores_it() {
    let db = database(
        &[],
        "create table t (id serial primary key, price numeric not null);
         insert into t (price) select i / 7.0 from generate_series(1, 1500) i; create table was as select * from t; analyze t",
    )
    .await;
    let plan = retype(
        &db,
        "table = 't'\n[retype]\ncolumn = 'price'\nto = 'numeric(8,1)'\nusing = 't.price * 1.5'\nback = 't.price / 1.5'\n",
    );
    ran(&db, "run", &plan).await.ok();
    swapped_both_ways(&db).await;
    none(&db, "select count(*) from t join was using (id) where t.price <> round(was.price * 1.5, 1)").await;
    db.pgstrata(&["rollback", "job"]).await.ok();
    none(&db, "select count(*) from t join was using (id) where t.price::text <> was.price::text").await;
}

/// text to json, json to jsonb and text to xml. After a rollback, rows that were not changed have their original
/// values.
#[tokio::test]
async fn a_retype_of_types_without_equality() {
    for (from, to) in [("text", "json"), ("json", "jsonb"), ("text", "xml")] {
        let value = if to == "xml" {
            "'<a >' || i || '</a>'"
        } else {
            "format('{\"k\": %s ,  \"a\": 1, \"a\": 2}', i)"
        };
        let change = if to == "xml" { "<b/>" } else { "{\"b\": 3}" };
        let db = database(
            &[],
            &format!(
                "create table t (id serial primary key, doc {from} not null);
                 insert into t (doc) select ({value})::{from} from generate_series(1, 500) i;
                 create table was as select * from t; analyze t"
            ),
        )
        .await;
        let plan = retype(&db, &format!("table = 't'\n[retype]\ncolumn = 'doc'\nto = '{to}'\n"));
        ran(&db, "check", &plan).await.ok();
        ran(&db, "run", &plan).await.ok();
        db.execute(&format!("update t set doc = '{change}' where id % 7 = 0")).await;
        db.pgstrata(&["swap", "job"]).await.ok();
        db.execute(&format!(
            "update t set doc = '{change}' where id % 7 = 1; update t set id = -id where id % 7 = 2"
        ))
        .await;
        db.pgstrata(&["rollback", "job"]).await.ok();
        none(
            &db,
            &format!(
                "select count(*) from t join was on was.id = abs(t.id) where t.doc::text <>
                     case when was.id % 7 in (0, 1) then '{change}' else was.doc::text end"
            ),
        )
        .await;
        db.pgstrata(&["swap", "job"]).await.ok();
        db.pgstrata(&["finalize", "job", "--now"]).await.ok();
        assert_eq!(db.count("select count(*) from t").await, 500);
    }
}

/// After the swap, an application replaces a value by an equal one: the rollback keeps the new value.
#[tokio::test]
async fn an_equal_value_written_after_the_swap_is_kept_by_a_rollback() {
    let db = database(
        &[],
        "create extension citext; create table t (id int primary key, a text);
         insert into t select i, 'Name' || i from generate_series(1, 300) i; analyze t",
    )
    .await;
    let plan = retype(&db, "table = 't'\n[retype]\ncolumn = 'a'\nto = 'citext'\n");
    ran(&db, "run", &plan).await.ok();
    db.pgstrata(&["swap", "job"]).await.ok();
    db.execute("update t set a = upper(a::text) where id % 2 = 0").await;
    db.pgstrata(&["rollback", "job"]).await.ok();
    none(
        &db,
        "select count(*) from t where a <> case when id % 2 = 0 then 'NAME' || id else 'Name' || id end",
    )
    .await;
}
