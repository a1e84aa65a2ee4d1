//! Lists all objects that depend on a table and how each is carried over, so that a DBA can review them before the run.

use super::blueprint::Blueprint;
use super::ident::plain;
use super::number;
use super::table::{Index, Table};

/// An object, and how it is carried over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The kind of object, such as `index` or `view`.
    pub kind: &'static str,
    /// Its name in readable form.
    pub name: String,
    /// When and how the object is created.
    pub how: String,
}

/// All objects that are carried over, in the order of the summary.
pub fn inventory(b: &Blueprint) -> Vec<Carried> {
    let mut all = Inventory(Vec::new());
    own(&mut all, b);
    keys(&mut all, b);
    dependents(&mut all, &b.table);
    guarded(&mut all, &b.table);
    all.0
}

/// `5 indexes, 3 views, 2 policies`: the number of each kind, in the order of first occurrence.
pub fn summary(all: &[Carried]) -> String {
    let mut kinds: Vec<(&str, u64)> = Vec::new();
    for one in all {
        match kinds.iter_mut().find(|(kind, _)| *kind == one.kind) {
            Some((_, n)) => *n += 1,
            None => kinds.push((one.kind, 1)),
        }
    }
    let counted = |(kind, n): &(&str, u64)| match (*n, plural(kind)) {
        (1, _) => format!("1 {kind}"),
        (n, plural) => format!("{} {plural}", number::count(n)),
    };
    kinds.iter().map(counted).collect::<Vec<_>>().join(", ")
}

fn plural(kind: &str) -> String {
    match kind {
        "extended statistics" => kind.to_owned(),
        "index" => "indexes".to_owned(),
        "policy" => "policies".to_owned(),
        "policy of another table" => "policies of other tables".to_owned(),
        "default of another table" => "defaults of other tables".to_owned(),
        "referencing foreign key" => "referencing foreign keys".to_owned(),
        _ => format!("{kind}s"),
    }
}

/// The list under construction.
struct Inventory(Vec<Carried>);

impl Inventory {
    fn add(&mut self, kind: &'static str, name: impl Into<String>, how: impl Into<String>) {
        self.0.push(Carried { kind, name: name.into(), how: how.into() });
    }
}

/// Adds the parts of the table itself.
fn own(all: &mut Inventory, b: &Blueprint) {
    let table = &b.table;
    for column in &table.columns {
        let how = match (column.generated.as_str(), column.identity.as_str()) {
            ("", "") => "copied",
            ("", _) => "copied; its identity continues from the current value",
            _ => "generated again from the same expression",
        };
        all.add("column", plain(column.name.as_str()), how);
    }
    for index in b.carried_indexes() {
        all.add("index", plain(index.name.as_str()), of_index(b, &index));
    }
    let early = b.early_checks().into_iter().map(|check| (check, "created before the copy"));
    let late = b.late_checks().into_iter().map(|check| (check, "created as NOT VALID after the copy"));
    for (check, how) in early.chain(late) {
        all.add("check constraint", plain(check.name.as_str()), how);
    }
    for sequence in &table.sequences {
        let how = if sequence.identity {
            "at the swap, the identity sequence of the partitioned table takes its name and continues its \
             numbers"
        } else {
            "the same sequence, owned by the table in use after the swap"
        };
        all.add("sequence", sequence.name.plain(), how);
    }
    for statistics in &table.dependents.statistics {
        all.add(
            "extended statistics",
            statistics.name.plain(),
            "created on the partitioned table; its name is exchanged at the swap",
        );
    }
    for comment in &table.comments {
        let name = format!("{} {}", comment.kind, plain(comment.name.as_str()));
        all.add("comment", name, "set again at the swap");
    }
}

fn of_index(b: &Blueprint, index: &Index) -> String {
    if index.exclusion.is_some() {
        return "built as a constraint on every partition after the copy".to_owned();
    }
    if !index.unique && b.table.indexes.iter().any(|i| i.unique && b.target_index_name(&i.name) == index.name)
    {
        return "built on each partition after the copy, no longer unique; its name is exchanged at the swap"
            .to_owned();
    }
    let wider = if b.is_key(index) && b.widened() {
        format!("with {} in it, ", plain(b.by.as_str()))
    } else {
        String::new()
    };
    format!("{wider}built on each partition after the copy; its name is exchanged at the swap")
}

fn keys(all: &mut Inventory, b: &Blueprint) {
    for key in b.own_keys() {
        let how = if key.validated {
            "moved at the swap without reading rows, validated afterwards"
        } else if b.keys_on_leaves {
            "moved to each partition at the swap, still NOT VALID"
        } else {
            "moved at the swap, still NOT VALID"
        };
        all.add("foreign key", plain(key.name.as_str()), how);
    }
    for key in b.child_keys() {
        let name = format!("{} of {}", plain(key.name.as_str()), key.table.plain());
        all.add(
            "referencing foreign key",
            name,
            "moved at the swap without reading rows, validated afterwards",
        );
    }
}

