//! Tries to build the constraints and indexes of a backfill on an empty table with the same columns, in a transaction
//! that is rolled back. The server reports what it would reject. It also returns the definitions of the objects in its
//! own format, so that they can be compared with existing objects with the same names.

use crate::model::filling::{Filling, NewKey};
use crate::model::ident::{Ident, QualifiedName};

use super::{definition, finish, list, plan_sql, trial};

/// Creates an empty table with the columns that the table will have. It has the table's name, because conditions may
/// use it.
pub fn stand_in(f: &Filling) -> String {
    format!(
        "create temporary table {} on commit drop as select * from {} r with no data",
        f.table.name.name,
        trial::rows_as_they_will_be(f, &trial::whole(f))
    )
}

fn temporary(name: &Ident) -> QualifiedName {
    QualifiedName { schema: Ident::new("pg_temp"), name: name.clone() }
}

/// The objects to build: the name of each, and the statements that build it on the stand-in.
pub fn builds(f: &Filling) -> Vec<(Ident, Vec<String>)> {
    let table = temporary(&f.table.name.name);
    let mut all = Vec::new();
    for (name, condition) in &f.finish.checks {
        all.push((name, vec![format!("alter table {table} add constraint {name} check (\n{condition}\n)")]));
    }
    for (name, columns) in &f.finish.unique {
        all.push((
            name,
            vec![format!("alter table {table} add constraint {name} unique ({})", list("", columns))],
        ));
    }
    for (name, tail) in &f.finish.indexes {
        all.push((name, vec![format!("create index {name} on {table}\n{tail}")]));
    }
    all.into_iter().map(|(name, statements)| (name.clone(), statements)).collect()
}

/// The name of the view for the condition or the index with that number.
pub fn reading(number: usize) -> String {
    format!("pgstrata_reading_{number}")
}

/// Copies some rows, with the values that the job will set, to the stand-in.
pub fn some_rows(f: &Filling) -> String {
    let rows = trial::rows_as_they_will_be(f, &trial::whole(f));
    format!("insert into {} select * from {rows} r limit 100", temporary(&f.table.name.name))
}

/// Empties the stand-in.
pub fn emptied(f: &Filling) -> String {
    format!("truncate {}", temporary(&f.table.name.name))
}

/// Evaluates what the view [`reading`] of that number contains, on the rows of the stand-in: an index as the job builds it, a
/// condition as the application's writes evaluate it.
pub fn evaluate(f: &Filling, number: usize) -> Vec<String> {
    let path = if number < f.finish.checks.len() {
        plan_sql::applications(&f.sql)
    } else {
        "set local search_path = pg_catalog, pg_temp".to_owned()
    };
    let count = format!("select count(v::text) from pg_temp.{} v", reading(number));
    vec![path, count]
}

/// The error for an index definition that [`definition::index_expressions`] cannot parse.
pub const NOT_READ: &str = "the expressions of the index could not be identified: write each in parentheses, without \
    comments, dollar-quoted strings and escape strings";

/// Temporary views of the conditions and the index expressions: the server looks up all names when it creates them, but
/// calls no function. None if a definition cannot be parsed.
pub fn readings(f: &Filling) -> Vec<(Ident, Option<String>)> {
    let table = temporary(&f.table.name.name);
    let checks = f.finish.checks.iter().map(|(name, condition)| (name, Some(vec![condition.clone()])));
    let indexes = f.finish.indexes.iter().map(|(name, tail)| (name, definition::index_expressions(tail)));
    let view = |(n, (name, expressions)): (usize, (&Ident, Option<Vec<String>>))| {
        let create = expressions.map(|all| {
            let list: Vec<String> =
                all.iter().enumerate().map(|(i, one)| format!("(\n{one}\n) as c{i}")).collect();
            format!("create temporary view {} as select {} from {table}", reading(n), list.join(", "))
        });
        (name.clone(), create)
    };
    checks.chain(indexes).enumerate().map(view).collect()
}

/// The oid of the rule of the temporary view called `$1`.
pub const RULE: &str =
    "select oid from pg_catalog.pg_rewrite where ev_class = pg_catalog.to_regclass('pg_temp.' || $1)";

/// The current role and database.
pub const WHO: &str = "select current_user::text, pg_catalog.current_database()::text";

/// The name of the stand-in for the table that the foreign key with that number references.
pub fn referenced(number: usize) -> Ident {
    Ident::new(format!("pgstrata_referenced_{number}"))
}

