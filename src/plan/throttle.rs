//! `[throttle]`: the limits that throttle a job. All of them can change while the job runs.

use std::time::Duration;

use chrono_tz::Tz;
use toml::Value;

use super::file::ThrottleSection;
use super::identity::duration_text;
use super::read::{Problems, Read, Wrong, duration, flag, number, text, wrong, zone};
use crate::model::pace::Windows;

/// The default limit on replica lag.
const MAX_REPLICA_LAG: Duration = Duration::from_secs(10);
const FORGET_REPLICA_AFTER: Duration = Duration::from_secs(300);

const LAG_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(86_400);
const FORGET_RANGE: std::ops::RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(30 * 86_400);
/// The default limit on dead rows for jobs that update rows, in thousandths of all rows.
const MAX_DEAD_PER_MILLE: u16 = 400;
/// By default, fewer dead rows than this do not throttle: one pass over a table leaves as many dead rows as live rows,
/// and the job on a small table ends before the first vacuum.
const MANY_DEAD: i64 = 5_000_000;
/// With a limit in the plan, fewer dead rows than this do not throttle: they do no harm, whatever their share.
const LEAST_DEAD: i64 = 10_000;
const LATENCY_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
/// In bytes. Smaller limits have no practical use.
const LEAST_BYTES: u64 = 64 << 10;
const MOST_BYTES: u64 = 1 << 50;
/// From large to small: a size is written in the first unit that divides it evenly.
const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// The limits that throttle a job. None: no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttle {
    /// Rows per second that the job may process.
    pub rows_per_second: Option<u32>,
    /// Bytes of WAL per second that the whole server may write.
    pub wal_bytes_per_second: Option<u64>,
    /// The limit on replica lag.
    pub max_replica_lag: ReplicaLag,
    /// The limit on replica lag, in bytes of WAL.
    pub max_replica_lag_bytes: Option<u64>,
    /// Connection strings of standbys that are queried directly, without passwords.
    pub replicas: Vec<String>,
    /// How long a standby that has disconnected throttles the job.
    pub forget_replica_after: Duration,
    /// Bytes of WAL that a replication slot may retain.
    pub max_slot_retained_bytes: Option<u64>,
    /// Whether a failing archiver throttles the job.
    pub archiver: bool,
    /// The limit on active sessions, not counting those of the job.
    pub max_active_backends: Option<u32>,
    /// The limit on the duration of a tiny test transaction, smoothed.
    pub max_commit_latency: Option<Duration>,
    /// The limit on dead rows in a table.
    pub max_dead_share: DeadShare,
    /// A query that throttles the job while it returns true, or a number above `query_limit`.
    pub query: Option<String>,
    /// The limit on the number that `query` returns.
    pub query_limit: u32,
    /// When the job may run; none: always.
    pub windows: Windows,
    /// The time zone of `windows`.
    pub timezone: Tz,
}

/// The limit on replica lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaLag {
    /// The plan sets no limit. The default of 10 seconds applies to every standby whose lag can be read.
    Default,
    /// The limit in the plan. While the lag cannot be read, the job is throttled.
    Limit(Duration),
    /// No limit.
    Off,
}

impl ReplicaLag {
    /// The limit, if there is one.
    pub fn limit(self) -> Option<Duration> {
        match self {
            Self::Default => Some(MAX_REPLICA_LAG),
            Self::Limit(limit) => Some(limit),
            Self::Off => None,
        }
    }
}

/// The limit on dead rows in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadShare {
    /// The plan sets no limit. The default of 40 % applies if the job updates rows and the table is large.
    Default,
    /// The limit in the plan, in thousandths.
    Limit(u16),
    /// No limit.
    Off,
}

/// A limit on dead rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeadLimit {
    /// The share of dead rows in all rows of a table, live and dead.
    pub share: f64,
    /// Tables with fewer dead rows than this are ignored.
    pub least: i64,
}

