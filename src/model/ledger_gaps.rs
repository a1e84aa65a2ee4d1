//! Computes the gaps between the ranges in the ledger, which remain to be processed: `phase::partition::copy` and
//! `phase::backfill::first_pass` continue there after an interruption.
//!
//! Ranges are chained by equality of their ends, never by order: only the server knows the order of keys, and it
//! returns the ledger sorted. An unbounded end is treated like any other end.

use super::key::{Key, KeyRange};

/// The parts of the range that is unbounded below and ends at `end` that `done` (sorted by `through`, disjoint) does
/// not cover, in order. If `end` is none, the range is also unbounded above.
///
/// Each gap extends from the end of one finished range to the start of the next. The finished ranges and the gaps
/// together cover everything without overlaps.
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

    /// The contiguous ranges that `cuts`, in ascending order, define.
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
        fn finished_ranges_and_gaps_cover_everything_once(
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
    fn an_empty_ledger_has_one_gap() {
        assert_eq!(gaps(&[], Some(&key(9))), [KeyRange { after: None, through: Some(key(9)) }]);
        assert_eq!(gaps(&[], None), [KeyRange { after: None, through: None }]);
        assert_eq!(gaps(&[KeyRange { after: None, through: None }], None), []);
    }
}
