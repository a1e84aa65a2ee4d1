//! Carries over changes that users made to the table in use to the inactive table, so that the next exchange does not
//! undo them. Applications do not use the inactive table, so locks on it block no session.

use crate::model::blueprint::{Blueprint, Direction};
use crate::model::difference::Difference;
use crate::model::ident::{Ident, QualifiedName, literal};
use crate::model::table::{Check, ReplicaIdentity, Sequence, Table, Trigger};

use super::prepare::{grant, of_sequence, policy, revoke, row_type_comment, row_type_privileges, trigger};
use super::{index, not_null, suffixes, with_operators};

/// The inactive table, and the names of its objects.
#[derive(Debug)]
struct InactiveTable<'a> {
    /// The blueprint, including the changes.
    b: &'a Blueprint,
    /// The table in use before the changes.
    was: &'a Table,
    table: QualifiedName,
    /// The suffix of names that are unique within the schema.
    suffix: &'static str,
    /// Its partitions.
    leaves: &'a [QualifiedName],
    /// Whether it is the partitioned table.
    partitioned: bool,
}

/// Returns the statements that carry the changes over to the inactive table. `ending` is the direction that the next
/// exchange would end; `b` includes the changes; `was` is the table in use without them.
///
/// # Errors
/// The differences that cannot be carried over.
pub fn carry(
    b: &Blueprint,
    was: &Table,
    ending: Direction,
    found: &[Difference],
    leaves: &[QualifiedName],
) -> Result<Vec<String>, Vec<Difference>> {
    let (_, suffix) = suffixes(ending);
    let partitioned = ending == Direction::Forward;
    let side = InactiveTable { b, was, table: b.sides(ending).target, suffix, leaves, partitioned };
    let mut all: Vec<String> = Vec::new();
    let mut refused = Vec::new();
    // Create an object before its comment and other attributes.
    let after = |one: &&Difference| match one.path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["columns", _, "looks", "not_null"] => 1,
        ["comments", ..] => 2,
        _ => 0,
    };
    let mut in_order: Vec<&Difference> = found.iter().collect();
    in_order.sort_by_key(after);
    for one in in_order {
        match side.carried(one) {
            // An object can have several differences with the same statements.
            Some(statements) => {
                let new: Vec<String> = statements.into_iter().filter(|s| !all.contains(s)).collect();
                all.extend(new);
            }
            None => refused.push(one.clone()),
        }
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    let of_privileges = ["owner", "grants", "default_privileges"];
    if found.iter().any(|one| of_privileges.iter().any(|field| one.is_in(&[field]))) {
        all.extend(side.privileges());
    }
    let of_type = |one: &Difference| one.is_in(&["row_type"]) && !one.is_in(&["row_type", "comment"]);
    if found.iter().any(of_type) {
        let row_type = b.table.row_type.as_ref();
        all.extend(row_type.into_iter().flat_map(|t| row_type_privileges(&b.table.owner, &side.table, t)));
    }
    Ok(with_operators(&b.table.operator_schemas, all))
}

