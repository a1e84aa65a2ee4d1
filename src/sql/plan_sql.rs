//! The plan's SQL: its settings, and the objects that its names refer to.
//!
//! Names are resolved once, when the plan is checked: the server creates a temporary view of the SQL and prints it
//! with the schema of each function, operator, type and table, and with every cast. Each call then has arguments of
//! exactly the declared types, so that no function that is created later is a better match.

use crate::model::filling::Filling;
use crate::model::ident::{Ident, literal};
use crate::model::plan_sql::{Join, PlanSql};

use super::list;
use super::trust::{is_trusted, planted, untrusted_creators};

/// The settings of the plan's SQL, each as `name = value`.
fn assignments(sql: &PlanSql) -> Vec<String> {
    let PlanSql { time_zone, date_style, interval_style, text_search, locale, .. } = sql;
    let styles = [
        ("timezone", time_zone),
        ("datestyle", date_style),
        ("intervalstyle", interval_style),
        ("default_text_search_config", text_search),
    ];
    let locale = locale.iter().map(|(name, value)| (name.as_str(), value));
    let values = styles.into_iter().chain(locale).map(|(name, value)| format!("{name} = {}", literal(value)));
    [format!("search_path = {}", lookup(sql))].into_iter().chain(values).collect()
}

/// The settings of the plan's SQL, until the transaction ends.
pub fn settings(sql: &PlanSql) -> String {
    assignments(sql).iter().map(|one| format!("set local {one}")).collect::<Vec<_>>().join("; ")
}

/// The same for a function, whatever the settings of the session that calls it. Plans are generic: with the values of
/// the row, the planner would call an IMMUTABLE function before the statement has set the search path under which the
/// function looks up names.
pub fn of_function(sql: &PlanSql) -> String {
    let all: Vec<String> = assignments(sql).iter().map(|one| format!("set {one}")).collect();
    format!(
        "{} set extra_float_digits = 1 set bytea_output = 'hex' set xmloption = content \
         set standard_conforming_strings = on set plan_cache_mode = force_generic_plan",
        all.join(" ")
    )
}

/// The rows, called `t`, joined with the plan's `from`.
pub(super) fn joined(join: Option<&Join>, rows: &str) -> String {
    match join {
        Some(Join { before, behind }) => format!("{before}{rows} t{behind}\n"),
        None => format!("{rows} t\n"),
    }
}

/// The role with whose privileges the trigger's function runs. The writer's privileges suffice if the SQL refers to
/// nothing outside `pg_catalog`. Otherwise the writer may lack privileges on the objects that it names, and the row
/// would stay as it was written. The function then runs as the job's role, and the check has verified that all
/// objects belong to roles that the job's role trusts.
pub fn rights(sql: &PlanSql) -> &'static str {
    if sql.names_others { "security definer" } else { "security invoker" }
}

/// Temporary objects come last: any role that writes the table can create them in the session in which the trigger
/// runs.
fn lookup(sql: &PlanSql) -> String {
    match (sql.resolved, sql.lookup.as_slice()) {
        (true, []) => "pg_catalog, pg_temp".to_owned(),
        (true, schemas) => format!("pg_catalog, {}, pg_temp", list("", schemas)),
        (false, schemas) => format!("{}, pg_temp", list("", schemas)),
    }
}

/// Restores the search path of this module's statements, after a statement that ran under the application's path.
pub fn look_up_again(sql: &PlanSql) -> String {
    format!("set local search_path = {}", lookup(sql))
}

/// Sets the search path of the application, for the lookups of its functions and triggers; see [`path`].
pub fn applications(sql: &PlanSql) -> String {
    match sql.search_path.as_str() {
        "" => look_up_again(sql),
        _ => format!("select {}", path(sql, "session_user", Unsafe::LeftOut)),
    }
}

/// A condition, always true, that sets the search path of the application for the lookups of its functions and
/// triggers while the statement runs; the statement itself is already parsed. Empty if there is nothing to set.
pub fn applications_path(sql: &PlanSql) -> String {
    if !sql.resolved || sql.search_path.is_empty() {
        return String::new();
    }
    format!("(select {}) is not null and ", path(sql, "session_user", Unsafe::LeftOut))
}

