//! Every statement on the table and on its children, with the foreign keys that matter, and with triggers of the
//! application.

use super::cases::CASES;
use super::reference_cases::REFERENCES;
use super::trigger_cases::TRIGGERS;
use super::{CHILDREN, KeyedBy, Pair, ROWS};
use crate::support::cluster::{Version, on_every_version};

on_every_version!(a_unique_constraint_stays, a_primary_key_stays);

/// Statements that run one after the other, on a table with eight rows.
pub struct Statements {
    pub name: &'static str,
    /// The children that have rows. With none, the table has no children at all.
    pub children: &'static [&'static str],
    /// A function and a trigger of the application.
    pub trigger: &'static str,
    pub statements: &'static [&'static str],
}

/// Statements whose outcome differs, with the reason.
struct Known {
    case: &'static str,
    reason: &'static str,
    /// The outcome of each statement on the plain table, and on the partitioned one.
    outcomes: [&'static str; 2],
    /// Whether the rows that remain are the same.
    same_rows: bool,
}

async fn a_unique_constraint_stays(version: Version) {
    compare(version, KeyedBy::Unique).await;
}

async fn a_primary_key_stays(version: Version) {
    compare(version, KeyedBy::Primary).await;
}

async fn compare(version: Version, key: KeyedBy) {
    let (lonely, parent) = tokio::join!(key.pair(version, false), key.pair(version, true));
    let mut failed = Vec::new();
    let all = CASES.iter().chain(REFERENCES).chain(TRIGGERS);
    for case in all.filter(|case| version != Version::V14 || !case.name.starts_with("merge")) {
        let referenced = !case.children.is_empty();
        let pair = if referenced { &parent } else { &lonely };
        reset(pair, case, referenced).await;
        failed.extend(difference(pair, case, key).await);
    }
    assert!(failed.is_empty(), "{} cases differ on {version:?}:\n{}", failed.len(), failed.join("\n"));
}

/// The rows of the table and of the children of a case, and its trigger.
async fn reset(pair: &Pair, case: &Statements, referenced: bool) {
    let children: Vec<&str> =
        if referenced { CHILDREN.iter().map(|(child, _)| *child).collect() } else { Vec::new() };
    let all = std::iter::once("t").chain(children).collect::<Vec<_>>().join(", ");
    let mut sql = format!("drop function if exists application() cascade; truncate {all}; {ROWS};");
    for child in case.children.iter().filter(|child| **child != "self") {
        sql += &format!("insert into {child} select g, g from generate_series(1, 4) g;");
    }
    pair.both("reset session_replication_role").await;
    pair.both(&sql).await;
    if !case.trigger.is_empty() {
        pair.both(case.trigger).await;
    }
}

/// How a case differs from what is expected.
async fn difference(pair: &Pair, case: &Statements, key: KeyedBy) -> Option<String> {
    let outcomes = pair.outcomes(case.statements).await;
    let [plain, parted] = outcomes.clone().map(|all| {
        let named = |one: &String| match one.split_once(" t_y2024m0") {
            Some((code, _)) => format!("{code} (index of a partition)"),
            None => one.clone(),
        };
        all.iter().map(named).collect::<Vec<_>>().join(", ")
    });
    let mut problems = Vec::new();
    let [own, in_key_table] = [
        super::rows(&pair.clients[1], "select id from t where id is not null order by id").await,
        super::rows(&pair.clients[1], "select id from key_keys order by id").await,
    ];
    if own != in_key_table {
        problems.push(format!("the table has the keys {own:?}, the key table {in_key_table:?}"));
    }
    let mut same_rows = true;
    let tables = std::iter::once(("t", "id, ts, v, parent"));
    for (table, columns) in
        tables.chain(case.children.iter().filter(|c| **c != "self").map(|c| (*c, "n, tid")))
    {
        let [on_plain, on_parted] =
            pair.rows(&format!("select row({columns})::text from {table} order by 1")).await;
        if on_plain != on_parted {
            same_rows = false;
            problems.push(format!("rows of {table}:\n    {on_plain:?}\n    {on_parted:?}"));
        }
    }
    let only_errors = case.statements.iter().any(|one| one.starts_with("parted: "));
    let essential = |all: &Vec<String>| -> Vec<String> {
        all.iter().filter(|one| !only_errors || !one.starts_with("ok")).cloned().collect()
    };
    if essential(&outcomes[0]) != essential(&outcomes[1]) {
        problems.push(format!("outcomes:\n    {plain}\n    {parted}"));
    }
    if let Some(known) = KNOWN.iter().find(|known| known.case == case.name) {
        let level = own == in_key_table;
        if level && same_rows == known.same_rows && [&*plain, &*parted] == known.outcomes {
            return None;
        }
        problems.push(format!("but a difference is known: {}", known.reason));
    }
    (!problems.is_empty()).then(|| format!("{key:?}, {}:\n  {}", case.name, problems.join("\n  ")))
}

/// What differs, and why.
const KNOWN: &[Known] = &[
    Known {
        case: "a duplicate with the same partition column",
        reason: "the index of the partition finds it first",
        outcomes: ["23505 key", "23505 (index of a partition)"],
        same_rows: true,
    },
    Known {
        case: "on conflict of the key",
        reason: "the partitioned table has no such unique index, so that the statement cannot be planned",
        outcomes: ["ok 0, ok 1", "42P10, 42P10"],
        same_rows: false,
    },
    Known {
        case: "on conflict on constraint",
        reason: "the constraint is that of the key table",
        outcomes: ["ok 0", "42704"],
        same_rows: true,
    },
    Known {
        case: "on conflict without target, duplicate",
        reason: "the key is inserted after the row",
        outcomes: ["ok 0", "23505 key"],
        same_rows: true,
    },
    Known {
        case: "keys shifted down, cascading",
        reason: "rows are updated partition by partition, so that a key is taken before it is free",
        outcomes: ["ok 8", "23505 key"],
        same_rows: false,
    },
    Known {
        case: "truncate cascade",
        reason: "the foreign keys do not reference the table, so that CASCADE does not include the children",
        outcomes: ["ok 0", "0A000"],
        same_rows: false,
    },
    Known {
        case: "truncate of a table with empty children",
        reason: "a trigger cannot see which tables are truncated at the same time, but that they have no rows",
        outcomes: ["0A000", "ok 0"],
        same_rows: false,
    },
    Known {
        case: "set constraints all",
        reason: "of several violated foreign keys, another one is checked first",
        outcomes: [
            "ok 0, ok 0, ok 1, 23503 noa_fk, ok 0, ok 0, ok 0, ok 1, 23503 noa_fk, ok 0",
            "ok 0, ok 0, ok 1, 23503 def_fk, ok 0, ok 0, ok 0, ok 1, 23503 noa_fk, ok 0",
        ],
        same_rows: true,
    },
    Known {
        case: "before update, last name: moves the row",
        reason: "the move is not noted, so that it deletes the key: check refuses such a trigger",
        outcomes: ["ok 1, 23505 key", "ok 1, 23505 key"],
        same_rows: false,
    },
];

#[test]
fn every_known_difference_is_a_case() {
    for known in KNOWN {
        assert!(
            CASES.iter().chain(REFERENCES).chain(TRIGGERS).any(|case| case.name == known.case),
            "{}",
            known.case
        );
        assert!(known.outcomes[0] != known.outcomes[1] || !known.same_rows, "{}", known.case);
    }
}
