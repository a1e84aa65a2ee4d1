//! The sources of the throttling signals. One statement reads all signals of the server. It needs no privilege except
//! CONNECT; without the privilege that `sees_all` reports, some values are hidden.

/// All signals of the server, as one JSON object. `$1` is the prefix of the names of the job's sessions, `$2` the job,
/// `$3` the table that applications use, as text, and `$4` the minimum number of dead rows that counts.
///
/// - `walsenders` are those that serve standbys. Without `pg_read_all_stats`, their number is visible, but not their
///   progress.
/// - A vacuum is to prevent wraparound if it processes a table older than `autovacuum_freeze_max_age`. This is derived
///   from a lock and an age, which every role can read, unlike the query of another role.
/// - Of all that prevents the removal of dead rows, the oldest is reported. The snapshot of a session is visible to its
///   role, and to roles with `pg_read_all_stats`.
/// - Blockers are queried only for waiting sessions, because `pg_blocking_pids` blocks the lock manager for a short
///   time.
pub const SIGNALS: &str = "
with ours as materialized (
  select pid from pg_catalog.pg_stat_activity
  where pg_catalog.starts_with(application_name, $1) and datname = pg_catalog.current_database()
    and usename = session_user
), waiting as materialized (
  select distinct pid from pg_catalog.pg_locks where not granted and pid not in (select pid from ours)
), blocked as (
  select pid from waiting where pg_catalog.pg_blocking_pids(pid) && array(select pid from ours)
), used as (
  select relid as oid from pg_catalog.pg_partition_tree(pg_catalog.to_regclass($3))
  union select pg_catalog.to_regclass($3)::oid
), vacuums as (
  select c.oid::regclass::text as name, pg_catalog.age(c.relfrozenxid) as age
  from used join pg_catalog.pg_class c using (oid)
  join pg_catalog.pg_locks l on l.locktype = 'relation' and l.relation = c.oid and l.granted
    and l.mode = 'ShareUpdateExclusiveLock'
    and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
  where l.pid not in (select pid from ours) and (
    pg_catalog.age(c.relfrozenxid) > least(pg_catalog.current_setting('autovacuum_freeze_max_age')::bigint,
      (select option_value::bigint from pg_catalog.pg_options_to_table(c.reloptions)
       where option_name = 'autovacuum_freeze_max_age'))
    or pg_catalog.mxid_age(c.relminmxid) > least(pg_catalog.current_setting('autovacuum_multixact_freeze_max_age')::bigint,
      (select option_value::bigint from pg_catalog.pg_options_to_table(c.reloptions)
       where option_name = 'autovacuum_multixact_freeze_max_age')))
), dead as materialized (
  select c.oid, c.oid::regclass::text as name, s.dead, s.dead::float8 / (s.dead + s.live) as share,
    pg_catalog.current_setting('autovacuum')::boolean and coalesce(
      (select option_value::boolean from pg_catalog.pg_options_to_table(c.reloptions)
       where option_name = 'autovacuum_enabled'), true) as autovacuum
  from used join pg_catalog.pg_class c using (oid)
    cross join lateral (select pg_catalog.pg_stat_get_dead_tuples(c.oid) as dead,
      greatest(pg_catalog.pg_stat_get_live_tuples(c.oid), 0) as live) s
  where c.relkind = 'r' and s.dead >= greatest($4::bigint, 1)
  order by share desc limit 1
), snapshots as (
  select 'pid ' || pid as by, xact_start as since, backend_xmin as xmin
  from pg_catalog.pg_stat_activity
  where backend_xmin is not null and xact_start is not null
    and coalesce(datname = pg_catalog.current_database(), true)
  union all
  select 'prepared transaction ' || gid, prepared, transaction from pg_catalog.pg_prepared_xacts
  where database = pg_catalog.current_database()
)
select pg_catalog.json_build_object(
  'role', current_user,
  'sees_all', pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'usage'),
  'place', pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')::bigint,
  'walsenders', (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
        'name', coalesce(nullif(r.application_name, ''), 'walsender') || coalesce(' at ' || r.client_addr::text, ''),
        'hidden', r.state is null,
        'place', pg_catalog.pg_wal_lsn_diff(r.replay_lsn, '0/0')::bigint,
        'lag_s', extract(epoch from r.replay_lag)) order by r.pid), '[]')
      from pg_catalog.pg_stat_replication r
      where coalesce(r.state in ('startup', 'catchup', 'streaming'), true) and (r.state is null or r.replay_lsn is not null)
        and not exists (select from pg_catalog.pg_replication_slots s where s.active_pid = r.pid and s.slot_type = 'logical')),
  'slot', (select pg_catalog.json_build_object('name', slot_name,
        'bytes', greatest(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn), 0)::bigint)
      from pg_catalog.pg_replication_slots where restart_lsn is not null order by restart_lsn limit 1),
  'archiver', (select last_failed_wal from pg_catalog.pg_stat_archiver
      where pg_catalog.current_setting('archive_mode') <> 'off'
        and last_failed_time > coalesce(last_archived_time, '-infinity')),
  'blocked', (select pg_catalog.count(*) from blocked),
  'blocked_pid', (select pg_catalog.min(pid) from blocked),
  'vacuum', (select pg_catalog.json_build_object('name', name, 'age', age) from vacuums order by age desc limit 1),
  'active', (select pg_catalog.count(*) from pg_catalog.pg_stat_activity
      where state = 'active' and backend_type = 'client backend' and pid not in (select pid from ours)),
  'dead', (select pg_catalog.json_build_object('name', name, 'dead', dead, 'share', share, 'autovacuum', autovacuum,
        'kept', (select pg_catalog.json_build_object('by', by, 'age_s', extract(epoch from pg_catalog.clock_timestamp() - since))
          from snapshots where since < pg_catalog.clock_timestamp() - interval '1 minute'
          order by pg_catalog.age(xmin) desc limit 1)) from dead),
  'settings', (select coalesce(pg_catalog.json_object_agg(key, value), '{}') from pgstrata.settings where job_id = $2)
)";

