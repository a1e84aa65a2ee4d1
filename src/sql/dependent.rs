//! Objects that refer to the table by its oid. The job reads their definitions from the catalog before it renames
//! anything. The swap creates them again from these definitions, which refer to the table by name, in both directions.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::dependent::{Publication, Rule, Statistics};
use crate::model::ident::{Ident, QualifiedName, literal};

use super::list;
use super::suffixes;

/// A regular expression for the tree of a query that is only valid because of constraint `k`: it groups by a key. A
/// query that uses ON CONFLICT ON CONSTRAINT depends on a constraint too, but the table in use has one of that name.
pub(super) const NEEDS: &str = r#"format(':constraintDeps \(o( [0-9]+)* %s[ )]', k.oid)"#;

/// Part of [`super::catalog::table`]: the objects that depend on the relation `c` in namespace `n`
/// ([`crate::model::dependent::Dependents`]). Catalog columns that only newer servers have are read through JSON.
pub const CATALOG: &str = r#"json_build_object(
  'rules', coalesce((
    select json_agg(json_build_object(
      'name', w.rulename,
      'table', json_build_object('schema', en.nspname, 'name', e.relname),
      'relkind', e.relkind,
      'definition', pg_get_ruledef(w.oid),
      'enabled', w.ev_enabled,
      'needs_key', exists (
        select from pg_constraint k where k.conrelid = c.oid
          and (w.ev_action::text ~ {needs} or w.ev_qual::text ~ {needs})),
      'comment', obj_description(w.oid, 'pg_rewrite')
    ) order by en.nspname, e.relname, w.rulename)
    from pg_rewrite w join pg_class e on e.oid = w.ev_class join pg_namespace en on en.oid = e.relnamespace
    where w.rulename <> '_RETURN' and w.oid in (
      select d.objid from pg_depend d
      where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid)), '[]'),
  'statistics', coalesce((
    select json_agg(json_build_object(
      'name', json_build_object('schema', sn.nspname, 'name', s.stxname),
      'tail', left(substr(pg_get_statisticsobjdef(s.oid),
          length('CREATE STATISTICS ' || quote_ident(sn.nspname) || '.' || quote_ident(s.stxname)) + 1),
          -length(' FROM ' || quote_ident(n.nspname) || '.' || quote_ident(c.relname))),
      'owner', pg_get_userbyid(s.stxowner),
      'target', nullif(s.stxstattarget, -1),
      'comment', obj_description(s.oid, 'pg_statistic_ext')
    ) order by sn.nspname, s.stxname)
    from pg_statistic_ext s join pg_namespace sn on sn.oid = s.stxnamespace where s.stxrelid = c.oid), '[]'),
  'publications', coalesce((
    select json_agg(json_build_object(
      'name', p.pubname,
      'columns', case when to_jsonb(r) ->> 'prattrs' is not null then to_jsonb(t) -> 'attnames' end,
      'condition', to_jsonb(t) ->> 'rowfilter',
      'via_root', p.pubviaroot
    ) order by p.pubname)
    from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
      left join pg_publication_tables t on t.pubname = p.pubname and t.schemaname = n.nspname and t.tablename = c.relname
    where r.prrelid = c.oid), '[]'),
  'functions', coalesce((
    select json_agg(json_build_object(
      'name', f.oid::regprocedure::text, 'definition', pg_get_functiondef(f.oid),
      'needs_key', exists (
        select from pg_constraint k where k.conrelid = c.oid and f.prosqlbody::text ~ {needs})
    ) order by f.oid::regprocedure::text)
    from pg_proc f
    where f.prosqlbody is not null and f.oid not in ({row_functions}) and f.oid in (
      select d.objid from pg_depend d
      where d.classid = 'pg_proc'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid)), '[]'),
  'row_functions', {row_function_list},
  'policies', coalesce((
    select json_agg(json_build_object(
      'name', p.polname,
      'table', json_build_object('schema', pn.nspname, 'name', pt.relname),
      'using', pg_get_expr(p.polqual, p.polrelid),
      'check', pg_get_expr(p.polwithcheck, p.polrelid)
    ) order by pn.nspname, pt.relname, p.polname)
    from pg_policy p join pg_class pt on pt.oid = p.polrelid join pg_namespace pn on pn.oid = pt.relnamespace
    where p.polrelid <> c.oid and p.oid in (
      select d.objid from pg_depend d
      where d.classid = 'pg_policy'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid)), '[]'),
  'defaults', coalesce((
    select json_agg(json_build_object(
      'table', json_build_object('schema', dn.nspname, 'name', dt.relname),
      'column', a.attname,
      'expression', pg_get_expr(e.adbin, e.adrelid)
    ) order by dn.nspname, dt.relname, a.attnum)
    from pg_attrdef e join pg_class dt on dt.oid = e.adrelid join pg_namespace dn on dn.oid = dt.relnamespace
      join pg_attribute a on a.attrelid = e.adrelid and a.attnum = e.adnum
    where e.adrelid <> c.oid and e.oid in (
      select d.objid from pg_depend s join pg_depend d
        on d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = s.objid
      where s.classid = 'pg_class'::regclass and s.refclassid = 'pg_class'::regclass and s.refobjid = c.oid
        and s.deptype = 'i' and s.refobjsubid > 0)), '[]'),
  'matviews', coalesce((
    select json_agg(json_build_object(
      'view', {view},
      'comment', obj_description(v.oid, 'pg_class'),
      'populated', v.relispopulated,
      'access_method', (select amname from pg_am where oid = v.relam and amname <> 'heap'),
      'tablespace', (select spcname from pg_tablespace where oid = v.reltablespace),
      'grants', {grants},
      'row_type', {row_type_of_view},
      'columns', coalesce((
        select json_agg(json_build_object(
          'name', a.attname, 'comment', col_description(v.oid, a.attnum), 'statistics', nullif(a.attstattarget, -1)
        ) order by a.attnum)
        from pg_attribute a where a.attrelid = v.oid and a.attnum > 0
          and (col_description(v.oid, a.attnum) is not null or a.attstattarget >= 0)), '[]'),
      'indexes', coalesce((
        select json_agg(json_build_object(
          'name', i.relname, 'unique', x.indisunique, 'clustered', x.indisclustered,
          'tail', {index_tail},
          'comment', obj_description(i.oid, 'pg_class'),
          'tablespace', (select spcname from pg_tablespace where oid = i.reltablespace)
        ) order by i.relname)
        from pg_index x join pg_class i on i.oid = x.indexrelid where x.indrelid = v.oid), '[]'),
      'readers', coalesce((
        select json_agg({view} order by vn.nspname, v.relname)
        from pg_class v join pg_namespace vn on vn.oid = v.relnamespace
        where v.relkind = 'v' and v.oid in (
          select mw.ev_class from pg_depend md join pg_rewrite mw on md.classid = 'pg_rewrite'::regclass and md.objid = mw.oid
          where md.refclassid = 'pg_class'::regclass and md.refobjid = read.oid)), '[]'),
      'others', coalesce((
        select json_agg(distinct case w.rulename when '_RETURN' then 'materialized view ' || w.ev_class::regclass
          else pg_describe_object(d.classid, d.objid, 0) end)
        from pg_depend d left join pg_rewrite w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid
        where d.refclassid = 'pg_class'::regclass and d.refobjid = v.oid and d.deptype in ('n', 'a')
          and not (d.classid = 'pg_class'::regclass and d.objid in (select indexrelid from pg_index where indrelid = v.oid))
          and not exists (select from pg_class e where e.oid = w.ev_class and (e.relkind = 'v' or e.oid = v.oid))), '[]')
    ) order by vn.nspname, v.relname)
    from pg_class v join pg_namespace vn on vn.oid = v.relnamespace, lateral (select v.oid) read
    where v.relkind = 'm' and v.oid in (
      select w.ev_class from pg_depend d join pg_rewrite w on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
      where d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid)), '[]')
)"#;

