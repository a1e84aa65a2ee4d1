//! The tests on a real server, in one binary: they share one server, each with a database of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod bad_input;
mod blockers;
mod commands;
mod connections;
mod crash;
mod demo;
mod dependents;
mod docker;
mod exclusion;
mod findings;
mod foreign_keys;
mod in_the_way;
mod keys;
mod kitchen_sink;
mod layering;
mod maintain;
mod names;
mod oracle;
mod owner;
mod pace;
mod partitions;
mod plans;
mod pooler;
mod races;
mod rights;
mod scenarios;
mod sequences;
mod status;
mod stops;
mod subscriber;
mod support;
mod survey;
mod verify;
mod wide;
mod window;
