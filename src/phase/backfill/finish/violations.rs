//! Counts the rows that would violate new constraints, and lists some of their keys, before anything is added.

use std::cell::RefCell;

use crate::error::{Error, Kind, Result};
use crate::event::{ConstraintWork, PhaseOutcome};
use crate::model::ident::{Ident, QualifiedName, plain, plain_list};
use crate::model::key::KeyRange;
use crate::model::number;
use crate::model::pace::Work;
use crate::pg::catalog;
use crate::pg::connect::Session;
use crate::pg::transaction::query_text;
use crate::phase::job::meter::Meter;
use crate::phase::job::{chunks, workers};
use crate::sql::fill;
use crate::sql::finish::{self as sql, RowRule};

use super::super::BackfillJob;
use super::{Open, tree};

/// The number of rows in a range: this search only reads.
const ROWS: u64 = 20_000;
/// The maximum number of keys listed for one constraint.
const NAMED: usize = 5;

/// The violations of one constraint.
#[derive(Debug, Default)]
struct RuleViolations {
    count: i64,
    keys: Vec<String>,
}

/// Fails if rows violate a missing constraint.
///
/// # Errors
/// Differs, with the number of rows for each constraint and some of their keys; or the server returned an error.
pub async fn none(filler: &BackfillJob, open: &Open<'_>) -> Result<()> {
    filler.gate.set_work(Work::Reads);
    let looked = find(filler, open).await;
    filler.gate.set_work(Work::Writes);
    let violated = looked?;
    if violated.is_empty() {
        return Ok(());
    }
    let table = filler.filling.table.name.plain();
    Err(Error::new(
        Kind::Differs,
        format!("rows of {table} violate {}", number::counted(violated.len() as u64, "constraint")),
    )
    .cause(violated.join(" | "))
    .hint(
        "nothing was added; correct these rows and run again: the job continues from here; or abort the job, change `set` \
        in the plan, and run it again: filled rows stay filled",
    ))
}

/// One line for each violated constraint.
async fn find(filler: &BackfillJob, open: &Open<'_>) -> Result<Vec<String>> {
    let f = &filler.filling;
    let rules: Vec<RowRule<'_>> =
        sql::rules(f).into_iter().filter(|rule| is_open(filler, open, *rule)).collect();
    let unique: Vec<&(Ident, Vec<Ident>)> =
        f.finish.unique.iter().filter(|(name, _)| open.indexes.contains(name)).collect();
    if rules.is_empty() && unique.is_empty() {
        return Ok(Vec::new());
    }
    let work = ConstraintWork::FindViolations { table: f.table.name.plain() };
    let mut meter = Meter::begin(filler, work);
    if !rules.is_empty() {
        let oid = catalog::must_find(&filler.control, &f.table.name).await?;
        let (rows, ..) = catalog::size(&filler.control, oid).await?;
        meter.count("rows", u64::try_from(rows).unwrap_or(0), 0);
    }
    let found: RefCell<Vec<RuleViolations>> =
        RefCell::new(rules.iter().map(|_| RuleViolations::default()).collect());
    if !rules.is_empty() {
        for part in tree(filler).await?.into_iter().filter(|part| part.leaf) {
            one_leaf(filler, &part.name, &rules, &found, &meter).await?;
        }
    }
    let mut lines: Vec<String> = rules
        .iter()
        .zip(found.into_inner())
        .filter(|(_, found)| found.count > 0)
        .map(|(rule, found)| {
            format!("{}: {} by key {}", named(*rule), rows_of(found.count), found.keys.join("; "))
        })
        .collect();
    for (_, columns) in unique {
        lines.extend(repeated(filler, columns).await?);
    }
    meter.end(match lines.len() {
        0 => PhaseOutcome::NoViolations,
        n => PhaseOutcome::Violations { constraints: n as u64 },
    });
    Ok(lines)
}

