//! A network that swallows everything: connections stay open, and nothing is answered any more. The tool notices, says so,
//! and gives up in the time that it promises; where the network comes back before, the job goes on by itself.

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use super::support::cluster::Database;
use super::support::kills::side_by_side;
use super::support::process::ended;
use super::support::proxy::Proxy;
use super::support::wait::{until, within};

/// A kind of job: the rest of its plan.
#[derive(Debug, Clone, Copy)]
struct Kind {
    plan: &'static str,
}

const KINDS: [Kind; 3] = [
    Kind { plan: "[partition]\nby = 'at'\nevery = '1 month'\n" },
    Kind { plan: "kind = 'backfill'\n[backfill]\nset = { n = 't.id * 2' }\n" },
    Kind { plan: "kind = 'retype'\n[retype]\ncolumn = 'v'\nto = 'bigint'\n" },
];

async fn database() -> Database {
    let db = Database::new().await;
    db.execute(
        "create table t (id bigint primary key, at timestamptz not null, n bigint, v int);
         insert into t select i, '2024-01-01'::timestamptz + i * interval '10 minutes', null, i
           from generate_series(1, 20000) i; analyze t",
    )
    .await;
    db
}

/// A run through a proxy that swallows everything from the moment on at which the job has done some chunks.
async fn swallowed(db: &Database, kind: Kind, outage_s: u32) -> (Proxy, Child, String) {
    let proxy = Proxy::start(db.socket_dir()).await;
    let head = "name = 'job'\ntable = 't'\n";
    let (top, section) = kind.plan.split_at(kind.plan.find('[').unwrap());
    let plan = db.plan(&format!("{head}{top}{section}[throttle]\nrows_per_second = 1000\n"));
    let plan = plan.display().to_string();
    let run = db
        .command(&["run", &plan])
        .env("DATABASE_URL", format!("{} connect_timeout=2", proxy.dsn(db.dsn())))
        .env("PGSTRATA_OUTAGE", outage_s.to_string())
        .spawn()
        .unwrap();
    let client = db.client().await;
    until("three chunks", async || {
        let chunks = client.query_one("select count(*) >= 3 from pgstrata.chunks", &[]).await;
        chunks.is_ok_and(|row| row.get(0))
    })
    .await;
    proxy.swallow(true);
    (proxy, run, plan)
}

fn reports_silence(kind: Kind, said: &str) {
    assert!(
        said.contains("resuming from its recorded state") && said.contains("attempt 1 failed"),
        "{kind:?}: {said}"
    );
    assert!(
        said.contains("the server does not answer") || said.contains("holds the job's lease was lost"),
        "{kind:?}: {said}"
    );
}

async fn gives_up(kind: Kind) {
    let db = database().await;
    let (proxy, run, plan) = swallowed(&db, kind, 3).await;
    let ran = ended(run).await.exits(1);
    reports_silence(kind, &ran.stderr);
    assert!(ran.stderr.contains("could not be taken up again in"), "{}", ran.stderr);
    assert!(ran.stderr.contains("the job's state is kept"), "{}", ran.stderr);
    proxy.swallow(false);
    drop(proxy);
    db.pgstrata(&["run", &plan]).await.ok();
}

async fn goes_on(kind: Kind) {
    let db = database().await;
    let (proxy, mut run, _) = swallowed(&db, kind, 300).await;
    let mut stdout = run.stdout.take().unwrap();
    let rest =
        tokio::task::spawn_local(async move { tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await });
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines();
    let mut said = String::new();
    within("the silence is noticed", async {
        while let Some(line) = lines.next_line().await.unwrap() {
            said += &line;
            if said.contains("attempt 1 failed") {
                proxy.swallow(false);
            }
        }
    })
    .await;
    rest.await.unwrap().unwrap();
    assert_eq!(run.wait().await.unwrap().code(), Some(0), "{kind:?}: {said}");
    reports_silence(kind, &said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_everything_is_noticed() {
    side_by_side(KINDS.to_vec(), gives_up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_comes_back_is_used_again() {
    side_by_side(KINDS.to_vec(), goes_on).await;
}
