//! The structure of the source and of the tests: pure folders, imports between folders, the list of failpoints, and the
//! size of files.

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
fn pure_folders_use_neither_the_runtime_nor_the_driver() {
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

/// The constructor of findings asserts that every finding has an explanation.
#[test]
fn every_explained_finding_is_reported_somewhere() {
    let sources: Vec<String> = files("src/plan").into_iter().map(|(_, text)| text).collect();
    for explanation in pgstrata::model::explanation::all() {
        let quoted = format!("\"{}\"", explanation.code);
        assert!(sources.iter().any(|text| text.contains(&quoted)), "nothing reports {}", explanation.code);
    }
}

/// The module path of a file below `folder`.
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

/// Each module with the modules that it imports from, except in unit tests.
fn imports(folder: &str) -> BTreeMap<String, BTreeSet<String>> {
    let files = files(folder);
    let modules: BTreeSet<String> = files.iter().map(|(path, _)| module(folder, path)).collect();
    let mut all = BTreeMap::new();
    for (path, text) in &files {
        let importer = module(folder, path);
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let mut from = BTreeSet::new();
        for declaration in code.split("\nuse ").skip(1).filter_map(|rest| rest.split(';').next()) {
            for path in paths(&declaration.replace('\n', " ")) {
                let mut at: Vec<&str> = importer.split("::").collect();
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
                if !found.is_empty() && found != importer {
                    from.insert(found);
                }
            }
        }
        all.insert(importer, from);
    }
    all
}

#[test]
fn imports_are_not_circular() {
    let imports = imports("src");
    for start in imports.keys() {
        let (mut seen, mut left) = (BTreeSet::new(), vec![start]);
        while let Some(module) = left.pop() {
            for next in imports.get(module).into_iter().flatten() {
                assert!(next != start, "{start} imports from itself through {module}");
                if seen.insert(next) {
                    left.push(next);
                }
            }
        }
    }
}

/// The folders in their order: a folder imports only from later ones, and from [`EVERYBODY`].
const LAYERS: [&str; 11] =
    ["main", "command", "demo", "engine", "phase", "pg", "throttle", "report", "sql", "plan", "model"];
const EVERYBODY: [&str; 6] = ["cli", "clock", "error", "event", "failpoint", "stop"];

#[test]
fn folders_import_only_from_later_layers() {
    for (module, from) in imports("src") {
        let folder = |name: &str| name.split("::").next().unwrap().to_owned();
        let importer = folder(&module);
        let position = |name: &str| LAYERS.iter().position(|layer| *layer == name);
        for other in from.iter().map(|other| folder(other)).filter(|other| *other != importer) {
            if EVERYBODY.contains(&other.as_str()) {
                continue;
            }
            assert!(position(&importer) < position(&other), "{module} imports from {other}");
        }
    }
}

/// The kind of a job is distinguished only in the list of kinds and where the driver is chosen.
#[test]
fn kinds_are_distinguished_in_two_places() {
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
    assert_eq!(places, ["engine::kind", "model::kind"]);
}

/// The text of a module's file, or of all files of its folder; none if there is neither.
fn module_text(path: &str) -> Option<String> {
    let all = files("src");
    let within = |name: &str| name == path || name.starts_with(&format!("{path}::"));
    let texts: Vec<&str> =
        all.iter().filter(|(file, _)| within(&module("src", file))).map(|(_, text)| text.as_str()).collect();
    (!texts.is_empty()).then(|| texts.concat())
}

/// In the answers of `lib.rs`, `module`: `item` names an item of that module, and every module exists.
#[test]
fn the_map_names_modules_and_items_that_exist() {
    let map = include_str!("../src/lib.rs").replace("[`pg`]`", "`pg").replace("\n//!   ", " ");
    let answers = map.lines().filter_map(|line| line.strip_prefix("//! - **")?.split_once("**: "));
    let mut named = 0;
    for (line, answer) in answers {
        let mut last: Option<String> = None;
        for part in answer.split('`').skip(1).step_by(2) {
            if part.contains(['/', '.', ' ', '-']) {
                continue;
            }
            if LAYERS.iter().chain(&EVERYBODY).any(|layer| part.split("::").next() == Some(layer)) {
                let text = module_text(part);
                assert!(text.is_some(), "{line}\nthere is no module {part}");
                (last, named) = (text, named + 1);
            } else if let Some(text) = &last {
                let item = part.rsplit("::").next().unwrap();
                assert!(text.contains(item), "{line}\nnothing is called {item} there");
            }
        }
    }
    assert!(named > 100, "only {named} modules were found");
}

#[test]
fn the_table_of_concepts_names_modules_that_exist() {
    let map = include_str!("../src/lib.rs").replace("; and [`throttle`]", "");
    let rows = map.lines().filter(|line| line.starts_with("//! | ") && line.matches('|').count() == 7);
    let rows: Vec<&str> = rows.skip(1).collect();
    assert!(rows.len() > 20);
    for row in rows {
        for (layer, cell) in ["model", "plan", "sql", "pg", "phase"].iter().zip(row.split('|').skip(2)) {
            for name in cell.split('`').skip(1).step_by(2) {
                let path = format!("{layer}::{name}");
                assert!(module_text(&path).is_some(), "{row}\nthere is no module {path}");
            }
        }
    }
}

/// A test module and its folder share no code with other test modules, except in `support`.
#[test]
fn test_modules_import_only_from_support_and_their_own_folder() {
    let top = |module: &str| module.split("::").next().unwrap().to_owned();
    for (module, from) in imports("tests") {
        for other in from.iter().filter(|other| top(other) != top(&module)) {
            assert_eq!(top(other), "support", "{module} imports from {other}");
            assert_ne!(top(&module), "support", "support imports from the test {other}");
        }
    }
    for (path, text) in files("tests").iter().filter(|(path, _)| !path.ends_with("layering.rs")) {
        let count = |part: &str| text.matches(part).count();
        assert_eq!(count("crate::"), count("crate::support::"), "{}: a path into a test", path.display());
        assert_eq!(count("super::super::"), 0, "{}: write crate::support", path.display());
    }
}

/// A name of a type means one thing in the whole source, except in unit tests.
#[test]
fn types_of_the_source_have_unique_names() {
    let mut places = BTreeMap::new();
    for (path, text) in files("src").into_iter().filter(|(path, _)| !module("src", path).contains("tests")) {
        for line in text.split("#[cfg(test)]\nmod ").next().unwrap().lines() {
            let mut words = line
                .split([' ', '(', '<', ';', ':'])
                .filter(|word| !word.is_empty() && *word != "pub" && !word.ends_with(')'));
            if let (Some("struct" | "enum" | "trait" | "type"), Some(name)) = (words.next(), words.next())
                && !line.starts_with(' ')
                && let Some(before) = places.insert(name.to_owned(), path.clone())
            {
                panic!("type {name} is defined in {} and in {}", before.display(), path.display());
            }
        }
    }
    assert!(places.len() > 300, "only {} types were found", places.len());
}

#[test]
fn types_of_the_tests_have_unique_names() {
    let mut places = BTreeMap::new();
    for (path, text) in files("tests") {
        for line in text.lines() {
            let mut words =
                line.split([' ', '(', '<', ';']).filter(|word| !word.is_empty() && *word != "pub");
            if let (Some("struct" | "enum"), Some(name)) = (words.next(), words.next())
                && let Some(before) = places.insert(name.to_owned(), path.clone())
            {
                panic!("type {name} is defined in {} and in {}", before.display(), path.display());
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

/// Which roles could act as the job's role is asked by the macros of `sql::trust` only.
#[test]
fn who_is_trusted_is_decided_in_one_place() {
    for (path, text) in files("src") {
        for as_role in ["session_user", "current_user", "{role}"] {
            for oid in ["oid", "r.oid", "t.typowner"] {
                let asked = format!("pg_has_role({oid}, {as_role}");
                assert!(!text.contains(&asked), "{} asks {asked}", path.display());
            }
        }
    }
}
