//! The process is killed at every failpoint of a partition job, under load; the next command resumes the job, and nothing is
//! lost.

use pgstrata::failpoint;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::cluster::Database;
use crate::support::kills::{failpoints_in, side_by_side};
use crate::support::lab::Lab;
use crate::support::load::Load;
use crate::support::oracle;
use crate::support::process::{SIGKILL, ended};
use crate::support::tables::TableSpec;

/// A table with all that makes the job take every step: a foreign key, a constraint that is not validated, a
/// materialized view.
const DEPENDENTS: &str = "create table kinds (id int primary key); insert into kinds values (1);
    alter table observations add column kind int not null default 1 references kinds;
    alter table observations add constraint later check (title <> 'never') not valid;
    create materialized view titles as select title, count(*) as n from observations group by title;
    create unique index titles_title on titles (title)";

/// A row beyond the last partition; the job creates one for it.
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

/// The table that a job partitions.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// Its key comes from a sequence.
    Numbered,
    /// Its key is random: neighbours in the key are nowhere near each other in the heap.
    Random,
    /// It has a second unique index, whose values writers move from row to row.
    Moving,
}

use Source::{Moving, Numbered, Random};

/// Each failpoint with the table on which the job is killed there. Random keys where rows are copied; values that move where
/// changes are drained, ranges compared and tables exchanged.
const SOURCES: &[(&str, Source)] = &[
    ("job.installed", Numbered),
    ("job.created", Numbered),
    ("job.retuned", Numbered),
    ("lease.former_ended", Numbered),
    ("lease.taken", Numbered),
    ("prepare.before_commit", Random),
    ("prepare.target", Random),
    ("prepare.partition", Random),
    ("prepare.done", Random),
    ("capture.before_commit", Random),
    ("capture.done", Random),
    ("copy.frozen", Random),
    ("copy.before_commit", Random),
    ("copy.chunk", Random),
    ("growth.compacted", Numbered),
    ("copy.emptied", Numbered),
    ("copy.chunks_done", Random),
    ("extend.before_commit", Numbered),
    ("extend.done", Numbered),
    ("scrub.emptied", Numbered),
    ("scrub.leaf", Numbered),
    ("scrub.done", Numbered),
    ("index.leaf", Numbered),
    ("index.constraint", Numbered),
    ("index.leaf_done", Numbered),
    ("index.checks", Numbered),
    ("index.parent", Numbered),
    ("index.attached", Numbered),
    ("index.analyzed", Numbered),
    ("index.vacuumed", Numbered),
    ("index.done", Numbered),
    ("drain.before_commit", Moving),
    ("drain.batch", Moving),
    ("drain.done", Moving),
    ("verify.range", Moving),
    ("verify.recorded", Moving),
    ("verify.done", Moving),
    ("swap.ready", Moving),
    ("swap.done", Moving),
    ("swap.told", Moving),
    ("guard.dropped", Numbered),
    ("settle.key", Moving),
    ("settle.parent", Moving),
    ("settle.matview", Moving),
    ("settle.exchanged", Moving),
    ("finalize.before_commit", Numbered),
    ("finalize.done", Numbered),
    ("abort.before_commit", Numbered),
    ("abort.done", Numbered),
];

/// One life of a job, and where it is killed.
#[derive(Debug, Clone)]
struct Crash {
    /// The command that is killed; of several of the same name, the first.
    command: &'static str,
    /// The failpoint.
    at: String,
    /// The table.
    source: Source,
    /// A run that is killed before any writer is there, and what happens to the table then.
    before: Option<(&'static str, &'static str)>,
    /// A row that no partition takes, and no writer knows, comes then.
    far_row: bool,
    /// Many small chunks, by blocks of the heap.
    chunks: bool,
}

impl Crash {
    fn new(command: &'static str, at: &str, source: Source) -> Self {
        Self { command, at: at.to_owned(), source, before: None, far_row: false, chunks: at.contains('@') }
    }

    fn after(mut self, at: &'static str, sql: &'static str) -> Self {
        self.before = Some((at, sql));
        self
    }

