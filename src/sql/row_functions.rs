//! Functions and procedures that take or return the row type of the table. The row type belongs to the table, so the
//! function of that name must be created again for the row type of the table that comes into use, from its own
//! definition, in which types and tables are names.
//!
//! The previous function gets another name and is dropped after the exchange: statements that have already looked it up
//! can still call it. What its body does to the table, it does by name.

use crate::model::blueprint::Blueprint;
use crate::model::dependent::RowFunction;
use crate::model::ident::{Ident, QualifiedName, literal};

use super::{close_signature, dependent::trimmed, with_operators};

/// The name of the previous function number `n` until it is dropped.
pub fn former_name(b: &Blueprint, f: &RowFunction, n: usize) -> QualifiedName {
    QualifiedName {
        schema: f.schema.clone(),
        name: Ident::derived(&format!("pgstrata_former_{n}_{}", b.job)),
    }
}

/// Gives the functions other names, before the tables are renamed.
pub(super) fn put_aside(b: &Blueprint) -> Vec<String> {
    let rename = |(n, f): (usize, &RowFunction)| {
        format!("alter {} {} rename to {}", kind(f), f.name, former_name(b, f, n).name)
    };
    b.table.dependents.row_functions.iter().enumerate().map(rename).collect()
}

/// Bodies are not checked: they were accepted before, under the search path of the application.
pub(super) const BODIES_UNCHECKED: &str = "set local check_function_bodies = off";

/// Creates one function as its owner, who remains the owner. This does not protect from code in the definition: a function can
/// reset the role ([`super::recreated`] finds such code).
pub(super) fn create_one(f: &RowFunction, operator_schemas: &[Ident]) -> Vec<String> {
    let mut all = vec![format!("set local role {}", f.owner)];
    all.extend(with_operators(operator_schemas, vec![trimmed(&f.definition)]));
    all.push("reset role".to_owned());
    all
}

/// Creates the functions again, after the tables are renamed.
pub(super) fn create(b: &Blueprint) -> Vec<String> {
    let functions = &b.table.dependents.row_functions;
    if functions.is_empty() {
        return Vec::new();
    }
    let mut all = vec![BODIES_UNCHECKED.to_owned()];
    for f in functions {
        let (kind, name, owner) = (kind(f), &f.name, &f.owner);
        all.extend(create_one(f, &b.table.operator_schemas));
        all.push(close_signature(name).replace("revoke all on function", "revoke all on routine"));
        if !f.owner_executes {
            all.push(format!("revoke all on {kind} {name} from {owner}"));
        }
        for g in &f.grants {
            let role = g.role.as_ref().map_or("public".to_owned(), ToString::to_string);
            let option = if g.grantable { " with grant option" } else { "" };
            let grant = format!("grant {} on {kind} {name} to {role}{option}", g.privilege.to_lowercase());
            if g.grantor == *owner {
                all.push(grant);
            } else {
                all.extend([format!("set local role {}", g.grantor), grant, "reset role".to_owned()]);
            }
        }
        all.extend(f.comment.iter().map(|text| format!("comment on {kind} {name} is {}", literal(text))));
    }
    all
}

/// The previous function called `$1`.`$2`, if it uses the row type of the relation with oid `$3`: what to drop.
pub const FORMER: &str =
    "select case f.prokind when 'p' then 'procedure ' else 'function ' end || f.oid::pg_catalog.regprocedure
from pg_catalog.pg_proc f join pg_catalog.pg_namespace n on n.oid = f.pronamespace
where n.nspname = $1 and f.proname = $2 and exists (
  select from pg_catalog.pg_depend d join pg_catalog.pg_type y on y.oid = d.refobjid
    left join pg_catalog.pg_type e on e.oid = y.typelem
  where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = f.oid
    and d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass and $3 in (y.typrelid, e.typrelid))";

/// Drops what [`FORMER`] returned.
pub fn drop(former: &str) -> String {
    format!("drop {former}")
}

pub(super) fn kind(f: &RowFunction) -> &'static str {
    if f.procedure { "procedure" } else { "function" }
}

