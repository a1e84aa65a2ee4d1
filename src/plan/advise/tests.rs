//! The order of the choices, and what is said about each.

use proptest::prelude::*;

use super::*;
use crate::model::ident::QualifiedName;
use crate::model::table::{ForeignKey, Index};
use crate::plan::check::Values;
use crate::plan::check::tests::{facts as fixture, unique_facts};

fn found(facts: &mut Facts) -> &mut Found {
    match &mut facts.relation {
        Relation::There(found) => found,
        Relation::Unread | Relation::Missing { .. } => panic!("there is a table"),
    }
}

fn column(name: &str, base_type: &str, not_null: bool, default: Option<&str>) -> Column {
    Column {
        name: Ident::new(name),
        sql_type: base_type.to_owned(),
        base_type: base_type.to_owned(),
        collation: None,
        deterministic: true,
        hashable: true,
        not_null,
        generated: String::new(),
        identity: String::new(),
        default: default.map(str::to_owned),
        statistics: None,
        options: Vec::new(),
        looks: None,
    }
}

fn unique(name: &str, columns: &[&str], primary: bool) -> Index {
    Index {
        name: Ident::new(name),
        tail: format!("btree ({})", columns.join(", ")),
        unique: true,
        constraint: if primary { "p" } else { "u" }.to_owned(),
        exclusion: None,
        equated: Vec::new(),
        deferrable: String::new(),
        valid: true,
        columns: Some(columns.iter().map(|name| Ident::new(*name)).collect()),
        include: Vec::new(),
        partial: false,
        plain_order: true,
        nulls_not_distinct: false,
        options: Vec::new(),
        comment: None,
        statistics: Vec::new(),
        clustered: false,
        tablespace: None,
    }
}

fn foreign_key(name: &str, index: &str) -> ForeignKey {
    ForeignKey {
        name: Ident::new(name),
        table: QualifiedName::new("public", format!("{name}_table")),
        references: QualifiedName::new("public", "petri_observations"),
        definition: String::new(),
        validated: true,
        comment: None,
        index: Some(Ident::new(index)),
        from_partitioned: false,
        to_unlogged: false,
    }
}

/// A table of these columns and constraints only.
fn table(columns: Vec<Column>, indexes: Vec<Index>, referenced_by: Vec<ForeignKey>) -> Facts {
    let mut facts = fixture();
    let table = &mut found(&mut facts).table;
    (table.columns, table.indexes, table.referenced_by) = (columns, indexes, referenced_by);
    (table.dependents, table.foreign_keys, table.sequences) = Default::default();
    (table.checks, table.views, table.triggers, table.policies, table.grants) = Default::default();
    let keys = unique_facts(table);
    found(&mut facts).keys = keys;
    facts
}

fn time(name: &str) -> ColumnProfile {
    let values = Values {
        by_index: true,
        oldest: Some("2024-01-15 00:00:00+00".into()),
        newest: Some("2024-06-30 12:00:00+00".into()),
        now: Some("2024-08-09 10:11:12+00".into()),
        ..Values::default()
    };
    ColumnProfile { name: name.to_owned(), values: Some(values), indexed: true, ..ColumnProfile::default() }
}

fn number(name: &str, oldest: i64, newest: i64, correlation: f64) -> ColumnProfile {
    let values = Values {
        by_index: true,
        oldest: Some(oldest.to_string()),
        newest: Some(newest.to_string()),
        ..Values::default()
    };
    let (values, correlation) = (Some(values), Some(correlation));
    ColumnProfile { name: name.to_owned(), values, correlation, indexed: true, ..ColumnProfile::default() }
}

const SERIAL: Option<&str> = Some("nextval('s'::regclass)");

fn codes(points: &[Point]) -> Vec<&str> {
    points.iter().map(|point| point.code).collect()
}

fn columns(advice: &Advice) -> Vec<&str> {
    advice.choices.iter().map(|choice| choice.column.as_str()).collect()
}

