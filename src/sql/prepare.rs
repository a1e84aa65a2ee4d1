//! The target: a partitioned table with the definition of the source, and its partitions. It has no indexes: it is
//! faster to build them after the copy, and the scrub can first delete duplicates of the copy.

use crate::model::blueprint::{Blueprint, Partition};
use crate::model::grant::{Grant, RowType};
use crate::model::ident::{Ident, QualifiedName, literal, plain};
use crate::model::table::{Column, Policy, Sequence, Table, Trigger};

use super::definition::requalified;
use super::not_null;
use super::strip::strip;
use super::with_operators;

/// Creates the target and its objects, except those that take long to build. One transaction.
pub fn target(b: &Blueprint) -> Vec<String> {
    parts(b).into_iter().flat_map(|part| part.statements).collect()
}

/// The statements that create one object.
#[derive(Debug)]
pub struct Part {
    /// The object in readable form: `trigger touch`.
    pub what: String,
    /// The statements, in order.
    pub statements: Vec<String>,
}

impl Part {
    pub(super) fn new(kind: &str, name: &Ident, statements: impl IntoIterator<Item = String>) -> Self {
        Self {
            what: format!("{kind} {}", plain(name.as_str())),
            statements: statements.into_iter().collect(),
        }
    }
}

/// The objects of the target, in the order in which they can be created.
pub fn parts(b: &Blueprint) -> Vec<Part> {
    let (target, table) = (b.target(), &b.table);
    let name = &table.name.name;
    let mut all = vec![Part::new("table", name, empty_target(b))];
    let again = |statements: Vec<String>| with_operators(&table.operator_schemas, statements);
    for check in b.early_checks() {
        let add = format!("alter table {target} add constraint {} {}", check.name, check.definition);
        all.push(Part::new("constraint", &check.name, again(vec![add])));
    }
    let required = b.not_null.iter();
    all.extend(required.map(|c| Part::new("NOT NULL of column", c, not_null::of_target(b, c))));
    // Otherwise, partitions would accept NULL.
    let inherit = |name: &Ident| format!("alter table {target} alter constraint {name} inherit");
    all.extend(table.not_null_no_inherit.iter().map(|name| Part::new("constraint", name, [inherit(name)])));
    all.push(Part::new("statistics targets of", name, statistics_targets(table, &target, true)));
    for s in &table.dependents.statistics {
        all.push(Part::new("statistics", &s.name.name, again(super::dependent::statistics_of(b, s))));
    }
    all.push(Part::new("privileges on", name, grants(b)));
    let row_type = row_type(&table.owner, &target, table.row_type.as_ref());
    all.push(Part::new("row type of", name, row_type));
    if table.row_security {
        let enable = format!("alter table {target} enable row level security");
        all.push(Part::new("row-level security of", name, [enable]));
    }
    let policies = table.policies.iter();
    all.extend(policies.map(|p| Part::new("policy", &p.name, again(vec![policy(&target, name, p)]))));
    let triggers = table.triggers.iter();
    all.extend(triggers.map(|t| Part::new("trigger", &t.name, again(trigger(&target, t).into()))));
    all
}

/// The partitioned table itself, with its columns.
fn empty_target(b: &Blueprint) -> Vec<String> {
    let (target, table) = (b.target(), &b.table);
    let tablespace = table.tablespace.as_ref().map_or(String::new(), |name| format!(" tablespace {name}"));
    // INCLUDING ALL would fail for the key, copy invalid indexes as valid, and copy constraints that are not valid as
    // valid.
    let mut all = vec![format!(
        "create table {target} (like {} including defaults including generated including identity including storage \
         including compression including comments) partition by range ({}){tablespace}",
        table.name, b.by
    )];
    all.push(strip(&target, table.columns.iter().map(|c| &c.name), []));
    for sequence in table.sequences.iter().filter(|s| s.identity) {
        all.push(format!(
            "do {}",
            super::dollar_quoted(&format!(
                "begin\n  execute format('alter sequence %s rename to %I', pg_catalog.pg_get_serial_sequence({}, {}), {});\nend",
                literal(&target.to_string()),
                literal(sequence.column.as_str()),
                literal(sequence.name.name.with_suffix("_new").as_str()),
            ))
        ));
        // LIKE gives the sequence the type bigint, regardless of the type of the column.
        if let Some(options) = sequence.options.as_ref().filter(|o| o.sql_type != "bigint") {
            let name = sequence.name.sibling(sequence.name.name.with_suffix("_new"));
            all.push(format!("alter sequence {name} as {}", options.sql_type));
        }
    }
    all.push(format!("alter table {target} owner to {}", table.owner));
    if let Some(comment) = &table.comment {
        all.push(format!("comment on table {target} is {}", literal(comment)));
    }
    all
}