/// The same in the function of a trigger, which runs as its owner: `session_user` is the role that writes the row, and
/// a schema of that role must not count as trusted. The condition is false, and the path empty, if an untrusted role can
/// create objects in a schema of the path: without that schema, the writer's temporary objects would be found instead.
pub fn definers_path(sql: &PlanSql) -> String {
    if !sql.resolved || sql.search_path.is_empty() {
        return String::new();
    }
    format!("(select {}) <> '{UNSAFE_PATH}' and ", path(sql, "current_user", Unsafe::Rejected))
}

/// Differs from every path that [`path`] sets otherwise.
const UNSAFE_PATH: &str = "pg_catalog, pg_temp, pg_catalog";

/// What becomes of schemas in which an untrusted role can create objects.
#[derive(Debug, Clone, Copy)]
enum Unsafe {
    /// They are left out.
    LeftOut,
    /// The path is [`UNSAFE_PATH`].
    Rejected,
}

/// Sets the search path of the application without the schemas in which an untrusted role can create objects: it could
/// create a function there that runs with the job's privileges. Evaluated each time, because the privilege may be granted
/// later.
fn path(sql: &PlanSql, role: &str, unsafe_schemas: Unsafe) -> String {
    let trust: Vec<String> = sql.trust.iter().map(|role| literal(role)).collect();
    let is_unsafe = format!(
        concat!("exists (select from ", untrusted_creators!("{role}", "array[{trust}]::text[]"), " creator)"),
        role = role,
        trust = trust.join(", "),
    );
    let all = "pg_catalog.concat_ws(', ', 'pg_catalog', pg_catalog.string_agg(pg_catalog.quote_ident(n.nspname), ', ' order by s.place), 'pg_temp')";
    let (path, filter) = match unsafe_schemas {
        Unsafe::LeftOut => (all.to_owned(), format!(" and not {is_unsafe}")),
        Unsafe::Rejected => (
            format!("case when pg_catalog.bool_or({is_unsafe}) then '{UNSAFE_PATH}' else {all} end"),
            String::new(),
        ),
    };
    format!(
        "pg_catalog.set_config('search_path', (
  select {path}
  from (select pg_catalog.set_config('search_path', {of_plan}, true) as path offset 0) p
    cross join lateral pg_catalog.unnest(pg_catalog.current_schemas(p.path is null)) with ordinality s (name, place)
    join pg_catalog.pg_namespace n on n.nspname = s.name
  where n.nspname <> 'pg_catalog'{filter}), true)",
        of_plan = literal(&sql.search_path),
    )
}

/// The schemas of the search path `$1` that exist and contain nothing of roles that are not trusted, in the format of
/// `SHOW search_path`; `$2` are roles that the plan trusts.
pub const SOUND_PATH: &str = concat!(
    "with trusted_roles as (
  select r.oid from pg_catalog.pg_roles r where ", is_trusted!("r.oid", "session_user", "$2"), "
), planted as (
  ", planted!(), "
), path as (
  select pg_catalog.set_config('search_path', $1, true) as path
)
select pg_catalog.concat_ws(', ', pg_catalog.string_agg(pg_catalog.quote_ident(n.nspname), ', ' order by s.place), 'pg_temp')
from path p cross join lateral pg_catalog.unnest(pg_catalog.current_schemas(p.path is null)) with ordinality s (name, place)
  join pg_catalog.pg_namespace n on n.nspname = s.name
where n.oid <> pg_catalog.pg_my_temp_schema() and n.oid not in (select schema from planted where owner not in (select oid from trusted_roles))"
);

/// Sets the search path to those of `schemas` in which nobody owns or can create anything, except roles that the plan
/// trusts or that could act as `role`, with whose privileges the SQL runs. Unlike [`path`], this is decided when the
/// statement runs.
pub(super) fn set_sound_path(schemas: &[Ident], role: &Ident, trust: &[String]) -> String {
    let array = |names: Vec<String>| format!("array[{}]::text[]", names.join(", "));
    format!(
        concat!(
            "with planted as (
  ", planted!(), "
)
select pg_catalog.set_config('search_path', (
  select pg_catalog.concat_ws(', ', 'pg_catalog', pg_catalog.string_agg(pg_catalog.quote_ident(n.nspname), ', ' order by s.place), 'pg_temp')
  from pg_catalog.unnest({schemas}) with ordinality s (name, place) join pg_catalog.pg_namespace n on n.nspname = s.name
  where not exists (select from ", untrusted_creators!("{role}", "{trust}"), " creator)
    and n.oid not in (select schema from planted where owner not in (
      select r.oid from pg_catalog.pg_roles r where ", is_trusted!("r.oid", "{role}", "{trust}"), "))), true)"
        ),
        schemas = array(schemas.iter().map(|name| literal(name.as_str())).collect()),
        role = format_args!("{}::pg_catalog.name", literal(role.as_str())),
        trust = array(trust.iter().map(|name| literal(name)).collect()),
    )
}

