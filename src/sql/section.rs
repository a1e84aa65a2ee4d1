//! A section of the output of `pgstrata sql`.

/// A phase and its statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The phase, and remarks on its statements (such as one transaction, repeated).
    pub title: String,
    /// The statements, without semicolons.
    pub statements: Vec<String>,
}

pub(super) fn section(title: &str, statements: Vec<String>) -> Section {
    Section { title: title.to_owned(), statements }
}
