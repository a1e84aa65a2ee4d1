//! Nullable columns of the place: the CHECK constraint that keeps NULL out of the source, and NOT NULL in the target.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::filling::Filling;
use crate::model::ident::{Ident, QualifiedName, literal};
use crate::model::table::{Column, ColumnLooks};
use crate::plan::check::NULLS_COUNTED;

use super::{dollar_quoted, drop_constraint, fill, from_source, objects};

/// Adds the constraint to the source without reading the rows; every later write is checked.
pub fn add(b: &Blueprint, name: &Ident) -> String {
    let condition = b.not_null.iter().map(|c| format!("{c} is not null")).collect::<Vec<_>>().join(" and ");
    format!("alter table {} add constraint {name} check ({condition}) not valid", b.table.name)
}

/// Whether the constraint with oid `$1` is valid.
pub const IS_VALID: &str = "select convalidated from pg_catalog.pg_constraint where oid = $1";

/// The number of rows of the source with NULL, at most [`NULLS_COUNTED`].
pub fn count(b: &Blueprint) -> String {
    let from = from_source(&b.sides(Direction::Forward));
    let condition = b.not_null.iter().map(|c| format!("{c} is null")).collect::<Vec<_>>().join(" or ");
    format!("select pg_catalog.count(*) from (select from {from} where {condition} limit {NULLS_COUNTED}) x")
}

/// The number of rows of a table with NULL in a column, at most [`NULLS_COUNTED`].
pub fn in_column(table: &QualifiedName, column: &Ident) -> String {
    format!(
        "select pg_catalog.count(*) from (select from only {table} where {column} is null limit {NULLS_COUNTED}) x"
    )
}

/// The number of rows with NULL in the column `$2` of the relation with oid `$1`, according to the statistics; null without
/// statistics.
pub const ESTIMATED: &str = "select (pg_catalog.max(s.null_frac) * pg_catalog.max(c.reltuples))::bigint
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_stats s on s.schemaname = n.nspname and s.tablename = c.relname and s.attname::text = $2 and not s.inherited
where c.oid = $1";

/// The statements with which an exchange removes what the job has on the plain table, if nothing was renamed: a swap the
/// trigger that fills rows, a rollback the constraint.
pub fn removed(b: &Blueprint, ending: Direction) -> Vec<String> {
    match ending {
        Direction::Forward => {
            let f = b.null_as.as_ref().map(|_| Filling::of_nulls(b));
            f.map(|f| objects::drop_trigger(&b.table.name, &f.fill_trigger())).into_iter().collect()
        }
        Direction::Reverse => {
            b.not_null_check().map(|name| drop_constraint(&b.old(), &name)).into_iter().collect()
        }
    }
}

/// For how many of a few rows with NULL the plan's expression is NULL, and the number of these rows.
pub fn yields_null(f: &Filling) -> String {
    format!(
        "select pg_catalog.count(*) filter (where x.v1 is null), pg_catalog.count(*)
from (select {} from only {} t  where {} limit 1000) x",
        fill::values(f),
        f.table.name,
        fill::filter(f)
    )
}

/// Makes a column of the target NOT NULL. On servers where such constraints have names, the name is derived from that of the
/// source.
pub fn of_target(b: &Blueprint, column: &Ident) -> Vec<String> {
    let target = b.target();
    let mut all = vec![format!("alter table {target} alter column {column} set not null")];
    let name = Ident::derived(&format!("{}_{}_not_null", b.table.name.name.as_str(), column.as_str()));
    if b.table.checks.iter().all(|check| check.name != name) {
        let looks = ColumnLooks { not_null: Some(name), ..ColumnLooks::default() };
        let named = b.table.column(column).map(|one| Column { looks: Some(looks), ..one.clone() });
        all.extend(named.and_then(|column| rename(&target, &column)));
    }
    all
}

/// Renames the NOT NULL constraint of a column to that of the source, on servers where such constraints have names.
pub(super) fn rename(table: &QualifiedName, column: &Column) -> Option<String> {
    let name = column.looks.as_ref()?.not_null.as_ref()?;
    let body = format!(
        "declare
  given name;
begin
  select conname into given from pg_catalog.pg_constraint
  where conrelid = {table}::regclass and contype = 'n' and conname <> {name}
    and conkey = array(select attnum from pg_catalog.pg_attribute where attrelid = {table}::regclass and attname = {column});
  if found then
    execute pg_catalog.format('alter table %s rename constraint %I to %I', {table}, given, {name});
  end if;
end",
        table = literal(&table.to_string()),
        name = literal(name.as_str()),
        column = literal(column.name.as_str()),
    );
    Some(format!("do {}", dollar_quoted(&body)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blueprint::tests::blueprint;

    #[test]
    fn the_constraint_of_the_source_and_that_of_the_target() {
        let mut b = blueprint();
        b.not_null = vec![b.by.clone(), Ident::new("note")];
        let mut all = vec![count(&b), add(&b, &b.not_null_check().unwrap())];
        all.extend(of_target(&b, &b.by));
        insta::assert_snapshot!(all.join(";\n"));
    }
}
