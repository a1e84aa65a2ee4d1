//! Jobs on two tables that are connected by a foreign key: the second job is refused with the name of the first.

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
        assert!(output.contains("which foreign key items_order_id_at_fkey connects to public."), "{output}");
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
            assert!(ran.stdout.contains("`pgstrata finalize orders`"), "{}", ran.stdout);
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
