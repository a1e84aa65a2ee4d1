//! The explanation of each finding. `docs/findings.md` is the only source: this module parses it, `pgstrata explain`
//! prints it, and every reported finding is checked against it.

use std::sync::LazyLock;

use serde::Serialize;

use super::finding::Level;

/// The entry for one code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The code, as in `check`.
    pub code: &'static str,
    /// The section of the document that contains it.
    pub topic: &'static str,
    /// The level, and the conditions under which it differs.
    pub level: &'static str,
    /// The finding in one sentence.
    pub meaning: &'static str,
    /// The reason for the finding.
    pub reason: &'static str,
    /// The recommended action.
    pub action: &'static str,
}

impl Explanation {
    /// Whether a finding with this code may have the level.
    pub fn allows(&self, level: Level) -> bool {
        self.level.split([',', ' ']).any(|word| word == level.to_string())
    }
}

static DOCUMENT: &str = include_str!("../../docs/findings.md");

static ALL: LazyLock<Vec<Explanation>> = LazyLock::new(|| {
    let topics = DOCUMENT.split("\n## ").skip(1);
    topics
        .flat_map(|topic| {
            let (title, rest) = topic.split_once('\n').unwrap_or((topic, ""));
            rest.split("\n### ").skip(1).filter_map(move |entry| read(title, entry))
        })
        .collect()
});

/// Parses an entry without its `### `; none if it does not have the expected format.
fn read(topic: &'static str, entry: &'static str) -> Option<Explanation> {
    let (code, rest) = entry.split_once('\n')?;
    let (level_and_meaning, rest) = rest.split_once("**Why.**")?;
    let (level, meaning) = level_and_meaning.trim().split_once(". ")?;
    let (reason, action) = rest.split_once("**What to do.**")?;
    let [reason, action] = [reason, action].map(str::trim);
    Some(Explanation { code: code.trim(), topic, level, meaning, reason, action })
}

/// All entries, in the order of the document.
pub fn all() -> &'static [Explanation] {
    &ALL
}

/// The entry for a code.
pub fn of(code: &str) -> Option<&'static Explanation> {
    ALL.iter().find(|one| one.code == code)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_entry_is_parsed_once_and_complete() {
        let headings: Vec<&str> = DOCUMENT.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        assert_eq!(all().iter().map(|one| one.code).collect::<Vec<_>>(), headings);
        assert_eq!(headings.iter().collect::<HashSet<_>>().len(), headings.len());
        for one in all() {
            let levels = [Level::Error, Level::Warning, Level::Note];
            assert!(levels.into_iter().any(|level| one.allows(level)), "{}: {}", one.code, one.level);
            for text in [one.meaning, one.reason, one.action] {
                assert!(text.ends_with('.') && !text.contains("**"), "{}: {text}", one.code);
            }
        }
    }

    #[test]
    fn a_code_has_the_levels_of_its_entry() {
        let one = of("infinite_values").unwrap();
        assert!(one.allows(Level::Error) && one.allows(Level::Warning) && !one.allows(Level::Note));
        assert!(of("no_such_code").is_none());
    }
}
