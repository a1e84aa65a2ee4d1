//! The swap and the rollback: one transaction each, with the same statements in both directions.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::dependent::View;
use crate::model::ident::{Ident, QualifiedName, literal};
use crate::model::state::State;
use crate::model::table::{Comment, Sequence, Trigger};

use super::exchange::Exchange;
use super::mirror::{self, SETTING as MIRROR};
use super::{
    capture, close_function, dependent, dollar_quoted, drop_constraint, foreign_key, key_table, prepare,
    row_functions, suffixes, with_operators,
};

/// The guard's name.
pub const GUARD: &str = "pgstrata_guard";

/// Which is locked first: the objects that read the table, or the table. Each order can deadlock with one kind of
/// transaction: a transaction that reads a view locks the view before its table; a transaction that writes the table
/// and then reads a view locks them in the opposite order. Only the attempt of the job fails in that case, so attempts
/// alternate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LockOrder {
    /// Views and other tables whose rules, policies or defaults refer to the table; then the tables.
    DependentsFirst,
    /// The opposite order.
    TablesFirst,
}

/// Acquires the locks. LOCK TABLE of a view would also lock every other table of the view, so the statement sets the
/// owner of the view to the current owner, which locks only the view.
fn locks(b: &Blueprint, ending: Direction, order: LockOrder) -> Vec<String> {
    let sides = b.sides(ending);
    let lock = |table: &QualifiedName| format!("lock table {table} in access exclusive mode");
    let views = b.table.views.iter().map(|v| format!("alter view {} owner to {}", v.name, v.owner));
    let others = b.other_altered_tables().into_iter().map(lock);
    let dependents = views.chain(others);
    let tables = [lock(&sides.source), lock(&sides.target)];
    match order {
        LockOrder::DependentsFirst => dependents.chain(tables).collect(),
        LockOrder::TablesFirst => tables.into_iter().chain(dependents).collect(),
    }
}

/// Statements that lock other objects; they run immediately after the tables are locked. A transaction that has called
/// `nextval` itself, or has changed a table that a foreign key references, and then uses the source, is in a deadlock
/// with the job. The `lock_timeout` of the job must resolve it before the server checks for deadlocks, so these locks
/// are requested as early as possible.
fn further_locks(b: &Blueprint, ending: Direction, leaves: &[QualifiedName]) -> Vec<String> {
    let mut all = foreign_key::drop(b, ending, leaves);
    all.extend(sequences(b, ending));
    all
}

/// The exchange in one direction. It fails if a change is pending. `removed` are the statements that remove objects of the job
/// from the plain table.
pub fn exchange(
    b: &Blueprint,
    ending: Direction,
    leaves: &[QualifiedName],
    guard: Guard,
    removed: Vec<String>,
) -> Exchange {
    let pending = |table: QualifiedName| format!("exists (select from {table})");
    Exchange {
        function: b.exchange_function(),
        definition: b.definition_function(),
        table: b.table.name.clone(),
        to: match ending {
            Direction::Forward => State::Swapped,
            Direction::Reverse => State::RolledBack,
        },
        locks: locks(b, ending, LockOrder::DependentsFirst),
        locks_in_turn: locks(b, ending, LockOrder::TablesFirst),
        pending: Some(format!("{} or {}", pending(b.log()), pending(b.truncations()))),
        captured: capture::CAPTURE_IN_FORCE.to_owned(),
        further_locks: further_locks(b, ending, leaves),
        statements: removed.into_iter().chain(statements(b, ending, leaves, guard)).collect(),
        last: counters(b, ending),
        functions: b.table.dependents.functions.iter().map(|f| f.name.clone()).collect(),
    }
}

/// A weak lock that makes autovacuum cancel itself and blocks no reader or writer.
pub fn first_lock(b: &Blueprint, ending: Direction) -> String {
    format!("lock table {} in share update exclusive mode", b.sides(ending).source)
}

