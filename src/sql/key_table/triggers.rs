//! The functions and triggers that keep a key table in sync with the partitioned table.
//!
//! They outlive the job. Functions run as their owner (the job's role, after finalize the owner of the table), with the
//! search path of the caller (a fixed one would cost 3 us a call), so every operator is qualified. Functions that
//! evaluate expressions of the index have a fixed search path. No function evaluates an expression of another role's
//! table, or converts a value to another type.
//!
//! AFTER ROW triggers follow the rows in physical order, so that a statement can insert a row and rows that reference it.
//! Names that begin with `!` sort before those of other triggers, and names that begin with `~` after them.
//!
//! An update that moves a row to another partition fires DELETE and INSERT triggers. The row of the key table must stay:
//! deleting it would delete or update the rows that reference it. The BEFORE UPDATE trigger therefore stores a note in
//! the row of the key table: the transaction, partition, ctid and trigger depth of the update. The conditions of the AFTER
//! triggers are evaluated when the row is changed: that of DELETE recognizes the note, that of INSERT consumes it, that of
//! UPDATE removes it. A statement trigger removes the remaining notes. The setting `pgstrata.moving` only avoids searches
//! for notes in transactions that have none.

use crate::model::blueprint::Blueprint;
use crate::model::ident::QualifiedName;
use crate::model::key_table::{FORMER, KeyTable, MOVING, is_deferrable};

use super::functions::{ADDING, function, on_truncate, same_types, trigger};
use super::partitions;
use crate::sql::{close_signature, dollar_quoted, operators_path, with_operators};

/// Is `on` in a transaction that may have notes.
const SETTING: &str = "pgstrata.moving";
/// Is `on` in a transaction in which a foreign key was missing.
const ONE_BY_ONE: &str = "pgstrata.one_by_one";
const EQUAL: &str = "operator(pg_catalog.=)";

/// The signatures of the key table's functions.
pub fn signatures(b: &Blueprint, k: &KeyTable) -> Vec<String> {
    named(b, k).into_iter().map(|(name, types)| format!("{name}({types})")).collect()
}

/// The names of the key table's functions, with the types of their arguments.
fn named(b: &Blueprint, k: &KeyTable) -> Vec<(QualifiedName, String)> {
    let mut all: Vec<(QualifiedName, String)> =
        ["follow", "guard", "truncate"].map(|what| (function(k, what), String::new())).to_vec();
    all.extend(["add", "remove", "repair"].map(|what| (function(k, what), "regclass".to_owned())));
    if k.keeps_moves {
        all.extend(["note_move", "end_move"].map(|what| (function(k, what), String::new())));
        all.extend(["is_delete", "is_update"].map(|what| (function(k, what), "oid, tid".to_owned())));
        let types: Vec<&str> = k.columns.iter().map(|c| c.sql_type.as_str()).collect();
        all.push((function(k, "is_insert"), types.join(", ")));
    }
    if has_foreign_keys(b, k) {
        all.push((function(k, "defer"), String::new()));
    }
    all
}

/// The names of the key table's functions.
pub fn function_names(b: &Blueprint, k: &KeyTable) -> Vec<QualifiedName> {
    named(b, k).into_iter().map(|(name, _)| name).collect()
}

/// Creates the functions. Only the owner may use trigger functions in triggers; those in conditions are called as the
/// writer.
pub fn functions(b: &Blueprint, k: &KeyTable) -> Vec<String> {
    let mut all = vec![
        follow(b, k),
        guard(b, k),
        partitions::add(b, k),
        partitions::remove(b, k),
        partitions::repair(b, k),
        partitions::truncate(b, k),
    ];
    if k.keeps_moves {
        all.extend([note_move(b, k), end_move(b, k), is_delete(b, k), is_update(b, k), is_insert(b, k)]);
    }
    if has_foreign_keys(b, k) {
        all.push(defer(b, k));
    }
    for (name, types) in named(b, k) {
        let in_conditions =
            ["is_delete", "is_update", "is_insert"].iter().any(|what| function(k, what) == name);
        let signature = format!("{name}({types})");
        all.push(match in_conditions {
            // Default privileges may not include it, and every write would fail.
            true => format!("grant execute on function {signature} to public"),
            false => close_signature(&signature),
        });
    }
    all
}

