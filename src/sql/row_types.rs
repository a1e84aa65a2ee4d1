//! Guards of trigger functions that run with the privileges of the job's role, against columns whose type has changed.
//!
//! The table's owner can change the type of a column to a type of its own, and create a cast from that type: assigning
//! the value, or comparing it, would call the function of the cast with the privileges of the job's role. A guard only
//! calls `pg_typeof`, to which a value of any type is passed as it is. Casts between the server's own types belong to
//! superusers.

use crate::model::blueprint::Blueprint;
use crate::model::filling::Filling;
use crate::model::ident::{Ident, literal};
use crate::model::plan_sql::{Join, PlanSql};
use crate::model::retyping::Retyping;
use crate::model::table::Column;

use super::trust::is_trusted;

/// The first oid of a type that is not the server's own.
const FIRST_USER_OID: u32 = 16384;

/// Whether the server itself has the type: names of other types contain their schema.
fn is_built_in(sql_type: &str) -> bool {
    !sql_type.contains('.')
}

fn oid_of(value: &str) -> String {
    format!("pg_catalog.pg_typeof({value})::oid")
}

/// The column of the log for the place that a row left.
pub fn old_column(column: &Column) -> Ident {
    Ident::derived(&format!("old_{}", column.name.as_str()))
}

/// Raises an error if a row has a value that the log cannot store without a cast of a type that is not the server's
/// own. A column with a domain over the log's type needs no cast. `new` has the types of the columns in a DELETE, too.
pub(super) fn of_log(b: &Blueprint) -> String {
    let place = b.place_columns();
    let logged = |c: &Column| oid_of(&format!("(null::{}).{}", b.log(), old_column(c)));
    let found = |c: &Column| oid_of(&format!("new.{}", c.name));
    let differs = |c: &&Column| {
        if is_built_in(&c.base_type) {
            format!("{} >= {FIRST_USER_OID}", found(c))
        } else {
            format!("{} <> {}", found(c), logged(c))
        }
    };
    let one = |c: &&Column| format!("({}::text, {}, {})", literal(c.name.as_str()), found(c), logged(c));
    format!(
        "  if tg_level = 'ROW' and ({differs}) then
    declare
      pgstrata_column text;
    begin
      select c.name into pgstrata_column
      from (values {values}) c (name, found, logged)
      where not exists (
        with recursive base as (
          select c.found as oid
          union all
          select t.typbasetype from base join pg_catalog.pg_type t on t.oid = base.oid where t.typbasetype <> 0
        )
        select from base where base.oid = c.logged)
      limit 1;
      if found then
        raise exception using errcode = 'object_not_in_prerequisite_state',
          message = pg_catalog.format('the type of column %I of table %s was changed while pgstrata job %s logs its changes',
            pgstrata_column, tg_relid::regclass, {job}),
          hint = 'Abort the job, or change the type back.';
      end if;
    end;
  end if;
",
        differs = place.iter().map(differs).collect::<Vec<_>>().join(" or "),
        values = place.iter().map(one).collect::<Vec<_>>().join(", "),
        job = literal(&b.job),
    )
}

/// Returns the row as it was written if the plan's SQL would be applied to a column whose type belongs to a role that is
/// not trusted. Empty if the function runs with the privileges of the writer.
fn of_plan(sql: &PlanSql, columns: &[&Ident]) -> String {
    if !sql.names_others || columns.is_empty() {
        return String::new();
    }
    let found: Vec<String> = columns.iter().map(|name| oid_of(&format!("new.{name}"))).collect();
    let trust: Vec<String> = sql.trust.iter().map(|role| literal(role)).collect();
    let differs: Vec<String> = found.iter().map(|found| format!("{found} >= {FIRST_USER_OID}")).collect();
    format!(
        concat!(
            "  if ({differs}) and exists (
    with recursive types as (
      select pg_catalog.unnest(array[{found}]) as oid
      union
      select part.oid from types join pg_catalog.pg_type t on t.oid = types.oid
        cross join lateral (values (t.typbasetype), (t.typelem)) part (oid)
      where part.oid <> 0
    )
    select from types join pg_catalog.pg_type t on t.oid = types.oid
    where not ",
            is_trusted!("t.typowner", "current_user", "array[{trust}]::text[]"),
            "
  ) then
    return new;
  end if;
"
        ),
        differs = differs.join(" or "),
        found = found.join(", "),
        trust = trust.join(", "),
    )
}

/// The columns that occur in the SQL; all, if it reads whole rows. A name that occurs in it as a part of another word
/// counts as well.
fn mentioned<'a>(columns: impl Iterator<Item = &'a Column>, texts: &[&str]) -> Vec<&'a Ident> {
    let whole = texts.iter().any(|text| text.contains("t.*"));
    let occurs = |column: &&Column| {
        let quoted = column.name.to_string();
        let inner = &quoted[1..quoted.len() - 1];
        whole || texts.iter().any(|text| text.contains(column.name.as_str()) || text.contains(inner))
    };
    columns.filter(occurs).map(|column| &column.name).collect()
}

fn of_join(join: Option<&Join>) -> Vec<&str> {
    join.map_or(Vec::new(), |join| vec![join.before.as_str(), join.behind.as_str()])
}

/// The guard of a backfill's trigger: the columns that the plan reads and sets.
pub(super) fn of_filling(f: &Filling) -> String {
    let mut texts: Vec<&str> = f.set.iter().map(|(_, value)| value.as_str()).collect();
    texts.extend(f.filter.as_deref());
    texts.extend(of_join(f.from.as_ref()));
    texts.extend(
        f.table.columns.iter().filter(|c| !c.generated.is_empty()).filter_map(|c| c.default.as_deref()),
    );
    let mut columns = mentioned(f.table.columns.iter(), &texts);
    for (name, _) in &f.set {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    of_plan(&f.sql, &columns)
}

/// The guard of the trigger of a column type change.
pub(super) fn of_retyping(r: &Retyping, shadow: &Ident) -> String {
    let mut columns = mentioned(r.table.columns.iter(), &[&r.using, &r.back]);
    for name in [&r.column.name, shadow] {
        if !columns.contains(&name) {
            columns.push(name);
        }
    }
    of_plan(&r.sql, &columns)
}
