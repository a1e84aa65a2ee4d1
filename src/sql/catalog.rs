//! Reads the definition of a table from the catalog as one JSON document ([`crate::model::table::Table`]), so that all
//! of it comes from one snapshot.

use super::recreated::definitions_of;
use super::trust::untrusted_creators;
use super::{definition, options};

/// The definition of the relation with oid `$1`, with everything that belongs to it. It omits objects that pgstrata
/// created, so that a running job does not look like a change to the table.
///
/// Both tables use the same sequence for a serial column, so objects that depend on it (for example, the default of the
/// target) are allowed. For an identity column, each table has its own sequence.
///
/// Sent with an empty search path, so that the server qualifies all names in expressions and views.
pub fn table() -> String {
    TABLE
        .replacen("{dependents}", super::dependent::CATALOG, 1)
        .replace("{grants}", super::dependent::GRANTS)
        .replace("{row_type}", &super::dependent::row_type("c"))
        .replace("{row_type_of_view}", &super::dependent::row_type("v"))
        .replace("{row_function_list}", super::row_functions::CATALOG)
        .replace("{row_functions}", super::row_functions::CARRIED)
        .replace("{sequence_owner_has_all}", &owner_has_all("s", "s"))
        .replace("{needs}", super::dependent::NEEDS)
        .replace("{view}", VIEW)
        .replace("{owner_has_all}", &owner_has_all("c", "r"))
        .replace("{view_options}", &options::documented("v.reloptions", &options::kind("v")))
        .replace("{options}", &options::documented("c.reloptions", &options::kind("c")))
        .replace("{toast_options}", &options::documented("t.reloptions", "'toast'"))
        .replace("{index_options}", &options::documented("i.reloptions", "am.amname"))
        .replace("{index_tail}", &options::documented_tail(&definition::index_tail("i.oid"), "i.oid"))
        .replace("{trigger_head}", &definition::trigger_head("t.oid"))
        .replace("{trigger_tail}", &definition::trigger_tail("t.oid"))
}

/// Whether the owner of the relation, a row of `pg_class`, has all privileges on it. The catalog may not contain the default
/// privileges, which `kind` selects: `r` for a table, `s` for a sequence.
fn owner_has_all(relation: &str, kind: &str) -> String {
    format!(
        "({relation}.relacl is null or not exists (
    select from aclexplode(acldefault('{kind}', {relation}.relowner)) d where d.grantee = {relation}.relowner and d.privilege_type not in (
      select o.privilege_type from aclexplode({relation}.relacl) o where o.grantee = {relation}.relowner)))"
    )
}

