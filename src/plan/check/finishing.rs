//! Checks the constraints and indexes under `finish` of a backfill: names, columns, and whether the server accepts each
//! of them on an empty table with the same columns.

use std::collections::HashSet;

use super::{Found, Named, Report, nearest};
use crate::model::filling::{Filling, Finishing, NewKey};
use crate::model::finding::Finding;
use crate::model::ident::{Ident, QualifiedName, plain, plain_list, short_hash};
use crate::model::table::Table;
use crate::plan::{Backfill, KeepFilled};

/// The result of testing the constraints and indexes under `finish` on the server.
#[derive(Debug, Clone)]
pub struct FinishTrial {
    /// The job's role.
    pub role: Ident,
    /// The database.
    pub database: Ident,
    /// Why they could not be tested; none if they could.
    pub untried: Option<String>,
    /// Those that the server rejects: the name, and the server's message.
    pub refused: Vec<(Ident, String)>,
    /// Names that already exist on the table.
    pub standing: Vec<(Ident, Standing)>,
    /// Equal objects that exist under other names: the requested name, and the existing name.
    pub alike: Vec<(Ident, Ident)>,
    /// The referenced table of each foreign key, in the same order.
    pub keys: Vec<Option<Referenced>>,
    /// The partition columns of each level of a partitioned table; none if the partition key contains an expression.
    pub partition_columns: Vec<Option<Vec<Ident>>>,
    /// Checks and indexes as the server writes them, with resolved names.
    pub resolved: Vec<(Ident, String)>,
    /// The objects that they use.
    pub named: Named,
}

/// The existing object with a requested name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The same constraint or index.
    Same,
    /// The same constraint, not validated, or the same index, invalid.
    Unfinished,
    /// Another object.
    Other,
}

/// The table that a foreign key references.
#[derive(Debug, Clone)]
pub struct Referenced {
    /// Its schema and name.
    pub name: QualifiedName,
    /// The columns of its primary key.
    pub primary: Vec<Ident>,
    /// The privileges that the job's role lacks: SELECT, REFERENCES.
    pub lacking: Vec<String>,
}

/// The constraints and indexes in the plan, with their names. Names are built like those that the server chooses, from
/// the names of the table and the columns. If a definition is more than a list of columns, its name contains a hash, so
/// that the same name always has the same definition.
pub(super) fn finishing(backfill: &Backfill, table: &Table) -> Finishing {
    let finish = &backfill.finish;
    let base = table.name.name.as_str();
    let written = |text: &String, what: &str| (name_of(base, text, what), text.clone());
    let unique = |columns: &Vec<String>| {
        let name = Ident::derived(&format!("{base}_{}_key", columns.join("_")));
        (name, columns.iter().map(Ident::new).collect())
    };
    Finishing {
        not_null: finish.not_null.iter().map(Ident::new).collect(),
        checks: finish.check.iter().map(|text| written(text, "check")).collect(),
        unique: finish.unique.iter().map(unique).collect(),
        indexes: finish.index.iter().map(|text| written(text, "idx")).collect(),
        foreign_keys: finish.foreign_key.iter().filter_map(|text| foreign_key(table, text)).collect(),
    }
}

fn name_of(base: &str, text: &str, what: &str) -> Ident {
    let words: Vec<&str> =
        text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).collect();
    let list = format!("({})", words.join(", "));
    let hash = if list == text { String::new() } else { format!("_{}", short_hash(text)) };
    Ident::derived(&format!("{base}_{}_{what}{hash}", words.join("_").to_lowercase()))
}

/// Reads `(a, b) references [schema.]other [(c, d)] [more]`; none if the text is different.
fn foreign_key(table: &Table, text: &str) -> Option<NewKey> {
    let (columns, rest) = column_list(text)?;
    let rest = rest.trim_start();
    let word = "references";
    if !rest.get(..word.len())?.eq_ignore_ascii_case(word) {
        return None;
    }
    let rest = rest[word.len()..].trim_start();
    let end = name_end(rest);
    let written = QualifiedName::parse(&rest[..end]).ok()?;
    let unqualified = !outside_quotes(&rest[..end]).contains('.');
    let rest = rest[end..].trim_start();
    let (referenced, more) = if rest.starts_with('(') { column_list(rest)? } else { (Vec::new(), rest) };
    let name = columns.iter().map(Ident::as_str).collect::<Vec<_>>().join("_");
    Some(NewKey {
        name: Ident::derived(&format!("{}_{name}_fkey", table.name.name.as_str())),
        references: if unqualified { table.name.sibling(written.name) } else { written },
        columns,
        unqualified,
        referenced,
        more: more.trim().to_owned(),
    })
}

