//! A constraint or a trigger of the application rejects a row: the message names the row, and does not state that the
//! plan's SQL fails.

use crate::support::lab::Lab;

/// A trigger function that rejects row 700.
const CLOSED: &str = "create function closed() returns trigger language plpgsql as $$ begin
        if new.id = 700 and new.v <> 'v' then raise exception 'period is closed'; end if; return new; end $$;";

const TABLE: &str = "create table t (id int primary key, v text, n int, code text);
    insert into t select i, 'v', i, i from generate_series(1, 1500) i; analyze t;";

/// Each application object, and the message of the server about it.
const OBJECTS: [(&str, &str); 4] = [
    ("create trigger closed before update on t for each row execute function closed()", "period is closed"),
    (
        "create constraint trigger closed after update on t deferrable initially deferred for each row execute function closed()",
        "period is closed",
    ),
    (
        "create unique index t_v on t (v, (case when v = 'v' then id else 0 end))",
        "duplicate key value violates unique constraint \"t_v\"",
    ),
    (
        "alter table t alter v drop not null; update t set v = 'v' || id; alter table t add constraint t_v unique (v) deferrable initially deferred",
        "duplicate key value violates unique constraint \"t_v\"",
    ),
];

/// The key and the message of the row that the run reports.
async fn named(lab: &Lab) -> (String, String) {
    let ran = lab.ran("run").await.exits(1);
    let start =
        "cause: a trigger or constraint of public.t rejects the value that the plan sets in a row: by key: ";
    let line = ran.stderr.lines().find_map(|line| line.strip_prefix(start));
    let (key, message) =
        line.and_then(|rest| rest.split_once(": ")).unwrap_or_else(|| panic!("{}", ran.stderr));
    assert_eq!(ran.stderr.contains("`where`"), lab.plan_text().contains("[backfill]"), "{}", ran.stderr);
    (key.to_owned(), message.to_owned())
}

#[tokio::test]
async fn a_row_that_the_table_rejects_is_named_by_a_backfill() {
    let set = "case when t.id in (699, 700) then 'same' else 'x' || t.id end";
    let plan =
        format!("name = 'job'\nkind = 'backfill'\ntable = 't'\n[backfill]\nset = {{ v = \"{set}\" }}\n");
    for (object, expected) in OBJECTS {
        let lab = Lab::new(&format!("{TABLE} {CLOSED} {object}"), &plan).await;
        let (key, message) = named(&lab).await;
        assert!(key == "700" || key == "699" && expected.starts_with("duplicate"), "{object}: {key}");
        assert_eq!(message, expected, "{object}");
    }
}

#[tokio::test]
async fn a_row_that_the_table_rejects_is_named_by_a_retype() {
    let plan = "name = 'job'\nkind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'n'\nto = 'bigint'\n";
    let closed = CLOSED.replace("and new.v <> 'v' ", "");
    for (object, expected) in &OBJECTS[..2] {
        let lab = Lab::new(&format!("{TABLE} {closed} {object}"), plan).await;
        assert_eq!(named(&lab).await, ("700".to_owned(), (*expected).to_owned()), "{object}");
    }
}
