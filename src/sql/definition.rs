//! Extracts parts of the definitions that the server prints. The start of a part is found by parsing the definition
//! from its beginning, name by name, because a name may contain ` ON `, ` USING ` or any other text.

use crate::model::ident::Ident;
use crate::model::tokens::tokens;

/// A name as the server prints it, quoted or unquoted.
const NAME: &str = r#"(?:"(?:[^"]|"")*"|[^" .,]+)"#;

/// The part after `USING` in the definition of the index with that oid: method, columns, INCLUDE, WITH, WHERE.
pub fn index_tail(oid: &str) -> String {
    let start = format!(r"^CREATE (?:UNIQUE )?INDEX {NAME} ON (?:ONLY )?{NAME}(?:\.{NAME})? USING ");
    format!("pg_catalog.regexp_replace(pg_catalog.pg_get_indexdef({oid}), '{start}', '')")
}

/// A regular expression for the definition of a trigger up to its table's name.
fn trigger_start() -> String {
    let event = format!("(?:INSERT|DELETE|UPDATE(?: OF {NAME}(?:, {NAME})*)?|TRUNCATE)");
    format!("^CREATE (?:CONSTRAINT )?TRIGGER {NAME} (?:BEFORE|AFTER|INSTEAD OF) {event}(?: OR {event})* ON ")
}

/// The part before the table's name in the definition of the trigger with that oid; ends with a space.
pub fn trigger_head(oid: &str) -> String {
    format!("pg_catalog.substring(pg_catalog.pg_get_triggerdef({oid}), '{}')", trigger_start())
}

/// The part after the table's name in the definition of the trigger with that oid; begins with a space.
pub fn trigger_tail(oid: &str) -> String {
    let start = trigger_start();
    format!(
        r"pg_catalog.regexp_replace(pg_catalog.pg_get_triggerdef({oid}), '{start}{NAME}(?:\.{NAME})?', '')"
    )
}

/// Replaces table `from` by `to` in the column references of an expression that the server printed.
///
/// Returns the expression unchanged if it already uses `to` as a name, because the new references would be ambiguous.
pub fn requalified(expression: &str, from: &Ident, to: &Ident) -> String {
    let tokens = tokens(expression);
    if from == to || tokens.iter().any(|token| names(token, to)) {
        return expression.to_owned();
    }
    let solid: Vec<usize> = (0..tokens.len()).filter(|i| !tokens[*i].trim().is_empty()).collect();
    let at = |place: usize| solid.get(place).map_or("", |i| tokens[*i]);
    let mut out: Vec<String> = tokens.iter().map(|token| (*token).to_owned()).collect();
    for (place, i) in solid.iter().enumerate() {
        let before = place.checked_sub(1).map_or("", at);
        // A schema may have the same name as the table. In that case, it precedes a function, a relation or a type.
        let is_schema = at(place + 3) == "(" || ["FROM", "JOIN", "ONLY", "::"].contains(&before);
        if names(tokens[*i], from) && at(place + 1) == "." && before != "." && !is_schema {
            out[*i] = to.to_string();
        }
    }
    out.concat()
}

/// The expressions and the predicate in the part of CREATE INDEX after the table's name. None if the text cannot be
/// parsed; otherwise, the result contains every function and operator in the text.
pub fn index_expressions(tail: &str) -> Option<Vec<String>> {
    let tokens = index_tokens(tail)?;
    let (elements, condition) = index_parts(&tokens)?;
    let mut all = Vec::new();
    for element in elements {
        all.extend(index_element(element)?);
    }
    all.extend(condition);
    Some(all)
}

/// The columns and expressions of a key in the same part of a definition, and the predicate. None if the text cannot be
/// parsed.
pub fn index_key(tail: &str) -> Option<(Vec<String>, Option<String>)> {
    let tokens = index_tokens(tail)?;
    let (elements, condition) = index_parts(&tokens)?;
    let column =
        |element: &[&str]| element.iter().find(|token| !token.trim().is_empty()).map(|t| (*t).to_owned());
    let one = |element: &[&str]| index_element(element)?.or_else(|| column(element));
    Some((elements.into_iter().map(one).collect::<Option<_>>()?, condition))
}

/// The elements of an index, and its predicate.
fn index_parts<'t, 's>(tokens: &'t [&'s str]) -> Option<(Vec<&'t [&'s str]>, Option<String>)> {
    let depths = depths(tokens)?;
    let is = |i: usize, word: &str| depths[i] == 0 && tokens[i].eq_ignore_ascii_case(word);
    let open = (0..tokens.len()).find(|i| tokens[*i] == "(")?;
    let shut = (open + 1..tokens.len()).find(|i| tokens[*i] == ")" && depths[*i] == 0)?;
    let mut all = Vec::new();
    let mut start = open + 1;
    for end in (start..=shut).filter(|i| *i == shut || tokens[*i] == "," && depths[*i] == 1) {
        all.push(&tokens[start..end]);
        start = end + 1;
    }
    let condition = (shut + 1..tokens.len()).find(|i| is(*i, "where")).map(|at| tokens[at + 1..].concat());
    Some((all, condition))
}

