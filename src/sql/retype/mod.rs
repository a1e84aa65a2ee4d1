//! A column type change: the shadow column, the trigger that keeps it in sync, the objects that are built on it, and
//! the comparison of both columns.
//!
//! The plan's SQL is on separate lines, so that a comment in it ends with its line.

pub mod exchange;
pub mod facts;
pub mod rebound;

use crate::model::blueprint::Direction;
use crate::model::difference::Difference;
use crate::model::grant::Grant;
use crate::model::ident::{Ident, QualifiedName, literal};
use crate::model::key::KeyRange;
use crate::model::retyping::{CheckPair, Counterpart, Retyping};
use crate::model::table::Table;
use crate::model::verify_report::MismatchKind as Kind;

pub use super::drop_constraint;
use super::exchange::Exchange;
use super::plan_sql::{applications_path, definers_path, look_up_again, of_function, rights};
use super::{
    carry, differ, dollar_quoted, in_range, key_text, operators_path, prepare, row_types, with_operators,
};

/// Adds the new column without rewriting the table, with all attributes of the old column except its type.
pub fn add_column(r: &Retyping) -> Vec<String> {
    let (table, name) = (&r.table.name, r.shadow(Direction::Forward));
    let mut all = vec![format!("alter table {table} add column {name} {}", r.to)];
    let alter = |what: String| format!("alter table {table} alter column {name} {what}");
    all.extend(r.looks.storage.iter().map(|storage| alter(format!("set storage {storage}"))));
    all.extend(r.looks.compression.iter().map(|method| alter(format!("set compression {method}"))));
    all.extend(r.column.statistics.map(|target| alter(format!("set statistics {target}"))));
    if !r.column.options.is_empty() {
        let options: Vec<String> = r.column.options.iter().map(|o| super::prepare::option(o)).collect();
        all.push(alter(format!("set ({})", options.join(", "))));
    }
    all.extend(
        r.looks.comment.iter().map(|text| format!("comment on column {table}.{name} is {}", literal(text))),
    );
    let own = r.table.grants.iter().filter(|g| g.column.as_ref() == Some(&r.column.name));
    let own = own.map(|g| Grant { column: Some(name.clone()), ..g.clone() });
    all.extend(own.flat_map(|g| prepare::grant(&r.table.owner, table, &g)));
    all
}

/// Sets the attributes of the shadow column to those of the column in use in `now`: comment, statistics, storage and
/// privileges. `found` lists the changes.
pub fn carry(r: &Retyping, now: &Table, found: &[Difference], direction: Direction) -> Vec<String> {
    let (table, shadow) = (&r.table.name, r.shadow(direction));
    let Some(column) = now.column(&r.column.name) else { return Vec::new() };
    let looks = column.looks.clone().unwrap_or_default();
    let alter = |what: String| format!("alter table {table} alter column {shadow} {what}");
    let changed = |path: &[&str]| found.iter().any(|one| one.is_in(path));
    let name = r.column.name.as_str();
    let mut all = Vec::new();
    if changed(&["columns", name, "looks", "comment"]) {
        all.push(format!(
            "comment on column {table}.{shadow} is {}",
            carry::or_null(looks.comment.as_deref())
        ));
    }
    if changed(&["columns", name, "looks", "storage"]) {
        all.push(alter(format!("set storage {}", carry::storage(&looks.storage))));
    }
    if changed(&["columns", name, "looks", "compression"]) {
        all.push(alter(format!("set compression {}", carry::compression(&looks.compression))));
    }
    if changed(&["columns", name, "statistics"]) {
        all.push(alter(format!("set statistics {}", column.statistics.unwrap_or(-1))));
    }
    if changed(&["columns", name, "options"]) {
        all.push(alter("reset (n_distinct, n_distinct_inherited)".to_owned()));
        let options: Vec<String> = column.options.iter().map(|o| prepare::option(o)).collect();
        all.extend((!options.is_empty()).then(|| alter(format!("set ({})", options.join(", ")))));
    }
    if found.iter().any(|one| one.is_in(&["grants"])) {
        all.push(revoke_column(table, &shadow));
        let own = now.grants.iter().filter(|g| g.column.as_ref() == Some(&r.column.name));
        let own = own.map(|g| Grant { column: Some(shadow.clone()), ..g.clone() });
        all.extend(own.flat_map(|g| prepare::grant(&now.owner, table, &g)));
    }
    all
}

