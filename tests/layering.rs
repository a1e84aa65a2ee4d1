//! The shape of the source: which folders are pure, that failpoints are what their list says, that files stay small.

use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file below `folder`, with its text.
fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push((path.clone(), fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

#[test]
fn pure_folders_know_neither_the_runtime_nor_the_driver() {
    for folder in ["src/model", "src/plan", "src/sql"] {
        for (path, text) in files(folder) {
            for effect in
                ["tokio", "bb8::", "crate::pg", "crate::phase", "crate::engine", "crate::report", "std::net"]
            {
                assert!(!text.contains(effect), "{} mentions {effect}", path.display());
            }
        }
    }
}

#[test]
fn every_failpoint_is_listed_and_every_listed_one_is_there() {
    let mut used: Vec<String> = files("src")
        .iter()
        .filter(|(path, _)| !path.ends_with("failpoint.rs"))
        .flat_map(|(_, text)| {
            text.split("failpoint!(\"")
                .skip(1)
                .filter_map(|rest| rest.split('"').next())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    used.sort();
    used.dedup();
    let mut listed: Vec<String> = pgstrata::failpoint::NAMES.iter().map(|name| (*name).to_owned()).collect();
    listed.sort();
    assert_eq!(used, listed);
}

/// That every finding has an entry is asserted where findings are made.
#[test]
fn every_explained_finding_is_reported_somewhere() {
    let sources: Vec<String> = files("src/plan").into_iter().map(|(_, text)| text).collect();
    for one in pgstrata::model::explanation::all() {
        let quoted = format!("\"{}\"", one.code);
        assert!(sources.iter().any(|text| text.contains(&quoted)), "nothing reports {}", one.code);
    }
}

#[test]
fn files_stay_under_500_lines() {
    for (path, text) in ["src", "tests", "benches"].into_iter().flat_map(files) {
        assert!(text.lines().count() < 500, "{} has {} lines", path.display(), text.lines().count());
    }
}
