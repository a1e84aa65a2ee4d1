//! Objects that refer to the column by its number: their definitions, and the statements that redirect them to the other
//! column in an exchange.
//!
//! CREATE OR REPLACE VIEW cannot change the type of a column, so views are dropped and created again, with everything
//! that belongs to them, and with the views that read them. All of it happens under the lock, which includes the views.

use crate::model::dependent::{Rule, Statistics};
use crate::model::ident::{Ident, QualifiedName, literal, plain};
use crate::model::rebound::{BoundView, Rebound, ViewTrigger};

use super::super::{dependent, options, prepare, with_operators};

/// The objects that refer to the column of the relation with oid `$1`: one JSON document
/// ([`crate::model::rebound::Rebound`]).
pub fn objects(column: &Ident) -> String {
    OBJECTS
        .replace("{column}", &literal(column.as_str()))
        .replace("{rule}", RULE)
        .replace("{grants}", dependent::GRANTS)
        .replace("{row_type}", &dependent::row_type("v"))
        .replace("{view_options}", &options::documented("v.reloptions", &options::kind("v")))
}

/// The rule `w` of the relation `e` in namespace `en` ([`Rule`]).
const RULE: &str = "json_build_object(
          'name', w.rulename,
          'table', json_build_object('schema', en.nspname, 'name', e.relname),
          'relkind', e.relkind,
          'definition', pg_get_ruledef(w.oid),
          'enabled', w.ev_enabled,
          'comment', obj_description(w.oid, 'pg_rewrite'))";

