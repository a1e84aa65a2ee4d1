//! The tables of schema `pgstrata`, in the database that the job changes: jobs, leases, ledger, events, settings.

use crate::model::table::Column;

use super::from_written;

/// The current version of the schema. Each upgrade adds an entry to [`UPGRADES`].
pub const VERSION: i32 = 4;

/// Whether the schema is installed. This queries the catalog tables, because `to_regclass` may use the cache of the
/// session, which may not yet include what another session created while this session waited for [`INSTALL_LOCK`].
pub const INSTALLED: &str = "select exists (select from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = 'pgstrata' and c.relname = 'version')";

/// The installed version.
pub const INSTALLED_VERSION: &str = "select number from pgstrata.version";

/// Allows one upgrade at a time, until the end of the transaction. Only roles with privileges on the table can acquire
/// this lock, whereas any role could acquire an advisory lock and hold it forever.
pub const INSTALL_LOCK: &str = "lock table pgstrata.version in access exclusive mode";

/// The upgrades from version n to n + 1, each in one transaction with the update of the version number.
pub const UPGRADES: &[&str] = &[V1, V2, V3, V4];

/// Revokes all privileges from all roles except the owner on all objects that this transaction created in schema
/// `pgstrata`, and on the schema if it was created, because default privileges may have granted some. Existing objects
/// keep their privileges: a table that was only altered has a new row in `pg_class`, but not in `pg_type`.
pub const CLOSE: &str = "
do $$
declare
  made record;
begin
  for made in
    select 'schema pgstrata' as what, a.grantee from pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
    where n.nspname = 'pgstrata' and n.xmin = pg_catalog.pg_current_xact_id()::xid and a.grantee <> n.nspowner
    union
    select case c.relkind when 'S' then 'sequence ' else 'table ' end || c.oid::regclass, a.grantee
    from pg_catalog.pg_class c left join pg_catalog.pg_type t on t.oid = c.reltype, pg_catalog.aclexplode(c.relacl) a
    where c.relnamespace = 'pgstrata'::regnamespace and c.relkind in ('r', 'S') and a.grantee <> c.relowner
      and coalesce(t.xmin, c.xmin) = pg_catalog.pg_current_xact_id()::xid
  loop
    execute format('revoke all on %s from %s', made.what,
      case made.grantee when 0 then 'public' else made.grantee::regrole::text end);
  end loop;
end
$$";

/// Sets the version number.
pub const SET_VERSION: &str =
    "with gone as (delete from pgstrata.version) insert into pgstrata.version (number) values ($1)";

const V1: &str = "
do $$
begin
  -- Where the schema is there, CREATE SCHEMA IF NOT EXISTS asks for CREATE on the database all the same.
  if pg_catalog.to_regnamespace('pgstrata') is null then
    create schema pgstrata;
    comment on schema pgstrata is 'Jobs of pgstrata: state, finished chunks, change logs.';
  end if;
end
$$;
create table pgstrata.version (number integer not null);
create table pgstrata.jobs (
    id bigint generated always as identity primary key,
    name text not null,
    kind text not null,
    source text not null,
    plan text not null,
    identity jsonb not null,
    blueprint jsonb not null,
    state text not null,
    rows_estimated bigint not null default 0,
    copy_order text,
    copy_end text[],
    copy_filenode oid,
    rows_per_second double precision,
    eta_s bigint,
    verified_at timestamptz,
    swap_xid text,
    swapped_at timestamptz,
    keep_old_until timestamptz,
    started_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    ended_at timestamptz
);
comment on table pgstrata.jobs is 'One row per job. Rows of finished jobs are kept as history.';
create unique index jobs_one_open on pgstrata.jobs (name) where state not in ('finalized', 'aborted');
create table pgstrata.leases (
    job_id bigint primary key references pgstrata.jobs on delete cascade,
    epoch bigint not null default 0,
    holder text not null default '',
    beat_at timestamptz not null default now()
);
comment on table pgstrata.leases is 'The driver of each job. Each chunk locks the row of its job in share mode, so that a new driver waits for the chunks of the previous one.';
create table pgstrata.chunks (
    job_id bigint not null references pgstrata.jobs on delete cascade,
    step text not null,
    \"after\" text[],
    through text[],
    rows bigint not null,
    ms double precision not null,
    epoch bigint not null,
    done_at timestamptz not null default now()
);
comment on table pgstrata.chunks is 'One row per finished chunk, committed in the same transaction as the rows of the chunk.';
create index chunks_job on pgstrata.chunks (job_id, step);
create table pgstrata.events (
    id bigint generated always as identity primary key,
    job_id bigint not null references pgstrata.jobs on delete cascade,
    at timestamptz not null default clock_timestamp(),
    what text not null,
    detail text not null default ''
);
comment on table pgstrata.events is 'The history of each job.';
create table pgstrata.settings (
    job_id bigint not null references pgstrata.jobs on delete cascade,
    key text not null,
    value text not null,
    set_at timestamptz not null default now(),
    primary key (job_id, key)
);
comment on table pgstrata.settings is 'Settings of a running job that differ from its plan.'
";

