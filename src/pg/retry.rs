//! What a failed statement means: may the same step be sent again, never, or must one look first?
//!
//! Decided by SQLSTATE (PostgreSQL manual, Appendix A), never by the message, which is translated. Only a class in
//! which the server has rolled back for certain is sent again; a connection that went away leaves open whether a COMMIT
//! took effect, so that whoever gets [`Retry::Unknown`] reads the catalog or the ledger before doing anything.
//!
//! Of the server's answer only code and message are kept: `DETAIL` quotes keys, and so does the message itself in class
//! 22 (`invalid input syntax for type integer: "…"`), where the quoted part is cut off.

use std::{error::Error as _, io};

use tokio_postgres::error::SqlState;

use crate::error::{Error, Kind, Retry};

impl From<tokio_postgres::Error> for Error {
    fn from(e: tokio_postgres::Error) -> Self {
        from_pg(e)
    }
}

/// The driver's error as ours: the server's message and SQLSTATE, no row values, and the retry class.
pub fn from_pg(e: tokio_postgres::Error) -> Error {
    if let Some(db) = e.as_db_error() {
        let code = db.code().code();
        let kind = if *db.code() == SqlState::LOCK_NOT_AVAILABLE { Kind::Lock } else { Kind::Failed };
        return Error::new(kind, without_values(code, db.message()))
            .code(code)
            .retry(class(code))
            .lacking_partition(lacks_partition(code, db.constraint(), db.routine()));
    }
    let error = Error::failed(e.to_string()).retry(class_without_code(&e));
    match e.into_source() {
        Some(source) => error.cause(source.to_string()),
        None => error,
    }
}

/// The first line of the statement that a function was running, where it failed in one.
pub fn failed_statement(e: &tokio_postgres::Error) -> Option<String> {
    let (_, statement) = e.as_db_error()?.where_()?.split_once("SQL statement \"")?;
    let first = statement.lines().next().unwrap_or_default();
    Some(first.strip_suffix('"').unwrap_or(first).to_owned())
}

/// Whether a row fits no partition: `check_violation`, but of no constraint, and said by the routine that looks for one.
fn lacks_partition(code: &str, constraint: Option<&str>, routine: Option<&str>) -> bool {
    code == SqlState::CHECK_VIOLATION.code() && constraint.is_none() && routine == Some("ExecFindPartition")
}

/// The SQLSTATE, where it was the server that said no.
pub fn sqlstate(e: &tokio_postgres::Error) -> Option<&str> {
    e.code().map(SqlState::code)
}

/// The retry class of a SQLSTATE.
pub fn class(code: &str) -> Retry {
    match code {
        // serialization_failure, deadlock_detected, lock_not_available, query_canceled (a timeout's or a cancel's), and
        // snapshot_too_old: the statement's transaction is rolled back.
        "40001" | "40P01" | "55P03" | "57014" | "72000" => Retry::Again,
        // out_of_memory and too_many_connections pass. disk_full and configuration_limit_exceeded, of the same class, do
        // not: trying on would keep a full disk full.
        "53200" | "53300" => Retry::Again,
        // statement_completion_unknown says it itself. The others end the session: admin_shutdown, crash_shutdown,
        // cannot_connect_now, idle_session_timeout, idle_in_transaction_session_timeout, transaction_timeout.
        "40003" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" => Retry::Unknown,
        // connection_exception.
        _ if code.starts_with("08") => Retry::Unknown,
        _ => Retry::Never,
    }
}

/// The class where no server spoke: a connection that closed or broke is unknown; a value that cannot be sent or read is
/// a mistake of ours and stays one.
fn class_without_code(e: &tokio_postgres::Error) -> Retry {
    if e.is_closed() {
        return Retry::Unknown;
    }
    match e.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        // What the driver gives for a message it can neither encode nor parse.
        Some(io) if io.kind() == io::ErrorKind::InvalidInput => Retry::Never,
        Some(_) => Retry::Unknown,
        None => Retry::Never,
    }
}

fn without_values(code: &str, message: &str) -> String {
    if !code.starts_with("22") {
        return message.to_owned();
    }
    // The quotation marks of every language the server's messages are translated into.
    match message.find(['"', '«', '»', '„', '“', '”', '‘', '’', '\'', '「', '『']) {
        Some(at) => format!("{}…", message[..at].trim_end()),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_the_appendix() {
        for code in ["40001", "40P01", "55P03", "57014", "53200", "53300", "72000"] {
            assert_eq!(class(code), Retry::Again, "{code}");
        }
        for code in [
            "08000", "08003", "08006", "08P01", "40003", "57P01", "57P02", "57P03", "57P05", "25P03", "25P04",
        ] {
            assert_eq!(class(code), Retry::Unknown, "{code}");
        }
        for code in [
            "23505", "23514", "42P01", "42501", "53100", "53400", "57P04", "58030", "XX000", "40002", "28P01",
        ] {
            assert_eq!(class(code), Retry::Never, "{code}");
        }
    }

    #[test]
    fn a_missing_partition_is_told_from_a_failed_check() {
        assert!(lacks_partition("23514", None, Some("ExecFindPartition")));
        assert!(!lacks_partition("23514", Some("t_amount_check"), Some("ExecConstraints")));
        // A row that was written straight to a partition which does not take it.
        assert!(!lacks_partition("23514", None, Some("ExecPartitionCheckEmitError")));
        assert!(!lacks_partition("23505", None, Some("ExecFindPartition")));
    }

    #[test]
    fn a_message_of_class_22_loses_the_value_it_quotes() {
        let message = r#"invalid input syntax for type integer: "4111 1111""#;
        assert_eq!(without_values("22P02", message), "invalid input syntax for type integer:…");
        assert_eq!(
            without_values("22P02", "ungültige Eingabesyntax für Typ integer: »x«"),
            "ungültige Eingabesyntax für Typ integer:…"
        );
        assert_eq!(without_values("22012", "division by zero"), "division by zero");
        let constraint = r#"duplicate key value violates unique constraint "t_pkey""#;
        assert_eq!(without_values("23505", constraint), constraint);
    }
}
