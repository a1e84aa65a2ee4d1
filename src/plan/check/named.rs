//! What the plan's SQL names outside `pg_catalog`: whose it is, and who could put something else in its place.

use serde::Deserialize;

use super::Report;
use crate::model::finding::{Finding, Level};
use crate::model::ident::{Ident, plain};
use crate::model::plan_sql::PlanSql;

/// What the plan's SQL names.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Named {
    /// Functions, operators, types, collations, tables.
    pub objects: Vec<Object>,
    /// Schemas of the search path in which roles may create that the job does not trust.
    pub path: Vec<OpenSchema>,
}

/// An object outside `pg_catalog`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Object {
    /// As the server describes it: `function app.norm(text)`.
    pub name: String,
    /// Its owner; none where it runs no code of the owner's.
    pub owner: Option<String>,
    /// The job trusts its owner.
    pub trusted: bool,
    /// Its schema.
    pub schema: String,
    /// The SQL itself names it; otherwise it is reached through a view, a function or a type.
    #[serde(default)]
    pub direct: bool,
    /// It is a table or view.
    pub relation: bool,
    /// Arguments do not say exactly which function or operator is meant: it takes any type, or a number of arguments.
    pub loose: bool,
    /// A function that looks names up under its caller's search path.
    pub relies: bool,
    /// Roles that the job does not trust and that may create in its schema.
    pub creators: Vec<String>,
    /// The owner of its schema, who may drop it and make another of its name, if the job does not trust that role; only of what
    /// the plan's own SQL names.
    pub replaced_by: Option<String>,
}

/// A schema in which roles may create that the job does not trust.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OpenSchema {
    /// Its name.
    pub schema: String,
    /// The roles that may create in it; `PUBLIC` for everybody.
    pub creators: Vec<String>,
    /// The roles that own something in it.
    #[serde(default)]
    pub planted: Vec<String>,
}

impl Named {
    /// Adds what other SQL of the same plan names.
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

    /// Whether the check reports an error about it. Nothing that the SQL names may run then, not even in the planner.
    pub fn is_refused(&self, sql: &PlanSql) -> bool {
        named(self, sql, "").iter().any(|finding| finding.level == Level::Error)
    }
}

/// What the plan's SQL must not name, and the settings under which it runs.
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

/// The object belongs to a role that the job does not trust.
fn untrusted(report: &mut Report, object: &Object) {
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
    report.error(
        "untrusted_object",
        name,
        format!(
            "the plan's SQL names {name}, which belongs to role {owner}: its code would run with the privileges of the job's role"
        ),
        format!(
            "name another object, with its schema, such as pg_catalog.lower(...); or change its owner to a role that the job trusts; \
             or, if you trust {owner} with the privileges of the job's role, set trust = [\"{owner}\"] at the top of the plan"
        ),
    );
}

/// The statement that closes a schema.
fn revoke(creators: &[String], schema: &str) -> String {
    let roles: Vec<String> = creators
        .iter()
        .map(|role| if role == "PUBLIC" { "public".to_owned() } else { plain(role) })
        .collect();
    format!("revoke create on schema {} from {}", plain(schema), roles.join(", "))
}

fn owners(report: &mut Report, object: &Object, named: &Named) {
    let Object { name, schema, .. } = object;
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
        report.error(
            "untrusted_schema",
            name,
            format!(
                "the plan's SQL calls {name}, which takes arguments of any type or number, and {} can \
                 create a better match in schema {}",
                object.creators.join(", "),
                plain(schema)
            ),
            revoke(&object.creators, schema),
        );
    }
    if object.relies {
        searched(report, name, named);
    }
}

/// A function looks up names on its caller's search path, where roles that the job does not trust can put objects, or did.
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

/// The settings are told where they are not those that every server begins with: values written as text, and times of day,
/// mean something else under them.
fn settings(report: &mut Report, sql: &PlanSql, table: &str) {
    let utc = ["UTC", "Etc/UTC", "GMT"].contains(&sql.time_zone.as_str());
    let usual = ["ISO, MDY", "ISO, YMD"].contains(&sql.date_style.as_str());
    if !sql.resolved || utc && usual && sql.interval_style == "postgres" {
        return;
    }
    report.note(
        "plan_settings",
        table,
        format!(
            "the plan's SQL runs with TimeZone {}, DateStyle {}, IntervalStyle {}, also in the trigger, \
             regardless of the settings of the writing session",
            sql.time_zone, sql.date_style, sql.interval_style
        ),
    );
}
