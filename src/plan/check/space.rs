//! Estimates the disk space for filling: every update writes a new row version, and the dead one remains until a
//! vacuum.

use super::Report;
use super::writing::{LeafFacts, Writing};
use crate::model::filling::Filling;
use crate::model::finding::Finding;
use crate::model::ident::{Ident, plain_list};
use crate::model::number;
use crate::plan::Plan;

/// If live rows fill less than this share of the pages, the pages have space for new row versions.
const FULL: f64 = 0.9;

/// Reports the growth of the table, and problems with vacuum. `rows_to_fill` is an estimate from the statistics.
pub fn space(plan: &Plan, f: &Filling, writing: &Writing, rows_to_fill: Option<f64>) -> Vec<Finding> {
    let mut report = Report::default();
    let hot = indexed(&mut report, f, writing);
    growth(&mut report, f, writing, rows_to_fill, hot);
    vacuum(&mut report, plan, writing);
    report.0
}

/// Reports indexes on columns that the plan sets. Returns whether there are none.
fn indexed(report: &mut Report, f: &Filling, writing: &Writing) -> bool {
    let set: Vec<&Ident> = f.set.iter().map(|(name, _)| name).collect();
    let affected: Vec<&Ident> = writing
        .indexes
        .iter()
        .filter(|index| index.columns.iter().any(|column| set.contains(&column)))
        .map(|index| &index.name)
        .collect();
    if affected.is_empty() {
        return true;
    }
    let all = match writing.indexes.len() {
        1 => String::new(),
        n => format!(" of {n}"),
    };
    let (many, is) = if affected.len() == 1 { ("index", "is") } else { ("indexes", "are") };
    report.warning(
        "index_on_set_column",
        f.table.name.plain(),
        format!(
            "{many} {} {is} on columns that the plan sets: no update can be HOT, and each filled row adds \
             an entry to every index{all}",
            plain_list(affected.iter().copied())
        ),
        "drop indexes that are not needed during the run, and list them under finish: index = [...]",
    );
    false
}

/// Reports the maximum growth of the table.
fn growth(report: &mut Report, f: &Filling, writing: &Writing, rows_to_fill: Option<f64>, hot: bool) {
    let name = f.table.name.plain();
    let sum = |of: fn(&LeafFacts) -> f64| writing.leaves.iter().map(of).sum::<f64>();
    let (rows, heap, indexes) = (sum(|l| l.rows.max(0.0)), sum(|l| l.heap_bytes), sum(|l| l.index_bytes));
    if !writing.leaves.is_empty() && writing.leaves.iter().all(|leaf| leaf.rows < 0.0) {
        report.warning(
            "no_statistics",
            &name,
            format!(
                "{name} has no statistics yet: the number of rows to fill and the growth of the table \
                are unknown"
            ),
            format!("analyze {name}"),
        );
        return;
    }
    if rows < 1.0 {
        return;
    }
    let rows_to_fill = rows_to_fill.unwrap_or(rows).clamp(1.0, rows);
    let share = rows_to_fill / rows;
    let room = sum(|l| l.live_bytes.unwrap_or(l.heap_bytes)) < FULL * heap;
    let indexes_unchanged = hot && room;
    let mut message = format!(
        "about {} of {} to fill, according to the statistics: {name} grows by up to {}",
        number::count(rows_to_fill.round() as u64),
        number::counted(rows.round() as u64, "row"),
        number::bytes((share * heap) as u64)
    );
    if indexes > 0.0 && !indexes_unchanged {
        message += &format!(", its indexes by up to {}", number::bytes((share * indexes) as u64));
    }
    message += ", or less if a vacuum runs in between; check the free disk space, which pgstrata cannot \
        see";
    if hot && !room && writing.leaves.iter().any(|leaf| leaf.fillfactor > 90) {
        message += &format!(
            "; its pages are full, so even updates that could be HOT write to all indexes: if you plan \
             more such updates, alter table {name} set (fillfactor = 90), which applies to pages written \
             from then on"
        );
    }
    report.note("growth", &name, message);
}

