//! Tests of every sentence, and of the codes that `--json` prints for them.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::{fixture, note, phase, throttle, warning};

const COMMANDS: &str = include_str!("../../../docs/commands.md");

fn code(one: &impl Serialize) -> String {
    let value = serde_json::to_value(one).unwrap_or_default();
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    text("code").to_owned()
}

/// One line each: the code and the sentence.
fn table<T: Serialize>(all: &[T], sentence: impl Fn(&T) -> String) -> String {
    all.iter().map(|one| format!("{}: {}\n", code(one), sentence(one))).collect()
}

#[test]
fn what_phases_do() {
    let with_phase = |work: &_| format!("[{}] {}", crate::event::PhaseWork::phase(work), phase::work(work));
    insta::assert_snapshot!(table(&fixture::works(), with_phase));
}

#[test]
fn what_phases_result_in() {
    insta::assert_snapshot!(table(&fixture::outcomes(), phase::outcome));
}

#[test]
fn every_note() {
    insta::assert_snapshot!(table(&fixture::notes(), note::of));
}

#[test]
fn every_warning() {
    insta::assert_snapshot!(table(&fixture::warnings(), warning::of));
}

#[test]
fn why_jobs_are_throttled() {
    let holds = fixture::holds();
    let lines: String = holds.iter().map(|hold| format!("{}\n", throttle::hold_of(hold))).collect();
    insta::assert_snapshot!(lines);
    let resumed = throttle::resumed(holds[1].signal, 4.12);
    assert_eq!(resumed, "the job was paused for 4.1 s");
}

/// The codes in a source file: the variants of its enums that are serialized with a code.
fn declared(source: &str) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for part in source.split("#[serde(tag = \"code\", rename_all = \"snake_case\")]").skip(1) {
        let body = part.split("\n}").next().unwrap_or_default();
        for line in body.lines().skip(1).filter_map(|line| line.strip_prefix("    ")) {
            let name: String = line.chars().take_while(char::is_ascii_alphanumeric).collect();
            if name.starts_with(|c: char| c.is_ascii_uppercase()) {
                let mut code = String::new();
                for c in name.chars() {
                    if c.is_ascii_uppercase() && !code.is_empty() {
                        code.push('_');
                    }
                    code.push(c.to_ascii_lowercase());
                }
                codes.insert(code);
            }
        }
    }
    codes
}

#[test]
fn every_code_has_a_sentence_here_and_a_line_in_the_documentation() {
    let shown = |codes: Vec<String>| codes.into_iter().collect::<BTreeSet<_>>();
    let phases = fixture::works().iter().map(code).chain(fixture::outcomes().iter().map(code)).collect();
    assert_eq!(shown(phases), declared(include_str!("../../event/phase.rs")));
    let notes = shown(fixture::notes().iter().map(code).collect());
    assert_eq!(notes, declared(include_str!("../../event/note.rs")));
    let warnings = shown(fixture::warnings().iter().map(code).collect());
    assert_eq!(warnings, declared(include_str!("../../event/warning.rs")));
    let causes = fixture::holds().into_iter().filter_map(|hold| hold.cause).map(|cause| code(&cause));
    assert_eq!(shown(causes.collect()), declared(include_str!("../../model/pace/cause.rs")));
    assert_eq!(notes.intersection(&warnings).count(), 0);
    for code in notes.iter().chain(&warnings) {
        assert!(COMMANDS.contains(&format!("`{code}`")), "docs/commands.md has no {code}");
    }
}

#[test]
fn events_are_one_object_each() {
    let line = |event| super::super::json::line(&event);
    let job = || "t".to_owned();
    let work = fixture::works().swap_remove(2);
    let outcome = fixture::outcomes().swap_remove(4);
    let warning = fixture::warnings().into_iter().find(|one| code(one) == "waiting_for_snapshots");
    use crate::event::Event;
    let events = [
        line(Event::PhaseStarted { job: job(), phase: work.phase(), work }),
        line(Event::PhaseDone { job: job(), phase: "copy", outcome, duration_ms: 36_250.5 }),
        line(Event::Throttled { job: job(), hold: fixture::holds().swap_remove(5) }),
        line(Event::Resumed { job: job(), signal: crate::model::pace::Signal::ReplicaLag, throttled_s: 4.1 }),
        line(Event::Note(fixture::notes().swap_remove(1))),
        line(Event::Note(fixture::notes().swap_remove(5))),
        warning.map_or_else(String::new, |warning| line(Event::Warning(warning))),
    ];
    insta::assert_snapshot!(events.join("\n"));
}
