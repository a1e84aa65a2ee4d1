//! What the new type means for those who use the column, and what the server says of it.

use super::super::{Found, Report, Server, Writes, named, table_tried};
use super::Rehearsal;
use crate::model::blueprint::Direction;
use crate::model::finding::Finding;
use crate::model::ident::{Ident, plain};
use crate::model::number;
use crate::model::retyping::{Retyping, default_cast};
use crate::plan::Retype;

/// What the rehearsal says.
pub fn rehearsed(r: &Retyping, rehearsal: &Rehearsal, server: &Server) -> Vec<Finding> {
    let mut report = Report::default();
    let column = format!("{}.{}", r.table.name.plain(), plain(r.column.name.as_str()));
    if rehearsal.no_scratch {
        report.error(
            "missing_privilege",
            plain(&server.database),
            format!("role {} lacks TEMPORARY on database {}: the new type is tried on a table of the session's own", plain(&server.user), plain(&server.database)),
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
                "from the phase index on, a value that using cannot turn, or turns into one that NOT NULL, UNIQUE or CHECK of the column \
                 refuse, is refused to the application already"
                    .to_owned(),
                "nothing, if applications write no such values; the swap would refuse them in any case",
            );
        }
    }
    report.0.extend(named(&rehearsal.named, &r.sql, &r.table.name.plain()));
    if r.new_type == r.column.sql_type {
        let message = format!("column {column} is {} already", r.new_type);
        report.error("already_that_type", &column, message, "there is nothing to do");
    }
    report.0.extend(table_tried(&r.table, &rehearsal.rows, Writes::Updates));
    report.0
}

/// What the server refuses.
fn refused(report: &mut Report, r: &Retyping, rehearsal: &Rehearsal, column: &str) {
    if let Some(message) = &rehearsal.type_refused {
        report.error(
            "type_refused",
            &r.to,
            format!("the server refuses the type: {message}"),
            "write a type as in SQL: to = \"bigint\"",
        );
    }
    for (which, message) in &rehearsal.sql_refused {
        let hint = match *which {
            "using" => {
                format!("write using = \"...\" over t, such as {}", default_cast(&r.column.name, &r.to))
            }
            _ => format!("write back = \"...\" over t, where the column is {}; it is for the way back", r.to),
        };
        report.error("sql_refused", column, format!("the server refuses {which}: {message}"), hint);
    }
    for which in &rehearsal.volatile {
        let message = format!("{which} gives another value each time: no row would ever be level");
        report.error("volatile_expression", column, message, "write an expression of the row alone");
    }
    for (what, message) in &rehearsal.refused {
        report.error(
            "not_in_new_type",
            what,
            format!("{what} cannot be had on {}: {message}", r.to),
            "drop it before the run, and make it anew for the new type after the swap",
        );
    }
    for (key, columns, referenced) in &rehearsal.keys_refused {
        let (name, table) = (plain(key.name.as_str()), key.table.plain());
        report.error(
            "foreign_key_types",
            &name,
            format!(
                "foreign key {name} of {table} would go from ({}) to ({}), between which the server has no foreign key",
                columns.join(", "),
                referenced.join(", ")
            ),
            format!(
                "drop it for the run, retype the other side too, and add it again: alter table {table} drop constraint {name}"
            ),
        );
    }
}

/// What the new type means for those who use the column.
pub(super) fn semantics(report: &mut Report, retype: &Retype, r: &Retyping) {
    let column = format!("{}.{}", r.table.name.plain(), plain(r.column.name.as_str()));
    let lower = r.to.to_ascii_lowercase();
    let cuts = ["varchar(", "character varying(", "char(", "character(", "bit(", "bit varying("];
    if retype.using.is_none() && cuts.iter().any(|start| lower.replace(" (", "(").starts_with(start)) {
        report.error(
            "cuts_values",
            &column,
            format!("a cast to {} cuts longer values without a word", r.to),
            format!(
                "write using = \"t.{}\", which fails on them; or the cast, if that is meant",
                plain(r.column.name.as_str())
            ),
        );
    }
    if !r.column.identity.is_empty() {
        report.warning(
            "sequence_made_anew",
            &column,
            "an identity's sequence goes with its column: at the swap it is made again under its name, and counts on".to_owned(),
            "nothing for inserts; who calls nextval on it by name at that very moment gets an error, and may try again",
        );
    }
    if r.counter.is_none() && r.column.default.as_ref().is_some_and(|d| d.contains("nextval(")) {
        report.warning(
            "sequence_not_owned",
            &column,
            "its default takes numbers from a sequence that is not its own, which stays as it is".to_owned(),
            format!("look at the sequence's type and limits; or alter sequence ... owned by {column}"),
        );
    }
    report.warning(
        "column_moves",
        &column,
        format!(
            "the new column stands behind all others, and {} beside it until finalize: a row of `select *` and an INSERT without \
             a list of columns mean something else after the swap",
            plain(r.beside(Direction::Reverse).as_str())
        ),
        "name the columns in INSERT, COPY and SELECT; a statement that is prepared once and returns the column, or *, fails once \
         (cached plan must not change result type) after prepare, swap and finalize: drivers that prepare again go on",
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
            "{table} holds about {rows} rows, {bytes} with indexes: every row is written once more, which at most doubles the table, \
             and {} built a second time",
            if indexes == 1 { "1 index is".to_owned() } else { format!("{indexes} indexes are") }
        ),
    );
}
