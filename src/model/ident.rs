//! Names. [`Ident`] and [`QualifiedName`] are the only way to use a name in SQL; they are always quoted.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The maximum length of a name, in bytes (`NAMEDATALEN - 1`).
pub const MAX_BYTES: usize = 63;

/// A name as in the catalog; displayed in quotes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ident(String);

impl Ident {
    /// Creates a name exactly as in the catalog.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Creates a generated name. A name of more than 63 bytes is truncated and gets a hash of the full name as suffix,
    /// so that different names remain different.
    ///
    /// The hash consists of the first eight hex digits of the SHA-256 hash of the full name.
    pub fn derived(name: &str) -> Self {
        Self::shortened(name, MAX_BYTES)
    }

    /// As [`Ident::derived`], for a name of at most `max` bytes.
    pub fn shortened(name: &str, max: usize) -> Self {
        if name.len() <= max {
            return Self(name.to_owned());
        }
        let hash = short_hash(name);
        let mut end = max - 1 - hash.len();
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        Self(format!("{}_{hash}", &name[..end]))
    }

    /// The name without quotes, as in the catalog.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This name with `suffix` appended, truncated as in [`Ident::derived`].
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        Self::derived(&format!("{}{suffix}", self.0))
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

/// The name of an object in a schema, displayed as `"schema"."name"`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QualifiedName {
    /// The schema.
    pub schema: Ident,
    /// The name of the object.
    pub name: Ident,
}

impl QualifiedName {
    /// Creates a name from the names of the schema and the object, each as in the catalog.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: Ident::new(schema), name: Ident::new(name) }
    }

    /// The name of another object in the same schema.
    #[must_use]
    pub fn sibling(&self, name: Ident) -> Self {
        Self { schema: self.schema.clone(), name }
    }

    /// The name in readable form: quoted only if SQL requires it.
    pub fn plain(&self) -> String {
        format!("{}.{}", plain(self.schema.as_str()), plain(self.name.as_str()))
    }

    /// Parses a name in SQL syntax: `public.t`, `"Forecasts"."Price Forecasts"`, `t` (in schema `public`).
    ///
    /// # Errors
    /// A sentence that describes the error.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = split(text)?;
        match <[String; 2]>::try_from(parts) {
            Ok([schema, name]) => Ok(Self::new(schema, name)),
            Err(mut one) if one.len() == 1 => Ok(Self::new("public", one.remove(0))),
            Err(many) => Err(format!("`{text}` has {} parts; write schema.table", many.len())),
        }
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// The name of a job's CHECK constraint that keeps NULL out of a column.
pub fn not_null_check(column: &Ident) -> Ident {
    Ident::derived(&format!("pgstrata_not_null_{}", column.as_str()))
}

/// The name of the index of a partition: the name of the table in `index` is replaced by that of the partition.
pub fn part_index(table: &Ident, part: &Ident, index: &Ident) -> Ident {
    let (table, index) = (table.as_str(), index.as_str());
    let rest = index.strip_prefix(table).and_then(|rest| rest.strip_prefix('_')).unwrap_or(index);
    Ident::derived(&format!("{}_{rest}", part.as_str()))
}

/// The first eight hex digits of the SHA-256 hash of a text.
pub fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(4).map(|b| format!("{b:02x}")).collect()
}

/// A string as an SQL literal, for statements in which the server accepts no parameters (DDL).
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// Whether a terminal would interpret the character instead of displaying it: a control character other than line
/// breaks and tabs, or a character that changes the text direction.
pub fn is_unprintable(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A name in readable form: quoted only if SQL would fold or reject it.
pub fn plain(name: &str) -> String {
    let simple = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if simple { name.to_owned() } else { Ident::new(name).to_string() }
}

/// Names in readable form, separated by commas.
pub fn plain_list<'a>(names: impl IntoIterator<Item = &'a Ident>) -> String {
    names.into_iter().map(|name| plain(name.as_str())).collect::<Vec<_>>().join(", ")
}

fn split(text: &str) -> Result<Vec<String>, String> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let part;
        (part, rest) = take(rest, text)?;
        parts.push(part);
        match rest.strip_prefix('.') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Ok(parts),
            None => {
                return Err(format!(
                    "`{text}` is not a name: write schema.table, in double quotes where SQL requires them"
                ));
            }
        }
    }
}

/// Parses one name at the start of the text; returns the name and the rest.
fn take<'a>(rest: &'a str, whole: &str) -> Result<(String, &'a str), String> {
    let (name, rest) = if let Some(quoted) = rest.strip_prefix('"') {
        let mut name = String::new();
        let mut chars = quoted.char_indices().peekable();
        loop {
            match chars.next() {
                Some((_, '"')) if chars.next_if(|(_, c)| *c == '"').is_some() => name.push('"'),
                Some((at, '"')) => break (name, &quoted[at + 1..]),
                Some((_, c)) => name.push(c),
                None => return Err(format!("`{whole}` has an unclosed double quote")),
            }
        }
    } else {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len());
        (rest[..end].to_lowercase(), &rest[end..])
    };
    if name.is_empty() {
        return Err(format!("`{whole}` has an empty part: write schema.table"));
    }
    if name.len() > MAX_BYTES {
        return Err(format!(
            "`{name}` has {} bytes; PostgreSQL names have at most {MAX_BYTES} bytes",
            name.len()
        ));
    }
    if name.contains('\0') {
        return Err(format!("`{whole}` contains a zero byte"));
    }
    Ok((name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_names_in_sql_syntax() {
        for (text, schema, name) in [
            ("petri", "public", "petri"),
            ("Public.Petri", "public", "petri"),
            (r#""Forecasts"."Price Forecasts""#, "Forecasts", "Price Forecasts"),
            (r#"public."a.b""c""#, "public", r#"a.b"c"#),
        ] {
            assert_eq!(QualifiedName::parse(text), Ok(QualifiedName::new(schema, name)), "{text}");
        }
        for bad in ["", "a.", ".b", "a.b.c", r#""open"#, "a b", "t; drop table x"] {
            assert!(QualifiedName::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_name_round_trips(schema in "[^\0]{1,15}", name in "[^\0]{1,15}") {
            let n = QualifiedName::new(schema, name);
            prop_assert_eq!(QualifiedName::parse(&n.to_string()), Ok(n.clone()));
            prop_assert_eq!(QualifiedName::parse(&n.plain()), Ok(n));
        }

        #[test]
        fn derived_names_fit_and_are_unique(a in "\\PC{0,90}", b in "\\PC{0,90}") {
            let (x, y) = (Ident::derived(&a), Ident::derived(&b));
            prop_assert!(x.as_str().len() <= MAX_BYTES);
            prop_assert_eq!(a == b, x == y);
        }
    }
}
