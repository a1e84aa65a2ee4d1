//! Queries of preflight in addition to [`super::catalog`]. They only read. The most expensive query scans the table
//! once, if no index begins with the partition column.

use crate::model::ident::QualifiedName;
use crate::model::table::Column;
use crate::plan::check::NULLS_COUNTED;

/// Enabled event triggers.
pub const EVENT_TRIGGERS: &str =
    "select evtname::text from pg_catalog.pg_event_trigger where evtenabled <> 'D' order by 1";

/// The limits on the number of sessions of the login role, of the database and of the server, and the number of other
/// sessions. The first two limits do not apply to superusers. Sessions with the same role and name are not counted:
/// this process opened them to detect a connection pooler, and the server may not have ended them yet.
pub const SESSION_LIMITS: &str = "with sessions as materialized (
  select usesysid, datid from pg_catalog.pg_stat_activity
  where backend_type = 'client backend' and pid <> pg_catalog.pg_backend_pid()
    and not (usename = session_user and application_name = current_setting('application_name'))
), us as (
  select oid, rolname, rolsuper, rolconnlimit from pg_catalog.pg_roles where rolname = session_user
)
select 'role', rolname::text, rolconnlimit::bigint, (select pg_catalog.count(*) from sessions where usesysid = us.oid)
from us where not rolsuper and rolconnlimit >= 0
union all
select 'database', datname::text, datconnlimit::bigint, (select pg_catalog.count(*) from sessions where datid = d.oid)
from pg_catalog.pg_database d, us
where datname = pg_catalog.current_database() and not rolsuper and datconnlimit >= 0
union all
select 'server', 'max_connections', pg_catalog.sum(case name when 'max_connections' then setting::bigint else - setting::bigint end)::bigint,
  (select pg_catalog.count(*) from sessions)
from pg_catalog.pg_settings
where name = 'max_connections'
  or name in ('superuser_reserved_connections', 'reserved_connections') and not (select rolsuper from us)";

