//! A backfill: columns that are added, the trigger that fills what is written meanwhile, and one batch.
//!
//! The plan's own SQL stands on lines of its own, so that a comment in it ends there.

use crate::model::filling::{Filling, NewColumn};
use crate::model::ident::{Ident, QualifiedName};
use crate::model::key::{Key, KeyRange};
use crate::model::table::Column;

use super::plan_sql::{applications_path, joined, of_function, rights, settings};
use super::{differ, in_range, key_text, key_value};

/// The settings of the plan's SQL, until the transaction ends.
pub fn names(f: &Filling) -> String {
    settings(&f.sql)
}

/// Marks the transaction's writes as the job's own, which its trigger lets pass.
pub const OWN_WRITES: &str = "set local pgstrata.filling = 'on'";

/// A chunk holds rows, so it waits for nothing else that others have (a unique value, a row that a foreign key points to)
/// for longer than this: the server looks for deadlocks after a second, and must not find the application in one with us.
pub const WAIT_BRIEFLY: &str = "set local lock_timeout = '20ms'";

/// A statement that may wait for a row while it holds others ends before the server looks for deadlocks: whoever waits behind
/// us began to after we had our first row, and has not waited for as long by then.
pub const END_EARLY: &str = concat!(
    "select pg_catalog.set_config('statement_timeout', ",
    super::locks::before_deadlock_check_ms!(),
    "::text, true)"
);

/// Adds a column. None of it writes a row anew: a default that is not the same for every row is set behind the column, and
/// holds for rows that come from then on.
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

/// Which rows of `t` are meant. Where the plan does not say, those in which a column has another image than the value it
/// would be set to.
fn meaning(f: &Filling) -> String {
    match &f.filter {
        Some(filter) => format!("(\n{filter}\n)"),
        None => {
            let differs =
                |(name, value): &(Ident, String)| differ(&format!("t.{name}"), &format!("(\n{value}\n)"));
            format!("({})", f.set.iter().map(differs).collect::<Vec<_>>().join(" or "))
        }
    }
}

/// The same as the condition of a statement, which the application's functions and triggers run in.
pub fn filter(f: &Filling) -> String {
    match applications_path(&f.sql) {
        path if path.is_empty() => meaning(f),
        path => format!("({path}{})", meaning(f)),
    }
}

/// `(expression) as v1, ...`: what each column is set to.
pub(super) fn values(f: &Filling) -> String {
    let one = |(i, (_, value)): (usize, &(Ident, String))| format!("(\n{value}\n) as v{}", i + 1);
    f.set.iter().enumerate().map(one).collect::<Vec<_>>().join(", ")
}

/// Rows of a batch.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// Those of a range, but for any that somebody holds: nobody waits for one row while holding others.
    Free(&'a KeyRange),
    /// One row, waited for.
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

/// Fills the rows of a range, as a careful person would; for whom somebody holds, it waits, so it is sent under
/// [`WAIT_BRIEFLY`] and [`END_EARLY`], and does all or nothing. None where the rows are joined: the server would join the
/// newest version of a row that changed meanwhile with what the old one was joined with. It takes two thirds of the time of
/// [`batch`], which locks before it writes.
pub fn plain(f: &Filling, leaf: &QualifiedName, range: &KeyRange) -> Option<(String, Vec<String>)> {
    if f.from.is_some() {
        return None;
    }
    let (condition, values) = in_range("t.", &f.key_columns(), range, 1);
    let one = |(name, value): &(Ident, String)| format!("{name} = (\n{value}\n)");
    let set = f.set.iter().map(one).collect::<Vec<_>>().join(", ");
    Some((format!("update only {leaf} t set {set} where {condition} and {}", filter(f)), values))
}

/// Fills rows of one table or partition. Answers with how many rows there are, how many were meant, were locked, and were
/// filled, for how many milliseconds rows have been locked, and which rows the plan's from yields more than once.
///
/// Locks come first, in the key's order. A row that changed between the snapshot and its lock is locked, and not set: the
/// server would compute it anew from its newest version, but join that with what the old one was joined with, or with
/// nothing. It is told by its place (ctid), which is not the snapshot's any more. The same statement once more, in the same
/// transaction, sets it: nobody else can change it by then.
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
    // To join once more, only to count, can cost as much as all the rest: what others hold is left to the second look.
    let meant = match f.from {
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
select meant.rows, meant.meant, (select count(*) from batch), (select count(*) from filled),
  (extract(epoch from clock_timestamp() - (select min(since) from batch)) * 1000)::double precision,
  case when (select count(*) from batch) > (select count(*) from filled) then (select string_agg(key, '; ') from (
    select pg_catalog.concat_ws(', ', {list}) as key from batch group by place, {list} having count(*) > 1 order by {list} limit 10) twice) end
from (select count(*) as rows, {meant} as meant from only {leaf} t where {of_t}) meant",
        named = each(&|i, c| format!("t.{} as k{i}", c.name), ", "),
        values = values(f),
        order = each(&|_, c| format!("t.{}", c.name), ", "),
        set = set.join(", "),
        same = each(&|i, c| format!("u.{} = b.k{i}", c.name), " and "),
        list = each(&|i, _| format!("k{i}"), ", "),
    );
    (sql, values_of)
}

