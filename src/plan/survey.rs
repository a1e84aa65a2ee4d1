//! From the facts of a live table to its first plan, which contains the findings of the check as warnings.

use super::check::{self, Facts, Found, Relation};
use super::draft::{self, draft};
use super::read::column;
use super::suggest::{histogram_by_month, moment, suggest, suggest_integers};
use super::{Plan, partitioning};
use crate::error::{Error, Kind};
use crate::model::finding::{Finding, Level};
use crate::model::partition::{ColumnKind, Every, Scheme, Template};
use crate::model::table::{Column, Index};

/// Returns the commented plan for partitioning by column `by`. `histogram` contains the histogram bounds of its
/// statistics, as text.
///
/// # Errors
/// The table or column does not exist, the column cannot be the partition column, `every` does not match its type, or
/// the table has no usable key.
pub fn survey(facts: &Facts, by: &str, every: Option<Every>, histogram: &[String]) -> Result<String, Error> {
    let found = match &facts.relation {
        Relation::There(found) => found,
        Relation::Missing { name, tables } => return Err(refusal(check::no_such_table(name, tables))),
        Relation::Unread => {
            return Err(Error::new(Kind::Preflight, "the server is older than PostgreSQL 14"));
        }
    };
    let (column, kind, key) = check::candidates(&found.table, by).map_err(refusal)?;
    if let Some(every) = every {
        Scheme::new(kind, every, chrono_tz::Tz::UTC).map_err(Error::usage)?;
    }
    let mut drafted = describe(found, column, kind, key, every, histogram);
    let plan = Plan::parse(&draft(&drafted), "the draft")?;
    let (findings, _) = check::check(&plan, plan.partitioning()?, facts);
    if let Some(carried) = findings.iter().find(|finding| finding.code == "carried") {
        drafted.carried = carried.message.trim_start_matches("carried over: ").to_owned();
    }
    let warnings = findings.into_iter().filter(|finding| finding.level != Level::Note);
    drafted.warnings = warnings
        .map(|finding| match finding.hint.as_str() {
            "" => finding.message,
            hint => format!("{}; {hint}", finding.message),
        })
        .collect();
    Ok(draft(&drafted))
}

/// The column that a name on the command line means: a name as in the catalog or, if no column has that name, as in SQL.
pub fn column_named(written: &str, columns: &[&str]) -> String {
    let exact = columns.contains(&written).then(|| written.to_owned());
    let in_sql = || column(written).ok().filter(|name| columns.contains(&name.as_str()));
    exact.or_else(in_sql).unwrap_or_else(|| written.to_owned())
}

fn refusal(finding: Finding) -> Error {
    let error = Error::usage(finding.message);
    if finding.hint.is_empty() { error } else { error.hint(finding.hint) }
}

