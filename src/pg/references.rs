//! Compares what definitions that the job created again refer to with what the originals refer to.

use std::collections::BTreeMap;

use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::error::Result;
use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::{Ident, plain};
use crate::sql::references as sql;
pub(super) use crate::sql::references::{OF_DEFAULT, OF_FUNCTION, OF_POLICY, OF_VIEW};
use crate::sql::suffixes;

/// What a definition refers to, in readable form, sorted.
pub(super) type References = Vec<String>;

/// Objects of the table that comes into use when direction `ending` ends, and that refer to other functions, operators or types
/// than those of the table in use: the object, and the difference. Both tables are given by oid.
///
/// # Errors
/// The server returned an error.
pub async fn changed(
    client: &Client,
    b: &Blueprint,
    ending: Direction,
    [from, to]: [u32; 2],
) -> Result<Vec<(String, String)>> {
    let (original, mut copy) = (of_table(client, from).await?, of_table(client, to).await?);
    let (_, suffix) = suffixes(ending);
    let (names, others) = (b.index_names(ending), b.index_names(ending.opposite()));
    let of_copy = |name: &str| {
        let at = names.iter().position(|one| one.as_str() == name);
        at.and_then(|at| others.get(at)).cloned().unwrap_or_else(|| Ident::new(name))
    };
    let renamed = |kind: &str, name: &str| match kind {
        "index" => of_copy(name).with_suffix(suffix).as_str().to_owned(),
        "statistics" => Ident::new(name).with_suffix(suffix).as_str().to_owned(),
        _ => name.to_owned(),
    };
    let key = [&b.key_index, &b.target_index_name(&b.key_index)];
    let mut found = Vec::new();
    for ((kind, name), references) in original {
        // The index of the key has the partition column in addition.
        if kind == "index" && key.iter().any(|key| key.as_str() == name) && b.widened() {
            continue;
        }
        let Some(of_copy) = copy.remove(&(kind.clone(), renamed(&kind, &name))) else { continue };
        if let Some(difference) = difference(&references, &of_copy) {
            found.push((format!("{kind} {}", plain(&name)), difference));
        }
    }
    Ok(found)
}

/// The difference in one sentence; none if there is none.
pub(super) fn difference(original: &References, copy: &References) -> Option<String> {
    let only = |a: &References, b: &References| {
        a.iter().filter(|one| !b.contains(one)).cloned().collect::<Vec<_>>().join(", ")
    };
    let (lost, gained) = (only(original, copy), only(copy, original));
    match (lost.is_empty(), gained.is_empty()) {
        (true, true) => None,
        (true, false) => Some(format!("it would also refer to {gained}")),
        (false, true) => Some(format!("it would no longer refer to {lost}")),
        (false, false) => Some(format!("it would refer to {gained} instead of {lost}")),
    }
}

async fn of_table(client: &Client, oid: u32) -> Result<BTreeMap<(String, String), References>> {
    let rows = client.query(sql::OF_TABLE, &[&oid]).await?;
    Ok(rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect())
}

/// What the object that one of the other queries returns refers to.
pub(super) async fn of(
    client: &Client,
    query: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<References> {
    let rows = client.query(query, parameters).await?;
    Ok(rows.iter().flat_map(|row| row.get::<_, References>(2)).collect())
}
