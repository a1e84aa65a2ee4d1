//! The change log, and the triggers that write it.
//!
//! The log has one narrow row for each changed row. It contains the old and the new place of the row: the values of the
//! key and the partition column. The log therefore lists every place whose rows changed, and a reader does not have to
//! look up places in the source. A drain can apply log rows in any order, and the planner can prune each of its
//! statements to the affected partitions.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::{Ident, QualifiedName};
use crate::model::table::Column;

use super::prepare::revoke;
use super::row_types::old_column;
use super::{dollar_quoted, row_types, strip};

/// The row trigger's name.
pub const ROW_TRIGGER: &str = "pgstrata_capture";
/// The truncate trigger's name.
pub const TRUNCATE_TRIGGER: &str = "pgstrata_truncate";

/// The column of the log for the new place of a row.
pub fn new_column(column: &Column) -> Ident {
    Ident::derived(&format!("new_{}", column.name.as_str()))
}

/// Creates the log and the list of truncations, with privileges for their owner only. The log has no index, because it
/// is only read by block.
pub fn create_log(b: &Blueprint) -> Vec<String> {
    let place = b.place_columns();
    let column = |name: Ident, c: &Column| {
        let collate = c.collation.as_ref().map_or(String::new(), |collation| format!(" collate {collation}"));
        format!("    {name} {}{collate}", c.base_type)
    };
    let columns: Vec<String> = place
        .iter()
        .map(|c| column(old_column(c), c))
        .chain(place.iter().map(|c| column(new_column(c), c)))
        .collect();
    let mut all = vec![
        format!("create table {} (\n{}\n)", b.log(), columns.join(",\n")),
        revoke(&b.log()),
        format!(
            "create table {} (\n    relation oid not null,\n    at timestamptz not null default pg_catalog.clock_timestamp()\n)",
            b.truncations()
        ),
        revoke(&b.truncations()),
    ];
    let logged = place.iter().flat_map(|c| [old_column(c), new_column(c)]).collect::<Vec<_>>();
    all.extend(strip::own(&b.log(), &logged));
    all.extend(strip::own(&b.truncations(), &[Ident::new("relation"), Ident::new("at")]));
    all
}

/// Creates the trigger function, which logs every change.
pub fn create_function(b: &Blueprint) -> Vec<String> {
    vec![
        function(b, &format!("begin\n{}{}\nend", row_types::of_log(b), log_statements(b))),
        // Otherwise, the owner of any table could create a trigger that calls the function, and fill the log.
        super::close_function(&b.capture_function()),
    ]
}

/// Creates the trigger function with the given body. It runs with the privileges of its owner, so that applications
/// need no privileges on the log. Its search path is fixed, so that it never uses operators of another role.
pub(super) fn function(b: &Blueprint, body: &str) -> String {
    format!(
        "create or replace function {}() returns trigger\nlanguage plpgsql security definer \
         set search_path = pg_catalog, pg_temp\nas {}",
        b.capture_function(),
        dollar_quoted(body)
    )
}

/// The statements that log the change for which the trigger fired.
pub(super) fn log_statements(b: &Blueprint) -> String {
    let place = b.place_columns();
    let names =
        |of: fn(&Column) -> Ident| place.iter().map(|c| of(c).to_string()).collect::<Vec<_>>().join(", ");
    let values = |row: &str| place.iter().map(|c| format!("{row}.{}", c.name)).collect::<Vec<_>>().join(", ");
    let (log, old, new) = (b.log(), names(old_column), names(new_column));
    let (old_values, new_values) = (values("old"), values("new"));
    format!(
        "  if tg_op = 'UPDATE' then
    insert into {log} ({old}, {new}) values ({old_values}, {new_values});
  elsif tg_op = 'INSERT' then
    insert into {log} ({new}) values ({new_values});
  elsif tg_op = 'DELETE' then
    insert into {log} ({old}) values ({old_values});
  else
    insert into {} (relation) values (tg_relid);
  end if;
  return null;",
        b.truncations()
    )
}

/// Creates the capture triggers on `table`. `ENABLE ALWAYS`, because the apply worker of logical replication fires no
/// other triggers.
pub fn create_triggers(b: &Blueprint, table: &QualifiedName) -> Vec<String> {
    let row = Ident::new(ROW_TRIGGER);
    let mut all = vec![
        format!(
            "create trigger {row} after insert or update or delete on {table} for each row execute function {}()",
            b.capture_function()
        ),
        format!("alter table {table} enable always trigger {row}"),
    ];
    all.extend(create_truncate_trigger(b, table));
    all
}

/// Creates only the truncate trigger. Each leaf needs its own: the parent's does not fire for a TRUNCATE of a leaf.
pub fn create_truncate_trigger(b: &Blueprint, table: &QualifiedName) -> Vec<String> {
    let truncate = Ident::new(TRUNCATE_TRIGGER);
    vec![
        format!(
            "create trigger {truncate} after truncate on {table} for each statement execute function {}()",
            b.capture_function()
        ),
        format!("alter table {table} enable always trigger {truncate}"),
    ]
}

/// Drops the capture triggers from `table`.
pub fn drop_triggers(table: &QualifiedName) -> Vec<String> {
    [ROW_TRIGGER, TRUNCATE_TRIGGER]
        .into_iter()
        .map(|name| format!("drop trigger if exists {} on {table}", Ident::new(name)))
        .collect()
}

/// Whether the relation with oid `$1` and its leaves have both capture triggers, and they are enabled as ALWAYS.
pub const CAPTURE_IN_FORCE: &str =
    "select pg_catalog.count(*) filter (where tgrelid = $1) = 2 and coalesce(pg_catalog.bool_and(tgenabled = 'A'), false)
from pg_catalog.pg_trigger
where tgname in ('pgstrata_capture', 'pgstrata_truncate')
  and (tgrelid = $1 or tgrelid in (select relid from pg_catalog.pg_partition_tree($1::oid::regclass)))";

/// Creates the capture triggers of the source in a direction: at the start of a job, and in the swap.
pub fn source_triggers(b: &Blueprint, direction: Direction) -> Vec<String> {
    create_triggers(b, &b.sides(direction).source)
}

/// Whether the relation with oid `$1` has the truncate trigger.
pub const HAS_TRUNCATE_TRIGGER: &str = "select exists (select from pg_catalog.pg_trigger \
    where tgrelid = $1 and tgname = 'pgstrata_truncate')";

/// Leaves of the relation with oid `$1` that lack the truncate trigger: schema and name. When a leaf is attached, it
/// gets the row triggers of its parent, but not the statement triggers.
pub const UNWATCHED_LEAVES: &str = "select n.nspname, c.relname
from pg_catalog.pg_partition_tree($1::oid::regclass) p join pg_catalog.pg_class c on c.oid = p.relid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where p.isleaf and p.level > 0 and c.relkind = 'r'
  and not exists (select from pg_catalog.pg_trigger t where t.tgrelid = c.oid and t.tgname = 'pgstrata_truncate')
order by 1, 2";
