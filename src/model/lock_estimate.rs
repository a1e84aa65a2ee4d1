//! Estimates how long an exchange holds its locks, and how many entries of the server's lock table it needs.
//!
//! The numbers of locks were read from `pg_locks` during exchanges with 11 and 31 partitions on PostgreSQL 15, 16 and 18;
//! the times were measured on an idle machine with 24 to 1,000 partitions and up to 28 foreign keys. The formulas give
//! upper bounds of the numbers of locks, and approximate the times.

use super::blueprint::Blueprint;

/// The longest time for which an exchange may hold its locks, in milliseconds; then it is canceled.
pub const MOST_HELD_MS: u32 = 2_000;

/// The first version in which a partitioned table can have a foreign key that is NOT VALID.
const KEY_ON_PARENT: i32 = 180_000;
/// The first version in which a foreign key of or to a partitioned table locks the partitions only when it is dropped.
const PARTITIONS_LOCKED_LATE: i32 = 160_000;

/// What the exchange depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    /// Partitions, with the default partition.
    leaves: u64,
    /// Foreign keys of the table to other tables.
    own: u64,
    /// Foreign keys of other tables that reference the partitioned table itself.
    incoming: u64,
    /// Foreign keys of the table that reference the partitioned table itself.
    to_itself: u64,
    /// Other tables and objects that the exchange alters, and key tables.
    others: u64,
    /// `server_version_num`.
    version: i32,
}

/// The estimate for a swap and for the rollback after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockEstimate {
    /// Entries of the lock table that the swap needs.
    pub swap: u64,
    /// Entries of the lock table that the rollback needs.
    pub rollback: u64,
    /// The time for which either holds its locks, in milliseconds.
    pub held_ms: u64,
}

impl LockEstimate {
    /// The estimate for a job on a server of this version.
    pub fn of(b: &Blueprint, version: i32) -> Self {
        let to_key_table = |index: Option<&_>| index.is_some_and(|index| b.key_table(index).is_some());
        let (to_itself, incoming): (Vec<_>, Vec<_>) = b
            .incoming
            .iter()
            .filter(|key| !to_key_table(key.index.as_ref()))
            .partition(|key| key.table == b.table.name);
        Self::of_shape(Shape {
            leaves: (b.partitions.len() + usize::from(b.default.is_some())) as u64,
            own: b.table.foreign_keys.len() as u64,
            incoming: incoming.len() as u64,
            to_itself: to_itself.len() as u64,
            others: (b.other_altered_tables().len() + b.table.dependents.rules.len() + 2 * b.key_tables.len())
                as u64,
            version,
        })
    }

    fn of_shape(s: Shape) -> Self {
        let keys = s.own + s.incoming + s.to_itself;
        let base = 100 + 10 * s.others;
        let of_key = if s.version < PARTITIONS_LOCKED_LATE { s.leaves + 9 } else { 9 };
        let any = if keys > 0 && s.version < KEY_ON_PARENT { s.leaves } else { 0 };
        let to_itself = match s.version < KEY_ON_PARENT {
            true => s.to_itself * (3 * s.leaves * s.leaves + 2 * s.leaves),
            false => s.to_itself * 4 * s.leaves,
        };
        // Microseconds: each key has a constraint and triggers for each partition.
        let per_key = s.leaves * 60 + s.leaves * s.leaves * 6 / 10;
        Self {
            swap: base + 2 * s.leaves + any + keys * of_key + to_itself,
            rollback: base + 3 * s.leaves + keys * (3 * s.leaves + 11) + s.to_itself * (3 * s.leaves + 10),
            held_ms: 10 + (s.leaves * 75 + (s.incoming + s.to_itself) * per_key) / 1_000,
        }
    }

    /// The entries that are needed in either direction.
    pub fn entries(&self) -> u64 {
        self.swap.max(self.rollback)
    }
}

/// The size of the server's lock table, which all sessions share (`max_locks_per_transaction` in the manual).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockTable {
    /// `max_locks_per_transaction`.
    pub per_transaction: u64,
    /// The number of sessions and prepared transactions that the server allows.
    pub sessions: u64,
}

impl LockTable {
    /// The number of entries.
    pub fn entries(&self) -> u64 {
        self.per_transaction * self.sessions
    }

    /// The setting of `max_locks_per_transaction` with which the lock table has twice as many entries as needed.
    pub fn setting_for(&self, needed: u64) -> u64 {
        (2 * needed).div_ceil(self.sessions.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(leaves: u64, version: i32) -> Shape {
        Shape { leaves, own: 0, incoming: 0, to_itself: 0, others: 0, version }
    }

    /// Kind of key, version, leaves, and the numbers of locks in the swap and in the rollback that were measured.
    const MEASURED: &[(&str, i32, u64, u64, u64)] = &[
        ("none", 150_020, 11, 112, 122),
        ("none", 150_020, 31, 154, 184),
        ("own 1", 150_020, 11, 141, 165),
        ("own 1", 150_020, 31, 221, 285),
        ("own 2", 150_020, 31, 257, 384),
        ("in 1", 150_020, 31, 223, 284),
        ("in 2", 150_020, 31, 263, 384),
        ("itself", 150_020, 11, 449, 194),
        ("itself", 150_020, 31, 3_088, 374),
        ("own 1", 160_014, 31, 184, 278),
        ("own 2", 160_014, 31, 191, 377),
        ("in 2", 160_014, 31, 162, 379),
        ("itself", 160_014, 31, 3_020, 368),
        ("none", 180_004, 31, 148, 178),
        ("own 2", 180_004, 31, 159, 376),
        ("in 2", 180_004, 31, 163, 380),
        ("itself", 180_004, 11, 151, 187),
        ("itself", 180_004, 31, 151, 368),
    ];

    #[test]
    fn the_estimate_is_an_upper_bound_of_what_was_measured() {
        for (kind, version, leaves, swap, rollback) in MEASURED {
            let mut s = shape(*leaves, *version);
            match *kind {
                "own 1" => s.own = 1,
                "own 2" => s.own = 2,
                "in 1" => s.incoming = 1,
                "in 2" => s.incoming = 2,
                "itself" => s.to_itself = 1,
                _ => {}
            }
            let of = LockEstimate::of_shape(s);
            assert!(of.swap >= *swap && of.swap <= 2 * swap, "{kind}, {version}, {leaves}: {of:?}");
            assert!(
                of.rollback >= *rollback && of.rollback <= 2 * rollback,
                "{kind}, {version}, {leaves}: {of:?}"
            );
        }
    }

    #[test]
    fn the_time_grows_with_keys_and_partitions() {
        let held =
            |leaves, incoming| LockEstimate::of_shape(Shape { incoming, ..shape(leaves, 150_000) }).held_ms;
        // Measured: 12, 72, 249, 1,409 and 2,300 to 2,760 ms.
        assert_eq!(
            [held(100, 0), held(100, 5), held(100, 20), held(300, 20), held(338, 28)],
            [17, 77, 257, 1_472, 2_522]
        );
    }

    #[test]
    fn the_setting_gives_twice_the_entries() {
        let table = LockTable { per_transaction: 64, sessions: 122 };
        assert_eq!(table.entries(), 7_808);
        assert_eq!(table.setting_for(13_284), 218);
    }
}
