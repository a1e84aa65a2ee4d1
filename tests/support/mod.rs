//! What the tests stand on: a server, databases, the real binary, writers with their oracle, and a proxy.

pub mod bank;
pub mod bench;
pub mod checks;
pub mod cluster;
pub mod kills;
pub mod load;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod reads;
pub mod standby;
pub mod tables;
mod transaction;
pub mod wait;
