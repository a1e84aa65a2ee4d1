//! A retype held against a live table: what depends on the column and cannot be carried, and what the job will do.

mod facts;
mod meaning;

pub use facts::{ColumnFacts, Key, Rehearsal, Use};
pub use meaning::rehearsed;

use super::constraints::label;
use super::{Facts, Found, Report, Server, found, key, listed, names, nearest, rights, size};
use crate::model::blueprint::Direction;
use crate::model::finding::Finding;
use crate::model::ident::{Ident, plain};
use crate::model::retyping::{CheckPair, Counter, Counterpart, Looks, Retyping, default_cast};
use crate::model::table::{ForeignKey, Table};
use crate::plan::{Plan, Retype};

/// Every finding that needs no rehearsal, and what the job would do; none where there is an error.
pub fn retype(
    plan: &Plan,
    retype: &Retype,
    facts: &Facts,
    column: Option<&ColumnFacts>,
) -> (Vec<Finding>, Option<Retyping>) {
    let mut report = Report::default();
    let Some(found) = found(&mut report, plan, facts) else { return (report.0, None) };
    let table = &found.table;
    if !alone(&mut report, table) || !super::backfill::fillable(&mut report, table) {
        return (report.0, None);
    }
    let under_way = names::jobs(&mut report, plan, table, &facts.jobs);
    rights::of_retype(&mut report, plan, table, &found.rights, &facts.server);
    let key = key::check(&mut report, table).and_then(|index| index.columns.clone());
    let Some(column) = column else {
        no_such_column(&mut report, table, &retype.column);
        return (report.0, None);
    };
    let Some(key) = key else { return (report.0, None) };
    let r = design(plan, retype, found, column, key);
    if !r.column.generated.is_empty() {
        let message = format!("column {} is generated", plain(&retype.column));
        report.error("generated_column", &retype.column, message, "retype the columns that it is made from");
    }
    uses(&mut report, table, &retype.column, &column.uses);
    indexes(&mut report, &r);
    keys(&mut report, &r, &column.keys, &facts.server);
    may_build(&mut report, &r, found, &facts.server);
    surroundings(&mut report, &r, found);
    super::dependents::options(&mut report, found);
    let own = table.sequences.iter().filter(|sequence| sequence.column == r.column.name);
    super::dependents::sequences(&mut report, own, &table.dependents.defaults);
    if !under_way {
        taken(&mut report, &r, found);
        size::room_for_columns(&mut report, table, &found.size, 1);
    }
    meaning::semantics(&mut report, retype, &r);
    meaning::size(&mut report, found, &r);
    let passed = !report.has_errors();
    (report.0, passed.then_some(r))
}

fn alone(report: &mut Report, table: &Table) -> bool {
    let name = table.name.plain();
    let (what, hint) = if table.relkind == "p" {
        ("is partitioned", "this version retypes plain tables only; retype before partitioning")
    } else if table.is_partition || table.parents > 0 {
        ("takes its columns from another table", "this version retypes plain tables only; detach it first")
    } else if table.children > 0 {
        ("is inherited by other tables", "this version retypes plain tables only; detach them first")
    } else if table.typed {
        ("takes its columns from a type", "alter table ... not of")
    } else {
        return true;
    };
    report.error("not_a_plain_table", &name, format!("{name} {what}"), hint);
    false
}

fn no_such_column(report: &mut Report, table: &Table, written: &str) {
    let shown = plain(written);
    let hint = match nearest(written, table.columns.iter().map(|c| c.name.as_str())) {
        Some(near) => format!("did you mean {}?", plain(near)),
        None => format!("it has {}", listed(table.columns.iter().map(|c| &c.name))),
    };
    report.error("no_such_column", &shown, format!("{} has no column {shown}", table.name.plain()), hint);
}

