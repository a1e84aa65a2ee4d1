//! The first plan for a table: facts about the table as comments, and suggested settings as values. Findings of the check
//! are comments at the keys that resolve them. [`super::Plan::parse`] accepts it without changes, whatever names it contains.

mod lines;
#[cfg(test)]
mod tests;
mod update;

use chrono_tz::Tz;
use indicatif::{HumanBytes, HumanCount};
use toml::Value;

pub(super) use self::lines::wrapped;
use self::lines::{DraftLines, comment, setting};
pub use self::update::{UpdateDraft, draft_update};
use super::answers::{Answers, key_of};
use super::suggest::{days, moment};
use crate::model::finding::Finding;
use crate::model::{
    ident::{Ident, QualifiedName, plain},
    partition::{Every, Template},
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
    /// Why this column was chosen, and the alternatives, one line each.
    pub advice: Vec<String>,
    /// Settings that resolve findings.
    pub answers: Answers,
    /// Errors and warnings of the check with these settings.
    pub findings: Vec<Finding>,
}

impl DraftFacts {
    /// The facts about a table whose partition column is not known yet.
    pub(super) fn of_table(table: QualifiedName, rows_estimated: u64, bytes: u64) -> Self {
        Self {
            table,
            by: String::new(),
            by_type: String::new(),
            key: Vec::new(),
            key_kind: String::new(),
            rows_estimated,
            bytes,
            oldest: None,
            newest: None,
            per_month: Vec::new(),
            suggested: Every::Months(1),
            because: String::new(),
            every: None,
            zone: Tz::UTC,
            names: Template::default_for(Every::Months(1)).to_owned(),
            carried: String::new(),
            advice: Vec::new(),
            answers: Answers::default(),
            findings: Vec::new(),
        }
    }
}

/// Returns the draft of a plan that lacks its partition column.
pub(super) fn without_column(facts: &DraftFacts) -> String {
    let mut lines = DraftLines::new(&facts.findings, key_of);
    lines.extend(
        facts_of_table(&facts.advice, (facts.rows_estimated, facts.bytes)).iter().map(|line| comment(line)),
    );
    top(&mut lines, &facts.table, &facts.table.name, "partition");
    lines.section("partition");
    lines.key("partition.by", comment("by    = \"COLUMN\"    # required"));
    lines.key("partition.every", comment("every = \"1 month\"   # required"));
    work(&mut lines);
    swap(&mut lines);
    lines.finish()
}

/// Returns the commented plan.
pub fn draft(facts: &DraftFacts) -> String {
    let mut lines = DraftLines::new(&facts.findings, key_of);
    lines.extend(found(facts));
    top(&mut lines, &facts.table, &facts.table.name, "partition");
    partition(&mut lines, facts);
    if lines.asks("dependents.incoming_fk") || facts.answers.drop_incoming {
        lines.section("dependents");
        let line = match facts.answers.drop_incoming {
            true => setting("incoming_fk", 0, "drop", "the swap drops them, a rollback restores them"),
            false => comment("incoming_fk = \"drop\""),
        };
        lines.key("dependents.incoming_fk", line);
    }
    work(&mut lines);
    lines.section("verify");
    lines.extend([setting("rows", 0, "hash", "compares every row; \"count\": compares only row counts")]);
    swap(&mut lines);
    lines.finish()
}

/// The keys above the first section.
fn top(lines: &mut DraftLines<'_>, table: &QualifiedName, job: &Ident, kind: &str) {
    lines.extend([String::new()]);
    lines.key("name", setting("name", 5, job_name(job), "the job"));
    lines.extend([setting("kind", 5, kind, "")]);
    lines.key("table", setting("table", 5, table.plain(), ""));
    if lines.asks("trust") {
        lines.key(
            "trust",
            comment("trust = [\"ROLE\"]  # only if you trust this role with the privileges of the job"),
        );
    }
}

/// How the job copies or fills rows.
fn work(lines: &mut DraftLines<'_>) {
    lines.section("copy");
    let workers = setting("workers", 15, "auto", "adjusted to the server's load; or a fixed number");
    lines.key("copy.workers", workers);
    lines.extend([
        setting(
            "order",
            15,
            "auto",
            "chosen by the correlation of key and heap; or \"keyset\", \"physical\"",
        ),
        setting("target_batch_ms", 15, 500, "target duration of a chunk"),
    ]);
    limits(lines);
}

fn limits(lines: &mut DraftLines<'_>) {
    lines.section("throttle");
    lines.extend([comment("rows_per_second = 50_000  # default: no limit")]);
    if lines.asks("throttle.replicas") {
        lines.key("throttle.replicas", comment("replicas = [\"host=... dbname=...\"]"));
    }
}

/// How long locks are requested.
fn duration(lines: &mut DraftLines<'_>) {
    let about = "the longest time that one attempt blocks applications";
    lines.key("swap.lock_timeout", setting("lock_timeout", 12, "200ms", about));
    lines.extend([setting("attempts", 12, 100, "")]);
}

