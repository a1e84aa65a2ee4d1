//! The mirror: for a short time before an exchange, the capture trigger applies each changed row in the writer's own
//! transaction, so that the change log stays empty. If that fails, the change is logged instead, so that no write
//! fails because of it.
//!
//! The exchange does not rely on the mirror: it fails while the log has rows. The mirror only makes that rare.

use crate::model::blueprint::{Blueprint, Direction, SCHEMA};
use crate::model::ident::{Ident, QualifiedName, literal};

use super::drain::{self, Batch};
use super::trust::is_trusted;
use super::{capture, close_signature, dollar_quoted, equal, from_source, list, row_types};

/// A transaction that has changed this many rows logs further changes: each mirrored row takes a subtransaction.
const MOST_ROWS: u32 = 50;
/// The number of partitions up to which a session caches its plan for all of them; with more, each execution would
/// acquire too many locks.
const FEW_PARTITIONS: usize = 64;

/// Is `on` while the mirror writes; the guard of the inactive table then allows the write.
pub const SETTING: &str = "pgstrata.mirror";

/// A role that has USAGE on schema pgstrata and is the role `$1` or a member of it, directly or not: it could alter the
/// function that is transferred to `$1`. Roles that could act as the session's role anyway, and the roles `$2` that the
/// plan trusts, do not count.
pub const REACHES_SCHEMA: &str = concat!(
    "select r.rolname::text from pg_catalog.pg_roles r
where pg_catalog.pg_has_role(r.oid, (select o.oid from pg_catalog.pg_roles o where o.rolname::text = $1::text), 'MEMBER')
  and pg_catalog.has_schema_privilege(r.oid, 'pgstrata', 'USAGE')
  and not ", is_trusted!("r.oid", "session_user", "$2::text[]"), "
order by 1 limit 1"
);

/// The deferrable keys of the relation with oid `$1`: schema, name, and whether another deferrable constraint in that
/// schema has the same name.
pub const DEFERRABLE_KEYS: &str = "select n.nspname, c.conname,
  exists (select from pg_catalog.pg_constraint o where o.connamespace = c.connamespace and o.conname = c.conname
    and o.oid <> c.oid and o.condeferrable)
from pg_catalog.pg_constraint c join pg_catalog.pg_namespace n on n.oid = c.connamespace
where c.conrelid = $1 and c.condeferrable and c.contype in ('p', 'u', 'x') order by 1, 2";

/// The heaps of the relation with oid `$1` and of its leaves: oid and file.
pub const HEAPS: &str = "select c.oid, pg_catalog.pg_relation_filenode(c.oid)
from (select $1::oid as oid union select relid from pg_catalog.pg_partition_tree($1::oid::regclass)) r
join pg_catalog.pg_class c on c.oid = r.oid where c.relkind = 'r' order by 1";

/// Whether the function with name `$1` exists in schema pgstrata.
pub const IS_ON: &str =
    "select exists (select from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = 'pgstrata' and p.proname = $1)";

/// The time at which the mirror ends by itself, `$1` seconds from now.
pub const UNTIL: &str =
    "select (pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $1::double precision))::text";

/// The parameters of the mirror's function: the operation, the relation, the old place, the new place.
fn parameters(b: &Blueprint) -> String {
    let place = b.place_columns();
    let types: Vec<&str> = place.iter().chain(&place).map(|c| c.base_type.as_str()).collect();
    format!("text, oid, {}", types.join(", "))
}

/// What the mirror's function is created for.
#[derive(Debug)]
pub struct Mirrored<'a> {
    /// The heaps of the source: oid and file.
    pub heaps: &'a [(u32, u32)],
    /// The deferrable keys of the target.
    pub deferrable: &'a [QualifiedName],
    /// When the mirror ends by itself, as text.
    pub until: &'a str,
}

