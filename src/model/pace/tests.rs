//! Replays recorded readings, and simulates servers that report their lag late.

use proptest::prelude::*;

use super::*;
use crate::model::sizer::ChunkSizer;

fn reading(signal: Signal, value: Result<f64, &str>, limit: f64) -> Reading {
    let unread = |error: &str| Cause::ServerUnreadable { error: error.to_owned() };
    let cause = Some(Cause::Standby { standby: "one".to_owned() });
    Reading { signal, value: value.map_err(unread), limit, cause }
}

/// Formats the value, the limit and the cause.
fn shown(hold: &Hold) -> String {
    let of = if hold.unread { "not read for" } else { "is" };
    let cause = match &hold.cause {
        Some(Cause::Standby { standby }) => standby,
        Some(Cause::ServerUnreadable { error }) => error,
        other => panic!("{other:?}"),
    };
    format!("{} {of} {}, limit {}: {cause}", hold.signal.name(), hold.value, hold.limit)
}

/// Formats the changes after each reading of a trace of `(second, value)`.
fn replay(signal: Signal, limit: f64, trace: &[(f64, Result<f64, &str>)]) -> String {
    let mut pace = Pace::default();
    let mut said = Vec::new();
    for (at_s, value) in trace {
        for change in pace.observe(*at_s, &[reading(signal, *value, limit)]) {
            said.push(match change {
                Change::Throttled(hold) => format!("{at_s}: {}", shown(&hold)),
                Change::Resumed { signal, throttled_s } => {
                    format!("{at_s}: {} throttled for {throttled_s} s", signal.name())
                }
            });
        }
    }
    said.join("\n")
}