fn swap(lines: &mut DraftLines<'_>) {
    let about = "when you run `pgstrata swap`; \"verified\": right after verification";
    lines.section("swap");
    lines.extend([setting("when", 12, "manual", about)]);
    duration(lines);
    if lines.asks("swap.old_snapshots") {
        lines.key("swap.old_snapshots", comment("old_snapshots = \"wait\"  # or \"cancel\", \"accept\""));
    }
    let about = "until then, `finalize` requires --now; a rollback stays possible until `finalize`";
    lines.extend([setting("keep_old", 12, "7 days", about)]);
}

fn found(facts: &DraftFacts) -> Vec<String> {
    let by = plain(&facts.by);
    let of = |end: &Option<String>| end.clone().unwrap_or_else(|| "unknown".to_owned());
    let names = |key: &[String]| key.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", ");
    let key = if facts.key.is_empty() {
        "none that is usable".to_owned()
    } else if facts.key.contains(&facts.by) {
        format!("{} ({}), which already contains {by}", facts.key_kind, names(&facts.key))
    } else {
        let key = names(&facts.key);
        format!(
            "{} ({key}); becomes ({key}, {by}), because the key of a partitioned table must contain \
            the partition column",
            facts.key_kind
        )
    };
    let mut lines = facts_of_table(&facts.advice, (facts.rows_estimated, facts.bytes));
    lines.extend([
        format!("column  {by}, {}", facts.by_type),
        format!("oldest  {}", of(&facts.oldest)),
        format!("newest  {}", of(&facts.newest)),
        format!("key     {key}"),
    ]);
    if !facts.carried.is_empty() {
        lines.push(format!("carried over: {}", facts.carried));
    }
    if !facts.per_month.is_empty() {
        lines.extend([String::new(), "approximate rows, according to the statistics:".to_owned()]);
        lines.extend(listing(&facts.per_month));
    }
    lines.iter().map(|line| comment(line)).collect()
}

fn facts_of_table(advice: &[String], size: (u64, u64)) -> Vec<String> {
    let title =
        "A plan for pgstrata, drafted from the live table. Review it, then keep it with your migrations.";
    let mut lines = vec![title.to_owned(), String::new()];
    if !advice.is_empty() {
        lines.extend(advice.iter().cloned());
        lines.push(String::new());
    }
    let (rows, bytes) = (HumanCount(size.0), HumanBytes(size.1));
    lines.push(format!("rows    about {rows}, {bytes} with indexes"));
    lines
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

fn partition(lines: &mut DraftLines<'_>, facts: &DraftFacts) {
    let every = facts.every.unwrap_or(facts.suggested);
    let written = match every {
        Every::Integers(n) => Value::from(n),
        every => Value::from(every.to_string()),
    };
    let about = match partitions(facts) {
        Some(1) => "about 1 partition".to_owned(),
        Some(many) => format!("about {many} partitions"),
        None => String::new(),
    };
    let why = if every == facts.suggested {
        format!("suggested: {}", facts.because)
    } else {
        format!("as requested; suggested: {} ({})", facts.suggested, facts.because)
    };
    lines.section("partition");
    lines.key("partition.by", setting("by", 8, plain(&facts.by), ""));
    if facts.answers.not_null || lines.asks("partition.not_null") {
        let about = "the job keeps NULL out of the column";
        let line = match facts.answers.not_null {
            true => setting("not_null", 8, true, about),
            false => comment("not_null = true"),
        };
        lines.key("partition.not_null", line);
    }
    if lines.asks("partition.null_as") {
        let line =
            "null_as = \"...\"  # an SQL expression over the row t, such as coalesce(t.updated_at, now())";
        lines.key("partition.null_as", comment(line));
    }
    lines.extend([comment(&why)]);
    lines.key("partition.every", setting("every", 8, written, &about));
    if matches!(facts.by_type.as_str(), "timestamptz" | "timestamp with time zone") {
        lines.extend([setting("timezone", 8, facts.zone.name(), "time zone in which days and months begin")]);
    }
    let from = facts.oldest.as_ref().map_or(Value::from("..."), |oldest| Value::from(oldest.as_str()));
    if facts.oldest.is_some() || lines.asks("partition.from") {
        lines.key(
            "partition.from",
            comment(&format!(
                "from   = {from}  # lower bound of the first partition; default: the oldest row"
            )),
        );
    }
    let about = "number of partitions to create beyond the newest row, or the current time";
    lines.extend([setting("ahead", 8, 3, about)]);
    lines.key("partition.names", setting("names", 8, facts.names.as_str(), ""));
    let about = "a default partition for rows outside all bounds";
    lines.key("partition.default", setting("default", 8, true, about));
    let given_up = &facts.answers.drop_unique;
    if lines.asks("partition.drop_unique") || !given_up.is_empty() {
        let names: Vec<String> = given_up.iter().map(|name| plain(name)).collect();
        let line = if names.is_empty() {
            comment("drop_unique = [\"...\"]")
        } else {
            setting("drop_unique", 0, names, "their indexes stay, and are no longer unique")
        };
        lines.key("partition.drop_unique", line);
    }
}

/// Estimates the number of partitions for the existing rows.
pub(super) fn partitions(facts: &DraftFacts) -> Option<u64> {
    let every = facts.every.unwrap_or(facts.suggested);
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
fn job_name(job: &Ident) -> String {
    let name: String = job.as_str().chars().map(|c| if c.is_control() { '_' } else { c }).collect();
    if name.trim().is_empty() { "job".to_owned() } else { name }
}