/// The initial settings of the session: those of the server, the database, the role and the connection.
pub const SESSION: &str = "select name, reset_val from pg_catalog.pg_settings
where name in ('search_path', 'TimeZone', 'DateStyle', 'IntervalStyle', 'default_text_search_config', 'lc_monetary',
  'lc_numeric', 'lc_time')
order by name";

/// The existing schemas of the current search path.
pub const PATH: &str = "select pg_catalog.current_schemas(false)::text[]";

/// The type of a column to which the plan's SQL assigns a value, as far as it changes the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedType {
    /// The type, as SQL writes it under `search_path = pg_catalog`.
    pub sql_type: String,
    /// Whether it is a domain.
    pub domain: bool,
    /// `varchar`, `bpchar`, `bit` or `varbit` with a length limit: assigning a longer value is an error, a cast
    /// truncates it.
    pub limited: Option<String>,
    /// Whether it is an array of such a type.
    pub array: bool,
    /// The limit, as a type modifier.
    pub modifier: i32,
}

/// The types of the columns of the relation with oid `$1`: name, type, collation if it is not the type's default, and
/// the other fields of [`AssignedType`].
pub const KEPT: &str = "with recursive base as (
  select a.attname, a.attnum, a.atttypid, a.atttypmod, a.attcollation, a.atttypid as oid, a.atttypmod as modifier
  from pg_catalog.pg_attribute a where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
  union all
  select b.attname, b.attnum, b.atttypid, b.atttypmod, b.attcollation, t.typbasetype, t.typtypmod
  from base b join pg_catalog.pg_type t on t.oid = b.oid where t.typtype = 'd'
)
select b.attname::text, pg_catalog.format_type(b.atttypid, b.atttypmod),
  (select pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.collname)
    from pg_catalog.pg_collation c join pg_catalog.pg_namespace n on n.oid = c.collnamespace
    where c.oid = b.attcollation and c.oid <> (select w.typcollation from pg_catalog.pg_type w where w.oid = b.atttypid)),
  b.oid <> b.atttypid,
  case when b.modifier >= 0 and e.typname in ('varchar', 'bpchar', 'bit', 'varbit') then e.typname::text end,
  e.oid <> b.oid, b.modifier
from base b join pg_catalog.pg_type t on t.oid = b.oid
  join pg_catalog.pg_type e on e.oid = case when t.typcategory = 'A' and t.typelem <> 0 then t.typelem else t.oid end
where t.typtype <> 'd' order by b.attnum";

/// The value of an expression as a column of that type stores it: rounded if the type rounds, an error if it is too
/// long.
pub fn kept(expression: &str, kept: &AssignedType) -> String {
    let sql_type = &kept.sql_type;
    match &kept.limited {
        None => format!("cast((\n{expression}\n) as {sql_type})"),
        // The server checks the elements when the value is assigned.
        Some(base) if kept.array => format!("cast((\n{expression}\n) as pg_catalog.\"{base}\"[])"),
        Some(base) => {
            let value = format!(
                "pg_catalog.\"{base}\"(cast((\n{expression}\n) as pg_catalog.\"{base}\"), {}, false)",
                kept.modifier
            );
            if kept.domain { format!("cast({value} as {sql_type})") } else { value }
        }
    }
}

/// A prefix for our names that occurs in none of the texts.
pub fn mark<'a>(texts: &(impl Iterator<Item = &'a str> + Clone)) -> String {
    let mut n = 0;
    loop {
        let mark = format!("pgstrata_{n}_");
        if !texts.clone().any(|text| text.contains(&mark)) {
            return mark;
        }
        n += 1;
    }
}

