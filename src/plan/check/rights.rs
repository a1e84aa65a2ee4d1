//! Reports the privileges that the job's role lacks, each with its GRANT.

use super::facts::{CreatedIn, Grantor};
use super::named::overload;
use super::writing::Writing;
use super::{ColumnFacts, Found, Report, Rights, Server};
use crate::model::blueprint::SCHEMA;
use crate::model::ident::{Ident, QualifiedName, plain};
use crate::model::table::{ForeignKey, Table};
use crate::model::untrusted_code::{Overload, described, hint};
use crate::plan::{Backfill, KeepFilled, Plan};

/// The job's role, and the report for the privileges that it lacks.
struct JobRole<'a> {
    report: &'a mut Report,
    name: String,
}

impl JobRole<'_> {
    /// `what` follows "role ..." in the message.
    fn lacks(&mut self, object: &str, what: &str, grant: String) {
        self.report.error("missing_privilege", object, format!("role {} {what}", self.name), grant);
    }

    fn lacks_references(&mut self, table: &QualifiedName) {
        let table = table.plain();
        let what = format!("lacks REFERENCES on {table}, which a foreign key references");
        self.lacks(&table, &what, format!("grant references on {table} to {}", self.name));
    }
}

pub(super) fn check(report: &mut Report, plan: &Plan, table: &Table, rights: &Rights, server: &Server) {
    let (role, name) = (plain(&server.user), table.name.plain());
    let mut us = JobRole { report, name: role.clone() };
    on_table(&mut us, table, rights);
    on_dependents(&mut us, rights);
    own_schema(&mut us, rights, &plain(&server.database));
    untrusted_code(report, &role, table, rights);
    if rights.rows_hidden {
        hidden(report, &role, &name);
    }
    if !rights.sees_sessions {
        report.warning(
            "sessions_hidden",
            &role,
            format!(
                "role {role} cannot see how long transactions of other roles have been open: one of them \
                 can block the swap, and applications then wait behind the swap for up to lock_timeout"
            ),
            format!("grant pg_read_all_stats to {role}"),
        );
        standbys(report, plan, &role);
    }
}

/// Checks the privileges for a backfill. It updates the rows of each partition directly, and alters the table if the
/// plan adds columns, keeps rows filled, or adds constraints or indexes.
pub(super) fn of_backfill(
    report: &mut Report,
    plan: &Plan,
    backfill: &Backfill,
    found: &Found,
    writing: &Writing,
    server: &Server,
) {
    let (table, rights) = (&found.table, &found.rights);
    let (role, name) = (plain(&server.user), table.name.plain());
    let mut us = JobRole { report, name: role.clone() };
    if let Some(why) = alters(backfill, table).filter(|_| !rights.owner) {
        let owner = plain(table.owner.as_str());
        let what = format!("lacks the privileges of role {owner}, which owns {name}, and the plan {why}");
        us.lacks(&name, &what, format!("grant {owner} to {role}"));
    }
    if backfill.keep_filled != KeepFilled::No {
        on_rows(&mut us, table, rights, ["TRIGGER"]);
    }
    for schema in &writing.closed {
        let schema = plain(schema.as_str());
        let what = format!("lacks USAGE on schema {schema}");
        us.lacks(&schema, &what, format!("grant usage on schema {schema} to {role}"));
    }
    for (right, tables) in [("select", &writing.unreadable), ("update", &writing.unwritable)] {
        for one in tables {
            let one = one.plain();
            let what = format!("lacks {} on {one}", right.to_uppercase());
            us.lacks(&one, &what, format!("grant {right} on {one} to {role}"));
        }
    }
    own_schema(&mut us, rights, &plain(&server.database));
    untrusted_code(report, &role, table, rights);
    for table in &writing.hidden {
        hidden(report, &role, &table.plain());
    }
    if !rights.sees_sessions {
        standbys(report, plan, &role);
    }
}

/// Checks the privileges for a column type change, which alters the table and updates its rows.
pub(super) fn of_retype(
    report: &mut Report,
    plan: &Plan,
    found: &Found,
    column: Option<&ColumnFacts>,
    server: &Server,
) {
    let (table, rights) = (&found.table, &found.rights);
    let (role, name) = (plain(&server.user), table.name.plain());
    let mut us = JobRole { report, name: role.clone() };
    if !rights.owner {
        let owner = plain(table.owner.as_str());
        let what = format!("lacks the privileges of role {owner}, which owns {name}");
        us.lacks(&name, &what, format!("grant {owner} to {role}"));
    }
    if rights.owner && !rights.select {
        us.lacks(&name, &format!("lacks SELECT on {name}"), format!("grant select on {name} to {role}"));
    }
    on_column(&mut us, table, rights, column);
    grantors(&mut us, rights, &role);
    own_schema(&mut us, rights, &plain(&server.database));
    untrusted_code(report, &role, table, rights);
    if rights.rows_hidden {
        hidden(report, &role, &name);
    }
    if !rights.sees_sessions {
        standbys(report, plan, &role);
    }
}

