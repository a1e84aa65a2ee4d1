//! The one error type: a fact that names the object and the number, what caused it, and what to do about it.
//!
//! Messages never hold connection strings, passwords or the values of rows: of a server's error only severity, code and
//! message are kept, not the `DETAIL`, which quotes keys.

use std::fmt;

use tokio_postgres::error::SqlState;

/// What an error means for whoever started the tool; each kind is one exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something broke; the job's state is kept.
    Failed,
    /// The command line or the plan is wrong.
    Usage,
    /// Preflight found an error.
    Preflight,
    /// Verification found a difference.
    Differs,
    /// A lock could not be acquired within the budget.
    Lock,
    /// Stopped early as requested; run again to continue.
    Stopped,
    /// Another process drives this job.
    Busy,
}

/// How a failed step may be tried again, by what the server (or the network) said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It will fail again.
    Never,
    /// It rolled back for certain; the same step may be sent again (deadlock, serialization, lock timeout).
    Again,
    /// The connection is gone, so it is unknown whether the step took effect: look before doing anything.
    Unknown,
}

/// An error with its kind, its hint and its cause.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    kind: Kind,
    retry: Retry,
    code: Option<String>,
    lacks_partition: bool,
    message: String,
    cause: Option<String>,
    hint: Option<String>,
}

/// Classes of SQLSTATE that are never about a row: connections, transactions, resources, operator intervention.
const ABOUT_NO_ROW: [&str; 13] =
    ["08", "0A", "25", "26", "28", "3D", "40", "53", "54", "55", "57", "58", "XX"];

/// What every fallible function of the library returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of `kind`; `message` is a lowercase fact without a full stop.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            retry: Retry::Never,
            code: None,
            lacks_partition: false,
            message: message.into(),
            cause: None,
            hint: None,
        }
    }

    /// A step failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// The command line or the plan is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// What to do about it, in one line.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What caused it, in one line.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Sets the retry class.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Sets the SQLSTATE the server gave.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Says that the server found no partition for a row: its SQLSTATE is that of any check.
    #[must_use]
    pub fn lacking_partition(mut self, lacks: bool) -> Self {
        self.lacks_partition = lacks;
        self
    }

    /// Puts `context` in front, and what was said so far behind it as the cause.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        let was = std::mem::replace(&mut self.message, context.into());
        self.cause = Some(match self.cause.take() {
            Some(cause) => format!("{was}: {cause}"),
            None => was,
        });
        self
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the failed step may be tried again.
    pub fn retry_class(&self) -> Retry {
        self.retry
    }

    /// The SQLSTATE, where a server said one.
    pub fn sqlstate(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Whether the server said this SQLSTATE.
    pub fn is(&self, state: &SqlState) -> bool {
        self.sqlstate() == Some(state.code())
    }

    /// Whether the server said one of these SQLSTATEs.
    pub fn is_any(&self, states: &[&SqlState]) -> bool {
        states.iter().any(|state| self.is(state))
    }

    /// Whether a row may have caused the error, and would cause it again.
    pub fn is_about_a_row(&self) -> bool {
        let class = self.sqlstate().and_then(|code| code.get(..2));
        self.kind == Kind::Failed
            && self.retry == Retry::Never
            && class.is_some_and(|class| !ABOUT_NO_ROW.contains(&class))
    }

    /// Whether the server found no partition for a row.
    pub fn lacks_partition(&self) -> bool {
        self.lacks_partition
    }

    /// The fact alone.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The cause, where one is known.
    pub fn cause_text(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The hint, where there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Fact, SQLSTATE and cause in one line, for a report on the way.
    pub fn brief(&self) -> String {
        let code = self.code.as_ref().map_or(String::new(), |code| format!(" (SQLSTATE {code})"));
        let cause = self.cause.as_ref().map_or(String::new(), |cause| format!(": {cause}"));
        format!("{}{code}{cause}", self.message)
    }

    /// The process's exit code (interface: 1 failed … 7 busy).
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Preflight => 3,
            Kind::Differs => 4,
            Kind::Lock => 5,
            Kind::Stopped => 6,
            Kind::Busy => 7,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(code) = &self.code {
            write!(f, " (SQLSTATE {code})")?;
        }
        if let Some(cause) = &self.cause {
            write!(f, "\ncause: {cause}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}
