//! What `pgstrata plan` asks about the columns of a table. Nothing here reads more than a few blocks of it, or of an index.

use crate::model::ident::QualifiedName;
use crate::model::table::Column;

/// The statistics of the columns of table `$1.$2`: name, number of distinct values, correlation, share of NULLs, the bounds
/// of the histogram, and the most common values; the last two as text.
pub const STATISTICS: &str = "select attname::text, n_distinct::double precision, correlation::double precision,
  null_frac::double precision, coalesce(histogram_bounds::text::text[], '{}'), coalesce(most_common_vals::text::text[], '{}')
from pg_catalog.pg_stats where schemaname = $1 and tablename = $2 and not inherited";

/// Rows with NULL or an infinite value are counted up to this number.
pub const MOST_COUNTED: i64 = 10_000;

/// The smallest and the largest finite value, the numbers of rows with NULL and with an infinite value up to
/// [`MOST_COUNTED`] and one, and the current time in the column's type; from an index that begins with the column.
pub fn from_index(table: &QualifiedName, by: &Column, time: bool) -> String {
    let column = &by.name;
    let finite =
        if time { format!("{column} > '-infinity' and {column} < 'infinity'") } else { "true".to_owned() };
    let counted = |condition: &str| {
        let most = MOST_COUNTED + 1;
        format!("(select count(*) from (select from only {table} where {condition} limit {most}) counted)")
    };
    let nulls = if by.not_null { "0::bigint".to_owned() } else { counted(&format!("{column} is null")) };
    let infinite = if time {
        counted(&format!("{column} in ('-infinity', 'infinity')"))
    } else {
        "0::bigint".to_owned()
    };
    format!(
        "select (select min({column}) from only {table} where {finite})::text,
  (select max({column}) from only {table} where {finite})::text,
  {nulls}, {infinite}, {}",
        now(by, time)
    )
}

/// The same from the rows of a sample and the values in the statistics (`$1`, as text).
pub fn from_sample(table: &QualifiedName, by: &Column, time: bool, sampled: &str) -> String {
    let (column, sql_type) = (&by.name, &by.base_type);
    let finite = if time { "value > '-infinity' and value < 'infinity'" } else { "true" };
    let infinite = if time { "value in ('-infinity', 'infinity')" } else { "false" };
    format!(
        "with read as (select {column}::{sql_type} as value from only {table} where {sampled}),
  known as (select value from read union all select bound::{sql_type} from pg_catalog.unnest($1::text[]) bound)
select (min(value) filter (where {finite}))::text, (max(value) filter (where {finite}))::text,
  (select count(*) from read where value is null), count(*) filter (where {infinite}), {}
from known",
        now(by, time)
    )
}

fn now(by: &Column, time: bool) -> String {
    if time { format!("pg_catalog.now()::{}::text", by.base_type) } else { "null::text".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixture::petri;
    use insta::assert_snapshot;

    #[test]
    fn values_are_read_without_the_whole_table() {
        let table = petri();
        let column = table.columns.iter().find(|column| column.name.as_str() == "created_at").unwrap();
        assert_snapshot!(from_index(&table.name, &Column { not_null: false, ..column.clone() }, true), @r#"
        select (select min("created_at") from only "public"."petri_observations" where "created_at" > '-infinity' and "created_at" < 'infinity')::text,
          (select max("created_at") from only "public"."petri_observations" where "created_at" > '-infinity' and "created_at" < 'infinity')::text,
          (select count(*) from (select from only "public"."petri_observations" where "created_at" is null limit 10001) counted), (select count(*) from (select from only "public"."petri_observations" where "created_at" in ('-infinity', 'infinity') limit 10001) counted), pg_catalog.now()::timestamp with time zone::text
        "#);
        assert_snapshot!(from_sample(&table.name, column, true, "ctid = any ('{}'::tid[])"), @r#"
        with read as (select "created_at"::timestamp with time zone as value from only "public"."petri_observations" where ctid = any ('{}'::tid[])),
          known as (select value from read union all select bound::timestamp with time zone from pg_catalog.unnest($1::text[]) bound)
        select (min(value) filter (where value > '-infinity' and value < 'infinity'))::text, (max(value) filter (where value > '-infinity' and value < 'infinity'))::text,
          (select count(*) from read where value is null), count(*) filter (where value in ('-infinity', 'infinity')), pg_catalog.now()::timestamp with time zone::text
        from known
        "#);
        let column = table.columns.iter().find(|column| column.name.as_str() == "seq").unwrap();
        assert_snapshot!(from_index(&table.name, &Column { not_null: true, ..column.clone() }, false), @r#"
        select (select min("seq") from only "public"."petri_observations" where true)::text,
          (select max("seq") from only "public"."petri_observations" where true)::text,
          0::bigint, 0::bigint, null::text
        "#);
    }
}
