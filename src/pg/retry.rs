//! Classifies a failed statement: the same step may be sent again, never, or only after looking at what happened.
//!
//! The class depends on the SQLSTATE (PostgreSQL manual, Appendix A), never on the message, which is translated. A
//! step is sent again only if the server has rolled it back for certain. After a lost connection, it is unknown
//! whether a COMMIT took effect: a caller that gets [`Retry::Unknown`] reads the catalog or the ledger before it does
//! anything else.
//!
//! Of the server's error, only code and message are kept: `DETAIL` quotes keys, and so does the message in class 22
//! (`invalid input syntax for type integer: "…"`), from which the quoted part is removed.

use std::{error::Error as _, io};

use tokio_postgres::error::{DbError, SqlState};

use crate::error::{Error, Kind, Retry, ViolatedCheck};

impl From<tokio_postgres::Error> for Error {
    fn from(e: tokio_postgres::Error) -> Self {
        from_pg(e)
    }
}

/// Converts the driver's error: the server's message and SQLSTATE, without values of rows, and the retry class.
pub fn from_pg(e: tokio_postgres::Error) -> Error {
    if let Some(db) = e.as_db_error() {
        let code = db.code().code();
        let kind = if *db.code() == SqlState::LOCK_NOT_AVAILABLE { Kind::Lock } else { Kind::Failed };
        let error = Error::new(kind, without_values(code, db.message()))
            .code(code)
            .retry(class(code))
            .violating(violated_check(db))
            .lacking_partition(lacks_partition(code, db.constraint(), db.routine()));
        return match db.detail() {
            // The names of the objects, and no values.
            Some(detail) if *db.code() == SqlState::DEPENDENT_OBJECTS_STILL_EXIST => {
                error.cause(detail.lines().collect::<Vec<_>>().join("; "))
            }
            _ if *db.code() == SqlState::OUT_OF_MEMORY => error.hint(
                "the server is out of memory, or its lock table is full; in the latter case, raise \
                 max_locks_per_transaction and restart the server; then run the same command again",
            ),
            _ => error,
        };
    }
    let error = Error::failed(e.to_string()).retry(class_without_code(&e));
    match e.into_source() {
        Some(source) => error.caused_by(source),
        None => error,
    }
}

/// The first line of the statement that a function was running, if it failed in a function.
pub fn failed_statement(e: &tokio_postgres::Error) -> Option<String> {
    let (_, statement) = e.as_db_error()?.where_()?.split_once("SQL statement \"")?;
    let first = statement.lines().next().unwrap_or_default();
    Some(first.strip_suffix('"').unwrap_or(first).to_owned())
}

/// Whether no partition accepts a row: `check_violation` without a constraint, raised by the routine that looks for
/// the partition.
fn lacks_partition(code: &str, constraint: Option<&str>, routine: Option<&str>) -> bool {
    code == SqlState::CHECK_VIOLATION.code() && constraint.is_none() && routine == Some("ExecFindPartition")
}

/// The CHECK constraint that a row violated: only if the routine that tests the constraints of a row raised the
/// error. RAISE can set the same SQLSTATE, constraint and table, and a domain can have a constraint of that name.
fn violated_check(db: &DbError) -> Option<ViolatedCheck> {
    let raised = *db.code() == SqlState::CHECK_VIOLATION && db.routine() == Some("ExecConstraints");
    let [schema, table, name] = [db.schema()?, db.table()?, db.constraint()?].map(str::to_owned);
    raised.then_some(ViolatedCheck { schema, table, name })
}

/// The SQLSTATE, if the server raised the error.
pub fn sqlstate(e: &tokio_postgres::Error) -> Option<&str> {
    e.code().map(SqlState::code)
}

/// The retry class of a SQLSTATE.
pub fn class(code: &str) -> Retry {
    match code {
        // serialization_failure, deadlock_detected, lock_not_available, query_canceled (by a timeout or a cancel
        // request), and snapshot_too_old: the transaction of the statement is rolled back.
        "40001" | "40P01" | "55P03" | "57014" | "72000" => Retry::Again,
        // too_many_connections is temporary. out_of_memory, disk_full and configuration_limit_exceeded, of the same class,
        // are not: the same statement needs as many locks again, and continuing would keep a full disk full.
        "53300" => Retry::Again,
        // statement_completion_unknown by definition. The others end the session: admin_shutdown, crash_shutdown,
        // cannot_connect_now, idle_session_timeout, idle_in_transaction_session_timeout, transaction_timeout.
        "40003" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" => Retry::Unknown,
        // connection_exception.
        _ if code.starts_with("08") => Retry::Unknown,
        _ => Retry::Never,
    }
}

/// The class of an error that the server did not raise: after a closed or broken connection, the result is unknown; a
/// value that cannot be sent or read is a bug of ours, and trying again does not help.
fn class_without_code(e: &tokio_postgres::Error) -> Retry {
    if e.is_closed() {
        return Retry::Unknown;
    }
    match e.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        // The driver's error for a message that it can neither encode nor parse.
        Some(io) if io.kind() == io::ErrorKind::InvalidInput => Retry::Never,
        Some(_) => Retry::Unknown,
        None => Retry::Never,
    }
}

fn without_values(code: &str, message: &str) -> String {
    if !code.starts_with("22") {
        return message.to_owned();
    }
    // The quotation marks of all languages into which the server's messages are translated.
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
        for code in ["40001", "40P01", "55P03", "57014", "53300", "72000"] {
            assert_eq!(class(code), Retry::Again, "{code}");
        }
        for code in [
            "08000", "08003", "08006", "08P01", "40003", "57P01", "57P02", "57P03", "57P05", "25P03", "25P04",
        ] {
            assert_eq!(class(code), Retry::Unknown, "{code}");
        }
        for code in [
            "23505", "23514", "42P01", "42501", "53100", "53200", "53400", "57P04", "58030", "XX000",
            "40002", "28P01",
        ] {
            assert_eq!(class(code), Retry::Never, "{code}");
        }
    }

    #[test]
    fn a_missing_partition_is_distinguished_from_a_failed_check() {
        assert!(lacks_partition("23514", None, Some("ExecFindPartition")));
        assert!(!lacks_partition("23514", Some("t_amount_check"), Some("ExecConstraints")));
        // A row that was inserted directly into a partition that does not accept it.
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
