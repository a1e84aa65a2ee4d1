//! `kind = "backfill"`: every row is filled, by the newest of what it was set from, whatever applications do meanwhile.

mod crash;
mod halves;
mod newest;
mod oracle;
mod scenarios;
mod schedule;
mod shapes;

use std::path::PathBuf;

use tokio::process::Child;
use tokio_postgres::Client;

use super::support::cluster::Database;
use super::support::process::{Ran, ended, frozen};
use super::support::wait::until;

/// What a job that is over must not leave: functions and triggers of ours, and the ledger.
const LEFT_BEHIND: &str = "select
    (select count(*) from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname = 'pgstrata')
  + (select count(*) from pg_trigger where tgname like '%pgstrata%')
  + (select count(*) from pgstrata.chunks)";

/// A table in a database of its own, and the plan of a job that fills it.
pub struct Job {
    pub db: Database,
    plan: PathBuf,
    client: Client,
}

impl Job {
    /// Runs `setup`; the job is called `job`.
    pub async fn new(setup: &str, plan: &str) -> Self {
        let db = Database::new().await;
        db.execute(setup).await;
        Self::on(db, plan).await
    }

    /// The same on a database that is ready.
    pub async fn on(db: Database, plan: &str) -> Self {
        let plan = db.plan(&format!("name = 'job'\nkind = 'backfill'\n{plan}"));
        let client = db.client().await;
        Self { db, plan, client }
    }

    fn arguments<'a>(&'a self, command: &'a [&'a str]) -> Vec<&'a str> {
        let object = match command[0] {
            "run" | "check" | "sql" => self.plan.to_str().unwrap(),
            _ => "job",
        };
        [&command[..1], &[object], &command[1..]].concat()
    }

    /// Starts a command.
    pub fn start(&self, command: &[&str], env: &[(&str, &str)]) -> Child {
        self.db.command(&self.arguments(command)).envs(env.iter().copied()).spawn().unwrap()
    }

    /// A run that stands still at a failpoint.
    pub async fn frozen(&self, at: &str) -> Child {
        frozen(self.start(&["run"], &[("PGSTRATA_FAILPOINT", &format!("{at}=stop"))])).await
    }

    /// A command, to its end.
    pub async fn ran(&self, command: &[&str]) -> Ran {
        ended(self.start(command, &[])).await
    }

    /// A run that must end well.
    pub async fn run(&self) -> Ran {
        self.ran(&["run"]).await.ok()
    }

    /// Waits until the question has the answer yes.
    pub async fn until(&self, question: &str) {
        let yes = async || self.client.query_one(question, &[]).await.is_ok_and(|row| row.get(0));
        until(question, yes).await;
    }

    /// One text.
    pub async fn one(&self, sql: &str) -> String {
        self.client.query_one(sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
    }

    /// One number.
    pub async fn count(&self, sql: &str) -> i64 {
        self.db.count(sql).await
    }

    /// That question counts nothing.
    pub async fn none(&self, sql: &str) {
        assert_eq!(self.count(sql).await, 0, "{sql}");
    }
}

/// How many rows the first pass of a run set, by what it said.
pub fn rows_set(ran: &Ran) -> u64 {
    let line = ran.stderr.lines().find(|line| line.starts_with("fill: complete")).unwrap_or_default();
    let number = line.split(": ").nth(2).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    number.replace(',', "").parse().unwrap_or_else(|_| panic!("{line:?} in {}", ran.stderr))
}
