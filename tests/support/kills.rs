//! The failpoints of source files, and running many cases of a test concurrently.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use pgstrata::failpoint;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, LocalSet};

/// The number of cases that run at the same time.
const AT_ONCE: usize = 4;

/// Runs `test` for each case, some at a time, and reports the cases that failed.
pub async fn side_by_side<C, F>(cases: Vec<C>, test: impl Fn(C) -> F)
where
    C: Clone + std::fmt::Debug,
    F: Future<Output = ()> + 'static,
{
    LocalSet::new().run_until(each(cases, test)).await;
}

async fn each<C, F>(cases: Vec<C>, test: impl Fn(C) -> F)
where
    C: Clone + std::fmt::Debug,
    F: Future<Output = ()> + 'static,
{
    let turn = Arc::new(Semaphore::new(AT_ONCE));
    let tasks: Vec<(C, JoinHandle<()>)> = cases
        .into_iter()
        .map(|case| {
            let (turn, work) = (turn.clone(), test(case.clone()));
            let task = tokio::task::spawn_local(async move {
                let _turn = turn.acquire_owned().await.unwrap();
                work.await;
            });
            (case, task)
        })
        .collect();
    let mut failed = Vec::new();
    for (case, task) in tasks {
        if task.await.is_err() {
            failed.push(case);
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The failpoints in source files that are `wanted`, in the order in which a job reaches them.
pub fn failpoints_in(wanted: impl Fn(&Path) -> bool) -> Vec<&'static str> {
    let src = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let (mut found, mut folders) = (BTreeSet::new(), vec![src.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && wanted(path.strip_prefix(src).unwrap()) {
                let text = std::fs::read_to_string(path).unwrap();
                let names = text.split("failpoint!(\"").skip(1).map(|rest| rest.split_once('"').unwrap().0);
                found.extend(names.map(str::to_owned));
            }
        }
    }
    let named = failpoint::NAMES.iter().copied().filter(|name| found.contains(*name)).collect::<Vec<_>>();
    assert!(!named.is_empty(), "no file matches");
    assert_eq!(named.len(), found.len(), "{found:?} are not all in failpoint::NAMES");
    named
}
