//! Events, results and errors as JSON, one line each.

use serde::Serialize;

use super::sentence;
use crate::{error::Error, event::Event, model::ident::is_unprintable};

/// One event: its fields, and a sentence that describes it.
pub(super) fn line(event: &Event) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(flatten)]
        event: &'a Event,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    }
    result(&Line { event, text: sentence::of(event) })
}

/// One result.
pub(super) fn result<T: Serialize>(value: &T) -> String {
    match serde_json::to_string(value) {
        Ok(text) => without_control_characters(&text),
        Err(e) => serde_json::json!({ "error": { "code": "failed", "message": e.to_string() } }).to_string(),
    }
}

/// Escapes control characters that JSON allows in strings, because a terminal would interpret them.
fn without_control_characters(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut text, c| {
        if is_unprintable(c) {
            text.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            text.push(c);
        }
        text
    })
}

/// An error: `{"error":{"code","message","cause","hint","sqlstate","exit_code"}}`.
pub(super) fn error(error: &Error) -> String {
    #[derive(Serialize)]
    struct Outer<'a> {
        error: ErrorFields<'a>,
    }
    #[derive(Serialize)]
    struct ErrorFields<'a> {
        code: &'a str,
        message: String,
        cause: Option<&'a str>,
        hint: Option<&'a str>,
        sqlstate: Option<&'a str>,
        exit_code: u8,
    }
    result(&Outer {
        error: ErrorFields {
            code: error.kind().code(),
            message: [&[error.message().to_owned()], error.detail_lines()].concat().join("\n  "),
            cause: error.cause_text().as_deref(),
            hint: error.hint_text(),
            sqlstate: error.sqlstate(),
            exit_code: error.exit_code(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ThrottleWarning;

    #[test]
    fn control_characters_are_escaped() {
        let (title, text) = (String::new(), "a\x1b[2J\u{7f}\u{9b}31m\u{202e}é\n".to_owned());
        let story = line(&Event::Story { title, text });
        assert_eq!(story, r#"{"event":"story","title":"","text":"a\u001b[2J\u007f\u009b31m\u202eé\n"}"#);
    }

    #[test]
    fn events_are_one_object_each() {
        let progress = Event::Progress {
            job: "j".to_owned(),
            phase: "copy",
            done: 1,
            total: 2,
            unit: "rows",
            per_second: 0.5,
            eta_s: Some(2),
        };
        insta::assert_snapshot!(line(&progress), @r#"{"event":"progress","job":"j","phase":"copy","done":1,"total":2,"unit":"rows","per_second":0.5,"eta_s":2,"text":"1 of 2 rows (50 %), 0.5 rows/s, 2s left"}"#);
        let warning = ThrottleWarning::StandbyUnusable { error: "two\nlines".to_owned() };
        insta::assert_snapshot!(line(&Event::Warning(warning.into())), @r#"{"event":"warning","code":"standby_unusable","error":"two\nlines","text":"cannot query a standby of the plan: two\nlines"}"#);
    }

    #[test]
    fn an_error_has_all_its_fields() {
        let it = Error::usage("no table t").cause("it is a view").hint("name a table").code("42809");
        insta::assert_snapshot!(error(&it), @r#"{"error":{"code":"invalid_usage","message":"no table t","cause":"it is a view","hint":"name a table","sqlstate":"42809","exit_code":2}}"#);
        let problems = Error::usage("p.toml has 2 errors").details(vec!["one".to_owned(), "two".to_owned()]);
        insta::assert_snapshot!(error(&problems), @r#"{"error":{"code":"invalid_usage","message":"p.toml has 2 errors\n  one\n  two","cause":null,"hint":null,"sqlstate":null,"exit_code":2}}"#);
        insta::assert_snapshot!(error(&Error::failed("x")), @r#"{"error":{"code":"failed","message":"x","cause":null,"hint":null,"sqlstate":null,"exit_code":1}}"#);
    }
}
