//! `settings` of `[backfill]` and `[retype]`: the server settings with which the plan's SQL runs.

use toml::{Table, Value};

use super::read::{Read, column, text, wrong};
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::plan_sql::PlanSql;

/// The settings in the plan. A setting that is not set has the value of a new session of the job's role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The schemas in which unqualified names are looked up, after `pg_catalog`; none: the table's schema, then
    /// `public`.
    pub search_path: Option<Vec<String>>,
    /// `TimeZone`.
    pub time_zone: Option<String>,
    /// `DateStyle`.
    pub date_style: Option<String>,
    /// `IntervalStyle`.
    pub interval_style: Option<String>,
}

/// The known keys.
const KEYS: [&str; 4] = ["search_path", "timezone", "datestyle", "intervalstyle"];
const EXAMPLE: &str = "settings = { timezone = \"Europe/Berlin\", search_path = \"app, extensions\" }";

/// Reads `settings`.
pub(super) fn settings(value: &Value) -> Read<Settings> {
    let Some(table) = value.as_table() else {
        return wrong(format!("{value} is not a table"), format!("write {EXAMPLE}"));
    };
    if let Some(unknown) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return wrong(format!("unknown key `{unknown}`"), format!("known: {}", KEYS.join(", ")));
    }
    let one = |key: &str| table.get(key).map(|value| text(value).map(str::to_owned)).transpose();
    Ok(Settings {
        search_path: table.get("search_path").map(|value| schemas(text(value)?)).transpose()?,
        time_zone: one("timezone")?,
        date_style: one("datestyle")?,
        interval_style: one("intervalstyle")?,
    })
}

/// Reads `app, "Other"`, in the syntax of SET.
fn schemas(written: &str) -> Read<Vec<String>> {
    let (mut all, mut quoted) = (vec![String::new()], false);
    for c in written.chars() {
        quoted ^= c == '"';
        match all.last_mut() {
            Some(last) if quoted || c != ',' => last.push(c),
            _ => all.push(String::new()),
        }
    }
    let all = all.iter().map(|name| column(name)).collect::<Read<Vec<_>>>()?;
    match all.iter().find(|name| ["pg_temp", "$user"].contains(&name.as_str())) {
        Some(name) => wrong(
            format!("search_path contains {name}, which is not the same schema in every session"),
            "list the schemas by name",
        ),
        None => Ok(all),
    }
}

impl Settings {
    /// The settings of a job on that table; an empty value means that the session's default applies.
    pub fn of_job(&self, table: &QualifiedName, trust: &[String]) -> PlanSql {
        let stated = |value: &Option<String>| value.clone().unwrap_or_default();
        let lookup: Vec<Ident> = match &self.search_path {
            Some(path) => path.iter().map(Ident::new).collect(),
            None if table.schema.as_str() == "public" => vec![table.schema.clone()],
            None => vec![table.schema.clone(), Ident::new("public")],
        };
        let path = self.search_path.as_ref().map(|path| path.iter().map(|name| Ident::new(name).to_string()));
        PlanSql {
            resolved: false,
            lookup,
            search_path: path.map_or_else(String::new, |names| names.collect::<Vec<_>>().join(", ")),
            time_zone: stated(&self.time_zone),
            date_style: stated(&self.date_style),
            interval_style: stated(&self.interval_style),
            text_search: String::new(),
            locale: Vec::new(),
            trust: trust.to_vec(),
            names_others: true,
        }
    }

    /// The value in the plan; none if nothing is set.
    pub(super) fn written(&self) -> Option<Value> {
        let mut all = Table::new();
        if let Some(path) = &self.search_path {
            let names: Vec<String> = path.iter().map(|name| plain(name)).collect();
            all.insert("search_path".into(), names.join(", ").into());
        }
        for (key, value) in [
            ("timezone", &self.time_zone),
            ("datestyle", &self.date_style),
            ("intervalstyle", &self.interval_style),
        ] {
            if let Some(value) = value {
                all.insert(key.into(), value.clone().into());
            }
        }
        (!all.is_empty()).then_some(Value::Table(all))
    }
}
