//! Constraints that only newer servers support on partitions, through swap, rollback and swap.

use tokio_postgres::error::SqlState;

use crate::support::cluster::{Database, Version};

const BOOKINGS: &str = "create extension btree_gist;
    create table bookings (id bigint primary key, day date not null, room int not null, hours int4range not null,
      constraint once exclude using gist (day with =, room with =, hours with &&) where (room > 0));
    comment on constraint once on bookings is 'no two at a time';
    insert into bookings select i, date '2024-01-01' + i % 90, i / 90 + 1, '[8,12)' from generate_series(0, 899) i;
    analyze bookings";

const PLAN: &str =
    "table = 'bookings'\n[partition]\nby = 'day'\nevery = 'month'\nto = '2024-05-01'\nahead = 1\n";

/// Two bookings exchange their rooms, in both directions: whichever row the drain applies first conflicts with the
/// other for a moment.
const EXCHANGE: &str =
    "begin; update bookings set room = -5 where id = 0; update bookings set room = 1 where id = 90;
    update bookings set room = 2 where id = 0; commit;
    begin; update bookings set room = -5 where id = 0; update bookings set room = 2 where id = 90;
    update bookings set room = 1 where id = 0; commit";

async fn an_exclusion_constraint_is_carried_over(version: Version) {
    let db = Database::of(version).await;
    db.execute(BOOKINGS).await;
    let plan = db.plan(PLAN);
    let holds = async || {
        let client = db.client().await;
        let twice = "insert into bookings values (-1, '2024-02-01', 1, '[9,10)')";
        let error = client.batch_execute(twice).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::EXCLUSION_VIOLATION), "{error:?}");
        let named =
            "select count(*) from pg_constraint where conrelid = 'bookings'::regclass and conname = 'once'
            and obj_description(oid) = 'no two at a time'";
        assert_eq!(db.count(named).await, 1);
        db.execute(EXCHANGE).await;
    };
    db.pgstrata(&["run", plan.to_str().unwrap()]).await.ok();
    for command in ["swap", "rollback", "swap", "verify"] {
        holds().await;
        db.pgstrata(&[command, "bookings"]).await.ok();
    }
    holds().await;
    db.pgstrata(&["finalize", "bookings", "--now"]).await.ok();
    db.pgstrata(&["maintain", "bookings"]).await.ok();
    let alike = "select count(*) - count(*) filter (where exists (
        select from pg_constraint k where k.conrelid = inhrelid and k.contype = 'x' and k.conparentid <> 0))
        from pg_inherits where inhparent = 'bookings'::regclass";
    assert_eq!(db.count(alike).await, 0);
    assert!(db.count("select count(*) from pg_inherits where inhparent = 'bookings'::regclass").await > 20);
}

mod v17 {
    use super::*;

    #[tokio::test]
    async fn an_exclusion_constraint_is_carried_over() {
        if Version::V17.is_there() {
            super::an_exclusion_constraint_is_carried_over(Version::V17).await;
        }
    }
}

mod v18 {
    use super::*;

    #[tokio::test]
    async fn an_exclusion_constraint_is_carried_over() {
        if Version::V18.is_there() {
            super::an_exclusion_constraint_is_carried_over(Version::V18).await;
        }
    }

    /// With NO INHERIT, the partitions would lack the constraints.
    #[tokio::test]
    async fn no_inherit_constraints_apply_to_partitions() {
        if !Version::V18.is_there() {
            return;
        }
        let db = Database::of(Version::V18).await;
        db.execute(
            "create unlogged table t (id bigint primary key, at date not null no inherit, note text not null no inherit,
               constraint small check (id < 100) no inherit);
             insert into t values (1, '2024-01-01', '')",
        )
        .await;
        let plan = db.plan("table = 't'\n[partition]\nby = 'at'\nevery = 'year'\n");
        db.pgstrata(&["run", plan.to_str().unwrap(), "--swap"]).await.ok();
        let client = db.client().await;
        for (row, code) in [
            ("(2, '2024-01-01', null)", SqlState::NOT_NULL_VIOLATION),
            ("(2, null, '')", SqlState::NOT_NULL_VIOLATION),
            ("(100, '2024-01-01', '')", SqlState::CHECK_VIOLATION),
        ] {
            let error = client.batch_execute(&format!("insert into t values {row}")).await.unwrap_err();
            assert_eq!(error.code(), Some(&code), "{row}");
        }
        db.pgstrata(&["rollback", "t"]).await.ok();
        db.pgstrata(&["swap", "t"]).await.ok();
    }
}
