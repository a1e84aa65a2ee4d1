//! Renders every statement from a blueprint, as text with `$n` for the values. This module does no I/O.
//!
//! Identifiers are always [`crate::model::ident::Ident`]s, which are quoted, and every object is schema-qualified.
//! Snapshot tests contain all statements, so that reviewers read the same SQL as a DBA.

pub mod additions;
pub mod capture;
pub mod carry;
pub mod catalog;
pub mod checklist;
pub mod copy;
pub mod definition;
pub mod dependent;
pub mod drain;
pub mod exchange;
pub mod fill;
pub mod finalize;
pub mod finish;
pub mod finish_trial;
pub mod foreign_key;
pub mod index;
pub mod key_table;
pub mod locks;
pub mod maintain;
pub mod matview;
pub mod mirror;
pub mod not_null;
pub mod objects;
pub mod old_snapshots;
pub mod options;
pub mod orphans;
pub mod own_schema;
pub mod pace;
pub mod partition_trial;
pub mod plan_sql;
pub mod preflight;
pub mod prepare;
pub mod printable;
pub mod recreated;
pub mod references;
pub mod retype;
pub mod row_functions;
pub mod row_trial;
mod row_types;
pub mod sample;
pub mod script;
pub mod section;
pub mod space;
pub mod store;
pub mod strip;
pub mod surroundings;
pub mod survey;
pub mod swap;
pub mod trial;
mod trust;
pub mod untrusted_code;
pub mod verify;
pub mod writing;

use crate::model::blueprint::{Direction, Sides};
use crate::model::ident::{Ident, QualifiedName, literal};
use crate::model::key::KeyRange;
use crate::model::table::Column;

/// `"a", "b"`, each with `prefix`.
fn list<'a>(prefix: &str, names: impl IntoIterator<Item = &'a Ident>) -> String {
    names.into_iter().map(|name| format!("{prefix}{name}")).collect::<Vec<_>>().join(", ")
}

/// The source for a FROM clause: `only "public"."t"` for a plain table, the name for a partitioned one.
pub fn from_source(sides: &Sides) -> String {
    if sides.plain_source { format!("only {}", sides.source) } else { sides.source.to_string() }
}

/// `l.a = r.a and l.b = r.b`.
fn equal(left: &str, right: &str, columns: &[&Column]) -> String {
    columns.iter().map(|c| format!("{left}.{0} = {right}.{0}", c.name)).collect::<Vec<_>>().join(" and ")
}

/// A condition that is true if two values of one type differ in any byte. It is also true for values that are equal but
/// not identical: citext values in different case, the numerics 1.5 and 1.50, the intervals `1 day` and `24:00:00`, and
/// strings that a nondeterministic collation considers equal. Compression and TOAST storage make no difference. The
/// type does not need an `=` operator.
fn differ(left: &str, right: &str) -> String {
    // An operator, because the planner can estimate its selectivity, but not that of a function. Without the casts, the
    // operator would be applied to the values instead of the records.
    format!("(row({left})::record operator(pg_catalog.*<>) row({right})::record)")
}

/// A condition for rows in `range` over `columns`, and its parameters (as text, which the server converts to the type
/// of the column). Parameters are numbered from `first`. The row comparison is lexicographic and uses the collations of
/// the columns, as their index does.
pub fn in_range(alias: &str, columns: &[&Column], range: &KeyRange, first: usize) -> (String, Vec<String>) {
    let (mut conditions, mut values) = (Vec::new(), Vec::new());
    let left = columns.iter().map(|c| format!("{alias}{}", c.name)).collect::<Vec<_>>().join(", ");
    for (operator, end) in [(">", &range.after), ("<=", &range.through)] {
        let Some(end) = end else { continue };
        let start = first + values.len();
        let right: Vec<String> =
            columns.iter().enumerate().map(|(i, c)| format!("${}::{}", start + i, c.base_type)).collect();
        conditions.push(if columns.len() == 1 {
            format!("{left} {operator} {}", right[0])
        } else {
            format!("({left}) {operator} ({})", right.join(", "))
        });
        values.extend(end.iter().cloned());
    }
    // A row with NULL in the key has no place in the order of the keys. The job looks for such rows, or rejects them.
    conditions
        .extend(columns.iter().filter(|c| !c.not_null).map(|c| format!("{alias}{} is not null", c.name)));
    if conditions.is_empty() {
        conditions.push("true".into());
    }
    (conditions.join(" and "), values)
}

/// A key in readable form: its values, in order, in the output formats of their types.
fn key_text<'a>(prefix: &str, key: impl IntoIterator<Item = &'a Ident>) -> String {
    format!("pg_catalog.concat_ws(', ', {})", list(prefix, key))
}

/// A value of a key column in the output format of its type. A type outside `pg_catalog` may have a user-defined cast to
/// text, which is not that format, and which would run code of the owner of the type.
fn as_written(value: &str, column: &Column) -> String {
    if column.base_type.contains('.') {
        format!("pg_catalog.concat({value})")
    } else {
        format!("{value}::text")
    }
}

/// The value of a key column of which `text` is the output. A type outside `pg_catalog` may have a user-defined cast from
/// text; JSON is converted with the input function of the type. A parameter of unknown type needs no conversion.
fn from_written(text: &str, column: &Column) -> String {
    if column.base_type.contains('.') {
        format!(
            "(select v from pg_catalog.json_to_record(pg_catalog.json_build_object('v', {text})) written (v {}))",
            column.base_type
        )
    } else {
        format!("{text}::{}", column.base_type)
    }
}

