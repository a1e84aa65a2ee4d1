//! A backfill: the columns to add, the trigger that fills rows that are written during the job, and the batches.
//!
//! The plan's SQL is on separate lines, so that a comment in it ends with its line.

use crate::model::filling::{Filling, NewColumn};
use crate::model::ident::{Ident, QualifiedName};
use crate::model::key::{Key, KeyRange};
use crate::model::table::Column;
use crate::plan::check::NULLS_COUNTED;

use super::plan_sql::{applications_path, definers_path, joined, of_function, rights, settings};
use super::{differ, in_range, key_text, key_value, row_types};

/// Applies the settings for the plan's SQL until the transaction ends.
pub fn names(f: &Filling) -> String {
    settings(&f.sql)
}

/// Marks the writes of the transaction as the job's own. The job's trigger ignores them.
pub const OWN_WRITES: &str = "set local pgstrata.filling = 'on'";

/// The maximum time for which a chunk, which holds row locks, waits for another lock (for a unique value, or a row that
/// a foreign key references). The server checks for deadlocks after a second, and the application must not be in a
/// deadlock with the job.
pub const WAIT_BRIEFLY: &str = "set local lock_timeout = '20ms'";

/// Cancels a statement that may wait for a row while it holds others, before the server checks for deadlocks. A session
/// that waits for the job started to wait after the job had locked its first row, so it has not waited as long as the
/// statement has run.
pub const END_EARLY: &str = concat!(
    "select pg_catalog.set_config('statement_timeout', ",
    super::locks::before_deadlock_check_ms!(),
    "::text, true)"
);

/// Adds a column without rewriting the table: a volatile default is set after the column is added, and only applies to
/// rows that are inserted later.
pub fn add_column(f: &Filling, column: &NewColumn) -> Vec<String> {
    let table = &f.table.name;
    let NewColumn { name, sql_type, default, volatile } = column;
    match default {
        None => vec![format!("alter table {table} add column {name} {sql_type}")],
        Some(default) if *volatile => vec![
            format!("alter table {table} add column {name} {sql_type}"),
            format!("alter table {table} alter column {name} set default {default}"),
        ],
        Some(default) => vec![format!("alter table {table} add column {name} {sql_type} default {default}")],
    }
}

/// The condition for rows of `t` to fill. By default, these are the rows in which the binary representation of a column
/// differs from that of its new value.
pub(super) fn meaning(f: &Filling) -> String {
    match &f.filter {
        Some(filter) => format!("(\n{filter}\n)"),
        None => {
            let differs =
                |(name, value): &(Ident, String)| differ(&format!("t.{name}"), &format!("(\n{value}\n)"));
            format!("({})", f.set.iter().map(differs).collect::<Vec<_>>().join(" or "))
        }
    }
}

/// The condition for rows of `t` to fill, for a statement in which functions and triggers of the application run.
pub fn filter(f: &Filling) -> String {
    match applications_path(&f.sql) {
        path if path.is_empty() => meaning(f),
        path => format!("({path}{})", meaning(f)),
    }
}

/// `(expression) as v1, ...`: the new values of the columns.
pub(super) fn values(f: &Filling) -> String {
    let one = |(i, (_, value)): (usize, &(Ident, String))| format!("(\n{value}\n) as v{}", i + 1);
    f.set.iter().enumerate().map(one).collect::<Vec<_>>().join(", ")
}