/// Switches the mirror on. To be run in one transaction.
///
/// - The function belongs to the table's owner, because it evaluates the owner's expressions (generated columns,
///   CHECK constraints, indexes). If row-level security is forced on the owner, it belongs to the role that copies,
///   which sees every row.
/// - If a heap has another file, it was truncated or rewritten in the meantime: writes to it are logged, so that a
///   TRUNCATE can be carried over completely.
/// - A deferred key would fail at the commit, when nothing can be logged any more: keys of the target are therefore
///   checked immediately. Keys of the source are checked as before.
pub fn on(b: &Blueprint, direction: Direction, mirrored: &Mirrored<'_>) -> Vec<String> {
    let function = format!("{}({})", b.mirror_function(), parameters(b));
    let own = b.partitions.len() > FEW_PARTITIONS;
    let plans = if own { " set plan_cache_mode = force_custom_plan" } else { "" };
    let owner = literal(&b.table.owner.to_string());
    let (schema, named) = (Ident::new(SCHEMA), literal(&function));
    let to_owner = format!(
        "begin
  if pg_catalog.quote_ident(current_user)::regrole <> {owner}::regrole then
    -- The new owner of a function needs CREATE on its schema while the owner is changed.
    execute pg_catalog.format('grant create on schema {schema} to %s', {owner});
    execute pg_catalog.format('alter function %s owner to %s', {named}, {owner});
    execute pg_catalog.format('revoke create on schema {schema} from %s', {owner});
  end if;
end"
    );
    let mut all = vec![
        format!("drop function if exists {function}"),
        format!(
            "create function {function} returns void language plpgsql security definer \
             set search_path = pg_catalog, pg_temp set row_security = off{plans}\nas {}",
            dollar_quoted(&body(b, direction, mirrored))
        ),
        close_signature(&function),
        format!("grant execute on function {function} to current_user"),
    ];
    if !b.table.force_row_security {
        all.push(format!("do {}", dollar_quoted(&to_owner)));
    }
    all.push(capture::function(b, &capturing(b, mirrored.until)));
    all
}

/// Restores logging, and drops the mirror's function.
pub fn off(b: &Blueprint) -> Vec<String> {
    let mut all = capture::create_function(b);
    all.push(format!("drop function if exists {}({})", b.mirror_function(), parameters(b)));
    all
}

/// The body of the capture trigger while the mirror is on.
fn capturing(b: &Blueprint, until: &str) -> String {
    let place = b.place_columns();
    let values = |row: &str| place.iter().map(|c| format!("{row}.{}", c.name)).collect::<Vec<_>>().join(", ");
    let nothing = vec!["null"; place.len()].join(", ");
    let (old, new, mirror) = (values("old"), values("new"), b.mirror_function());
    format!(
        "declare
  pgstrata_rows text;
begin
{guard}  if tg_level = 'ROW' and pg_catalog.clock_timestamp() < timestamptz {until} then
    pgstrata_rows := coalesce(pg_catalog.current_setting('pgstrata.mirrored', true), '');
    if pg_catalog.length(pgstrata_rows) < {MOST_ROWS} then
      perform pg_catalog.set_config('pgstrata.mirrored', pgstrata_rows || '.', true);
      begin
        if tg_op = 'UPDATE' then
          perform {mirror}(tg_op, tg_relid, {old}, {new});
        elsif tg_op = 'INSERT' then
          perform {mirror}(tg_op, tg_relid, {nothing}, {new});
        else
          perform {mirror}(tg_op, tg_relid, {old}, {nothing});
        end if;
        return null;
      exception when others then
        null; -- The change is logged.
      end;
    end if;
  end if;
{}
end",
        capture::log_statements(b),
        guard = row_types::of_log(b),
        until = literal(until)
    )
}