fn definer(b: &Blueprint, k: &KeyTable, what: &str, arguments: &str, returns: &str, body: &str) -> String {
    let path = match k.is_computed() {
        true => format!("\nset search_path = {}", operators_path(&b.table.operator_schemas)),
        false => String::new(),
    };
    format!(
        "create function {}({arguments}) returns {returns} language plpgsql security definer{path}\nas {}",
        function(k, what),
        dollar_quoted(body)
    )
}

/// A trigger function that runs as the role that writes.
fn invoker(k: &KeyTable, what: &str, body: &str) -> String {
    format!(
        "create function {}() returns trigger language plpgsql\nas {}",
        function(k, what),
        dollar_quoted(body)
    )
}

/// The condition that selects the key of a row. Of duplicates, which a deferred constraint allows, it selects one.
fn one(k: &KeyTable, row: &str) -> String {
    let matches = k.matches("key", &k.values(row));
    match k.deferrable.is_empty() {
        true => matches,
        false => format!("key.ctid {EQUAL} (select key.ctid from {} key where {matches} limit 1)", k.name),
    }
}

fn assignments(k: &KeyTable) -> String {
    let set = |(c, value): (&crate::model::key_table::KeyColumn, String)| format!("{} = {value}", c.name);
    k.columns.iter().zip(k.values("new")).map(set).collect::<Vec<_>>().join(", ")
}

fn insert(k: &KeyTable) -> String {
    let columns: Vec<String> = k.columns.iter().map(|c| c.name.to_string()).collect();
    format!("insert into {} ({}) values ({})", k.name, columns.join(", "), k.values("new").join(", "))
}

/// Applies the change of a row to its key.
fn follow(b: &Blueprint, k: &KeyTable) -> String {
    let (had, has) = (k.has_key("old"), k.has_key("new"));
    let delete = format!("delete from {} key where {}", k.name, one(k, "old"));
    let update = format!("update {} key set {} where {}", k.name, assignments(k), one(k, "old"));
    let body = format!(
        "begin
  if tg_op {EQUAL} 'DELETE' then
  {}
    {delete};
    return null;
  end if;
  {}
  if tg_op {EQUAL} 'INSERT' then
    {insert};
  elsif ({had}) and ({has}) then
    {update};
  elsif {had} then
    {}
  elsif {has} then
    {insert};
  end if;
  return null;
end",
        same_types(k, "old"),
        same_types(k, "new"),
        vanishes(k, &update, &delete),
        insert = insert(k),
    );
    definer(b, k, "follow", "", "trigger", &body)
}

/// Removes the key of a row that no longer has one. The update runs what foreign keys specify with ON UPDATE; ON DELETE
/// then applies to no row, because no row can reference NULL.
fn vanishes(k: &KeyTable, update: &str, delete: &str) -> String {
    if !k.keeps_moves || k.is_computed() {
        return format!("{delete};");
    }
    let null: Vec<String> = k.columns.iter().map(|c| format!("key.{} is null", c.name)).collect();
    format!("{update};\n    delete from {} key where {};", k.name, null.join(" or "))
}

/// Rejects rows that a restore or replication would insert twice, silently: the triggers of the table insert them.
fn guard(_: &Blueprint, k: &KeyTable) -> String {
    let body = format!(
        "begin
  if tg_op {EQUAL} 'INSERT' and coalesce(pg_catalog.current_setting('{ADDING}', true), '') {EQUAL} 'on' then
    return new;
  elsif tg_op {EQUAL} 'INSERT' or pg_catalog.current_setting('session_replication_role') {EQUAL} 'replica' then
    return null;
  elsif tg_op {EQUAL} 'DELETE' then
    return old;
  end if;
  return new;
end"
    );
    invoker(k, "guard", &body)
}

