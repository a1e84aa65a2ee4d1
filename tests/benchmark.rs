//! The report of the benchmark, generated from recorded results. The benchmark itself takes too long for a test.

#[path = "../benches/throughput/figure.rs"]
mod figure;
#[path = "../benches/throughput/report/mod.rs"]
mod report;

use figure::{Chunk, Figure, Goal, Latency, Machine, Phase, Results, Run, Spread};

fn run() -> Run {
    let phase = |name: &str, from_s: f64, seconds: f64| {
        let chunk_rows = (name == "copy").then_some(10_000);
        Phase { name: name.to_owned(), from_s, seconds, chunk_rows }
    };
    Run {
        name: "bigint key".to_owned(),
        seconds: 4.5,
        phases: vec![phase("prepare", 0.1, 0.1), phase("copy", 0.2, 2.0), phase("index", 2.2, 1.8)],
        chunks: (1..=20)
            .map(|n| Chunk { at_s: f64::from(n) / 10.0 + 0.2, rows: 10_000, ms: 190.0 })
            .collect(),
        memory_mb: Some(13.8),
    }
}

fn results() -> Results {
    let run = run();
    Results {
        machine: Machine {
            began: "2026-11-21 18:00 UTC".to_owned(),
            server: "15.18".to_owned(),
            settings: vec![("fsync".to_owned(), "on".to_owned())],
            cores: 2,
            load: Some(0.4),
            rows: 200_000,
        },
        figures: vec![
            Figure::new("bigint key", "copy", "s", run.seconds_of("copy"))
                .against("plain SQL", 1.6)
                .goal(Goal::RatioAtMost(1.1)),
            Figure::new("bigint key", "whole job", "s", run.seconds)
                .against("pg_partman", 19.6)
                .goal(Goal::TimesFaster(4.0)),
            Figure::new("24 partitions", "drain", "keys/s", 58_000.0)
                .against("psql", 60_000.0)
                .goal(Goal::RatioAtLeast(0.9)),
            Figure::new("bigint key", "memory", "MB", 13.8).goal(Goal::AtMost(40.0)),
            Figure::new("bigint key", "index", "s", 1.8),
        ],
        points: vec![run.point("workers", "2").unwrap()],
        latencies: vec![Latency {
            during: "idle".to_owned(),
            transactions: Spread::of([1.0, 2.0, 3.0]).unwrap(),
            failed: 0,
        }],
        runs: vec![run],
        notes: vec!["pg_partman <is> not installed".to_owned()],
    }
}

#[test]
fn the_table_shows_what_was_measured_and_what_is_missing() {
    insta::assert_snapshot!(report::tables(&results()), @"
    200,000 rows; PostgreSQL 15.18; 2 processors, load 0.4 when it began; 2026-11-21 18:00 UTC
    fsync on

    on             what            pgstrata  against                    ratio  goal
    bigint key     copy              2.00 s  plain SQL          1.60 s   1.25  at most 1.10      MISSED
    bigint key     whole job         4.50 s  pg_partman         19.6 s   4.36  4.0 times faster  met
    24 partitions  drain      58,000 keys/s  psql        60,000 keys/s   0.97  at least 0.90     met
    bigint key     memory           13.8 MB                                    at most 40 MB     met
    bigint key     index             1.80 s

    changed  to   rows/s  chunks  p50 ms  p90 ms  p99 ms  max ms
    workers   2  100,000      20     190     190     190     190

    applications, during  transactions  p50 ms  p99 ms  max ms  failed
    idle                             3    2.00    3.00    3.00       0

    pg_partman <is> not installed
    ");
}

#[test]
fn a_figure_is_one_line() {
    insta::assert_snapshot!(report::line(&results().figures[0]), @"bigint key  copy  2.00 s  plain SQL  1.60 s  1.25  at most 1.10  MISSED");
    insta::assert_snapshot!(report::point_line(&results().points[0]), @"workers  2  100,000  20  190  190  190  190");
}

#[test]
fn recorded_results_give_the_same_report_as_the_run() {
    let recorded = report::json(&results()).unwrap();
    assert!(recorded.contains("\"met\": false"), "{recorded}");
    let read: Results = serde_json::from_str(&recorded).unwrap();
    assert_eq!(report::tables(&read), report::tables(&results()));
}

#[test]
fn the_page_contains_its_plots_and_loads_nothing_else() {
    let page = report::page(&results()).unwrap();
    assert_eq!(page.matches("<svg").count(), 3);
    assert!(!page.contains("href") && !page.contains("src="), "{page}");
    assert!(page.contains("pg_partman &lt;is&gt; not installed"), "{page}");
    assert!(page.contains("<h2>What was tried</h2>\n<table>"), "{page}");
}

#[test]
fn the_size_of_chunks_is_that_of_the_phase() {
    assert_eq!(run().rows_a_chunk("copy"), Some(10_000));
    assert_eq!(run().rows_a_chunk("fill"), None);
}