/// The progress of a standby: whether the server is a standby, the LSN up to which it has replayed, and the age of the
/// last transaction there.
pub const STANDBY: &str = "select pg_catalog.pg_is_in_recovery(),
  pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_replay_lsn(), '0/0')::bigint,
  extract(epoch from pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::double precision";

/// The first statements of a session for the user's query: names are looked up as in the user's own sessions, the
/// session is read-only, and the time is limited.
pub const QUERY_SETTINGS: &str =
    "reset search_path; set default_transaction_read_only = on; set statement_timeout = '5s'";

/// Creates the row for the pace of a job.
pub const BEGIN_PACE: &str = "insert into pgstrata.pace (job_id) values ($1)
on conflict (job_id) do update set read_at = pg_catalog.clock_timestamp(), holds = '[]', replicas = '[]'";

/// Stores the pace of a job. This is also the small transaction whose duration is the commit latency, and it generates
/// WAL for the standbys to replay.
pub const STORE_PACE: &str =
    "update pgstrata.pace set read_at = pg_catalog.clock_timestamp(), workers = $2, holds = $3, replicas = $4
where job_id = $1";

/// The last stored pace of a job, unless it is too old.
pub const PACE: &str = "select workers, holds, replicas from pgstrata.pace
where job_id = $1 and read_at > pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $2)";

/// The last stored number of workers of a job, regardless of its age.
pub const WORKERS: &str = "select workers from pgstrata.pace where job_id = $1";

/// Stores a setting that overrides the plan.
pub const KEEP_SETTING: &str = "insert into pgstrata.settings (job_id, key, value) values ($1, $2, $3)
on conflict (job_id, key) do update set value = excluded.value, set_at = pg_catalog.now()";

/// Deletes a setting that overrides the plan.
pub const FORGET_SETTING: &str = "delete from pgstrata.settings where job_id = $1 and key = $2";

/// The settings that override the plan.
pub const SETTINGS: &str = "select key, value from pgstrata.settings where job_id = $1 order by key";

/// Notifies the driver of a job, when the transaction commits, that its settings changed.
pub const NOTIFY: &str = "select pg_catalog.pg_notify('pgstrata_' || $1::bigint, '')";

/// Subscribes to these notifications.
pub fn listen(job: i64) -> String {
    format!("listen pgstrata_{job}")
}

/// The samples of the pace of a job, newest first.
pub const SAMPLES: &str =
    "select detail from pgstrata.events where job_id = $1 and what = 'sample' order by id desc limit $2";