/// The SQL of a plan as one view.
#[derive(Debug, Clone)]
pub struct PlanView<'a> {
    /// The prefix of our names in it.
    pub mark: &'a str,
    /// The rows, as in FROM before `t`.
    pub rows: &'a str,
    /// What they are joined with.
    pub join: Option<&'a Join>,
    /// The expressions.
    pub expressions: &'a [String],
}

impl PlanView<'_> {
    /// Creates the temporary view `name`. A second table in FROM makes the server print each column with its table.
    pub fn create(&self, name: &str) -> String {
        let Self { mark, rows, expressions, .. } = self;
        let one = |(i, e): (usize, &String)| format!("(\n{e}\n) as {mark}{}_", i + 1);
        let list: Vec<String> = expressions.iter().enumerate().map(one).collect();
        let alone = Join::written(&format!("(select 1) {mark}one on true"));
        let from = joined(Some(self.join.unwrap_or(&alone)), rows);
        format!(
            "create temporary view {mark}{name} as select null::integer as {mark}0_, {} from {from}",
            list.join(", ")
        )
    }

    /// The expressions and the join, from the server's text of the view, found by our own names. `printed` is how the
    /// server prints the rows. None if the text is not as expected.
    pub fn parts(&self, text: &str, printed: &str) -> Option<(Vec<String>, Option<Join>)> {
        let (_, mut rest) = text.split_once(&format!(" AS {}0_,", self.mark))?;
        let (mut expressions, last) = (Vec::new(), self.expressions.len());
        for i in 1..=last {
            let end = if i == last { "\n   FROM " } else { "," };
            let (expression, behind) = rest.split_once(&format!(" AS {}{i}_{end}", self.mark))?;
            expressions.push(expression.trim().to_owned());
            rest = behind;
        }
        if self.join.is_none() {
            return Some((expressions, None));
        }
        let from = rest.trim_end().strip_suffix(';')?;
        let inner = from.trim_start_matches('(');
        let before = from[..from.len() - inner.len()].to_owned();
        let behind = inner.strip_prefix(printed)?.strip_prefix(" t")?.to_owned();
        behind.starts_with('\n').then_some((expressions, Some(Join { before, behind })))
    }
}

/// The server's text of the view called `$1`; the operators and functions of its tree, in order; the oid of its rule;
/// and whether it has a subquery.
pub const WRITTEN: &str = "select pg_catalog.pg_get_viewdef(w.ev_class),
  (select pg_catalog.string_agg(m[1], ',') from pg_catalog.regexp_matches(w.ev_action::text,
    ':(?:opno|funcid|aggfnoid|winfnoid|opnos|eqop|sortop) (\\d+|\\(o[ \\d]+\\))', 'g') m), w.oid,
  w.ev_action::text like '%{SUBLINK %'
from pg_catalog.pg_rewrite w where w.ev_class = pg_catalog.to_regclass('pg_temp.' || $1)";

/// How the server prints the name of the relation with oid `$1`.
pub const PRINTED: &str = "select $1::oid::regclass::text";

/// The oid of the session's temporary relation called `$1`.
pub const TEMPORARY: &str = "select pg_catalog.to_regclass('pg_temp.' || $1)::oid";

/// The default of the column called `$2` of the relation with oid `$1`, and its oid.
pub const DEFAULT: &str = "select pg_catalog.pg_get_expr(d.adbin, d.adrelid), d.oid
from pg_catalog.pg_attrdef d join pg_catalog.pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
where a.attrelid = $1 and a.attname = $2";

/// A temporary table with the columns of the rows, including those that are still to be added; without rows.
pub fn stand_in(f: &Filling, mark: &str) -> String {
    format!(
        "create temporary table {mark}rows on commit drop as select * from {} r with no data",
        super::trial::rows_as_they_will_be(f, &super::trial::whole(f))
    )
}

/// Sets the default of one of its columns.
pub fn set_default(mark: &str, column: &Ident, default: &str) -> String {
    format!("alter table pg_temp.{mark}rows alter column {column} set default (\n{default}\n)")
}