/// A subquery for the oids of the functions that can be created again for another row type of the relation `c`.
///
/// Not those that their owner could not create, those that only a superuser can create, aggregates and window functions, and those on which something depends that
/// the exchange does not redirect.
pub(super) const CARRIED: &str = "select f.oid
      from pg_proc f join pg_language l on l.oid = f.prolang
      where f.oid in (
          select d.objid from pg_depend d where d.classid = 'pg_proc'::regclass and d.refclassid = 'pg_type'::regclass
            and d.refobjid in (c.reltype, (select typarray from pg_type where oid = c.reltype)))
        and f.prokind in ('f', 'p') and l.lanpltrusted and not f.proleakproof and f.prosupport = 0
        and has_schema_privilege(f.proowner, f.pronamespace, 'create') and has_language_privilege(f.proowner, l.oid, 'usage')
        and not exists (select from pg_seclabel s where s.classoid = 'pg_proc'::regclass and s.objoid = f.oid)
        and not exists (
          select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = f.oid and d.deptype in ('e', 'x'))
        and not exists (
          select from pg_depend d left join pg_rewrite w on d.classid = 'pg_rewrite'::regclass and w.oid = d.objid
            left join pg_class v on v.oid = w.ev_class
          where d.refclassid = 'pg_proc'::regclass and d.refobjid = f.oid and not (w.oid is not null
            and (v.relkind = 'v' or w.rulename <> '_RETURN') and w.oid in (
              select r.objid from pg_depend r where r.classid = 'pg_rewrite'::regclass and r.refclassid = 'pg_class'::regclass
                and r.refobjid = c.oid)))";

/// The functions of [`CARRIED`] ([`RowFunction`]).
pub(super) const CATALOG: &str = "coalesce((
    select json_agg(json_build_object(
      'name', f.oid::regprocedure::text, 'schema', n.nspname, 'procedure', f.prokind = 'p',
      'owner', pg_get_userbyid(f.proowner), 'definition', pg_get_functiondef(f.oid),
      'grants', coalesce((
        select json_agg(json_build_object('role', case x.grantee when 0 then null else pg_get_userbyid(x.grantee) end,
          'grantor', pg_get_userbyid(x.grantor), 'privilege', x.privilege_type, 'column', null, 'grantable', x.is_grantable
        ) order by x.place)
        from aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) with ordinality
          x (grantor, grantee, privilege_type, is_grantable, place) where x.grantee <> f.proowner), '[]'),
      'owner_executes', exists (
        select from aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) x where x.grantee = f.proowner),
      'comment', obj_description(f.oid, 'pg_proc')
    ) order by f.oid::regprocedure::text)
    from pg_proc f join pg_namespace n on n.oid = f.pronamespace where f.oid in ({row_functions})), '[]')";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blueprint::tests::blueprint;
    use crate::model::grant::Grant;

    #[test]
    fn everything_that_an_exchange_sends() {
        let mut b = blueprint();
        let grant = |role: Option<&str>, grantor: &str| Grant {
            role: role.map(Ident::new),
            grantor: Ident::new(grantor),
            privilege: "EXECUTE".into(),
            column: None,
            grantable: role.is_some(),
        };
        let function = RowFunction {
            name: "public.complete(public.petri_observations)".into(),
            schema: Ident::new("public"),
            procedure: false,
            owner: Ident::new("lab"),
            definition: "CREATE OR REPLACE FUNCTION public.complete(public.petri_observations) ...\n".into(),
            grants: vec![grant(None, "lab"), grant(Some("reader"), "other")],
            owner_executes: true,
            comment: Some("it's done".into()),
        };
        let procedure = RowFunction {
            procedure: true,
            grants: Vec::new(),
            owner_executes: false,
            comment: None,
            ..function.clone()
        };
        b.table.dependents.row_functions = vec![function, procedure];
        let all = [put_aside(&b), create(&b)].map(|all| all.join(";\n"));
        insta::assert_snapshot!("row_functions", all.join(";\n\n"));
        b.table.dependents.row_functions.clear();
        assert_eq!((put_aside(&b).len(), create(&b).len()), (0, 0));
    }
}
