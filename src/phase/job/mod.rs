//! The code that every kind of job shares. [`kind`] contains the commands; [`driver`] contains what the phases use.

pub mod additions;
pub mod blockers;
pub mod chunks;
pub mod driver;
pub mod evaluate;
pub mod exchange;
pub mod foreign_keys;
pub mod kind;
pub mod locks;
pub mod matviews;
pub mod meter;
pub mod old_snapshots;
pub mod pace;
pub mod retries;
pub mod workers;
