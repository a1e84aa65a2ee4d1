//! Findings from a trial of a backfill's SQL on the server, which plans it but does not run it.

use super::{FinishTrial, Named, Report, finishing, named};
use crate::model::filling::Filling;
use crate::model::finding::Finding;
use crate::model::ident::{Ident, plain};
use crate::model::number;

/// The hint for a value whose type differs from the column's type.
const CAST: &str = "write an explicit cast: set = { column = \"(...)::the_type\" }";

/// The result of testing the plan's SQL on the server, without running it on any row.
#[derive(Debug, Clone, Default)]
pub struct Trial {
    /// The server rejects the SQL.
    pub refused: Option<Refusal>,
    /// The server rejects the assignment to a column.
    pub not_assignable: Option<Refusal>,
    /// Columns to add that do not accept the type of their expression, with that type.
    pub of_another_type: Vec<(Ident, String)>,
    /// Whether an expression returns a different value at each evaluation: it calls a VOLATILE function.
    pub volatile: bool,
    /// Whether `where` selects different rows at each evaluation.
    pub filter_volatile: bool,
    /// Columns to add whose type or default the server rejects, with its message.
    pub defaults_refused: Vec<(Ident, String)>,
    /// Columns to add whose default differs from row to row.
    pub defaults_volatile: Vec<Ident>,
    /// Columns to add whose type is a domain with constraints.
    pub constrained: Vec<Ident>,
    /// The result of testing `finish`, if the plan has one.
    pub finish: Option<FinishTrial>,
    /// The number of rows to fill, according to the statistics.
    pub to_fill: Option<f64>,
    /// The work that each chunk repeats.
    pub every_chunk: Option<EveryChunk>,
    /// The objects that the SQL uses.
    pub named: Named,
}

/// The server's error for a statement.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Its message.
    pub message: String,
    /// Its SQLSTATE.
    pub code: String,
}

/// Work of a chunk that does not depend on its number of rows.
#[derive(Debug, Clone)]
pub struct EveryChunk {
    /// The largest table or function that it reads, as the server names it.
    pub reads: String,
    /// The number of its rows, according to the planner.
    pub rows: f64,
    /// Its share of the planner's cost of a chunk of [`EveryChunk::chunk_rows`], from 0 to 1.
    pub share: f64,
    /// The number of rows of that chunk.
    pub chunk_rows: u64,
}

/// Returns findings from the trial, and stores its results in the design. `role` is the job's role.
pub fn tried(filling: &mut Filling, trial: &Trial, role: &str) -> Vec<Finding> {
    let mut report = Report::default();
    refused(&mut report, filling, trial, &plain(role));
    types(&mut report, trial);
    volatile(&mut report, filling, trial);
    for column in &mut filling.add {
        column.volatile = trial.defaults_volatile.contains(&column.name);
    }
    added(&mut report, filling, trial);
    if let Some(every) = &trial.every_chunk {
        repeated_work(&mut report, filling, every);
    }
    report.0.extend(named(&trial.named, &filling.sql, &filling.table.name.plain()));
    report.0.extend(trial.finish.iter().flat_map(|finish| finishing::tried(filling, finish)));
    report.0
}

fn refused(report: &mut Report, filling: &Filling, trial: &Trial, role: &str) {
    let name = filling.table.name.plain();
    if let Some(refusal) = &trial.refused {
        if let Some((what, grant)) = lacking(refusal, role) {
            report.error("missing_privilege", what, format!("role {role}: {}", refusal.message), grant);
            return;
        }
        let hint = match refusal.code.as_str() {
            "42883" if refusal.message.starts_with("operator") => CAST,
            "22023" => "write settings as in SET: timezone = \"Europe/Berlin\", datestyle = \"ISO, DMY\"",
            "0A000" => "write the operator with its schema: a operator(public.=) b",
            _ => {
                "in the plan's SQL, the table is called t; names without a schema are looked up in its \
                schema, then in public"
            }
        };
        let message = format!("the server rejects the plan's SQL: {}", refusal.message);
        report.error("sql_refused", &name, message, hint);
    }
    for (column, message) in &trial.defaults_refused {
        let column = plain(column.as_str());
        let message = format!("the server rejects the type or the default of column {column}: {message}");
        report.error("sql_refused", &column, message, "write add = { column = \"TYPE DEFAULT EXPRESSION\" }");
    }
}

