//! Key tables ([`crate::model::key_table`]): the table, its rows, and its constraint. [`triggers`] keep it in sync.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::ident::{Ident, QualifiedName, literal};
use crate::model::key_table::{KeyTable, MOVING};

use super::prepare::{grant, revoke};
use super::{strip, with_operators};

mod functions;
mod partitions;
pub mod triggers;

/// The unique B-tree indexes of the relation with oid `$1` as JSON ([`crate::model::key_table::UniqueIndex`]). Sent with
/// an empty search path, so that the server qualifies all names.
pub const UNIQUE_INDEXES: &str = "select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
  'index', i.relname,
  'condition', pg_catalog.pg_get_expr(x.indpred, x.indrelid),
  'columns', (
    select pg_catalog.json_agg(pg_catalog.json_build_object(
      'column', a.attname,
      'expression', pg_catalog.pg_get_indexdef(i.oid, k.place::integer, false),
      'sql_type', case when a.attname is null then pg_catalog.format_type(own.atttypid, own.atttypmod)
        else pg_catalog.format_type(a.atttypid, a.atttypmod) end,
      'collation', case when k.coll <> 0 and k.coll <> t.typcollation then (
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
    if k.keeps_moves {
        columns.push(format!("    {MOVING} text"));
    }
    let moving = Ident::new(MOVING);
    let unlogged = if b.table.persistence == "u" { "unlogged " } else { "" };
    let mut all = vec![
        format!("create {unlogged}table {} (\n{}\n)", k.name, columns.join(",\n")),
        strip::strip(&k.name, k.columns.iter().map(|c| &c.name).chain(k.keeps_moves.then_some(&moving)), []),
        revoke(&k.name),
    ];
    // A role that may create a foreign key to the table may create one to the key table.
    let references = b.table.grants.iter().filter(|g| g.privilege == "REFERENCES");
    all.extend(
        references
            .filter(|g| g.column.is_none() && g.grantor == b.table.owner)
            .flat_map(|g| grant(&b.table.owner, &k.name, g)),
    );
    let of = format!("Keys of {}: enforces {}.", b.table.name.plain(), k.index.as_str());
    all.push(format!("comment on table {} is {}", k.name, literal(&of)));
    all.extend(triggers::functions(b, k));
    all
}

/// Gives the key table and its functions to the owner of the table. During the job, they belong to its role, so that no
/// other role can make the job run other code.
pub fn to_owner(b: &Blueprint, k: &KeyTable) -> Vec<String> {
    let functions = triggers::signatures(b, k).into_iter();
    let functions =
        functions.map(|signature| format!("alter function {signature} owner to {}", b.table.owner));
    std::iter::once(format!("alter table {} owner to {}", k.name, b.table.owner)).chain(functions).collect()
}

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

/// Keys that only one side has, at most `limit`, as text, with the side: `table` or `key table`.
pub fn differences(k: &KeyTable, table: &QualifiedName, limit: u32) -> String {
    let own: Vec<String> = k.columns.iter().map(|c| format!("k.{}", c.name)).collect();
    let of_key = format!("select row({})::text from {} k", own.join(", "), k.name);
    let of_table =
        format!("select row({})::text from {table} x where {}", k.values("x").join(", "), k.has_key("x"));
    format!(
        "(select 'table', v from ({of_table} except all {of_key}) d (v) limit {limit})\nunion all\n\
         (select 'key table', v from ({of_key} except all {of_table}) d (v) limit {limit})"
    )
}

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
        all.push(differences(&k, &b.table.name, 10));
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
