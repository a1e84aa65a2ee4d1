//! Removes additions of event triggers to a table that the job has created, in the same transaction, and searches for
//! such additions again before the table comes into use.

use crate::model::blueprint::Blueprint;
use crate::model::ident::{Ident, QualifiedName, literal};

fn array<'a>(names: impl IntoIterator<Item = &'a Ident>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| literal(name.as_str())).collect();
    format!("array[{}]::pg_catalog.name[]", names.join(", "))
}

/// Removes everything from a newly created table except `columns`, `checks`, and what it inherits from its parent:
/// row-level security, policies, triggers, rules, constraints, indexes, columns, publications.
pub fn strip<'a>(
    table: &QualifiedName,
    columns: impl IntoIterator<Item = &'a Ident>,
    checks: impl IntoIterator<Item = &'a Ident>,
) -> String {
    let name = literal(&table.to_string());
    let body = format!(
        "declare
  made constant regclass := {name}::regclass;
  addition text;
begin
  for addition in
    select format('alter table %s disable row level security', made) from pg_class where oid = made and relrowsecurity
    union all
    select format('alter table %s no force row level security', made) from pg_class where oid = made and relforcerowsecurity
    union all
    select format('drop policy %I on %s', polname, made) from pg_policy where polrelid = made
    union all
    select format('drop trigger %I on %s', tgname, made) from pg_trigger
    where tgrelid = made and not tgisinternal and tgparentid = 0
    union all
    select format('drop rule %I on %s', rulename, made) from pg_rewrite where ev_class = made
    union all
    select format('alter table %s drop constraint %I', made, conname) from pg_constraint
    where conrelid = made and contype in ('c', 'f', 'p', 'u', 'x') and conislocal and coninhcount = 0 and conparentid = 0
      and conname <> all ({checks})
    union all
    select format('drop index %s', x.indexrelid::regclass) from pg_index x join pg_class i on i.oid = x.indexrelid
    where x.indrelid = made and not i.relispartition and not exists (select from pg_constraint where conindid = i.oid)
    union all
    select format('alter publication %I drop table %s', p.pubname, made)
    from pg_publication_rel r join pg_publication p on p.oid = r.prpubid where r.prrelid = made
    union all
    select format('alter table %s drop column %I', made, attname) from pg_attribute
    where attrelid = made and attnum > 0 and not attisdropped and attislocal and attname <> all ({columns})
  loop
    execute addition;
  end loop;
end",
        checks = array(checks),
        columns = array(columns),
    );
    format!("do {}", super::dollar_quoted(&body))
}

/// As [`strip`], for a table in schema `pgstrata`. It belongs to the role that created it.
pub fn own(table: &QualifiedName, columns: &[Ident]) -> [String; 2] {
    [format!("alter table {table} owner to current_user"), strip(table, columns, [])]
}

/// Resets the tables of schema `pgstrata`: they belong to the owner of the schema, and have only the objects that the
/// versions of the schema define. Objects of a role of which the job's role is not a member are not changed.
pub const INSTALLED: &str = "do $pgstrata$
declare
  addition text;
begin
  for addition in
    with own as (
      select c.*, n.nspowner from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where n.nspname = 'pgstrata' and c.relkind = 'r' and pg_has_role(c.relowner, 'MEMBER') and pg_has_role(n.nspowner, 'MEMBER')
    )
    select format('alter table %s owner to %I', oid::regclass, pg_get_userbyid(nspowner)) from own where relowner <> nspowner
    union all
    select format('alter table %s disable row level security', oid::regclass) from own where relrowsecurity
    union all
    select format('alter table %s no force row level security', oid::regclass) from own where relforcerowsecurity
    union all
    select format('drop policy %I on %s', p.polname, own.oid::regclass) from pg_policy p join own on own.oid = p.polrelid
    union all
    select format('drop trigger %I on %s', t.tgname, own.oid::regclass) from pg_trigger t join own on own.oid = t.tgrelid
    where not t.tgisinternal
    union all
    select format('drop rule %I on %s', w.rulename, own.oid::regclass) from pg_rewrite w join own on own.oid = w.ev_class
  loop
    execute addition;
  end loop;
end
$pgstrata$";

/// Additions to the target (oid `$1`) and its partitions that do not come from the source: the relation and the
/// addition.
pub fn additions(b: &Blueprint) -> String {
    let table = &b.table;
    let grants: Vec<String> = table
        .grants
        .iter()
        .map(|g| {
            let role = g.role.as_ref().map_or("", Ident::as_str);
            let column = g.column.as_ref().map_or("", Ident::as_str);
            format!("({}, {}, {})", literal(role), literal(&g.privilege), literal(column))
        })
        .collect();
    let granted = if grants.is_empty() {
        "select null::text, null::text, null::text where false".to_owned()
    } else {
        format!("values {}", grants.join(", "))
    };
    let keys = table.foreign_keys.iter().chain(&b.incoming).map(|key| &key.name);
    format!(
        "with made as (
  select c.*, c.oid = $1 as parent from pg_catalog.pg_class c
  where c.oid = $1 or c.oid in (select inhrelid from pg_catalog.pg_inherits where inhparent = $1)
), granted (role, privilege, attname) as ({granted})
select m.oid::pg_catalog.regclass::text, x.what from made m cross join lateral (
  select 'its owner is ' || pg_catalog.pg_get_userbyid(m.relowner) as what
  where pg_catalog.pg_get_userbyid(m.relowner) <> {owner}
  union all
  select case when m.relrowsecurity then 'row-level security is on' else 'row-level security is off' end
  where m.relrowsecurity <> (m.parent and {security})
  union all
  select 'policy ' || polname from pg_catalog.pg_policy where polrelid = m.oid and not (m.parent and polname = any ({policies}))
  union all
  select 'trigger ' || tgname from pg_catalog.pg_trigger
  where tgrelid = m.oid and not tgisinternal and tgparentid = 0 and not pg_catalog.starts_with(tgname, 'pgstrata_')
    and not (m.parent and tgname = any ({triggers}))
  union all
  select 'rule ' || rulename from pg_catalog.pg_rewrite where ev_class = m.oid and not (m.parent and rulename = any ({rules}))
  union all
  select 'constraint ' || conname from pg_catalog.pg_constraint
  where conrelid = m.oid and contype in ('c', 'f') and conislocal and coninhcount = 0 and conparentid = 0
    and conname <> all ({constraints})
  union all
  select 'column ' || attname from pg_catalog.pg_attribute
  where attrelid = m.oid and attnum > 0 and not attisdropped and attname <> all ({columns})
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
        owner = literal(table.owner.as_str()),
        security = table.row_security,
        policies = array(table.policies.iter().map(|p| &p.name)),
        triggers = array(table.triggers.iter().map(|t| &t.name)),
        rules = array(table.dependents.rules.iter().map(|r| &r.name)),
        constraints = array(table.checks.iter().map(|c| &c.name).chain(keys)),
        columns = array(table.columns.iter().map(|c| &c.name)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blueprint::tests::blueprint;

    #[test]
    fn what_an_event_trigger_adds_is_found_and_taken_away() {
        let b = blueprint();
        let all = [strip(&b.target(), b.table.columns.iter().map(|c| &c.name), []), additions(&b)];
        insta::assert_snapshot!(all.join(";\n"));
    }
}
