//! `[backfill]`: which columns are filled, with what, in which rows, and what the table is to guarantee of them then.
//!
//! Expressions are the plan's own SQL, where the table is `t`. Names without a schema in them are looked for where `settings`
//! says, by default in the table's schema, then in `public`, so that a plan means the same whoever runs it.

use toml::{Table, Value};

use super::file::BackfillSection;
use super::read::{Problems, Read, column, plain_texts, text, wrong};
use super::settings::{self, Settings};
use crate::model::ident::plain;

/// The part of a plan that only backfills have. Columns are named as the catalog holds their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backfill {
    /// Columns that are added where they are missing, in the order of their names.
    pub add: Vec<Added>,
    /// What the rows are joined with, each at most once: `RELATION ALIAS ON CONDITION`.
    pub from: Option<String>,
    /// Columns and what they are set to, in the order of their names.
    pub set: Vec<(String, String)>,
    /// Which rows; none: those where a column is not what it would be set to.
    pub filter: Option<String>,
    /// Whether a trigger fills rows that are written meanwhile.
    pub keep_filled: KeepFilled,
    /// What is built when every row is filled.
    pub finish: Finish,
    /// Under which settings its SQL runs.
    pub settings: Settings,
}

/// A column to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Its name.
    pub name: String,
    /// Its type, and collation.
    pub sql_type: String,
    /// Its default.
    pub default: Option<String>,
}

/// Whether rows that are written meanwhile are filled by a trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepFilled {
    /// They are left to the next run.
    No,
    /// Until the job is done.
    UntilDone,
    /// For good: the trigger stays.
    Always,
}

/// What is built when every row is filled, none of it with a long lock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finish {
    /// Columns that become NOT NULL.
    pub not_null: Vec<String>,
    /// Conditions of CHECK constraints.
    pub check: Vec<String>,
    /// Columns of each UNIQUE constraint.
    pub unique: Vec<Vec<String>>,
    /// Indexes, each as it stands behind the table's name in CREATE INDEX: `(a, b)`, `using gin (doc)`.
    pub index: Vec<String>,
    /// Foreign keys: `(a) references other (b)`.
    pub foreign_key: Vec<String>,
}

impl Finish {
    /// Whether there is nothing to build.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

const ADD: &str = "add = { note = \"text\" }";
const SET: &str = "set = { note = \"upper(t.title)\" }";
const FINISH: [&str; 5] = ["not_null", "check", "unique", "index", "foreign_key"];

/// The section's settings; what is wrong goes into `p`. None where something is.
pub(super) fn resolve(section: &BackfillSection, p: &mut Problems) -> Option<Backfill> {
    let add = p.optional("backfill.add", &section.add, added);
    let from = p.optional("backfill.from", &section.from, expression);
    let set = p.required("backfill.set", &section.set, SET, set);
    let filter = p.optional("backfill.where", &section.filter, expression);
    let keep_filled = p.optional("backfill.keep_filled", &section.keep_filled, keep_filled);
    let finish = p.optional("backfill.finish", &section.finish, finish);
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

/// SQL that stands within a statement of ours: it must not end it.
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

/// By name, each once.
fn sorted<T>(mut all: Vec<T>, name: impl Fn(&T) -> &String) -> Read<Vec<T>> {
    all.sort_by(|a, b| name(a).cmp(name(b)));
    match all.windows(2).find(|two| name(&two[0]) == name(&two[1])) {
        Some(two) => Err(format!("lists column {} twice", plain(name(&two[0]))).into()),
        None => Ok(all),
    }
}

/// `TYPE [DEFAULT EXPRESSION]`. Whatever else a column definition may have is built later, or not at all.
fn definition(name: String, written: &str) -> Read<Added> {
    let lower = written.to_ascii_lowercase();
    let (sql_type, default) = match lower.find(" default ") {
        Some(at) => (&written[..at], Some(written[at + " default ".len()..].trim().to_owned())),
        None => (written, None),
    };
    let words: Vec<&str> = lower.split_ascii_whitespace().collect();
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
    /// Its settings under their keys, as [`super::Plan::parse`] reads them; none where nothing is set.
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
            ("backfill.set", Some(Value::Table(set))),
            ("backfill.where", self.filter.clone().map(Value::from)),
            ("backfill.keep_filled", Some(keep)),
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
