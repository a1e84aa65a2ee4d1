//! Online partitioning and backfill for PostgreSQL.

pub mod demo;
pub mod error;
pub mod event;
pub mod failpoint;
pub mod model;
pub mod pg;
pub mod phase;
pub mod plan;
pub mod sql;
pub mod throttle;
