//! Checks a column type change against a live table: which objects depend on the column and cannot be carried over, and
//! what the job will do.

mod effects;
mod facts;

pub use effects::rehearsed;
pub use facts::{ColumnFacts, KeyFacts, Rehearsal, Use};

use super::constraints::label;
use super::key::Nullable;
use super::{Facts, Found, Report, Server, found, key, names, nearest, rights, size};
use crate::model::blueprint::Direction;
use crate::model::finding::Finding;
use crate::model::ident::{Ident, plain, plain_list};
use crate::model::retyping::{CheckPair, Counter, Counterpart, Looks, Retyping, default_cast};
use crate::model::table::{ForeignKey, Table};
use crate::plan::{Plan, Retype};

/// Returns every finding that needs no rehearsal, and what the job would do; none if there is an error.
pub fn retype(
    plan: &Plan,
    retype: &Retype,
    facts: &Facts,
    column: Option<&ColumnFacts>,
) -> (Vec<Finding>, Option<Retyping>) {
    let mut report = Report::default();
    let Some(found) = found(&mut report, plan, facts) else { return (report.0, None) };
    let table = &found.table;
    if !is_plain_table(&mut report, table) || !super::backfill::fillable(&mut report, table) {
        return (report.0, None);
    }
    let under_way = names::jobs(&mut report, plan, table, &facts.jobs);
    names::kept_trigger(&mut report, plan, table, facts);
    rights::of_retype(&mut report, plan, found, column, &facts.server);
    let key = key::check(&mut report, table, Nullable::None, &found.key_nulls)
        .and_then(|index| index.columns.clone());
    let Some(column) = column else {
        no_such_column(&mut report, table, &retype.column);
        return (report.0, None);
    };
    let Some(key) = key else { return (report.0, None) };
    let r = design(plan, retype, found, column, key);
    if !r.column.generated.is_empty() {
        let message = format!("column {} is a generated column", plain(&retype.column));
        report.error(
            "generated_column",
            &retype.column,
            message,
            "change the type of the columns from which it is computed",
        );
    }
    uses(&mut report, table, &retype.column, &column.uses);
    rebound(&mut report, &r, &facts.server.user);
    indexes(&mut report, &r);
    keys(&mut report, &r, &column.keys, &facts.server);
    privileges(&mut report, &r, found, &facts.server);
    surroundings(&mut report, &r, found);
    super::dependents::options(&mut report, found);
    let sequences = table.sequences.iter().filter(|sequence| sequence.column == r.column.name);
    super::dependents::sequences(&mut report, sequences, &table.dependents.defaults);
    if !under_way {
        taken(&mut report, &r, found);
        size::room_for_columns(&mut report, table, &found.size, 1);
    }
    effects::semantics(&mut report, retype, &r);
    effects::size(&mut report, found, &r);
    let passed = !report.has_errors();
    (report.0, passed.then_some(r))
}

fn is_plain_table(report: &mut Report, table: &Table) -> bool {
    let name = table.name.plain();
    let (what, hint) = if table.relkind == "p" {
        (
            "is partitioned",
            "a column type change supports only plain tables: change the type before you partition the table",
        )
    } else if table.is_partition || table.parents > 0 {
        (
            "is a partition or inherits from another table",
            "a column type change supports only plain tables: detach it first",
        )
    } else if table.children > 0 {
        (
            "is inherited by other tables",
            "a column type change supports only plain tables: detach the children first",
        )
    } else if table.typed {
        ("was created OF a composite type", "run: alter table ... not of")
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
        None => format!("the columns are {}", plain_list(table.columns.iter().map(|c| &c.name))),
    };
    report.error("no_such_column", &shown, format!("{} has no column {shown}", table.name.plain()), hint);
}

