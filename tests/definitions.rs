//! Objects whose names contain SQL key words are carried over like any others, although definitions are split at these
//! key words.

use crate::support::checks::{GOOD, MONTHS, check_good, errors};
use crate::support::cluster::Database;

const SETUP: &str = r#"
create schema "s ON a.b USING c";
create table "s ON a.b USING c"."t USING x ON y FROM z" (
  id bigint generated always as identity primary key,
  v text not null, "n FROM a ON b." numeric, at timestamptz not null default now());
insert into "s ON a.b USING c"."t USING x ON y FROM z" (v, "n FROM a ON b.", at)
  select 'v' || i, i, timestamptz '2025-01-01Z' + i * interval '12 hours' from generate_series(1, 200) i;
create index "i ON public.t USING x" on "s ON a.b USING c"."t USING x ON y FROM z" (v)
  where v <> ' ON public.t USING btree (id)';
create index "USING ""q"" ON" on "s ON a.b USING c"."t USING x ON y FROM z" using hash ("n FROM a ON b.");
create function noop() returns trigger language plpgsql as $$ begin return new; end $$;
create trigger "a ON ""s ON a.b USING c"". b" before insert or update of v, "n FROM a ON b." or delete
  on "s ON a.b USING c"."t USING x ON y FROM z" for each row execute function noop(' ON public.t ');
create statistics "s ON a.b USING c"."st FROM a" on (extract(year from at at time zone 'UTC')), (v || ' FROM b')
  from "s ON a.b USING c"."t USING x ON y FROM z";
create rule "r AS ON b TO c" as on update to "s ON a.b USING c"."t USING x ON y FROM z"
  where new.v = 'never' do also select ' ON CONFLICT ';
create view "s ON a.b USING c"."v FROM a" as select v from "s ON a.b USING c"."t USING x ON y FROM z";
create materialized view "s ON a.b USING c"."m USING b" as select id, v from "s ON a.b USING c"."t USING x ON y FROM z";
create unique index "mi USING b ON c" on "s ON a.b USING c"."m USING b" (id) where v <> ' USING ';
analyze"#;

/// The definitions of all indexes, triggers, statistics, rules and views of the table in use.
const DEFINITIONS: &str = r#"select string_agg(d, e'\n' order by d collate "C") from (
  select indexdef from pg_indexes where tablename in ('t USING x ON y FROM z', 'm USING b') and indexname !~ '_pkey$'
  union all select pg_get_triggerdef(t.oid) from pg_trigger t join pg_class c on c.oid = t.tgrelid
    where c.relname = 't USING x ON y FROM z' and not tgisinternal and tgname !~ '^pgstrata_'
  union all select pg_get_statisticsobjdef(s.oid) from pg_statistic_ext s join pg_class c on c.oid = s.stxrelid
    where c.relname = 't USING x ON y FROM z'
  union all select pg_get_ruledef(w.oid) from pg_rewrite w join pg_class c on c.oid = w.ev_class
    where c.relname in ('t USING x ON y FROM z', 'v FROM a', 'm USING b')
) all_of_them (d)"#;

async fn definitions(db: &Database) -> String {
    let text: String = db.client().await.query_one(DEFINITIONS, &[]).await.unwrap().get(0);
    // Only the index of a partitioned table is defined ON ONLY.
    text.replace("ON ONLY \"s ON", "ON \"s ON")
}

#[tokio::test]
async fn names_that_contain_key_words() {
    let db = Database::new().await;
    db.execute(SETUP).await;
    let before = definitions(&db).await;
    assert_eq!(before.lines().filter(|line| line.starts_with("CREATE")).count(), 8, "{before}");
    let plan = db.plan(
        "name = \"j\"\ntable = '''\"s ON a.b USING c\".\"t USING x ON y FROM z\"'''\n[partition]\nby = \"at\"\nevery = \"1 month\"\n",
    );
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    for command in ["swap", "rollback", "swap"] {
        db.pgstrata(&[command, "j"]).await.ok();
        assert_eq!(definitions(&db).await, before, "{command}");
    }
    db.pgstrata(&["finalize", "j", "--now"]).await.ok();
    assert_eq!(definitions(&db).await, before);
}

