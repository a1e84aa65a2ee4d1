//! Drafts of plans.

use super::*;
use crate::plan::Plan;
use insta::assert_snapshot;
use proptest::prelude::*;

fn a_warning(message: &str) -> Finding {
    let (level, code) = (crate::model::finding::Level::Warning, "unique_given_up");
    Finding { level, code, object: String::new(), message: message.to_owned(), hint: String::new() }
}

fn observations() -> DraftFacts {
    DraftFacts {
        table: QualifiedName::new("public", "petri_observations"),
        by: "created_at".to_owned(),
        by_type: "timestamp with time zone".to_owned(),
        key: vec!["id".to_owned()],
        key_kind: "primary key".to_owned(),
        rows_estimated: 12_500_000,
        bytes: 2_480_000_000,
        oldest: Some("2024-01-01 00:00:04+00".to_owned()),
        newest: Some("2024-03-31 23:59:58+00".to_owned()),
        per_month: [("2024-01", 950_000), ("2024-02", 11_000_000), ("2024-03", 550_000)]
            .map(|(month, rows)| (month.to_owned(), rows))
            .to_vec(),
        suggested: Every::Months(1),
        because: "a month contains about 4,166,666 rows, 788.00 MiB".to_owned(),
        every: None,
        zone: Tz::UTC,
        names: "{table}_y{yyyy}m{mm}".to_owned(),
        findings: vec![a_warning("unique index petri_email_key does not hold created_at")],
        ..DraftFacts::of_table(QualifiedName::new("public", "petri_observations"), 0, 0)
    }
}

