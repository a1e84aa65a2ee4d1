//! The functions of a key table for whole partitions: TRUNCATE, and partitions that are attached or detached. They are
//! rarely called, so they have a fixed search path.

use crate::model::blueprint::Blueprint;
use crate::model::ident::literal;
use crate::model::key_table::KeyTable;
use crate::sql::{dollar_quoted, operators_path};

use super::functions::{ADDING, function};

/// Removes the keys of truncated rows. TRUNCATE of the table fires its trigger first, then those of its partitions. Rows
/// that reference the table prevent it, as they would if they referenced the table itself.
pub(super) fn truncate(b: &Blueprint, k: &KeyTable) -> String {
    let escaped = |text: &str| text.replace('%', "%%");
    let without_row = format!(
        "delete from {} key where not exists (select from %s x where {} and {})",
        escaped(&k.name.to_string()),
        escaped(&k.has_key("x")),
        escaped(&k.matches("key", &k.values("x")))
    );
    let body = format!(
        "declare
  referencing regclass;
  found_rows boolean;
begin
  -- A detached partition keeps this trigger.
  if not exists (select from pg_class where oid = tg_relid and (relkind = 'p' or relispartition)) then
    return null;
  end if;
  for referencing in
    select conrelid from pg_constraint where confrelid = {name}::regclass and contype = 'f' and conparentid = 0
  loop
    found_rows := true;
    if has_table_privilege(referencing, 'select') then
      execute format('select exists (select from %s)', referencing) into found_rows;
    end if;
    if found_rows then
      raise exception 'cannot truncate a table referenced in a foreign key constraint' using errcode = '0A000',
        detail = format('Table %s references %s.', referencing, tg_relid::regclass),
        hint = format('Truncate table %s at the same time.', referencing);
    end if;
  end loop;
  if (select relkind = 'p' from pg_class where oid = tg_relid) then
    delete from {};
  else
    execute format({}, (select inhparent::regclass from pg_inherits where inhrelid = tg_relid));
  end if;
  return null;
end",
        k.name,
        literal(&without_row),
        name = literal(&k.name.to_string()),
    );
    with_fixed_path(b, &format!("{}()", function(k, "truncate")), "trigger", &body)
}

/// Creates a function that is rarely called, with a fixed search path.
fn with_fixed_path(b: &Blueprint, signature: &str, returns: &str, body: &str) -> String {
    format!(
        "create function {signature} returns {returns} language plpgsql security definer\n\
         set search_path = {} set row_security = off\nas {}",
        operators_path(&b.table.operator_schemas),
        dollar_quoted(body)
    )
}

/// Adds the keys of a table that is about to be attached as a partition, and returns their number.
pub(super) fn add(b: &Blueprint, k: &KeyTable) -> String {
    let columns: Vec<String> = k.columns.iter().map(|c| c.name.to_string()).collect();
    let insert = [
        format!(
            "insert into {} ({}) select {} from only ",
            k.name,
            columns.join(", "),
            k.values("x").join(", ")
        ),
        format!(" x where {}", k.has_key("x")),
    ];
    of_partition(b, k, "add", &insert)
}

/// Removes the keys of a partition that is about to be detached or dropped, and returns their number. The actions of
/// foreign keys apply as for a DELETE of its rows.
pub(super) fn remove(b: &Blueprint, k: &KeyTable) -> String {
    let delete = [
        format!("delete from {} key using only ", k.name),
        format!(" x where {} and {}", k.has_key("x"), k.matches("key", &k.values("x"))),
    ];
    of_partition(b, k, "remove", &delete)
}

/// A function that executes a statement for a partition, whose name is between the two parts of the statement.
fn of_partition(b: &Blueprint, k: &KeyTable, what: &str, [before, after]: &[String; 2]) -> String {
    let escaped = |text: &str| text.replace('%', "%%");
    let body = format!(
        "declare
  n bigint;
begin
  perform set_config('{ADDING}', 'on', true);
  execute format({}, $1);
  get diagnostics n = row_count;
  perform set_config('{ADDING}', '', true);
  return n;
end",
        literal(&format!("{}%s{}", escaped(before), escaped(after)))
    );
    with_fixed_path(b, &format!("{}(regclass)", function(k, what)), "bigint", &body)
}