/// The text that identifies a moving row: the transaction, the partition, the ctid and the trigger depth of the update.
fn note(relation: &str, ctid: &str, depth: &str) -> String {
    format!("pg_catalog.concat(pg_catalog.pg_current_xact_id(), ':', {relation}, ':', {ctid}, ':', {depth})")
}

/// The trigger depth of the statement that fired this trigger.
const OUTER_DEPTH: &str = "pg_catalog.pg_trigger_depth() operator(pg_catalog.-) 1";
const DEPTH: &str = "pg_catalog.pg_trigger_depth()";

fn note_move(b: &Blueprint, k: &KeyTable) -> String {
    let has = k.has_key("new");
    let vanishes = if k.is_computed() || has == "true" {
        String::new()
    } else {
        let update = format!("update {} key set {} where {}", k.name, assignments(k), one(k, "old"));
        format!("  if not ({has}) then\n    {}\n    return new;\n  end if;\n", vanishes(k, &update, ""))
    };
    let changed = format!(
        "pg_catalog.record_image_ne(row({}), row({}))",
        k.values("old").join(", "),
        k.values("new").join(", ")
    );
    let body = format!(
        "begin
  {}
{vanishes}  update {} key set {}, {MOVING} = {},
    {FORMER} = case when {changed} then row({}, null, null)::{}::pg_catalog.text end
  where {};
  perform pg_catalog.set_config('{SETTING}', 'on', true);
  return new;
end",
        same_types(k, "new"),
        k.name,
        assignments(k),
        note("old.tableoid", "old.ctid", OUTER_DEPTH),
        k.values("old").join(", "),
        k.name,
        one(k, "old"),
    );
    definer(b, k, "note_move", "", "trigger", &body)
}

/// Whether the row at that place is deleted: true for a delete, false for the first half of a move.
fn is_delete(b: &Blueprint, k: &KeyTable) -> String {
    let body = format!(
        "begin
  update {} key set {MOVING} = pg_catalog.concat(key.{MOVING}, '!')
  where key.{MOVING} {EQUAL} {};
  return not found;
end",
        k.name,
        note("$1", "$2", DEPTH)
    );
    definer(b, k, "is_delete", "oid, tid", "boolean", &body)
}

/// Whether a row with these values is new: true for an insert, false for the second half of a move. The index on the
/// notes must not be used (`coalesce`): it looks small, but has an entry for each row that the statement has moved so far.
fn is_insert(b: &Blueprint, k: &KeyTable) -> String {
    let arguments: Vec<String> = k.columns.iter().map(|c| c.sql_type.clone()).collect();
    let values: Vec<String> = (1..=k.columns.len()).map(|i| format!("${i}")).collect();
    let depth = format!("{DEPTH}, '!'");
    let body = format!(
        "begin
  update {} key set {MOVING} = null, {FORMER} = null
  where {} and coalesce(key.{MOVING}, '') operator(pg_catalog.~~) {};
  return not found;
end",
        k.name,
        k.matches("key", &values),
        note("'%'", "'%'", &depth)
    );
    definer(b, k, "is_insert", &arguments.join(", "), "boolean", &body)
}

/// Removes the note of a row that stays in its partition. Always false.
fn is_update(b: &Blueprint, k: &KeyTable) -> String {
    let body = format!(
        "begin
  update {} key set {MOVING} = null, {FORMER} = null where key.{MOVING} {EQUAL} {};
  return false;
end",
        k.name,
        note("$1", "$2", DEPTH)
    );
    definer(b, k, "is_update", "oid, tid", "boolean", &body)
}

