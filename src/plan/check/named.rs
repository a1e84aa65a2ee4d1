//! Checks the objects outside `pg_catalog` that the plan's SQL uses: who owns them, and who could replace them.

use serde::Deserialize;

use super::Report;
use crate::model::finding::{Finding, Level};
use crate::model::ident::{Ident, plain};
use crate::model::plan_sql::PlanSql;

/// The objects that the plan's SQL uses.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Named {
    /// Functions, operators, types, collations, tables.
    pub objects: Vec<NamedObject>,
    /// Schemas of the search path in which untrusted roles can create objects, or own objects.
    pub path: Vec<OpenSchema>,
}

/// An object outside `pg_catalog`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NamedObject {
    /// Its description by the server, such as `function app.norm(text)`.
    pub name: String,
    /// Its owner; none if it runs no code of the owner.
    pub owner: Option<String>,
    /// Whether the job trusts its owner.
    pub trusted: bool,
    /// Its schema.
    pub schema: String,
    /// Whether the SQL names it directly. Otherwise it is used through a view, a function or a type.
    #[serde(default)]
    pub direct: bool,
    /// Whether it is a table or view.
    pub relation: bool,
    /// Whether the arguments do not determine the function or operator: it accepts any type, or a variable number of
    /// arguments.
    pub loose: bool,
    /// Whether it is a function that looks up names on its caller's search path.
    pub relies: bool,
    /// Untrusted roles that can create objects in its schema.
    pub creators: Vec<String>,
    /// The owner of its schema, if untrusted: that role can drop the object and create another one with its name. Only
    /// for objects that the SQL names directly.
    pub replaced_by: Option<String>,
}

/// A schema in which untrusted roles can create objects, or own objects.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OpenSchema {
    /// Its name.
    pub schema: String,
    /// The roles that can create objects in it; `PUBLIC` for all roles.
    pub creators: Vec<String>,
    /// The roles that own objects in it.
    #[serde(default)]
    pub planted: Vec<String>,
}

impl Named {
    /// Adds the objects that other SQL of the same plan uses.
    pub fn add(&mut self, other: Self) {
        for object in other.objects {
            if !self.objects.contains(&object) {
                self.objects.push(object);
            }
        }
        for schema in other.path {
            if !self.path.contains(&schema) {
                self.path.push(schema);
            }
        }
    }

    /// Whether the check reports an error about an object. If so, the SQL must not run, and must not even be planned.
    pub fn is_refused(&self, sql: &PlanSql) -> bool {
        named(self, sql, "").iter().any(|finding| finding.level == Level::Error)
    }
}

/// Returns findings about objects that the SQL must not use, and about the settings with which it runs.
pub fn named(named: &Named, sql: &PlanSql, table: &str) -> Vec<Finding> {
    let mut report = Report::default();
    for object in &named.objects {
        owners(&mut report, object, named);
    }
    let open =
        |name: &Ident| named.path.iter().find(|one| one.schema == name.as_str() && !one.creators.is_empty());
    for open in sql.lookup.iter().filter(|_| sql.resolved).filter_map(open) {
        report.error(
            "untrusted_schema",
            plain(&open.schema),
            format!(
                "the plan's SQL uses NULLIF, IS DISTINCT FROM, CASE or a row comparison on a type whose \
                 operators are looked up by name, and {} can create objects in schema {}, which is on the \
                 search path",
                open.creators.join(", "),
                plain(&open.schema)
            ),
            "write the operator with its schema, such as case when a operator(public.=) b then null else \
             a end; or revoke create on that schema",
        );
    }
    settings(&mut report, sql, table);
    report.0
}

