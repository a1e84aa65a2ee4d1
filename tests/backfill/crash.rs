//! The process is killed at every named place that a backfill comes to, under load; the next one goes on: no row is left, none
//! is set twice, and nothing of the job stays.

use super::{LEFT_BEHIND, named};
use crate::support::cluster::Database;
use crate::support::kills::{failpoints_in, side_by_side};
use crate::support::lab::Lab;
use crate::support::load::Load;
use crate::support::oracle;
use crate::support::tables::TableSpec;

const EXPRESSION: &str = "md5(coalesce(title, '-') || amount || flag)";

/// Rows that the job sets are written down; what the job builds in the end has something to hold on to.
const SETUP: &str = "create table kinds (kind int primary key); insert into kinds values (1);
    alter table observations add column kind int not null default 1;
    create table touched (id text);
    create function touch() returns trigger language plpgsql as 'begin insert into touched values (new.id::text); return null; end';
    create trigger touch after update on observations for each row
        when (current_setting('application_name') like 'pgstrata/%') execute function touch()";

/// The key of the table that a job fills: its values come from a sequence, or are random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyValues {
    Numbered,
    Random,
}

use KeyValues::{Numbered, Random};

/// Each failpoint with the table on which the job is killed there, with some places that it comes to more than once.
const PLACES: &[(&str, KeyValues)] = &[
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

/// One life of a job, and where it is killed.
#[derive(Debug, Clone)]
struct BackfillCrash {
    /// The command that is killed.
    command: &'static str,
    at: &'static str,
    key: KeyValues,
    /// A run that is killed before, and what happens to the table then.
    before: Option<(&'static str, &'static str)>,
}

impl BackfillCrash {
    fn of((at, key): (&'static str, KeyValues)) -> Self {
        let before = match at {
            "job.retuned" => Some(("fill.chunk", "")),
            // Behind the first pass, and with no trigger that sees it.
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

    async fn live(self) {
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
        // Without the trigger, what writers write is the next run's.
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
            // What was written after the trigger was gone.
            job.ok("run").await;
        }
        oracle::compare(&job.db, "observations", "truth_observations").await;
        job.none(LEFT_BEHIND).await;
    }
}

/// But for what is built in the end, which has tests of its own, and for the end of a retype.
fn of_this_kind() -> Vec<&'static str> {
    let mut places = failpoints_in(|path| {
        let built = path.starts_with("phase/backfill/finish");
        !built && ["phase/backfill", "engine", "pg"].iter().any(|folder| path.starts_with(folder))
    });
    places.retain(|at| *at != "finalize.before_commit");
    places
}

#[tokio::test]
async fn a_backfill_killed_at_every_failpoint_resumes_and_loses_nothing() {
    side_by_side(PLACES.iter().copied().map(BackfillCrash::of).collect(), BackfillCrash::live).await;
}

#[test]
fn every_failpoint_of_a_backfill_names_its_table() {
    let once = |at: &&str| !at.contains('@') && *at != "finish.done";
    let named: Vec<&str> = PLACES.iter().map(|(at, _)| *at).filter(once).collect();
    assert_eq!(named, of_this_kind());
}