/// Creates a foreign key that references the stand-in for the other table.
pub fn key(f: &Filling, key: &NewKey, number: usize) -> Vec<String> {
    let other = referenced(number);
    let table = temporary(&f.table.name.name);
    vec![
        format!("create temporary table {other} (like {} including indexes) on commit drop", key.references),
        format!(
            "alter table {table} add constraint {} {}",
            key.name,
            finish::key_to(key, &temporary(&other))
        ),
    ]
}

/// The table called `$2` in schema `$1` or, if it does not exist there and `$3` is true, in `public`: schema, name,
/// oid, columns of its primary key, and the privileges that the role lacks to create a foreign key to its columns `$4`
/// (if there are none, to its primary key).
pub const REFERENCED: &str = "select n.nspname::text, c.relname::text, c.oid, coalesce(k.names, '{}'),
  array_remove(array[
    case when not pg_catalog.has_table_privilege(c.oid, 'SELECT') then 'select' end,
    case when exists (
      select from pg_catalog.pg_attribute a where a.attrelid = c.oid and not a.attisdropped
        and a.attname = any (case when $4::text[] = '{}' then k.names else $4::text[] end)
        and not pg_catalog.has_column_privilege(c.oid, a.attnum, 'REFERENCES')) then 'references' end], null)
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join lateral (
    select array_agg(a.attname::text order by key.place) as names
    from pg_catalog.pg_constraint p, unnest(p.conkey) with ordinality key (attnum, place),
      pg_catalog.pg_attribute a
    where p.conrelid = c.oid and p.contype = 'p' and a.attrelid = c.oid and a.attnum = key.attnum) k on true
where c.relname = $2 and (n.nspname = $1 or $3::boolean and n.nspname = 'public') and c.relkind in ('r', 'p')
order by n.nspname <> $1 limit 1";

/// [`CONSTRAINTS`], with all placeholders replaced.
pub fn constraints() -> String {
    CONSTRAINTS.replace("{key}", &key_fields("k")).replace("{trial_key}", &key_fields("t"))
}

/// Everything that defines a foreign key except the referenced table; `key` is its row in `pg_constraint`. Columns are
/// compared by name, because their numbers differ on the stand-in. A catalog column that only newer servers have is
/// read through JSON.
fn key_fields(key: &str) -> String {
    let names = |numbers: &str, table: &str| {
        format!(
            "(select pg_catalog.array_agg(a.attname order by n.place) from {numbers} n (number, place)
          join pg_catalog.pg_attribute a on a.attrelid = {key}.{table} and a.attnum = n.number)"
        )
    };
    let listed = |column: &str| format!("pg_catalog.unnest({key}.{column}) with ordinality");
    let set_columns = format!(
        "pg_catalog.unnest((select pg_catalog.array_agg(e::int2 order by e) from pg_catalog.jsonb_array_elements_text(
          coalesce(nullif(pg_catalog.to_jsonb({key}) -> 'confdelsetcols', 'null'), '[]')) e)) with ordinality"
    );
    format!(
        "pg_catalog.jsonb_build_array({}, {}, {}, {key}.confmatchtype, {key}.confupdtype, {key}.confdeltype,
        {key}.condeferrable, {key}.condeferred)",
        names(&listed("conkey"), "conrelid"),
        names(&listed("confkey"), "confrelid"),
        names(&set_columns, "conrelid"),
    )
}

/// Constraints of the table with oid `$1` that have one of the names `$3`: name, whether it is validated, and whether
/// it is the same as the constraint of that name of the stand-in (oid `$2`); `$4` and `$5` map foreign keys to the
/// names of the tables that they reference.
const CONSTRAINTS: &str = "select k.conname::text, k.convalidated, coalesce(
  case when k.contype = 'f'
    then k.confrelid = (select l.oid from unnest($4::text[], $5::oid[]) l (name, oid) where l.name = k.conname)
      and {key} = {trial_key}
    else regexp_replace(pg_catalog.pg_get_constraintdef(k.oid), ' NOT VALID$', '') = pg_catalog.pg_get_constraintdef(t.oid)
  end, false)
from pg_catalog.pg_constraint k
  left join pg_catalog.pg_constraint t on t.conrelid = $2 and t.conname = k.conname and t.contype = k.contype
where k.conrelid = $1 and k.conname = any ($3::text[])";

/// [`INDEXES`], with all placeholders replaced.
pub fn indexes() -> String {
    tails(INDEXES, "tx.indexrelid")
}

