//! The structure of the source and of the tests: which folders are pure, who imports from whom, that failpoints match their list,
//! that files stay small.

use std::collections::{BTreeMap, BTreeSet};
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
fn every_failpoint_is_listed_and_every_listed_one_exists() {
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

/// What a file below `folder` is called as a module, from the crate down.
fn module(folder: &str, path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let name = path.strip_prefix(root).unwrap().with_extension("");
    let name = if name.ends_with("mod") { name.parent().unwrap().to_owned() } else { name };
    name.iter().map(|part| part.to_str().unwrap()).collect::<Vec<_>>().join("::")
}

/// The paths of a `use` declaration, one for each name.
fn paths(declaration: &str) -> Vec<String> {
    let Some((before, rest)) = declaration.split_once('{') else {
        return vec![declaration.trim().to_owned()];
    };
    let inside = &rest[..rest.rfind('}').unwrap()];
    let (mut depth, mut items) = (0, vec![String::new()]);
    for c in inside.chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        match c {
            ',' if depth == 0 => items.push(String::new()),
            c => items.last_mut().unwrap().push(c),
        }
    }
    let items = items.iter().filter(|item| !item.trim().is_empty());
    items.flat_map(|item| paths(&format!("{}{}", before.trim(), item.trim()))).collect()
}

/// Each module with those that it imports from. Tests within a file do not count, nor does a folder that lists its files.
fn imports(folder: &str) -> BTreeMap<String, BTreeSet<String>> {
    let files = files(folder);
    let modules: BTreeSet<String> = files.iter().map(|(path, _)| module(folder, path)).collect();
    let mut all = BTreeMap::new();
    for (path, text) in &files {
        let own = module(folder, path);
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let mut from = BTreeSet::new();
        for declaration in code.split("\nuse ").skip(1).filter_map(|rest| rest.split(';').next()) {
            for path in paths(&declaration.replace('\n', " ")) {
                let mut at: Vec<&str> = own.split("::").collect();
                let mut names = path.split("::").peekable();
                match names.peek() {
                    Some(&"crate") => {
                        names.next();
                        at.clear();
                    }
                    Some(&"super") => {
                        while names.next_if_eq(&"super").is_some() {
                            at.pop();
                        }
                    }
                    _ => continue,
                }
                at.extend(names);
                while !at.is_empty() && !modules.contains(&at.join("::")) {
                    at.pop();
                }
                let found = at.join("::");
                if !found.is_empty() && found != own {
                    from.insert(found);
                }
            }
        }
        all.insert(own, from);
    }
    all
}

#[test]
fn no_file_imports_in_a_circle() {
    let imports = imports("src");
    for start in imports.keys() {
        let (mut seen, mut left) = (BTreeSet::new(), vec![start]);
        while let Some(module) = left.pop() {
            for next in imports.get(module).into_iter().flatten() {
                assert!(next != start, "{start} imports from itself by way of {module}");
                if seen.insert(next) {
                    left.push(next);
                }
            }
        }
    }
}

/// From the outside in: a folder imports from those behind it only. What every one may import stands apart.
const LAYERS: [&str; 11] =
    ["main", "command", "demo", "engine", "phase", "pg", "throttle", "report", "sql", "plan", "model"];
const EVERYBODY: [&str; 6] = ["cli", "clock", "error", "event", "failpoint", "stop"];

#[test]
fn folders_import_from_those_behind_them_only() {
    for (module, from) in imports("src") {
        let folder = |name: &str| name.split("::").next().unwrap().to_owned();
        let own = folder(&module);
        let place = |name: &str| LAYERS.iter().position(|layer| *layer == name);
        for other in from.iter().map(|other| folder(other)).filter(|other| *other != own) {
            if EVERYBODY.contains(&other.as_str()) {
                continue;
            }
            assert!(place(&own) < place(&other), "{module} imports from {other}");
        }
    }
}

/// What kind a job has is asked where a plan is read, where a job's record is read, and where either gets its driver.
#[test]
fn kinds_are_distinguished_in_three_places() {
    let mut places: Vec<String> = Vec::new();
    let sources = files("src")
        .into_iter()
        .filter(|(path, _)| !module("src", path).split("::").any(|part| part == "tests"));
    for (path, text) in sources {
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let is_arm = |line: &&str| {
            let kind = ["Backfill", "Retype"].iter().any(|kind| line.contains(&format!("::{kind}")));
            let name = ["\"backfill\"", "\"retype\""].iter().any(|name| line.starts_with(name));
            line.contains("=>") && (kind || name)
        };
        if code.lines().map(str::trim).any(|line| is_arm(&line)) {
            places.push(module("src", &path));
        }
    }
    places.sort();
    assert_eq!(places, ["engine::kind", "model::design", "plan::task"]);
}

/// A module of the tests and its folder show one thing; what several need is in `support`.
#[test]
fn test_modules_import_from_support_and_from_their_own_folder_only() {
    let room = |module: &str| module.split("::").next().unwrap().to_owned();
    for (module, from) in imports("tests") {
        for other in from.iter().filter(|other| room(other) != room(&module)) {
            assert_eq!(room(other), "support", "{module} imports from {other}");
            assert_ne!(room(&module), "support", "support is for all: it imports from {other}");
        }
    }
    for (path, text) in files("tests").iter().filter(|(path, _)| !path.ends_with("layering.rs")) {
        let above = |part: &str| text.matches(part).count();
        assert_eq!(above("crate::"), above("crate::support::"), "{}: a path into a test", path.display());
        assert_eq!(above("super::super::"), 0, "{}: write crate::support", path.display());
    }
}

#[test]
fn no_two_types_of_the_tests_have_one_name() {
    let mut places = BTreeMap::new();
    for (path, text) in files("tests") {
        for line in text.lines() {
            let mut words =
                line.split([' ', '(', '<', ';']).filter(|word| !word.is_empty() && *word != "pub");
            if let (Some("struct" | "enum"), Some(name)) = (words.next(), words.next())
                && let Some(before) = places.insert(name.to_owned(), path.clone())
            {
                panic!("{name} is a type of {} and of {}", before.display(), path.display());
            }
        }
    }
}

#[test]
fn files_stay_under_500_lines() {
    for (path, text) in ["src", "tests", "benches"].into_iter().flat_map(files) {
        assert!(text.lines().count() < 500, "{} has {} lines", path.display(), text.lines().count());
    }
}