/// The text without everything between double quotes.
fn outside_quotes(text: &str) -> String {
    text.split('"').step_by(2).collect()
}

/// The end of a name: the first whitespace or parenthesis outside double quotes.
fn name_end(text: &str) -> usize {
    let mut quoted = false;
    let ends = |(_, c): &(usize, char)| {
        quoted ^= *c == '"';
        !quoted && (c.is_whitespace() || *c == '(')
    };
    text.char_indices().find(ends).map_or(text.len(), |(at, _)| at)
}

/// Reads `(a, "B")` at the start. Returns the columns and the remaining text.
fn column_list(text: &str) -> Option<(Vec<Ident>, &str)> {
    let inner = text.trim_start().strip_prefix('(')?;
    let mut quoted = false;
    let close = inner.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        !quoted && *c == ')'
    })?;
    let mut columns = Vec::new();
    let (mut from, list) = (0, &inner[..close.0]);
    quoted = false;
    for (at, c) in list.char_indices().chain([(list.len(), ',')]) {
        quoted ^= c == '"';
        if !quoted && c == ',' {
            let name = QualifiedName::parse(list[from..at].trim()).ok()?;
            columns.push(name.name);
            from = at + 1;
        }
    }
    Some((columns, &inner[close.0 + 1..]))
}

/// Checks what needs no server: columns, names, and effects on the application.
pub(super) fn check(report: &mut Report, backfill: &Backfill, found: &Found) {
    let (table, finish) = (&found.table, &backfill.finish);
    for text in &finish.foreign_key {
        if foreign_key(table, text).is_none() {
            report.error(
                "foreign_key_unread",
                text,
                format!("`{text}` is not a foreign key definition"),
                "write it as \"(column) references schema.table (column) on delete restrict\"",
            );
        }
    }
    let wanted = finishing(backfill, table);
    let keyed = wanted.foreign_keys.iter().flat_map(|key| &key.columns);
    let named = wanted.not_null.iter().chain(wanted.unique.iter().flat_map(|(_, all)| all)).chain(keyed);
    let mut known: HashSet<&Ident> = HashSet::new();
    for column in named.filter(|column| known.insert(column)) {
        exists(report, backfill, table, column);
    }
    for column in &wanted.not_null {
        not_null(report, backfill, table, column);
    }
    names(report, &wanted, table);
}

fn exists(report: &mut Report, backfill: &Backfill, table: &Table, column: &Ident) {
    if table.column(column).is_some() || backfill.add.iter().any(|one| one.name == column.as_str()) {
        return;
    }
    let (name, shown) = (table.name.plain(), plain(column.as_str()));
    let all =
        table.columns.iter().map(|c| c.name.as_str()).chain(backfill.add.iter().map(|a| a.name.as_str()));
    let hint = match nearest(column.as_str(), all) {
        Some(near) => format!("did you mean {}?", plain(near)),
        None => format!("the columns are {}", plain_list(table.columns.iter().map(|c| &c.name))),
    };
    report.error(
        "no_such_column",
        &shown,
        format!("table {name} has no column {shown}, which `finish` names"),
        hint,
    );
}

fn not_null(report: &mut Report, backfill: &Backfill, table: &Table, column: &Ident) {
    let shown = plain(column.as_str());
    let existing = table.column(column);
    if existing.is_some_and(|c| c.not_null) {
        report.note("not_null_already", &shown, format!("column {shown} is already NOT NULL"));
        return;
    }
    let added = backfill.add.iter().find(|one| one.name == column.as_str());
    if existing.is_none() && added.is_none() {
        return;
    }
    let default = existing
        .is_some_and(|c| c.default.is_some() || !c.identity.is_empty() || !c.generated.is_empty())
        || added.is_some_and(|one| one.default.is_some());
    if backfill.keep_filled == KeepFilled::Always || default {
        return;
    }
    let message = if backfill.keep_filled == KeepFilled::UntilDone {
        format!(
            "once the job is done and its trigger is dropped, writes that leave column {shown} NULL \
            fail"
        )
    } else {
        format!(
            "once column {shown} is NOT NULL, writes that leave it NULL fail; until then, such rows \
            make the job fail"
        )
    };
    report.warning(
        "not_null_for_writers",
        &shown,
        message,
        "first deploy an application version that sets the column, give the column a default, or set \
         keep_filled = \"always\"",
    );
}

