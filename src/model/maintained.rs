//! The result of `maintain` for one table.

use std::fmt;

use serde::Serialize;

use super::number;

/// The result of `maintain` for one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Maintained {
    /// The job that created the table; none if pgstrata did not create it.
    pub job: Option<String>,
    /// The table.
    pub table: String,
    /// Partitions that were created.
    pub created: Vec<String>,
    /// Partitions that could not be created, because rows of the default partition belong in them.
    pub blocked: Vec<String>,
    /// The number of rows in the default partition.
    pub default_rows: u64,
    /// The ranges to which these rows belong.
    pub default_ranges: Vec<Stray>,
    /// Partitions that are older than the retention and still exist.
    pub expired: Vec<String>,
    /// Partitions that were detached and kept.
    pub detached: Vec<String>,
    /// Partitions that were dropped.
    pub dropped: Vec<String>,
    /// Whether the statistics of the whole table were updated.
    pub analyzed: bool,
    /// The upper bound of the last partition.
    pub until: String,
}

/// Rows of the default partition that belong to one range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stray {
    /// The lower bound of the range; none for rows that belong to no range: NULL, infinity, and times that the calendar
    /// library does not support.
    pub from: Option<String>,
    /// The upper bound, exclusive.
    pub to: Option<String>,
    /// The number of rows.
    pub rows: u64,
}

impl Maintained {
    /// Whether nothing was done and nothing needs attention.
    pub fn is_idle(&self) -> bool {
        let lists = [&self.created, &self.blocked, &self.expired, &self.detached, &self.dropped];
        lists.iter().all(|list| list.is_empty()) && self.default_rows == 0 && !self.analyzed
    }
}

impl fmt::Display for Maintained {
    /// Writes one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (list, what) in [
            (&self.created, "created"),
            (&self.blocked, "not created"),
            (&self.detached, "detached"),
            (&self.dropped, "dropped"),
            (&self.expired, "older than the retention"),
        ] {
            if !list.is_empty() {
                parts.push(format!("{} {what}", number::counted(list.len() as u64, "partition")));
            }
        }
        if self.default_rows > 0 {
            parts.push(format!("{} in the default partition", number::counted(self.default_rows, "row")));
        }
        if self.analyzed {
            parts.push("statistics updated".to_owned());
        }
        if parts.is_empty() {
            parts.push("nothing to do".to_owned());
        }
        write!(f, "{}: {}; partitions exist up to {}", self.table, parts.join(", "), self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_one_line() {
        let idle = Maintained {
            table: "public.t".to_owned(),
            until: "2025-01-01".to_owned(),
            ..Maintained::default()
        };
        assert!(idle.is_idle());
        insta::assert_snapshot!(idle, @"public.t: nothing to do; partitions exist up to 2025-01-01");
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let busy = Maintained {
            created: names(&["a", "b"]),
            blocked: names(&["c"]),
            dropped: names(&["d"]),
            expired: names(&["e"]),
            default_rows: 1234,
            analyzed: true,
            ..idle
        };
        assert!(!busy.is_idle());
        insta::assert_snapshot!(busy, @"public.t: 2 partitions created, 1 partition not created, 1 partition dropped, 1 partition older than the retention, 1,234 rows in the default partition, statistics updated; partitions exist up to 2025-01-01");
    }
}