/// The rows of a batch.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// The rows of a range, except those that another session has locked: the job never waits for a row lock while it
    /// holds others.
    Free(&'a KeyRange),
    /// One row; the batch waits for its lock.
    One(&'a Key),
}

fn condition(f: &Filling, alias: &str, rows: Rows<'_>) -> (String, Vec<String>) {
    let key = f.key_columns();
    match rows {
        Rows::Free(range) => in_range(alias, &key, range, 1),
        Rows::One(values) => {
            let equal =
                |(i, c): (usize, &&Column)| format!("{alias}{} = ${}::{}", c.name, i + 1, c.base_type);
            (key.iter().enumerate().map(equal).collect::<Vec<_>>().join(" and "), values.clone())
        }
    }
}

/// Fills the rows of a range with a plain UPDATE. It waits for rows that other sessions have locked, so it must be sent
/// with [`WAIT_BRIEFLY`] and [`END_EARLY`]; it fills all rows or none. It takes two thirds of the time of [`batch`],
/// which locks rows before it writes. Returns none if the plan has a join: the server would combine the newest version
/// of a row that changed concurrently with the join result of the old version.
pub fn plain(f: &Filling, leaf: &QualifiedName, range: &KeyRange) -> Option<(String, Vec<String>)> {
    if f.from.is_some() {
        return None;
    }
    let (condition, values) = in_range("t.", &f.key_columns(), range, 1);
    let one = |(name, value): &(Ident, String)| format!("{name} = (\n{value}\n)");
    let set = f.set.iter().map(one).collect::<Vec<_>>().join(", ");
    Some((format!("update only {leaf} t set {set} where {condition} and {}", filter(f)), values))
}

/// Fills rows of one table or partition. Returns the number of rows in the range, of rows to fill, of locked rows and
/// of filled rows; for how many milliseconds rows have been locked; and the rows that the plan's `from` returns more
/// than once.
///
/// Rows are locked first, in key order. A row that changed between the snapshot and its lock is locked but not filled:
/// the server would compute its value from the newest version, but with the join result of the old version, or without
/// one. Such a row is recognized by its ctid, which differs from that in the snapshot. The same statement, sent again
/// in the same transaction, fills it, because no other session can change the row any longer.
pub fn batch(f: &Filling, leaf: &QualifiedName, rows: Rows<'_>) -> (String, Vec<String>) {
    let key = f.key_columns();
    let (of_t, values_of) = condition(f, "t.", rows);
    let (of_u, _) = condition(f, "u.", rows);
    let each = |one: &dyn Fn(usize, &Column) -> String, separator: &str| {
        key.iter().enumerate().map(|(i, c)| one(i + 1, c)).collect::<Vec<_>>().join(separator)
    };
    let set =
        f.set.iter().enumerate().map(|(i, (name, _))| format!("{name} = b.v{}", i + 1)).collect::<Vec<_>>();
    let lock = if f.changes_unique() { "for update" } else { "for no key update" };
    let skip = if matches!(rows, Rows::Free(_)) { " skip locked" } else { "" };
    let (source, filter) = (joined(f.from.as_ref(), &format!("only {leaf}")), filter(f));
    // With a join, do not count the rows to fill: that can cost as much as all other work. Rows that other sessions
    // have locked are left to the second pass.
    let to_fill = match f.from {
        None => format!("count(*) filter (where {filter})"),
        Some(_) => "(select count(*) from batch)".to_owned(),
    };
    let sql = format!(
        "with batch as materialized (
  select locked.*, clock_timestamp() as since from (
    select {named}, t.ctid as place, {values}
    from {source}  where {of_t} and {filter}
    order by {order}
    {lock} of t{skip}
  ) locked
), filled as (
  update only {leaf} u set {set} from batch b where {same} and u.ctid = b.place and {of_u} returning 1
)
select to_fill.rows, to_fill.to_fill, (select count(*) from batch), (select count(*) from filled),
  (extract(epoch from clock_timestamp() - (select min(since) from batch)) * 1000)::double precision,
  case when (select count(*) from batch) > (select count(*) from filled) then (select string_agg(key, '; ') from (
    select pg_catalog.concat_ws(', ', {list}) as key from batch group by place, {list} having count(*) > 1 order by {list} limit 10) twice) end
from (select count(*) as rows, {to_fill} as to_fill from only {leaf} t where {of_t}) to_fill",
        named = each(&|i, c| format!("t.{} as k{i}", c.name), ", "),
        values = values(f),
        order = each(&|_, c| format!("t.{}", c.name), ", "),
        set = set.join(", "),
        same = each(&|i, c| format!("u.{} = b.k{i}", c.name), " and "),
        list = each(&|i, _| format!("k{i}"), ", "),
    );
    (sql, values_of)
}

/// Computes the new values of a row.
pub fn computed(f: &Filling, leaf: &QualifiedName, key: &Key) -> (String, Vec<String>) {
    let (condition, of_key) = condition(f, "t.", Rows::One(key));
    let from = joined(f.from.as_ref(), &format!("only {leaf}"));
    (format!("select {} from {from}  where {condition} and {}", values(f), filter(f)), of_key)
}

/// The keys, as text, of the first ten rows that this transaction wrote and that the condition still matches.
pub fn still_matching(f: &Filling, leaf: &QualifiedName, rows: Rows<'_>) -> (String, Vec<String>) {
    let (condition, values) = condition(f, "t.", rows);
    let sql = format!(
        "select {} from {}  where {condition} and t.xmin = pg_catalog.pg_current_xact_id()::xid and {} order by {} limit 10",
        key_text("t.", &f.key),
        joined(f.from.as_ref(), &format!("only {leaf}")),
        filter(f),
        in_key_order(f)
    );
    (sql, values)
}

/// The columns of the key, as in ORDER BY.
fn in_key_order(f: &Filling) -> String {
    f.key_columns().iter().map(|c| format!("t.{}", c.name)).collect::<Vec<_>>().join(", ")
}

