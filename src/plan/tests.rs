//! The plan file: every key, its default, and the messages for mistakes.

use std::{collections::BTreeMap, time::Duration};

use chrono_tz::Tz;
use insta::assert_snapshot;

use super::throttle::tests::full_throttle;
use super::{
    IncomingKeys, KeepUnique, LockBudget, OldSnapshots, Order, Partitioning, Plan, Retention,
    RetentionAction, RowComparison, Task, Throttle, When, Workers, changed, file::KEYS,
};
use crate::model::{ident::QualifiedName, partition::Every};

mod backfill;
pub(super) mod properties;
mod retype;

/// `docs/plan.md` and `docs/throttling.md` describe every key, in a table under the heading of its section.
#[test]
fn every_key_is_documented() {
    let documents = concat!(include_str!("../../docs/plan.md"), include_str!("../../docs/throttling.md"));
    for (section, keys) in KEYS {
        let heading =
            if section.is_empty() { "## Top level\n".to_owned() } else { format!("## [{section}]\n") };
        let tables: String = documents
            .split(&heading)
            .skip(1)
            .map(|rest| rest.split("\n## ").next().unwrap_or_default())
            .collect();
        for key in keys {
            assert!(
                tables.lines().any(|line| line.starts_with("| ") && line.contains(&format!("`{key}`"))),
                "[{section}] {key} is not documented"
            );
        }
    }
}

const LEAST: &str = "table = \"t\"\n[partition]\nby = \"at\"\nevery = \"month\"\n";

