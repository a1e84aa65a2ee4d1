//! Tests of backfill plans.

use insta::assert_snapshot;

use super::{LEAST, error};
use crate::plan::Plan;

/// A backfill with every setting.
pub(super) const FULL: &str = r#"
name = "ci"
kind = "backfill"
table = "suppliers"
trust = ["dba", '"The App"']
[backfill]
add = { carbon_intensity = "double precision", '"Since"' = "date default current_date" }
from = "(select supplier_id, avg(x) as ci from emissions group by 1) e on e.supplier_id = t.id"
set = { carbon_intensity = "coalesce(e.ci, 0)" }
where = "t.carbon_intensity is null"
keep_filled = "always"
finish = { not_null = ["carbon_intensity"], check = ["carbon_intensity >= 0"], unique = [["a", '"B"']], index = ["(a)"], foreign_key = ["(a) references b (c)"] }
settings = { search_path = "App, public", timezone = "Europe/Berlin" }
"#;

#[test]
fn a_full_backfill_is_read() {
    let plan = Plan::parse(FULL, "p.toml").unwrap();
    assert_snapshot!(plan.to_toml(), @r#"
    kind = "backfill"
    name = "ci"
    table = "public.suppliers"
    trust = ["dba", '"The App"']

    [backfill]
    from = "(select supplier_id, avg(x) as ci from emissions group by 1) e on e.supplier_id = t.id"
    keep_filled = "always"
    where = "t.carbon_intensity is null"

    [backfill.add]
    '"Since"' = "date default current_date"
    carbon_intensity = "double precision"

    [backfill.finish]
    check = ["carbon_intensity >= 0"]
    foreign_key = ["(a) references b (c)"]
    index = ["(a)"]
    not_null = ["carbon_intensity"]
    unique = [["a", '"B"']]

    [backfill.set]
    carbon_intensity = "coalesce(e.ci, 0)"

    [backfill.settings]
    search_path = "app, public"
    timezone = "Europe/Berlin"

    [copy]
    target_batch_ms = 50
    workers = "auto"

    [swap]
    attempts = 100
    give_up_after = "900s"
    lock_timeout = "200ms"

    [throttle]
    archiver = true
    forget_replica_after = "300s"
    query_limit = 0
    timezone = "UTC"
    "#);
    assert_eq!(Plan::parse(&plan.to_toml(), "p.toml").unwrap(), plan);
}

#[test]
fn problems_of_a_backfill_are_reported() {
    assert_snapshot!(error("kind = 'backfill'\ntable = 't'\n[partition]\nby = 'at'\n[swap]\nkeep_old = '1 day'"), @r#"
    p.toml has 3 errors
      p.toml:4:6: partition.by: does not apply to a plan of kind "backfill"
        hint: remove it, or change the kind
      p.toml:6:12: swap.keep_old: does not apply to a plan of kind "backfill"
        hint: remove it, or change the kind
      p.toml: backfill.set is missing
        hint: write set = { note = "upper(t.title)" } under [backfill]
    "#);
    assert_snapshot!(error(
        "kind = 'backfill'\ntable = 't'\n[backfill]\nadd = { a = 'int not null', b = 'int references c' }\nset = { a = '1;', A = '' }\n\
         from = ' '\nkeep_filled = 'ever'\nfinish = { notnull = ['a'] }"
    ), @r#"
    p.toml has 5 errors
      p.toml:4:7: backfill.add: column a cannot be NOT NULL before it is filled
        hint: list the column under finish: not_null = [...]
      p.toml:5:7: backfill.set: is empty
        hint: write an SQL expression, or remove the key
      p.toml:6:8: backfill.from: is empty
        hint: write an SQL expression, or remove the key
      p.toml:7:15: backfill.keep_filled: "ever" is not true, false or "always"
      p.toml:8:10: backfill.finish: unknown key `notnull`
        hint: known: not_null, check, unique, index, foreign_key
    "#);
    let settings = |written: &str| {
        error(&format!(
            "kind = 'backfill'\ntable = 't'\n[backfill]\nset = {{ a = '1' }}\nsettings = {written}"
        ))
    };
    assert_snapshot!(settings("{ zone = 'UTC' }"), @"
    p.toml:5:12: backfill.settings: unknown key `zone`
    hint: known: search_path, timezone, datestyle, intervalstyle
    ");
    assert_snapshot!(settings("{ search_path = 'app, \"$user\"' }"), @"
    p.toml:5:12: backfill.settings: search_path contains $user, which is not the same schema in every session
    hint: list the schemas by name
    ");
    assert_snapshot!(error("kind = 'backfil'\ntable = 't'"), @r#"
    p.toml has 3 errors
      p.toml:1:8: kind: "backfil" is not "partition" or "backfill" or "retype"
      p.toml: partition.by is missing
        hint: write by = "created_at" under [partition]
      p.toml: partition.every is missing
        hint: write every = "1 month" under [partition]
    "#);
    assert_snapshot!(error(&format!("{LEAST}[backfill]\nset = {{ a = '1' }}")), @r#"
    p.toml:6:7: backfill.set: does not apply to a plan of kind "partition"
    hint: remove it, or change the kind
    "#);
}
