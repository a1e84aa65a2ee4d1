//! Every statement of a run, in order, phase by phase, for `pgstrata sql`.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::filling::Filling;
use crate::model::ident::QualifiedName;
use crate::model::key::KeyRange;
use crate::model::key_table::KeyTable;
use crate::model::retyping::Retyping;
use crate::model::table::Index;
use crate::plan::RowComparison;

use super::drain::Batch;
use super::finalize::Leaving;
use super::mirror::Mirrored;
use super::retype::{self, exchange};
use super::section::{Section, section};
use super::{
    capture, copy, drain, fill, finalize, finish, foreign_key, index, key_table, mirror, not_null, prepare,
    swap, verify,
};

/// The statements of a partition job. Repeated statements are included once, with their parameters as `$n`.
pub fn script(b: &Blueprint, physical: bool, rows: RowComparison) -> Vec<Section> {
    let leaves: Vec<QualifiedName> =
        b.partitions.iter().map(|p| p.name.clone()).chain(b.default.clone()).collect();
    let mut all = before_the_swap(b, physical, rows, &leaves);
    all.push(section(
        "swap: create the function that exchanges the tables; one message, from BEGIN to COMMIT, then calls it",
        exchange(b, Direction::Forward, &leaves),
    ));
    all.extend(after_the_swap(b, &leaves));
    all
}

/// The number of sections before that of the capture.
const CAPTURE: usize = 2;
/// The number of sections before those of the key tables, without those for a nullable partition column.
const KEY_TABLES: usize = 7;

fn before_the_swap(
    b: &Blueprint,
    physical: bool,
    rows: RowComparison,
    leaves: &[QualifiedName],
) -> Vec<Section> {
    let forward = Direction::Forward;
    let sides = b.sides(forward);
    let key = b.key_columns();
    let middle = KeyRange {
        after: Some(vec![String::new(); key.len()]),
        through: Some(vec![String::new(); key.len()]),
    };
    let mut all = vec![
        section("prepare: create the partitioned table (one transaction)", prepare::target(b)),
        section("prepare: create the partitions (one transaction each)", partitions(b)),
        section(
            "capture: create the change log and its triggers (one transaction, short lock_timeout, retried)",
            captured(b),
        ),
        section(
            "copy: one chunk (one transaction, which also records the chunk; repeated)",
            chunk(b, physical, &middle),
        ),
        section(
            "scrub: for each partition with changes in the change log (one transaction each)",
            leaves.iter().take(1).map(|leaf| drain::scrub(b, leaf)).collect(),
        ),
        section("index: for each partition (one transaction per statement)", leaf_indexes(b, leaves)),
        section("index: the partitioned table (short lock_timeout)", parent_indexes(b, leaves)),
        section("analyze: the partitioned table (one transaction)", index::analyze(b)),
        section(
            "analyze: each partition (outside a transaction)",
            leaves.iter().map(index::vacuum).collect(),
        ),
        section("drain: one batch (one REPEATABLE READ transaction; repeated)", batch(b, forward)),
        section(
            "verify: one range (one REPEATABLE READ transaction; repeated; if the checksums differ, rows \
             with pending changes are excluded; if they still differ, rows are compared one by one)",
            vec![
                copy::lock_against_truncate(&sides),
                verify::summary(b, forward, &key, &middle, rows).0,
                drain::SETTINGS.to_owned(),
                verify::pending(b, forward, &key, &middle, rows).0,
                verify::differences(b, forward, &key, &middle, rows, 100).0,
            ],
        ),
        section(
            "swap: switch on the mirror for at most one minute, if the change log does not become empty \
             (one transaction)",
            mirrored(b, forward),
        ),
        section(
            "swap: drain while the mirror is on (one REPEATABLE READ transaction; repeated)",
            mirror::drain(b, forward),
        ),
    ];
    let nulls = nulls(b, &middle);
    let key_tables = KEY_TABLES + nulls.len();
    all.splice(CAPTURE..CAPTURE, nulls);
    for k in &b.key_tables {
        let name = k.name.plain();
        all.insert(
            key_tables,
            section(&format!("index: key table {name} (one transaction to create it, one for each partition, one for its constraint)"), key_table(b, k, leaves)),
        );
        let compared = vec![key_table::compare(k, &b.target())];
        all.push(section(&format!("verify: key table {name} (one transaction)"), compared));
    }
    all
}

