//! Lost connections: the server crashes, the connection breaks at a COMMIT, an administrator or another driver
//! terminates a session. A run resumes by itself and loses nothing; a driver that was replaced writes nothing any more.

use std::cell::Cell;
use std::time::Duration;

use pgstrata::demo::server::PrivateServer;
use rustix::process::Signal;

use crate::support::cluster::{Database, SETTINGS};
use crate::support::kills::side_by_side;
use crate::support::lab::Lab;
use crate::support::load::Load;
use crate::support::oracle;
use crate::support::process::{ended, send};
use crate::support::proxy::Proxy;
use crate::support::tables::TableSpec;
use crate::support::wait::within;

/// The job's sessions; the end of the application_name pattern is appended.
const JOB_SESSIONS: &str =
    "from pg_stat_activity where datname = current_database() and application_name ~ '^pgstrata/[0-9]+";

/// A lab whose table is under load.
struct UnderLoad {
    lab: Lab,
    load: Load,
}

impl UnderLoad {
    /// At this rate, the copy takes some seconds and many chunks.
    async fn on(db: Database, rows_per_second: u32) -> Self {
        let spec = TableSpec::bigint("observations", 4_000);
        spec.create(&db).await;
        let plan = format!(
            "table = 'observations'\n[partition]\nby = 'created_at'\nevery = '6 months'\n[swap]\nlock_timeout = '100ms'\n\
             [throttle]\nrows_per_second = {rows_per_second}\n"
        );
        let load = Load::start(db.dsn(), spec, 2, 5).await;
        Self { lab: Lab::on(db, &plan), load }
    }

    async fn start() -> Self {
        Self::on(Database::new().await, 2_000).await
    }

    /// Waits until at least `n` chunks are recorded.
    async fn chunks(&self, n: i64) {
        self.lab.until(&format!("select count(*) >= {n} from pgstrata.chunks")).await;
    }

    /// Terminates the job's sessions with this role; returns their number.
    async fn terminate(&self, role: &str) -> i64 {
        let name = if role == "lease" { String::new() } else { format!("[0-9]+/{role}") };
        self.lab.count(&format!("select count(pg_terminate_backend(pid)) {JOB_SESSIONS}/{name}$'")).await
    }

    /// Asserts that no change is lost and no chunk was copied twice, and swaps.
    async fn swaps_and_holds(self) {
        let Self { lab, load } = self;
        lab.none(
            "select count(*) - count(distinct (after, through)) from pgstrata.chunks where step = 'copy'",
        )
        .await;
        oracle::compare(&lab.db, "observations", "truth_observations").await;
        lab.ok("swap").await;
        load.commit_more(5).await;
        load.stop().await.assert_nothing_lost();
        oracle::compare(&lab.db, "observations", "truth_observations").await;
    }
}

#[tokio::test]
async fn a_run_survives_a_crash_of_the_server() {
    let server = PrivateServer::start(SETTINGS).unwrap();
    let bench = UnderLoad::on(Database::on(&server).await, 2_000).await;
    let run = bench.lab.start("run", &[]);
    bench.chunks(1).await;
    server.stop_immediate().unwrap();
    server.start_again().unwrap();
    let output = ended(run).await.ok().stderr;
    assert!(output.contains("resuming from its recorded state"), "{output}");
    bench.swaps_and_holds().await;
}

/// Runs a command whose connection breaks before the server receives a COMMIT, or before the client receives its
/// result.
async fn cut((command, needle, after): (&'static str, &'static str, bool)) {
    let bench = UnderLoad::start().await;
    let before: &[&str] = match command {
        "run" => &[],
        "swap" | "abort" => &["run"],
        "rollback" | "finalize --now" => &["run", "swap"],
        other => panic!("{other}"),
    };
    for command in before {
        bench.lab.ok(command).await;
    }
    let proxy = Proxy::start(bench.lab.db.socket_dir()).await;
    if after {
        proxy.cut_after_commit(needle);
    } else {
        proxy.cut_before_commit(needle);
    }
    ended(bench.lab.start(command, &[("DATABASE_URL", &proxy.dsn(bench.lab.db.dsn()))])).await.ok();
    assert_eq!(proxy.cuts(), 1, "{command} commits nothing with {needle}");
    oracle::compare(&bench.lab.db, "observations", "truth_observations").await;
    match command {
        "run" => bench.swaps_and_holds().await,
        _ => {
            bench.load.stop().await.assert_clean();
            oracle::compare(&bench.lab.db, "observations", "truth_observations").await;
        }
    }
}