const V2: &str = "
create table pgstrata.pace (
    job_id bigint primary key references pgstrata.jobs on delete cascade,
    read_at timestamptz not null default clock_timestamp(),
    workers integer,
    holds jsonb not null default '[]',
    replicas jsonb not null default '[]'
) with (fillfactor = 20);
comment on table pgstrata.pace is 'The current rate and throttling of each running job, written twice a second.';
create index events_samples on pgstrata.events (job_id, id) where what = 'sample';
";

const V3: &str = "
alter table pgstrata.chunks add column leaf text, add column seen bigint;
comment on column pgstrata.chunks.leaf is 'The partition that contains the chunk, if the partitions are filled one by one.';
comment on column pgstrata.chunks.seen is 'The number of rows that the chunk read, if it did not set all of them.';
";

const V4: &str = "
alter table pgstrata.leases add column lock_key bigint, add column driver oid;
comment on column pgstrata.leases.lock_key is 'The key of the advisory lock that the current driver holds: a random number for each driver.';
comment on column pgstrata.leases.driver is 'The role that the current driver logged in as.';
-- Jobs of earlier versions have no record of their objects, which are found by name.
alter table pgstrata.jobs add column records boolean not null default false;
alter table pgstrata.jobs alter column records set default true;
create table pgstrata.objects (
    job_id bigint not null references pgstrata.jobs on delete cascade,
    role text not null,
    made text not null,
    classid oid not null,
    objid oid not null,
    objsubid integer not null default 0,
    primary key (job_id, classid, objid, objsubid)
);
comment on table pgstrata.objects is 'The objects that a job created, by oid. A job drops, empties and renames no other objects.';
";

/// All open jobs, and all ended jobs with the name `$1`, newest first.
pub const JOBS: &str =
    "select id, name, kind, source, plan, identity, blueprint, state, rows_estimated, copy_order, copy_end,
    copy_filenode, rows_per_second, eta_s, swap_xid, swapped_at, keep_old_until, started_at, updated_at,
    coalesce((pg_catalog.to_jsonb(j) ->> 'records')::boolean, false) as records
from pgstrata.jobs j where ($1::text is null or name = $1) order by id desc";

/// Records a job; returns its id.
pub const CREATE_JOB: &str = "with job as (
    insert into pgstrata.jobs (name, kind, source, plan, identity, blueprint, state, rows_estimated)
    values ($1, $7, $2, $3, $4, $5, 'planned', $6) returning id
)
insert into pgstrata.leases (job_id) select id from job returning job_id";

/// Changes the state of a job, and records this in its history; does nothing if the job is not in the expected state.
pub const MOVE_JOB: &str = "with moved as (
    update pgstrata.jobs set state = $3, updated_at = now(),
        ended_at = case when $3 in ('finalized', 'aborted') then now() end
    where id = $1 and state = $2 returning id
)
insert into pgstrata.events (job_id, what) select id, $3 from moved";

/// Stores the changed settings of an edited plan.
pub const RETUNE_JOB: &str = "update pgstrata.jobs set plan = $2, updated_at = now() where id = $1";

/// Stores the order, the end and the heap file of the copy, and deletes the chunks of an earlier attempt.
pub const FREEZE_COPY: &str = "with gone as (delete from pgstrata.chunks where job_id = $1 and step = 'copy')
update pgstrata.jobs set copy_order = $2, copy_end = $3, copy_filenode = $4, updated_at = now() where id = $1";

/// Deletes the ledger of the copy and its end, so that the table is copied again.
pub const FORGET_COPY: &str = "with gone as (delete from pgstrata.chunks where job_id = $1 and step = 'copy')
update pgstrata.jobs set copy_order = null, copy_end = null, copy_filenode = null, updated_at = now() where id = $1";