impl InactiveTable<'_> {
    fn alter(&self, what: &str) -> String {
        format!("alter table {} {what}", self.table)
    }

    /// The name of a schema-level object on this side.
    fn own(&self, name: &QualifiedName) -> QualifiedName {
        name.sibling(name.name.with_suffix(self.suffix))
    }

    /// The table and its partitions.
    fn each(&self) -> impl Iterator<Item = &QualifiedName> {
        std::iter::once(&self.table).chain(self.leaves)
    }

    /// Returns the statements that carry over one difference; none if that is not possible. There are no statements for
    /// what the exchange itself creates from the blueprint.
    fn carried(&self, one: &Difference) -> Option<Vec<String>> {
        let (table, now) = (&self.table, &self.b.table);
        let path: Vec<&str> = one.path.iter().map(String::as_str).collect();
        Some(match path.as_slice() {
            ["owner"] => self.each().map(|t| format!("alter table {t} owner to {}", now.owner)).collect(),
            ["grants", ..] | ["default_privileges"] | ["force_row_security"] => Vec::new(),
            ["row_type", "comment"] => {
                vec![row_type_comment(table, now.row_type.as_ref()?.comment.as_deref())]
            }
            ["row_type", ..] => Vec::new(),
            ["row_security"] => {
                let word = if now.row_security { "enable" } else { "disable" };
                vec![self.alter(&format!("{word} row level security"))]
            }
            ["comment"] => vec![format!("comment on table {table} is {}", or_null(now.comment.as_deref()))],
            ["comments", ..] => self.comment(one)?,
            ["policies", name, ..] => self.policy(name),
            ["columns", name, field @ ..] => self.column(name, field)?,
            ["triggers", name, ..] => self.trigger(name)?,
            ["checks", name, ..] => self.check(name)?,
            ["indexes", name, "comment"] => {
                let index = now.indexes.iter().find(|i| i.name.as_str() == *name)?;
                let object = self.own(&now.name.sibling(index.name.clone()));
                vec![format!("comment on index {object} is {}", or_null(index.comment.as_deref()))]
            }
            ["indexes", _, "clustered"] => self.clustered(),
            // Objects that depend on the sequence would continue to depend on that of the inactive table.
            ["sequences", _, "uses", ..] if one.has_more() => return None,
            ["sequences", _, "uses", ..] => Vec::new(),
            ["sequences", name, field, ..] => self.sequence(name, field)?,
            ["replica_identity"] if !self.partitioned => vec![self.replica_identity()],
            ["foreign_keys" | "referenced_by", _, "comment"] => Vec::new(),
            ["views", ..] | ["dependents", ..] => self.bound(one)?,
            _ => return None,
        })
    }

    /// Revokes and grants all privileges, so that revoked privileges are removed, including those that a role granted
    /// with its grant option.
    fn privileges(&self) -> Vec<String> {
        let now = &self.b.table;
        let mut all = vec![revoke(&self.table)];
        if !now.default_privileges {
            all.push(format!("revoke all on {} from {}", self.table, now.owner));
        }
        all.extend(now.grants.iter().flat_map(|g| grant(&now.owner, &self.table, g)));
        all
    }

    fn policy(&self, name: &str) -> Vec<String> {
        let of = |table: &Table| table.policies.iter().find(|p| p.name.as_str() == name).cloned();
        let drop = of(self.was).map(|p| format!("drop policy {} on {}", p.name, self.table));
        let create = of(&self.b.table).map(|p| policy(&self.table, &self.b.table.name.name, &p));
        drop.into_iter().chain(create).chain(self.comment_again("policy", name)).collect()
    }

    /// The index that CLUSTER uses, on each partition; a partitioned table has none itself.
    fn clustered(&self) -> Vec<String> {
        let on = |leaf| index::cluster_on(self.b, leaf);
        let of = |leaf| on(leaf).unwrap_or_else(|| format!("alter table {leaf} set without cluster"));
        self.leaves.iter().map(of).collect()
    }

    /// The comment on an object that was created again. Only needed for a rollback: a swap creates all comments.
    fn comment_again(&self, kind: &str, name: &str) -> Option<String> {
        let comments = self.b.table.comments.iter().filter(|_| !self.partitioned);
        let one = comments.into_iter().find(|c| c.kind == kind && c.name.as_str() == name)?;
        Some(format!("comment on {kind} {} on {} is {}", one.name, self.table, literal(&one.text)))
    }

    fn column(&self, name: &str, field: &[&str]) -> Option<Vec<String>> {
        let column = self.b.table.columns.iter().find(|c| c.name.as_str() == name)?;
        let looks = column.looks.as_ref();
        let alter = |what: &str| format!("alter column {} {what}", column.name);
        Some(match field {
            ["default"] if column.generated.is_empty() && column.identity.is_empty() => {
                let set =
                    column.default.as_ref().map_or("drop default".to_owned(), |d| format!("set default {d}"));
                vec![self.alter(&alter(&set))]
            }
            ["statistics"] => {
                let set = format!("set statistics {}", column.statistics.unwrap_or(-1));
                self.each().map(|t| format!("alter table {t} {}", alter(&set))).collect()
            }
            ["identity"] => {
                let kind = match column.identity.as_str() {
                    "a" => "always",
                    "d" => "by default",
                    _ => return None,
                };
                let was = self.was.column(&column.name)?;
                if was.identity.is_empty() {
                    return None;
                }
                vec![self.alter(&alter(&format!("set generated {kind}")))]
            }
            ["not_null"] if column.not_null => vec![self.alter(&alter("set not null"))],
            // The columns of the place contain no NULL.
            ["not_null"] if self.b.place_columns().iter().all(|place| place.name != column.name) => {
                vec![self.alter(&alter("drop not null"))]
            }
            ["looks", "comment"] => {
                let text = or_null(looks?.comment.as_deref());
                vec![format!("comment on column {}.{} is {text}", self.table, column.name)]
            }
            ["looks", "storage"] => {
                let word = storage(&looks?.storage);
                self.each()
                    .map(|t| format!("alter table {t} {}", alter(&format!("set storage {word}"))))
                    .collect()
            }
            ["looks", "compression"] => {
                let word = compression(&looks?.compression);
                let set = |t| format!("alter table {t} {}", alter(&format!("set compression {word}")));
                self.each().map(set).collect()
            }
            ["looks", "not_null"] => not_null::rename(&self.table, column).into_iter().collect(),
            _ => return None,
        })
    }

    /// Creates a trigger, disabled until the exchange.
    fn trigger(&self, name: &str) -> Option<Vec<String>> {
        let of = |table: &Table| table.triggers.iter().find(|t| t.name.as_str() == name).cloned();
        let (was, now) = (of(self.was), of(&self.b.table));
        let text = |t: &Trigger| (t.head.clone(), t.tail.clone());
        if was.as_ref().map(text) == now.as_ref().map(text) {
            return Some(Vec::new());
        }
        // The check rejects such triggers: partitions have no transition tables, and a trigger could move a row to
        // another partition.
        if now.as_ref().is_some_and(|t| self.partitioned && t.row && (t.transition || t.before_insert)) {
            return None;
        }
        let drop = was.map(|t| format!("drop trigger {} on {}", t.name, self.table));
        let create = now.into_iter().flat_map(|t| trigger(&self.table, &t));
        Some(drop.into_iter().chain(create).chain(self.comment_again("trigger", name)).collect())
    }

    fn check(&self, name: &str) -> Option<Vec<String>> {
        let of = |table: &Table| table.checks.iter().find(|c| c.name.as_str() == name).cloned();
        let (was, now) = (of(self.was), of(&self.b.table));
        if now.as_ref().is_some_and(|c| self.partitioned && c.no_inherit) {
            return None;
        }
        let validate = |c: &Check| self.alter(&format!("validate constraint {}", c.name));
        if let (Some(was), Some(now)) = (&was, &now)
            && was.definition == now.definition
            && was.no_inherit == now.no_inherit
            && now.validated
        {
            return Some(vec![validate(now)]);
        }
        let mut all: Vec<String> =
            was.iter().map(|c| self.alter(&format!("drop constraint {}", c.name))).collect();
        if let Some(c) = &now {
            let inherit = if c.no_inherit { " no inherit" } else { "" };
            all.push(self.alter(&format!("add constraint {} {}{inherit} not valid", c.name, c.definition)));
            all.extend(c.validated.then(|| validate(c)));
        }
        all.extend(self.comment_again("constraint", name));
        Some(all)
    }

    /// Comments on constraints, triggers and policies. A swap creates all of them; the comment on a foreign key is
    /// created with the key.
    fn comment(&self, one: &Difference) -> Option<Vec<String>> {
        let (kind, name) = one.path.get(1)?.split_once(' ')?;
        let now = &self.b.table;
        let is_key = now.foreign_keys.iter().chain(&now.referenced_by).any(|key| key.name.as_str() == name);
        let stands = match kind {
            "policy" => now.policies.iter().any(|p| p.name.as_str() == name),
            "trigger" => now.triggers.iter().any(|t| t.name.as_str() == name),
            _ => true,
        };
        if self.partitioned || kind == "constraint" && is_key || !stands {
            return Some(Vec::new());
        }
        let of_index = kind == "constraint" && now.indexes.iter().any(|i| i.name.as_str() == name);
        let own = if of_index { Ident::new(name).with_suffix(self.suffix) } else { Ident::new(name) };
        let known =
            of_index || kind != "constraint" || has_constraint(now, name) || has_constraint(self.was, name);
        if !known {
            return None;
        }
        if kind == "constraint" && !of_index && !has_constraint(now, name) {
            return Some(Vec::new()); // The comment was dropped with its constraint.
        }
        let text = now.comments.iter().find(|c| c.kind == kind && c.name.as_str() == name);
        let text = or_null(text.map(|c| c.text.as_str()));
        Some(vec![format!("comment on {kind} {own} on {} is {text}", self.table)])
    }

    /// An identity column has a sequence on each side; a serial column has one sequence for both.
    fn sequence(&self, name: &str, field: &str) -> Option<Vec<String>> {
        let of = |s: &&Sequence| s.name.plain() == name;
        let sequence = self.b.table.sequences.iter().find(of)?;
        let was = self.was.sequences.iter().find(of)?;
        if sequence.identity != was.identity || sequence.column != was.column {
            return None;
        }
        let own = self.own(&sequence.name);
        Some(match field {
            _ if !sequence.identity => Vec::new(),
            "options" => {
                let options = sequence.options.as_ref()?;
                let comment = or_null(options.comment.as_deref());
                vec![alter_sequence(&own, sequence)?, format!("comment on sequence {own} is {comment}")]
            }
            "grants" | "default_privileges" => of_sequence(&self.b.table.owner, &own, sequence),
            _ => return None,
        })
    }

    fn replica_identity(&self) -> String {
        self.alter(&match &self.b.table.replica_identity {
            ReplicaIdentity::Default => "replica identity default".to_owned(),
            ReplicaIdentity::Nothing => "replica identity nothing".to_owned(),
            ReplicaIdentity::Full => "replica identity full".to_owned(),
            ReplicaIdentity::Index(index) => {
                format!("replica identity using index {}", index.with_suffix(self.suffix))
            }
        })
    }

    /// Objects that refer to the table in use by its oid. The exchange redirects only those in the blueprint.
    fn bound(&self, one: &Difference) -> Option<Vec<String>> {
        let (now, d) = (&self.b.table, &self.b.table.dependents);
        let dropped = one.now.is_none();
        let (list, name) = match one.path.as_slice() {
            [list, name, ..] if list == "views" => (list.as_str(), name.as_str()),
            [_, list, name, ..] => (list.as_str(), name.as_str()),
            _ => return None,
        };
        let can_follow = match list {
            "views" => now.views.iter().any(|v| v.name.plain() == name && !v.bound_to_key),
            "row_functions" => d.row_functions.iter().any(|f| f.name == name),
            "functions" => d.functions.iter().any(|f| f.name == name && !f.needs_key),
            "policies" | "defaults" => true,
            "matviews" => d
                .matviews
                .iter()
                .any(|m| m.view.name.plain() == name && m.others.is_empty() && !m.view.bound_to_key),
            _ => false,
        };
        let goes_alone = dropped
            && ["views", "functions", "row_functions", "policies", "defaults", "matviews", "publications"]
                .contains(&list);
        (can_follow || goes_alone).then(Vec::new)
    }
}