/// Warns if no vacuum removes dead rows, or if it starts only after dead rows throttle the job.
fn vacuum(report: &mut Report, plan: &Plan, writing: &Writing) {
    let names = |of: &dyn Fn(&LeafFacts) -> bool| {
        let some: Vec<String> =
            writing.leaves.iter().filter(|leaf| of(leaf)).map(|leaf| leaf.name.plain()).collect();
        match some.len() {
            0..=3 => some.join(", "),
            n => format!("{} and {} more", some[..2].join(", "), n - 2),
        }
    };
    let off = names(&|leaf| !leaf.autovacuum);
    if !writing.autovacuum {
        report.warning(
            "autovacuum_off",
            "autovacuum",
            "autovacuum is off on this server: nothing removes the dead rows that the backfill leaves \
             behind"
                .to_owned(),
            "alter system set autovacuum = on; alter system set track_counts = on; select pg_reload_conf()",
        );
    } else if !off.is_empty() {
        report.warning(
            "autovacuum_off",
            &off,
            format!(
                "autovacuum is off for {off}: nothing removes the dead rows that the backfill leaves \
                behind"
            ),
            format!(
                "alter table {} reset (autovacuum_enabled), or vacuum it while the job runs",
                first(&off)
            ),
        );
    }
    let Some(limit) = plan.dead_limit().filter(|limit| limit.share < 1.0) else { return };
    let late = |leaf: &LeafFacts| {
        let dead = limit.share / (1.0 - limit.share) * leaf.rows;
        leaf.autovacuum && dead >= limit.least as f64 && leaf.vacuum_at > dead
    };
    let late = names(&late);
    if writing.autovacuum && !late.is_empty() {
        report.warning(
            "vacuum_after_hold",
            &late,
            format!(
                "autovacuum of {late} starts only at more dead rows than the job allows (max_dead_share \
                 {:.2}): the job would be throttled and wait for a vacuum that never starts",
                limit.share
            ),
            format!("alter table {} set (autovacuum_vacuum_scale_factor = 0.1)", first(&late)),
        );
    }
}

fn first(names: &str) -> &str {
    names.split(", ").next().unwrap_or(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ident::QualifiedName;

    #[test]
    fn a_vacuum_that_starts_too_late() {
        let plan = |more: &str| {
            let text = format!("kind = 'backfill'\ntable = 't'\n[backfill]\nset = {{ a = '1' }}\n{more}");
            Plan::parse(&text, "p.toml").unwrap()
        };
        let text = |plan: &Plan, leaf: LeafFacts, autovacuum: bool| {
            let mut report = Report::default();
            vacuum(&mut report, plan, &Writing { leaves: vec![leaf], autovacuum, ..Writing::default() });
            report.0.iter().map(|f| format!("{}: {}\n{}\n", f.code, f.message, f.hint)).collect::<String>()
        };
        let leaf = |vacuum_at: f64| LeafFacts {
            name: QualifiedName::new("public", "t"),
            rows: 1e7,
            heap_bytes: 1e9,
            index_bytes: 1e8,
            live_bytes: None,
            fillfactor: 100,
            autovacuum: true,
            vacuum_at,
        };
        assert_eq!(text(&plan(""), leaf(2e6), true), "");
        insta::assert_snapshot!(text(&plan(""), leaf(7e6), true), @"
        vacuum_after_hold: autovacuum of public.t starts only at more dead rows than the job allows (max_dead_share 0.40): the job would be throttled and wait for a vacuum that never starts
        alter table public.t set (autovacuum_vacuum_scale_factor = 0.1)
        ");
        assert_eq!(text(&plan("[throttle]\nmax_dead_share = 'off'"), leaf(7e6), true), "");
        insta::assert_snapshot!(text(&plan(""), leaf(7e6), false), @"
        autovacuum_off: autovacuum is off on this server: nothing removes the dead rows that the backfill leaves behind
        alter system set autovacuum = on; alter system set track_counts = on; select pg_reload_conf()
        ");
        insta::assert_snapshot!(text(&plan(""), LeafFacts { autovacuum: false, ..leaf(2e6) }, true), @"
        autovacuum_off: autovacuum is off for public.t: nothing removes the dead rows that the backfill leaves behind
        alter table public.t reset (autovacuum_enabled), or vacuum it while the job runs
        ");
    }
}
