//! Tries the SQL of a backfill with statements that the server plans but does not run.

use crate::model::filling::{Filling, NewColumn};
use crate::model::ident::{Ident, QualifiedName};
use crate::model::key::KeyRange;
use crate::model::table::Column;

use super::fill::{meaning as filter, values};
use super::in_range;
use super::plan_sql::joined;

/// The name of the subquery in a probe. The server keeps the subquery separate only if it calls volatile functions.
pub const PROBE: &str = "pgstrata_probe";

/// Plans the new values, and the selection of rows.
pub fn probe(f: &Filling) -> String {
    let (values, filter) = (values(f), filter(f));
    let source = joined(f.from.as_ref(), &rows_as_they_will_be(f, &whole(f)));
    kept_apart(&format!("select {values}, {filter} as to_fill\n  from {source}"))
}

/// Plans the selection of rows.
pub fn probe_filter(f: &Filling) -> String {
    let source = joined(f.from.as_ref(), &rows_as_they_will_be(f, &whole(f)));
    kept_apart(&format!("select {} as to_fill\n  from {source}", filter(f)))
}

/// Plans the default of a column to add, in the column's type; none if it has no default.
pub fn probe_default(f: &Filling, column: &NewColumn) -> Option<String> {
    let default = column.default.as_ref()?;
    let value = format!("cast((\n{default}\n) as {})", type_and_collation(column).0);
    Some(kept_apart(&format!("select {value} as v\n  from only {} t", f.table.name)))
}

fn kept_apart(query: &str) -> String {
    format!("explain (format json) with {PROBE} as (\n  {query}) select * from {PROBE}")
}

/// Plans the update of existing columns; none if the job adds all columns.
pub fn assigned(f: &Filling) -> Option<String> {
    let there = |(_, (name, _)): &(usize, &(Ident, String))| f.table.column(name).is_some();
    let set: Vec<String> = f
        .set
        .iter()
        .enumerate()
        .filter(there)
        .map(|(i, (name, _))| format!("{name} = b.v{}", i + 1))
        .collect();
    if set.is_empty() {
        return None;
    }
    let source = joined(f.from.as_ref(), &rows_as_they_will_be(f, &whole(f)));
    Some(format!(
        "explain (format json) update {} u set {} from (\n  select {} from {source}) b",
        whole(f),
        set.join(", "),
        values(f)
    ))
}

/// A query for the new values, to find out their types.
pub fn typed(f: &Filling) -> String {
    format!("select {} from {}", values(f), joined(f.from.as_ref(), &rows_as_they_will_be(f, &whole(f))))
}

/// Whether a column of the type called `$2` accepts a value of the type with oid `$1`, and whether that type is a
/// domain with constraints. String types accept every type; arrays are compared by their elements.
pub const TAKEN: &str = "
with recursive target as (
  select to_regtype($2)::oid as oid
), domains as (
  select t.oid, t.typbasetype, t.typtype, t.typnotnull from pg_catalog.pg_type t join target using (oid)
  union all
  select t.oid, t.typbasetype, t.typtype, t.typnotnull from domains d join pg_catalog.pg_type t on t.oid = d.typbasetype
  where d.typtype = 'd'
), pair as (
  select s.oid as source, b.oid as target, s.typelem as source_of, b.typelem as target_of,
    s.typcategory = 'A' and b.typcategory = 'A' as arrays, b.typcategory as category
  from pg_catalog.pg_type s, domains d join pg_catalog.pg_type b on b.oid = d.oid
  where s.oid = $1 and d.typtype <> 'd'
)
select coalesce((select source = target or category = 'S' or exists (
      select from pg_catalog.pg_cast c where c.castcontext in ('a', 'i')
        and (c.castsource = source and c.casttarget = target
          or arrays and c.castsource = source_of and c.casttarget = target_of)) from pair), true),
  exists (select from domains d where d.typtype = 'd' and (d.typnotnull or exists (
      select from pg_catalog.pg_constraint k where k.contypid = d.oid))),
  pg_catalog.format_type($1, null)";

/// Plans the selection of rows of the table. The top node of the plan has their estimated number.
pub fn to_fill(f: &Filling) -> String {
    let source = joined(f.from.as_ref(), &rows_as_they_will_be(f, &whole(f)));
    format!("explain (format json) select from {source}  where {}", filter(f))
}

/// Plans the query of a chunk of one table or partition.
pub fn chunk(f: &Filling, leaf: &QualifiedName, range: &KeyRange) -> (String, Vec<String>) {
    let key: Vec<&Column> = f.key_columns();
    let (condition, ends) = in_range("t.", &key, range, 1);
    let source = joined(f.from.as_ref(), &rows_as_they_will_be(f, &format!("only {leaf}")));
    let (values, filter) = (values(f), filter(f));
    (format!("explain (format json) select {values} from {source}  where {condition} and {filter}"), ends)
}

/// The table with its partitions, without tables that inherit from it.
pub fn whole(f: &Filling) -> String {
    if f.is_partitioned() { f.table.name.to_string() } else { format!("only {}", f.table.name) }
}

/// A query for rows with all columns that the table will have. Columns that do not exist yet are NULL.
pub(super) fn rows_as_they_will_be(f: &Filling, rows: &str) -> String {
    let missing: String = f.missing().map(null_column).collect();
    if missing.is_empty() {
        return rows.to_owned();
    }
    format!("(select r.*{missing} from {rows} r)")
}

/// A NULL column, in a subquery that the planner does not evaluate: otherwise, it would compare NULL with a constant of
/// another type and fail.
fn null_column(column: &NewColumn) -> String {
    let (sql_type, collation) = type_and_collation(column);
    let collation = collation.map_or_else(String::new, |collation| format!(" collate {collation}"));
    format!(", (select cast(null as {sql_type})){collation} as {}", column.name)
}

/// The type of the column, and the collation that the plan specifies.
pub fn type_and_collation(column: &NewColumn) -> (&str, Option<&str>) {
    const COLLATE: &str = " collate ";
    match column.sql_type.to_ascii_lowercase().find(COLLATE) {
        Some(at) => (column.sql_type[..at].trim_end(), Some(&column.sql_type[at + COLLATE.len()..])),
        None => (&column.sql_type, None),
    }
}