/// The object on which the job's role lacks a privilege, and the GRANT.
fn lacking(refusal: &Refusal, role: &str) -> Option<(String, String)> {
    if refusal.code != "42501" {
        return None;
    }
    if let Some(database) =
        refusal.message.strip_prefix("permission denied to create temporary tables in database ")
    {
        let database = database.trim_matches('"');
        let grant = format!("grant temporary on database {} to {role}", plain(database));
        return Some((database.to_owned(), grant));
    }
    let (kind, object) = refusal.message.strip_prefix("permission denied for ")?.split_once(' ')?;
    let (right, on) = match kind {
        "table" | "view" => ("select", ""),
        "schema" => ("usage", "schema "),
        "function" => ("execute", "function "),
        "sequence" => ("usage", "sequence "),
        "type" => ("usage", "type "),
        _ => return None,
    };
    Some((object.to_owned(), format!("grant {right} on {on}{} to {role}", plain(object))))
}

fn types(report: &mut Report, trial: &Trial) {
    if let Some(refusal) = &trial.not_assignable {
        report.error("type_mismatch", "set", format!("the server rejects `set`: {}", refusal.message), CAST);
    }
    for (column, is) in &trial.of_another_type {
        let column = plain(column.as_str());
        let message = format!("column {column} does not accept an expression of type {is}");
        report.error("type_mismatch", &column, message, CAST);
    }
}

fn volatile(report: &mut Report, filling: &Filling, trial: &Trial) {
    let name = filling.table.name.plain();
    if trial.volatile && filling.filter.is_none() {
        report.error(
            "volatile_expression",
            &name,
            "the plan's SQL returns a different value at each evaluation, so no row would ever count as \
             filled"
                .to_owned(),
            "write a `where` that is false for a filled row, such as where = \"t.column is null\"",
        );
    }
    if trial.filter_volatile && filling.filter.is_some() {
        report.error(
            "volatile_where",
            &name,
            "the plan's `where` selects different rows at each evaluation, so the job could never finish"
                .to_owned(),
            "write a `where` that depends only on the values of the row, such as where = \"t.column is \
             null\"",
        );
    }
}

fn added(report: &mut Report, filling: &Filling, trial: &Trial) {
    for column in filling.add.iter().filter(|column| column.volatile) {
        let name = plain(column.name.as_str());
        report.warning(
            "volatile_default",
            &name,
            format!("the default of {name} differs from row to row: existing rows do not get it"),
            format!(
                "no action is needed if `set` sets {name}; the default applies only to rows that are inserted \
                later"
            ),
        );
    }
    for column in filling.add.iter().filter(|column| trial.constrained.contains(&column.name)) {
        let name = plain(column.name.as_str());
        report.error(
            "constrained_domain",
            &name,
            format!(
                "{name} would have the domain {}, which has constraints: to add the column, the server \
                 rewrites every row, and all other sessions wait",
                column.sql_type
            ),
            "add the column with the base type of the domain, and the conditions under finish: check = \
             [...]",
        );
    }
}

fn repeated_work(report: &mut Report, filling: &Filling, every: &EveryChunk) {
    report.note(
        "from_read_by_every_chunk",
        filling.table.name.plain(),
        format!(
            "every chunk reads about {} of {}, which is {:.0} % of the cost of a chunk of {}: write from \
             as lateral (select ... where ... = t.id) alias on true, and create an index on the column in \
             its where, so that a chunk reads only what belongs to its rows",
            number::counted(every.rows.round() as u64, "row"),
            every.reads,
            every.share * 100.0,
            number::counted(every.chunk_rows, "row")
        ),
    );
}
