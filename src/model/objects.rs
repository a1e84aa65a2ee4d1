//! The objects that a job created, identified by oid. A name is not sufficient, because a user may rename or drop an
//! object of the job, or create another object with its name.

use super::ident::{Ident, QualifiedName};

/// The role of an object in the job that created it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The partitioned table.
    Target,
    /// A partition of the partitioned table.
    Partition,
    /// The change log.
    Log,
    /// The list of truncations.
    Truncations,
    /// The column that a column type change adds.
    Column,
    /// The column that a column type change replaces. The job did not create it, but `finalize` drops it.
    Replaced,
    /// An index.
    Index,
    /// A constraint.
    Constraint,
    /// A materialized view that replaces that of the application.
    Matview,
    /// A key table.
    KeyTable,
    /// A function of a key table.
    KeyFunction,
}

impl Role {
    const ALL: [Self; 11] = [
        Self::Target,
        Self::Partition,
        Self::Log,
        Self::Truncations,
        Self::Column,
        Self::Replaced,
        Self::Index,
        Self::Constraint,
        Self::Matview,
        Self::KeyTable,
        Self::KeyFunction,
    ];

    /// The stored name.
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
            Self::KeyTable => "key_table",
            Self::KeyFunction => "key_function",
        }
    }

    /// The role with that stored name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// An object that the job created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its role.
    pub role: Role,
    /// The name when it was created, in readable form.
    pub made: String,
    /// Its oid; for a column, that of its table.
    pub oid: u32,
    /// The number of the column; zero for other objects.
    pub column: i32,
    /// Its current name; none if it was dropped.
    pub now: Option<Place>,
}

/// The current name of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The name of the relation or function; for a column or constraint, that of its table.
    pub relation: QualifiedName,
    /// The name of the column or constraint; the arguments of a function, in SQL syntax.
    pub part: Option<Ident>,
}

/// All objects that a job recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects(pub Vec<Object>);

impl Objects {
    /// The objects with a role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &Object> {
        self.0.iter().filter(move |object| object.role == role)
    }

    /// The only object with a role.
    pub fn only(&self, role: Role) -> Option<&Object> {
        self.of(role).next()
    }

    /// The current name of the only relation with a role; none if it was dropped.
    pub fn relation(&self, role: Role) -> Option<&QualifiedName> {
        Some(&self.only(role)?.now.as_ref()?.relation)
    }

    /// Whether the job recorded that it was about to create an index with that name. CREATE INDEX CONCURRENTLY cannot
    /// run in a transaction, so the index cannot be recorded in the transaction that creates it.
    pub fn intended(&self, index: &QualifiedName) -> bool {
        self.of(Role::Index).any(|object| object.oid == 0 && object.made == index.plain())
    }

    /// Whether the job created the object with that oid and role.
    pub fn made(&self, role: Role, oid: u32) -> bool {
        self.of(role).any(|object| object.oid == oid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_a_unique_name() {
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
    }

    #[test]
    fn a_dropped_object_has_no_current_name() {
        let object = |role, oid, now| Object { role, made: "public.t_new".into(), oid, column: 0, now };
        let place = Place { relation: QualifiedName::new("public", "moved"), part: None };
        let all = Objects(vec![object(Role::Target, 1, Some(place)), object(Role::Log, 2, None)]);
        assert_eq!(all.relation(Role::Target).map(QualifiedName::plain).as_deref(), Some("public.moved"));
        assert_eq!(all.relation(Role::Log), None);
        assert!(all.made(Role::Log, 2) && !all.made(Role::Log, 1));
    }
}
