//! Queries of preflight about the column: the objects that refer to it by its number, and their definitions for another
//! column.

use crate::model::ident::Ident;
use crate::model::retyping::Retyping;
use crate::model::table::{Check, Index};

use super::super::{differ, with_operators};

/// An empty temporary table on which definitions are tried, in a transaction that is rolled back.
pub const SCRATCH: &str = "pg_temp.pgstrata_scratch";
/// The shadow column of that table.
pub const SHADOW: &str = "pgstrata_shadow";
/// The name of the subquery in a probe. The server keeps the subquery separate only if it calls volatile functions.
pub const PROBE: &str = super::super::trial::PROBE;

/// The column called `$2` of the relation with oid `$1`: one JSON document ([`crate::plan::check::ColumnFacts`]).
///
/// The server records a dependency on the whole table both for an index that has no plain column and for one with a
/// whole-row reference (`varattno 0`); only the latter includes the column.
///
/// `uses` lists objects that the swap cannot carry over, because they refer to the column by its number, or depend on a
/// constraint that the swap drops; those that it redirects are in [`super::rebound`].
pub const COLUMN: &str = r#"with i as (
  select x.indexrelid, x.indexrelid::regclass::text as name, k.oid as constraint, x.indisexclusion, x.indisreplident
  from pg_index x join pg_attribute a on a.attrelid = x.indrelid and a.attname = $2
    left join pg_constraint k on k.conindid = x.indexrelid and k.contype in ('p', 'u', 'x') and k.conrelid = x.indrelid
  where x.indrelid = $1 and (a.attnum = any (x.indkey::int2[]) or exists (
    select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = x.indexrelid
      and d.refclassid = 'pg_class'::regclass and d.refobjid = $1 and (d.refobjsubid = a.attnum
        or d.refobjsubid = 0 and concat(x.indexprs, x.indpred) like '%:varattno 0 %')))
)
select json_build_object(
  'storage', case when a.attstorage <> t.typstorage then
    case a.attstorage when 'p' then 'plain' when 'e' then 'external' when 'x' then 'extended' else 'main' end end,
  'compression', case to_jsonb(a) ->> 'attcompression' when 'l' then 'lz4' when 'p' then 'pglz' end,
  'comment', col_description(a.attrelid, a.attnum),
  'indexes', coalesce((select json_agg(c.relname order by c.relname)
    from i join pg_class c on c.oid = i.indexrelid), '[]'),
  'checks', coalesce((select json_agg(k.conname order by k.conname) from pg_constraint k
    where k.conrelid = $1 and k.contype = 'c' and a.attnum = any (k.conkey)), '[]'),
  'keys', coalesce((
    select json_agg(json_build_object('name', k.conname, 'table', json_build_object('schema', n.nspname, 'name', c.relname),
      'owned', pg_has_role(c.relowner, 'usage'), 'owner', pg_get_userbyid(c.relowner),
      'columns', (select json_agg(format_type(x.atttypid, x.atttypmod) order by u.place)
        from unnest(k.conkey) with ordinality u (attnum, place)
          join pg_attribute x on x.attrelid = k.conrelid and x.attnum = u.attnum),
      'referenced', (select json_agg(format_type(x.atttypid, x.atttypmod) order by u.place)
        from unnest(k.confkey) with ordinality u (attnum, place)
          join pg_attribute x on x.attrelid = k.confrelid and x.attnum = u.attnum),
      'retyped', case when k.conrelid = $1 then array_position(k.conkey, a.attnum) end,
      'retyped_referenced', case when k.confrelid = $1 then array_position(k.confkey, a.attnum) end)
      order by c.relname, k.conname)
    from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
    where k.contype = 'f' and k.conparentid = 0 and (k.conrelid = $1 and a.attnum = any (k.conkey)
      or k.confrelid = $1 and (a.attnum = any (k.confkey) or k.conindid in (select indexrelid from i)))), '[]'),
  'counter', (
    select json_build_object('name', json_build_object('schema', n.nspname, 'name', c.relname),
      'sql_type', format_type(s.seqtypid, null),
      'options', format('START WITH %s INCREMENT BY %s CACHE %s %s', s.seqstart, s.seqincrement, s.seqcache,
        case when s.seqcycle then 'CYCLE' else 'NO CYCLE' end),
      'min', case when s.seqmin <> case when s.seqincrement > 0 then 1 else r.least end then s.seqmin::text end,
      'max', case when s.seqmax <> case when s.seqincrement > 0 then r.most else -1 end then s.seqmax::text end,
      'grants', '[]'::json,
      'comment', obj_description(c.oid, 'pg_class'))
    from pg_depend d join pg_class c on d.classid = 'pg_class'::regclass and c.oid = d.objid and c.relkind = 'S'
      join pg_namespace n on n.oid = c.relnamespace join pg_sequence s on s.seqrelid = c.oid
      join (values ('int2'::regtype, -32768::int8, 32767::int8), ('int4', -2147483648, 2147483647),
        ('int8', -9223372036854775808, 9223372036854775807)) r (type, least, most) on r.type = s.seqtypid
    where d.refclassid = 'pg_class'::regclass and d.refobjid = $1 and d.refobjsubid = a.attnum and d.deptype in ('a', 'i')
    limit 1),
  'uses', coalesce((
    select json_agg(json_build_object('kind', u.kind, 'name', u.name) order by u.kind, u.name)
    from (
      select d.classid::regclass::text as kind, pg_describe_object(d.classid, d.objid, 0) as name
      from pg_depend d
      where (d.refclassid = 'pg_class'::regclass and d.refobjid = $1 and d.refobjsubid = a.attnum
          or d.refclassid = 'pg_constraint'::regclass and d.refobjid in (select "constraint" from i))
        and (d.classid = 'pg_publication_rel'::regclass
          or d.classid = 'pg_attrdef'::regclass
            and d.objid not in (select oid from pg_attrdef where adrelid = $1 and adnum = a.attnum)
          or d.classid = 'pg_trigger'::regclass and not (select tgisinternal from pg_trigger where oid = d.objid))
      union
      select 'exclusion', 'constraint ' || i.name from i where i.indisexclusion
      union
      select 'replica identity', 'index ' || i.name from i where i.indisreplident
    ) u), '[]')
)
from pg_attribute a join pg_type t on t.oid = a.atttypid
where a.attrelid = $1 and a.attname = $2 and a.attnum > 0 and not a.attisdropped"#;