/// Removes the notes of rows that other triggers prevented from moving, restores the former keys of these rows, and
/// removes the keys of rows that such triggers deleted.
fn end_move(b: &Blueprint, k: &KeyTable) -> String {
    let restored =
        |c: &crate::model::key_table::KeyColumn| format!("{0} = (key.{FORMER}::{1}).{0}", c.name, k.name);
    let restored: Vec<String> = k.columns.iter().map(restored).collect();
    let gone = note("'%'", "'%'", &format!("{OUTER_DEPTH}, '!'"));
    let body = format!(
        "begin
  delete from {name} key where key.{MOVING} operator(pg_catalog.~~) {gone};
  update {name} key set {}, {FORMER} = null
  where key.{MOVING} operator(pg_catalog.~~) {prevented} and key.{FORMER} is not null;
  update {name} key set {MOVING} = null where key.{MOVING} operator(pg_catalog.~~) {prevented};
  if pg_catalog.pg_trigger_depth() {EQUAL} 1 then
    perform pg_catalog.set_config('{SETTING}', '', true);
  end if;
  return null;
end",
        restored.join(", "),
        prevented = note("'%'", "'%'", OUTER_DEPTH),
        name = k.name,
    );
    definer(b, k, "end_move", "", "trigger", &body)
}

/// Defers the foreign keys that reference the key table to the end of the application's statement, as if they
/// referenced the table. Runs as the writer: SET CONSTRAINTS needs no privilege on a table, and fires pending constraint
/// triggers of other tables. A foreign key that was dropped, or is no longer deferrable, does not make the statement
/// fail. That needs a subtransaction, which is not used for the checks at the end of the statement, because they lock rows.
fn defer(b: &Blueprint, k: &KeyTable) -> String {
    let keys: Vec<String> = b
        .keys_to(k)
        .filter(|key| !is_deferrable(key))
        .map(|key| key.table.sibling(key.name.clone()).to_string())
        .collect();
    let body = if keys.is_empty() {
        "begin\n  return null;\nend".to_owned()
    } else {
        let set = |mode: &str| format!("set constraints {} {mode};", keys.join(", "));
        let errors = "undefined_object or invalid_schema_name or wrong_object_type or insufficient_privilege";
        let each = |mode: &str| {
            let one = |key: &String| {
                format!("begin set constraints {key} {mode}; exception when {errors} then null; end;")
            };
            keys.iter().map(one).collect::<Vec<_>>().join("\n      ")
        };
        format!(
            "begin
  if tg_when {EQUAL} 'BEFORE' then
    begin
      {}
    exception when {errors} then
      perform pg_catalog.set_config('{ONE_BY_ONE}', 'on', true);
      {}
    end;
  elsif coalesce(pg_catalog.current_setting('{ONE_BY_ONE}', true), '') {EQUAL} 'on' then
      {}
  else
    {}
  end if;
  return null;
end",
            set("deferred"),
            each("deferred"),
            each("immediate"),
            set("immediate"),
        )
    };
    invoker(k, "defer", &body)
}

/// Creates the triggers of the partitioned table, and those that guard the key table.
pub fn create(b: &Blueprint, k: &KeyTable, table: &QualifiedName) -> Vec<String> {
    let mut all = guards(k);
    all.extend(with_operators(&b.table.operator_schemas, rows(b, k, table)));
    all.extend(on_leaf(k, table));
    if k.keeps_moves {
        let flag = format!("for each statement\n  when ({})", moving());
        all.extend(always(k, table, "~end_move", "after update", &flag, "end_move"));
    }
    if has_foreign_keys(b, k) {
        let fires = "insert or update or delete";
        all.extend(always(k, table, "!defer", &format!("before {fires}"), "for each statement", "defer"));
        all.extend(always(k, table, "~immediate", &format!("after {fires}"), "for each statement", "defer"));
    }
    all
}

/// The number of triggers that the partitioned table itself has.
pub fn on_table(b: &Blueprint, k: &KeyTable) -> i64 {
    let of_rows = if k.keeps_moves { 7 } else { 4 };
    of_rows + if has_foreign_keys(b, k) { 2 } else { 0 }
}

fn has_foreign_keys(b: &Blueprint, k: &KeyTable) -> bool {
    b.keys_to(k).next().is_some()
}

