//! What a job was planned to do, by its kind: decided once before it starts, and kept with it.

use serde_json::{Result, Value};

use super::blueprint::Blueprint;
use super::filling::Filling;
use super::ident::{Ident, QualifiedName};
use super::retyping::Retyping;

/// What a job does, down to every name.
#[derive(Debug, Clone, PartialEq)]
pub enum Design {
    /// Of a partition job.
    Partition(Box<Blueprint>),
    /// Of a backfill.
    Backfill(Box<Filling>),
    /// Of a job that gives a column another type.
    Retype(Box<Retyping>),
}

impl Design {
    /// Reads what the store keeps of a job of that kind; none where this version knows no such kind.
    ///
    /// # Errors
    /// The document is none of that kind.
    pub fn read(kind: &str, stored: Value) -> Result<Option<Self>> {
        match kind {
            "partition" => Ok(Some(Self::Partition(serde_json::from_value(stored)?))),
            "backfill" => Ok(Some(Self::Backfill(serde_json::from_value(stored)?))),
            "retype" => Ok(Some(Self::Retype(serde_json::from_value(stored)?))),
            _ => Ok(None),
        }
    }

    /// As the store keeps it.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn stored(&self) -> Result<Value> {
        match self {
            Self::Partition(blueprint) => serde_json::to_value(blueprint),
            Self::Backfill(filling) => serde_json::to_value(filling),
            Self::Retype(retyping) => serde_json::to_value(retyping),
        }
    }

    /// The oid of the application's own table, and its owner.
    pub fn owned(&self) -> (u32, &Ident) {
        let table = match self {
            Self::Partition(blueprint) => &blueprint.table,
            Self::Backfill(filling) => &filling.table,
            Self::Retype(retyping) => &retyping.table,
        };
        (table.oid, &table.owner)
    }

    /// The table that the job is about.
    pub fn table(&self) -> &QualifiedName {
        match self {
            Self::Partition(blueprint) => &blueprint.table.name,
            Self::Backfill(filling) => &filling.table.name,
            Self::Retype(retyping) => &retyping.table.name,
        }
    }
}
