//! The functions, operators and types to which definitions refer, by oid in the catalog: text that a job parses again must
//! have kept its meaning. The text of IS DISTINCT FROM, NULLIF, CASE and JOIN USING does not name the operator, and a better
//! match for the arguments of a call may have been created since.

/// The references of `$objects`, a query for `kind`, `name`, `classid` and `objid`; without those to the row type of the
/// relation `$relation`. The server does not record references to its own objects.
macro_rules! references {
    ($objects:literal, $relation:literal) => {
        concat!(
            "select o.kind, o.name::text, coalesce(pg_catalog.array_agg(distinct pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0))
  filter (where d.refobjid is not null), '{}')
from (", $objects, ") o (kind, name, classid, objid)
  left join pg_catalog.pg_depend d on d.classid = o.classid and d.objid = o.objid and d.refclassid in (
      'pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
      'pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_collation'::pg_catalog.regclass,
      'pg_catalog.pg_opclass'::pg_catalog.regclass)
    and not (d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass and d.refobjid in (
      select t.oid from pg_catalog.pg_type t where t.typrelid = ", $relation, "))
group by 1, 2 order by 1, 2"
        )
    };
}

/// Definitions of the table with oid `$1`: the kind of object, its name, and what it refers to.
pub const OF_TABLE: &str = references!(
    "
  select 'constraint', k.conname, 'pg_catalog.pg_constraint'::pg_catalog.regclass::oid, k.oid
  from pg_catalog.pg_constraint k where k.conrelid = $1 and k.contype = 'c'
  union all
  select 'index', i.relname, 'pg_catalog.pg_class'::pg_catalog.regclass, i.oid
  from pg_catalog.pg_index x join pg_catalog.pg_class i on i.oid = x.indexrelid where x.indrelid = $1
  union all
  select 'policy', p.polname, 'pg_catalog.pg_policy'::pg_catalog.regclass, p.oid from pg_catalog.pg_policy p where p.polrelid = $1
  union all
  select 'trigger', t.tgname, 'pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid
  from pg_catalog.pg_trigger t where t.tgrelid = $1 and not t.tgisinternal
  union all
  select 'statistics', s.stxname, 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid
  from pg_catalog.pg_statistic_ext s where s.stxrelid = $1
",
    "$1"
);

/// The query of the view or materialized view named `$1`.
pub const OF_VIEW: &str = references!(
    "
  select 'query', '', 'pg_catalog.pg_rewrite'::pg_catalog.regclass::oid, w.oid
  from pg_catalog.pg_rewrite w where w.ev_class = $1::text::pg_catalog.regclass and w.rulename = '_RETURN'
",
    "0"
);

/// The body of the function `$1`, with its argument types.
pub const OF_FUNCTION: &str = references!(
    "select 'body', '', 'pg_catalog.pg_proc'::pg_catalog.regclass::oid, $1::text::pg_catalog.regprocedure::oid",
    "0"
);

/// The expressions of the policy `$2` of the table named `$1`.
pub const OF_POLICY: &str = references!(
    "
  select 'policy', '', 'pg_catalog.pg_policy'::pg_catalog.regclass::oid, p.oid
  from pg_catalog.pg_policy p where p.polrelid = $1::text::pg_catalog.regclass and p.polname::text = $2
",
    "$1::text::pg_catalog.regclass"
);

/// The default of the column `$2` of the table named `$1`.
pub const OF_DEFAULT: &str = references!(
    "
  select 'default', '', 'pg_catalog.pg_attrdef'::pg_catalog.regclass::oid, d.oid
  from pg_catalog.pg_attrdef d join pg_catalog.pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
  where d.adrelid = $1::text::pg_catalog.regclass and a.attname::text = $2
",
    "0"
);
