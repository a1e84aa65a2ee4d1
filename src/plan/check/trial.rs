//! What the server says of a backfill's SQL when it plans it, and what follows.

use super::{FinishTrial, Named, Report, finishing, named};
use crate::model::filling::Filling;
use crate::model::finding::Finding;
use crate::model::ident::{Ident, plain};
use crate::model::number;

/// What helps where a value is of another type than its column.
const CAST: &str = "write an explicit cast: set = { column = \"(...)::the_type\" }";

/// What the server says of the plan's SQL, without running it on any row.
#[derive(Debug, Clone, Default)]
pub struct Trial {
    /// It cannot be run.
    pub refused: Option<Refusal>,
    /// A column cannot be set to what the plan says.
    pub not_assignable: Option<Refusal>,
    /// Columns to be added that cannot be set to what the plan says, and the type that it has.
    pub of_another_type: Vec<(Ident, String)>,
    /// What is set differs each time: it calls a function that is declared VOLATILE.
    pub volatile: bool,
    /// Which rows are meant differs each time.
    pub filter_volatile: bool,
    /// Defaults of columns to be added that cannot be had, and why.
    pub defaults_refused: Vec<(Ident, String)>,
    /// Defaults that are not the same for every row.
    pub defaults_volatile: Vec<Ident>,
    /// Columns to be added whose type is a domain with constraints.
    pub constrained: Vec<Ident>,
    /// What it says of what is built in the end, where anything is.
    pub finish: Option<FinishTrial>,
    /// Rows that are meant, by the statistics.
    pub meant: Option<f64>,
    /// What each chunk does over again.
    pub every_chunk: Option<EveryChunk>,
    /// What the SQL names.
    pub named: Named,
}

/// What the server said against a statement.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Its message.
    pub message: String,
    /// Its SQLSTATE.
    pub code: String,
}

/// Work of a chunk that is the same however few rows it has.
#[derive(Debug, Clone)]
pub struct EveryChunk {
    /// The largest table or function that is read, as the server calls it.
    pub reads: String,
    /// Rows of it, by the planner's estimate.
    pub rows: f64,
    /// Of the planner's cost of a chunk of [`EveryChunk::chunk_rows`], 0 to 1.
    pub share: f64,
    /// Rows of that chunk.
    pub chunk_rows: u64,
}

/// What the trial says, and the design with what it taught. `role` is ours.
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
        over_again(&mut report, filling, every);
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

/// What our role may not use, and the GRANT.
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
                "nothing, if `set` sets {name}; the default applies only to rows that are inserted \
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

fn over_again(report: &mut Report, filling: &Filling, every: &EveryChunk) {
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
