//! Chooses the key. A key identifies each row, by the operators `=`, `<` and `>` of `pg_catalog`.

use super::column::NULLS_COUNTED;
use super::{NullCount, Report, rows_that, set_not_null};
use crate::model::blueprint::Blueprint;
use crate::model::ident::{Ident, plain, plain_list};
use crate::model::table::{Index, Table};
use crate::plan::Partitioning;

impl NullCount {
    /// `about 3 rows contain NULL in a`.
    fn described(&self) -> String {
        let more = match self.estimated {
            true => "about ",
            false if self.rows >= NULLS_COUNTED => "at least ",
            false => "",
        };
        let rows = rows_that(self.rows, "contains", "contain");
        format!("{more}{rows} NULL in {}", plain(self.column.as_str()))
    }
}

/// The nullable columns that a key can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nullable<'a> {
    /// None: the job does not keep NULL out of any column.
    None,
    /// All: they contain no NULL now, and the job stops at its end if they contain NULL then.
    Empty,
    /// None, but the plan could ask the job to keep NULL out.
    Offered,
    /// One column, which the job keeps NULL out of.
    Column(&'a Ident),
    /// All: the job keeps NULL out of them.
    All,
}

impl<'a> Nullable<'a> {
    /// What a backfill allows: columns that certainly contain no NULL.
    pub(super) fn counted(nulls: &[NullCount]) -> Self {
        let empty = nulls.iter().all(|one| one.rows == 0 && !one.estimated);
        if empty { Self::Empty } else { Self::None }
    }

    /// What the plan of a partition job allows, with `by` as its partition column.
    pub(super) fn of(plan: &Partitioning, by: &'a Ident) -> Self {
        match (plan.not_null, &plan.null_as) {
            (true, _) => Self::All,
            (false, Some(_)) => Self::Column(by),
            (false, None) => Self::Offered,
        }
    }

    fn allows(self, column: &Ident) -> bool {
        match self {
            Self::None | Self::Offered => false,
            Self::Column(one) => one == column,
            Self::All | Self::Empty => true,
        }
    }
}

/// The primary key, if it is usable; otherwise the first usable unique index, by name. One without nullable columns comes
/// first.
pub(super) fn choose<'a>(table: &'a Table, allowed: Nullable<'_>) -> Option<&'a Index> {
    let mut usable: Vec<&Index> =
        table.indexes.iter().filter(|i| i.unique && unfit(table, i, allowed).is_none()).collect();
    let has_nullable = |i: &Index| !nullable(table, i.columns.as_deref().unwrap_or_default()).is_empty();
    usable.sort_by_key(|i| (has_nullable(i), i.constraint != "p", i.name.clone()));
    usable.first().copied()
}

/// The reason why a unique index cannot be the key; none if it can.
fn unfit(table: &Table, index: &Index, allowed: Nullable<'_>) -> Option<String> {
    if !index.valid {
        return Some("is invalid".to_owned());
    }
    if index.partial {
        return Some("covers only some of the rows".to_owned());
    }
    let Some(columns) = &index.columns else { return Some("is on an expression".to_owned()) };
    let mut nullable = nullable(table, columns);
    nullable.retain(|name| !allowed.allows(name));
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

/// The nullable columns among these.
pub(super) fn nullable<'a>(table: &Table, columns: &'a [Ident]) -> Vec<&'a Ident> {
    columns.iter().filter(|name| table.column(name).is_some_and(|c| !c.not_null)).collect()
}

/// The nullable columns of the unique index that would be the key if they were NOT NULL; empty if the table has a key.
pub fn nullable_columns(table: &Table) -> Vec<&Ident> {
    let key = nearly(table).and_then(|index| index.columns.as_deref());
    key.map_or_else(Vec::new, |columns| nullable(table, columns))
}

/// Returns the key, or adds a finding about why there is none and how to create one. `nulls` are the numbers of NULLs in
/// [`nullable_columns`].
pub(super) fn check<'a>(
    report: &mut Report,
    table: &'a Table,
    allowed: Nullable<'_>,
    nulls: &[NullCount],
) -> Option<&'a Index> {
    if let Some(chosen) = choose(table, allowed) {
        kept_out(report, table, chosen, allowed, nulls);
        return Some(chosen);
    }
    let name = table.name.plain();
    let tried: Vec<String> = table
        .indexes
        .iter()
        .filter(|i| i.unique)
        .filter_map(|i| Some(format!("{} {}", plain(i.name.as_str()), unfit(table, i, allowed)?)))
        .collect();
    let mut message = if tried.is_empty() {
        format!("table {name} has no primary key and no unique index")
    } else {
        format!("table {name} has no usable key: {}", tried.join("; "))
    };
    if !nulls.is_empty() {
        let counts: Vec<String> = nulls.iter().map(NullCount::described).collect();
        message.push_str(&format!("; now, {}", counts.join(", ")));
    }
    report.error("no_usable_key", &name, message, statements(table, allowed, nulls));
    None
}

/// Reports that the job keeps NULL out of columns of the key, and the rows that contain NULL.
fn kept_out(report: &mut Report, table: &Table, key: &Index, allowed: Nullable<'_>, nulls: &[NullCount]) {
    let (index, name) = (plain(key.name.as_str()), table.name.plain());
    for column in nullable(table, key.columns.as_deref().unwrap_or_default()) {
        // The partition column is checked with its values.
        if allowed == Nullable::Column(column) {
            continue;
        }
        let shown = plain(column.as_str());
        if allowed == Nullable::Empty {
            report.warning(
                "nullable_key",
                &shown,
                format!(
                    "column {shown} of the key {index} is nullable: it contains no NULL now; if a row with NULL is \
                     written while the job runs, the job reports it at its end and stops"
                ),
                set_not_null(&name, column),
            );
            continue;
        }
        if let Some(count) = nulls.iter().find(|one| one.column == *column && one.rows > 0) {
            report.error(
                "null_in_key",
                &shown,
                format!("{}, a column of the key {index}", count.described()),
                format!("set a value in these rows: select * from {name} where {shown} is null"),
            );
        }
        report.warning(
            "null_rejected",
            &shown,
            format!(
                "from the start of the job, every INSERT or UPDATE that leaves NULL in column {shown} of {name} fails: the \
                 key {index}, which identifies rows, contains the column"
            ),
            "make sure that no application writes NULL there",
        );
    }
}

/// The unique index that is the key, or would be if its columns were NOT NULL.
pub(super) fn nearly(table: &Table) -> Option<&Index> {
    choose(table, Nullable::All)
}

/// How to create a key: statements, or a key of the plan.
fn statements(table: &Table, allowed: Nullable<'_>, nulls: &[NullCount]) -> String {
    let name = table.name.plain();
    let mut nullable = nullable_columns(table);
    nullable.retain(|column| !allowed.allows(column));
    if !nullable.is_empty() {
        let set = match allowed {
            Nullable::None => {
                let each: Vec<String> = nullable.iter().map(|c| set_not_null(&name, c)).collect();
                each.join("; ")
            }
            _ => "set not_null = true under [partition]; the job then keeps NULL out of these columns"
                .to_owned(),
        };
        if nulls.iter().all(|one| one.rows == 0) {
            return set;
        }
        let condition: Vec<String> =
            nullable.iter().map(|c| format!("{} is null", plain(c.as_str()))).collect();
        let rows = format!("select * from {name} where {}", condition.join(" or "));
        return match allowed {
            Nullable::None => format!("set a value in these rows ({rows}), then run: {set}"),
            _ => format!("set a value in these rows ({rows}), and {set}"),
        };
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
