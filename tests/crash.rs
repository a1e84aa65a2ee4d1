//! The process is killed at every failpoint of a partition job, under load; the next command resumes the job, and
//! nothing is lost.

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

/// Objects that make the job run every step: a foreign key, a constraint that is not valid, a materialized view, and a unique
/// index without the partition column.
const DEPENDENTS: &str = "create table kinds (id int primary key); insert into kinds values (1);
    alter table observations add column kind int not null default 1 references kinds;
    alter table observations add constraint later check (title <> 'never') not valid;
    create materialized view titles as select title, count(*) as n from observations group by title;
    create unique index titles_title on titles (title);
    alter table observations add column code bigint;
    update observations o set code = n from (select ctid as place, row_number() over () as n from observations) x where ctid = place;
    create unique index observations_code on observations (code)";

/// A row beyond the last partition, for which the job creates a partition.
const FAR_ROW: &str = "begin;
    insert into observations (id, created_at, title, flag) values (-7, '2031-05-05', 'far', true);
    insert into truth_observations (id, created_at, title, flag) values (-7, '2031-05-05', 'far', true);
    commit";

/// A change before the copy reads the row, so that the scrub has work to do, whatever the writers have done by then.
const TOUCHED: &str = "begin;
    update observations set title = 'touched' where id = (select min(id) from truth_observations);
    update truth_observations set title = 'touched' where id = (select min(id) from truth_observations);
    commit";

/// A TRUNCATE, followed by an insert of some rows.
const EMPTIED: &str = "begin; truncate observations; truncate truth_observations;
    insert into observations (id, created_at, title, flag) overriding system value
        select 1000000 + i, timestamptz '2024-02-01' + i * interval '1 day', 'after', true from generate_series(1, 300) i;
    insert into truth_observations (id, created_at, title, amount, doc, flag)
        select id, created_at, title, amount, doc, flag from observations;
    commit";

/// So many changes that the change log becomes larger than the source.
const CHURNED: &str = "do $$ begin
        for i in 1..120 loop
            update observations set flag = not flag;
            update truth_observations set flag = not flag;
        end loop;
    end $$";

/// A change of every row, so that the change log has as many entries as the table has rows.
const ALL_CHANGED: &str = "begin; update observations set title = 'changed', flag = not flag;
    update truth_observations set title = 'changed', flag = not flag; commit";

/// The table that a job partitions.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// The keys come from a sequence.
    Numbered,
    /// The keys are random: the order of the keys is unrelated to the physical order.
    Random,
    /// The table has a second unique index, whose values writers move from row to row.
    Moving,
}

use Source::{Moving, Numbered, Random};

/// Each failpoint, with the table on which the job is killed there: random keys for failpoints of the copy; moving
/// unique values for failpoints of drain, verify and swap.
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
    ("not_null.added", Numbered),
    ("not_null.validated", Numbered),
    ("capture.before_commit", Random),
    ("capture.done", Random),
    ("resync.forgotten", Random),
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
    ("index.key_table", Numbered),
    ("index.key_table_filled", Numbered),
    ("index.key_table_done", Numbered),
    ("index.analyzed", Numbered),
    ("index.vacuumed", Numbered),
    ("index.done", Numbered),
    ("resync.before_commit", Moving),
    ("resync.done", Numbered),
    ("drain.before_commit", Moving),
    ("drain.batch", Moving),
    ("drain.done", Moving),
    ("verify.range", Moving),
    ("verify.recorded", Moving),
    ("verify.done", Moving),
    ("swap.ready", Moving),
    ("swap.done", Moving),
    ("swap.recorded", Moving),
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

