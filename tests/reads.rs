//! Every read of an application is right: before, while and after the two sides are exchanged, there and back, whatever
//! snapshot it reads under. Judged by the readers themselves, not by the tool.

use crate::support::bank::{self, Bank};
use crate::support::cluster::{Database, Version, on_other_versions};

/// Exchanges there and back, each.
const EXCHANGES: usize = 4;
const SWAP: &str = "[swap]\nlock_timeout = \"190ms\"\nattempts = 1000\n";
const PARTITION: &str = "[partition]\nby = \"at\"\nevery = \"1 month\"\n";
const RETYPE: &str = "kind = \"retype\"\n[retype]\ncolumn = \"amount\"\nto = \"bigint\"\n";

on_other_versions!(while_a_table_is_partitioned);

/// The job to verified, then exchanges; readers read all the while.
async fn job(db: &Database, mut bank: Bank, plan: &str) {
    let plan = db.plan(&format!("name = \"job\"\ntable = \"bank\"\n{plan}{SWAP}"));
    bank.commit_more(50).await;
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    for command in ["swap", "rollback"].into_iter().cycle().take(EXCHANGES) {
        bank.commit_more(100).await;
        let ran = db.pgstrata(&[command, "job"]).await.ok();
        println!("{}", ran.stderr);
    }
    bank.commit_more(100).await;
    bank.close().await;
}

async fn while_a_table_is_partitioned(version: Version) {
    let db = Database::of(version).await;
    bank::create(&db, "bigint").await;
    let bank = Bank::open(&db).await;
    job(&db, bank, PARTITION).await;
}

#[tokio::test]
async fn while_a_table_is_partitioned_on_the_system_version() {
    while_a_table_is_partitioned(Version::System).await;
}

#[tokio::test]
async fn while_a_column_gets_another_type() {
    let db = Database::new().await;
    bank::create(&db, "int").await;
    let bank = Bank::open(&db).await;
    job(&db, bank, RETYPE).await;
}
