//! Sentences about throttling.

use std::time::Duration;

use crate::model::number;
use crate::model::pace::{Cause, Hold, Signal, Unit};
use crate::model::shell::word;

/// `replica_lag_s is 12s, limit 10s: standby walreceiver`.
pub(super) fn hold_of(hold: &Hold) -> String {
    self::hold(hold.signal, hold.value, hold.limit, hold.unread, hold.cause.as_ref())
}

/// The same sentence, from the fields of a hold.
pub(in super::super) fn hold(
    signal: Signal,
    value: f64,
    limit: f64,
    unread: bool,
    cause: Option<&Cause>,
) -> String {
    if let Some(Cause::Paused { job }) = cause {
        return format!("paused by `pgstrata pause`; `pgstrata resume {}` resumes the job", word(job));
    }
    let (name, unit) = (signal.name(), signal.unit());
    let mut text = if unread {
        format!("{name} could not be read for {}, limit {}", seconds(value), seconds(limit))
    } else if unit == Unit::OnOff {
        name.to_owned()
    } else {
        format!("{name} is {}, limit {}", in_unit(unit, value), in_unit(unit, limit))
    };
    if let Some(cause) = cause {
        text.push_str(&format!(": {}", self::cause(cause)));
    }
    text
}

/// `replica_lag_s throttled the job for 4.1 s`.
pub(super) fn resumed(signal: Signal, throttled_s: f64) -> String {
    if signal == Signal::Paused {
        return format!("the job was paused for {}", seconds(throttled_s));
    }
    format!("{} throttled the job for {}", signal.name(), seconds(throttled_s))
}

fn seconds(s: f64) -> String {
    number::duration(Duration::try_from_secs_f64(s).unwrap_or_default())
}

fn in_unit(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Seconds => seconds(value),
        Unit::Milliseconds => seconds(value / 1000.0),
        Unit::Bytes => number::bytes(value.max(0.0) as u64),
        Unit::Share => format!("{value:.2}"),
        Unit::Count if value.fract() == 0.0 && value >= 0.0 => number::count(value as u64),
        Unit::Count | Unit::OnOff => format!("{value}"),
    }
}

fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Paused { .. } => String::new(),
        Cause::WaitingSession { pid } => format!("pid {pid} waits for a lock that the job holds"),
        Cause::Vacuum { table, age_transactions } => {
            let age = number::counted(*age_transactions, "transaction");
            format!("a vacuum to prevent wraparound is running on {table}, whose age is {age}")
        }
        Cause::ArchiveCommand { wal_file } => format!("archive_command failed for {wal_file}"),
        Cause::Slot { slot } => format!("slot {slot}"),
        Cause::OtherSessions => "active sessions, not counting the job's".to_owned(),
        Cause::TinyTransaction => "the smoothed duration of a small transaction of the job".to_owned(),
        Cause::DeadRows { table, dead_rows, autovacuum, kept_by, snapshot_age_s } => {
            let rows = number::counted(*dead_rows, "dead row");
            format!("{table} has {rows}; {}", vacuum(table, *autovacuum, kept_by.as_deref(), *snapshot_age_s))
        }
        Cause::PlanQuery => "the plan's query".to_owned(),
        Cause::Standby { standby } => format!("standby {standby}"),
        Cause::StandbyGone { standby, error } => {
            let error = error.as_ref().map_or(String::new(), |error| format!(" ({error})"));
            format!("standby {standby} is disconnected{error}; the job ignores it once the limit is reached")
        }
        Cause::NotPermitted { role, standbys } => {
            let instead = if *standbys { ", or list the standbys under [throttle] replicas" } else { "" };
            format!("grant pg_monitor to {role}{instead}")
        }
        Cause::PlanQueryFailed { error } => {
            let error = error.as_deref().unwrap_or("it has not returned a value yet");
            format!("the plan's query: {error}")
        }
        Cause::ServerUnreadable { error } => error.clone(),
    }
}

/// When the next vacuum of a table can remove its dead rows.
fn vacuum(table: &str, autovacuum: bool, kept_by: Option<&str>, snapshot_age_s: Option<f64>) -> String {
    match kept_by {
        Some(by) => {
            let age = seconds(snapshot_age_s.unwrap_or_default());
            format!("vacuum cannot remove them until {by} ends, whose snapshot is {age} old")
        }
        None if autovacuum => "autovacuum will remove them".to_owned(),
        None => format!("autovacuum is off for this table: run `vacuum {table}`"),
    }
}
