//! Values that a type considers equal are not always identical to an application. The value written last is kept in
//! both directions, and `verify` reports the difference.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pgstrata::model::verify_report::EXAMPLES_MAX;
use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::cluster::Database;
use crate::support::lab::Lab;
use crate::support::process::{ended, send};

/// A type, and two of its values that are equal or cannot be compared with `=`, but have different text
/// representations.
const PAIRS: &[(&str, &str, &str)] = &[
    ("numeric", "1.5", "1.50"),
    ("whole", "7", "7.0"),
    ("real", "0", "-0"),
    ("double precision", "0", "-0"),
    ("interval", "1 day", "24:00:00"),
    ("bpchar", "a", "a  "),
    ("json", "{\"a\":1}", "{\"a\": 1}"),
    ("jsonb", "{\"a\": 1.0}", "{\"a\": 1.00}"),
    ("xml", "<a/>", "<a></a>"),
    ("citext", "abc", "Abc"),
    ("text collate any_case", "abc", "Abc"),
    ("point", "(0,1)", "(-0,1)"),
    ("box", "(2,2),(0,0)", "(4,1),(0,0)"),
    ("path", "((0,0),(1,1))", "((0,0),(2,2))"),
    ("circle", "<(0,0),1>", "<(5,5),1>"),
    ("lseg", "[(0,0),(1,1)]", "[(0,0),(1,1.0000001)]"),
    ("line", "{1,2,3}", "{2,4,6}"),
    ("polygon", "((0,0),(1,0),(1,1))", "((1,0),(1,1),(0,0))"),
    ("circle[]", "{\"<(0,0),1>\"}", "{\"<(5,5),1>\"}"),
    ("numeric[]", "{1.5}", "{1.50}"),
    ("double precision[]", "{0}", "{-0}"),
    ("interval[]", "{1 day}", "{24:00:00}"),
    ("bpchar[]", "{a}", "{\"a  \"}"),
    ("jsonb[]", "{1.0}", "{1.00}"),
    ("citext[]", "{abc}", "{Abc}"),
    ("numrange", "[1.0,2)", "[1.00,2)"),
    ("nummultirange", "{[1.0,2)}", "{[1.00,2)}"),
    ("pair", "(1.0,abc)", "(1.00,abc)"),
    ("pair[]", "{\"(1.0,abc)\"}", "{\"(1.00,abc)\"}"),
];

const TYPES: &str = "create extension citext;
    create collation any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create domain whole as numeric; create type pair as (n numeric, c citext);";

/// Creates a table with a column of each type in [`PAIRS`].
async fn table_of_pairs() -> Database {
    let db = Database::new().await;
    let columns: Vec<String> = PAIRS.iter().enumerate().map(|(i, (t, ..))| format!("c{i} {t}")).collect();
    let values: Vec<String> = PAIRS.iter().map(|(_, value, _)| format!("'{value}'")).collect();
    db.execute(&format!(
        "{TYPES} create table t (id int primary key, at timestamptz not null, {});
         insert into t select i, '2024-01-01'::timestamptz + i * interval '1 day', {} from generate_series(0, 199) i;
         analyze t",
        columns.join(", "),
        values.join(", ")
    ))
    .await;
    db
}

/// A statement that sets column `c{i}` to the other value in the row with `id` `i`.
fn other_value(table: &str, i: usize) -> String {
    format!("update {table} set c{i} = '{}' where id = {i}", PAIRS[i].2)
}

/// A hash of everything that an application reads, as one number.
const READ: &str = "select bit_xor(hashtextextended(t::text, 0)) from t";

