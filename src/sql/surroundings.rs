//! Queries of preflight about other uses of the table: by subscribers, slots, trigger functions, and functions and
//! statements that contain its name. They only read the catalog.

use crate::model::ident::QualifiedName;

use super::options;

/// For the relation with oid `$1`: one JSON document ([`crate::plan::check::Surroundings`]).
///
/// The statement of a walsender contains the publications that its subscriber uses. If the statement is not visible,
/// the subscriber may use any publication. Only functions whose text contains the table's name are read.
pub fn surroundings() -> String {
    let relation = |of: &str| {
        options::others(&format!("{of}.reloptions"), &options::kind(of), &format!("{of}.oid::regclass"))
    };
    let column =
        options::others("a.attoptions", "'column'", "c.oid::regclass || '.' || quote_ident(a.attname)");
    let index = options::others("i.reloptions", "am.amname", "i.oid::regclass");
    let toast = options::others("t.reloptions", "'toast'", "'the TOAST table of ' || c.oid::regclass");
    SURROUNDINGS
        .replacen("{of_table}", &relation("c"), 1)
        .replacen("{of_toast}", &toast, 1)
        .replacen("{of_column}", &column, 1)
        .replacen("{of_index}", &index, 1)
        .replacen("{of_view}", &relation("v"), 1)
}

const SURROUNDINGS: &str = r#"select json_build_object(
  'publications', coalesce((
    select json_agg(json_build_object(
      'name', p.pubname,
      'named', p.named,
      'changes', p.pubupdate or p.pubdelete,
      'via_root', p.pubviaroot,
      'partitions', (
        select count(*) from pg_publication_tables o join pg_namespace s on s.nspname = o.schemaname
          join pg_class l on l.relnamespace = s.oid and l.relname = o.tablename
        where not p.pubviaroot and o.pubname = p.pubname and l.relispartition),
      'slots', coalesce((
        select json_agg(s.slot_name order by s.slot_name)
        from pg_replication_slots s left join pg_stat_activity a on a.pid = s.active_pid
        where s.plugin = 'pgoutput' and s.database = current_database() and not s.temporary
          and (strpos(coalesce(a.query, ''), 'publication_names') = 0 or strpos(a.query, p.pubname) > 0)), '[]')
    ) order by p.pubname)
    from (select p.*, exists (select from pg_publication_rel r where r.prpubid = p.oid and r.prrelid = c.oid) as named
          from pg_publication p) p
    where p.named or exists (
      select from pg_publication_tables o
      where o.pubname = p.pubname and o.schemaname = n.nspname and o.tablename = c.relname)), '[]'),
  'decoding_slots', coalesce((
    select json_agg(json_build_object('name', s.slot_name, 'plugin', s.plugin) order by s.slot_name)
    from pg_replication_slots s where s.plugin <> 'pgoutput' and s.database = current_database()), '[]'),
  'labels', coalesce((
    select json_agg(json_build_object('provider', l.provider, 'column', a.attname) order by l.provider, a.attnum nulls first)
    from pg_seclabel l left join pg_attribute a on a.attrelid = l.objoid and a.attnum = l.objsubid and l.objsubid > 0
    where l.classoid = 'pg_class'::regclass and l.objoid = c.oid), '[]'),
  'tied_to_extensions', coalesce((
    select json_agg(json_build_object('name', pg_describe_object(d.classid, d.objid, 0), 'extension', e.extname)
      order by pg_describe_object(d.classid, d.objid, 0))
    from pg_depend d join pg_extension e on d.refclassid = 'pg_extension'::regclass and e.oid = d.refobjid
    where d.deptype = 'x'
      and (d.classid = 'pg_class'::regclass and d.objid in (select indexrelid from pg_index where indrelid = c.oid)
        or d.classid = 'pg_trigger'::regclass and d.objid in (select oid from pg_trigger where tgrelid = c.oid))), '[]'),
  'foreign_sessions', (select count(*) from pg_stat_activity
    where datname = current_database() and application_name like 'postgres\_fdw%'),
  'strict_isolation', coalesce((
    select json_agg(x.whose order by x.whose) from (
      select case r.setrole when 0 then 'every role' else 'role ' || pg_get_userbyid(r.setrole) end
        || case r.setdatabase when 0 then '' else ' in database ' || current_database() end as whose
      from pg_db_role_setting r, unnest(r.setconfig) setting
      where r.setdatabase in (0, (select oid from pg_database where datname = current_database()))
        and setting in ('default_transaction_isolation=repeatable read', 'default_transaction_isolation=serializable')) x), '[]'),
  'unknown_options', coalesce((
    select json_agg(distinct u.what order by u.what) from (
      {of_table}
      union all
      select x.what from pg_class t cross join lateral ({of_toast}) x where t.oid = c.reltoastrelid
      union all
      select x.what from pg_attribute a cross join lateral ({of_column}) x
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      union all
      select x.what from pg_index n join pg_class i on i.oid = n.indexrelid join pg_am am on am.oid = i.relam
        cross join lateral ({of_index}) x
      where n.indrelid = c.oid
      union all
      select x.what from pg_class v cross join lateral ({of_view}) x
      where v.relkind in ('v', 'm') and v.oid in (
        select w.ev_class from pg_depend d join pg_rewrite w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid
        where d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid)
    ) u), '[]'),
  'trigger_functions', coalesce((
    select json_agg(json_build_object(
      'trigger', t.tgname,
      'source', f.prosrc,
      'fires_for_moves', t.tgtype & 12 <> 0 or t.tgtype & 18 = 16
    ) order by t.tgname)
    from pg_trigger t join pg_proc f on f.oid = t.tgfoid
    where t.tgrelid = c.oid and not t.tgisinternal and t.tgname !~ '^[!~]?pgstrata_' and t.tgtype & 1 = 1), '[]'),
  'functions', coalesce((
    select json_agg(json_build_object('name', f.name, 'text', f.prosrc) order by f.name) from (
      select f.oid::regprocedure::text as name, f.prosrc
      from pg_proc f join pg_namespace s on s.oid = f.pronamespace join pg_language l on l.oid = f.prolang
      where f.prosqlbody is null and l.lanname not in ('c', 'internal')
        and s.nspname not in ('pg_catalog', 'information_schema', 'pgstrata')
        and strpos(lower(f.prosrc), lower(c.relname)) > 0
      limit 1000) f), '[]')
)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.oid = $1"#;

/// The schema of the extension pg_stat_statements, if it is installed.
pub const STATEMENTS_SCHEMA: &str = "select n.nspname::text from pg_catalog.pg_extension e
  join pg_catalog.pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_stat_statements'";

/// Statements of this database whose text contains the name `$1` (in lower case). `view` is pg_stat_statements, with
/// its schema.
pub fn statements(view: &QualifiedName) -> String {
    format!(
        "select 'statement ' || s.queryid || ' of pg_stat_statements', s.query
from (
  select distinct on (s.queryid) s.queryid, s.query from {view} s
  where s.dbid = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
    and s.queryid is not null and strpos(lower(s.query), $1) > 0
  order by s.queryid limit 1000) s"
    )
}
