//! Where jobs are, for people: a block for one, a table for all.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::paint::harmless;
use crate::model::{number, state::State, status::Status};

const NAME_WIDTH: usize = 10;

/// One job, a fact a line; facts that are not there are left out.
pub(super) fn block(status: &Status) -> String {
    let state = match &status.phase {
        Some(phase) => format!("{}, in {phase}", status.state),
        None => status.state.to_string(),
    };
    let facts = [
        ("job", Some(harmless(&status.job).into_owned())),
        ("table", Some(format!("{} ({})", harmless(&status.table), status.kind))),
        ("state", Some(state)),
        ("rows", Some(rows(status))),
        ("rate", rate(status)),
        ("chunks", chunks(status)),
        ("changes", status.changes_pending.map(|n| format!("{} pending", number::count(n)))),
        ("replicas", status.replica_lag_s.map(|lag_s| format!("{} behind", seconds(lag_s)))),
        ("on hold", hold(status)),
        ("started", Some(time(status.started_at))),
        ("updated", Some(time(status.updated_at))),
        ("swapped", status.swapped_at.map(time)),
        ("keeps old", status.keep_old_until.map(|until| format!("until {}", time(until)))),
    ];
    let lines: Vec<String> =
        facts.into_iter().filter_map(|(name, fact)| Some(format!("{name:<NAME_WIDTH$} {}", fact?))).collect();
    lines.join("\n")
}

/// All jobs, one a line.
pub(super) fn table(statuses: &[Status]) -> String {
    if statuses.is_empty() {
        return "no jobs".to_owned();
    }
    let head = ["JOB", "STATE", "ROWS", "DONE", "LEFT", "PENDING", "UPDATED"].map(str::to_owned);
    let rows = statuses.iter().map(|status| {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            harmless(&status.job).into_owned(),
            status.state.to_string(),
            number::count(status.rows_copied),
            or_dash(number::percent(status.rows_copied, status.rows_estimated)),
            or_dash(status.eta_s.map(number::seconds)),
            or_dash(status.changes_pending.map(number::count)),
            time(status.updated_at),
        ]
    });
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                // Numbers stand under numbers.
                .map(|(i, (cell, width))| match i {
                    2..=5 => format!("{cell:>width$}"),
                    _ => format!("{cell:<width$}"),
                })
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

/// Once all is copied, a guess at how many there were says nothing more.
fn rows(status: &Status) -> String {
    let copied = number::count(status.rows_copied);
    if !matches!(status.state, State::Planned | State::Prepared | State::Capturing) {
        return copied;
    }
    match number::percent(status.rows_copied, status.rows_estimated) {
        Some(percent) => format!("{copied} of about {} ({percent})", number::count(status.rows_estimated)),
        None => copied,
    }
}

fn rate(status: &Status) -> Option<String> {
    let per_second = number::rate(status.rows_per_second?);
    let left = status.eta_s.map(|eta_s| format!(", {} left", number::seconds(eta_s)));
    Some(format!("{per_second} rows/s{}", left.unwrap_or_default()))
}

fn chunks(status: &Status) -> Option<String> {
    if status.chunks_done == 0 {
        return None;
    }
    let mut text = format!("{} done", number::count(status.chunks_done));
    if let Some(rows) = status.chunk_rows {
        text.push_str(&format!(", now of {}", number::counted(rows, "row")));
    }
    let latencies =
        [("p50", status.chunk_ms_p50), ("p99", status.chunk_ms_p99), ("longest", status.chunk_ms_max)];
    for (name, ms) in latencies {
        if let Some(ms) = ms {
            text.push_str(&format!(", {name} {}", number::duration(Duration::from_millis(ms))));
        }
    }
    Some(text)
}

fn hold(status: &Status) -> Option<String> {
    let hold = status.hold.as_ref()?;
    Some(format!("{} is {}, over its limit of {}", hold.signal, hold.value, hold.limit))
}

fn seconds(s: f64) -> String {
    number::duration(Duration::try_from_secs_f64(s).unwrap_or_default())
}

fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::status::Hold;

    fn at(s: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + s, 0).unwrap()
    }

    fn new(job: &str) -> Status {
        Status {
            job: job.to_owned(),
            kind: "partition".to_owned(),
            table: "public.petri_observations".to_owned(),
            state: State::Planned,
            phase: None,
            rows_estimated: 0,
            rows_copied: 0,
            rows_per_second: None,
            eta_s: None,
            chunks_done: 0,
            chunk_rows: None,
            chunk_ms_p50: None,
            chunk_ms_p99: None,
            chunk_ms_max: None,
            changes_pending: None,
            replica_lag_s: None,
            hold: None,
            started_at: at(0),
            updated_at: at(0),
            swapped_at: None,
            keep_old_until: None,
        }
    }

    fn busy() -> Status {
        Status {
            state: State::Capturing,
            phase: Some("copy".to_owned()),
            rows_estimated: 12_345_678,
            rows_copied: 1_234_567,
            rows_per_second: Some(34_000.4),
            eta_s: Some(327),
            chunks_done: 62,
            chunk_rows: Some(20_000),
            chunk_ms_p50: Some(480),
            chunk_ms_p99: Some(900),
            chunk_ms_max: Some(1_234),
            changes_pending: Some(4_321),
            replica_lag_s: Some(7.25),
            hold: Some(Hold { signal: "replica_lag_s".to_owned(), value: 7.25, limit: 5.0 }),
            updated_at: at(90),
            ..new("petri_observations")
        }
    }

    #[test]
    fn one_job_is_a_block() {
        insta::assert_snapshot!(block(&busy()), @"
        job        petri_observations
        table      public.petri_observations (partition)
        state      capturing, in copy
        rows       1,234,567 of about 12,345,678 (9 %)
        rate       34,000 rows/s, 5m 27s left
        chunks     62 done, now of 20,000 rows, p50 480 ms, p99 900 ms, longest 1.2 s
        changes    4,321 pending
        replicas   7.2 s behind
        on hold    replica_lag_s is 7.25, over its limit of 5
        started    2026-01-01 00:00:00 UTC
        updated    2026-01-01 00:01:30 UTC
        ");
        insta::assert_snapshot!(block(&new("a\nb")), @r#"
        job        a\nb
        table      public.petri_observations (partition)
        state      planned
        rows       0
        started    2026-01-01 00:00:00 UTC
        updated    2026-01-01 00:00:00 UTC
        "#);
        let swapped = Status {
            state: State::Swapped,
            rows_estimated: 10,
            rows_copied: 11,
            changes_pending: Some(0),
            swapped_at: Some(at(100)),
            keep_old_until: Some(at(604_900)),
            ..new("t")
        };
        insta::assert_snapshot!(block(&swapped), @"
        job        t
        table      public.petri_observations (partition)
        state      swapped
        rows       11
        changes    0 pending
        started    2026-01-01 00:00:00 UTC
        updated    2026-01-01 00:00:00 UTC
        swapped    2026-01-01 00:01:40 UTC
        keeps old  until 2026-01-08 00:01:40 UTC
        ");
    }

    #[test]
    fn all_jobs_are_a_table() {
        insta::assert_snapshot!(table(&[busy(), new("größe")]), @"
        JOB                 STATE           ROWS  DONE    LEFT  PENDING  UPDATED
        petri_observations  capturing  1,234,567   9 %  5m 27s    4,321  2026-01-01 00:01:30 UTC
        größe               planned            0     -       -        -  2026-01-01 00:00:00 UTC
        ");
        insta::assert_snapshot!(table(&[]), @"no jobs");
    }

    #[test]
    fn the_json_has_the_fields_that_are_promised() {
        insta::assert_snapshot!(super::super::json::result(&busy()), @r#"{"job":"petri_observations","kind":"partition","table":"public.petri_observations","state":"capturing","phase":"copy","rows_estimated":12345678,"rows_copied":1234567,"rows_per_second":34000.4,"eta_s":327,"chunks_done":62,"chunk_rows":20000,"chunk_ms_p50":480,"chunk_ms_p99":900,"chunk_ms_max":1234,"changes_pending":4321,"replica_lag_s":7.25,"hold":{"signal":"replica_lag_s","value":7.25,"limit":5.0},"started_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:01:30Z","swapped_at":null,"keep_old_until":null}"#);
    }
}
