//! Key tables. A partitioned table cannot have a unique constraint without the partition column, and no foreign key can
//! reference one. A key table has one row for each key of such a constraint, and the constraint itself; triggers of the
//! partitioned table keep it in sync. Foreign keys that referenced the constraint reference the key table.

use serde::{Deserialize, Serialize};

use super::ident::{Ident, MAX_BYTES, QualifiedName};
use super::table::{Column, ForeignKey, Index};
use super::tokens::tokens;

/// The suffix of the names of key tables and their functions.
const SUFFIX: &str = "_keys";
/// The number of bytes that the name of a function has in addition to that of the key table.
const MOST_OF_FUNCTION: usize = 12;
/// The suffix of the index of the partitioned table that remains for lookups. An index of each partition is called local.
const LOCAL: &str = "_local";

/// The key table of one unique index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyTable {
    /// The unique index of the source. After the swap, the constraint of the key table has its name.
    pub index: Ident,
    /// The key table.
    pub name: QualifiedName,
    /// Its columns, in the order of the index.
    pub columns: Vec<KeyColumn>,
    /// The columns of the table, which expressions of the index may name.
    pub of_table: Vec<TableColumn>,
    /// The condition of a partial index.
    pub condition: Option<String>,
    /// Whether the index is NULLS NOT DISTINCT.
    pub nulls_not_distinct: bool,
    /// The clause `DEFERRABLE INITIALLY DEFERRED` of the constraint; usually empty.
    pub deferrable: String,
    /// The comment on the constraint.
    pub comment: Option<String>,
    /// Whether a row keeps its key when it moves to another partition, so that foreign keys can reference the key table.
    /// Otherwise, the move deletes the key and inserts it again.
    pub keeps_moves: bool,
}

/// A column of a key table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyColumn {
    /// The name: that of the table's column, or `key_1` for an expression.
    pub name: Ident,
    /// The type in SQL syntax, with modifiers.
    pub sql_type: String,
    /// The collation of the index, quoted and qualified, if it differs from the default of the type or from that of the
    /// value.
    pub collation: Option<String>,
    /// Whether the table's column is NOT NULL.
    pub not_null: bool,
    /// Whether the value is an expression.
    pub computed: bool,
    /// The column or expression in SQL syntax.
    pub expression: String,
    /// The schema of the `=` operator of the index.
    pub operator_schema: Ident,
    /// The input type of that operator, if it is not in `pg_catalog`: without a cast, a domain could select another.
    pub cast: Option<String>,
}

/// A column of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableColumn {
    /// The name.
    pub name: Ident,
    /// The name of its type, quoted and qualified, without modifiers.
    pub sql_type: String,
}

/// What the catalog has for one unique index: the parts of a key table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct UniqueIndex {
    /// The index.
    pub index: Ident,
    /// The key columns.
    pub columns: Vec<UniqueColumn>,
    /// The condition of a partial index.
    pub condition: Option<String>,
    /// The columns of the table.
    pub of_table: Vec<TableColumn>,
}

/// A key column of a unique index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct UniqueColumn {
    /// The column; none for an expression.
    pub column: Option<Ident>,
    /// The column or expression in SQL syntax.
    pub expression: String,
    /// The type in SQL syntax, with modifiers.
    pub sql_type: String,
    /// The collation, quoted and qualified, if it differs from the default of the type or from that of the value.
    pub collation: Option<String>,
    /// Whether the type is composite: IS NOT NULL has another meaning for its values.
    pub composite: bool,
    /// The schema of the `=` operator, if it is that of the default operator class of the type; none otherwise.
    pub operator_schema: Option<Ident>,
    /// The input type of the operator class in SQL syntax.
    pub input_type: String,
}

