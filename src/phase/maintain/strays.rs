//! What lies in the default partition, and where it belongs: rows that came when their partition was not there yet.

use crate::error::{Error, Result};
use crate::model::maintained::{Maintained, Stray};
use crate::model::number;
use crate::model::partition::{Range, gaps};
use crate::sql::maintain as sql;

use super::layout::Layout;
use super::{Upkeep, buckets};

/// So many ranges are told one by one.
const TOLD: usize = 12;

impl Upkeep<'_> {
    /// Counts them by range, and says so; the ranges that rows belong in.
    pub(super) async fn strays(&self, layout: &Layout, done: &mut Maintained) -> Result<Vec<Range>> {
        let Some(default) = &layout.default else { return Ok(Vec::new()) };
        if !self.client.query_one(&sql::has_rows(default), &[]).await?.get::<_, bool>(0) {
            return Ok(Vec::new());
        }
        let row = self.client.query_one(&sql::strays(default, &layout.by, layout.is_time()), &[]).await?;
        let rows = |n: i64| u64::try_from(n).unwrap_or(0);
        done.default_rows = rows(row.get(0));
        let (least, largest): (Option<String>, Option<String>) = (row.get(2), row.get(3));
        let mut found = Vec::new();
        if let (Some(least), Some(largest)) = (least, largest) {
            let value = |text: &str| self.scheme.value(text).and_then(|value| self.scheme.containing(&value));
            let ends = value(&least).and_then(|first| Ok((first.from, value(&largest)?.to)));
            let (from, to) = ends.map_err(Error::failed)?;
            let ranges = gaps(&self.scheme, &layout.ranges(), from, &to).map_err(Error::failed)?;
            let bounds = ranges.iter().map(|range| range.from.to_string()).collect();
            let by_range =
                sql::strays_by_range(default, &layout.by, &layout.kind.to_string(), layout.is_time());
            for (number, count) in buckets(self.client, &by_range, bounds).await? {
                let Some(range) = usize::try_from(number - 1).ok().and_then(|at| ranges.get(at)) else {
                    continue;
                };
                done.default_ranges.push(Stray {
                    from: Some(range.from.to_string()),
                    to: Some(range.to.to_string()),
                    rows: rows(count),
                });
                found.push(range.clone());
            }
        }
        if row.get::<_, i64>(1) > 0 {
            done.default_ranges.push(Stray { from: None, to: None, rows: rows(row.get(1)) });
        }
        let where_to: Vec<String> = done.default_ranges.iter().map(said).collect();
        let more = match where_to.len().saturating_sub(TOLD) {
            0 => String::new(),
            n => format!("; and {} more", number::counted(n as u64, "range")),
        };
        let told = where_to[..where_to.len().min(TOLD)].join("; ");
        self.events.warn(format!(
            "{} in the default partition {}: {told}{more}",
            number::counted(done.default_rows, "row"),
            default.plain()
        ));
        Ok(found)
    }
}

fn said(stray: &Stray) -> String {
    let rows = number::count(stray.rows);
    match (&stray.from, &stray.to) {
        (Some(from), Some(to)) => format!("{rows} in [{from}, {to})"),
        _ => format!("{rows} in no range, NULL or infinity"),
    }
}
