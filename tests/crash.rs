//! The process is killed at every named place between two steps, under load; the next one goes on, and nothing is lost.

use std::path::Path;

use pgstrata::failpoint;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::support::cluster::Database;
use super::support::kills::{as_str, failpoints_in, killed, side_by_side};
use super::support::load::Writers;
use super::support::oracle;
use super::support::process::SIGKILL;
use super::support::tables::TableSpec;

/// A table with all that makes the job take every step: a foreign key, a constraint that is not validated, a
/// materialized view.
const DEPENDENTS: &str = "create table kinds (id int primary key); insert into kinds values (1);
    alter table observations add column kind int not null default 1 references kinds;
    alter table observations add constraint later check (title <> 'never') not valid;
    create materialized view titles as select title, count(*) as n from observations group by title;
    create unique index titles_title on titles (title)";

/// A row behind the last partition; the job makes one for it.
const FAR_ROW: &str = "begin;
    insert into observations (id, created_at, title, flag) values (-7, '2031-05-05', 'far', true);
    insert into truth_observations (id, created_at, title, flag) values (-7, '2031-05-05', 'far', true);
    commit";

/// A change that the copy overtakes, so that the scrub has something to do, whatever the writers did by then.
const TOUCHED: &str = "begin;
    update observations set title = 'touched' where id = (select min(id) from truth_observations);
    update truth_observations set title = 'touched' where id = (select min(id) from truth_observations);
    commit";

/// Everything goes but some rows that come after.
const EMPTIED: &str = "begin; truncate observations; truncate truth_observations;
    insert into observations (id, created_at, title, flag) overriding system value
        select 1000000 + i, timestamptz '2024-02-01' + i * interval '1 day', 'after', true from generate_series(1, 300) i;
    insert into truth_observations (id, created_at, title, amount, doc, flag)
        select id, created_at, title, amount, doc, flag from observations;
    commit";

/// Every row changes so often that the log outgrows the source; both tables say the same after.
const CHURNED: &str = "do $$ begin
        for i in 1..120 loop
            update observations set flag = not flag;
            update truth_observations set flag = not flag;
        end loop;
    end $$";

/// One life of a job, and where it is killed.
#[derive(Debug, Clone)]
struct Case {
    /// The command that is killed; of several of the same name, the first.
    command: &'static str,
    /// The failpoint.
    at: String,
    /// A run that is killed before any writer is there, and what happens to the table then.
    before: Option<(&'static str, &'static str)>,
    /// A row that no partition takes, and no writer knows, comes then.
    far_row: bool,
    /// Many small chunks, by blocks of the heap.
    chunks: bool,
}

impl Case {
    fn new(command: &'static str, at: &str) -> Self {
        Self { command, at: at.to_owned(), before: None, far_row: false, chunks: at.contains('@') }
    }

    fn after(mut self, at: &'static str, sql: &'static str) -> Self {
        self.before = Some((at, sql));
        self
    }

    /// The cases that a failpoint needs.
    fn of(name: &str) -> Vec<Self> {
        let run = Self::new("run", name);
        match name.split_once('.').unwrap_or_default() {
            ("extend", _) => {
                let run = Self { far_row: true, ..run };
                vec![run.clone().after("capture.done", ""), run.after("index.done", "")]
            }
            ("scrub", "emptied") => vec![run.after("copy.frozen", EMPTIED)],
            ("scrub", "leaf") => vec![run.after("copy.frozen", TOUCHED)],
            ("copy", "emptied") => {
                vec![Self { chunks: true, ..run.after("copy.chunk", "vacuum full observations") }]
            }
            ("growth", _) => vec![run.after("copy.frozen", CHURNED)],
            ("job", "retuned") => vec![run.after("copy.frozen", "")],
            ("lease", _) => vec![run, Self::new("finalize", name)],
            ("settle", "parent") => vec![Self::new("swap", name)],
            ("swap" | "guard" | "settle", _) => vec![Self::new("swap", name), Self::new("rollback", name)],
            // A backfill's.
            ("fill" | "finish", _) => Vec::new(),
            ("abort", _) => vec![Self::new("abort", name)],
            // Of a job of another kind: its own tests kill it there.
            ("retype", _) => Vec::new(),
            // It takes writers that keep the log filled: `old_snapshots` has them.
            ("mirror", _) => Vec::new(),
            ("finalize", _) => vec![Self::new("finalize", name)],
            _ => vec![run],
        }
    }

    /// The source that this life partitions: random keys where rows are copied, values that move between rows where changes are
    /// drained and names exchanged, numbers from a sequence otherwise.
    fn spec(&self) -> TableSpec {
        if self.chunks {
            return TableSpec::bigint("observations", 5_000);
        }
        match self.at.split('.').next().unwrap_or_default() {
            _ if self.before.is_some() => TableSpec::bigint("observations", 1_500),
            "prepare" | "capture" | "copy" => TableSpec::uuid("observations", 1_500),
            "drain" | "verify" | "swap" | "settle" => TableSpec::slots("observations", 1_500),
            _ => TableSpec::bigint("observations", 1_500),
        }
    }

    fn plan(&self, workers: usize) -> String {
        let more = match self.at.as_str() {
            // The log is looked at after five seconds: the copy takes longer.
            at if at.starts_with("growth") => {
                "order = 'keyset'\n[throttle]\nrows_per_second = 150\n[verify]\n"
            }
            _ if self.chunks => "order = 'physical'\n[throttle]\nrows_per_second = 2000\n[verify]\n",
            _ => "[verify]\n",
        };
        format!(
            "table = 'observations'\n[partition]\nby = 'created_at'\nevery = '6 months'\nahead = 1\ndefault = false\n\
             [swap]\nlock_timeout = '100ms'\n[copy]\nworkers = {workers}\n{more}rows = 'hash'\n"
        )
    }

