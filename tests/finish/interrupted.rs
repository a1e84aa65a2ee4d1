//! Builds that end before their time: killed, stopped, aborted, or by a row that comes meanwhile.

use futures_util::{StreamExt, stream};
use pgstrata::failpoint;
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::super::support::cluster::Version;
use super::{Lab, PARTITIONED, PLAIN};
use crate::support::process::{ended, frozen, send};
use crate::support::wait::within;

/// A build that ended before its time, as the server leaves it.
const UNFINISHED: &str = "update pg_index set indisvalid = false
    where indexrelid in (select oid from pg_class where relname ~ '^suppliers.*amount_kind_idx$' and relkind = 'i')";

#[tokio::test]
async fn an_index_that_was_left_unfinished_is_built_again() {
    let lab = Lab::on(Version::System, PLAIN).await;
    lab.killed("finish.index@2").await;
    lab.db.execute(UNFINISHED).await;
    let ran = lab.db.pgstrata(&["run", lab.plan()]).await.ok();
    assert!(
        ran.stderr.contains("suppliers_amount_kind_idx was left incomplete by an interrupted run"),
        "{ran:?}"
    );
    assert!(!lab.built().await.contains("INVALID"));
}

#[tokio::test]
async fn who_a_build_waits_for_is_said_and_a_killed_one_is_built_again() {
    let lab = Lab::with(Version::System, PLAIN, "finish = { index = ['(amount)'] }").await;
    let other = lab.db.client().await;
    other.batch_execute("set application_name = 'nightly report'").await.unwrap();
    other.batch_execute("begin isolation level repeatable read; select count(*) from kinds").await.unwrap();
    let mut child = lab.db.command(&["run", lab.plan()]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let waits = within("a build that says who it waits for", async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it ended without a word");
            if line.contains("waits for older transactions") {
                return line;
            }
        }
    });
    let waits = waits.await;
    assert!(waits.contains("nightly report"), "{waits}");
    child.kill().await.unwrap();
    assert!(lab.built().await.contains("INVALID"));
    other.batch_execute("rollback").await.unwrap();
    lab.db.pgstrata(&["run", lab.plan()]).await.ok();
    assert_eq!(lab.built().await, "suppliers index using btree (amount)\n");
}

#[tokio::test]
async fn a_build_that_waits_is_cancelled_where_the_time_is_over() {
    let lab = Lab::with(Version::System, PLAIN, "finish = { index = ['(amount)'] }").await;
    let other = lab.db.client().await;
    other.batch_execute("begin isolation level repeatable read; select count(*) from kinds").await.unwrap();
    lab.db.pgstrata(&["run", lab.plan(), "--for", "3s"]).await.exits(6);
    other.batch_execute("rollback").await.unwrap();
    lab.db.pgstrata(&["run", lab.plan()]).await.ok();
    assert_eq!(lab.built().await, "suppliers index using btree (amount)\n");
}

/// Writes what breaks a constraint once it was looked for, and before it is there.
#[tokio::test]
async fn a_row_that_comes_after_the_look_is_told_too() {
    for (finish, sql, told) in [
        (
            "unique = [['amount']]",
            "insert into suppliers (id, amount, kind, code) values (77001, 5, 1, 'late')",
            "unique (amount): 1 value in more than one row, by key 5 and 77001",
        ),
        (
            "foreign_key = ['(kind) references kinds']",
            "insert into suppliers (id, amount, kind, code) values (77001, 70000, 55, 'late')",
            "foreign key (kind) to public.kinds: 1 row, by key 77001",
        ),
    ] {
        let finish = format!("finish = {{ not_null = ['code'], {finish} }}");
        let lab = Lab::with(Version::System, PLAIN, &finish).await;
        let mut command = lab.db.command(&["run", lab.plan()]);
        let run = frozen(command.env("PGSTRATA_FAILPOINT", "finish.added=stop").spawn().unwrap()).await;
        lab.db.execute(sql).await;
        send(&run, Signal::CONT);
        let said = ended(run).await.exits(4).stderr;
        assert!(said.contains(told) && said.contains("they came while it was built"), "{said}");
        assert!(!lab.built().await.contains("INVALID"));
        lab.db.execute("delete from suppliers where id = 77001").await;
        lab.db.pgstrata(&["run", lab.plan()]).await.ok();
    }
}

/// Without a trigger nobody fills what comes behind the last look.
#[tokio::test]
async fn rows_that_come_behind_the_last_look_are_filled_before_they_are_in_the_way() {
    let lab = Lab::on(Version::System, PLAIN).await;
    let text =
        std::fs::read_to_string(&lab.plan).unwrap().replace("keep_filled = true", "keep_filled = false");
    std::fs::write(&lab.plan, text).unwrap();
    lab.killed("verify.done").await;
    lab.db.execute("insert into suppliers (amount) values (7), (8)").await;
    lab.db.pgstrata(&["run", lab.plan()]).await.ok();
    assert_eq!(lab.db.count("select count(*) from suppliers where code in ('c7', 'c8')").await, 4);
    assert!(lab.built().await.contains("code not null"));
}

/// The versions take different ways with keys of a partitioned table.
#[tokio::test]
async fn killed_at_every_place_the_next_run_goes_on() {
    let whole = Lab::on(Version::System, PARTITIONED).await;
    whole.db.pgstrata(&["run", whole.plan()]).await.ok();
    let built = whole.built().await;
    let places = failpoint::NAMES.iter().filter(|name| name.starts_with("finish."));
    let later = ["finish.validated@3", "finish.index@4", "finish.attached@2", "finish.key@2"];
    let live = async |at: &str| {
        let lab = Lab::on(Version::System, PARTITIONED).await;
        if at == "finish.dropped" {
            lab.killed("finish.parent@2").await;
            lab.db.execute(UNFINISHED).await;
        }
        lab.killed(at).await;
        lab.db.pgstrata(&["run", lab.plan()]).await.ok();
        assert_eq!((lab.built().await, lab.state().await), (built.clone(), "finalized".into()), "{at}");
    };
    stream::iter(places.chain(&later)).for_each_concurrent(3, |at| live(at)).await;
}

#[tokio::test]
async fn an_abort_takes_back_what_is_not_done() {
    for (setup, at) in [
        (PLAIN, "finish.added"),
        (PLAIN, "finish.validated@2"),
        (PARTITIONED, "finish.index@3"),
        (PARTITIONED, "finish.parent"),
        (PARTITIONED, "finish.attached"),
        (PARTITIONED, "finish.key"),
    ] {
        let lab = Lab::on(Version::System, setup).await;
        lab.killed(at).await;
        let told = lab.db.pgstrata(&["abort", "fill"]).await.ok();
        let built = lab.built().await;
        assert!(!built.contains("NOT VALID") && !built.contains("INVALID"), "{at}: {built}");
        let helpers = "select count(*) from pg_constraint where conname like 'pgstrata%'";
        assert_eq!(lab.db.count(helpers).await, 0, "{at}");
        match at {
            "finish.added" => assert_eq!(built, "", "{at}"),
            "finish.key" => {
                assert!(
                    told.stderr
                        .contains("suppliers_code_id_key of public.suppliers is complete, and is kept"),
                    "{told:?}"
                );
                assert!(!built.contains("FOREIGN KEY"), "{built}");
            }
            _ => {}
        }
    }
}