/// [`crate::model::table::Table::operator_schemas`] of the relation with oid `$1`; `$2` are the roles that the plan trusts.
pub const OPERATOR_SCHEMAS: &str = concat!(
    "select distinct n.nspname::text
from (
    select $1::oid as oid
    union all
    select w.ev_class from pg_catalog.pg_depend m
      join pg_catalog.pg_rewrite w on m.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and w.oid = m.objid
      join pg_catalog.pg_class v on v.oid = w.ev_class
    where m.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and m.refobjid = $1 and v.relkind = 'm') r
  cross join lateral (",
    definitions_of!("r.oid"),
    ") f (classid, objid)
  join pg_catalog.pg_depend d on d.classid = f.classid and d.objid = f.objid
    and d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass
  join pg_catalog.pg_operator o on o.oid = d.refobjid join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
where o.oprname = '=' and n.nspname <> 'pg_catalog'
  and not exists (select from ",
    untrusted_creators!("session_user", "$2"),
    " creator)
order by 1"
);

/// The view `v` in namespace `vn` ([`crate::model::dependent::View`]).
const VIEW: &str = "json_build_object(
    'name', json_build_object('schema', vn.nspname, 'name', v.relname),
    'owner', pg_get_userbyid(v.relowner),
    'query', pg_get_viewdef(v.oid),
    'options', {view_options},
    'bound_to_key', exists (
        select from pg_depend d join pg_rewrite w on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
          join pg_constraint k on d.refclassid = 'pg_constraint'::regclass and d.refobjid = k.oid
        where w.ev_class = v.oid and k.conrelid = c.oid)
      or exists (select from pg_attribute a where a.attrelid = v.oid and a.attnum > 0 and a.atttypid = c.reltype)
  )";

const TABLE: &str = r#"
select pg_catalog.json_build_object(
  'oid', c.oid::bigint,
  'name', json_build_object('schema', n.nspname, 'name', c.relname),
  'relkind', c.relkind,
  'persistence', c.relpersistence,
  'is_partition', c.relispartition,
  'children', (select count(*) from pg_inherits where inhparent = c.oid),
  'parents', (select count(*) from pg_inherits where inhrelid = c.oid),
  'typed', c.reloftype <> 0,
  'extension', (select e.extname from pg_depend d join pg_extension e on e.oid = d.refobjid
                where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'),
  'owner', pg_get_userbyid(c.relowner),
  'comment', obj_description(c.oid, 'pg_class'),
  'options', {options},
  'toast_options', coalesce((select {toast_options} from pg_class t where t.oid = c.reltoastrelid), '[]'),
  'replica_identity', case c.relreplident when 'n' then to_json('nothing'::text) when 'f' then to_json('full'::text)
    when 'i' then (select json_build_object('index', i.relname) from pg_index x join pg_class i on i.oid = x.indexrelid
                   where x.indrelid = c.oid and x.indisreplident)
    else to_json('default'::text) end,
  'access_method', (select amname from pg_am where oid = c.relam and amname <> 'heap'),
  'tablespace', (select spcname from pg_tablespace where oid = c.reltablespace),
  'row_security', c.relrowsecurity,
  'force_row_security', c.relforcerowsecurity,
  'columns', coalesce((
    select json_agg(json_build_object(
      'name', a.attname,
      'sql_type', format_type(a.atttypid, a.atttypmod),
      'base_type', format_type(b.oid, -1),
      'collation', case when a.attcollation <> b.typcollation
        then (select quote_ident(cn.nspname) || '.' || quote_ident(co.collname)
              from pg_collation co join pg_namespace cn on cn.oid = co.collnamespace where co.oid = a.attcollation) end,
      'deterministic', coalesce((select co.collisdeterministic from pg_collation co where co.oid = a.attcollation), true),
      'hashable', b.typtype = 'e' or b.typnamespace = 'pg_catalog'::regnamespace and b.typname = any (array['bool',
          'name', 'int2', 'int4', 'int8', 'oid', 'float4', 'float8', 'numeric', 'text', 'varchar', 'bpchar', 'bytea', 'date',
          'time', 'timetz', 'timestamp', 'timestamptz', 'interval', 'uuid', 'inet', 'cidr', 'macaddr', 'jsonb'])
        or exists (select from pg_type e where e.oid = b.typelem and b.typcategory = 'A'
          and (e.typtype = 'e' or e.typnamespace = 'pg_catalog'::regnamespace and e.typname = any (array['bool', 'int2',
          'int4', 'int8', 'float4', 'float8', 'numeric', 'text', 'varchar', 'date', 'timestamp', 'timestamptz', 'uuid']))),
      'not_null', a.attnotnull,
      'generated', a.attgenerated,
      'identity', a.attidentity,
      'default', (select pg_get_expr(d.adbin, d.adrelid) from pg_attrdef d where d.adrelid = a.attrelid and d.adnum = a.attnum),
      'statistics', nullif(a.attstattarget, -1),
      'options', coalesce((select json_agg(o order by o) from unnest(a.attoptions) o
        where o ~ '^(n_distinct|n_distinct_inherited)='), '[]'),
      'looks', json_build_object(
        'comment', col_description(a.attrelid, a.attnum),
        'storage', a.attstorage,
        'compression', a.attcompression,
        'not_null', (select k.conname from pg_constraint k
          where k.conrelid = c.oid and k.contype = 'n' and k.conkey = array[a.attnum]))
    ) order by a.attnum)
    from pg_attribute a
      cross join lateral (
        with recursive under as (
          select t.oid, t.typbasetype, t.typtype from pg_type t where t.oid = a.atttypid
          union all
          select t.oid, t.typbasetype, t.typtype from pg_type t join under u on t.oid = u.typbasetype where u.typtype = 'd'
        ) select t.* from under u join pg_type t on t.oid = u.oid where u.typtype <> 'd'
      ) b
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '[]'),
  'indexes', coalesce((
    select json_agg(json_build_object(
      'name', i.relname,
      'tail', {index_tail},
      'unique', x.indisunique,
      'constraint', coalesce(k.contype::text, ''),
      'exclusion', case when k.contype = 'x' then pg_get_constraintdef(k.oid) end,
      'equated', case when k.contype = 'x' then coalesce((
        select json_agg(a.attname order by a.attname) from unnest(k.conkey, k.conexclop) key (attnum, operator)
          join pg_attribute a on a.attrelid = c.oid and a.attnum = key.attnum
          join pg_operator o on o.oid = key.operator where o.oprname = '='), '[]') else '[]' end,
      'deferrable', case when k.condeferred then ' deferrable initially deferred'
                         when k.condeferrable then ' deferrable' else '' end,
      'valid', x.indisvalid and x.indisready and x.indislive,
      'columns', case when x.indexprs is null then
        (select json_agg(a.attname order by key.place) from unnest(x.indkey::int2[]) with ordinality key (attnum, place)
          join pg_attribute a on a.attrelid = c.oid and a.attnum = key.attnum where key.place <= x.indnkeyatts) end,
      'include', coalesce(
        (select json_agg(a.attname order by key.place) from unnest(x.indkey::int2[]) with ordinality key (attnum, place)
          join pg_attribute a on a.attrelid = c.oid and a.attnum = key.attnum where key.place > x.indnkeyatts), '[]'),
      'partial', x.indpred is not null,
      'plain_order', am.amname = 'btree'
        and not exists (select from unnest(x.indoption::int2[]) o where o <> 0)
        and not exists (select from unnest(x.indclass::oid[]) o join pg_opclass oc on oc.oid = o
          where not oc.opcdefault or oc.opcnamespace <> 'pg_catalog'::regnamespace)
        and not exists (select from unnest(x.indkey::int2[], x.indcollation::oid[]) key (attnum, coll)
          join pg_attribute a on a.attrelid = c.oid and a.attnum = key.attnum
          where key.coll is not null and key.coll <> a.attcollation),
      'nulls_not_distinct', coalesce((to_jsonb(x) ->> 'indnullsnotdistinct')::boolean, false),
      'options', {index_options},
      'comment', obj_description(i.oid, 'pg_class'),
      'statistics', coalesce((
        select json_agg(json_build_array(a.attnum, a.attstattarget) order by a.attnum)
        from pg_attribute a where a.attrelid = i.oid and a.attstattarget >= 0), '[]'),
      'clustered', x.indisclustered,
      'tablespace', (select spcname from pg_tablespace where oid = i.reltablespace)
    ) order by i.relname)
    from pg_index x join pg_class i on i.oid = x.indexrelid join pg_am am on am.oid = i.relam
      left join pg_constraint k on k.conindid = i.oid and k.contype in ('p', 'u', 'x')
    where x.indrelid = c.oid), '[]'),
  'checks', coalesce((
    select json_agg(json_build_object(
      'name', k.conname,
      'definition', 'CHECK (' || pg_get_expr(k.conbin, k.conrelid) || ')',
      'validated', k.convalidated,
      'no_inherit', k.connoinherit
    ) order by k.conname)
    from pg_constraint k where k.conrelid = c.oid and k.contype = 'c'), '[]'),
  'not_null_no_inherit', coalesce((
    select json_agg(k.conname order by k.conname)
    from pg_constraint k where k.conrelid = c.oid and k.contype = 'n' and k.connoinherit), '[]'),
  'foreign_keys', coalesce((
    select json_agg(json_build_object(
      'name', k.conname,
      'table', json_build_object('schema', n.nspname, 'name', c.relname),
      'references', json_build_object('schema', rn.nspname, 'name', r.relname),
      'definition', regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', ''),
      'validated', k.convalidated,
      'comment', obj_description(k.oid, 'pg_constraint'),
      'to_unlogged', r.relpersistence = 'u'
    ) order by k.conname)
    from pg_constraint k join pg_class r on r.oid = k.confrelid join pg_namespace rn on rn.oid = r.relnamespace
    where k.conrelid = c.oid and k.contype = 'f' and k.conparentid = 0 and k.confrelid <> c.oid), '[]'),
  'referenced_by', coalesce((
    select json_agg(json_build_object(
      'name', k.conname,
      'table', json_build_object('schema', rn.nspname, 'name', r.relname),
      'references', json_build_object('schema', tn.nspname, 'name', t.relname),
      'definition', regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', ''),
      'validated', k.convalidated,
      'comment', obj_description(k.oid, 'pg_constraint'),
      'index', (select relname from pg_class where oid = k.conindid),
      'from_partitioned', r.relkind = 'p'
    ) order by r.relname, k.conname)
    from pg_constraint k join pg_class r on r.oid = k.conrelid join pg_namespace rn on rn.oid = r.relnamespace
      join pg_class t on t.oid = k.confrelid join pg_namespace tn on tn.oid = t.relnamespace
    where k.contype = 'f' and k.conparentid = 0 and (k.confrelid = c.oid or k.confrelid in (
        -- Key tables; own keys to them are in foreign_keys.
        select o.oid from pg_trigger g join pg_proc p on p.oid = g.tgfoid
          join pg_class o on o.relnamespace = p.pronamespace and o.relname::text || '_truncate' = p.proname::text
        where g.tgrelid = c.oid and starts_with(g.tgname::text, '!pgstrata_truncate_'))
      and k.conrelid <> c.oid and k.conrelid not in (select relid from pg_partition_tree(c.oid)))), '[]'),
  'grants', coalesce((
    select json_agg(json_build_object(
      'role', case g.grantee when 0 then null else pg_get_userbyid(g.grantee) end,
      'grantor', pg_get_userbyid(g.grantor),
      'privilege', g.privilege_type, 'column', g.attname, 'grantable', g.is_grantable
    ) order by g.attname nulls first, g.place)
    from (
      select x.grantor, x.grantee, x.privilege_type, x.is_grantable, null::name as attname, x.place
      from aclexplode(c.relacl) with ordinality x (grantor, grantee, privilege_type, is_grantable, place)
      where x.grantee <> c.relowner or not {owner_has_all}
      union all
      select x.grantor, x.grantee, x.privilege_type, x.is_grantable, a.attname, x.place
      from pg_attribute a,
        lateral aclexplode(a.attacl) with ordinality x (grantor, grantee, privilege_type, is_grantable, place)
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    ) g), '[]'),
  'default_privileges', {owner_has_all},
  'row_type', {row_type},
  'policies', coalesce((
    select json_agg(json_build_object(
      'name', p.polname, 'permissive', p.polpermissive,
      'command', case p.polcmd when 'r' then 'SELECT' when 'a' then 'INSERT' when 'w' then 'UPDATE'
                               when 'd' then 'DELETE' else 'ALL' end,
      'roles', (select coalesce(json_agg(pg_get_userbyid(role) order by role), '[]')
                from unnest(p.polroles) role where role <> 0),
      'using', pg_get_expr(p.polqual, p.polrelid),
      'check', pg_get_expr(p.polwithcheck, p.polrelid)
    ) order by p.polname)
    from pg_policy p where p.polrelid = c.oid), '[]'),
  'triggers', coalesce((
    select json_agg(json_build_object(
      'name', t.tgname,
      'head', {trigger_head},
      'tail', {trigger_tail},
      'enabled', t.tgenabled,
      'row', t.tgtype & 1 = 1,
      'before_insert', t.tgtype & 6 = 6,
      'transition', t.tgoldtable is not null or t.tgnewtable is not null
    ) order by t.tgname)
    from pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal and t.tgname !~ '^[!~]?pgstrata_'), '[]'),
  'views', coalesce((
    select json_agg({view} order by vn.nspname, v.relname)
    from pg_class v join pg_namespace vn on vn.oid = v.relnamespace
    where v.relkind = 'v' and v.oid in (
      select w.ev_class from pg_depend d join pg_rewrite w on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
      where d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid and w.ev_class <> c.oid)), '[]'),
  'sequences', coalesce((
    select json_agg(json_build_object(
      'name', json_build_object('schema', sn.nspname, 'name', s.relname),
      'column', a.attname, 'identity', d.deptype = 'i',
      'grants', coalesce((
        select json_agg(json_build_object(
          'role', case x.grantee when 0 then null else pg_get_userbyid(x.grantee) end,
          'grantor', pg_get_userbyid(x.grantor),
          'privilege', x.privilege_type, 'column', null, 'grantable', x.is_grantable
        ) order by x.place)
        from aclexplode(s.relacl) with ordinality x (grantor, grantee, privilege_type, is_grantable, place)
        where x.grantee <> s.relowner or not {sequence_owner_has_all}), '[]'),
      'default_privileges', {sequence_owner_has_all},
      'options', (
        select json_build_object('sql_type', format_type(q.seqtypid, null), 'start', q.seqstart, 'increment', q.seqincrement,
          'min', q.seqmin, 'max', q.seqmax, 'cache', q.seqcache, 'cycle', q.seqcycle,
          'comment', obj_description(s.oid, 'pg_class'))
        from pg_sequence q where q.seqrelid = s.oid),
      'uses', case d.deptype when 'i' then json_build_object('by', coalesce((
        select json_agg(distinct u.name order by u.name) from (
          select case when e.oid is not null then 'the default of ' || e.adrelid::regclass || '.' || quote_ident(ea.attname)
            when v.oid is not null then
              case v.relkind when 'm' then 'materialized view ' when 'v' then 'view '
                else 'rule ' || quote_ident(w.rulename) || ' on ' end || v.oid::regclass
            else pg_describe_object(x.classid, x.objid, 0) end as name
          from pg_depend x
            left join pg_attrdef e on x.classid = 'pg_attrdef'::regclass and e.oid = x.objid
            left join pg_attribute ea on ea.attrelid = e.adrelid and ea.attnum = e.adnum
            left join pg_rewrite w on x.classid = 'pg_rewrite'::regclass and w.oid = x.objid
            left join pg_class v on v.oid = w.ev_class
          where x.refclassid = 'pg_class'::regclass and x.refobjid = s.oid and x.deptype in ('n', 'a')
            and (e.oid is null or e.adrelid = c.oid)) u), '[]')) end
    ) order by s.relname)
    from pg_depend d join pg_class s on d.classid = 'pg_class'::regclass and s.oid = d.objid and s.relkind = 'S'
      join pg_namespace sn on sn.oid = s.relnamespace
      join pg_attribute a on a.attrelid = c.oid and a.attnum = d.refobjsubid
    where d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid and d.deptype in ('a', 'i')), '[]'),
  'comments', coalesce((
    select json_agg(json_build_object('kind', x.kind, 'name', x.name, 'text', x.text) order by x.kind, x.name)
    from (
      select 'constraint' as kind, k.conname as name, obj_description(k.oid, 'pg_constraint') as text
      from pg_constraint k where k.conrelid = c.oid and k.contype <> 't'
      union all
      select 'trigger', t.tgname, obj_description(t.oid, 'pg_trigger')
      from pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal
      union all
      select 'policy', p.polname, obj_description(p.oid, 'pg_policy') from pg_policy p where p.polrelid = c.oid
    ) x where x.text is not null), '[]'),
  'labels', coalesce((
    select json_agg(l.provider || coalesce(' on column ' || quote_ident(a.attname), '') order by l.provider, a.attnum nulls first)
    from pg_seclabel l left join pg_attribute a on a.attrelid = l.objoid and a.attnum = l.objsubid and l.objsubid > 0
    where l.classoid = 'pg_class'::regclass and l.objoid = c.oid), '[]'),
  'dependents', {dependents},
  'others', coalesce((
    select json_agg(o.name order by o.name) from (
      select distinct pg_describe_object(d.classid, d.objid, 0) as name
      from pg_depend d
      where ((d.refclassid = 'pg_class'::regclass and (d.refobjid = c.oid
                or d.refobjid in (select indexrelid from pg_index where indrelid = c.oid)
                or d.refobjid in (select s.objid from pg_depend s where s.refclassid = 'pg_class'::regclass
                     and s.classid = 'pg_class'::regclass and s.refobjid = c.oid and s.deptype = 'i'
                     and s.refobjsubid > 0 and (select relkind from pg_class where oid = s.objid) = 'S')))
          or (d.refclassid = 'pg_type'::regclass and d.refobjid in (c.reltype,
                (select typarray from pg_type where oid = c.reltype)))
          or (d.refclassid = 'pg_constraint'::regclass and d.refobjid in (select oid from pg_constraint where conrelid = c.oid)))
        and d.deptype in ('n', 'a', 'P', 'S', 'x')
        and not (d.classid = 'pg_class'::regclass and (d.objid = c.oid
              or d.objid in (select indexrelid from pg_index where indrelid = c.oid)
              or d.objid in (select indexrelid from pg_index
                  where indrelid in (select inhrelid from pg_inherits where inhparent = c.oid))
              or (select relkind from pg_class where oid = d.objid) in ('S', 't')
              or d.objid in (select inhrelid from pg_inherits where inhparent = c.oid)
              or d.objid in (select w.ev_class from pg_depend v join pg_rewrite w
                  on v.classid = 'pg_rewrite'::regclass and v.objid = w.oid
                where v.refclassid = 'pg_class'::regclass and v.refobjid = c.oid)))
        and not (d.classid = 'pg_constraint'::regclass and d.objid in
              (select oid from pg_constraint where conrelid = c.oid or confrelid = c.oid
                  or conrelid in (select inhrelid from pg_inherits where inhparent = c.oid)))
        and not (d.classid = 'pg_trigger'::regclass and d.objid in
              (select oid from pg_trigger where tgrelid = c.oid or tgconstrrelid = c.oid
                  or tgrelid in (select inhrelid from pg_inherits where inhparent = c.oid)))
        and not (d.classid = 'pg_attrdef'::regclass and (d.refobjid <> c.oid
              or d.objid in (select oid from pg_attrdef where adrelid = c.oid)))
        and d.classid not in ('pg_policy'::regclass, 'pg_rewrite'::regclass, 'pg_publication_rel'::regclass,
              'pg_statistic_ext'::regclass)
        and not (d.classid = 'pg_proc'::regclass and d.refclassid in ('pg_class'::regclass, 'pg_constraint'::regclass)
              and d.objid in (select oid from pg_proc where prosqlbody is not null))
        and not (d.classid = 'pg_proc'::regclass and d.objid in ({row_functions}))
        and not (d.classid = 'pg_type'::regclass and d.objid in (c.reltype, (select typarray from pg_type where oid = c.reltype)))
      union
      -- What constraints can be from 18 on, and partitions cannot have, or not the same way.
      select pg_describe_object('pg_constraint'::regclass, k.oid, 0) || case
          when k.contype = 'n' and not k.convalidated then ' (NOT VALID)'
          when to_jsonb(k) ->> 'conenforced' = 'false' then ' (NOT ENFORCED)'
          else ' (over a period)' end
      from pg_constraint k
      where k.conrelid = c.oid and (k.contype = 'n' and not k.convalidated
        or to_jsonb(k) ->> 'conenforced' = 'false' or to_jsonb(k) ->> 'conperiod' = 'true')
      union
      select 'subscription ' || quote_ident(s.subname)
      from pg_subscription_rel r join pg_subscription s on s.oid = r.srsubid where r.srrelid = c.oid
    ) o), '[]')
)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.oid = $1
"#;

/// The oid of `$1.$2`; no row if it does not exist.
pub const FIND: &str =
    "select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relname = $2";

/// Tables with a name similar to `$2`, or with the same name in another schema, for the hint of an error.
pub const TABLE_NAMES: &str = "select n.nspname, c.relname from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and n.nspname not in ('pg_catalog', 'information_schema', 'pgstrata')
order by 1, 2 limit 10000";

/// Leaves of the relation with oid `$1`: schema, name, oid, bounds in SQL syntax, and whether it is the default
/// partition.
pub const LEAVES: &str =
    "select n.nspname, c.relname, c.oid, pg_catalog.pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT'
from pg_catalog.pg_inherits h join pg_catalog.pg_class c on c.oid = h.inhrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where h.inhparent = $1
order by 4, c.relname";

/// The estimated number of rows of the relation with oid `$1`, and its size in bytes.
pub const SIZE: &str = "select greatest(c.reltuples, 0)::bigint, pg_catalog.pg_total_relation_size(c.oid),
  pg_catalog.pg_relation_size(c.oid)
from pg_catalog.pg_class c where c.oid = $1";

/// Facts about the server: version number, whether it is in recovery, database, user, and deadlock_timeout in
/// milliseconds; then `max_locks_per_transaction`, and the number of sessions and prepared transactions by which the lock table
/// is sized.
pub const SERVER: &str =
    "select current_setting('server_version_num')::integer, pg_catalog.pg_is_in_recovery(),
  current_database()::text, current_user::text,
  (select setting::integer from pg_catalog.pg_settings where name = 'deadlock_timeout'),
  current_setting('max_locks_per_transaction')::bigint,
  current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint
    + current_setting('autovacuum_max_workers')::bigint + current_setting('max_worker_processes')::bigint
    + current_setting('max_wal_senders')::bigint + 1";