/// Revokes every privilege on one column.
fn revoke_column(table: &QualifiedName, column: &Ident) -> String {
    let body = format!(
        "declare
  given record;
begin
  for given in
    select distinct a.privilege_type, case a.grantee when 0 then 'public' else a.grantee::regrole::text end as holder
    from pg_catalog.pg_attribute t, pg_catalog.aclexplode(t.attacl) a
    where t.attrelid = {table}::regclass and t.attname = {column}
  loop
    execute pg_catalog.format('revoke %s (%I) on %s from %s cascade', given.privilege_type, {column}, {table}, given.holder);
  end loop;
end",
        table = literal(&table.to_string()),
        column = literal(column.as_str()),
    );
    format!("do {}", dollar_quoted(&body))
}

/// The row `t` that the plan's SQL uses, with another value in the column.
fn row_with(r: &Retyping, record: &str, value: &str) -> String {
    let columns = r.table.columns.iter().map(|c| {
        if c.name == r.column.name {
            format!("{value} as {}", c.name)
        } else {
            format!("{record}.{}", c.name)
        }
    });
    format!("(select {}) t", columns.collect::<Vec<_>>().join(", "))
}

/// Assigns the value of an expression of the plan for a row to a variable of the function. Functions of the application
/// that the expression calls use the search path of the application; the statements of the function itself do not.
fn assign(r: &Retyping, expression: &str, variable: &str, row: &str) -> String {
    let path = if r.sql.names_others { definers_path(&r.sql) } else { String::new() };
    let select = |end: &str| format!("select (\n{expression}\n) into {variable} from {row}{end};");
    match path.strip_suffix(" and ") {
        None => select(""),
        Some(path) => format!("{}\n  {};", select(&format!(" where {path}")), look_up_again(&r.sql)),
    }
}

/// A condition that is true if two values of the new type are not equal: according to the `=` operator of the type or,
/// if there is none, in their binary representation. The old type may have stored 1.50 as 1.5.
fn not_equal(r: &Retyping, left: &str, right: &str) -> String {
    if r.comparable { format!("{left} is distinct from {right}") } else { differ(left, right) }
}

fn function(r: &Retyping, body: &str) -> String {
    format!(
        "create or replace function {}() returns trigger language plpgsql {}\n{}\nas {}",
        r.function(),
        rights(&r.sql),
        of_function(&r.sql),
        dollar_quoted(body)
    )
}

/// The function that keeps the shadow column in sync. An error in the plan's SQL does not abort the application's
/// transaction: in that case, the row has no value in the shadow column, and the job finds it later.
///
/// Before the swap, the value of the shadow column is the result of `using` for the row. After the swap, it is its
/// previous value, as long as `using` converts that to the current value of the row: a row that was not changed keeps
/// its original value. Otherwise it is the result of `back`, if `using` converts that to an equal value. The first
/// comparison is of the binary representation: an application that writes a value that is only equal to the previous
/// value (a citext in another case, `1.50` for `1.5`) has changed the row. The second comparison uses the `=` operator
/// of the type, because an integer may represent the numeric `1.00`.
pub fn sync_function(r: &Retyping, direction: Direction) -> String {
    let (column, shadow) = (&r.column.name, r.shadow(direction));
    let new_value = format!("new.{column}");
    let guard = row_types::of_retyping(r, &shadow);
    match direction {
        Direction::Forward => function(
            r,
            &format!(
                "#variable_conflict use_column
declare
  pgstrata_value {to};
begin
{guard}  {using}
  new.{shadow} := pgstrata_value;
  return new;
exception when others then
  new.{shadow} := null;
  return new;
end",
                to = r.to,
                using = assign(r, &r.using, "pgstrata_value", "(select new.*) t"),
            ),
        ),
        Direction::Reverse => function(
            r,
            &format!(
                "#variable_conflict use_column
declare
  pgstrata_value {old};
  pgstrata_again {to};
begin
{guard}  if tg_op = 'UPDATE' then
    begin
      {as_it_was}
      if old.{shadow} is not null and not {changed} then
        new.{shadow} := old.{shadow};
        return new;
      end if;
    exception when others then
      null;
    end;
  end if;
  {back}
  {there_again}
  if {otherwise} then
    pgstrata_value := null;
  end if;
  new.{shadow} := pgstrata_value;
  return new;
exception when others then
  new.{shadow} := null;
  return new;
end",
                old = facts::old_type(r),
                to = r.to,
                as_it_was =
                    assign(r, &r.using, "pgstrata_again", &row_with(r, "new", &format!("old.{shadow}"))),
                changed = differ("pgstrata_again", &new_value),
                back = assign(r, &r.back, "pgstrata_value", "(select new.*) t"),
                there_again = assign(
                    r,
                    &r.using,
                    "pgstrata_again",
                    &row_with(r, "new", &format!("pgstrata_value::{}", r.column.sql_type))
                ),
                otherwise = not_equal(r, "pgstrata_again", &new_value),
            ),
        ),
    }
}

