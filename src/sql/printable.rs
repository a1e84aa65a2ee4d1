//! Makes statements safe to print on a terminal: names may contain any character, including terminal control
//! sequences.

use std::fmt::Write;

use crate::model::ident::is_unprintable;

/// Replaces the control characters of a statement by SQL Unicode escapes: `U&"…"` for names, `U&'…'` for strings. Text
/// in dollar quotes is code, and is escaped in the same way. In comments, each control character is replaced by a
/// question mark.
pub fn printable(statement: &str) -> String {
    if !statement.contains(is_unprintable) && !statement.contains(['\n', '\t']) {
        return statement.to_owned();
    }
    let (mut out, mut rest) = (String::with_capacity(statement.len()), statement);
    while !rest.is_empty() {
        let length = token(rest);
        let (one, after) = rest.split_at(length);
        // The prefix of a string or name, as in `E'` and `U&"`.
        let prefix = out.len() - out.trim_end_matches(|c: char| c.is_alphanumeric() || c == '_').len();
        let escaped = out[out.len() - prefix..].eq_ignore_ascii_case("e");
        match one.as_bytes()[0] {
            b'"' if one.contains(unprintable_in_name) && !out.ends_with("&") => {
                out.push_str("U&");
                escape(&mut out, one, unprintable_in_name);
            }
            b'\'' if one.contains(is_unprintable) && escaped => escape_in_e(&mut out, one),
            b'\'' if one.contains(is_unprintable) && !out.ends_with('&') => {
                out.push_str("U&");
                escape(&mut out, one, is_unprintable);
            }
            b'$' if length > 1 => {
                let tag = one[1..].find('$').map_or(one.len(), |at| at + 2);
                let body = one.get(tag..one.len() - tag).unwrap_or_default();
                let _ = write!(out, "{0}{1}{0}", &one[..tag], printable(body));
            }
            _ => out.extend(one.chars().map(|c| if is_unprintable(c) { '?' } else { c })),
        }
        rest = after;
    }
    out
}

/// Whether a character must be escaped in a name. This includes line breaks, which would look like the end of a line of
/// SQL.
fn unprintable_in_name(c: char) -> bool {
    is_unprintable(c) || matches!(c, '\n' | '\t')
}

/// Writes the escaped text that follows `U&`.
fn escape(out: &mut String, quoted: &str, unprintable: fn(char) -> bool) {
    for c in quoted.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            c if unprintable(c) => {
                let _ = write!(out, "\\{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

/// Writes an `E` string.
fn escape_in_e(out: &mut String, quoted: &str) {
    for c in quoted.chars() {
        if is_unprintable(c) {
            let _ = write!(out, "\\u{:04X}", u32::from(c));
        } else {
            out.push(c);
        }
    }
}

/// The length in bytes of the quoted name, string, comment or dollar-quoted text at the start of `text`; otherwise that
/// of one character.
fn token(text: &str) -> usize {
    let first = text.chars().next().map_or(1, char::len_utf8);
    match text.as_bytes()[0] {
        quote @ (b'"' | b'\'') => quoted(text, quote),
        b'-' if text.starts_with("--") => text.find('\n').unwrap_or(text.len()),
        b'$' => dollar_quoted(text).unwrap_or(first),
        _ => first,
    }
}

/// The length up to and including the closing quote. A doubled quote does not close the text. Backslash escapes of
/// quotes do not occur: the server and this program double quotes in both kinds of strings.
fn quoted(text: &str, quote: u8) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        if bytes[at] == quote {
            if bytes.get(at + 1) != Some(&quote) {
                return at + 1;
            }
            at += 1;
        }
        at += 1;
    }
    text.len()
}

fn dollar_quoted(text: &str) -> Option<usize> {
    let end = text[1..].find('$')? + 2;
    let tag = &text[..end];
    let named = |c: char| c.is_alphanumeric() || c == '_';
    if !tag[1..end - 1].chars().all(named) || tag[1..].starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    text[end..].find(tag).map(|at| end + at + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        for (text, shown) in [
            ("select \"a\" from \"b\"\nwhere 'x\ny'", "select \"a\" from \"b\"\nwhere 'x\ny'"),
            ("drop table \"a\x1b[2J\"\"b\\\"", "drop table U&\"a\\001B[2J\"\"b\\\\\""),
            ("drop table \"a\n-- b\"", "drop table U&\"a\\000A-- b\""),
            ("comment on table t is 'it''s \x07'", "comment on table t is U&'it''s \\0007'"),
            ("comment on table t is  E'\\\\ \u{9b}31m'", "comment on table t is  E'\\\\ \\u009B31m'"),
            (
                "do $pg$\nbegin x(\"a\x1b\", '\u{202e}'); -- \x1b\nend\n$pg$",
                "do $pg$\nbegin x(U&\"a\\001B\", U&'\\202E'); -- ?\nend\n$pg$",
            ),
            ("select $1::text, \"$\x7f\" -- \x08", "select $1::text, U&\"$\\007F\" -- ?"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }
}
