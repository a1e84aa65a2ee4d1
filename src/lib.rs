//! Online partitioning and backfill for PostgreSQL.

pub mod demo;
pub mod error;
pub mod event;
pub mod model;
pub mod plan;