/// The number of values of the expressions that occur in more than one row that satisfies the condition and, for up to
/// five of them, the keys of two such rows; no row if all values are unique. NULLs are distinct.
fn repeated(rows: &str, alias: &Ident, key: &[Ident], of: &[String], condition: Option<&str>) -> String {
    let condition = condition.map(|condition| format!("({condition})"));
    let present: Vec<String> = of.iter().map(|one| format!("{one} is not null")).chain(condition).collect();
    let alias_dot = format!("{alias}.");
    format!(
        "select count(*) over (), array_to_string((array_agg({} order by {}))[1:2], ' and ')\n\
         from {rows} as {alias}\nwhere {}\ngroup by {} having count(*) > 1 limit 5",
        key_text(&alias_dot, key),
        list(&alias_dot, key),
        present.join(" and "),
        of.join(", ")
    )
}

/// Revokes all privileges on a function from all roles except its owner: from PUBLIC, and from the roles in the default
/// privileges.
fn close_function(function: &QualifiedName) -> String {
    close_signature(&format!("{function}()"))
}

/// As [`close_function`], for a function with parameters; `signature` is its name with the parameter types.
fn close_signature(signature: &str) -> String {
    let name = literal(signature);
    let body = format!(
        "declare
  holder text;
begin
  for holder in
    select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end
    from pg_catalog.pg_proc f,
      pg_catalog.aclexplode(coalesce(f.proacl, pg_catalog.acldefault('f', f.proowner))) a
    where f.oid = {name}::regprocedure and a.grantee <> f.proowner
  loop
    execute format('revoke all on function %s from %s', {name}, holder);
  end loop;
end"
    );
    format!("do {}", dollar_quoted(&body))
}

/// Creates a trigger that calls a function for all writes to the table except the job's own.
fn on_writes(table: &QualifiedName, trigger: &Ident, function: &QualifiedName) -> [String; 4] {
    [
        close_function(function),
        format!("drop trigger if exists {trigger} on {table}"),
        format!(
            "create trigger {trigger} before insert or update on {table} for each row \
             when (pg_catalog.current_setting('pgstrata.filling', true) is distinct from 'on') \
             execute function {function}()"
        ),
        format!("alter table {table} enable always trigger {trigger}"),
    ]
}

/// Statements that create indexes in the tablespace of the original index. The definition in the catalog does not
/// contain the tablespace, and the TABLESPACE clause would have to be inserted before WHERE. If the original is in the
/// default tablespace of the database, so is the new index, because the job's sessions do not set another one. One
/// transaction.
fn in_tablespace(space: Option<&Ident>, statements: Vec<String>) -> Vec<String> {
    let Some(space) = space else { return statements };
    let mut all = vec![format!("set local default_tablespace = {}", literal(space.as_str()))];
    all.extend(statements);
    all.push("set local default_tablespace = ''".to_owned());
    all
}

/// Drops a constraint; of a partitioned table, with those of the partitions.
pub fn drop_constraint(table: &QualifiedName, name: &Ident) -> String {
    format!("alter table {table} drop constraint if exists {name}")
}

/// The search path under which the operators of these schemas are found, after those of the server.
fn operators_path(schemas: &[Ident]) -> String {
    let schemas: String = schemas.iter().map(|schema| format!(", {schema}")).collect();
    format!("pg_catalog{schemas}, pg_temp")
}

/// Runs statements that create objects again from their text, which does not contain the schemas of all operators; see
/// [`crate::model::table::Table::operator_schemas`].
fn with_operators(schemas: &[Ident], statements: Vec<String>) -> Vec<String> {
    if schemas.is_empty() || statements.is_empty() {
        return statements;
    }
    let mut all = vec![format!("set local search_path = {}", operators_path(schemas))];
    all.extend(statements);
    all.push("set local search_path = pg_catalog, pg_temp".to_owned());
    all
}

/// A key column as text that represents the same value with any `DateStyle` and `TimeZone`: when keys are read, the
/// settings for the plan's SQL may be in effect, and when they are sent again, those of the job.
fn key_value(prefix: &str, column: &Column) -> String {
    let name = format!("{prefix}{}", column.name);
    if column.base_type == "date" || column.base_type.starts_with("timestamp") {
        return format!("(pg_catalog.to_jsonb({name}) #>> '{{}}')");
    }
    as_written(&name, column)
}

/// A function body in dollar quotes, with a tag that does not occur in it.
fn dollar_quoted(body: &str) -> String {
    let mut tag = "$pgstrata$".to_owned();
    let mut n = 0;
    while body.contains(&tag) {
        n += 1;
        tag = format!("$pgstrata{n}$");
    }
    format!("{tag}\n{body}\n{tag}")
}

/// The suffixes before and after an exchange.
///
/// `ending` is the direction that ends: a swap ends `Forward`, a rollback ends `Reverse`.
pub fn suffixes(ending: Direction) -> (&'static str, &'static str) {
    match ending {
        Direction::Forward => ("_old", "_new"),
        Direction::Reverse => ("_new", "_old"),
    }
}