fn is_open(filler: &BackfillJob, open: &Open<'_>, rule: RowRule<'_>) -> bool {
    match rule {
        RowRule::NotNull(column) => open.not_null.contains(&column),
        RowRule::Check(condition) => {
            filler.filling.finish.checks.iter().any(|(name, c)| c == condition && open.checks.contains(name))
        }
        RowRule::Key(key) => open.keys.contains(&key),
    }
}

/// `check (a > 0)`.
fn named(rule: RowRule<'_>) -> String {
    match rule {
        RowRule::NotNull(column) => format!("not null of {}", plain(column.as_str())),
        RowRule::Check(condition) => format!("check ({condition})"),
        RowRule::Key(key) => {
            format!("foreign key ({}) to {}", plain_list(&key.columns), key.references.plain())
        }
    }
}

fn rows_of(count: i64) -> String {
    number::counted(u64::try_from(count).unwrap_or(0), "row") + ","
}

async fn one_leaf(
    filler: &BackfillJob,
    leaf: &QualifiedName,
    rules: &[RowRule<'_>],
    found: &RefCell<Vec<RuleViolations>>,
    meter: &Meter<'_>,
) -> Result<()> {
    let key = filler.filling.key_columns();
    let whole = KeyRange { after: None, through: None };
    workers::run(
        filler,
        filler.plan.workers(),
        |_| format!("look for rows of {} that violate a constraint", leaf.plain()),
        async |items| {
            let send = async |range, rows| items.send((range, rows)).await;
            chunks::for_each_range(filler, (leaf, &format!("only {leaf}")), &key, whole, || ROWS, send).await
        },
        async |session, (range, rows)| {
            let of_range = one_range(filler, session, leaf, range, rules).await?;
            for (all, one) in found.borrow_mut().iter_mut().zip(of_range) {
                all.count += one.count;
                let room = NAMED.saturating_sub(all.keys.len());
                all.keys.extend(one.keys.into_iter().take(room));
            }
            meter.add(*rows);
            meter.keep().await
        },
    )
    .await
}

async fn one_range(
    filler: &BackfillJob,
    session: &Session,
    leaf: &QualifiedName,
    range: &KeyRange,
    rules: &[RowRule<'_>],
) -> Result<Vec<RuleViolations>> {
    let f = &filler.filling;
    filler
        .reading(session, std::slice::from_ref(leaf), async |client| {
            let mut all = Vec::new();
            for rule in rules {
                // The search for another rule may have set the application's search path.
                client.batch_execute(&fill::names(f)).await?;
                let (statement, values) = sql::violating(f, leaf, range, *rule);
                let rows = query_text(client, &statement, &values).await?;
                all.push(RuleViolations {
                    count: rows.first().map_or(0, |row| row.get(0)),
                    keys: rows.iter().map(|row| row.get(1)).collect(),
                });
            }
            Ok(all)
        })
        .await
}

/// Finds duplicate values with one scan of the table: a search by ranges of keys would not find duplicates in different
/// ranges.
async fn repeated(filler: &BackfillJob, of: &[Ident]) -> Result<Option<String>> {
    let f = &filler.filling;
    let rows = filler
        .retrying(
            &format!("look for duplicate values in {}", filler.filling.table.name.plain()),
            async || {
                filler
                    .reading(&filler.control, std::slice::from_ref(&f.table.name), async |client| {
                        client.batch_execute(&fill::names(f)).await?;
                        Ok(client.query(&sql::repeated(f, of), &[]).await?)
                    })
                    .await
            },
        )
        .await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let keys: Vec<String> = rows.iter().map(|row| row.get(1)).collect();
    let count = u64::try_from(first.get::<_, i64>(0)).unwrap_or(0);
    Ok(Some(format!(
        "unique ({}): {} in more than one row, by key {}",
        plain_list(of),
        number::counted(count, "value"),
        keys.join("; ")
    )))
}