#[tokio::test]
async fn a_commit_that_is_cut_off_is_neither_repeated_nor_lost() {
    let commits = [
        ("run", "create table \"public\".\"observations_new\""),
        ("run", "create trigger \"pgstrata_capture\""),
        ("run", "/worker"),
        ("run", "create unique index \"observations_y"),
        ("run", "delete from \"pgstrata\".\"changes_observations\""),
        ("swap", "in access exclusive mode"),
        ("rollback", "in access exclusive mode"),
        ("finalize --now", "drop table"),
        ("abort", "drop table"),
    ];
    let cases =
        commits.iter().flat_map(|(command, needle)| [(*command, *needle, false), (*command, *needle, true)]);
    side_by_side(cases.collect(), cut).await;
}

/// Freezes a command at a failpoint, terminates one of its sessions, and continues the command.
async fn terminated((command, at, role): (&'static str, &'static str, &'static str)) {
    let bench = UnderLoad::start().await;
    if command != "run" {
        bench.lab.ok("run").await;
    }
    let child = bench.lab.frozen(command, at).await;
    assert!(bench.terminate(role).await > 0, "no session is a {role} at {at}");
    send(&child, Signal::CONT);
    let output = ended(child).await.ok().stderr;
    // A command that ends before the next check of the lease does not notice the loss: a process that took the lease
    // would have terminated its other sessions. The pool silently replaces the session of an idle worker.
    let unnoticed = role == "lease" || (role == "worker" && at == "index.leaf");
    assert!(unnoticed || output.contains("resuming from its recorded state"), "{output}");
    if command == "run" {
        bench.swaps_and_holds().await;
    } else {
        bench.load.stop().await.assert_clean();
        oracle::compare(&bench.lab.db, "observations", "truth_observations").await;
    }
}

#[tokio::test]
async fn a_session_that_an_administrator_terminates_is_replaced() {
    let mut cases = Vec::new();
    for role in ["lease", "control"] {
        for at in [
            "prepare.partition",
            "capture.before_commit",
            "copy.chunk",
            "index.parent",
            "drain.before_commit",
        ] {
            cases.push(("run", at, role));
        }
        cases.push(("swap", "verify.range", role));
        cases.push(("swap", "swap.ready", role));
    }
    for at in ["copy.before_commit", "index.leaf"] {
        cases.push(("run", at, "worker"));
    }
    side_by_side(cases, terminated).await;
}

/// Everything that the driver of a job writes.
const WRITTEN: &str = "select jsonb_agg(to_jsonb(j) || to_jsonb(l)) || to_jsonb(array[
        (select count(*) from pgstrata.chunks), (select count(*) from pgstrata.events),
        (select count(*) from observations_new), (select count(*) from pg_class)])
    from pgstrata.jobs j join pgstrata.leases l on l.job_id = j.id";

#[tokio::test]
async fn a_frozen_driver_that_was_replaced_writes_nothing_when_it_continues() {
    let failpoints = [
        "lease.taken",
        "prepare.target",
        "copy.before_commit",
        "copy.chunk",
        "index.leaf",
        "drain.before_commit",
    ];
    side_by_side(failpoints.to_vec(), async |at| {
        let bench = UnderLoad::start().await;
        let frozen = bench.lab.frozen("run", at).await;
        assert_eq!(bench.terminate("lease").await, 1);
        bench.lab.ok("run").await;
        let _quiet = bench.load.pause().await;
        let client = bench.lab.db.client().await;
        let written: serde_json::Value = client.query_one(WRITTEN, &[]).await.unwrap().get(0);
        send(&frozen, Signal::CONT);
        let output = ended(frozen).await.exits(7).stderr;
        assert!(output.contains("another process has taken over this job"), "{output}");
        let now: serde_json::Value = client.query_one(WRITTEN, &[]).await.unwrap().get(0);
        assert_eq!(written, now);
        drop(_quiet);
        bench.swaps_and_holds().await;
    })
    .await;
}

