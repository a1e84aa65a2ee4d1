//! The error type: a message with names and numbers, the cause, and a hint about what to do.
//!
//! Messages never contain connection strings, passwords or values of rows. Of a server's error, only code and message
//! are kept, and the driver's error is not a source of ours, because its `DETAIL` contains keys.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use tokio_postgres::error::SqlState;

/// The kind of an error. Each kind has its own exit code, and its own code in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command failed; the job's state is kept.
    Failed,
    /// The command line or the plan is invalid.
    Usage,
    /// The check found an error.
    Preflight,
    /// Verification found a difference.
    Differs,
    /// The lock could not be acquired within the limits of the plan.
    Lock,
    /// Stopped early as requested; run again to continue.
    Stopped,
    /// Another process is running this job.
    Busy,
}

impl Kind {
    /// All kinds, in the order of their exit codes.
    pub const ALL: [Self; 7] =
        [Self::Failed, Self::Usage, Self::Preflight, Self::Differs, Self::Lock, Self::Stopped, Self::Busy];

    /// The name in JSON. It is stable.
    pub fn code(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "invalid_usage",
            Self::Preflight => "check_failed",
            Self::Differs => "mismatch",
            Self::Lock => "lock_not_acquired",
            Self::Stopped => "stopped",
            Self::Busy => "already_running",
        }
    }

    /// The exit code of the process.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Preflight => 3,
            Self::Differs => 4,
            Self::Lock => 5,
            Self::Stopped => 6,
            Self::Busy => 7,
        }
    }
}

/// Whether a failed step can be retried, according to the error of the server or the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// A retry would fail again.
    Never,
    /// The step was rolled back and can be sent again (deadlock, serialization failure, lock timeout).
    Again,
    /// The connection was lost, and it is unknown whether the step took effect. Check the state before a retry.
    Unknown,
}

/// A CHECK constraint that a row violated.
#[derive(Debug, Clone)]
pub struct ViolatedCheck {
    /// The schema of its table.
    pub schema: String,
    /// Its table, or the partition of it.
    pub table: String,
    /// Its name.
    pub name: String,
}

/// An error with its kind, its hint and its cause.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    kind: Kind,
    retry: Retry,
    code: Option<Box<str>>,
    lacks_partition: bool,
    violated_check: Option<Box<ViolatedCheck>>,
    message: Box<str>,
    details: Box<[String]>,
    cause: Option<Box<str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    hint: Option<Box<str>>,
}

/// SQLSTATE classes of errors that a row never causes: connections, transactions, resources, operator intervention.
const ABOUT_NO_ROW: [&str; 13] =
    ["08", "0A", "25", "26", "28", "3D", "40", "53", "54", "55", "57", "58", "XX"];

