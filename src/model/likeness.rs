//! What the table must look like through its name after a swap: as before, but for what partitioning changes. The swap checks
//! itself against this once it is done.

use super::blueprint::Blueprint;
use super::ident::{Ident, plain};
use super::table::{Column, Index, Table};

/// What the swap changes and must, a line each.
pub fn changes(b: &Blueprint) -> Vec<String> {
    let table = &b.table;
    let leaves = b.partitions.len() + usize::from(b.default.is_some());
    let mut all = vec![format!(
        "{} is partitioned by {}: {leaves} partitions",
        table.name.plain(),
        plain(b.by.as_str())
    )];
    if b.widened() {
        let columns: Vec<String> = b.place_columns().iter().map(|c| plain(c.name.as_str())).collect();
        all.push(format!("the key {} is ({})", plain(b.key_index.as_str()), columns.join(", ")));
    }
    all.extend(b.drop_unique.iter().map(|name| format!("unique index {} is given up", plain(name.as_str()))));
    if !(table.options.is_empty() && table.toast_options.is_empty()) {
        all.push("the storage parameters stand on each partition".to_owned());
    }
    if table.indexes.iter().any(|i| i.clustered) {
        all.push("what CLUSTER follows stands on each partition".to_owned());
    }
    let unproven = table.foreign_keys.iter().filter(|key| !key.validated && b.keys_on_leaves);
    all.extend(unproven.map(|key| {
        format!("foreign key {}, which is NOT VALID, stands on each partition", plain(key.name.as_str()))
    }));
    all.extend(
        b.incoming_dropped.iter().map(|key| {
            format!("foreign key {} of {} is given up", plain(key.name.as_str()), key.table.plain())
        }),
    );
    let published = table.dependents.publications.iter().filter(|p| !p.via_root);
    all.extend(published.map(|p| {
        format!("publication {} publishes by way of the partitioned table", plain(p.name.as_str()))
    }));
    all
}

/// What differs in `now`, the table in use after a swap, and should not.
pub fn unexpected(b: &Blueprint, now: &Table) -> Vec<String> {
    let mut expected = common(b.table.clone());
    "p".clone_into(&mut expected.relkind);
    expected.oid = now.oid;
    expected.indexes.retain(|i| !b.drop_unique.contains(&i.name));
    for index in expected.indexes.iter_mut().filter(|i| i.name == b.key_index && b.widened()) {
        widen(b, index);
    }
    let given_up: Vec<&Ident> = b.incoming_dropped.iter().map(|key| &key.name).collect();
    expected.referenced_by.retain(|key| !given_up.contains(&&key.name));
    expected.foreign_keys.retain(|key| key.validated || !b.keys_on_leaves);
    for publication in &mut expected.dependents.publications {
        publication.via_root = true;
    }
    let now = common(now.clone());
    let mut found = expected.drift(&now);
    found.extend(expected.changed_comments(&now));
    found
}

fn widen(b: &Blueprint, index: &mut Index) {
    index.columns = Some(b.place_columns().iter().map(|c| c.name.clone()).collect());
    index.include.retain(|c| *c != b.by);
}

/// What a plain and a partitioned table can have in common.
fn common(mut table: Table) -> Table {
    "p".clone_into(&mut table.persistence);
    table.options.clear();
    table.toast_options.clear();
    table.access_method = None;
    table.children = 0;
    for index in &mut table.indexes {
        // A partitioned table's constraint takes no parameters; its partitions' do.
        if !index.constraint.is_empty() {
            index.options.clear();
            index.tail.clear();
        }
    }
    for column in &mut table.columns {
        let Column { options, .. } = column;
        options.retain(|o| !o.starts_with("n_distinct_inherited="));
    }
    for rule in table.dependents.rules.iter_mut().filter(|r| r.table == table.name) {
        rule.relkind.clear();
    }
    for key in &mut table.referenced_by {
        key.index = None;
        // A key of the table to itself comes from a partitioned table by now.
        key.from_partitioned &= key.table != table.name;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blueprint::tests::blueprint;

    fn swapped(b: &Blueprint) -> Table {
        let mut now = b.table.clone();
        now.oid += 1;
        "p".clone_into(&mut now.relkind);
        now.options.clear();
        now.toast_options.clear();
        now.indexes[0].columns = Some(vec![Ident::new("observation_id"), Ident::new("created_at")]);
        "btree (observation_id, created_at)".clone_into(&mut now.indexes[0].tail);
        now.dependents.publications[0].via_root = true;
        now
    }

    #[test]
    fn what_partitioning_changes_is_expected_and_nothing_else() {
        let b = blueprint();
        assert_eq!(unexpected(&b, &swapped(&b)), Vec::<String>::new());
        insta::assert_snapshot!(changes(&b).join("\n"), @"
        public.petri_observations is partitioned by created_at: 3 partitions
        the key petri_observations_pkey is (observation_id, created_at)
        the storage parameters stand on each partition
        publication lab_out publishes by way of the partitioned table
        ");
        let mut now = swapped(&b);
        now.views.clear();
        "D".clone_into(&mut now.triggers[0].enabled);
        now.indexes[0].columns = Some(vec![Ident::new("observation_id")]);
        now.comments.clear();
        now.grants.pop();
        insta::assert_snapshot!(unexpected(&b, &now).join("\n"), @"
        index petri_observations_pkey changed
        trigger touch changed
        view public.petri_observations_with_names was dropped
        privilege UPDATE (note) of public, by lab was dropped
        comment on trigger touch was dropped
        ");
    }
}
