//! The exchange of two tables or two columns: one message, from BEGIN to COMMIT, that calls one function. All
//! statements that run under the lock are in that function. The lock is therefore held only while the server works,
//! regardless of the network, and a client that freezes holds no lock. The function is created in advance, without a
//! lock.

use crate::model::ident::{QualifiedName, literal};
use crate::model::lock_estimate;
use crate::model::state::State;

use super::{catalog, close_signature, dollar_quoted, locks, store};

/// The maximum time for which the locks may be held, in milliseconds.
pub const BUDGET_MS: u32 = lock_estimate::MOST_HELD_MS;

/// The reason for which the function failed, each with its own SQLSTATE. The transaction is then rolled back and all
/// locks are released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedCheck {
    /// Another process drives the job.
    TakenOver,
    /// A change is pending; it must be drained before the next attempt.
    LogNotEmpty,
    /// The table, or an object that depends on it, was altered after the job compared its definition.
    DefinitionChanged,
    /// The capture triggers are missing or disabled.
    NotCaptured,
    /// The job is in another state.
    Moved,
    /// The locks were held for longer than [`BUDGET_MS`].
    TooLong,
}

impl FailedCheck {
    const ALL: [Self; 6] = [
        Self::TakenOver,
        Self::LogNotEmpty,
        Self::DefinitionChanged,
        Self::NotCaptured,
        Self::Moved,
        Self::TooLong,
    ];

    /// The SQLSTATE that the function raises.
    pub fn sqlstate(self) -> &'static str {
        match self {
            Self::TakenOver => "PS101",
            Self::LogNotEmpty => "PS102",
            Self::DefinitionChanged => "PS103",
            Self::NotCaptured => "PS104",
            Self::Moved => "PS105",
            Self::TooLong => "PS106",
        }
    }

    /// The reason for a SQLSTATE; none if it is not one of these.
    pub fn of(sqlstate: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.sqlstate() == sqlstate)
    }

    fn message(self) -> &'static str {
        match self {
            Self::TakenOver => "another process has taken over this job",
            Self::LogNotEmpty => "changes are pending",
            Self::DefinitionChanged => "the table was altered after its definition was read",
            Self::NotCaptured => "the triggers of the job are not enabled",
            Self::Moved => "the job is no longer in the expected state",
            Self::TooLong => "the locks were held for too long",
        }
    }

    fn raise_if(self, condition: &str) -> String {
        format!(
            "  if {condition} then\n    raise exception using errcode = '{}', message = '{}';\n  end if;\n",
            self.sqlstate(),
            self.message()
        )
    }
}

/// The parameters of an exchange function.
#[derive(Debug)]
pub struct Exchange {
    /// The function.
    pub function: QualifiedName,
    /// The function that returns the table's definition.
    pub definition: QualifiedName,
    /// The name of the table that applications use.
    pub table: QualifiedName,
    /// The state of the job after the exchange.
    pub to: State,
    /// The first locks, in the order for even attempts.
    pub locks: Vec<String>,
    /// The same locks, in the order for odd attempts.
    pub locks_in_turn: Vec<String>,
    /// A condition that is true while a change is pending, if the kind of job logs changes.
    pub pending: Option<String>,
    /// A query that returns whether the job's triggers are enabled on the relation with oid `$1`.
    pub captured: String,
    /// Statements that lock other objects; they run immediately after the tables are locked.
    pub further_locks: Vec<String>,
    /// The remaining statements.
    pub statements: Vec<String>,
    /// Statements that must run as late as possible, after the update of the job's row.
    pub last: Vec<String>,
    /// Functions that the statements replace, as `regprocedure` prints them. The server locks no function: if one is
    /// dropped in the meantime, CREATE OR REPLACE FUNCTION would create it with the privileges of the job's role.
    pub functions: Vec<String>,
}

/// The parameters of the function.
const PARAMETERS: &str = "job bigint, job_state text, keep_s double precision, job_epoch bigint, definition bigint, \
    source oid, partitioned oid, wait_ms integer, in_turn boolean";

/// The types of [`PARAMETERS`].
fn parameter_types() -> String {
    let types = PARAMETERS.split(", ").filter_map(|one| one.split_once(' ').map(|(_, sql_type)| sql_type));
    types.collect::<Vec<_>>().join(", ")
}

/// A statement in dollar quotes.
fn quoted(statement: &str) -> String {
    if !statement.contains('$') {
        return format!("$${statement}$$");
    }
    let mut tag = "$s$".to_owned();
    let mut n = 0;
    while statement.contains(&tag) {
        n += 1;
        tag = format!("$s{n}$");
    }
    format!("{tag}{statement}{tag}")
}

