//! The two ends of a job: closing the rollback window, and taking everything back.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::QualifiedName;

use super::{capture, swap};

/// Closes the window: no more capture, no old table. `CASCADE` is never said: what still hangs on the old table is an error.
///
/// The parent's lock comes first: `DROP TRIGGER` would take the leaves' before it, and applications take the parent's
/// first, so that each would wait for the other.
pub fn finalize(b: &Blueprint, leaves: &[QualifiedName]) -> Vec<String> {
    let sides = b.sides(Direction::Reverse);
    let mut all = vec![format!("lock table {} in access exclusive mode", sides.source)];
    all.extend(capture::drop_triggers(&sides.source));
    all.extend(leaves.iter().map(truncate_trigger));
    all.push(swap::drop_guard(&sides.source));
    all.push(format!("drop table if exists {}", sides.target));
    all.extend(capture::drop_log(b));
    all
}

/// Takes everything back that the job made; the source is as it was.
pub fn abort(b: &Blueprint) -> Vec<String> {
    let sides = b.sides(Direction::Forward);
    let mut all = capture::drop_triggers(&sides.source);
    all.push(swap::drop_guard(&sides.source));
    all.push(format!("drop table if exists {}", sides.target));
    all.extend(capture::drop_log(b));
    all
}

fn truncate_trigger(leaf: &QualifiedName) -> String {
    format!("drop trigger if exists \"{}\" on {leaf}", capture::TRUNCATE_TRIGGER)
}
