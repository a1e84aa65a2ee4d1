//! The change log, and the triggers that write it.
//!
//! One narrow row per changed row: the place (key and partition column) that it left and the place that it took. Both
//! are logged, so that whoever reads the log knows every place whose content changed without asking the source: a drain
//! needs no order among log rows, and each statement of it can be pruned to the partitions that are touched.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::{Ident, QualifiedName};
use crate::model::table::Column;

use super::prepare::revoke;
use super::{dollar_quoted, strip};

/// The row trigger's name.
pub const ROW_TRIGGER: &str = "pgstrata_capture";
/// The truncate trigger's name.
pub const TRUNCATE_TRIGGER: &str = "pgstrata_truncate";

/// The log's column for the place that a row left.
pub fn old_column(column: &Column) -> Ident {
    Ident::derived(&format!("old_{}", column.name.as_str()))
}

/// The log's column for the place that a row took.
pub fn new_column(column: &Column) -> Ident {
    Ident::derived(&format!("new_{}", column.name.as_str()))
}

/// Creates the log and the list of truncations, for their owner alone. The log has no index: it is only ever read by block.
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
        function(b, &format!("begin\n{}\nend", log_statements(b))),
        // Else whoever owns a table could hang our function on it and fill the log.
        super::close_function(&b.capture_function()),
    ]
}

/// Creates the trigger function with a body. It runs with its owner's rights, so that applications need none on the log; its
/// search path is closed, so that nobody's operators get into it.
pub(super) fn function(b: &Blueprint, body: &str) -> String {
    format!(
        "create or replace function {}() returns trigger\nlanguage plpgsql security definer \
         set search_path = pg_catalog, pg_temp\nas {}",
        b.capture_function(),
        dollar_quoted(body)
    )
}

/// What logs the change that the trigger was fired for.
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

/// Creates the capture on `table`. `ENABLE ALWAYS`: the apply worker of logical replication fires no other.
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

/// Creates the truncate trigger alone, as each leaf needs it: a parent's does not see a leaf's TRUNCATE.
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

/// Drops the capture from `table`.
pub fn drop_triggers(table: &QualifiedName) -> Vec<String> {
    [ROW_TRIGGER, TRUNCATE_TRIGGER]
        .into_iter()
        .map(|name| format!("drop trigger if exists {} on {table}", Ident::new(name)))
        .collect()
}

/// Whether the relation with oid `$1` has both capture triggers, and they fire always, on its leaves as well.
pub const CAPTURE_IN_FORCE: &str =
    "select pg_catalog.count(*) filter (where tgrelid = $1) = 2 and coalesce(pg_catalog.bool_and(tgenabled = 'A'), false)
from pg_catalog.pg_trigger
where tgname in ('pgstrata_capture', 'pgstrata_truncate')
  and (tgrelid = $1 or tgrelid in (select relid from pg_catalog.pg_partition_tree($1::oid::regclass)))";

/// The source's capture in a direction: what the start of a job and the swap put in force.
pub fn source_triggers(b: &Blueprint, direction: Direction) -> Vec<String> {
    create_triggers(b, &b.sides(direction).source)
}

/// Whether the relation with oid `$1` has the truncate trigger.
pub const HAS_TRUNCATE_TRIGGER: &str = "select exists (select from pg_catalog.pg_trigger \
    where tgrelid = $1 and tgname = 'pgstrata_truncate')";

/// Leaves of the relation with oid `$1` that lack the truncate trigger: schema and name. A row trigger comes to a leaf with
/// its attachment, a statement trigger does not.
pub const UNWATCHED_LEAVES: &str = "select n.nspname, c.relname
from pg_catalog.pg_partition_tree($1::oid::regclass) p join pg_catalog.pg_class c on c.oid = p.relid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where p.isleaf and p.level > 0 and c.relkind = 'r'
  and not exists (select from pg_catalog.pg_trigger t where t.tgrelid = c.oid and t.tgname = 'pgstrata_truncate')
order by 1, 2";