/// The role of the column of the scratch table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The column has the new type, and its name has the suffix `_new`.
    New,
    /// The column has the old type, and its name has the suffix `_old`.
    Old,
}

/// Creates the scratch table: the column has the type of that side, the shadow column the other type.
pub fn scratch(r: &Retyping, side: Side) -> Vec<String> {
    let (column, old) = (&r.column.name, old_type(r));
    let mut all =
        vec![format!("create temporary table pgstrata_scratch (like {}) on commit drop", r.table.name)];
    match side {
        Side::Old => all.push(format!("alter table {SCRATCH} add column {SHADOW} {}", r.to)),
        Side::New => all.extend([
            format!("alter table {SCRATCH} alter column {column} type {} using null", r.to),
            format!("alter table {SCRATCH} add column {SHADOW} {old}"),
        ]),
    }
    all
}

/// The old type, with its collation.
pub fn old_type(r: &Retyping) -> String {
    match &r.column.collation {
        Some(collation) => format!("{} collate {collation}", r.column.sql_type),
        None => r.column.sql_type.clone(),
    }
}

/// Plans the use of an expression over `t` in the first pass and in the trigger, without running it.
pub fn probes(expression: &str) -> [String; 2] {
    let differs = differ(&format!("t.{SHADOW}"), &format!("(\n{expression}\n)"));
    [
        format!(
            "explain (format json) with {PROBE} as (\n  select (\n{expression}\n) as v, {differs} as to_fill from {SCRATCH} t) select * from {PROBE}"
        ),
        format!("explain (format json) update {SCRATCH} t set {SHADOW} = (\n{expression}\n)"),
    ]
}