/// The statements between the checks and the update of the job's row, in order.
fn statements(b: &Blueprint, ending: Direction, leaves: &[QualifiedName], against: Guard) -> Vec<String> {
    let sides = b.sides(ending);
    let to_plain = ending == Direction::Reverse;
    let mut all = capture::drop_triggers(&sides.source);
    all.extend(user_triggers(b, ending));
    if b.table.force_row_security {
        all.push(format!("alter table {} force row level security", sides.target));
        all.push(format!("alter table {} no force row level security", sides.source));
    }
    all.extend(with_operators(&b.table.operator_schemas, checks_left_out(b, &sides.target)));
    all.extend(row_functions::put_aside(b));
    all.extend(renames(b, ending));
    all.extend(row_functions::create(b));
    all.extend(dependent::renames(b, ending));
    all.extend(foreign_key::add(b, ending, leaves));
    let mut redirected: Vec<String> = b.table.views.iter().map(view).collect();
    redirected.extend(dependent::bind(b, ending));
    if !to_plain {
        redirected.extend(dependent::own_policies(b));
        all.extend(comments(b));
    }
    all.extend(with_operators(&b.table.operator_schemas, redirected));
    all.extend(capture::create_triggers(b, &b.table.name));
    all.extend(guard(b, ending, against));
    all.extend(mirror::off(b));
    // Recorded truncations apply to the direction that ends; the other direction starts without any.
    all.push(format!("delete from {}", b.truncations()));
    all
}

/// Adds the CHECK constraints that the job dropped from the table that comes into use. No row is read.
fn checks_left_out(b: &Blueprint, table: &QualifiedName) -> Vec<String> {
    let left_out = b.table.checks.iter().filter(|check| b.checks_left_out.contains(&check.name));
    left_out
        .flat_map(|check| {
            [
                drop_constraint(table, &check.name),
                format!("alter table {table} add constraint {} {} not valid", check.name, check.definition),
            ]
        })
        .collect()
}

/// Enables user triggers only on the table that comes into use.
fn user_triggers(b: &Blueprint, ending: Direction) -> Vec<String> {
    let sides = b.sides(ending);
    let state = |t: &Trigger| match t.enabled.as_str() {
        "D" => "disable trigger",
        "R" => "enable replica trigger",
        "A" => "enable always trigger",
        _ => "enable trigger",
    };
    b.table
        .triggers
        .iter()
        .flat_map(|t| {
            [
                format!("alter table {} disable trigger {}", sides.source, t.name),
                format!("alter table {} {} {}", sides.target, state(t), t.name),
            ]
        })
        .collect()
}

/// Renames the objects of the source to free their names, and gives these names to the objects of the target. Names of
/// indexes and sequences are unique in the schema, so each is renamed separately; renaming an index also renames its
/// constraint.
fn renames(b: &Blueprint, ending: Direction) -> Vec<String> {
    let (out, from) = suffixes(ending);
    let name = &b.table.name;
    let mut all = vec![
        format!("alter table {name} rename to {}", name.name.with_suffix(out)),
        format!("alter table {} rename to {}", name.sibling(name.name.with_suffix(from)), name.name),
    ];
    let key_tables = || b.key_tables.iter().map(|k| key_table::rename(k, ending));
    if ending == Direction::Reverse {
        all.extend(key_tables());
    }
    for index in b.index_names(ending) {
        let object = name.sibling(index.clone());
        all.push(format!("alter index {object} rename to {}", index.with_suffix(out)));
    }
    for index in b.index_names(ending.opposite()) {
        let object = name.sibling(index.with_suffix(from));
        all.push(format!("alter index {object} rename to {index}"));
    }
    if ending == Direction::Forward {
        all.extend(key_tables());
    }
    all
}

/// Exchanges the names of the identity sequences of both tables, and sets the owner of a serial sequence to the table
/// that comes into use.
fn sequences(b: &Blueprint, ending: Direction) -> Vec<String> {
    let (out, from) = suffixes(ending);
    let sequence = |s: &Sequence| {
        let own = &s.name;
        if !s.identity {
            return vec![format!("alter sequence {own} owned by {}.{}", b.sides(ending).target, s.column)];
        }
        let other = own.sibling(own.name.with_suffix(from));
        vec![
            format!("alter sequence {own} rename to {}", own.name.with_suffix(out)),
            format!("alter sequence {other} rename to {}", own.name),
        ]
    };
    b.table.sequences.iter().flat_map(sequence).collect()
}

/// Sets the new identity sequence to the value of the old one. A session that waits for the old sequence at this
/// moment, because it called `nextval` on it by name, takes one more value from it after the commit, so the new
/// sequence skips as many values as there can be sessions. These statements run last, after all that take time, when
/// sessions that often call `nextval` are visible as waiting.
fn counters(b: &Blueprint, ending: Direction) -> Vec<String> {
    let (out, _) = suffixes(ending);
    let counter = |s: &Sequence| {
        let was = s.name.sibling(s.name.name.with_suffix(out));
        let (name, old) = (literal(&s.name.to_string()), literal(&was.to_string()));
        format!(
            "select pg_catalog.setval({name}::regclass, case when not waiting then last_value
    when seqincrement > 0 then least(seqmax, last_value + seqincrement * room)
    else greatest(seqmin, last_value + seqincrement * room) end::bigint, is_called or waiting)
from {was}, pg_catalog.pg_sequence,
  (select pg_catalog.current_setting('max_connections')::numeric, exists (
     select from pg_catalog.pg_locks where locktype = 'relation' and relation = {old}::regclass and not granted)) x (room, waiting)
where seqrelid = {old}::regclass"
        )
    };
    b.table.sequences.iter().filter(|s| s.identity).map(counter).collect()
}

