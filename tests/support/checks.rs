//! The findings of `check`, and a table and a plan without findings.

use super::cluster::{Database, Version};

/// The plan of most cases.
pub const MONTHS: &str = "table = 't'\n[partition]\nby = 'at'\nevery = 'month'\nkeep_unique = false\n";
/// The same with bounds and without a default partition.
pub const SPRING: &str = "table = 't'\n[partition]\nby = 'at'\nevery = 'month'\nkeep_unique = false\nfrom = '2024-01-01'\nto = '2024-04-01'\ndefault = false\n";
/// A table without findings.
pub const GOOD: &str = "create table t (id bigint primary key, at timestamptz not null, note text);
    insert into t select i, timestamptz '2024-01-15 00:00Z' + i * interval '1 day' from generate_series(0, 99) i;
    analyze t;";

/// Errors and warnings with their hints, as the binary prints them. Asserts that its exit code matches them.
pub async fn check_as(db: &Database, user: &str, plan: &str) -> String {
    let file = db.plan(plan);
    let dsn = format!("{} user={user}", db.dsn());
    let ran =
        db.pgstrata_with(&["check", "--quiet", file.to_str().unwrap()], &[("DATABASE_URL", &dsn)]).await;
    let mut findings = String::new();
    let mut wanted = false;
    for line in ran.stdout.lines() {
        wanted = line.starts_with("error[")
            || line.starts_with("warning[")
            || wanted && line.starts_with("  hint");
        if wanted && !line.starts_with("warning[key_widened]") {
            findings += &format!("{line}\n");
        } else {
            wanted = false;
        }
    }
    let name = db.dsn().rsplit_once("dbname=").unwrap().1;
    let findings = findings.replace(name, "DATABASE");
    let code = if findings.contains("error[") { 3 } else { 0 };
    assert_eq!(ran.code, Some(code), "{}{}", ran.stdout, ran.stderr);
    findings
}

pub async fn check(db: &Database, plan: &str) -> String {
    check_as(db, "postgres", plan).await
}

/// What `check` reports about `plan` in a new database after `setup`.
pub async fn check_report(setup: &str, plan: &str) -> String {
    check_on(Version::System, setup, plan).await
}

pub async fn check_on(version: Version, setup: &str, plan: &str) -> String {
    let db = Database::of(version).await;
    db.execute(setup).await;
    check(&db, plan).await
}

/// What `check` reports about the plan [`MONTHS`] on the table [`GOOD`] after the statements in `more`.
pub async fn check_good(more: &str) -> String {
    check_report(&format!("{GOOD}{more}"), MONTHS).await
}

/// `error[code]: object` or `warning[code]: object` for each error and warning.
pub fn findings(printed: &str) -> Vec<String> {
    leveled(printed, &["error", "warning"])
}

/// The same for errors only.
pub fn errors(printed: &str) -> Vec<String> {
    leveled(printed, &["error"])
}

/// The same for notes only.
pub fn notes(printed: &str) -> Vec<String> {
    leveled(printed, &["note"])
}

fn leveled(printed: &str, levels: &[&str]) -> Vec<String> {
    let is = |line: &&str| levels.iter().any(|level| line.starts_with(&format!("{level}[")));
    let head = |line: &str| line.splitn(3, ": ").take(2).collect::<Vec<_>>().join(": ");
    printed.lines().filter(is).map(head).collect()
}
