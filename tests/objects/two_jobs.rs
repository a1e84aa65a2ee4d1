//! Two jobs at the same time: on tables that a foreign key connects, the second job is refused with the name of the
//! first; on tables that share only views, both succeed in any order. A job does not take over the trigger of another.

use crate::support::checks::errors;
use crate::support::cluster::Database;

const SETUP: &str = "
    create table orders (id bigint generated always as identity, at date not null, v text, primary key (id, at));
    create table items (id bigint generated always as identity, order_id bigint not null, at date not null, v text,
      primary key (id, at), foreign key (order_id, at) references orders (id, at) on delete cascade);
    insert into orders (at, v) select date '2025-01-01' + i % 200, 'v' from generate_series(1, 1500) i;
    insert into items (order_id, at, v) select id, at, 'i' from orders;
    analyze";

fn partition(table: &str) -> String {
    format!("name = '{table}'\ntable = '{table}'\n[partition]\nby = 'at'\nevery = '1 month'\n")
}

fn retype(table: &str) -> String {
    format!(
        "name = '{table}_v'\nkind = 'retype'\ntable = '{table}'\n[retype]\ncolumn = 'v'\nto = 'varchar(99)'\nusing = 't.v'\n"
    )
}

#[tokio::test]
async fn the_second_of_two_jobs_is_refused_and_names_the_first() {
    for (first, second) in [
        (partition("orders"), partition("items")),
        (partition("items"), partition("orders")),
        (retype("orders"), partition("items")),
        (partition("orders"), retype("items")),
    ] {
        let db = Database::new().await;
        db.execute(SETUP).await;
        let (first, second) = (db.plan(&first), db.plan(&second));
        db.pgstrata(&["run", first.to_str().unwrap()]).await.ok();
        let ran = db.pgstrata(&["run", second.to_str().unwrap()]).await.exits(3);
        let output = ran.stdout;
        assert_eq!(errors(&output).len(), 1, "{output}");
        assert!(errors(&output)[0].starts_with("error[table_in_other_job]: "), "{output}");
        assert!(output.contains("foreign key items_order_id_at_fkey connects public."), "{output}");
        assert!(output.contains("`pgstrata abort "), "{output}");
    }
}

#[tokio::test]
async fn two_jobs_succeed_one_after_the_other() {
    let db = Database::new().await;
    db.execute(SETUP).await;
    for table in ["orders", "items"] {
        let plan = db.plan(&partition(table));
        db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
        db.pgstrata(&["swap", table]).await.ok();
        let other = db.plan(&partition(if table == "orders" { "items" } else { "orders" }));
        let ran = db.pgstrata(&["check", other.to_str().unwrap()]).await;
        if table == "orders" {
            assert!(ran.stdout.contains("`pgstrata finalize --now orders`"), "{}", ran.stdout);
            assert!(!ran.stdout.contains("or end it: `pgstrata abort orders`"), "{}", ran.stdout);
        }
        for command in ["rollback", "swap"] {
            db.pgstrata(&[command, table]).await.ok();
        }
        db.pgstrata(&["finalize", table, "--now"]).await.ok();
    }
    db.execute("delete from orders where id = 7").await;
    assert_eq!(db.count("select count(*) from items").await, 1499);
}

const SHARED: &str = "
    create table a (id int primary key, at date not null, v text);
    create table b (id int primary key, at date not null, v text, w int);
    insert into a select i, date '2025-01-01' + i % 90, 'a' || i from generate_series(1, 300) i;
    insert into b select i, date '2025-01-01' + i % 90, 'b' || i, i from generate_series(1, 300) i;
    create view both_of_them as select a.id, a.v as of_a, b.v as of_b from a join b using (id);
    create view above as select count(*) as n from both_of_them;
    create materialized view stored as select a.id, a.v as of_a, b.v as of_b from a join b using (id);
    create unique index on stored (id);
    analyze";

