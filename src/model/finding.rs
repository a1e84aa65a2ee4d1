//! The result of a check: all findings at once, each with a hint.

use std::fmt;

use serde::Serialize;

/// The severity of a finding, most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The job cannot run as planned.
    Error,
    /// The job can run, but the finding should be reviewed first.
    Warning,
    /// The finding is for information.
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
    /// The object, such as the table, an index, or a column.
    pub object: String,
    /// The message, in lower case, with numbers.
    pub message: String,
    /// The recommended action; empty if none is needed.
    pub hint: String,
}

/// All findings, most severe first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    errors: usize,
    warnings: usize,
    findings: Vec<Finding>,
}

impl Findings {
    /// Sorts `findings` by severity. Findings of the same severity keep their order.
    pub fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| finding.level);
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        Self { errors: count(Level::Error), warnings: count(Level::Warning), findings }
    }

    /// Adds findings, and sorts all findings.
    pub fn extend(&mut self, more: impl IntoIterator<Item = Finding>) {
        let all = std::mem::take(&mut self.findings).into_iter().chain(more);
        *self = Self::new(all.collect());
    }

    /// The number of errors. The job must not start if there are any.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// The number of warnings.
    pub fn warnings(&self) -> usize {
        self.warnings
    }

    /// Iterates over all findings.
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
    fn findings_are_sorted_by_severity_and_stable() {
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
