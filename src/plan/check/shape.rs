//! Checks that the relation is a table that can be partitioned. If not, this is the only finding, because the other
//! checks would not apply.

use super::{Report, nearest};
use crate::model::finding::{Finding, Level};
use crate::model::ident::{QualifiedName, plain};
use crate::model::number;
use crate::model::table::Table;

/// Schemas whose tables do not belong to users.
const OF_OTHERS: [&str; 3] = ["pg_catalog", "information_schema", "pgstrata"];

/// The finding for a table that does not exist, with a suggestion.
pub(in crate::plan) fn no_such_table(name: &QualifiedName, tables: &[QualifiedName]) -> Finding {
    let elsewhere = tables.iter().find(|t| t.name == name.name);
    let in_schema = tables.iter().filter(|t| t.schema == name.schema).map(|t| t.name.as_str());
    let hint = match (elsewhere, nearest(name.name.as_str(), in_schema)) {
        (Some(table), _) => format!("did you mean {}?", table.plain()),
        (None, Some(near)) => format!("did you mean {}.{}?", plain(name.schema.as_str()), plain(near)),
        (None, None) => {
            "write the name as in SQL: schema.table, in double quotes where SQL requires them".to_owned()
        }
    };
    let (code, object) = ("no_such_table", name.plain());
    let message = format!("table {object} does not exist");
    Finding { level: Level::Error, code, object, message, hint }
}

/// Whether it is a user table, plain or partitioned. Adds a finding if not.
pub(super) fn is_table(report: &mut Report, table: &Table) -> bool {
    let (code, what, hint) = match table.relkind.as_str() {
        "r" | "p" if OF_OTHERS.contains(&table.name.schema.as_str()) => {
            ("system_table", "a table of the system or of pgstrata itself", "name a table of your own")
        }
        "r" | "p" if table.persistence == "t" => (
            "temporary_table",
            "a temporary table, which the job's other sessions cannot see",
            "name a permanent table",
        ),
        "r" | "p" => return true,
        "v" => ("is_view", "a view, not a table", "name the table that the view reads"),
        "m" => ("is_view", "a materialized view, not a table", "name the table that the view reads"),
        "f" => (
            "is_foreign_table",
            "a foreign table: its rows are stored on another server",
            "run the job on that server",
        ),
        _ => ("not_a_table", "not a table", "name a table"),
    };
    refuse(report, table, code, what, hint)
}

pub(super) fn refuse(report: &mut Report, table: &Table, code: &'static str, what: &str, hint: &str) -> bool {
    let name = table.name.plain();
    report.error(code, &name, format!("{name} is {what}"), hint);
    false
}

/// Whether it is a plain table that can be partitioned. Adds a finding if not.
pub(super) fn check(report: &mut Report, table: &Table) -> bool {
    if table.relkind == "p" {
        return refuse(
            report,
            table,
            "already_partitioned",
            "already partitioned",
            "to create further partitions, run `pgstrata maintain --table`",
        );
    }
    if !is_table(report, table) {
        return false;
    }
    if table.is_partition {
        let hint = "name the partitioned table, or detach the partition first";
        return refuse(report, table, "is_partition", "itself a partition", hint);
    }
    inheritance(report, table)
}

fn inheritance(report: &mut Report, table: &Table) -> bool {
    let name = table.name.plain();
    if table.children > 0 {
        let children = number::counted(table.children.into(), "inheriting table");
        let message = format!("{name} has {children}, which a partitioned table cannot have");
        let hint = format!("detach each child: alter table <child> no inherit {name}");
        report.error("inheritance_children", &name, message, hint);
    }
    if table.parents > 0 {
        let message = format!("{name} inherits from another table, which a partitioned table cannot");
        let hint = format!("detach it: alter table {name} no inherit <parent>");
        report.error("inheritance_parents", &name, message, hint);
    }
    if table.typed {
        let message = format!(
            "{name} was created OF a composite type, and the partitioned table would \
            lose its link to the type"
        );
        report.error("typed_table", &name, message, format!("alter table {name} not of"));
    }
    if let Some(extension) = &table.extension {
        let extension = plain(extension);
        let message = format!("{name} belongs to extension {extension}, which would lose it at the swap");
        let hint = format!("alter extension {extension} drop table {name}");
        report.error("extension_member", &name, message, hint);
    }
    true
}
