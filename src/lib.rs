//! Online partitioning, backfills and column type changes for PostgreSQL, verified and reversible.
//!
//! # Terms
//!
//! - A **plan** is a TOML file. A **job** is what came of one; its record, progress and settings live in schema `pgstrata` of
//!   the database that is migrated.
//! - A job is of one **kind**: partition, backfill, retype (column type change).
//! - A partition job copies the **source** into the **target** in **chunks**, each a short transaction with its row in the
//!   **ledger**. Triggers write what changes meanwhile to the **change log**; a **drain** brings it over.
//! - **Verify** compares both sides. The **swap** exchanges their names, a **rollback** exchanges them back. After either, the
//!   side that is out of use is kept **in sync**, until **finalize** drops it.
//! - A **driver** is the process that works on a job; its **lease** keeps others away, and its **epoch** tells its statements from
//!   those of a driver before it.
//!
//! # Layers
//!
//! Each imports from those to its right only: `main` -> [`command`] -> [`engine`] -> [`phase`] -> [`pg`], [`throttle`] ->
//! [`report`] -> [`sql`] -> [`plan`] -> [`model`]. The last three are pure: they import neither the runtime nor the driver. A
//! test holds the arrows.
//!
//! - [`command`]: what the words of the command line mean. [`report`] alone prints.
//! - [`engine`]: takes a job's lease, does what a command asks for, and goes on after a lost connection. `engine::kind` is where a
//!   plan becomes one of the kinds.
//! - [`phase`]: the work. `phase::job` is what every kind shares; `phase::job::kind` has the trait and the commands.
//! - [`pg`]: everything that asks the server: connections, the catalog, the job's record, preflight.
//! - [`sql`]: every statement, rendered in one place.
//! - [`plan`]: the file, its defaults, and `plan::check`, which judges the facts that preflight reads.
//! - [`model`]: data and decisions.
//!
//! # Where things are
//!
//! | concept | model | plan | sql | pg | phase |
//! |---|---|---|---|---|---|
//! | partition job | `blueprint`, `partition` | `partitioning` | `prepare`, `index` | | `partition` |
//! | backfill | `filling` | `backfill` | `fill`, `finish` | `trial`, `finish_trial`, `sample` | `backfill` |
//! | retype | `retyping` | `retype` | `retype` | `rehearsal` | `retype` |
//! | maintain | `maintained`, `partition::ahead` | `retention` | `maintain` | | `maintain` |
//! | what a job has by its kind | `design` | `task` | `script` | `store` | `job::kind` |
//! | states and steps | `state` | | `store` | `store`, `status` | `job::driver` |
//! | preflight, findings | `finding`, `explanation` | `check` | `preflight`, `surroundings` | `preflight` | |
//! | the table as the catalog has it | `table`, `dependent` | | `catalog` | `catalog` | |
//! | copy, chunk size | `sizer`, `key`, `ledger_gaps` | | `copy` | `store` | `partition::copy`, `job::chunks` |
//! | capture, change log, drain | `cutover` | | `capture`, `drain` | | `partition::capture`, `partition::drain`, `partition::compaction`, `partition::deficit` |
//! | verify | `verify_report` | | `verify` | | `partition::verify`, `retype::compare` |
//! | swap and rollback | `cutover` | | `swap`, `retype::exchange`, `exchange` | `in_use` | `job::exchange`, `partition::swap`, `retype::swap` |
//! | mirror, guard, old snapshots | `cutover` | | `mirror`, `swap`, `old_snapshots` | | `partition::mirror`, `partition::guard`, `job::old_snapshots` |
//! | drift since plan or swap | `difference`, `post_swap_diff` | | `carry` | `in_use` | `partition::drift`, `retype::drift` |
//! | throttling | `pace` | `throttle` | `pace` | `signals` | `job::pace`, `job::evaluate`, and [`throttle`] |
//! | locks, retries | `backoff`, `blocker`, `retry_limit` | | `locks` | `retry` | `job::locks`, `job::blockers`, `job::retries` |
//! | events, the job's history | `history`, `latency` | | `store` | `store` | all send `event`; `report::sentence` makes the sentences |
//! | workers | `pace::autoscaler` | | | `pool` | `job::workers` |
//! | privileges, trust | `lent`, `own_schema` | `check::rights` | `lent`, `own_schema` | `lent`, `lease` | |
//! | the plan's own SQL | `plan_sql` | `settings` | `plan_sql` | `resolve` | |
//! | objects that a job made | `objects` | | `objects` | `objects` | `partition::objects`, `retype::objects` |
//!
//! Start with [`phase`] for the work, with `docs/design.md` for why the data stays right, and with `CONTRIBUTING.md` for how to add
//! a finding, a signal, a kind of job or a version of PostgreSQL.

pub mod cli;
pub mod clock;
pub mod command;
pub mod demo;
pub mod engine;
pub mod error;
pub mod event;
pub mod failpoint;
pub mod model;
pub mod pg;
pub mod phase;
pub mod plan;
pub mod report;
pub mod sql;
pub mod stop;
pub mod throttle;
