//! A database with a table, the plan of a job, and the commands on that job.

use std::path::{Path, PathBuf};

use pgstrata::plan::Plan;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::cluster::{Database, Version};
use super::process::{Ran, ended, frozen, refusal};
use super::wait::until;

/// A separate database and the plan of one job. Commands are written as on a command line, without the plan or the name
/// of the job: `run --quiet`, `finalize --now`.
#[derive(Debug)]
pub struct Lab {
    pub db: Database,
    plan: PathBuf,
    job: String,
}

impl Lab {
    /// A new database, in which `setup` has run, and a plan.
    pub async fn new(setup: &str, plan: &str) -> Self {
        Self::of(Version::System, setup, plan).await
    }

    /// The same on the server of this version.
    pub async fn of(version: Version, setup: &str, plan: &str) -> Self {
        let db = Database::of(version).await;
        db.execute(setup).await;
        Self::on(db, plan)
    }

    /// A plan for a database that already has its table.
    pub fn on(db: Database, plan: &str) -> Self {
        let parsed = Plan::parse(plan, "the plan of this test").unwrap_or_else(|e| panic!("{e}\n{plan}"));
        let job = parsed.name().to_owned();
        Self { plan: db.plan(plan), db, job }
    }

    /// The same database with another plan.
    pub fn with_plan(self, plan: &str) -> Self {
        Self::on(self.db, plan)
    }

    /// The path of the plan.
    pub fn plan(&self) -> &str {
        self.plan.to_str().unwrap()
    }

    /// The text of the plan.
    pub fn plan_text(&self) -> String {
        std::fs::read_to_string(&self.plan).unwrap()
    }

    /// A command on the job that is not started yet.
    pub fn command(&self, command: &str) -> Command {
        let mut words: Vec<&str> = command.split(' ').collect();
        let object = match words[0] {
            "run" | "check" | "sql" => self.plan(),
            _ => &self.job,
        };
        words.insert(1, object);
        self.db.command(&words)
    }

    /// Starts a command with additional environment variables.
    pub fn start(&self, command: &str, env: &[(&str, &str)]) -> Child {
        self.command(command).envs(env.iter().copied()).spawn().unwrap()
    }

    /// Runs a command until it exits.
    pub async fn ran(&self, command: &str) -> Ran {
        ended(self.start(command, &[])).await
    }

    /// Runs a command that must succeed.
    pub async fn ok(&self, command: &str) -> Ran {
        self.ran(command).await.ok()
    }

    /// Runs commands one after the other; each must succeed.
    pub async fn steps(&self, commands: &[&str]) {
        for command in commands {
            self.ok(command).await;
        }
    }

    /// Runs another plan of the same job.
    pub async fn run_plan(&self, plan: &Path) -> Ran {
        self.db.pgstrata(&["run", plan.to_str().unwrap()]).await
    }

    /// Runs a command that a failpoint must kill.
    pub async fn killed(&self, command: &str, at: &str) -> Ran {
        ended(self.start(command, &[("PGSTRATA_FAILPOINT", at)])).await.killed(at)
    }

    /// Starts a command and returns it once it is frozen at a failpoint.
    pub async fn frozen(&self, command: &str, at: &str) -> Child {
        frozen(self.start(command, &[("PGSTRATA_FAILPOINT", &format!("{at}=stop"))])).await
    }

    /// The exit code and the error message of a command that must fail.
    pub async fn refused(&self, command: &str) -> String {
        refusal(&self.ran(command).await)
    }

    /// The status of the job.
    pub async fn status(&self) -> Value {
        serde_json::from_str(&self.ok("status --json").await.stdout).unwrap()
    }

    /// Waits until a query returns true. The tables that it reads may not exist yet.
    pub async fn until(&self, query: &str) {
        let client = self.db.client().await;
        let is_true = async || client.query_one(query, &[]).await.is_ok_and(|row| row.get(0));
        until(query, is_true).await;
    }

    /// Waits until a chunk is recorded.
    pub async fn copying(&self) {
        self.until("select exists (select from pgstrata.chunks)").await;
    }

    /// The text that a query returns.
    pub async fn one(&self, sql: &str) -> String {
        let row = self.db.client().await.query_one(sql, &[]).await;
        row.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
    }

    /// The number that a query returns.
    pub async fn count(&self, sql: &str) -> i64 {
        self.db.count(sql).await
    }

    /// Asserts that a query counts nothing.
    pub async fn none(&self, sql: &str) {
        assert_eq!(self.count(sql).await, 0, "{sql}");
    }

    /// The catalog outside of the schema `pgstrata`, one object per line.
    pub async fn catalog(&self) -> String {
        self.one(CATALOG).await
    }
}

/// Relations with their owners, privileges and options, columns, indexes, constraints, triggers, functions, comments.
const CATALOG: &str = "
with ours as (select oid from pg_namespace where nspname in ('pgstrata', 'pg_toast', 'pg_catalog', 'information_schema')),
rel as (select * from pg_class where relnamespace not in (select oid from ours))
select string_agg(line, E'\\n' order by line) from (
  select format('relation %s %s %s %s %s %s %s', relname, relkind, relowner::regrole, relacl, reloptions,
    relrowsecurity, relpersistence) from rel
  union all select format('column %s.%s %s %s %s %s %s %s %s', relname, attname, attnum, format_type(atttypid, atttypmod),
      attnotnull, attidentity, attacl, attstattarget, pg_get_expr(adbin, adrelid))
    from rel join pg_attribute a on attrelid = rel.oid left join pg_attrdef d on adrelid = attrelid and adnum = attnum
    where attnum > 0
  union all select format('index %s %s %s', pg_get_indexdef(indexrelid), indisvalid, indisprimary)
    from pg_index where indrelid in (select oid from rel)
  union all select format('constraint %s %s %s %s', relname, conname, pg_get_constraintdef(c.oid), convalidated)
    from pg_constraint c join rel on conrelid = rel.oid
  union all select format('trigger %s %s', pg_get_triggerdef(t.oid), tgenabled) from pg_trigger t join rel on tgrelid = rel.oid
    where not tgisinternal
  union all select format('function %s %s', proname, md5(prosrc)) from pg_proc where pronamespace not in (select oid from ours)
  union all select format('sequence %s %s', relname, d.refobjid::regclass) from rel join pg_depend d on d.objid = rel.oid
    and d.deptype in ('a', 'i') and d.refclassid = 'pg_class'::regclass where relkind = 'S'
  union all select format('comment %s %s %s', relname, objsubid, description) from pg_description join rel on objoid = rel.oid
) catalog (line)";
