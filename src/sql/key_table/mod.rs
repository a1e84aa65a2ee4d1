//! Key tables ([`crate::model::key_table`]): the table, its rows, and its constraint. [`triggers`] keep it in sync.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::{Ident, QualifiedName, literal};
use crate::model::key_table::{FORMER, KeyTable, MOVING};

use super::prepare::revoke;
use super::trust::is_trusted;
use super::{dollar_quoted, strip, with_operators};

mod functions;
mod partitions;
pub mod triggers;

pub use functions::on_truncate;

/// The unique B-tree indexes of the relation with oid `$1` as JSON ([`crate::model::key_table::UniqueIndex`]). Sent with
/// an empty search path, so that the server qualifies all names.
pub const UNIQUE_INDEXES: &str = "select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
  'index', i.relname,
  'condition', pg_catalog.pg_get_expr(x.indpred, x.indrelid),
  'of_table', (
    select pg_catalog.json_agg(pg_catalog.json_build_object('name', a.attname,
      'sql_type', pg_catalog.format('%I.%I', n.nspname, t.typname)) order by a.attnum)
    from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
      join pg_catalog.pg_namespace n on n.oid = t.typnamespace
    where a.attrelid = x.indrelid and a.attnum > 0 and not a.attisdropped),
  'columns', (
    select pg_catalog.json_agg(pg_catalog.json_build_object(
      'column', a.attname,
      'expression', pg_catalog.pg_get_indexdef(i.oid, k.place::integer, false),
      'sql_type', case when a.attname is null then pg_catalog.format_type(own.atttypid, own.atttypmod)
        else pg_catalog.format_type(a.atttypid, a.atttypmod) end,
      'collation', case when k.coll <> 0 and (k.coll <> t.typcollation or k.coll is distinct from a.attcollation) then (
        select pg_catalog.format('%I.%I', n.nspname, c.collname) from pg_catalog.pg_collation c
          join pg_catalog.pg_namespace n on n.oid = c.collnamespace where c.oid = k.coll) end,
      'composite', b.typtype = 'c' or b.typtype = 'd' and t.typtype = 'c',
      'operator_schema', case when o.oprname = '=' and (oc.opcdefault or exists (
        select from pg_catalog.pg_opclass d join pg_catalog.pg_amop e on e.amopfamily = d.opcfamily
          and e.amoplefttype = d.opcintype and e.amoprighttype = d.opcintype and e.amopstrategy = 3
        where d.opcmethod = oc.opcmethod and d.opcintype = oc.opcintype and d.opcdefault and e.amopopr = o.oid))
        then on_.nspname end,
      'input_type', pg_catalog.format_type(oc.opcintype, null)
    ) order by k.place)
    from rows from (pg_catalog.unnest(x.indkey::int2[]), pg_catalog.unnest(x.indclass::oid[]), pg_catalog.unnest(x.indcollation::oid[]))
        with ordinality k (attnum, opclass, coll, place)
      join pg_catalog.pg_attribute own on own.attrelid = i.oid and own.attnum = k.place
      left join pg_catalog.pg_attribute a on a.attrelid = x.indrelid and a.attnum = k.attnum and k.attnum > 0
      join pg_catalog.pg_type t on t.oid = coalesce(a.atttypid, own.atttypid)
      left join pg_catalog.pg_type b on b.oid = case t.typtype when 'd' then t.typbasetype else t.oid end
      join pg_catalog.pg_opclass oc on oc.oid = k.opclass
      left join pg_catalog.pg_amop m on m.amopfamily = oc.opcfamily and m.amoplefttype = oc.opcintype
        and m.amoprighttype = oc.opcintype and m.amopstrategy = 3
      left join pg_catalog.pg_operator o on o.oid = m.amopopr
      left join pg_catalog.pg_namespace on_ on on_.oid = o.oprnamespace
    where k.place <= x.indnkeyatts)
) order by i.relname), '[]')
from pg_catalog.pg_index x join pg_catalog.pg_class i on i.oid = x.indexrelid join pg_catalog.pg_am am on am.oid = i.relam
where x.indrelid = $1 and x.indisunique and am.amname = 'btree'";

