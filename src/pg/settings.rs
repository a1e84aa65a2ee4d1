//! Connection settings, from the same sources and in the same order as libpq: the connection string, the service
//! file, the environment, then defaults. (libpq, "Connection Strings", "Environment Variables", "The Connection
//! Service File".)
//!
//! The driver parses connection strings too, but does not support services, the password file, `verify-ca`,
//! `verify-full` or `sslrootcert`, rejects unknown keywords, and cannot combine several sources. Settings are
//! therefore collected here under libpq's keywords; the driver still validates the values.
//!
//! No message here quotes a value, or a keyword that is not one of libpq's: it may be part of an incorrectly quoted
//! password.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};

/// The source of variables: the environment of the process, or that of a test.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Settings by libpq keyword.
pub(super) type Keywords = BTreeMap<String, String>;

/// Supported here or by the driver.
const KNOWN: [&str; 23] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "options",
    "passfile",
    "password",
    "port",
    "service",
    "servicefile",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// Without effect here, whatever the value: no GSS, no compression, always UTF-8.
const WITHOUT_EFFECT: [&str; 7] = [
    "client_encoding",
    "fallback_application_name",
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "sslcompression",
    "sslsni",
];

/// Requests something that is not supported; to ignore it would be to connect in a way that the user did not want.
const UNSUPPORTED: [&str; 14] = [
    "gssencmode",
    "oauth_client_id",
    "oauth_issuer",
    "replication",
    "require_auth",
    "requirepeer",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslpassword",
];

const VARIABLES: [(&str, &str); 16] = [
    ("PGAPPNAME", "application_name"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGDATABASE", "dbname"),
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGOPTIONS", "options"),
    ("PGPASSFILE", "passfile"),
    ("PGPASSWORD", "password"),
    ("PGPORT", "port"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGUSER", "user"),
];

/// All connection settings, each keyword from the first source that has it.
pub(super) fn gather(dsn: Option<&str>, var: Lookup<'_>) -> Result<Keywords> {
    let set = |name: &str| var(name).filter(|value| !value.is_empty());
    let mut settings = match dsn.map(str::to_owned).or_else(|| set("DATABASE_URL")) {
        Some(text) => parse(&text)?,
        None => Keywords::new(),
    };
    if let Some(service) = settings.remove("service").or_else(|| set("PGSERVICE")) {
        let own_file = settings.remove("servicefile").or_else(|| set("PGSERVICEFILE"));
        for (keyword, value) in read_service(&service, own_file.as_deref(), var)? {
            settings.entry(keyword).or_insert(value);
        }
    }
    for (variable, keyword) in VARIABLES {
        if let Some(value) = set(variable) {
            insert_new(&mut settings, keyword, value)?;
        }
    }
    Ok(settings)
}

/// The settings of a connection string in either format.
fn parse(text: &str) -> Result<Keywords> {
    let url = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.trim().strip_prefix(scheme));
    let mut settings = Keywords::new();
    for (keyword, value) in if let Some(rest) = url { url_pairs(rest)? } else { pairs(text)? } {
        // As in libpq, the last value of a repeated keyword wins.
        settings.remove(&keyword);
        insert_new(&mut settings, &keyword, value)?;
    }
    Ok(settings)
}

fn insert_new(settings: &mut Keywords, keyword: &str, value: String) -> Result<()> {
    if WITHOUT_EFFECT.contains(&keyword) || (keyword == "gssencmode" && value != "require") {
        return Ok(());
    }
    if UNSUPPORTED.contains(&keyword) {
        return Err(Error::usage(format!("the connection setting {keyword} is not supported"))
            .hint("remove it from the connection string, the service file and the PG* variables"));
    }
    if !KNOWN.contains(&keyword) {
        return Err(Error::usage("the connection settings contain a keyword that libpq does not have").hint(
            "put a value with spaces in single quotes (password='a b'); percent-encode the parts of a URL",
        ));
    }
    settings.entry(keyword.to_owned()).or_insert(value);
    Ok(())
}

/// `keyword = 'value'` pairs, quoted and escaped as in libpq.
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    let mut chars = text.chars().peekable();
    let mut found = Vec::new();
    let skip_space = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
    };
    loop {
        skip_space(&mut chars);
        if chars.peek().is_none() {
            return Ok(found);
        }
        let mut keyword = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
            keyword.push(c);
        }
        skip_space(&mut chars);
        if chars.next() != Some('=') {
            return Err(Error::usage("the connection string contains a word without `=`")
                .hint("write host=... port=... dbname=... user=..., or postgres://user@host:port/dbname"));
        }
        skip_space(&mut chars);
        let quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                None if quoted => {
                    return Err(Error::usage("the connection string contains an unclosed quote"));
                }
                None => break,
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some('\\') => value.extend(chars.next()),
                Some(c) => value.push(c),
            }
        }
        found.push((keyword, value));
    }
}

