//! Online partitioning for PostgreSQL: a live table becomes a range-partitioned one, verified, swapped, and back if wanted.
//!
//! Arrows point one way: `main` -> `command` -> `engine` -> `phase` -> {`sql`, `pg`, `throttle`} -> `plan` -> `model`.
//! `model`, `plan` and `sql` are pure: they import neither the runtime nor the driver. The pipeline is drawn in [`phase`].

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