impl KeyTable {
    /// The key table for a unique index of a table with these columns.
    ///
    /// # Errors
    /// The reason why there can be none.
    pub fn new(
        table: &QualifiedName,
        of_table: &[Column],
        index: &Index,
        unique: &UniqueIndex,
        comment: Option<String>,
        keeps_moves: bool,
    ) -> Result<Self, &'static str> {
        if index.deferrable == " deferrable" {
            return Err(
                "it is DEFERRABLE INITIALLY IMMEDIATE, and a key table would check it at a different point in the statement",
            );
        }
        let mut computed = 0;
        let mut column = |unique: &UniqueColumn| {
            if unique.composite {
                return Err("one of its columns has a composite type");
            }
            let schema = unique.operator_schema.clone();
            let operator_schema = schema
                .ok_or("its operator class does not use the default `=` operator of the column's type")?;
            let name = unique.column.clone().unwrap_or_else(|| {
                computed += 1;
                Ident::new(format!("key_{computed}"))
            });
            let builtin = operator_schema.as_str() == "pg_catalog";
            Ok(KeyColumn {
                name,
                sql_type: unique.sql_type.clone(),
                collation: unique.collation.clone(),
                not_null: of_table
                    .iter()
                    .any(|column| Some(&column.name) == unique.column.as_ref() && column.not_null),
                computed: unique.column.is_none(),
                expression: unique.expression.clone(),
                cast: (!builtin).then(|| unique.input_type.clone()),
                operator_schema,
            })
        };
        let columns = unique.columns.iter().map(&mut column).collect::<Result<Vec<_>, _>>()?;
        if columns.iter().any(|one| {
            [MOVING, FORMER].contains(&one.name.as_str())
                || columns.iter().filter(|c| c.name == one.name).count() > 1
        }) {
            return Err(
                "two of its columns would have the same name in the key table, or one is named pgstrata_moving or pgstrata_former",
            );
        }
        Ok(Self {
            index: index.name.clone(),
            name: table.sibling(Self::name_for(&index.name)),
            columns,
            of_table: unique.of_table.clone(),
            condition: unique.condition.clone(),
            nulls_not_distinct: index.nulls_not_distinct,
            deferrable: index.deferrable.clone(),
            comment,
            keeps_moves,
        })
    }

    /// The name of the key table of an index. The names of its functions begin with it, so it is shorter than other names.
    fn name_for(index: &Ident) -> Ident {
        let short = Ident::shortened(index.as_str(), MAX_BYTES - SUFFIX.len() - MOST_OF_FUNCTION);
        Ident::new(format!("{}{SUFFIX}", short.as_str()))
    }

    /// Whether the functions evaluate expressions, whose names depend on the search path.
    pub fn is_computed(&self) -> bool {
        self.condition.is_some() || self.columns.iter().any(|column| column.computed)
    }

    /// The values of the key in a row, each in SQL syntax; `row` is `new`, `old` or an alias.
    pub fn values(&self, row: &str) -> Vec<String> {
        let value = |column: &KeyColumn| {
            let value = self.of_row(&column.expression, row);
            match &column.collation {
                // Otherwise, the collation of a comparison with a value of another collation would be indeterminate.
                Some(collation) => format!("({value}) collate {collation}"),
                None => value,
            }
        };
        self.columns.iter().map(value).collect()
    }

    /// The columns of the table that the index uses, in the order of the table.
    pub fn sources(&self) -> Vec<&TableColumn> {
        let expressions = self.columns.iter().map(|column| &column.expression).chain(&self.condition);
        let used: Vec<&str> = expressions.flat_map(|expression| self.named_in(expression)).collect();
        self.of_table.iter().filter(|column| used.contains(&column.name.as_str())).collect()
    }

    /// Whether a row has a key, as an SQL condition.
    pub fn has_key(&self, row: &str) -> String {
        let mut all = Vec::new();
        if !self.nulls_not_distinct {
            let nullable = self.columns.iter().zip(self.values(row)).filter(|(column, _)| !column.not_null);
            all.extend(nullable.map(|(_, value)| format!("{value} is not null")));
        }
        all.extend(
            self.condition.iter().map(|condition| format!("({}) is true", self.of_row(condition, row))),
        );
        if all.is_empty() { "true".to_owned() } else { all.join(" and ") }
    }

    /// The row of the key table, with the alias `key`, that has these values, as an SQL condition.
    pub fn matches(&self, key: &str, values: &[String]) -> String {
        let one = |(column, value): (&KeyColumn, &String)| {
            let own = format!("{key}.{}", column.name);
            let cast =
                |text: &str| column.cast.as_ref().map_or(text.to_owned(), |cast| format!("({text})::{cast}"));
            let equal = format!("{} operator({}.=) {}", cast(&own), column.operator_schema, cast(value));
            match self.nulls_not_distinct {
                true => format!("({equal} or {own} is null and {value} is null)"),
                false => equal,
            }
        };
        self.columns.iter().zip(values).map(one).collect::<Vec<_>>().join(" and ")
    }

    /// An expression of the index, with `row` in front of the table's columns.
    fn of_row(&self, expression: &str, row: &str) -> String {
        let mut text = String::new();
        for (token, column) in self.resolved(expression) {
            if column.is_some() {
                text.push_str(row);
                text.push('.');
            }
            text.push_str(token);
        }
        text
    }

    /// The columns of the table that an expression names.
    fn named_in<'a>(&'a self, expression: &'a str) -> impl Iterator<Item = &'a str> {
        self.resolved(expression).into_iter().filter_map(|(_, column)| column)
    }

    /// The tokens of an expression, each with the column of the table that it names.
    fn resolved<'a>(&'a self, expression: &'a str) -> Vec<(&'a str, Option<&'a str>)> {
        let parts = tokens(expression);
        let column = |(i, token): (usize, &&str)| {
            let name = unquoted(token);
            let column = self.of_table.iter().find(|column| column.name.as_str() == name)?;
            let before = parts[..i].iter().rev().find(|token| !token.trim().is_empty());
            let other = before
                .is_some_and(|before| [".", "::"].contains(before) || before.eq_ignore_ascii_case("collate"));
            let is_column = !other && parts.get(i + 1).is_none_or(|next| !["(", "."].contains(next));
            is_column.then_some(column.name.as_str())
        };
        let columns: Vec<Option<&str>> = parts.iter().enumerate().map(column).collect();
        parts.into_iter().zip(columns).collect()
    }
}

