//! From the file to the [`Plan`]: reads every value, checks its range, and fills in the defaults.
//!
//! Each default is defined once, here or in `throttle`, with its reason if it is not obvious.

use std::{ops::RangeInclusive, time::Duration};

use chrono_tz::Tz;
use toml::Value;

use super::{
    IncomingKeys, KeepUnique, LockBudget, OldSnapshots, Order, Partitioning, Plan, RowComparison, Task, When,
    Workers, backfill,
    file::{PlanFile, RetentionSection, SwapSection},
    problem::Problem,
    read::{
        Problems, Read, Wrong, column, duration, flag, number, one_of, plain_text, plain_texts, text, wrong,
        zone,
    },
    retention::{Retention, RetentionAction},
    retype, throttle,
};
use crate::model::{
    ident::{MAX_BYTES, QualifiedName},
    kind::TaskKind,
    pace::MOST_WORKERS,
    partition::Every,
};

const AHEAD: u32 = 3;
/// The right number depends on the load of the server.
const WORKERS: Workers = Workers::Auto;
const TARGET_BATCH_MS: u64 = 500;
/// For jobs that update the table: a chunk locks its rows, and sessions that write one of these rows wait until the
/// chunk ends. With chunks of half the duration, half as many sessions wait, and half as long; the cost is 2 ms per
/// chunk.
const TARGET_LOCKING_MS: u64 = 50;
/// How long one attempt of the swap can block applications.
const LOCK_TIMEOUT: Duration = Duration::from_millis(200);
const ATTEMPTS: u32 = 100;
/// No new attempt of the swap starts after this time.
const GIVE_UP_AFTER: Duration = Duration::from_secs(15 * 60);
const DAY: Duration = Duration::from_secs(86_400);

/// The check also requires a value below the server's `deadlock_timeout`.
const LOCK_TIMEOUT_RANGE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(10);
const GIVE_UP_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=DAY;
const CANCEL_RANGE: RangeInclusive<Duration> = Duration::ZERO..=DAY;
const KEEP_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3650 * 86_400);

