//! The kinds of jobs. Only this module and `engine::kind` distinguish them; a new kind starts here.

/// The kind of a job, without its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Partition a table.
    Partition,
    /// Fill columns of a table.
    Backfill,
    /// Change the type of a column.
    Retype,
}

impl TaskKind {
    /// All kinds, in the order of the variants.
    pub const ALL: [Self; 3] = [Self::Partition, Self::Backfill, Self::Retype];

    /// The name in a plan and in the store.
    pub fn name(self) -> &'static str {
        self.pick(["partition", "backfill", "retype"])
    }

    /// The kind with that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The value for this kind, from one value per kind in the order of [`TaskKind::ALL`].
    pub fn pick<T>(self, [partition, backfill, retype]: [T; 3]) -> T {
        match self {
            Self::Partition => partition,
            Self::Backfill => backfill,
            Self::Retype => retype,
        }
    }
}

/// Evaluates `$result` with the content `$one` of an enum that has a variant for each kind.
macro_rules! each_kind {
    ($value:expr, $of:ident, $one:ident => $result:expr) => {
        match $value {
            $of::Partition($one) => $result,
            $of::Backfill($one) => $result,
            $of::Retype($one) => $result,
        }
    };
}

pub(crate) use each_kind;