fn design(plan: &Plan, retype: &Retype, found: &Found, facts: &ColumnFacts, key: Vec<Ident>) -> Retyping {
    let table = &found.table;
    let name = Ident::new(&retype.column);
    // The facts are of that column, so it is there.
    let column = table.column(&name).unwrap_or(&table.columns[0]).clone();
    let has = |key: &&ForeignKey| facts.keys.iter().any(|k| k.name == key.name && k.table == key.table);
    let counter = facts.counter.clone().map(|counter| {
        let own = table.sequences.iter().find(|s| s.name == counter.name);
        Counter { grants: own.map(|s| s.grants.clone()).unwrap_or_default(), ..counter }
    });
    let indexes = table.indexes.iter().filter(|i| facts.indexes.contains(&i.name));
    let checks = table.checks.iter().filter(|c| facts.checks.contains(&c.name));
    Retyping {
        job: plan.name().to_owned(),
        table: table.clone(),
        key,
        to: retype.to.clone(),
        new_type: String::new(),
        using: retype.using.clone().unwrap_or_else(|| default_cast(&name, &retype.to)),
        back: retype.back.clone().unwrap_or_else(|| default_cast(&name, &column.sql_type)),
        column,
        looks: Looks {
            comment: facts.comment.clone(),
            storage: facts.storage.clone(),
            compression: facts.compression.clone(),
        },
        indexes: indexes
            .map(|index| Counterpart {
                index: index.clone(),
                tail_new: String::new(),
                tail_old: String::new(),
            })
            .collect(),
        checks: checks
            .map(|check| CheckPair {
                name: check.name.clone(),
                validated: check.validated,
                definition: check.definition.clone(),
                definition_new: String::new(),
                definition_old: String::new(),
            })
            .collect(),
        keys: table.foreign_keys.iter().chain(&table.referenced_by).filter(has).cloned().collect(),
        counter,
        default_new: None,
        casts: retype.using.is_none() || retype.using.as_ref() == Some(&default_cast(&name, &retype.to)),
        comparable: true,
        sql: retype.settings.of_job(&table.name, plan.trust()),
    }
}

fn uses(report: &mut Report, table: &Table, column: &str, uses: &[Use]) {
    let column = plain(column);
    for Use { kind, name } in uses {
        let (what, hint) = match kind.as_str() {
            "pg_rewrite" => (
                "reads",
                "drop it for the run, and make it again after the swap: it is bound to the column's number and type",
            ),
            "pg_policy" => (
                "names",
                "drop the policy for the run, and make it again after the swap; or write it by other columns",
            ),
            "pg_proc" => (
                "has an SQL body that names",
                "write its body as a string (as $$ ... $$), which finds the column by name",
            ),
            "pg_publication_rel" => {
                ("lists or filters by", "take the table out of the publication for the run")
            }
            "pg_statistic_ext" => ("is on", "drop these statistics, and make them again after the swap"),
            "pg_attrdef" => {
                ("is made from", "drop the generated column for the run, and add it again after the swap")
            }
            "pg_trigger" => (
                "has an UPDATE OF or WHEN with",
                "make the trigger without it for the run, and ask in its function",
            ),
            "exclusion" => {
                ("excludes by", "drop the constraint for the run, and add it again after the swap")
            }
            _ => (
                "tells subscribers rows apart by",
                "alter table ... replica identity default, or full, for the run",
            ),
        };
        report.error(
            "column_in_use",
            name,
            format!(
                "{name} {what} column {column} of {}, and cannot be carried to the new column",
                table.name.plain()
            ),
            hint,
        );
    }
}

fn indexes(report: &mut Report, r: &Retyping) {
    for Counterpart { index, .. } in &r.indexes {
        let name = plain(index.name.as_str());
        let mut refuse = |code, what: &str, hint: &str| {
            report.error(code, &name, format!("index {name} {what}"), hint);
        };
        if !index.valid {
            refuse("invalid_index", "is not valid", "drop it, or reindex it");
        }
        if !index.deferrable.is_empty() {
            refuse(
                "deferrable_constraint",
                "is of a deferrable constraint: the new column's index would refuse at once what that lets pass until the commit",
                "make the constraint not deferrable for the run",
            );
        }
        if index.nulls_not_distinct {
            refuse(
                "nulls_not_distinct",
                "takes two NULLs for the same: rows without a value on the way back would collide",
                "make it nulls distinct for the run, or drop it",
            );
        }
    }
}

fn keys(report: &mut Report, r: &Retyping, facts: &[Key], server: &Server) {
    for key in &r.keys {
        let (name, table) = (plain(key.name.as_str()), key.table.plain());
        let Some(fact) = facts.iter().find(|k| k.name == key.name && k.table == key.table) else { continue };
        if key.from_partitioned && server.version < super::dependents::NOT_VALID_ON_PARTITIONED {
            let message = format!(
                "foreign key {name} of {table}, a partitioned table, cannot be added without a look at every row"
            );
            report.error(
                "foreign_key_of_partitioned",
                &name,
                message,
                "drop it for the run, and add it again after the swap",
            );
        }
        if !fact.owned {
            let message = format!(
                "role {} lacks the rights of {}, who owns {table}, whose foreign key {name} the swap moves",
                plain(&server.user),
                plain(fact.owner.as_str())
            );
            report.error(
                "missing_privilege",
                &table,
                message,
                format!("grant {} to {}", plain(fact.owner.as_str()), plain(&server.user)),
            );
        }
        let narrow: Vec<&str> = fact
            .columns
            .iter()
            .map(String::as_str)
            .filter(|t| *t == r.column.sql_type && *t != r.to)
            .collect();
        // Of other types, the error on the key itself says what is to be done.
        let numbers = ["smallint", "integer", "bigint", "numeric"];
        let widens = [&r.column.sql_type, &r.to].iter().all(|one| numbers.contains(&one.as_str()));
        if key.references == r.table.name && widens && !narrow.is_empty() {
            report.warning(
                "child_keeps_type",
                &table,
                format!("foreign key {name} of {table} goes from a column of type {}: it can refer to no value beyond that type", r.column.sql_type),
                format!("retype that column by a job of its own, before {} needs the room", plain(r.column.name.as_str())),
            );
        }
    }
}

