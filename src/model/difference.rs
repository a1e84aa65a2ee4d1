//! The differences between two descriptions of a table: both are converted to JSON and compared node by node, so that
//! every present and future field is included. Only what [`EXEMPT`] lists is ignored.

use serde_json::{Map, Value};

use super::grant::Grant;
use super::ident::plain;
use super::table::Table;

/// One difference: its position, and the value on each side.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Names of fields and list elements, from the table down: `columns`, `note`, `looks`, `comment`.
    pub path: Vec<String>,
    /// The previous value; none if an element was added.
    pub was: Option<Value>,
    /// The current value; none if an element was dropped.
    pub now: Option<Value>,
}

/// The relation between the two descriptions, which determines the differences that the job itself causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// The same table, earlier and now, during a job.
    Times,
    /// The table before an exchange, and the other table, which has its name now.
    Tables,
}

/// Differences that are ignored, with the reasons. A `*` stands for any one name.
const EXEMPT: &[(Between, &[&str], &str)] = &[
    (Between::Times, &["foreign_keys", "*", "validated"], "validated after an exchange"),
    (Between::Times, &["referenced_by", "*", "validated"], "validated after an exchange"),
    (Between::Times, &["operator_schemas"], "follows from the definitions"),
    (Between::Tables, &["operator_schemas"], "follows from the definitions"),
    (Between::Tables, &["oid"], "another table has that name"),
    (Between::Tables, &["referenced_by", "*", "index"], "the server chooses among equal indexes"),
    (Between::Tables, &["indexes", "*", "clustered"], "is on each partition"),
];

fn is_exempt(between: Between, path: &[String]) -> bool {
    let fits = |pattern: &[&str]| {
        pattern.len() == path.len() && pattern.iter().zip(path).all(|(one, name)| *one == "*" || one == name)
    };
    EXEMPT.iter().any(|(when, pattern, _)| *when == between && fits(pattern))
}

/// The differences of `now` from `was`, in the order of the description.
///
/// A part that is null in `was` and exists in `now` was not known to the version of pgstrata that wrote `was`.
pub fn differences(was: &Table, now: &Table, between: Between) -> Vec<Difference> {
    let mut found = Vec::new();
    if let (Ok(was), Ok(now)) =
        (serde_json::to_value(owner_apart(was)), serde_json::to_value(owner_apart(now)))
    {
        compare(&mut Vec::new(), Some(&was), Some(&now), &mut found);
    }
    found.retain(|one| !is_exempt(between, &one.path));
    found
}

/// All privileges on a table, in every supported version.
const ALL_PRIVILEGES: [&str; 7] =
    ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"];

/// The table as this version describes it: an earlier version listed the owner's own privileges even if they were
/// complete.
fn owner_apart(table: &Table) -> Table {
    let mut table = table.clone();
    let own =
        |g: &Grant| g.column.is_none() && g.role.as_ref() == Some(&table.owner) && g.grantor == table.owner;
    let has = |privilege: &&str| table.grants.iter().any(|g| own(g) && g.privilege == *privilege);
    let of_earlier = table.columns.iter().any(|c| c.looks.is_none());
    if of_earlier && ALL_PRIVILEGES.iter().all(has) {
        table.grants = table.grants.iter().filter(|g| !own(g)).cloned().collect();
        table.default_privileges = true;
    }
    table
}

fn compare(path: &mut Vec<String>, was: Option<&Value>, now: Option<&Value>, found: &mut Vec<Difference>) {
    let mut below = |name: &str, was: Option<&Value>, now: Option<&Value>| {
        path.push(name.to_owned());
        compare(path, was, now, found);
        path.pop();
    };
    match (was, now) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let more = b.keys().filter(|name| !a.contains_key(*name));
            a.keys().chain(more).for_each(|name| below(name, a.get(name), b.get(name)));
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) if is_named(a, b) => {
            let there = |list: &[Value], name: &str| list.iter().position(|one| element(one) == name);
            for old in a {
                let name = element(old);
                below(&name, Some(old), there(b, &name).map(|i| &b[i]));
            }
            for new in b.iter().filter(|new| there(a, &element(new)).is_none()) {
                below(&element(new), None, Some(new));
            }
        }
        (Some(Value::Null), Some(Value::Object(_))) => {}
        (was, now) if was == now => {}
        (was, now) => {
            found.push(Difference { path: path.clone(), was: was.cloned(), now: now.cloned() });
        }
    }
}

/// Whether two lists have named elements, as opposed to ordered values.
fn is_named(a: &[Value], b: &[Value]) -> bool {
    a.iter().chain(b).any(Value::is_object)
}