/// Reports names that two objects would have.
fn names(report: &mut Report, wanted: &Finishing, table: &Table) {
    let mut seen: HashSet<&Ident> = HashSet::new();
    for name in each_name(wanted) {
        if !seen.insert(name) {
            let shown = plain(name.as_str());
            let message =
                format!("`finish` would create two objects named {shown} on {}", table.name.plain());
            report.error(
                "names_collide",
                &shown,
                message,
                "list it only once; if two foreign keys have the same columns, add one of them by hand",
            );
        }
    }
}

fn each_name(wanted: &Finishing) -> impl Iterator<Item = &Ident> {
    let checks = wanted.checks.iter().map(|(name, _)| name);
    let unique = wanted.unique.iter().map(|(name, _)| name);
    let indexes = wanted.indexes.iter().map(|(name, _)| name);
    checks.chain(unique).chain(indexes).chain(wanted.foreign_keys.iter().map(|key| &key.name))
}

/// Returns findings from the trial, and stores its results in the design: referenced tables and resolved names.
pub(super) fn tried(filling: &mut Filling, trial: &FinishTrial) -> Vec<Finding> {
    let mut report = Report::default();
    let table = filling.table.name.plain();
    if let Some(why) = &trial.untried {
        let message = format!("the constraints and indexes under finish could not be tested: {why}");
        report.warning(
            "finish_untried",
            &table,
            message,
            format!(
                "grant temporary on database {} to {}",
                plain(trial.database.as_str()),
                plain(trial.role.as_str())
            ),
        );
    }
    for (name, message) in &trial.refused {
        let shown = plain(name.as_str());
        let message = format!("the server rejects {}: {message}", described(filling, name));
        report.error(
            "finish_refused",
            shown,
            message,
            "correct it under finish; names without a schema are looked up in the table's schema, then in \
             public",
        );
    }
    for (name, standing) in &trial.standing {
        let shown = plain(name.as_str());
        let state = match standing {
            Standing::Same => "as specified in the plan",
            Standing::Unfinished => "but incomplete: the job completes it",
            Standing::Other => {
                let purpose = described(filling, name);
                let message =
                    format!("the job needs the name {shown} for {purpose}, but another object has it");
                report.error("name_taken", &shown, message, "rename or drop it");
                continue;
            }
        };
        report.note("finish_there", &shown, format!("{shown} already exists, {state}"));
    }
    for (name, other) in &trial.alike {
        let (shown, other) = (plain(name.as_str()), plain(other.as_str()));
        let message =
            format!("{table} already has {other}, which is the same as {}", described(filling, name));
        report.warning(
            "finish_alike",
            shown,
            message,
            "remove it from finish unless you want both: every write maintains both",
        );
    }
    for (key, referenced) in filling.finish.foreign_keys.iter_mut().zip(&trial.keys) {
        resolve_key(&mut report, key, referenced.as_ref(), &trial.role);
    }
    unique(&mut report, filling, trial);
    let Finishing { checks, indexes, .. } = &mut filling.finish;
    for (name, text) in checks.iter_mut().chain(indexes) {
        if let Some((_, resolved)) = trial.resolved.iter().find(|(resolved, _)| resolved == name) {
            text.clone_from(resolved);
        }
    }
    report.0
}

/// Describes the constraint or index of that name.
fn described(filling: &Filling, name: &Ident) -> String {
    let f = &filling.finish;
    let of = |all: &[(Ident, String)]| all.iter().find(|(n, _)| n == name).map(|(_, text)| text.clone());
    if let Some(condition) = of(&f.checks) {
        return format!("check ({condition})");
    }
    if let Some(tail) = of(&f.indexes) {
        return format!("index {tail}");
    }
    if let Some((_, columns)) = f.unique.iter().find(|(n, _)| n == name) {
        return format!("unique ({})", plain_list(columns));
    }
    match f.foreign_keys.iter().find(|key| key.name == *name) {
        Some(key) => format!("foreign key ({}) to {}", plain_list(&key.columns), key.references.plain()),
        None => "an index of a partition".to_owned(),
    }
}

