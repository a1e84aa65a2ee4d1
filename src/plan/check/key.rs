//! Chooses the key. A key identifies each row, by the operators `=`, `<` and `>` of `pg_catalog`.

use super::{Report, set_not_null};
use crate::model::blueprint::Blueprint;
use crate::model::ident::{Ident, plain, plain_list};
use crate::model::table::{Index, Table};

/// The primary key, if it is usable; otherwise the first usable unique index, by name. `kept` is a column that the job keeps
/// NULL out of.
pub(super) fn choose<'a>(table: &'a Table, kept: Option<&Ident>) -> Option<&'a Index> {
    let mut usable: Vec<&Index> =
        table.indexes.iter().filter(|i| i.unique && unfit(table, i, kept).is_none()).collect();
    usable.sort_by_key(|i| (i.constraint != "p", i.name.clone()));
    usable.first().copied()
}

/// The reason why a unique index cannot be the key; none if it can.
fn unfit(table: &Table, index: &Index, kept: Option<&Ident>) -> Option<String> {
    if !index.valid {
        return Some("is invalid".to_owned());
    }
    if index.partial {
        return Some("covers only some of the rows".to_owned());
    }
    let Some(columns) = &index.columns else { return Some("is on an expression".to_owned()) };
    let mut nullable = nullable(table, columns);
    nullable.retain(|name| Some(*name) != kept);
    if !nullable.is_empty() {
        return Some(format!("has nullable columns ({})", plain_list(nullable)));
    }
    if !index.plain_order {
        return Some(
            "does not have the default ascending order of its types (the operators in \
            pg_catalog)"
                .to_owned(),
        );
    }
    None
}

fn nullable<'a>(table: &Table, columns: &'a [Ident]) -> Vec<&'a Ident> {
    columns.iter().filter(|name| table.column(name).is_some_and(|c| !c.not_null)).collect()
}

/// Returns the key, or adds a finding about why there is none and how to create one.
pub(super) fn check<'a>(report: &mut Report, table: &'a Table, kept: Option<&Ident>) -> Option<&'a Index> {
    let chosen = choose(table, kept);
    if chosen.is_some() {
        return chosen;
    }
    let name = table.name.plain();
    let tried: Vec<String> = table
        .indexes
        .iter()
        .filter(|i| i.unique)
        .filter_map(|i| Some(format!("{} {}", plain(i.name.as_str()), unfit(table, i, kept)?)))
        .collect();
    let message = if tried.is_empty() {
        format!("table {name} has no primary key and no unique index")
    } else {
        format!("table {name} has no usable key: {}", tried.join("; "))
    };
    report.error("no_usable_key", &name, message, statements(table));
    None
}

/// A unique index that would be usable as the key if its columns were NOT NULL.
pub(super) fn nearly(table: &Table) -> Option<&Index> {
    table.indexes.iter().find(|i| i.unique && i.valid && !i.partial && i.plain_order && i.columns.is_some())
}

/// The statements that create a key.
fn statements(table: &Table) -> String {
    let name = table.name.plain();
    if let Some(columns) = nearly(table).and_then(|i| i.columns.as_deref()) {
        let each: Vec<String> = nullable(table, columns).iter().map(|c| set_not_null(&name, c)).collect();
        return each.join("; ");
    }
    let key = plain(table.name.name.with_suffix("_key").as_str());
    let column = likely_key(table).and_then(|name| table.column(name));
    let shown = column.map_or("<column>".to_owned(), |c| plain(c.name.as_str()));
    let not_null = match column {
        Some(column) if !column.not_null => set_not_null(&name, &column.name) + "; ",
        _ => String::new(),
    };
    format!(
        "{not_null}create unique index concurrently {key} on {name} ({shown}); \
         alter table {name} add primary key using index {key}"
    )
}

/// A column that is probably unique: an identity or serial column, or one whose name is usual for a key.
fn likely_key(table: &Table) -> Option<&Ident> {
    let named = [Ident::new("id"), table.name.name.with_suffix("_id"), Ident::new("uuid")];
    let with_sequence = table.sequences.first().map(|s| &s.column);
    with_sequence.or_else(|| table.columns.iter().map(|c| &c.name).find(|c| named.contains(c)))
}

/// Reports the key, and whether the partition column is added to it.
pub(super) fn note(report: &mut Report, b: &Blueprint) {
    let index = plain(b.key_index.as_str());
    let key = plain_list(&b.key);
    if !b.widened() {
        report.note(
            "key",
            &index,
            format!("the key is {index} ({key}), which already contains {}", plain(b.by.as_str())),
        );
        return;
    }
    if b.key_table(&b.key_index).is_some() {
        return;
    }
    let wide = plain_list(b.place_columns().iter().map(|c| &c.name));
    report.warning(
        "key_widened",
        &index,
        format!(
            "the partition column is added to the key {index} ({key}): after the swap, only ({wide}) is \
             unique, not ({key}) alone, and ON CONFLICT ({key}) fails"
        ),
        format!(
            "look for ON CONFLICT ({key}) in the applications, and make sure that the values of \
            ({key}) come from a sequence or are random uuids"
        ),
    );
}
