//! Maintenance of a partitioned table: creates partitions ahead of time, each modeled on an existing one, removes old
//! ones, and updates statistics.
//!
//! A partition is created as a separate table with all its indexes and constraints, and then attached: `ATTACH` does
//! not block readers and writers of the table, whereas `CREATE ... PARTITION OF` does.

use crate::model::ident::{Ident, QualifiedName, literal};
use crate::model::partition::Range;
use crate::model::table::{Index, ReplicaIdentity, Table};

use super::prepare::{grant, policy, revoke, statistics_targets, with};
use super::strip::strip;
use super::trust::is_trusted;
use super::{in_tablespace, with_operators};

/// How the relation with oid `$1` is partitioned: strategy, number of columns, name and type of the first column (of a
/// domain, the type under it), and the server's version. No row if it is not partitioned.
pub const KEY: &str = "select p.partstrat::text, p.partnatts::integer, a.attname::text, (
    with recursive under as (
      select t.oid, t.typbasetype, t.typtype from pg_catalog.pg_type t where t.oid = a.atttypid
      union all
      select t.oid, t.typbasetype, t.typtype from pg_catalog.pg_type t join under u on t.oid = u.typbasetype where u.typtype = 'd'
    ) select pg_catalog.format_type(u.oid, -1) from under u where u.typtype <> 'd'),
  pg_catalog.current_setting('server_version_num')::integer
from pg_catalog.pg_partitioned_table p
  left join pg_catalog.pg_attribute a on a.attrelid = p.partrelid and a.attnum = p.partattrs[0] and a.attnum > 0
where p.partrelid = $1";

/// The partitions of the relation with oid `$1`: schema, name, oid, kind, bounds, and whether an interrupted DETACH
/// PARTITION CONCURRENTLY must be completed.
pub const PARTITIONS: &str = "select n.nspname::text, c.relname::text, c.oid, c.relkind::text,
  pg_catalog.pg_get_expr(c.relpartbound, c.oid), h.inhdetachpending
from pg_catalog.pg_inherits h join pg_catalog.pg_class c on c.oid = h.inhrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where h.inhparent = $1";

/// The default time zone of sessions.
pub const ZONE: &str = "select reset_val from pg_catalog.pg_settings where name = 'TimeZone'";

/// The current time, as a value of the partition column.
pub fn now(sql_type: &str) -> String {
    format!("select pg_catalog.now()::{sql_type}::text")
}

/// Whether the partition has any row.
pub fn has_rows(partition: &QualifiedName) -> String {
    format!("select exists (select from {partition})")
}

/// The largest value in the partition.
pub fn newest(partition: &QualifiedName, by: &Ident) -> String {
    format!("select max({by})::text from {partition}")
}

/// The number of rows in the default partition, the number of those that no range accepts, and the smallest and largest
/// value of the others.
pub fn strays(default: &QualifiedName, by: &Ident, time: bool) -> String {
    let finite = finite(by, time);
    format!(
        "select count(*), count(*) filter (where ({finite}) is not true),
  (min({by}) filter (where {finite}))::text, (max({by}) filter (where {finite}))::text
from {default}"
    )
}

/// The number of rows in the default partition by range: `$1` are the lower bounds of the ranges, in order. Returns the
/// position of each range that has rows, counted from 1, and the number of rows.
pub fn strays_by_range(default: &QualifiedName, by: &Ident, sql_type: &str, time: bool) -> String {
    let finite = finite(by, time);
    format!(
        "select pg_catalog.width_bucket({by}, $1::text[]::{sql_type}[]), count(*) from {default}\nwhere {finite}\ngroup by 1 order by 1"
    )
}

fn finite(by: &Ident, time: bool) -> String {
    if time { format!("{by} > '-infinity' and {by} < 'infinity'") } else { format!("{by} is not null") }
}

