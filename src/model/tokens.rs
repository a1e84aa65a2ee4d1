//! SQL text as tokens.

/// Splits the text into names, strings, sequences of spaces, and single other characters (`::` is one token). The
/// tokens, joined, are the text.
#[must_use]
pub fn tokens(text: &str) -> Vec<&str> {
    let is_of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let end = if c == '"' || c == '\'' {
            closed(rest, c, false)
        } else if rest.starts_with("E'") {
            1 + closed(&rest[1..], '\'', true)
        } else if is_of_word(c) {
            rest.find(|c| !is_of_word(c)).unwrap_or(rest.len())
        } else if c.is_whitespace() {
            rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            c.len_utf8()
        };
        tokens.push(&rest[..end]);
        rest = &rest[end..];
    }
    tokens
}

/// The quoted token at the start of the text, which begins with the quote.
#[must_use]
pub fn quoted(text: &str) -> &str {
    &text[..text.chars().next().map_or(0, |quote| closed(text, quote, false))]
}

/// The end of a quoted token. A doubled quote is part of the token and, with `escapes`, so is the character after a
/// backslash.
fn closed(text: &str, quote: char, escapes: bool) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && escapes {
            chars.next();
        } else if c == quote && chars.next_if(|(_, c)| *c == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn joined_tokens_are_the_text(text in "[-t.:*'\"E\\\\ (é\n]{0,30}") {
            prop_assert_eq!(tokens(&text).concat(), text);
        }
    }
}
