//! Code of roles that the job's role does not trust, which the job would run with its own privileges.

use serde::Deserialize;

use super::ident::plain;
use super::number;

/// The number of functions to name.
const NAMED: usize = 5;

/// What a transaction does with the rows of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It reads them.
    Reads,
    /// It writes them, and fires no trigger of the application.
    Copies,
    /// It writes them, and fires triggers.
    Updates {
        /// It changes columns to which foreign keys may refer, so that it may write other tables.
        cascades: bool,
    },
}

impl Access {
    /// Whether triggers and rules of the application run.
    pub fn fires(self) -> bool {
        matches!(self, Self::Updates { .. })
    }

    /// Whether foreign keys may write other tables.
    pub fn cascades(self) -> bool {
        self == Self::Updates { cascades: true }
    }
}

/// A function that the server calls when rows of a table are written or a definition is created again, or a domain whose
/// checks it calls.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Code {
    /// The caller, such as `constraint c on table public.t`.
    pub by: String,
    /// The function or domain, such as `function app.f(integer)`.
    pub function: String,
    /// Its owner.
    pub owner: String,
}

/// A call in a definition that could mean another function when the object is created again.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Overload {
    /// The caller, such as `policy p on table public.t`.
    pub by: String,
    /// The function or operator.
    pub function: String,
    /// Its schema.
    pub schema: String,
    /// The untrusted roles that can create objects in the schema; `PUBLIC` for all roles.
    pub creators: Vec<String>,
}

/// A description in one line.
pub fn described(code: &[Code]) -> String {
    let one = |c: &Code| format!("{} uses {} of {}", c.by, c.function, c.owner);
    let mut all: Vec<String> = code.iter().take(NAMED).map(one).collect();
    let more = code.len().saturating_sub(NAMED);
    if more > 0 {
        all.push(format!("and {}", number::counted(more as u64, "other")));
    }
    all.join("; ")
}

/// The roles that the plan would have to trust, without duplicates.
pub fn owners(code: &[Code]) -> Vec<&str> {
    let mut all: Vec<&str> = code.iter().map(|c| c.owner.as_str()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A role as a plan writes it, quoted as in SQL if necessary.
fn in_plan(role: &str) -> String {
    let written = plain(role);
    if written.contains('"') { format!("'{written}'") } else { format!("\"{written}\"") }
}

/// The hint; `owner` is the table's owner.
pub fn hint(code: &[Code], owner: &str) -> String {
    let roles: Vec<String> = owners(code).into_iter().map(in_plan).collect();
    format!(
        "run the job as {owner}; or, if you trust these roles with the privileges of the job's role, set \
         trust = [{}] at the top of the plan",
        roles.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_functions_are_named_and_each_owner_once() {
        let code = |n: usize| Code {
            by: format!("constraint c{n} on table public.t"),
            function: format!("function app.f{n}(integer)"),
            owner: if n.is_multiple_of(2) { "app".to_owned() } else { "The App".to_owned() },
        };
        let all: Vec<Code> = (0..7).map(code).collect();
        assert!(described(&all).ends_with("; and 2 others"), "{}", described(&all));
        assert_eq!(
            described(&all[..1]),
            "constraint c0 on table public.t uses function app.f0(integer) of app"
        );
        assert!(hint(&all, "app").contains(r#"trust = ['"The App"', "app"]"#), "{}", hint(&all, "app"));
    }
}