/// Constraints of the partition with oid `$1` that are not inherited from its parent, except unique ones: name,
/// definition, and whether it is a CHECK on column `$2`.
pub const OWN_CONSTRAINTS: &str = "select k.conname::text,
  pg_catalog.regexp_replace(pg_catalog.pg_get_constraintdef(k.oid), ' NOT VALID$', ''),
  k.contype = 'c' and exists (select from pg_catalog.pg_attribute a
    where a.attrelid = k.conrelid and a.attname = $2 and a.attnum = any (k.conkey))
from pg_catalog.pg_constraint k
where k.conrelid = $1 and k.conparentid = 0 and k.coninhcount = 0 and k.contype in ('c', 'f', 'x')
order by 1";

/// The model for a new partition.
#[derive(Debug)]
pub struct Sibling {
    /// The newest existing partition.
    pub table: Table,
    /// The constraints that it does not inherit: name and definition.
    pub constraints: Vec<(Ident, String)>,
}

/// Creates a table that can become a partition of `parent`. One transaction, with [`attach`].
pub fn create(parent: &Table, sibling: &Sibling, name: &QualifiedName) -> Vec<String> {
    let like = &sibling.table;
    let method = like.access_method.as_ref().map_or(String::new(), |method| format!(" using {method}"));
    let unlogged = if like.persistence == "u" { "unlogged " } else { "" };
    let tablespace = like.tablespace.as_ref().map_or(String::new(), |space| format!(" tablespace {space}"));
    // Partitions have no identity columns of their own.
    let mut all = vec![
        format!(
            "create {unlogged}table {name} (like {} including defaults including generated including constraints \
             including storage including compression){method}{}{tablespace}",
            parent.name,
            with(like)
        ),
        strip(name, like.columns.iter().map(|c| &c.name), like.checks.iter().map(|c| &c.name)),
        format!("alter table {name} owner to {}", like.owner),
        revoke(name),
    ];
    all.extend(like.grants.iter().flat_map(|g| grant(&like.owner, name, g)));
    all.extend(statistics_targets(like, name, false));
    let indexes = like.indexes.iter().filter(|i| i.valid && i.constraint != "x");
    let mut again: Vec<String> = indexes.flat_map(|i| index(like, name, i)).collect();
    let constraints = sibling.constraints.iter();
    again.extend(
        constraints.map(|(own, definition)| format!("alter table {name} add constraint {own} {definition}")),
    );
    again.extend(row_security(like, name));
    again.extend(triggers(parent, like, name));
    all.extend(with_operators(&like.operator_schemas, again));
    all.extend(replica_identity(like, name));
    all
}

fn index(like: &Table, table: &QualifiedName, index: &Index) -> Vec<String> {
    let name = renamed(like, table, &index.name);
    let unique = if index.unique { "unique " } else { "" };
    let built = vec![format!("create {unique}index {name} on {table} using {}", index.tail)];
    let mut all = in_tablespace(index.tablespace.as_ref(), built);
    let kind = match index.constraint.as_str() {
        "p" => "primary key",
        "u" => "unique",
        _ => return all,
    };
    all.push(format!(
        "alter table {table} add constraint {name} {kind} using index {name}{}",
        index.deferrable
    ));
    all
}

/// Replaces the name of the sibling in the name of an index by that of the new partition. If the name does not contain
/// it, the name of the new partition becomes the prefix.
fn renamed(like: &Table, table: &QualifiedName, index: &Ident) -> Ident {
    let (sibling, new, index) = (like.name.name.as_str(), table.name.as_str(), index.as_str());
    Ident::derived(&match index.contains(sibling) {
        true => index.replacen(sibling, new, 1),
        false => format!("{new}_{index}"),
    })
}

fn row_security(like: &Table, name: &QualifiedName) -> Vec<String> {
    let set = [(like.row_security, "enable"), (like.force_row_security, "force")];
    let set = set
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, word)| format!("alter table {name} {word} row level security"));
    set.chain(like.policies.iter().map(|p| policy(name, &like.name.name, p))).collect()
}