/// What fills rows with NULL in the partition column, and keeps NULL out of it.
fn nulls(b: &Blueprint, middle: &KeyRange) -> Vec<Section> {
    let Some(name) = b.not_null_check() else { return Vec::new() };
    let (f, mut all) = (Filling::of_nulls(b), Vec::new());
    if f.keep_filled {
        let title = "capture: create the trigger that fills rows written with NULL in the partition column (one transaction, \
             short lock_timeout, retried)";
        all.push(section(title, fill::keep_filled(&f)));
        all.extend(filled(&f, middle));
    }
    let title = "capture: keep NULL out of the partition column and the key (added in one transaction with a short lock_timeout, \
         retried; validated in another)";
    all.push(section(title, vec![not_null::add(b, &name), finish::validate(&b.table.name, &name)]));
    all
}

fn after_the_swap(b: &Blueprint, leaves: &[QualifiedName]) -> Vec<Section> {
    let (forward, reverse) = (Direction::Forward, Direction::Reverse);
    vec![
        section(
            "after the swap: validate foreign keys (one transaction each)",
            validate_foreign_keys(b, forward, leaves),
        ),
        section("rollback: create the function for the reverse direction", exchange(b, reverse, leaves)),
        section(
            "after the rollback: validate foreign keys (one transaction each)",
            validate_foreign_keys(b, reverse, leaves),
        ),
        section("finalize (one transaction)", finalize::end(&Leaving::planned(b, reverse, leaves))),
        section(
            "abort: before the swap, or after a rollback (one transaction)",
            finalize::end(&Leaving::planned(b, forward, &[])),
        ),
    ]
}

/// The title of the section for a chunk that is filled.
const CHUNK: &str =
    "fill: one chunk (one transaction, which also records the chunk; repeated, for each partition)";

/// The statements of a backfill.
pub fn backfill(f: &Filling) -> Vec<Section> {
    if f.only_finishes() {
        return finish::sections(f);
    }
    let key = f.key_columns();
    let middle = KeyRange {
        after: Some(vec![String::new(); key.len()]),
        through: Some(vec![String::new(); key.len()]),
    };
    let leaf = &f.table.name;
    let mut columns = vec![fill::names(f)];
    columns.extend(f.missing().flat_map(|column| fill::add_column(f, column)));
    let mut all =
        vec![section("prepare: add the columns (one transaction, short lock_timeout, retried)", columns)];
    if f.keep_filled {
        let title = "capture: create the trigger that fills rows written during the job (one transaction, short \
             lock_timeout, retried)";
        all.push(section(title, fill::keep_filled(f)));
    }
    all.extend(filled(f, &middle));
    let one = vec![String::new(); key.len()];
    all.push(section(
        "verify: one range, and each of its rows that still matches (one transaction each)",
        vec![fill::to_fill(f, leaf, &middle, 1_000).0, fill::batch(f, leaf, fill::Rows::One(&one)).0],
    ));
    all.extend(finish::sections(f));
    let last = if f.keep_filled && !f.stays { fill::stop_filling(f) } else { Vec::new() };
    all.push(section("finish: end the job (one transaction)", last));
    all
}

