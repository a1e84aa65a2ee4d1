//! The post-swap diff: expected and unexpected changes that a swap made, by name.

use crate::error::Result;
use crate::event::{PartitionNote, RunWarning};
use crate::model::post_swap_diff;
use crate::model::state::State;
use crate::pg::catalog;

use super::after_exchange::ignore_expected_changes;
use super::{PartitionJob, drift};

/// Reports the changes that the last swap made by name, line by line, and warns of unexpected changes.
///
/// # Errors
/// The server returned an error.
pub async fn compare_by_name(context: &PartitionJob) -> Result<()> {
    let b = context.blueprint();
    let client = &context.control;
    let mut now = catalog::table(client, catalog::must_find(client, &b.table.name).await?).await?;
    ignore_expected_changes(context, &b, &mut now).await?;
    let (changes, unexpected) = match context.state() {
        State::Swapped => (post_swap_diff::changes(&b), post_swap_diff::unexpected(&b, &now)),
        State::RolledBack => (Vec::new(), drift::unexpected(&b, &now)),
        _ => return Ok(()),
    };
    for change in changes {
        context.events.note(PartitionNote::ChangedBySwap { change });
    }
    if unexpected.is_empty() {
        context.events.note(PartitionNote::NothingElseChanged);
    }
    for difference in unexpected {
        context.events.warn(RunWarning::UnexpectedDifference { difference });
    }
    Ok(())
}
