//! Effects: everything that talks to a server.

pub mod catalog;
pub mod connect;
mod driver;
mod finish_trial;
pub mod latency;
pub mod lease;
pub mod lent;
pub mod objects;
mod partition_trial;
mod passfile;
pub mod pool;
mod pooler;
pub mod preflight;
mod refusal;
mod rehearsal;
mod resolve;
pub mod retry;
mod row_trial;
pub mod sample;
mod settings;
pub mod signals;
pub mod status;
pub mod store;
pub mod survey;
mod tls;
pub mod transaction;
pub mod trial;
