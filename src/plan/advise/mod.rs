//! Advises on the partition column: what each column keeps, what it gives up, and what it costs.
//!
//! For each column, a draft of the plan is checked. The findings of the check show what is given up and what must be done
//! first, so the advice always agrees with the check. The order of the columns is decided here.

mod column;
#[cfg(test)]
mod tests;
mod text;

use serde::Serialize;

use super::check::{self, Facts, Found, Relation};
use super::draft::{DraftFacts, draft, partitions};
use super::partitioning::is_time;
use super::suggest::{histogram_by_month, suggest, suggest_epoch, suggest_integers};
use super::{Plan, suggest::moment};
use crate::model::finding::{Finding, Level};
use crate::model::ident::{Ident, plain, plain_list};
use crate::model::partition::{ColumnKind, Every, Scheme, Template};
use crate::model::table::{Column, Table};

pub use self::column::ColumnProfile;
use self::column::{Fit, fit};
pub use self::text::head;

/// One fact in the advice. `code` is stable, `text` is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    /// What kind of fact it is.
    pub code: &'static str,
    /// The object: a constraint, index or column.
    pub object: String,
    /// The fact in a few words.
    pub text: String,
}

impl Point {
    fn new(code: &'static str, object: impl Into<String>, text: impl Into<String>) -> Self {
        Self { code, object: object.into(), text: text.into() }
    }
}

/// A column by which the table could be partitioned.
#[derive(Debug, Clone, Serialize)]
pub struct Choice {
    /// The column, as SQL.
    pub column: String,
    /// Its type.
    pub sql_type: String,
    /// The interval of one partition.
    pub every: String,
    /// The number of partitions for the existing rows; none if the values are not known.
    pub partitions: Option<u64>,
    /// Constraints that stay as they are: the key, unique constraints and indexes, foreign keys to the table.
    pub keeps: Vec<Point>,
    /// Constraints that end or become weaker.
    pub gives_up: Vec<Point>,
    /// What must be done before the job can start.
    pub first: Vec<Point>,
    /// What it costs afterward.
    pub costs: Vec<Point>,
    /// Why the column is suitable.
    pub reasons: Vec<Point>,
    /// The draft of its plan.
    #[serde(skip)]
    pub drafted: DraftFacts,
    #[serde(skip)]
    weight: u32,
}

/// The advice for a table.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Advice {
    /// The columns, the best first.
    pub choices: Vec<Choice>,
    /// Columns of a usable type that are not suitable, and why.
    pub unsuitable: Vec<Point>,
}

/// Evaluates every column in `profiles`. With `every`, only those whose type has such intervals.
pub fn advise(facts: &Facts, profiles: &[ColumnProfile], every: Option<Every>) -> Advice {
    let mut advice = Advice::default();
    let Relation::There(found) = &facts.relation else { return advice };
    for profile in profiles {
        let Some(column) = found.table.column(&Ident::new(&profile.name)) else { continue };
        let Some(kind) = ColumnKind::from_sql(&column.base_type) else { continue };
        if every.is_some_and(|every| Scheme::new(kind, every, chrono_tz::Tz::UTC).is_err()) {
            continue;
        }
        let name = plain(&profile.name);
        match fit(found, column, kind, profile) {
            Fit::Unsuitable(why) => advice.unsuitable.push(Point::new("unsuitable", name, why)),
            fit => advice.choices.push(choice(facts, found, column, kind, profile, fit, every)),
        }
    }
    advice.choices.sort_by_key(|choice| choice.weight);
    advice
}

/// The result for one column: a choice, or the reason why it is unsuitable.
pub(super) fn requested(
    facts: &Facts,
    found: &Found,
    column: &Column,
    kind: ColumnKind,
    profile: &ColumnProfile,
    every: Option<Every>,
) -> Choice {
    choice(facts, found, column, kind, profile, fit(found, column, kind, profile), every)
}

fn choice(
    facts: &Facts,
    found: &Found,
    column: &Column,
    kind: ColumnKind,
    profile: &ColumnProfile,
    fit: Fit,
    every: Option<Every>,
) -> Choice {
    let mut facts = facts.clone();
    if let Relation::There(there) = &mut facts.relation {
        there.values.clone_from(&profile.values);
    }
    let mut drafted = described(found, column, kind, profile, &fit, every);
    answer(&facts, &mut drafted);
    let by = &column.name;
    let (keeps, gives_up) = constraints(&found.table, by, &drafted);
    let first = drafted.findings.iter().filter(|finding| finding.level == Level::Error).map(first_of);
    let first: Vec<Point> = first.collect();
    let lost = |point: &Point| if point.code == "generated_key" { 1 } else { 10 };
    let mut choice = Choice {
        column: plain(by.as_str()),
        sql_type: column.sql_type.clone(),
        every: drafted.every.unwrap_or(drafted.suggested).to_string(),
        partitions: partitions(&drafted),
        weight: fit.weight()
            + gives_up.iter().map(lost).sum::<u32>()
            + 20 * u32::from(drafted.answers.not_null)
            + 50 * first.len() as u32,
        costs: Vec::new(),
        reasons: Vec::new(),
        keeps,
        gives_up,
        first,
        drafted,
    };
    choice.costs = costs(found, by, profile, &fit, &choice);
    choice.reasons = reasons(by, &fit, &choice);
    choice
}