/// What follows `postgres://`: `user:password@host:port,host:port/dbname?keyword=value&...`, each part percent-encoded.
fn url_pairs(rest: &str) -> Result<Vec<(String, String)>> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let mut found = Vec::new();
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
            Some((v6, port)) => (v6, port.strip_prefix(':').unwrap_or(port)),
            None => host.rsplit_once(':').unwrap_or((host, "")),
        };
        names.push(decode(name)?);
        ports.push(decode(port)?);
    }
    for (keyword, value) in [("host", names.join(",")), ("port", ports.join(","))] {
        if value.contains(|c| c != ',') {
            found.push((keyword.to_owned(), value));
        }
    }
    for (keyword, value) in [("user", user), ("password", password), ("dbname", dbname)] {
        if !value.is_empty() {
            found.push((keyword.to_owned(), decode(value)?));
        }
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (keyword, value) = pair
            .split_once('=')
            .ok_or_else(|| Error::usage("the connection URL contains a parameter without `=`"))?;
        match (decode(keyword)?.as_str(), decode(value)?) {
            // The syntax of JDBC URLs, which libpq supports too.
            ("ssl", value) if value == "true" => found.push(("sslmode".to_owned(), "require".to_owned())),
            (keyword, value) => found.push((keyword.to_owned(), value)),
        }
    }
    Ok(found)
}

fn decode(part: &str) -> Result<String> {
    let decoded = percent_decode_str(part).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| {
        Error::usage(
            "the connection URL is not valid \
        UTF-8",
        )
    })
}

/// The settings of a service, from the user's file or otherwise from the system's.
fn read_service(service: &str, own_file: Option<&str>, var: Lookup<'_>) -> Result<Keywords> {
    let mut files: Vec<PathBuf> = match own_file {
        Some(file) => vec![file.into()],
        None => home(var).map(|home| home.join(".pg_service.conf")).into_iter().collect(),
    };
    files.push(match var("PGSYSCONFDIR") {
        Some(dir) => Path::new(&dir).join("pg_service.conf"),
        // The path on Debian and Ubuntu.
        None => "/etc/postgresql-common/pg_service.conf".into(),
    });
    for file in &files {
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(_) if own_file.is_none_or(|own| Path::new(own) != file) => continue,
            Err(e) => {
                return Err(
                    Error::usage(format!("could not read the service file {}", file.display())).caused_by(e)
                );
            }
        };
        if let Some(settings) = service_of(&text, service)
            .map_err(|e| e.context(format!("service \"{service}\" in {} is not usable", file.display())))?
        {
            return Ok(settings);
        }
    }
    let looked: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    Err(Error::usage(format!("connection service \"{service}\" was not found"))
        .cause(format!("searched {}", looked.join(" and ")))
        .hint("check the service= setting or PGSERVICE, and PGSERVICEFILE"))
}

/// The section `[service]` of a service file.
fn service_of(text: &str, service: &str) -> Result<Option<Keywords>> {
    let mut found: Option<Keywords> = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            if found.is_some() {
                break;
            }
            if name == service {
                found = Some(Keywords::new());
            }
        } else if let Some(settings) = &mut found {
            let (keyword, value) = line.split_once('=').ok_or_else(|| {
                Error::usage(
                    "the service contains a line without \
                    `=`",
                )
            })?;
            if keyword.starts_with("service") {
                return Err(Error::usage("a service cannot refer to another service"));
            }
            insert_new(settings, keyword.trim_end(), value.trim_start().to_owned())?;
        }
    }
    Ok(found)
}

