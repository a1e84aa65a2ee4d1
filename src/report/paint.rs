//! Colors, and the escaping of control characters in text from the database.

use std::borrow::Cow;

use anstyle::{AnsiColor, Style};

use crate::model::finding::Level;
use crate::model::ident::is_unprintable;

/// Whether to use colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paint(pub bool);

impl Paint {
    pub(super) fn level(self, level: Level) -> String {
        let color = match level {
            Level::Error => AnsiColor::Red,
            Level::Warning => AnsiColor::Yellow,
            Level::Note => AnsiColor::Cyan,
        };
        self.with(color.on_default().bold(), &level.to_string())
    }

    pub(super) fn good(self, text: &str) -> String {
        self.with(AnsiColor::Green.on_default().bold(), text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.with(AnsiColor::Red.on_default().bold(), text)
    }

    pub(super) fn strong(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    fn with(self, style: Style, text: &str) -> String {
        if self.0 { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// Escapes control characters, so that `text` is one line and has no effect on a terminal. Names and keys come from the
/// database and can contain any character.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    let unsafe_char = |c: char| c.is_control() || is_unprintable(c);
    if !text.contains(unsafe_char) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .fold(String::new(), |mut line, c| {
            if unsafe_char(c) {
                line.extend(c.escape_default());
            } else {
                line.push(c);
            }
            line
        })
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(harmless("a\x1b[2Jb\nc\u{9b}é"), "a\\u{1b}[2Jb\\nc\\u{9b}é");
        assert_eq!(harmless("größe\u{202e}"), "größe\\u{202e}");
    }

    #[test]
    fn colors_only_if_enabled() {
        assert_eq!(Paint(false).level(Level::Error), "error");
        assert_eq!(Paint(true).level(Level::Error), "\x1b[1m\x1b[31merror\x1b[0m");
    }
}
