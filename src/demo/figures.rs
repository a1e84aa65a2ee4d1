//! The results of the demo, in numbers.

use std::fmt;

use serde::Serialize;

use super::writers::Tally;
use crate::error::{Error, Kind, Result};
use crate::model::number::count;

/// The result of a demo.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figures {
    seconds: f64,
    transactions: u64,
    failures: u64,
    first_failure: Option<String>,
    median_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
    rows: u64,
    rows_differing: u64,
    kept: Option<KeptServer>,
}

/// The commands for a server that was left running.
#[derive(Debug, Clone, Serialize)]
pub(super) struct KeptServer {
    /// The command that connects.
    pub(super) connect: String,
    /// The command that stops it.
    pub(super) stop: String,
}

impl Figures {
    pub(super) fn new(
        seconds: f64,
        tally: Tally,
        rows: u64,
        rows_differing: u64,
        kept: Option<KeptServer>,
    ) -> Self {
        Self {
            seconds,
            transactions: tally.transactions,
            failures: tally.failures,
            median_ms: tally.ms(0.5),
            p99_ms: tally.ms(0.99),
            longest_ms: tally.ms(1.0),
            first_failure: tally.first_failure,
            rows,
            rows_differing,
            kept,
        }
    }

    /// Checks that no transaction failed, and that no row differs.
    ///
    /// # Errors
    /// [`Kind::Failed`] if a transaction failed, [`Kind::Differs`] if a row differs.
    pub(super) fn verdict(&self) -> Result<()> {
        if let Some(first) = &self.first_failure {
            let fact =
                format!("{} of {} transactions failed", count(self.failures), count(self.transactions));
            return Err(Error::failed(fact).cause(format!("the first one: {}", first.replace('\n', "; "))));
        }
        match self.rows_differing {
            0 => Ok(()),
            n => Err(Error::new(Kind::Differs, format!("{} rows differ from the witness", count(n)))),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nWhat the applications saw, in {:.0} seconds", self.seconds)?;
        let (all, failed) = (count(self.transactions), count(self.failures));
        writeln!(f, "  transactions  {all}, of which {failed} failed")?;
        writeln!(
            f,
            "  each took     {:.1} ms (median), 99 % at most {:.1} ms, the longest {:.0} ms",
            self.median_ms, self.p99_ms, self.longest_ms
        )?;
        let (all, differing) = (count(self.rows), count(self.rows_differing));
        write!(f, "  rows          {all}, of which {differing} differ from the witness")?;
        if let Some(kept) = &self.kept {
            write!(f, "\n\nThe server is still running. To connect:\n  {}", kept.connect)?;
            write!(f, "\nTo stop it and remove its directory:\n  {}", kept.stop)?;
        }
        Ok(())
    }
}
