//! Which part of the key space is done, from the ledger's ranges: how far without a gap, and which gaps are left.
//!
//! Ranges are chained by equality of their ends, never compared: the order of keys is the server's, which gives the ledger
//! sorted. An open end counts as an end like any other.

use super::key::{Key, KeyRange};

/// What `done` (sorted by `through`, disjoint) leaves of `(open, end]`, in order. `end` none: open above.
///
/// Each gap runs from the end of one finished range to the start of the next, so that doing exactly the gaps covers the
/// whole without overlap.
pub fn gaps(done: &[KeyRange], end: Option<&Key>) -> Vec<KeyRange> {
    let mut left = Vec::new();
    let mut cursor: Option<Key> = None;
    for range in done {
        if range.after != cursor {
            left.push(KeyRange { after: cursor.take(), through: range.after.clone() });
        }
        cursor.clone_from(&range.through);
        if cursor.is_none() {
            return left;
        }
    }
    if cursor.as_ref() != end || done.is_empty() {
        left.push(KeyRange { after: cursor, through: end.cloned() });
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(n: u32) -> Key {
        vec![n.to_string()]
    }

    fn number(k: &Key) -> u32 {
        k[0].parse().unwrap()
    }

    /// `cuts` in ascending order make ranges; `kept` says which of them the ledger has.
    fn ranges(cuts: &[u32]) -> Vec<KeyRange> {
        let mut after = None;
        cuts.iter()
            .map(|cut| {
                let range = KeyRange { after: after.clone(), through: Some(key(*cut)) };
                after = Some(key(*cut));
                range
            })
            .collect()
    }

    proptest! {
        #[test]
        fn done_and_gaps_cover_all_once(
            cuts in proptest::collection::btree_set(1u32..1000, 1..40),
            kept in proptest::collection::vec(any::<bool>(), 40),
        ) {
            let cuts: Vec<u32> = cuts.into_iter().collect();
            let end = key(*cuts.last().unwrap());
            let all = ranges(&cuts);
            let done: Vec<KeyRange> =
                all.iter().zip(&kept).filter(|(_, keep)| **keep).map(|(range, _)| range.clone()).collect();
            let left = gaps(&done, Some(&end));
            let mut pieces: Vec<KeyRange> = done.iter().chain(&left).cloned().collect();
            pieces.sort_by_key(|r| r.through.as_ref().map(number));
            let mut cursor = None;
            for piece in &pieces {
                prop_assert_eq!(&piece.after, &cursor, "a gap or an overlap");
                prop_assert!(piece.after.as_ref().map(number) < piece.through.as_ref().map(number));
                cursor.clone_from(&piece.through);
            }
            prop_assert_eq!(cursor, Some(end));
        }
    }

    #[test]
    fn an_empty_ledger_leaves_everything() {
        assert_eq!(gaps(&[], Some(&key(9))), [KeyRange { after: None, through: Some(key(9)) }]);
        assert_eq!(gaps(&[], None), [KeyRange { after: None, through: None }]);
        assert_eq!(gaps(&[KeyRange { after: None, through: None }], None), []);
    }
}
