//! Finds rows in the default partition, and the ranges to which they belong: the rows were written before their
//! partition existed.

use crate::error::Result;
use crate::event::RunWarning;
use crate::model::ident::QualifiedName;
use crate::model::maintained::{Maintained, Stray};
use crate::model::partition::{Bound, Range, gaps};
use crate::sql::maintain as sql;
use tokio_postgres::Client;

use super::Maintenance;
use super::layout::Layout;

impl Maintenance<'_> {
    /// Counts the rows in the default partition by range and reports them; returns the ranges to which they belong.
    pub(super) async fn strays(&self, layout: &Layout, done: &mut Maintained) -> Result<Vec<Range>> {
        let Some(default) = &layout.default else { return Ok(Vec::new()) };
        if !self.has_rows(default).await? {
            return Ok(Vec::new());
        }
        let statement = sql::strays(default, &layout.by, layout.is_time());
        let read = async |client: &Client| Ok(client.query_one(&statement, &[]).await?);
        let row = self.reading(default, read).await?;
        done.default_rows = rows(row.get(0));
        let outside = rows(row.get(1));
        let mut found = Vec::new();
        if let Some((from, to)) = self.ends(row.get(2), row.get(3)) {
            match gaps(&self.scheme, &layout.ranges(), from.clone(), &to) {
                Ok(ranges) => found = self.by_range(layout, default, ranges, done).await?,
                // There are too many ranges, for example because of a row with the year 9999. That must not prevent new
                // partitions: if such a row is in the range of one, attaching it fails.
                Err(_) => done.default_ranges.push(Stray {
                    from: Some(from.to_string()),
                    to: Some(to.to_string()),
                    rows: done.default_rows - outside,
                }),
            }
        }
        let in_ranges: u64 = done.default_ranges.iter().map(|stray| stray.rows).sum();
        if in_ranges < done.default_rows {
            done.default_ranges.push(Stray { from: None, to: None, rows: done.default_rows - in_ranges });
        }
        self.events.warn(RunWarning::RowsInDefaultPartition {
            partition: default.plain(),
            rows: done.default_rows,
            ranges: done.default_ranges.clone(),
        });
        Ok(found)
    }

    /// The lower bound of the range of the smallest value and the upper bound of the range of the largest; none if
    /// there is no such range.
    fn ends(&self, least: Option<String>, largest: Option<String>) -> Option<(Bound, Bound)> {
        let range = |text: Option<String>| {
            let value = self.scheme.value(&text?).ok()?;
            self.scheme.containing(&value).ok()
        };
        Some((range(least)?.from, range(largest)?.to))
    }

    /// Returns the ranges in `ranges` to which rows of the default partition belong.
    async fn by_range(
        &self,
        layout: &Layout,
        default: &QualifiedName,
        ranges: Vec<Range>,
        done: &mut Maintained,
    ) -> Result<Vec<Range>> {
        let bounds: Vec<String> = ranges.iter().map(|range| range.from.to_string()).collect();
        let statement = sql::strays_by_range(default, &layout.by, &layout.kind.to_string(), layout.is_time());
        let mut found = Vec::new();
        let read = async |client: &Client| Ok(client.query(&statement, &[&bounds]).await?);
        for row in self.reading(default, read).await? {
            let (number, count): (i32, i64) = (row.get(0), row.get(1));
            let Some(range) = usize::try_from(number - 1).ok().and_then(|at| ranges.get(at)) else {
                continue;
            };
            let (from, to) = (Some(range.from.to_string()), Some(range.to.to_string()));
            done.default_ranges.push(Stray { from, to, rows: rows(count) });
            found.push(range.clone());
        }
        Ok(found)
    }
}

fn rows(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
