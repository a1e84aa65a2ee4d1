//! Property tests of plans: a plan that is written and read is unchanged, and no text makes the reader panic.

use std::time::Duration;

use chrono_tz::TZ_VARIANTS;
use proptest::prelude::*;

use super::LEAST;
use crate::model::{ident::QualifiedName, partition::Every};
use crate::plan::backfill::Added;
use crate::plan::settings::Settings;
use crate::plan::throttle::tests::throttle;
use crate::plan::{
    Backfill, Finish, IncomingKeys, KeepFilled, KeepUnique, LockBudget, OldSnapshots, Order, Partitioning,
    Plan, Retention, RetentionAction, Retype, RowComparison, Task, When, Workers,
};

fn every() -> impl Strategy<Value = Every> {
    prop_oneof![
        Just(Every::Hours(1)),
        (1..=60_u32).prop_map(Every::Days),
        (1..=9_u32).prop_map(Every::Weeks),
        (1..=24_u32).prop_map(Every::Months),
        (1..=9_u32).prop_map(Every::Quarters),
        (1..=99_u32).prop_map(Every::Years),
        (1..=i64::MAX).prop_map(Every::Integers),
    ]
}

pub(in crate::plan) fn duration(ms: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = Duration> {
    prop_oneof![ms.clone(), ms.prop_map(|ms| (ms / 1000 * 1000).max(1000))].prop_map(Duration::from_millis)
}

prop_compose! {
    fn budget()(
        lock_timeout in duration(1..=10_000),
        attempts in 1..=100_000_u32,
        give_up_after in duration(1_000..=86_400_000),
        cancel_blockers_after in prop::option::of(duration(0..=86_400_000)),
    ) -> LockBudget {
        LockBudget { lock_timeout, attempts, give_up_after, cancel_blockers_after }
    }
}

prop_compose! {
    fn copying()(
        workers in prop_oneof![Just(Workers::Auto), (1..=64_usize).prop_map(Workers::Fixed)],
        target_batch in (10..=60_000_u64).prop_map(Duration::from_millis),
        throttle in throttle(),
        when in prop::sample::select(When::ALL.to_vec()),
        budget in budget(),
        old_snapshots in prop::sample::select(OldSnapshots::ALL.to_vec()),
        keep_old in duration(0..=3650 * 86_400_000),
    ) -> Plan {
        Plan {
            workers, target_batch, throttle, when, budget, old_snapshots, keep_old,
            ..Plan::parse(LEAST, "p.toml").unwrap()
        }
    }
}

prop_compose! {
    fn partitioning()(
        by in "[^\0]{1,15}",
        order in prop::sample::select(Order::ALL.to_vec()),
        verify in prop::sample::select(RowComparison::ALL.to_vec()),
        incoming_keys in prop::sample::select(IncomingKeys::ALL.to_vec()),
        every in every(),
        timezone in prop::sample::select(TZ_VARIANTS.to_vec()),
        (from, to) in (prop::option::of(any::<String>()), prop::option::of(any::<String>())),
        ahead in 0..=1000_u32,
        names in prop::option::of("\\PC{1,20}"),
        (default, not_null) in any::<(bool, bool)>(),
        null_as in prop::option::of(sql()),
        keep_unique in prop_oneof![
            Just(KeepUnique::Needed), Just(KeepUnique::All), Just(KeepUnique::None), Just(KeepUnique::Listed(vec!["u".to_owned()]))
        ],
        drop_unique in prop::collection::btree_set("[^\0]{1,15}", 0..3),
        kept in prop::option::of((1..=99_u32, prop::sample::select(RetentionAction::ALL.to_vec()))),
    ) -> Partitioning {
        let drop_unique = drop_unique.into_iter().collect();
        let retention = kept.map(|(n, how)| {
            let keep = if let Every::Integers(_) = every { Every::Integers(n.into()) } else { Every::Months(n) };
            Retention { keep, how }
        });
        Partitioning {
            by, not_null, null_as, every, timezone, from, to, ahead, names, default, keep_unique, drop_unique, order, verify, incoming_keys, retention,
        }
    }
}

/// SQL that a plan can contain: trimmed, not empty, and without a semicolon at its end.
fn sql() -> impl Strategy<Value = String> {
    "[^\0\\s][^\0]{0,10}[^\0\\s;]"
}

fn columns() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[^\0]{1,15}", 1..3)
}

