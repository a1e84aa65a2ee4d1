//! Code that other roles have attached to a table. The server runs it with the privileges of the role that writes the
//! rows, so a job would lend its privileges to the owner of the code.

use crate::model::ident::QualifiedName;
use crate::model::untrusted_code::Access;

use super::trust::is_trusted;

/// A common table expression: the ancestors of partitions among `tables`. A write to a partition checks its partition
/// constraint, which calls functions of the partition keys of its ancestors.
macro_rules! ancestors {
    () => {
        "ancestors as (
  select i.inhparent as oid from pg_catalog.pg_inherits i join tables on tables.oid = i.inhrelid
    join pg_catalog.pg_class c on c.oid = i.inhrelid
  where c.relispartition
  union
  select i.inhparent from pg_catalog.pg_inherits i join ancestors on ancestors.oid = i.inhrelid
    join pg_catalog.pg_class c on c.oid = i.inhrelid
  where c.relispartition
)"
    };
}

/// The recursive part of `tables`: partitions and other children and, if `$cascades`, tables to which foreign keys cascade an
/// update. The children of all tables of a level are found with one scan.
macro_rules! further_tables {
    ($cascades:literal) => {
        concat!(
            "  select further.oid from tables t join (
    select i.inhparent as of, i.inhrelid as oid from pg_catalog.pg_inherits i
    union all
    select k.confrelid, k.conrelid from pg_catalog.pg_constraint k
    where ",
            $cascades,
            " and k.contype = 'f' and k.confupdtype in ('c', 'n', 'd')
  ) further on further.of = t.oid
"
        )
    };
}

/// An owner of the relations in schemas `$1` called `$2` that is not trusted: one that cannot act as the role that logged in
/// anyway, and is none of the roles `$3` that the plan trusts; no row if there is none. Partitions are included and, if `$4`,
/// tables to which foreign keys cascade an update.
pub const UNTRUSTED_OWNER: &str = concat!(
    "with recursive tables as (
  select c.oid from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) r (schema, name)
    join pg_catalog.pg_namespace n on n.nspname = r.schema
    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = r.name
  union
",
    further_tables!("$4"),
    "), ",
    ancestors!(),
    ", owners as (
  select distinct c.relowner as oid from pg_catalog.pg_class c
  where c.oid in (select oid from tables union all select oid from ancestors)
)
select pg_catalog.pg_get_userbyid(oid)::text from owners
where not ",
    is_trusted!("oid", "session_user", "$3"),
    "
limit 1"
);

/// Whether a job has recorded objects in this database.
pub const HAS_RECORDS: &str = "select pg_catalog.to_regclass('pgstrata.objects') is not null";

/// Functions of key tables that a job created and that still belong to the session's role, so that nobody else replaced
/// them.
pub const OWN_FUNCTIONS: &str =
    "select p.oid from pgstrata.objects o join pg_catalog.pg_proc p on p.oid = o.objid
where o.role = 'key_function' and o.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
  and pg_catalog.pg_get_userbyid(p.proowner) = session_user";

