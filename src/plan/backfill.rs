//! `[backfill]`: the columns to fill, their values, the rows to fill, and the constraints and indexes to add afterward.
//!
//! Expressions are SQL, in which the table is called `t`. Unqualified names are looked up in the schemas that
//! `settings` lists, by default in the table's schema, then in `public`. Thus a plan has the same meaning for every
//! role that runs it.

use toml::{Table, Value};

use super::file::BackfillSection;
use super::read::{Problems, Read, column, plain_texts, text, wrong};
use super::settings::{self, Settings};
use crate::model::ident::plain;
use crate::model::tokens::tokens;

/// The part of a plan that only backfills have. Column names are as in the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backfill {
    /// Columns to add if they do not exist, sorted by name.
    pub add: Vec<Added>,
    /// The relation to join, with at most one row for each row of the table: `RELATION ALIAS ON CONDITION`.
    pub from: Option<String>,
    /// Columns and the expressions for their values, sorted by name. If there are none, the job only adds constraints
    /// and indexes.
    pub set: Vec<(String, String)>,
    /// The rows to fill; none: rows in which the value of a column differs from its expression.
    pub filter: Option<String>,
    /// Whether a trigger fills rows that are written during the job.
    pub keep_filled: KeepFilled,
    /// Constraints and indexes to add after every row is filled.
    pub finish: Finish,
    /// The server settings with which the plan's SQL runs.
    pub settings: Settings,
}

/// A column to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Its name.
    pub name: String,
    /// Its type, with its collation.
    pub sql_type: String,
    /// Its default.
    pub default: Option<String>,
}

/// Whether a trigger fills rows that are written during the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepFilled {
    /// No: the next run fills them.
    No,
    /// Until the job ends.
    UntilDone,
    /// Permanently: the trigger is kept.
    Always,
}

/// Constraints and indexes to add after every row is filled, without a long lock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finish {
    /// Columns that become NOT NULL.
    pub not_null: Vec<String>,
    /// Conditions of CHECK constraints.
    pub check: Vec<String>,
    /// Columns of each UNIQUE constraint.
    pub unique: Vec<Vec<String>>,
    /// Indexes, each as the text that follows the table name in CREATE INDEX: `(a, b)`, `using gin (doc)`.
    pub index: Vec<String>,
    /// Foreign keys: `(a) references other (b)`.
    pub foreign_key: Vec<String>,
}

impl Finish {
    /// Whether there is nothing to add.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

const ADD: &str = "add = { note = \"text\" }";
const SET: &str = "set = { note = \"upper(t.title)\" }";
const FINISH: [&str; 5] = ["not_null", "check", "unique", "index", "foreign_key"];

/// Reads the section, and adds problems to `p`. None if a required key is missing or invalid.
pub(super) fn resolve(section: &BackfillSection, p: &mut Problems) -> Option<Backfill> {
    let add = p.optional("backfill.add", &section.add, added);
    let from = p.optional("backfill.from", &section.from, expression);
    let finish = p.optional("backfill.finish", &section.finish, finish);
    // Without `set`, the job only adds constraints and indexes, and nothing else of the section has a meaning.
    let fills = [&section.add, &section.from, &section.filter, &section.keep_filled];
    let only_finishes = section.finish.is_some()
        && finish.as_ref().is_none_or(|finish| !finish.is_empty())
        && fills.iter().all(|key| key.is_none());
    let set = match section.set {
        None if only_finishes => Some(Vec::new()),
        _ => p.required("backfill.set", &section.set, SET, set),
    };
    let filter = p.optional("backfill.where", &section.filter, expression);
    let keep_filled = p.optional("backfill.keep_filled", &section.keep_filled, keep_filled);
    let settings = p.optional("backfill.settings", &section.settings, settings::settings);
    Some(Backfill {
        add: add.unwrap_or_default(),
        from,
        set: set?,
        filter,
        keep_filled: keep_filled.unwrap_or(KeepFilled::No),
        finish: finish.unwrap_or_default(),
        settings: settings.unwrap_or_default(),
    })
}

/// SQL that becomes part of a statement, so that it must not end the statement.
pub(super) fn expression(value: &Value) -> Read<String> {
    let written = text(value)?.trim();
    if written.is_empty() {
        return wrong("is empty", "write an SQL expression, or remove the key");
    }
    if written.ends_with(';') {
        return wrong(
            "ends with a semicolon",
            "remove the semicolon: the expression becomes part of a statement",
        );
    }
    Ok(written.to_owned())
}

fn table<'v>(value: &'v Value, example: &str) -> Read<&'v Table> {
    match value.as_table() {
        Some(table) if !table.is_empty() => Ok(table),
        _ => wrong(format!("{value} does not name a column"), format!("write {example}")),
    }
}

fn set(value: &Value) -> Read<Vec<(String, String)>> {
    let set = table(value, SET)?.iter();
    sorted(set.map(|(name, value)| Ok((column(name)?, expression(value)?))).collect::<Read<_>>()?, |one| {
        &one.0
    })
}

fn added(value: &Value) -> Read<Vec<Added>> {
    let add = table(value, ADD)?.iter();
    let read = |(name, value): (&String, &Value)| definition(column(name)?, &expression(value)?);
    sorted(add.map(read).collect::<Read<_>>()?, |one| &one.name)
}

/// Sorts by name, and rejects duplicates.
fn sorted<T>(mut all: Vec<T>, name: impl Fn(&T) -> &String) -> Read<Vec<T>> {
    all.sort_by(|a, b| name(a).cmp(name(b)));
    match all.windows(2).find(|two| name(&two[0]) == name(&two[1])) {
        Some(two) => Err(format!("lists column {} twice", plain(name(&two[0]))).into()),
        None => Ok(all),
    }
}