/// Checks the draft, and adds settings that resolve the findings until there is no new one. The draft contains the
/// remaining findings.
fn answer(facts: &Facts, drafted: &mut DraftFacts) {
    let Relation::There(found) = &facts.relation else { return };
    // Each round resolves at least one finding, and each is resolved only once.
    loop {
        let plan = Plan::parse(&draft(drafted), "the draft");
        let Ok(plan) = plan else { return };
        let Ok(partitioning) = plan.partitioning() else { return };
        let (findings, _) = check::check(&plan, partitioning, facts);
        let mut answered = false;
        for finding in findings.iter().filter(|finding| finding.level == Level::Error) {
            answered |= drafted.answers.take(&found.table, finding);
        }
        if answered {
            continue;
        }
        if let Some(carried) = findings.iter().find(|finding| finding.code == "carried") {
            carried.message.trim_start_matches("carried over: ").clone_into(&mut drafted.carried);
        }
        drafted.findings = findings.into_iter().filter(|finding| finding.level != Level::Note).collect();
        return;
    }
}

fn described(
    found: &Found,
    column: &Column,
    kind: ColumnKind,
    profile: &ColumnProfile,
    fit: &Fit,
    every: Option<Every>,
) -> DraftFacts {
    let (rows, bytes) = (found.size.rows.unsigned_abs(), found.size.bytes.unsigned_abs());
    let values = profile.values.clone().unwrap_or_default();
    let ends = values.oldest.as_deref().zip(values.newest.as_deref());
    let numbers = ends.and_then(|(oldest, newest)| Some((oldest.parse().ok()?, newest.parse().ok()?)));
    let span = numbers.map_or(0, |(oldest, newest): (i64, i64)| newest.abs_diff(oldest));
    let (suggested, because) = match fit {
        Fit::Epoch(unit) => suggest_epoch(rows, bytes, span, *unit),
        _ if is_time(kind) => {
            let span_s =
                ends.and_then(|(oldest, newest)| Some((moment(newest)? - moment(oldest)?).num_seconds()));
            suggest(rows, bytes, span_s.unwrap_or(0) as f64 / 86_400.0)
        }
        _ => suggest_integers(rows, bytes, span),
    };
    let key = check::key(&found.table);
    let per_month = if is_time(kind) { histogram_by_month(&profile.histogram, rows) } else { Vec::new() };
    DraftFacts {
        by: column.name.as_str().to_owned(),
        by_type: column.base_type.clone(),
        key: key
            .and_then(|key| key.columns.as_ref())
            .map_or(Vec::new(), |key| key.iter().map(|name| name.as_str().to_owned()).collect()),
        key_kind: if key.is_some_and(|key| key.constraint == "p") { "primary key" } else { "unique index" }
            .to_owned(),
        oldest: values.oldest,
        newest: values.newest,
        per_month,
        suggested,
        because,
        every,
        names: Template::default_for(every.unwrap_or(suggested)).to_owned(),
        ..DraftFacts::of_table(found.table.name.clone(), rows, bytes)
    }
}