const KEYED: &str = r#"
create schema "s REFERENCES a NOT VALID";
create table "s REFERENCES a NOT VALID"."r REFERENCES q(x" ("k REFERENCES r(" int, "l)" int, unique ("k REFERENCES r(", "l)"));
insert into "s REFERENCES a NOT VALID"."r REFERENCES q(x" select i, i from generate_series(1, 200) i;
create table "s REFERENCES a NOT VALID"."t USING x ON y" (
  "id ON b" int primary key, "n REFERENCES a NOT VALID" int not null default 7, "l DEFAULT 1" int, "v FROM a" text,
  constraint "c NOT VALID" check ("n REFERENCES a NOT VALID" > 0 or "v FROM a" = ' NOT VALID'),
  constraint "f REFERENCES b" foreign key ("n REFERENCES a NOT VALID", "l DEFAULT 1")
    references "s REFERENCES a NOT VALID"."r REFERENCES q(x" ("k REFERENCES r(", "l)") on delete cascade deferrable);
alter table "s REFERENCES a NOT VALID"."t USING x ON y" add constraint "d NOT VALID"
  check ("n REFERENCES a NOT VALID" <> 777 and "v FROM a" <> ' NOT VALID') not valid;
insert into "s REFERENCES a NOT VALID"."t USING x ON y" select i, i, i, 'v' || i from generate_series(1, 200) i;
create index "i USING hash ON c" on "s REFERENCES a NOT VALID"."t USING x ON y" ("n REFERENCES a NOT VALID", "v FROM a")
  include ("l DEFAULT 1") where "v FROM a" <> ' USING btree (id) WITH (fillfactor=7)';
create unique index "u"" USING ON" on "s REFERENCES a NOT VALID"."t USING x ON y"
  (("n REFERENCES a NOT VALID" + 1), ("v FROM a" || ' ON ')) with (fillfactor = 70);
analyze"#;

/// The definitions of all constraints and indexes of the table.
const CONSTRAINTS: &str = r#"select string_agg(d, e'\n' order by d collate "C") from (
  select conname || ' ' || pg_get_constraintdef(k.oid) from pg_constraint k join pg_class c on c.oid = k.conrelid
    where c.relname = 't USING x ON y' and contype <> 'n'
  union all select pg_get_indexdef(x.indexrelid) from pg_index x join pg_class c on c.oid = x.indrelid
    where c.relname = 't USING x ON y') all_of_them (d)"#;

async fn constraints(db: &Database) -> String {
    db.client().await.query_one(CONSTRAINTS, &[]).await.unwrap().get(0)
}

const TABLE: &str = r#"table = '''"s REFERENCES a NOT VALID"."t USING x ON y"'''"#;

#[tokio::test]
async fn names_that_contain_key_words_in_a_column_type_change() {
    let db = Database::new().await;
    db.execute(KEYED).await;
    let before = constraints(&db).await;
    let plan = db.plan(&format!(
        "name = 'j'\nkind = 'retype'\n{TABLE}\n[retype]\ncolumn = '\"n REFERENCES a NOT VALID\"'\nto = 'bigint'\n"
    ));
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    let change = r#"update "s REFERENCES a NOT VALID"."t USING x ON y" set "n REFERENCES a NOT VALID" = 5, "l DEFAULT 1" = 5
        where "id ON b" = 9"#;
    for command in ["swap", "rollback", "swap"] {
        db.pgstrata(&[command, "j"]).await.ok();
        db.execute(change).await;
        let now = constraints(&db).await;
        let missing: Vec<&str> = before.lines().filter(|line| !now.contains(line)).collect();
        assert_eq!(missing, [""; 0], "{command}: {now}");
    }
    db.pgstrata(&["verify", "j"]).await.ok();
    db.pgstrata(&["finalize", "j", "--now"]).await.ok();
    assert_eq!(constraints(&db).await, before);
}