fn events() -> Facts {
    let mut facts = table(
        vec![
            column("id", "bigint", true, SERIAL),
            column("token", "text", true, None),
            column("created_at", "timestamp with time zone", true, Some("now()")),
        ],
        vec![unique("events_pkey", &["id"], true), unique("events_token_key", &["token"], false)],
        vec![foreign_key("a", "events_pkey"), foreign_key("b", "events_token_key")],
    );
    found(&mut facts).size.rows = 30_000_000;
    facts
}

#[test]
fn the_key_is_best_where_it_keeps_more() {
    let advice = advise(&events(), &[number("id", 1, 30_000_000, 1.0), time("created_at")], None);
    assert_eq!(columns(&advice), ["id", "created_at"]);
    let [id, created_at] = advice.choices.as_slice() else { panic!("two choices") };
    assert_eq!(
        (codes(&id.keeps), codes(&id.gives_up)),
        (vec!["key", "unique", "foreign_key", "foreign_key"], vec![])
    );
    assert_eq!(codes(&created_at.gives_up), [""; 0]);
    assert_eq!(
        (codes(&id.reasons), codes(&id.costs)),
        (vec!["keeps_everything", "grows"], vec!["time_lookup"])
    );
    assert_eq!(
        (codes(&created_at.reasons), codes(&created_at.costs)),
        (vec!["keeps_everything", "time"], vec!["key_lookup"])
    );
    assert_eq!((id.partitions, created_at.partitions), (Some(4), Some(6)));
    assert_eq!(id.drafted.answers.drop_unique, [""; 0]);
    assert!(!id.drafted.answers.drop_incoming && id.first.is_empty());
}

#[test]
fn a_time_column_is_best_for_a_random_key() {
    let mut facts = events();
    found(&mut facts).table.columns[0] = column("id", "uuid", true, Some("gen_random_uuid()"));
    let advice = advise(&facts, &[time("created_at")], None);
    assert_eq!(columns(&advice), ["created_at"]);
    // Key tables keep all constraints, so an integer key without an order has no advantage.
    found(&mut facts).table.columns[0] = column("id", "bigint", true, None);
    let advice = advise(&facts, &[number("id", 1, i64::MAX, 0.01), time("created_at")], None);
    assert_eq!(columns(&advice), ["created_at", "id"]);
    assert!(codes(&advice.choices[1].costs).contains(&"scattered"));
}

#[test]
fn a_nullable_column_comes_last() {
    let mut facts = events();
    found(&mut facts).table.columns[2].not_null = false;
    let updated = column("updated_at", "timestamp with time zone", true, Some("now()"));
    found(&mut facts).table.columns.push(updated);
    let profiles = [time("created_at"), time("updated_at"), number("id", 1, 9, 1.0)];
    let advice = advise(&facts, &profiles, None);
    assert_eq!(columns(&advice), ["id", "updated_at", "created_at"]);
    assert!(codes(&advice.choices[2].costs).contains(&"null_rejected"));
    assert!(codes(&advice.choices[1].costs).contains(&"rows_move"));
    // It contains NULL.
    let mut profiles = [time("created_at"), time("updated_at")];
    profiles[0].values.as_mut().unwrap().nulls = 3;
    let with_null = advise(&facts, &profiles, None);
    assert_eq!(codes(&with_null.choices[1].first), ["null_in_partition_column"]);
}

#[test]
fn numbers_that_do_not_grow_are_not_considered() {
    let mut facts = events();
    let table = &mut found(&mut facts).table;
    table.columns.push(column("kind", "integer", true, None));
    table.columns.push(column("amount", "integer", true, None));
    table.columns.push(column("seq", "bigint", true, None));
    table.columns.push(column("at_s", "bigint", true, None));
    let few = ColumnProfile { distinct: Some(7.0), ..number("kind", 1, 7, 1.0) };
    let profiles = [
        few,
        number("amount", 1, 100_000, 0.1),
        number("seq", 1, 100_000, 0.99),
        number("at_s", 1_700_000_000, 1_720_000_000, 0.1),
    ];
    let advice = advise(&facts, &profiles, None);
    assert_eq!(columns(&advice), ["seq", "at_s"]);
    let not: Vec<&str> = advice.unsuitable.iter().map(|point| point.object.as_str()).collect();
    assert_eq!(not, ["kind", "amount"]);
    assert_eq!(advice.choices[1].every, "2592000");
}

