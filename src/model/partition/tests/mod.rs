//! Ranges and names of partitions: examples, and properties for random ones.

mod examples;
mod properties;
