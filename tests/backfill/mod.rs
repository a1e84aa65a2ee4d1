//! Backfills: every row is filled from the newest values of the columns and tables that the plan reads, whatever
//! applications do meanwhile.

mod crash;
mod halves;
mod newest;
mod oracle;
mod refused;
mod scenarios;
mod schedule;
mod shapes;

use crate::support::lab::Lab;
use crate::support::process::Ran;

/// Objects that a finished job must not leave behind: functions, triggers and chunks.
const LEFT_BEHIND: &str = "select
    (select count(*) from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname = 'pgstrata')
  + (select count(*) from pg_trigger where tgname like '%pgstrata%')
  + (select count(*) from pgstrata.chunks)";

/// A lab in which `setup` has run, with a backfill named `job`.
async fn lab(setup: &str, plan: &str) -> Lab {
    Lab::new(setup, &named(plan)).await
}

/// The plan of a backfill named `job`.
fn named(plan: &str) -> String {
    format!("name = 'job'\nkind = 'backfill'\n{plan}")
}

/// The number of rows that the first pass of a run set, according to its output.
pub fn rows_set(ran: &Ran) -> u64 {
    let line = ran.stderr.lines().find(|line| line.starts_with("fill: complete")).unwrap_or_default();
    let number = line.split(": ").nth(2).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    number.replace(',', "").parse().unwrap_or_else(|_| panic!("{line:?} in {}", ran.stderr))
}