/// Foreign keys that reference the relation with oid `$1` and whose name another constraint in their schema also has:
/// SET CONSTRAINTS applies to all of them.
pub const AMBIGUOUS: &str = "select distinct k.conname::text
from pg_catalog.pg_constraint k join pg_catalog.pg_constraint o on o.connamespace = k.connamespace and o.conname = k.conname
where k.confrelid = $1 and k.contype = 'f' and k.conparentid = 0 and o.oid <> k.oid and o.conparentid = 0";

/// Creates the key table, empty and without its constraint, and its functions. One transaction.
pub fn create(b: &Blueprint, k: &KeyTable) -> Vec<String> {
    let column = |c: &crate::model::key_table::KeyColumn| {
        let collate = c.collation.as_ref().map_or(String::new(), |collation| format!(" collate {collation}"));
        let not_null = if c.not_null { " not null" } else { "" };
        format!("    {} {}{collate}{not_null}", c.name, c.sql_type)
    };
    let mut columns: Vec<String> = k.columns.iter().map(column).collect();
    let marks = k.keeps_moves.then(|| [MOVING, FORMER].map(Ident::new));
    columns.extend(marks.iter().flatten().map(|mark| format!("    {mark} text")));
    let unlogged = if b.table.persistence == "u" { "unlogged " } else { "" };
    let mut all = vec![
        format!("create {unlogged}table {} (\n{}\n)", k.name, columns.join(",\n")),
        strip::strip(&k.name, k.columns.iter().map(|c| &c.name).chain(marks.iter().flatten()), []),
        revoke(&k.name),
    ];
    let of = format!("Keys of {}: enforces {}.", b.table.name.plain(), k.index.as_str());
    all.push(format!("comment on table {} is {}", k.name, literal(&of)));
    all.extend(triggers::functions(b, k));
    all
}

/// Gives the key table and its functions to the owner of the table, `table` being its name. During the job, they belong
/// to its role, so that no other role can make the job run other code.
///
/// A role that may create a foreign key to the table may create one to the key table, but not before PostgreSQL 18:
/// AFTER triggers of the referencing table would run with the privileges of the owner of the key table.
pub fn to_owner(b: &Blueprint, k: &KeyTable, table: &QualifiedName) -> Vec<String> {
    let functions: Vec<String> = triggers::signatures(b, k)
        .into_iter()
        .map(|signature| {
            format!(
                "  execute format({}, owner);",
                literal(&format!("alter function {} owner to %s", escaped(&signature)))
            )
        })
        .collect();
    let body = format!(
        "declare
  owner regrole := (select relowner from pg_catalog.pg_class where oid = {of}::regclass);
  may record;
begin
  if not pg_catalog.has_schema_privilege(owner, {schema}, 'USAGE') then
    raise exception 'role % lacks USAGE on schema %', owner, {schema} using errcode = '42501',
      hint = 'every write would fail, because the functions of the key tables run as that role: grant it USAGE on the schema';
  end if;
  execute format({own}, owner);
{functions}
  for may in
    select x.grantee, x.is_grantable from pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) x
    where c.oid = {of}::regclass and x.privilege_type = 'REFERENCES' and x.grantor = c.relowner and x.grantee <> c.relowner
      and pg_catalog.current_setting('server_version_num')::integer >= 180000
  loop
    execute format({references}, case may.grantee when 0 then 'public' else may.grantee::regrole::text end,
      case when may.is_grantable then ' with grant option' else '' end);
  end loop;
end",
        of = literal(&table.to_string()),
        schema = literal(table.schema.as_str()),
        own = literal(&format!("alter table {} owner to %s", escaped(&k.name.to_string()))),
        functions = functions.join("\n"),
        references = literal(&format!("grant references on {} to %s%s", escaped(&k.name.to_string()))),
    );
    vec![format!("do {}", dollar_quoted(&body))]
}

/// Text for the function `format`.
fn escaped(text: &str) -> String {
    text.replace('%', "%%")
}

