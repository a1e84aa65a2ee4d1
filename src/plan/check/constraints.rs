//! Checks constraints that cannot be carried over unchanged, security labels, and dependencies on extensions.

use super::dependents::NOT_VALID_ON_PARTITIONED;
use super::words::Words;
use super::{Found, Label, Report};
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::table::{Policy, Table};

pub(super) fn check(report: &mut Report, found: &Found, version: i32) {
    let table = &found.table;
    let checks = table.checks.iter().filter(|c| c.no_inherit).map(|c| &c.name);
    for name in checks.chain(&table.not_null_no_inherit) {
        no_inherit(report, name);
    }
    names_tableoid(report, table);
    for key in table.foreign_keys.iter().filter(|key| key.to_unlogged) {
        let (name, other) = (plain(key.name.as_str()), key.references.plain());
        report.error(
            "foreign_key_to_unlogged",
            &name,
            format!("foreign key {name} refers to {other}, which is unlogged; a partitioned table cannot have such a key"),
            format!("run alter table {other} set logged, which rewrites it and blocks its readers; or drop the key"),
        );
    }
    let by_leaf = version < NOT_VALID_ON_PARTITIONED;
    for key in table.foreign_keys.iter().filter(|key| by_leaf && !key.validated) {
        let name = plain(key.name.as_str());
        report.warning(
            "foreign_key_not_valid",
            &name,
            format!(
                "foreign key {name} is NOT VALID: after the swap, each partition has it, but the \
                partitioned table itself does not"
            ),
            format!("validate it first: alter table {} validate constraint {name}", table.name.plain()),
        );
    }
    let lost = "the partitioned table would not have it";
    found.around.labels.iter().for_each(|one| label(report, &table.name, one, lost));
    for tied in &found.around.tied_to_extensions {
        let (name, extension) = (&tied.name, plain(tied.extension.as_str()));
        report.warning(
            "depends_on_extension",
            name,
            format!(
                "{name} depends on extension {extension}; its counterpart on the partitioned table will \
                 not depend on it"
            ),
            format!("after the swap, run: alter {name} depends on extension {extension}"),
        );
    }
}

/// Reports definitions that use `tableoid`, which is the oid of the partition after the swap.
fn names_tableoid(report: &mut Report, table: &Table) {
    let generated = table.columns.iter().filter(|c| !c.generated.is_empty());
    let generated =
        generated.map(|c| ("generated column", &c.name, c.default.as_deref().unwrap_or_default()));
    let checks = table.checks.iter().map(|c| ("constraint", &c.name, c.definition.as_str()));
    let of_policy = |p: &Policy| [p.using.clone(), p.check.clone()].into_iter().flatten().collect::<Vec<_>>();
    let policies: Vec<(&Ident, String)> =
        table.policies.iter().map(|p| (&p.name, of_policy(p).join(" and "))).collect();
    let policies = policies.iter().map(|(name, text)| ("policy", *name, text.as_str()));
    let triggers = table.triggers.iter().map(|t| ("trigger", &t.name, t.tail.as_str()));
    for (kind, name, text) in generated.chain(checks).chain(policies).chain(triggers) {
        if Words::of(text).has(&["tableoid"]) {
            let what = format!("{kind} {}", plain(name.as_str()));
            report.error(
                "names_tableoid",
                &what,
                format!("{what} uses tableoid, which is the oid of the partition after the swap"),
                "rewrite it without tableoid, or drop it",
            );
        }
    }
}

fn no_inherit(report: &mut Report, name: &Ident) {
    let name = plain(name.as_str());
    report.warning(
        "no_inherit",
        &name,
        format!(
            "constraint {name} is NO INHERIT, which partitioned tables do not support: the \
            partitioned table gets it without NO INHERIT"
        ),
        "",
    );
}

/// Reports a security label that is `lost`. Only a role with the privilege to set labels can restore it.
pub(super) fn label(report: &mut Report, table: &QualifiedName, label: &Label, lost: &str) {
    let (provider, table) = (plain(&label.provider), table.plain());
    let (what, object) = match &label.column {
        Some(column) => ("column", format!("{table}.{}", plain(column.as_str()))),
        None => ("table", table),
    };
    report.error(
        "security_label",
        &object,
        format!("{what} {object} has a security label for {provider}, and {lost}"),
        format!(
            "remove the label and set it again once the job is finalized: security label for {provider} on \
            {what} {object} is null"
        ),
    );
}