const OBJECTS: &str = r#"with recursive col as (
  select a.attnum from pg_attribute a where a.attrelid = $1 and a.attname = {column} and a.attnum > 0 and not a.attisdropped
), keys as (
  select k.oid from pg_constraint k join pg_index x on x.indexrelid = k.conindid, col
  where k.conrelid = $1 and k.contype in ('p', 'u', 'x') and col.attnum = any (x.indkey::int2[])
), uses as (
  select distinct d.classid, d.objid, d.refclassid = 'pg_constraint'::regclass as by_key
  from pg_depend d, col
  where d.refclassid = 'pg_class'::regclass and d.refobjid = $1 and d.refobjsubid = col.attnum
    or d.refclassid = 'pg_constraint'::regclass and d.refobjid in (select oid from keys)
), tree (oid, depth) as (
  select w.ev_class, 1 from uses u join pg_rewrite w on u.classid = 'pg_rewrite'::regclass and w.oid = u.objid
    join pg_class v on v.oid = w.ev_class
  where v.relkind = 'v' and w.rulename = '_RETURN'
  union
  select v.oid, t.depth + 1 from tree t
    join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = t.oid and d.classid = 'pg_rewrite'::regclass
    join pg_rewrite w on w.oid = d.objid and w.rulename = '_RETURN'
    join pg_class v on v.oid = w.ev_class and v.relkind = 'v' and v.oid <> t.oid
), levels as (
  select oid, max(depth) as depth from tree group by oid
), mats as (
  select distinct v.oid from uses u join pg_rewrite w on u.classid = 'pg_rewrite'::regclass and w.oid = u.objid
    join pg_class v on v.oid = w.ev_class and v.relkind = 'm'
), others as (
  select w.oid, w.ev_class from uses u join pg_rewrite w on u.classid = 'pg_rewrite'::regclass and w.oid = u.objid
  where w.rulename <> '_RETURN' and w.ev_class not in (select oid from levels)
), owners as (
  select v.relowner as role, v.relnamespace as schema,
    case v.relkind when 'v' then 'view ' else 'materialized view ' end || v.oid::regclass as name
  from pg_class v where v.oid in (select oid from levels union all select oid from mats)
  union all
  select e.relowner, null, e.oid::regclass::text from pg_class e where e.oid in (
    select ev_class from others
    union all select p.polrelid from uses u join pg_policy p on u.classid = 'pg_policy'::regclass and p.oid = u.objid)
  union all
  select s.stxowner, s.stxnamespace, 'statistics ' || quote_ident(s.stxname) from pg_statistic_ext s join uses u
    on u.classid = 'pg_statistic_ext'::regclass and s.oid = u.objid
  union all
  select f.proowner, null, 'function ' || f.oid::regprocedure from pg_proc f join uses u
    on u.classid = 'pg_proc'::regclass and f.oid = u.objid
)
select json_build_object(
  'oids', coalesce((select json_agg(oid::bigint order by oid) from (select oid from levels union select oid from mats) o), '[]'),
  'views', coalesce((
    select json_agg(json_build_object(
      'name', json_build_object('schema', vn.nspname, 'name', v.relname),
      'owner', pg_get_userbyid(v.relowner),
      'query', pg_get_viewdef(v.oid),
      'options', {view_options},
      'comment', obj_description(v.oid, 'pg_class'),
      'grants', {grants},
      'default_privileges', v.relacl is null,
      'row_type', {row_type},
      'columns', coalesce((
        select json_agg(json_build_object('name', a.attname, 'comment', col_description(v.oid, a.attnum),
          'default', pg_get_expr(d.adbin, d.adrelid)) order by a.attnum)
        from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where a.attrelid = v.oid and a.attnum > 0 and (d.oid is not null or col_description(v.oid, a.attnum) is not null)), '[]'),
      'triggers', coalesce((
        select json_agg(json_build_object('name', t.tgname, 'definition', pg_get_triggerdef(t.oid),
          'comment', obj_description(t.oid, 'pg_trigger')) order by t.tgname)
        from pg_trigger t where t.tgrelid = v.oid and not t.tgisinternal), '[]'),
      'rules', coalesce((
        select json_agg({rule} order by w.rulename)
        from pg_rewrite w join pg_class e on e.oid = w.ev_class join pg_namespace en on en.oid = e.relnamespace
        where w.ev_class = v.oid and w.rulename <> '_RETURN'), '[]')
    ) order by l.depth, vn.nspname, v.relname)
    from levels l join pg_class v on v.oid = l.oid join pg_namespace vn on vn.oid = v.relnamespace), '[]'),
  'rules', coalesce((
    select json_agg({rule} order by en.nspname, e.relname, w.rulename)
    from others o join pg_rewrite w on w.oid = o.oid join pg_class e on e.oid = w.ev_class
      join pg_namespace en on en.oid = e.relnamespace), '[]'),
  'policies', coalesce((
    select json_agg(json_build_object('name', p.polname,
      'table', json_build_object('schema', pn.nspname, 'name', pt.relname),
      'using', pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid)
    ) order by pn.nspname, pt.relname, p.polname)
    from pg_policy p join pg_class pt on pt.oid = p.polrelid join pg_namespace pn on pn.oid = pt.relnamespace
    where p.oid in (select objid from uses where classid = 'pg_policy'::regclass)), '[]'),
  'statistics', coalesce((
    select json_agg(json_build_object(
      'name', json_build_object('schema', sn.nspname, 'name', s.stxname),
      'tail', left(substr(pg_get_statisticsobjdef(s.oid),
          length('CREATE STATISTICS ' || quote_ident(sn.nspname) || '.' || quote_ident(s.stxname)) + 1),
          -length(' FROM ' || s.stxrelid::regclass)),
      'owner', pg_get_userbyid(s.stxowner), 'target', nullif(s.stxstattarget, -1),
      'comment', obj_description(s.oid, 'pg_statistic_ext')) order by sn.nspname, s.stxname)
    from pg_statistic_ext s join pg_namespace sn on sn.oid = s.stxnamespace
    where s.oid in (select objid from uses where classid = 'pg_statistic_ext'::regclass)), '[]'),
  'functions', coalesce((
    select json_agg(json_build_object('name', f.oid::regprocedure::text, 'definition', pg_get_functiondef(f.oid))
      order by f.oid::regprocedure::text)
    from pg_proc f where f.oid in (select objid from uses where classid = 'pg_proc'::regclass)), '[]'),
  'matviews', coalesce((
    select json_agg(json_build_object('schema', n.nspname, 'name', v.relname) order by n.nspname, v.relname)
    from mats m join pg_class v on v.oid = m.oid join pg_namespace n on n.oid = v.relnamespace), '[]'),
  'refused', coalesce((
    select json_agg(distinct jsonb_build_object('name', r.name, 'why', r.why))
    from (
      -- What depends on a view that would be dropped, or on a materialized view that would be replaced.
      select case when w.rulename = '_RETURN' then case e.relkind when 'm' then 'materialized view ' else 'view ' end || e.oid::regclass
          else pg_describe_object(d.classid, d.objid, 0) end as name,
        'depends on ' || case v.relkind when 'v' then 'view ' else 'materialized view ' end || v.oid::regclass
          || ', which must be created again' as why
      from (select oid from levels union select oid from mats) b join pg_class v on v.oid = b.oid
        join pg_depend d on d.deptype in ('n', 'a', 'x') and (
          d.refclassid = 'pg_class'::regclass and d.refobjid = v.oid
          or d.refclassid = 'pg_type'::regclass and d.refobjid in (v.reltype, (select typarray from pg_type where oid = v.reltype)))
        left join pg_rewrite w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid
        left join pg_class e on e.oid = w.ev_class
      where not (w.oid is not null and (w.ev_class in (select oid from levels) or w.ev_class = v.oid))
        and not (d.classid = 'pg_trigger'::regclass and d.objid in (select oid from pg_trigger where tgrelid in (select oid from levels)))
        and not (d.classid = 'pg_attrdef'::regclass and d.objid in (select oid from pg_attrdef where adrelid in (select oid from levels)))
        and not (d.classid = 'pg_class'::regclass and d.objid in (select indexrelid from pg_index where indrelid = v.oid))
      union all
      select case v.relkind when 'v' then 'view ' else 'materialized view ' end || v.oid::regclass, case when s.objoid is not null
          then 'has a security label' else 'belongs to an extension' end
      from (select oid from levels union select oid from mats) b join pg_class v on v.oid = b.oid
        left join pg_seclabel s on s.classoid = 'pg_class'::regclass and s.objoid = v.oid
        left join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = v.oid and d.deptype in ('e', 'x')
      where s.objoid is not null or d.objid is not null
      union all
      -- The exchange drops the constraint before it can replace these.
      select case when w.oid is null then pg_describe_object(u.classid, u.objid, 0)
          else 'materialized view ' || w.ev_class::regclass end,
        'groups by a key of the table alone, or names it in ON CONFLICT'
      from uses u left join pg_rewrite w on u.classid = 'pg_rewrite'::regclass and w.oid = u.objid
        left join pg_class e on e.oid = w.ev_class
      where u.by_key and (u.classid = 'pg_proc'::regclass or e.relkind = 'm')
    ) r), '[]'),
  'lacks', coalesce((
    select json_agg(distinct jsonb_build_object('name', o.name, 'why', o.why))
    from (
      select name, 'the privileges of role ' || pg_get_userbyid(role) || ', which owns it' as why from owners
      where not pg_has_role(role, 'usage')
      union all
      select name, 'CREATE on schema ' || o.schema::regnamespace || ', for role ' || r.rolname
      from owners o join pg_roles r on r.oid = o.role or r.rolname = current_user
      where o.schema is not null and not has_schema_privilege(r.oid, o.schema, 'create')
    ) o), '[]')
)"#;