    async fn live(self) {
        let db = Database::new().await;
        let spec = self.spec();
        spec.create(&db).await;
        db.execute(DEPENDENTS).await;
        let mut plan = db.plan(&self.plan(2));
        if let Some((at, sql)) = self.before {
            killed(&db, &arguments("run", &plan), at).await;
            db.execute(sql).await;
        }
        if self.at == "job.retuned" {
            plan = db.plan(&self.plan(3));
        }
        let writers = Writers::start(db.dsn(), spec, 2, 7).await;
        if self.far_row {
            db.execute(FAR_ROW).await;
        }
        let mut left = Some(self.at.as_str());
        let life = match self.command {
            "run" => vec!["run", "swap", "finalize"],
            "abort" => vec!["run", "abort", "run", "swap", "finalize"],
            _ => vec!["run", "swap", "rollback", "swap", "finalize"],
        };
        for command in life {
            writers.commit_more(5).await;
            let arguments = arguments(command, &plan);
            if command == self.command
                && let Some(at) = left.take()
            {
                killed(&db, &arguments, at).await;
                writers.commit_more(5).await;
            }
            db.pgstrata(&as_str(&arguments)).await.ok();
            oracle::compare(&db, "observations", "truth_observations").await;
        }
        writers.commit_more(5).await;
        writers.stop().await.assert_clean();
        oracle::compare(&db, "observations", "truth_observations").await;
        assert_eq!(db.count(LEFT_BEHIND).await, 0);
    }
}

/// What the job made and finalize should have removed: relations, functions and triggers of ours, and the old table.
const LEFT_BEHIND: &str = "select
    (select count(*) from pg_class c join pg_namespace n on n.oid = relnamespace
     where nspname = 'pgstrata' and relkind = 'r'
       and relname not in ('version', 'jobs', 'leases', 'chunks', 'events', 'objects', 'settings', 'pace'))
  + (select count(*) from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname = 'pgstrata')
  + (select count(*) from pg_trigger where tgname like 'pgstrata%')
  + (select count(*) from pg_class where relname like 'observations%\\_old' or relname like 'observations%\\_new')
  + (select count(*) from pgstrata.chunks)";

fn arguments(command: &str, plan: &Path) -> Vec<String> {
    match command {
        "run" => vec!["run".to_owned(), plan.display().to_string()],
        "finalize" => vec!["finalize".to_owned(), "observations".to_owned(), "--now".to_owned()],
        other => vec![other.to_owned(), "observations".to_owned()],
    }
}

#[tokio::test]
async fn killed_at_every_failpoint_a_job_goes_on_and_loses_nothing() {
    side_by_side(of_this_kind().into_iter().flat_map(Case::of).collect(), Case::live).await;
}

#[tokio::test]
async fn killed_at_a_later_chunk_or_batch_a_job_goes_on_and_loses_nothing() {
    let places =
        ["prepare.partition@3", "copy.before_commit@2", "copy.chunk@3", "index.leaf@3", "drain.batch@2"];
    side_by_side(places.iter().map(|at| Case::new("run", at)).collect(), Case::live).await;
}

/// Killed at random places, again and again, until nothing is left to do.
async fn tortured(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let db = Database::new().await;
    let spec = TableSpec::uuid("observations", 4_000).truncating(300);
    spec.create(&db).await;
    db.execute(DEPENDENTS).await;
    let plan = db.plan(&Case::new("run", "@").plan(2));
    let writers = Writers::start(db.dsn(), spec, 3, seed).await;
    let mut kills = 0;
    for (command, first) in [
        ("run", "lease.taken"),
        ("swap", "drain.batch"),
        ("rollback", "drain.batch"),
        ("swap", "drain.batch"),
        ("finalize", "finalize.before_commit"),
    ] {
        // Names stand in the order of a job's life: what it has behind it is not reached again.
        let usual = |name: &&str| !["emptied", "extend", "growth"].iter().any(|rare| name.contains(rare));
        let places: Vec<&str> =
            of_this_kind().into_iter().skip_while(|name| *name != first).filter(usual).collect();
        let mut from = 0;
        loop {
            let at = rng.random_range(from..places.len().min(from + 5));
            let killed_at = format!("{}@{}", places[at], 1 + u32::from(rng.random_bool(0.2)));
            let at_failpoint = [("PGSTRATA_FAILPOINT", killed_at.as_str())];
            let ran = db.pgstrata_with(&as_str(&arguments(command, &plan)), &at_failpoint).await;
            if ran.signal != Some(SIGKILL) {
                assert_eq!(ran.code, Some(0), "seed {seed}, {command}, {killed_at}: {ran:?}");
                break;
            }
            kills += 1;
            from = at.saturating_sub(2);
        }
        oracle::compare(&db, "observations", "truth_observations").await;
    }
    writers.commit_more(5).await;
    writers.stop().await.assert_clean();
    oracle::compare(&db, "observations", "truth_observations").await;
    assert_eq!(db.count(LEFT_BEHIND).await, 0);
    println!("seed {seed}: {kills} kills");
    assert!(kills > 0, "seed {seed}");
}

#[tokio::test]
async fn killed_again_and_again_a_job_comes_to_its_end() {
    for seed in [11, 12, 13] {
        tortured(seed).await;
    }
}

/// The failpoints that a job which partitions a table comes to.
fn of_this_kind() -> Vec<&'static str> {
    failpoints_in(|path| !path.starts_with("phase/backfill"))
}

#[test]
fn every_failpoint_has_a_name_and_every_name_a_failpoint() {
    assert_eq!(failpoints_in(|_| true), failpoint::NAMES);
}