/// Reports an object that belongs to an untrusted role.
fn untrusted(report: &mut Report, object: &NamedObject) {
    let name = &object.name;
    let owner = plain(object.owner.as_deref().unwrap_or_default());
    if object.relation && !object.direct {
        return report.error(
            "untrusted_object",
            name,
            format!(
                "the plan's SQL reads {name} through another object, and it belongs to role {owner}: that role could attach code \
                 to it that would run with the privileges of the job's role"
            ),
            format!(
                "change its owner to a role that the job trusts; or, if you trust {owner} with the privileges of the job's role, set \
                 trust = [\"{owner}\"] at the top of the plan"
            ),
        );
    }
    if object.relation {
        return report.error(
            "untrusted_object",
            name,
            format!(
                "the plan's SQL reads {name}, which belongs to role {owner}: that role could put a view in its place, whose code would \
                 run with the privileges of the job's role"
            ),
            format!(
                "change its owner to a role that the job trusts; or, if you trust {owner} with the privileges of the job's role, set \
                 trust = [\"{owner}\"] at the top of the plan"
            ),
        );
    }
    let uses = if object.direct { "names" } else { "uses" };
    report.error(
        "untrusted_object",
        name,
        format!(
            "the plan's SQL {uses} {name}, which belongs to role {owner}: its code would run with the privileges of the job's role"
        ),
        format!(
            "name another object, with its schema, such as pg_catalog.lower(...); or change its owner to a role that the job trusts; \
             or, if you trust {owner} with the privileges of the job's role, set trust = [\"{owner}\"] at the top of the plan"
        ),
    );
}

/// Reports a call that could mean another function, which `creators` can create.
pub(super) fn overload(report: &mut Report, by: &str, function: &str, schema: &str, creators: &[String]) {
    let message = format!(
        "{by} calls {function}, which is polymorphic or VARIADIC, and {} can create a better match in \
         schema {}",
        creators.join(", "),
        plain(schema)
    );
    report.error("untrusted_schema", function, message, revoke(creators, schema));
}

/// The statement that revokes CREATE on a schema.
fn revoke(creators: &[String], schema: &str) -> String {
    let roles: Vec<String> = creators
        .iter()
        .map(|role| if role == "PUBLIC" { "public".to_owned() } else { plain(role) })
        .collect();
    format!("revoke create on schema {} from {}", plain(schema), roles.join(", "))
}

fn owners(report: &mut Report, object: &NamedObject, named: &Named) {
    let NamedObject { name, schema, .. } = object;
    if !object.trusted {
        return untrusted(report, object);
    }
    if let Some(role) = &object.replaced_by {
        let role = plain(role);
        report.error(
            "untrusted_schema",
            name,
            format!(
                "the plan's SQL names {name}, and role {role}, which owns schema {}, can replace it",
                plain(schema)
            ),
            format!(
                "move it to a schema whose owner the job trusts; or, if you trust {role} with the \
                 privileges of the job's role, set trust = [\"{role}\"] at the top of the plan"
            ),
        );
    }
    if object.loose && !object.creators.is_empty() {
        overload(report, "the plan's SQL", name, schema, &object.creators);
    }
    if object.relies {
        searched(report, name, named);
    }
}

/// Reports a function that looks up names on its caller's search path, if untrusted roles own or can create objects
/// there.
fn searched(report: &mut Report, name: &str, named: &Named) {
    for planted in named.path.iter().filter(|one| one.creators.is_empty()) {
        report.error(
            "untrusted_schema",
            name,
            format!(
                "the plan's SQL calls {name}, which looks up names on its caller's search_path, and {} owns objects in schema {} \
                 of that path",
                planted.planted.join(", "),
                plain(&planted.schema)
            ),
            format!(
                "alter {name} set search_path = pg_catalog, ...; or set the path in the plan: \
                 settings = {{ search_path = \"...\" }}"
            ),
        );
    }
    for open in named.path.iter().filter(|one| !one.creators.is_empty()) {
        report.error(
            "untrusted_schema",
            name,
            format!(
                "the plan's SQL calls {name}, which looks up names on its caller's search_path, and {} \
                 can create objects in schema {} of that path",
                open.creators.join(", "),
                plain(&open.schema)
            ),
            format!(
                "alter {name} set search_path = pg_catalog, ...; or {}; or set the path in the plan: \
                 settings = {{ search_path = \"...\" }}",
                revoke(&open.creators, &open.schema)
            ),
        );
    }
}

/// Reports the settings, because they change the meaning of values written as text and of times of day.
fn settings(report: &mut Report, sql: &PlanSql, table: &str) {
    if !sql.resolved {
        return;
    }
    report.note(
        "plan_settings",
        table,
        format!(
            "the plan's SQL runs with TimeZone {}, DateStyle {}, IntervalStyle {}, and the functions that it calls with \
             search_path {}, also in the trigger, regardless of the settings of the writing session",
            sql.time_zone, sql.date_style, sql.interval_style, sql.search_path
        ),
    );
}