/// Locks the views. LOCK TABLE of a view would also lock every other table of the view; see [`super::super::swap`].
pub fn locks(rebound: &Rebound, table: &QualifiedName) -> Vec<String> {
    let views = rebound.views.iter().map(|v| format!("alter view {} owner to {}", v.name, v.owner));
    let tables = rebound.tables(table);
    let tables = tables.iter().map(|table| format!("lock table {table} in access exclusive mode"));
    views.chain(tables).collect()
}

/// Drops what refers to the column that goes out of use: outermost views first.
pub fn take(rebound: &Rebound) -> Vec<String> {
    let rules = rebound.rules.iter().map(|r| format!("drop rule {} on {}", r.name, r.table));
    let views = rebound.views.iter().rev().map(|v| format!("drop view {}", v.name));
    let statistics = rebound.statistics.iter().map(|s| format!("drop statistics {}", s.name));
    rules.chain(views).chain(statistics).collect()
}

/// Creates the same objects for the column that came into use.
pub fn give(rebound: &Rebound, table: &QualifiedName, operator_schemas: &[Ident]) -> Vec<String> {
    let mut all: Vec<String> = rebound.views.iter().flat_map(view).collect();
    all.extend(rebound.functions.iter().map(|f| dependent::trimmed(&f.definition)));
    all.extend(rebound.views.iter().flat_map(|v| v.rules.iter()).chain(&rebound.rules).flat_map(rule));
    all.extend(
        rebound
            .policies
            .iter()
            .map(|p| dependent::policy(&p.name, &p.table, p.using.as_ref(), p.check.as_ref())),
    );
    let mut all = with_operators(operator_schemas, all);
    all.extend(rebound.views.iter().flat_map(properties));
    all.extend(rebound.statistics.iter().flat_map(|s| statistics(s, table)));
    all
}