/// The constraints that a partitioned table keeps, and those that end, according to the check.
fn constraints(table: &Table, by: &Ident, drafted: &DraftFacts) -> (Vec<Point>, Vec<Point>) {
    let (mut keeps, mut gives_up) = (Vec::new(), Vec::new());
    let key = check::key(table);
    let reported = |codes: &[&str], object: &str| {
        drafted.findings.iter().any(|finding| codes.contains(&finding.code) && finding.object == object)
    };
    for index in table.indexes.iter().filter(|index| index.unique || index.exclusion.is_some()) {
        let name = plain(index.name.as_str());
        let columns = match &index.columns {
            Some(columns) => plain_list(columns),
            None => "an expression".to_owned(),
        };
        if key.is_some_and(|key| key.name == index.name) {
            let lacks = index.columns.as_ref().is_some_and(|columns| !columns.contains(by));
            let widened = lacks && reported(&["key_widened"], &name);
            match (widened, column::is_generated(table, index)) {
                (false, _) => keeps.push(Point::new("key", name, format!("key ({columns})"))),
                (true, true) => {
                    let text = format!("uniqueness of ({columns}) alone");
                    gives_up.push(Point::new("generated_key", name, text));
                }
                (true, false) => {
                    let text = format!("uniqueness of ({columns}) alone");
                    gives_up.push(Point::new("natural_key", name, text));
                }
            }
        } else if reported(&["unique_given_up", "exclusion_constraint"], &name) {
            let what = if index.unique { "unique" } else { "exclusion" };
            gives_up.push(Point::new("unique", &name, format!("{what} {name}")));
        } else {
            keeps.push(Point::new("unique", &name, format!("unique {name}")));
        }
    }
    for key in &table.referenced_by {
        let name = plain(key.name.as_str());
        let text = format!("foreign key {name} of {}", key.table.plain());
        let point = Point::new("foreign_key", &name, text);
        let lost = reported(&["incoming_foreign_key", "incoming_foreign_key_dropped"], &name);
        if lost { &mut gives_up } else { &mut keeps }.push(point);
    }
    (keeps, gives_up)
}

fn first_of(finding: &Finding) -> Point {
    let text = match finding.code {
        "null_in_partition_column" => {
            format!("set null_as, or give a value to rows in which {} is NULL", finding.object)
        }
        "no_usable_key" => "create a key".to_owned(),
        code => format!("resolve {code}"),
    };
    Point::new(finding.code, &finding.object, text)
}

fn costs(found: &Found, by: &Ident, profile: &ColumnProfile, fit: &Fit, choice: &Choice) -> Vec<Point> {
    let mut costs = Vec::new();
    let name = plain(by.as_str());
    let key = check::key(&found.table).and_then(|key| key.columns.as_ref());
    if let Some(key) = key.filter(|key| !key.contains(by)) {
        let key = plain_list(key);
        let text = match choice.partitions {
            Some(n) if n > 1 => format!("a lookup by ({key}) alone reads {n} partitions"),
            _ => format!("a lookup by ({key}) alone reads every partition"),
        };
        costs.push(Point::new("key_lookup", key, text));
    }
    let time = column::insertion_time(&found.table).filter(|time| *time != by);
    if let Some(time) = time.filter(|_| !matches!(fit, Fit::Epoch(_))) {
        let time = plain(time.as_str());
        costs.push(Point::new("time_lookup", &time, format!("a query by {time} reads every partition")));
    }
    match fit {
        Fit::Updated => {
            let text = format!("an update of {name} moves the row to another partition");
            costs.push(Point::new("rows_move", &name, text));
        }
        Fit::Key { grows: Some(false) } | Fit::Unsuitable(_) => {
            let text = "new rows go to every partition, none can be dropped by age";
            costs.push(Point::new("scattered", &name, text));
        }
        _ => {}
    }
    if choice.drafted.answers.not_null {
        let text = format!("from the start of the job, writes of NULL to {name} fail");
        costs.push(Point::new("null_rejected", &name, text));
    }
    if !profile.indexed {
        let text = format!("no index starts with {name}: `check` reads the whole table");
        costs.push(Point::new("no_index", &name, text));
    }
    if choice.partitions == Some(1) {
        let text =
            "all rows fit into one partition: the table is small, or needs a shorter interval (--every)";
        costs.push(Point::new("one_partition", &name, text));
    }
    costs
}

fn reasons(by: &Ident, fit: &Fit, choice: &Choice) -> Vec<Point> {
    let mut reasons = Vec::new();
    let name = plain(by.as_str());
    if choice.gives_up.is_empty() && !choice.keeps.is_empty() {
        let text = "every unique constraint, and every foreign key to the table, stays as it is";
        reasons.push(Point::new("keeps_everything", &name, text));
    } else if matches!(fit, Fit::Key { .. }) {
        let text = format!("{name} is in the key, which stays as it is");
        reasons.push(Point::new("keeps_key", &name, text));
    }
    let text = match fit {
        Fit::Key { grows: Some(true) } | Fit::Number => {
            "its values grow: new rows go to the newest partition, older ones are rarely written".to_owned()
        }
        Fit::Inserted => "it is the time of the row: old partitions can be dropped by age".to_owned(),
        Fit::Epoch(unit) => format!("its values are times in {} since 1970", unit.name()),
        Fit::OtherTime => "it is a time: partitions can be dropped by period".to_owned(),
        _ => return reasons,
    };
    let code = match fit {
        Fit::Key { .. } | Fit::Number => "grows",
        _ => "time",
    };
    reasons.push(Point::new(code, &name, text));
    reasons
}