fn design(plan: &Plan, retype: &Retype, found: &Found, facts: &ColumnFacts, key: Vec<Ident>) -> Retyping {
    let table = &found.table;
    let name = Ident::new(&retype.column);
    // The column exists, because the facts are about it.
    let column = table.column(&name).unwrap_or(&table.columns[0]).clone();
    let has = |key: &&ForeignKey| facts.keys.iter().any(|k| k.name == key.name && k.table == key.table);
    let counter = facts.counter.clone().map(|counter| {
        let sequence = table.sequences.iter().find(|s| s.name == counter.name);
        Counter { grants: sequence.map(|s| s.grants.clone()).unwrap_or_default(), ..counter }
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
        rebound: facts.rebound.clone(),
        casts: retype.using.is_none() || retype.using.as_ref() == Some(&default_cast(&name, &retype.to)),
        comparable: true,
        sql: retype.settings.of_job(&table.name, plan.trust()),
    }
}

fn uses(report: &mut Report, table: &Table, column: &str, uses: &[Use]) {
    let column = plain(column);
    for Use { kind, name } in uses {
        let (what, hint) = match kind.as_str() {
            "pg_publication_rel" => {
                ("lists or filters by", "remove the table from the publication until the job is finalized")
            }
            "pg_attrdef" => (
                "is computed from",
                "drop the generated column before the run, and add it again once the job is \
                 finalized",
            ),
            "pg_trigger" => (
                "has an UPDATE OF or WHEN clause on",
                "until the job is finalized, replace it by a trigger without that clause that tests the condition \
                 in its function",
            ),
            "exclusion" => (
                "is an exclusion constraint on",
                "drop the constraint before the run, and add it again once the job is finalized",
            ),
            _ => (
                "is the replica identity and contains",
                "choose another replica identity until the job is finalized: alter table ... replica identity \
                 default, or full",
            ),
        };
        report.error(
            "column_in_use",
            name,
            format!(
                "{name} {what} column {column} of {} and cannot be carried over to the new column",
                table.name.plain()
            ),
            hint,
        );
    }
}

/// Reports the objects that the exchange redirects to the new column, and what prevents that.
fn rebound(report: &mut Report, r: &Retyping, user: &str) {
    let (column, table) = (plain(r.column.name.as_str()), r.table.name.plain());
    for one in &r.rebound.refused {
        report.error(
            "column_in_use",
            &one.name,
            format!(
                "{} {}: it cannot be carried over to the new column {column} of {table}",
                one.name, one.why
            ),
            "drop it before the run, and create it again once the job is finalized",
        );
    }
    for one in &r.rebound.lacks {
        report.error(
            "missing_privilege",
            &one.name,
            format!("the swap creates {} again, for which role {} needs {}", one.name, plain(user), one.why),
            format!(
                "grant it, or drop {} before the run, and create it again once the job is finalized",
                one.name
            ),
        );
    }
    let names = r.rebound.names();
    if !names.is_empty() {
        report.note(
            "created_again",
            &column,
            format!("the swap creates again, for the new column: {}", names.join(", ")),
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
            refuse(
                "invalid_index",
                "is invalid",
                "drop or rebuild it: drop index concurrently, or reindex index concurrently",
            );
        }
        if !index.deferrable.is_empty() {
            refuse(
                "deferrable_constraint",
                "belongs to a deferrable constraint: the index of the new column would reject immediately \
                 what the constraint allows until commit",
                "drop the constraint, and add it again without DEFERRABLE; it can be deferrable again once the job \
                 is finalized",
            );
        }
        if index.nulls_not_distinct {
            refuse(
                "nulls_not_distinct",
                "is NULLS NOT DISTINCT: after the swap, the old column is NULL in rows whose value the old type cannot represent, and these NULLs would violate the index",
                "create it as NULLS DISTINCT until the job is finalized, or drop it",
            );
        }
    }
}

fn keys(report: &mut Report, r: &Retyping, facts: &[KeyFacts], server: &Server) {
    for key in &r.keys {
        let (name, table) = (plain(key.name.as_str()), key.table.plain());
        let Some(fact) = facts.iter().find(|k| k.name == key.name && k.table == key.table) else { continue };
        if key.from_partitioned && server.version < super::dependents::NOT_VALID_ON_PARTITIONED {
            let message = format!(
                "foreign key {name} belongs to the partitioned table {table}: before PostgreSQL 18, it \
                 cannot be added without reading every row under a lock"
            );
            report.error(
                "foreign_key_of_partitioned",
                &name,
                message,
                "drop it before the run, and add it again once the job is finalized",
            );
        }
        if !fact.owned {
            let message = format!(
                "role {} lacks the privileges of role {}, which owns {table}, and the swap moves its \
                 foreign key {name}",
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
        // For other types, the finding about the foreign key itself has the hint.
        let numbers = ["smallint", "integer", "bigint", "numeric"];
        let widens = [&r.column.sql_type, &r.to].iter().all(|one| numbers.contains(&one.as_str()));
        if key.references == r.table.name && widens && !narrow.is_empty() {
            report.warning(
                "child_keeps_type",
                &table,
                format!(
                    "foreign key {name} of {table} is on a column of type {}, which cannot refer to a \
                    value beyond the range of that type",
                    r.column.sql_type
                ),
                format!(
                    "change the type of that column with a separate job before {} exceeds that \
                    range",
                    plain(r.column.name.as_str())
                ),
            );
        }
    }
}

/// Checks the privileges to create indexes in the table's schema, and to see which sessions hold older snapshots at the
/// swap.
fn privileges(report: &mut Report, r: &Retyping, found: &Found, server: &Server) {
    if !found.rights.sees_sessions {
        let role = plain(&server.user);
        report.warning(
            "sessions_hidden",
            &role,
            format!(
                "role {role} cannot see the snapshots of other roles: after the swap, a transaction \
                whose snapshot is older than the filled rows reads NULL in the column"
            ),
            format!("grant pg_read_all_stats to {role}"),
        );
    }
    if found.rights.schema_create || r.indexes.is_empty() {
        return;
    }
    let (role, schema) = (plain(&server.user), plain(r.table.name.schema.as_str()));
    let message = format!(
        "role {role} lacks CREATE on schema {schema}, in which the indexes of the column are \
            built"
    );
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
                "publication {name} contains {table}: its subscribers would stop at a column that they do \
                 not have"
            ),
            "remove the table from the publication until the job is finalized, and let subscribers copy it again \
             afterwards",
        );
    }
    let on_column = found.around.labels.iter().filter(|l| l.column.as_ref() == Some(&r.column.name));
    on_column.for_each(|one| label(report, &r.table.name, one, "the new column would not have it"));
    let ours = r.filling().fill_trigger();
    for trigger in r.table.triggers.iter().filter(|t| t.enabled != "D") {
        let name = plain(trigger.name.as_str());
        let fires = trigger.fires();
        if trigger.row && fires.starts_with("BEFORE ") && trigger.name > ours {
            let message = format!(
                "trigger {name} fires after the job's trigger {}, which must see the row as {name} leaves \
                 it",
                ours.as_str()
            );
            report.error(
                "trigger_behind",
                &name,
                message,
                "rename it so that it fires first: triggers fire in the order of their names",
            );
        }
        let fires_for_job =
            fires.contains("UPDATE") && !fires.contains("UPDATE OF") && trigger.enabled != "R";
        if fires_for_job && !trigger.ignores_fills() {
            let how_often = if trigger.row { "the job updates each row once" } else { "once for each chunk" };
            report.warning(
                "trigger_fires",
                &name,
                format!(
                    "trigger {name} fires on every update of {table}, including the job's updates: {how_often}"
                ),
                "no action is needed if this is intended; otherwise add WHEN (current_setting('pgstrata.filling', \
                 true) is distinct from 'on')",
            );
        }
    }
}