fn has_constraint(table: &Table, name: &str) -> bool {
    table.checks.iter().any(|c| c.name.as_str() == name)
        || table
            .columns
            .iter()
            .filter_map(|c| c.looks.as_ref()?.not_null.as_ref())
            .any(|n| n.as_str() == name)
}

/// A text literal, or NULL.
pub(super) fn or_null(text: Option<&str>) -> String {
    text.map_or("null".to_owned(), literal)
}

/// The storage mode in SQL syntax.
pub(super) fn storage(letter: &str) -> &'static str {
    match letter {
        "p" => "plain",
        "e" => "external",
        "m" => "main",
        _ => "extended",
    }
}

/// The compression method in SQL syntax.
pub(super) fn compression(letter: &str) -> &'static str {
    match letter {
        "p" => "pglz",
        "l" => "lz4",
        _ => "default",
    }
}

/// Sets all options of a sequence except its current value.
fn alter_sequence(name: &QualifiedName, sequence: &Sequence) -> Option<String> {
    let o = sequence.options.as_ref()?;
    let cycle = if o.cycle { "cycle" } else { "no cycle" };
    Some(format!(
        "alter sequence {name} as {} increment by {} minvalue {} maxvalue {} start with {} cache {} {cycle}",
        o.sql_type, o.increment, o.min, o.max, o.start, o.cache
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blueprint::tests::blueprint;
    use crate::model::difference::{Between, descriptions, differences};
    use crate::model::table::{Check, Comment};

    fn changed(table: &Table) -> Table {
        let mut now = table.clone();
        now.owner = Ident::new("boss");
        now.grants.remove(0);
        now.row_security = false;
        now.comment = None;
        now.policies[0].using = Some("(seq > 0)".into());
        now.columns[3].default = Some("'none'::text".into());
        now.columns[3].statistics = Some(200);
        now.columns[3].looks.as_mut().unwrap().storage = "e".into();
        now.columns[4].not_null = true;
        now.columns[4].looks.as_mut().unwrap().not_null = Some(Ident::new("raw_there"));
        now.indexes[1].comment = Some("newest first".into());
        now.indexes[1].clustered = true;
        now.checks.push(Check {
            name: Ident::new("positive"),
            definition: "CHECK ((seq > 0))".into(),
            validated: true,
            no_inherit: false,
        });
        now.comments.push(Comment {
            kind: "constraint".into(),
            name: Ident::new("positive"),
            text: "it's so".into(),
        });
        now.triggers.clear();
        now.comments.retain(|c| c.kind != "trigger");
        now.sequences[0].options.as_mut().unwrap().increment = 10;
        now.sequences[0].grants.clear();
        now.views.clear();
        now
    }

    #[test]
    fn what_is_done_to_the_other_table() {
        let mut b = blueprint();
        let was = b.table.clone();
        b.table = changed(&was);
        let found = differences(&was, &b.table, Between::Times);
        let leaves: Vec<QualifiedName> = b.partitions.iter().map(|p| p.name.clone()).collect();
        let forward = carry(&b, &was, Direction::Forward, &found, &leaves).unwrap();
        let reverse = carry(&b, &was, Direction::Reverse, &found, &[]).unwrap();
        insta::assert_snapshot!(
            [&["-- forward".to_owned()], &forward[..], &["-- reverse".to_owned()], &reverse[..]]
                .concat()
                .join(";\n")
        );
    }

    #[test]
    fn differences_that_cannot_be_carried_over_are_errors() {
        let mut b = blueprint();
        let was = b.table.clone();
        b.table.columns[3].sql_type = "varchar(10)".into();
        b.table.indexes.pop();
        b.table.foreign_keys.clear();
        b.table.others.push("function f()".into());
        b.table.dependents.rules.clear();
        let found = differences(&was, &b.table, Between::Times);
        let refused = carry(&b, &was, Direction::Reverse, &found, &[]).unwrap_err();
        insta::assert_snapshot!(descriptions(&refused).join("\n"), @"
        column note changed (sql type)
        rule said of public.petri_observations was dropped
        foreign key petri_submission_fk was dropped
        index petri_created was dropped
        the set of dependent objects changed (added: function f())
        ");
    }
}