#[test]
fn throttles_over_the_limit_and_resumes_below_four_fifths() {
    let trace = [0.1, 4.0, 5.0, 5.2, 4.9, 4.1, 5.1, 4.0, 4.9, 0.0, 7.25, 0.0];
    let trace: Vec<_> = trace.iter().enumerate().map(|(s, v)| (s as f64, Ok(*v))).collect();
    insta::assert_snapshot!(replay(Signal::ReplicaLag, 5.0, &trace), @"
    3: replica_lag_s is 5.2, limit 5: one
    7: replica_lag_s throttled for 4 s
    10: replica_lag_s is 7.25, limit 5: one
    11: replica_lag_s throttled for 1 s
    ");
    let yes_or_no = [(0.0, Ok(0.0)), (1.0, Ok(1.0)), (2.0, Ok(0.0))];
    insta::assert_snapshot!(replay(Signal::Archiver, 0.0, &yes_or_no), @"
    1: archiver_failing is 1, limit 0: one
    2: archiver_failing throttled for 1 s
    ");
    let bytes = [(0.0, Ok(3e9)), (1.0, Ok(0.9 * f64::from(1 << 30))), (2.0, Ok(0.8 * f64::from(1 << 30)))];
    insta::assert_snapshot!(replay(Signal::SlotRetained, f64::from(1 << 30), &bytes), @"
    0: slot_retained_bytes is 3000000000, limit 1073741824: one
    2: slot_retained_bytes throttled for 2 s
    ");
}

#[test]
fn unreadable_signals_throttle() {
    let never =
        [(0.0, Err("grant pg_monitor to app")), (5.0, Err("grant pg_monitor to app")), (6.0, Ok(1.0))];
    insta::assert_snapshot!(replay(Signal::ReplicaLag, 5.0, &never), @"
    0: replica_lag_s not read for 0, limit 15: grant pg_monitor to app
    6: replica_lag_s throttled for 6 s
    ");
    let lost = [
        (0.0, Ok(1.0)),
        (1.0, Err("gone")),
        (15.0, Err("gone")),
        (15.5, Err("gone")),
        (16.0, Ok(4.5)),
        (17.0, Ok(9.0)),
    ];
    insta::assert_snapshot!(replay(Signal::ReplicaLag, 5.0, &lost), @"
    15.5: replica_lag_s not read for 15.5, limit 15: gone
    16: replica_lag_s throttled for 0.5 s
    17: replica_lag_s is 9, limit 5: one
    ");
    // A signal that was over its limit when it was last read does not resume the job when it cannot be read.
    let over = [(0.0, Ok(9.0)), (1.0, Err("gone")), (20.0, Err("gone")), (21.0, Ok(1.0))];
    insta::assert_snapshot!(replay(Signal::ReplicaLag, 5.0, &over), @"
    0: replica_lag_s is 9, limit 5: one
    21: replica_lag_s throttled for 21 s
    ");
}

#[test]
fn lag_does_not_throttle_reads() {
    let mut pace = Pace::default();
    assert!(!pace.may_continue(Work::Reads), "nothing is known yet");
    pace.observe(0.0, &[reading(Signal::ReplicaLag, Ok(9.0), 5.0)]);
    assert!(pace.may_continue(Work::Reads) && !pace.may_continue(Work::Writes));
    pace.observe(1.0, &[reading(Signal::ReplicaLag, Ok(9.0), 5.0), reading(Signal::Paused, Ok(1.0), 0.0)]);
    assert!(!pace.may_continue(Work::Reads));
    let told: Vec<Signal> = pace.holds(Work::Writes).map(|hold| hold.signal).collect();
    assert_eq!(told, [Signal::Paused, Signal::ReplicaLag]);
    // A limit that was removed does not throttle the job.
    pace.observe(2.0, &[]);
    assert!(pace.may_continue(Work::Writes));
}

/// A server with a standby that replays this many rows per second, and reports its lag some evaluations late.
struct Server {
    us_per_row: f64,
    replay_per_s: f64,
    shown_late: usize,
}

/// The result of a run of two minutes, in steps of half a second: the largest lag, the number of holds, and the
/// number of copied rows.
fn drive(server: &Server, limit_s: f64, speed: impl Fn(f64) -> f64) -> (f64, usize, f64) {
    let (mut pace, mut sizer) = (Pace::default(), ChunkSizer::new(5_000, 100, 1_000_000, 500.0));
    let (mut copied, mut replayed, mut worst_s, mut holds) = (0.0, 0.0_f64, 0.0_f64, 0);
    let mut lags = vec![0.0; server.shown_late + 1];
    let mut busy_until_s = 0.0;
    for look in 0..240 {
        let now_s = f64::from(look) * 0.5;
        let shown = lags[lags.len() - 1 - server.shown_late];
        let changes = pace.observe(now_s, &[reading(Signal::ReplicaLag, Ok(shown), limit_s)]);
        holds += changes.iter().filter(|change| matches!(change, Change::Throttled(_))).count();
        while pace.may_continue(Work::Writes) && busy_until_s < now_s + 0.5 {
            let rows = sizer.rows();
            let ms = rows as f64 * server.us_per_row * speed(busy_until_s) / 1000.0;
            sizer.observe(rows, ms);
            busy_until_s = f64::max(busy_until_s, now_s) + ms / 1000.0;
            copied += rows as f64;
        }
        replayed = (replayed + server.replay_per_s * 0.5).min(copied);
        let lag_s = (copied - replayed) / server.replay_per_s;
        worst_s = worst_s.max(lag_s);
        lags.push(lag_s);
    }
    (worst_s, holds, copied)
}

proptest! {
    /// With constant, drifting and bursty servers, and a standby of any speed whose lag is reported up to two seconds
    /// late, the lag stays near its limit, and the job neither flaps nor starves.
    #[test]
    fn lag_stays_near_its_limit(
        us_per_row in 2.0..200.0_f64,
        standby in 0.2..3.0_f64,
        shown_late in 0..4_usize,
        limit_s in 2.0..20.0_f64,
        shape in 0..3_u8,
    ) {
        let server = Server { us_per_row, replay_per_s: standby * 1e6 / us_per_row, shown_late };
        let speed = |s: f64| match shape {
            0 => 1.0,
            1 => 1.0 + s / 60.0,
            _ => if ((s / 7.0) as u64).is_multiple_of(2) { 1.0 } else { 4.0 },
        };
        let (worst_s, holds, copied) = drive(&server, limit_s, speed);
        // Rows are copied before the lag is reported: during the delayed evaluations, one more evaluation, and the
        // chunk that is running.
        let late_s = (shown_late as f64 + 1.0) * 0.5 + 2.5;
        prop_assert!(worst_s <= limit_s + late_s * (1.0 / standby).max(1.0), "{worst_s} s behind, limit {limit_s}");
        // A hold lasts until the lag has decreased by a fifth of the limit, and the next one begins when the lag has
        // increased by as much.
        prop_assert!(holds as f64 <= 2.0 + 120.0 / (0.2 * limit_s), "{holds} holds");
        let possible = 120.0 * 1e6 / us_per_row / if shape == 0 { 1.0 } else { 4.0 };
        prop_assert!(copied >= 0.3 * possible.min(server.replay_per_s * 120.0), "{copied} of {possible}");
    }
}
