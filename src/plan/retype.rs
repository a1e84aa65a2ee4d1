//! `[retype]`: which column gets another type, and how its values go there and back.
//!
//! Expressions are the plan's own SQL, where the table's row is `t`. In `using` the column has its old type, in `back` the
//! new one.

use toml::Value;

use super::backfill::expression;
use super::file::RetypeSection;
use super::read::{Problems, column, text};
use super::settings::{self, Settings};
use crate::model::ident::plain;

/// The part of a plan that only retype jobs have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retype {
    /// The column, as the catalog holds its name.
    pub column: String,
    /// The new type, and its collation.
    pub to: String,
    /// What a value becomes; none: a cast.
    pub using: Option<String>,
    /// The way back; none: a cast.
    pub back: Option<String>,
    /// Under which settings its SQL runs.
    pub settings: Settings,
}

/// The section's settings; what is wrong goes into `p`. None where something is.
pub(super) fn resolve(section: &RetypeSection, p: &mut Problems) -> Option<Retype> {
    let name = p.required("retype.column", &section.column, "column = \"id\"", |v| column(text(v)?));
    let to = p.required("retype.to", &section.to, "to = \"bigint\"", expression);
    let using = p.optional("retype.using", &section.using, expression);
    let back = p.optional("retype.back", &section.back, expression);
    let settings = p.optional("retype.settings", &section.settings, settings::settings);
    Some(Retype { column: name?, to: to?, using, back, settings: settings.unwrap_or_default() })
}

impl Retype {
    /// Its settings under their keys, as [`super::Plan::parse`] reads them; none where nothing is set.
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