/// [`ALIKE`], with all placeholders replaced.
pub fn alike() -> String {
    tails(ALIKE, "t.indexrelid")
}

fn tails(query: &str, trial: &str) -> String {
    query
        .replace("{index_tail}", &definition::index_tail("x.indexrelid"))
        .replace("{trial_tail}", &definition::index_tail(trial))
}

/// Relations in the schema of the table with oid `$1` that have one of the names `$3`, as in [`CONSTRAINTS`].
const INDEXES: &str = "select c.relname::text, coalesce(x.indisvalid, false), coalesce(
    x.indrelid = $1 and x.indisunique = tx.indisunique
    and {index_tail}
      = {trial_tail}, false)
from pg_catalog.pg_class c
  left join pg_catalog.pg_index x on x.indexrelid = c.oid
  left join pg_catalog.pg_class t on t.relnamespace = pg_catalog.pg_my_temp_schema() and t.relname = c.relname
  left join pg_catalog.pg_index tx on tx.indexrelid = t.oid and tx.indrelid = $2
where c.relnamespace = (select relnamespace from pg_catalog.pg_class where oid = $1) and c.relname = any ($3::text[])";

/// Objects of the table with oid `$1` that are the same as an object of the stand-in (oid `$2`) with another name: the
/// name on the stand-in, and the name on the table. Unique constraints are listed as their indexes.
const ALIKE: &str = "select ti.relname::text, i.relname::text
from pg_catalog.pg_index t join pg_catalog.pg_class ti on ti.oid = t.indexrelid
  join pg_catalog.pg_index x on x.indrelid = $1 and x.indisunique = t.indisunique and x.indisvalid
  join pg_catalog.pg_class i on i.oid = x.indexrelid
where t.indrelid = $2 and i.relname <> ti.relname
  and {index_tail}
    = {trial_tail}
union all
select t.conname::text, k.conname::text
from pg_catalog.pg_constraint t
  join pg_catalog.pg_constraint k on k.conrelid = $1 and k.contype = t.contype and k.conname <> t.conname
    and regexp_replace(pg_catalog.pg_get_constraintdef(k.oid), ' NOT VALID$', '') = pg_catalog.pg_get_constraintdef(t.oid)
where t.conrelid = $2 and t.contype = 'c'
order by 1, 2";

/// The oid of the stand-in; `$1` is the table's name.
pub const STAND_IN: &str = "select oid from pg_catalog.pg_class
where relnamespace = pg_catalog.pg_my_temp_schema() and relname = $1";

/// [`RESOLVED`], with all placeholders replaced.
pub fn resolved() -> String {
    RESOLVED.replace("{index_tail}", &definition::index_tail("i.oid"))
}

/// CHECK constraints and indexes of the stand-in with oid `$1`, in the server's format: name; the condition, or the
/// part after the table's name; and oid.
const RESOLVED: &str = "select k.conname::text, pg_catalog.pg_get_expr(k.conbin, k.conrelid), k.oid
from pg_catalog.pg_constraint k where k.conrelid = $1 and k.contype = 'c'
union all
select i.relname::text, 'USING ' || {index_tail}, i.oid
from pg_catalog.pg_index x join pg_catalog.pg_class i on i.oid = x.indexrelid
where x.indrelid = $1 and i.reltablespace = 0 and not x.indisunique";

/// The names in `$2`, in the schemas `$1`, that an object has other than an index of the relation with the oid in `$3`.
pub const PARTS_TAKEN: &str = "select c.relname::text
from unnest($1::text[], $2::text[], $3::oid[]) w (schema, name, part)
  join pg_catalog.pg_namespace n on n.nspname = w.schema
  join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.name
  left join pg_catalog.pg_index x on x.indexrelid = c.oid
where x.indrelid is distinct from w.part";

/// The partition key columns of each level of the partitioned table with oid `$1`; null if a key is an expression. No
/// row for a plain table.
pub const PARTITIONED_BY: &str = "select case when 0 = any (p.partattrs::int2[]) then null else (
    select array_agg(a.attname::text) from pg_catalog.pg_attribute a
    where a.attrelid = p.partrelid and a.attnum = any (p.partattrs::int2[])) end
from pg_catalog.pg_class r, pg_catalog.pg_partition_tree(r.oid) t
  join pg_catalog.pg_partitioned_table p on p.partrelid = t.relid
where r.oid = $1 and r.relkind = 'p'";