fn array(statements: &[String]) -> String {
    let all: Vec<String> = statements.iter().map(|one| format!("\n      {}", quoted(one))).collect();
    format!("array[{}\n    ]::text[]", all.join(","))
}

/// Runs statements that acquire locks. Together, they may wait for `wait_ms`. No statement waits until a session that
/// has waited since the first lock was granted would check for deadlocks; from then on, a lock is acquired only if it
/// is available immediately.
fn locking(statements: &str) -> String {
    format!(
        "  foreach statement in array {statements} loop
    left_ms := least(wait_ms - waited_ms, look_ms - (extract(epoch from clock_timestamp() - locked_at) * 1000)::integer);
    perform set_config('lock_timeout', greatest(1, left_ms)::text, true);
    at := clock_timestamp();
    execute statement;
    waited_ms := waited_ms + (extract(epoch from clock_timestamp() - at) * 1000)::integer;
    locked_at := coalesce(locked_at, clock_timestamp());
  end loop;
"
    )
}

fn running(statements: &[String]) -> String {
    format!("  foreach statement in array {} loop\n    execute statement;\n  end loop;\n", array(statements))
}

impl Exchange {
    /// Creates the function. An existing function may be that of another version.
    pub fn create(&self) -> Vec<String> {
        vec![
            format!("drop function if exists {}({PARAMETERS})", self.function),
            format!(
                "create function {}({PARAMETERS})
returns void language plpgsql volatile set search_path = pg_catalog, pg_temp
as {}",
                self.function,
                dollar_quoted(&self.body())
            ),
            close_signature(&format!("{}({})", self.function, parameter_types())),
        ]
    }

    fn body(&self) -> String {
        let mut body = "#variable_conflict use_variable
declare
  asked_at timestamptz;
  locked_at timestamptz;
  at timestamptz;
  statement text;
  look_ms integer;
  left_ms integer;
  waited_ms integer := 0;
  n bigint;
  functions oid[];
begin
  -- Make sure that no other process runs the job until this transaction ends.
"
        .to_owned();
        body += &format!("  execute {} using job, job_epoch;\n", quoted(store::HOLD_EPOCH));
        body += "  get diagnostics n = row_count;\n";
        body += &FailedCheck::TakenOver.raise_if("n <> 1");
        body += "  -- Acquire the locks. Writers lock the tables in either order, so attempts alternate \
            between the orders.\n";
        body += &format!(
            "  look_ms := {};\n  wait_ms := greatest(1, least(wait_ms, look_ms));\n  asked_at := clock_timestamp();\n  \
             perform set_config('pgstrata.asked_at', asked_at::text, false);\n",
            locks::BEFORE_DEADLOCK_CHECK_MS
        );
        body += &locking(&format!(
            "case when in_turn then {} else {} end",
            array(&self.locks_in_turn),
            array(&self.locks)
        ));
        if let Some(oids) = self.function_oids() {
            body += &format!("  functions := {oids};\n");
        }
        body += &self.checks();
        body += "  -- Statements that acquire further locks.\n";
        body += &locking(&array(&self.further_locks));
        body += "  -- The exchange.\n";
        body += &running(&self.statements);
        body += &self.record();
        if !self.last.is_empty() {
            body += &running(&self.last);
        }
        if let Some(oids) = self.function_oids() {
            body += "  -- Make sure that the functions are still those that existed before.\n";
            body += &FailedCheck::DefinitionChanged.raise_if(&format!("functions is distinct from {oids}"));
        }
        body += &FailedCheck::TooLong.raise_if(&format!(
            "clock_timestamp() > asked_at + make_interval(secs => (wait_ms + {BUDGET_MS}) / 1000.0)"
        ));
        body += "end";
        body
    }

    /// The current oids of [`Self::functions`]; none if no function is replaced.
    fn function_oids(&self) -> Option<String> {
        let functions = array(&self.functions);
        let oids =
            format!("(select array_agg(to_regprocedure(f)::oid order by f) from unnest({functions}) f)");
        (!self.functions.is_empty()).then_some(oids)
    }

    /// Checks the conditions that may have changed before the locks were acquired.
    fn checks(&self) -> String {
        let mut all = "  -- Make sure that no changes are pending.\n".to_owned();
        if let Some(pending) = &self.pending {
            all += &FailedCheck::LogNotEmpty.raise_if(pending);
        }
        all += "  -- Make sure that the table has not changed since the last check and that the job's \
            triggers are enabled.\n";
        all += &FailedCheck::DefinitionChanged.raise_if(&format!(
            "hashtextextended({}(source, partitioned)::text, 0) is distinct from definition",
            self.definition
        ));
        all += &format!(
            "  execute {} into n using source;\n",
            quoted(&format!("select ({})::integer", self.captured))
        );
        all += &FailedCheck::NotCaptured.raise_if("n is distinct from 1");
        all
    }

