//! `[retype]`: the column whose type changes, the new type, and how values are converted in both directions.
//!
//! Expressions are SQL, in which the row of the table is called `t`. The column has its old type in `using`, and its
//! new type in `back`.

use toml::Value;

use super::backfill::expression;
use super::file::RetypeSection;
use super::read::{Problems, column, text};
use super::settings::{self, Settings};
use crate::model::ident::plain;

/// The part of a plan that only column type changes have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retype {
    /// The column's name, as in the catalog.
    pub column: String,
    /// The new type, with its collation.
    pub to: String,
    /// The expression for the new value; none: a cast.
    pub using: Option<String>,
    /// The expression for the old value; none: a cast.
    pub back: Option<String>,
    /// The server settings with which the plan's SQL runs.
    pub settings: Settings,
}

/// Reads the section, and adds problems to `p`. None if a required key is missing or invalid.
pub(super) fn resolve(section: &RetypeSection, p: &mut Problems) -> Option<Retype> {
    let name = p.required("retype.column", &section.column, "column = \"id\"", |v| column(text(v)?));
    let to = p.required("retype.to", &section.to, "to = \"bigint\"", expression);
    let using = p.optional("retype.using", &section.using, expression);
    let back = p.optional("retype.back", &section.back, expression);
    let settings = p.optional("retype.settings", &section.settings, settings::settings);
    Some(Retype { column: name?, to: to?, using, back, settings: settings.unwrap_or_default() })
}

impl Retype {
    /// The settings by key, as [`super::Plan::parse`] reads them; none for a setting that is not set.
    pub(super) fn settings(&self) -> [(&'static str, Option<Value>); 5] {
        [
            ("retype.column", Some(plain(&self.column).into())),
            ("retype.to", Some(self.to.clone().into())),
            ("retype.using", self.using.clone().map(Value::from)),
            ("retype.back", self.back.clone().map(Value::from)),
            ("retype.settings", self.settings.written()),
        ]
    }
}
