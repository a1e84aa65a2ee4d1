//! All dependent objects of a table are carried over, through swap, rollback and swap. The tests compare the catalog
//! and use the objects.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::checks::errors;
use crate::support::cluster::{Version, on_every_version, on_oldest_and_newest};
use crate::support::dependents::{self, differences, fingerprint};
use crate::support::lab::Lab;
use crate::support::process::Ran;

on_every_version! {
    the_catalog_stays_the_same_except_for_what_partitioning_changes,
    objects_bound_by_oid_follow_the_name,
    objects_that_only_later_versions_have,
}
// What the objects of the same catalog do, which differs less between versions than the catalog.
on_oldest_and_newest! {
    properties_that_a_parent_cannot_have_are_on_every_partition,
    triggers_fire_for_the_application_and_on_one_table_only,
    privileges_and_policies_hold_and_cannot_be_bypassed,
    foreign_keys_are_in_force_on_the_table_in_use,
    forced_row_level_security_needs_a_role_that_bypasses_it,
}

/// Runs another command of the job, which must not report an unexpected difference in the catalog.
async fn then(lab: &Lab, command: &str) -> Ran {
    let ran = lab.ok(command).await;
    assert!(!ran.stderr.contains("unexpected difference"), "{ran:?}");
    ran
}

/// The SQLSTATE of a statement that must fail.
async fn refused(client: &Client, sql: &str) -> SqlState {
    let error = client.batch_execute(sql).await.expect_err(sql);
    error.code().unwrap_or_else(|| panic!("{sql}: {error:?}")).clone()
}

async fn the_catalog_stays_the_same_except_for_what_partitioning_changes(version: Version) {
    let lab = dependents::lab(version).await;
    let before = fingerprint(&lab).await;
    lab.ok("run").await;
    assert_eq!(differences(&before, &fingerprint(&lab).await), "");
    let output = then(&lab, "swap").await;
    let by_name: Vec<&str> = output
        .stderr
        .lines()
        .filter(|line| line.contains("changed by the swap: ") || line.contains("other difference"))
        .collect();
    insta::assert_snapshot!("told_by_name", by_name.join("\n"));
    let after = fingerprint(&lab).await;
    // A named snapshot, because the difference must be the same on every version.
    insta::assert_snapshot!("what_partitioning_changes", differences(&before, &after));
    then(&lab, "rollback").await;
    assert_eq!(differences(&before, &fingerprint(&lab).await), "");
    then(&lab, "swap").await;
    assert_eq!(differences(&after, &fingerprint(&lab).await), "");
    lab.ok("finalize --now").await;
    assert_eq!(differences(&after, &fingerprint(&lab).await), "");
}