/// Reports the privileges that a column type change needs to update the rows and to move the foreign keys of the column.
fn on_column(us: &mut JobRole<'_>, table: &Table, rights: &Rights, column: Option<&ColumnFacts>) {
    let (name, role) = (table.name.plain(), us.name.clone());
    if rights.owner && !rights.select {
        us.lacks(&name, &format!("lacks SELECT on {name}"), format!("grant select on {name} to {role}"));
    }
    let keys = column.map_or(&[][..], |column| &column.keys);
    let referenced = keys.iter().any(|key| key.retyped_referenced.is_some()).then_some("REFERENCES");
    on_rows(us, table, rights, ["UPDATE", "TRIGGER"].into_iter().chain(referenced));
    let moved = |key: &&ForeignKey| keys.iter().any(|k| k.retyped.is_some() && k.name == key.name);
    let mut others: Vec<&QualifiedName> =
        table.foreign_keys.iter().filter(moved).map(|key| &key.references).collect();
    others.retain(|other| rights.not_referenceable.contains(other));
    others.sort();
    others.dedup();
    for other in others {
        us.lacks_references(other);
    }
}

/// Reports grantors on whose behalf the job cannot grant privileges.
fn grantors(us: &mut JobRole<'_>, rights: &Rights, role: &str) {
    for Grantor { name, on, closed } in &rights.grantors {
        let grantor = plain(name.as_str());
        let why = format!("granted privileges on {on}: the job must grant them again as {grantor}");
        match closed {
            None => {
                let what = format!("lacks the privileges of role {grantor}, which {why}");
                us.lacks(&grantor, &what, format!("grant {grantor} to {role}"));
            }
            Some(schema) => {
                let schema = plain(schema.as_str());
                let message = format!("role {grantor} lacks USAGE on schema {schema}, but {why}");
                let grant = format!("grant usage on schema {schema} to {grantor}");
                us.report.error("missing_privilege", &schema, message, grant);
            }
        }
    }
}

/// Reports code of other roles that would run with the privileges of the job's role.
fn untrusted_code(report: &mut Report, role: &str, table: &Table, rights: &Rights) {
    if !rights.untrusted_code.is_empty() {
        let message = format!(
            "the job would run code of other roles with the privileges of role {role}: {}",
            described(&rights.untrusted_code)
        );
        report.error(
            "untrusted_code",
            table.name.plain(),
            message,
            hint(&rights.untrusted_code, &plain(table.owner.as_str())),
        );
    }
    for Overload { by, function, schema, creators } in &rights.overloads {
        overload(report, by, function, schema, creators);
    }
}

fn hidden(report: &mut Report, role: &str, table: &str) {
    let message = format!("row-level security hides rows of {table} from role {role}");
    let hint = format!(
        "alter role {role} bypassrls, or alter table {table} no force row level security until the job is finalized"
    );
    report.error("row_security", table, message, hint);
}

/// What the plan does that only the owner of the table can do, for the message; none if there is nothing.
fn alters(backfill: &Backfill, table: &Table) -> Option<&'static str> {
    if backfill.add.iter().any(|one| table.column(&Ident::new(&one.name)).is_none()) {
        return Some("adds columns");
    }
    if backfill.keep_filled != KeepFilled::No {
        return Some("keeps rows filled with a trigger");
    }
    (!backfill.finish.is_empty()).then_some("builds constraints or indexes")
}

/// Warns if the role cannot see the replica lag. The job would be throttled if there are standbys, or if the plan has a
/// limit.
fn standbys(report: &mut Report, plan: &Plan, role: &str) {
    let throttle = plan.throttle();
    let by_time = throttle.max_replica_lag.limit().is_some();
    if throttle.replicas.is_empty() && (by_time || throttle.max_replica_lag_bytes.is_some()) {
        report.warning(
            "replicas_hidden",
            role,
            format!(
                "role {role} cannot see the replica lag: if the server has standbys, or the plan sets a \
                 limit, the job is throttled until it can see the lag"
            ),
            format!("grant pg_monitor to {role}, or list the standbys under [throttle] replicas"),
        );
    }
}