/// Adds objects that refer to the table by its oid.
fn dependents(all: &mut Inventory, table: &Table) {
    let d = &table.dependents;
    let bound = "created again at the swap from the same definition";
    for view in &table.views {
        all.add(
            "view",
            view.name.plain(),
            "replaced at the swap by the same query; keeps its owner, privileges and comment",
        );
    }
    for matview in &d.matviews {
        all.add(
            "materialized view",
            matview.view.name.plain(),
            "created again after the swap; its name is exchanged",
        );
    }
    for rule in &d.rules {
        all.add("rule", format!("{} on {}", plain(rule.name.as_str()), rule.table.plain()), bound);
    }
    for function in &d.functions {
        all.add("function", function.name.clone(), bound);
    }
    for function in &d.row_functions {
        let how = "created again for the new row type, with the same owner, privileges and comment";
        all.add("function", function.name.clone(), how);
    }
    for policy in &d.policies {
        all.add(
            "policy of another table",
            format!("{} on {}", plain(policy.name.as_str()), policy.table.plain()),
            bound,
        );
    }
    for default in &d.defaults {
        let name = format!("{}.{}", default.table.plain(), plain(default.column.as_str()));
        all.add("default of another table", name, "uses the sequence in use after the swap");
    }
    for publication in &d.publications {
        let how = "publishes the table in use after the swap, with publish_via_partition_root";
        all.add("publication", plain(publication.name.as_str()), how);
    }
}

/// Adds privileges, policies and triggers.
fn guarded(all: &mut Inventory, table: &Table) {
    for trigger in &table.triggers {
        let how = "created before the copy, enabled at the swap";
        all.add("trigger", plain(trigger.name.as_str()), how);
    }
    for policy in &table.policies {
        all.add("policy", plain(policy.name.as_str()), "created before the copy");
    }
    let of_sequences = table.sequences.iter().filter(|s| s.identity);
    let of_sequences = of_sequences.flat_map(|s| s.grants.iter().map(move |g| (g, Some(s.name.plain()))));
    for (grant, sequence) in table.grants.iter().map(|g| (g, None)).chain(of_sequences) {
        let role = grant.role.as_ref().map_or("public".to_owned(), |role| plain(role.as_str()));
        let column = grant.column.as_ref().map_or(String::new(), |c| format!(" ({})", plain(c.as_str())));
        let on = sequence.map_or(String::new(), |name| format!(" on {name}"));
        let grantor = plain(grant.grantor.as_str());
        all.add(
            "grant",
            format!("{}{column}{on} to {role}", grant.privilege),
            format!("granted again, by {grantor}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::blueprint::tests::blueprint;

    #[test]
    fn all_carried_objects_are_listed() {
        let all = inventory(&blueprint());
        insta::assert_snapshot!(summary(&all), @"7 columns, 2 indexes, 1 check constraint, 1 sequence, 1 extended statistics, 1 comment, 1 foreign key, 1 view, 1 rule, 1 function, 1 policy of another table, 1 default of another table, 1 publication, 1 trigger, 1 policy, 3 grants");
        let told: Vec<String> = all.iter().map(|c| format!("{} {}: {}", c.kind, c.name, c.how)).collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        column observation_id: copied
        column seq: copied; its identity continues from the current value
        column submission_id: copied
        column note: copied
        column raw: copied
        column len: generated again from the same expression
        column created_at: copied
        index petri_observations_pkey: with created_at in it, built on each partition after the copy; its name is exchanged at the swap
        index petri_created: built on each partition after the copy; its name is exchanged at the swap
        check constraint note_short: created before the copy
        sequence public.petri_observations_seq_seq: at the swap, the identity sequence of the partitioned table takes its name and continues its numbers
        extended statistics public.petri_where: created on the partitioned table; its name is exchanged at the swap
        comment trigger touch: set again at the swap
        foreign key petri_submission_fk: moved at the swap without reading rows, validated afterwards
        view public.petri_observations_with_names: replaced at the swap by the same query; keeps its owner, privileges and comment
        rule said on public.petri_observations: created again at the swap from the same definition
        function public.newest(): created again at the swap from the same definition
        policy of another table seen on public.remarks: created again at the swap from the same definition
        default of another table public.drafts.id: uses the sequence in use after the swap
        publication lab_out: publishes the table in use after the swap, with publish_via_partition_root
        trigger touch: created before the copy, enabled at the swap
        policy "own rows": created before the copy
        grant SELECT to app: granted again, by lab
        grant UPDATE (note) to public: granted again, by lab
        grant USAGE on public.petri_observations_seq_seq to app: granted again, by lab
        "#);
    }

    #[test]
    fn each_kind_has_its_plural() {
        let of = |kind: &'static str| Carried { kind, name: String::new(), how: String::new() };
        let kinds = [
            "extended statistics",
            "referencing foreign key",
            "policy of another table",
            "materialized view",
            "default of another table",
            "index",
        ];
        let all: Vec<Carried> = kinds.iter().flat_map(|kind| [of(kind), of(kind)]).collect();
        insta::assert_snapshot!(summary(&all), @"2 extended statistics, 2 referencing foreign keys, 2 policies of other tables, 2 materialized views, 2 defaults of other tables, 2 indexes");
    }
}
