//! Privileges that a job grants again, on objects that it creates again, as the roles that granted them.

use super::grant::{Grant, RowType};
use super::ident::{Ident, QualifiedName};
use super::rebound::Rebound;
use super::table::Table;

/// A privilege that a role other than the owner granted, and that a job grants again as that role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrantedAgain {
    /// The grantor.
    pub grantor: Ident,
    /// The schema of the object: the server looks the object up with the privileges of the grantor.
    pub schema: Ident,
    /// The object, as SQL.
    pub on: String,
}

/// What a partition job grants again: on the table, its row type and its identity sequences, and on the materialized views and
/// functions that are created again.
pub fn of_partition_job(table: &Table) -> Vec<GrantedAgain> {
    let mut all = on_relation(&table.name, &table.owner, table.grants.iter());
    all.extend(on_row_type(&table.name, &table.owner, table.row_type.as_ref()));
    for sequence in table.sequences.iter().filter(|s| s.identity) {
        all.extend(on_relation(&sequence.name, &table.owner, sequence.grants.iter()));
    }
    for m in &table.dependents.matviews {
        all.extend(on_relation(&m.view.name, &m.view.owner, m.grants.iter()));
        all.extend(on_row_type(&m.view.name, &m.view.owner, m.row_type.as_ref()));
    }
    for f in &table.dependents.row_functions {
        all.extend(on_object(&f.schema, &f.name, &f.owner, f.grants.iter()));
    }
    each_once(all)
}

/// What a column type change grants again: on the column and its identity sequence, and on the views and materialized views
/// that are created again.
pub fn of_retype(table: &Table, column: &Ident, rebound: &Rebound) -> Vec<GrantedAgain> {
    let own = table.grants.iter().filter(|g| g.column.as_ref() == Some(column));
    let mut all = on_relation(&table.name, &table.owner, own);
    for sequence in table.sequences.iter().filter(|s| s.identity && s.column == *column) {
        all.extend(on_relation(&sequence.name, &table.owner, sequence.grants.iter()));
    }
    for v in &rebound.views {
        all.extend(on_relation(&v.name, &v.owner, v.grants.iter()));
        all.extend(on_row_type(&v.name, &v.owner, v.row_type.as_ref()));
    }
    for m in table.dependents.matviews.iter().filter(|m| rebound.matviews.contains(&m.view.name)) {
        all.extend(on_relation(&m.view.name, &m.view.owner, m.grants.iter()));
        all.extend(on_row_type(&m.view.name, &m.view.owner, m.row_type.as_ref()));
    }
    each_once(all)
}

fn on_relation<'a>(
    name: &QualifiedName,
    owner: &Ident,
    grants: impl Iterator<Item = &'a Grant>,
) -> Vec<GrantedAgain> {
    on_object(&name.schema, &name.plain(), owner, grants)
}

fn on_row_type(name: &QualifiedName, owner: &Ident, row_type: Option<&RowType>) -> Vec<GrantedAgain> {
    let grants = row_type.into_iter().flat_map(|row_type| &row_type.grants);
    on_object(&name.schema, &format!("type {}", name.plain()), owner, grants)
}

fn on_object<'a>(
    schema: &Ident,
    on: &str,
    owner: &Ident,
    grants: impl Iterator<Item = &'a Grant>,
) -> Vec<GrantedAgain> {
    let again =
        |g: &Grant| GrantedAgain { grantor: g.grantor.clone(), schema: schema.clone(), on: on.to_owned() };
    grants.filter(|g| g.grantor != *owner).map(again).collect()
}

fn each_once(mut all: Vec<GrantedAgain>) -> Vec<GrantedAgain> {
    all.sort();
    all.dedup();
    all
}
