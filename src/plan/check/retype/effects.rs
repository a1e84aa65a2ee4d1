//! Findings about the effects of the new type, and about what the server rejects.

use super::super::{Found, Report, Server, Writes, named, table_tried};
use super::Rehearsal;
use crate::model::blueprint::Direction;
use crate::model::finding::Finding;
use crate::model::ident::{Ident, plain};
use crate::model::number;
use crate::model::retyping::{Retyping, default_cast};
use crate::plan::Retype;

/// The findings of the rehearsal.
pub fn rehearsed(r: &Retyping, rehearsal: &Rehearsal, server: &Server) -> Vec<Finding> {
    let mut report = Report::default();
    let column = format!("{}.{}", r.table.name.plain(), plain(r.column.name.as_str()));
    if rehearsal.no_scratch {
        report.error(
            "missing_privilege",
            plain(&server.database),
            format!(
                "role {} lacks TEMPORARY on database {}: the check tests the new type on a temporary \
                table",
                plain(&server.user),
                plain(&server.database)
            ),
            format!("grant temporary on database {} to {}", plain(&server.database), plain(&server.user)),
        );
    }
    refused(&mut report, r, rehearsal, &column);
    if rehearsal.type_refused.is_none() && !r.only_widens() {
        let unique: Vec<&Ident> =
            r.indexes.iter().filter(|one| one.index.unique).map(|one| &one.index.name).collect();
        if r.column.not_null || !unique.is_empty() || !r.checks.is_empty() {
            report.warning(
                "refused_early",
                &column,
                "from the index phase on, writes fail if `using` cannot convert the value, or if the \
                 converted value violates a NOT NULL, UNIQUE or CHECK constraint of the column"
                    .to_owned(),
                "no action is needed if applications write no such values; after the swap, the column would reject them in any case",
            );
        }
    }
    report.0.extend(named(&rehearsal.named, &r.sql, &r.table.name.plain()));
    if rehearsal.same_type {
        let message = format!("column {column} already has type {}", r.new_type);
        report.error("already_that_type", &column, message, "correct `column` or `to` under [retype]");
    }
    report.0.extend(table_tried(&r.table, &rehearsal.rows, Writes::Updates));
    report.0
}

/// Reports what the server rejects.
fn refused(report: &mut Report, r: &Retyping, rehearsal: &Rehearsal, column: &str) {
    if let Some(message) = &rehearsal.type_refused {
        report.error(
            "type_refused",
            &r.to,
            format!("the server rejects the type: {message}"),
            "write the type as in SQL: to = \"bigint\"",
        );
    }
    for (which, message) in &rehearsal.sql_refused {
        let hint = match *which {
            "using" => {
                format!(
                    "write using = \"...\" as an expression on t, such as {}",
                    default_cast(&r.column.name, &r.to)
                )
            }
            _ => format!(
                "write back = \"...\" as an expression on t, in which the column has type {}; \
                a rollback uses it",
                r.to
            ),
        };
        report.error("sql_refused", column, format!("the server rejects {which}: {message}"), hint);
    }
    for which in &rehearsal.volatile {
        let message = format!(
            "{which} returns a different value at each evaluation, so the columns would \
            never be in sync"
        );
        report.error(
            "volatile_expression",
            column,
            message,
            "write an expression that depends only on the values of the row",
        );
    }
    for (what, message) in &rehearsal.refused {
        report.error(
            "not_in_new_type",
            what,
            format!("{what} is not possible on {}: {message}", r.to),
            "drop it before the run, and create a suitable one for the new type once the job is finalized",
        );
    }
    for (key, columns, referenced) in &rehearsal.keys_refused {
        let (name, table) = (plain(key.name.as_str()), key.table.plain());
        report.error(
            "foreign_key_types",
            &name,
            format!(
                "foreign key {name} of {table} would be between ({}) and ({}), and the server does not \
                 support that",
                columns.join(", "),
                referenced.join(", ")
            ),
            format!(
                "drop it before the run (alter table {table} drop constraint {name}), change the type on the other \
                 side too, and add it again once the job is finalized"
            ),
        );
    }
}

/// Reports how the new type changes the behavior of the column.
pub(super) fn semantics(report: &mut Report, retype: &Retype, r: &Retyping) {
    let column = format!("{}.{}", r.table.name.plain(), plain(r.column.name.as_str()));
    let lower = r.to.to_ascii_lowercase();
    let cuts = ["varchar(", "character varying(", "char(", "character(", "bit(", "bit varying("];
    if retype.using.is_none() && cuts.iter().any(|start| lower.replace(" (", "(").starts_with(start)) {
        report.error(
            "cuts_values",
            &column,
            format!("a cast to {} silently truncates longer values", r.to),
            format!(
                "write using = \"t.{}\", which fails for such values, or write the cast explicitly if you \
                 want to truncate them",
                plain(r.column.name.as_str())
            ),
        );
    }
    if !r.column.identity.is_empty() {
        report.warning(
            "sequence_made_anew",
            &column,
            "an identity sequence belongs to its column: the swap creates it again under the same name, \
             and it continues where it stopped"
                .to_owned(),
            "no action is needed for inserts; a session that calls nextval on it by name at the moment of the swap \
             gets an error and can retry",
        );
    }
    if r.counter.is_none() && r.column.default.as_ref().is_some_and(|d| d.contains("nextval(")) {
        report.warning(
            "sequence_not_owned",
            &column,
            "its default takes values from a sequence that the column does not own; the sequence is not \
             changed"
                .to_owned(),
            format!(
                "check the type and the maximum of the sequence, or make the column its owner: alter \
                sequence ... owned by {column}"
            ),
        );
    }
    report.warning(
        "column_moves",
        &column,
        format!(
            "the new column comes after all other columns, and {} remains in the table until finalize: \
             after the swap, `select *` and an INSERT without a column list have a different column order",
            plain(r.shadow(Direction::Reverse).as_str())
        ),
        "list the columns explicitly in INSERT, COPY and SELECT; a prepared statement that returns the \
         column, or *, fails once (cached plan must not change result type) after prepare, swap and \
         finalize, unless the driver prepares it again",
    );
}

pub(super) fn size(report: &mut Report, found: &Found, r: &Retyping) {
    let table = r.table.name.plain();
    let bytes = number::bytes(found.size.bytes.unsigned_abs());
    let rows = number::count(found.size.rows.unsigned_abs());
    let indexes = r.indexes.len();
    report.note(
        "size",
        &table,
        format!(
            "{table} has about {rows} rows, {bytes} with indexes: every row is written once more, which \
             at most doubles the size of the table, and {} built a second time",
            if indexes == 1 { "1 index is".to_owned() } else { format!("{indexes} indexes are") }
        ),
    );
}