/// Creates the triggers that only the sibling has; [`attach`] creates those of the parent.
fn triggers(parent: &Table, like: &Table, name: &QualifiedName) -> Vec<String> {
    let own = like.triggers.iter().filter(|t| parent.triggers.iter().all(|p| p.name != t.name));
    own.flat_map(|t| {
        let state = match t.enabled.as_str() {
            "D" => Some("disable"),
            "R" => Some("enable replica"),
            "A" => Some("enable always"),
            _ => None,
        };
        let set = state.map(|state| format!("alter table {name} {state} trigger {}", t.name));
        std::iter::once(format!("{}{name}{}", t.head, t.tail)).chain(set)
    })
    .collect()
}

fn replica_identity(like: &Table, name: &QualifiedName) -> Option<String> {
    let identity = match &like.replica_identity {
        ReplicaIdentity::Default => return None,
        ReplicaIdentity::Nothing => "nothing".to_owned(),
        ReplicaIdentity::Full => "full".to_owned(),
        ReplicaIdentity::Index(index) => format!("using index {}", renamed(like, name, index)),
    };
    Some(format!("alter table {name} replica identity {identity}"))
}

/// Attaches the table as a partition. If there is a default partition, the server scans it.
pub fn attach(parent: &QualifiedName, name: &QualifiedName, range: &Range) -> String {
    format!(
        "alter table {parent} attach partition {name} for values from ({}) to ({})",
        range.from.sql(),
        range.to.sql()
    )
}

