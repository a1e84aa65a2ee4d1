//! From the file to the [`Plan`]: every value read, checked against its range, and the defaults filled in.
//!
//! The defaults are the decision: each stands here once, with its reason where it is not plain.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use chrono_tz::{TZ_VARIANTS, Tz};
use toml::Value;

use super::{
    IncomingKeys, LockBudget, OldSnapshots, Order, Partitioning, Plan, Rows, Task, When, Workers, backfill,
    file::{Leaf, PlanFile, RetentionSection, SwapSection},
    identity::duration_text,
    problem::Problem,
    retention::{How, Retention},
    retype, throttle,
};
use crate::model::{
    ident::{MAX_BYTES, QualifiedName},
    pace::MOST_WORKERS,
    partition::Every,
};

const AHEAD: u32 = 3;
/// How many a server can spare, only it can say.
const WORKERS: Workers = Workers::Auto;
const TARGET_BATCH_MS: u64 = 500;
/// A chunk that holds rows makes whoever writes one of them wait to its end. Half as long makes half as many wait, and half as
/// long, for 2 ms more a chunk.
const TARGET_HELD_MS: u64 = 50;
/// How long the application may wait behind one try of the swap.
const LOCK_TIMEOUT: Duration = Duration::from_millis(200);
const ATTEMPTS: u32 = 100;
/// No new try of the swap after this time.
const GIVE_UP_AFTER: Duration = Duration::from_secs(15 * 60);
const DAY: Duration = Duration::from_secs(86_400);

/// Must stay below the server's `deadlock_timeout` as well, which preflight knows.
const LOCK_TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(10);
const GIVES_UP: RangeInclusive<Duration> = Duration::from_secs(1)..=DAY;
const CANCELS: RangeInclusive<Duration> = Duration::ZERO..=DAY;
const KEEPS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3650 * 86_400);

/// Why a value is wrong, and what to write instead.
pub(super) struct Wrong {
    fact: String,
    hint: Option<String>,
}

pub(super) type Read<T> = Result<T, Wrong>;

impl From<String> for Wrong {
    fn from(fact: String) -> Self {
        Self { fact, hint: None }
    }
}

pub(super) fn wrong<T>(fact: impl Into<String>, hint: impl Into<String>) -> Read<T> {
    Err(Wrong { fact: fact.into(), hint: Some(hint.into()) })
}

/// The problems so far. Whoever reads a wrong value goes on without it, to find the others.
#[derive(Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        leaf: &Option<Leaf>,
        read: impl FnOnce(&Value) -> Read<T>,
    ) -> Option<T> {
        let leaf = leaf.as_ref()?;
        match read(leaf.get_ref()) {
            Ok(value) => Some(value),
            Err(Wrong { fact, hint }) => {
                let problem = Problem::new(Some(leaf.span()), format!("{key}: {fact}"));
                self.0.push(match hint {
                    Some(hint) => problem.hint(hint),
                    None => problem,
                });
                None
            }
        }
    }

    pub(super) fn required<T>(
        &mut self,
        key: &str,
        leaf: &Option<Leaf>,
        example: &str,
        read: impl FnOnce(&Value) -> Read<T>,
    ) -> Option<T> {
        if leaf.is_none() {
            let hint = match key.split_once('.') {
                Some((section, _)) => format!("write {example} under [{section}]"),
                None => format!("write {example}"),
            };
            self.0.push(Problem::new(None, format!("{key} is missing")).hint(hint));
        }
        self.optional(key, leaf, read)
    }
}