/// The role's privileges on the relation with oid `$1` and on related objects: one JSON document
/// ([`crate::plan::check::Rights`]).
pub const RIGHTS: &str = "select json_build_object(
  'superuser', current_setting('is_superuser')::boolean,
  'owner', pg_has_role(c.relowner, 'USAGE'),
  'become_owner', pg_has_role(c.relowner,
    case when current_setting('server_version_num')::integer >= 160000 then 'SET' else 'MEMBER' end),
  'owner_creates', has_schema_privilege(c.relowner, c.relnamespace, 'CREATE'),
  'schema_create', has_schema_privilege(c.relnamespace, 'CREATE'),
  'database_create', has_database_privilege(current_database(), 'CREATE'),
  'tablespaces_denied', coalesce((
    select json_agg(s.spcname order by s.spcname) from pg_tablespace s
    where not has_tablespace_privilege(s.oid, 'CREATE') and s.oid in (
      select c.reltablespace
      union all
      select i.reltablespace from pg_index x join pg_class i on i.oid = x.indexrelid where x.indrelid = c.oid)), '[]'),
  'sees_sessions', pg_has_role('pg_read_all_stats', 'USAGE'),
  'select', has_table_privilege(c.oid, 'SELECT'),
  'lacks', coalesce((
    select json_agg(p.name order by p.place)
    from unnest(array['INSERT', 'UPDATE', 'DELETE', 'REFERENCES', 'TRIGGER']) with ordinality p (name, place)
    where not has_table_privilege(c.oid, p.name)), '[]'),
  'rows_hidden', row_security_active(c.oid),
  'own_schema', (
    select json_build_object(
      'usage', has_schema_privilege(o.oid, 'USAGE'),
      'create', has_schema_privilege(o.oid, 'CREATE'),
      'tables', not exists (
        select from pg_class t
        where t.relnamespace = o.oid and t.relkind = 'r'
          and t.relname in ('version', 'jobs', 'leases', 'chunks', 'events', 'settings', 'pace')
          and not (has_table_privilege(t.oid, 'SELECT') and has_table_privilege(t.oid, 'INSERT')
            and has_table_privilege(t.oid, 'UPDATE') and has_table_privilege(t.oid, 'DELETE'))))
    from pg_namespace o where o.nspname = 'pgstrata'),
  'schemas_without_usage', coalesce((
    select json_agg(distinct s.nspname)
    from pg_namespace s
    where not has_schema_privilege(s.oid, 'USAGE') and (
      s.oid = c.relnamespace
      or s.oid in (select r.relnamespace from pg_constraint k join pg_class r on r.oid = k.confrelid
                   where k.conrelid = c.oid and k.contype = 'f')
      or s.oid in (select f.pronamespace from pg_trigger t join pg_proc f on f.oid = t.tgfoid
                   where t.tgrelid = c.oid and not t.tgisinternal)
      or s.oid in (select v.relnamespace from pg_depend d join pg_rewrite w on d.objid = w.oid
                     join pg_class v on v.oid = w.ev_class
                   where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
                     and d.refobjid = c.oid and v.relkind = 'v'))), '[]'),
  'not_referenceable', coalesce((
    select json_agg(json_build_object('schema', rn.nspname, 'name', r.relname) order by rn.nspname, r.relname)
    from pg_class r join pg_namespace rn on rn.oid = r.relnamespace
    where exists (
      select from pg_constraint k
      where k.conrelid = c.oid and k.contype = 'f' and k.confrelid = r.oid and k.confrelid <> c.oid
        and not has_table_privilege(r.oid, 'REFERENCES')
        and exists (select from unnest(k.confkey) key (attnum)
                    where not has_column_privilege(r.oid, key.attnum, 'REFERENCES')))), '[]'),
  'not_owned', coalesce((
    select json_agg(json_build_object('name', o.name, 'owner', pg_get_userbyid(o.owner)) order by o.name) from (
      select distinct 'materialized view ' || v.oid::regclass as name, v.relowner as owner
      from pg_depend d join pg_rewrite w on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
        join pg_class v on v.oid = w.ev_class and v.relkind = 'm'
      where d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid
      union
      select 'extended statistics ' || stxname as name, stxowner as owner from pg_statistic_ext where stxrelid = c.oid
      union
      select 'publication ' || p.pubname, p.pubowner from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
      where r.prrelid = c.oid
      union
      select distinct 'function ' || f.oid::regprocedure, f.proowner from pg_depend d join pg_proc f on f.oid = d.objid
      where d.classid = 'pg_proc'::regclass and (d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid
        or d.refclassid = 'pg_type'::regclass and d.refobjid in (c.reltype, (select typarray from pg_type where oid = c.reltype)))
      union
      select 'table ' || e.oid::regclass, e.relowner from pg_constraint k join pg_class e on e.oid = k.conrelid
      where k.confrelid = c.oid and k.contype = 'f' and k.conparentid = 0 and e.oid <> c.oid
      union
      select distinct 'table ' || e.oid::regclass, e.relowner
      from pg_depend d
        left join pg_rewrite w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid and w.rulename <> '_RETURN'
        left join pg_policy p on d.classid = 'pg_policy'::regclass and p.oid = d.objid
        join pg_class e on e.oid = coalesce(w.ev_class, p.polrelid)
      where d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid and e.oid <> c.oid and e.relkind <> 'v'
      union
      select distinct 'table ' || e.oid::regclass, e.relowner
      from pg_depend s join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.refobjid = s.objid
          and d.refclassid = 'pg_class'::regclass
        join pg_attrdef f on f.oid = d.objid join pg_class e on e.oid = f.adrelid
      where s.classid = 'pg_class'::regclass and s.refclassid = 'pg_class'::regclass and s.refobjid = c.oid
        and s.deptype = 'i' and s.refobjsubid > 0 and e.oid <> c.oid
    ) o where not pg_has_role(o.owner, 'USAGE')), '[]'),
  'schemas_without_create', coalesce((
    select json_agg(json_build_object('schema', s.nspname, 'name', o.name) order by s.nspname, o.name)
    from (
      select 'extended statistics ' || stxname as name, stxnamespace as namespace from pg_statistic_ext where stxrelid = c.oid
      union
      select 'function ' || f.oid::regprocedure, f.pronamespace from pg_depend d join pg_proc f on f.oid = d.objid
      where d.classid = 'pg_proc'::regclass and (d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid
          and f.prosqlbody is not null
        or d.refclassid = 'pg_type'::regclass and d.refobjid in (c.reltype, (select typarray from pg_type where oid = c.reltype)))
    ) o join pg_namespace s on s.oid = o.namespace
    where s.oid <> c.relnamespace and not has_schema_privilege(s.oid, 'CREATE')), '[]'),
  'types_closed', coalesce((
    select json_agg(distinct format_type(a.atttypid, null))
    from pg_attribute a
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and not has_type_privilege(a.atttypid, 'USAGE')), '[]'),
  'not_executable', coalesce((
    select json_agg(distinct f.oid::regprocedure::text)
    from pg_trigger t join pg_proc f on f.oid = t.tgfoid
    where t.tgrelid = c.oid and not t.tgisinternal and not has_function_privilege(f.oid, 'EXECUTE')), '[]'),
  'foreign_views', coalesce((
    select json_agg(json_build_object(
      'name', json_build_object('schema', vn.nspname, 'name', v.relname),
      'owner', pg_get_userbyid(v.relowner),
      'owned', pg_has_role(v.relowner, 'USAGE')) order by vn.nspname, v.relname)
    from pg_class v join pg_namespace vn on vn.oid = v.relnamespace
    where v.relkind = 'v'
      and v.oid in (select w.ev_class from pg_depend d join pg_rewrite w on d.objid = w.oid
                    where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
                      and d.refobjid = c.oid)
      and not (pg_has_role(v.relowner, 'USAGE') and has_schema_privilege(vn.oid, 'CREATE'))), '[]')
)
from pg_class c where c.oid = $1";