/// The privileges of the view `v`, including those of its owner, sorted by their dependencies
/// ([`crate::model::grant::Grant`]).
pub(super) const GRANTS: &str = "coalesce((
        select json_agg(json_build_object(
          'role', case x.grantee when 0 then null else pg_get_userbyid(x.grantee) end,
          'grantor', pg_get_userbyid(x.grantor),
          'privilege', x.privilege_type, 'column', x.attname, 'grantable', x.is_grantable
        ) order by x.attname nulls first, x.place)
        from (
          select a.*, null::name as attname from aclexplode(coalesce(v.relacl, acldefault('r', v.relowner))) with ordinality
            a (grantor, grantee, privilege_type, is_grantable, place)
          union all
          select a.*, t.attname from pg_attribute t, aclexplode(t.attacl) with ordinality
            a (grantor, grantee, privilege_type, is_grantable, place)
          where t.attrelid = v.oid and t.attnum > 0
        ) x), '[]')";

/// The row type of a relation, a row of `pg_class` ([`crate::model::grant::RowType`]).
pub(super) fn row_type(relation: &str) -> String {
    ROW_TYPE.replace("{relation}", relation)
}

const ROW_TYPE: &str = "(
    select json_build_object(
      'default_privileges', y.usual,
      'grants', coalesce((
        select json_agg(json_build_object(
          'role', case x.grantee when 0 then null else pg_get_userbyid(x.grantee) end,
          'grantor', pg_get_userbyid(x.grantor),
          'privilege', x.privilege_type, 'column', null, 'grantable', x.is_grantable
        ) order by x.place)
        from aclexplode(y.typacl) with ordinality x (grantor, grantee, privilege_type, is_grantable, place) where not y.usual), '[]'),
      'comment', obj_description(y.oid, 'pg_type'))
    from (
      select t.oid, t.typacl, t.typacl is null or coalesce(
          (select array_agg(a::text order by a::text) from unnest(t.typacl) a)
            = (select array_agg(a::text order by a::text) from unnest(acldefault('T', t.typowner)) a), false) as usual
      from pg_type t where t.oid = {relation}.reltype) y)";