/// Drains the places of one row. The source is read again, because nested triggers fire in no fixed order.
fn body(b: &Blueprint, direction: Direction, mirrored: &Mirrored<'_>) -> String {
    let (sides, place) = (b.sides(direction), b.place_columns());
    let at = |alias: &str, first: usize| {
        let all = place.iter().enumerate().map(|(i, c)| format!("{alias}.{} = ${}", c.name, first + i));
        all.collect::<Vec<_>>().join(" and ")
    };
    let parameters =
        |first: usize| (first..first + place.len()).map(|i| format!("${i}")).collect::<Vec<_>>().join(", ");
    let (old, new) = (3, 3 + place.len());
    let columns: Vec<&Ident> = b.table.written_columns().map(|c| &c.name).collect();
    let delete = |first: usize| format!("delete from {} t where {}", sides.target, at("t", first));
    let heaps: Vec<String> = mirrored.heaps.iter().map(|(oid, file)| format!("\"{oid}\": {file}")).collect();
    let keys: Vec<String> = mirrored.deferrable.iter().map(ToString::to_string).collect();
    let at_once = if keys.is_empty() {
        String::new()
    } else {
        format!("\n  set constraints {} immediate;", keys.join(", "))
    };
    format!(
        "declare
  n bigint;
begin
  perform pg_catalog.set_config('{SETTING}', 'on', true);{at_once}
  if pg_catalog.pg_relation_filenode($2) is distinct from (jsonb '{{{heaps}}}' ->> $2::text)::oid then
    raise exception using errcode = 'PS001', message = 'truncated or rewritten';
  end if;
  if $1 <> 'INSERT' then
    {delete_old};
    get diagnostics n = row_count;
    if n = 0 then -- The statement may have waited for a drain.
      {delete_old};
      get diagnostics n = row_count;
    end if;
    if n <> 1 then
      raise exception using errcode = 'PS001', message = 'a change is pending';
    end if;
  end if;
  if $1 <> 'DELETE' then
    if $1 = 'INSERT' or ({old}) is distinct from ({new}) then
      {delete_new};
    end if;
    insert into {target} ({columns}) overriding system value
      select {read} from {source} s where {at_new};
  end if;
  perform pg_catalog.set_config('{SETTING}', '', true);
end",
        heaps = heaps.join(", "),
        at_once = at_once,
        delete_old = delete(old),
        delete_new = delete(new),
        old = parameters(old),
        new = parameters(new),
        target = sides.target,
        columns = list("", columns.iter().copied()),
        read = list("s.", columns.iter().copied()),
        source = from_source(&sides),
        at_new = at("s", new),
    )
}

/// Settings of a drain while the mirror is on: writers wait for rows that it has locked, so it gives up early.
pub const DRAIN_SETTINGS: &str = "set local lock_timeout = '100ms'";

/// The blocks of the log that have rows.
pub fn blocks(b: &Blueprint) -> String {
    format!("select distinct (ctid::text::point)[0]::bigint from {} order by 1", b.log())
}

/// Drains the blocks `[$1, $2)` of the log while the mirror is on: rows that are already equal are not written, so
/// that nobody waits for them.
pub fn drain(b: &Blueprint, direction: Direction) -> Vec<String> {
    let (sides, place) = (b.sides(direction), b.place_columns());
    let columns: Vec<&Ident> = b.table.written_columns().map(|c| &c.name).collect();
    let row = |alias: &str| format!("row({})", list(&format!("{alias}."), columns.iter().copied()));
    let (places, source) = (drain::places(b, Batch::Blocks), from_source(&sides));
    let same = |left: &str, right: &str| equal(left, right, &place);
    vec![
        format!(
            "delete from {} t using (\n  {places}\n) d\nwhere {} and not exists (\n  select from {source} s where {} and pg_catalog.record_image_eq({}, {})\n)",
            sides.target,
            same("t", "d"),
            same("s", "d"),
            row("s"),
            row("t"),
        ),
        format!(
            "insert into {target} ({}) overriding system value\nselect {}\nfrom (\n  {places}\n) d join {source} s on {}\n\
             where not exists (select from {target} t where {})",
            list("", columns.iter().copied()),
            list("s.", columns.iter().copied()),
            same("s", "d"),
            same("t", "d"),
            target = sides.target,
        ),
        drain::forget(b, Batch::Blocks),
    ]
}

/// The name of the function, as it is in the catalog.
pub fn name(b: &Blueprint) -> String {
    b.mirror_function().name.as_str().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blueprint::tests::blueprint;

    #[test]
    fn everything_that_is_sent() {
        let mut b = blueprint();
        b.table.force_row_security = false;
        let mirrored = Mirrored {
            heaps: &[(1, 2)],
            deferrable: &[QualifiedName::new("public", "a_key")],
            until: "2026-01-01 00:00:00+00",
        };
        let mut all = on(&b, Direction::Forward, &mirrored);
        all.extend(drain(&b, Direction::Forward));
        all.extend(off(&b));
        insta::assert_snapshot!(all.join(";\n\n"));
    }
}
