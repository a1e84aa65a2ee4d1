//! Objects whose names contain SQL key words are carried over like any others, although definitions are split at these
//! key words.

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
