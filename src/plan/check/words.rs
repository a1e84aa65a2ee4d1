//! SQL and procedural code as words, to find constructs without a parser. False positives are preferred: an unnecessary
//! warning does less harm than a missing one.

use crate::model::ident::{Ident, QualifiedName};
use crate::model::tokens::quoted;

/// A text as words and punctuation. Unquoted words are in lower case. Comments are omitted. Words in string literals
/// are included, because a string may contain a statement.
#[derive(Debug)]
pub(super) struct Words(Vec<String>);

impl Words {
    pub(super) fn of(text: &str) -> Self {
        let mut words = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let length = if rest.starts_with("--") {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                rest.find("*/").map_or(rest.len(), |end| end + 2)
            } else if c == '"' {
                let name = quoted(rest);
                let inner = name[1..].strip_suffix('"').unwrap_or(&name[1..]);
                words.push(inner.replace("\"\"", "\""));
                name.len()
            } else if is_of_word(c) {
                let end = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
                words.push(rest[..end].to_lowercase());
                end
            } else {
                if !c.is_whitespace() && c != '\'' {
                    words.push(c.to_string());
                }
                c.len_utf8()
            };
            rest = &rest[length..];
        }
        Self(words)
    }

    /// The position after each occurrence of this sequence of words.
    pub(super) fn after<'a>(&'a self, sought: &'a [&str]) -> impl Iterator<Item = usize> + 'a {
        let last = (self.0.len() + 1).saturating_sub(sought.len());
        let matches = move |i: &usize| self.0[*i..].iter().zip(sought).all(|(word, want)| word == want);
        (0..last).filter(matches).map(|i| i + sought.len())
    }

    pub(super) fn has(&self, sought: &[&str]) -> bool {
        self.after(sought).next().is_some()
    }

    pub(super) fn get(&self, i: usize) -> &str {
        self.0.get(i).map_or("", String::as_str)
    }

    /// The words before a position, the nearest first.
    pub(super) fn before(&self, i: usize) -> impl Iterator<Item = (usize, &str)> {
        self.0[..i.min(self.0.len())].iter().enumerate().rev().map(|(i, word)| (i, word.as_str()))
    }

    /// The words from a position to the end of the statement.
    pub(super) fn statement(&self, i: usize) -> impl Iterator<Item = &str> {
        self.0[i.min(self.0.len())..].iter().map(String::as_str).take_while(|word| *word != ";")
    }

    /// The position after the table's name, if the name is at this position, with or without its schema.
    pub(super) fn table(&self, i: usize, table: &QualifiedName) -> Option<usize> {
        let is = |i: usize, name: &Ident| self.get(i) == name.as_str();
        if is(i, &table.schema) && self.get(i + 1) == "." && is(i + 2, &table.name) {
            return Some(i + 3);
        }
        (is(i, &table.name) && self.get(i + 1) != ".").then_some(i + 1)
    }

    /// The words in the parentheses that begin at this position, without the commas.
    pub(super) fn list(&self, i: usize) -> Vec<&str> {
        let inside = self.0[i.min(self.0.len())..].iter().map(String::as_str).skip(1);
        inside.take_while(|word| *word != ")").filter(|word| *word != ",").collect()
    }

    /// The position after each `INSERT INTO` the table.
    pub(super) fn inserts<'a>(&'a self, table: &'a QualifiedName) -> impl Iterator<Item = usize> + 'a {
        self.after(&["insert", "into"]).filter_map(|i| self.table(i, table))
    }

    /// Whether an INSERT into the table has an `ON CONFLICT` clause with exactly these columns.
    pub(super) fn arbiter_is(&self, table: &QualifiedName, columns: &[Ident]) -> bool {
        self.after(&["on", "conflict"]).any(|i| {
            let into =
                self.before(i).find(|(j, word)| *word == "into" && self.get(j.wrapping_sub(1)) == "insert");
            let listed = if self.get(i) == "(" { self.list(i) } else { Vec::new() };
            into.is_some_and(|(j, _)| self.table(j + 1, table).is_some())
                && listed.len() == columns.len()
                && columns.iter().all(|c| listed.contains(&c.as_str()))
        })
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn comments_are_omitted_and_quoted_names_are_unchanged() {
        let words = Words::of("Select \"It's\" -- from a\n/* b */ FROM ONLY lab.\"T\" where x='Q' -- z");
        assert_eq!(words.0, ["select", "It's", "from", "only", "lab", ".", "T", "where", "x", "=", "q"]);
        let table = QualifiedName::new("lab", "T");
        assert_eq!(words.after(&["only"]).find_map(|i| words.table(i, &table)), Some(7));
    }

    #[test]
    fn the_arbiter_belongs_to_its_insert() {
        let table = QualifiedName::new("public", "t");
        let key = [Ident::new("a"), Ident::new("b")];
        let is = |text: &str| Words::of(text).arbiter_is(&table, &key);
        assert!(is("INSERT INTO public.t (a, b) VALUES (1, 2) ON CONFLICT(b, a) DO NOTHING"));
        assert!(is("perform 'insert into t select 1 on conflict (a, b) do update set c = 1'"));
        assert!(!is("insert into t values (1); insert into u values (1) on conflict (a, b) do nothing"));
        assert!(!is("insert into t values (1) on conflict (a, b, c) do nothing"));
        assert!(!is("insert into t values (1) on conflict on constraint t_pkey do nothing"));
        assert!(!is("insert into t values (1) on conflict do nothing"));
    }

    proptest! {
        #[test]
        fn any_text_is_split(text in "[-/*\"'a-zé(). \n]{0,40}") {
            let words = Words::of(&text);
            let table = QualifiedName::new("a", "b");
            prop_assert!(!words.arbiter_is(&table, &[Ident::new("c")]) || text.contains("insert"));
        }
    }
}