const FILL: &str = r#"
set = { '"a CHECK b"' = '''t."v FROM a" || ' ON ' ''' }
keep_filled = 'always'
[backfill.add]
'"a CHECK b"' = '''"s REFERENCES a NOT VALID"."ty DEFAULT check" default 'not null check unique'::text'''
[backfill.finish]
not_null = ['"a CHECK b"']
check = ['''"a CHECK b" <> ' NOT VALID' ''']
unique = [['"id ON b"', '"a CHECK b"']]
index = ['''using btree ("a CHECK b" desc, lower("v FROM a")) where "v FROM a" <> ' USING btree (id)' ''']
foreign_key = ['''("id ON b", "l DEFAULT 1") references "s REFERENCES a NOT VALID"."r REFERENCES q(x" ("k REFERENCES r(", "l)") on delete restrict''']
"#;

#[tokio::test]
async fn names_that_contain_key_words_in_a_backfill() {
    let db = Database::new().await;
    db.execute(&format!(r#"{KEYED}; create domain "s REFERENCES a NOT VALID"."ty DEFAULT check" as text"#))
        .await;
    let before = constraints(&db).await;
    let plan =
        |more: &str| db.plan(&format!("name = 'j'\nkind = 'backfill'\n{TABLE}\n[backfill]{FILL}{more}"));
    db.pgstrata(&["run", plan("").to_str().unwrap()]).await.ok();
    let built = constraints(&db).await;
    assert_eq!(built.lines().count(), before.lines().count() + 5, "{built}");
    // The objects are recognized: nothing is built twice.
    db.pgstrata(&["run", plan("[backfill.settings]\ntimezone = 'UTC'\n").to_str().unwrap()]).await.ok();
    assert_eq!(constraints(&db).await, built);
}

/// An index with an undocumented parameter, whose condition contains the text of its parameters; and a rule that groups
/// by the key and contains the text of another clause.
#[tokio::test]
async fn texts_that_contain_clauses() {
    let db = Database::new().await;
    db.execute(&format!(
        "{GOOD} create index t_note on t (note) where note <> ' WITH (fillfactor=''70'', internal=''1'')';
         update pg_class set reloptions = '{{fillfactor=70,internal=1}}' where oid = 't_note'::regclass"
    ))
    .await;
    let plan = db.plan(&format!("name = 'j'\n{MONTHS}"));
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    let index = "select pg_get_indexdef(indexrelid) from pg_index where indrelid = 't_new'::regclass and not indisunique";
    let text: String = db.client().await.query_one(index, &[]).await.unwrap().get(0);
    assert!(
        text.ends_with(
            r#" USING btree (note) WITH (fillfactor='70') WHERE (note <> ' WITH (fillfactor=''70'', internal=''1'')'::text)"#
        ),
        "{text}"
    );

    let rule = "create table log (id bigint, note text);
        create rule kept as on update to log do also select note, id, ' ON CONFLICT ON CONSTRAINT ' from t group by id";
    assert_eq!(errors(&check_good(rule).await), ["error[bound_to_key]: rule kept on public.log"]);
    let rule = "create table log (id bigint, note text);
        create rule kept as on update to log do also insert into t values (new.id, now()) on conflict on constraint t_pkey do nothing";
    assert_eq!(errors(&check_good(rule).await), Vec::<String>::new());
}

/// Rows without a referenced row are found before a foreign key is added, whatever the name of the table is.
#[tokio::test]
async fn a_table_called_referenced() {
    let db = Database::new().await;
    db.execute(
        "create table other (id int primary key); insert into other select generate_series(1, 99);
         create table referenced (id int primary key, n int); insert into referenced select i, i from generate_series(1, 100) i; analyze",
    )
    .await;
    let plan = db.plan(
        "name = 'j'\nkind = 'backfill'\ntable = 'referenced'\n[backfill]\nset = { n = 't.id' }\n\
         finish = { foreign_key = ['(n) references other (id)'] }\n",
    );
    let ran = db.pgstrata(&["run", plan.to_str().unwrap()]).await;
    assert!(ran.code != Some(0) && ran.stderr.contains("by key 100"), "{ran:?}");
    let added =
        "select count(*) from pg_constraint where conrelid = 'referenced'::regclass and contype = 'f'";
    assert_eq!(db.count(added).await, 0);
}
