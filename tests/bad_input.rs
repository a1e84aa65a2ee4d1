//! Plans that do not fit their table: each case's message, as `check` and `run` find it on a real server.

use pgstrata::pg::connect::Target;
use pgstrata::pg::preflight::{Preflight, preflight};
use pgstrata::plan::Plan;

use super::support::cluster::Database;

/// What preflight finds as the superuser.
async fn found(db: &Database, plan: &str) -> Preflight {
    let plan = Plan::parse(plan, "plan.toml").unwrap();
    let session = Target::from_env(Some(db.dsn())).unwrap().connect("preflight").await.unwrap();
    preflight(&session, &plan).await.unwrap()
}

/// The same, one finding a line with its hint below.
async fn told(db: &Database, plan: &str) -> String {
    let mut lines = Vec::new();
    for f in &found(db, plan).await.findings {
        lines.push(format!("{} {} {}: {}", f.level, f.code, f.object, f.message));
        if !f.hint.is_empty() {
            lines.push(format!("  hint: {}", f.hint));
        }
    }
    lines.join("\n")
}

const MONTHS: &str = "table = 't'\n[partition]\nby = 'at'\nevery = 'month'\n";

#[tokio::test]
async fn a_good_table_gets_a_blueprint() {
    let db = Database::new().await;
    db.execute(
        "create table t (id bigint primary key, at timestamptz not null);
         insert into t select i, timestamptz '2024-01-15 00:00:00Z' + i * interval '1 day' from generate_series(0, 99) i;
         analyze t",
    )
    .await;
    let plan = format!("{MONTHS}to = '2024-09-15'\n");
    insta::assert_snapshot!(told(&db, &plan).await, @"
    warning key_widened t_pkey: the key t_pkey (id) becomes (id, at): after the swap nothing keeps (id) alone unique, and ON CONFLICT (id) fails
      hint: look for ON CONFLICT (id) in the applications, and see that (id) comes from a sequence or is a uuid
    note no_index_on_partition_column at: no index leads with at: its ends were found by reading the whole table
    note size public.t: public.t holds about 100 rows, 24.00 KiB with indexes; the job needs about as much again on disk
    note partitions public.t: 9 partitions from 2024-01-01 00:00:00+00 to 2024-10-01 00:00:00+00 and a default partition
    ");
    let b = found(&db, &plan).await.blueprint.unwrap();
    let parts: Vec<String> =
        b.partitions.iter().map(|p| format!("{} {} {}", p.name.plain(), p.from, p.to)).collect();
    insta::assert_snapshot!(parts.join("\n"), @"
    public.t_y2024m01 2024-01-01 00:00:00+00 2024-02-01 00:00:00+00
    public.t_y2024m02 2024-02-01 00:00:00+00 2024-03-01 00:00:00+00
    public.t_y2024m03 2024-03-01 00:00:00+00 2024-04-01 00:00:00+00
    public.t_y2024m04 2024-04-01 00:00:00+00 2024-05-01 00:00:00+00
    public.t_y2024m05 2024-05-01 00:00:00+00 2024-06-01 00:00:00+00
    public.t_y2024m06 2024-06-01 00:00:00+00 2024-07-01 00:00:00+00
    public.t_y2024m07 2024-07-01 00:00:00+00 2024-08-01 00:00:00+00
    public.t_y2024m08 2024-08-01 00:00:00+00 2024-09-01 00:00:00+00
    public.t_y2024m09 2024-09-01 00:00:00+00 2024-10-01 00:00:00+00
    ");
}
