//! The first plan for a table: facts about the table as comments, and suggested settings as values.
//! [`super::Plan::parse`] accepts it without changes, whatever names it contains.

use chrono_tz::Tz;
use indicatif::{HumanBytes, HumanCount};
use toml::Value;

use super::suggest::{days, moment};
use crate::model::{
    ident::{QualifiedName, plain},
    partition::Every,
};

/// The maximum number of lines in the list of rows per month. A longer list is by year.
const MOST_LINES: usize = 24;

/// Facts about a table.
#[derive(Debug, Clone)]
pub struct DraftFacts {
    /// The table.
    pub table: QualifiedName,
    /// The name of the partition column, as in the catalog.
    pub by: String,
    /// Its type, as `format_type` returns it.
    pub by_type: String,
    /// The names of the key's columns, as in the catalog.
    pub key: Vec<String>,
    /// `primary key` or `unique index`.
    pub key_kind: String,
    /// The number of rows, according to the planner's statistics.
    pub rows_estimated: u64,
    /// The size of the table with its indexes, in bytes.
    pub bytes: u64,
    /// The smallest value of the partition column.
    pub oldest: Option<String>,
    /// The largest value of the partition column.
    pub newest: Option<String>,
    /// Rows by month (`2024-01`), from [`super::histogram_by_month`]; none for integers.
    pub per_month: Vec<(String, u64)>,
    /// The suggested interval.
    pub suggested: Every,
    /// The reason for the suggestion, in one line.
    pub because: String,
    /// The requested interval, if any. It takes precedence over the suggestion.
    pub every: Option<Every>,
    /// The time zone in which months begin, for `timestamptz`.
    pub zone: Tz,
    /// The template of partition names.
    pub names: String,
    /// The numbers of carried over objects; empty if they are not known.
    pub carried: String,
    /// Warnings of the check, one line each.
    pub warnings: Vec<String>,
}

/// Returns the commented plan.
pub fn draft(facts: &DraftFacts) -> String {
    let mut lines = found(facts);
    lines.push(String::new());
    let table = facts.table.plain();
    lines.extend([
        setting("name", 5, job_name(facts), "the job"),
        setting("kind", 5, "partition", ""),
        setting("table", 5, table, ""),
        String::new(),
    ]);
    lines.extend(partition(facts));
    lines.extend([
        String::new(),
        "[copy]".to_owned(),
        setting("workers", 15, "auto", "adjusted to the server's load; or a fixed number"),
        setting(
            "order",
            15,
            "auto",
            "chosen by the correlation of key and heap; or \"keyset\", \"physical\"",
        ),
        setting("target_batch_ms", 15, 500, "target duration of a chunk"),
        String::new(),
        "[throttle]".to_owned(),
        "# rows_per_second = 50_000  # default: no limit".to_owned(),
        String::new(),
        "[verify]".to_owned(),
        setting("rows", 0, "hash", "compares every row; \"count\": compares only row counts"),
        String::new(),
        "[swap]".to_owned(),
        setting("when", 12, "manual", "when you run `pgstrata swap`; \"verified\": right after verification"),
        setting("lock_timeout", 12, "200ms", "the longest time that one attempt blocks applications"),
        setting("attempts", 12, 100, ""),
        setting(
            "keep_old",
            12,
            "7 days",
            "until then, `finalize` requires --now; a rollback stays possible until `finalize`",
        ),
    ]);
    lines.push(String::new());
    lines.join("\n")
}

fn found(facts: &DraftFacts) -> Vec<String> {
    let by = plain(&facts.by);
    let of = |end: &Option<String>| end.clone().unwrap_or_else(|| "unknown".to_owned());
    let names = |key: &[String]| key.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ");
    let key = if facts.key.contains(&facts.by) {
        format!("{} ({}), which already contains {by}", facts.key_kind, names(&facts.key))
    } else {
        let key = names(&facts.key);
        format!(
            "{} ({key}); becomes ({key}, {by}), because the key of a partitioned table must contain \
            the partition column",
            facts.key_kind
        )
    };
    let mut lines = vec![
        "A plan for pgstrata, drafted from the live table. Review it, then keep it with your migrations."
            .to_owned(),
        String::new(),
        format!(
            "rows    about {}, {} with indexes",
            HumanCount(facts.rows_estimated),
            HumanBytes(facts.bytes)
        ),
        format!("column  {by}, {}", facts.by_type),
        format!("oldest  {}", of(&facts.oldest)),
        format!("newest  {}", of(&facts.newest)),
        format!("key     {key}"),
    ];
    if !facts.carried.is_empty() {
        lines.push(format!("carried over: {}", facts.carried));
    }
    if !facts.per_month.is_empty() {
        lines.extend([String::new(), "approximate rows, according to the statistics:".to_owned()]);
        lines.extend(listing(&facts.per_month));
    }
    if !facts.warnings.is_empty() {
        lines.push(String::new());
        lines.extend(facts.warnings.iter().map(|warning| format!("warning: {warning}")));
    }
    lines.iter().map(|line| comment(line)).collect()
}