/// Returns the plan of a file, or all of its problems.
pub(super) fn resolve(file: &PlanFile) -> Result<Plan, Vec<Problem>> {
    let mut p = Problems::default();
    let PlanFile { name, kind, table: written_table, trust, copy, swap, .. } = file;
    let kind = p.optional("kind", kind, one_of(TaskKind::ALL, TaskKind::name)).unwrap_or(TaskKind::Partition);
    let table = p
        .required("table", written_table, "table = \"schema.name\"", |v| Ok(QualifiedName::parse(text(v)?)?));
    let name = match (name, &table) {
        (None, Some(table)) => p.optional("name", written_table, |_| table_as_name(table)),
        (name, _) => p.optional("name", name, |v| Ok(checked_name(text(v)?)?)),
    };
    let trust = p.optional("trust", trust, |v| plain_texts(v)?.iter().map(|role| column(role)).collect());
    inapplicable(&mut p, file, kind);
    let read: fn(&mut Problems, &PlanFile) -> Option<Task> = kind.pick([
        |p, file| partitioning(p, file).map(Task::Partition),
        |p, file| backfill::resolve(&file.backfill, p).map(Task::Backfill),
        |p, file| retype::resolve(&file.retype, p).map(Task::Retype),
    ]);
    let task = read(&mut p, file);
    let workers = p.optional("copy.workers", &copy.workers, workers);
    let target_ms = p.optional("copy.target_batch_ms", &copy.target_batch_ms, number(10..=60_000));
    let throttle = throttle::resolve(&file.throttle, &mut p);
    let usual_ms = kind.pick([TARGET_BATCH_MS, TARGET_LOCKING_MS, TARGET_LOCKING_MS]);
    let when = p.optional("swap.when", &swap.when, one_of(When::ALL, When::name));
    let budget = lock_budget(&mut p, swap);
    let old_snapshots =
        p.optional("swap.old_snapshots", &swap.old_snapshots, one_of(OldSnapshots::ALL, OldSnapshots::name));
    let keep_old = p.optional("swap.keep_old", &swap.keep_old, |v| duration(v, "7 days", KEEP_RANGE));
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

/// Rejects settings that do not apply to that kind of job. The author of the plan expects an effect that they do not
/// have.
fn inapplicable(p: &mut Problems, file: &PlanFile, kind: TaskKind) {
    let mut of_partition = file.partition.leaves().to_vec();
    of_partition.extend(file.retention.leaves());
    of_partition.extend([
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
    let inapplicable = kind.pick([
        [&of_backfill[..], &of_retype].concat(),
        [&of_partition, &of_swap[..], &of_retype].concat(),
        [&of_partition, &of_backfill[..]].concat(),
    ]);
    for (key, leaf) in inapplicable {
        p.optional::<()>(key, leaf, |_| {
            wrong(
                format!("does not apply to a plan of kind \"{}\"", kind.name()),
                "remove it, or change the kind",
            )
        });
    }
}

fn partitioning(p: &mut Problems, file: &PlanFile) -> Option<Partitioning> {
    let PlanFile { partition, copy, verify, dependents, retention, .. } = file;
    let by = p.required("partition.by", &partition.by, "by = \"created_at\"", |v| column(text(v)?));
    let not_null = p.optional("partition.not_null", &partition.not_null, flag);
    let null_as = p.optional("partition.null_as", &partition.null_as, backfill::expression);
    let every = p.required("partition.every", &partition.every, "every = \"1 month\"", interval);
    let timezone = p.optional("partition.timezone", &partition.timezone, |v| zone(text(v)?));
    let from = p.optional("partition.from", &partition.from, plain_text);
    let to = p.optional("partition.to", &partition.to, plain_text);
    let ahead = p.optional("partition.ahead", &partition.ahead, number(0..=1000));
    let names = p.optional("partition.names", &partition.names, |v| template(text(v)?));
    let default = p.optional("partition.default", &partition.default, flag);
    let keep_unique = p.optional("partition.keep_unique", &partition.keep_unique, kept_unique);
    let drop_unique = p.optional("partition.drop_unique", &partition.drop_unique, index_names);
    let order = p.optional("copy.order", &copy.order, one_of(Order::ALL, Order::name));
    let verify = p.optional("verify.rows", &verify.rows, one_of(RowComparison::ALL, RowComparison::name));
    let incoming = &dependents.incoming_fk;
    let incoming =
        p.optional("dependents.incoming_fk", incoming, one_of(IncomingKeys::ALL, IncomingKeys::name));
    let retention = read_retention(p, retention, every);
    Some(Partitioning {
        by: by?,
        not_null: not_null.unwrap_or(false),
        null_as,
        every: every?,
        timezone: timezone.unwrap_or(Tz::UTC),
        from,
        to,
        ahead: ahead.unwrap_or(AHEAD),
        names,
        default: default.unwrap_or(true),
        keep_unique: keep_unique.unwrap_or(KeepUnique::Needed),
        drop_unique: drop_unique.unwrap_or_default(),
        order: order.unwrap_or(Order::Auto),
        verify: verify.unwrap_or(RowComparison::Hash),
        incoming_keys: incoming.unwrap_or(IncomingKeys::Keep),
        retention,
    })
}

fn interval(value: &Value) -> Read<Every> {
    Ok(plain_text(value)?.parse::<Every>()?)
}

/// Without the section, all partitions are kept.
fn read_retention(p: &mut Problems, section: &RetentionSection, every: Option<Every>) -> Option<Retention> {
    if section.keep.is_none() && section.how.is_none() {
        return None;
    }
    let how = p.optional("retention.how", &section.how, one_of(RetentionAction::ALL, RetentionAction::name));
    let keep = p.required("retention.keep", &section.keep, "keep = \"24 months\"", |v| {
        let keep = interval(v)?;
        let is_integers = |interval| matches!(interval, Every::Integers(_));
        match every.filter(|every| is_integers(*every) != is_integers(keep)) {
            None => Ok(keep),
            Some(every) => wrong(
                format!("`{keep}` does not match partitions of `{every}`"),
                "write both as intervals of time, or both as numbers",
            ),
        }
    });
    Some(Retention { keep: keep?, how: how.unwrap_or(RetentionAction::Report) })
}

fn lock_budget(p: &mut Problems, swap: &SwapSection) -> LockBudget {
    let lock_timeout =
        p.optional("swap.lock_timeout", &swap.lock_timeout, |v| duration(v, "200ms", LOCK_TIMEOUT_RANGE));
    let attempts = p.optional("swap.attempts", &swap.attempts, number(1..=100_000));
    let give_up_after =
        p.optional("swap.give_up_after", &swap.give_up_after, |v| duration(v, "15 min", GIVE_UP_RANGE));
    let cancel_blockers_after = p.optional("swap.cancel_blockers_after", &swap.cancel_blockers_after, |v| {
        duration(v, "5s", CANCEL_RANGE)
    });
    LockBudget {
        lock_timeout: lock_timeout.unwrap_or(LOCK_TIMEOUT),
        attempts: attempts.unwrap_or(ATTEMPTS),
        give_up_after: give_up_after.unwrap_or(GIVE_UP_AFTER),
        cancel_blockers_after,
    }
}

fn table_as_name(table: &QualifiedName) -> Read<String> {
    let name = table.name.as_str();
    checked_name(name).or_else(|fact| {
        wrong(
            format!("the table's name {fact}"),
            "set a name for the job: name = \"...\" at the top of the plan",
        )
    })
}

/// Checks the name of a job, which is used on command lines and in logs.
fn checked_name(name: &str) -> Result<String, String> {
    if name.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if name.len() > MAX_BYTES {
        return Err(format!("has {} bytes; a name has 1 to {MAX_BYTES} bytes", name.len()));
    }
    if name.chars().any(char::is_control) {
        return Err("contains a control character".to_owned());
    }
    Ok(name.to_owned())
}

fn workers(value: &Value) -> Read<Workers> {
    if value.as_str() == Some("auto") {
        return Ok(Workers::Auto);
    }
    number(1..=MOST_WORKERS)(value).map(Workers::Fixed).map_err(|_| {
        Wrong::from(format!("{value} is not \"auto\" or a whole number between 1 and {MOST_WORKERS}"))
    })
}

/// Reads names, sorted and without duplicates, because their order has no meaning.
fn kept_unique(value: &Value) -> Read<KeepUnique> {
    match value {
        Value::Boolean(true) => Ok(KeepUnique::All),
        Value::Boolean(false) => Ok(KeepUnique::None),
        Value::Array(_) => Ok(KeepUnique::Listed(index_names(value)?)),
        _ => wrong(
            format!("{value} is neither a list nor true or false"),
            "write true, false, or [\"index_name\"]",
        ),
    }
}

fn index_names(value: &Value) -> Read<Vec<String>> {
    let Value::Array(names) = value else {
        return wrong(format!("{value} is not a list"), "write [\"index_name\"]");
    };
    let mut names = names.iter().map(|name| column(text(name)?)).collect::<Read<Vec<_>>>()?;
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// The template of partition names.
fn template(written: &str) -> Read<String> {
    if written.is_empty() {
        return wrong("is empty", "write a template such as \"{table}_y{yyyy}m{mm}\", or remove the key");
    }
    Ok(written.to_owned())
}
