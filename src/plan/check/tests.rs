//! Tests of the check on constructed facts: servers that the tests cannot start, and cases that depend on the clock.

use std::collections::BTreeMap;

use insta::assert_snapshot;

use super::*;
use crate::model::fixture::petri;
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::key_table::{UniqueColumn, UniqueIndex};
use crate::model::lock_estimate::LockTable;
use crate::model::table::{ForeignKey, Table};

const PLAN: &str =
    "table = 'petri_observations'\n[partition]\nby = 'created_at'\nevery = 'month'\nkeep_unique = false\n";

fn plan(more: &str) -> Plan {
    Plan::parse(&format!("{PLAN}{more}"), "plan.toml").unwrap()
}

/// A table without errors: half a year of rows, checked in August 2024 by the owner of the table.
pub(in crate::plan) fn facts() -> Facts {
    let rights = Rights {
        owner: true,
        become_owner: true,
        owner_creates: true,
        schema_create: true,
        database_create: true,
        tablespaces_denied: Vec::new(),
        sees_sessions: true,
        select: true,
        ..Rights::default()
    };
    let values = Values {
        by_index: true,
        oldest: Some("2024-01-15 00:00:00+00".into()),
        newest: Some("2024-06-30 12:00:00+00".into()),
        now: Some("2024-08-09 10:11:12+00".into()),
        ..Values::default()
    };
    let size = Size {
        rows: 1_000_000,
        analyzed: true,
        bytes: 200 << 20,
        changes: 864_000.0,
        observed_s: 86_400.0,
        since_known: true,
        attributes: 7,
    };
    Facts {
        server: Server {
            version: 150_004,
            in_recovery: false,
            database: "lab".into(),
            user: "lab".into(),
            deadlock_timeout_ms: 1000,
            lock_table: LockTable { per_transaction: 64, sessions: 122 },
            event_triggers: Vec::new(),
            session_limits: Vec::new(),
        },
        relation: Relation::There(Box::new(Found {
            table: petri(),
            rights,
            values: Some(values),
            size,
            names: BTreeMap::new(),
            prepared: Vec::new(),
            key_nulls: vec![],
            keys: unique_facts(&petri()),
            around: Surroundings::default(),
        })),
        jobs: Vec::new(),
        fill_triggers: Vec::new(),
    }
}

/// The facts about the table's unique indexes.
pub(in crate::plan) fn unique_facts(table: &Table) -> UniqueFacts {
    let column = |name: &Ident| UniqueColumn {
        column: Some(name.clone()),
        expression: plain(name.as_str()),
        sql_type: table.column(name).map(|c| c.sql_type.clone()).unwrap_or_default(),
        collation: None,
        composite: false,
        operator_schema: Some(Ident::new("pg_catalog")),
        input_type: table.column(name).map(|c| c.base_type.clone()).unwrap_or_default(),
    };
    let unique = table.indexes.iter().filter(|i| i.unique).map(|i| UniqueIndex {
        index: i.name.clone(),
        columns: i.columns.iter().flatten().map(column).collect(),
        condition: None,
        of_table: Vec::new(),
    });
    UniqueFacts { indexes: unique.collect(), owner_has_usage: true, ..UniqueFacts::default() }
}

fn found(facts: &mut Facts) -> &mut Found {
    match &mut facts.relation {
        Relation::There(found) => found,
        Relation::Unread | Relation::Missing { .. } => panic!("there is a table"),
    }
}

fn text(plan: &Plan, facts: &Facts) -> String {
    let (findings, blueprint) = check(plan, plan.partitioning().unwrap(), facts);
    let passed = findings.iter().all(|f| f.level != Level::Error);
    assert_eq!(blueprint.is_some(), passed);
    findings.iter().map(|f| format!("{}[{}]: {}\n", f.level, f.code, f.message)).collect()
}

/// The bounds of the partitions.
fn bounds(plan: &Plan, facts: &Facts) -> Vec<String> {
    let (findings, blueprint) = check(plan, plan.partitioning().unwrap(), facts);
    let b = blueprint.unwrap_or_else(|| panic!("{findings:?}"));
    let mut bounds: Vec<String> = b.partitions.iter().map(|p| p.from.clone()).collect();
    bounds.extend(b.partitions.last().map(|p| p.to.clone()));
    bounds
}