/// Indexes are made in the table's schema; and the swap asks who holds an older snapshot.
fn may_build(report: &mut Report, r: &Retyping, found: &Found, server: &Server) {
    if !found.rights.sees_sessions {
        let role = plain(&server.user);
        report.warning(
            "sessions_hidden",
            &role,
            format!("role {role} cannot see other roles' snapshots: one older than the filled rows reads NULL in the column after the swap"),
            format!("grant pg_read_all_stats to {role}"),
        );
    }
    if found.rights.schema_create || r.indexes.is_empty() {
        return;
    }
    let (role, schema) = (plain(&server.user), plain(r.table.name.schema.as_str()));
    let message =
        format!("role {role} lacks CREATE on schema {schema}, where the column's indexes are built");
    report.error("missing_privilege", &schema, message, format!("grant create on schema {schema} to {role}"));
}

fn surroundings(report: &mut Report, r: &Retyping, found: &Found) {
    let table = r.table.name.plain();
    for publication in &found.around.publications {
        let name = plain(publication.name.as_str());
        report.error(
            "published",
            &name,
            format!(
                "publication {name} has {table}: its subscribers would stop at a column that they do not have"
            ),
            "take the table out of the publication for the run, and let subscribers copy it anew",
        );
    }
    let on_column = found.around.labels.iter().filter(|l| l.column.as_ref() == Some(&r.column.name));
    on_column.for_each(|one| label(report, &r.table.name, one, "the new column would have none"));
    let ours = r.filling().fill_trigger();
    for trigger in r.table.triggers.iter().filter(|t| t.row && t.enabled != "D") {
        let name = plain(trigger.name.as_str());
        let fires = trigger.fires();
        if fires.starts_with("BEFORE ") && trigger.name > ours {
            let message = format!(
                "trigger {name} fires behind ours, {}, which has to see what it makes of the row",
                ours.as_str()
            );
            report.error(
                "trigger_behind",
                &name,
                message,
                "rename it: triggers fire in the order of their names",
            );
        }
        if fires.contains("UPDATE") && !fires.contains("UPDATE OF") && trigger.enabled != "R" {
            report.warning(
                "trigger_fires",
                &name,
                format!("trigger {name} fires on every update of a row of {table}, the job's too: each row is updated once"),
                "nothing, if it may; else give it WHEN (current_setting('pgstrata.filling', true) is distinct from 'on')",
            );
        }
    }
}

/// Names that the job takes in the table and in its schema.
fn taken(report: &mut Report, r: &Retyping, found: &Found) {
    let table = r.table.name.plain();
    for direction in [Direction::Forward, Direction::Reverse] {
        let beside = r.beside(direction);
        if r.table.column(&beside).is_some() {
            let shown = plain(beside.as_str());
            report.error(
                "name_taken",
                &shown,
                format!("{table} has a column {shown} already, the name that the job needs"),
                "rename or drop it",
            );
        }
        let of_checks = r.checks.iter().map(|c| r.counterpart(&c.name, direction));
        for name in of_checks.chain([r.proof()]).filter(|name| r.table.checks.iter().any(|c| c.name == *name))
        {
            let shown = plain(name.as_str());
            report.error(
                "name_taken",
                &shown,
                format!("{table} has a constraint {shown} already, the name that the job needs"),
                "rename or drop it",
            );
        }
        for one in &r.indexes {
            let name = r.counterpart(&one.index.name, direction);
            if let Some(what) = found.names.get(&name) {
                let shown = r.table.name.sibling(name).plain();
                report.error(
                    "name_taken",
                    &shown,
                    format!(
                        "{what} is called {shown}, the name that index {} needs beside",
                        plain(one.index.name.as_str())
                    ),
                    "rename or drop it",
                );
            }
        }
    }
}
