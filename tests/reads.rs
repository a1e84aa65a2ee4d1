//! Every read of an application is correct before, during and after an exchange in either direction, whatever its
//! snapshot. The readers check this themselves, independently of pgstrata.

use crate::support::bank::{self, Bank};
use crate::support::cluster::{Database, Version, on_oldest_and_newest};
use crate::support::reads::Reading;
use crate::support::standby::Standby;

/// The number of swaps and rollbacks together.
const EXCHANGES: usize = 4;
const SWAP: &str = "[swap]\nlock_timeout = \"190ms\"\nattempts = 1000\n";
const PARTITION: &str = "[partition]\nby = \"at\"\nevery = \"1 month\"\n";
const RETYPE: &str = "kind = \"retype\"\n[retype]\ncolumn = \"amount\"\nto = \"bigint\"\n";

on_oldest_and_newest!(while_a_table_is_partitioned);

/// Runs the job, then swaps and rolls back, while readers read.
async fn job(db: &Database, bank: Bank, plan: &str) {
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

/// A standby that the plan lists, and one that it does not list.
#[tokio::test]
async fn on_standbys_while_a_table_is_partitioned() {
    let server = Version::System.start(&[("wal_level", "logical"), ("wal_keep_size", "256MB")]);
    let (known, unknown) =
        (Standby::of(&server, "known", 5521).await, Standby::of(&server, "unknown", 5522).await);
    let db = Database::on(&server).await;
    bank::create(&db, "bigint").await;
    let mut bank = Bank::open(&db).await;
    for standby in [&known, &unknown] {
        standby.has(&db).await;
    }
    for (standby, on) in [(&known, " on a known standby"), (&unknown, " on an unknown standby")] {
        for up_to_ms in [50, 1_500] {
            bank.add(&standby.dsn_of(db.name()), Reading::Snapshot("repeatable read", up_to_ms), on);
        }
    }
    let throttle = format!("[throttle]\nreplicas = [\"{}\"]\n", known.listed());
    job(&db, bank, &format!("{PARTITION}{throttle}")).await;
}
