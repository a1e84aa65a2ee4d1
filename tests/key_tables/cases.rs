//! Statements on a table that no foreign key references.

use super::statements::Statements;

const fn case(
    name: &'static str,
    children: &'static [&'static str],
    statements: &'static [&'static str],
) -> Statements {
    Statements { name, children, trigger: "", statements }
}

/// The statements.
pub const CASES: &[Statements] = &[
    case("a duplicate in the same partition", &[], &["insert into t values (1, '2024-01-15', 'a')"]),
    case("a duplicate in another partition", &[], &["insert into t values (1, '2024-02-15', 'a')"]),
    case(
        "a duplicate within the statement",
        &[],
        &["insert into t values (20, '2024-01-15', 'a'), (20, '2024-02-15', 'b')"],
    ),
    case("copy", &[], &["copy t (id, ts, v) from stdin|30\t2024-01-11\tz\n31\t2024-02-11\tz\n"]),
    case(
        "copy of a duplicate",
        &[],
        &["copy t (id, ts, v) from stdin|30\t2024-01-11\tz\n1\t2024-02-11\tz\n"],
    ),
    case("insert from a query on the table", &[], &["insert into t select id + 100, ts, v || 'x' from t"]),
    case(
        "insert from a query with duplicates",
        &[],
        &["insert into t select id + 3, ts + 60, v || 'x' from t"],
    ),
    case(
        "on conflict (id, ts) do nothing, no conflict",
        &[],
        &["insert into t values (50, '2024-01-15', 'a') on conflict (id, ts) do nothing"],
    ),
    case(
        "on conflict (id, ts) do nothing, conflict",
        &[],
        &["insert into t values (1, '2024-01-10', 'a') on conflict (id, ts) do nothing"],
    ),
    case(
        "on conflict (id, ts) do update",
        &[],
        &[
            "insert into t values (1, '2024-01-10', 'a'), (51, '2024-01-10', 'n') on conflict (id, ts) do update set v = excluded.v",
        ],
    ),
    case(
        "on conflict (id, ts), duplicate in another partition",
        &[],
        &["insert into t values (1, '2024-02-10', 'a') on conflict (id, ts) do nothing"],
    ),
    case(
        "on conflict of another constraint leaves no key",
        &[],
        &[
            "insert into t values (77, '2024-01-10', 'v1') on conflict (v, ts) do nothing",
            "insert into t values (77, '2024-01-11', 'q')",
        ],
    ),
    case(
        "on conflict without target leaves no key",
        &[],
        &[
            "insert into t values (78, '2024-01-10', 'v1') on conflict do nothing",
            "insert into t values (78, '2024-02-11', 'q')",
        ],
    ),
    case("key change to a duplicate", &[], &["update t set id = 2 where id = 1"]),
    case(
        "move and key change to null and back",
        &[],
        &[
            "update t set ts = ts + 31, id = null where id = 8",
            "insert into t values (8, '2024-01-15', 'n')",
            "update t set ts = ts - 31, id = 9 where id is null",
        ],
    ),
    case(
        "update within the partition, then a duplicate",
        &[],
        &[
            "begin",
            "update t set ts = ts + 1 where id = 1",
            "insert into t values (1, '2024-02-15', 'd')",
            "commit",
        ],
    ),
    case(
        "move, then a duplicate",
        &[],
        &[
            "begin",
            "update t set ts = ts + 31 where id = 1",
            "insert into t values (1, '2024-01-15', 'd')",
            "commit",
        ],
    ),
    case(
        "two keys exchanged in one update",
        &[],
        &["update t set id = case id when 1 then 2 else 1 end where id in (1, 2)"],
    ),
    case("keys shifted up", &[], &["update t set id = id + 1"]),
    case(
        "delete and insert in one statement",
        &[],
        &["with d as (delete from t where id = 1 returning *) insert into t select id, ts + 31, v from d"],
    ),
    case(
        "delete, and key change to the deleted key in one statement",
        &[],
        &["with d as (delete from t where id = 1 returning id) update t set id = 1 from d where t.id = 5"],
    ),
    case("truncate", &[], &["truncate t", "insert into t values (1, '2024-01-15', 'd')"]),
    case(
        "truncate of a partition",
        &[],
        &[
            "parted: truncate t_y2024m01",
            "plain: delete from t where ts < '2024-02-01'",
            "insert into t values (1, '2024-02-15', 'd')",
        ],
    ),
    case(
        "insert into partitions",
        &[],
        &[
            "parted: insert into t_y2024m01 values (40, '2024-01-15', 'q')",
            "plain: insert into t values (40, '2024-01-15', 'q')",
            "parted: insert into t_y2024m02 values (40, '2024-02-15', 'q')",
            "plain: insert into t values (40, '2024-02-15', 'q')",
        ],
    ),
    case(
        "keys that are null",
        &[],
        &[
            "insert into t values (null, '2024-01-15', 'a'), (null, '2024-02-15', 'b')",
            "update t set id = 70 where v = 'a'",
            "update t set id = null where id = 2",
            "insert into t values (2, '2024-01-15', 'z')",
            "insert into t values (70, '2024-02-15', 'z')",
            "delete from t where id is null",
        ],
    ),
    case(
        "savepoints",
        &[],
        &[
            "begin",
            "savepoint a",
            "update t set ts = ts + 31 where id = 1",
            "insert into t values (300, '2024-01-15', 's')",
            "rollback to a",
            "insert into t values (1, '2024-02-15', 'd')",
            "rollback to a",
            "delete from t where id = 1",
            "insert into t values (1, '2024-02-15', 'd')",
            "insert into t values (300, '2024-01-15', 's')",
            "commit",
        ],
    ),
    case(
        "session_replication_role",
        &[],
        &[
            "set session_replication_role = replica",
            "insert into t values (500, '2024-01-15', 'aa')",
            "update t set ts = ts + 31 where id = 500",
            "update t set id = 501 where id = 500",
            "delete from t where id = 1",
            "reset session_replication_role",
            "insert into t values (1, '2024-02-15', 'ab')",
            "insert into t values (501, '2024-01-15', 'ac')",
        ],
    ),
    case(
        "merge: delete and insert of one key",
        &[],
        &[
            "merge into t using (values (1, 1), (900, 1)) s(i, k) on t.id = s.i when matched then delete when not matched then insert values (k, '2024-04-20', 'm')",
        ],
    ),
    case("a duplicate with the same partition column", &[], &["insert into t values (1, '2024-01-10', 'a')"]),
    case(
        "on conflict of the key",
        &[],
        &[
            "insert into t values (1, '2024-02-15', 'a') on conflict (id) do nothing",
            "insert into t values (1, '2024-02-15', 'a') on conflict (id) do update set v = 'b'",
        ],
    ),
    case(
        "on conflict on constraint",
        &[],
        &["insert into t values (1, '2024-02-15', 'a') on conflict on constraint key do nothing"],
    ),
    case(
        "on conflict without target, duplicate",
        &[],
        &["insert into t values (1, '2024-02-15', 'a') on conflict do nothing"],
    ),
    case(
        "truncate of a detached partition",
        &[],
        &[
            "begin",
            "parted: alter table t detach partition t_y2024m01",
            "parted: truncate t_y2024m01",
            "parted: alter table t attach partition t_y2024m01 for values from ('2024-01-01') to ('2024-02-01')",
            "plain: delete from t where ts < '2024-02-01'",
            "insert into t values (2, '2024-03-15', 'dup')",
            "rollback",
        ],
    ),
];