/// Creates the trigger and its function. The name of the trigger sorts after all others, so that it sees the results of
/// the other triggers.
pub fn create_sync_trigger(r: &Retyping) -> Vec<String> {
    let mut all = vec![sync_function(r, Direction::Forward)];
    all.extend(super::on_writes(&r.table.name, &r.filling().fill_trigger(), &r.function()));
    all
}

/// Indexes on the relation with oid `$1`: name, whether it is usable, oid.
pub const INDEXES: &str = "select i.relname::text, x.indisvalid and x.indisready and x.indislive, i.oid
from pg_catalog.pg_index x join pg_catalog.pg_class i on i.oid = x.indexrelid where x.indrelid = $1";

/// CHECK constraints on the relation with oid `$1`: name, whether it is validated, oid.
pub const CHECKS: &str = "select conname::text, convalidated, oid from pg_catalog.pg_constraint where conrelid = $1 and contype = 'c'";

/// Sets the tablespace of the session for the next build to that of the corresponding index of the column in use.
pub fn tablespace(one: &Counterpart) -> String {
    let space = one.index.tablespace.as_ref().map_or("", Ident::as_str);
    format!("set default_tablespace = {}", literal(space))
}

/// Sets the search path of the session for the build, and restores it; none if the operators of the server suffice. See
/// [`Table::operator_schemas`].
pub fn operators(r: &Retyping) -> Option<[String; 2]> {
    let schemas = &r.table.operator_schemas;
    let set = || format!("set search_path = {}", operators_path(schemas));
    (!schemas.is_empty()).then(|| [set(), "set search_path = pg_catalog".to_owned()])
}

/// Builds the counterpart of an index. Not in a transaction.
pub fn build(r: &Retyping, one: &Counterpart, direction: Direction) -> String {
    let unique = if one.index.unique { "unique " } else { "" };
    let name = r.counterpart(&one.index.name, direction);
    let tail = match direction {
        Direction::Forward => &one.tail_new,
        Direction::Reverse => &one.tail_old,
    };
    format!("create {unique}index concurrently {name} on {} using {tail}", r.table.name)
}

/// Sets the properties of the counterpart that are not in its definition.
pub fn set_properties(r: &Retyping, one: &Counterpart, direction: Direction) -> Vec<String> {
    let name = r.table.name.sibling(r.counterpart(&one.index.name, direction));
    let statistics = one
        .index
        .statistics
        .iter()
        .map(|(column, n)| format!("alter index {name} alter column {column} set statistics {n}"));
    let comment = one.index.comment.iter().map(|c| format!("comment on index {name} is {}", literal(c)));
    statistics.chain(comment).collect()
}

/// Drops the index that a failed build left behind. Not in a transaction.
pub fn drop_index(table: &QualifiedName, name: &Ident) -> String {
    format!("drop index concurrently if exists {}", table.sibling(name.clone()))
}

/// Adds the counterpart of a CHECK constraint without reading rows; also returns its name.
pub fn add_check(r: &Retyping, one: &CheckPair, direction: Direction) -> (Ident, String) {
    let name = r.counterpart(&one.name, direction);
    let definition = match direction {
        Direction::Forward => &one.definition_new,
        Direction::Reverse => &one.definition_old,
    };
    let add = format!("alter table {} add constraint {name} {definition} not valid", r.table.name);
    (name, with_operators(&r.table.operator_schemas, vec![add]).join("; "))
}

/// The constraint that proves that every row has a value, if one is needed: for NOT NULL, so that the swap does not
/// have to read the rows; and for a rollback, because rows may have no value in the old column.
pub fn add_proof(r: &Retyping, direction: Direction) -> Option<(Ident, String)> {
    let (name, shadow) = (r.proof(), r.shadow(direction));
    let condition = match direction {
        _ if r.column.not_null => format!("{shadow} is not null"),
        Direction::Forward => return None,
        Direction::Reverse => format!("{shadow} is not null or {} is null", r.column.name),
    };
    let sql = format!("alter table {} add constraint {name} check ({condition}) not valid", r.table.name);
    Some((name, sql))
}

/// Checks every row, with a lock that does not block writers.
pub fn validate(table: &QualifiedName, constraint: &Ident) -> String {
    format!("alter table {table} validate constraint {constraint}")
}

/// Updates the statistics of the shadow column.
pub fn analyze(r: &Retyping, direction: Direction) -> String {
    format!("analyze {} ({})", r.table.name, r.shadow(direction))
}