/// The home directory.
pub(super) fn home(var: Lookup<'_>) -> Option<PathBuf> {
    var("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn none(_: &str) -> Option<String> {
        None
    }

    fn shown(settings: &Keywords) -> String {
        settings.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("|")
    }

    fn of(text: &str) -> String {
        shown(&gather(Some(text), &none).unwrap())
    }

    fn refused(text: &str) -> String {
        gather(Some(text), &none).unwrap_err().to_string()
    }

    #[test]
    fn both_forms_of_a_connection_string_are_read() {
        insta::assert_snapshot!(of("host = localhost port=5433 user='a b' password='it\\'s' dbname=x\\ y"),
            @"dbname=x y|host=localhost|password=it's|port=5433|user=a b");
        insta::assert_snapshot!(of("postgresql://me:s%40t@h1:5433,h2/db%20x?sslmode=verify-full&target_session_attrs=read-write"),
            @"dbname=db x|host=h1,h2|password=s@t|port=5433,|sslmode=verify-full|target_session_attrs=read-write|user=me");
        insta::assert_snapshot!(of("postgres://[::1]:6000/x"), @"dbname=x|host=::1|port=6000");
        insta::assert_snapshot!(of("postgres://%2Fvar%2Frun%2Fpostgresql/x?ssl=true"),
            @"dbname=x|host=/var/run/postgresql|sslmode=require");
        insta::assert_snapshot!(of("postgres://"), @"");
        insta::assert_snapshot!(of("host=a host=b sslsni=1 gssencmode=disable"), @"host=b");
    }

    #[test]
    fn unsupported_settings_are_refused_without_quoting_a_secret() {
        insta::assert_snapshot!(refused("host=a sslcert=/x"), @"
        the connection setting sslcert is not supported
        hint: remove it from the connection string, the service file and the PG* variables
        ");
        insta::assert_snapshot!(refused("password=my s3cret"), @"
        the connection string contains a word without `=`
        hint: write host=... port=... dbname=... user=..., or postgres://user@host:port/dbname
        ");
        insta::assert_snapshot!(refused("password=my s3cret=x"), @"
        the connection settings contain a keyword that libpq does not have
        hint: put a value with spaces in single quotes (password='a b'); percent-encode the parts of a URL
        ");
        insta::assert_snapshot!(refused("password='s3cret"), @"the connection string contains an unclosed quote");
        insta::assert_snapshot!(refused("gssencmode=require"), @"
        the connection setting gssencmode is not supported
        hint: remove it from the connection string, the service file and the PG* variables
        ");
    }

    #[test]
    fn the_string_overrides_the_service_and_the_service_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("services");
        fs::write(
            &file,
            "# ours\n[other]\nhost=no\n[prod]\nhost = svc\nport=7\nuser=svc\n\n[later]\nport=9\n",
        )
        .unwrap();
        let file = file.display().to_string();
        let var = |name: &str| match name {
            "PGSERVICE" => Some("prod".to_owned()),
            "PGSERVICEFILE" => Some(file.clone()),
            "PGUSER" | "PGDATABASE" => Some("env".to_owned()),
            "PGPASSWORD" => Some(String::new()),
            _ => None,
        };
        assert_eq!(shown(&gather(Some("port=1"), &var).unwrap()), "dbname=env|host=svc|port=1|user=svc");
        // Without --dsn, DATABASE_URL is the connection string.
        let var = |name: &str| match name {
            "DATABASE_URL" => Some("host=url".to_owned()),
            "PGHOST" => Some("env".to_owned()),
            _ => None,
        };
        assert_eq!(shown(&gather(None, &var).unwrap()), "host=url");
        assert_eq!(shown(&gather(Some("port=1"), &var).unwrap()), "host=env|port=1");
    }

    #[test]
    fn a_service_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("services");
        fs::write(&file, "[a]\nservice=b\n[c]\nhost\n").unwrap();
        let text = |service: &str, file: &str| {
            let var = |name: &str| match name {
                "PGSERVICEFILE" => Some(file.to_owned()),
                "PGSYSCONFDIR" => Some("/nowhere".to_owned()),
                _ => None,
            };
            let message = gather(Some(&format!("service={service}")), &var).unwrap_err().to_string();
            message.replace(&dir.path().display().to_string(), "DIR")
        };
        let file = file.display().to_string();
        insta::assert_snapshot!(text("a", &file));
        insta::assert_snapshot!(text("c", &file));
        insta::assert_snapshot!(text("d", &file));
        insta::assert_snapshot!(text("d", "/nowhere/x"));
    }

    proptest! {
        #[test]
        fn any_value_round_trips_in_both_formats(value in "\\PC{1,20}") {
            let escaped = value.replace('\\', "\\\\").replace('\'', "\\'");
            let settings = parse(&format!("user='{escaped}' dbname=x")).unwrap();
            prop_assert_eq!(&settings["user"], &value);
            let encoded = percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC);
            let settings = parse(&format!("postgres://{encoded}:{encoded}@{encoded}/{encoded}")).unwrap();
            for keyword in ["user", "password", "dbname"] {
                prop_assert_eq!(&settings[keyword], &value);
            }
        }

        #[test]
        fn no_string_causes_a_panic_or_is_quoted(text in "\\PC{0,40}") {
            if let Err(e) = parse(&format!("password={text}")) {
                prop_assert!(text.len() < 8 || !e.to_string().contains(text.as_str()));
            }
        }
    }
}
