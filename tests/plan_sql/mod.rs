//! The SQL of a plan: how its names are resolved, with whose privileges and under which settings it runs, and which
//! values count as equal.

mod captured;
mod images;
mod paths;
mod settings;

use std::path::{Path, PathBuf};

use crate::support::cluster::Database;
use crate::support::process::Ran;

/// A database with these settings, which ALTER DATABASE sets.
async fn database(settings: &[&str], setup: &str) -> Database {
    let db = Database::new().await;
    for setting in settings {
        db.execute(&format!(
            "do $do$ begin execute format('alter database %I set {}', current_database()); end $do$",
            setting.replace('\'', "''")
        ))
        .await;
    }
    db.execute(setup).await;
    db
}

/// The plan of a backfill named `job`.
fn backfill(db: &Database, plan: &str) -> PathBuf {
    db.plan(&format!("name = 'job'\nkind = 'backfill'\n{plan}"))
}

/// The plan of a column type change named `job`.
fn retype(db: &Database, plan: &str) -> PathBuf {
    db.plan(&format!("name = 'job'\nkind = 'retype'\n{plan}"))
}

async fn ran(db: &Database, command: &str, plan: &Path) -> Ran {
    db.pgstrata(&[command, plan.to_str().unwrap(), "--color", "never"]).await
}

/// Swaps, rolls back and swaps again.
async fn swapped_both_ways(db: &Database) {
    for command in ["swap", "rollback", "swap"] {
        db.pgstrata(&[command, "job"]).await.ok();
    }
}

/// Asserts that a query counts nothing.
async fn none(db: &Database, sql: &str) {
    assert_eq!(db.count(sql).await, 0, "{sql}");
}
