//! The status of jobs as text: a block for one job, a table for all.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{paint::harmless, sentence};
use crate::model::{
    number,
    pace::{Behind, Signal},
    state::State,
    status::{Status, StoredHold},
};

const NAME_WIDTH: usize = 10;
/// The description of an active guard.
const GUARD: &str = "trigger pgstrata_guard rejects writes of transactions that began before the last swap or rollback \
     (SQLSTATE 40001); the next command for this job drops it";

/// One job, with one fact per line. Unknown facts are omitted.
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
        ("filled", status.rows_set.map(|n| number::counted(n, "row"))),
        ("rate", rate(status)),
        ("chunks", chunks(status)),
        ("changes", status.changes_pending.map(|n| format!("{} pending", number::count(n)))),
        ("history", history(&status.rates)),
        ("standbys", lines(status.replicas.iter().map(behind))),
        ("guard", status.guarded.then(|| GUARD.to_owned())),
        ("throttled", lines(status.holds.iter().map(hold))),
        ("settings", set(&status.settings)),
        ("started", Some(time(status.started_at))),
        ("updated", Some(time(status.updated_at))),
        ("swapped", status.swapped_at.map(time)),
        ("keep_old", status.keep_old_until.map(|until| format!("until {}", time(until)))),
    ];
    let lines: Vec<String> =
        facts.into_iter().filter_map(|(name, fact)| Some(format!("{name:<NAME_WIDTH$} {}", fact?))).collect();
    lines.join("\n")
}

/// All jobs, one per line.
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
                // Align numbers to the right.
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