/// Comments on objects that only now have their final name, or whose name is local to the table.
fn comments(b: &Blueprint) -> impl Iterator<Item = String> {
    // The comment on a foreign key is created with the key.
    let keys = b.table.foreign_keys.iter().chain(&b.incoming).chain(&b.incoming_dropped);
    let keys: Vec<&Ident> = keys.filter(|f| f.table == b.table.name).map(|f| &f.name).collect();
    let foreign = move |c: &Comment| c.kind == "constraint" && keys.contains(&&c.name);
    let gone = |name: &Ident| b.drop_unique.contains(name) || b.key_table(name).is_some();
    let dropped = move |c: &Comment| c.kind == "constraint" && gone(&c.name);
    let carried = b.table.comments.iter().filter(move |c| !foreign(c) && !dropped(c));
    carried.map(|c| format!("comment on {} {} on {} is {}", c.kind, c.name, b.table.name, literal(&c.text)))
}

/// Redirects a view by name. CREATE OR REPLACE VIEW keeps its owner, privileges and comment.
pub(super) fn view(view: &View) -> String {
    let options = if view.options.is_empty() {
        String::new()
    } else {
        let all: Vec<String> = view.options.iter().map(|o| prepare::option(o)).collect();
        format!(" with ({})", all.join(", "))
    };
    format!(
        "create or replace view {}{options} as{}{}",
        view.name,
        "\n",
        view.query.trim_end().trim_end_matches(';')
    )
}

/// The writes with a snapshot older than the exchange that the guard rejects on the table that comes into use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// All writes: with such a snapshot, the table can be as it was before the last drain. In a READ COMMITTED
    /// transaction, this is the snapshot of one statement that waited for the exchange; rows that COPY inserts do not
    /// depend on the snapshot.
    EveryWrite,
    /// Writes of SERIALIZABLE transactions: with every such snapshot, both tables have the same rows, but the server
    /// tracks the reads of a transaction by table.
    Serializable,
}

/// The first argument of a guard that rejects every write; see [`Guard::EveryWrite`].
const EVERY_WRITE: &str = "every write";
/// The first argument of the guard on the table that goes out of use.
const OUT_OF_USE: &str = "out of use";

/// The function of the guard. It is STABLE, so that it reads with the snapshot of the statement that fired it: if that
/// snapshot does not include the trigger's own catalog row, it is older than the exchange. The function does not depend
/// on this server, so that it works in a database that was restored from a dump.
///
/// The table that goes out of use also has a guard, as long as it is kept. A call of a function does not lock the
/// function: a call of a function with a BEGIN ATOMIC body that waits for the table during the exchange has already
/// read the definition that the exchange replaces, and would write to the inactive table. Sessions of pgstrata may
/// write to that table.
pub fn guard_function(b: &Blueprint) -> Vec<String> {
    let function = b.guard_function();
    let body = format!(
        "begin
  if tg_argv[0] = '{OUT_OF_USE}' then
    if not (starts_with(current_setting('application_name'), 'pgstrata/') and pg_has_role(session_user, current_user, 'member'))
      and coalesce(current_setting('{MIRROR}', true), '') <> 'on' then
      raise exception 'could not serialize access: table %.% is no longer in use', tg_table_schema, tg_table_name
        using errcode = '40001', hint = 'Retry the transaction. To write to this table on purpose, disable its trigger {GUARD} first.';
    end if;
  elsif (current_setting('transaction_isolation') = tg_argv[0]
      or tg_argv[0] = '{EVERY_WRITE}' and (tg_op <> 'INSERT' or current_setting('transaction_isolation') <> 'read committed'))
    and not exists (select from pg_trigger where tgrelid = tg_relid and tgname = tg_name
      and encode(tgargs, 'escape') = tg_argv[0] || chr(92) || '000' || tg_argv[1] || chr(92) || '000') then
    raise exception 'could not serialize access: this transaction is older than a swap of table %.%', tg_table_schema, tg_table_name
      using errcode = '40001', hint = 'Retry the transaction.';
  end if;
  return null;
end"
    );
    vec![
        format!(
            "create or replace function {function}() returns trigger language plpgsql stable security definer\n\
             set search_path = pg_catalog, pg_temp\nas {}",
            dollar_quoted(&body)
        ),
        close_function(&function),
    ]
}