fn set_all(table: &str) -> String {
    (0..PAIRS.len()).map(|i| other_value(table, i)).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn verify_finds_equal_values_that_are_not_identical() {
    let db = table_of_pairs().await;
    let plan = db.plan("name = 'job'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\n");
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    let numbers: Vec<usize> = (0..PAIRS.len()).collect();
    for some in numbers.chunks(EXAMPLES_MAX) {
        db.execute(&some.iter().map(|i| other_value("t_new", *i)).collect::<Vec<_>>().join("; ")).await;
        let ran = db.pgstrata(&["verify", "job", "--json"]).await.exits(4);
        let report = ran.stdout.lines().rfind(|line| line.contains("rows_in_use")).unwrap();
        let report: Value = serde_json::from_str(report).unwrap();
        let seen = |i: &usize| {
            let key = i.to_string();
            report["examples"].as_array().unwrap().iter().any(|e| e["key"] == key.as_str())
        };
        let unseen: Vec<&str> = some.iter().filter(|i| !seen(i)).map(|i| PAIRS[*i].0).collect();
        assert_eq!(unseen, [""; 0], "{report}");
        db.execute("delete from t_new; insert into t_new select * from t").await;
    }
}

#[tokio::test]
async fn a_rolled_back_table_has_what_was_written_last() {
    let db = table_of_pairs().await;
    let plan = db.plan("name = 'job'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\n");
    db.pgstrata(&["run", plan.to_str().unwrap(), "--swap"]).await.ok();
    let before = db.count(READ).await;
    db.execute(&set_all("t")).await;
    let written = db.count(READ).await;
    assert_ne!(before, written);
    db.pgstrata(&["verify", "job"]).await.ok();
    db.pgstrata(&["rollback", "job"]).await.ok();
    assert_eq!(db.count(READ).await, written);
    // The same in the forward direction.
    db.execute("update t set c0 = '1.500' where id = 100").await;
    let written = db.count(READ).await;
    db.pgstrata(&["swap", "job"]).await.ok();
    assert_eq!(db.count(READ).await, written);
}

/// A change of a column from type `old` to type `new`. Row 1 is not changed, an update of row 2 sets another column,
/// and an update of row 3 sets an equal value.
struct Retyped {
    old: &'static str,
    new: &'static str,
    /// The original value of each row.
    original: &'static str,
    /// The value written to row 3 after the swap.
    written: &'static str,
    /// The value of row 3 after the rollback.
    restored: &'static str,
}

const RETYPED: &[Retyped] = &[
    Retyped { old: "text", new: "citext", original: "Ab@X.org", written: "ab@x.org", restored: "ab@x.org" },
    Retyped { old: "text", new: "interval", original: "24:00:00", written: "1 day", restored: "1 day" },
    Retyped { old: "text", new: "numeric", original: "01.5", written: "1.50", restored: "1.50" },
    Retyped { old: "text", new: "double precision", original: "0.0", written: "-0", restored: "-0" },
    Retyped {
        old: "text",
        new: "jsonb",
        original: "{\"n\":1.0}",
        written: "{\"n\": 1.00}",
        restored: "{\"n\": 1.00}",
    },
    Retyped { old: "text", new: "numeric[]", original: "{01.5}", written: "{1.50}", restored: "{1.50}" },
    Retyped { old: "text", new: "public.any_case_text", original: "Ab", written: "aB", restored: "aB" },
    Retyped {
        old: "text",
        new: "text collate public.any_case",
        original: "Ab",
        written: "aB",
        restored: "aB",
    },
    Retyped {
        old: "text",
        new: "circle",
        original: "<(0,0),1>",
        written: "<(5,5),1>",
        restored: "<(5,5),1>",
    },
    Retyped {
        old: "text",
        new: "box",
        original: "(2,2),(0,0)",
        written: "(4,1),(0,0)",
        restored: "(4,1),(0,0)",
    },
    Retyped { old: "text", new: "line", original: "{1, 2, 3}", written: "{2,4,6}", restored: "{2,4,6}" },
    Retyped {
        old: "text",
        new: "lseg",
        original: "[(0,0), (1,1)]",
        written: "[(0,0),(1,1.0000001)]",
        restored: "[(0,0),(1,1.0000001)]",
    },
    Retyped {
        old: "text",
        new: "path",
        original: "((0,0), (1,1))",
        written: "((0,0),(2,2))",
        restored: "((0,0),(2,2))",
    },
    Retyped {
        old: "text",
        new: "polygon",
        original: "((0,0), (1,0), (1,1))",
        written: "((1,0),(1,1),(0,0))",
        restored: "((1,0),(1,1),(0,0))",
    },
    // The old type has only one representation of all equal values.
    Retyped { old: "integer", new: "numeric", original: "1", written: "1.00", restored: "1" },
];

async fn retype(db: &Database, case: &Retyped) {
    let Retyped { old, new, original, .. } = case;
    db.execute(&format!(
        "create extension if not exists citext;
         create collation any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         create domain any_case_text as text collate any_case;
         create table t (id int primary key, v {old} not null, n int);
         insert into t select i, '{original}' from generate_series(1, 1500) i; analyze t"
    ))
    .await;
    let new = if *new == "citext" { "public.citext" } else { new };
    let plan = db.plan(&format!(
        "name = 'job'\nkind = 'retype'\ntable = 'public.t'\n[retype]\ncolumn = 'v'\nto = '{new}'\n"
    ));
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
}

#[tokio::test]
async fn a_rolled_back_column_has_what_was_written_last() {
    for case in RETYPED {
        let db = Database::new().await;
        retype(&db, case).await;
        db.pgstrata(&["swap", "job"]).await.ok();
        db.execute(&format!(
            "update t set n = 1 where id = 2; update t set v = '{}' where id = 3",
            case.written
        ))
        .await;
        db.pgstrata(&["verify", "job"]).await.ok();
        db.pgstrata(&["rollback", "job"]).await.ok();
        let read = db.client().await.query("select v::text from t where id <= 3 order by id", &[]).await;
        let read: Vec<String> = read.unwrap().iter().map(|row| row.get(0)).collect();
        assert_eq!(read, [case.original, case.original, case.restored], "{} to {}", case.old, case.new);
    }
}

/// Writes that bypass the trigger leave values in the two columns that are equal but not identical.
#[tokio::test]
async fn verify_of_a_retype_finds_equal_values_that_are_not_identical() {
    for case in RETYPED.iter().filter(|case| case.old != "integer") {
        let db = Database::new().await;
        retype(&db, case).await;
        let bypass_trigger = |column: &str| {
            format!("set pgstrata.filling = 'on'; update t set {column} = '{}' where id = 3", case.written)
        };
        db.execute(&bypass_trigger("v_new")).await;
        let ran = db.pgstrata(&["verify", "job", "--json"]).await.exits(4);
        let report: Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
        assert_eq!(report["examples"][0]["key"], "3", "{report}");
        db.execute("update t set v = v").await;
        db.pgstrata(&["verify", "job"]).await.ok();
        db.pgstrata(&["swap", "job"]).await.ok();
        db.execute(&bypass_trigger("v")).await;
        db.pgstrata(&["verify", "job"]).await.exits(4);
    }
}

/// Sessions that write to row 190 without a pause, so that the change log is never empty.
async fn writers(db: &Database, over: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    let mut all = Vec::new();
    for _ in 0..4 {
        let (client, over) = (db.client().await, over.clone());
        all.push(tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                client.batch_execute("update t set at = at where id = 190").await.unwrap();
            }
        }));
    }
    all
}

