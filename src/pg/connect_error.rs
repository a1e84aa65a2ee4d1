//! Why a connection failed, and what to do about it.

use std::{error::Error as _, io};

use super::retry;
use tokio_postgres::error::SqlState;

use crate::error::{Error, Retry};

/// Whether the same login may succeed with different encryption: `pg_hba.conf` has no entry for it (28000), or the
/// handshake failed.
pub(super) fn is_about_encryption(e: &tokio_postgres::Error) -> bool {
    let by_handshake = e
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::get_ref)
        .is_some_and(|inner| inner.is::<rustls::Error>());
    by_handshake || e.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

/// The driver's connection error, with a hint. Nothing was done yet, but it is unknown whether the server is
/// available.
pub(super) fn explain(e: tokio_postgres::Error, is_socket: bool) -> Error {
    let by_code = retry::sqlstate(&e).and_then(hint_for_code);
    let io_kind = e.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    let cause = e.source().map(ToString::to_string).unwrap_or_default();
    let error = retry::from_pg(e);
    if error.sqlstate().is_some() {
        return match by_code {
            Some(hint) => error.hint(hint),
            None => error,
        };
    }
    // The driver's description ("error connecting to server") is less informative than its cause.
    let message = if cause.is_empty() { error.message().to_owned() } else { cause };
    let hint = hint_without_code(&message, io_kind, is_socket);
    let retry = match io_kind {
        // Trying again does not help with an invalid certificate.
        Some(io::ErrorKind::InvalidData) => Retry::Never,
        Some(_) => Retry::Unknown,
        None => error.retry_class(),
    };
    let error = Error::failed(message).retry(retry);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// By SQLSTATE (PostgreSQL manual, Appendix A).
fn hint_for_code(code: &str) -> Option<&'static str> {
    Some(match code {
        "28P01" => {
            "the password is wrong: check PGPASSWORD, the password file (~/.pgpass) or the connection string"
        }
        "28000" => {
            "pg_hba.conf does not allow this connection: add a line for this user, database, address and \
             encryption (sslmode=require encrypts, sslmode=disable does not), or check the user name"
        }
        "3D000" => {
            "the database does not exist: check PGDATABASE or the connection string (psql -l lists all \
             databases)"
        }
        "53300" => {
            "the server, the database or the role has no connection left: raise max_connections or the \
             connection limit, or close some connections"
        }
        "57P03" => "the server is starting up, shutting down or in recovery: try again later",
        "42501" => "the role lacks CONNECT on this database: run GRANT CONNECT ON DATABASE ... TO ...",
        "08P01" => {
            "a proxy between pgstrata and the server did not understand a message: connect to the server directly"
        }
        _ => return None,
    })
}

fn hint_without_code(message: &str, io: Option<io::ErrorKind>, is_socket: bool) -> Option<&'static str> {
    // The driver reports these two only as text.
    if message.contains("password missing") {
        return Some(
            "the server requires a password: set PGPASSWORD, or add a line to ~/.pgpass (chmod 600)",
        );
    }
    if message.contains("does not support TLS") {
        return Some(
            "the server does not support TLS: set ssl = on there, or use sslmode=prefer or \
             sslmode=disable (PGSSLMODE)",
        );
    }
    match io? {
        io::ErrorKind::NotFound if is_socket => {
            Some("no server has a socket in this directory: start the server, or check PGHOST and PGPORT")
        }
        io::ErrorKind::ConnectionRefused => {
            Some("no server listens on this host and port: start the server, or check PGHOST and PGPORT")
        }
        io::ErrorKind::PermissionDenied if message.contains("does not allow writes") => {
            Some("the server is a standby, or default_transaction_read_only is on: connect to the primary")
        }
        io::ErrorKind::InvalidData => Some(
            "the server's certificate was rejected: check sslrootcert (PGSSLROOTCERT), the host name in \
             the certificate, and its validity period",
        ),
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Some("the server is not reachable: check host, port and firewall")
        }
        _ if message.contains("lookup address") => {
            Some("the host name could not be resolved: check PGHOST or the connection string")
        }
        _ => None,
    }
}