/// The statements of a column type change.
pub fn retype(r: &Retyping) -> Vec<Section> {
    let f = r.filling();
    let middle = KeyRange {
        after: Some(vec![String::new(); r.key.len()]),
        through: Some(vec![String::new(); r.key.len()]),
    };
    let build_missing = |direction: Direction| {
        let mut all = Vec::new();
        for one in &r.indexes {
            all.extend(one.index.tablespace.is_some().then(|| retype::tablespace(one)));
            let path = retype::operators(r);
            all.extend(path.iter().map(|[set, _]| set.clone()));
            all.push(retype::build(r, one, direction));
            all.extend(path.into_iter().map(|[_, restore]| restore));
            all.extend(retype::set_properties(r, one, direction));
        }
        let checks = r.checks.iter().map(|one| (retype::add_check(r, one, direction), one.validated));
        for ((name, add), valid) in checks.chain(retype::add_proof(r, direction).map(|proof| (proof, true))) {
            all.push(add);
            all.extend(valid.then(|| retype::validate(&r.table.name, &name)));
        }
        all
    };
    let exchange = |ending: Direction| exchange::exchange(r, ending).create();
    let validated =
        r.keys.iter().filter(|key| key.validated).map(|key| foreign_key::validate(&key.table, key));
    let compared = |direction| retype::compare(r, direction, &middle).0;
    let (forward, reverse) = (Direction::Forward, Direction::Reverse);
    let mut all = vec![
        section(
            "prepare: add the column (one transaction, short lock_timeout, retried)",
            retype::add_column(r),
        ),
        section(
            "capture: create the trigger that keeps both columns in sync (one transaction, short lock_timeout, \
             retried)",
            retype::create_sync_trigger(r),
        ),
    ];
    all.extend(filled(&f, &middle));
    all.extend([
        section(
            "index: indexes and constraints of the new column (outside a transaction; constraints are \
            added with a short lock_timeout)",
            build_missing(forward),
        ),
        section("verify: one range", vec![compared(forward)]),
        section(
            "swap: create the function that exchanges the columns; one message, from BEGIN to COMMIT, then calls it",
            exchange(forward),
        ),
        section("after the swap or the rollback: validate foreign keys", validated.collect()),
        section("rollback: check that every row can be converted back, one range", vec![compared(reverse)]),
        section("rollback: indexes and constraints of the old column", build_missing(reverse)),
        section("rollback: create the function for the reverse direction", exchange(reverse)),
        section("finalize (one transaction, short lock_timeout, retried)", retype::remove(r, reverse)),
        section("abort (one transaction, short lock_timeout, retried)", retype::remove(r, forward)),
    ]);
    all
}

/// The first pass of a backfill or of a column type change.
fn filled(f: &Filling, middle: &KeyRange) -> Vec<Section> {
    let (leaf, key) = (&f.table.name, f.key_columns());
    let mut all = vec![section(
        "fill: find the end of a chunk (repeated, for each partition)",
        vec![copy::boundary(&format!("only {leaf}"), &key, middle, 10_000).0],
    )];
    let begun = [fill::names(f), fill::OWN_WRITES.to_owned(), fill::WAIT_BRIEFLY.to_owned()];
    let plain = fill::plain(f, leaf, middle).map(|(statement, _)| statement);
    let round = if plain.is_some() {
        "fill: the same chunk, if other transactions lock some of its rows"
    } else {
        CHUNK
    };
    if let Some(plain) = plain {
        all.push(section(CHUNK, [&begun[..], &[fill::END_EARLY.to_owned(), plain]].concat()));
    }
    let batch = fill::batch(f, leaf, fill::Rows::Free(middle)).0;
    all.push(section(round, [&begun[..], &[batch]].concat()));
    all
}

fn partitions(b: &Blueprint) -> Vec<String> {
    let mut all: Vec<String> = b.partitions.iter().flat_map(|p| prepare::partition(b, p)).collect();
    all.extend(b.default.iter().flat_map(|name| prepare::default_partition(b, name)));
    all
}

fn captured(b: &Blueprint) -> Vec<String> {
    let mut all = capture::create_log(b);
    all.extend(capture::create_function(b));
    all.extend(capture::source_triggers(b, Direction::Forward));
    all
}

fn chunk(b: &Blueprint, physical: bool, middle: &KeyRange) -> Vec<String> {
    let sides = b.sides(Direction::Forward);
    if physical {
        return vec![copy::lock_against_truncate(&sides), copy::physical_chunk(b)];
    }
    let key = b.key_columns();
    vec![
        copy::boundary(&super::from_source(&sides), &key, middle, 10_000).0,
        copy::lock_against_truncate(&sides),
        copy::keyset_chunk(b, middle).0,
    ]
}

