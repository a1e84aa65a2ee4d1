//! Statements on a table that foreign keys reference, and on the referencing tables.

use super::statements::Statements;

const fn case(
    name: &'static str,
    children: &'static [&'static str],
    statements: &'static [&'static str],
) -> Statements {
    Statements { name, children, trigger: "", statements }
}

/// The statements.
pub const REFERENCES: &[Statements] = &[
    case(
        "insert several rows",
        &["cas"],
        &["insert into t values (20, '2024-01-15', 'a'), (21, '2024-02-15', 'b')"],
    ),
    case(
        "on conflict (id, ts) do update of the key",
        &["cas"],
        &["insert into t values (1, '2024-01-10', 'a') on conflict (id, ts) do update set id = 99"],
    ),
    case(
        "insert a parent, and children in the same statement",
        &["cas"],
        &[
            "with p as (insert into t values (60, '2024-01-15', 'a'), (61, '2024-02-15', 'b') returning id) insert into cas select 9, id from p",
        ],
    ),
    case(
        "insert a parent and a child in two common table expressions",
        &["noa"],
        &[
            "with p as (insert into t values (60, '2024-01-15', 'a') returning id), q as (insert into noa select 9, id from p returning tid) select * from q",
        ],
    ),
    case(
        "insert a child, and its parent in the same statement",
        &["noa"],
        &[
            "with q as (insert into noa values (9, 60) returning tid) insert into t select tid, '2024-01-15', 'a' from q",
        ],
    ),
    case("key change cascades", &["cas"], &["update t set id = 101 where id = 1"]),
    case("key change sets null", &["nul"], &["update t set id = 101 where id = 1"]),
    case(
        "key change is restricted",
        &["res"],
        &["update t set id = 101 where id = 1", "update t set id = 108 where id = 8"],
    ),
    case("key change of a referenced row", &["noa"], &["update t set id = 101 where id = 1"]),
    case(
        "key change, checked at the commit",
        &["def"],
        &["begin", "update t set id = 101 where id = 1", "update def set tid = 101 where tid = 1", "commit"],
    ),
    case(
        "key change, and of the children in the same statement",
        &["noa"],
        &[
            "with u as (update t set id = 101 where id = 1 returning 1), d as (update noa set tid = 101 where tid = 1 returning 1) select 1",
        ],
    ),
    case("a move does not cascade", &["cas"], &["update t set ts = ts + 31 where id = 1"]),
    case("a move is not restricted", &["res"], &["update t set ts = ts + 31 where id = 1"]),
    case("a move with deferred references", &["def"], &["update t set ts = ts + 31 where id = 1"]),
    case("a move does not set null", &["nul"], &["update t set ts = ts + 31 where id = 1"]),
    case("a move of all rows", &["cas"], &["update t set ts = ts + 31"]),
    case("move and key change cascade", &["cas"], &["update t set ts = ts + 31, id = 101 where id = 1"]),
    case(
        "move and key change are restricted",
        &["res"],
        &[
            "update t set ts = ts + 31, id = 101 where id = 1",
            "update t set ts = ts + 31, id = 108 where id = 8",
        ],
    ),
    case("move and key change set null", &["nul"], &["update t set ts = ts + 31, id = 101 where id = 1"]),
    case("move and key change to a duplicate", &["cas"], &["update t set ts = ts + 31, id = 2 where id = 1"]),
    case(
        "move, delete, insert",
        &["cas"],
        &[
            "begin",
            "update t set ts = ts + 31 where id = 1",
            "delete from t where id = 1",
            "insert into t values (1, '2024-01-15', 'd')",
            "commit",
        ],
    ),
    case(
        "update within the partition, delete, insert",
        &["cas"],
        &[
            "begin",
            "update t set ts = ts + 1 where id = 1",
            "delete from t where id = 1",
            "commit",
            "insert into t values (1, '2024-01-15', 'd')",
        ],
    ),
    case(
        "move and move back",
        &["cas"],
        &[
            "begin",
            "update t set ts = ts + 31 where id = 1",
            "update t set ts = ts - 31 where id = 1",
            "commit",
        ],
    ),
    case("keys shifted far", &["cas"], &["update t set id = id + 100"]),
    case("keys shifted down, cascading", &["cas"], &["update t set id = id - 1"]),
    case(
        "keys shifted down",
        &["noa"],
        &["update t set id = id - 1 where id > 4", "update t set id = id - 1 where id < 3"],
    ),
    case("delete cascades", &["cas"], &["delete from t where id = 1"]),
    case("delete is restricted", &["res"], &["delete from t where id = 1", "delete from t where id = 8"]),
    case(
        "delete of a referenced row",
        &["noa"],
        &["delete from t where id = 1", "delete from t where id = 8"],
    ),
    case("delete sets null", &["nul"], &["delete from t where id = 1"]),
    case(
        "delete of a row and its children before the commit",
        &["def"],
        &["begin", "delete from t where id = 1", "delete from def where tid = 1", "commit"],
    ),
    case(
        "delete of a row without its children",
        &["def"],
        &["begin", "delete from t where id = 1", "commit"],
    ),
    case(
        "delete of a row and its children in one statement",
        &["noa"],
        &["with d as (delete from t where id = 1 returning id) delete from noa using d where tid = d.id"],
    ),
    case("delete of all rows", &["cas", "nul"], &["delete from t"]),
    case(
        "delete and insert in one statement, cascading",
        &["cas"],
        &["with d as (delete from t where id = 1 returning *) insert into t select id, ts + 31, v from d"],
    ),
    case(
        "delete and insert in one statement, restricted",
        &["res"],
        &["with d as (delete from t where id = 1 returning *) insert into t select id, ts + 31, v from d"],
    ),
    case(
        "delete and insert in one statement, referenced",
        &["noa"],
        &["with d as (delete from t where id = 1 returning *) insert into t select id, ts + 31, v from d"],
    ),
    case(
        "delete and insert in one statement, deferred",
        &["def"],
        &["with d as (delete from t where id = 1 returning *) insert into t select id, ts + 31, v from d"],
    ),
    case(
        "delete and insert in one transaction",
        &["cas"],
        &["begin", "delete from t where id = 1", "insert into t values (1, '2024-01-15', 'd')", "commit"],
    ),
    case(
        "duplicate and move of the key in one statement",
        &["cas"],
        &[
            "with i as (insert into t values (1, '2024-04-20', 'dup') returning id) update t set ts = t.ts + 31 from i where t.id = 1",
        ],
    ),
    case(
        "move and duplicate of the key in one statement",
        &["cas"],
        &[
            "with u as (update t set ts = ts + 31 where id = 1 returning id) insert into t select id, '2024-04-20', 'dup' from u",
        ],
    ),
    case(
        "update within the partition and duplicate in one statement",
        &["cas"],
        &[
            "with u as (update t set ts = ts + 1 where id = 1 returning id) insert into t select id, '2024-04-20', 'dup' from u",
        ],
    ),
    case("truncate of a referenced table", &["cas"], &["truncate t"]),
    case(
        "truncate with a child",
        &["cas"],
        &["truncate t, cas, res, noa, nul, def, imm", "insert into t values (1, '2024-01-15', 'd')"],
    ),
    case(
        "update and delete on partitions",
        &["cas"],
        &[
            "parted: update t_y2024m01 set id = 201 where id = 1",
            "plain: update t set id = 201 where id = 1",
            "parted: delete from t_y2024m02 where id = 2",
            "plain: delete from t where id = 2",
            "parted: update t_y2024m01 set ts = ts + 1",
            "plain: update t set ts = ts + 1 where ts < '2024-02-01'",
            "insert into t values (5, '2024-02-15', 'd')",
        ],
    ),
    case(
        "savepoint, move that fails",
        &["cas"],
        &[
            "begin",
            "savepoint a",
            "update t set ts = ts + 31, v = (1/(id - 1))::text where id in (2, 1)",
            "rollback to a",
            "delete from t where id = 2",
            "insert into t values (2, '2024-01-15', 'q')",
            "insert into t values (2, '2024-02-15', 'q')",
            "commit",
        ],
    ),
    case(
        "merge with every action",
        &["cas"],
        &[
            "merge into t using (values (1), (2), (3), (90)) s(i) on t.id = s.i when matched and i = 1 then update set ts = ts + 31 when matched and i = 2 then delete when matched then update set id = 91 when not matched then insert values (i, '2024-02-20', 'm')",
        ],
    ),
    case(
        "merge: move, then duplicate",
        &["cas"],
        &[
            "merge into t using (values (1, 1), (900, 1)) s(i, k) on t.id = s.i when matched then update set ts = ts + 31 when not matched then insert values (k, '2024-04-20', 'm')",
        ],
    ),
    case(
        "merge: duplicate, then move",
        &["cas"],
        &[
            "merge into t using (values (900, 1), (1, 1)) s(i, k) on t.id = s.i when matched then update set ts = ts + 31 when not matched then insert values (k, '2024-04-20', 'm')",
        ],
    ),
    case("truncate cascade", &["cas"], &["truncate t cascade"]),
    case("truncate of a table with empty children", &["self"], &["truncate t"]),
    case(
        "a deferrable foreign key that is deferred",
        &["imm"],
        &[
            "begin",
            "set constraints imm_fk deferred",
            "delete from t where id = 1",
            "update t set v = 'w' where id = 2",
            "delete from imm where tid = 1",
            "commit",
        ],
    ),
    case(
        "a deferrable foreign key",
        &["imm"],
        &[
            "delete from t where id = 1",
            "update t set ts = ts + 31 where id = 1",
            "with d as (delete from t where id = 2 returning id) delete from imm using d where tid = d.id",
        ],
    ),
    case(
        "set constraints all",
        &["noa", "def"],
        &[
            "begin",
            "set constraints all immediate",
            "delete from t where id = 8",
            "delete from t where id = 1",
            "rollback",
            "begin",
            "set constraints all deferred",
            "delete from def where tid = 1",
            "delete from t where id = 1",
            "commit",
        ],
    ),
    case(
        "update of other columns",
        &["res"],
        &[
            "update t set v = v || 'x'",
            "update t set id = id, ts = ts",
            "update t set ts = ts + 1 where id < 3",
        ],
    ),
    case(
        "a cursor",
        &["cas"],
        &[
            "begin",
            "declare c cursor for select id from t where id = 1 for update",
            "fetch c",
            "update t set ts = ts + 31 where current of c",
            "commit",
            "begin",
            "declare c cursor for select id from t where id = 2 for update",
            "fetch c",
            "delete from t where current of c",
            "commit",
        ],
    ),
    case(
        "a child without a parent",
        &["cas"],
        &[
            "insert into cas values (9, 99)",
            "update cas set tid = 99 where tid = 1",
            "insert into cas values (9, null), (9, 8)",
        ],
    ),
    case(
        "a function that changes rows twice",
        &["cas"],
        &[
            "do $$ begin update t set ts = ts + 31 where id = 1; update t set id = 11 where id = 1; begin insert into t values (11, '2024-01-01', 'd'); exception when unique_violation then update t set ts = ts - 31 where id = 11; end; end $$",
            "delete from t where id = 11",
        ],
    ),
    case(
        "key change to null cascades",
        &["cas"],
        &["update t set id = null where id = 1", "update t set id = null, ts = ts + 31 where id = 2"],
    ),
    case(
        "key change to null sets null",
        &["nul"],
        &["update t set id = null where id = 1", "update t set id = null, ts = ts + 31 where id = 2"],
    ),
    case(
        "key change to null is restricted",
        &["res"],
        &[
            "update t set id = null where id = 1",
            "update t set id = null, ts = ts + 31 where id = 2",
            "update t set id = null where id = 8",
        ],
    ),
    case(
        "key change to null of a referenced row",
        &["noa"],
        &["update t set id = null where id = 1", "update t set id = null, ts = ts + 31 where id = 8"],
    ),
];