/// The plan of a file, or everything that is wrong with it.
pub(super) fn resolve(file: &PlanFile) -> Result<Plan, Vec<Problem>> {
    let mut p = Problems::default();
    let PlanFile { name, kind, table: written_table, trust, copy, swap, .. } = file;
    let kind = p.optional("kind", kind, one_of(Kind::ALL, Kind::name)).unwrap_or(Kind::Partition);
    let table = p
        .required("table", written_table, "table = \"schema.name\"", |v| Ok(QualifiedName::parse(text(v)?)?));
    let name = match (name, &table) {
        (None, Some(table)) => p.optional("name", written_table, |_| table_as_name(table)),
        (name, _) => p.optional("name", name, |v| Ok(checked_name(text(v)?)?)),
    };
    let trust = p.optional("trust", trust, |v| plain_texts(v)?.iter().map(|role| column(role)).collect());
    strangers(&mut p, file, kind);
    let task = match kind {
        Kind::Partition => partitioning(&mut p, file).map(Task::Partition),
        Kind::Backfill => backfill::resolve(&file.backfill, &mut p).map(Task::Backfill),
        Kind::Retype => retype::resolve(&file.retype, &mut p).map(Task::Retype),
    };
    let workers = p.optional("copy.workers", &copy.workers, workers);
    let target_ms = p.optional("copy.target_batch_ms", &copy.target_batch_ms, number(10..=60_000));
    let throttle = throttle::resolve(&file.throttle, &mut p);
    let usual_ms = if kind == Kind::Partition { TARGET_BATCH_MS } else { TARGET_HELD_MS };
    let when = p.optional("swap.when", &swap.when, one_of(When::ALL, When::name));
    let budget = lock_budget(&mut p, swap);
    let old_snapshots =
        p.optional("swap.old_snapshots", &swap.old_snapshots, one_of(OldSnapshots::ALL, OldSnapshots::name));
    let keep_old = p.optional("swap.keep_old", &swap.keep_old, |v| duration(v, "7 days", KEEPS));
    match (name, table, task) {
        (Some(name), Some(table), Some(task)) if p.0.is_empty() => Ok(Plan {
            name,
            table,
            trust: trust.unwrap_or_default(),
            task,
            workers: workers.unwrap_or(WORKERS),
            target_batch: Duration::from_millis(target_ms.unwrap_or(usual_ms)),
            throttle,
            when: when.unwrap_or(When::Manual),
            budget,
            old_snapshots: old_snapshots.unwrap_or(OldSnapshots::Wait),
            keep_old: keep_old.unwrap_or(7 * DAY),
        }),
        _ => Err(p.0),
    }
}

/// What a plan may be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Partition,
    Backfill,
    Retype,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Partition, Self::Backfill, Self::Retype];

    fn name(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Backfill => "backfill",
            Self::Retype => "retype",
        }
    }
}

/// Settings that a job of that kind has no use for: whoever wrote them expects something that would not happen.
fn strangers(p: &mut Problems, file: &PlanFile, kind: Kind) {
    let of_partition = file.partition.leaves().into_iter().chain(file.retention.leaves()).chain([
        ("copy.order", &file.copy.order),
        ("verify.rows", &file.verify.rows),
        ("dependents.incoming_fk", &file.dependents.incoming_fk),
    ]);
    let of_swap = [
        ("swap.when", &file.swap.when),
        ("swap.old_snapshots", &file.swap.old_snapshots),
        ("swap.keep_old", &file.swap.keep_old),
    ];
    let (of_backfill, of_retype) = (file.backfill.leaves(), file.retype.leaves());
    let strangers: Vec<_> = match kind {
        Kind::Partition => of_backfill.into_iter().chain(of_retype).collect(),
        Kind::Backfill => of_partition.chain(of_swap).chain(of_retype).collect(),
        Kind::Retype => of_partition.chain(of_backfill).collect(),
    };
    for (key, leaf) in strangers {
        p.optional::<()>(key, leaf, |_| {
            wrong(
                format!("means nothing to a job of kind \"{}\"", kind.name()),
                "leave it out, or write another kind",
            )
        });
    }
}

