//! Finds code of other roles that would run, or be called, when a job creates definitions again from their text: the server
//! parses the text with the privileges of the job's role, calls the checks of domains in constants, and looks up functions.

use super::trust::{is_trusted, untrusted_creators};

/// The definitions of the relation with the oid `$relation` that a job creates again, without default values, and of objects
/// that depend on it, on its row type or on the sequence of an identity column: a query for `classid` and `objid`. Not functions
/// on the row type that have neither a default value nor an SQL body: the server parses no expression for them.
macro_rules! definitions_of {
    ($relation:literal) => {
        concat!(
            "
    select 'pg_catalog.pg_class'::pg_catalog.regclass::oid, x.indexrelid from pg_catalog.pg_index x where x.indrelid = ", $relation, "
    union all
    select 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid from pg_catalog.pg_constraint k where k.conrelid = ", $relation, "
    union all
    select 'pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid from pg_catalog.pg_trigger t
    where t.tgrelid = ", $relation, " and not t.tgisinternal
    union all
    select 'pg_catalog.pg_policy'::pg_catalog.regclass, p.oid from pg_catalog.pg_policy p where p.polrelid = ", $relation, "
    union all
    select 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid from pg_catalog.pg_statistic_ext s where s.stxrelid = ", $relation, "
    union all
    select d.classid, d.objid from pg_catalog.pg_depend d
    where d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = ", $relation, "
      and d.classid in ('pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_policy'::pg_catalog.regclass,
        'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_attrdef'::pg_catalog.regclass)
    union all
    select 'pg_catalog.pg_proc'::pg_catalog.regclass, f.oid
    from pg_catalog.pg_type y join pg_catalog.pg_depend d on d.refobjid in (y.oid, y.typarray) join pg_catalog.pg_proc f on f.oid = d.objid
    where y.typrelid = ", $relation, " and d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
      and d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and (f.pronargdefaults > 0 or f.prosqlbody is not null)
    union all
    select d.classid, d.objid
    from pg_catalog.pg_depend s join pg_catalog.pg_depend d
      on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = s.objid
    where s.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and s.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
      and s.refobjid = ", $relation, " and s.deptype = 'i' and s.refobjsubid > 0
      and d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
    union all
    select 'pg_catalog.pg_publication_rel'::pg_catalog.regclass, p.oid from pg_catalog.pg_publication_rel p where p.prrelid = ", $relation
        )
    };
}

pub(super) use definitions_of;

/// Common table expressions: the definitions of the tables with oids `$1`, of materialized views that read them, and of
/// objects that depend on either; and `referenced`, the objects to which each refers. Unless `$3`, only default values,
/// which a backfill's trigger contains.
macro_rules! definitions {
    () => {
        concat!(
            "relations as (
  select pg_catalog.unnest($1::oid[]) as oid
  union
  select m.oid from relations r join pg_catalog.pg_depend d on d.refobjid = r.oid
    join pg_catalog.pg_rewrite w on w.oid = d.objid join pg_catalog.pg_class m on m.oid = w.ev_class
  where d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    and m.relkind = 'm'
), definitions as (
  select 'pg_catalog.pg_attrdef'::pg_catalog.regclass::oid as classid, d.oid as objid
  from pg_catalog.pg_attrdef d join relations r on r.oid = d.adrelid
  union all
  -- Before 15, what a generated column calls depends on the column.
  select 'pg_catalog.pg_class'::pg_catalog.regclass, r.oid from relations r
  union all
  select further.classid, further.objid from relations r cross join lateral (", $crate::sql::recreated::definitions_of!("r.oid"), ") further (classid, objid)
  where $3
), referenced as (
  select distinct f.classid, f.objid, d.refclassid, d.refobjid
  from definitions f join pg_catalog.pg_depend d on d.classid = f.classid and d.objid = f.objid
)"
        )
    };
}

/// Calls that could mean another function when a definition is created again: the function or operator accepts arguments of
/// any type, or any number of them, and untrusted roles other than the owner of a view with the call can create a better match
/// in its schema. What calls it, the function or operator, its schema, those roles (`PUBLIC` for all). `$1` and `$3` as in
/// [`definitions`]; `$2` are the roles that the plan trusts.
pub const OVERLOADS: &str = concat!(
    "with recursive ", definitions!(), ", loose as (
  select c.*, f.pronamespace as schema from referenced c join pg_catalog.pg_proc f on f.oid = c.refobjid
  where c.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and f.prorettype <> 'pg_catalog.trigger'::pg_catalog.regtype
    and (f.provariadic <> 0 or f.pronargdefaults > 0 or exists (
      select from pg_catalog.unnest(f.proargtypes) a join pg_catalog.pg_type t on t.oid = a where t.typtype = 'p'))
  union all
  select c.*, o.oprnamespace from referenced c join pg_catalog.pg_operator o on o.oid = c.refobjid
  where c.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass and exists (
    select from pg_catalog.pg_type t where t.oid in (o.oprleft, o.oprright) and t.typtype = 'p')
)
select pg_catalog.pg_describe_object(l.classid, l.objid, 0), pg_catalog.pg_describe_object(l.refclassid, l.refobjid, 0),
  n.nspname::text, pg_catalog.array_agg(distinct case c.oid when 0 then 'PUBLIC' else pg_catalog.pg_get_userbyid(c.oid)::text end)
from loose l join pg_catalog.pg_namespace n on n.oid = l.schema
  cross join lateral ", untrusted_creators!("session_user", "$2"), " c
where n.nspname <> 'pg_catalog' and not exists (
  select from pg_catalog.pg_rewrite w join pg_catalog.pg_class v on v.oid = w.ev_class
  where l.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and w.oid = l.objid and v.relkind = 'v'
    and c.oid in (v.relowner, n.nspowner) and v.relowner = n.nspowner)
group by 1, 2, 3 order by 1, 2"
);

/// Domains of untrusted roles within the types to which a definition refers: what refers to the type, the domain, its owner.
/// Parsing a constant of such a type, an array or a row of domains for example, calls the checks of the domain. Parameters
/// as in [`OVERLOADS`].
pub const DOMAINS: &str = concat!(
    "with recursive ", definitions!(), ", types as (
  select f.classid, f.objid, f.refobjid as oid from referenced f where f.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
  union
  select t.classid, t.objid, part.oid from types t join pg_catalog.pg_type y on y.oid = t.oid cross join lateral (
    select y.typbasetype as oid
    union all select y.typelem
    union all select g.rngsubtype from pg_catalog.pg_range g where y.oid in (g.rngtypid, g.rngmultitypid)
    union all select a.atttypid from pg_catalog.pg_attribute a
      where a.attrelid = y.typrelid and a.attnum > 0 and not a.attisdropped) part
  where part.oid <> 0
)
select distinct pg_catalog.pg_describe_object(t.classid, t.objid, 0),
  pg_catalog.pg_describe_object('pg_catalog.pg_type'::pg_catalog.regclass, y.oid, 0), pg_catalog.pg_get_userbyid(y.typowner)::text
from types t join pg_catalog.pg_type y on y.oid = t.oid
where y.typtype = 'd' and not ", is_trusted!("y.typowner", "session_user", "$2"), "
order by 1, 2"
);