    /// The cases that a failpoint needs.
    fn of(name: &str) -> Vec<Self> {
        let Some((_, source)) = SOURCES.iter().find(|(at, _)| *at == name) else { return Vec::new() };
        let case = |command| Self::new(command, name, *source);
        let run = case("run");
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
            ("lease", _) => vec![run, case("finalize --now")],
            ("settle", "parent") => vec![case("swap")],
            ("swap" | "guard" | "settle", _) => vec![case("swap"), case("rollback")],
            ("abort", _) => vec![case("abort")],
            ("finalize", _) => vec![case("finalize --now")],
            _ => vec![run],
        }
    }

    fn spec(&self) -> TableSpec {
        let rows = if self.chunks { 5_000 } else { 1_500 };
        match self.source {
            Numbered => TableSpec::bigint("observations", rows),
            Random => TableSpec::uuid("observations", rows),
            Moving => TableSpec::slots("observations", rows),
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
        let mut lab = Lab::on(db, &self.plan(2));
        if let Some((at, sql)) = self.before {
            lab.killed("run", at).await;
            lab.db.execute(sql).await;
        }
        if self.at == "job.retuned" {
            lab = lab.with_plan(&self.plan(3));
        }
        let load = Load::start(lab.db.dsn(), spec, 2, 7).await;
        if self.far_row {
            lab.db.execute(FAR_ROW).await;
        }
        let mut left = Some(self.at.as_str());
        let life = match self.command {
            "run" => vec!["run", "swap", "finalize --now"],
            "abort" => vec!["run", "abort", "run", "swap", "finalize --now"],
            _ => vec!["run", "swap", "rollback", "swap", "finalize --now"],
        };
        for command in life {
            load.commit_more(5).await;
            if command == self.command
                && let Some(at) = left.take()
            {
                lab.killed(command, at).await;
                load.commit_more(5).await;
            }
            lab.ok(command).await;
            oracle::compare(&lab.db, "observations", "truth_observations").await;
        }
        end(&lab, load).await;
    }
}

/// Nothing is lost, and nothing of the job is left.
async fn end(lab: &Lab, load: Load) {
    load.commit_more(5).await;
    load.stop().await.assert_clean();
    oracle::compare(&lab.db, "observations", "truth_observations").await;
    lab.none(LEFT_BEHIND).await;
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

#[tokio::test]
async fn a_job_killed_at_every_failpoint_resumes_and_loses_nothing() {
    side_by_side(of_this_kind().into_iter().flat_map(Crash::of).collect(), Crash::live).await;
}

#[tokio::test]
async fn a_job_killed_at_a_later_chunk_or_batch_resumes_and_loses_nothing() {
    let places =
        ["prepare.partition@3", "copy.before_commit@2", "copy.chunk@3", "index.leaf@3", "drain.batch@2"];
    let cases = places.iter().map(|at| Crash::new("run", at, Numbered));
    side_by_side(cases.collect(), Crash::live).await;
}

/// Killed at random places, again and again, until nothing is left to do.
async fn tortured(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let db = Database::new().await;
    let spec = TableSpec::uuid("observations", 4_000).truncating(300);
    spec.create(&db).await;
    db.execute(DEPENDENTS).await;
    let lab = Lab::on(db, &Crash::new("run", "@", Random).plan(2));
    let load = Load::start(lab.db.dsn(), spec, 3, seed).await;
    let mut kills = 0;
    for (command, first) in [
        ("run", "lease.taken"),
        ("swap", "drain.batch"),
        ("rollback", "drain.batch"),
        ("swap", "drain.batch"),
        ("finalize --now", "finalize.before_commit"),
    ] {
        // Names stand in the order of a job's life: what it has behind it is not reached again.
        let usual = |name: &&str| !["emptied", "extend", "growth"].iter().any(|rare| name.contains(rare));
        let places: Vec<&str> =
            of_this_kind().into_iter().skip_while(|name| *name != first).filter(usual).collect();
        let mut from = 0;
        loop {
            let at = rng.random_range(from..places.len().min(from + 5));
            let killed_at = format!("{}@{}", places[at], 1 + u32::from(rng.random_bool(0.2)));
            let ran = ended(lab.start(command, &[("PGSTRATA_FAILPOINT", &killed_at)])).await;
            if ran.signal != Some(SIGKILL) {
                assert_eq!(ran.code, Some(0), "seed {seed}, {command}, {killed_at}: {ran:?}");
                break;
            }
            kills += 1;
            from = at.saturating_sub(2);
        }
        oracle::compare(&lab.db, "observations", "truth_observations").await;
    }
    end(&lab, load).await;
    println!("seed {seed}: {kills} kills");
    assert!(kills > 0, "seed {seed}");
}

#[tokio::test]
async fn a_job_killed_again_and_again_completes() {
    for seed in [11, 12, 13] {
        tortured(seed).await;
    }
}

/// The failpoints that a job which partitions a table comes to.
fn of_this_kind() -> Vec<&'static str> {
    failpoints_in(|path| !path.starts_with("phase/backfill"))
}

/// All but those of the other kinds of job, whose own tests kill them there, and of the mirror, which takes writers that keep the
/// log filled: `old_snapshots` has them.
#[test]
fn every_failpoint_of_a_partition_job_names_its_table() {
    let others = ["fill.", "finish.", "retype.", "mirror."];
    let ours = failpoint::NAMES.iter().filter(|name| !others.iter().any(|other| name.starts_with(other)));
    let named: Vec<_> = SOURCES.iter().map(|(at, _)| at).collect();
    assert_eq!(named, ours.collect::<Vec<_>>());
}

#[test]
fn every_failpoint_has_a_name_and_every_name_has_a_failpoint() {
    assert_eq!(failpoints_in(|_| true), failpoint::NAMES);
}
