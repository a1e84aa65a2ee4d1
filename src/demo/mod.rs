//! `pgstrata demo`: a complete partition job on a private server under write load, with explanations of each step.
//!
//! The explanations are events, so that they are printed in order with the events of the engine. The result is the
//! figures. The server is removed when the demo ends, also after Ctrl-C.

mod figures;
pub mod server;
mod story;
mod table;
mod writers;

use crate::error::{Error, Kind, Result};
use crate::event::Events;
use crate::report::{self, Output};
use crate::stop::interrupted;

/// Runs the demo. With `keep`, the server is left running.
///
/// # Errors
/// [`Kind::Stopped`] on Ctrl-C, [`Kind::Failed`] if a transaction of the writers failed, [`Kind::Differs`] if the table
/// and its witness differ, or an error of the engine.
pub async fn run(keep: bool, output: Output) -> Result<()> {
    let (events, receiver) = Events::channel();
    let printer = report::spawn(output, receiver);
    let result = tokio::select! {
        result = story::run(events, keep) => result,
        () = interrupted() => {
            Err(Error::new(Kind::Stopped, "the demo was stopped; its server and its directory were \
                removed"))
        }
    };
    let _ = printer.await;
    let figures = result?;
    report::print_result(&output, &figures, || figures.to_string());
    figures.verdict()
}
