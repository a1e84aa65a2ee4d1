//! Partitions that are missing, attached, truncated or dropped while a job is open.

use rustix::process::Signal;

use pgstrata::demo::server::PrivateServer;

use crate::support::cluster::{Database, SETTINGS};
use crate::support::lab::Lab;
use crate::support::oracle;
use crate::support::process::{ended, send};
use crate::support::window::{PERMIT_WRITES, rolls_back_and_swaps, swapped};

const TABLE: &str = "create table t (id bigint primary key, at timestamptz not null, note text);
    insert into t select i, timestamptz '2024-01-01 00:00Z' + i * interval '6 hours', 'x' from generate_series(0, 300) i;
    analyze t";
const PLAN: &str = "name = \"job\"\ntable = \"t\"\n[partition]\nby = \"at\"\nevery = \"month\"\nahead = 0\ndefault = false\n";

/// Freezes the run before capture, when changes are not logged yet, and inserts rows that belong in no partition.
async fn row_beyond_before_capture(db: Database) {
    db.execute(TABLE).await;
    let lab = Lab::on(db, PLAN);
    let run = lab.frozen("run", "prepare.done").await;
    lab.db.execute("insert into t values (1000, '2024-06-15', 'late'), (1001, '2023-11-11', 'early')").await;
    send(&run, Signal::CONT);
    ended(run).await.ok();
    lab.ok("swap").await;
    oracle::compare(&lab.db, "t", "t_old").await;
    assert_eq!(lab.db.count("select count(*) from t_y2024m06").await, 1);
    assert_eq!(lab.db.count("select count(*) from t_y2023m11").await, 1);
}

#[tokio::test]
async fn the_copy_creates_a_partition_for_a_row_inserted_before_capture() {
    row_beyond_before_capture(Database::new().await).await;
}

/// The server's messages are in German. The job evaluates the fields of an error, not its text.
#[tokio::test]
async fn a_missing_partition_is_recognized_in_any_language() {
    let settings: Vec<_> = SETTINGS.iter().copied().chain([("lc_messages", "C.UTF-8")]).collect();
    let server = tokio::task::spawn_blocking(move || PrivateServer::start(&settings)).await.unwrap();
    let Ok(server) = server else {
        println!("skipped: this machine does not have the locale C.UTF-8");
        return;
    };
    server.stop_immediate().unwrap();
    let mut start = server.command("pg_ctl");
    start.arg("-D").arg(server.data_dir()).args(["-w", "start", "-l"]).arg(server.socket_dir().join("log"));
    assert!(start.env("LANGUAGE", "de").output().unwrap().status.success());
    let db = Database::on(&server).await;
    let refused = db.client().await.batch_execute("select 1/0").await.unwrap_err();
    if refused.as_db_error().is_none_or(|e| e.message() != "Division durch Null") {
        println!("this server has English messages only: {refused:?}");
    }
    row_beyond_before_capture(db).await;
}

/// The bounds of the truncated partition are unknown once it is dropped or detached, so the drain cannot tell which
/// rows to delete. The drain continues and reports this. A rollback fails until the rows are deleted from the old
/// table as well.
#[tokio::test]
async fn a_partition_truncated_and_then_dropped_stops_no_drain() {
    for removal in ["drop table t_y2022", "alter table t detach partition t_y2022"] {
        let db = swapped().await;
        db.execute(&format!(
            "truncate t_y2022; {removal}; insert into t values (1000, '2023-03-03', 'after')"
        ))
        .await;
        let refused = db.pgstrata(&["rollback", "job", "--json"]).await.exits(4);
        assert_eq!(refused.event("truncated_partition_gone")["target"], "public.t_old");
        let differ = refused.event("tables_differ");
        assert!(differ["missing"] == 0 && differ["extra"].as_u64().unwrap() > 0, "{differ}");
        // The drain has applied its changes nevertheless, and does not report this again.
        let again = db.pgstrata(&["verify", "job", "--json"]).await.exits(4);
        assert_eq!(again.events("truncated_partition_gone").len(), 0, "{again:?}");
        db.execute(PERMIT_WRITES).await;
        db.execute("delete from t_old where at >= '2022-01-01 00:00Z' and at < '2023-01-01 00:00Z'").await;
        rolls_back_and_swaps(&db).await;
    }
}

#[tokio::test]
async fn a_truncate_of_a_partition_attached_by_hand_is_logged() {
    let db = swapped().await;
    db.execute(
        "create table by_hand (like t including all);
         alter table t attach partition by_hand for values from ('1999-01-01 00:00Z') to ('2000-01-01 00:00Z')",
    )
    .await;
    let watched = db.pgstrata(&["verify", "job", "--json"]).await.ok().event("attached_partition_watched");
    assert_eq!(watched["partition"], "public.by_hand");
    db.execute("insert into t values (1000, '1999-03-03', 'x')").await;
    db.pgstrata(&["verify", "job"]).await.ok();
    db.execute("truncate by_hand; insert into t values (1001, '1999-04-04', 'x')").await;
    assert_eq!(db.count("select count(*) from pgstrata.truncations_job").await, 1);
    rolls_back_and_swaps(&db).await;
}

/// With one partition per day: changes in all partitions, rows that move to distant partitions, and rows beyond the
/// last partition are carried over in both directions.
#[tokio::test]
async fn a_drain_over_many_partitions_misses_none() {
    let db = Database::new().await;
    db.execute(
        "create table t (id bigint primary key, at timestamptz not null, note text);
         insert into t select i, timestamptz '2024-01-01 00:00Z' + i * interval '6 hours', 'x' from generate_series(0, 599) i;
         analyze t",
    )
    .await;
    let plan = "name = \"job\"\ntable = \"t\"\n[partition]\nby = \"at\"\nevery = \"day\"\nahead = 0\nto = \"2024-05-30\"\n";
    let plan = db.plan(plan);
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    let change = "update t set note = note || id;
        update t set at = at + interval '64 days' where id % 7 = 0;
        update t set at = at - interval '1 year' where id % 31 = 0;
        delete from t where id % 13 = 0;
        insert into t select (select max(id) from t) + 1 + i, timestamptz '2024-03-05 00:00Z' + i * interval '1 day', 'new'
            from generate_series(0, 199) i";
    db.execute(change).await;
    db.pgstrata(&["sync", "job"]).await.ok();
    oracle::compare(&db, "t", "t_new").await;
    db.pgstrata(&["swap", "job"]).await.ok();
    db.execute(change).await;
    db.pgstrata(&["sync", "job"]).await.ok();
    oracle::compare(&db, "t", "t_old").await;
    db.pgstrata(&["rollback", "job"]).await.ok();
    oracle::compare(&db, "t", "t_new").await;
}