/// The same index on the scratch table.
pub fn index(r: &Retyping, index: &Index, number: usize) -> String {
    let unique = if index.unique { "unique " } else { "" };
    let create = format!("create {unique}index pgstrata_index_{number} on {SCRATCH} using {}", index.tail);
    with_operators(&r.table.operator_schemas, vec![create]).join("; ")
}

/// The same CHECK on the scratch table.
pub fn check(r: &Retyping, check: &Check, number: usize) -> String {
    let add = format!("alter table {SCRATCH} add constraint pgstrata_check_{number} {}", check.definition);
    with_operators(&r.table.operator_schemas, vec![add]).join("; ")
}

/// Creates two temporary tables with columns of these types, and a foreign key from the second to the first.
pub fn key(referenced: &[String], columns: &[String]) -> [String; 2] {
    let list = |types: &[String]| {
        types
            .iter()
            .enumerate()
            .map(|(i, sql_type)| format!("c{i} {sql_type}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let names = (0..columns.len()).map(|i| format!("c{i}")).collect::<Vec<_>>().join(", ");
    [
        format!(
            "create temporary table pgstrata_referenced ({}, unique ({names})) on commit drop",
            list(referenced)
        ),
        format!(
            "create temporary table pgstrata_referencing ({}, foreign key ({names}) references pg_temp.pgstrata_referenced ({names})) \
             on commit drop",
            list(columns)
        ),
    ]
}

/// The same default on the scratch table.
pub fn default(column: &Ident, default: &str) -> String {
    format!("alter table {SCRATCH} alter column {column} set default {default}")
}

/// Renames the column, which also renames it in every definition.
pub fn rename(column: &Ident, to: &Ident) -> String {
    format!("alter table {SCRATCH} rename column {column} to {to}")
}

/// Indexes (`i`) and CHECK constraints (`c`) of the scratch table, by number: the part after USING, or after CHECK.
pub const DEFINITIONS: &str = "select 'i', substr(i.relname, 16)::integer,
  substr(d.def, strpos(d.def, ' USING ') + 7)
from pg_index x join pg_class i on i.oid = x.indexrelid, lateral (select pg_get_indexdef(i.oid) as def) d
where x.indrelid = 'pg_temp.pgstrata_scratch'::regclass and i.relname like 'pgstrata_index_%'
union all
select 'c', substr(k.conname, 16)::integer, 'CHECK (' || pg_get_expr(k.conbin, k.conrelid) || ')'
from pg_constraint k where k.conrelid = 'pg_temp.pgstrata_scratch'::regclass and k.conname like 'pgstrata_check_%'";

/// Plans a comparison of values of the shadow column's type, which fails if they cannot be compared.
pub const COMPARED: &str = "explain (format json) select t.pgstrata_shadow is distinct from t.pgstrata_shadow
from pg_temp.pgstrata_scratch t";

/// The type of the shadow column on the scratch table, in the format of the catalog; whether its values vary in length;
/// the type with its collation, if that is not the default; and whether column `$1` has the same type and collation.
pub const SHADOW_TYPE: &str = "select format_type(a.atttypid, a.atttypmod), a.attlen = -1,
  format_type(a.atttypid, a.atttypmod) || coalesce((
    select ' collate ' || quote_ident(n.nspname) || '.' || quote_ident(c.collname)
    from pg_collation c join pg_namespace n on n.oid = c.collnamespace join pg_type t on t.oid = a.atttypid
    where c.oid = a.attcollation and c.oid <> t.typcollation), ''),
  exists (select from pg_attribute o where o.attrelid = a.attrelid and o.attname = $1
    and (o.atttypid, o.atttypmod, o.attcollation) = (a.atttypid, a.atttypmod, a.attcollation))
from pg_attribute a where a.attrelid = 'pg_temp.pgstrata_scratch'::regclass and a.attname = 'pgstrata_shadow'";
