//! Constraints that become something else, and what is said of the table to others than PostgreSQL's core.

use super::dependents::NOT_VALID_ON_PARTITIONED;
use super::{Found, Report};
use crate::model::ident::{Ident, plain};

pub(super) fn check(report: &mut Report, found: &Found, version: i32) {
    let table = &found.table;
    let checks = table.checks.iter().filter(|c| c.no_inherit).map(|c| &c.name);
    for name in checks.chain(&table.not_null_no_inherit) {
        no_inherit(report, name);
    }
    let by_leaf = version < NOT_VALID_ON_PARTITIONED;
    for key in table.foreign_keys.iter().filter(|key| by_leaf && !key.validated) {
        let name = plain(key.name.as_str());
        report.warning(
            "foreign_key_not_valid",
            &name,
            format!("foreign key {name} is NOT VALID: after the swap each partition has it, and the table itself does not"),
            format!("validate it first: alter table {} validate constraint {name}", table.name.plain()),
        );
    }
    labels(report, found);
    for tied in &found.around.tied_to_extensions {
        let (name, extension) = (&tied.name, plain(tied.extension.as_str()));
        report.warning(
            "depends_on_extension",
            name,
            format!("{name} goes when extension {extension} goes; the partitioned table's will not"),
            format!("after the swap: alter {name} depends on extension {extension}"),
        );
    }
}

fn no_inherit(report: &mut Report, name: &Ident) {
    let name = plain(name.as_str());
    report.warning(
        "no_inherit",
        &name,
        format!("constraint {name} is NO INHERIT, which a partitioned table cannot have: it gets it without"),
        "",
    );
}

fn labels(report: &mut Report, found: &Found) {
    let table = found.table.name.plain();
    for label in &found.around.labels {
        let provider = plain(&label.provider);
        let (what, object) = match &label.column {
            Some(column) => ("column", format!("{table}.{}", plain(column.as_str()))),
            None => ("table", table.clone()),
        };
        report.error(
            "security_label",
            &object,
            format!("{what} {object} has a security label for {provider}, and the partitioned table would have none"),
            format!("take it away, and put it on again after the swap: security label for {provider} on {what} {object} is null"),
        );
    }
}
