//! The process is killed at every failpoint of a backfill, under load. The next run resumes the job: every row is
//! filled, and nothing of the job is left behind.

use super::{LEFT_BEHIND, named};
use crate::support::cluster::Database;
use crate::support::kills::{failpoints_in, side_by_side};
use crate::support::lab::Lab;
use crate::support::load::Load;
use crate::support::oracle;
use crate::support::tables::TableSpec;

const EXPRESSION: &str = "md5(coalesce(title, '-') || amount || flag)";

/// The table that the foreign key of the plan references, and a trigger that records the rows that the job sets.
const SETUP: &str = "create table kinds (kind int primary key); insert into kinds values (1);
    alter table observations add column kind int not null default 1;
    create table touched (id text);
    create function touch() returns trigger language plpgsql as 'begin insert into touched values (new.id::text); return null; end';
    create trigger touch after update on observations for each row
        when (current_setting('application_name') like 'pgstrata/%') execute function touch()";

/// Whether the keys of the filled table come from a sequence or are random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyValues {
    Numbered,
    Random,
}

use KeyValues::{Numbered, Random};

/// Each failpoint, with the kind of table on which the job is killed there. `@n` stands for the nth time that the job
/// reaches it.
const FAILPOINTS: &[(&str, KeyValues)] = &[
    ("job.installed", Numbered),
    ("job.created", Numbered),
    ("job.retuned", Numbered),
    ("lease.former_ended", Random),
    ("lease.taken", Numbered),
    ("prepare.before_commit", Numbered),
    ("prepare.done", Random),
    ("capture.before_commit", Numbered),
    ("capture.done", Random),
    ("fill.before_commit", Random),
    ("fill.single", Numbered),
    ("fill.chunk", Random),
    ("fill.chunks_done", Random),
    ("fill.done", Numbered),
    ("verify.range", Random),
    ("verify.recorded", Numbered),
    ("verify.done", Numbered),
    ("finish.before_commit", Random),
    ("abort.before_commit", Numbered),
    ("abort.done", Random),
    ("fill.before_commit@2", Random),
    ("fill.chunk@3", Random),
    ("fill.chunk@5", Random),
    ("finish.done", Numbered),
];

/// A job, and the failpoint at which it is killed.
#[derive(Debug, Clone)]
struct BackfillCrash {
    /// The command that is killed.
    command: &'static str,
    at: &'static str,
    key: KeyValues,
    /// The failpoint at which an earlier run is killed, and the statements that run then.
    before: Option<(&'static str, &'static str)>,
}

impl BackfillCrash {
    fn of((at, key): (&'static str, KeyValues)) -> Self {
        let before = match at {
            "job.retuned" => Some(("fill.chunk", "")),
            // The update comes after the first pass, and there is no trigger that fills the rows.
            "fill.single" => {
                Some(("fill.done", "update observations set digest = 'late' where digest < '02'"))
            }
            _ => None,
        };
        let command = if at.starts_with("abort") { "abort" } else { "run" };
        Self { command, at, key, before }
    }

    fn plan(&self, workers: u32) -> String {
        let keep_filled = self.at != "fill.single";
        format!(
            "table = 'observations'\n[copy]\nworkers = {workers}\n[swap]\nattempts = 1000\n[backfill]\n\
             add = {{ digest = \"text default ''\" }}\nset = {{ digest = \"{}\" }}\nkeep_filled = {keep_filled}\n\
             finish = {{ not_null = ['digest'], check = [\"digest <> 'never'\"], unique = [['id', 'digest']], \
             index = ['(digest)'], foreign_key = ['(kind) references kinds (kind)'] }}\n",
            EXPRESSION.replace("title", "t.title")
        )
    }

    fn spec(&self) -> TableSpec {
        let rows = if self.at.contains('@') { 6_000 } else { 1_500 };
        match self.key {
            Random => TableSpec::uuid("observations", rows),
            Numbered => TableSpec::bigint("observations", rows),
        }
    }

    async fn run(self) {
        let db = Database::new().await;
        let spec = self.spec();
        spec.create(&db).await;
        db.execute(SETUP).await;
        db.execute(&format!(
            "alter table truth_observations add column digest text generated always as ({EXPRESSION}) stored"
        ))
        .await;
        let mut job = Lab::on(db, &named(&self.plan(2)));
        if let Some((at, sql)) = self.before {
            job.killed("run", at).await;
            job.db.execute(sql).await;
        }
        if self.at == "job.retuned" {
            job = job.with_plan(&named(&self.plan(3)));
        }
        // Without the trigger, concurrent writes would be filled by the next run only.
        let load = match self.at {
            "fill.single" => None,
            _ => Some(Load::start(job.db.dsn(), spec, 2, 7).await),
        };
        if self.command == "abort" {
            job.killed("run", "fill.chunks_done").await;
        }
        job.killed(self.command, self.at).await;
        if let Some(load) = &load {
            load.commit_more(10).await;
        }
        if self.command == "abort" {
            job.ok("abort").await;
            job.none(LEFT_BEHIND).await;
        }
        job.ok("run").await;
        if let Some(load) = load {
            load.stop().await.assert_clean();
            // Fill the rows that were written after the trigger was dropped.
            job.ok("run").await;
        }
        oracle::compare(&job.db, "observations", "truth_observations").await;
        job.none(LEFT_BEHIND).await;
    }
}

/// The failpoints of a backfill, except those of the finish phase, which `finish` tests, and the end of a column type
/// change.
fn failpoints_of_a_backfill() -> Vec<&'static str> {
    let mut failpoints = failpoints_in(|path| {
        let finish = path.starts_with("phase/backfill/finish");
        !finish && ["phase/backfill", "engine", "pg"].iter().any(|folder| path.starts_with(folder))
    });
    failpoints.retain(|at| *at != "finalize.before_commit");
    failpoints
}

#[tokio::test]
async fn a_backfill_killed_at_every_failpoint_resumes_and_loses_nothing() {
    side_by_side(FAILPOINTS.iter().copied().map(BackfillCrash::of).collect(), BackfillCrash::run).await;
}

#[test]
fn every_failpoint_of_a_backfill_is_tested() {
    let once = |at: &&str| !at.contains('@') && *at != "finish.done";
    let tested: Vec<&str> = FAILPOINTS.iter().map(|(at, _)| *at).filter(once).collect();
    assert_eq!(tested, failpoints_of_a_backfill());
}