/// Asserts that the views read the tables in use.
async fn shared_views_are_current(db: &Database, step: &str, n: i64) {
    db.execute(&format!("update a set v = 'n{n}' where id = {n}; refresh materialized view stored")).await;
    for wrong in [
        "select count(*) from both_of_them v join a using (id) join b using (id) where of_a <> a.v or of_b <> b.v",
        "select count(*) from stored v join a using (id) join b using (id) where of_a <> a.v or of_b <> b.v",
        "select 300 - n from above",
        "select count(*) - 300 from stored",
    ] {
        assert_eq!(db.count(wrong).await, 0, "{step}: {wrong}");
    }
}

#[tokio::test]
async fn two_jobs_whose_tables_share_views() {
    let retype_w =
        "name = 'b'\nkind = 'retype'\ntable = 'b'\n[retype]\ncolumn = 'w'\nto = 'bigint'\n".to_owned();
    for (second, steps) in [
        (partition("b"), "swap a, swap b, rollback a, rollback b, swap b, swap a, finalize b, finalize a"),
        (partition("b"), "swap b, swap a, rollback a, swap a, rollback b, swap b, finalize a, finalize b"),
        (retype_w, "swap a, swap b, rollback a, rollback b, swap b, swap a, finalize b, finalize a"),
    ] {
        let db = Database::new().await;
        db.execute(SHARED).await;
        for plan in [partition("a"), second] {
            let plan = db.plan(&plan);
            db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
        }
        for (n, step) in steps.split(", ").enumerate() {
            let (command, job) = step.split_once(' ').unwrap();
            let now: &[&str] = if command == "finalize" { &["--now"] } else { &[] };
            db.pgstrata(&[&[command, job], now].concat()).await.ok();
            shared_views_are_current(&db, step, i64::try_from(n).unwrap() + 1).await;
        }
    }
}

/// Rules and policies of one table that use the other: partitioning the first creates them again.
#[tokio::test]
async fn two_jobs_whose_tables_share_a_rule_or_a_policy() {
    let rule = "create rule logged as on update to a do also update b set v = new.v where id = new.id";
    let policy = "create policy known on a using (exists (select from b where b.id = a.id))";
    for (object, name) in [(rule, "rule logged"), (policy, "policy known")] {
        for (first, second) in [("a", "b"), ("b", "a")] {
            let db = Database::new().await;
            db.execute(&format!("{SHARED}; {object}")).await;
            let (open, plan) = (db.plan(&partition(first)), db.plan(&partition(second)));
            db.pgstrata(&["run", open.to_str().unwrap()]).await.ok();
            let ran = db.pgstrata(&["run", plan.to_str().unwrap()]).await.exits(3);
            assert_eq!(errors(&ran.stdout), [format!("error[table_in_other_job]: public.{second}")]);
            let connected = format!("{name} of public.a connects public.{second} to public.");
            assert!(ran.stdout.contains(&connected), "{}", ran.stdout);
        }
    }
}

/// A trigger that a finished backfill keeps is not taken over by a job of the same name.
#[tokio::test]
async fn the_name_of_a_backfill_that_keeps_its_trigger_is_taken() {
    let db = Database::new().await;
    db.execute(SHARED).await;
    let fill = |table: &str| {
        db.plan(&format!(
            "name = 'fill'\nkind = 'backfill'\ntable = '{table}'\n[backfill]\nset = {{ v = \"'x' || t.id\" }}\nkeep_filled = 'always'\n"
        ))
    };
    db.pgstrata(&["run", fill("b").to_str().unwrap()]).await.ok();
    let retype = "name = 'fill'\nkind = 'retype'\ntable = 'b'\n[retype]\ncolumn = 'w'\nto = 'bigint'\n";
    for plan in [fill("a"), db.plan(retype)] {
        let ran = db.pgstrata(&["run", plan.to_str().unwrap()]).await.exits(3);
        assert_eq!(errors(&ran.stdout), ["error[job_name_taken]: fill"]);
    }
    // The same backfill may run again, and so may another job with another name.
    db.pgstrata(&["run", fill("b").to_str().unwrap()]).await.ok();
    let other = db.plan(&retype.replace("'fill'", "'other'"));
    db.pgstrata(&["run", other.to_str().unwrap(), "--swap"]).await.ok();
    db.execute("insert into b values (1000, '2025-01-01', 'y', 5)").await;
    assert_eq!(db.count("select count(*) from b where v = 'x' || id").await, 301);
}
