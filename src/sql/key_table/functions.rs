//! What the functions of a key table have in common.

use crate::model::ident::{Ident, QualifiedName, literal};
use crate::model::key_table::KeyTable;

/// Is `on` while keys are added for a whole partition, which the guard allows.
pub(super) const ADDING: &str = "pgstrata.adding_keys";

/// The name of a function of the key table.
pub(super) fn function(k: &KeyTable, what: &str) -> QualifiedName {
    k.name.sibling(k.name.name.with_suffix(&format!("_{what}")))
}

/// A statement that fails if a column of a row does not have the type that it had when the key table was created. The
/// functions run with the privileges of their owner, and a cast of another type could run other code. The columns of the
/// key table have the types of the columns that it copies.
pub(super) fn same_types(k: &KeyTable, row: &str) -> String {
    let differs: Vec<String> = k
        .sources()
        .into_iter()
        .map(|source| {
            let copied = k.columns.iter().any(|column| !column.computed && column.name == source.name);
            let expected = match copied {
                true => format!("pg_catalog.pg_typeof((null::{}).{})", k.name, source.name),
                false => format!("{}::pg_catalog.regtype", literal(&source.sql_type)),
            };
            format!("pg_catalog.pg_typeof({row}.{}) operator(pg_catalog.<>) {expected}", source.name)
        })
        .collect();
    format!(
        "if {} then
    raise exception using errcode = '42804', message = {}, hint = {};
  end if;",
        differs.join(" or "),
        literal(&format!(
            "a column of unique index {} no longer has the type that it had when key table {} was created",
            k.index.as_str(),
            k.name.plain()
        )),
        literal("restore the type of the column"),
    )
}

/// A trigger of the key table's functions.
pub(super) fn trigger(k: &KeyTable, name: &str) -> Ident {
    let (first, name) = name.split_at(1);
    Ident::derived(&format!("{first}pgstrata_{name}_{}", k.index.as_str()))
}

/// The name of the TRUNCATE trigger of the table and its partitions.
pub fn on_truncate(k: &KeyTable) -> Ident {
    trigger(k, "!truncate")
}