/// The result type of the library.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of this kind. `message` is in lower case and does not end with a period.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            retry: Retry::Never,
            code: None,
            lacks_partition: false,
            violated_check: None,
            message: message.into().into_boxed_str(),
            details: Box::default(),
            cause: None,
            source: None,
            hint: None,
        }
    }

    /// A step failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// The command line or the plan is invalid.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Adds a hint about what to do, in one line.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into_boxed_str());
        self
    }

    /// Adds lines that follow the message, such as one for each problem of a plan. Each is printed on a line of its own.
    #[must_use]
    pub fn details(mut self, details: Vec<String>) -> Self {
        self.details = details.into_boxed_slice();
        self
    }

    /// Adds the cause, in one line. It is reported instead of the source.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into().into_boxed_str());
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Sets the retry class.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Sets the server's SQLSTATE.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into().into_boxed_str());
        self
    }

    /// Sets whether the server found no partition for a row. Its SQLSTATE is the same as that of a violated CHECK.
    #[must_use]
    pub fn lacking_partition(mut self, lacks: bool) -> Self {
        self.lacks_partition = lacks;
        self
    }

    /// Sets the CHECK constraint that a row violated.
    #[must_use]
    pub fn violating(mut self, check: Option<ViolatedCheck>) -> Self {
        self.violated_check = check.map(Box::new);
        self
    }

    /// An error with the message `context`, of which this one is the source. Everything else stays the same.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        Self {
            kind: self.kind,
            retry: self.retry,
            code: self.code.clone(),
            lacks_partition: self.lacks_partition,
            violated_check: self.violated_check.clone(),
            message: context.into().into_boxed_str(),
            details: Box::default(),
            cause: None,
            hint: self.hint.take(),
            source: Some(Box::new(self)),
        }
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the failed step can be retried.
    pub fn retry_class(&self) -> Retry {
        self.retry
    }

    /// The server's SQLSTATE, if there is one.
    pub fn sqlstate(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The CHECK constraint that a row violated according to the server itself, not one that a function named in an
    /// error with the same SQLSTATE.
    pub fn violated_check(&self) -> Option<&ViolatedCheck> {
        self.violated_check.as_deref()
    }

    /// Whether the error has this SQLSTATE.
    pub fn is(&self, state: &SqlState) -> bool {
        self.sqlstate() == Some(state.code())
    }

    /// Whether the error has one of these SQLSTATEs.
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

    /// The message, without details, cause and hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The lines that follow the message.
    pub fn detail_lines(&self) -> &[String] {
        &self.details
    }

    /// The message and its details in one line.
    fn message_in_one_line(&self) -> Cow<'_, str> {
        if self.details.is_empty() {
            return Cow::Borrowed(&self.message);
        }
        let details: Vec<&str> = self.details.iter().map(|line| line.trim_start()).collect();
        Cow::Owned(format!("{}: {}", self.message, details.join("; ")))
    }

    /// The cause, if known: as it was given, or the messages of all sources.
    pub fn cause_text(&self) -> Option<Cow<'_, str>> {
        if let Some(cause) = &self.cause {
            return Some(Cow::Borrowed(cause));
        }
        let source = self.source.as_deref()?;
        let Some(inner) = source.downcast_ref::<Self>() else { return Some(Cow::Owned(source.to_string())) };
        Some(match inner.cause_text() {
            Some(cause) => Cow::Owned(format!("{}: {cause}", inner.message_in_one_line())),
            None => inner.message_in_one_line(),
        })
    }

    /// The hint, if there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Message, details, SQLSTATE and cause in one line, for events.
    pub fn brief(&self) -> String {
        let code = self.code.as_ref().map_or(String::new(), |code| format!(" (SQLSTATE {code})"));
        let cause = self.cause_text().map_or(String::new(), |cause| format!(": {cause}"));
        format!("{}{code}{cause}", self.message_in_one_line())
    }

    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        self.kind.exit_code()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(code) = &self.code {
            write!(f, " (SQLSTATE {code})")?;
        }
        for line in &self.details {
            write!(f, "\n  {line}")?;
        }
        if let Some(cause) = self.cause_text() {
            write!(f, "\ncause: {cause}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_documented_with_its_codes() {
        let documented = include_str!("../docs/commands.md");
        for kind in Kind::ALL {
            let row = format!("\n| {} | `{}` | ", kind.exit_code(), kind.code());
            assert!(documented.contains(&row), "{row:?} is missing");
        }
    }

    #[test]
    fn sources_are_chained_and_reported_as_the_cause() {
        let io = std::io::Error::other("no route to host");
        let error = Error::failed("failed to connect").caused_by(io).hint("check the host");
        let error = error.retry(Retry::Unknown).code("08006").context("failed to copy a chunk");
        assert_eq!(error.cause_text().unwrap(), "failed to connect: no route to host");
        assert_eq!((error.hint_text(), error.sqlstate()), (Some("check the host"), Some("08006")));
        assert_eq!(error.retry_class(), Retry::Unknown);
        let mut messages = Vec::new();
        let mut next: Option<&dyn StdError> = error.source();
        while let Some(source) = next {
            messages.push(source.to_string().lines().next().unwrap_or_default().to_owned());
            next = source.source();
        }
        assert_eq!(messages, ["failed to connect (SQLSTATE 08006)", "no route to host"]);
    }
}
