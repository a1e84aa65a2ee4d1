//! The tests on a real server, in one binary: they share one server, each with a database of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod allowed; // what `check` allows runs to its end, with any mix of objects on the table
mod backfill; // backfills under writers, killed at every step, on schedules
mod backfill_check; // what `check` reports about backfills
mod backfill_sample; // `check --sample`
mod bad_input; // plans that do not fit their table or server
mod benchmark; // the report of the benchmark
mod blockers; // sessions in the way of a swap
mod commands; // commands in any order, twice, at once, in the wrong state
mod connections; // lost connections, sessions that are ended, two drivers
mod crash; // the process is killed at every failpoint, under load
mod definitions; // names that contain SQL key words
mod demo; // `demo`
mod dependents; // triggers, views, policies, privileges and the rest after swap and rollback
mod docker; // the files of docker/
mod drift; // DDL by others between run, swap and rollback
mod exchange; // how long the locks of an exchange are held, whatever fails
mod exclusion; // constraints that only newer servers have on partitions
mod findings; // what `check` reports about what depends on a table
mod finish; // constraints and indexes that a backfill adds
mod foreign_keys; // foreign keys of the table and to it
mod hints; // what hints tell people to do works
mod identical; // values that are equal and not identical
mod in_the_way; // applications that hold locks are never deadlock victims
mod keys; // every kind of key, partition column and name
mod kitchen_sink; // a table with one of everything, under load
mod layering; // the shape of the source
mod lease; // who drives a job
mod lent; // code of others never runs with the rights of the job
mod maintain; // `maintain`
mod names; // quoting
mod objects; // objects of others under the names that a job uses
mod old_snapshots; // transactions whose snapshot is older than an exchange; the mirror
mod oracle; // storms of writers over the whole job, compared with their truth
mod outpaced; // writers that are faster than the drain
mod own_schema; // schema `pgstrata` in the hands of others
mod owner; // the whole job as a plain owner
mod pace; // throttling: every signal, budgets, windows, workers
mod partitions; // partitions that are missing, attached, truncated or dropped meanwhile
mod plan_sql; // the SQL of a plan: names, settings, rights
mod plans; // query plans before and after a swap
mod pooler; // PgBouncer
mod races; // statements that wait for the lock of a swap
mod reads; // no read is wrong, under any isolation level
mod retype; // column type changes
mod rights; // missing privileges
mod scenarios; // the plans in plans/
mod sequences; // identity sequences
mod silence; // a network that swallows everything
mod space; // a full disk
mod status; // `status` and the JSON of every command
mod stops; // runs that are asked to stop, locks that cannot be acquired
mod subscriber; // logical replication subscribers
mod support; // servers, databases, writers with their oracle, a proxy
mod survey; // `plan`
mod trial; // what `check` tries on the server
mod verify; // `verify`
mod way_back; // steps after a swap that fail
mod wide; // a table with hundreds of everything
mod window; // the time between swap and finalize