/// The column of a key table that marks a row whose key moves to another partition.
pub const MOVING: &str = "pgstrata_moving";
/// The column of a key table with the former values of such a key, if the update changes it.
pub const FORMER: &str = "pgstrata_former";

/// The name that a token means; keywords are not distinguished. The server quotes a column named like a reserved word.
fn unquoted(token: &str) -> String {
    match token.starts_with('"') && token.len() > 1 {
        true => token[1..token.len() - 1].replace("\"\"", "\""),
        false => token.to_owned(),
    }
}

/// The name of the index of the partitioned table that remains for lookups.
pub fn local(index: &Ident) -> Ident {
    index.with_suffix(LOCAL)
}

/// The foreign key with another referenced table. It is DEFERRABLE, so that it is checked at the end of the statement
/// of the application, after the triggers that keep the key table in sync.
pub fn referencing(key: &ForeignKey, table: &QualifiedName) -> ForeignKey {
    let mut parts = tokens(&key.definition);
    let at = parts.iter().position(|token| token.eq_ignore_ascii_case("references"));
    let mut definition = key.definition.clone();
    if let Some(at) = at {
        let tail = parts.split_off(at + 1);
        let rest: Vec<&str> = tail.into_iter().skip_while(|token| *token != "(").collect();
        definition = format!("{} {}{}", parts.concat(), table.plain(), rest.concat());
    }
    if !is_deferrable(key) {
        definition.push_str(" DEFERRABLE");
    }
    ForeignKey { references: table.clone(), definition, index: None, ..key.clone() }
}

