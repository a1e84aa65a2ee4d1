//! The checklist of `check`. The statements only read the catalog and the statistics views, and never a query or a value
//! of a row.

/// The state of the server, as one JSON object ([`crate::model::checklist::Checklist`]). `$1` is the plan's table in
/// readable form, `$2` its oid or NULL, and `$3` the age in seconds from which on a transaction is listed. Locks no object
/// of the application.
///
/// - Sessions of this command, which has the same role and name, are not included.
/// - Without `pg_read_all_stats`, the state of the sessions of other roles is NULL; they are counted as connections if
///   they use a database.
/// - Blockers are queried only for waiting sessions, because `pg_blocking_pids` blocks the lock manager for a short
///   time.
pub const STATE: &str = "
with sessions as materialized (
  select a.* from pg_catalog.pg_stat_activity a
  where (a.backend_type = 'client backend' or a.backend_type is null and a.datid is not null and a.usesysid is not null)
    and a.pid <> pg_catalog.pg_backend_pid()
    and not (a.usename = session_user and a.application_name = pg_catalog.current_setting('application_name'))
), waiting as materialized (
  select distinct pid from pg_catalog.pg_locks where not granted
), blocking as (
  select b.pid, pg_catalog.count(*) as waiting
  from waiting w cross join lateral pg_catalog.unnest(pg_catalog.pg_blocking_pids(w.pid)) b (pid) group by b.pid
), holders as materialized (
  select distinct l.pid, l.virtualtransaction from pg_catalog.pg_locks l
  where l.locktype = 'relation' and l.relation = $2::oid and l.granted
    and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
), long as (
  select s.pid, s.usename::text as user, s.state,
    extract(epoch from pg_catalog.clock_timestamp() - s.xact_start)::float8 as transaction_s,
    case when s.state = 'active' then extract(epoch from pg_catalog.clock_timestamp() - s.query_start)::float8 end as query_s,
    exists (select from holders h where h.pid = s.pid) as locks_table
  from sessions s
  where s.state is not null and s.state <> 'idle'
    and coalesce(s.xact_start, s.query_start) < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $3)
  union all
  select 0, p.owner::text, 'prepared transaction',
    extract(epoch from pg_catalog.clock_timestamp() - p.prepared)::float8, null,
    exists (select from holders h join pg_catalog.pg_locks own using (virtualtransaction)
      where own.locktype = 'transactionid' and own.transactionid = p.transaction and own.pid is null)
  from pg_catalog.pg_prepared_xacts p
  where p.database = pg_catalog.current_database() and p.prepared < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $3)
), wal as materialized (
  select case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
    else pg_catalog.pg_current_wal_lsn() end as lsn
), horizons as (
  select pg_catalog.age(backend_xmin) as age from pg_catalog.pg_stat_activity where backend_xmin is not null
    and pid <> pg_catalog.pg_backend_pid()
  union all
  select pg_catalog.age(x) from pg_catalog.pg_replication_slots, pg_catalog.unnest(array[xmin, catalog_xmin]) x
  where x is not null
  union all
  select pg_catalog.age(transaction) from pg_catalog.pg_prepared_xacts
)
select pg_catalog.json_build_object(
  'database', d.datname,
  'database_bytes', case when pg_catalog.has_database_privilege(d.oid, 'CONNECT')
    or pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') then pg_catalog.pg_database_size(d.oid) end,
  'table', $1::text,
  'directory', coalesce(
    (select nullif(pg_catalog.pg_tablespace_location(coalesce(nullif(c.reltablespace, 0), d.dattablespace)), '')
     from pg_catalog.pg_class c where c.oid = $2::oid),
    (select setting from pg_catalog.pg_settings where name = 'data_directory')),
  'connections_used', (select pg_catalog.count(*) from sessions),
  'connections_allowed', pg_catalog.current_setting('max_connections')::integer,
  'connections_reserved', (select pg_catalog.sum(setting::integer) from pg_catalog.pg_settings
    where name in ('superuser_reserved_connections', 'reserved_connections')),
  'sees_sessions', pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'),
  'long_running', (select coalesce(pg_catalog.json_agg(l order by l.transaction_s desc nulls last, l.pid), '[]') from long l),
  'blockers', (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('pid', b.pid, 'user', a.usename,
      'state', a.state, 'transaction_s', extract(epoch from pg_catalog.clock_timestamp() - a.xact_start),
      'waiting', b.waiting) order by b.waiting desc, b.pid), '[]')
    from blocking b left join pg_catalog.pg_stat_activity a using (pid)),
  'standbys', (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
      'name', coalesce(nullif(r.application_name, ''), 'walsender'), 'state', r.state, 'sync', r.sync_state,
      'lag_bytes', case when r.replay_lsn is not null
        then greatest(pg_catalog.pg_wal_lsn_diff(wal.lsn, r.replay_lsn), 0)::bigint end,
      'lag_s', extract(epoch from r.replay_lag)) order by r.application_name, r.pid), '[]')
    from pg_catalog.pg_stat_replication r, wal),
  'slots', (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('name', s.slot_name, 'active', s.active,
      'retained_bytes',
      case when s.restart_lsn is not null then greatest(pg_catalog.pg_wal_lsn_diff(wal.lsn, s.restart_lsn), 0)::bigint end) order by s.slot_name), '[]')
    from pg_catalog.pg_replication_slots s, wal where not s.temporary),
  'archive_mode', pg_catalog.current_setting('archive_mode'),
  'archive_failing', (select pg_catalog.current_setting('archive_mode') <> 'off' and last_failed_time is not null
      and last_failed_time > coalesce(last_archived_time, '-infinity') from pg_catalog.pg_stat_archiver),
  'oldest_xid_age', pg_catalog.age(d.datfrozenxid),
  'oldest_snapshot_age', (select pg_catalog.max(age) from horizons),
  'freeze_max_age', pg_catalog.current_setting('autovacuum_freeze_max_age')::bigint
)
from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()";

/// The size of the relation with oid `$1`, with indexes, TOAST and partitions. Requests a weak lock on each. The relation
/// is not looked up by name, because that requires USAGE on its schema.
pub const TABLE_BYTES: &str =
    "select coalesce(pg_catalog.sum(pg_catalog.pg_total_relation_size(t.oid)), 0)::bigint
from (select relid::oid as oid from pg_catalog.pg_partition_tree($1::oid) union select $1::oid) t";

/// Whether the role can read the jobs in schema `pgstrata`.
pub const READS_JOBS: &str = "select pg_catalog.count(*) = 2
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'pgstrata' and c.relname in ('jobs', 'version') and c.relkind = 'r'
  and pg_catalog.has_schema_privilege(n.oid, 'USAGE') and pg_catalog.has_table_privilege(c.oid, 'SELECT')";