/// Reports names that the job needs in the table and in its schema, and that are taken.
fn taken(report: &mut Report, r: &Retyping, found: &Found) {
    let table = r.table.name.plain();
    let mut taken = |shown: &str, purpose: String, what: &str| {
        let message = format!("the job needs the name {shown} for {purpose}, but {what} has it");
        report.error("name_taken", shown, message, "rename or drop it");
    };
    for direction in [Direction::Forward, Direction::Reverse] {
        let purpose = match direction {
            Direction::Forward => format!("the new column of {table}"),
            Direction::Reverse => format!("the old column of {table} after the swap"),
        };
        let inactive = r.shadow(direction);
        if r.table.column(&inactive).is_some() {
            taken(&plain(inactive.as_str()), purpose.clone(), "another column");
        }
        let of_checks = r.checks.iter().map(|c| r.counterpart(&c.name, direction));
        for name in of_checks.chain([r.proof()]).filter(|name| r.table.checks.iter().any(|c| c.name == *name))
        {
            taken(&plain(name.as_str()), format!("a constraint of {purpose}"), "another constraint");
        }
        for one in &r.indexes {
            let name = r.counterpart(&one.index.name, direction);
            if let Some(what) = found.names.get(&name) {
                let of = plain(one.index.name.as_str());
                let purpose = format!("the counterpart of index {of} on {purpose}");
                taken(&r.table.name.sibling(name).plain(), purpose, what);
            }
        }
    }
}