/// Code that the server runs when rows of the relations `$1` are read or written, and that belongs to roles that the role that
/// logged in does not trust: what uses it, the function or domain, its owner. Partitions are included and, if `$4`, tables to
/// which foreign keys cascade an update.
///
/// `$5` are functions of key tables; see [`OWN_FUNCTIONS`]. `$2` are the roles that the plan trusts. If `$3`, triggers and
/// rules count if they are enabled. Indexes and statistics count because the planner evaluates their constant parts. Everything that an expression reaches is
/// followed: operators, types down to the domains in them and their checks, casts, and SQL bodies. A domain of an untrusted role
/// counts even without a check, because adding one takes no lock on the table. Of the server's own functions, those count that
/// run SQL text or reach beyond the row: all that are VOLATILE, except some known ones, those that read tables into XML, and
/// input functions and their like, which find a type when they run.
pub const CODE: &str = concat!(
    "with recursive trusted as (
  select r.oid from pg_catalog.pg_roles r where ", is_trusted!("r.oid", "session_user", "$2"), "
), tables as (
  select pg_catalog.unnest($1::oid[]) as oid
  union
", further_tables!("$3 and $4"), "), ", ancestors!(), ", parts as (
  -- The partition keys of a table and of its ancestors, whose functions the partition constraint calls.
  select 'pg_catalog.pg_class'::pg_catalog.regclass::oid as classid, p.partrelid as objid, 0 as objsubid
  from pg_catalog.pg_partitioned_table p
  where p.partrelid in (select oid from tables union select oid from ancestors)
  union all
  -- Before 15, what a generated column calls depends on the column.
  select x.classid, x.objid, x.objsubid
  from pg_catalog.pg_attrdef d join tables on tables.oid = d.adrelid
    join pg_catalog.pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
    cross join lateral (values
      ('pg_catalog.pg_attrdef'::pg_catalog.regclass::oid, d.oid, 0),
      ('pg_catalog.pg_class'::pg_catalog.regclass::oid, d.adrelid, a.attnum::integer)) x (classid, objid, objsubid)
  where a.attgenerated <> ''
  union all
  select 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, 0 from pg_catalog.pg_constraint k
  where k.contype in ('c', 'x') and k.conrelid in (select oid from tables)
  union all
  select 'pg_catalog.pg_class'::pg_catalog.regclass, x.indexrelid, 0 from pg_catalog.pg_index x
  where x.indrelid in (select oid from tables)
  union all
  select 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, x.oid, 0 from pg_catalog.pg_statistic_ext x
  where x.stxrelid in (select oid from tables)
  union all
  select 'pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid, 0 from pg_catalog.pg_trigger t
  where $3 and t.tgrelid in (select oid from tables) and not t.tgisinternal and t.tgenabled <> 'D'
), reached as (
  select p.classid, p.objid, p.objsubid, d.refclassid, d.refobjid
  from parts p join pg_catalog.pg_depend d using (classid, objid, objsubid)
  where d.refclassid in ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
    'pg_catalog.pg_type'::pg_catalog.regclass)
  union
  select 'pg_catalog.pg_class'::pg_catalog.regclass, a.attrelid, a.attnum::integer, 'pg_catalog.pg_type'::pg_catalog.regclass, a.atttypid
  from pg_catalog.pg_attribute a join tables on tables.oid = a.attrelid
  where a.attnum > 0 and not a.attisdropped
  union
  select r.classid, r.objid, r.objsubid, further.refclassid, further.refobjid
  from reached r cross join lateral (
    select 'pg_catalog.pg_proc'::pg_catalog.regclass::oid, o.oprcode::oid from pg_catalog.pg_operator o
    where r.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass and o.oid = r.refobjid
    union all
    select d.refclassid, d.refobjid from pg_catalog.pg_depend d
    where r.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.classid = r.refclassid and d.objid = r.refobjid
      and d.refclassid in ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
        'pg_catalog.pg_type'::pg_catalog.regclass)
    union all
    select 'pg_catalog.pg_type'::pg_catalog.regclass, part.oid from pg_catalog.pg_type y cross join lateral (
      select y.typbasetype as oid
      union all select y.typelem
      union all select g.rngsubtype from pg_catalog.pg_range g where y.oid in (g.rngtypid, g.rngmultitypid)
      union all select a.atttypid from pg_catalog.pg_attribute a
        where a.attrelid = y.typrelid and a.attnum > 0 and not a.attisdropped) part
    where r.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass and y.oid = r.refobjid and part.oid <> 0
    union all
    select d.refclassid, d.refobjid
    from pg_catalog.pg_constraint k join pg_catalog.pg_depend d
      on d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass and d.objid = k.oid
    where r.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass and k.contypid = r.refobjid
      and d.refclassid in ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
        'pg_catalog.pg_type'::pg_catalog.regclass)
    union all
    -- Casts of types that somebody made: values of keys are read as text.
    select 'pg_catalog.pg_proc'::pg_catalog.regclass, x.castfunc from pg_catalog.pg_cast x
    where r.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass and r.refobjid >= 16384 and x.castfunc <> 0
      and r.refobjid in (x.castsource, x.casttarget)
    union all
    select 'pg_catalog.pg_proc'::pg_catalog.regclass, f.oid
    from pg_catalog.pg_range g cross join lateral (values (g.rngsubdiff), (g.rngcanonical)) f (oid)
    where r.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass and g.rngtypid = r.refobjid and f.oid <> 0
  ) further (refclassid, refobjid)
), trees as (
  -- The server keeps no dependency on a function of its own. Some of those run any SQL text, or leave the database.
  select 'pg_catalog.pg_attrdef'::pg_catalog.regclass::oid as classid, d.oid as objid, 0 as objsubid, d.adbin as tree, c.relowner as owner
  from pg_catalog.pg_attrdef d join tables on tables.oid = d.adrelid join pg_catalog.pg_class c on c.oid = d.adrelid
    join pg_catalog.pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
  where a.attgenerated <> ''
  union all
  select 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, 0, k.conbin, c.relowner
  from pg_catalog.pg_constraint k join tables on tables.oid = k.conrelid join pg_catalog.pg_class c on c.oid = k.conrelid
  where k.contype = 'c'
  union all
  select 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, 0, k.conbin, y.typowner
  from pg_catalog.pg_constraint k join pg_catalog.pg_type y on y.oid = k.contypid
  where k.contype = 'c' and k.contypid in (
    select refobjid from reached where refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass)
  union all
  select 'pg_catalog.pg_class'::pg_catalog.regclass, x.indexrelid, 0, e.tree, c.relowner
  from pg_catalog.pg_index x join tables on tables.oid = x.indrelid join pg_catalog.pg_class c on c.oid = x.indrelid
    cross join lateral (values (x.indexprs), (x.indpred)) e (tree)
  where e.tree is not null
  union all
  select 'pg_catalog.pg_class'::pg_catalog.regclass, p.partrelid, 0, p.partexprs, c.relowner
  from pg_catalog.pg_partitioned_table p join pg_catalog.pg_class c on c.oid = p.partrelid
  where p.partrelid in (select oid from tables union select oid from ancestors) and p.partexprs is not null
  union all
  select 'pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid, 0, t.tgqual, c.relowner
  from pg_catalog.pg_trigger t join tables on tables.oid = t.tgrelid join pg_catalog.pg_class c on c.oid = t.tgrelid
  where $3 and not t.tgisinternal and t.tgenabled <> 'D' and t.tgqual is not null
), texts as (
  -- Each partition has the same CHECKs.
  select distinct t.tree::text as tree from trees t where t.owner not in (select oid from trusted)
), unsafe as (
  select called.tree, called.oid
  from (
    select t.tree, m[1]::oid as oid from texts t
      cross join lateral pg_catalog.regexp_matches(t.tree, ':(?:funcid|opfuncid) ([0-9]+)', 'g') m
    union
    select t.tree, o.oprcode::oid from texts t
      cross join lateral pg_catalog.regexp_matches(t.tree, ':opno ([0-9]+)', 'g') m
      join pg_catalog.pg_operator o on o.oid = m[1]::oid) called
    join pg_catalog.pg_proc p on p.oid = called.oid
  where p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
    and (p.provolatile = 'v' and p.proname::text <> all (array['clock_timestamp', 'currval', 'gen_random_uuid', 'lastval', 'nextval',
        'random', 'random_normal', 'timeofday', 'uuidv4', 'uuidv7'])
      or p.provolatile = 's' and p.proname ~ '_to_xml'
      -- These find a type, or a function, when they run.
      or array['pg_catalog.cstring', 'pg_catalog.internal']::pg_catalog.regtype[]::oid[] && p.proargtypes::oid[]
      or p.proname in ('pg_input_is_valid', 'pg_input_error_info'))
)
select pg_catalog.pg_describe_object(r.classid, r.objid, r.objsubid),
  pg_catalog.pg_describe_object(r.refclassid, p.oid, 0), pg_catalog.pg_get_userbyid(p.proowner)::text
