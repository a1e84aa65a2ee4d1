//! Settings of every transaction whose locks can block applications: how long it may wait for a lock, and when the
//! server terminates it if the process freezes, dies or loses its connection.

/// The server terminates a transaction that holds a lock and receives no statement for this time, in milliseconds.
pub const IDLE_MS: u32 = 2_000;
/// The first lock makes autovacuum cancel itself and blocks no reader or writer, so the wait for it may be longer than
/// for the others.
const FIRST_LOCK_MS: u32 = 5_000;

/// The time limit for a statement under a lock, in addition to lock waits, in milliseconds.
const WORK_MS: u128 = 30_000;

/// [`BEFORE_DEADLOCK_CHECK_MS`] as a macro, for the definition of constants.
macro_rules! before_deadlock_check_ms {
    () => {
        "(select pg_catalog.min(extract(epoch from deadlock_timeout::interval) * 800)::integer from (
    select pg_catalog.current_setting('deadlock_timeout')
    union all
    select regexp_replace(pg_catalog.substr(setting, 18), '^[0-9.]+$', '\\& ms')
    from pg_catalog.pg_db_role_setting, pg_catalog.unnest(setconfig) setting
    where pg_catalog.starts_with(setting, 'deadlock_timeout=')
      and setdatabase in (0, (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))
  ) sessions (deadlock_timeout))"
    };
}
pub(super) use before_deadlock_check_ms;

/// The maximum wait for a lock, in milliseconds, that ends before any session of this database checks for deadlocks, so
/// that the application never becomes the victim. It is evaluated at each use: if the setting was lowered for the
/// database or for a role after this session began, new sessions of the application use the new value.
pub const BEFORE_DEADLOCK_CHECK_MS: &str = before_deadlock_check_ms!();

/// Sets the maximum wait for any lock of a session, unless a transaction sets another limit.
pub const ANY_WAIT: &str = concat!(
    "select pg_catalog.set_config('lock_timeout', greatest(1, least(500, ",
    before_deadlock_check_ms!(),
    "))::text, false)"
);

/// Sets the maximum wait for each lock of the open transaction: `wait_ms`, or less if the server checks for deadlocks
/// sooner.
pub fn wait_for_lock(wait_ms: u128) -> String {
    format!(
        "select pg_catalog.set_config('lock_timeout', \
         greatest(1, least({wait_ms}, {BEFORE_DEADLOCK_CHECK_MS}))::text, true)"
    )
}

/// Sets limits for the open transaction that hold even if this process fails. Its COMMIT does not wait for a
/// synchronous standby: the standby may be unavailable, and the locks are held until the COMMIT returns. PostgreSQL 17
/// and later also terminate a transaction that is never idle for long, for example because the network transfers little
/// at a time.
pub fn bound(wait_ms: u128) -> String {
    format!(
        "set local idle_in_transaction_session_timeout = {IDLE_MS}; set local synchronous_commit = local; \
         select pg_catalog.set_config('transaction_timeout', '{}', true) \
         where pg_catalog.current_setting('server_version_num')::integer >= 170000; {}",
        WORK_MS + 10 * wait_ms,
        wait_for_lock(wait_ms)
    )
}

/// Begins the lock requests of the open transaction. `first`, a weak lock, makes autovacuum cancel itself while no
/// other session waits for the job. It is released before other locks are requested. Otherwise, if a session has read
/// the table and requests a lock that conflicts with `first` while the job waits for that session, that session would
/// immediately become the victim of a deadlock.
pub fn begin(first: &str, wait_ms: u128) -> String {
    format!(
        "savepoint first; set local lock_timeout = {FIRST_LOCK_MS}; {first}; rollback to first; release first; {}",
        bound(wait_ms)
    )
}

/// Whether a COMMIT of this session waits for a synchronous standby.
pub const WAITS_FOR_STANDBY: &str = "select pg_catalog.current_setting('synchronous_standby_names') <> ''
  and pg_catalog.current_setting('synchronous_commit') not in ('off', 'local')";

/// An empty write: its COMMIT returns when a synchronous standby has received all WAL up to it.
pub const REACH_STANDBY: &str = "select pg_catalog.pg_logical_emit_message(true, 'pgstrata', '')";

/// Makes later COMMITs of this session not wait for a standby.
pub const LEAVE_STANDBY: &str = "set synchronous_commit = local";
