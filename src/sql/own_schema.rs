//! Facts about schema `pgstrata`, before anything in it is used.

use super::trust::could_act_as;

/// Schema, tables and functions, as one JSON document ([`crate::model::own_schema::OwnSchema`]); no row if the schema
/// does not exist.
///
/// The role that the session acts as is trusted as well, so that several roles can share the schema by acting as its
/// owner. Reading is harmless: the privileges SELECT, USAGE and EXECUTE do not count.
pub const FACTS: &str = concat!(
    "with trusted as materialized (
  select r.oid from pg_catalog.pg_roles r
  where ", could_act_as!("r.oid", "session_user"), " or r.rolname = current_user
), relations as materialized (
  select c.oid, c.relname, c.relkind, c.relowner, c.relacl, c.relrowsecurity
  from pg_catalog.pg_class c where c.relnamespace = pg_catalog.to_regnamespace('pgstrata') and c.relkind <> 'i'
), code as materialized (
  select 'pg_catalog.pg_attrdef'::regclass::oid as classid, d.oid as objid, d.adrelid as relation
  from pg_catalog.pg_attrdef d join relations r on r.oid = d.adrelid
  union all
  select 'pg_catalog.pg_constraint'::regclass::oid, k.oid, k.conrelid
  from pg_catalog.pg_constraint k join relations r on r.oid = k.conrelid
  union all
  select 'pg_catalog.pg_class'::regclass::oid, i.indexrelid, i.indrelid
  from pg_catalog.pg_index i join relations r on r.oid = i.indrelid
)
select pg_catalog.json_build_object(
  'role', current_user,
  'owner', pg_catalog.pg_get_userbyid(n.nspowner),
  'trusted', n.nspowner in (select oid from trusted),
  'creators', (select coalesce(pg_catalog.json_agg(distinct
      case a.grantee when 0 then 'PUBLIC' else pg_catalog.pg_get_userbyid(a.grantee)::text end), '[]')
    from pg_catalog.aclexplode(n.nspacl) a
    where a.privilege_type = 'CREATE' and a.grantee <> n.nspowner and a.grantee not in (select oid from trusted)),
  'relations', (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
      'name', r.relname,
      'kind', r.relkind,
      'owner', pg_catalog.pg_get_userbyid(r.relowner),
      'trusted', r.relowner in (select oid from trusted),
      'row_security', r.relrowsecurity
        or exists (select from pg_catalog.pg_policy p where p.polrelid = r.oid),
      'inherits', exists (select from pg_catalog.pg_inherits h where r.oid in (h.inhrelid, h.inhparent)),
      'generated', exists (select from pg_catalog.pg_attribute a
        where a.attrelid = r.oid and a.attgenerated <> '' and not a.attisdropped),
      'triggers', array(select t.tgname::text from pg_catalog.pg_trigger t
        where t.tgrelid = r.oid and not t.tgisinternal order by 1),
      'rules', array(select w.rulename::text from pg_catalog.pg_rewrite w
        where w.ev_class = r.oid and r.relkind <> 'v' and r.relkind <> 'm' order by 1),
      'checks', array(select k.conname::text from pg_catalog.pg_constraint k
        where k.conrelid = r.oid and k.contype in ('c', 'x') order by 1),
      'code', array(select distinct pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0)
        from code join pg_catalog.pg_depend d using (classid, objid)
        where code.relation = r.oid and d.refobjid >= 16384
          and d.refclassid in ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass) order by 1),
      'writers', (select coalesce(pg_catalog.json_agg(distinct
          case a.grantee when 0 then 'PUBLIC' else pg_catalog.pg_get_userbyid(a.grantee)::text end), '[]')
        from (
          select x.grantee, x.privilege_type from pg_catalog.aclexplode(r.relacl) x
          union all
          select x.grantee, x.privilege_type
          from pg_catalog.pg_attribute a, pg_catalog.aclexplode(a.attacl) x where a.attrelid = r.oid
        ) a
        where a.privilege_type not in ('SELECT', 'USAGE') and a.grantee <> r.relowner
          and a.grantee not in (select oid from trusted))
    ) order by r.relname), '[]') from relations r),
  'functions', (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
      'name', f.proname, 'owner', pg_catalog.pg_get_userbyid(f.proowner)) order by f.proname), '[]')
    from pg_catalog.pg_proc f
    where f.pronamespace = n.oid and f.proowner not in (select oid from trusted)
      -- The mirror's runs with the rights of the table's owner, and belongs to that role.
      and not (f.prosecdef and pg_catalog.starts_with(f.proname, 'mirror_')))
) from pg_catalog.pg_namespace n where n.nspname = 'pgstrata'"
);

/// The superuser that logged in, if the session acts as another role; else no row.
pub const ACTING_SUPERUSER: &str = "select r.rolname::text from pg_catalog.pg_roles r
where r.rolname = session_user and r.rolsuper and session_user <> current_user";

#[cfg(test)]
mod tests {
    #[test]
    fn the_query_for_the_schema() {
        insta::assert_snapshot!("own_schema", super::FACTS);
    }
}
