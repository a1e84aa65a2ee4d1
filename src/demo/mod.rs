//! `pgstrata demo`: the main job on a private server, shown as it goes.

pub mod server;
