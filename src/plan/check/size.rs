//! Reports the amount of work in rows and bytes, according to the statistics.

use super::{Report, Size};
use crate::model::blueprint::Blueprint;
use crate::model::number;
use crate::model::table::Table;

/// The size of one changed row in the change log, in bytes. Measured: 430 million rows were 25 GB.
const LOG_BYTES_PER_CHANGE: f64 = 60.0;
const DAY_S: f64 = 86_400.0;
/// An average over a shorter time does not predict the changes of a day.
const LEAST_OBSERVED_S: f64 = 3600.0;

pub(super) fn check(report: &mut Report, table: &Table, size: &Size) {
    let name = table.name.plain();
    let bytes = number::bytes(size.bytes.unsigned_abs());
    if size.analyzed {
        let rows = number::count(size.rows.unsigned_abs());
        let message = format!(
            "{name} has about {rows} rows, {bytes} with indexes; the job needs about the same amount of \
             disk space again"
        );
        report.note("size", &name, message);
    } else {
        report.warning(
            "no_statistics",
            &name,
            format!(
                "{name} has no statistics yet ({bytes} with indexes): progress and the order of the \
                copy are guesses"
            ),
            format!("analyze {name}"),
        );
    }
    let per_second = size.changes / size.observed_s.max(1.0);
    if size.observed_s >= LEAST_OBSERVED_S && per_second >= 0.01 {
        let a_day = number::bytes((per_second * LOG_BYTES_PER_CHANGE * DAY_S) as u64);
        let most = if size.since_known { "about" } else { "at most" };
        let message = format!(
            "{most} {per_second:.2} changed rows per second on average: the change log grows by {most} \
             {a_day} per day until it is drained"
        );
        report.note("change_rate", &name, message);
    }
}

/// The maximum number of columns of a table, including dropped columns.
const MOST_COLUMNS: usize = 1_600;

/// Checks that the job can add `more` columns to the table.
pub(super) fn room_for_columns(report: &mut Report, table: &Table, size: &Size, more: usize) {
    let have = usize::try_from(size.attributes).unwrap_or(0);
    if more == 0 || have + more <= MOST_COLUMNS {
        return;
    }
    let name = table.name.plain();
    let dropped = have.saturating_sub(table.columns.len());
    let dropped = if dropped == 0 {
        String::new()
    } else {
        format!(", {} of them dropped", number::count(dropped as u64))
    };
    report.error(
        "too_many_columns",
        &name,
        format!(
            "{name} has {} columns{dropped}, and the job adds {more}: a table can have at most 1,600",
            number::count(have as u64)
        ),
        "add the columns to a separate table; dropped columns count toward the limit until the table is \
         created anew",
    );
}

/// Reports the partitions that the job will create.
pub(super) fn partitions(report: &mut Report, b: &Blueprint) {
    let (Some(first), Some(last)) = (b.partitions.first(), b.partitions.last()) else { return };
    let default = if b.default.is_some() { " and a default partition" } else { "" };
    let message = format!(
        "{} from {} to {}{default}",
        number::counted(b.partitions.len() as u64, "partition"),
        first.from,
        last.to
    );
    report.note("partitions", b.table.name.plain(), message);
}
