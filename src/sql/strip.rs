//! Removes additions of event triggers to a table that the job has created, in the same transaction.

use crate::model::ident::{Ident, QualifiedName, literal};

/// The names as an array in SQL syntax.
pub(super) fn array<'a>(names: impl IntoIterator<Item = &'a Ident>) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blueprint::tests::blueprint;

    #[test]
    fn what_an_event_trigger_adds_is_removed() {
        let b = blueprint();
        insta::assert_snapshot!(strip(&b.target(), b.table.columns.iter().map(|c| &c.name), []));
    }
}
