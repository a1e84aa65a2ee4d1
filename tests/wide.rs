//! A table with hundreds of objects: `check` reports how many are carried over, and lists each of them with `-v`.

use crate::support::checks::MONTHS;
use crate::support::cluster::Database;
use crate::support::process::Ran;

const WIDE: &str = r#"
create table t (id bigint primary key, at timestamptz not null, n int, owner_name text);
create function touch() returns trigger language plpgsql as 'begin return new; end';
do $$
begin
  for i in 1..296 loop execute format('alter table t add c%s text default %L', i, i); end loop;
  for i in 1..59 loop execute format('create index t_%s on t (c%s, at)', i, i); end loop;
  for i in 1..60 loop
    execute format('create view v%1$s as select id, c%1$s, at from t where n > %1$s', i);
    execute format('create table u%1$s (id int primary key)', i);
    execute format('alter table t add constraint t_u%1$s foreign key (n) references u%1$s', i);
  end loop;
  for i in 1..40 loop
    execute format('create policy p%1$s on t using (n > %1$s)', i);
    execute format('create trigger g%1$s before update on t for each row execute function touch()', i);
  end loop;
end $$;
insert into t (id, at) select i, timestamptz '2024-01-15 00:00Z' + i * interval '1 hour' from generate_series(0, 999) i;
"#;

async fn checked(db: &Database, more: &[&str]) -> Ran {
    let plan = db.plan(MONTHS);
    let args = [&["check", plan.to_str().unwrap()], more].concat();
    db.pgstrata(&args).await.ok()
}

#[tokio::test]
async fn everything_on_a_wide_table_is_reported() {
    let db = Database::new().await;
    db.execute(WIDE).await;
    db.execute("analyze t").await;
    let brief = checked(&db, &[]).await.stdout;
    let summary = brief.lines().find(|line| line.starts_with("note[carried]")).unwrap();
    insta::assert_snapshot!(summary, @"note[carried]: public.t: carried over: 300 columns, 60 indexes, 60 foreign keys, 60 views, 40 triggers, 40 policies");
    assert!(!brief.contains("carried_object"), "{brief}");
    let each = checked(&db, &["-v"]).await.stdout;
    assert_eq!(each.lines().filter(|line| line.starts_with("note[carried_object]")).count(), 560);
    for line in [
        "note[carried_object]: t_pkey: index t_pkey: with at in it, built on each partition after the \
         copy; its name is exchanged at the swap",
        "note[carried_object]: p40: policy p40: created before the copy",
        "note[carried_object]: t_u60: foreign key t_u60: moved at the swap without reading rows, \
         validated afterwards",
    ] {
        assert!(each.lines().any(|printed| printed == line), "{line}");
    }
    let json: serde_json::Value = serde_json::from_str(&checked(&db, &["--json"]).await.stdout).unwrap();
    let notes = json["findings"].as_array().unwrap().iter().filter(|f| f["code"] == "carried_object");
    assert_eq!(notes.count(), 560);
    let drafted = db.pgstrata(&["plan", "t", "--by", "at"]).await.ok().stdout;
    let carried = drafted.lines().find(|line| line.starts_with("# carried over: ")).unwrap();
    assert_eq!(
        carried.trim_start_matches("# carried over: "),
        summary.split_once("carried over: ").unwrap().1
    );
}