prop_compose! {
    fn finish()(
        not_null in prop::collection::vec("[^\0]{1,15}", 0..3),
        check in prop::collection::vec(sql(), 0..3),
        unique in prop::collection::vec(columns(), 0..3),
        index in prop::collection::vec(sql(), 0..3),
        foreign_key in prop::collection::vec(sql(), 0..3),
    ) -> Finish {
        Finish { not_null, check, unique, index, foreign_key }
    }
}

prop_compose! {
    fn settings()(
        search_path in prop::option::of(prop::collection::vec("[^\0$]{1,15}", 1..3)),
        time_zone in prop::option::of("[A-Za-z/]{1,15}"),
        date_style in prop::option::of("[A-Z, ]{1,9}"),
        interval_style in prop::option::of("[a-z_]{1,9}"),
    ) -> Settings {
        Settings { search_path, time_zone, date_style, interval_style }
    }
}

prop_compose! {
    fn backfill()(
        add in prop::collection::btree_map("[^\0]{1,15}", (r"[a-z]{1,9}(\([0-9]\))?", prop::option::of("[a-z0-9']{1,9}")), 0..3),
        from in prop::option::of(sql()),
        set in prop::collection::btree_map("[^\0]{1,15}", sql(), 1..3),
        filter in prop::option::of(sql()),
        keep_filled in prop::sample::select(vec![KeepFilled::No, KeepFilled::UntilDone, KeepFilled::Always]),
        finish in finish(),
        settings in settings(),
    ) -> Backfill {
        let add = add.into_iter().map(|(name, (sql_type, default))| Added { name, sql_type, default }).collect();
        Backfill { add, from, set: set.into_iter().collect(), filter, keep_filled, finish, settings }
    }
}

prop_compose! {
    fn retype()(
        column in "[^\0]{1,15}",
        to in sql(),
        using in prop::option::of(sql()),
        back in prop::option::of(sql()),
        settings in settings(),
    ) -> Retype {
        Retype { column, to, using, back, settings }
    }
}

prop_compose! {
    fn plan()(
        rest in copying(),
        name in "[^\\p{C}\\s]\\PC{0,14}",
        (schema, table) in ("[^\0]{1,15}", "[^\0]{1,15}"),
        trust in prop::collection::vec("[^\0]{1,15}", 0..2),
        task in prop_oneof![
            partitioning().prop_map(Task::Partition),
            backfill().prop_map(Task::Backfill),
            retype().prop_map(Task::Retype),
        ],
    ) -> Plan {
        let table = QualifiedName::new(schema, table);
        let rest = match &task {
            Task::Partition(_) | Task::Retype(_) => rest,
            Task::Backfill(_) => {
                let plain = Plan::parse(LEAST, "p.toml").unwrap();
                Plan {
                    when: plain.when,
                    old_snapshots: plain.old_snapshots,
                    keep_old: plain.keep_old,
                    ..rest
                }
            }
        };
        Plan { name, table, trust, task, ..rest }
    }
}

proptest! {
    #[test]
    fn a_plan_reads_back(plan in plan()) {
        let text = plan.to_toml();
        prop_assert_eq!(Plan::parse(&text, "p.toml").map_err(|e| e.to_string()), Ok(plan), "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "(\\[partition\\]|table|by|every|=|\"|\n|[a-z0-9é])*") {
        let _ = Plan::parse(&text, "p.toml");
    }
}
