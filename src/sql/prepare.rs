//! The target: a partitioned table like the source, and its partitions. No index yet: building them after the copy is
//! faster, and a duplicate that the copy made can then be scrubbed.

use crate::model::blueprint::{Blueprint, Partition};
use crate::model::ident::{Ident, QualifiedName, literal};
use crate::model::table::{Column, Grant, Policy, Table, Trigger};

/// Creates the target and everything on it that costs no time. One transaction.
pub fn target(b: &Blueprint) -> Vec<String> {
    let (target, table) = (b.target(), &b.table);
    let tablespace = table.tablespace.as_ref().map_or(String::new(), |name| format!(" tablespace {name}"));
    // `INCLUDING ALL` would fail on the key, clone invalid indexes as valid and validate what is not.
    let mut all = vec![format!(
        "create table {target} (like {} including defaults including generated including identity including storage \
         including compression including comments) partition by range ({}){tablespace}",
        table.name, b.by
    )];
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
    }
    all.push(format!("alter table {target} owner to {}", table.owner));
    if let Some(comment) = &table.comment {
        all.push(format!("comment on table {target} is {}", literal(comment)));
    }
    for check in table.checks.iter().filter(|c| c.validated) {
        all.push(format!("alter table {target} add constraint {} {}", check.name, check.definition));
    }
    all.extend(statistics_targets(table, &target));
    all.extend(grants(b));
    if table.row_security {
        all.push(format!("alter table {target} enable row level security"));
    }
    all.extend(table.policies.iter().map(|p| policy(&target, p)));
    all.extend(table.triggers.iter().flat_map(|t| trigger(&target, t)));
    all
}

/// The target's privileges and those of its identities' sequences: the source's.
fn grants(b: &Blueprint) -> Vec<String> {
    let target = b.target();
    let mut all = vec![revoke(&target)];
    all.extend(b.table.grants.iter().map(|g| grant(&target, g)));
    for sequence in b.table.sequences.iter().filter(|s| s.identity) {
        let name = sequence.name.sibling(sequence.name.name.with_suffix("_new"));
        all.push(revoke(&name));
        all.extend(sequence.grants.iter().map(|g| grant(&name, g)));
    }
    all
}

/// Takes away what default privileges gave to others than the owner. A partition keeps nothing else: nobody may go round
/// the privileges and policies of the table, which hold for whoever asks the table and not its partition.
pub(super) fn revoke(relation: &QualifiedName) -> String {
    let name = literal(&relation.to_string());
    let body = format!(
        "declare
  holder text;
begin
  for holder in
    select distinct case a.grantee when 0 then 'public' else a.grantee::regrole::text end
    from pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a where c.oid = {name}::regclass and a.grantee <> c.relowner
  loop
    execute format('revoke all on %s from %s', {name}, holder);
  end loop;
end"
    );
    format!("do {}", super::dollar_quoted(&body))
}

pub(super) fn grant(table: &QualifiedName, grant: &Grant) -> String {
    let column = grant.column.as_ref().map_or(String::new(), |c| format!(" ({c})"));
    let role = grant.role.as_ref().map_or("public".to_owned(), ToString::to_string);
    let option = if grant.grantable { " with grant option" } else { "" };
    format!("grant {}{column} on {table} to {role}{option}", grant.privilege.to_lowercase())
}

pub(super) fn policy(table: &QualifiedName, p: &Policy) -> String {
    let roles = if p.roles.is_empty() {
        "public".to_owned()
    } else {
        p.roles.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let kind = if p.permissive { "permissive" } else { "restrictive" };
    let mut sql =
        format!("create policy {} on {table} as {kind} for {} to {roles}", p.name, p.command.to_lowercase());
    if let Some(using) = &p.using {
        sql.push_str(&format!(" using ({using})"));
    }
    if let Some(check) = &p.check {
        sql.push_str(&format!(" with check ({check})"));
    }
    sql
}

/// A user trigger, made and put out of force in one transaction: it must not fire for the copy.
fn trigger(table: &QualifiedName, t: &Trigger) -> [String; 2] {
    [format!("{}{table}{}", t.head, t.tail), format!("alter table {table} disable trigger {}", t.name)]
}

/// Creates one partition: as its own table, then attached, so that it can be made with nobody waiting.
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
    let unlogged = if table.persistence == "u" { "unlogged " } else { "" };
    let mut all = vec![
        format!("create {unlogged}table {name} partition of {} {values}{with}", b.target()),
        format!("alter table {name} owner to {}", table.owner),
        revoke(name),
    ];
    // A partition does not get them from the table.
    all.extend(statistics_targets(table, name));
    all
}

/// The storage parameters of a leaf, as they stand behind its definition.
pub(super) fn with(table: &Table) -> String {
    let toast = table.toast_options.iter().map(|o| format!("toast.{o}"));
    let options: Vec<String> = table.options.iter().cloned().chain(toast).map(|o| option(&o)).collect();
    if options.is_empty() { String::new() } else { format!(" with ({})", options.join(", ")) }
}

/// How closely ANALYZE is to look at columns.
pub(super) fn statistics_targets(table: &Table, relation: &QualifiedName) -> Vec<String> {
    let set = |column: &Column, n: i32| {
        format!("alter table {relation} alter column {} set statistics {n}", column.name)
    };
    let columns = table.columns.iter();
    columns.filter_map(|c| c.statistics.filter(|n| *n >= 0).map(|n| set(c, n))).collect()
}

/// `name=value` as the catalog keeps it, as SQL takes it.
pub(super) fn option(text: &str) -> String {
    match text.split_once('=') {
        Some((name, value)) => match name.split_once('.') {
            Some((space, name)) => format!("{space}.{} = {}", Ident::new(name), literal(value)),
            None => format!("{} = {}", Ident::new(name), literal(value)),
        },
        None => text.to_owned(),
    }
}

/// A bound as SQL takes it: a literal, or the key words.
fn bound(text: &str) -> String {
    match text {
        "minvalue" | "maxvalue" => text.to_owned(),
        _ => literal(text),
    }
}
