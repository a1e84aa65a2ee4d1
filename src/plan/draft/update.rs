//! The first plan of a backfill or a column type change: keys that the command line sets have their values, and the others
//! are comments with examples.

use toml::Value;

use super::lines::{DraftLines, comment, setting, wrapped};
use super::{duration, facts_of_table, limits, top};
use crate::model::finding::Finding;
use crate::model::ident::{Ident, QualifiedName, plain, plain_list};
use crate::model::table::{Column, Table};
use crate::plan::answers::{key_of_backfill, key_of_retype};
use crate::plan::check;

/// The maximum number of columns to list.
const MOST_COLUMNS: usize = 60;

/// A drafted plan that updates rows of its table.
#[derive(Debug, Clone)]
pub struct UpdateDraft {
    /// The kind of the job, as in the plan.
    pub kind: &'static str,
    /// Errors and warnings of the check.
    pub findings: Vec<Finding>,
    table: QualifiedName,
    job: Ident,
    about: Vec<String>,
    section: Vec<(&'static str, String)>,
    key_of: fn(&str) -> &'static str,
    is_swapped: bool,
}

impl UpdateDraft {
    /// A backfill that adds the columns `add`, each with its type, and sets the columns `set`, each to its expression. Names
    /// are as in the catalog. Both may be empty: the plan then marks the missing keys as required.
    pub fn backfill(
        table: &Table,
        size: (u64, u64),
        set: &[(String, String)],
        add: &[(String, String)],
    ) -> Self {
        let example = set.first().map_or("COLUMN".to_owned(), |(name, _)| plain(name));
        let set_line = if set.is_empty() {
            comment(
                "set = { COLUMN = \"EXPRESSION\" }  # required: each column and its value, SQL over the row t",
            )
        } else {
            format!("set = {}", inline(set))
        };
        let mut section = vec![("backfill.add", add_line(table, set, add)), ("backfill.set", set_line)];
        section.extend(optional(&example));
        Self {
            kind: "backfill",
            findings: Vec::new(),
            table: table.name.clone(),
            job: table.name.name.with_suffix("_backfill"),
            about: about(table, size),
            section,
            key_of: key_of_backfill,
            is_swapped: false,
        }
    }