impl DeadShare {
    /// The limit, if there is one. `updates`: the job updates the rows of the table itself.
    pub fn limit(self, updates: bool) -> Option<DeadLimit> {
        let limit = |per_mille, least| DeadLimit { share: f64::from(per_mille) / 1000.0, least };
        match self {
            Self::Default => updates.then(|| limit(MAX_DEAD_PER_MILLE, MANY_DEAD)),
            Self::Limit(per_mille) => Some(limit(per_mille, LEAST_DEAD)),
            Self::Off => None,
        }
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            rows_per_second: None,
            wal_bytes_per_second: None,
            max_replica_lag: ReplicaLag::Default,
            max_replica_lag_bytes: None,
            replicas: Vec::new(),
            forget_replica_after: FORGET_REPLICA_AFTER,
            max_slot_retained_bytes: None,
            archiver: true,
            max_active_backends: None,
            max_commit_latency: None,
            max_dead_share: DeadShare::Default,
            query: None,
            query_limit: 0,
            windows: Windows::default(),
            timezone: Tz::UTC,
        }
    }
}

/// Reads the section, and adds problems to `p`.
pub(super) fn resolve(section: &ThrottleSection, p: &mut Problems) -> Throttle {
    let d = Throttle::default();
    let s = section;
    let mut bytes = |key: &str, leaf| p.optional(key, leaf, or_off(size)).flatten();
    let wal_bytes_per_second = bytes("throttle.wal_bytes_per_second", &s.wal_bytes_per_second);
    let max_replica_lag_bytes = bytes("throttle.max_replica_lag_bytes", &s.max_replica_lag_bytes);
    let max_slot_retained_bytes = bytes("throttle.max_slot_retained_bytes", &s.max_slot_retained_bytes);
    let rows = or_off(|v: &Value| number(1..=u32::MAX)(v));
    let rows_per_second = p.optional("throttle.rows_per_second", &s.rows_per_second, rows).flatten();
    let lag =
        p.optional("throttle.max_replica_lag", &s.max_replica_lag, or_off(|v| duration(v, "5s", LAG_RANGE)));
    let backends = or_off(|v: &Value| number(1..=100_000)(v));
    let max_active_backends =
        p.optional("throttle.max_active_backends", &s.max_active_backends, backends).flatten();
    let latency = or_off(|v| duration(v, "20ms", LATENCY_RANGE));
    let max_commit_latency =
        p.optional("throttle.max_commit_latency", &s.max_commit_latency, latency).flatten();
    let dead = p.optional("throttle.max_dead_share", &s.max_dead_share, or_off(per_mille));
    let forget = p.optional("throttle.forget_replica_after", &s.forget_replica_after, |v| {
        duration(v, "5min", FORGET_RANGE)
    });
    Throttle {
        rows_per_second,
        wal_bytes_per_second,
        max_replica_lag: lag
            .map_or(ReplicaLag::Default, |lag| lag.map_or(ReplicaLag::Off, ReplicaLag::Limit)),
        max_replica_lag_bytes,
        replicas: p.optional("throttle.replicas", &s.replicas, replicas).unwrap_or_default(),
        forget_replica_after: forget.unwrap_or(d.forget_replica_after),
        max_slot_retained_bytes,
        archiver: p.optional("throttle.archiver", &s.archiver, flag).unwrap_or(d.archiver),
        max_active_backends,
        max_commit_latency,
        max_dead_share: dead.map_or(DeadShare::Default, |dead| dead.map_or(DeadShare::Off, DeadShare::Limit)),
        query: p.optional("throttle.query", &s.query, or_off(query)).flatten(),
        query_limit: p.optional("throttle.query_limit", &s.query_limit, number(0..=u32::MAX)).unwrap_or(0),
        windows: p.optional("throttle.windows", &s.windows, windows).unwrap_or_default(),
        timezone: p.optional("throttle.timezone", &s.timezone, |v| zone(text(v)?)).unwrap_or(d.timezone),
    }
}

