//! A network that drops all packets: connections stay open, but there are no answers any more. pgstrata detects and
//! reports this, and gives up after the documented time. If the network recovers before, the job resumes by itself.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::support::kills::side_by_side;
use crate::support::lab::Lab;
use crate::support::process::ended;
use crate::support::proxy::Proxy;
use crate::support::wait::within;

/// The parts of the plan in which the three kinds of job differ.
const KINDS: [&str; 3] = [
    "[partition]\nby = 'at'\nevery = '1 month'\n",
    "kind = 'backfill'\n[backfill]\nset = { n = 't.id * 2' }\n",
    "kind = 'retype'\n[retype]\ncolumn = 'v'\nto = 'bigint'\n",
];

const SETUP: &str = "create table t (id bigint primary key, at timestamptz not null, n bigint, v int);
    insert into t select i, '2024-01-01'::timestamptz + i * interval '10 minutes', null, i from generate_series(1, 20000) i;
    analyze t";

async fn lab(kind: &str) -> Lab {
    let plan = format!("name = 'job'\ntable = 't'\n{kind}[throttle]\nrows_per_second = 1000\n");
    Lab::new(SETUP, &plan).await
}

/// Starts a run through a proxy, which drops everything once the job has completed some chunks.
async fn swallowed(lab: &Lab, outage_s: u32) -> (Proxy, Child) {
    let proxy = Proxy::start(lab.db.socket_dir()).await;
    let dsn = format!("{} connect_timeout=2", proxy.dsn(lab.db.dsn()));
    let env = [("DATABASE_URL", dsn.as_str()), ("PGSTRATA_OUTAGE", &outage_s.to_string())];
    let run = lab.start("run --json", &env);
    lab.until("select count(*) >= 3 from pgstrata.chunks").await;
    proxy.swallow(true);
    (proxy, run)
}

/// Whether a line is the event that the job was interrupted for the first time.
fn is_interruption(line: &str) -> bool {
    let event: Value = serde_json::from_str(line).unwrap();
    event["code"] == "job_interrupted" && event["attempt"] == 1
}

async fn gives_up(kind: &'static str) {
    let lab = lab(kind).await;
    let (proxy, run) = swallowed(&lab, 3).await;
    let ran = ended(run).await.exits(1);
    assert!(ran.stdout.lines().any(is_interruption), "{kind:?}: {}", ran.stdout);
    proxy.swallow(false);
    drop(proxy);
    lab.ok("run").await;
}

async fn resumes(kind: &'static str) {
    let lab = lab(kind).await;
    let (proxy, mut run) = swallowed(&lab, 300).await;
    let mut stderr = run.stderr.take().unwrap();
    let rest =
        tokio::task::spawn_local(async move { tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await });
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    let mut output = String::new();
    let mut interrupted = false;
    within("the outage is detected", async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if is_interruption(&line) {
                interrupted = true;
                proxy.swallow(false);
            }
            output += &line;
        }
    })
    .await;
    rest.await.unwrap().unwrap();
    assert_eq!(run.wait().await.unwrap().code(), Some(0), "{kind:?}: {output}");
    assert!(interrupted, "{kind:?}: {output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_drops_all_packets_is_detected() {
    side_by_side(KINDS.to_vec(), gives_up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_resumes_when_the_network_recovers() {
    side_by_side(KINDS.to_vec(), resumes).await;
}