fn leaf_indexes(b: &Blueprint, leaves: &[QualifiedName]) -> Vec<String> {
    let by_leaf = || b.carried_indexes().into_iter().filter(index::by_leaf);
    leaves
        .iter()
        .flat_map(|leaf| {
            let mut all: Vec<String> = by_leaf().flat_map(|i| index::on_leaf(b, &i, leaf)).collect();
            let constraint = |i: Index| index::leaf_constraint(b, &i, leaf).map(|(_, statement)| statement);
            all.extend(b.carried_indexes().into_iter().filter_map(constraint));
            all.extend(index::leaf_marks(b, leaf));
            all.extend(capture::create_truncate_trigger(b, leaf));
            all
        })
        .collect()
}

fn parent_indexes(b: &Blueprint, leaves: &[QualifiedName]) -> Vec<String> {
    let mut all = index::late_checks(b);
    for i in b.carried_indexes() {
        all.extend(index::on_parent(b, &i));
        all.extend(leaves.iter().filter(|_| index::by_leaf(&i)).map(|leaf| index::attach(b, &i, leaf)));
    }
    all.extend(index::replica_identity(b, &b.target(), |index| index.with_suffix("_new")));
    all
}

fn key_table(b: &Blueprint, k: &KeyTable, leaves: &[QualifiedName]) -> Vec<String> {
    let filled = leaves.iter().flat_map(|leaf| key_table::fill(b, k, leaf));
    let complete = key_table::complete(b, k, leaves).into_iter().chain([key_table::vacuum(k)]);
    key_table::create(b, k).into_iter().chain(filled).chain(complete).collect()
}

fn batch(b: &Blueprint, direction: Direction) -> Vec<String> {
    let mut all = vec![
        copy::lock_against_truncate(&b.sides(direction)),
        drain::SETTINGS.to_owned(),
        drain::truncated(b),
    ];
    all.extend(drained(b, direction, Batch::Blocks));
    all
}

fn drained(b: &Blueprint, direction: Direction, batch: Batch) -> Vec<String> {
    let mut all = drain::clear(b, direction, batch);
    all.extend(drain::fill(b, direction, batch));
    all.push(drain::forget(b, batch));
    all
}

fn exchange(b: &Blueprint, ending: Direction, leaves: &[QualifiedName]) -> Vec<String> {
    let mut all = swap::guard_function(b);
    let removed = not_null::removed(b, ending);
    all.extend(swap::exchange(b, ending, leaves, swap::Guard::Serializable, removed).create());
    all
}

/// Switches the mirror on for the keys of the target. The oids and files of the source's heaps are only read at run
/// time.
fn mirrored(b: &Blueprint, direction: Direction) -> Vec<String> {
    let deferrable = b.carried_indexes().into_iter().filter(|index| !index.deferrable.is_empty());
    let waiting = |index: Index| b.table.name.sibling(index.name.with_suffix("_new"));
    let deferrable: Vec<QualifiedName> = deferrable.map(waiting).collect();
    mirror::on(b, direction, &Mirrored { heaps: &[], deferrable: &deferrable, until: "-infinity" })
}