fn on_table(us: &mut JobRole<'_>, table: &Table, rights: &Rights) {
    let (role, name) = (us.name.clone(), table.name.plain());
    let (owner, schema) = (plain(table.owner.as_str()), plain(table.name.schema.as_str()));
    if !rights.owner {
        let what = format!("lacks the privileges of role {owner}, which owns {name}");
        us.lacks(&name, &what, format!("grant {owner} to {role}"));
    } else if !rights.become_owner {
        let what = format!("cannot change the owner of tables to role {owner}, which owns {name}");
        us.lacks(&name, &what, format!("grant {owner} to {role} with set true"));
    }
    if !rights.select {
        let what = format!("lacks SELECT on {name}");
        us.lacks(&name, &what, format!("grant select on {name} to {role}"));
    }
    let own = table.foreign_keys.iter().any(|key| key.references == table.name);
    let referenced = own || !table.referenced_by.is_empty();
    let references = referenced.then_some("REFERENCES");
    let needed = ["INSERT", "DELETE", "TRIGGER"].into_iter().chain(references);
    on_rows(us, table, rights, needed);
    if !rights.schema_create {
        let what = format!("lacks CREATE on schema {schema}, in which the partitions are created");
        us.lacks(&schema, &what, format!("grant create on schema {schema} to {role}"));
    } else if !rights.owner_creates && !rights.superuser {
        let what = format!(
            "cannot change the owner of tables in schema {schema} to role {owner}, which \
            lacks CREATE on it"
        );
        us.lacks(&schema, &what, format!("grant create on schema {schema} to {owner}"));
    }
    for space in &rights.tablespaces_denied {
        let space = plain(space.as_str());
        let what = format!(
            "lacks CREATE on tablespace {space}, which contains {name} or one of its \
            indexes"
        );
        us.lacks(&space, &what, format!("grant create on tablespace {space} to {role}"));
    }
}

/// Reports privileges that the owner revoked from itself. Without the privileges of the owner, the job lacks all of them.
fn on_rows<'a>(
    us: &mut JobRole<'_>,
    table: &Table,
    rights: &Rights,
    needed: impl IntoIterator<Item = &'a str>,
) {
    let name = table.name.plain();
    let lacking =
        needed.into_iter().filter(|one| rights.owner && rights.lacks.iter().any(|lack| lack == one));
    for privilege in lacking {
        let what = format!("lacks {privilege} on {name}");
        let grant = format!("grant {} on {name} to {}", privilege.to_lowercase(), us.name);
        us.lacks(&name, &what, grant);
    }
}

/// Checks the privileges for objects that are created again with the table, or replaced at the swap.
fn on_dependents(us: &mut JobRole<'_>, rights: &Rights) {
    let role = us.name.clone();
    for schema in &rights.schemas_without_usage {
        let schema = plain(schema.as_str());
        let what = format!("lacks USAGE on schema {schema}");
        us.lacks(&schema, &what, format!("grant usage on schema {schema} to {role}"));
    }
    for CreatedIn { schema, name } in &rights.schemas_without_create {
        let schema = plain(schema.as_str());
        let what = format!("lacks CREATE on schema {schema}, in which {name} is created again");
        us.lacks(&schema, &what, format!("grant create on schema {schema} to {role}"));
    }
    for name in &rights.types_closed {
        let what = format!("lacks USAGE on type {name}, which a column uses");
        us.lacks(name, &what, format!("grant usage on type {name} to {role}"));
    }
    for table in &rights.not_referenceable {
        us.lacks_references(table);
    }
    for function in &rights.not_executable {
        let what = format!("lacks EXECUTE on {function}, which a trigger calls");
        us.lacks(function, &what, format!("grant execute on function {function} to {role}"));
    }
    grantors(us, rights, &role);
    for thing in &rights.not_owned {
        let (name, owner) = (&thing.name, plain(thing.owner.as_str()));
        let what = format!(
            "lacks the privileges of role {owner}, which owns {name}, and the swap binds it to \
                the new table"
        );
        us.lacks(name, &what, format!("grant {owner} to {role}"));
    }
    for view in &rights.foreign_views {
        let (name, owner) = (view.name.plain(), plain(view.owner.as_str()));
        if view.owned {
            let schema = plain(view.name.schema.as_str());
            let what = format!("lacks CREATE on schema {schema}, in which the swap replaces view {name}");
            us.lacks(&name, &what, format!("grant create on schema {schema} to {role}"));
        } else {
            let what = format!(
                "lacks the privileges of role {owner}, which owns view {name}, and the swap \
                    replaces the view"
            );
            us.lacks(&name, &what, format!("grant {owner} to {role}, or alter view {name} owner to {role}"));
        }
    }
}

/// Checks that the job's role can use or create the schema of pgstrata's own tables.
fn own_schema(us: &mut JobRole<'_>, rights: &Rights, database: &str) {
    let role = us.name.clone();
    let Some(own) = &rights.own_schema else {
        if !rights.database_create {
            let what = format!(
                "lacks CREATE on database {database}, and schema {SCHEMA} does not exist \
                yet"
            );
            us.lacks(database, &what, format!("grant create on database {database} to {role}"));
        }
        return;
    };
    // A GRANT does not suffice: a job rejects a schema in which other roles can create or write.
    let share = format!("connect as the role that owns schema {SCHEMA}, or act as it; see SECURITY.md");
    if !(own.usage && own.create) {
        let what = format!("lacks USAGE or CREATE on schema {SCHEMA}, which another role created");
        us.lacks(SCHEMA, &what, share.clone());
    }
    if !own.tables {
        let what = format!(
            "cannot read and write all tables of schema {SCHEMA}, which another role \
            created"
        );
        us.lacks(SCHEMA, &what, share);
    }
}
