//! A backfill held against a live table: what is in its way, and what it will do.

use super::writing::Writing;
use super::{
    Facts, Relation, Report, finishing, key, listed, names, nearest, no_such_table, rights, server, updates,
};
use crate::model::filling::{Filling, NewColumn};
use crate::model::finding::Finding;
use crate::model::ident::{Ident, plain};
use crate::model::table::Table;
use crate::plan::{Backfill, KeepFilled, Plan};

/// Every finding that needs no trial, and what the job would do; none where there is an error.
pub fn backfill(
    plan: &Plan,
    backfill: &Backfill,
    facts: &Facts,
    writing: &Writing,
) -> (Vec<Finding>, Option<Filling>) {
    let mut report = Report::default();
    server::check(&mut report, plan, &facts.server);
    let found = match &facts.relation {
        Relation::Unread => return (report.0, None),
        Relation::Missing { name, tables } => {
            report.0.push(no_such_table(name, tables));
            return (report.0, None);
        }
        Relation::There(found) => found,
    };
    let table = &found.table;
    if !shape(&mut report, table) {
        return (report.0, None);
    }
    names::jobs(&mut report, plan, table, &facts.jobs);
    rights::of_backfill(&mut report, plan, backfill, found, writing, &facts.server);
    let key = key::check(&mut report, table).and_then(|index| index.columns.clone());
    columns(&mut report, backfill, table, key.as_deref().unwrap_or_default());
    finishing::check(&mut report, backfill, found);
    updates::check(&mut report, backfill, table, writing);
    let passed = !report.has_errors();
    let filling = key.filter(|_| passed).map(|key| design(plan, backfill, table, key));
    (report.0, filling)
}

/// Whether it is a table whose rows can be written, plain or partitioned, or one partition.
pub(super) fn shape(report: &mut Report, table: &Table) -> bool {
    let name = table.name.plain();
    let mut refuse = |code, what: &str, hint: &str| {
        report.error(code, &name, format!("{name} is {what}"), hint);
        false
    };
    match table.relkind.as_str() {
        "r" | "p" => {}
        "v" | "m" => return refuse("is_view", "a view, not a table", "name the table that it reads"),
        "f" => {
            return refuse(
                "is_foreign_table",
                "a foreign table: its rows are on another server",
                "run pgstrata there",
            );
        }
        _ => return refuse("not_a_table", "no table", "name a table"),
    }
    if ["pg_catalog", "information_schema", "pgstrata"].contains(&table.name.schema.as_str()) {
        return refuse("system_table", "a table of the system or of pgstrata", "name a table of your own");
    }
    if table.persistence == "t" {
        return refuse(
            "temporary_table",
            "a temporary table, which other sessions cannot see",
            "name another",
        );
    }
    if table.relkind == "r" && table.children > 0 {
        return refuse(
            "inheritance_children",
            "inherited by other tables, whose rows are no rows of its own",
            "fill each of them with a plan of its own, the children first; or detach them",
        );
    }
    true
}

fn columns(report: &mut Report, backfill: &Backfill, table: &Table, key: &[Ident]) {
    let added = |name: &str| backfill.add.iter().any(|one| one.name == name);
    let object = table.name.plain();
    for one in &backfill.add {
        let there = table.column(&Ident::new(&one.name)).is_some();
        if !there && table.is_partition {
            let message = format!("{object} is a partition: a column can only be added to the whole table");
            report.error("partition_column", plain(&one.name), message, "name the partitioned table");
        }
    }
    for (name, _) in &backfill.set {
        let ident = Ident::new(name);
        let shown = plain(name);
        match table.column(&ident) {
            None if added(name) => {}
            None => {
                let near = nearest(name, table.columns.iter().map(|c| c.name.as_str()));
                let hint = match near {
                    Some(near) => {
                        format!("did you mean {}? or add it: add = {{ {shown} = \"TYPE\" }}", plain(near))
                    }
                    None => format!("add it: add = {{ {shown} = \"TYPE\" }}"),
                };
                report.error("no_such_column", &shown, format!("{object} has no column {shown}"), hint);
            }
            Some(column) if !column.generated.is_empty() => {
                let message = format!("column {shown} is generated: it cannot be set");
                report.error("generated_column", &shown, message, "set the columns that it is made from");
            }
            Some(column) if column.identity == "a" => {
                let message = format!("column {shown} is GENERATED ALWAYS AS IDENTITY: it cannot be set");
                report.error(
                    "identity_column",
                    &shown,
                    message,
                    format!("alter table {object} alter column {shown} set generated by default"),
                );
            }
            Some(_) => {}
        }
        if key.contains(&ident) {
            let message = format!(
                "column {shown} is part of the key ({}), by which rows are gone through",
                listed(key)
            );
            report.error(
                "sets_key",
                &shown,
                message,
                "a key is changed by hand, or by a job of kind \"retype\"",
            );
        }
    }
}

fn design(plan: &Plan, backfill: &Backfill, table: &Table, key: Vec<Ident>) -> Filling {
    let column = |one: &crate::plan::backfill::Added| NewColumn {
        name: Ident::new(&one.name),
        sql_type: one.sql_type.clone(),
        default: one.default.clone(),
        volatile: false,
    };
    Filling {
        job: plan.name().to_owned(),
        table: table.clone(),
        key,
        add: backfill.add.iter().map(column).collect(),
        from: backfill.from.clone(),
        set: backfill.set.iter().map(|(name, value)| (Ident::new(name), value.clone())).collect(),
        filter: backfill.filter.clone(),
        keep_filled: backfill.keep_filled != KeepFilled::No,
        stays: backfill.keep_filled == KeepFilled::Always,
        finish: finishing::finishing(backfill, table),
    }
}
