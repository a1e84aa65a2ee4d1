//! Detects additions by event triggers to the partitioned table.

use crate::error::Result;
use crate::model::objects::Role;
use crate::model::state::State;
use crate::phase::job::additions::refuse;
use crate::sql::additions;

use super::{PartitionJob, objects};

/// Fails if the target or, unless it was in use, one of its partitions has a property or object that the source does not
/// have, such as an owner, a policy, a trigger or a default.
///
/// # Errors
/// The additions; or the server returned an error.
pub async fn none_on_target(context: &PartitionJob) -> Result<()> {
    let b = context.blueprint();
    let Some(target) = objects::recorded(context).await?.only(Role::Target).map(|object| object.oid) else {
        return Ok(());
    };
    // While the partitioned table was in use, its partitions may have been given properties of their own.
    let partitions = context.state() != State::RolledBack;
    let rows = context.control.query(&additions::additions(&b), &[&target, &partitions]).await?;
    let found: Vec<String> =
        rows.iter().map(|row| format!("{}: {}", row.get::<_, &str>(0), row.get::<_, &str>(1))).collect();
    refuse(context, &context.control, &b.target(), &b.table.name, &found).await
}
