//! `lab.observations`: a table with every kind of dependent object, and the comparison of its catalog entries.

use super::cluster::{Database, Version};
use super::lab::Lab;

const FIXTURE: &str = include_str!("dependents.sql");
const FINGERPRINT: &str = include_str!("fingerprint.sql");

/// The table in a separate database, and a plan with monthly partitions.
pub async fn lab(version: Version) -> Lab {
    lab_with(version, "", "100ms").await
}

/// The same with additional statements after the creation of the table, and with a lock timeout.
pub async fn lab_with(version: Version, more: &str, lock_timeout: &str) -> Lab {
    let db = Database::of(version).await;
    db.execute(FIXTURE).await;
    db.execute(more).await;
    Lab::on(db, &plan(lock_timeout))
}

fn plan(lock_timeout: &str) -> String {
    format!(
        "table = \"lab.observations\"\n[partition]\nby = \"created_at\"\nevery = \"1 month\"\nto = \"2025-08-01\"\n\
         drop_unique = [\"observations_serial_key\"]\n[swap]\nlock_timeout = \"{lock_timeout}\"\nattempts = 1000\n",
    )
}

/// The lab with a plan that trusts a role.
pub fn trusting(lab: Lab, role: &str) -> Lab {
    let plan = lab.plan_text();
    lab.with_plan(&format!("trust = [\"{role}\"]\n{plan}"))
}

/// All catalog entries of the table, one fact per line.
pub async fn fingerprint(lab: &Lab) -> Vec<String> {
    let client = lab.db.client().await;
    // With an empty search path, every name is printed with its schema.
    client.batch_execute("set search_path = ''").await.unwrap();
    let rows = client.query(FINGERPRINT, &[&"lab.observations"]).await.unwrap();
    rows.iter().map(|r| format!("{}: {}", r.get::<_, &str>(0), r.get::<_, &str>(1))).collect()
}

/// Lines that are only in one of the two.
pub fn differences(before: &[String], after: &[String]) -> String {
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("- {line}"));
    let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(new).collect::<Vec<_>>().join("\n")
}