fn error(text: &str) -> String {
    let error = Plan::parse(text, "p.toml").unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

/// The errors of the minimal plan followed by `lines`, which belong to [partition] unless they open a section.
fn error_with(lines: &str) -> String {
    error(&format!("{LEAST}{lines}"))
}

/// A plan with every setting of a partition job.
const FULL: &str = r#"
name  = "petri_observations"
kind  = "partition"
table = '"Forecasts"."Price Forecasts"'
trust = ["app"]

[partition]
by       = '"Created At"'
not_null = true
null_as  = "now()"
every    = "1 month"
timezone = "europe/berlin"
from     = 2024-01-01
to       = "2026-01-01"
ahead    = 0
names    = "{table}_y{yyyy}m{mm}"
default  = false
keep_unique = ["d_key", '"C"']
drop_unique = ["b_key", '"A"', "b_key"]

[copy]
workers         = 4
order           = "physical"
target_batch_ms = 250
[throttle]
rows_per_second = 50_000

[verify]
rows = "count"
[swap]
when         = "verified"
lock_timeout = "1s 500ms"
attempts     = 7
give_up_after = "1h"
cancel_blockers_after = "5s"
old_snapshots = "accept"
keep_old     = "2 weeks"

[dependents]
incoming_fk = "drop"

[retention]
keep = "24 months"
how  = "detach"
"#;

#[test]
fn a_full_plan_is_read() {
    let expected = Plan {
        name: "petri_observations".to_owned(),
        table: QualifiedName::new("Forecasts", "Price Forecasts"),
        trust: vec!["app".to_owned()],
        task: Task::Partition(Partitioning {
            not_null: true,
            null_as: Some("now()".to_owned()),
            by: "Created At".to_owned(),
            every: Every::Months(1),
            timezone: Tz::Europe__Berlin,
            from: Some("2024-01-01".to_owned()),
            to: Some("2026-01-01".to_owned()),
            ahead: 0,
            names: Some("{table}_y{yyyy}m{mm}".to_owned()),
            default: false,
            keep_unique: KeepUnique::Listed(vec!["C".to_owned(), "d_key".to_owned()]),
            drop_unique: vec!["A".to_owned(), "b_key".to_owned()],
            order: Order::Physical,
            verify: RowComparison::Count,
            incoming_keys: IncomingKeys::Drop,
            retention: Some(Retention { keep: Every::Months(24), how: RetentionAction::Detach }),
        }),
        workers: Workers::Fixed(4),
        target_batch: Duration::from_millis(250),
        throttle: Throttle { rows_per_second: Some(50_000), ..Throttle::default() },
        when: When::Verified,
        budget: LockBudget {
            lock_timeout: Duration::from_millis(1500),
            attempts: 7,
            give_up_after: Duration::from_secs(3600),
            cancel_blockers_after: Some(Duration::from_secs(5)),
        },
        old_snapshots: OldSnapshots::Accept,
        keep_old: Duration::from_secs(14 * 86_400),
    };
    assert_eq!(Plan::parse(FULL, "p.toml").unwrap(), expected);
}

#[test]
fn a_minimal_plan_has_the_defaults() {
    assert_snapshot!(Plan::parse(LEAST, "p.toml").unwrap().to_toml(), @r#"
    kind = "partition"
    name = "t"
    table = "public.t"

    [copy]
    order = "auto"
    target_batch_ms = 500
    workers = "auto"

    [partition]
    ahead = 3
    by = "at"
    default = true
    every = "1 month"
    timezone = "UTC"

    [swap]
    attempts = 100
    give_up_after = "900s"
    keep_old = "7 days"
    lock_timeout = "200ms"
    when = "manual"

    [throttle]
    archiver = true
    forget_replica_after = "300s"
    query_limit = 0
    timezone = "UTC"

    [verify]
    rows = "hash"
    "#);
}

#[test]
fn an_integer_interval_needs_no_quotes() {
    for every in ["10_000_000", "\"10_000_000\""] {
        let text = format!("table = \"t\"\n[partition]\nby = \"ID\"\nevery = {every}\nfrom = -5\n");
        let plan = Plan::parse(&text, "p.toml").unwrap();
        let partitioning = plan.partitioning().unwrap();
        assert_eq!(
            (partitioning.every, partitioning.by.as_str(), partitioning.from.as_deref()),
            (Every::Integers(10_000_000), "id", Some("-5"))
        );
    }
}

#[test]
fn unknown_keys() {
    assert_snapshot!(error_with("evry = 3"), @"
    p.toml:5:1: unknown key `evry` under [partition]
    hint: did you mean `every`?
    ");
    assert_snapshot!(error_with("[copy]\nworker = 3"), @"
    p.toml:6:1: unknown key `worker` under [copy]
    hint: did you mean `workers`?
    ");
    assert_snapshot!(error_with("rows_per_second = 3"), @"
    p.toml:5:1: unknown key `rows_per_second` under [partition]
    hint: did you mean `rows_per_second` under [throttle]?
    ");
    assert_snapshot!(error_with("[throttle]\nmax_lag_replica = \"5s\""), @"
    p.toml:6:1: unknown key `max_lag_replica` under [throttle]
    hint: did you mean `max_replica_lag`?
    ");
    assert_snapshot!(error_with("[partitions]\nby = \"at\""), @"
    p.toml:5:2: unknown key `partitions` at the top of the file
    hint: did you mean section [partition]?
    ");
    assert_snapshot!(error("tabel = \"t\"\n[partition]\nby = \"at\"\nevery = \"month\""), @"
    p.toml:1:1: unknown key `tabel` at the top of the file
    hint: did you mean `table`?
    ");
}

#[test]
fn all_problems_are_reported_at_once() {
    assert_snapshot!(error(
        "table = \"a.b.c\"\nkinds = \"partition\"\n[partition]\nevery = \"1 fortnight\"\n[copy]\nworkers = 0\n"
    ), @r#"
    p.toml has 4 errors
      p.toml:1:9: table: `a.b.c` has 3 parts; write schema.table
      p.toml:2:1: unknown key `kinds` at the top of the file
        hint: did you mean `kind`?
      p.toml:4:9: partition.every: `1 fortnight` is not an interval: write a number of hours, days, weeks, months, quarters or years ("1 month"), or a plain number for an integer column
      p.toml:6:11: copy.workers: 0 is not "auto" or a whole number between 1 and 64
    "#);
    assert_snapshot!(error(""), @r#"
    p.toml has 3 errors
      p.toml: table is missing
        hint: write table = "schema.name"
      p.toml: partition.by is missing
        hint: write by = "created_at" under [partition]
      p.toml: partition.every is missing
        hint: write every = "1 month" under [partition]
    "#);
}

#[test]
fn wrong_toml() {
    assert_snapshot!(error("table = \"t\"\n[partition\n"), @"p.toml:2:11: unclosed table, expected `]`");
    assert_snapshot!(error("table = \"t\"\ntable = \"u\"\n"), @"p.toml:2:1: duplicate key");
    assert_snapshot!(error_with("[copy]\nworkers = "), @"p.toml:6:11: string values must be quoted, expected literal string");
    assert_snapshot!(error("copy = 3\n"), @"p.toml:1:8: invalid type: integer `3`, expected a [copy] section");
}

#[test]
fn wrong_names() {
    assert_snapshot!(error("table = \"a b\"\n[partition]\nby = \"at\"\nevery = \"month\""), @"p.toml:1:9: table: `a b` is not a name: write schema.table, in double quotes where SQL requires them");
    assert_snapshot!(error("table = 3\n[partition]\nby = \"at\"\nevery = \"month\""), @"
    p.toml:1:9: table: 3 is not a string
    hint: write it in double quotes
    ");
    assert_snapshot!(error("table = '\"a\\u0000\"'\n[partition]\nby = \"t.at\"\nevery = \"month\""), @r#"
    p.toml:3:6: partition.by: `t.at` is not a single name
    hint: write the name as in SQL, in double quotes if it has characters other than letters, digits and _: '"My Column"'
    "#);
    assert_snapshot!(error("table = \"t\"\n[partition]\nevery = \"month\""), @r#"
    p.toml: partition.by is missing
    hint: write by = "created_at" under [partition]
    "#);
    assert_snapshot!(error(&format!("name = \"\"\n{LEAST}")), @"p.toml:1:8: name: is empty");
    assert_snapshot!(error(&format!("name = \"{}\"\n{LEAST}", "é".repeat(32))), @"p.toml:1:8: name: has 64 bytes; a name has 1 to 63 bytes");
    assert_snapshot!(error(&format!("name = \"a\\nb\"\n{LEAST}")), @"p.toml:1:8: name: contains a control character");
    assert_snapshot!(error(
        "table = '''\"a\nb\"'''\n[partition]\nby = \"at\"\nevery = \"month\""
    ), @"
    p.toml:1:9: name: the table's name contains a control character
    hint: set a name for the job: name = \"...\" at the top of the plan
    ");
    assert_snapshot!(error_with("drop_unique = \"t_email_key\""), @r#"
    p.toml:5:15: partition.drop_unique: "t_email_key" is not a list
    hint: write ["index_name"]
    "#);
    assert_snapshot!(error_with("drop_unique = [\"t_email_key\", 3]"), @"
    p.toml:5:15: partition.drop_unique: 3 is not a string
    hint: write it in double quotes
    ");
    assert_snapshot!(error_with("names = \"\""), @r#"
    p.toml:5:9: partition.names: is empty
    hint: write a template such as "{table}_y{yyyy}m{mm}", or remove the key
    "#);
}

#[test]
fn wrong_kinds_and_choices() {
    assert_snapshot!(error(&format!("kind = \"backfill\"\n{LEAST}")), @r#"
    p.toml has 3 errors
      p.toml:4:6: partition.by: does not apply to a plan of kind "backfill"
        hint: remove it, or change the kind
      p.toml:5:9: partition.every: does not apply to a plan of kind "backfill"
        hint: remove it, or change the kind
      p.toml: backfill.set is missing
        hint: write set = { note = "upper(t.title)" } under [backfill]
    "#);
    assert_snapshot!(error_with("default = \"yes\""), @r#"
    p.toml:5:11: partition.default: "yes" is not true or false
    hint: write it without quotes
    "#);
    assert_snapshot!(error_with("[copy]\norder = \"key\""), @r#"p.toml:6:9: copy.order: "key" is not "auto" or "keyset" or "physical""#);
    assert_snapshot!(error_with("[verify]\nrows = true"), @r#"p.toml:6:8: verify.rows: true is not "hash" or "count""#);
    assert_snapshot!(error_with("[swap]\nwhen = \"now\""), @r#"p.toml:6:8: swap.when: "now" is not "manual" or "verified""#);
}

#[test]
fn wrong_zones() {
    assert_snapshot!(error_with("timezone = \"Europe/Berln\""), @"
    p.toml:5:12: partition.timezone: `Europe/Berln` is not a time zone
    hint: did you mean Europe/Berlin, Europe/Dublin or Europe/Belgrade?
    ");
    assert_snapshot!(error_with("timezone = \"Vienna\""), @"
    p.toml:5:12: partition.timezone: `Vienna` is not a time zone
    hint: did you mean Europe/Vienna, Asia/Vientiane or America/Indiana/Vincennes?
    ");
}

#[test]
fn wrong_units() {
    assert_snapshot!(error_with("[swap]\nlock_timeout = 200"), @r#"
    p.toml:6:16: swap.lock_timeout: `200` is not a duration
    hint: write a whole number and its unit (ms, s, min, h, days): "200ms"
    "#);
    assert_snapshot!(error_with("[swap]\nlock_timeout = \"200 msecs.\""), @r#"
    p.toml:6:16: swap.lock_timeout: `200 msecs.` is not a duration
    hint: write a whole number and its unit (ms, s, min, h, days): "200ms"
    "#);
    assert_snapshot!(error_with("[swap]\nkeep_old = \"7 dayz\""), @r#"
    p.toml:6:12: swap.keep_old: `7 dayz` is not a duration
    hint: write a whole number and its unit (ms, s, min, h, days): "7 days"
    "#);
    assert_snapshot!(error_with("[swap]\nkeep_old = true"), @"
    p.toml:6:12: swap.keep_old: true is not a string
    hint: write it in double quotes
    ");
    assert_snapshot!(error("table = \"t\"\n[partition]\nby = \"at\"\nevery = \"1 fortnight\""), @r#"p.toml:4:9: partition.every: `1 fortnight` is not an interval: write a number of hours, days, weeks, months, quarters or years ("1 month"), or a plain number for an integer column"#);
    assert_snapshot!(error("table = \"t\"\n[partition]\nby = \"at\"\nevery = 0"), @r#"p.toml:4:9: partition.every: `0` is not an interval: write a number of hours, days, weeks, months, quarters or years ("1 month"), or a plain number for an integer column"#);
}

#[test]
fn out_of_range() {
    assert_snapshot!(error_with(
        "ahead = -1\n[copy]\nworkers = 65\ntarget_batch_ms = 9\n[throttle]\nrows_per_second = 0\n\
         [swap]\nlock_timeout = \"11s\"\nattempts = 0\nkeep_old = \"11 years\"\n"
    ), @r#"
    p.toml has 7 errors
      p.toml:5:9: partition.ahead: -1 is not a whole number between 0 and 1000
      p.toml:7:11: copy.workers: 65 is not "auto" or a whole number between 1 and 64
      p.toml:8:19: copy.target_batch_ms: 9 is not a whole number between 10 and 60000
      p.toml:10:19: throttle.rows_per_second: 0 is not a whole number between 1 and 4294967295
      p.toml:12:16: swap.lock_timeout: 11s is not between 1ms and 10s
      p.toml:13:12: swap.attempts: 0 is not a whole number between 1 and 100000
      p.toml:14:12: swap.keep_old: 11 years is not between 0s and 3650 days
    "#);
    assert_snapshot!(error_with(
        "ahead = 1001\n[copy]\nworkers = 2.5\ntarget_batch_ms = 60001\n[throttle]\nrows_per_second = \"9\"\n\
         [swap]\nlock_timeout = \"0s\"\nattempts = 100001\n"
    ), @r#"
    p.toml has 6 errors
      p.toml:5:9: partition.ahead: 1001 is not a whole number between 0 and 1000
      p.toml:7:11: copy.workers: 2.5 is not "auto" or a whole number between 1 and 64
      p.toml:8:19: copy.target_batch_ms: 60001 is not a whole number between 10 and 60000
      p.toml:10:19: throttle.rows_per_second: "9" is not a whole number between 1 and 4294967295
      p.toml:12:16: swap.lock_timeout: 0s is not between 1ms and 10s
      p.toml:13:12: swap.attempts: 100001 is not a whole number between 1 and 100000
    "#);
}

#[test]
fn ranges_include_their_ends() {
    for (lines, least) in [
        ("ahead = 0\n[copy]\nworkers = 1\ntarget_batch_ms = 10\n", true),
        ("ahead = 1000\n[copy]\nworkers = 64\ntarget_batch_ms = 60000\n", false),
    ] {
        let swap = if least {
            "[throttle]\nrows_per_second = 1\n[swap]\nlock_timeout = \"1ms\"\nattempts = 1\nkeep_old = \"0s\"\n"
        } else {
            "[swap]\nlock_timeout = \"10s\"\nattempts = 100000\nkeep_old = \"3650 days\"\n"
        };
        Plan::parse(&format!("{LEAST}{lines}{swap}"), "p.toml").unwrap();
    }
}

fn owned(map: &BTreeMap<&'static str, String>) -> BTreeMap<String, String> {
    map.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

#[test]
fn a_changed_identity_is_reported_by_field() {
    let plan = Plan::parse(LEAST, "p.toml").unwrap();
    let was = owned(&plan.identity());
    assert_eq!(changed(&was, &plan.identity()), []);
    let edited = Partitioning {
        every: Every::Weeks(1),
        from: Some("2024-01-01".to_owned()),
        drop_unique: vec!["B".to_owned(), "a".to_owned()],
        ..plan.partitioning().unwrap().clone()
    };
    let edited = Plan { task: Task::Partition(edited), ..plan.clone() };
    assert_ne!(plan.identity(), edited.identity());
    let text = |was: &BTreeMap<String, String>, is| {
        changed(was, &is).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(text(&was, edited.identity()), @r#"
    the plan's partition.drop_unique was not set when the job started, and is "B", a now
    the plan's partition.every was 1 month when the job started, and is 1 week now
    the plan's partition.from was not set when the job started, and is 2024-01-01 now
    "#);
    assert_snapshot!(text(&owned(&edited.identity()), plan.identity()), @r#"
    the plan's partition.drop_unique was "B", a when the job started, and is not set now
    the plan's partition.every was 1 week when the job started, and is 1 month now
    the plan's partition.from was 2024-01-01 when the job started, and is not set now
    "#);
}

#[test]
fn a_tunable_changes_no_identity() {
    let plan = Plan::parse(LEAST, "p.toml").unwrap();
    let faster = Plan {
        name: "other".to_owned(),
        workers: Workers::Fixed(3),
        throttle: Throttle { rows_per_second: Some(1), ..Throttle::default() },
        when: When::Verified,
        ..plan.clone()
    };
    assert_eq!(plan.identity(), faster.identity());
    let fields = changed(&owned(&plan.tunables()), &faster.tunables());
    let fields: Vec<&str> = fields.iter().map(|change| change.field.as_str()).collect();
    assert_eq!(fields, ["copy.workers", "swap.when", "throttle.rows_per_second"]);
}

#[test]
fn every_known_key_is_identity_or_tunable_or_the_name() {
    let least = Plan::parse(LEAST, "p.toml").unwrap();
    let partitioning = Partitioning {
        not_null: true,
        null_as: Some("now()".to_owned()),
        from: Some("a".to_owned()),
        to: Some("b".to_owned()),
        names: Some("c".to_owned()),
        keep_unique: KeepUnique::All,
        drop_unique: vec!["d".to_owned()],
        incoming_keys: IncomingKeys::Drop,
        retention: Some(Retention { keep: Every::Months(1), how: RetentionAction::Report }),
        ..least.partitioning().unwrap().clone()
    };
    let full = Plan {
        task: Task::Partition(partitioning),
        throttle: full_throttle(),
        budget: LockBudget {
            lock_timeout: Duration::from_secs(1),
            attempts: 1,
            give_up_after: Duration::from_secs(1),
            cancel_blockers_after: Some(Duration::from_secs(1)),
        },
        old_snapshots: OldSnapshots::Cancel,
        trust: vec!["app".to_owned()],
        ..least
    };
    let filling = Plan::parse(backfill::FULL, "p.toml").unwrap();
    let retyping = Plan::parse(retype::RETYPING, "p.toml").unwrap();
    let all = [full.identity(), full.tunables(), filling.identity(), retyping.identity()];
    let settings = all.into_iter().flatten();
    let mut settings: Vec<String> = settings.map(|(key, _)| key.to_owned()).collect();
    settings.push("name".to_owned());
    let mut known: Vec<String> = KEYS
        .iter()
        .flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}.{key}")))
        .map(|key| key.trim_start_matches('.').to_owned())
        .collect();
    settings.sort();
    known.sort();
    settings.dedup();
    assert_eq!(settings, known);
}
