//! The result of a check: all findings at once, each with a hint.

use std::fmt;

use serde::Serialize;

/// The severity of a finding; the most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The job cannot be done as planned.
    Error,
    /// The job can be done, but the finding should be examined first.
    Warning,
    /// For information.
    Note,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its severity.
    pub level: Level,
    /// A stable code for this kind of finding; `docs/findings.md` has an entry for each.
    pub code: &'static str,
    /// The object: the table, the index, the column.
    pub object: String,
    /// The fact, lowercase, with its numbers.
    pub message: String,
    /// What to do about it; empty if there is nothing to do.
    pub hint: String,
}

/// All findings, the most severe first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    errors: usize,
    warnings: usize,
    findings: Vec<Finding>,
}

impl Findings {
    /// Sorts `findings` by severity, otherwise in the given order.
    pub fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.level);
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        Self { errors: count(Level::Error), warnings: count(Level::Warning), findings }
    }

    /// Adds findings in their places.
    pub fn extend(&mut self, more: impl IntoIterator<Item = Finding>) {
        let all = std::mem::take(&mut self.findings).into_iter().chain(more);
        *self = Self::new(all.collect());
    }

    /// The number of errors: with any, the job must not start.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// The number of warnings.
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.findings.iter()
    }
}

impl<'a> IntoIterator for &'a Findings {
    type Item = &'a Finding;
    type IntoIter = std::slice::Iter<'a, Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_equals_keep_their_order() {
        let finding = |level, code| Finding {
            level,
            code,
            object: "t".to_owned(),
            message: "m".to_owned(),
            hint: String::new(),
        };
        let findings = Findings::new(vec![
            finding(Level::Note, "a"),
            finding(Level::Error, "b"),
            finding(Level::Warning, "c"),
            finding(Level::Error, "d"),
        ]);
        assert_eq!(findings.iter().map(|f| f.code).collect::<String>(), "bdca");
        assert_eq!((findings.errors(), findings.warnings()), (2, 1));
    }
}
