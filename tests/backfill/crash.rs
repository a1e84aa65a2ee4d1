//! The process is killed at every named place that a backfill comes to, under load; the next one goes on: no row is left, none
//! is set twice, and nothing of the job stays.

use super::{Job, LEFT_BEHIND};
use crate::support::cluster::Database;
use crate::support::kills::{failpoints_in, killed, side_by_side};
use crate::support::load::Writers;
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

/// One life of a job, and where it is killed.
#[derive(Debug, Clone)]
struct Case {
    /// The command that is killed.
    command: &'static str,
    at: String,
    /// A run that is killed before, and what happens to the table then.
    before: Option<(&'static str, &'static str)>,
}

impl Case {
    fn of(name: &str) -> Self {
        let before = match name {
            "job.retuned" => Some(("fill.chunk", "")),
            // Behind the first pass, and with no trigger that sees it.
            "fill.single" => {
                Some(("fill.done", "update observations set digest = 'late' where digest < '02'"))
            }
            _ => None,
        };
        let command = if name.starts_with("abort") { "abort" } else { "run" };
        Self { command, at: name.to_owned(), before }
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
        if self.at.len().is_multiple_of(2) {
            TableSpec::uuid("observations", rows)
        } else {
            TableSpec::bigint("observations", rows)
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
        let mut job = Job::on(db, &self.plan(2)).await;
        let arguments = |job: &Job, command: &str| {
            job.arguments(&[command]).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        if let Some((at, sql)) = self.before {
            killed(&job.db, &arguments(&job, "run"), at).await;
            job.db.execute(sql).await;
        }
        if self.at == "job.retuned" {
            job = Job::on(job.db, &self.plan(3)).await;
        }
        // Without the trigger, what writers write is the next run's.
        let writers = match self.at.as_str() {
            "fill.single" => None,
            _ => Some(Writers::start(job.db.dsn(), spec, 2, 7).await),
        };
        if self.command == "abort" {
            killed(&job.db, &arguments(&job, "run"), "fill.chunks_done").await;
        }
        killed(&job.db, &arguments(&job, self.command), &self.at).await;
        if let Some(writers) = &writers {
            writers.commit_more(10).await;
        }
        if self.command == "abort" {
            job.ran(&["abort"]).await.ok();
            job.none(LEFT_BEHIND).await;
        }
        job.ran(&["run"]).await.ok();
        if let Some(writers) = writers {
            writers.stop().await.assert_clean();
            // What was written after the trigger was gone.
            job.ran(&["run"]).await.ok();
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
async fn killed_at_every_failpoint_a_backfill_goes_on_and_loses_nothing() {
    let later = ["fill.before_commit@2", "fill.chunk@3", "fill.chunk@5", "finish.done"];
    let all = of_this_kind().into_iter().chain(later).map(Case::of).collect();
    side_by_side(all, Case::live).await;
}
