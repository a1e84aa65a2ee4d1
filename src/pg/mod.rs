//! Effects: everything that talks to a server.

pub mod connect;
mod driver;
mod passfile;
pub mod pool;
mod pooler;
mod refusal;
pub mod retry;
mod settings;
mod tls;