/// Of the roles `$1`, each with a schema in `$2`: those that the session cannot act as, or that lack USAGE on the schema. The
/// position of each, counted from 1, and whether the session can act as it.
pub const GRANTORS: &str = "select g.place, m.member
from rows from (unnest($1::text[]), unnest($2::text[])) with ordinality g (grantor, schema, place)
  join pg_roles r on r.rolname = g.grantor join pg_namespace n on n.nspname = g.schema
  cross join lateral (select pg_has_role(r.oid,
    case when current_setting('server_version_num')::integer >= 160000 then 'SET' else 'MEMBER' end) as member) m
where not m.member or not has_schema_privilege(r.oid, n.oid, 'USAGE')
order by g.place";

/// Every name in schema `$1` that a new table, index or sequence cannot have, and the object that has it.
pub const NAMES: &str = "select c.relname::text,
  case c.relkind when 'r' then 'a table' when 'p' then 'a partitioned table' when 'v' then 'a view'
    when 'm' then 'a materialized view' when 'S' then 'a sequence' when 'f' then 'a foreign table'
    when 'c' then 'a type' when 't' then 'a TOAST table' else 'an index' end
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1
union all
select t.typname::text, 'a type'
from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
where n.nspname = $1 and t.typrelid = 0 and t.typcategory <> 'A'";

/// Prepared transactions that hold a lock on the relation with oid `$1`. Their virtual transaction IDs change when the
/// server is restarted, so they are identified by the lock on their own transaction ID.
pub const PREPARED: &str = "select distinct p.gid
from pg_catalog.pg_prepared_xacts p
  join pg_catalog.pg_locks own on own.locktype = 'transactionid' and own.transactionid = p.transaction
  join pg_catalog.pg_locks l on l.virtualtransaction = own.virtualtransaction and l.pid is null