async fn properties_that_a_parent_cannot_have_are_on_every_partition(version: Version) {
    let lab = dependents::lab(version).await;
    lab.ok("run").await;
    let client = lab.db.client().await;
    let row = client
        .query_one(
            "select count(*), array_agg(distinct c.relowner::regrole::text), array_agg(distinct c.reloptions::text),
               array_agg(distinct t.reloptions::text),
               array_agg(distinct (select i.reloptions::text from pg_index x join pg_class i on i.oid = indexrelid
                                   where indrelid = c.oid and indisprimary)),
               array_agg(distinct (select attstattarget::int from pg_attribute where attrelid = c.oid and attname = 'code'))
             from pg_inherits join pg_class c on c.oid = inhrelid left join pg_class t on t.oid = c.reltoastrelid
             where inhparent = 'lab.observations_new'::regclass",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 8);
    for (at, expected) in [
        (1, "dep_owner"),
        (2, "{fillfactor=70,autovacuum_vacuum_scale_factor=0.05}"),
        (3, "{autovacuum_enabled=off}"),
        (4, "{fillfactor=80}"),
    ] {
        assert_eq!(row.get::<_, Vec<Option<String>>>(at), [Some(expected.to_owned())]);
    }
    assert_eq!(row.get::<_, Vec<i32>>(5), [500]);
}

/// Objects of later versions: the first version that supports them, and the statement that creates them.
const LATER: &[(i64, &str)] = &[
    (15, "alter table lab.observations add constraint once unique nulls not distinct (note, created_at)"),
    (17, "grant maintain on lab.observations to dep_reader"),
    (18, "alter table lab.observations add amount_thrice numeric generated always as (amount * 3) virtual"),
    (18, "alter table lab.observations add constraint there not null doc"),
    (18, "comment on constraint there on lab.observations is 'even if empty'"),
];

/// Constraints of version 18 that a partitioned table cannot have.
const REFUSED: &[&str] = &[
    "constraint c not null place not valid",
    "constraint c check (amount > 1) not enforced",
    "constraint c foreign key (site_id) references lab.sites not enforced",
];

async fn objects_that_only_later_versions_have(version: Version) {
    let lab = dependents::lab(version).await;
    let server = lab.db.count("select current_setting('server_version_num')::bigint / 10000").await;
    for (_, sql) in LATER.iter().filter(|(since, _)| *since <= server) {
        lab.db.execute(sql).await;
    }
    for constraint in REFUSED.iter().filter(|_| server >= 18) {
        lab.db.execute(&format!("alter table lab.observations add {constraint}")).await;
        let ran = lab.ran("check").await.exits(3);
        assert_eq!(errors(&ran.stdout).len(), 1, "{constraint}: {ran:?}");
        assert!(
            errors(&ran.stdout)[0].ends_with(": constraint c on table lab.observations"),
            "{constraint}: {ran:?}"
        );
        lab.db.execute("alter table lab.observations drop constraint c").await;
    }
    let before = fingerprint(&lab).await;
    lab.ok("run").await;
    then(&lab, "swap").await;
    insta::assert_snapshot!("what_partitioning_changes", differences(&before, &fingerprint(&lab).await));
    then(&lab, "rollback").await;
    assert_eq!(differences(&before, &fingerprint(&lab).await), "");
}

/// What the application's triggers have recorded since the last call, sorted.
async fn seen(client: &Client) -> Vec<String> {
    let rows = client
        .query("with all_ as (delete from lab.seen returning what) select what from all_ order by 1", &[]);
    rows.await.unwrap().iter().map(|r| r.get(0)).collect()
}

async fn triggers_fire_for_the_application_and_on_one_table_only(version: Version) {
    let lab = dependents::lab(version).await;
    let app = lab.db.as_role("dep_app").await;
    let client = lab.db.client().await;
    let at_work = async |n: i32| {
        app.batch_execute(&format!(
            "insert into lab.observations (submission_id, code, created_at) values ({n}, 'by the app {n}', '2025-03-03Z');
             update lab.observations set note = '  said ' where code = 'by the app {n}'"
        ))
        .await
        .unwrap();
        assert_eq!(
            seen(&client).await,
            ["a_origin INSERT", "a_origin UPDATE", "d_always UPDATE", "f_late INSERT"]
        );
        let trimmed = client
            .query_one(&format!("select note from lab.observations where code = 'by the app {n}'"), &[])
            .await
            .unwrap();
        assert_eq!(trimmed.get::<_, &str>(0), "said");
    };
    lab.ok("run").await;
    assert_eq!(seen(&client).await, [""; 0], "the copy fired triggers");
    for (n, command) in (1..).zip(["swap", "rollback", "swap"]) {
        at_work(n).await;
        then(&lab, command).await;
        assert_eq!(seen(&client).await, [""; 0], "the drain of the {command} fired triggers");
    }
    at_work(4).await;
    client
        .batch_execute(
            "set session_replication_role = replica;
             insert into lab.observations (submission_id, code, created_at) values (1, 'replicated', '2025-03-03Z');
             reset session_replication_role",
        )
        .await
        .unwrap();
    assert_eq!(seen(&client).await, ["c_replica INSERT"]);
}

async fn privileges_and_policies_hold_and_cannot_be_bypassed(version: Version) {
    let lab = dependents::lab(version).await;
    let (app, reader) = (lab.db.as_role("dep_app").await, lab.db.as_role("dep_reader").await);
    let holds = async || {
        let rows: i64 = app.query_one("select count(*) from lab.observations", &[]).await.unwrap().get(0);
        assert_eq!(rows, 10_000);
        let as_refused = [
            (&app, "insert into lab.observations (submission_id, code, note) values (1, 'code', 'bad')"),
            (&app, "truncate lab.observations"),
            (&reader, "select note from lab.observations"),
            (&reader, "delete from lab.observations"),
        ];
        for (client, sql) in as_refused {
            assert_eq!(refused(client, sql).await, SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
        }
        let hidden = "insert into lab.with_names (code, submission_id, note) values ('code', 1, 'hidden')";
        assert_eq!(refused(&app, hidden).await, SqlState::WITH_CHECK_OPTION_VIOLATION);
        app.batch_execute("select nextval('lab.observations_observation_id_seq')").await.unwrap();
        reader.batch_execute("select max(observation_id) from lab.observations").await.unwrap();
        // Privileges exist only on the table, because a role that can read a partition directly sees all its rows.
        let round = "select count(*) from pg_class c, (values ('dep_app'), ('dep_reader')) r (role)
            where relnamespace = 'lab'::regnamespace and relkind = 'r' and relispartition
              and has_table_privilege(role, c.oid, 'select, insert, update, delete, truncate, references, trigger')";
        assert_eq!(lab.db.count(round).await, 0);
    };
    lab.ok("run").await;
    for command in ["swap", "rollback", "swap"] {
        holds().await;
        then(&lab, command).await;
    }
    holds().await;
}

async fn foreign_keys_are_in_force_on_the_table_in_use(version: Version) {
    let lab = dependents::lab(version).await;
    let client = lab.db.client().await;
    let rows = async |condition: String| {
        lab.db.count(&format!("select count(*) from lab.observations where {condition}")).await
    };
    let act = async |n: i32| {
        let missing = "insert into lab.observations (submission_id, code, created_at) values (999, 'code', '2025-03-03Z')";
        assert_eq!(refused(&client, missing).await, SqlState::FOREIGN_KEY_VIOLATION);
        let moved = rows(format!("site_id = {n}")).await;
        assert!(moved > 0);
        client
            .batch_execute(&format!("update lab.sites set site_id = {n} + 50 where site_id = {n}"))
            .await
            .unwrap();
        assert_eq!(rows(format!("site_id = {n} + 50")).await, moved, "on update cascade");
        let nulls = rows("site_id is null".into()).await;
        client.batch_execute(&format!("delete from lab.sites where site_id = {n} + 50")).await.unwrap();
        assert_eq!(rows("site_id is null".into()).await, nulls + moved, "on delete set null");
        assert!(rows(format!("submission_id = {n}")).await > 0);
        client
            .batch_execute(&format!("delete from lab.submissions where submission_id = {n}"))
            .await
            .unwrap();
        assert_eq!(rows(format!("submission_id = {n}")).await, 0, "on delete cascade");
    };
    lab.ok("run").await;
    for (n, command) in (11..).zip(["swap", "rollback", "swap", "verify"]) {
        act(n).await;
        then(&lab, command).await;
    }
}

async fn objects_bound_by_oid_follow_the_name(version: Version) {
    let lab = dependents::lab(version).await;
    let (client, app) = (lab.db.client().await, lab.db.as_role("dep_app").await);
    let number = async |client: &Client, sql: String| -> i64 {
        client.query_one(&sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
    };
    let works = async |n: i32| {
        client
            .batch_execute(&format!("insert into lab.inbox values ('by the rule {n}', timestamptz '2025-07-30Z' + interval '{n} hours')"))
            .await
            .unwrap();
        let found = "select count(*) from lab.observations where code";
        assert_eq!(
            number(&client, format!("{found} = 'by the rule {n}'")).await,
            1,
            "a rule of another table"
        );
        assert_eq!(
            number(&client, "select lab.how_many('by the rule')".into()).await,
            i64::from(n),
            "a function"
        );
        let newest = "select count(*) from lab.observations where created_at = lab.newest() and code";
        assert_eq!(number(&client, format!("{newest} = 'by the rule {n}'")).await, 1, "a function");
        client
            .batch_execute(&format!(
                "update lab.observations set note = 'by rule' where code = 'by the rule {n}'"
            ))
            .await
            .unwrap();
        let recorded = format!("select count(*) from lab.seen where what = 'rule by the rule {n}'");
        assert_eq!(number(&client, recorded).await, 1, "a rule of the table");
        client
            .batch_execute(&format!(
                "insert into lab.remarks select observation_id, 'x' from lab.observations where code = 'by the rule {n}'"
            ))
            .await
            .unwrap();
        assert_eq!(
            number(&app, "select count(*) from lab.remarks".into()).await,
            i64::from(n),
            "a policy of another table"
        );
        client.batch_execute("refresh materialized view concurrently lab.monthly").await.unwrap();
        let counted =
            "select (select sum(n) from lab.months)::bigint - (select count(*) from lab.observations)";
        assert_eq!(number(&client, counted.into()).await, 0, "a materialized view");
        let draft = "insert into lab.drafts (title) values ('x') returning draft_id";
        let after =
            "insert into lab.observations (submission_id, code, created_at) values (1, 'next', '2025-07-01Z')
            returning observation_id";
        let draft = number(&client, draft.into()).await;
        assert_eq!(number(&client, after.into()).await, draft + 1, "a default of another table");
        client.batch_execute("delete from lab.observations where code = 'next'").await.unwrap();
    };
    lab.ok("run").await;
    for (n, command) in (1..).zip(["swap", "rollback", "swap", "verify"]) {
        works(n).await;
        then(&lab, command).await;
    }
    works(5).await;
    lab.ok("finalize --now").await;
    works(6).await;
}

async fn forced_row_level_security_needs_a_role_that_bypasses_it(version: Version) {
    let lab = dependents::lab(version).await;
    let name = lab.db.client().await.query_one("select current_database()::text", &[]).await.unwrap();
    let name: &str = name.get(0);
    lab.db
        .execute(&format!(
            "drop owned by dep_dba; grant dep_owner to dep_dba; grant create on database {name} to dep_dba, dep_owner"
        ))
        .await;
    let plan = lab.plan();
    let owner = lab.db.dsn_of("dep_owner");
    let ran = lab.db.pgstrata_with(&["run", plan], &[("DATABASE_URL", &owner)]).await.exits(3);
    assert!(errors(&ran.stdout).contains(&"error[row_security]: lab.observations".to_owned()), "{ran:?}");
    let before = fingerprint(&lab).await;
    let dba = lab.db.dsn_of("dep_dba");
    let ran = lab.db.pgstrata_with(&["check", plan], &[("DATABASE_URL", &dba)]).await.exits(3);
    assert!(errors(&ran.stdout).contains(&"error[missing_privilege]: dep_app".to_owned()), "{ran:?}");
    lab.db.execute("grant dep_app to dep_dba").await;
    let command = async |args: &[&str]| lab.db.pgstrata_with(args, &[("DATABASE_URL", &dba)]).await.ok();
    command(&["run", plan]).await;
    command(&["swap", "observations"]).await;
    command(&["rollback", "observations"]).await;
    assert_eq!(differences(&before, &fingerprint(&lab).await), "");
    command(&["swap", "observations"]).await;
    command(&["verify", "observations"]).await;
    command(&["finalize", "observations", "--now"]).await;
}