/// The keys of up to `limit` rows to fill, in order.
pub fn to_fill(f: &Filling, leaf: &QualifiedName, range: &KeyRange, limit: u32) -> (String, Vec<String>) {
    let key = f.key_columns();
    let (condition, values) = in_range("t.", &key, range, 1);
    let values_of = key.iter().map(|c| key_value("t.", c)).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "select {values_of} from {}  where {condition} and {} order by {} limit {limit}",
        joined(f.from.as_ref(), &format!("only {leaf}")),
        filter(f),
        in_key_order(f)
    );
    (sql, values)
}

/// The number of rows with NULL in the key, at most [`NULLS_COUNTED`]; none if the key is NOT NULL.
pub fn null_keys(f: &Filling) -> Option<String> {
    let condition = f.nullable_key.iter().map(|c| format!("{c} is null")).collect::<Vec<_>>().join(" or ");
    let rows = if f.is_partitioned() { f.table.name.to_string() } else { format!("only {}", f.table.name) };
    let count = || {
        format!(
            "select pg_catalog.count(*) from (select from {rows} where {condition} limit {NULLS_COUNTED}) x"
        )
    };
    (!f.nullable_key.is_empty()).then(count)
}

/// Whether the table has a row to fill.
pub fn any_to_fill(f: &Filling) -> String {
    let rows = if f.is_partitioned() { f.table.name.to_string() } else { format!("only {}", f.table.name) };
    format!("select exists (select from {}  where {})", joined(f.from.as_ref(), &rows), filter(f))
}

/// Creates the trigger that fills rows that are written from now on, and its function. If the plan's SQL fails, the row
/// is written unchanged: the application's write must not fail, and the job finds the row later.
pub fn keep_filled(f: &Filling) -> Vec<String> {
    let (table, function, trigger) = (&f.table.name, f.fill_function(), f.fill_trigger());
    let set: String = f
        .set
        .iter()
        .enumerate()
        .map(|(i, (name, _))| format!("    new.{name} := filled.v{};\n", i + 1))
        .collect();
    let body = format!(
        "#variable_conflict use_column
declare
  filled record;
begin
{}  select {} into filled from {}  where {};
  if found then
{set}  end if;
  return new;
exception when others then
  return new;
end",
        row_types::of_filling(f),
        values(f),
        joined(f.from.as_ref(), &row_as_written(f)),
        if f.sql.names_others { format!("({}{})", definers_path(&f.sql), meaning(f)) } else { meaning(f) }
    );
    let mut all = vec![format!(
        "create or replace function {function}() returns trigger language plpgsql {}\n{}\nas {}",
        rights(&f.sql),
        of_function(&f.sql),
        super::dollar_quoted(&body)
    )];
    all.extend(super::on_writes(table, &trigger, &function));
    all
}

/// The row that the trigger sees. Its generated columns have no value, because the server computes them after all
/// BEFORE triggers.
fn row_as_written(f: &Filling) -> String {
    if f.table.written_columns().count() == f.table.columns.len() {
        return "(select new.*)".to_owned();
    }
    let own = f.table.columns.iter().map(|c| match &c.default {
        Some(made_from) if !c.generated.is_empty() => format!("({made_from}) as {}", c.name),
        _ => format!("n.{}", c.name),
    });
    let added = f.missing().map(|c| format!("n.{}", c.name));
    format!("(select {} from (select new.*) n)", own.chain(added).collect::<Vec<_>>().join(", "))
}

/// Removes the trigger.
pub fn stop_filling(f: &Filling) -> Vec<String> {
    vec![format!("drop trigger if exists {} on {}", f.fill_trigger(), f.table.name), drop_function(f)]
}

/// Drops the trigger's function.
pub fn drop_function(f: &Filling) -> String {
    format!("drop function if exists {}()", f.fill_function())
}

/// Whether the table with oid `$1` has the trigger called `$2`, and it is enabled.
pub const KEEPS_FILLED: &str = "select exists (select from pg_catalog.pg_trigger \
    where tgrelid = $1 and tgname = $2 and tgenabled = 'A')";

/// The columns of the table; `$1` is its oid.
pub const COLUMNS: &str =
    "select attname from pg_catalog.pg_attribute where attrelid = $1 and attnum > 0 and not attisdropped";

/// The leaves of a partitioned table, at any level; `$1` is its oid.
pub const LEAVES: &str = "select n.nspname, c.relname from pg_catalog.pg_partition_tree($1::oid::regclass) p
  join pg_catalog.pg_class c on c.oid = p.relid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where p.isleaf order by 1, 2";