impl Throttle {
    /// Every setting with its key; none for a setting that is not set.
    pub(super) fn settings(&self) -> [(&'static str, Option<Value>); 15] {
        let bytes = |n: Option<u64>| n.map(|n| Value::from(size_text(n)));
        let lag = match self.max_replica_lag {
            ReplicaLag::Default => None,
            ReplicaLag::Limit(limit) => Some(duration_text(limit)),
            ReplicaLag::Off => Some("off".to_owned()),
        };
        let dead = match self.max_dead_share {
            DeadShare::Default => None,
            DeadShare::Limit(per_mille) => Some(Value::from(f64::from(per_mille) / 1000.0)),
            DeadShare::Off => Some(Value::from("off")),
        };
        let many = |list: Vec<String>| (!list.is_empty()).then(|| Value::from(list));
        [
            ("throttle.rows_per_second", self.rows_per_second.map(Value::from)),
            ("throttle.wal_bytes_per_second", bytes(self.wal_bytes_per_second)),
            ("throttle.max_replica_lag", lag.map(Value::from)),
            ("throttle.max_replica_lag_bytes", bytes(self.max_replica_lag_bytes)),
            ("throttle.replicas", many(self.replicas.clone())),
            ("throttle.forget_replica_after", Some(duration_text(self.forget_replica_after).into())),
            ("throttle.max_slot_retained_bytes", bytes(self.max_slot_retained_bytes)),
            ("throttle.archiver", Some(self.archiver.into())),
            ("throttle.max_active_backends", self.max_active_backends.map(Value::from)),
            ("throttle.max_commit_latency", self.max_commit_latency.map(|l| duration_text(l).into())),
            ("throttle.max_dead_share", dead),
            ("throttle.query", self.query.clone().map(Value::from)),
            ("throttle.query_limit", Some(self.query_limit.into())),
            ("throttle.windows", many(self.windows.written())),
            ("throttle.timezone", Some(self.timezone.name().into())),
        ]
    }
}

/// Reads `"off"` as no limit.
fn or_off<T>(read: impl FnOnce(&Value) -> Read<T>) -> impl FnOnce(&Value) -> Read<Option<T>> {
    move |value| if value.as_str() == Some("off") { Ok(None) } else { read(value).map(Some) }
}

/// Reads `"64 MiB"`, `"1.5 GB"`, or a number of bytes.
fn size(value: &Value) -> Read<u64> {
    let bytes = match value {
        Value::Integer(n) => u64::try_from(*n).ok(),
        other => other.as_str().and_then(parse_size),
    };
    let Some(bytes) = bytes else {
        return wrong(
            format!("{value} is not a size"),
            "write a number and its unit (KiB, MiB, GiB): \"64 MiB\"",
        );
    };
    if !(LEAST_BYTES..=MOST_BYTES).contains(&bytes) {
        let (least, most) = (size_text(LEAST_BYTES), size_text(MOST_BYTES));
        return Err(Wrong::from(format!("{value} is not between {least} and {most}")));
    }
    Ok(bytes)
}

/// As in settings of the server, `MB` means 1024 * 1024 bytes, like `MiB`.
fn parse_size(written: &str) -> Option<u64> {
    let split = written.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(written.len());
    let (number, unit) = (written[..split].parse::<f64>().ok()?, written[split..].trim());
    let same = |name: &str| {
        let short = name.replace('i', "");
        unit.eq_ignore_ascii_case(name) || unit.eq_ignore_ascii_case(&short)
    };
    let (_, factor) =
        if unit.is_empty() { Some(&("B", 1)) } else { UNITS.iter().find(|(name, _)| same(name)) }?;
    Some((number * *factor as f64).round() as u64)
}

fn size_text(bytes: u64) -> String {
    let unit = UNITS.into_iter().find(|(_, factor)| bytes.is_multiple_of(*factor));
    unit.map_or_else(String::new, |(name, factor)| format!("{} {name}", bytes / factor))
}

/// Reads a fraction as thousandths.
fn per_mille(value: &Value) -> Read<u16> {
    let share = value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
    match share.filter(|share| (0.01..=1.0).contains(share)) {
        Some(share) => Ok((share * 1000.0).round() as u16),
        None => Err(Wrong::from(format!("{value} is not a fraction between 0.01 and 1"))),
    }
}

fn list<'a>(value: &'a Value, example: &str) -> Read<Vec<&'a str>> {
    let Value::Array(list) = value else {
        return wrong(format!("{value} is not a list"), format!("write {example}"));
    };
    list.iter().map(text).collect()
}

