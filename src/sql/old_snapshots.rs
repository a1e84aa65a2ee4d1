//! Finds transactions whose snapshot does not include a given transaction of the job.

/// The holders of snapshots that may not include transaction `$1`: the first eight columns describe the holder, the
/// ninth identifies its transaction among those of its session. A holder that is in the first result after the commit
/// of `$1`, and in every later result, may have such a snapshot; a holder that first appears later does not.
///
/// - Locks are read first, so that the next transaction of a session is not mistaken for one that ended between the two
///   reads.
/// - The `xmin` of a snapshot is old while any older transaction is open on the server, so it is not sufficient
///   evidence.
/// - VACUUM is excluded, because it reads no rows for an application.
/// - A standby with `hot_standby_feedback` holds the snapshots of its sessions through its walsender or its slot.
pub const HOLDERS: &str = "with v as materialized (
  select pid, virtualtransaction from pg_catalog.pg_locks where locktype = 'virtualxid' and granted
), holders as (
  select a.pid, a.usename::text as usename, a.application_name, coalesce(a.state, a.backend_type) as state, a.xact_start,
    a.query_start, a.backend_type = 'client backend'
      and not coalesce((select rolsuper from pg_catalog.pg_roles where oid = a.usesysid), true) as ordinary,
    coalesce(v.virtualtransaction, '') as transaction
  from pg_catalog.pg_stat_activity a left join v using (pid)
  where a.pid <> pg_catalog.pg_backend_pid() and a.backend_xmin is not null
    and pg_catalog.age(a.backend_xmin) >= pg_catalog.age($1::text::xid8::xid)
    and (a.datname = pg_catalog.current_database() or a.datname is null and a.backend_type = 'walsender')
    and a.backend_type <> 'autovacuum worker'
    and a.pid not in (select pid from pg_catalog.pg_stat_progress_vacuum)
  union all
  select coalesce(s.active_pid, 0), null, s.slot_name::text, 'replication slot', null, null, false, s.slot_name::text
  from pg_catalog.pg_replication_slots s
  where s.xmin is not null and pg_catalog.age(s.xmin) >= pg_catalog.age($1::text::xid8::xid)
)
select pid, usename, application_name, state, xact_start::text, coalesce(query_start::text, ''),
  extract(epoch from pg_catalog.clock_timestamp() - xact_start)::double precision * 1000, ordinary, transaction
from holders order by xact_start, pid";

/// Returns the ID of a transaction of the job that is committed when the statement returns.
pub const MARK: &str = "select pg_catalog.pg_current_xact_id()::text";

/// The current end of the WAL.
pub const WAL_END: &str = "select pg_catalog.pg_current_wal_insert_lsn()::text";

/// Whether a standby has replayed the WAL up to `$1`; null if the server is not a standby.
pub const REPLAYED: &str =
    "select pg_catalog.pg_last_wal_replay_lsn() >= $1::text::pg_lsn where pg_catalog.pg_is_in_recovery()";

/// The names of the standbys to which the server sends WAL.
pub const STANDBYS: &str = "select coalesce(nullif(application_name, ''), 'walsender') || coalesce(' at ' || client_addr::text, '')
from pg_catalog.pg_stat_replication r
where not exists (select from pg_catalog.pg_replication_slots s where s.active_pid = r.pid and s.slot_type = 'logical')
  and coalesce(state, 'streaming') in ('startup', 'catchup', 'streaming')
order by 1";