fn partitioning(p: &mut Problems, file: &PlanFile) -> Option<Partitioning> {
    let PlanFile { partition, copy, verify, dependents, retention, .. } = file;
    let by = p.required("partition.by", &partition.by, "by = \"created_at\"", |v| column(text(v)?));
    let every = p.required("partition.every", &partition.every, "every = \"1 month\"", interval);
    let timezone = p.optional("partition.timezone", &partition.timezone, |v| zone(text(v)?));
    let from = p.optional("partition.from", &partition.from, plain_text);
    let to = p.optional("partition.to", &partition.to, plain_text);
    let ahead = p.optional("partition.ahead", &partition.ahead, number(0..=1000));
    let names = p.optional("partition.names", &partition.names, |v| template(text(v)?));
    let default = p.optional("partition.default", &partition.default, flag);
    let drop_unique = p.optional("partition.drop_unique", &partition.drop_unique, index_names);
    let order = p.optional("copy.order", &copy.order, one_of(Order::ALL, Order::name));
    let verify = p.optional("verify.rows", &verify.rows, one_of(Rows::ALL, Rows::name));
    let incoming = &dependents.incoming_fk;
    let incoming =
        p.optional("dependents.incoming_fk", incoming, one_of(IncomingKeys::ALL, IncomingKeys::name));
    let retention = read_retention(p, retention, every);
    Some(Partitioning {
        by: by?,
        every: every?,
        timezone: timezone.unwrap_or(Tz::UTC),
        from,
        to,
        ahead: ahead.unwrap_or(AHEAD),
        names,
        default: default.unwrap_or(true),
        drop_unique: drop_unique.unwrap_or_default(),
        order: order.unwrap_or(Order::Auto),
        verify: verify.unwrap_or(Rows::Hash),
        incoming_keys: incoming.unwrap_or(IncomingKeys::Refuse),
        retention,
    })
}

fn interval(value: &Value) -> Read<Every> {
    Ok(plain_text(value)?.parse::<Every>()?)
}

/// All partitions are kept unless the section says otherwise.
fn read_retention(p: &mut Problems, section: &RetentionSection, every: Option<Every>) -> Option<Retention> {
    if section.keep.is_none() && section.how.is_none() {
        return None;
    }
    let how = p.optional("retention.how", &section.how, one_of(How::ALL, How::name));
    let keep = p.required("retention.keep", &section.keep, "keep = \"24 months\"", |v| {
        let keep = interval(v)?;
        let counts = |interval| matches!(interval, Every::Integers(_));
        match every.filter(|every| counts(*every) != counts(keep)) {
            None => Ok(keep),
            Some(every) => wrong(
                format!("`{keep}` does not go with partitions of `{every}`"),
                "write both as times, or both as numbers",
            ),
        }
    });
    Some(Retention { keep: keep?, how: how.unwrap_or(How::Report) })
}

fn lock_budget(p: &mut Problems, swap: &SwapSection) -> LockBudget {
    let lock_timeout =
        p.optional("swap.lock_timeout", &swap.lock_timeout, |v| duration(v, "200ms", LOCK_TIMEOUTS));
    let attempts = p.optional("swap.attempts", &swap.attempts, number(1..=100_000));
    let give_up_after =
        p.optional("swap.give_up_after", &swap.give_up_after, |v| duration(v, "15 min", GIVES_UP));
    let cancel_blockers_after =
        p.optional("swap.cancel_blockers_after", &swap.cancel_blockers_after, |v| duration(v, "5s", CANCELS));
    LockBudget {
        lock_timeout: lock_timeout.unwrap_or(LOCK_TIMEOUT),
        attempts: attempts.unwrap_or(ATTEMPTS),
        give_up_after: give_up_after.unwrap_or(GIVE_UP_AFTER),
        cancel_blockers_after,
    }
}

fn table_as_name(table: &QualifiedName) -> Read<String> {
    let name = table.name.as_str();
    checked_name(name)
        .or_else(|fact| wrong(format!("the table's name {fact}"), "give the job a name of its own"))
}

/// A job's name: it is typed on command lines and stands in logs.
fn checked_name(name: &str) -> Result<String, String> {
    if name.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if name.len() > MAX_BYTES {
        return Err(format!("has {} bytes, not 1 to {MAX_BYTES}", name.len()));
    }
    if name.chars().any(char::is_control) {
        return Err("has a control character".to_owned());
    }
    Ok(name.to_owned())
}

/// One name as in SQL, read as the last part of a name of two so that it is quoted and folded by the same rules.
pub(super) fn column(written: &str) -> Read<String> {
    match QualifiedName::parse(&format!("x.{}", written.trim())) {
        Ok(two) => Ok(two.name.as_str().to_owned()),
        Err(_) => wrong(
            format!("`{written}` is not one name"),
            "write it as in SQL, in double quotes where it has other signs than letters, digits and _: '\"My Column\"'",
        ),
    }
}

fn workers(value: &Value) -> Read<Workers> {
    if value.as_str() == Some("auto") {
        return Ok(Workers::Auto);
    }
    number(1..=MOST_WORKERS)(value).map(Workers::Fixed).map_err(|_| {
        Wrong::from(format!("{value} is not \"auto\" or a whole number from 1 to {MOST_WORKERS}"))
    })
}

