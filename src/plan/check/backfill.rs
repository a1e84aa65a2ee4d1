//! A backfill held against a live table: what is in its way, and what it will do.

use super::{
    Facts, FinishTrial, Relation, Report, finishing, key, listed, names, nearest, no_such_table, rights,
    server,
};
use crate::model::filling::{Filling, NewColumn};
use crate::model::finding::Finding;
use crate::model::ident::{Ident, plain};
use crate::model::table::Table;
use crate::plan::{Backfill, KeepFilled, Plan};

/// What the server says of the plan's SQL, without running it on any row.
#[derive(Debug, Clone, Default)]
pub struct Trial {
    /// It cannot be run: the server's message, and its hint.
    pub refused: Option<(String, Option<String>)>,
    /// It gives another value each time: it calls a function that is declared VOLATILE.
    pub volatile: bool,
    /// Defaults of columns to be added that cannot be had, and why.
    pub defaults_refused: Vec<(Ident, String)>,
    /// Defaults that are not the same for every row.
    pub defaults_volatile: Vec<Ident>,
    /// What it says of what is built in the end, where anything is.
    pub finish: Option<FinishTrial>,
}

/// Every finding that needs no trial, and what the job would do; none where there is an error.
pub fn backfill(plan: &Plan, backfill: &Backfill, facts: &Facts) -> (Vec<Finding>, Option<Filling>) {
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
    rights::of_backfill(&mut report, plan, table, &found.rights, &facts.server);
    let key = key::check(&mut report, table).and_then(|index| index.columns.clone());
    columns(&mut report, backfill, table, key.as_deref().unwrap_or_default());
    finishing::check(&mut report, backfill, found);
    let passed = !report.has_errors();
    let filling = key.filter(|_| passed).map(|key| design(plan, backfill, table, key));
    (report.0, filling)
}

/// What the trial says, and the design with what it taught.
pub fn tried(filling: &mut Filling, trial: &Trial) -> Vec<Finding> {
    let mut report = Report::default();
    let name = filling.table.name.plain();
    if let Some((message, hint)) = &trial.refused {
        let hint = hint.clone().unwrap_or_else(|| {
            "the table is called t; names without a schema are looked for in its schema, then in public"
                .to_owned()
        });
        report.error("sql_refused", &name, format!("the server refuses the plan's SQL: {message}"), hint);
    }
    for (column, message) in &trial.defaults_refused {
        let column = plain(column.as_str());
        let message = format!("the server refuses type or default of {column}: {message}");
        report.error("sql_refused", &column, message, "write add = { column = \"TYPE DEFAULT EXPRESSION\" }");
    }
    if trial.volatile && filling.filter.is_none() {
        report.error(
            "volatile_expression",
            &name,
            "the plan's SQL gives another value each time, so that no row is ever as it would be set"
                .to_owned(),
            "write a where that tells a row that is filled, such as where = \"t.column is null\"",
        );
    }
    for column in &mut filling.add {
        column.volatile = trial.defaults_volatile.contains(&column.name);
        if column.volatile {
            let name = plain(column.name.as_str());
            report.warning(
                "volatile_default",
                &name,
                format!(
                    "the default of {name} differs from row to row: rows that are there already do not get it"
                ),
                format!(
                    "nothing, if set gives {name} its value; it holds for rows that come after the column"
                ),
            );
        }
    }
    report.0.extend(trial.finish.iter().flat_map(|finish| finishing::tried(filling, finish)));
    report.0
}

/// Whether it is a table whose rows can be written, plain or partitioned, or one partition.
fn shape(report: &mut Report, table: &Table) -> bool {
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
