//! `pgstrata demo`: the main job on a private server, with applications at work on the table, told as it goes.
//!
//! The story goes through the one printer, in order with the engine's own events; the figures are the result. Nothing
//! outlives it: the server ends when the story does, or is dropped by Ctrl-C in the middle of it.

mod figures;
pub mod server;
mod story;
mod table;
mod writers;

use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::report::{self, Output};
use crate::stop::interrupted;

/// Runs the demo; with `keep` the server stays up.
///
/// # Errors
/// Stopped on Ctrl-C, failed where a transaction of the writers failed, differs where the table and its witness do; or
/// what the engine said.
pub async fn run(keep: bool, output: Output) -> Result<()> {
    let (events, receiver) = Events::channel();
    let printer = report::spawn(output, receiver);
    let told = tokio::select! {
        told = story::tell(events, keep) => told,
        () = interrupted() => {
            Err(Error::new(Kind::Stopped, "the demo was stopped; its server and its directory were \
                removed"))
        }
    };
    let _ = printer.await;
    let figures = told?;
    report::print_result(&output, &figures, || figures.to_string());
    figures.verdict()
}
