//! A sample of the rows to fill: their keys, their new values, and the update that is rolled back.
//!
//! Rows are identified by their keys, which are passed as one text array for each column: `$1`, `$2` ...

use crate::model::filling::Filling;
use crate::model::ident::Ident;

use super::fill::{filter, values};
use super::plan_sql::{applications_path, joined};
use super::trial::{rows_as_they_will_be, type_and_collation, whole};
use super::{from_written, key_text, key_value, list};

/// Fires deferred triggers, which would otherwise never fire, because the transaction is rolled back.
pub const FIRE_DEFERRED: &str = "set constraints all immediate";

/// The rows of the table from which a sample is taken.
#[derive(Debug, Clone, Copy)]
pub enum From<'a> {
    /// That percentage of the table's pages, chosen at random.
    Pages(f64),
    /// The rows that satisfy the condition.
    Where(&'a str),
}

/// The keys of up to `limit` rows. With `matching`, only those of rows that satisfy the plan's `where`, which may fail
/// for a row.
pub fn keys(f: &Filling, from: From<'_>, limit: u32, matching: bool) -> String {
    let part = match from {
        From::Pages(percent) if percent < 100.0 => format!(" tablesample system ({percent})"),
        From::Pages(_) => String::new(),
        From::Where(condition) => format!(" where {condition}"),
    };
    // Select from the table in a subquery, because TABLESAMPLE and ctid need the table itself. The missing columns are
    // added around it.
    let rows = rows_as_they_will_be(f, &format!("(select * from {}{part})", whole(f)));
    let key = f.key_columns();
    let texts = key.iter().map(|c| key_value("t.", c)).collect::<Vec<_>>().join(", ");
    if !(matching && f.filter.is_some()) {
        return format!("select {texts} from {rows} t limit {limit}");
    }
    format!("select {texts} from {}  where {} limit {limit}", joined(f.from.as_ref(), &rows), filter(f))
}

/// A condition that is true if `t` is one of the rows of the sample.
fn among(f: &Filling) -> String {
    let key = f.key_columns();
    let (mut own, mut cast, mut arrays, mut names) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (i, column) in key.iter().enumerate() {
        let n = i + 1;
        own.push(format!("t.{}", column.name));
        cast.push(from_written(&format!("k.k{n}"), column));
        arrays.push(format!("${n}::text[]"));
        names.push(format!("k{n}"));
    }
    format!(
        "({}) in (select {} from unnest({}) k ({}))",
        own.join(", "),
        cast.join(", "),
        arrays.join(", "),
        names.join(", ")
    )
}

/// A condition that is true if `t` is one of the rows of the sample and must be filled. The planner may evaluate
/// conditions in any order; CASE prevents the plan's SQL from being evaluated for other rows, for which it may fail.
fn among_to_fill(f: &Filling) -> String {
    let among = among(f);
    format!("{among} and case when {among} then {} else false end", filter(f))
}

/// For each row to fill, as often as the plan's `from` returns it: its key, and whether each column is set to NULL.
pub fn evaluated(f: &Filling) -> String {
    let key = f.key_columns().iter().map(|c| key_value("t.", c)).collect::<Vec<_>>().join(", ");
    let nulls = (1..=f.set.len()).map(|n| format!("x.v{n} is null")).collect::<Vec<_>>().join(", ");
    format!(
        "select x.key, array[{nulls}] from (\n  select array[{key}] as key, {} from {}  where {}) x",
        values(f),
        source(f),
        among_to_fill(f)
    )
}

/// Updates the rows that no other session has locked; returns the number of locked and of updated rows.
pub fn updated(f: &Filling) -> String {
    let key = f.key_columns();
    let each = |render: &dyn Fn(usize, &Ident) -> String, between: &str| {
        let all = key.iter().enumerate().map(|(i, column)| render(i + 1, &column.name));
        all.collect::<Vec<_>>().join(between)
    };
    let set =
        f.set.iter().enumerate().map(|(i, (name, _))| format!("{name} = b.v{}", i + 1)).collect::<Vec<_>>();
    let lock = if f.changes_unique() { "for update" } else { "for no key update" };
    format!(
        "with batch as materialized (
  select locked.* from (
    select {named}, {values}
    from {source}  where {to_fill}
    order by {order}
    {lock} of t skip locked
  ) locked
), filled as (
  update {table} u set {set} from batch b where {same} returning 1
)
select (select count(*) from (select distinct {keys} from batch) locked), (select count(*) from filled)",
        named = each(&|n, name| format!("t.{name} as k{n}"), ", "),
        keys = each(&|n, _| format!("k{n}"), ", "),
        values = values(f),
        source = source(f),
        to_fill = among_to_fill(f),
        order = each(&|_, name| format!("t.{name}"), ", "),
        table = whole(f),
        set = set.join(", "),
        same = each(&|n, name| format!("u.{name} = b.k{n}"), " and "),
    )
}

/// Updates the rows that no other session has locked without changing a value. This fires the triggers that the job's
/// update will fire, although columns that the job sets do not exist yet. Returns the number of locked and of updated
/// rows.
pub fn touched(f: &Filling, columns: &[&Ident]) -> String {
    let key = f.key_columns();
    let names = list("t.", key.iter().map(|c| &c.name));
    let same = key.iter().map(|c| format!("u.{0} = b.{0}", c.name)).collect::<Vec<_>>().join(" and ");
    let set = columns.iter().map(|name| format!("{name} = u.{name}")).collect::<Vec<_>>().join(", ");
    format!(
        "with batch as materialized (
  select {names} from {table} t where {path}{among} order by {names} for no key update of t skip locked
), touched as (
  update {table} u set {set} from batch b where {same} returning 1
)
select (select count(*) from batch), (select count(*) from touched)",
        table = whole(f),
        path = applications_path(&f.sql),
        among = among(f),
    )
}

/// The keys of rows that this transaction updated and that would have to be filled again.
pub fn still_matching(f: &Filling) -> String {
    format!(
        "select {} from {}  where {} and t.xmin = pg_catalog.pg_current_xact_id()::xid {}",
        key_text("t.", &f.key),
        source(f),
        among_to_fill(f),
        once_each(f)
    )
}

/// As [`still_matching`], if the columns do not exist yet: for rows with the values that they would have.
pub fn would_be_meant(f: &Filling) -> String {
    let value = |(name, value): &(Ident, String)| {
        let there = f.table.column(name).map(|c| c.sql_type.as_str());
        let sql_type =
            there.or_else(|| f.missing().find(|c| c.name == *name).map(|c| type_and_collation(c).0));
        format!("cast((\n{value}\n) as {}) as {name}", sql_type.unwrap_or("text"))
    };
    let set: Vec<String> = f.set.iter().map(value).collect();
    let others = f.table.columns.iter().map(|c| &c.name).chain(f.missing().map(|c| &c.name));
    let others = list("t.", others.filter(|name| f.set.iter().all(|(set, _)| set != *name)));
    let rows =
        format!("(select {others}, {} from {}  where {})", set.join(", "), source(f), among_to_fill(f));
    format!(
        "select {} from {}  where {} {}",
        key_text("t.", &f.key),
        joined(f.from.as_ref(), &rows),
        filter(f),
        once_each(f)
    )
}

/// A query that returns each row once, in key order.
fn once_each(f: &Filling) -> String {
    let key = list("t.", f.key_columns().iter().map(|c| &c.name));
    format!("group by {key} order by {key}")
}

fn source(f: &Filling) -> String {
    joined(f.from.as_ref(), &rows_as_they_will_be(f, &whole(f)))
}
