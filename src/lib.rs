//! Online partitioning, backfills and column type changes for PostgreSQL, verified and reversible.
//!
//! # Terms
//!
//! - A **plan** is a TOML file. A **job** executes one plan; its record, progress and settings are stored in schema
//!   `pgstrata` of the database that the job changes.
//! - Every job has a **kind**: partition, backfill or retype (column type change).
//! - A partition job copies the **source** into the **target** in **chunks**. Each chunk is one short transaction,
//!   which also writes the chunk's row in the **ledger**. Meanwhile, triggers write changes of the source to the
//!   **change log**; a **drain** applies them to the target.
//! - A **place** is the key of a row together with its partition column. The change log records places, not values.
//! - **Verify** compares both sides. The **swap** exchanges their names; a **rollback** exchanges them back. After
//!   either, the inactive side is kept **in sync** until **finalize** drops it. The code calls a swap or rollback an
//!   **exchange**.
//! - The **mirror** is a variant of the capture trigger that applies changes immediately, for a short time before an
//!   exchange. The **guard** is a trigger after an exchange that rejects writes of transactions with an older
//!   snapshot.
//! - A **driver** is the process that executes a job. Its **lease** excludes other processes, and its **epoch**
//!   distinguishes its statements from those of previous drivers.
//!
//! # Layers
//!
//! Each layer imports only from the layers to its right: `main` -> [`command`] -> [`demo`] -> [`engine`] -> [`phase`]
//! -> [`pg`] -> [`throttle`] -> [`report`] -> [`sql`] -> [`plan`] -> [`model`]. The last three are pure: they import
//! neither the async runtime nor the database driver. `tests/layering.rs` checks this. All layers may import [`cli`],
//! [`clock`], [`error`], [`event`], [`mod@failpoint`] and [`stop`].
//!
//! - [`command`]: one function for each command. The arguments are defined in [`cli`].
//! - [`demo`]: the command `demo`, and the private server that it shares with the tests.
//! - [`engine`]: acquires the lease of a job, executes a command on it, and reconnects after a lost connection.
//!   `engine::kind` selects the kind for a plan.
//! - [`phase`]: the phases of a job. `phase::job` has what all kinds share; `phase::job::kind` has the trait
//!   `JobKind` and the commands.
//! - [`pg`]: everything that queries the server for facts: connections, the catalog, the job's record, preflight.
//! - [`throttle`]: the gate that a worker passes before each chunk.
//! - [`report`]: the only code that prints.
//! - [`sql`]: the text of every statement.
//! - [`plan`]: the plan file, its defaults, and `plan::check`, which turns the facts of preflight into findings.
//! - [`model`]: data types and decisions.
//!
//! # From the command line to a statement
//!
//! For `pgstrata run`: `command::run` -> `Engine::run` (in `engine`) checks the plan and creates the job ->
//! `Engine::act` (in `engine::kind`) selects the kind -> `Engine::drive` (in `engine::drive`) acquires the lease and
//! repeats the work after a lost connection -> `act` (in `phase::job::kind`) calls `JobKind::next` until no phase is
//! left -> `next` in `phase::partition`, `phase::backfill` or `phase::retype` selects the phase by the job's state ->
//! the file of that phase executes it, with statements from [`sql`]. `model::state` defines the next state.
//!
//! # Concepts
//!
//! | concept | model | plan | sql | pg | phase |
//! |---|---|---|---|---|---|
//! | partition job | `blueprint`, `partition` | `partitioning` | `prepare`, `index` | | `partition` |
//! | backfill | `filling` | `backfill` | `fill`, `finish` | `trial`, `update_trial`, `finish_trial`, `sample` | `backfill` |
//! | retype | `retyping` | `retype`, `check::retype` | `retype` | `rehearsal` | `retype` |
//! | objects that refer to a retyped column | `rebound` | `check::retype` | `retype::rebound` | `rehearsal` | `retype::counterparts` |
//! | maintain | `maintained`, `partition::ahead` | `retention` | `maintain` | | `maintain` |
//! | what depends on the kind of a job | `design` | `task` | `script` | `store` | `job::kind` |
//! | states and steps | `state` | | `store` | `store`, `status` | `job::driver` |
//! | preflight, findings | `finding`, `explanation` | `check` | `preflight`, `surroundings` | `preflight` | |
//! | the checklist of `check` | `checklist` | | `checklist` | `checklist` | |
//! | the table's definition in the catalog | `table`, `dependent` | | `catalog` | `catalog` | |
//! | `pgstrata plan` | `partition` | `survey`, `advise`, `answers`, `suggest`, `draft` | `survey` | `survey` | |
//! | trial of definitions in preflight | | `check::table_trial` | `partition_trial` | `partition_trial`, `refused` | |
//! | trial of rows in preflight | `sample` | `check::sampled` | `row_trial`, `sample` | `row_trial`, `sample` | |
//! | definitions that are created again | | | `recreated`, `references` | `references` | |
//! | what is carried over, for `check -v` | `inventory` | `check::dependents` | | | |
//! | objects that refer to the table | `dependent` | `check::dependents` | `dependent`, `matview`, `row_functions` | | `partition::after_exchange`, `job::matviews` |
//! | foreign keys | `orphans`, `remade_keys` | `check::dependents` | `foreign_key`, `orphans` | `orphans` | `job::foreign_keys` |
//! | a nullable partition column | `blueprint`, `filling` | `check::column`, `check::null_as` | `not_null`, `fill` | `null_trial` | `partition::not_null` |
//! | key tables | `key_table` | `check::key_tables` | `key_table`, `maintain` | `preflight` | `partition::key_tables`, `maintain` |
//! | additions by event triggers | | | `strip`, `additions` | | `job::additions` |
//! | copy, chunk size | `sizer`, `key`, `ledger_gaps` | | `copy` | `store` | `partition::copy`, `job::chunks` |
//! | capture, change log, drain | `cutover` | | `capture`, `drain` | | `partition::capture`, `partition::drain`, `partition::compaction`, `partition::deficit` |
//! | full resync | `resync` | | `store` | `resync` | `partition::resync` |
//! | verify | `verify_report` | | `verify` | | `partition::verify`, `retype::compare` |
//! | swap and rollback | `cutover` | | `swap`, `retype::exchange`, `exchange` | `in_use` | `job::exchange`, `partition::swap`, `retype::swap` |
//! | mirror, guard, old snapshots | `cutover` | | `mirror`, `swap`, `old_snapshots` | | `partition::mirror`, `partition::guard`, `job::old_snapshots` |
//! | changes of the table since plan or swap | `difference`, `post_swap_diff` | | `carry` | `in_use` | `partition::drift`, `retype::drift` |
//! | throttling | `pace` | `throttle` | `pace` | `signals` | `job::pace`, `job::evaluate`; and [`throttle`] |
//! | estimate of the locks of an exchange | `lock_estimate` | `check::server` | `exchange` | | |
//! | locks, retries | `backoff` | | `locks` | `retry` | `job::locks`, `job::blockers`, `job::retries` |
//! | workers | `pace::autoscaler` | | | `pool` | `job::workers` |
//! | privileges, trusted roles | `own_schema`, `granted_again` | `check::rights` | `trust`, `own_schema` | `lease` | |
//! | code of other roles | `untrusted_code` | `check::named` | `untrusted_code`, `row_types` | `untrusted_code` | `job::driver` |
//! | the plan's own SQL | `plan_sql` | `settings` | `plan_sql` | `resolve` | |
//! | objects that a job created | `objects` | | `objects` | `objects` | `partition::objects`, `retype::objects` |
//!
//! # Where is it decided ...
//!
//! The answer is a module, and often an item in it.
//!
//! ## Throttling and chunks
//!
//! - **how large the next chunk is**: `model::sizer`: `ChunkSizer::observe`
//! - **that a chunk shrinks when a session waits for the job**: `throttle`: `Gate::observe`; which signals count:
//!   `model::pace::signal`: `Signal::is_ours`; by how much: `model::sizer`: `ChunkSizer::shrink`; it is applied in
//!   `phase::partition::copy`, `phase::partition::drain` and `phase::backfill::first_pass`
//! - **when a job is throttled and resumes**: `model::pace`: `Pace`; values and limits of the signals:
//!   `phase::job::evaluate`
//! - **in which time windows a job may run**: `model::pace::windows`; outside them, `engine`: `Engine::run` starts
//!   nothing
//! - **when a standby counts as disconnected, and when it is ignored**: `model::pace::standbys`; its lag in seconds:
//!   `model::pace::lag`
//! - **how many workers there are**: `model::pace::autoscaler`
//!
//! ## Plans and findings
//!
//! - **which partition column `plan` proposes**: `plan::advise`: `advise`; which settings it adds to resolve
//!   findings, and at which key it writes a finding: `plan::answers`
//! - **the default of a plan key**: `plan::resolve`
//! - **which check reports a finding**: `plan::check` has a file for each topic; search for the code in quotes. What
//!   it means: `docs/findings.md`
//! - **how a plan is parsed, and what a mistake in it reports**: the keys: `plan::file`; values: `plan::read`,
//!   `plan::resolve`; messages: `plan::problem`
//! - **which settings of a plan cannot change once its job has started**: `plan::identity`: `Plan::settings`
//! - **what `pgstrata set` changes, and when it takes effect**: `plan::live`; `phase::job::pace`: `Watch::apply`
//! - **where the budgets of rows and WAL are enforced**: `throttle`: `Gate::admit_chunk`; the bucket:
//!   `model::pace::budget`
//!
//! ## Jobs
//!
//! - **which phase comes next**: `model::state`: `State::next`; `next` in the `mod.rs` of each kind
//! - **which commands a state allows**: `phase::job::kind`: `act`
//! - **which command a hint suggests for a job that cannot continue**: `model::commands`
//! - **what `run` does if the job is already finalized**: `engine::kind`: `done_already`
//! - **when a job may be finalized or aborted**: `phase::job::kind`: `may_finalize`, `may_abort`
//! - **what happens after the process was killed during the copy**: the next run, from any machine: `engine`:
//!   `Engine::resume`; [`pg`]`::lease` ends the former sessions; `phase::partition::copy` copies what
//!   `model::ledger_gaps` finds missing
//!
//! ## Copy, fill and the new table
//!
//! - **in which order keys are read, in which collation**: the server's, of the column: `sql::copy`: `boundary`; a
//!   range: [`sql`]: `in_range`; keys in the ledger: `sql::store`: `end_key`
//! - **whether the copy reads in key order or in block order**: `phase::partition::copy`: `reads_by_block`
//! - **how many workers wait, fail and stop**: `phase::job::workers`: `run`
//! - **what happens to a row that belongs in no partition**: `phase::partition::partitions`
//! - **which rows a filled chunk contains, and what a locked row causes**: `phase::backfill::first_pass`,
//!   `phase::backfill::second_pass`
//! - **in which order a backfill builds its constraints and indexes**: `phase::backfill::finish`; the statements:
//!   `sql::finish`
//!
//! ## Changes
//!
//! - **what the capture trigger logs**: `sql::capture`
//! - **which statements create the new table and its partitions**: `sql::prepare`: `parts`, `partition`; its indexes:
//!   `sql::index`; all in order: `sql::script`
//! - **what the drain does with a deleted row**: `sql::drain`: `clear` deletes its place, `fill` finds no row there
//! - **what happens after TRUNCATE of the source**: it is logged by `sql::capture`; `phase::partition::drain`:
//!   `truncate_as_source_did`
//! - **what the trigger of a backfill or retype does**: `sql::fill`: `keep_filled`; `sql::retype`:
//!   `create_sync_trigger`
//! - **when the change log is compacted**: `phase::partition::compaction`
//! - **when the table is copied again because the change log has outgrown it**: `model::resync`:
//!   `CopyCost::is_less_than`; how: `phase::partition::resync`
//!
//! ## Verify
//!
//! - **whether two rows are equal**: `sql::verify`: `row_hash`
//! - **how the tables are divided into ranges for verify**: `phase::partition::verify_chunks`
//! - **why writes do not disturb a comparison**: the steps at the top of `phase::partition::verify`; of two columns:
//!   `phase::retype::compare`
//! - **whether to drain, to wait, to switch the mirror on or to attempt the exchange**: `model::cutover`:
//!   `Cutover::next`
//!
//! ## Definitions
//!
//! - **whether a new column type can lose or reject values**: `plan::check::retype::effects`: `semantics`,
//!   `rehearsed`; what the server is asked: `pg::rehearsal`
//! - **whether a definition means the same when it is created again**: `pg::references`: `changed`; where operators
//!   are found: [`sql`]: `with_operators`
//! - **what happens if a row no longer satisfies a CHECK**: `phase::partition::checks`
//! - **what keeps NULL out of a nullable partition column, and when**: `phase::partition::not_null`: `establish`;
//!   `sql::not_null`; a rollback drops it: `sql::swap`: `exchange`; rows with NULL are filled by `phase::backfill`: `fill`
//! - **which unique constraints get a key table**: `plan::check::key_tables`: `is_wanted`; what keeps it in sync:
//!   `sql::key_table::triggers`; what happens to it when a partition is dropped: `phase::maintain::retire`
//!
//! ## Swap and rollback
//!
//! - **what rejects a write with a snapshot older than the swap**: `sql::swap`: `guard_function`; which writes:
//!   `phase::partition::swap`: `ready`; when it is dropped: `phase::partition::guard`
//! - **which transactions have an older snapshot**: `sql::old_snapshots`: `HOLDERS`
//! - **which statements run under the lock of a swap**: `sql::swap`: `statements`; for a retype
//!   `sql::retype::exchange`: `statements`; the order of all steps, with the checks: `sql::exchange`:
//!   `Exchange::body`
//! - **how a rollback keeps the writes since the swap**: `sql::swap`: `statements` creates the capture triggers on
//!   the table that the swap brings into use; `phase::partition::drain` applies the log in the opposite direction
//! - **what happens to the sequences, triggers, views and comments in a swap**: `sql::swap`: `sequences`,
//!   `user_triggers`, `view`, `comments`
//! - **which checks the exchange repeats under the lock**: `sql::exchange`: `FailedCheck`
//! - **how lock requests are retried; when a blocker is canceled**: `phase::job::locks`: `LockRetry`;
//!   `phase::job::blockers`
//! - **which errors are retried**: `pg::retry`: `class`; a step is repeated by `phase::job::driver`:
//!   `Driver::retrying`, the job by `engine::drive`
//! - **how long to reconnect after a lost connection**: `engine::drive`
//! - **that only one process executes a job**: `pg::lease`
//!
//! ## Before and after the swap
//!
//! - **which difference of two definitions is carried over**: `model::difference`, `sql::carry`
//! - **what happens after the swap, such as validating foreign keys**: `phase::partition::after_exchange`
//! - **which differences from the original table a swap may cause**: `model::post_swap_diff`: `changes`, `unexpected`
//! - **what finalize and abort remove**: `phase::partition::finalize`: `Ending`, `sql::finalize`; of the other kinds:
//!   `abort` in `phase::backfill` and `phase::retype`
//! - **which objects may be dropped**: `pg::objects`, `phase::partition::objects`
//!
//! ## Partitions
//!
//! - **how `every = "1 month"` is parsed**: `model::partition::every`: `Every::from_str`
//! - **how the interval and names of partitions are derived that pgstrata did not create**: `model::partition::adopt`; from
//!   the catalog: `phase::maintain::layout`
//! - **the bounds and names of partitions**: one range: `model::partition::scheme`; all of a job:
//!   `plan::partitioning`: `ranges`; names: `model::partition::name`
//! - **which old partitions are dropped**: `phase::maintain::retire`
//! - **which rows are in the default partition, and where they belong**: `phase::maintain::strays`
//!
//! ## Connections, roles and errors
//!
//! - **what an error reports when a disk is full**: `engine::space`
//! - **why a connection failed**: `pg::connect_error`; which server is tried: `pg::connect_config`
//! - **that errors contain no values of rows**: `pg::retry`: `without_values`; that output contains no control
//!   characters: `report::paint`, `sql::printable`
//! - **that an event trigger adds nothing**: `phase::job::additions`; what it added is dropped by `sql::strip`
//! - **host, password, TLS and poolers**: `pg::settings`, `pg::passfile`, `pg::tls`, `pg::pooler`
//! - **the settings of every session**: `pg::connect`
//! - **which roles are trusted**: `sql::trust`: `is_trusted`
//! - **whether code of another role would run**: `sql::untrusted_code`: `CODE`; of the plan's SQL `sql::plan_sql`:
//!   `NAMED`
//!
//! ## Commands and output
//!
//! - **how a command stops at Ctrl-C or at its deadline**: `command`: `watch_signals`, `watch_deadline`; [`stop`]
//! - **what `pgstrata sql` prints**: `sql::script`; for which kind: `engine::kind`: `script`
//! - **what `status` shows**: `model::status` (its fields are the keys in JSON), `pg::status`, `report::status`
//! - **the rate and the remaining time**: `phase::job::meter`
//! - **what is printed to stdout, what to stderr, and what as a progress bar**: `report`: `print_events`;
//!   `report::bar`, `report::lines`
//! - **what `check --sample` does**: `pg::sample`, `sql::sample`
//! - **how schema `pgstrata` is created and upgraded**: `sql::store`: `UPGRADES`; `pg::store`
//! - **how a job of an earlier version is read**: the blueprint: `model::blueprint`, with serde defaults; the plan:
//!   `plan::identity`
//! - **what the history of a job contains**: `model::history`; written by `pg::store`
//! - **the text of a note or warning**: of a run: `report::sentence::note`, `report::sentence::warning`; of `check`:
//!   `plan::check`, with the explanation in `docs/findings.md`
//! - **what `--json` prints**: [`event`] (a variant is a code, its fields are the keys), `report::json`; documented
//!   in `docs/commands.md`
//! - **the exit code, and the code of an error in JSON**: `error`: `Kind`
//!
//! # What to change to add ...
//!
//! `CONTRIBUTING.md` has the details.
//!
//! - a key of the plan: `plan::file`, the struct (`Plan` in [`plan`], or that of its section), `plan::resolve`,
//!   `plan::identity` (`Plan::settings`: a key that is missing there is lost when the job is resumed), `docs/plan.md`
//! - a finding: the query in `sql::preflight`, `pg::preflight`, the field in `plan::check::facts`, the decision in
//!   `plan::check`, the entry in `docs/findings.md`; if a key of the plan resolves it, `plan::answers`
//! - a throttling signal: `model::pace` (`Signal`), `plan::throttle` (its limit, which is also a key of the plan),
//!   `sql::pace` and `pg::signals` (its value), `phase::job::evaluate` (value and limit), `docs/throttling.md`; for a
//!   new cause, `model::pace::cause` and `report::sentence::throttle`
//! - a kind of job: `model::kind`, `plan::task`, `model::design`, a folder in `phase` that implements `JobKind`,
//!   `engine::kind`
//! - a kind of object that is carried over: `sql::dependent` or `sql::catalog` (how it is found), `model::dependent`
//!   or `model::table`, `plan::check::dependents`, `model::inventory` (for `check -v`), `sql::prepare` or `sql::swap`
//!   (how it is created), `sql::carry` (how a later change is applied)
//! - a type of the partition column: `model::partition::bound`, `model::partition::scheme`, `plan::partitioning`,
//!   `plan::check::column`
//! - a table or column of schema `pgstrata`: `sql::store`: `UPGRADES`, `sql::own_schema`, `docs/design.md`
//! - a command: `cli`, `command`, `docs/commands.md`
//! - an event: `event`, `report::sentence` with an example in its `fixture`, `docs/commands.md`
//! - a failpoint: the macro `failpoint!` in the code, `failpoint::NAMES`, `SOURCES` in `tests/crash.rs`
//! - a version of PostgreSQL: `tests/setup.sh` and `tests/support/cluster.rs`; then each condition on
//!   `server_version_num`, in `sql::{catalog, preflight, writing, trust, locks, finish, maintain, key_table}` and
//!   `pg::connect`, and on `version` in `plan::check::{server, indexes, constraints, dependents, retype}` and
//!   `model::lock_estimate`
//!
//! # Tests
//!
//! `tests/main.rs` lists every test module with its topic. No row is lost: `tests/crash.rs`,
//! `tests/backfill/crash.rs` (kills), `tests/oracle.rs` (writers). Two drivers of one job: `tests/commands.rs`,
//! `tests/connections.rs`, `tests/lease.rs`. Nothing of an aborted job remains: `tests/commands.rs`,
//! `tests/crash.rs`. Servers and versions: `tests/support/cluster.rs`.
//!
//! `docs/design.md` explains why the data stays correct.

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
