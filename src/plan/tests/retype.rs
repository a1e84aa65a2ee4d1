//! Tests of plans for column type changes.

use insta::assert_snapshot;

use super::error;
use crate::plan::Plan;

/// A column type change with every setting.
pub(super) const RETYPING: &str = r#"
name = "visits_at"
kind = "retype"
table = "visits"
[retype]
column = '"At"'
to = "timestamptz"
using = "t.\"At\"::timestamptz"
back = "to_char(t.\"At\", 'YYYY-MM-DD')"
settings = { datestyle = "ISO, DMY", intervalstyle = "postgres" }
[swap]
when = "verified"
keep_old = "1 day"
"#;

#[test]
fn a_full_retype_is_read() {
    let plan = Plan::parse(RETYPING, "p.toml").unwrap();
    assert_snapshot!(plan.to_toml(), @r#"
    kind = "retype"
    name = "visits_at"
    table = "public.visits"

    [copy]
    target_batch_ms = 50
    workers = "auto"

    [retype]
    back = """to_char(t."At", 'YYYY-MM-DD')"""
    column = '"At"'
    to = "timestamptz"
    using = 't."At"::timestamptz'

    [retype.settings]
    datestyle = "ISO, DMY"
    intervalstyle = "postgres"

    [swap]
    attempts = 100
    give_up_after = "900s"
    keep_old = "1 days"
    lock_timeout = "200ms"
    when = "verified"

    [throttle]
    archiver = true
    forget_replica_after = "300s"
    query_limit = 0
    timezone = "UTC"
    "#);
    assert_eq!(Plan::parse(&plan.to_toml(), "p.toml").unwrap(), plan);
}

#[test]
fn problems_of_a_retype_are_reported() {
    assert_snapshot!(error("kind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'a.b'\nusing = 't.a;'\n[copy]\norder = 'keyset'"), @r#"
    p.toml has 4 errors
      p.toml:4:10: retype.column: `a.b` is not a single name
        hint: write the name as in SQL, in double quotes if it has characters other than letters, digits and _: '"My Column"'
      p.toml:5:9: retype.using: ends with a semicolon
        hint: remove the semicolon: the expression becomes part of a statement
      p.toml:7:9: copy.order: does not apply to a plan of kind "retype"
        hint: remove it, or change the kind
      p.toml: retype.to is missing
        hint: write to = "bigint" under [retype]
    "#);
    assert_snapshot!(error("kind = 'retype'\ntable = 't'\n[retype]\ncolum = 'a'\nto = 'bigint'\n[backfill]\nset = { a = '1' }"), @r#"
    p.toml has 2 errors
      p.toml:4:1: unknown key `colum` under [retype]
        hint: did you mean `column`?
      p.toml:7:7: backfill.set: does not apply to a plan of kind "retype"
        hint: remove it, or change the kind
    "#);
}