/// The expression of an element of an index: in parentheses, or a function call. A column has no expression. A
/// collation and an operator class may follow, whose parameters are constants. The outer option is none if the element
/// cannot be parsed.
fn index_element(tokens: &[&str]) -> Option<Option<String>> {
    let rest = tokens.iter().position(|token| !token.trim().is_empty())?;
    let name =
        |token: &&str| token.starts_with('"') || token.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let mut end = rest;
    let mut was_name = false;
    while let Some(token) = tokens.get(end) {
        let next = tokens[end..].iter().find(|token| !token.trim().is_empty()).copied().unwrap_or_default();
        match *token {
            "(" => break,
            "." => was_name = false,
            _ if token.trim().is_empty() && ["(", "."].contains(&next) => {}
            _ if token.trim().is_empty() && !was_name => {}
            token if name(&token) && !was_name => was_name = true,
            // A column, followed by a collation or an operator class. COLLATION FOR is followed by an expression.
            _ => return (was_name && !tokens[rest].eq_ignore_ascii_case("collation")).then_some(None),
        }
        end += 1;
    }
    if end == tokens.len() {
        return was_name.then_some(None);
    }
    let depths = depths(&tokens[end..])?;
    let shut = end + depths.iter().enumerate().position(|(i, depth)| i > 0 && *depth == 0)?;
    let after: Vec<&&str> = tokens[shut + 1..].iter().filter(|token| !token.trim().is_empty()).collect();
    let is_class = |pair: &[&&str]| *pair[1] != "(" || name(pair[0]);
    let followed = after.first().is_none_or(|token| name(token)) && after.windows(2).all(is_class);
    followed.then(|| Some(tokens[rest..=shut].concat()))
}

/// Splits the text into tokens; none if it contains syntax that [`tokens`] does not support: comments, dollar quotes,
/// or U& names.
fn index_tokens(text: &str) -> Option<Vec<&str>> {
    let tokens = tokens(text);
    let covered = |pair: &[&str]| {
        let comment = pair == ["-", "-"] || pair == ["/", "*"];
        let escaped = pair[1].starts_with(['"', '\'']) && ["e", "&"].contains(&pair[0]);
        !comment && !escaped
    };
    let dollar = tokens.iter().any(|token| token.starts_with('$'));
    (!dollar && tokens.windows(2).all(covered)).then_some(tokens)
}

/// The nesting depth of each token; both parentheses of a pair have the same depth. None if they do not match.
fn depths(tokens: &[&str]) -> Option<Vec<usize>> {
    let mut depth = 0_usize;
    let mut all = Vec::new();
    for token in tokens {
        match *token {
            "(" | "[" => {
                all.push(depth);
                depth += 1;
            }
            ")" | "]" => {
                depth = depth.checked_sub(1)?;
                all.push(depth);
            }
            _ => all.push(depth),
        }
    }
    (depth == 0).then_some(all)
}

fn names(token: &str, name: &Ident) -> bool {
    token == name.as_str() || token.starts_with('"') && token == name.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(expression: &str) -> String {
        requalified(expression, &Ident::new("t"), &Ident::new("t_new"))
    }

    #[test]
    fn only_columns_of_the_table_are_requalified() {
        for (expression, expected) in [
            (
                "(EXISTS ( SELECT 1 FROM m WHERE (m.team = t.team)))",
                "(EXISTS ( SELECT 1 FROM m WHERE (m.team = \"t_new\".team)))",
            ),
            ("hash_record(t.*) > 0", "hash_record(\"t_new\".*) > 0"),
            ("(n = 't.a'::text) AND (t.a = E'\\'t.a')", "(n = 't.a'::text) AND (\"t_new\".a = E'\\'t.a')"),
            ("t.f(a) = (SELECT 1 FROM t.u)", "t.f(a) = (SELECT 1 FROM t.u)"),
            ("(public.t.a = x.t.b) AND (c)::t.kind", "(public.t.a = x.t.b) AND (c)::t.kind"),
            ("\"t\".a = \"x t.\".a", "\"t_new\".a = \"x t.\".a"),
            ("(SELECT t_new.a FROM m t_new WHERE t.b)", "(SELECT t_new.a FROM m t_new WHERE t.b)"),
        ] {
            assert_eq!(moved(expression), expected);
        }
    }

    #[test]
    fn the_key_of_an_index_is_found() {
        let (key, condition) =
            index_key("btree (lower(a) DESC, \"b (\", (c || ','::text)) INCLUDE (d) WHERE (e > 1)").unwrap();
        assert_eq!(key, ["lower(a)", "\"b (\"", "(c || ','::text)"]);
        assert_eq!(condition.as_deref(), Some(" (e > 1)"));
        assert_eq!(index_key("btree (a, b)"), Some((vec!["a".to_owned(), "b".to_owned()], None)));
    }

    #[test]
    fn expressions_of_an_index_are_found() {
        for (tail, expected) in [
            ("(a)", Some(vec![])),
            ("using gin (a gin_trgm_ops, \"b (\" desc nulls last)", Some(vec![])),
            (
                "(lower(a), app.f ( b, ')' ) collate \"C\" text_pattern_ops desc)",
                Some(vec!["lower(a)", "app.f ( b, ')' )"]),
            ),
            (
                "((a || 'x,'), c) include (d) where lower('X') = a",
                Some(vec!["(a || 'x,')", " lower('X') = a"]),
            ),
            ("(a gist_ops(siglen = 32), b x.ops (\"n\"=1) desc)", Some(vec![])),
            ("(lower(a) collate \"C\" gist_ops(siglen = 32))", Some(vec!["lower(a)"])),
            ("((a) || f(b))", None),
            ("(collation for (f(1)))", None),
            ("(f(a) -- (\n)", None),
            ("(f($$)$$))", None),
            ("(f(e'\\')'))", None),
            ("(a", None),
        ] {
            let found = index_expressions(tail);
            let found = found.as_ref().map(|all| all.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(found, expected, "{tail}");
        }
    }
}
