//! Statements on a table with triggers of the application.

use super::statements::Statements;

const fn case(
    name: &'static str,
    children: &'static [&'static str],
    trigger: &'static str,
    statements: &'static [&'static str],
) -> Statements {
    Statements { name, children, trigger, statements }
}

/// Statements with a trigger of the application.
pub const TRIGGERS: &[Statements] = &[
    case(
        "before insert: changes the key",
        &[],
        "create function application() returns trigger language plpgsql as $$ begin if new.id > 1000 then new.id := new.id + 1000; end if; return new; end $$; create trigger m_user before insert on t for each row execute function application()",
        &[
            "insert into t values (1001, '2024-01-15', 'a')",
            "insert into t values (1001, '2024-02-15', 'a')",
            "insert into t values (2001, '2024-02-15', 'a')",
        ],
    ),
    case(
        "before insert, late name: changes the key",
        &[],
        "create function application() returns trigger language plpgsql as $$ begin if new.id > 1000 then new.id := new.id + 1000; end if; return new; end $$; create trigger zzé before insert on t for each row execute function application()",
        &["insert into t values (1001, '2024-01-15', 'a')", "insert into t values (2001, '2024-02-15', 'a')"],
    ),
    case(
        "before insert, last name: changes the key",
        &[],
        "create function application() returns trigger language plpgsql as $$ begin if new.id > 1000 then new.id := new.id + 1000; end if; return new; end $$; create trigger \"é\" before insert on t for each row execute function application()",
        &["insert into t values (1001, '2024-01-15', 'a')", "insert into t values (2001, '2024-02-15', 'a')"],
    ),
    case(
        "before insert: skips the row",
        &[],
        "create function application() returns trigger language plpgsql as $$ begin if new.id > 1000 then return null; end if; return new; end $$; create trigger m_user before insert on t for each row execute function application()",
        &[
            "insert into t values (1001, '2024-01-15', 'a')",
            "insert into t values (1001, '2024-02-15', 'a')",
            "alter table t disable trigger m_user",
            "insert into t values (1001, '2024-02-15', 'a')",
        ],
    ),
    case(
        "before insert, last name: skips the row",
        &[],
        "create function application() returns trigger language plpgsql as $$ begin if new.id > 1000 then return null; end if; return new; end $$; create trigger \"é\" before insert on t for each row execute function application()",
        &[
            "insert into t values (1001, '2024-01-15', 'a')",
            "drop trigger \"é\" on t",
            "insert into t values (1001, '2024-02-15', 'a')",
        ],
    ),
    case(
        "before insert: skips a moved row",
        &[],
        "create function application() returns trigger language plpgsql as $$ begin if new.id = 7 and new.ts > '2024-04-01' then return null; end if; return new; end $$; create trigger m_user before insert on t for each row execute function application()",
        &[
            "parted: update t set ts = ts + 31 where id = 7",
            "plain: delete from t where id = 7",
            "parted: drop trigger m_user on t",
            "insert into t values (7, '2024-01-15', 'back')",
        ],
    ),
    case(
        "before insert: changes the key of a moved row",
        &[],
        "create function application() returns trigger language plpgsql as $$ begin if new.id = 7 and new.ts > '2024-04-01' then new.id := 88; end if; return new; end $$; create trigger m_user before insert on t for each row execute function application()",
        &[
            "parted: update t set ts = ts + 31 where id = 7",
            "plain: update t set ts = ts + 31, id = 88 where id = 7",
            "insert into t values (7, '2024-01-15', 'back')",
            "insert into t values (88, '2024-01-15', 'back2')",
        ],
    ),
    case(
        "before delete: prevents a move",
        &[],
        "create function application() returns trigger language plpgsql as $$ begin return null; end $$; create trigger m_user before delete on t for each row execute function application()",
        &[
            "begin",
            "parted: update t set ts = ts + 31 where id = 1",
            "parted: drop trigger m_user on t",
            "plain: drop trigger m_user on t",
            "delete from t where id = 1",
            "insert into t values (1, '2024-02-15', 'd')",
            "commit",
        ],
    ),
    case(
        "before update: moves the row",
        &["cas"],
        "create function application() returns trigger language plpgsql as $$ begin new.ts := new.ts + 31; return new; end $$; create trigger m_user before update on t for each row execute function application()",
        &[
            "update t set v = 'k' where id = 1",
            "insert into t values (1, '2024-02-15', 'd')",
            "delete from t where id = 1",
        ],
    ),
    case(
        "before update, last name: moves the row",
        &["cas"],
        "create function application() returns trigger language plpgsql as $$ begin new.ts := new.ts + 31; return new; end $$; create trigger \"é\" before update on t for each row execute function application()",
        &["update t set v = 'k' where id = 1", "insert into t values (1, '2024-02-15', 'd')"],
    ),
    case(
        "before update: skips the row",
        &["cas"],
        "create function application() returns trigger language plpgsql as $$ begin return null; end $$; create trigger m_user before update on t for each row execute function application()",
        &[
            "begin",
            "update t set ts = ts + 31 where id = 1",
            "delete from t where id = 1",
            "insert into t values (1, '2024-02-15', 'd')",
            "commit",
        ],
    ),
    case(
        "before update, last name: skips the row",
        &["cas"],
        "create function application() returns trigger language plpgsql as $$ begin return null; end $$; create trigger \"é\" before update on t for each row execute function application()",
        &[
            "begin",
            "update t set ts = ts + 31 where id = 1",
            "delete from t where id = 1",
            "insert into t values (1, '2024-02-15', 'd')",
            "commit",
        ],
    ),
    case(
        "after insert: inserts a child",
        &["cas"],
        "create function application() returns trigger language plpgsql as $$ begin if new.id > 600 then insert into cas values (6, new.id); end if; return null; end $$; create trigger \"a\" after insert on t for each row execute function application()",
        &["insert into t values (601, '2024-01-15', 'a'), (602, '2024-02-15', 'b')"],
    ),
    case(
        "after insert, first name: inserts a child",
        &["cas"],
        "create function application() returns trigger language plpgsql as $$ begin if new.id > 600 then insert into cas values (6, new.id); end if; return null; end $$; create trigger \" a\" after insert on t for each row execute function application()",
        &["insert into t values (601, '2024-01-15', 'a')"],
    ),
    case(
        "a move within a move",
        &["cas"],
        "create function application() returns trigger language plpgsql as $$ begin if new.id = 1 and new.v = 'v1' and tg_op = (case current_setting('tests.schema') when 'plain' then 'UPDATE' else 'INSERT' end) then update t set ts = ts - 31 where id = 4; end if; return new; end $$; create trigger m_user before insert or update on t for each row execute function application()",
        &[
            "update t set ts = ts + 31 where id = 1",
            "insert into t values (1, '2024-01-05', 'd')",
            "insert into t values (4, '2024-01-05', 'd')",
        ],
    ),
    case(
        "a duplicate within a move",
        &["cas"],
        "create function application() returns trigger language plpgsql as $$ begin if new.id = 1 and new.v = 'v1' and tg_op = (case current_setting('tests.schema') when 'plain' then 'UPDATE' else 'INSERT' end) and new.ts > '2024-01-30' then insert into t values (1, '2024-01-20', 'nested'); end if; return new; end $$; create trigger m_user before insert or update on t for each row execute function application()",
        &["update t set ts = ts + 31 where id = 1"],
    ),
    case(
        "references to rows of the same statement",
        &["self"],
        "",
        &[
            "insert into t values (71, '2024-01-15', '72', 72), (72, '2024-02-15', null, null)",
            "insert into t values (73, '2024-01-15', '73', 71), (74, '2024-02-15', null, 73)",
            "delete from t where id = 71",
            "update t set ts = ts + 31 where id = 73",
            "delete from t where id > 70",
        ],
    ),
];