/// The name of a list element; the whole element if it has no name.
fn element(value: &Value) -> String {
    let Value::Object(fields) = value else { return text(value) };
    if let Some(view) = fields.get("view") {
        return element(view);
    }
    let field = |name: &str| fields.get(name).filter(|value| !value.is_null()).map(text);
    if let Some(privilege) = field("privilege") {
        let column = field("column").map_or(String::new(), |column| format!(" ({column})"));
        let role = field("role").unwrap_or_else(|| "public".to_owned());
        let grantor = field("grantor").unwrap_or_default();
        return format!("{privilege}{column} of {role} (granted by {grantor})");
    }
    match (field("kind"), field("name"), field("table"), field("column")) {
        (Some(kind), Some(name), ..) => format!("{kind} {name}"),
        (_, Some(name), Some(table), _) => format!("{name} of {table}"),
        (_, Some(name), None, _) => name,
        (_, None, Some(table), Some(column)) => format!("{table}.{column}"),
        _ => value.to_string(),
    }
}

/// A name, qualified if possible, or any other value, in readable form.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) => match (fields.get("schema"), fields.get("name")) {
            (Some(Value::String(schema)), Some(Value::String(name))) => {
                format!("{}.{}", plain(schema), plain(name))
            }
            _ => value.to_string(),
        },
        _ => value.to_string(),
    }
}

/// The lists of a description that have named elements, and the term for such an element.
const KINDS: &[(&[&str], &str)] = &[
    (&["columns"], "column"),
    (&["indexes"], "index"),
    (&["checks"], "check constraint"),
    (&["foreign_keys"], "foreign key"),
    (&["referenced_by"], "foreign key"),
    (&["grants"], "privilege"),
    (&["row_type", "grants"], "privilege on the row type:"),
    (&["policies"], "policy"),
    (&["triggers"], "trigger"),
    (&["views"], "view"),
    (&["sequences"], "sequence"),
    (&["comments"], "comment on"),
    (&["dependents", "rules"], "rule"),
    (&["dependents", "statistics"], "statistics"),
    (&["dependents", "publications"], "publication"),
    (&["dependents", "functions"], "function"),
    (&["dependents", "row_functions"], "function"),
    (&["dependents", "policies"], "policy"),
    (&["dependents", "defaults"], "default of"),
    (&["dependents", "matviews"], "materialized view"),
];

/// What happened to an element that was added or removed.
fn verb(kind: &str, added: bool) -> &'static str {
    match (kind, added) {
        ("privilege" | "privilege on the row type:", true) => "was granted",
        ("privilege" | "privilege on the row type:", false) => "was revoked",
        (_, true) => "was added",
        ("comment on", false) => "was removed",
        (_, false) => "was dropped",
    }
}

/// The term for a field of the table itself.
fn field(name: &str) -> String {
    match name {
        "relkind" => "the kind of the relation".to_owned(),
        "persistence" => "LOGGED or UNLOGGED".to_owned(),
        "children" | "parents" | "is_partition" => "inheritance".to_owned(),
        "options" | "toast_options" => "the storage parameters".to_owned(),
        "row_security" => "row-level security".to_owned(),
        "force_row_security" => "forced row-level security".to_owned(),
        "default_privileges" => "the owner's privileges".to_owned(),
        "comment" => "the comment on the table".to_owned(),
        "row_type" => "the privileges on the row type".to_owned(),
        "row_type.comment" => "the comment on the row type".to_owned(),
        "labels" => "the security labels".to_owned(),
        "others" => "the set of dependent objects".to_owned(),
        other => format!("the {}", other.replace('_', " ")),
    }
}

impl Difference {
    /// Whether the path begins with these names.
    pub fn is_in(&self, names: &[&str]) -> bool {
        self.path.len() >= names.len() && self.path.iter().zip(names).all(|(a, b)| a == b)
    }

    /// Whether a list of strings has new elements, and did not only lose some.
    pub fn has_more(&self) -> bool {
        self.has_more_that(|_| true)
    }

    /// The same for elements of a kind.
    pub fn has_more_that(&self, is: impl Fn(&str) -> bool) -> bool {
        let list =
            |value: &Option<Value>| value.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
        let was = list(&self.was);
        list(&self.now).iter().any(|one| !was.contains(one) && one.as_str().is_none_or(&is))
    }

