//! The tests that need a real server, in one binary: they share one server per version, and each test has its own
//! database. Modules share code only through `support`.
#![expect(clippy::unwrap_used, reason = "the panic of a failed test reports its location")]

mod advice; // `plan` proposes the partition column, and writes plans that `check` accepts, for tables of many shapes
mod allowed; // a job that `check` allows succeeds, with any mix of objects on the table
mod ascii; // databases whose encoding is SQL_ASCII
mod backfill; // backfills under writers, killed at every failpoint, resumed on schedules
mod backfill_check; // what `check` reports about backfills
mod backfill_sample; // `check --sample` on rows that a backfill would fail on
mod bad_input; // plans that do not fit their table or server
mod benchmark; // the report of the benchmark
mod blockers; // sessions that block a swap are reported, and canceled only if the plan requests it
mod checklist; // the checklist that `check` prints
mod checks; // CHECK constraints that rows no longer satisfy when they are copied
mod commands; // commands in any order: twice, at the same time, in the wrong state
mod connections; // lost connections, terminated sessions, two drivers of one job
mod crash; // the process is killed at every failpoint of a partition job, under load
mod definitions; // object names that contain SQL key words
mod demo; // `pgstrata demo`, complete and interrupted
mod dependents; // triggers, views, policies, privileges and other dependents through swap and rollback
mod docker; // the compose file, the crontab and the systemd unit in docker/
mod drift; // DDL of other sessions between run, swap and rollback
mod exchange; // how long locks are held, even if the network, the process or a standby fails
mod exclusion; // constraints that only newer servers support on partitions
mod findings; // what `check` reports about the dependents of a table
mod finish; // constraints and indexes that a backfill builds at the end
mod foreign_keys; // foreign keys of the table, and foreign keys that reference it, in every state of a job
mod given_up; // unique indexes whose guarantee the plan gives up
mod hints; // the commands and corrections that hints suggest work
mod identical; // values that are equal but not identical
mod in_the_way; // applications that hold locks are never chosen as deadlock victims
mod key_tables; // unique constraints and foreign keys that key tables keep, compared with a plain table
mod keys; // every kind of key, partition column and name through all steps of a job
mod kitchen_sink; // a table with every kind of dependent, under load
mod layering; // the structure of the source and of the tests: imports, failpoints, file sizes
mod lease; // which process drives a job
mod lock_table; // a job that needs more locks than the server has, and a lock table that others fill
mod maintain; // `maintain`: partitions ahead, retention, rows in the default partition
mod meaning; // definitions keep their operators and functions when they are created again
mod migrations; // further plans in plans/, and a renamed column, while applications write
mod names; // the server reads quoted names as the original names
mod nullable; // a nullable partition column
mod objects; // objects that do not belong to the job but have names that it uses
mod old_snapshots; // transactions whose snapshot is older than an exchange; the mirror
mod oracle; // a whole job under writers of every kind, compared with a truth copy
mod outpaced; // writers that are faster than the drain
mod own_schema; // schema `pgstrata` under the control of other roles
mod owner; // a whole job run by the owner of the table
mod pace; // throttling: every signal, budgets, windows, workers
mod partitions; // partitions that are missing, attached, truncated or dropped while a job is open
mod plan_sql; // the SQL of a plan: names, settings, privileges
mod plans; // query plans before and after a swap
mod pooler; // a job through PgBouncer
mod races; // statements of every kind that wait for the lock of a swap
mod reads; // every read is correct, under any isolation level
mod retype; // column type changes while applications write
mod rights; // missing privileges are reported with the GRANT that adds them
mod rollback; // a step after a swap that fails prevents no rollback
mod row_functions; // functions that take or return rows of the table, called during every swap
mod row_types; // the privileges and the comment of the row type of a table or view
mod scenarios; // the partitioning plans in plans/, while applications write
mod sequences; // identity columns generate no value twice
mod silence; // a network that drops all packets
mod space; // a full disk
mod status; // `status`, and the JSON of every command
mod stops; // runs that receive SIGINT, locks that cannot be acquired
mod subscriber; // logical replication subscribers through every swap
mod support; // shared code: servers, databases, labs, writers, a proxy
mod survey; // `plan` drafts plans of every kind from a live table
mod trial; // what `check` tries on the server
mod untrusted_code; // code of the table's owner never runs with the privileges of the job's role
mod verify; // `verify` finds every mismatch, and reports no false one
mod wide; // a table with hundreds of objects
mod window; // the time between swap and finalize
