//! What a job made, remembered by oid. A name proves nothing: somebody may rename an object of the job, drop it, or give its
//! name to an object of their own.

use super::ident::{Ident, QualifiedName};

/// What an object is to the job that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The partitioned table.
    Target,
    /// A partition of it.
    Partition,
    /// The change log.
    Log,
    /// The list of truncations.
    Truncations,
    /// The column that a retype adds.
    Column,
    /// The column that a retype replaces. The job did not make it, but `finalize` drops it.
    Replaced,
    /// An index.
    Index,
    /// A constraint.
    Constraint,
    /// A materialized view that replaces the application's own.
    Matview,
}

impl Role {
    const ALL: [Self; 9] = [
        Self::Target,
        Self::Partition,
        Self::Log,
        Self::Truncations,
        Self::Column,
        Self::Replaced,
        Self::Index,
        Self::Constraint,
        Self::Matview,
    ];

    /// The name that the store keeps.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Partition => "partition",
            Self::Log => "log",
            Self::Truncations => "truncations",
            Self::Column => "column",
            Self::Replaced => "replaced",
            Self::Index => "index",
            Self::Constraint => "constraint",
            Self::Matview => "matview",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// An object that the job made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What it is to the job.
    pub role: Role,
    /// The name that it was made with, as people write it.
    pub made: String,
    /// Its oid; that of its table for a column.
    pub oid: u32,
    /// The column's number; zero for anything else.
    pub column: i32,
    /// What it is called now; none where it was dropped.
    pub now: Option<Place>,
}

/// Where an object is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name; that of its table for a column or a constraint.
    pub relation: QualifiedName,
    /// The name of the column or constraint.
    pub part: Option<Ident>,
}

/// All that a job made and recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects(pub Vec<Object>);

impl Objects {
    /// Those of a role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &Object> {
        self.0.iter().filter(move |object| object.role == role)
    }

    /// The only one of a role.
    pub fn only(&self, role: Role) -> Option<&Object> {
        self.of(role).next()
    }

    /// The present name of the only relation of a role; none where it was dropped.
    pub fn relation(&self, role: Role) -> Option<&QualifiedName> {
        Some(&self.only(role)?.now.as_ref()?.relation)
    }

    /// Whether the job was about to make an index of that name when it was last heard of: it cannot be recorded in the
    /// statement that makes it, which is no transaction.
    pub fn intended(&self, index: &QualifiedName) -> bool {
        self.of(Role::Index).any(|object| object.oid == 0 && object.made == index.plain())
    }

    /// Whether the job made the object with that oid, in that role.
    pub fn made(&self, role: Role, oid: u32) -> bool {
        self.of(role).any(|object| object.oid == oid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_a_name_of_its_own() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
    }

    #[test]
    fn what_was_dropped_has_no_name() {
        let object = |role, oid, now| Object { role, made: "public.t_new".into(), oid, column: 0, now };
        let place = Place { relation: QualifiedName::new("public", "moved"), part: None };
        let all = Objects(vec![object(Role::Target, 1, Some(place)), object(Role::Log, 2, None)]);
        assert_eq!(all.relation(Role::Target).map(QualifiedName::plain).as_deref(), Some("public.moved"));
        assert_eq!(all.relation(Role::Log), None);
        assert!(all.made(Role::Log, 2) && !all.made(Role::Log, 1));
    }
}