/// Creates a trigger that also fires for the apply worker of logical replication.
fn always(
    k: &KeyTable,
    table: &QualifiedName,
    name: &str,
    fires: &str,
    how: &str,
    calls: &str,
) -> [String; 2] {
    let name = trigger(k, name);
    [
        format!(
            "create trigger {name} {fires} on {table} {how}\n  execute function {}()",
            function(k, calls)
        ),
        format!("alter table {table} enable always trigger {name}"),
    ]
}

fn moving() -> String {
    format!("coalesce(pg_catalog.current_setting('{SETTING}', true), '') <> ''")
}

/// The row triggers. If the key table does not keep moves, a move deletes and inserts the key.
fn rows(b: &Blueprint, k: &KeyTable, table: &QualifiedName) -> Vec<String> {
    let (had, has) = (k.has_key("old"), k.has_key("new"));
    let (old, new) = (k.values("old").join(", "), k.values("new").join(", "));
    let changed = format!("pg_catalog.record_image_ne(row({old}), row({new}))");
    let appears = if had == "true" { "false".to_owned() } else { format!("({had}) <> ({has})") };
    let row = |name: &str, fires: &str, when: &str, calls: &str| {
        always(k, table, name, fires, &format!("for each row\n  when ({when})"), calls)
    };
    let mut all = Vec::new();
    if !k.keeps_moves {
        all.extend(row("!insert", "after insert", &has, "follow"));
        all.extend(row("!delete", "after delete", &had, "follow"));
        all.extend(row("!update", "after update", &format!("{changed} or {appears}"), "follow"));
        return all;
    }
    let moves = format!("old.{0} is distinct from new.{0}", b.by);
    let moving = moving();
    let and_has = if k.is_computed() { format!(" and ({has})") } else { String::new() };
    let is_insert = format!("({has}) and (not ({moving}) or {}({new}))", function(k, "is_insert"));
    let is_delete =
        format!("({had}) and (not ({moving}) or {}(old.tableoid, old.ctid))", function(k, "is_delete"));
    let in_place = format!("({changed} or {appears}) and (not ({moves}) or {appears})");
    let is_update = format!("({moves}) and {}(old.tableoid, old.ctid)", function(k, "is_update"));
    all.extend(row("!insert", "after insert", &is_insert, "follow"));
    all.extend(row("!delete", "after delete", &is_delete, "follow"));
    all.extend(row("!update", "after update", &in_place, "follow"));
    all.extend(row("!stay", "after update", &is_update, "follow"));
    all.extend(row("~move", "before update", &format!("({moves}) and ({had}){and_has}"), "note_move"));
    all
}

/// Creates the TRUNCATE trigger of the table, or of a partition, which has the other triggers of its parent.
pub fn on_leaf(k: &KeyTable, leaf: &QualifiedName) -> Vec<String> {
    always(k, leaf, "!truncate", "after truncate", "for each statement", "truncate").to_vec()
}

/// Creates the TRUNCATE trigger of a partition that was attached by hand, which may already have it.
pub fn on_attached(k: &KeyTable, leaf: &QualifiedName) -> Vec<String> {
    let drop = format!("drop trigger if exists {} on {leaf}", on_truncate(k));
    std::iter::once(drop).chain(on_leaf(k, leaf)).collect()
}

fn guards(k: &KeyTable) -> Vec<String> {
    let columns = |row: &str| {
        let all: Vec<String> = k.columns.iter().map(|c| format!("{row}.{}", c.name)).collect();
        all.join(", ")
    };
    let direct = "pg_catalog.pg_trigger_depth() = 0";
    let changed = format!("pg_catalog.record_image_ne(row({}), row({}))", columns("old"), columns("new"));
    let row = |when: &str| format!("for each row\n  when ({when})");
    let mut all = always(k, &k.name, "!guard", "before insert or delete", &row(direct), "guard").to_vec();
    let update = row(&format!("{direct} and {changed}"));
    all.extend(always(k, &k.name, "!guard_update", "before update", &update, "guard"));
    all
}
