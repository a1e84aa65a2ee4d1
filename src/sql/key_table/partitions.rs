//! The functions of a key table for whole partitions: TRUNCATE, and partitions that are attached or detached. They are
//! rarely called, so they have a fixed search path.
//!
//! Each of them deletes the keys that its snapshot shows, so each needs a snapshot that is taken after its lock was
//! acquired. Only READ COMMITTED, where each statement takes its own snapshot, guarantees that.

use crate::model::blueprint::Blueprint;
use crate::model::ident::literal;
use crate::model::key_table::KeyTable;
use crate::sql::trust::could_act_as;
use crate::sql::{dollar_quoted, operators_path};

use super::escaped;
use super::functions::{ADDING, function, on_truncate};

/// Removes the keys of truncated rows. TRUNCATE of the table fires its trigger first, then those of its partitions.
/// Tables that reference the key table prevent it, as they would if they referenced the table itself, unless they are
/// truncated by the same command: then they have no pages. Their rows are not read.
pub(super) fn truncate(b: &Blueprint, k: &KeyTable) -> String {
    let body = format!(
        "declare
  root regclass := pg_partition_root(tg_relid);
  referencing regclass;
  leaf regclass;
  rest text;
begin
  -- A detached partition may still have this trigger.
  if root is null then
    return null;
  end if;
  for referencing in
    select conrelid from pg_constraint where confrelid = {name}::regclass and contype = 'f' and conparentid = 0
  loop
    if pg_relation_size(referencing) + coalesce((select sum(pg_relation_size(relid)) from pg_partition_tree(referencing)), 0) > 0 then
      raise exception 'cannot truncate a table referenced in a foreign key constraint' using errcode = '0A000',
        detail = format('Table %s references %s.', referencing, tg_relid::regclass),
        hint = format('Truncate table %s at the same time.', referencing);
    end if;
  end loop;
  if referencing is null and root = tg_relid then
    truncate {table};
  end if;
  -- Whether it is empty, whatever the snapshot shows.
  if pg_relation_size({name}::regclass) = 0 then
    return null;
  end if;
{read_committed}
  if root = tg_relid then
    delete from {table};
    return null;
  end if;
  -- The partitions themselves are read, because row security policies apply to the partitioned table. The planner may call
  -- functions of their indexes and CHECK constraints, with the rights of the owner of this function.
  for leaf in select relid from pg_partition_tree(root) where isleaf and relid <> tg_relid loop
    execute format('lock table only %s in row exclusive mode', leaf);
  end loop;
{no_code}
  select string_agg(format({of_rest}, relid::regclass), ' union all ') into rest from pg_partition_tree(root)
  where isleaf and relid not in (select relid from pg_partition_tree(tg_relid));
  execute {delete} || case when rest is null then '' else format({unless}, rest) end;
  return null;
end",
        name = literal(&k.name.to_string()),
        table = k.name,
        read_committed = read_committed("TRUNCATE"),
        no_code = NO_CODE_OF_OTHERS,
        of_rest = literal(&format!(
            "select {} from only %s x where {}",
            escaped(&k.values("x").join(", ")),
            escaped(&k.has_key("x"))
        )),
        delete = literal(&format!("delete from {} key", k.name)),
        unless = literal(&format!(
            " where not exists (select from (%s) x ({}) where {})",
            escaped(&places(k).join(", ")),
            escaped(&k.matches("key", &places(k).iter().map(|place| format!("x.{place}")).collect::<Vec<_>>()))
        )),
    );
    with_fixed_path(b, &format!("{}()", function(k, "truncate")), "trigger", &body)
}

/// Fails if indexes or constraints of the partitions use functions, operators or types of roles that could not act as the
/// owner of the function.
const NO_CODE_OF_OTHERS: &str = concat!(
    "  if exists (
    select from pg_partition_tree(root) p join pg_depend d on
      d.classid = 'pg_class'::regclass and d.objid in (select indexrelid from pg_index where indrelid = p.relid)
      or d.classid = 'pg_constraint'::regclass and d.objid in (select oid from pg_constraint where conrelid = p.relid)
      left join pg_proc f on d.refclassid = 'pg_proc'::regclass and f.oid = d.refobjid
      left join pg_operator o on d.refclassid = 'pg_operator'::regclass and o.oid = d.refobjid
      left join pg_type t on d.refclassid = 'pg_type'::regclass and t.oid = d.refobjid,
      lateral (select coalesce(f.proowner, o.oprowner, t.typowner)) r (oid)
    where not ",
    could_act_as!("r.oid", "current_user"),
    ") then
    raise exception 'TRUNCATE of a partition would call functions of other roles with the rights of role %', current_user
      using errcode = '42501', hint = 'Delete the rows, or finalize the job first.';
  end if;"
);

