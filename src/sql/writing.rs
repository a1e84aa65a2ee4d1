//! Queries of preflight about a table whose rows the job will update: the effects of each update, and the vacuum
//! settings of the table. They only read the catalog.

/// For the relation with oid `$1` and its partitions: one JSON document ([`crate::plan::check::Writing`]).
///
/// - Triggers and rules are those that fire on an update, except those of the job, and those that ignore the job's own
///   writes.
/// - A column determines the partition of a row if the partition key, or an expression in it, refers to the column.
/// - Since PostgreSQL 16, an index that only summarizes blocks (BRIN) does not affect the update of a row.
pub const WRITING: &str = r#"
with tree as materialized (
  select c.*, n.nspname, json_build_object('schema', n.nspname, 'name', c.relname) as qualified
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.oid = $1 or c.oid in (select relid from pg_partition_tree($1))
), leaves as materialized (
  select tree.*, coalesce((select json_object_agg(option_name, option_value) from pg_options_to_table(reloptions)), '{}') as set
  from tree where relkind in ('r', 'f')
), publishing as materialized (
  select distinct o.pubname, o.schemaname, o.tablename
  from pg_publication_tables o join pg_publication p using (pubname) where p.pubupdate
)
select json_build_object(
  'triggers', coalesce((
    select json_agg(json_build_object('name', t.tgname, 'row', t.tgtype & 1 = 1, 'before', t.tgtype & 2 = 2,
      'columns', t.columns, 'function', t.function) order by t.tgname)
    from (
      select distinct on (t.tgname) t.tgname, t.tgtype, t.tgfoid::regprocedure::text as function,
        coalesce((select json_agg(a.attname order by a.attnum) from pg_attribute a
          where a.attrelid = t.tgrelid and a.attnum = any (t.tgattr::int2[])), '[]') as columns
      from pg_trigger t join tree on tree.oid = t.tgrelid
      where not t.tgisinternal and t.tgtype & 16 = 16 and t.tgenabled in ('O', 'A')
        and t.tgname !~ '^[!~]?pgstrata_' and not starts_with(t.tgname, 'zz_pgstrata_')
        and strpos(pg_get_triggerdef(t.oid), 'pgstrata.filling') = 0
      order by t.tgname, t.tgrelid) t), '[]'),
  'rules', coalesce((
    select json_agg(distinct w.rulename) from pg_rewrite w join tree on tree.oid = w.ev_class
    where w.ev_type = '2' and w.ev_enabled in ('O', 'A')), '[]'),
  'foreign', coalesce((select json_agg(qualified order by nspname, relname) from leaves where relkind = 'f'), '[]'),
  'hidden', coalesce((
    select json_agg(qualified order by nspname, relname) from leaves where relkind = 'r' and row_security_active(oid)), '[]'),
  'unreadable', coalesce((
    select json_agg(qualified order by nspname, relname) from tree where not has_table_privilege(oid, 'SELECT')), '[]'),
  'unwritable', coalesce((
    select json_agg(qualified order by nspname, relname) from tree where not has_table_privilege(oid, 'UPDATE')), '[]'),
  'closed', coalesce((
    select json_agg(distinct nspname) from tree where not has_schema_privilege(relnamespace, 'USAGE')), '[]'),
  'routing', coalesce((
    select json_agg(distinct a.attname)
    from (select oid from tree union select relid from pg_partition_ancestors($1)) part
      join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = part.oid and d.refclassid = 'pg_class'::regclass
        and d.refobjid = part.oid and d.objsubid > 0 and d.refobjsubid = 0 and d.deptype = 'i'
      join pg_attribute a on a.attrelid = part.oid and a.attnum = d.objsubid
      join pg_partitioned_table k on k.partrelid = part.oid), '[]'),
  'publications', coalesce((
    select json_agg(distinct o.pubname) from publishing o join tree on nspname = schemaname and relname = tablename), '[]'),
  'unidentified', coalesce((
    select json_agg(qualified order by nspname, relname) from leaves
    where (relreplident = 'n' or relreplident = 'd' and not exists (
        select from pg_index x where x.indrelid = leaves.oid and x.indisprimary))
      and exists (select from publishing o
        join (select leaves.oid union select relid from pg_partition_ancestors(leaves.oid)) up on true
        join pg_class c on c.oid = up.oid and c.relname = o.tablename
        join pg_namespace s on s.oid = c.relnamespace and s.nspname = o.schemaname)), '[]'),
  'indexes', coalesce((
    select json_agg(json_build_object('name', i.relname, 'columns', (
        select coalesce(json_agg(a.attname order by a.attnum), '[]') from pg_attribute a
        where a.attrelid = $1 and a.attnum > 0 and (a.attnum = any (x.indkey::int2[]) or exists (
          select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = x.indexrelid
            and d.refclassid = 'pg_class'::regclass and d.refobjid = $1 and d.refobjsubid = a.attnum)))) order by i.relname)
    from pg_index x join pg_class i on i.oid = x.indexrelid join pg_am am on am.oid = i.relam
    where x.indrelid = $1
      and not (am.amname = 'brin' and current_setting('server_version_num')::integer >= 160000)), '[]'),
  'leaves', coalesce((
    select json_agg(json_build_object(
      'name', qualified,
      'rows', reltuples::float8,
      'heap_bytes', pg_relation_size(oid),
      'index_bytes', pg_indexes_size(oid),
      'live_bytes', (select (sum(s.avg_width * (1 - s.null_frac)) + 28)::float8 * greatest(reltuples, 0) from pg_stats s
        where s.schemaname = nspname and s.tablename = relname and not s.inherited),
      'fillfactor', coalesce((set ->> 'fillfactor')::integer, 100),
      'autovacuum', coalesce((set ->> 'autovacuum_enabled')::boolean, true),
      'vacuum_at', coalesce((set ->> 'autovacuum_vacuum_threshold')::float8,
          current_setting('autovacuum_vacuum_threshold')::float8)
        + coalesce((set ->> 'autovacuum_vacuum_scale_factor')::float8,
          current_setting('autovacuum_vacuum_scale_factor')::float8) * greatest(reltuples, 0)
    ) order by nspname, relname)
    from leaves where relkind = 'r'), '[]'),
  'pointing', coalesce((
    select json_agg(json_build_object('name', k.conname, 'table', json_build_object('schema', s.nspname, 'name', c.relname),
      'columns', (select json_agg(a.attname order by a.attnum) from pg_attribute a
        where a.attrelid = k.confrelid and a.attnum = any (k.confkey)),
      'writes', k.confupdtype in ('c', 'n', 'd')) order by s.nspname, c.relname, k.conname)
    from pg_constraint k join tree on tree.oid = k.confrelid join pg_class c on c.oid = k.conrelid
      join pg_namespace s on s.oid = c.relnamespace
    where k.contype = 'f' and k.conparentid = 0), '[]'),
  'autovacuum', current_setting('autovacuum')::boolean and current_setting('track_counts')::boolean
)"#;