/// Whether the foreign key is DEFERRABLE.
pub fn is_deferrable(key: &ForeignKey) -> bool {
    tokens(&key.definition).contains(&"DEFERRABLE")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::fixture::petri;

    /// The key table of a key that foreign keys reference.
    pub(crate) fn referenced() -> KeyTable {
        let table = petri();
        let unique = UniqueIndex {
            index: Ident::new("petri_observations_pkey"),
            columns: vec![column(Some("observation_id"), "observation_id", "bigint")],
            condition: None,
            of_table: of_petri(),
        };
        KeyTable::new(&table.name, &table.columns, &table.indexes[0], &unique, None, true).unwrap()
    }

    fn of_petri() -> Vec<TableColumn> {
        let column = |(name, sql_type): (&str, &str)| TableColumn {
            name: Ident::new(name),
            sql_type: sql_type.to_owned(),
        };
        [
            ("observation_id", "pg_catalog.int8"),
            ("note", "pg_catalog.\"varchar\""),
            ("created_at", "pg_catalog.timestamptz"),
        ]
        .map(column)
        .to_vec()
    }

    fn column(name: Option<&str>, expression: &str, sql_type: &str) -> UniqueColumn {
        UniqueColumn {
            column: name.map(Ident::new),
            expression: expression.to_owned(),
            sql_type: sql_type.to_owned(),
            collation: None,
            composite: false,
            operator_schema: Some(Ident::new("pg_catalog")),
            input_type: sql_type.to_owned(),
        }
    }

    /// The key table of a partial index on expressions.
    pub(crate) fn computed() -> KeyTable {
        let mut key = referenced();
        key.keeps_moves = false;
        key.index = Ident::new("one note");
        key.name = key.name.sibling(Ident::new("one note_keys"));
        key.columns = vec![KeyColumn {
            name: Ident::new("key_1"),
            sql_type: "text".to_owned(),
            collation: None,
            not_null: false,
            computed: true,
            expression: "lower((note)::text)".to_owned(),
            operator_schema: Ident::new("pg_catalog"),
            cast: None,
        }];
        key.condition = Some("(created_at > '2024-01-01'::date)".to_owned());
        key
    }

    #[test]
    fn columns_in_expressions_are_those_of_the_row() {
        let mut key = computed();
        let of_table = |name| TableColumn { name: Ident::new(name), sql_type: "pg_catalog.text".to_owned() };
        key.of_table = ["note", "order", "a b", "text"].map(of_table).to_vec();
        let of = |text: &str| key.of_row(text, "new");
        assert_eq!(of("lower((note)::text)"), "lower((new.note)::text)");
        assert_eq!(of("note(\"order\")"), "note(new.\"order\")");
        assert_eq!(of("(note || 'note') COLLATE note"), "(new.note || 'note') COLLATE note");
        assert_eq!(of("s.note(\"a b\", note.x)"), "s.note(new.\"a b\", note.x)");
        key.condition = Some("\"order\" > 0".to_owned());
        let sources: Vec<&str> = key.sources().iter().map(|column| column.name.as_str()).collect();
        assert_eq!(sources, ["note", "order"]);
    }

    #[test]
    fn a_foreign_key_references_the_key_table() {
        let key = |definition: &str| ForeignKey {
            name: Ident::new("k"),
            table: QualifiedName::new("public", "c"),
            references: QualifiedName::new("public", "t"),
            definition: definition.to_owned(),
            validated: true,
            comment: None,
            index: None,
            from_partitioned: false,
            to_unlogged: false,
        };
        let to = QualifiedName::new("public", "t_pkey_keys");
        let of = |definition: &str| referencing(&key(definition), &to).definition;
        assert_eq!(
            of("FOREIGN KEY (\"references\") REFERENCES public.\"t (x)\"(id) ON DELETE CASCADE"),
            "FOREIGN KEY (\"references\") REFERENCES public.t_pkey_keys(id) ON DELETE CASCADE DEFERRABLE"
        );
        assert_eq!(
            of("FOREIGN KEY (a, b) REFERENCES public.t(b, a) DEFERRABLE INITIALLY DEFERRED"),
            "FOREIGN KEY (a, b) REFERENCES public.t_pkey_keys(b, a) DEFERRABLE INITIALLY DEFERRED"
        );
    }
}
