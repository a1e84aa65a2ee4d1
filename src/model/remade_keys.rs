//! Compares foreign keys that a swap created again with the original ones.

use super::table::{ForeignKey, Table};

/// Sets the attributes of the foreign keys of `now` that must not count as a change to those in `was`: which of several
/// unique indexes on the same columns a key uses, and whether a key that was valid has already been validated again.
pub fn ignore_expected_changes(was: &Table, now: &mut Table) {
    for (was, now) in
        [(&was.foreign_keys, &mut now.foreign_keys), (&was.referenced_by, &mut now.referenced_by)]
    {
        for key in now {
            if let Some(old) = was.iter().find(|old| same(old, key)) {
                key.index.clone_from(&old.index);
                key.validated |= old.validated;
            }
        }
    }
}

fn same(was: &ForeignKey, now: &ForeignKey) -> bool {
    was.name == now.name && was.table == now.table && was.definition == now.definition
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::difference::{Between, differences};
    use crate::model::ident::{Ident, QualifiedName};
    use crate::model::retyping::tests::retyping;

    #[test]
    fn the_index_of_a_key_does_not_count_as_a_change() {
        let r = retyping();
        let mut was = r.table.clone();
        was.referenced_by = r.keys;
        let mut now = was.clone();
        now.referenced_by[0].index = Some(Ident::new("another"));
        now.referenced_by[0].validated = false;
        assert_eq!(differences(&was, &now, Between::Times).len(), 1);
        ignore_expected_changes(&was, &mut now);
        assert_eq!(differences(&was, &now, Between::Times), []);
        now.referenced_by[0].definition.push_str(" ON DELETE CASCADE");
        now.referenced_by[0].validated = false;
        ignore_expected_changes(&was, &mut now);
        assert_eq!(differences(&was, &now, Between::Times).len(), 1);
        now.referenced_by[0].table = QualifiedName::new("public", "others");
        assert_eq!(differences(&was, &now, Between::Times).len(), 2);
    }
}
