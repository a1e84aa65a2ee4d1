//! The inactive table or column: each sync carries privileges over, and objects that were dropped there are reported
//! before the exchange.

use super::{PARTITION, RETYPE, drop_roles, execute, holds, run};
use crate::support::cluster::Version;

/// A sync also revokes a privilege on the inactive table or column that was revoked on the table in use.
#[tokio::test]
async fn sync_carries_privileges_over() {
    let db = run(Version::System, PARTITION).await;
    for (table, command) in [("t_new", "swap"), ("t_old", "rollback")] {
        let selects = format!("has_table_privilege('{{app}}', '{table}', 'select')");
        assert!(holds(&db, &selects).await, "{table}");
        execute(&db, "revoke select on t from {app}").await;
        db.pgstrata(&["sync", "job"]).await.ok();
        assert!(!holds(&db, &selects).await, "{table}");
        execute(&db, "grant select on t to {app}").await;
        db.pgstrata(&["sync", "job"]).await.ok();
        db.pgstrata(&[command, "job"]).await.ok();
    }
    drop_roles(&db).await;
    let db = run(Version::System, RETYPE).await;
    let refers = "has_column_privilege('{app}', 't', 'name_new', 'references')";
    assert!(holds(&db, refers).await);
    execute(&db, "revoke references (name) on t from {app}").await;
    db.pgstrata(&["sync", "job"]).await.ok();
    assert!(!holds(&db, refers).await);
    // A sync succeeds even if something cannot be carried over.
    execute(&db, "create index late on t (name)").await;
    let output = db.pgstrata(&["sync", "job"]).await.ok().stderr;
    assert!(output.contains("index late is on column name"), "{output}");
    drop_roles(&db).await;
}

/// Objects that were dropped on the inactive table are reported before the exchange.
#[tokio::test]
async fn objects_that_the_inactive_table_lacks_are_reported() {
    let db = run(Version::System, PARTITION).await;
    for (command, drop, name, create) in [
        (
            "swap",
            "alter table t_new drop constraint t_w",
            "check constraint t_w",
            "alter table t_new add constraint t_w check (w <> '')",
        ),
        (
            "swap",
            "alter table t_new alter w drop not null",
            "NOT NULL of column w",
            "alter table t_new alter w set not null",
        ),
        (
            "swap",
            "alter table t_new alter n drop default",
            "the default of column n",
            "alter table t_new alter n set default 1",
        ),
        ("swap", "", "", ""),
        (
            "rollback",
            "drop trigger touch on t_old",
            "trigger touch",
            "create trigger touch before update on t_old for each row execute function noop()",
        ),
        ("rollback", "", "", ""),
    ] {
        if drop.is_empty() {
            db.pgstrata(&[command, "job"]).await.ok();
            continue;
        }
        execute(&db, drop).await;
        let output = db.pgstrata(&[command, "job"]).await.exits(1).stderr;
        assert!(output.contains(&format!("no longer has {name}")), "{output}");
        execute(&db, create).await;
    }
    drop_roles(&db).await;
}

/// Neither the inactive table nor the inactive column has a security label that was set during the job.
#[tokio::test]
async fn security_labels_are_reported() {
    let label = |column: &str, on: bool| {
        let number = format!(
            "(select attnum from pg_attribute where attrelid = 't'::regclass and attname = '{column}')"
        );
        if on {
            format!(
                "insert into pg_seclabel select 't'::regclass, 'pg_class'::regclass, {number}, 'guard', 'secret'"
            )
        } else {
            format!("delete from pg_seclabel where objoid = 't'::regclass and objsubid = {number}")
        }
    };
    for (plan, column, other) in [(PARTITION, "v", "n"), (RETYPE, "name", "v")] {
        let db = run(Version::System, plan).await;
        for command in ["swap", "rollback", "swap"] {
            db.execute(&label(column, true)).await;
            let output = db.pgstrata(&[command, "job"]).await.exits(1).stderr;
            assert!(output.contains("security labels changed ("), "{output}");
            assert!(output.contains(&format!("added: guard on column {column})")), "{output}");
            db.execute(&label(column, false)).await;
            if plan == RETYPE {
                db.execute(&label(other, true)).await;
            }
            db.pgstrata(&[command, "job"]).await.ok();
            db.execute(&label(other, false)).await;
        }
        drop_roles(&db).await;
    }
}