/// What the copy took: its rows, the seconds for the copy and the indexes, and how often the job has copied the table again.
/// An interruption counts as no more than a minute.
pub const COPY_COST: &str = "select
    (select coalesce(pg_catalog.sum(rows), 0)::bigint from pgstrata.chunks where job_id = $1 and step = 'copy'),
    (select coalesce(pg_catalog.sum(least(s, 60)), 0)::double precision from (
        select coalesce(extract(epoch from done_at - pg_catalog.lag(done_at) over (order by done_at)), ms / 1000) as s
        from pgstrata.chunks where job_id = $1 and step = 'copy') spent)
    + (select coalesce(extract(epoch from pg_catalog.max(at) filter (where what = 'indexed')
        - pg_catalog.max(at) filter (where what = 'copied')), 0)::double precision
        from pgstrata.events where job_id = $1 and what in ('copied', 'indexed')),
    (select pg_catalog.count(*) from pgstrata.events where job_id = $1 and what = 'resync')";

/// Stores a changed blueprint.
pub const EXTEND_JOB: &str = "update pgstrata.jobs set updated_at = now(),
    blueprint = $2::jsonb || case when blueprint ? 'in_use' then pg_catalog.jsonb_build_object('in_use', blueprint -> 'in_use') else '{}' end
where id = $1";

/// Stores the current definition of the table in use with the blueprint.
pub const KEEP_IN_USE: &str = "update pgstrata.jobs set
    blueprint = blueprint || pg_catalog.jsonb_build_object('in_use', $2::pg_catalog.jsonb) where id = $1";

/// The stored definition of the table in use; null if no exchange has stored one.
pub const IN_USE: &str = "select blueprint -> 'in_use' from pgstrata.jobs where id = $1";

/// Stores the current rate, for `status`.
pub const REPORT_RATE: &str =
    "update pgstrata.jobs set rows_per_second = $2, eta_s = $3, updated_at = now() where id = $1";

/// Records a swap or a rollback.
pub const RECORD_SWAP: &str = "update pgstrata.jobs set swap_xid = pg_catalog.pg_current_xact_id()::text,
    swapped_at = case when $2 then now() end,
    keep_old_until = case when $2 then now() + pg_catalog.make_interval(secs => $3::double precision) end
where id = $1";

/// Stores the time of the verification.
pub const RECORD_VERIFIED: &str =
    "update pgstrata.jobs set verified_at = now(), updated_at = now() where id = $1";

/// Adds an event.
pub const ADD_EVENT: &str = "insert into pgstrata.events (job_id, what, detail) values ($1, $2, $3)";

/// Creates the row of job `$1` in `leases` again if it was deleted. Its epoch, the number of milliseconds since 1970,
/// is higher than any before, because an epoch counts drivers.
pub const RESTORE_LEASE: &str = "insert into pgstrata.leases (job_id, epoch)
select id, (extract(epoch from pg_catalog.clock_timestamp()) * 1000)::bigint from pgstrata.jobs where id = $1
on conflict (job_id) do nothing";

/// The driver of job `$1`: the name of the holder, and the process, client and start of the session that holds the lock
/// of the lease, if there is one. Client and start are null if the role cannot see them.
///
/// Only sessions of the role that began the epoch count: other roles can see the key of the lock in `pg_locks`, and
/// acquire the lock as soon as the driver has released it.
pub const DRIVEN: &str =
    "select l.holder, a.pid, coalesce(a.client_addr::text, 'this machine'), a.backend_start::text
from pgstrata.leases l
  left join (pg_catalog.pg_locks k join pg_catalog.pg_stat_activity a on a.pid = k.pid)
    on k.locktype = 'advisory' and k.granted and k.objsubid = 1
      and (k.classid::bigint << 32) | k.objid::bigint = l.lock_key and a.usesysid = l.driver
      and k.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
where l.job_id = $1";

/// Locks the row of job `$1` in `leases` until the transaction ends, so that no other process can begin an epoch.
pub const LOCK_LEASE: &str = "select from pgstrata.leases where job_id = $1 for no key update";

/// Acquires the lock `$1` until the session ends.
pub const TAKE_LOCK: &str = "select pg_catalog.pg_try_advisory_lock($1)";

/// Releases the lease.
pub const RELEASE_LEASE: &str = "select pg_catalog.pg_advisory_unlock_all()";

/// Begins a transaction with the privileges of the login role, even if the session has set another role. The sessions
/// of a job belong to the login role, which can therefore always see and terminate them.
pub const AS_SESSION_USER: &str = "begin isolation level read committed; set local role none";