/// Equal values that are written while the mirror is on, in both directions.
#[tokio::test(flavor = "multi_thread")]
async fn the_mirror_carries_over_equal_values_that_are_not_identical() {
    let lab = Lab::on(
        table_of_pairs().await,
        "name = 'job'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\n[swap]\nattempts = 1000\n",
    );
    lab.ok("run").await;
    for command in ["swap", "rollback"] {
        let over = Arc::new(AtomicBool::new(false));
        let writers = writers(&lab.db, &over).await;
        let frozen = lab.frozen(command, "mirror.on").await;
        over.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
        let set = if command == "swap" {
            set_all("t")
        } else {
            set_all("t").replace("where id = ", "where id = 40 + ")
        };
        lab.db.execute(&set).await;
        let logged = lab
            .db
            .count("select count(*) from pgstrata.changes_job where coalesce(old_id, new_id) <> 190")
            .await;
        assert_eq!(logged, 0, "{command}");
        let written = lab.db.count(READ).await;
        send(&frozen, Signal::CONT);
        ended(frozen).await.ok();
        assert_eq!(lab.db.count(READ).await, written, "{command}");
        lab.ok("verify").await;
    }
}

/// The type remains, only its collation changes: values that were different can be equal.
#[tokio::test]
async fn a_change_of_the_collation_alone() {
    let lab = Lab::new(
        "create collation any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         create table t (id int primary key, v text not null unique);
         insert into t select i, 'v' || i from generate_series(1, 200) i; update t set v = 'V7' where id = 8; analyze t",
        "name = 'job'\nkind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'v'\nto = 'text collate public.any_case'\n",
    )
    .await;
    let ran = lab.ran("run").await.exits(4);
    assert!(ran.stderr.contains("by key: 7 and 8"), "{}", ran.stderr);
    lab.db.execute("update t set v = 'v8' where id = 8").await;
    lab.steps(&["run", "swap", "rollback", "swap", "verify"]).await;
    let found = "select count(*) from t where v = 'V100'";
    assert_eq!(lab.count(found).await, 1);
    lab.ok("rollback").await;
    assert_eq!(lab.count(found).await, 0);
    lab.steps(&["swap", "finalize --now"]).await;
    assert_eq!(lab.count(found).await, 1);
    assert_eq!(
        lab.count("select count(*) from pg_constraint where conrelid = 't'::regclass and contype = 'u'")
            .await,
        1
    );
    let done = lab.ok("run --json").await.event("already_of_type");
    assert_eq!((&done["column"], &done["table"]), (&"v".into(), &"public.t".into()), "{done}");
    assert!(done["sql_type"].as_str().unwrap().starts_with("text"), "{done}");
    let same = lab.with_plan("name = 'again'\nkind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'v'\nto = 'text collate public.any_case'\n");
    let checked = same.ran("check").await.exits(3);
    assert!(checked.stdout.contains("error[already_that_type]"), "{}", checked.stdout);
}
