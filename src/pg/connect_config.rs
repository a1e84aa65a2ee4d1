//! Converts the collected settings to those of the driver: the servers to try, and one configuration for all of them.

use std::{error::Error as _, fmt, net::IpAddr, path::Path, time::Duration};

use tokio_postgres::Config;

use super::settings::Keywords;
use crate::error::{Error, Result};

/// The default socket directories: Debian's, then the one of the source distribution.
const SOCKET_DIRS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// One of several hosts to try.
pub(super) struct Host {
    pub(super) host: String,
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
    pub(super) password: Option<String>,
}

impl Host {
    /// Whether it is a socket directory.
    pub(super) fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// Its name in the password file.
    pub(super) fn passfile_name(&self) -> &str {
        if SOCKET_DIRS.contains(&self.host.as_str()) { "localhost" } else { &self.host }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// All hosts to try, without passwords.
pub(super) fn servers(settings: &mut Keywords) -> Result<Vec<Host>> {
    let list = |text: Option<String>| -> Vec<String> {
        text.map(|text| text.split(',').map(|part| part.trim().to_owned()).collect()).unwrap_or_default()
    };
    let hosts = list(settings.remove("host"));
    let addresses = list(settings.remove("hostaddr"));
    let ports = list(settings.remove("port"));
    let count = hosts.len().max(addresses.len()).max(1);
    let fits = |n: usize| n == count || n == 0;
    if !fits(hosts.len()) || !fits(addresses.len()) || !(fits(ports.len()) || ports.len() == 1) {
        return Err(Error::usage(format!(
            "host, hostaddr and port list {}, {} and {} servers",
            hosts.len(),
            addresses.len(),
            ports.len()
        ))
        .hint("give the same number of each, or one port for all"));
    }
    let at = |list: &[String], i: usize| list.get(i).cloned().filter(|part| !part.is_empty());
    (0..count)
        .map(|i| {
            let port = match at(&ports, if ports.len() == 1 { 0 } else { i }) {
                Some(port) => {
                    port.parse().map_err(|_| Error::usage("port is not a number between 1 and 65535"))?
                }
                None => 5432,
            };
            let address = at(&addresses, i);
            // Without a host name, the certificate must be valid for the address.
            let host = at(&hosts, i).or_else(|| address.clone()).unwrap_or_else(|| default_host(port));
            let address = address
                .map(|text| text.parse().map_err(|_| Error::usage("hostaddr is not an IP address")))
                .transpose()?;
            Ok(Host { host, address, port, password: None })
        })
        .collect()
}

/// The directory with the socket of a local server, otherwise `localhost`.
fn default_host(port: u16) -> String {
    let has_socket = |dir: &&&str| Path::new(dir).join(format!(".s.PGSQL.{port}")).exists();
    SOCKET_DIRS.iter().find(has_socket).map_or_else(|| "localhost".to_owned(), ToString::to_string)
}

/// The remaining settings, as the driver's configuration.
pub(super) fn config(mut settings: Keywords) -> Result<Config> {
    if let Some(count) = settings.remove("keepalives_count") {
        settings.insert("keepalives_retries".to_owned(), count);
    }
    // Only one property of the server matters to pgstrata: whether it accepts writes. (libpq uses milliseconds, the
    // driver seconds.)
    if settings.get("target_session_attrs").is_some_and(|wanted| wanted == "primary") {
        settings.insert("target_session_attrs".to_owned(), "read-write".to_owned());
    }
    let user_timeout_ms = settings
        .remove("tcp_user_timeout")
        .map(|ms| ms.parse().map_err(|_| Error::usage("tcp_user_timeout is not a number of milliseconds")))
        .transpose()?;
    // A peer that disappeared is detected within a minute instead of after the system default of two hours: until
    // then, no other process can take over its job.
    for (keyword, default) in
        [("keepalives_idle", "30"), ("keepalives_interval", "10"), ("keepalives_retries", "3")]
    {
        settings.entry(keyword.to_owned()).or_insert_with(|| default.to_owned());
    }
    let text: Vec<String> = settings
        .iter()
        .map(|(keyword, value)| format!("{keyword}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'")))
        .collect();
    let mut config: Config = text.join(" ").parse().map_err(|e: tokio_postgres::Error| {
        let cause = e.source().map_or_else(|| e.to_string(), ToString::to_string);
        Error::usage("the connection settings are not usable").cause(cause)
    })?;
    config.tcp_user_timeout(Duration::from_millis(user_timeout_ms.unwrap_or(60_000)));
    Ok(config)
}