/// The same table, partitioned by its integer column.
fn by_number(values: Values) -> (Plan, Facts) {
    let plan = "table = 'petri_observations'\n[partition]\nby = 'seq'\nevery = 1000\nahead = 1\n";
    let mut facts = facts();
    found(&mut facts).values = Some(values);
    (Plan::parse(plan, "plan.toml").unwrap(), facts)
}

#[test]
fn a_table_without_errors() {
    assert_snapshot!(text(&plan(""), &facts()), @"
    note[size]: public.petri_observations has about 1,000,000 rows, 200.0 MiB with indexes; the job needs about the same amount of disk space again
    note[change_rate]: about 10.00 changed rows per second on average: the change log grows by about 49.4 MiB per day until it is drained
    warning[key_widened]: the partition column is added to the key petri_observations_pkey (observation_id): after the swap, only (observation_id, created_at) is unique, not (observation_id) alone, and ON CONFLICT (observation_id) fails
    note[carried]: carried over: 7 columns, 2 indexes, 1 check constraint, 1 sequence, 1 extended statistics, 1 comment, 1 foreign key, 1 view, 1 rule, 1 function, 1 policy of another table, 1 default of another table, 1 publication, 1 trigger, 1 policy, 3 grants
    note[partitions]: 11 partitions from 2024-01-01 00:00:00+00 to 2024-12-01 00:00:00+00 and a default partition
    note[locks]: the swap and the rollback each lock the table for about 10 ms and need about 213 of 7,808 entries of the server's lock table
    ");
}

#[test]
fn partitions_extend_beyond_today() {
    let months = bounds(&plan("ahead = 1\n"), &facts());
    assert_eq!((months.len(), months[0].as_str()), (10, "2024-01-01 00:00:00+00"));
    assert_eq!(months[9], "2024-10-01 00:00:00+00");
    let mut future = facts();
    found(&mut future).values.as_mut().unwrap().newest = Some("2024-12-31 00:00:00+00".into());
    assert_eq!(bounds(&plan("ahead = 0\n"), &future)[12], "2025-01-01 00:00:00+00");
}

#[test]
fn partitions_of_an_empty_table_begin_today() {
    let mut empty = facts();
    let values = found(&mut empty).values.as_mut().unwrap();
    (values.oldest, values.newest) = (None, None);
    assert_eq!(
        bounds(&plan("ahead = 1\n"), &empty),
        ["2024-08-01 00:00:00+00", "2024-09-01 00:00:00+00", "2024-10-01 00:00:00+00"]
    );
    let early = plan("ahead = 0\nfrom = '2024-07-15'\n");
    assert_eq!(bounds(&early, &empty)[0], "2024-07-01 00:00:00+00");
    let (plan, facts) = by_number(Values::default());
    assert_eq!(bounds(&plan, &facts), ["0", "1000", "2000"]);
}

#[test]
fn partitions_of_numbers_extend_beyond_the_largest() {
    let ends = |oldest: &str, newest: &str| Values {
        oldest: Some(oldest.into()),
        newest: Some(newest.into()),
        ..Values::default()
    };
    let (plan, facts) = by_number(ends("-1", "1000"));
    assert_eq!(bounds(&plan, &facts), ["-1000", "0", "1000", "2000", "3000"]);
    let (plan, facts) = by_number(ends("9223372036854775000", "9223372036854775807"));
    assert_eq!(bounds(&plan, &facts), ["9223372036854775000", "maxvalue"]);
}

#[test]
fn bounds_in_the_plan_are_extended_to_whole_intervals() {
    let spring = plan("from = '2024-03-20'\nto = '2024-05-02'\n");
    assert_eq!(
        bounds(&spring, &facts()),
        [
            "2024-03-01 00:00:00+00",
            "2024-04-01 00:00:00+00",
            "2024-05-01 00:00:00+00",
            "2024-06-01 00:00:00+00"
        ]
    );
    assert_eq!(bounds(&plan("from = '2024-05-01'\nto = '2024-06-01'\n"), &facts()).len(), 2);
    assert_snapshot!(text(&plan("to = '2023-06-01'\n"), &facts()), @"
    error[bounds]: the last partition would end at 2023-06-01 00:00:00+00, before the start of the first partition (2024-01-15 00:00:00+00)
    note[size]: public.petri_observations has about 1,000,000 rows, 200.0 MiB with indexes; the job needs about the same amount of disk space again
    note[change_rate]: about 10.00 changed rows per second on average: the change log grows by about 49.4 MiB per day until it is drained
    ");
}

#[test]
fn the_key_is_the_primary_key_or_the_first_usable_index() {
    let mut facts = facts();
    let table = &mut found(&mut facts).table;
    let index = |name: &str, column: &str| Index {
        name: Ident::new(name),
        columns: Some(vec![Ident::new(column)]),
        constraint: String::new(),
        unique: true,
        ..petri().indexes[0].clone()
    };
    table.indexes.extend([index("b", "seq"), index("a", "seq"), index("0", "note")]);
    assert_eq!(key::choose(table, key::Nullable::None).unwrap().name.as_str(), "petri_observations_pkey");
    table.indexes[0].plain_order = false;
    assert_eq!(key::choose(table, key::Nullable::None).unwrap().name.as_str(), "a");
}

#[test]
fn an_old_server_is_the_only_finding() {
    let mut facts = facts();
    facts.server.version = 130_011;
    facts.relation = Relation::Unread;
    assert_snapshot!(text(&plan(""), &facts), @"error[server_too_old]: the server is PostgreSQL 13.11; pgstrata requires PostgreSQL 14 or later");
}

#[test]
fn temporary_tables_and_tables_of_extensions() {
    let mut temporary = facts();
    found(&mut temporary).table.persistence = "t".into();
    assert_snapshot!(text(&plan(""), &temporary), @"error[temporary_table]: public.petri_observations is a temporary table, which the job's other sessions cannot see");
    let mut extension = facts();
    found(&mut extension).table.extension = Some("postgis".into());
    let findings = text(&plan(""), &extension);
    assert_snapshot!(findings.lines().next().unwrap(), @"error[extension_member]: public.petri_observations belongs to extension postgis, which would lose it at the swap");
}

#[test]
fn a_value_too_far_away_is_rejected() {
    let mut far = facts();
    found(&mut far).values.as_mut().unwrap().newest = Some("290000-01-01 00:00:00+00".into());
    assert_snapshot!(text(&plan(""), &far), @"
    error[bounds]: column created_at contains values after the year 261999, and covering them would take too many partitions
    note[size]: public.petri_observations has about 1,000,000 rows, 200.0 MiB with indexes; the job needs about the same amount of disk space again
    note[change_rate]: about 10.00 changed rows per second on average: the change log grows by about 49.4 MiB per day until it is drained
    ");
}

#[test]
fn all_findings_are_reported_at_once() {
    let mut facts = facts();
    facts.server.in_recovery = true;
    facts.jobs = vec![OpenJob {
        name: "other".into(),
        source: "public.petri_observations".into(),
        is_swapped: true,
        partitions: true,
        used_by: Vec::new(),
        state: crate::model::state::State::Copied,
    }];
    let found = found(&mut facts);
    found.rights.become_owner = false;
    found.rights.tablespaces_denied = vec![Ident::new("fast")];
    found.rights.own_schema = Some(SchemaRights { usage: true, create: true, tables: false });
    found.table.tablespace = Some(Ident::new("fast"));
    found.table.columns[6].not_null = false;
    found.table.others.push("function f(petri_observations)".into());
    found.around.publications.push(Published {
        name: Ident::new("all"),
        named: false,
        changes: false,
        via_root: false,
        partitions: 0,
        slots: vec![],
    });
    found.size.since_known = false;
    assert_snapshot!(text(&plan("drop_unique = ['x']\n"), &facts), @"
    error[standby]: the server is a standby, which cannot be written to
    error[table_in_other_job]: job other is open on the same table (copied)
    error[missing_privilege]: role lab cannot change the owner of tables to role lab, which owns public.petri_observations
    error[missing_privilege]: role lab lacks CREATE on tablespace fast, which contains public.petri_observations or one of its indexes
    error[missing_privilege]: role lab cannot read and write all tables of schema pgstrata, which another role created
    error[nullable_partition_column]: partition column created_at is nullable (0 rows contain NULL now), but it becomes part of the key
    error[drop_unique]: drop_unique lists x, but public.petri_observations has no such index
    error[row_type_function]: function f(petri_observations) takes or returns the row type of public.petri_observations, and cannot be created again for the row type of the new table
    warning[published]: publication all publishes all tables of the database or of a schema, including public.petri_observations: it will also publish the partitioned table, and a subscriber without that table stops
    note[size]: public.petri_observations has about 1,000,000 rows, 200.0 MiB with indexes; the job needs about the same amount of disk space again
    note[change_rate]: at most 10.00 changed rows per second on average: the change log grows by at most 49.4 MiB per day until it is drained
    warning[key_widened]: the partition column is added to the key petri_observations_pkey (observation_id): after the swap, only (observation_id, created_at) is unique, not (observation_id) alone, and ON CONFLICT (observation_id) fails
    note[carried]: carried over: 7 columns, 2 indexes, 1 check constraint, 1 sequence, 1 extended statistics, 1 comment, 1 foreign key, 1 view, 1 rule, 1 function, 1 policy of another table, 1 default of another table, 1 publication, 1 trigger, 1 policy, 3 grants
    note[partitions]: 11 partitions from 2024-01-01 00:00:00+00 to 2024-12-01 00:00:00+00 and a default partition
    note[locks]: the swap and the rollback each lock the table for about 10 ms and need about 213 of 7,808 entries of the server's lock table
    ");
}

#[test]
fn the_nearest_table_is_named() {
    let near = |tables: &[(&str, &str)]| {
        let tables: Vec<_> = tables.iter().map(|(schema, name)| QualifiedName::new(*schema, *name)).collect();
        no_such_table(&QualifiedName::new("public", "Order"), &tables).hint
    };
    assert_eq!(near(&[("public", "orders"), ("Shop", "Order")]), "did you mean \"Shop\".\"Order\"?");
    assert_eq!(near(&[("public", "customers"), ("public", "orders")]), "did you mean public.orders?");
    assert!(near(&[("public", "customers")]).starts_with("write the name as in SQL"));
}

#[test]
fn a_key_table_keeps_what_the_application_may_rely_on() {
    let mut facts = facts();
    let wanted = |plan: &Plan, facts: &Facts| {
        let (_, blueprint) = check(plan, plan.partitioning().unwrap(), facts);
        blueprint.unwrap().key_tables.iter().map(|k| k.name.plain()).collect::<Vec<_>>()
    };
    let kept = ["public.petri_observations_pkey_keys"];
    let parsed = |more: &str| Plan::parse(&PLAN.replace("keep_unique = false\n", more), "plan.toml").unwrap();
    assert_eq!(wanted(&parsed("keep_unique = false\n"), &facts), [""; 0]);
    assert_eq!(wanted(&parsed(""), &facts), [""; 0]);
    assert_eq!(wanted(&parsed("keep_unique = true\n"), &facts), kept);
    assert_eq!(wanted(&parsed("keep_unique = ['petri_observations_pkey']\n"), &facts), kept);
    let reference = ForeignKey {
        name: Ident::new("c_fkey"),
        table: QualifiedName::new("public", "c"),
        references: found(&mut facts).table.name.clone(),
        definition: "FOREIGN KEY (o) REFERENCES public.petri_observations(observation_id)".into(),
        validated: true,
        comment: None,
        index: Some(Ident::new("petri_observations_pkey")),
        from_partitioned: false,
        to_unlogged: false,
    };
    found(&mut facts).table.referenced_by.push(reference);
    assert_eq!(wanted(&parsed(""), &facts), kept);
    assert_eq!(wanted(&parsed("[dependents]\nincoming_fk = 'drop'\n"), &facts), [""; 0]);
}
