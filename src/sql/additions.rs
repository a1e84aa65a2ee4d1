//! Compares the target and its partitions with the source, before they come into use: an event trigger may have changed
//! what the job created.

use crate::model::blueprint::Blueprint;
use crate::model::ident::{Ident, literal};
use crate::model::table::{Column, ReplicaIdentity};

use super::options;
use super::prepare::n_distinct_inherited;
use super::strip::array;

/// Differences of the target (oid `$1`) and, if `$2`, of its partitions from the source: the relation, and what differs. Missing
/// objects are not among them.
pub fn additions(b: &Blueprint) -> String {
    let table = &b.table;
    let keys = table.foreign_keys.iter().chain(&b.incoming).map(|key| &key.name);
    let indexes: Vec<Ident> = b.carried_indexes().iter().map(|i| i.name.with_suffix("_new")).collect();
    format!(
        "with made as (
  select c.*, c.oid = $1 as parent from pg_catalog.pg_class c
  where c.oid = $1 or $2 and c.oid in (select inhrelid from pg_catalog.pg_inherits where inhparent = $1)
), granted (role, privilege, attname) as ({granted}
), expected (attname, required, expression, statistics, storage, compression, options, inherited) as (values {expected}
)
select m.oid::pg_catalog.regclass::text, x.what from made m cross join lateral (
  select 'its owner is ' || pg_catalog.pg_get_userbyid(m.relowner) as what
  where pg_catalog.pg_get_userbyid(m.relowner) <> {owner}
  union all
  select case when m.relrowsecurity then 'row-level security is on' else 'row-level security is off' end
  where m.relrowsecurity <> (m.parent and {security})
  union all
  select 'row-level security is forced' where m.relforcerowsecurity and not (m.parent and {forced})
  union all
  select 'policy ' || polname from pg_catalog.pg_policy where polrelid = m.oid and not (m.parent and polname = any ({policies}))
  union all
  select 'trigger ' || tgname from pg_catalog.pg_trigger
  where tgrelid = m.oid and not tgisinternal and tgparentid = 0 and tgname !~ '^[!~]?pgstrata_'
    and not (m.parent and tgname = any ({triggers}))
  union all
  select 'rule ' || rulename from pg_catalog.pg_rewrite where ev_class = m.oid and not (m.parent and rulename = any ({rules}))
  union all
  select 'constraint ' || conname from pg_catalog.pg_constraint
  where conrelid = m.oid and contype in ('c', 'f') and conislocal and coninhcount = 0 and conparentid = 0
    and conname <> all ({constraints})
  union all
  select 'index ' || i.relname from pg_catalog.pg_index x join pg_catalog.pg_class i on i.oid = x.indexrelid
  where x.indrelid = m.oid and not i.relispartition and not (m.parent and i.relname = any ({indexes}))
  union all
  select 'column ' || attname from pg_catalog.pg_attribute
  where attrelid = m.oid and attnum > 0 and not attisdropped and attname <> all ({columns})
  union all
{properties}
  union all
  select 'publication ' || p.pubname
  from pg_catalog.pg_publication_rel r join pg_catalog.pg_publication p on p.oid = r.prpubid where r.prrelid = m.oid
  union all
  select pg_catalog.format('privilege %s of %s', a.privilege_type,
    case a.grantee when 0 then 'public' else pg_catalog.pg_get_userbyid(a.grantee) end)
  from (
    select x.grantee, x.privilege_type, '' as attname from pg_catalog.aclexplode(m.relacl) x
    union all
    select x.grantee, x.privilege_type, t.attname from pg_catalog.pg_attribute t, pg_catalog.aclexplode(t.attacl) x
    where t.attrelid = m.oid and t.attnum > 0
  ) a
  where a.grantee <> m.relowner and not (m.parent and exists (select from granted g
    where g.role = case a.grantee when 0 then '' else pg_catalog.pg_get_userbyid(a.grantee) end
      and g.privilege = a.privilege_type and g.attname = a.attname))
) x
order by not m.parent, 1, 2",
        granted = granted(b),
        expected = table.columns.iter().map(|c| expected(&b.target_column(c))).collect::<Vec<_>>().join(",\n  "),
        owner = literal(table.owner.as_str()),
        security = table.row_security,
        forced = table.force_row_security,
        policies = array(table.policies.iter().map(|p| &p.name)),
        triggers = array(table.triggers.iter().map(|t| &t.name)),
        rules = array(table.dependents.rules.iter().map(|r| &r.name)),
        constraints = array(table.checks.iter().map(|c| &c.name).chain(keys)),
        indexes = array(&indexes),
        columns = array(table.columns.iter().map(|c| &c.name)),
        properties = properties(b),
    )
}