/// The privileges of the target and of its identity sequences, which are those of the source.
fn grants(b: &Blueprint) -> Vec<String> {
    let target = b.target();
    let mut all = vec![revoke(&target)];
    if !b.table.default_privileges {
        all.push(format!("revoke all on {target} from {}", b.table.owner));
    }
    all.extend(b.table.grants.iter().flat_map(|g| grant(&b.table.owner, &target, g)));
    for sequence in b.table.sequences.iter().filter(|s| s.identity) {
        let name = sequence.name.sibling(sequence.name.name.with_suffix("_new"));
        all.extend(of_sequence(&b.table.owner, &name, sequence));
    }
    all
}

/// Gives the sequence `name` the privileges of `sequence`.
pub(super) fn of_sequence(owner: &Ident, name: &QualifiedName, sequence: &Sequence) -> Vec<String> {
    let mut all = vec![revoke(name)];
    if !sequence.default_privileges {
        all.push(format!("revoke all on sequence {name} from {owner}"));
    }
    all.extend(sequence.grants.iter().flat_map(|g| grant(owner, name, g)));
    all
}

/// Revokes all privileges from all roles except the owner, including those on columns and those that were granted with
/// a grant option. A new object has the default privileges. On a partition, no privileges remain: queries on a
/// partition would bypass the privileges and policies of the table.
pub(super) fn revoke(relation: &QualifiedName) -> String {
    let name = literal(&relation.to_string());
    let body = format!(
        "declare
  holder text;
begin
  for holder in
    select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end
    from pg_catalog.pg_class c, lateral (
      select x.grantee from pg_catalog.aclexplode(c.relacl) x
      union
      select x.grantee from pg_catalog.pg_attribute t, pg_catalog.aclexplode(t.attacl) x where t.attrelid = c.oid
    ) a
    where c.oid = {name}::regclass and a.grantee <> c.relowner
  loop
    execute format('revoke all on %s from %s cascade', {name}, holder);
  end loop;
end"
    );
    format!("do {}", super::dollar_quoted(&body))
}

/// Gives the row type of a new relation, which has the default privileges, the properties of another row type.
pub(super) fn row_type(owner: &Ident, relation: &QualifiedName, row_type: Option<&RowType>) -> Vec<String> {
    let Some(row_type) = row_type else { return Vec::new() };
    let mut all = Vec::new();
    if !row_type.default_privileges {
        all.extend(row_type_privileges(owner, relation, row_type));
    }
    all.extend(row_type.comment.as_deref().map(|text| row_type_comment(relation, Some(text))));
    all
}

/// Revokes all privileges on the row type of `relation`, and grants those of another row type.
pub(super) fn row_type_privileges(
    owner: &Ident,
    relation: &QualifiedName,
    row_type: &RowType,
) -> Vec<String> {
    let name = literal(&relation.to_string());
    let body = format!(
        "declare
  holder text;
begin
  for holder in
    select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end
    from pg_catalog.pg_type t, pg_catalog.aclexplode(coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner))) a
    where t.typrelid = {name}::regclass
  loop
    execute format('revoke all on type %s from %s cascade', {name}, holder);
  end loop;
end"
    );
    let mut all = vec![format!("do {}", super::dollar_quoted(&body))];
    if row_type.default_privileges {
        all.push(format!("grant usage on type {relation} to public, {owner}"));
    }
    let on = format!("type {relation}");
    all.extend(row_type.grants.iter().flat_map(|g| grant(owner, &on, g)));
    all
}

/// Sets the comment on the row type of `relation`.
pub(super) fn row_type_comment(relation: &QualifiedName, comment: Option<&str>) -> String {
    format!("comment on type {relation} is {}", comment.map_or("null".to_owned(), literal))
}

/// Grants a privilege as its original grantor, so that a privilege that another role granted is revoked with the
/// privilege of that role.
pub(super) fn grant(owner: &Ident, on: &impl std::fmt::Display, grant: &Grant) -> Vec<String> {
    let column = grant.column.as_ref().map_or(String::new(), |c| format!(" ({c})"));
    let role = grant.role.as_ref().map_or("public".to_owned(), ToString::to_string);
    // The owner cannot be granted a grant option.
    let owners = grant.role.as_ref() == Some(owner);
    let option = if grant.grantable && !owners { " with grant option" } else { "" };
    let statement = format!("grant {}{column} on {on} to {role}{option}", grant.privilege.to_lowercase());
    if grant.grantor == *owner {
        return vec![statement];
    }
    vec![format!("set local role {}", grant.grantor), statement, "reset role".to_owned()]
}

