//! Decides whether schema `pgstrata` is safe to use: a role that owns the schema, or that can write to it, could make
//! the statements of the job run its code.
//!
//! The rule: all objects in the schema belong to the role of the session, or to roles that can act as that role anyway;
//! no other role can create objects in it or write to its tables; and its tables are plain tables without objects that
//! run code.

use serde::Deserialize;

use super::ident::{Ident, plain};

/// The schema, as in the catalog.
#[derive(Debug, Clone, Deserialize)]
pub struct OwnSchema {
    /// The role that the session acts as.
    pub role: Ident,
    /// The owner of the schema,
    pub owner: Ident,
    /// and whether that role is trusted.
    pub trusted: bool,
    /// Other roles that can create objects in it.
    pub creators: Vec<String>,
    /// Its tables, sequences and other relations.
    pub relations: Vec<SchemaRelation>,
    /// Functions of roles that are not trusted.
    pub functions: Vec<SchemaFunction>,
}

/// A relation in the schema.
#[derive(Debug, Clone, Deserialize)]
pub struct SchemaRelation {
    /// Its name.
    pub name: Ident,
    /// Its kind, as in `pg_class.relkind`.
    pub kind: String,
    /// Its owner,
    pub owner: Ident,
    /// and whether that role is trusted.
    pub trusted: bool,
    /// Whether it has row-level security or policies.
    pub row_security: bool,
    /// Whether it has parents or children.
    pub inherits: bool,
    /// Whether it has generated columns.
    pub generated: bool,
    /// Its triggers, except those of foreign keys.
    pub triggers: Vec<Ident>,
    /// Its rules.
    pub rules: Vec<Ident>,
    /// Its check and exclusion constraints.
    pub checks: Vec<Ident>,
    /// Functions and operators that defaults, constraints and indexes use, other than those of the server.
    pub code: Vec<String>,
    /// Roles that are not trusted but have privileges other than SELECT.
    pub writers: Vec<String>,
}

/// A function in the schema.
#[derive(Debug, Clone, Deserialize)]
pub struct SchemaFunction {
    /// Its name.
    pub name: Ident,
    /// Its owner.
    pub owner: Ident,
}

impl OwnSchema {
    /// The reasons for which the schema is not safe; empty if it is safe.
    pub fn objections(&self) -> Vec<String> {
        let mut all = Vec::new();
        if !self.trusted {
            all.push(format!("it belongs to role {}", plain(self.owner.as_str())));
        }
        for role in &self.creators {
            all.push(format!("role {} can create objects in it", grantee(role)));
        }
        for relation in &self.relations {
            all.extend(relation.objections());
        }
        for SchemaFunction { name, owner } in &self.functions {
            let (name, owner) = (plain(name.as_str()), plain(owner.as_str()));
            all.push(format!("function pgstrata.{name} belongs to role {owner}"));
        }
        all
    }
}

impl SchemaRelation {
    fn objections(&self) -> Vec<String> {
        let name = format!("pgstrata.{}", plain(self.name.as_str()));
        let mut all = Vec::new();
        if !matches!(self.kind.as_str(), "r" | "S") {
            all.push(format!("{name} is {}, not a table", kind(&self.kind)));
        }
        if !self.trusted {
            all.push(format!("{name} belongs to role {}", plain(self.owner.as_str())));
        }
        for (has, what) in [
            (self.row_security, "row security or policies"),
            (self.inherits, "parents or children"),
            (self.generated, "generated columns"),
        ] {
            if has {
                all.push(format!("{name} has {what}"));
            }
        }
        for (what, names) in
            [("trigger", &self.triggers), ("rule", &self.rules), ("constraint", &self.checks)]
        {
            all.extend(names.iter().map(|one| format!("{name} has {what} {}", plain(one.as_str()))));
        }
        all.extend(self.code.iter().map(|one| format!("{name} uses {one}")));
        all.extend(self.writers.iter().map(|role| format!("role {} can write to {name}", grantee(role))));
        all
    }
}

fn grantee(role: &str) -> String {
    if role == "PUBLIC" { role.to_owned() } else { plain(role) }
}

fn kind(kind: &str) -> &'static str {
    match kind {
        "v" => "a view",
        "m" => "a materialized view",
        "f" => "a foreign table",
        "p" => "a partitioned table",
        "c" => "a type",
        _ => "another kind of object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(name: &str) -> SchemaRelation {
        SchemaRelation {
            name: Ident::new(name),
            kind: "r".to_owned(),
            owner: Ident::new("mig"),
            trusted: true,
            row_security: false,
            inherits: false,
            generated: false,
            triggers: vec![],
            rules: vec![],
            checks: vec![],
            code: vec![],
            writers: vec![],
        }
    }

    fn schema(relations: Vec<SchemaRelation>) -> OwnSchema {
        OwnSchema {
            role: Ident::new("mig"),
            owner: Ident::new("mig"),
            trusted: true,
            creators: vec![],
            relations,
            functions: vec![],
        }
    }

    #[test]
    fn plain_tables_of_trusted_roles_are_safe() {
        let sequence = SchemaRelation { kind: "S".to_owned(), ..relation("jobs_id_seq") };
        assert!(schema(vec![relation("jobs"), sequence]).objections().is_empty());
    }

    #[test]
    fn every_way_to_run_code_of_other_roles_is_an_objection() {
        let jobs = SchemaRelation {
            owner: Ident::new("Eve"),
            trusted: false,
            row_security: true,
            inherits: true,
            generated: true,
            triggers: vec![Ident::new("t")],
            rules: vec![Ident::new("r")],
            checks: vec![Ident::new("c")],
            code: vec!["function public.f()".to_owned()],
            writers: vec!["PUBLIC".to_owned(), "eve".to_owned()],
            ..relation("jobs")
        };
        let view = SchemaRelation { kind: "v".to_owned(), ..relation("changes_x") };
        let found = OwnSchema {
            trusted: false,
            owner: Ident::new("eve"),
            creators: vec!["eve".to_owned()],
            functions: vec![SchemaFunction { name: Ident::new("capture_x"), owner: Ident::new("eve") }],
            ..schema(vec![jobs, view])
        };
        insta::assert_snapshot!(found.objections().join("\n"), @r#"
        it belongs to role eve
        role eve can create objects in it
        pgstrata.jobs belongs to role "Eve"
        pgstrata.jobs has row security or policies
        pgstrata.jobs has parents or children
        pgstrata.jobs has generated columns
        pgstrata.jobs has trigger t
        pgstrata.jobs has rule r
        pgstrata.jobs has constraint c
        pgstrata.jobs uses function public.f()
        role PUBLIC can write to pgstrata.jobs
        role eve can write to pgstrata.jobs
        pgstrata.changes_x is a view, not a table
        function pgstrata.capture_x belongs to role eve
        "#);
    }
}