fn windows(value: &Value) -> Read<Windows> {
    Ok(Windows::parse(list(value, "[\"Mon-Fri 22:00-05:00\"]")?)?)
}

fn query(value: &Value) -> Read<String> {
    let written = text(value)?.trim().trim_end_matches(';').to_owned();
    if written.is_empty() {
        return wrong("is empty", "write a query that returns one value: \"select ...\"");
    }
    Ok(written)
}

/// Reads connection strings. They must not contain a password, because plans are stored in repositories and in the
/// database.
fn replicas(value: &Value) -> Read<Vec<String>> {
    let list = list(value, "[\"host=standby1\"]")?;
    let secret = |dsn: &str| {
        let login =
            dsn.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map_or("", |(login, _)| login);
        dsn.to_ascii_lowercase().contains("password") || login.contains(':')
    };
    if list.iter().any(|dsn| secret(dsn)) {
        return wrong("contains a password", "remove it, and store it in ~/.pgpass");
    }
    if list.iter().any(|dsn| dsn.trim().is_empty()) {
        return wrong("contains an empty connection string", "write [\"host=standby1\"]");
    }
    Ok(list.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
pub(super) mod tests {
    use chrono_tz::TZ_VARIANTS;
    use insta::assert_snapshot;
    use proptest::prelude::*;

    use super::*;
    use crate::plan::Plan;
    use crate::plan::tests::properties::duration;

    /// A section in which every setting is set.
    pub(in crate::plan) fn full_throttle() -> Throttle {
        Throttle {
            rows_per_second: Some(1),
            wal_bytes_per_second: Some(1 << 20),
            max_replica_lag: ReplicaLag::Off,
            max_replica_lag_bytes: Some(1 << 20),
            replicas: vec!["host=a".to_owned()],
            max_slot_retained_bytes: Some(1 << 20),
            max_active_backends: Some(1),
            max_commit_latency: Some(Duration::from_millis(1)),
            max_dead_share: DeadShare::Limit(250),
            query: Some("select 1".to_owned()),
            windows: Windows::parse(["22:00-05:00"]).unwrap(),
            ..Throttle::default()
        }
    }

    prop_compose! {
        pub(in crate::plan) fn throttle()(
            rows_per_second in prop::option::of(1..=u32::MAX),
            (wal_bytes_per_second, max_replica_lag_bytes, max_slot_retained_bytes) in (bytes(), bytes(), bytes()),
            max_replica_lag in prop_oneof![
                Just(ReplicaLag::Default), Just(ReplicaLag::Off), duration(100..=86_400_000).prop_map(ReplicaLag::Limit),
            ],
            replicas in prop::collection::vec("host=[a-z ]{1,9}", 0..3),
            forget_replica_after in duration(0..=30 * 86_400_000),
            archiver in any::<bool>(),
            max_active_backends in prop::option::of(1..=100_000_u32),
            max_commit_latency in prop::option::of(duration(1..=60_000)),
            max_dead_share in prop_oneof![
                Just(DeadShare::Default), Just(DeadShare::Off), (10_u16..=1000).prop_map(DeadShare::Limit),
            ],
            (query, query_limit) in (prop::option::of("select \\PC{1,20}[^;\\s\\p{C}]"), any::<u32>()),
            windows in prop::collection::vec("(Mon-Fri |Sat |)22:[0-5][0-9]-0[0-9]:00", 0..3),
            timezone in prop::sample::select(TZ_VARIANTS.to_vec()),
        ) -> Throttle {
            let windows = Windows::parse(windows.iter().map(String::as_str)).unwrap();
            Throttle {
                rows_per_second, wal_bytes_per_second, max_replica_lag, max_replica_lag_bytes, replicas, forget_replica_after,
                max_slot_retained_bytes, archiver, max_active_backends, max_commit_latency, max_dead_share, query, query_limit, windows,
                timezone,
            }
        }
    }

    fn bytes() -> impl Strategy<Value = Option<u64>> {
        prop::option::of(prop_oneof![(64_u64..=1 << 20).prop_map(|n| n << 10), (65_536..=1_u64 << 50)])
    }

    fn refused(lines: &str) -> String {
        let text = format!("table = 't'\n[partition]\nby = 'at'\nevery = 'month'\n[throttle]\n{lines}\n");
        Plan::parse(&text, "p.toml").unwrap_err().to_string()
    }

    #[test]
    fn sizes_are_read_as_the_server_reads_them() {
        let read = ["64 MiB", "64MB", "65536 kB", "67108864", "0.0625 gb", "67108864 B"].map(parse_size);
        assert_eq!(read, [Some(64 << 20); 6]);
        assert_eq!(["", "MB", "1 XB", "1,5 GB", "-1"].map(parse_size), [None; 5]);
        assert_eq!([1 << 30, 3 << 19, 70_000].map(size_text), ["1 GiB", "1536 KiB", "70000 B"]);
    }

    #[test]
    fn invalid_values_are_rejected() {
        assert_snapshot!(refused(
            "max_replica_lag = '2 days'\nmax_replica_lag_bytes = 'much'\nreplicas = ['postgres://u:p@h/d']\nforget_replica_after = -1\n\
             max_slot_retained_bytes = 1\narchiver = 'no'\nmax_active_backends = 0\nmax_commit_latency = '2min'\nmax_dead_share = 40\n\
             query = ' ; '\nquery_limit = 0.5\nwindows = 'always'\ntimezone = 'Berlin'\nwal_bytes_per_second = true"
        ), @r#"
        p.toml has 14 errors
          p.toml:6:19: throttle.max_replica_lag: 2 days is not between 100ms and 1 days
          p.toml:7:25: throttle.max_replica_lag_bytes: "much" is not a size
            hint: write a number and its unit (KiB, MiB, GiB): "64 MiB"
          p.toml:8:12: throttle.replicas: contains a password
            hint: remove it, and store it in ~/.pgpass
          p.toml:9:24: throttle.forget_replica_after: `-1` is not a duration
            hint: write a whole number and its unit (ms, s, min, h, days): "5min"
          p.toml:10:27: throttle.max_slot_retained_bytes: 1 is not between 64 KiB and 1024 TiB
          p.toml:11:12: throttle.archiver: "no" is not true or false
            hint: write it without quotes
          p.toml:12:23: throttle.max_active_backends: 0 is not a whole number between 1 and 100000
          p.toml:13:22: throttle.max_commit_latency: 2min is not between 1ms and 60s
          p.toml:14:18: throttle.max_dead_share: 40 is not a fraction between 0.01 and 1
          p.toml:15:9: throttle.query: is empty
            hint: write a query that returns one value: "select ..."
          p.toml:16:15: throttle.query_limit: 0.5 is not a whole number between 0 and 4294967295
          p.toml:17:11: throttle.windows: "always" is not a list
            hint: write ["Mon-Fri 22:00-05:00"]
          p.toml:18:12: throttle.timezone: `Berlin` is not a time zone
            hint: did you mean Europe/Berlin, America/Belize or Europe/Dublin?
          p.toml:19:24: throttle.wal_bytes_per_second: true is not a size
            hint: write a number and its unit (KiB, MiB, GiB): "64 MiB"
        "#);
        assert_snapshot!(refused("windows = ['Mon 24:00-05:00']"), @"p.toml:6:11: throttle.windows: `Mon 24:00-05:00` is empty, because its start and end are the same; a whole day is 00:00-24:00");
        assert_snapshot!(refused("max_replica_lag_s = 5"), @"
        p.toml:6:1: unknown key `max_replica_lag_s` under [throttle]
        hint: did you mean `max_replica_lag`?
        ");
    }
}