#[tokio::test]
async fn of_two_drivers_after_a_lost_lease_one_continues_and_the_other_ends() {
    let bench = UnderLoad::on(Database::new().await, 500).await;
    let first = bench.lab.start("run", &[]);
    bench.chunks(1).await;
    assert_eq!(bench.terminate("lease").await, 1);
    let second = bench.lab.start("run", &[]);
    let mut ran = [ended(first).await, ended(second).await];
    ran.sort_by_key(|ran| ran.code);
    let [continued, replaced] = ran;
    continued.ok();
    let output = replaced.exits(7).stderr;
    assert!(output.contains("another process"), "{output}");
    bench.swaps_and_holds().await;
}

#[tokio::test]
async fn a_replaced_driver_that_continues_does_not_disturb_the_next_one() {
    let bench = UnderLoad::on(Database::new().await, 1_000).await;
    let frozen = bench.lab.frozen("run", "copy.before_commit@2").await;
    assert_eq!(bench.terminate("lease").await, 1);
    let next = bench.lab.start("run", &[]);
    bench.lab.until("select count(*) filter (where epoch > 1) > 0 from pgstrata.chunks").await;
    send(&frozen, Signal::CONT);
    ended(frozen).await.exits(7);
    ended(next).await.ok();
    bench.swaps_and_holds().await;
}

/// Calls a function such as `pg_terminate_backend` on random sessions of a run, up to 15 times.
async fn disturbed(function: &'static str) {
    let bench = UnderLoad::on(Database::new().await, 500).await;
    let mut run = bench.lab.start("run", &[]);
    let times = Cell::new(0);
    let disturb = async {
        while times.get() < 15 {
            let call = format!(
                "select count({function}(pid)) from (select pid {JOB_SESSIONS}' order by random() limit 1) one"
            );
            times.set(times.get() + bench.lab.db.count(&call).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = within("a run that is disturbed often", disturb) => {}
        // The run may end before; at least five calls are required.
        status = run.wait() => assert!(times.get() >= 5, "{} calls, and the run ended: {status:?}", times.get()),
    }
    ended(run).await.ok();
    bench.swaps_and_holds().await;
}

#[tokio::test]
async fn terminated_or_canceled_sessions_end_no_run() {
    side_by_side(vec!["pg_terminate_backend", "pg_cancel_backend"], disturbed).await;
}

#[tokio::test]
async fn a_source_that_is_locked_for_a_while_ends_no_run() {
    let bench = UnderLoad::start().await;
    let run = bench.lab.start("run", &[]);
    bench.chunks(1).await;
    let mut client = bench.lab.db.client().await;
    let migration = client.transaction().await.unwrap();
    migration.batch_execute("lock table observations in access exclusive mode").await.unwrap();
    bench.lab.until(&format!("select exists (select {JOB_SESSIONS}' and wait_event_type = 'Lock')")).await;
    // Longer than the lock timeout of the run's statements.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    migration.commit().await.unwrap();
    ended(run).await.ok();
    bench.swaps_and_holds().await;
}

#[tokio::test]
async fn timeouts_of_the_database_end_no_session_of_a_job() {
    let bench = UnderLoad::start().await;
    for timeout in
        ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"]
    {
        let set = format!("execute format('alter database %I set {timeout} = 300', current_database())");
        bench.lab.db.execute(&format!("do $$ begin {set}; end $$")).await;
    }
    let output = bench.lab.ok("run").await.stderr;
    assert!(!output.contains("resuming from its recorded state"), "{output}");
    let reset = "do $$ begin execute format('alter database %I reset all', current_database()); end $$";
    bench.lab.db.client().await.batch_execute(reset).await.unwrap();
    bench.swaps_and_holds().await;
}