    fn record(&self) -> String {
        let mut all = "  -- Update the job's row, which records whether the exchange \
            happened.\n"
            .to_owned();
        let forward = self.to == State::Swapped;
        all += &format!("  execute {} using job, {forward}, keep_s;\n", quoted(store::RECORD_SWAP));
        all += &format!(
            "  execute {} using job, job_state, '{}'::text;\n",
            quoted(store::MOVE_JOB),
            self.to.as_str()
        );
        all += "  get diagnostics n = row_count;\n";
        all += &FailedCheck::Moved.raise_if("n <> 1");
        all += "  -- Record the state after the exchange, with which the next exchange is compared.\n";
        all += &format!(
            "  execute {} using job, {}({}::regclass, partitioned)::jsonb -> 'table';\n",
            quoted(store::KEEP_IN_USE),
            self.definition,
            literal(&self.table.to_string())
        );
        all
    }

    /// The message, from BEGIN to COMMIT.
    pub fn message(&self, call: &Call) -> String {
        let Call { first, job, state, keep_s, epoch, definition, source, partitioned, wait_ms, in_turn } =
            call;
        let state = state.as_str();
        format!(
            "begin isolation level read committed; {}; set local statement_timeout = {}; set local jit = off; \
             select {}({job}, '{state}', {keep_s}, {epoch}, {definition}, {source}, {partitioned}, {wait_ms}, {in_turn}); commit",
            locks::begin(first, *wait_ms),
            wait_ms + u128::from(BUDGET_MS),
            self.function
        )
    }

    /// Drops the functions.
    pub fn drop(function: &QualifiedName, definition: &QualifiedName) -> [String; 2] {
        [
            format!("drop function if exists {function}({PARAMETERS})"),
            format!("drop function if exists {definition}(oid, oid)"),
        ]
    }
}

/// One call of the function.
#[derive(Debug)]
pub struct Call {
    /// The weak lock that is requested first.
    pub first: String,
    /// The job.
    pub job: i64,
    /// Its state before the exchange.
    pub state: State,
    /// How long the old side is kept after the exchange, in seconds.
    pub keep_s: f64,
    /// The epoch of the lease.
    pub epoch: i64,
    /// The hash of the definition that was compared.
    pub definition: i64,
    /// The oid of the table that applications use.
    pub source: u32,
    /// The oid of the partitioned table.
    pub partitioned: u32,
    /// How long to wait for all locks together, in milliseconds.
    pub wait_ms: u128,
    /// Whether this attempt uses the order of `locks_in_turn`.
    pub in_turn: bool,
}

/// An upper bound of the time for which the locks were held, in milliseconds. Send it immediately after the message.
pub const HELD_MS: &str = "select (extract(epoch from pg_catalog.clock_timestamp() - \
    pg_catalog.current_setting('pgstrata.asked_at')::timestamptz) * 1000)::double precision";

/// Creates the function that returns the definition of the relation with oid `$1` ([`catalog::table`]) and the leaves
/// of the relation with oid `$2`. The same session also calls it before it acquires the locks, so that its plans are
/// cached: planning takes ten times as long as execution. `rebound` is a query for the objects that refer to a column by
/// its number ([`crate::model::rebound::Rebound`]).
pub fn create_definition(function: &QualifiedName, rebound: Option<&str>) -> Vec<String> {
    let rebound = rebound.map_or(String::new(), |query| format!(", 'rebound', (\n{query})"));
    let body = format!(
        "begin
  return json_build_object('table', ({}), 'leaves', (
{LEAVES}){rebound});
end",
        catalog::table()
    );
    vec![
        format!("drop function if exists {function}(oid, oid)"),
        format!(
            "create function {function}(oid, oid) returns json language plpgsql stable
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan
as {}",
            dollar_quoted(&body)
        ),
        close_signature(&format!("{function}(oid, oid)")),
    ]
}

/// The leaves of the relation with oid `$2`, and the number of foreign keys of each.
const LEAVES: &str = "    select coalesce(json_agg(json_build_object(
      'name', json_build_object('schema', n.nspname, 'name', c.relname),
      'keys', (select count(*) from pg_constraint k where k.conrelid = c.oid and k.contype = 'f' and k.conparentid = 0)
    ) order by pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT', c.relname, n.nspname), '[]')
    from pg_inherits h join pg_class c on c.oid = h.inhrelid join pg_namespace n on n.oid = c.relnamespace
    where h.inhparent = $2";

/// The definition of the relation with oid `$1`, and its hash; `$2` is the oid of the partitioned table.
pub fn definition(function: &QualifiedName) -> String {
    format!("select pg_catalog.hashtextextended(d::text, 0), d from {function}($1, $2) d")
}
