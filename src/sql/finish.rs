//! The constraints and indexes at the end of a backfill: the statements that add them, and the queries that first
//! search for violating rows.
//!
//! A constraint is added as NOT VALID, which reads no rows, and then validated, which does not block writers. Indexes
//! are built CONCURRENTLY. For a partitioned table, the index of each partition is built separately and attached at the
//! end.

use crate::model::filling::{Filling, NewKey};
use crate::model::ident::{Ident, QualifiedName};
use crate::model::key::KeyRange;

pub use super::drop_constraint;
use super::plan_sql::applications_path;
use super::section::{Section, section};
use super::{fill, in_range, key_text, list};

/// A constraint that single rows can violate.
#[derive(Debug, Clone, Copy)]
pub enum RowRule<'a> {
    /// A column is NOT NULL.
    NotNull(&'a Ident),
    /// A condition is not false.
    Check(&'a str),
    /// The row that a foreign key references exists.
    Key(&'a NewKey),
}

/// CHECK constraints to add: those of the plan, and one for each column that becomes NOT NULL.
pub fn checks<'a>(f: &'a Filling, not_null: &[&'a Ident]) -> Vec<(Ident, String)> {
    let helper = |column: &&Ident| (f.not_null_helper(column), format!("{column} is not null"));
    not_null.iter().map(helper).chain(f.finish.checks.iter().cloned()).collect()
}

/// Adds CHECK constraints without reading the rows; every later write is checked.
pub fn add_checks(f: &Filling, checks: &[(Ident, String)]) -> String {
    let one = |(name, condition): &(Ident, String)| {
        format!("add constraint {name} check (\n{condition}\n) not valid")
    };
    format!("alter table {} {}", f.table.name, checks.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// Checks all rows, with a lock that does not block writers.
pub fn validate(table: &QualifiedName, name: &Ident) -> String {
    format!("alter table {table} validate constraint {name}")
}

/// Makes columns NOT NULL. The server relies on the valid CHECK constraint and reads no rows.
pub fn set_not_null(f: &Filling, columns: &[&Ident]) -> Vec<String> {
    let set: Vec<String> = columns.iter().map(|c| format!("alter column {c} set not null")).collect();
    let drop: Vec<String> =
        columns.iter().map(|c| format!("drop constraint if exists {}", f.not_null_helper(c))).collect();
    let table = &f.table.name;
    vec![
        format!("alter table {table} {}", set.join(", ")),
        format!("alter table {table} {}", drop.join(", ")),
    ]
}

/// The definition of a foreign key, after its name.
fn key_definition(key: &NewKey) -> String {
    key_to(key, &key.references)
}

/// As [`key_definition`], with a reference to another table.
pub(super) fn key_to(key: &NewKey, references: &QualifiedName) -> String {
    let referenced = match key.referenced.as_slice() {
        [] => String::new(),
        columns => format!(" ({})", list("", columns)),
    };
    let more = if key.more.is_empty() { String::new() } else { format!(" {}", key.more) };
    format!("foreign key ({}) references {references}{referenced}{more}", list("", &key.columns))
}

/// Adds a foreign key to one table, without reading the rows.
pub fn add_key(table: &QualifiedName, key: &NewKey) -> String {
    format!("alter table {table} add constraint {} {}\nnot valid", key.name, key_definition(key))
}

/// Before PostgreSQL 18: adds the foreign key of the parent when that of every partition is valid. This reads no rows.
pub fn tie_key(f: &Filling, key: &NewKey) -> String {
    format!("alter table {} add constraint {} {}", f.table.name, key.name, key_definition(key))
}

/// An index to build.
#[derive(Debug, Clone, Copy)]
pub enum Build<'a> {
    /// For a UNIQUE constraint.
    Unique(&'a [Ident]),
    /// The part of the definition after the table's name.
    Plain(&'a str),
}

/// Builds the index of one table or partition without blocking writers. Not in a transaction.
pub fn build(name: &Ident, table: &QualifiedName, build: Build<'_>) -> String {
    match build {
        Build::Unique(columns) => {
            format!("create unique index concurrently {name} on {table} ({})", list("", columns))
        }
        Build::Plain(tail) => format!("create index concurrently {name} on {table}\n{tail}"),
    }
}

/// Drops an index that was not completely built. Not in a transaction.
pub fn drop_invalid(name: &QualifiedName) -> String {
    format!("drop index concurrently if exists {name}")
}

/// Turns an existing unique index into a constraint. This reads no rows.
pub fn use_index(table: &QualifiedName, name: &Ident) -> String {
    format!("alter table {table} add constraint {name} unique using index {name}")
}

/// Creates the index of a partitioned table only. It is invalid until the index of every partition is attached.
pub fn on_parent(name: &Ident, table: &QualifiedName, build: Build<'_>) -> String {
    match build {
        Build::Unique(columns) => {
            format!("alter table only {table} add constraint {name} unique ({})", list("", columns))
        }
        Build::Plain(tail) => format!("create index {name} on only {table}\n{tail}"),
    }
}

/// Attaches the index of a partition to that of its parent.
pub fn attach(parent: &QualifiedName, part: &QualifiedName) -> String {
    format!("alter index {parent} attach partition {part}")
}

/// The number of rows of a range that violate a rule, and the keys of up to five of them; no row if none does. The
/// condition can refer to columns with or without the table's name.
pub fn violating(
    f: &Filling,
    leaf: &QualifiedName,
    range: &KeyRange,
    rule: RowRule<'_>,
) -> (String, Vec<String>) {
    let alias = &f.table.name.name;
    let key = f.key_columns();
    let (within, values) = in_range(&format!("{alias}."), &key, range, 1);
    let order = list(&format!("{alias}."), key.iter().map(|c| &c.name));
    let sql = format!(
        "select count(*) over (), {}\nfrom only {leaf} as {alias}\nwhere {within} and {}\norder by {order} limit 5",
        key_text(&format!("{}.", f.table.name.name), &f.key),
        broken(f, rule)
    );
    (sql, values)
}

/// A condition that is true for rows that violate a rule.
fn broken(f: &Filling, rule: RowRule<'_>) -> String {
    let alias = &f.table.name.name;
    match rule {
        RowRule::NotNull(column) => format!("{alias}.{column} is null"),
        // Its functions are called as by the application's writes.
        RowRule::Check(condition) => format!("{}not (\n{condition}\n)", applications_path(&f.sql)),
        RowRule::Key(key) => {
            let pairs = key.columns.iter().zip(&key.referenced);
            let same: Vec<String> =
                pairs.map(|(own, other)| format!("pgstrata_referenced.{other} = {alias}.{own}")).collect();
            let null = |what: &str, word: &str| {
                let all: Vec<String> =
                    key.columns.iter().map(|c| format!("{alias}.{c} is {what}null")).collect();
                all.join(&format!(" {word} "))
            };
            let points =
                if key.is_full() { format!("not ({})", null("", "and")) } else { null("not ", "and") };
            format!(
                "{points} and not exists (\n  select from {} pgstrata_referenced where {})",
                key.references,
                same.join(" and ")
            )
        }
    }
}

/// [`super::repeated`] for the whole table.
pub fn repeated(f: &Filling, columns: &[Ident]) -> String {
    let only = if f.is_partitioned() { "" } else { "only " };
    let alias = &f.table.name.name;
    let of: Vec<String> = columns.iter().map(|c| format!("{alias}.{c}")).collect();
    super::repeated(&format!("{only}{}", f.table.name), alias, &f.key, &of, None)
}

/// Drops an index when a job is aborted: not CONCURRENTLY, because all statements run in one transaction.
pub fn drop_index(name: &QualifiedName) -> String {
    format!("drop index if exists {name}")
}

/// Whether a partitioned table accepts a foreign key that is NOT VALID.
pub const KEYS_ON_PARENT: &str = "select current_setting('server_version_num')::integer >= 180000";

/// The relation with oid `$1` and, if it is partitioned, all of its partitions, parents first: schema, name, oid,
/// schema and name of the parent, and whether it stores rows.
pub const TREE: &str = "select n.nspname::text, c.relname::text, c.oid, pn.nspname::text, p.relname::text, coalesce(t.isleaf, true)
from (select $1::oid as relid, null::oid as parent, null::boolean as isleaf, 0 as level
      where not exists (select from pg_catalog.pg_class where oid = $1 and relkind = 'p')
      union all
      select t.relid, case when t.relid <> $1 then t.parentrelid end, t.isleaf, t.level from pg_catalog.pg_class r,
        pg_catalog.pg_partition_tree(r.oid) t where r.oid = $1 and r.relkind = 'p') t
  join pg_catalog.pg_class c on c.oid = t.relid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_class p on p.oid = t.parent left join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
order by t.level, n.nspname, c.relname";

/// Columns of the relation with oid `$1` with a valid NOT NULL constraint. Since PostgreSQL 18, such a constraint can
/// be NOT VALID; SET NOT NULL validates it.
pub const NOT_NULL: &str = "select attname::text from pg_catalog.pg_attribute
where attrelid = $1 and attnum > 0 and not attisdropped and attnotnull and not exists (
  select from pg_catalog.pg_constraint n
  where n.conrelid = attrelid and n.contype = 'n' and n.conkey = array[attnum] and not n.convalidated)";

/// Constraints of the relation with oid `$1`: name, whether it is validated, oid.
pub const CONSTRAINTS: &str = "select conname::text, convalidated, oid from pg_catalog.pg_constraint
where conrelid = $1 and contype in ('c', 'f', 'u', 'p')";

/// Indexes of the relation with oid `$1`: name, whether it is usable, whether it is attached to an index of the
/// parent, oid.
pub const INDEXES: &str =
    "select i.relname::text, x.indisvalid and x.indisready and x.indislive, i.relispartition, i.oid
from pg_catalog.pg_index x join pg_catalog.pg_class i on i.oid = x.indexrelid where x.indrelid = $1";

/// The transactions that the session with process number `$1` waits for, in the format of
/// [`super::swap::IN_THE_WAY`].
pub const WAITED_FOR: &str = "select a.pid, a.usename::text, a.application_name, a.state, a.xact_start::text,
  coalesce(a.query_start::text, ''),
  extract(epoch from pg_catalog.clock_timestamp() - a.xact_start)::double precision * 1000, false
from pg_catalog.pg_stat_activity a where a.pid = any (pg_catalog.pg_blocking_pids($1))
union all
select 0, p.owner::text, p.gid, 'prepared transaction', p.prepared::text, '', 0, false
from pg_catalog.pg_prepared_xacts p
where 0 = any (pg_catalog.pg_blocking_pids($1)) and p.database = pg_catalog.current_database()
order by 5";

/// Cancels the statement of the session with process number `$1`.
pub const CANCEL: &str = "select pg_catalog.pg_cancel_backend($1)";

/// All statements, for `pgstrata sql`.
pub fn sections(f: &Filling) -> Vec<Section> {
    let mut all = Vec::new();
    let not_null: Vec<&Ident> = f.finish.not_null.iter().collect();
    let checks = checks(f, &not_null);
    let middle = KeyRange {
        after: Some(vec![String::new(); f.key.len()]),
        through: Some(vec![String::new(); f.key.len()]),
    };
    if !f.finish.is_empty() {
        let leaf = part(f);
        let mut looks: Vec<String> =
            rules(f).into_iter().map(|rule| violating(f, &leaf, &middle, rule).0).collect();
        looks.extend(f.finish.unique.iter().map(|(_, columns)| repeated(f, columns)));
        let title = "finish: find rows that violate a constraint, one range (repeated, for each partition), and \
             duplicate values";
        all.push(section(title, looks));
    }
    if !checks.is_empty() {
        let title = "finish: add constraints as NOT VALID (one transaction, short lock_timeout, retried)";
        all.push(section(title, vec![fill::names(f), add_checks(f, &checks)]));
        let valid: Vec<String> = checks.iter().map(|(name, _)| validate(&f.table.name, name)).collect();
        let title = "finish: validate the constraints (one transaction each; partitions first)";
        all.push(section(title, valid));
    }
    if !not_null.is_empty() {
        let title = "finish: set NOT NULL, which uses the validated constraint (one transaction, short \
            lock_timeout, retried)";
        all.push(section(title, set_not_null(f, &not_null)));
    }
    let unique = f.finish.unique.iter().map(|(name, columns)| (name, Build::Unique(columns)));
    let plain = f.finish.indexes.iter().map(|(name, tail)| (name, Build::Plain(tail)));
    for (name, build) in unique.chain(plain) {
        all.push(index_section(f, name, build));
    }
    all.extend(f.finish.foreign_keys.iter().map(|key| key_section(f, key)));
    all
}

/// All rules that single rows can violate.
pub fn rules(f: &Filling) -> Vec<RowRule<'_>> {
    let checks = f.finish.checks.iter().map(|(_, condition)| RowRule::Check(condition));
    let keys = f.finish.foreign_keys.iter().map(RowRule::Key);
    f.finish.not_null.iter().map(RowRule::NotNull).chain(checks).chain(keys).collect()
}

/// The placeholder for each partition in printed statements, before the partitions are known.
fn part(f: &Filling) -> QualifiedName {
    let name = &f.table.name;
    if f.is_partitioned() { name.sibling(name.name.with_suffix("_PARTITION")) } else { name.clone() }
}

fn index_section(f: &Filling, name: &Ident, what: Build<'_>) -> Section {
    let leaf = part(f);
    let of_leaf = f.index_name(name, &leaf);
    let mut statements = vec![build(&of_leaf.name, &leaf, what)];
    if matches!(what, Build::Unique(_)) {
        statements.push(use_index(&leaf, &of_leaf.name));
    }
    if f.is_partitioned() {
        statements.push(on_parent(name, &f.table.name, what));
        statements.push(attach(&f.table.name.sibling(name.clone()), &of_leaf));
    }
    let each =
        if f.is_partitioned() { "; for each partition, then attached to the partitioned table" } else { "" };
    section(
        &format!(
            "finish: create an index (built outside a transaction; other statements one transaction \
            each{each})"
        ),
        statements,
    )
}

fn key_section(f: &Filling, key: &NewKey) -> Section {
    let leaf = part(f);
    let mut statements = vec![add_key(&leaf, key), validate(&leaf, &key.name)];
    let mut title = "finish: add a foreign key (one transaction each, short lock_timeout)".to_owned();
    if f.is_partitioned() {
        statements.push(tie_key(f, key));
        title.push_str(
            "; for each partition, then attached to the partitioned table; in PostgreSQL 18 and later, it \
             is added to the partitioned table directly",
        );
    }
    section(&title, statements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::filling::Finishing;
    use crate::model::fixture::petri;

    fn filling(relkind: &str) -> Filling {
        let mut table = petri();
        table.relkind = relkind.into();
        Filling {
            job: "petri".into(),
            key: vec![Ident::new("observation_id")],
            nullable_key: vec![],
            table,
            add: vec![],
            from: None,
            set: vec![(Ident::new("note"), "'-'".into())],
            filter: Some("t.note is null".into()),
            keep_filled: false,
            stays: false,
            sql: crate::model::plan_sql::tests::resolved(),
            finish: Finishing {
                not_null: vec![Ident::new("note")],
                checks: vec![(Ident::new("petri_observations_short"), "length(note) < 9 -- not long".into())],
                unique: vec![(
                    Ident::new("petri_observations_note_key"),
                    vec![Ident::new("note"), Ident::new("created_at")],
                )],
                indexes: vec![(Ident::new("petri_observations_note_idx"), "using hash (note)".into())],
                foreign_keys: vec![NewKey {
                    name: Ident::new("petri_observations_note_fkey"),
                    columns: vec![Ident::new("note")],
                    references: QualifiedName::new("public", "notes"),
                    unqualified: false,
                    referenced: vec![Ident::new("Note")],
                    more: "on delete cascade".into(),
                }],
            },
        }
    }

    fn text(f: &Filling) -> String {
        let one = |s: Section| {
            format!("-- {}\n{}", s.title, s.statements.iter().map(|s| format!("{s};\n")).collect::<String>())
        };
        sections(f).into_iter().map(one).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_plain_table() {
        insta::assert_snapshot!("finish_plain", text(&filling("r")));
    }

    #[test]
    fn a_partitioned_table() {
        insta::assert_snapshot!("finish_partitioned", text(&filling("p")));
    }

    #[test]
    fn a_match_full_key_is_violated_by_a_partial_null() {
        let mut f = filling("r");
        let key = &mut f.finish.foreign_keys[0];
        key.more = "Match  FULL".into();
        key.columns.push(Ident::new("batch"));
        key.referenced.push(Ident::new("batch"));
        let whole = KeyRange { after: None, through: None };
        let sql = violating(&f, &f.table.name, &whole, RowRule::Key(&f.finish.foreign_keys[0])).0;
        insta::assert_snapshot!(sql, @r#"
        select count(*) over (), pg_catalog.concat_ws(', ', "petri_observations"."observation_id")
        from only "public"."petri_observations" as "petri_observations"
        where true and not ("petri_observations"."note" is null and "petri_observations"."batch" is null) and not exists (
          select from "public"."notes" pgstrata_referenced where pgstrata_referenced."Note" = "petri_observations"."note" and pgstrata_referenced."batch" = "petri_observations"."batch")
        order by "petri_observations"."observation_id" limit 5
        "#);
    }
}