    /// A description in one line.
    pub fn description(&self) -> String {
        let list = KINDS.iter().find(|(list, _)| self.is_in(list) && self.path.len() > list.len());
        let Some((list, kind)) = list else {
            if self.path[0] == "oid" {
                return "the table was dropped and created again".to_owned();
            }
            let of = if self.is_in(&["row_type", "comment"]) { "row_type.comment" } else { &self.path[0] };
            return format!("{} changed{}", field(of), self.of_strings());
        };
        let name = if list == &["foreign_keys"] {
            self.path[list.len()].split(" of ").next().unwrap_or_default()
        } else {
            &self.path[list.len()]
        };
        match (&self.was, &self.now, self.path.get(list.len() + 1..).unwrap_or_default()) {
            (None, _, []) | (_, None, []) => {
                format!("{kind} {name} {}", verb(kind, self.was.is_none()))
            }
            (_, _, [field, ..]) if field == "uses" => {
                format!("the objects that {kind} {name} uses changed{}", self.of_strings())
            }
            (_, _, fields) => {
                let part = fields.iter().find(|field| *field != "looks" && *field != "options");
                let part =
                    part.or(fields.last()).map_or(String::new(), |f| format!(" ({})", f.replace('_', " ")));
                format!("{kind} {name} changed{part}")
            }
        }
    }

    /// For two lists of strings: the added and the removed elements.
    fn of_strings(&self) -> String {
        let list = |value: &Option<Value>| -> Vec<String> {
            value
                .as_ref()
                .and_then(Value::as_array)
                .map_or_else(Vec::new, |all| all.iter().map(text).collect())
        };
        let (was, now) = (list(&self.was), list(&self.now));
        let only = |verb: &str, a: &[String], b: &[String]| -> Option<String> {
            let names: Vec<&str> = a.iter().filter(|one| !b.contains(one)).map(String::as_str).collect();
            (!names.is_empty()).then(|| format!("{verb}: {}", names.join(", ")))
        };
        let all: Vec<String> =
            [only("removed", &was, &now), only("added", &now, &was)].into_iter().flatten().collect();
        if all.is_empty() { String::new() } else { format!(" ({})", all.join("; ")) }
    }
}

/// Whether all differences are objects that were added and use the table, its row type or one of its sequences. Any role
/// may be able to create them, and they can be dropped without a change to the table.
pub fn are_added_users(differences: &[Difference]) -> bool {
    let added = |one: &Difference| match one.path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["others"] | ["sequences", _, "uses", ..] => one.has_more(),
        ["dependents", ..] => one.was.is_none(),
        _ => false,
    };
    !differences.is_empty() && differences.iter().all(added)
}

/// A description of each difference, without duplicates.
pub fn descriptions(differences: &[Difference]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for one in differences {
        let words = one.description();
        if !all.contains(&words) {
            all.push(words);
        }
    }
    all
}

/// A description of each difference of `now`, the same table later; empty if a job that was planned for `was` may
/// continue.
pub fn drift(was: &Table, now: &Table) -> Vec<String> {
    descriptions(&differences(was, now, Between::Times))
}

/// The value at that path of a description.
pub fn at<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    let Some((name, rest)) = path.split_first() else { return Some(value) };
    let below = match value {
        Value::Object(fields) => fields.get(name),
        Value::Array(list) => list.iter().find(|one| element(one) == *name),
        _ => None,
    };
    at(below?, rest)
}

/// The description with these differences applied.
///
/// # Errors
/// The result does not describe a table.
pub fn with(table: &Table, differences: &[Difference]) -> serde_json::Result<Table> {
    let mut value = serde_json::to_value(table)?;
    for one in differences {
        set(&mut value, &one.path, one.now.as_ref());
    }
    serde_json::from_value(value)
}

fn set(at: &mut Value, path: &[String], to: Option<&Value>) {
    let Some((name, rest)) = path.split_first() else { return };
    match at {
        Value::Object(fields) => set_field(fields, name, rest, to),
        Value::Array(list) => {
            let place = list.iter().position(|one| element(one) == *name);
            match (place, rest, to) {
                (Some(i), [], None) => {
                    list.remove(i);
                }
                (Some(i), [], Some(to)) => list[i] = to.clone(),
                (Some(i), rest, to) => set(&mut list[i], rest, to),
                (None, [], Some(to)) => list.push(to.clone()),
                (None, ..) => {}
            }
        }
        _ => {}
    }
}

