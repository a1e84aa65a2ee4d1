//! Online partitioning and backfill for PostgreSQL.

pub mod cli;
pub mod error;
pub mod event;
pub mod model;
pub mod pg;
pub mod plan;
pub mod report;