/// `create view ...`, from the definition in the catalog.
pub fn create_view(v: &BoundView, name: &str) -> String {
    let options: Vec<String> = v.options.iter().map(|o| prepare::option(o)).collect();
    let options = if options.is_empty() { String::new() } else { format!(" with ({})", options.join(", ")) };
    format!("create view {name}{options} as\n{}", v.query.trim_end().trim_end_matches(';'))
}

fn view(v: &BoundView) -> Vec<String> {
    let mut all = vec![create_view(v, &v.name.to_string())];
    all.extend(v.columns.iter().filter_map(|column| {
        let default = column.default.as_ref()?;
        Some(format!("alter view {} alter column {} set default {default}", v.name, column.name))
    }));
    all.extend(v.triggers.iter().map(|t| t.definition.clone()));
    all
}

/// Owner, privileges and comments, which are set when everything exists.
fn properties(v: &BoundView) -> Vec<String> {
    let name = &v.name;
    let mut all: Vec<String> = Vec::new();
    for ViewTrigger { name: trigger, comment, .. } in &v.triggers {
        all.extend(
            comment.iter().map(|text| format!("comment on trigger {trigger} on {name} is {}", literal(text))),
        );
    }
    all.extend(v.comment.iter().map(|text| format!("comment on view {name} is {}", literal(text))));
    for column in &v.columns {
        all.extend(
            column
                .comment
                .iter()
                .map(|text| format!("comment on column {name}.{} is {}", column.name, literal(text))),
        );
    }
    all.push(format!("alter view {name} owner to {}", v.owner));
    all.push(prepare::revoke(name));
    if !v.default_privileges {
        all.push(format!("revoke all on {name} from {}", v.owner));
    }
    let grants = v.grants.iter().filter(|g| !v.default_privileges || g.column.is_some());
    all.extend(grants.flat_map(|g| prepare::grant(&v.owner, name, g)));
    all.extend(prepare::row_type(&v.owner, name, v.row_type.as_ref()));
    all
}

fn rule(r: &Rule) -> Vec<String> {
    let mut all = vec![dependent::trimmed(&r.definition)];
    let state = match r.enabled.as_str() {
        "D" => Some("disable"),
        "R" => Some("enable replica"),
        "A" => Some("enable always"),
        _ => None,
    };
    all.extend(state.map(|state| format!("alter table {} {state} rule {}", r.table, r.name)));
    all.extend(
        r.comment
            .iter()
            .map(|text| format!("comment on rule {} on {} is {}", r.name, r.table, literal(text))),
    );
    all
}

