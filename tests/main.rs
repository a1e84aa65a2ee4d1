//! The tests on a real server, in one binary: they share a server for each version, and each has a database of its own.
//! Modules share code through `support`, never through each other.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod allowed; // what `check` allows succeeds, with any mix of objects on the table
mod backfill; // backfills under writers, killed at every failpoint, resumed on schedules
mod backfill_check; // what `check` reports about backfills
mod backfill_sample; // `check --sample` on rows that a backfill would fail on
mod bad_input; // plans that do not fit their table or server
mod benchmark; // the report of the benchmark
mod blockers; // sessions that block a swap are reported, and cancelled only if the plan says so
mod commands; // commands in any order: twice, at the same time, in the wrong state
mod connections; // lost connections, terminated sessions, two drivers of one job
mod crash; // the process is killed at every failpoint of a partition job, under load
mod definitions; // object names that contain SQL key words
mod demo; // `pgstrata demo`, to its end and interrupted
mod dependents; // triggers, views, policies, privileges and other dependents through swap and rollback
mod docker; // the compose file, the crontab and the systemd unit of docker/
mod drift; // DDL by others between run, swap and rollback
mod exchange; // how long locks are held, whatever happens to network, process or standby
mod exclusion; // constraints that only newer servers support on partitions
mod findings; // what `check` reports about the dependents of a table
mod finish; // constraints and indexes that a backfill builds at its end
mod foreign_keys; // foreign keys of the table and to it, in every state of a job
mod hints; // what hints tell people to do works
mod identical; // values that are equal and yet not identical
mod in_the_way; // applications that hold locks are never chosen as deadlock victims
mod keys; // every kind of key, partition column and name through the whole life of a job
mod kitchen_sink; // a table with every kind of dependent, under load
mod layering; // the structure of the source and of the tests: imports, failpoints, file sizes
mod lease; // which process drives a job
mod lent; // the code of others never runs with the privileges of the job
mod maintain; // `maintain`: partitions ahead, retention, rows in the default partition
mod names; // quoted names are what the server reads
mod objects; // objects of others under the names that a job uses
mod old_snapshots; // transactions whose snapshot is older than an exchange; the mirror
mod oracle; // the whole job under writers of every kind, compared with their truth
mod outpaced; // writers that are faster than the drain
mod own_schema; // schema `pgstrata` under the control of others
mod owner; // the whole job as a plain owner
mod pace; // throttling: every signal, budgets, windows, workers
mod partitions; // partitions that are missing, attached, truncated or dropped while a job is open
mod plan_sql; // the SQL of a plan: names, settings, privileges
mod plans; // query plans before and after a swap
mod pooler; // a job through PgBouncer
mod races; // statements of every kind that wait for the lock of a swap
mod reads; // every read is right, under any isolation level
mod retype; // column type changes under applications
mod rights; // missing privileges are reported with their GRANT
mod scenarios; // the partitioning plans of plans/, under writers
mod sequences; // identity columns give no number twice
mod silence; // a network that silently drops everything
mod space; // a full disk
mod status; // `status`, and the JSON of every command
mod stops; // runs that are asked to stop, locks that cannot be acquired
mod subscriber; // logical replication subscribers through every swap
mod support; // servers, databases, labs, writers with their oracle, a proxy
mod survey; // `plan` drafts a plan from a live table
mod trial; // what `check` tries out on the server
mod verify; // `verify` finds every difference, and reports nothing false
mod way_back; // steps after a swap that fail prevent no rollback
mod wide; // a table with hundreds of objects of every kind
mod window; // the time between swap and finalize
