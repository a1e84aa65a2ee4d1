//! Materialized views that read the table: after a swap, each is built again from the table in use, and then exchanged
//! with the previous view by name.
//!
//! They are not built before the swap: the swap may wait, and the result could be older than the application's last
//! REFRESH. Until the exchange, the previous view keeps its contents.

use crate::model::dependent::{Matview, MatviewIndex};
use crate::model::ident::{Ident, QualifiedName, literal};

use super::{in_tablespace, plan_sql, prepare, swap, with_operators};

/// The name of the view that is being built.
pub fn new_name(m: &Matview) -> QualifiedName {
    m.view.name.sibling(m.view.name.name.with_suffix("_new"))
}

/// Builds the view, with its indexes and properties, under another name. One transaction.
/// `trust` lists the roles that the plan trusts.
pub fn build(m: &Matview, operator_schemas: &[Ident], trust: &[String]) -> Vec<String> {
    let name = new_name(m);
    let using = m.access_method.as_ref().map_or(String::new(), |a| format!(" using {a}"));
    let options: Vec<String> = m.view.options.iter().map(|o| prepare::option(o)).collect();
    let with = if options.is_empty() { String::new() } else { format!(" with ({})", options.join(", ")) };
    let tablespace = m.tablespace.as_ref().map_or(String::new(), |t| format!(" tablespace {t}"));
    let query = m.view.query.trim_end().trim_end_matches(';');
    let create =
        format!("create materialized view {name}{using}{with}{tablespace} as\n{query}\nwith no data");
    let mut all = with_operators(operator_schemas, vec![create]);
    all.extend([
        format!("alter materialized view {name} owner to {}", m.view.owner),
        prepare::revoke(&name),
        format!("revoke all on {name} from {}", m.view.owner),
    ]);
    all.extend(m.grants.iter().flat_map(|g| prepare::grant(&m.view.owner, &name, g)));
    all.extend(prepare::row_type(&m.view.owner, &name, m.row_type.as_ref()));
    all.extend(m.comment.iter().map(|c| format!("comment on materialized view {name} is {}", literal(c))));
    for column in &m.columns {
        let at = &column.name;
        all.extend(column.comment.iter().map(|c| format!("comment on column {name}.{at} is {}", literal(c))));
        let set = |n: &i32| format!("alter materialized view {name} alter column {at} set statistics {n}");
        all.extend(column.statistics.iter().map(set));
    }
    if m.populated {
        // As the view's owner, because policies may hide rows from that role. Functions of the application may look up names
        // in the search path. It contains no schema in which other roles could have created functions that the application's
        // own REFRESH would not call. Since PostgreSQL 17, the server sets the search path.
        all.push("set local row_security = on".to_owned());
        all.push(plan_sql::set_sound_path(&search_path(&name), &m.view.owner, trust));
        all.push(format!("refresh materialized view {name}"));
        all.push("set local search_path = pg_catalog".to_owned());
    }
    all.extend(with_operators(operator_schemas, m.indexes.iter().flat_map(|i| index(&name, i)).collect()));
    all.push(format!("analyze {name}"));
    all
}

/// The schemas in which functions of the view look up names: that of the view, then `public`.
fn search_path(view: &QualifiedName) -> Vec<Ident> {
    let mut schemas = vec![view.schema.clone(), Ident::new("public")];
    schemas.dedup();
    schemas
}

fn index(name: &QualifiedName, index: &MatviewIndex) -> Vec<String> {
    let unique = if index.unique { "unique " } else { "" };
    let called = index.name.with_suffix("_new");
    let built = vec![format!("create {unique}index {called} on {name} using {}", index.tail)];
    let mut all = in_tablespace(index.tablespace.as_ref(), built);
    all.extend(
        index
            .comment
            .iter()
            .map(|c| format!("comment on index {} is {}", name.sibling(called.clone()), literal(c))),
    );
    if index.clustered {
        all.push(format!("alter materialized view {name} cluster on {called}"));
    }
    all
}

/// The weak lock that is requested first, as for a table.
pub fn first_lock(m: &Matview) -> String {
    // LOCK TABLE does not support materialized views. Other statements that acquire this lock would change the view.
    format!(
        "comment on materialized view {} is {}",
        m.view.name,
        m.comment.as_ref().map_or("null".into(), |c| literal(c))
    )
}

/// Drops a view that an interrupted command left behind under that name.
pub fn drop(name: &QualifiedName) -> String {
    format!("drop materialized view {name}")
}

/// Exchanges the names, redirects the objects that read the view to the new one, and drops the old one. One
/// transaction.
pub fn exchange(m: &Matview) -> Vec<String> {
    let name = &m.view.name;
    let rename =
        |kind: &str, from: Ident, to: Ident| format!("alter {kind} {} rename to {to}", name.sibling(from));
    let mut all = vec![rename("materialized view", name.name.clone(), name.name.with_suffix("_old"))];
    all.extend(m.indexes.iter().map(|i| rename("index", i.name.clone(), i.name.with_suffix("_old"))));
    all.push(rename("materialized view", name.name.with_suffix("_new"), name.name.clone()));
    all.extend(m.indexes.iter().map(|i| rename("index", i.name.with_suffix("_new"), i.name.clone())));
    all.extend(m.readers.iter().map(swap::view));
    all.push(drop(&name.sibling(name.name.with_suffix("_old"))));
    all
}

/// Whether the materialized view with oid `$1` reads the relation with oid `$2`.
pub const READS: &str = "select exists (
  select from pg_catalog.pg_rewrite w join pg_catalog.pg_depend d
    on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = w.oid
  where w.ev_class = $1 and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = $2)";