/// The number of copied rows. The estimate and the percentage are shown only until all rows are copied.
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
    if let Some(workers) = status.workers {
        text.push_str(&format!(" by {}", number::counted(workers.into(), "worker")));
    }
    if let Some(rows) = status.chunk_rows {
        text.push_str(&format!(", current chunk size {}", number::counted(rows, "row")));
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

/// One line per value, aligned after the name of the fact.
fn lines(facts: impl Iterator<Item = String>) -> Option<String> {
    let facts: Vec<String> = facts.collect();
    let indent = " ".repeat(NAME_WIDTH + 1);
    (!facts.is_empty()).then(|| facts.join(&format!("\n{indent}")))
}

fn behind(standby: &Behind) -> String {
    let (name, bytes) = (harmless(&standby.name), number::bytes(standby.lag_bytes));
    format!("{name}: {} behind, {bytes}", seconds(standby.lag_s))
}

/// The status with a sentence for each hold. A hold that an earlier version stored already has a sentence, which is
/// kept.
pub(super) fn with_sentences(status: &Status) -> Status {
    let with_sentence = |hold: &StoredHold| StoredHold { about: about(hold), ..hold.clone() };
    let hold = status.hold.as_ref().map(with_sentence);
    Status { hold, holds: status.holds.iter().map(with_sentence).collect(), ..status.clone() }
}

fn about(hold: &StoredHold) -> String {
    let StoredHold { signal, value, limit, unread, cause, about, .. } = hold;
    match Signal::parse(signal) {
        _ if !about.is_empty() => about.clone(),
        Some(signal) => sentence::throttled(signal, *value, *limit, *unread, cause.as_ref()),
        // A signal of a later version.
        None => format!("{signal} is {value}, limit {limit}"),
    }
}

fn hold(hold: &StoredHold) -> String {
    format!("{} (since {})", harmless(&about(hold)), time(hold.since))
}

fn set(settings: &BTreeMap<String, String>) -> Option<String> {
    let all: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={}", harmless(value))).collect();
    (!all.is_empty()).then(|| all.join(" "))
}

/// The rates of the last minutes as bars, with the highest rate.
fn history(rates: &[f64]) -> Option<String> {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = rates.iter().copied().fold(0.0, f64::max);
    if rates.len() < 2 || most <= 0.0 {
        return None;
    }
    let bar = |rate: &f64| BARS[((rate / most * 7.0).round() as usize).min(7)];
    Some(format!(
        "{} (highest {}/s; one bar per 10 s)",
        rates.iter().map(bar).collect::<String>(),
        number::rate(most)
    ))
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
    use crate::model::pace::Cause;

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
            rows_set: None,
            rows_per_second: None,
            eta_s: None,
            chunks_done: 0,
            chunk_rows: None,
            chunk_ms_p50: None,
            chunk_ms_p99: None,
            chunk_ms_max: None,
            changes_pending: None,
            replica_lag_s: None,
            guarded: false,
            hold: None,
            holds: Vec::new(),
            replicas: Vec::new(),
            workers: None,
            settings: BTreeMap::new(),
            rates: Vec::new(),
            started_at: at(0),
            updated_at: at(0),
            swapped_at: None,
            keep_old_until: None,
        }
    }

    fn busy() -> Status {
        let held = |signal: &str, value, limit, cause, about: &str| StoredHold {
            signal: signal.to_owned(),
            value,
            limit,
            unread: false,
            cause,
            about: about.to_owned(),
            since: at(80),
        };
        let standby = Some(Cause::Standby { standby: "b".to_owned() });
        let holds = vec![
            held("replica_lag_s", 7.25, 5.0, standby, ""),
            // As an earlier version stored it.
            held(
                "archiver_failing",
                1.0,
                0.0,
                None,
                "archiver_failing is 1, limit 0: archive_command failed for 0000",
            ),
            held("disk_full", 0.5, 0.25, None, ""),
        ];
        let behind = |name: &str, lag_s, lag_bytes| Behind { name: name.to_owned(), lag_s, lag_bytes };
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
            guarded: false,
            hold: holds.first().cloned(),
            holds,
            replicas: vec![behind("a", 0.1, 0), behind("b at 10.0.0.2", 7.25, 5 << 20)],
            workers: Some(2),
            settings: BTreeMap::from([("rows_per_second".to_owned(), "20000".to_owned())]),
            rates: vec![0.0, 10_000.0, 40_000.0, 34_000.4],
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
        chunks     62 done by 2 workers, current chunk size 20,000 rows, p50 480 ms, p99 900 ms, longest 1.2 s
        changes    4,321 pending
        history    ▁▃█▇ (highest 40,000/s; one bar per 10 s)
        standbys   a: 100 ms behind, 0 B
                   b at 10.0.0.2: 7.2 s behind, 5.0 MiB
        throttled  replica_lag_s is 7.2 s, limit 5.0 s: standby b (since 2026-01-01 00:01:20 UTC)
                   archiver_failing is 1, limit 0: archive_command failed for 0000 (since 2026-01-01 00:01:20 UTC)
                   disk_full is 0.5, limit 0.25 (since 2026-01-01 00:01:20 UTC)
        settings   rows_per_second=20000
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
        keep_old   until 2026-01-08 00:01:40 UTC
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
    fn the_json_has_the_documented_fields() {
        insta::assert_snapshot!(super::super::json::result(&with_sentences(&busy())), @r#"{"job":"petri_observations","kind":"partition","table":"public.petri_observations","state":"capturing","phase":"copy","rows_estimated":12345678,"rows_copied":1234567,"rows_set":null,"rows_per_second":34000.4,"eta_s":327,"chunks_done":62,"chunk_rows":20000,"chunk_ms_p50":480,"chunk_ms_p99":900,"chunk_ms_max":1234,"changes_pending":4321,"replica_lag_s":7.25,"guarded":false,"hold":{"signal":"replica_lag_s","value":7.25,"limit":5.0,"unread":false,"cause":{"code":"standby","standby":"b"},"about":"replica_lag_s is 7.2 s, limit 5.0 s: standby b","since":"2026-01-01T00:01:20Z"},"holds":[{"signal":"replica_lag_s","value":7.25,"limit":5.0,"unread":false,"cause":{"code":"standby","standby":"b"},"about":"replica_lag_s is 7.2 s, limit 5.0 s: standby b","since":"2026-01-01T00:01:20Z"},{"signal":"archiver_failing","value":1.0,"limit":0.0,"unread":false,"cause":null,"about":"archiver_failing is 1, limit 0: archive_command failed for 0000","since":"2026-01-01T00:01:20Z"},{"signal":"disk_full","value":0.5,"limit":0.25,"unread":false,"cause":null,"about":"disk_full is 0.5, limit 0.25","since":"2026-01-01T00:01:20Z"}],"replicas":[{"name":"a","lag_s":0.1,"lag_bytes":0},{"name":"b at 10.0.0.2","lag_s":7.25,"lag_bytes":5242880}],"workers":2,"settings":{"rows_per_second":"20000"},"rates":[0.0,10000.0,40000.0,34000.4],"started_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:01:30Z","swapped_at":null,"keep_old_until":null}"#);
    }
}