from reached r join pg_catalog.pg_proc p on p.oid = r.refobjid
where r.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and p.proowner not in (select oid from trusted)
union
-- Functions of trusted roles, if the table's owner could not call them, or if they may run what their caller passes. Creating a
-- CHECK does not require the privilege to call its functions; creating a trigger does.
select pg_catalog.pg_describe_object(r.classid, r.objid, r.objsubid),
  pg_catalog.pg_describe_object(r.refclassid, p.oid, 0), pg_catalog.pg_get_userbyid(w.owner)::text
from reached r join pg_catalog.pg_proc p on p.oid = r.refobjid
  cross join (select distinct c.relowner as owner from tables join pg_catalog.pg_class c using (oid)) w
where r.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and w.owner not in (select oid from trusted)
  and p.proowner in (select oid from trusted) and p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace
  and p.oid <> all ($5::oid[])
  and p.prorettype <> 'pg_catalog.trigger'::pg_catalog.regtype
  and (p.provolatile <> 'i' or not pg_catalog.has_function_privilege(w.owner, p.oid, 'EXECUTE'))
union
-- Trigger functions of trusted roles to which the owner passes arguments, such as SQL text. Nobody else may call ours.
select pg_catalog.pg_describe_object('pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid, 0),
  pg_catalog.pg_describe_object('pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, 0), pg_catalog.pg_get_userbyid(c.relowner)::text
from pg_catalog.pg_trigger t join tables on tables.oid = t.tgrelid join pg_catalog.pg_class c on c.oid = t.tgrelid
  join pg_catalog.pg_proc p on p.oid = t.tgfoid
where $3 and not t.tgisinternal and t.tgenabled <> 'D' and t.tgnargs > 0 and c.relowner not in (select oid from trusted)
  and p.pronamespace not in (select n.oid from pg_catalog.pg_namespace n where n.nspname in ('pg_catalog', 'pgstrata'))
union
-- The planner may replace an operator by its negator or commutator.
select pg_catalog.pg_describe_object(r.classid, r.objid, r.objsubid),
  pg_catalog.pg_describe_object(r.refclassid, o.oid, 0), pg_catalog.pg_get_userbyid(o.oprowner)::text
from reached r join pg_catalog.pg_operator o on o.oid = r.refobjid
where r.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass and o.oprowner not in (select oid from trusted)
union
select pg_catalog.pg_describe_object(r.classid, r.objid, r.objsubid),
  pg_catalog.pg_describe_object(r.refclassid, y.oid, 0), pg_catalog.pg_get_userbyid(y.typowner)::text
from reached r join pg_catalog.pg_type y on y.oid = r.refobjid
where r.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass and y.typtype = 'd' and y.typowner not in (select oid from trusted)
union
select pg_catalog.pg_describe_object(t.classid, t.objid, t.objsubid),
  pg_catalog.pg_describe_object('pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, 0), pg_catalog.pg_get_userbyid(t.owner)::text
from trees t join unsafe u on u.tree = t.tree::text join pg_catalog.pg_proc p on p.oid = u.oid
where t.owner not in (select oid from trusted)
union
-- The result type of JSON_VALUE and its like, which the server records nowhere else.
select pg_catalog.pg_describe_object(t.classid, t.objid, t.objsubid), 'SQL/JSON functions',
  pg_catalog.pg_get_userbyid(t.owner)::text
from trees t where t.tree::text like '%{JSONEXPR %' and t.owner not in (select oid from trusted)
union
select pg_catalog.pg_describe_object('pg_catalog.pg_rewrite'::pg_catalog.regclass, w.oid, 0), 'its statements',
  pg_catalog.pg_get_userbyid(c.relowner)::text
from pg_catalog.pg_rewrite w join pg_catalog.pg_class c on c.oid = w.ev_class
where $3 and w.ev_class in (select oid from tables) and w.ev_type <> '1' and w.ev_enabled <> 'D'
  and c.relowner not in (select oid from trusted)
union
select pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0), 'its query',
  pg_catalog.pg_get_userbyid(c.relowner)::text
from tables join pg_catalog.pg_class c using (oid)
where c.relkind not in ('r', 'p') and c.relowner not in (select oid from trusted)
order by 1, 2"
);

/// Prevents other sessions from altering the tables until the transaction ends; does not block writers.
pub fn hold(tables: &[QualifiedName], access: Access) -> String {
    let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
    let mode = if access == Access::Reads { "access share" } else { "row exclusive" };
    format!("lock table {} in {mode} mode", tables.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_requested() {
        let tables = [QualifiedName::new("public", "t"), QualifiedName::new("public", "t_new")];
        insta::assert_snapshot!(hold(&tables, Access::Copies), @r#"lock table "public"."t", "public"."t_new" in row exclusive mode"#);
    }
}