fn validate_foreign_keys(b: &Blueprint, ending: Direction, leaves: &[QualifiedName]) -> Vec<String> {
    let plain = [b.table.name.clone()];
    let tables = if ending == Direction::Forward { leaves } else { &plain };
    let own = b.own_keys().into_iter().filter(|key| key.validated).flat_map(|key| {
        let mut all: Vec<String> = tables.iter().map(|t| foreign_key::validate(t, key)).collect();
        if ending == Direction::Forward {
            all.extend(foreign_key::on_parent(b, key));
        }
        all
    });
    let back = b.incoming_dropped.iter().filter(|_| ending == Direction::Reverse);
    let others = b.child_keys().into_iter().chain(back).filter(|key| key.validated);
    own.chain(others.map(|key| foreign_key::validate(&key.table, key))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blueprint::{Partition, tests::blueprint};
    use crate::model::ident::Ident;
    use crate::sql::drain::Batch;

    fn text(sections: &[Section]) -> String {
        sections
            .iter()
            .map(|s| {
                format!(
                    "-- {}\n{}\n",
                    s.title,
                    s.statements.iter().map(|s| format!("{s};\n")).collect::<String>()
                )
            })
            .collect()
    }

    /// All statements of a partition job, as a DBA reviews them.
    #[test]
    fn a_whole_run() {
        insta::assert_snapshot!("run_keyset", text(&script(&blueprint(), false, RowComparison::Hash)));
    }

    /// A key that contains the partition column, names that need quotes, and a copy by block.
    #[test]
    fn a_composite_key_by_block() {
        let mut b = blueprint();
        b.job = "it's \"odd\"".into();
        b.table.name = QualifiedName::new("Lab \"A\"", "x; drop table y;--");
        b.key = vec![Ident::new("note"), Ident::new("created_at")];
        b.table.columns[3].collation = Some("public.\"any case\"".into());
        b.table.columns[3].deterministic = false;
        insta::assert_snapshot!("run_physical", text(&script(&b, true, RowComparison::Count)));
    }

    /// All statements of a column type change, as a DBA reviews them.
    #[test]
    fn a_whole_retype() {
        insta::assert_snapshot!("retype_identity", text(&retype(&crate::model::retyping::tests::retyping())));
    }

    /// The sequence of a serial column, a nullable column with expressions in the plan, and names that need quotes.
    #[test]
    fn a_retype_of_odd_names() {
        let mut r = crate::model::retyping::tests::retyping();
        let name = Ident::new("a \"b\"");
        r.table.columns[0].name = name.clone();
        r.column = crate::model::table::Column {
            name: name.clone(),
            identity: String::new(),
            default: Some("nextval('public.orders_id_seq'::regclass)".into()),
            not_null: false,
            statistics: Some(500),
            ..r.column
        };
        r.key = vec![name];
        r.job = "it's \"odd\"".into();
        r.using = "t.x -- the old one".into();
        r.sql.names_others = true;
        r.sql.lookup = vec![Ident::new("App")];
        r.comparable = false;
        insta::assert_snapshot!("retype_serial", text(&retype(&r)));
    }

    /// The drain after the swap: the same statements in the other direction.
    #[test]
    fn the_reverse_drain() {
        let b = blueprint();
        let mut all = drain::clear(&b, Direction::Reverse, Batch::All);
        all.extend(drain::fill(&b, Direction::Reverse, Batch::All));
        all.extend([
            drain::empty_leaf(&b, Direction::Reverse, "(created_at >= '2024-01-01')"),
            drain::outside(&b).unwrap(),
            drain::scrubbed_leaves(&b).unwrap(),
            drain::pending(&b),
            verify::occurrences(&b, &b.sides(Direction::Reverse)),
            copy::largest(&b.sides(Direction::Forward), &b.key_columns()),
        ]);
        insta::assert_snapshot!("reverse_drain", all.join(";\n"));
    }

    /// With many partitions, the statements are split into slices of the partitioned side.
    #[test]
    fn a_drain_over_many_partitions() {
        let mut b = blueprint();
        let year = |n: usize| format!("{}-01-01 00:00:00+00", 2000 + n);
        b.partitions = (0..80)
            .map(|n| Partition {
                name: QualifiedName::new("public", format!("petri_observations_{n}")),
                from: year(n),
                to: year(n + 1),
            })
            .collect();
        assert_eq!(drain::fill(&b, Direction::Forward, Batch::All).len(), 1);
        assert_eq!(drain::clear(&b, Direction::Reverse, Batch::All).len(), 1);
        let mut all = drain::clear(&b, Direction::Forward, Batch::Blocks);
        all.extend(drain::fill(&b, Direction::Reverse, Batch::All));
        insta::assert_snapshot!("drain_in_slices", all.join(";\n"));
    }
}