/// The tables that reference one of the relations `$1`, and their partitions, whose owners could run code with privileges
/// of another role: the referenced index, the table, its owner, and that role. Before PostgreSQL 18, AFTER triggers of
/// these tables run as the owner of the key table when a foreign key changes or deletes their rows: first the job's role,
/// later the owner of the table `$2`. `$3` lists the roles that the plan trusts.
pub const UNTRUSTED_CHILDREN: &str = concat!(
    "with children as (
  select distinct i.relname as index, coalesce(p.relid, k.conrelid) as oid
  from pg_catalog.pg_constraint k join pg_catalog.pg_class i on i.oid = k.conindid
    left join lateral pg_catalog.pg_partition_tree(k.conrelid) p on true
  where k.contype = 'f' and k.confrelid = any ($1) and k.conparentid = 0 and k.conrelid <> $2)
select index::text, n.nspname::text, c.relname::text, pg_catalog.pg_get_userbyid(c.relowner)::text,
  case when u.by_job then session_user else pg_catalog.pg_get_userbyid(t.relowner) end::text
from children join pg_catalog.pg_class c using (oid) join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_class t on t.oid = $2,
  lateral (select not ",
    is_trusted!("c.relowner", "session_user", "$3"),
    ") u (by_job),
  lateral (select not ",
    is_trusted!("c.relowner", "t.relowner", "$3"),
    ") o (by_owner)
where pg_catalog.current_setting('server_version_num')::integer < 180000 and (u.by_job or o.by_owner)
order by 1, 2, 3"
);

/// A foreign key that references the relation with oid `$1`: its name, and the schema and name of its table.
pub const REFERENCING: &str = "select k.conname::text, n.nspname::text, c.relname::text
from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where k.contype = 'f' and k.confrelid = $1 and k.conparentid = 0 order by 1, 2, 3 limit 1";

/// Whether the owner of the relation with oid `$1` has USAGE on its schema.
pub const OWNER_HAS_USAGE: &str = "select pg_catalog.has_schema_privilege(relowner, relnamespace, 'USAGE') from pg_catalog.pg_class where oid = $1";

/// Drops the key table and its functions.
pub fn drop(b: &Blueprint, k: &KeyTable) -> Vec<String> {
    let functions = triggers::signatures(b, k).into_iter();
    let functions = functions.map(|signature| format!("drop function if exists {signature}"));
    std::iter::once(format!("drop table {}", k.name)).chain(functions).collect()
}

/// Inserts the keys of the rows of a partition.
pub fn fill(b: &Blueprint, k: &KeyTable, leaf: &QualifiedName) -> Vec<String> {
    let columns: Vec<String> = k.columns.iter().map(|c| c.name.to_string()).collect();
    let insert = format!(
        "insert into {} ({})\nselect {} from only {leaf} x where {}",
        k.name,
        columns.join(", "),
        k.values("x").join(", "),
        k.has_key("x")
    );
    with_operators(&b.table.operator_schemas, vec![insert])
}

/// The constraint of the key table before a swap and after a rollback.
pub fn waiting(k: &KeyTable) -> Ident {
    k.index.with_suffix("_new")
}

/// Creates the constraint, and the triggers of the partitioned table and its `leaves`. One transaction.
pub fn complete(b: &Blueprint, k: &KeyTable, leaves: &[QualifiedName]) -> Vec<String> {
    let columns: Vec<String> = k.columns.iter().map(|c| c.name.to_string()).collect();
    let nulls = if k.nulls_not_distinct { " nulls not distinct" } else { "" };
    let name = waiting(k);
    let mut all = vec![format!(
        "alter table {} add constraint {name} unique{nulls} ({}){}",
        k.name,
        columns.join(", "),
        k.deferrable
    )];
    // Subscribers need the old key of a row.
    let identity = if !k.deferrable.is_empty() || k.columns.iter().any(|c| !c.not_null) {
        "full".to_owned()
    } else {
        format!("using index {name}")
    };
    all.push(format!("alter table {} replica identity {identity}", k.name));
    all.extend(
        k.comment
            .iter()
            .map(|text| format!("comment on constraint {name} on {} is {}", k.name, literal(text))),
    );
    if k.keeps_moves {
        all.push(format!("create index on {} ({MOVING}) where {MOVING} is not null", k.name));
    }
    all.extend(triggers::create(b, k, &b.target()));
    all.extend(leaves.iter().flat_map(|leaf| triggers::on_leaf(k, leaf)));
    all
}

/// Gathers statistics.
pub fn vacuum(k: &KeyTable) -> String {
    format!("vacuum (analyze) {}", k.name)
}

/// Renames the constraint in an exchange.
pub fn rename(k: &KeyTable, ending: Direction) -> String {
    let (from, to) = match ending {
        Direction::Forward => (waiting(k), k.index.clone()),
        Direction::Reverse => (k.index.clone(), waiting(k)),
    };
    format!("alter index {} rename to {to}", k.name.sibling(from))
}

/// The number of keys and the sum of their hashes, of the key table and of `table`, with one snapshot. Values are
/// compared bitwise.
pub fn compare(k: &KeyTable, table: &QualifiedName) -> String {
    let hash = |values: &[String]| {
        format!(
            "pg_catalog.count(*), coalesce(pg_catalog.bit_xor(pg_catalog.hashtextextended(row({})::text, 0)), 0)",
            values.join(", ")
        )
    };
    let own: Vec<String> = k.columns.iter().map(|c| format!("k.{}", c.name)).collect();
    format!(
        "select * from (select {} from {} k) k (keys, hash), (select {} from {table} x where {}) x (keys, hash)",
        hash(&own),
        k.name,
        hash(&k.values("x")),
        k.has_key("x")
    )
}

/// The number of keys that only the table has, and of those that only the key table has.
pub fn differences(k: &KeyTable, table: &QualifiedName) -> String {
    let own: Vec<String> = k.columns.iter().map(|c| format!("k.{}", c.name)).collect();
    let of_key = format!("select row({})::text from {} k", own.join(", "), k.name);
    let of_table =
        format!("select row({})::text from {table} x where {}", k.values("x").join(", "), k.has_key("x"));
    format!(
        "select (select count(*) from ({of_table} except all {of_key}) d), \
         (select count(*) from ({of_key} except all {of_table}) d)"
    )
}

/// The partitions of the relation with oid `$1` that lack the trigger `$2` for TRUNCATE: schema and name.
pub const NOT_WATCHED: &str = "select n.nspname::text, c.relname::text
from pg_catalog.pg_partition_tree($1::oid::regclass) p join pg_catalog.pg_class c on c.oid = p.relid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where p.isleaf and not exists (
  select from pg_catalog.pg_trigger t where t.tgrelid = p.relid and t.tgname = $2::text)
order by 1, 2";

/// The triggers that call the functions `$3` in schema `$2`: the number of those of the relation with oid `$1`, and the
/// number of those of it and its partitions that are not enabled as ALWAYS.
pub const TRIGGERS: &str = "select pg_catalog.count(*) filter (where t.tgrelid = $1), pg_catalog.count(*) filter (where t.tgenabled <> 'A')
from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where t.tgrelid in (select relid from pg_catalog.pg_partition_tree($1::oid::regclass))
  and n.nspname = $2 and p.proname = any ($3::text[])";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blueprint::tests::blueprint;
    use crate::model::key_table::tests::{computed, referenced};

    #[test]
    fn the_key_table_of_a_referenced_key() {
        let (b, k) = (blueprint(), referenced());
        let leaf = b.partitions[0].name.clone();
        let mut all = create(&b, &k);
        all.extend(drop(&b, &k));
        all.extend(fill(&b, &k, &leaf));
        all.extend(complete(&b, &k, &[leaf]));
        all.push(rename(&k, Direction::Forward));
        all.push(compare(&k, &b.table.name));
        all.push(differences(&k, &b.table.name));
        all.extend(to_owner(&b, &k, &b.table.name));
        insta::assert_snapshot!(all.join(";\n\n"));
    }

    #[test]
    fn the_key_table_of_a_partial_index_on_an_expression() {
        let (b, k) = (blueprint(), computed());
        let mut all = create(&b, &k);
        all.extend(complete(&b, &k, &[]));
        insta::assert_snapshot!(all.join(";\n\n"));
    }
}