fn set_field(fields: &mut Map<String, Value>, name: &str, rest: &[String], to: Option<&Value>) {
    match (rest, to) {
        ([], Some(to)) => {
            fields.insert(name.to_owned(), to.clone());
        }
        ([], None) => {
            fields.remove(name);
        }
        (rest, to) => {
            if let Some(below) = fields.get_mut(name) {
                set(below, rest, to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixture::full;
    use crate::model::ident::Ident;

    /// Every leaf of a document, as a path of numbers and names.
    fn leaves(value: &Value, at: &str, all: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, v)| leaves(v, &format!("{at}/{name}"), all));
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(i, v)| leaves(v, &format!("{at}/{i}"), all));
            }
            _ => all.push(at.to_owned()),
        }
    }

    fn changed(value: &Value) -> Value {
        match value {
            Value::Null => Value::Null,
            Value::Bool(is) => Value::Bool(!is),
            Value::Number(n) => Value::from(n.as_i64().unwrap_or_default() + 1),
            Value::String(text) => Value::String(format!("{text}!")),
            other => other.clone(),
        }
    }

    #[test]
    fn every_part_of_a_description_has_an_example() {
        let value = serde_json::to_value(full()).unwrap();
        let mut empty = Vec::new();
        fn look(value: &Value, at: &str, empty: &mut Vec<String>) {
            match value {
                Value::Null => empty.push(at.to_owned()),
                Value::Array(list) if list.is_empty() => empty.push(at.to_owned()),
                Value::Array(list) => list.iter().take(1).for_each(|v| look(v, &format!("{at}/*"), empty)),
                Value::Object(fields) => {
                    fields.iter().for_each(|(name, v)| look(v, &format!("{at}/{name}"), empty));
                }
                _ => {}
            }
        }
        look(&value, "", &mut empty);
        assert_eq!(empty, Vec::<String>::new());
    }

    #[test]
    fn whatever_changes_is_reported_or_exempt() {
        let was = serde_json::to_value(full()).unwrap();
        let mut all = Vec::new();
        leaves(&was, "", &mut all);
        assert!(all.len() > 150, "{}", all.len());
        for leaf in all {
            let mut now = was.clone();
            let there = now.pointer_mut(&leaf).unwrap();
            let other = changed(there);
            if *there == other {
                continue;
            }
            *there = other;
            let mut found = Vec::new();
            compare(&mut Vec::new(), Some(&was), Some(&now), &mut found);
            assert!(!found.is_empty(), "{leaf} is not compared");
            assert!(found.iter().all(|one| !one.description().is_empty()));
            // And the change can be carried over.
            let mut patched = was.clone();
            found.iter().for_each(|one| set(&mut patched, &one.path, one.now.as_ref()));
            let mut left = Vec::new();
            compare(&mut Vec::new(), Some(&patched), Some(&now), &mut left);
            assert_eq!(left, [], "{leaf}");
        }
    }

    #[test]
    fn exemptions_name_existing_parts() {
        let value = serde_json::to_value(full()).unwrap();
        for (_, path, why) in EXEMPT {
            let pointer: String =
                path.iter().map(|one| format!("/{}", if *one == "*" { "0" } else { one })).collect();
            assert!(value.pointer(&pointer).is_some(), "{pointer}");
            assert!(!why.is_empty());
        }
    }

    #[test]
    fn differences_are_reported_by_name() {
        let was = full();
        assert_eq!(differences(&was, &was, Between::Times), []);
        let mut now = full();
        now.columns.remove(3);
        now.columns[0].not_null = false;
        let mut added = now.columns[1].clone();
        added.name = Ident::new("batch");
        now.columns.push(added);
        now.owner = Ident::new("other");
        now.grants.remove(0);
        now.row_security = false;
        now.comments.clear();
        now.others.push("type rows_of_it".into());
        now.sequences[0].options.as_mut().unwrap().increment = 10;
        now.foreign_keys[0].validated = !now.foreign_keys[0].validated;
        insta::assert_snapshot!(descriptions(&differences(&was, &now, Between::Times)).join("\n"), @"
        column observation_id changed (not null)
        column note was dropped
        column batch was added
        comment on trigger touch was removed
        privilege SELECT (note) of app (granted by lab) was revoked
        the set of dependent objects changed (added: type rows_of_it)
        the owner changed
        row-level security changed
        sequence public.petri_observations_seq_seq changed (increment)
        ");
    }

    #[test]
    fn a_part_unknown_to_an_earlier_version_is_no_difference() {
        let mut was = full();
        was.columns.iter_mut().for_each(|c| c.looks = None);
        was.sequences.iter_mut().for_each(|s| s.options = None);
        let mut now = full();
        now.default_privileges = true;
        was.grants.extend(ALL_PRIVILEGES.map(|privilege| Grant {
            role: Some(was.owner.clone()),
            grantor: was.owner.clone(),
            privilege: privilege.into(),
            column: None,
            grantable: false,
        }));
        assert_eq!(differences(&was, &now, Between::Times), []);
    }
}