/// Reads `TYPE [DEFAULT EXPRESSION]`. Constraints belong under `finish`; generated columns are not supported.
fn definition(name: String, written: &str) -> Read<Added> {
    let words = top_words(written);
    let (sql_type, default) = match words.iter().position(|(_, word)| word == "default") {
        Some(n) if n > 0 => {
            let at = words[n].0;
            (&written[..at], Some(written[at + "default".len()..].trim().to_owned()))
        }
        _ => (written, None),
    };
    let words: Vec<&str> = words.iter().map(|(_, word)| word.as_str()).collect();
    if words.windows(2).any(|two| two == ["not", "null"]) {
        let fact = format!("column {} cannot be NOT NULL before it is filled", plain(&name));
        return wrong(fact, "list the column under finish: not_null = [...]");
    }
    let others = ["primary", "references", "unique", "check", "generated", "constraint"];
    match words.iter().find(|word| others.contains(word)) {
        Some(other) => wrong(
            format!(
                "column {} has `{other}`: only a type and a default are supported in `add`",
                plain(&name)
            ),
            "list constraints under finish",
        ),
        None => Ok(Added { name, sql_type: sql_type.trim().to_owned(), default }),
    }
}

/// The words outside quotes and parentheses in lower case, each with its position.
fn top_words(text: &str) -> Vec<(usize, String)> {
    let (mut depth, mut at) = (0_usize, 0);
    let mut words = Vec::new();
    for token in tokens(text) {
        match token {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            word if depth == 0 && !word.trim().is_empty() => words.push((at, word.to_ascii_lowercase())),
            _ => {}
        }
        at += token.len();
    }
    words
}

fn keep_filled(value: &Value) -> Read<KeepFilled> {
    match value {
        Value::Boolean(false) => Ok(KeepFilled::No),
        Value::Boolean(true) => Ok(KeepFilled::UntilDone),
        Value::String(word) if word == "always" => Ok(KeepFilled::Always),
        other => Err(format!("{other} is not true, false or \"always\"").into()),
    }
}

fn finish(value: &Value) -> Read<Finish> {
    let Some(section) = value.as_table() else {
        return wrong(format!("{value} is not a table"), "write finish = { not_null = [\"note\"] }");
    };
    if let Some(unknown) = section.keys().find(|key| !FINISH.contains(&key.as_str())) {
        return wrong(format!("unknown key `{unknown}`"), format!("known: {}", FINISH.join(", ")));
    }
    let texts = |key: &str| section.get(key).map_or(Ok(Vec::new()), plain_texts);
    let expressions = |key: &str| -> Read<Vec<String>> {
        texts(key)?.into_iter().map(|one| expression(&Value::from(one))).collect()
    };
    let columns =
        |value: &Value| -> Read<Vec<String>> { plain_texts(value)?.iter().map(|one| column(one)).collect() };
    let unique = match section.get("unique") {
        None => Vec::new(),
        Some(Value::Array(all)) if all.iter().all(Value::is_array) => {
            all.iter().map(columns).collect::<Read<_>>()?
        }
        Some(other) => {
            return wrong(
                format!("unique: {other} is not a list of lists"),
                "write unique = [[\"a\", \"b\"]]",
            );
        }
    };
    Ok(Finish {
        not_null: section.get("not_null").map_or(Ok(Vec::new()), columns)?,
        check: expressions("check")?,
        unique,
        index: expressions("index")?,
        foreign_key: expressions("foreign_key")?,
    })
}

impl Backfill {
    /// The settings by key, as [`super::Plan::parse`] reads them; none for a setting that is not set.
    pub(super) fn settings(&self) -> [(&'static str, Option<Value>); 7] {
        let columns = |all: &mut dyn Iterator<Item = (&String, String)>| {
            all.map(|(name, text)| (plain(name), Value::from(text))).collect::<Table>()
        };
        let add = columns(&mut self.add.iter().map(|one| (&one.name, one.written())));
        let set = columns(&mut self.set.iter().map(|(name, text)| (name, text.clone())));
        let keep = match self.keep_filled {
            KeepFilled::No => Value::Boolean(false),
            KeepFilled::UntilDone => Value::Boolean(true),
            KeepFilled::Always => Value::from("always"),
        };
        [
            ("backfill.add", (!add.is_empty()).then_some(Value::Table(add))),
            ("backfill.from", self.from.clone().map(Value::from)),
            ("backfill.set", (!set.is_empty()).then_some(Value::Table(set))),
            ("backfill.where", self.filter.clone().map(Value::from)),
            ("backfill.keep_filled", (!self.set.is_empty()).then_some(keep)),
            ("backfill.finish", (!self.finish.is_empty()).then(|| Value::Table(self.finish.written()))),
            ("backfill.settings", self.settings.written()),
        ]
    }
}

impl Added {
    fn written(&self) -> String {
        match &self.default {
            Some(default) => format!("{} default {default}", self.sql_type),
            None => self.sql_type.clone(),
        }
    }
}

impl Finish {
    fn written(&self) -> Table {
        let names = |all: &[String]| all.iter().map(|name| plain(name)).collect::<Vec<_>>();
        let lists = [
            ("not_null", Value::from(names(&self.not_null))),
            ("check", self.check.clone().into()),
            ("unique", self.unique.iter().map(|one| names(one)).collect::<Vec<_>>().into()),
            ("index", self.index.clone().into()),
            ("foreign_key", self.foreign_key.clone().into()),
        ];
        let filled = |value: &Value| value.as_array().is_some_and(|all| !all.is_empty());
        lists
            .into_iter()
            .filter(|(_, value)| filled(value))
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }
}