/// The key tables of the partitioned table with oid `$1`, by its triggers for TRUNCATE: the trigger, and the schema and name
/// of the key table. The key table and its functions must belong to the owner of the table, or to a role that could act
/// as the session's or is in the list `$2`: any role with TRIGGER can create a trigger with such a name.
pub const KEY_TABLES: &str = concat!(
    "select t.tgname::text, n.nspname::text, k.relname::text
from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid join pg_catalog.pg_proc p on p.oid = t.tgfoid
  join pg_catalog.pg_namespace n on n.oid = p.pronamespace and n.oid = c.relnamespace
  join pg_catalog.pg_class k on k.relnamespace = n.oid and k.relkind = 'r' and k.relname::text operator(pg_catalog.||) '_truncate' = p.proname::text
  join pg_catalog.pg_proc r on r.pronamespace = n.oid and r.proname::text = k.relname::text operator(pg_catalog.||) '_remove'
    and r.proargtypes = '2205'::pg_catalog.oidvector
where t.tgrelid = $1 and pg_catalog.starts_with(t.tgname::text, '!pgstrata_truncate_')
  and not exists (
    select from (values (p.proowner), (k.relowner), (r.proowner)) o (oid)
    where o.oid <> c.relowner and not ",
    is_trusted!("o.oid", "session_user", "$2"),
    ")
order by 1"
);

/// A key table, and the trigger that each partition needs for TRUNCATE.
#[derive(Debug)]
pub struct PartitionKeys {
    /// The trigger of the partitioned table, and of its partitions.
    pub trigger: Ident,
    /// The key table.
    pub table: QualifiedName,
}

impl PartitionKeys {
    fn function(&self, what: &str) -> QualifiedName {
        self.table.sibling(self.table.name.with_suffix(what))
    }

    /// Creates the trigger on a new partition, which has the row triggers of its parent.
    pub fn watch(&self, partition: &QualifiedName) -> [String; 2] {
        [
            format!(
                "create trigger {} after truncate on {partition} for each statement execute function {}()",
                self.trigger,
                self.function("_truncate")
            ),
            format!("alter table {partition} enable always trigger {}", self.trigger),
        ]
    }

    /// Removes the keys of a partition that is about to be detached, and its trigger. The actions of foreign keys apply as
    /// for a DELETE of its rows.
    pub fn release(&self, partition: &QualifiedName) -> String {
        let name = literal(&partition.to_string());
        format!("select {}({name}::pg_catalog.regclass)", self.function("_remove"))
    }
}

/// Prevents writes to a partition whose keys are removed.
pub fn without_writers(partition: &QualifiedName) -> String {
    format!("lock table {partition} in share row exclusive mode")
}

/// The weak lock that is requested first. Only one session can hold it.
pub fn first_lock(table: &QualifiedName) -> String {
    format!("lock table {table} in share update exclusive mode")
}

/// Detaches a partition in a transaction. Sessions that use the table wait for it.
pub fn detach(parent: &QualifiedName, name: &QualifiedName) -> String {
    format!("alter table {parent} detach partition {name}")
}

/// Detaches a partition without blocking any session: not in a transaction, and only if there is no default partition.
/// It waits for transactions that use the table. `again`: completes an earlier attempt that timed out.
pub fn detach_concurrently(parent: &QualifiedName, name: &QualifiedName, again: bool) -> String {
    format!("{} {}", detach(parent, name), if again { "finalize" } else { "concurrently" })
}

/// Drops a detached partition.
pub fn drop(name: &QualifiedName) -> String {
    format!("drop table {name}")
}

/// For the partitioned table with oid `$1`: the seconds since it was analyzed, null if it never was; and whether a
/// partition has changed since it was analyzed, or was analyzed later than the table.
pub const STATISTICS: &str = "select
  extract(epoch from pg_catalog.now() - greatest(s.last_analyze, s.last_autoanalyze))::double precision,
  coalesce((select pg_catalog.bool_or(l.n_mod_since_analyze > 0 or l.last_autoanalyze > s.last_analyze)
    from pg_catalog.pg_inherits h join pg_catalog.pg_stat_all_tables l on l.relid = h.inhrelid
    where h.inhparent = s.relid), false)
from pg_catalog.pg_stat_all_tables s where s.relid = $1";

/// Updates the statistics of the whole table. Since PostgreSQL 18, this does not include those of the partitions, which
/// autovacuum maintains.
pub fn analyze(table: &QualifiedName, server_version: i32) -> String {
    let only = if server_version >= 180_000 { "only " } else { "" };
    format!("analyze {only}{table}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixture::petri;
    use crate::model::partition::{ColumnKind, Every, Scheme};

    fn sibling() -> Sibling {
        let mut table = petri();
        table.name = QualifiedName::new("public", "petri_observations_y2024m01");
        table.sequences.clear();
        table.columns[3].statistics = Some(500);
        for index in &mut table.indexes {
            index.name =
                Ident::new(index.name.as_str().replace("petri_observations", "petri_observations_y2024m01"));
        }
        table.replica_identity = ReplicaIdentity::Index(table.indexes[0].name.clone());
        let own = "FOREIGN KEY (submission_id) REFERENCES public.submissions(id)".to_owned();
        Sibling { table, constraints: vec![(Ident::new("own_fk"), own)] }
    }

    #[test]
    fn everything_that_is_sent() {
        let scheme = Scheme::new(ColumnKind::TimestampTz, Every::Months(1), chrono_tz::Tz::UTC).unwrap();
        let range = scheme.containing(&scheme.start("2024-02-01").unwrap()).unwrap();
        let mut parent = petri();
        parent.triggers.clear();
        let name = QualifiedName::new("public", "petri_observations_y2024m02");
        let (table, by) = (&parent.name, Ident::new("created_at"));
        let default = QualifiedName::new("public", "petri_observations_default");
        let mut all = vec![first_lock(table)];
        all.extend(create(&parent, &sibling(), &name));
        all.push(attach(table, &name, &range));
        all.extend([detach(table, &name), detach_concurrently(table, &name, false)]);
        all.extend([detach_concurrently(table, &name, true), drop(&name)]);
        all.extend([analyze(table, 150_000), analyze(table, 180_000), now("date"), has_rows(&name)]);
        all.extend([newest(&name, &by), strays(&default, &by, true), strays(&default, &by, false)]);
        all.push(strays_by_range(&default, &by, "timestamp with time zone", true));
        insta::assert_snapshot!(all.join(";\n"));
    }
}