#[test]
fn the_advice_as_text() {
    let mut facts = events();
    let keys = (0..5).map(|n| foreign_key(&format!("k{n}"), "events_pkey")).collect();
    found(&mut facts).table.referenced_by = keys;
    let profiles = [number("id", 1, 30_000_000, 1.0), time("created_at")];
    let advice = advise(&facts, &profiles, None);
    insta::assert_snapshot!(head(&advice, None).join("\n"), @r#"
    proposal: partition by id (bigint), every 10,000,000 values, about 4 partitions
      + every unique constraint, and every foreign key to the table, stays as it is
      + its values grow: new rows go to the newest partition, older ones are rarely written
      - a query by created_at reads every partition

      by          every     partitions  keeps  gives up  costs
    > id          10000000  4           all 7  nothing   query by created_at reads all
      created_at  1 month   6           all 7  nothing   lookup by (id) reads all

    "reads all": reads all partitions; to choose another column: --by created_at
    "#);
    insta::assert_snapshot!(head(&Advice::default(), None).join("\n"), @"
    proposal: none, because no column can be the partition column. It must be a timestamptz,
      timestamp, date, smallint, integer or bigint that divides the rows into ranges. A backfill
      can add one, such as created_at: see docs/backfill.md
    ");
    let requested = head(&advice, Some("created_at"));
    assert!(requested[0].starts_with("as requested: partition by created_at"), "{requested:?}");
}

proptest! {
    /// Whatever the columns are: each is a choice or unsuitable, constraints are kept or given up, the text fits the width,
    /// and the draft is a plan of the column.
    #[test]
    fn every_column_and_constraint_is_in_the_advice(
        names in prop::collection::btree_set("[a-zA-Z_ ]{1,12}", 1..6),
        kinds in prop::collection::vec((0..4_usize, any::<bool>(), any::<bool>(), -1.0..1.0_f64), 6),
        keys in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..4),
        pointing in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let types = ["bigint", "timestamp with time zone", "integer", "text"];
        let names: Vec<String> = names.into_iter().collect();
        let columns: Vec<Column> = names.iter().zip(&kinds)
            .map(|(name, (kind, not_null, serial, _))| column(name, types[*kind], *not_null, SERIAL.filter(|_| *serial)))
            .collect();
        let indexes: Vec<Index> = keys.iter().enumerate()
            .map(|(n, (of, primary))| unique(&format!("u{n}"), &[of.get(&names).as_str()], *primary && n == 0))
            .collect();
        let referenced: Vec<ForeignKey> = pointing.iter().enumerate().filter(|_| !indexes.is_empty())
            .map(|(n, of)| foreign_key(&format!("f{n}"), of.get(&indexes).name.as_str()))
            .collect();
        let total = indexes.len() + referenced.len();
        let facts = table(columns, indexes, referenced);
        let profiles: Vec<ColumnProfile> = names.iter().zip(&kinds)
            .filter(|(_, (kind, ..))| *kind != 3)
            .map(|(name, (kind, _, _, correlation))| {
                if *kind == 1 { time(name) } else { number(name, 1, 1_000_000, *correlation) }
            })
            .collect();
        let advice = advise(&facts, &profiles, None);
        prop_assert_eq!(advice.choices.len() + advice.unsuitable.len(), profiles.len());
        prop_assert!(advice.choices.is_sorted_by_key(|choice| choice.weight));
        for choice in &advice.choices {
            prop_assert_eq!(choice.keeps.len() + choice.gives_up.len(), total);
            let plan = Plan::parse(&draft(&choice.drafted), "draft").map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(plain(&plan.partitioning().unwrap().by), choice.column.clone());
            let text = head(&advice, Some(&choice.column));
            prop_assert!(text.iter().all(|line| line.chars().count() <= 110), "{:#?}", text);
        }
    }
}
