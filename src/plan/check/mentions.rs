//! Warns about functions and statements whose use of the table behaves differently on a partitioned table. One warning
//! for each such construct that is found.

use super::words::Words;
use super::{Found, Report};
use crate::model::blueprint::Blueprint;
use crate::model::ident::{QualifiedName, plain_list};

/// The maximum number of functions and statements to name.
const MAX_NAMED: usize = 5;

/// A construct that behaves differently on a partitioned table.
struct Construct<'a> {
    code: &'static str,
    /// Follows the names of the functions and statements.
    message: String,
    hint: String,
    is_in: Box<dyn Fn(&Words) -> bool + 'a>,
}

pub(super) fn check(report: &mut Report, found: &Found, b: &Blueprint) {
    let around = &found.around;
    let functions = around.functions.iter().map(|f| (format!("function {}", f.name), Words::of(&f.text)));
    let statements = around.statements.iter().map(|s| (s.name.clone(), Words::of(&s.text)));
    // Skip queries of foreign key triggers and of an earlier job: they use ONLY intentionally.
    let internal =
        |words: &Words| words.after(&["from", "only"]).any(|i| words.table(i, &b.table.name).is_some());
    let texts: Vec<(String, Words)> =
        functions.chain(statements.filter(|(_, words)| !internal(words))).collect();
    for construct in constructs(b) {
        let users = texts.iter().filter(|(_, words)| (construct.is_in)(words));
        let users: Vec<&str> = users.map(|(name, _)| name.as_str()).collect();
        if !users.is_empty() {
            let message = format!("{} {}", named(&users), construct.message);
            report.warning(construct.code, b.table.name.plain(), message, construct.hint);
        }
    }
}

fn named(users: &[&str]) -> String {
    let first = users[..users.len().min(MAX_NAMED)].join(", ");
    match users.len().saturating_sub(MAX_NAMED) {
        0 => format!("{first}:"),
        more => format!("{first} and {more} more:"),
    }
}

fn constructs(b: &Blueprint) -> Vec<Construct<'_>> {
    let table = &b.table.name;
    let name = table.plain();
    let key = plain_list(&b.key);
    let wide = plain_list(b.place_columns().iter().map(|c| &c.name));
    let mut all = in_statements(table, &name);
    if b.widened() {
        all.insert(
            0,
            Construct {
                code: "on_conflict_key",
                message: format!(
                    "ON CONFLICT ({key}) fails after the swap, because no unique index is on ({key}) alone"
                ),
                hint: format!("write ON CONFLICT ({wide}), and insert a value for each of these columns"),
                is_in: Box::new(|words| words.arbiter_is(&b.table.name, &b.key)),
            },
        );
    }
    let kept = b.table.indexes.iter().filter(|i| b.key_table(&i.name).is_some() && i.name != b.key_index);
    for columns in kept.filter_map(|index| index.columns.as_ref()) {
        let listed = plain_list(columns);
        all.push(Construct {
            code: "on_conflict_key",
            message: format!(
                "ON CONFLICT ({listed}) fails after the swap, because the unique constraint on ({listed}) belongs to a key table"
            ),
            hint: "remove the clause, and handle the error unique_violation (23505) instead".to_owned(),
            is_in: Box::new(move |words| words.arbiter_is(&b.table.name, columns)),
        });
    }
    let given_up = b.table.indexes.iter().filter(|i| b.drop_unique.contains(&i.name));
    for columns in given_up.filter_map(|index| index.columns.as_ref()) {
        let listed = plain_list(columns);
        all.push(Construct {
            code: "on_conflict_key",
            message: format!(
                "ON CONFLICT ({listed}) fails after the swap, because drop_unique gives up the unique index on ({listed})"
            ),
            hint: "remove the clause, or handle duplicates in the application".to_owned(),
            is_in: Box::new(move |words| words.arbiter_is(&b.table.name, columns)),
        });
    }
    all
}

fn in_statements<'a>(table: &'a QualifiedName, name: &str) -> Vec<Construct<'a>> {
    vec![
        Construct {
            code: "returning_system_column",
            message: "INSERT ... RETURNING xmin or xmax fails on a partitioned table".to_owned(),
            hint: "use a column of the table to distinguish inserted rows from updated rows".to_owned(),
            is_in: Box::new(|words| words.inserts(table).any(|i| returns_system_column(words, i))),
        },
        Construct {
            code: "ctid",
            message: "a ctid is unique only within a partition, so ctid in (...) also matches rows of other \
                 partitions"
                .to_owned(),
            hint: "compare (tableoid, ctid), or the key".to_owned(),
            is_in: Box::new(|words| words.has(&["ctid"]) && !words.has(&["tableoid"])),
        },
        Construct {
            code: "copy_to",
            message: format!("COPY {name} TO fails on a partitioned table"),
            hint: format!("write copy (select * from {name}) to ...; pg_dump needs no change"),
            is_in: Box::new(|words| words.after(&["copy"]).any(|i| copies_out(words, i, table))),
        },
        Construct {
            code: "only",
            message: format!("after the swap, ONLY {name} returns no rows, and TRUNCATE ONLY fails"),
            hint: "remove ONLY".to_owned(),
            is_in: Box::new(|words| words.after(&["only"]).any(|i| reads_only(words, i, table))),
        },
        Construct {
            code: "relation_size",
            message: format!(
                "after the swap, the size of {name} itself is 0, because the rows are in its \
                partitions"
            ),
            hint: format!("write select sum(pg_relation_size(relid)) from pg_partition_tree('{name}')"),
            is_in: Box::new(|words| {
                SIZES.iter().any(|f| words.after(&[f, "("]).any(|i| words.table(i, table).is_some()))
            }),
        },
        Construct {
            code: "whole_row",
            message: "if it is a prepared statement, it fails once after the swap: cached plan must not \
                change result type"
                .to_owned(),
            hint: "list the columns explicitly, or make sure that the application prepares the statement \
                again"
                .to_owned(),
            is_in: Box::new(|words| {
                words
                    .after(&["select"])
                    .any(|i| words.get(i) == table.name.as_str() && words.get(i + 1) == "from")
            }),
        },
    ]
}

const SIZES: [&str; 4] = ["pg_relation_size", "pg_table_size", "pg_indexes_size", "pg_total_relation_size"];

fn returns_system_column(words: &Words, insert: usize) -> bool {
    let returned = words.statement(insert).skip_while(|word| *word != "returning");
    returned.take_while(|word| *word != "into").any(|word| ["xmin", "xmax", "cmin", "cmax"].contains(&word))
}

/// Whether a statement uses ONLY on the table. LOCK TABLE ONLY is not reported, because pg_dump runs it for every
/// table.
fn reads_only(words: &Words, i: usize, table: &QualifiedName) -> bool {
    let mut before = words.before(i - 1).map(|(_, word)| word);
    let command = before.next().filter(|word| *word != "table").or_else(|| before.next());
    words.table(i, table).is_some() && command.is_some_and(|word| word != "lock")
}

fn copies_out(words: &Words, i: usize, table: &QualifiedName) -> bool {
    let Some(end) = words.table(i, table) else { return false };
    let columns = if words.get(end) == "(" {
        words.statement(end).take_while(|word| *word != ")").count() + 1
    } else {
        0
    };
    words.get(end + columns) == "to"
}
