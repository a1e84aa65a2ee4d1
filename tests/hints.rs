//! The commands and corrections that hints suggest work as printed, and messages name the affected rows.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::cluster::Database;
use crate::support::process::Ran;

/// The command in backquotes that begins with `start`.
fn hinted(output: &str, start: &str) -> String {
    let mut parts = output.split('`').filter(|part| part.starts_with(start));
    parts.next().unwrap_or_else(|| panic!("`{start} ...` is not in: {output}")).to_owned()
}

/// Runs a command line in a shell and returns its output.
async fn shell(db: &Database, line: &str) -> String {
    let bin = Path::new(env!("CARGO_BIN_EXE_pgstrata")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", line]).env("PATH", path).env("DATABASE_URL", db.dsn());
    let ran = command.output().await.unwrap();
    let output = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{line}: {output}");
    output.into_owned()
}

#[tokio::test]
async fn the_printed_commands_work_for_a_job_with_an_odd_name() {
    // Without a name in the plan, the job has the name of the table.
    for (table, name) in
        [("Ünï/ t'x", None), ("t", Some("it's \"$(false)\" $HOME \\ *")), ("t", Some("-x; false"))]
    {
        let db = Database::new().await;
        db.execute(&format!(
            r#"create table "{table}" (id int primary key, v text, at timestamptz not null default now());
               insert into "{table}" select i from generate_series(1, 100) i"#
        ))
        .await;
        let named = name.map_or(String::new(), |name| format!("name = '''{name}'''\n"));
        let partition = format!("table = '''\"{table}\"'''\n[partition]\nby = \"at\"\nevery = \"1 month\"\n");
        let plan = db.plan(&format!("{named}{partition}"));
        let output = db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok().stdout;
        // Another job on the table is told how to end this one.
        let other = db.plan(&format!("name = 'other'\n{partition}"));
        let told = db.pgstrata(&["run", other.to_str().unwrap()]).await.exits(3).stdout;
        assert!(hinted(&told, "pgstrata abort").contains('\''), "{told}");
        let output = shell(&db, &hinted(&output, "pgstrata swap")).await;
        let output = shell(&db, &hinted(&output, "pgstrata rollback")).await;
        let output = shell(&db, &hinted(&output, "pgstrata swap")).await;
        // The old table is still kept: the hint shows how to finalize now.
        let refused = db.pgstrata(&["finalize", "--", name.unwrap_or(table)]).await.exits(6).stderr;
        assert!(hinted(&output, "pgstrata finalize").contains('\''), "{output}");
        shell(&db, &hinted(&refused, "pgstrata finalize")).await;
        assert_eq!(db.count("select count(*) from pgstrata.jobs where state = 'finalized'").await, 1);
    }
}

/// A unique index over rows with duplicate values, as after a change of the operating system's collations.
#[tokio::test]
async fn duplicates_from_a_corrupt_unique_index_are_reported_and_the_job_resumes_without_them() {
    for definition in ["(v, at)", "(at, v) where v <> 'none'"] {
        let db = Database::new().await;
        db.execute(&format!(
            "create table t (nr bigint generated always as identity primary key, id int, v text, at timestamptz not null default now());
             insert into t (id, v, at) select i, 'v' || i, timestamptz '2025-01-01Z' + i * interval '3 hours' from generate_series(1, 1500) i;
             analyze t; create index t_v on t {definition};
             update t set v = 'same', at = '2025-02-02Z' where nr in (500, 501);
             update pg_index set indisunique = true where indexrelid = 't_v'::regclass"
        ))
        .await;
        let plan = db.plan("name = \"job\"\ntable = \"t\"\n[partition]\nby = \"at\"\nevery = \"1 month\"\n");
        let plan = plan.to_str().unwrap();
        let output = db.pgstrata(&["run", plan]).await.exits(4).stderr;
        assert!(output.contains(" t_v ") && output.contains("500 and 501"), "{definition}: {output}");
        assert!(!output.contains("same,"), "a value of a row is printed: {output}");
        db.execute("delete from t where nr = 501").await;
        db.pgstrata(&["run", plan, "--swap"]).await.ok();
        assert_eq!(db.count("select count(*) from t").await, 1499);
    }
}

#[tokio::test]
async fn rows_that_a_retype_makes_equal_are_reported() {
    for definition in ["(code)", "(coalesce(code, code), (n + 1)) where n > 0"] {
        let db = Database::new().await;
        db.execute(&format!(
            "create table t (id int primary key, code text not null, n int);
             insert into t select i, i::text, 1 from generate_series(1, 1000) i; update t set code = '07' where id = 8;
             create unique index t_code_key on t {definition}; analyze t"
        ))
        .await;
        let plan = db.plan(
            "name = \"job\"\nkind = \"retype\"\ntable = \"t\"\n[retype]\ncolumn = \"code\"\nto = \"integer\"\n",
        );
        let plan = plan.to_str().unwrap();
        let output = db.pgstrata(&["run", plan]).await.exits(4).stderr;
        assert!(output.contains(" t_code_key_new") && output.contains("7 and 8"), "{definition}: {output}");
        db.execute("update t set code = '08' where id = 8").await;
        db.pgstrata(&["run", plan]).await.ok();
    }
}

/// Before and after the swap, for both kinds of job with a swap.
#[tokio::test]
async fn a_mismatch_is_explained_differently_before_and_after_the_swap() {
    let kinds = [
        (
            "[partition]\nby = \"at\"\nevery = \"1 month\"\n",
            "update t_new set v = 7 where id = 1",
            "alter table t_old disable trigger pgstrata_guard; update t_old set v = 7 where id = 1",
        ),
        (
            "kind = \"retype\"\n[retype]\ncolumn = \"v\"\nto = \"bigint\"\n",
            "set pgstrata.filling = 'on'; update t set v_new = 7 where id = 1",
            "set pgstrata.filling = 'on'; update t set v_old = 7 where id = 1",
        ),
    ];
    for (more, before, after) in kinds {
        let db = Database::new().await;
        db.execute(
            "create table t (id int primary key, at timestamptz not null, v int not null);
             insert into t select i, '2024-01-01'::timestamptz + i * interval '6 hours', i from generate_series(1, 500) i; analyze t",
        )
        .await;
        let plan = db.plan(&format!("name = \"job\"\ntable = \"t\"\n{more}"));
        db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
        db.execute(before).await;
        let output = db.pgstrata(&["verify", "job"]).await.exits(4).stderr;
        assert!(output.contains("`pgstrata abort job`") && !output.contains("pgstrata finalize"), "{output}");
        db.execute("update t set v = v where id = 1").await;
        db.pgstrata(&["swap", "job"]).await.ok();
        db.execute(after).await;
        for command in ["verify", "rollback"] {
            let output = db.pgstrata(&[command, "job"]).await.exits(4).stderr;
            assert!(output.contains("`pgstrata finalize --now job`"), "{command}: {output}");
            assert!(!output.contains("pgstrata abort"), "{command}: {output}");
        }
    }
}

/// A GRANT while the job is open is reported with exactly the privileges that were granted, before and after a swap.
#[tokio::test]
async fn a_privilege_that_is_carried_over_is_reported_by_name() {
    for kind in [
        "[partition]\nby = 'at'\nevery = '1 month'\n",
        "kind = 'retype'\n[retype]\ncolumn = 'v'\nto = 'bigint'\n",
    ] {
        let db = Database::new().await;
        let app = format!("hints_{}", db.name());
        db.execute(&format!(
            "create role {app}; create table t (id int primary key, at timestamptz not null, v int not null);
             insert into t select i, '2024-01-01'::timestamptz + i * interval '6 hours', i from generate_series(1, 500) i; analyze t"
        ))
        .await;
        let plan = db.plan(&format!("name = 'job'\ntable = 't'\n{kind}"));
        db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
        for (grant, command) in [("select", "swap"), ("update (v)", "rollback")] {
            db.execute(&format!("grant {grant} on t to {app}")).await;
            let ran = db.pgstrata(&[command, "job", "--json"]).await.ok();
            let privilege = grant.to_uppercase().replace("(V)", "(v)");
            let granted =
                json!([format!("privilege {privilege} of {app} (granted by postgres) was granted")]);
            let carried: Vec<Value> =
                ran.events("carried_over").into_iter().map(|mut event| event["changes"].take()).collect();
            // A retype exchanges columns of one table, so only the privilege of the column is carried over.
            let expected = if kind.contains("retype") && command == "swap" { vec![] } else { vec![granted] };
            assert_eq!(carried, expected, "{command}");
            assert_eq!(db.count(&format!("select count(*) from pg_class where oid = 't'::regclass and has_table_privilege('{app}', oid, 'select')")).await, 1);
        }
        assert!(db.count(&format!("select count(*) from pg_class where oid = 't'::regclass and has_column_privilege('{app}', oid, 'v', 'update')")).await == 1);
        db.execute(&format!("drop owned by {app}; drop role {app}")).await;
    }
}

/// Any role that can create objects in some schema can use the row type of a table, or the sequence of its identity column.
#[tokio::test]
async fn users_that_were_added_to_the_table_can_be_dropped() {
    let db = Database::new().await;
    db.execute(
        "create schema own; create table t (id int generated by default as identity primary key, at timestamptz not null);
         insert into t (at) select timestamptz '2024-01-01Z' + i * interval '1 hour' from generate_series(1, 1000) i; analyze t",
    )
    .await;
    let added = |ran: &Ran| {
        assert!(ran.stderr.contains("hint: drop what was added, or change it"), "{ran:?}");
    };
    let plan = db.plan("name = 'p'\ntable = 't'\n[partition]\nby = 'at'\nevery = '1 month'\n");
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    for command in ["swap", "rollback"] {
        db.execute(
            "create function own.f(int, t) returns int language sql as 'select 1';
             create aggregate own.a(t) (sfunc = own.f, stype = int, initcond = '0')",
        )
        .await;
        added(&db.pgstrata(&[command, "p"]).await.exits(1));
        db.execute("drop aggregate own.a(t); drop function own.f").await;
        db.pgstrata(&[command, "p"]).await.ok();
    }
    db.pgstrata(&["abort", "p"]).await.ok();
    let plan = db.plan("name = 'r'\nkind = 'retype'\ntable = 't'\n[retype]\ncolumn = 'id'\nto = 'bigint'\n");
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    for command in ["swap", "rollback"] {
        db.execute("create table own.o (id bigint default nextval('t_id_seq'))").await;
        added(&db.pgstrata(&[command, "r"]).await.exits(1));
        db.execute("drop table own.o").await;
        db.pgstrata(&[command, "r"]).await.ok();
    }
}