/// Sorted, each once: their order means nothing.
fn index_names(value: &Value) -> Read<Vec<String>> {
    let Value::Array(names) = value else {
        return wrong(format!("{value} is no list"), "write [\"index_name\"]");
    };
    let mut names = names.iter().map(|name| column(text(name)?)).collect::<Read<Vec<_>>>()?;
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// The template of partition names.
fn template(written: &str) -> Read<String> {
    if written.is_empty() {
        return wrong("is empty", "write \"{table}_y{yyyy}m{mm}\", for instance, or leave it out");
    }
    Ok(written.to_owned())
}

pub(super) fn zone(written: &str) -> Read<Tz> {
    Tz::from_str_insensitive(written).or_else(|_| {
        wrong(format!("`{written}` is no time zone"), format!("did you mean {}?", nearest_zones(written)))
    })
}

/// The three likest, by the whole name or by the city alone: `Berlin` means `Europe/Berlin`.
fn nearest_zones(written: &str) -> String {
    let written = written.to_lowercase();
    let likeness = |zone: &Tz| {
        let name = zone.name().to_lowercase();
        let city = name.rsplit('/').next().unwrap_or_default();
        strsim::jaro_winkler(&written, &name).max(strsim::jaro_winkler(&written, city))
    };
    let mut zones: Vec<(f64, &str)> = TZ_VARIANTS.iter().map(|zone| (likeness(zone), zone.name())).collect();
    zones.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let [first, second, third] = [0, 1, 2].map(|at: usize| zones.get(at).map_or("UTC", |zone| zone.1));
    format!("{first}, {second} or {third}")
}

pub(super) fn text(value: &Value) -> Read<&str> {
    match value {
        Value::String(text) => Ok(text),
        other => wrong(format!("{other} is no text"), "write it in double quotes"),
    }
}

/// Text, or what TOML has for a number or a date without quotes.
fn plain_text(value: &Value) -> Read<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(n) => Ok(n.to_string()),
        Value::Datetime(moment) => Ok(moment.to_string()),
        other => wrong(format!("{other} is no text"), "write it in double quotes"),
    }
}

/// A list of texts.
pub(super) fn plain_texts(value: &Value) -> Read<Vec<String>> {
    match value {
        Value::Array(all) => all.iter().map(|one| text(one).map(str::to_owned)).collect(),
        other => wrong(format!("{other} is no list"), "write it in brackets: [\"...\"]"),
    }
}

pub(super) fn flag(value: &Value) -> Read<bool> {
    value
        .as_bool()
        .map_or_else(|| wrong(format!("{value} is not true or false"), "write it without quotes"), Ok)
}

pub(super) fn number<T>(range: RangeInclusive<T>) -> impl FnOnce(&Value) -> Read<T>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    move |value| {
        let number = value.as_integer().and_then(|n| T::try_from(n).ok()).filter(|n| range.contains(n));
        number.ok_or_else(|| {
            Wrong::from(format!("{value} is not a whole number from {} to {}", range.start(), range.end()))
        })
    }
}

pub(super) fn duration(value: &Value, example: &str, range: RangeInclusive<Duration>) -> Read<Duration> {
    let written = plain_text(value)?;
    let Ok(duration) = humantime::parse_duration(&written) else {
        return wrong(
            format!("`{written}` is no duration"),
            format!("write a whole number and its unit (ms, s, min, h, days): \"{example}\""),
        );
    };
    if !range.contains(&duration) {
        let (least, most) = (duration_text(*range.start()), duration_text(*range.end()));
        return Err(format!("{written} is not from {least} to {most}").into());
    }
    Ok(duration)
}

fn one_of<T: Copy, const N: usize>(
    all: [T; N],
    name: fn(T) -> &'static str,
) -> impl FnOnce(&Value) -> Read<T> {
    move |value| {
        let found = all.into_iter().find(|one| value.as_str() == Some(name(*one)));
        found.ok_or_else(|| {
            let known = all.map(|one| format!("\"{}\"", name(one)));
            Wrong::from(format!("{value} is not {}", known.join(" or ")))
        })
    }
}