/// Computes what a row would be set to.
pub fn computed(f: &Filling, leaf: &QualifiedName, key: &Key) -> (String, Vec<String>) {
    let (condition, of_key) = condition(f, "t.", Rows::One(key));
    let from = joined(f.from.as_ref(), &format!("only {leaf}"));
    (format!("select {} from {from}  where {condition} and {}", values(f), filter(f)), of_key)
}

/// Keys, as text, of rows that this transaction wrote and that are still meant: up to ten.
pub fn still_meant(f: &Filling, leaf: &QualifiedName, rows: Rows<'_>) -> (String, Vec<String>) {
    let (condition, values) = condition(f, "t.", rows);
    let sql = format!(
        "select {} from {}  where {condition} and t.xmin = pg_catalog.pg_current_xact_id()::xid and {} limit 10",
        key_text("t.", &f.key),
        joined(f.from.as_ref(), &format!("only {leaf}")),
        filter(f)
    );
    (sql, values)
}

/// Keys of rows that are meant, in their order: up to `limit`.
pub fn meant(f: &Filling, leaf: &QualifiedName, range: &KeyRange, limit: u32) -> (String, Vec<String>) {
    let key = f.key_columns();
    let (condition, values) = in_range("t.", &key, range, 1);
    let values_of = key.iter().map(|c| key_value("t.", c)).collect::<Vec<_>>().join(", ");
    let order = key.iter().map(|c| format!("t.{}", c.name)).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "select {values_of} from {}  where {condition} and {} order by {order} limit {limit}",
        joined(f.from.as_ref(), &format!("only {leaf}")),
        filter(f),
    );
    (sql, values)
}

/// Whether any row of the table is meant.
pub fn any_meant(f: &Filling) -> String {
    let rows = if f.is_partitioned() { f.table.name.to_string() } else { format!("only {}", f.table.name) };
    format!("select exists (select from {}  where {})", joined(f.from.as_ref(), &rows), filter(f))
}

/// The trigger that fills what is written from now on, and its function. An error in the plan's SQL leaves the row as it was
/// written: the application's write must not fail, and the job finds the row.
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
  select {} into filled from {}  where {};
  if found then
{set}  end if;
  return new;
exception when others then
  return new;
end",
        values(f),
        joined(f.from.as_ref(), &row_as_written(f)),
        if f.sql.names_others { filter(f) } else { meaning(f) }
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

/// The row that the trigger sees. Its generated columns have no value yet: the server makes them behind all triggers.
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

/// Whether the table has that trigger, in force; `$1` the table's oid, `$2` the trigger's name.
pub const KEEPS_FILLED: &str = "select exists (select from pg_catalog.pg_trigger \
    where tgrelid = $1 and tgname = $2 and tgenabled = 'A')";

/// Which columns the table has; `$1` its oid.
pub const COLUMNS: &str =
    "select attname from pg_catalog.pg_attribute where attrelid = $1 and attnum > 0 and not attisdropped";

/// The tables that hold a partitioned table's rows, however many levels down; `$1` its oid.
pub const LEAVES: &str = "select n.nspname, c.relname from pg_catalog.pg_partition_tree($1::oid::regclass) p
  join pg_catalog.pg_class c on c.oid = p.relid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where p.isleaf order by 1, 2";
