//! The records of the objects that a job created. Their oids are recorded in the transaction that creates the object,
//! and read before an object is dropped, truncated or renamed.

use crate::model::ident::{Ident, QualifiedName, literal};

/// Records a relation: job, role, readable name, schema and name.
pub const RECORD_RELATION: &str = "insert into pgstrata.objects (job_id, role, made, classid, objid)
select $1, $2, $3, 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = $4 and c.relname = $5
on conflict (job_id, classid, objid, objsubid) do update set role = excluded.role, made = excluded.made";

/// Records a column: job, role, readable name, oid of the table, name of the column.
pub const RECORD_COLUMN: &str = "insert into pgstrata.objects (job_id, role, made, classid, objid, objsubid)
select $1, $2, $3, 'pg_catalog.pg_class'::pg_catalog.regclass, a.attrelid, a.attnum
from pg_catalog.pg_attribute a where a.attrelid = $4 and a.attname = $5 and a.attnum > 0 and not a.attisdropped
on conflict (job_id, classid, objid, objsubid) do update set role = excluded.role, made = excluded.made";

/// Records a constraint: job, role, readable name, oid of the table, name of the constraint.
pub const RECORD_CONSTRAINT: &str = "insert into pgstrata.objects (job_id, role, made, classid, objid)
select $1, $2, $3, 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid
from pg_catalog.pg_constraint k where k.conrelid = $4 and k.conname = $5
on conflict (job_id, classid, objid, objsubid) do update set role = excluded.role, made = excluded.made";

/// Records a function: job, role, readable name, schema and name.
pub const RECORD_FUNCTION: &str = "insert into pgstrata.objects (job_id, role, made, classid, objid)
select $1, $2, $3, 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = $4 and p.proname = $5
on conflict (job_id, classid, objid, objsubid) do update set role = excluded.role, made = excluded.made";

/// Records that job `$1` is about to create the index with the readable name `$2`. Only the last such intention is
/// valid.
pub const INTEND_INDEX: &str = "insert into pgstrata.objects (job_id, role, made, classid, objid)
values ($1, 'index', $2, 'pg_catalog.pg_class'::pg_catalog.regclass, 0)
on conflict (job_id, classid, objid, objsubid) do update set made = excluded.made";

/// Deletes the intention of job `$1` to create an index, after the index was recorded.
pub const INDEX_IS_MADE: &str = "delete from pgstrata.objects
where job_id = $1 and role = 'index' and classid = 'pg_catalog.pg_class'::pg_catalog.regclass and objid = 0";

/// Deletes the records of job `$1` with role `$2`, before it creates another such object.
pub const FORGET: &str = "delete from pgstrata.objects where job_id = $1 and role = $2";

/// All records of job `$1`: role, name at creation, oid, column number, and current name.
pub const RECORDED: &str = "select o.role, o.made, o.objid, o.objsubid, r.schema, r.relation, r.part
from pgstrata.objects o left join lateral (
  select n.nspname::text as schema, c.relname::text as relation, a.attname::text as part
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    left join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = o.objsubid and o.objsubid > 0 and not a.attisdropped
  where o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and c.oid = o.objid
    and (o.objsubid = 0 or a.attname is not null)
  union all
  select n.nspname::text, c.relname::text, k.conname::text
  from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where o.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass and k.oid = o.objid
  union all
  select n.nspname::text, p.proname::text, pg_catalog.pg_get_function_identity_arguments(p.oid)
  from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  where o.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and p.oid = o.objid
) r on true
where o.job_id = $1 order by o.objid, o.objsubid";

/// Triggers that call one of the functions `$1`, whatever the current names of their tables; those of the relation with
/// oid `$2` come first. Schema, table, trigger. The copies of a parent's trigger on partitions are dropped with that
/// trigger, so they are not included.
pub const TRIGGERS: &str = "select n.nspname::text, c.relname::text, t.tgname::text
from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where t.tgparentid = 0 and t.tgfoid in (
  select p.oid from pg_catalog.pg_proc p join pg_catalog.pg_namespace f on f.oid = p.pronamespace
  where f.nspname = 'pgstrata' and p.proname = any ($1::text[]))
order by c.oid <> $2, c.oid, t.tgname";

/// The positions, counted from 1, of the names (schemas `$1`, names `$2`) that do not belong to the relations with the
/// oids `$3`.
pub const MISPLACED: &str = "select w.number::integer
from rows from (unnest($1::text[]), unnest($2::text[]), unnest($3::oid[])) with ordinality w (schema, name, oid, number)
where not exists (select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where c.oid = w.oid and n.nspname = w.schema and c.relname = w.name)
order by 1";

/// The names (schemas `$1`, names `$2`) that belong to a relation or to statistics of a table other than that with oid
/// `$3`, in readable form.
pub const NOT_OF: &str = "select pg_catalog.format('%I.%I', w.schema, w.name)
from rows from (unnest($1::text[]), unnest($2::text[]), unnest($3::oid[])) w (schema, name, owner)
where exists (
  select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname = w.schema and c.relname = w.name
    and not exists (select from pg_catalog.pg_index x where x.indexrelid = c.oid and x.indrelid = w.owner)
    and not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
      and d.objid = c.oid and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = w.owner
      and c.relkind = 'S')
  union all
  select from pg_catalog.pg_statistic_ext s join pg_catalog.pg_namespace n on n.oid = s.stxnamespace
  where n.nspname = w.schema and s.stxname = w.name and s.stxrelid <> w.owner)
order by 1";

/// The current name of the relation with oid `$1`.
pub const NAME: &str = "select n.nspname::text, c.relname::text
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1";

/// Fails if `name` is not the relation with that oid. Send it after a statement that locks the name: the lock prevents
/// a change until the transaction ends.
pub fn must_be(name: &QualifiedName, oid: u32) -> String {
    let body = format!(
        "begin
  if pg_catalog.to_regclass({})::pg_catalog.oid is distinct from {oid} then
    raise exception {} using errcode = 'PS003',
      detail = pg_catalog.format('The job recorded oid %s, which is now %s; the name belongs to oid %s.', {oid},
        coalesce((select c.oid::pg_catalog.regclass::text from pg_catalog.pg_class c where c.oid = {oid}), 'gone'),
        coalesce(pg_catalog.to_regclass({})::pg_catalog.oid::text, '(none)')),
      hint = 'Nothing was changed. Rename each table back, and run the same command again.';
  end if;
end",
        literal(&name.to_string()),
        literal(&format!("{} is not the table of this job", name.plain()).replace('%', "%%")),
        literal(&name.to_string()),
    );
    format!("do {}", super::dollar_quoted(&body))
}

/// Locks a table by its name, and checks that it has that oid.
pub fn lock(name: &QualifiedName, oid: u32, mode: &str) -> String {
    format!("lock table {name} in {mode} mode; {}", must_be(name, oid))
}

/// Drops a trigger.
pub fn drop_trigger(table: &QualifiedName, trigger: &Ident) -> String {
    format!("drop trigger if exists {trigger} on {table}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_identified_by_its_oid() {
        insta::assert_snapshot!(lock(&QualifiedName::new("public", "it's 100%"), 4711, "access exclusive"));
    }
}