/// A job, and the failpoint at which it is killed.
#[derive(Debug, Clone)]
struct Crash {
    /// The command that is killed; if it runs several times, the first. `swap again`: the swap after a rollback.
    command: &'static str,
    /// The failpoint.
    at: String,
    /// The table.
    source: Source,
    /// The failpoint at which an earlier run is killed, before writers start, and the statements that run then.
    before: Option<(&'static str, &'static str)>,
    /// Whether a row is inserted that belongs in no partition.
    far_row: bool,
    /// Whether the copy has many small chunks, in physical order.
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
            ("resync", _) => vec![run.after("index.done", ALL_CHANGED)],
            ("job", "retuned") => vec![run.after("copy.frozen", "")],
            ("lease", _) => vec![run, case("finalize --now")],
            ("settle", "parent") => vec![case("swap")],
            // The swap after a rollback adds the constraint again.
            ("not_null", _) => vec![run, case("swap again")],
            ("swap" | "guard" | "settle", _) => vec![case("swap"), case("rollback")],
            ("abort", _) => vec![case("abort")],
            ("finalize", _) => vec![case("finalize --now")],
            _ => vec![run],
        }
    }

    fn spec(&self) -> TableSpec {
        let rows = if self.chunks { 5_000 } else { 1_500 };
        match self.source {
            Numbered if self.at.starts_with("not_null") => TableSpec::bigint("observations", rows).nullable(),
            Numbered => TableSpec::bigint("observations", rows),
            Random => TableSpec::uuid("observations", rows),
            Moving => TableSpec::slots("observations", rows),
        }
    }

    fn plan(&self, workers: usize) -> String {
        let more = match self.at.as_str() {
            // The size of the log is checked every five seconds, so the copy must take longer.
            at if at.starts_with("growth") => {
                "order = 'keyset'\n[throttle]\nrows_per_second = 150\n[verify]\n"
            }
            _ if self.chunks => "order = 'physical'\n[throttle]\nrows_per_second = 2000\n[verify]\n",
            _ => "[verify]\n",
        };
        let not_null = if self.at.starts_with("not_null") { "not_null = true\n" } else { "" };
        format!(
            "table = 'observations'\n[partition]\nby = 'created_at'\n{not_null}every = '6 months'\nahead = 1\ndefault = false\n\
             [swap]\nlock_timeout = '100ms'\n[copy]\nworkers = {workers}\n{more}rows = 'hash'\n"
        )
    }

    async fn run(self) {
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
        let mut failpoint = Some(self.at.as_str());
        let commands = match self.command {
            "run" => vec!["run", "swap", "finalize --now"],
            "abort" => vec!["run", "abort", "run", "swap", "finalize --now"],
            _ => vec!["run", "swap", "rollback", "swap", "finalize --now"],
        };
        let killed = match self.command {
            "swap again" => commands.iter().rposition(|command| *command == "swap"),
            killed => commands.iter().position(|command| *command == killed),
        };
        for (n, command) in commands.into_iter().enumerate() {
            load.commit_more(5).await;
            if killed == Some(n)
                && let Some(at) = failpoint.take()
            {
                // A drain at this rate would take so long that the table is copied again.
                let slow = at.starts_with("resync").then_some(("PGSTRATA_DRAIN_RATE", "1"));
                let env: Vec<_> = slow.into_iter().chain([("PGSTRATA_FAILPOINT", at)]).collect();
                ended(lab.start(command, &env)).await.killed(at);
                load.commit_more(5).await;
            }
            lab.ok(command).await;
            oracle::compare(&lab.db, "observations", "truth_observations").await;
        }
        end(&lab, load).await;
    }
}

/// Asserts that nothing is lost, and that nothing of the job is left behind.
async fn end(lab: &Lab, load: Load) {
    load.commit_more(5).await;
    load.stop().await.assert_clean();
    oracle::compare(&lab.db, "observations", "truth_observations").await;
    lab.none(LEFT_BEHIND).await;
}

/// Objects that finalize should have removed: the job's relations, functions and triggers, and the old table.
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
    side_by_side(failpoints_of_a_partition_job().into_iter().flat_map(Crash::of).collect(), Crash::run).await;
}

#[tokio::test]
async fn a_job_killed_at_a_later_chunk_or_batch_resumes_and_loses_nothing() {
    let failpoints =
        ["prepare.partition@3", "copy.before_commit@2", "copy.chunk@3", "index.leaf@3", "drain.batch@2"];
    let cases = failpoints.iter().map(|at| Crash::new("run", at, Numbered));
    side_by_side(cases.collect(), Crash::run).await;
}

/// Kills the job at random failpoints, again and again, until it completes.
async fn killed_at_random(seed: u64) {
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
        // Names are in the order in which a job reaches them; it does not reach earlier failpoints again.
        let usual = |name: &&str| {
            !["emptied", "extend", "growth", "resync", "not_null"].iter().any(|rare| name.contains(rare))
        };
        let failpoints: Vec<&str> = failpoints_of_a_partition_job()
            .into_iter()
            .skip_while(|name| *name != first)
            .filter(usual)
            .collect();
        let mut from = 0;
        loop {
            let at = rng.random_range(from..failpoints.len().min(from + 5));
            let killed_at = format!("{}@{}", failpoints[at], 1 + u32::from(rng.random_bool(0.2)));
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
        killed_at_random(seed).await;
    }
}

/// The failpoints of a partition job.
fn failpoints_of_a_partition_job() -> Vec<&'static str> {
    failpoints_in(|path| !path.starts_with("phase/backfill"))
}

/// All failpoints except those of the other kinds of job, which other tests cover, and those of the mirror, which needs
/// writers that keep the change log filled: `old_snapshots` tests it.
#[test]
fn every_failpoint_of_a_partition_job_is_tested() {
    let others = ["fill.", "finish.", "retype.", "mirror."];
    let expected = failpoint::NAMES.iter().filter(|name| !others.iter().any(|other| name.starts_with(other)));
    let tested: Vec<_> = SOURCES.iter().map(|(at, _)| at).collect();
    assert_eq!(tested, expected.collect::<Vec<_>>());
}

#[test]
fn failpoint_names_match_the_source() {
    assert_eq!(failpoints_in(|_| true), failpoint::NAMES);
}