fn resolve_key(report: &mut Report, key: &mut NewKey, referenced: Option<&Referenced>, role: &Ident) {
    let role = plain(role.as_str());
    let shown = plain(key.name.as_str());
    let Some(referenced) = referenced else {
        let other = key.references.plain();
        let message = format!("table {other}, which a foreign key under finish references, does not exist");
        report.error("no_such_table", &shown, message, "write the name with its schema");
        return;
    };
    key.references = referenced.name.clone();
    key.unqualified = false;
    if key.referenced.is_empty() {
        key.referenced.clone_from(&referenced.primary);
    }
    let other = referenced.name.plain();
    if !referenced.lacking.is_empty() {
        let lacking = referenced.lacking.join(", ");
        let message = format!(
            "role {role} lacks {} on {other}, which a foreign key references",
            lacking.to_uppercase()
        );
        report.error("missing_privilege", &other, message, format!("grant {lacking} on {other} to {role}"));
    }
    if key.referenced.len() != key.columns.len() {
        let message = format!(
            "the foreign key has {} columns but references {} of {other}",
            key.columns.len(),
            key.referenced.len()
        );
        report.error(
            "foreign_key_columns",
            &shown,
            message,
            "list the referenced columns: references other (a, b)",
        );
    }
}

/// Reports unique constraints that do not contain the partition columns of every level, as a partitioned table
/// requires.
fn unique(report: &mut Report, filling: &Filling, trial: &FinishTrial) {
    for (name, columns) in &filling.finish.unique {
        let lacking = trial.partition_columns.iter().find(|level| match level {
            Some(by) => by.iter().any(|column| !columns.contains(column)),
            None => true,
        });
        let Some(by) = lacking else { continue };
        let shown = plain_list(columns);
        let by = by.as_ref().map_or_else(|| "an expression".to_owned(), |by| format!("({})", plain_list(by)));
        let table = filling.table.name.plain();
        report.error(
            "unique_without_partition_column",
            plain(name.as_str()),
            format!(
                "unique ({shown}) does not contain {by}, by which {table} is partitioned: PostgreSQL \
                cannot create it"
            ),
            "add the partition columns to it",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixture::petri;

    #[test]
    fn names_are_readable_and_unambiguous() {
        let name = |text: &str, what: &str| name_of("suppliers", text, what).as_str().to_owned();
        insta::assert_snapshot!(name("(a, b)", "idx"), @"suppliers_a_b_idx");
        insta::assert_snapshot!(name("using gin (doc)", "idx"), @"suppliers_using_gin_doc_idx_6788f571");
        insta::assert_snapshot!(name("a >= 10", "check"), @"suppliers_a_10_check_60b1e504");
        assert_ne!(name("a >= 0", "check"), name("a > 0", "check"));
        let long = name(&format!("{} > 0", "a".repeat(80)), "check");
        assert!(long.len() <= 63, "{long}");
    }

    #[test]
    fn foreign_keys_are_read() {
        let read = |text: &str| {
            foreign_key(&petri(), text).map(|key| {
                let parts =
                    [plain_list(&key.columns), key.references.plain(), plain_list(&key.referenced), key.more];
                format!("{} unqualified {}", parts.join(" | "), key.unqualified)
            })
        };
        assert_eq!(read("(a) references other (b)").unwrap(), "a | public.other | b |  unqualified true");
        assert_eq!(
            read("(\"A, b\", C)  REFERENCES \"x.y\".Other(d ,\"E)\") on delete cascade").unwrap(),
            "\"A, b\", c | \"x.y\".other | d, \"E)\" | on delete cascade unqualified false"
        );
        assert_eq!(
            read("(a) references \"x.y\" match full").unwrap(),
            "a | public.\"x.y\" |  | match full unqualified true"
        );
        for wrong in
            ["a references b", "(a references b", "(a) b", "(a) references", "()", "(a.) references b"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