fn guard(b: &Blueprint, ending: Direction, guard: Guard) -> Vec<String> {
    let (out, _) = suffixes(ending);
    let outgoing = b.table.name.sibling(b.table.name.name.with_suffix(out));
    let (name, function) = (Ident::new(GUARD), b.guard_function());
    // An older snapshot may include a previous trigger on the table, so each trigger has a unique argument: the ID of
    // the transaction that created it.
    let trigger = |table: &QualifiedName, mode: &str| {
        let create = format!(
            "create trigger {name} before insert or update or delete on {table} for each statement execute function {function}"
        );
        let create = literal(&(create.replace('%', "%%") + "(%L, %L)"));
        let body = format!(
            "begin\n  execute pg_catalog.format({create}, {}, pg_catalog.pg_current_xact_id());\nend",
            literal(mode)
        );
        [
            drop_guard(table),
            format!("do {}", dollar_quoted(&body)),
            format!("alter table {table} enable always trigger {name}"),
        ]
    };
    let mode = match guard {
        Guard::EveryWrite => EVERY_WRITE,
        Guard::Serializable => "serializable",
    };
    let outgoing = trigger(&outgoing, OUT_OF_USE);
    outgoing.into_iter().chain(trigger(&b.table.name, mode)).collect()
}

/// Drops the guard.
pub fn drop_guard(table: &QualifiedName) -> String {
    format!("drop trigger if exists {} on {table}", Ident::new(GUARD))
}

/// Whether the relation with oid `$1` has the guard.
pub const GUARDED: &str =
    "select exists (select from pg_catalog.pg_trigger where tgrelid = $1 and tgname = 'pgstrata_guard')";

/// Whether any session still holds a snapshot older than the guard on the relation with oid `$1`.
pub const OLDER_THAN_GUARD: &str = "select exists (
  select from pg_catalog.pg_stat_activity, pg_catalog.pg_trigger guard
  where guard.tgrelid = $1 and guard.tgname = 'pgstrata_guard'
    and datname = pg_catalog.current_database() and pid <> pg_catalog.pg_backend_pid()
    and backend_type <> 'autovacuum worker'
    and backend_xmin is not null and pg_catalog.age(backend_xmin) >= pg_catalog.age(guard.xmin)
)";

/// Transactions that would block a lock on one of the relations `$1` (oids): those older than `$2` milliseconds that
/// hold a lock on it or on one of its partitions, including prepared transactions. With them, an attempt would fail and
/// make applications wait in vain.
pub const IN_THE_WAY: &str = "with relations as (
  select unnest($1::oid[]) as oid
  union
  select p.relid from unnest($1::oid[]) r (oid), pg_catalog.pg_partition_tree(r.oid::regclass) p
)
select a.pid, a.usename::text, a.application_name, a.state, \
    a.xact_start::text, coalesce(a.query_start::text, ''),
    extract(epoch from pg_catalog.clock_timestamp() - a.xact_start)::double precision * 1000,
    a.backend_type = 'client backend' and not coalesce((select rolsuper from pg_catalog.pg_roles where oid = a.usesysid), true)
from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.locktype = 'relation' and l.granted and l.relation in (select oid from relations) and l.pid <> pg_catalog.pg_backend_pid()
  and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
  and a.backend_type <> 'autovacuum worker'
  and a.xact_start < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $2::double precision / 1000)
union
select 0, p.owner::text, p.gid, 'prepared transaction', p.prepared::text, '', 0, false
from pg_catalog.pg_prepared_xacts p
  join pg_catalog.pg_locks own on own.locktype = 'transactionid' and own.transactionid = p.transaction
  join pg_catalog.pg_locks l on l.virtualtransaction = own.virtualtransaction and l.pid is null
where own.pid is null and l.locktype = 'relation' and l.relation in (select oid from relations)
  and p.database = pg_catalog.current_database()
order by 5";

/// Cancels the statement of the session with process number `$1`, if its transaction is still that which began at `$2`.
pub const CANCEL: &str = "select pg_catalog.pg_cancel_backend(pid) from pg_catalog.pg_stat_activity
where pid = $1 and xact_start::text = $2";

/// Terminates the session with process number `$1`, under the same condition.
pub const TERMINATE: &str = "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity
where pid = $1 and xact_start::text = $2";