/// Creates the extended statistics of the target, with a name that the swap replaces.
pub(super) fn statistics_of(b: &Blueprint, s: &Statistics) -> Vec<String> {
    let name = s.name.sibling(s.name.name.with_suffix("_new"));
    let mut all = vec![
        format!("create statistics {name}{} from {}", s.tail, b.target()),
        format!("alter statistics {name} owner to {}", s.owner),
    ];
    all.extend(s.target.map(|n| format!("alter statistics {name} set statistics {n}")));
    all.extend(s.comment.as_ref().map(|text| format!("comment on statistics {name} is {}", literal(text))));
    all
}

/// Exchanges the names of extended statistics, as for indexes.
pub fn renames(b: &Blueprint, ending: Direction) -> Vec<String> {
    let (out, from) = suffixes(ending);
    let rename = |s: &Statistics| {
        let other = s.name.sibling(s.name.name.with_suffix(from));
        [
            format!("alter statistics {} rename to {}", s.name, s.name.name.with_suffix(out)),
            format!("alter statistics {other} rename to {}", s.name.name),
        ]
    };
    b.table.dependents.statistics.iter().flat_map(rename).collect()
}

/// Redirects all objects to the table that now has the name of the source.
pub fn bind(b: &Blueprint, ending: Direction) -> Vec<String> {
    let d = &b.table.dependents;
    let (out, _) = suffixes(ending);
    let outgoing = b.table.name.sibling(b.table.name.name.with_suffix(out));
    let mut all: Vec<String> = d.functions.iter().map(|f| trimmed(&f.definition)).collect();
    all.extend(d.rules.iter().flat_map(|r| rule(b, r, &outgoing)));
    all.extend(d.policies.iter().map(|p| policy(&p.name, &p.table, p.using.as_ref(), p.check.as_ref())));
    for e in &d.defaults {
        all.push(format!("alter table {} alter column {} set default {}", e.table, e.column, e.expression));
    }
    all.extend(d.publications.iter().flat_map(|p| publication(b, ending, p, &outgoing)));
    all
}

pub(super) fn policy(
    name: &Ident,
    table: &QualifiedName,
    using: Option<&String>,
    check: Option<&String>,
) -> String {
    let using = using.map_or(String::new(), |e| format!(" using ({e})"));
    let check = check.map_or(String::new(), |e| format!(" with check ({e})"));
    format!("alter policy {name} on {table}{using}{check}")
}

/// Creates the policies of the target again when it comes into use for the first time. They were created while the
/// other table had the name: a policy that reads its own table by name would still read the other table.
pub(super) fn own_policies(b: &Blueprint) -> impl Iterator<Item = String> {
    let conditional = b.table.policies.iter().filter(|p| p.using.is_some() || p.check.is_some());
    conditional.map(|p| policy(&p.name, &b.table.name, p.using.as_ref(), p.check.as_ref()))
}

pub(super) fn trimmed(statement: &str) -> String {
    statement.trim_end().trim_end_matches(';').to_owned()
}

/// Enables a rule on the table in use only. On the inactive table, it would act on the rows that the drain writes,
/// although it has already acted on them.
fn rule(b: &Blueprint, r: &Rule, outgoing: &QualifiedName) -> Vec<String> {
    let definition = trimmed(&r.definition);
    let body = definition.strip_prefix("CREATE RULE").unwrap_or(&definition);
    let mut all = vec![format!("create or replace rule{body}")];
    if r.table != b.table.name {
        return all;
    }
    let state = match r.enabled.as_str() {
        "D" => "disable",
        "R" => "enable replica",
        "A" => "enable always",
        _ => "enable",
    };
    all.push(format!("alter table {outgoing} disable rule {}", r.name));
    all.push(format!("alter table {} {state} rule {}", b.table.name, r.name));
    all.extend(
        r.comment
            .as_ref()
            .map(|text| format!("comment on rule {} on {} is {}", r.name, b.table.name, literal(text))),
    );
    all
}

/// Adds the table that comes into use to a publication. A subscriber identifies the table by name, and receives changes
/// under the name of the partition root, so it continues to work.
fn publication(b: &Blueprint, ending: Direction, p: &Publication, outgoing: &QualifiedName) -> [String; 3] {
    let via_root = ending == Direction::Forward || p.via_root;
    let columns = p.columns.as_ref().map_or(String::new(), |names| format!(" ({})", list("", names)));
    let condition = p.condition.as_ref().map_or(String::new(), |e| format!(" where ({e})"));
    [
        format!("alter publication {} drop table {outgoing}", p.name),
        format!("alter publication {} set (publish_via_partition_root = {via_root})", p.name),
        format!("alter publication {} add table {}{columns}{condition}", p.name, b.table.name),
    ]
}
