//! Parts of the definitions that the server prints. Where a part begins is found by reading the definition from its start,
//! name by name: a name may contain ` ON `, ` USING ` or anything else.

/// A name as the server prints it: quoted, or a word.
const NAME: &str = r#"(?:"(?:[^"]|"")*"|[^" .,]+)"#;

/// What stands behind `USING` in the definition of the index with that oid: method, columns, INCLUDE, WITH, WHERE.
pub fn index_tail(oid: &str) -> String {
    let start = format!(r"^CREATE (?:UNIQUE )?INDEX {NAME} ON (?:ONLY )?{NAME}(?:\.{NAME})? USING ");
    format!("pg_catalog.regexp_replace(pg_catalog.pg_get_indexdef({oid}), '{start}', '')")
}

/// The definition of a trigger up to its table's name, as a regular expression.
fn trigger_start() -> String {
    let event = format!("(?:INSERT|DELETE|UPDATE(?: OF {NAME}(?:, {NAME})*)?|TRUNCATE)");
    format!("^CREATE (?:CONSTRAINT )?TRIGGER {NAME} (?:BEFORE|AFTER|INSTEAD OF) {event}(?: OR {event})* ON ")
}

/// What stands before the table's name in the definition of the trigger with that oid; a blank is its end.
pub fn trigger_head(oid: &str) -> String {
    format!("pg_catalog.substring(pg_catalog.pg_get_triggerdef({oid}), '{}')", trigger_start())
}

/// What stands behind the table's name in the definition of the trigger with that oid; a blank is its beginning.
pub fn trigger_tail(oid: &str) -> String {
    let start = trigger_start();
    format!(
        r"pg_catalog.regexp_replace(pg_catalog.pg_get_triggerdef({oid}), '{start}{NAME}(?:\.{NAME})?', '')"
    )
}