/// The objects outside `pg_catalog` to which the rules, defaults and constraints with oids `$1` refer, for the table
/// with oid `$2`: one JSON document ([`crate::plan::check::Named`]). `$3` are roles that the plan trusts; `$4` are
/// the schemas of the search path under which functions run that rely on their caller's.
///
/// Trusted are superusers, the roles that can become ours, and those of the plan, as for code on the table
/// ([`super::untrusted_code::CODE`]); to create in a schema, also those that can become the table's owner or the database's.
pub const NAMED: &str = concat!(
    "with recursive trusted_roles as (
  select r.oid from pg_roles r where ", is_trusted!("r.oid", "session_user", "$3"), "
), trusted as (
  select oid from trusted_roles
  union
  select r.oid from pg_roles r, pg_database b
  where r.rolname = 'pg_database_owner' and b.datname = current_database() and b.datdba in (select oid from trusted_roles)
), creators as (
  select n.oid, array_agg(distinct coalesce(r.rolname::text, 'PUBLIC')) as roles
  from pg_namespace n cross join lateral (
      select x.grantee as role from aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) x where x.privilege_type = 'CREATE'
      union select n.nspowner) g
    left join pg_roles r on r.oid = g.role
  where g.role not in (select oid from trusted) and n.nspname <> 'pg_catalog'
  group by n.oid
), planted as (
  select o.schema as oid, array_agg(distinct pg_get_userbyid(o.owner)::text) as roles
  from (
      select pronamespace, proowner from pg_proc
      union all select oprnamespace, oprowner from pg_operator
      union all select typnamespace, typowner from pg_type
      union all select relnamespace, relowner from pg_class) o (schema, owner)
    join pg_namespace n on n.oid = o.schema
  where n.nspname::text = any ($4) and o.owner not in (select oid from trusted_roles)
  group by o.schema
), direct as (
  select distinct d.refclassid, d.refobjid from pg_depend d
  where d.objid = any ($1) and d.classid in ('pg_rewrite'::regclass, 'pg_attrdef'::regclass, 'pg_constraint'::regclass,
    'pg_class'::regclass) and d.refobjid <> $2 and d.deptype = 'n'
), named as (
  select * from direct
  union
  -- Functions such as to_json call the casts of the values' types.
  select 'pg_proc'::regclass::oid, x.castfunc
  from pg_depend d join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
    join pg_type y on y.oid = a.atttypid join pg_cast x on x.castsource in (y.oid, y.typbasetype, y.typelem)
  where d.objid = any ($1) and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0 and x.castfunc >= 16384
  union
  -- What runs with it: the function of an operator, what a view reads, the CHECKs of a domain, and what an SQL body calls.
  select further.* from named m cross join lateral (
    select 'pg_proc'::regclass::oid, o.oprcode::oid from pg_operator o
    where m.refclassid = 'pg_operator'::regclass and o.oid = m.refobjid and o.oprcode::oid >= 16384
    union all
    select d.refclassid, d.refobjid from pg_rewrite w join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
    where m.refclassid = 'pg_class'::regclass and w.ev_class = m.refobjid and d.refobjid not in (m.refobjid, $2) and d.deptype = 'n'
    union all
    select d.refclassid, d.refobjid from pg_constraint k join pg_depend d on d.classid = 'pg_constraint'::regclass and d.objid = k.oid
    where m.refclassid = 'pg_type'::regclass and k.contypid = m.refobjid and d.deptype = 'n'
    union all
    select d.refclassid, d.refobjid from pg_depend d
    where m.refclassid = 'pg_proc'::regclass and d.classid = 'pg_proc'::regclass and d.objid = m.refobjid and d.deptype = 'n'
    union all
    -- Its partitions and the tables that inherit from it are read with it.
    select m.refclassid, i.inhrelid from pg_inherits i
    where m.refclassid = 'pg_class'::regclass and i.inhparent = m.refobjid
    union all
    -- A type's parts: a cast to it calls the CHECKs of each domain among them.
    select part.classid, part.oid from pg_type y cross join lateral (
      select 'pg_type'::regclass::oid as classid, y.typbasetype as oid
      union all select 'pg_type'::regclass, y.typelem
      union all select part.classid, part.oid from pg_range g cross join lateral (values
          ('pg_type'::regclass::oid, g.rngsubtype), ('pg_proc'::regclass, g.rngcanonical::oid), ('pg_proc'::regclass, g.rngsubdiff::oid)
        ) part (classid, oid) where y.oid in (g.rngtypid, g.rngmultitypid)
      union all select 'pg_type'::regclass, a.atttypid from pg_attribute a
        where a.attrelid = y.typrelid and a.attnum > 0 and not a.attisdropped
    ) part where m.refclassid = 'pg_type'::regclass and y.oid = m.refobjid and part.oid <> 0
  ) further (refclassid, refobjid)
), column_types as (
  -- The types of the columns that the SQL reads, if nothing else looks for code of their owners: these can create casts at
  -- any time, which functions and conversions call. A whole row has all columns.
  select a.atttypid as oid
  from pg_depend d join pg_class c on d.refclassid = 'pg_class'::regclass and c.oid = d.refobjid
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    join pg_class o on o.oid = case c.relpersistence when 't' then $2 else c.oid end
  where d.objid = any ($1) and a.atttypid >= 16384 and o.relowner in (select oid from trusted_roles)
    and (a.attnum = d.refobjsubid or exists (
      select from pg_rewrite w where w.oid = any ($1) and w.ev_action::text like '%:varattno 0 %'))
  union
  select part.oid from column_types c join pg_type y on y.oid = c.oid
    cross join lateral (values (y.typbasetype), (y.typelem)) part (oid) where part.oid >= 16384
), objects as (
  select m.*, m in (select direct from direct) as direct, p.pronamespace as schema, p.proowner as owner,
    p.provariadic <> 0 or p.pronargdefaults > 0 or exists (
      select from unnest(p.proargtypes) a join pg_type t on t.oid = a where t.typtype = 'p') as loose,
    l.lanname not in ('c', 'internal') and p.prosqlbody is null and not exists (
      select from unnest(p.proconfig) s where s like 'search_path=%') as relies
  from named m join pg_proc p on p.oid = m.refobjid join pg_language l on l.oid = p.prolang where m.refclassid = 'pg_proc'::regclass
  union all
  select m.*, m in (select direct from direct), o.oprnamespace, o.oprowner, exists (
    select from pg_type t where t.oid in (o.oprleft, o.oprright) and t.typtype = 'p'), false
  from named m join pg_operator o on o.oid = m.refobjid where m.refclassid = 'pg_operator'::regclass
  union all
  select m.*, m in (select direct from direct), t.typnamespace, t.typowner, false, false
  from named m join pg_type t on t.oid = m.refobjid where m.refclassid = 'pg_type'::regclass
  union all
  select 'pg_type'::regclass, t.oid, false, t.typnamespace, t.typowner, false, false
  from column_types m join pg_type t using (oid)
  where t.typcategory <> 'A' and t.typowner not in (select oid from trusted_roles)
    and ('pg_type'::regclass::oid, t.oid) not in (select refclassid, refobjid from named)
  union all
  select m.*, m in (select direct from direct), c.collnamespace, c.collowner, false, false
  from named m join pg_collation c on c.oid = m.refobjid where m.refclassid = 'pg_collation'::regclass
  union all
  -- The owner of a table may put a view in its place, and give it indexes and statistics whose code the planner runs.
  select m.*, m in (select direct from direct), c.relnamespace, case when c.relkind <> 'S' then c.relowner end, false, false
  from named m join pg_class c on c.oid = m.refobjid where m.refclassid = 'pg_class'::regclass
    and c.relpersistence <> 't'
)
select json_build_object(
  'objects', coalesce((select json_agg(json_build_object(
      'name', pg_describe_object(o.refclassid, o.refobjid, 0),
      'owner', pg_get_userbyid(o.owner),
      'trusted', o.owner is null or o.owner in (select oid from trusted_roles),
      'schema', n.nspname,
      'relation', o.refclassid = 'pg_class'::regclass,
      'direct', o.direct,
      'loose', o.loose and o.direct,
      'relies', o.relies,
      'replaced_by', case when o.direct and n.nspowner not in (select oid from trusted)
        then pg_get_userbyid(n.nspowner) end,
      'creators', coalesce((select roles from creators c where c.oid = n.oid), '{}'))
      order by pg_describe_object(o.refclassid, o.refobjid, 0))
    from objects o join pg_namespace n on n.oid = o.schema
    where n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')), '[]'),
  'path', coalesce((select json_agg(json_build_object('schema', n.nspname, 'creators', coalesce(c.roles, '{}'),
      'planted', coalesce(p.roles, '{}')) order by n.nspname)
    from pg_namespace n left join creators c on c.oid = n.oid left join planted p on p.oid = n.oid
    where n.nspname::text = any ($4) and (c.oid is not null or p.oid is not null)), '[]'))"
);