/// Lists rows per month, or per year if there are more than [`MOST_LINES`] months. Of more than [`MOST_LINES`] years,
/// the earliest are summed up in one line.
fn listing(per_month: &[(String, u64)]) -> Vec<String> {
    let mut rows: Vec<(String, u64)> = per_month.to_vec();
    if rows.len() > MOST_LINES {
        rows.clear();
        for (month, count) in per_month {
            let year = month.split('-').next().unwrap_or(month);
            match rows.last_mut() {
                Some((last, sum)) if last == year => *sum += count,
                _ => rows.push((year.to_owned(), *count)),
            }
        }
    }
    let early = rows.len().saturating_sub(MOST_LINES);
    let before: u64 = rows.drain(..early).map(|(_, count)| count).sum();
    if early > 0 {
        rows.insert(0, ("before".to_owned(), before));
    }
    let counts: Vec<(String, String)> =
        rows.into_iter().map(|(label, count)| (label, HumanCount(count).to_string())).collect();
    let width = counts.iter().map(|(_, count)| count.len()).max().unwrap_or_default();
    counts.into_iter().map(|(label, count)| format!("  {label:<7}  {count:>width$}")).collect()
}

fn partition(facts: &DraftFacts) -> Vec<String> {
    let every = facts.every.unwrap_or(facts.suggested);
    let written = match every {
        Every::Integers(n) => Value::from(n),
        every => Value::from(every.to_string()),
    };
    let about = match partitions(facts, every) {
        Some(1) => "about 1 partition".to_owned(),
        Some(many) => format!("about {many} partitions"),
        None => String::new(),
    };
    let why = if every == facts.suggested {
        format!("suggested: {}", facts.because)
    } else {
        format!("as requested; suggested: {} ({})", facts.suggested, facts.because)
    };
    let mut lines = vec!["[partition]".to_owned(), setting("by", 8, plain(&facts.by), "")];
    lines.extend([comment(&why), setting("every", 8, written, &about)]);
    if matches!(facts.by_type.as_str(), "timestamptz" | "timestamp with time zone") {
        lines.push(setting("timezone", 8, facts.zone.name(), "time zone in which days and months begin"));
    }
    if let Some(oldest) = &facts.oldest {
        let value = Value::from(oldest.as_str());
        lines.push(comment(&format!(
            "from   = {value}  # lower bound of the first partition; default: the oldest row"
        )));
    }
    lines.extend([
        setting("ahead", 8, 3, "number of partitions to create beyond the newest row, or the current time"),
        setting("names", 8, facts.names.as_str(), ""),
        setting("default", 8, true, "a default partition for rows outside all bounds"),
    ]);
    lines
}

/// Estimates the number of partitions for the existing rows.
fn partitions(facts: &DraftFacts, every: Every) -> Option<u64> {
    let (oldest, newest) = (facts.oldest.as_ref()?, facts.newest.as_ref()?);
    if let Every::Integers(n) = every {
        let (oldest, newest): (i128, i128) = (oldest.parse().ok()?, newest.parse().ok()?);
        let n = i128::from(n);
        return u64::try_from(newest.div_euclid(n) - oldest.div_euclid(n) + 1).ok();
    }
    let span_days = (moment(newest)? - moment(oldest)?).num_seconds() as f64 / 86_400.0;
    Some((span_days / days(every)?).round().max(1.0) as u64)
}

/// The table's name, without characters that the name of a job cannot contain.
fn job_name(facts: &DraftFacts) -> String {
    let name: String =
        facts.table.name.as_str().chars().map(|c| if c.is_control() { '_' } else { c }).collect();
    if name.trim().is_empty() { "job".to_owned() } else { name }
}

fn setting(key: &str, width: usize, value: impl Into<Value>, about: &str) -> String {
    let value: Value = value.into();
    let line = format!("{key:<width$} = {value}");
    if about.is_empty() { line } else { format!("{line:<30} {}", comment(about)) }
}

/// Writes one comment line. A line break in a name must not end the comment.
fn comment(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.is_empty() { "#".to_owned() } else { format!("# {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use insta::assert_snapshot;
    use proptest::prelude::*;

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
            carried: String::new(),
            warnings: vec!["unique index petri_email_key does not hold created_at".to_owned()],
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
        #
        # warning: unique index petri_email_key does not hold created_at

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
            carried: String::new(),
            warnings: Vec::new(),
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
        assert_eq!(
            listing(&months(2020..2023)),
            ["  2020     1,200", "  2021     1,200", "  2022     1,200"]
        );
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
                carried: String::new(),
            warnings: vec![warning],
                oldest: Some(oldest),
                ..observations()
            };
            let text = draft(&facts);
            let plan = Plan::parse(&text, "draft").map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
            prop_assert_eq!((plan.table(), plan.partitioning().unwrap().by.as_str()), (&facts.table, by.as_str()));
        }
    }
}
