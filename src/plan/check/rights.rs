//! What our role may not do and must: each with its GRANT.

use super::{Report, Rights, Server};
use crate::model::blueprint::SCHEMA;
use crate::model::ident::plain;
use crate::model::table::Table;

const CODE: &str = "missing_privilege";

pub(super) fn check(report: &mut Report, table: &Table, rights: &Rights, server: &Server) {
    let role = plain(&server.user);
    let name = table.name.plain();
    let owner = plain(table.owner.as_str());
    let schema = plain(table.name.schema.as_str());
    let mut lacks = |object: &str, what: String, grant: String| {
        report.error(CODE, object, format!("role {role} {what}"), grant);
    };
    if !rights.owner {
        lacks(
            &name,
            format!("has not the rights of {owner}, who owns {name}"),
            format!("grant {owner} to {role}"),
        );
    } else if !rights.become_owner {
        let what = format!("cannot give tables to {owner}, who owns {name}");
        lacks(&name, what, format!("grant {owner} to {role} with set true"));
    }
    if !rights.schema_create {
        let what = format!("lacks CREATE on schema {schema}, where the partitions will be");
        lacks(&schema, what, format!("grant create on schema {schema} to {role}"));
    }
    if rights.schema_create && !rights.owner_creates && !rights.superuser {
        let what = format!("cannot give tables in schema {schema} to {owner}, who lacks CREATE there");
        lacks(&schema, what, format!("grant create on schema {schema} to {owner}"));
    }
    for closed in &rights.schemas_closed {
        let closed = plain(closed.as_str());
        let what = format!("lacks USAGE on schema {closed}");
        lacks(&closed, what, format!("grant usage on schema {closed} to {role}"));
    }
    for table in &rights.not_referenceable {
        let table = table.plain();
        let what = format!("lacks REFERENCES on {table}, which a foreign key points to");
        lacks(&table, what, format!("grant references on {table} to {role}"));
    }
    for function in &rights.not_executable {
        let what = format!("lacks EXECUTE on {function}, which a trigger calls");
        lacks(function, what, format!("grant execute on function {function} to {role}"));
    }
    for view in &rights.foreign_views {
        let (name, owner, schema) =
            (view.name.plain(), plain(view.owner.as_str()), plain(view.name.schema.as_str()));
        if view.owned {
            let what = format!("lacks CREATE on schema {schema}, where view {name} is replaced at the swap");
            lacks(&name, what, format!("grant create on schema {schema} to {role}"));
        } else {
            let what =
                format!("has not the rights of {owner}, who owns view {name}, which is replaced at the swap");
            lacks(&name, what, format!("grant {owner} to {role}"));
        }
    }
    own_schema(report, rights, server);
    if rights.rows_hidden {
        report.error(
            "row_security",
            &name,
            format!("row-level security hides rows of {name} from role {role}"),
            format!(
                "alter role {role} bypassrls, or alter table {name} no force row level security for the run"
            ),
        );
    }
}

fn own_schema(report: &mut Report, rights: &Rights, server: &Server) {
    let (role, database) = (plain(&server.user), plain(&server.database));
    let mut lacks = |object: &str, what: &str, grant: String| {
        report.error(CODE, object, format!("role {role} {what}"), grant);
    };
    match &rights.own_schema {
        None if rights.database_create => {}
        None => lacks(
            &database,
            &format!("lacks CREATE on database {database}, and schema {SCHEMA} is not there yet"),
            format!("grant create on database {database} to {role}"),
        ),
        Some(own) => {
            if !(own.usage && own.create) {
                lacks(
                    SCHEMA,
                    "lacks USAGE or CREATE on schema pgstrata",
                    format!("grant usage, create on schema {SCHEMA} to {role}"),
                );
            }
            if !own.tables {
                lacks(
                    SCHEMA,
                    "cannot read and write the tables of schema pgstrata, which another role set up",
                    format!(
                        "grant select, insert, update, delete on all tables in schema {SCHEMA} to {role}"
                    ),
                );
            }
        }
    }
}