fn statistics(s: &Statistics, table: &QualifiedName) -> Vec<String> {
    let name = &s.name;
    let mut all = vec![
        format!("create statistics {name}{} from {table}", s.tail),
        format!("alter statistics {name} owner to {}", s.owner),
    ];
    all.extend(s.target.map(|n| format!("alter statistics {name} set statistics {n}")));
    all.extend(s.comment.as_ref().map(|text| format!("comment on statistics {name} is {}", literal(text))));
    all
}

/// Whether the materialized view with oid `$1` reads column `$3` of the relation with oid `$2`.
pub const READS: &str = "select exists (
  select from pg_catalog.pg_rewrite w join pg_catalog.pg_depend d
    on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = w.oid
    join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
  where w.ev_class = $1 and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = $2 and a.attname = $3)";

/// Whether statistics `$1`.`$2` have no data, although their table has rows according to its own statistics.
pub const NOT_ANALYZED: &str = "select exists (
  select from pg_catalog.pg_statistic_ext s join pg_catalog.pg_namespace n on n.oid = s.stxnamespace
    join pg_catalog.pg_class c on c.oid = s.stxrelid
  where n.nspname = $1 and s.stxname = $2 and c.reltuples > 0 and coalesce(s.stxstattarget, -1) <> 0 and not exists (
    select from pg_catalog.pg_stats_ext x where x.statistics_schemaname = $1 and x.statistics_name = $2))";

/// Computes the statistics.
pub fn analyze(table: &QualifiedName) -> String {
    format!("analyze {table}")
}

/// The search path of the trial: names of the table, and of the views, are then printed without a schema, and a temporary
/// table or view of the same name takes their place.
pub fn trial_path(table: &QualifiedName, rebound: &Rebound) -> String {
    let mut schemas = vec![&table.schema];
    for view in &rebound.views {
        if !schemas.contains(&&view.name.schema) {
            schemas.push(&view.name.schema);
        }
    }
    let schemas: Vec<String> = schemas.into_iter().map(ToString::to_string).collect();
    format!("set local search_path = pg_catalog, {}", schemas.join(", "))
}

/// Creates the temporary table of the trial, in which the column has the new type.
pub fn trial_table(table: &QualifiedName, column: &Ident, to: &str) -> Vec<String> {
    let name = &table.name;
    vec![
        format!("create temporary table {name} (like {table} including indexes) on commit drop"),
        format!("alter table pg_temp.{name} alter column {column} type {to} using null"),
    ]
}