#[test]
fn a_draft() {
    let text = draft(&observations());
    assert_snapshot!(text, @r#"
    # A plan for pgstrata, drafted from the live table. Review it, then keep it with your migrations.
    #
    # rows    about 12,500,000, 2.31 GiB with indexes
    # column  created_at, timestamp with time zone
    # oldest  2024-01-01 00:00:04+00
    # newest  2024-03-31 23:59:58+00
    # key     primary key (id); becomes (id, created_at), because the key of a partitioned table must contain the partition column
    #
    # approximate rows, according to the statistics:
    #   2024-01     950,000
    #   2024-02  11,000,000
    #   2024-03     550,000

    name  = "petri_observations"   # the job
    kind  = "partition"
    table = "public.petri_observations"

    [partition]
    by       = "created_at"
    # suggested: a month contains about 4,166,666 rows, 788.00 MiB
    every    = "1 month"           # about 3 partitions
    timezone = "UTC"               # time zone in which days and months begin
    # from   = "2024-01-01 00:00:04+00"  # lower bound of the first partition; default: the oldest row
    ahead    = 3                   # number of partitions to create beyond the newest row, or the current time
    names    = "{table}_y{yyyy}m{mm}"
    default  = true                # a default partition for rows outside all bounds
    # warning[unique_given_up]: unique index petri_email_key does not hold created_at
    # drop_unique = ["..."]

    [copy]
    workers         = "auto"       # adjusted to the server's load; or a fixed number
    order           = "auto"       # chosen by the correlation of key and heap; or "keyset", "physical"
    target_batch_ms = 500          # target duration of a chunk

    [throttle]
    # rows_per_second = 50_000  # default: no limit

    [verify]
    rows = "hash"                  # compares every row; "count": compares only row counts

    [swap]
    when         = "manual"        # when you run `pgstrata swap`; "verified": right after verification
    lock_timeout = "200ms"         # the longest time that one attempt blocks applications
    attempts     = 100
    keep_old     = "7 days"        # until then, `finalize` requires --now; a rollback stays possible until `finalize`
    "#);
    let plan = Plan::parse(&text, "draft").unwrap();
    let partitioning = plan.partitioning().unwrap();
    assert_eq!((plan.table(), partitioning.by.as_str()), (&observations().table, "created_at"));
    assert_eq!((partitioning.every, partitioning.from.as_deref()), (Every::Months(1), None));
}

#[test]
fn a_draft_contains_the_defaults() {
    let drafted = Plan::parse(&draft(&observations()), "draft").unwrap();
    let least = "table = \"petri_observations\"\n[partition]\nby = \"created_at\"\nevery = \"month\"\n\
                 names = \"{table}_y{yyyy}m{mm}\"\n";
    assert_eq!(drafted, Plan::parse(least, "least").unwrap());
}

#[test]
fn a_draft_for_integers_with_a_requested_interval() {
    let facts = DraftFacts {
        table: QualifiedName::new("Forecasts", "Price Forecasts"),
        by: "Id".to_owned(),
        by_type: "bigint".to_owned(),
        key: vec!["Id".to_owned(), "at".to_owned()],
        key_kind: "unique index".to_owned(),
        oldest: Some("-5".to_owned()),
        newest: Some("20000000".to_owned()),
        per_month: Vec::new(),
        suggested: Every::Integers(10_000_000),
        because: "10,000,000 integers contain about 10,000,000 rows, 1.80 GiB".to_owned(),
        every: Some(Every::Integers(5_000_000)),
        names: "{table}_{from}".to_owned(),
        findings: Vec::new(),
        ..observations()
    };
    let text = draft(&facts);
    assert_snapshot!(text, @r#"
    # A plan for pgstrata, drafted from the live table. Review it, then keep it with your migrations.
    #
    # rows    about 12,500,000, 2.31 GiB with indexes
    # column  "Id", bigint
    # oldest  -5
    # newest  20000000
    # key     unique index ("Id", at), which already contains "Id"

    name  = "Price Forecasts"      # the job
    kind  = "partition"
    table = '"Forecasts"."Price Forecasts"'

    [partition]
    by       = '"Id"'
    # as requested; suggested: 10000000 (10,000,000 integers contain about 10,000,000 rows, 1.80 GiB)
    every    = 5000000             # about 6 partitions
    # from   = "-5"  # lower bound of the first partition; default: the oldest row
    ahead    = 3                   # number of partitions to create beyond the newest row, or the current time
    names    = "{table}_{from}"
    default  = true                # a default partition for rows outside all bounds

    [copy]
    workers         = "auto"       # adjusted to the server's load; or a fixed number
    order           = "auto"       # chosen by the correlation of key and heap; or "keyset", "physical"
    target_batch_ms = 500          # target duration of a chunk

    [throttle]
    # rows_per_second = 50_000  # default: no limit

    [verify]
    rows = "hash"                  # compares every row; "count": compares only row counts

    [swap]
    when         = "manual"        # when you run `pgstrata swap`; "verified": right after verification
    lock_timeout = "200ms"         # the longest time that one attempt blocks applications
    attempts     = 100
    keep_old     = "7 days"        # until then, `finalize` requires --now; a rollback stays possible until `finalize`
    "#);
    assert_eq!(
        Plan::parse(&text, "draft").unwrap().partitioning().unwrap().every,
        Every::Integers(5_000_000)
    );
}

#[test]
fn long_listings_are_by_year_and_limited() {
    let months = |years: std::ops::Range<u32>| -> Vec<(String, u64)> {
        years.flat_map(|year| (1..=12).map(move |month| (format!("{year:04}-{month:02}"), 100))).collect()
    };
    assert_eq!(listing(&months(2020..2022)).len(), 24);
    assert_eq!(listing(&months(2020..2023)), ["  2020     1,200", "  2021     1,200", "  2022     1,200"]);
    let long = listing(&months(1900..2024));
    assert_eq!((long.len(), long[0].as_str()), (25, "  before   120,000"));
}

proptest! {
    #[test]
    fn a_draft_can_be_read_with_any_names(
        table in "[^\0]{1,15}", by in "[^\0]{1,15}", key in "[^\0]{1,15}", warning: String, oldest: String,
    ) {
        let facts = DraftFacts {
            table: QualifiedName::new("public", table),
            by: by.clone(),
            key: vec![key],
            findings: vec![a_warning(&warning)],
            oldest: Some(oldest),
            ..observations()
        };
        let text = draft(&facts);
        let plan = Plan::parse(&text, "draft").map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!((plan.table(), plan.partitioning().unwrap().by.as_str()), (&facts.table, by.as_str()));
    }
}

#[test]
fn a_draft_of_a_backfill() {
    let pairs = |all: &[(&str, &str)]| {
        all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>()
    };
    let table = crate::model::fixture::petri();
    let (set, add) = (pairs(&[("Short note", "left(t.note, 10)")]), pairs(&[("Short note", "text")]));
    let text = draft_update(&UpdateDraft::backfill(&table, (1_000_000, 200 << 20), &set, &add));
    assert_snapshot!(text, @r#"
    # A plan for pgstrata, drafted from the live table. Review it, then keep it with your migrations.
    #
    # rows    about 1,000,000, 200.00 MiB with indexes
    # key     (observation_id); rows are processed in its order
    # columns observation_id uuid not null, seq bigint not null, submission_id bigint, note text,
    #         raw json, len integer, created_at timestamp with time zone not null

    name  = "petri_observations_backfill" # the job
    kind  = "backfill"
    table = "public.petri_observations"

    [backfill]
    add = { '"Short note"' = "text" }
    set = { '"Short note"' = "left(t.note, 10)" }
    # from = "other o on o.id = t.other_id"  # to join, with at most one row for each row of the table
    # where = 't."Short note" is null'  # the rows to fill; default: where a value differs
    # keep_filled = true  # a trigger also fills rows that are written during the job
    # finish = { not_null = ['"Short note"'] }  # also check, unique, index, foreign_key
    # settings = { TimeZone = "UTC" }  # server settings of the SQL

    [copy]
    workers         = "auto"       # adjusted to the server's load; or a fixed number
    # target_batch_ms = 100  # target duration of a chunk, in which its rows are locked

    [throttle]
    # rows_per_second = 50_000  # default: no limit

    [swap]
    lock_timeout = "200ms"         # the longest time that one attempt blocks applications
    attempts     = 100
    "#);
    let plan = Plan::parse(&text, "draft").unwrap();
    assert_eq!(plan.backfill().unwrap().set, set);
    // The example is an expression of the plan, and the defaults of a plan are those of the draft.
    let least = "name = \"petri_observations_backfill\"\ntable = \"petri_observations\"\nkind = \"backfill\"\n[backfill]\n\
                 add = { '\"Short note\"' = \"text\" }\nset = { '\"Short note\"' = \"left(t.note, 10)\" }\n";
    assert_eq!(plan, Plan::parse(least, "least").unwrap());
    let open = draft_update(&UpdateDraft::backfill(&table, (0, 0), &[], &[]));
    assert!(Plan::parse(&open, "draft").unwrap_err().to_string().contains("backfill.set is missing"));
}

#[test]
fn a_draft_of_a_retype() {
    let table = crate::model::fixture::petri();
    let text = draft_update(&UpdateDraft::retype(&table, (1_000_000, 200 << 20), "seq", "numeric"));
    let section: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("name")).take(12).collect();
    assert_snapshot!(section.join("\n"), @r#"
    name  = "petri_observations_seq" # the job
    kind  = "retype"
    table = "public.petri_observations"

    [retype]
    column = "seq"                 # bigint now
    to     = "numeric"
    # using  = "t.seq::numeric"  # the new value, SQL over the row t; default: a cast
    # back   = "t.seq::bigint"  # the old value, which a rollback needs; default: a cast
    # settings = { TimeZone = "UTC" }  # server settings of the SQL

    [copy]
    "#);
    let least = "name = \"petri_observations_seq\"\ntable = \"petri_observations\"\nkind = \"retype\"\n[retype]\n\
                 column = \"seq\"\nto = \"numeric\"\n";
    assert_eq!(Plan::parse(&text, "draft").unwrap(), Plan::parse(least, "least").unwrap());
}