/// The privileges of the source.
fn granted(b: &Blueprint) -> String {
    let one = |role: &str, privilege: &str, column: &str| {
        format!("({}, {}, {})", literal(role), literal(privilege), literal(column))
    };
    let name = |name: &Option<Ident>| name.as_ref().map_or(String::new(), |name| name.as_str().to_owned());
    let grants: Vec<String> =
        b.table.grants.iter().map(|g| one(&name(&g.role), &g.privilege, &name(&g.column))).collect();
    match grants.as_slice() {
        [] => "select null::text, null::text, null::text where false".to_owned(),
        grants => format!("values {}", grants.join(", ")),
    }
}

/// What the catalog should contain for a column of the target or of a partition.
fn expected(column: &Column) -> String {
    let text = |value: Option<&str>| value.map_or("null".to_owned(), literal);
    let looks = column.looks.as_ref();
    let array = |options: Vec<String>| {
        let options: Vec<String> = options.iter().map(|option| literal(option)).collect();
        format!("array[{}]::text[]", options.join(", "))
    };
    let inherited = n_distinct_inherited(column).map(|n| format!("n_distinct_inherited={n}"));
    format!(
        "({}, {}, {}, {}::integer, {}, {}, {}, {})",
        literal(column.name.as_str()),
        column.not_null,
        text(column.default.as_deref()),
        column.statistics.map_or("null".to_owned(), |n| n.to_string()),
        text(looks.map(|looks| looks.storage.as_str())),
        text(looks.map(|looks| looks.compression.as_str())),
        array(column.options.clone()),
        array(column.options.iter().cloned().chain(inherited).collect()),
    )
}

/// Properties of columns, and of partitions, that differ. The columns of a primary key are NOT NULL.
fn properties(b: &Blueprint) -> String {
    let table = &b.table;
    let identity = match &table.replica_identity {
        ReplicaIdentity::Default => "d",
        ReplicaIdentity::Nothing => "n",
        ReplicaIdentity::Full => "f",
        ReplicaIdentity::Index(_) => "i",
    };
    let sorted = |of: &str| format!("array(select o from pg_catalog.unnest({of}) o order by o)");
    format!(
        "  select pg_catalog.format('column %s: %s', a.attname, w.what)
  from pg_catalog.pg_attribute a join expected e on e.attname = a.attname
    left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    cross join lateral (values
      ('NOT NULL', a.attnotnull and not e.required and not exists (
        select from pg_catalog.pg_index x where x.indrelid = m.oid and x.indisprimary and a.attnum = any (x.indkey))),
      ('default', pg_catalog.pg_get_expr(d.adbin, d.adrelid) <> coalesce(e.expression, '')),
      ('statistics target', nullif(a.attstattarget, -1) is distinct from e.statistics),
      ('storage', a.attstorage::text <> e.storage),
      ('compression', a.attcompression::text <> e.compression),
      ('options', {options} <> case when m.parent then {inherited} else {own} end)) w (what, differs)
  where a.attrelid = m.oid and w.differs
  union all
  select w.what from (values
    ('tablespace', (select t.spcname::text from pg_catalog.pg_tablespace t where t.oid = m.reltablespace), {tablespace}),
    ('storage parameters', pg_catalog.array_to_string({of_relation}, ', '), {parameters}),
    ('TOAST storage parameters', (select pg_catalog.array_to_string({of_toast}, ', ') from pg_catalog.pg_class t
      where t.oid = m.reltoastrelid), {toast}),
    ('persistence', m.relpersistence::text, {persistence}),
    ('access method', (select nullif(a.amname, 'heap')::text from pg_catalog.pg_am a where a.oid = m.relam), {method}),
    ('replica identity', nullif(m.relreplident, 'd')::text, nullif('{identity}', 'd'))) w (what, found, wanted)
  where not m.parent and coalesce(w.found, '') <> coalesce(w.wanted, '')
    and not (w.what = 'replica identity' and w.found is null)
    and not (w.what = 'TOAST storage parameters' and m.reltoastrelid = 0)",
        options = sorted(&options::kept("a.attoptions", "'column'")),
        inherited = sorted("e.inherited"),
        own = sorted("e.options"),
        tablespace = table.tablespace.as_ref().map_or("null".to_owned(), |name| literal(name.as_str())),
        of_relation = sorted(&options::kept("m.reloptions", &options::kind("m"))),
        parameters = literal(&joined(&table.options)),
        of_toast = sorted(&options::kept("t.reloptions", "'toast'")),
        toast = literal(&joined(&table.toast_options)),
        persistence = literal(&table.persistence),
        method = table.access_method.as_ref().map_or("null".to_owned(), |name| literal(name.as_str())),
    )
}

fn joined(options: &[String]) -> String {
    let mut options = options.to_vec();
    options.sort();
    options.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blueprint::tests::blueprint;

    #[test]
    fn what_an_event_trigger_adds_is_found() {
        insta::assert_snapshot!(additions(&blueprint()));
    }
}