fn describe(
    found: &Found,
    column: &Column,
    kind: ColumnKind,
    key: &Index,
    every: Option<Every>,
    histogram: &[String],
) -> draft::DraftFacts {
    let (rows, bytes) = (found.size.rows.unsigned_abs(), found.size.bytes.unsigned_abs());
    let values = found.values.clone().unwrap_or_default();
    let ends = values.oldest.as_deref().zip(values.newest.as_deref());
    let (suggested, because) = if partitioning::is_time(kind) {
        let span_s =
            ends.and_then(|(oldest, newest)| Some((moment(newest)? - moment(oldest)?).num_seconds()));
        suggest(rows, bytes, span_s.unwrap_or(0) as f64 / 86_400.0)
    } else {
        let span = ends.and_then(|(oldest, newest)| {
            Some(newest.parse::<i64>().ok()?.abs_diff(oldest.parse::<i64>().ok()?))
        });
        suggest_integers(rows, bytes, span.unwrap_or(0))
    };
    let per_month =
        if partitioning::is_time(kind) { histogram_by_month(histogram, rows) } else { Vec::new() };
    let key_kind = if key.constraint == "p" { "primary key" } else { "unique index" };
    let columns = key.columns.iter().flatten().map(|name| name.as_str().to_owned());
    draft::DraftFacts {
        table: found.table.name.clone(),
        by: column.name.as_str().to_owned(),
        by_type: column.base_type.clone(),
        key: columns.collect(),
        key_kind: key_kind.to_owned(),
        rows_estimated: rows,
        bytes,
        oldest: values.oldest,
        newest: values.newest,
        per_month,
        suggested,
        because,
        every,
        zone: chrono_tz::Tz::UTC,
        names: Template::default_for(every.unwrap_or(suggested)).to_owned(),
        carried: String::new(),
        warnings: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::check::tests::facts;
    use super::*;

    fn table(facts: &mut Facts) -> &mut crate::model::table::Table {
        match &mut facts.relation {
            Relation::There(found) => &mut found.table,
            Relation::Unread | Relation::Missing { .. } => panic!("there is a table"),
        }
    }

    fn refused(facts: &Facts, by: &str, every: Option<Every>) -> String {
        survey(facts, by, every, &[]).unwrap_err().to_string()
    }

    #[test]
    fn a_plan_contains_the_findings_of_the_check() {
        let mut facts = facts();
        table(&mut facts).columns[6].not_null = false;
        let bounds = ["2024-01-15 00:00:00+00", "2024-03-31 00:00:00+00", "2024-06-30 12:00:00+00"];
        let text = survey(&facts, "created_at", None, &bounds.map(str::to_owned)).unwrap();
        let head: Vec<&str> = text.lines().take_while(|line| !line.starts_with("[copy]")).collect();
        assert_snapshot!(head.join("\n"), @r#"
        # A plan for pgstrata, drafted from the live table. Review it, then keep it with your migrations.
        #
        # rows    about 1,000,000, 200.00 MiB with indexes
        # column  created_at, timestamp with time zone
        # oldest  2024-01-15 00:00:00+00
        # newest  2024-06-30 12:00:00+00
        # key     primary key (observation_id); becomes (observation_id, created_at), because the key of a partitioned table must contain the partition column
        # carried over: 7 columns, 2 indexes, 1 check constraint, 1 sequence, 1 extended statistics, 1 comment, 1 foreign key, 1 view, 1 rule, 1 function, 1 policy of another table, 1 default of another table, 1 publication, 1 trigger, 1 policy, 3 grants
        #
        # approximate rows, according to the statistics:
        #   2024-01  111,842
        #   2024-02  190,789
        #   2024-03  202,833
        #   2024-04  163,934
        #   2024-05  169,399
        #   2024-06  161,202
        #
        # warning: partition column created_at is nullable (0 rows contain NULL now), but it becomes part of the key; alter table public.petri_observations add constraint created_at_not_null check (created_at is not null) not valid; alter table public.petri_observations validate constraint created_at_not_null; alter table public.petri_observations alter column created_at set not null; alter table public.petri_observations drop constraint created_at_not_null

        name  = "petri_observations"   # the job
        kind  = "partition"
        table = "public.petri_observations"

        [partition]
        by       = "created_at"
        # suggested: a month contains about 181,712 rows, 36.34 MiB
        every    = "1 month"           # about 6 partitions
        timezone = "UTC"               # time zone in which days and months begin
        # from   = "2024-01-15 00:00:00+00"  # lower bound of the first partition; default: the oldest row
        ahead    = 3                   # number of partitions to create beyond the newest row, or the current time
        names    = "{table}_y{yyyy}m{mm}"
        default  = true                # a default partition for rows outside all bounds
        "#);
        Plan::parse(&text, "plan.toml").unwrap();
    }

    #[test]
    fn a_column_is_named_as_in_the_catalog_or_as_in_sql() {
        let columns = ["A t", "at", "Created", "created", "say \"hi\""];
        for (written, meant) in [
            ("A t", "A t"),
            ("\"A t\"", "A t"),
            ("AT", "at"),
            (" at ", "at"),
            ("Created", "Created"),
            ("\"created\"", "created"),
            ("CREATED", "created"),
            ("say \"hi\"", "say \"hi\""),
            ("\"say \"\"hi\"\"\"", "say \"hi\""),
            ("create_at", "create_at"),
            ("a b", "a b"),
        ] {
            assert_eq!(column_named(written, &columns), meant, "{written}");
        }
    }

    #[test]
    fn integers_and_a_requested_interval() {
        let mut facts = facts();
        if let Relation::There(found) = &mut facts.relation {
            let ends = (Some("1".to_owned()), Some("250000000".to_owned()));
            found.values = Some(check::Values { oldest: ends.0, newest: ends.1, ..check::Values::default() });
        }
        let suggested = survey(&facts, "seq", None, &[]).unwrap();
        let asked = survey(&facts, "seq", Some(Every::Integers(5_000_000)), &[]).unwrap();
        let every = |text: &str| Plan::parse(text, "plan.toml").unwrap().partitioning().unwrap().every;
        assert_eq!(
            (every(&suggested), every(&asked)),
            (Every::Integers(2_000_000_000), Every::Integers(5_000_000))
        );
    }

    #[test]
    fn tables_without_a_possible_plan_are_rejected() {
        let mut facts = facts();
        assert_snapshot!(refused(&facts, "create_at", None), @"
        table public.petri_observations has no column create_at
        hint: did you mean created_at?
        ");
        assert_snapshot!(refused(&facts, "note", None), @"
        partition column note has type text, which cannot be divided into ranges of equal length
        hint: choose a column of type timestamptz, timestamp, date, smallint, integer or bigint
        ");
        assert_snapshot!(refused(&facts, "seq", Some(Every::Months(1))), @r#"the interval `1 month` is an interval of time, but the column has type bigint: write a plain number, such as "100000""#);
        table(&mut facts).indexes.clear();
        assert_snapshot!(refused(&facts, "created_at", None), @"
        table public.petri_observations has no primary key and no unique index
        hint: create unique index concurrently petri_observations_key on public.petri_observations (seq); alter table public.petri_observations add primary key using index petri_observations_key
        ");
        table(&mut facts).relkind = "v".into();
        assert_snapshot!(refused(&facts, "created_at", None), @"
        public.petri_observations is a view, not a table
        hint: name the table that the view reads
        ");
        facts.relation = Relation::Unread;
        assert_snapshot!(refused(&facts, "created_at", None), @"the server is older than PostgreSQL 14");
    }
}