where own.pid is null and l.locktype = 'relation' and l.relation = $1 and p.database = pg_catalog.current_database()
order by 1";

/// For the relation with oid `$1`: whether it was analyzed, the number of its changes, the number of seconds in which
/// they were made, whether that is known, and the number of its columns, including dropped ones. If the counters were
/// never reset, they are older than the start of the server.
pub const ACTIVITY: &str = "select s.last_analyze is not null or s.last_autoanalyze is not null or exists (
    select from pg_catalog.pg_stats t where t.schemaname = n.nspname and t.tablename = c.relname),
  (coalesce(s.n_tup_ins, 0) + coalesce(s.n_tup_upd, 0) + coalesce(s.n_tup_del, 0))::double precision,
  extract(epoch from pg_catalog.clock_timestamp()
    - coalesce(d.stats_reset, pg_catalog.pg_postmaster_start_time()))::double precision,
  d.stats_reset is not null, c.relnatts
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_stat_user_tables s on s.relid = c.oid
  left join pg_catalog.pg_stat_database d on d.datname = pg_catalog.current_database()
where c.oid = $1";

/// The smallest and the largest finite value of the partition column, the numbers of rows with NULL and with an
/// infinite value, and the current time in the column's type.
///
/// If an index begins with the column, each value comes from a separate query, so that none scans the table (a NOT NULL
/// column is not searched for NULLs; otherwise, at most [`NULLS_COUNTED`] are counted). Otherwise, one scan returns all of them.
pub fn values(table: &QualifiedName, by: &Column, indexed: bool, time: bool) -> String {
    let (column, sql_type) = (&by.name, &by.base_type);
    let finite =
        if time { format!("{column} > '-infinity' and {column} < 'infinity'") } else { "true".to_owned() };
    let infinite = if time { format!("{column} in ('-infinity', 'infinity')") } else { "false".to_owned() };
    let now = if time { format!("pg_catalog.now()::{sql_type}::text") } else { "null::text".to_owned() };
    if !indexed {
        return format!(
            "select (min({column}) filter (where {finite}))::text, (max({column}) filter (where {finite}))::text,
  count(*) filter (where {column} is null), count(*) filter (where {infinite}), {now}
from only {table}"
        );
    }
    let nulls = if by.not_null {
        "0::bigint".to_owned()
    } else {
        format!(
            "(select count(*) from (select from only {table} where {column} is null limit {NULLS_COUNTED}) counted)"
        )
    };
    format!(
        "select (select min({column}) from only {table} where {finite})::text,
  (select max({column}) from only {table} where {finite})::text,
  {nulls}, (select count(*) from only {table} where {infinite}), {now}"
    )
}

/// The numbers of rows with a finite value below `$1`, and at or above `$2` (text; null for no bound).
pub fn outside(table: &QualifiedName, by: &Column, time: bool) -> String {
    let (column, sql_type) = (&by.name, &by.base_type);
    let finite =
        if time { format!(" and {column} > '-infinity' and {column} < 'infinity'") } else { String::new() };
    format!(
        "select (select count(*) from only {table} where {column} < $1::text::{sql_type}{finite}),
  (select count(*) from only {table} where {column} >= $2::text::{sql_type}{finite})"
    )
}

/// The triggers that fill rows, except those of partitions: name, and schema and name of the table.
pub const FILL_TRIGGERS: &str = "select t.tgname::text, n.nspname::text, c.relname::text
from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_proc f on f.oid = t.tgfoid join pg_catalog.pg_namespace s on s.oid = f.pronamespace
where s.nspname = 'pgstrata' and pg_catalog.starts_with(t.tgname, 'zz_pgstrata_fill_') and not t.tgisinternal
  and t.tgparentid = 0
order by 1, 2, 3";