/// The trial of each object, with its name: the statements that create it for the temporary table.
pub fn trials(
    table: &QualifiedName,
    rebound: &Rebound,
    matviews: &[(QualifiedName, String)],
) -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    // Objects of different schemas may have the same name, of which only one can be temporary.
    let mut names = vec![&table.name];
    for v in &rebound.views {
        if names.contains(&&v.name.name) {
            continue;
        }
        names.push(&v.name.name);
        let name = format!("pg_temp.{}", v.name.name);
        all.push((
            format!("view {}", v.name.plain()),
            vec![create_view(v, &name).replacen("create view", "create temporary view", 1)],
        ));
    }
    for (name, query) in matviews {
        let query = query.trim_end().trim_end_matches(';');
        let create = format!("create temporary view {} as\n{query}", name.name.with_suffix("_new"));
        all.push((format!("materialized view {}", name.plain()), vec![create]));
    }
    for p in rebound.policies.iter().filter(|p| p.table == *table || !names.contains(&&p.table.name)) {
        let mut statements = Vec::new();
        if p.table != *table {
            statements
                .push(format!("create temporary table {} (like {}) on commit drop", p.table.name, p.table));
        }
        let using = p.using.as_ref().map_or(String::new(), |e| format!(" using ({e})"));
        let check = p.check.as_ref().map_or(String::new(), |e| format!(" with check ({e})"));
        statements.push(format!("create policy {} on pg_temp.{}{using}{check}", p.name, p.table.name));
        if p.table != *table {
            statements.push(format!("drop table pg_temp.{}", p.table.name));
        }
        all.push((format!("policy {} on {}", plain(p.name.as_str()), p.table.plain()), statements));
    }
    for f in &rebound.functions {
        all.push((format!("function {}", f.name), vec![f.definition.clone()]));
    }
    for s in &rebound.statistics {
        let create =
            format!("create statistics pg_temp.{}{} from pg_temp.{}", s.name.name, s.tail, table.name);
        all.push((format!("statistics {}", s.name.plain()), vec![create]));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dependent::{Function, OtherPolicy};
    use crate::model::grant::Grant;
    use crate::model::rebound::ViewColumn;

    fn rule(table: &str, relkind: &str, enabled: &str) -> Rule {
        Rule {
            name: Ident::new("r"),
            table: QualifiedName::new("public", table),
            relkind: relkind.into(),
            definition: format!("CREATE RULE r AS ON INSERT TO public.{table} DO INSTEAD NOTHING;"),
            enabled: enabled.into(),
            needs_key: false,
            comment: Some("it's".into()),
        }
    }

    fn view(name: &str, query: &str) -> BoundView {
        BoundView {
            name: QualifiedName::new("public", name),
            owner: Ident::new("app"),
            query: query.into(),
            options: Vec::new(),
            comment: None,
            grants: Vec::new(),
            default_privileges: true,
            row_type: None,
            columns: Vec::new(),
            triggers: Vec::new(),
            rules: Vec::new(),
        }
    }

    #[test]
    fn everything_that_an_exchange_sends() {
        let grant = |grantor: &str, column: Option<&str>| Grant {
            role: Some(Ident::new("reader")),
            grantor: Ident::new(grantor),
            privilege: "SELECT".into(),
            column: column.map(Ident::new),
            grantable: false,
        };
        let inner = BoundView {
            options: vec!["security_barrier=true".into()],
            comment: Some("all orders".into()),
            grants: vec![grant("app", None), grant("other", None)],
            default_privileges: false,
            columns: vec![ViewColumn {
                name: Ident::new("note"),
                comment: Some("a note".into()),
                default: Some("'x'::text".into()),
            }],
            triggers: vec![ViewTrigger {
                name: Ident::new("g"),
                definition:
                    "CREATE TRIGGER g INSTEAD OF INSERT ON public.v FOR EACH ROW EXECUTE FUNCTION public.f()"
                        .into(),
                comment: Some("inserts".into()),
            }],
            rules: vec![rule("v", "v", "O")],
            ..view("v", " SELECT id,\n    note\n   FROM public.orders;")
        };
        let outer = BoundView {
            grants: vec![grant("app", None), grant("app", Some("id"))],
            ..view("w", " SELECT id\n   FROM public.v;")
        };
        let rebound = Rebound {
            views: vec![inner, outer],
            rules: vec![rule("logs", "r", "A")],
            policies: vec![OtherPolicy {
                name: Ident::new("p"),
                table: QualifiedName::new("public", "orders"),
                using: Some("(id > 3)".into()),
                check: None,
            }],
            statistics: vec![Statistics {
                name: QualifiedName::new("public", "s"),
                tail: " ON id, note".into(),
                owner: Ident::new("app"),
                target: Some(50),
                comment: None,
            }],
            functions: vec![Function {
                name: "public.f()".into(),
                definition: "CREATE OR REPLACE FUNCTION public.f() ...;\n".into(),
                needs_key: false,
            }],
            ..Rebound::default()
        };
        let table = QualifiedName::new("public", "orders");
        let citext = [Ident::new("ext")];
        let statements = [locks(&rebound, &table), take(&rebound), give(&rebound, &table, &citext)]
            .map(|all| all.join(";\n"));
        insta::assert_snapshot!("rebound", statements.join(";\n\n"));
        assert_eq!(
            rebound.names().join(", "),
            "view public.v, view public.w, rule r on public.logs, policy p on public.orders, statistics public.s, function public.f()"
        );
        assert_eq!(rebound.tables(&table), [QualifiedName::new("public", "logs")]);
    }
}