/// The sessions that previous drivers of a job left behind: those with names that begin with `$1`, of the current login
/// role or of the role that drove the job last, `$2`. The role is checked because any role can give its session such a
/// name.
const FORMER: &str = "from pg_catalog.pg_stat_activity
where pg_catalog.starts_with(application_name, $1) and datname = pg_catalog.current_database()
  and (usename = session_user or usesysid = $2::oid) and pid <> pg_catalog.pg_backend_pid()";

/// Terminates the sessions of previous drivers that the role can terminate.
pub fn end_former() -> String {
    format!(
        "select pg_catalog.pg_terminate_backend(pid) {FORMER}
  and pg_catalog.pg_has_role(usesysid, 'USAGE')
  and (current_setting('is_superuser')::boolean
    or not (select rolsuper from pg_catalog.pg_roles where oid = usesysid))"
    )
}

/// The number of sessions of previous drivers that still exist.
pub fn former_left() -> String {
    format!("select pg_catalog.count(*) {FORMER}")
}

/// The role that drove the job last; null if none did.
pub const LAST_DRIVER: &str = "select driver from pgstrata.leases where job_id = $1";

/// Begins an epoch of the holder `$2` with the lock `$4`. It waits for transactions of the previous epoch, which lock
/// the row in share mode. If `$3` is true, it does so only if the previous epoch had the same holder.
pub const NEXT_EPOCH: &str =
    "update pgstrata.leases set epoch = epoch + 1, holder = $2, beat_at = now(), lock_key = $4,
    driver = (select oid from pg_catalog.pg_roles where rolname = session_user)
where job_id = $1 and (not $3 or holder = $2) returning epoch";

/// The current epoch.
pub const EPOCH: &str = "select epoch from pgstrata.leases where job_id = $1";

/// Prevents a new driver from beginning an epoch until the transaction ends; no row if there already is a new driver.
pub const HOLD_EPOCH: &str = "select from pgstrata.leases where job_id = $1 and epoch = $2 for share";

/// Adds a finished chunk.
pub const ADD_CHUNK: &str =
    "insert into pgstrata.chunks (job_id, step, \"after\", through, rows, ms, epoch, leaf, seen)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// The upper end of a chunk in the ledger, where it is stored as text, as a block of the source.
pub const END_BLOCK: &str = "through[1]::bigint";

/// The upper end of a chunk in the ledger, as values of the key with the collations of its columns.
pub fn end_key(key: &[&Column]) -> String {
    let ends = key.iter().enumerate().map(|(i, column)| {
        let collate = column.collation.as_ref().map_or(String::new(), |name| format!(" collate {name}"));
        format!("{}{collate}", from_written(&format!("through[{}]", i + 1), column))
    });
    ends.collect::<Vec<_>>().join(" nulls last, ")
}

/// The ranges of the finished chunks, sorted by their upper ends `end` ([`END_BLOCK`], [`end_key`]).
pub fn chunks_in_order(end: &str) -> String {
    format!(
        "select \"after\", through from pgstrata.chunks where job_id = $1 and step <> 'late' \
         and leaf is not distinct from $2 order by {end} nulls last"
    )
}

/// The number of rows and the duration of each chunk in milliseconds. `late` rows were filled one at a time and are not
/// included.
pub const CHUNK_TIMES: &str = "select coalesce(seen, rows), ms from pgstrata.chunks where job_id = $1 and step <> 'late' order by done_at";

/// The number of rows that a backfill has filled.
pub const ROWS_FILLED: &str = "select coalesce(pg_catalog.sum(rows), 0)::bigint from pgstrata.chunks where job_id = $1 and step <> 'copy'";

/// Deletes the ledger of the rows that job `$1` filled before it copies them.
pub const FORGET_FILLED: &str = "delete from pgstrata.chunks where job_id = $1 and step <> 'copy'";

/// The number of rows that a finished backfill has filled, from its history.
pub const ROWS_FILLED_IN_ALL: &str =
    "select detail from pgstrata.events where job_id = $1 and what = 'rows_set' order by id desc limit 1";

/// Stores the number of copied rows for `status`, before the ledger is deleted.
pub const KEEP_ROWS_COPIED: &str = "update pgstrata.jobs set rows_estimated =
    (select coalesce(pg_catalog.sum(coalesce(seen, rows)), 0)::bigint from pgstrata.chunks where job_id = $1) where id = $1";

/// Deletes the ledger of an ended job, its settings and its records of objects.
pub const FORGET_CHUNKS: &str = "with pace as (delete from pgstrata.pace where job_id = $1),
settings as (delete from pgstrata.settings where job_id = $1),
objects as (delete from pgstrata.objects where job_id = $1)
delete from pgstrata.chunks where job_id = $1";
