//! A unique index without the partition column becomes one that is not unique, if the plan gives up its guarantee: queries
//! still use it, and a rollback restores the guarantee.

use crate::support::checks::check_report;
use crate::support::cluster::Database;

const SETUP: &str = "
    create table t (id bigint primary key, at timestamptz not null default '2024-02-02Z', email text not null constraint t_email_key unique, n int);
    create unique index t_lower on t (lower(email)) where n > 0;
    comment on index t_lower is 'by name'; comment on constraint t_email_key on t is 'one account each';
    insert into t select i, timestamptz '2024-01-01Z' + i * interval '1 hour', 'user' || i || '@example.org', i from generate_series(1, 2000) i;
    create function register(p text) returns void language sql as
      'insert into t (id, email) values (7000, p) on conflict (email) do nothing';
    analyze t";

const PLAN: &str = "name = 'j'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\ndrop_unique = ['t_email_key', 't_lower']\n";

/// The name and the properties of each index of the table in use, except the key.
async fn indexes(db: &Database) -> Vec<String> {
    let rows = db
        .client()
        .await
        .query(
            "select format('%s unique %s, constraint %s: %s', i.relname, x.indisunique,
               exists (select from pg_constraint where conindid = i.oid and contype = 'u'), obj_description(i.oid))
             from pg_index x join pg_class i on i.oid = x.indexrelid
             where x.indrelid = 't'::regclass and not x.indisprimary order by 1",
            &[],
        )
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// The indexes that a query plan scans.
async fn scanned(db: &Database, query: &str) -> String {
    let client = db.client().await;
    client.batch_execute("set enable_seqscan = off").await.unwrap();
    let rows = client.query(&format!("explain {query}"), &[]).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn the_index_stays_and_the_guarantee_returns_with_a_rollback() {
    let db = Database::new().await;
    db.execute(SETUP).await;
    let plan = db.plan(PLAN);
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    let original = indexes(&db).await;
    let swap = db.pgstrata(&["swap", "j", "--json"]).await.ok();
    let given_up = serde_json::json!({ "what": "unique_given_up", "index": "t_email_key" });
    let changed = swap.events("changed_by_swap");
    assert!(changed.iter().any(|event| event["change"] == given_up), "{changed:?}");
    assert_eq!(swap.events("unexpected_difference").len(), 0, "{swap:?}");
    assert_eq!(
        indexes(&db).await,
        ["t_email_key unique f, constraint f: ", "t_lower unique f, constraint f: by name"]
    );
    for query in [
        "select from t where email = 'user5@example.org'",
        "select from t where lower(email) = 'a' and n > 0",
    ] {
        let plan = scanned(&db, query).await;
        assert!(!plan.contains("Seq Scan"), "{plan}");
    }
    db.execute("insert into t (id, email) values (5001, 'user5@example.org')").await;
    let refused = db.pgstrata(&["rollback", "j"]).await;
    insta::assert_snapshot!(crate::support::process::refusal(&refused), @r#"
    exit 1
    error: pending changes for public.t_old contain a duplicate value (SQLSTATE #)
    cause: failed to drain the change log: duplicate key value violates unique constraint "t_email_key_old"
    hint: nothing was changed; the table in use has several rows with a value that must be unique in the inactive table: change or delete all but one of them, and run the same command again
    "#);
    db.execute("delete from t where id = 5001").await;
    db.pgstrata(&["rollback", "j"]).await.ok();
    assert_eq!(indexes(&db).await, original);
    db.pgstrata(&["swap", "j"]).await.ok();
    db.pgstrata(&["finalize", "j", "--now"]).await.ok();
    assert_eq!(indexes(&db).await.len(), 2);
}

#[tokio::test]
async fn check_warns_and_names_what_relied_on_it() {
    let printed = check_report(SETUP, PLAN).await;
    insta::assert_snapshot!(printed, @"
    warning[unique_given_up]: t_email_key: after the swap, index t_email_key is no longer unique: nothing prevents duplicates of (email), and a rollback fails as long as there are any
      hint: make sure that the application does not rely on the guarantee, for example with ON CONFLICT
    warning[unique_given_up]: t_lower: after the swap, index t_lower is no longer unique: nothing prevents duplicates of the values of its expression, and a rollback fails as long as there are any
      hint: make sure that the application does not rely on the guarantee, for example with ON CONFLICT
    warning[on_conflict_key]: public.t: function public.register(text): ON CONFLICT (email) fails after the swap, because drop_unique gives up the unique index on (email)
      hint: remove the clause, or handle duplicates in the application
    ");
}
