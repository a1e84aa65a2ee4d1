//! What `check` reports about `finish`, and how other commands handle a backfill.

use super::{PARTITIONED, PLAIN, lab, lab_with, plan_text};
use crate::support::cluster::{Database, Version};

/// The findings without the estimated growth of the table, which depends on when autovacuum last ran, and without the settings
/// of the server.
fn without_growth(stdout: &str) -> String {
    let varies = |line: &&str| line.contains("[growth]") || line.contains("[plan_settings]");
    stdout.lines().filter(|line| !varies(line)).map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn check_reports_what_cannot_be_built() {
    let setup = format!(
        "{PARTITIONED}; create table suppliers_code_id_key (); create role nobody_reads; create table lonely (a int);
         alter table suppliers alter amount set not null; create index suppliers_low_amount_idx on suppliers_high (id)"
    );
    let finish = "add = { doc = 'json' }\nfinish = { not_null = ['kinds', 'kind', 'amount'],
        check = ['kind > (select 1)', 'no_such(kind)', \"doc is not null\", 'kind > 0'],
        unique = [['code'], ['code', 'id'], ['doc', 'id']], index = ['(amount)', '(doc)', 'using gin'],
        foreign_key = ['(kind) references lonely (a)', '(code) references kinds', '(code, kind) references kinds',
                       '(amount) references elsewhere', 'kind -> kinds'] }";
    let lab = lab_with(Version::System, &setup, finish).await;
    let output = lab.ran("check --quiet --color never").await.exits(3);
    insta::assert_snapshot!(without_growth(&output.stdout), @r#"
    error[foreign_key_unread]: kind -> kinds: `kind -> kinds` is not a foreign key definition
      hint: write it as "(column) references schema.table (column) on delete restrict"
    error[no_such_column]: kinds: table public.suppliers has no column kinds, which `finish` names
      hint: did you mean kind?
    warning[not_null_for_writers]: kind: once the job is done and its trigger is dropped, writes that leave column kind NULL fail
      hint: first deploy an application version that sets the column, give the column a default, or set keep_filled = "always"
    note[not_null_already]: amount: column amount is already NOT NULL
    2 errors, 1 warning: the job cannot start
    "#);
    let corrected = lab
        .db
        .plan(&plan_text(&finish.replace("'kinds', 'kind'", "'kind'").replace(", 'kind -> kinds'", "")));
    let output = lab
        .db
        .pgstrata(&["check", "--quiet", corrected.to_str().unwrap(), "--color", "never"])
        .await
        .exits(3);
    insta::assert_snapshot!(without_growth(&output.stdout), @r#"
    error[finish_refused]: suppliers_kind_select_1_check_fdf0c6af: the server rejects check (kind > (select 1)): cannot use subquery in check constraint
      hint: correct it under finish; names without a schema are looked up in the table's schema, then in public
    error[finish_refused]: suppliers_no_such_kind_check_d39c7f75: the server rejects check (no_such(kind)): function no_such(integer) does not exist
      hint: correct it under finish; names without a schema are looked up in the table's schema, then in public
    error[finish_refused]: suppliers_doc_id_key: the server rejects unique (doc, id): data type json has no default operator class for access method "btree"
      hint: correct it under finish; names without a schema are looked up in the table's schema, then in public
    error[finish_refused]: suppliers_doc_idx: the server rejects index (doc): data type json has no default operator class for access method "btree"
      hint: correct it under finish; names without a schema are looked up in the table's schema, then in public
    error[finish_refused]: suppliers_using_gin_idx_84bc94ca: the server rejects index using gin: syntax error at end of input
      hint: correct it under finish; names without a schema are looked up in the table's schema, then in public
    error[finish_refused]: suppliers_kind_fkey: the server rejects foreign key (kind) to public.lonely: there is no unique constraint matching given keys for referenced table "lonely"
      hint: correct it under finish; names without a schema are looked up in the table's schema, then in public
    error[finish_refused]: suppliers_code_fkey: the server rejects foreign key (code) to public.kinds: foreign key constraint "suppliers_code_fkey" cannot be implemented
      hint: correct it under finish; names without a schema are looked up in the table's schema, then in public
    error[name_taken]: suppliers_code_id_key: the job needs the name suppliers_code_id_key for unique (code, id), but another object has it
      hint: rename or drop it
    error[name_taken]: suppliers_low_amount_idx: the job needs the name suppliers_low_amount_idx for an index of a partition, but another object has it
      hint: rename or drop it
    error[foreign_key_columns]: suppliers_code_kind_fkey: the foreign key has 2 columns but references 1 of public.kinds
      hint: list the referenced columns: references other (a, b)
    error[no_such_table]: suppliers_amount_fkey: table public.elsewhere, which a foreign key under finish references, does not exist
      hint: write the name with its schema
    error[unique_without_partition_column]: suppliers_code_key: unique (code) does not contain (id), by which public.suppliers is partitioned: PostgreSQL cannot create it
      hint: add the partition columns to it
    warning[not_null_for_writers]: kind: once the job is done and its trigger is dropped, writes that leave column kind NULL fail
      hint: first deploy an application version that sets the column, give the column a default, or set keep_filled = "always"
    note[not_null_already]: amount: column amount is already NOT NULL
    12 errors, 1 warning: the job cannot start
    "#);
}

#[tokio::test]
async fn check_reports_missing_privileges() {
    let db = Database::new().await;
    let role = format!("filler_{}", std::process::id());
    db.execute(&format!(
        "{PLAIN}; create role {role} login; grant create on schema public to {role}; alter table suppliers owner to {role}; analyze suppliers"
    ))
    .await;
    let plan =
        db.plan(&plan_text("finish = { index = ['(amount)'], foreign_key = ['(kind) references kinds'] }"));
    let name: String =
        db.client().await.query_one("select current_database()::text", &[]).await.unwrap().get(0);
    db.execute(&format!(
        "grant create on database {name} to {role}; revoke temporary on database {name} from public"
    ))
    .await;
    let dsn = db.dsn().replace("user=postgres", &format!("user={role}"));
    let args = ["check", "--quiet", plan.to_str().unwrap(), "--color", "never"];
    let output = db.pgstrata_with(&args, &[("DATABASE_URL", &dsn)]).await.exits(3);
    let output = output.stdout.replace(&name, "DATABASE").replace(&role, "ROLE");
    insta::assert_snapshot!(without_growth(&output), @r#"
    error[missing_privilege]: DATABASE: role ROLE: permission denied to create temporary tables in database "DATABASE"
      hint: grant temporary on database DATABASE to ROLE
    error[missing_privilege]: public.kinds: role ROLE lacks SELECT, REFERENCES on public.kinds, which a foreign key references
      hint: grant select, references on public.kinds to ROLE
    warning[replicas_hidden]: ROLE: role ROLE cannot see the replica lag: if the server has standbys, or the plan sets a limit, the job is throttled until it can see the lag
      hint: grant pg_monitor to ROLE, or list the standbys under [throttle] replicas
    warning[finish_untried]: public.suppliers: the constraints and indexes under finish could not be tested: permission denied to create temporary tables in database "DATABASE"
      hint: grant temporary on database DATABASE to ROLE
    2 errors, 2 warnings: the job cannot start
    "#);
    db.execute(&format!(
        "grant select, references on kinds to {role}; grant temporary on database {name} to {role}"
    ))
    .await;
    db.pgstrata_with(&args, &[("DATABASE_URL", &dsn)]).await.ok();
    db.pgstrata_with(&["run", plan.to_str().unwrap()], &[("DATABASE_URL", &dsn)]).await.ok();
}

#[tokio::test]
async fn check_warns_about_writers_and_recognizes_what_exists() {
    let setup = format!(
        "{PLAIN}; create index suppliers_amount_kind_idx on suppliers (amount, kind);
         create index by_code on suppliers using hash (code) where kind = 3; alter table suppliers add check (kind >= 0);
         alter table suppliers add constraint suppliers_kind_fkey foreign key (kind) references kinds on delete cascade not valid;
         alter table suppliers add constraint suppliers_code_id_key unique (id, code)"
    );
    let lab = lab(Version::System, &setup).await;
    let output = lab.ran("check -v --quiet --color never").await.exits(3);
    insta::assert_snapshot!(without_growth(&output.stdout), @r#"
    error[name_taken]: suppliers_code_id_key: the job needs the name suppliers_code_id_key for unique (code, id), but another object has it
      hint: rename or drop it
    warning[not_null_for_writers]: kind: once the job is done and its trigger is dropped, writes that leave column kind NULL fail
      hint: first deploy an application version that sets the column, give the column a default, or set keep_filled = "always"
    warning[not_null_for_writers]: code: once the job is done and its trigger is dropped, writes that leave column code NULL fail
      hint: first deploy an application version that sets the column, give the column a default, or set keep_filled = "always"
    warning[finish_alike]: suppliers_kind_0_check_5f3ba75c: public.suppliers already has suppliers_kind_check, which is the same as check (kind >= 0)
      hint: remove it from finish unless you want both: every write maintains both
    warning[finish_alike]: suppliers_using_hash_code_where_kind_3_idx_103487a9: public.suppliers already has by_code, which is the same as index using hash (code) where kind = 3
      hint: remove it from finish unless you want both: every write maintains both
    warning[index_on_set_column]: public.suppliers: indexes by_code, suppliers_amount_kind_idx, suppliers_code_id_key are on columns that the plan sets: no update can be HOT, and each filled row adds an entry to every index of 4
      hint: drop indexes that are not needed during the run, and list them under finish: index = [...]
    note[finish_there]: suppliers_kind_fkey: suppliers_kind_fkey already exists, but incomplete: the job completes it
    note[finish_there]: suppliers_amount_kind_idx: suppliers_amount_kind_idx already exists, as specified in the plan
    1 error, 5 warnings: the job cannot start
    "#);
}

#[tokio::test]
async fn verify_checks_again_and_commands_of_other_kinds_are_refused() {
    let lab = lab(Version::System, PLAIN).await;
    lab.killed("run", "fill.chunk").await;
    lab.ran("verify").await.exits(2);
    lab.killed("run", "verify.done").await;
    // Only a superuser can bypass the trigger.
    lab.db
        .execute("begin; set local pgstrata.filling = 'on'; update suppliers set code = null where id in (3, 4); commit")
        .await;
    let output = lab.ok("verify").await;
    assert_eq!(output.stdout, "verified: fill: every row is filled; 2 rows filled by this command\n");
    let output = lab.ok("verify --json").await;
    assert!(output.stdout.ends_with("\n{\"job\":\"fill\",\"rows_set\":0,\"verified\":true}\n"), "{output:?}");
    for command in ["swap", "rollback", "sync", "finalize"] {
        let refused = lab.refused(command).await;
        insta::allow_duplicates! { insta::assert_snapshot!(refused, @"
        exit 2
        error: job fill is a backfill: it updates public.suppliers in place, and there is no second table
        hint: `pgstrata run PLAN` continues it to its end; `pgstrata verify fill` checks every row again; `pgstrata abort fill` ends it
        "); }
    }
    lab.ok("run").await;
    for command in ["verify", "swap", "finalize"] {
        let refused = lab.refused(command).await;
        insta::allow_duplicates! { insta::assert_snapshot!(refused, @"
        exit 2
        error: job fill is a backfill and already finalized
        hint: `pgstrata run PLAN` starts a new job that fills rows written since then
        "); }
    }
}