/// Creates the policy on `table`. Its expressions refer to the table as `own`.
pub(super) fn policy(table: &QualifiedName, own: &Ident, p: &Policy) -> String {
    let roles = if p.roles.is_empty() {
        "public".to_owned()
    } else {
        p.roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let kind = if p.permissive { "permissive" } else { "restrictive" };
    let mut sql =
        format!("create policy {} on {table} as {kind} for {} to {roles}", p.name, p.command.to_lowercase());
    for (word, expression) in [("using", &p.using), ("with check", &p.check)] {
        if let Some(expression) = expression {
            sql.push_str(&format!(" {word} ({})", requalified(expression, own, &table.name)));
        }
    }
    sql
}

/// Creates a user trigger and disables it in the same transaction, because it must not fire for the copy.
pub(super) fn trigger(table: &QualifiedName, t: &Trigger) -> [String; 2] {
    [format!("{}{table}{}", t.head, t.tail), format!("alter table {table} disable trigger {}", t.name)]
}

/// Creates one partition as a separate table and then attaches it, so that no session waits.
pub fn partition(b: &Blueprint, partition: &Partition) -> Vec<String> {
    let values = format!("for values from ({}) to ({})", bound(&partition.from), bound(&partition.to));
    leaf(b, &partition.name, &values)
}

/// Creates the default partition.
pub fn default_partition(b: &Blueprint, name: &QualifiedName) -> Vec<String> {
    leaf(b, name, "default")
}

fn leaf(b: &Blueprint, name: &QualifiedName, values: &str) -> Vec<String> {
    let table = &b.table;
    let with = with(table);
    let using = table.access_method.as_ref().map_or(String::new(), |name| format!(" using {name}"));
    let unlogged = if table.persistence == "u" { "unlogged " } else { "" };
    let mut all = vec![
        format!("create {unlogged}table {name} partition of {} {values}{using}{with}", b.target()),
        strip(name, [], []),
        format!("alter table {name} owner to {}", table.owner),
        revoke(name),
    ];
    // A partition does not inherit statistics targets from the table.
    all.extend(statistics_targets(table, name, false));
    all
}

/// The WITH clause of a leaf with its storage parameters.
pub(super) fn with(table: &Table) -> String {
    let toast = table.toast_options.iter().map(|o| format!("toast.{o}"));
    let options: Vec<String> = table.options.iter().cloned().chain(toast).map(|o| option(&o)).collect();
    if options.is_empty() { String::new() } else { format!(" with ({})", options.join(", ")) }
}

/// Statistics targets and n_distinct options of columns.
pub(super) fn statistics_targets(table: &Table, relation: &QualifiedName, of_all: bool) -> Vec<String> {
    let alter =
        |column: &Column, what: String| format!("alter table {relation} alter column {} {what}", column.name);
    let mut all = Vec::new();
    for column in &table.columns {
        all.extend(column.statistics.map(|n| alter(column, format!("set statistics {n}"))));
        let mut options: Vec<String> = column.options.iter().map(|o| option(o)).collect();
        if of_all && let Some(n) = n_distinct_inherited(column) {
            options.push(option(&format!("n_distinct_inherited={n}")));
        }
        if !options.is_empty() {
            all.push(alter(column, format!("set ({})", options.join(", "))));
        }
    }
    all
}

/// The option `n_distinct_inherited` that the column of the target gets in addition to its options: ANALYZE of a
/// partitioned table includes the rows of all partitions, and ignores `n_distinct`.
pub(super) fn n_distinct_inherited(column: &Column) -> Option<&str> {
    let set = column.options.iter().any(|o| o.starts_with("n_distinct_inherited="));
    column.options.iter().find_map(|o| o.strip_prefix("n_distinct=")).filter(|_| !set)
}

/// An option `name=value` from the catalog, in SQL syntax.
pub(super) fn option(text: &str) -> String {
    match text.split_once('=') {
        Some((name, value)) => match name.split_once('.') {
            Some((space, name)) => format!("{space}.{} = {}", Ident::new(name), literal(value)),
            None => format!("{} = {}", Ident::new(name), literal(value)),
        },
        None => text.to_owned(),
    }
}

/// A bound in SQL syntax: a literal, or a keyword.
fn bound(text: &str) -> String {
    match text {
        "minvalue" | "maxvalue" => text.to_owned(),
        _ => literal(text),
    }
}
