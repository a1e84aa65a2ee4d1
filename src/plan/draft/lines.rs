//! The lines of a drafted plan. The findings of the check are comments above the line of the key that resolves
//! them.

use toml::Value;

use crate::model::finding::Finding;

/// The maximum length of a line of prose.
pub(in crate::plan) const WIDTH: usize = 96;

/// The lines so far, and the findings that have no line yet.
#[derive(Debug)]
pub(in crate::plan) struct DraftLines<'a> {
    lines: Vec<String>,
    findings: Vec<&'a Finding>,
    key_of: fn(&str) -> &'static str,
}

impl<'a> DraftLines<'a> {
    /// `key_of`: the key that resolves the finding with that code.
    pub(super) fn new(findings: &'a [Finding], key_of: fn(&str) -> &'static str) -> Self {
        Self { lines: Vec::new(), findings: findings.iter().collect(), key_of }
    }

    /// Adds lines as they are.
    pub(super) fn extend(&mut self, lines: impl IntoIterator<Item = String>) {
        self.lines.extend(lines);
    }

    /// Adds the header of a section, after an empty line.
    pub(super) fn section(&mut self, name: &str) {
        self.lines.extend([String::new(), format!("[{name}]")]);
    }

    /// Whether a finding belongs to this key.
    pub(super) fn asks(&self, key: &str) -> bool {
        self.findings.iter().any(|finding| (self.key_of)(finding.code) == key)
    }

    /// Adds the line of a key below the findings that it resolves.
    pub(super) fn key(&mut self, key: &str, line: String) {
        let key_of = self.key_of;
        self.place(|finding| key_of(finding.code) == key);
        self.lines.push(line);
    }

    fn place(&mut self, here: impl Fn(&Finding) -> bool) {
        let (placed, rest) = self.findings.iter().partition(|finding| here(finding));
        self.findings = rest;
        let placed: Vec<&Finding> = placed;
        self.lines.extend(placed.into_iter().flat_map(described));
    }

    /// The text. Findings without a line are at its end.
    pub(super) fn finish(mut self) -> String {
        self.place(|_| true);
        self.lines.push(String::new());
        self.lines.join("\n")
    }
}

/// A finding as comment lines. Each SQL statement of its hint has a line of its own, which can be copied.
fn described(finding: &Finding) -> Vec<String> {
    let mut lines = wrapped(&format!("{}[{}]: {}", finding.level, finding.code, finding.message), "", "  ");
    let mut first = "  hint: ";
    for part in parts(&finding.hint) {
        match part {
            HintPart::Prose(text) => lines.extend(wrapped(text, first, "    ")),
            HintPart::Statement(sql) => {
                if first.contains("hint") {
                    lines.push("  hint: run".to_owned());
                }
                lines.push(format!("    {sql};"));
            }
        }
        first = "    ";
    }
    lines.iter().map(|line| comment(line)).collect()
}

#[derive(Debug, PartialEq, Eq)]
enum HintPart<'a> {
    Prose(&'a str),
    Statement(&'a str),
}

/// The prose and the statements of a hint, which are separated by `; ` or follow a colon.
fn parts(hint: &str) -> Vec<HintPart<'_>> {
    const STARTS: [&str; 7] =
        ["alter ", "create ", "drop index ", "drop constraint ", "update ", "reindex ", "security label "];
    let is_sql = |text: &str| STARTS.iter().any(|start| text.starts_with(start));
    let mut all = Vec::new();
    for part in hint.split("; ").filter(|part| !part.is_empty()) {
        let split = part.match_indices(": ").find(|(at, _)| is_sql(&part[at + 2..]));
        match split {
            _ if is_sql(part) => all.push(HintPart::Statement(part)),
            Some((at, _)) => {
                all.extend([HintPart::Prose(&part[..=at]), HintPart::Statement(&part[at + 2..])]);
            }
            None => all.push(HintPart::Prose(part)),
        }
    }
    all
}

/// Breaks prose into lines that fit into a comment; a longer word has a line of its own.
pub(in crate::plan) fn wrapped(text: &str, first: &str, indent: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH - "# ".len() {
            lines.push(std::mem::replace(&mut line, indent.to_owned()));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines
}

pub(super) fn setting(key: &str, width: usize, value: impl Into<Value>, about: &str) -> String {
    let value: Value = value.into();
    let line = format!("{key:<width$} = {value}");
    if about.is_empty() { line } else { format!("{line:<30} {}", comment(about)) }
}

/// Writes one comment line. A line break in a name must not end the comment.
pub(in crate::plan) fn comment(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.is_empty() { "#".to_owned() } else { format!("# {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::explanation;
    use crate::model::finding::Level;
    use crate::plan::answers;
    use proptest::prelude::*;

    fn finding(code: &'static str, hint: &str) -> Finding {
        let message = "partition column created_at is nullable (0 rows contain NULL now), but it becomes part of the key".to_owned();
        Finding { level: Level::Error, code, object: "created_at".to_owned(), message, hint: hint.to_owned() }
    }

    #[test]
    fn statements_can_be_copied() {
        let hint = "set a value in these rows, then run: alter table t add constraint c check (at is not null) not valid; alter table t validate constraint c";
        insta::assert_snapshot!(described(&finding("nullable_partition_column", hint)).join("\n"), @r"
        # error[nullable_partition_column]: partition column created_at is nullable (0 rows contain NULL
        #   now), but it becomes part of the key
        #   hint: set a value in these rows, then run:
        #     alter table t add constraint c check (at is not null) not valid;
        #     alter table t validate constraint c;
        ");
    }

    #[test]
    fn every_finding_has_a_line() {
        let findings: Vec<Finding> = explanation::all().iter().map(|one| finding(one.code, "")).collect();
        for key_of in [answers::key_of, answers::key_of_backfill, answers::key_of_retype] {
            let mut lines = DraftLines::new(&findings, key_of);
            for key in ["name", "table", "partition.by"] {
                lines.key(key, format!("{key} = 1"));
            }
            let text = lines.finish();
            for code in explanation::all().iter().map(|one| one.code) {
                assert_eq!(text.matches(&format!("[{code}]")).count(), 1, "{code}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_ends_a_comment(message: String, hint: String) {
            let finding = Finding { message, ..finding("key", &hint) };
            for line in described(&finding) {
                prop_assert!(line.starts_with('#') && line.lines().count() == 1, "{line:?}");
            }
        }
    }
}