    /// A change of the type of `column`, a name as in the catalog, to `to`.
    pub fn retype(table: &Table, size: (u64, u64), column: &str, to: &str) -> Self {
        let shown = plain(column);
        let was = table.column(&Ident::new(column)).map(|column| column.sql_type.clone());
        let now = was.as_ref().map_or(String::new(), |was| format!("{was} now"));
        let back = was.unwrap_or_else(|| "OLD_TYPE".to_owned());
        let cast = |key: &str, to: &str, about: &str| {
            comment(&format!("{key:<6} = {}  # {about}", Value::from(format!("t.{shown}::{to}"))))
        };
        Self {
            kind: "retype",
            findings: Vec::new(),
            table: table.name.clone(),
            job: table.name.name.with_suffix(&format!("_{column}")),
            about: about(table, size),
            section: vec![
                ("retype.column", setting("column", 6, shown.as_str(), &now)),
                ("retype.to", setting("to", 6, to, "")),
                ("retype.using", cast("using", to, "the new value, SQL over the row t; default: a cast")),
                (
                    "retype.back",
                    cast("back", &back, "the old value, which a rollback needs; default: a cast"),
                ),
                (
                    "retype.settings",
                    comment("settings = { TimeZone = \"UTC\" }  # server settings of the SQL"),
                ),
            ],
            key_of: key_of_retype,
            is_swapped: true,
        }
    }
}

/// Returns the commented plan.
pub fn draft_update(drafted: &UpdateDraft) -> String {
    let mut lines = DraftLines::new(&drafted.findings, drafted.key_of);
    lines.extend(drafted.about.iter().map(|line| comment(line)));
    top(&mut lines, &drafted.table, &drafted.job, drafted.kind);
    lines.section(drafted.kind);
    for (key, line) in &drafted.section {
        lines.key(key, line.clone());
    }
    lines.section("copy");
    let workers = setting("workers", 15, "auto", "adjusted to the server's load; or a fixed number");
    lines.key("copy.workers", workers);
    let about = "target duration of a chunk, in which its rows are locked";
    lines.extend([comment(&format!("target_batch_ms = 100  # {about}"))]);
    limits(&mut lines);
    lines.section("swap");
    if drafted.is_swapped {
        let about = "when you run `pgstrata swap`; \"verified\": right after verification";
        lines.extend([setting("when", 12, "manual", about)]);
    }
    duration(&mut lines);
    if drafted.is_swapped {
        let about = "until then, `finalize` requires --now; a rollback stays possible until `finalize`";
        lines.extend([setting("keep_old", 12, "7 days", about)]);
    }
    lines.finish()
}

/// The columns to add. Columns that are set, and neither exist nor are added, need a type.
fn add_line(table: &Table, set: &[(String, String)], add: &[(String, String)]) -> String {
    let exists =
        |name: &str| table.column(&Ident::new(name)).is_some() || add.iter().any(|(added, _)| added == name);
    let missing = set.iter().filter(|(name, _)| !exists(name));
    let missing: Vec<(String, String)> = missing.map(|(name, _)| (name.clone(), "TYPE".to_owned())).collect();
    if !missing.is_empty() {
        let all = inline(&[add, missing.as_slice()].concat());
        comment(&format!("add = {all}  # required: these columns do not exist yet; replace TYPE"))
    } else if add.is_empty() {
        comment(
            "add = { COLUMN = \"TYPE\" }  # columns to add first; \"TYPE default EXPRESSION\" sets a default",
        )
    } else {
        format!("add = {}", inline(add))
    }
}

/// The optional keys of a backfill, as comments. `example` is a column, as SQL.
fn optional(example: &str) -> [(&'static str, String); 5] {
    let filter = Value::from(format!("t.{example} is null"));
    let column = Value::from(example);
    let lines = [
        (
            "backfill.from",
            "from = \"other o on o.id = t.other_id\"  # to join, with at most one row for each row of the table"
                .to_owned(),
        ),
        ("backfill.where", format!("where = {filter}  # the rows to fill; default: where a value differs")),
        (
            "backfill.keep_filled",
            "keep_filled = true  # a trigger also fills rows that are written during the job".to_owned(),
        ),
        (
            "backfill.finish",
            format!("finish = {{ not_null = [{column}] }}  # also check, unique, index, foreign_key"),
        ),
        ("backfill.settings", "settings = { TimeZone = \"UTC\" }  # server settings of the SQL".to_owned()),
    ];
    lines.map(|(key, line)| (key, comment(&line)))
}

/// An inline table of column names and SQL.
fn inline(pairs: &[(String, String)]) -> String {
    let pair = |(name, sql): &(String, String)| {
        format!("{} = {}", Value::from(plain(name)), Value::from(sql.as_str()))
    };
    format!("{{ {} }}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
}

fn about(table: &Table, size: (u64, u64)) -> Vec<String> {
    let mut lines = facts_of_table(&[], size);
    let key = check::key(table).and_then(|key| key.columns.as_ref());
    lines.push(match key {
        Some(columns) => format!("key     ({}); rows are processed in its order", plain_list(columns)),
        None => "key     none that is usable; the job needs one".to_owned(),
    });
    let shown = |column: &Column| {
        let not_null = if column.not_null { " not null" } else { "" };
        format!("{} {}{not_null}", plain(column.name.as_str()), column.sql_type)
    };
    let mut columns: Vec<String> = table.columns.iter().take(MOST_COLUMNS).map(shown).collect();
    if table.columns.len() > MOST_COLUMNS {
        columns.push("...".to_owned());
    }
    lines.extend(wrapped(&columns.join(", "), "columns ", "        "));
    lines
}