/// A condition for rows in `t` that are not in sync. Before the swap: the new value is not identical to the result of
/// `using` for the old value. After the swap: the result of `using` for the old value is not the new value, and the old
/// value is not the result of `back` for the new value; see [`sync_function`]. A row without the old value is not a
/// mismatch, but is counted separately.
fn differs(r: &Retyping, direction: Direction) -> (String, String) {
    let (column, shadow, to) = (&r.column.name, r.shadow(direction), &r.to);
    let made_of = |row: &str| format!("(select (\n{}\n)::{to} as v from {row}) u", r.using);
    match direction {
        Direction::Forward => (differ(&format!("r.{shadow}"), "u.v"), made_of("(select r.*) t")),
        Direction::Reverse => {
            let back = format!("(select (\n{}\n)::{} from (select r.*) t)", r.back, r.column.sql_type);
            let condition = format!(
                "r.{shadow} is not null and {} and case when {} then true else {} end",
                differ(&format!("r.{column}"), "u.v"),
                not_equal(r, &format!("r.{column}"), "u.v"),
                differ(&format!("r.{shadow}"), &back)
            );
            (condition, made_of(&row_with(r, "r", &format!("r.{shadow}"))))
        }
    }
}

fn in_key_range(r: &Retyping, direction: Direction, range: &KeyRange) -> (String, Vec<String>) {
    let key = r.key_columns(direction);
    in_range("r.", &key.iter().collect::<Vec<_>>(), range, 1)
}

/// For a range: the number of rows, the number of rows that are not in sync, and the number of rows that have no value
/// in the shadow column although that is allowed.
pub fn compare(r: &Retyping, direction: Direction, range: &KeyRange) -> (String, Vec<String>) {
    let (condition, values) = in_key_range(r, direction, range);
    let (differs, row) = differs(r, direction);
    let sql = format!(
        "select count(*), count(*) filter (where {differs}), count(*) filter (where {})\nfrom only {} r cross join lateral {row}\nwhere {path}{condition}",
        without_value(r, direction),
        r.table.name,
        path = applications_path(&r.sql),
    );
    (sql, values)
}

/// The keys of up to `limit` rows of a range with that kind of mismatch.
pub fn mismatched_keys(
    r: &Retyping,
    direction: Direction,
    kind: Kind,
    range: &KeyRange,
    limit: usize,
) -> (String, Vec<String>) {
    let (condition, values) = in_key_range(r, direction, range);
    let (differs, row) = differs(r, direction);
    let which = if kind == Kind::Missing { without_value(r, direction) } else { differs };
    let sql = format!(
        "select {} from only {} r cross join lateral {row}\nwhere {path}{condition} and {which} order by {order} limit {limit}",
        key_text("r.", &r.key),
        r.table.name,
        path = applications_path(&r.sql),
        order = super::list("r.", &r.key)
    );
    (sql, values)
}

/// A condition for rows with a value that the old type cannot represent, after the swap.
fn without_value(r: &Retyping, direction: Direction) -> String {
    match direction {
        Direction::Forward => "false".to_owned(),
        Direction::Reverse => {
            format!("r.{} is null and r.{} is not null", r.shadow(direction), r.column.name)
        }
    }
}

/// Removes the trigger and the inactive column, with everything that depends on it.
pub fn remove(r: &Retyping, direction: Direction) -> Vec<String> {
    let (table, trigger) = (&r.table.name, r.filling().fill_trigger());
    let mut all = vec![format!("drop trigger if exists {trigger} on {table}"), drop_function(r)];
    all.extend(drop_exchange(r));
    all.push(drop_column(table, &r.shadow(direction)));
    all
}

/// Drops the function that keeps the column in sync.
pub fn drop_function(r: &Retyping) -> String {
    format!("drop function if exists {}()", r.function())
}

/// Drops the functions of an exchange.
pub fn drop_exchange(r: &Retyping) -> Vec<String> {
    Exchange::drop(&r.exchange_function(), &r.definition_function()).into_iter().collect()
}

/// Drops a column, with everything that depends on it.
pub fn drop_column(table: &QualifiedName, column: &Ident) -> String {
    format!("alter table {table} drop column if exists {column}")
}

/// The ID of the current transaction: every snapshot that includes it also includes the current state.
pub const NOW: &str = "select pg_catalog.pg_current_xact_id()::text";

/// Stores the ID of the transaction after which every row is in sync.
pub const IN_SYNC_SINCE: &str =
    "update pgstrata.jobs set swap_xid = pg_catalog.pg_current_xact_id()::text, updated_at = now()
where id = $1 and (swap_xid is null or $2)";

/// Foreign keys on the relation with oid `$1`, by name, and whether each is validated.
pub const KEYS: &str =
    "select conname::text, convalidated from pg_catalog.pg_constraint where conrelid = $1 and contype = 'f'";