/// Names for the values of a key.
fn places(k: &KeyTable) -> Vec<String> {
    (1..=k.columns.len()).map(|place| format!("v{place}")).collect()
}

/// A statement that fails at any isolation level other than READ COMMITTED.
fn read_committed(what: &str) -> String {
    format!(
        "  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception '{what} needs isolation level READ COMMITTED, because the table has a key table' using errcode = '0A000';
  end if;"
    )
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

fn insert(k: &KeyTable, from: &str) -> String {
    let columns: Vec<String> = k.columns.iter().map(|c| c.name.to_string()).collect();
    let insert =
        format!("insert into {} ({}) select {} from ", k.name, columns.join(", "), k.values("x").join(", "));
    format!("{}{from} x where {}", escaped(&insert), escaped(&k.has_key("x")))
}

/// Statements that create the TRUNCATE trigger of a partition again.
fn watch(k: &KeyTable, partition: &str) -> String {
    let trigger = on_truncate(k);
    let statements = [
        format!("drop trigger if exists {trigger} on %1$s"),
        format!(
            "create trigger {trigger} after truncate on %1$s for each statement execute function {}()",
            function(k, "truncate")
        ),
        format!("alter table %1$s enable always trigger {trigger}"),
    ];
    format!(
        "execute format({}, {partition});",
        literal(
            &statements
                .map(|one| one.replace("%1$s", "\u{1}").replace('%', "%%").replace('\u{1}', "%1$s"))
                .join("; ")
        )
    )
}

/// Adds the keys of a table that is about to be attached as a partition, and returns their number.
pub(super) fn add(b: &Blueprint, k: &KeyTable) -> String {
    of_partition(b, k, "add", &insert(k, "only %s"), &watch(k, "$1"))
}

/// Removes the keys of a partition that is about to be detached or dropped, and returns their number. The actions of
/// foreign keys apply as for a DELETE of its rows.
pub(super) fn remove(b: &Blueprint, k: &KeyTable) -> String {
    let delete = format!(
        "{}only %s x where {} and {}",
        escaped(&format!("delete from {} key using ", k.name)),
        escaped(&k.has_key("x")),
        escaped(&k.matches("key", &k.values("x")))
    );
    let forget = format!(
        "execute format({}, $1);",
        literal(&format!("drop trigger if exists {} on %s", escaped(&on_truncate(k).to_string())))
    );
    of_partition(b, k, "remove", &delete, &forget)
}

/// A function that executes a statement for a partition, and then another one.
fn of_partition(b: &Blueprint, k: &KeyTable, what: &str, statement: &str, then: &str) -> String {
    let body = format!(
        "declare
  n bigint;
begin
{}
  execute format('lock table only %s in share row exclusive mode', $1);
  perform set_config('{ADDING}', 'on', true);
  execute format({}, $1);
  get diagnostics n = row_count;
  perform set_config('{ADDING}', '', true);
  {then}
  return n;
end",
        read_committed("this function"),
        literal(statement)
    );
    with_fixed_path(b, &format!("{}(regclass)", function(k, what)), "bigint", &body)
}

/// Makes the key table match the partitioned table again: deletes keys that no row has, adds those that are missing, and
/// the triggers of partitions that have none. Returns the number of keys. Rows cannot be written meanwhile.
pub(super) fn repair(b: &Blueprint, k: &KeyTable) -> String {
    let matches = escaped(&k.matches("key", &k.values("x")));
    let stale = format!(
        "{}%s x where {} and {matches})",
        escaped(&format!("delete from {} key where not exists (select from ", k.name)),
        escaped(&k.has_key("x")),
    );
    let missing = format!(
        "{} and not exists (select from {} key where {matches})",
        insert(k, "%s"),
        escaped(&k.name.to_string())
    );
    let body = format!(
        "declare
  leaf regclass;
  n bigint;
  deleted bigint;
begin
{}
  execute format('lock table %s in share row exclusive mode', $1);
  perform set_config('{ADDING}', 'on', true);
  execute format({}, $1);
  get diagnostics deleted = row_count;
  execute format({}, $1);
  get diagnostics n = row_count;
  perform set_config('{ADDING}', '', true);
  for leaf in
    select relid from pg_partition_tree($1) p
    where isleaf and not exists (select from pg_trigger where tgrelid = relid and tgname = {})
  loop
    {}
  end loop;
  return n + deleted;
end",
        read_committed("this function"),
        literal(&stale),
        literal(&missing),
        literal(on_truncate(k).as_str()),
        watch(k, "leaf"),
    );
    with_fixed_path(b, &format!("{}(regclass)", function(k, "repair")), "bigint", &body)
}
