//! Problems of a plan, with their positions. All problems of a file are reported at once, so that they can be corrected
//! together.

use std::ops::Range;

use crate::error::Error;

/// One problem in the file.
#[derive(Debug)]
pub(super) struct Problem {
    /// The position in the text, in bytes; none for a missing key.
    pub(super) span: Option<Range<usize>>,
    pub(super) fact: String,
    pub(super) hint: Option<String>,
}

impl Problem {
    pub(super) fn new(span: Option<Range<usize>>, fact: impl Into<String>) -> Self {
        Self { span, fact: fact.into(), hint: None }
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<toml::de::Error> for Problem {
    fn from(error: toml::de::Error) -> Self {
        Self::new(error.span(), error.message().replace('\n', "; "))
    }
}

/// Combines all `problems` into one error, in the order of the file.
pub(super) fn report(file: &str, text: &str, mut problems: Vec<Problem>) -> Error {
    problems.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
    if let [only] = problems.as_slice() {
        let error = Error::usage(line(file, text, only));
        return match &only.hint {
            Some(hint) => error.hint(hint),
            None => error,
        };
    }
    let mut details = Vec::new();
    for problem in &problems {
        details.push(line(file, text, problem));
        details.extend(problem.hint.as_ref().map(|hint| format!("  hint: {hint}")));
    }
    Error::usage(format!("{file} has {} errors", problems.len())).details(details)
}

fn line(file: &str, text: &str, problem: &Problem) -> String {
    match problem.span.as_ref().and_then(|span| text.get(..span.start)) {
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
            format!("{file}:{line}:{column}: {}", problem.fact)
        }
        None => format!("{file}: {}", problem.fact),
    }
}
