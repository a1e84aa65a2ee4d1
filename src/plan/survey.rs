//! From the facts of a live table to its first plan, of any kind: the advice on the partition column, and at each key the
//! findings of the check that it resolves.

use super::advise::{self, Advice, ColumnProfile, advise};
use super::check::{self, Facts, Found, Relation};
use super::draft::{self, DraftFacts, UpdateDraft, draft, draft_update};
use super::read::column;
use super::{Partitioning, Plan};
use crate::error::{Error, Kind};
use crate::model::blueprint::Blueprint;
use crate::model::finding::{Finding, Level};
use crate::model::ident::{QualifiedName, plain};
use crate::model::partition::{ColumnKind, Every, Scheme};
use crate::model::table::Column;

/// A drafted plan.
#[derive(Debug)]
pub struct Survey {
    /// The kind of the job, as in the plan.
    pub kind: &'static str,
    /// The advice on the partition column; empty for the other kinds.
    pub advice: Advice,
    /// The column by which the plan partitions, as SQL; none if no column can be the partition column.
    pub by: Option<String>,
    /// The partition column that the user asked for, as SQL.
    pub requested: Option<String>,
    /// Whether the plan has every required key.
    pub complete: bool,
    drafted: Drafted,
}

#[derive(Debug)]
enum Drafted {
    Partition(Box<DraftFacts>),
    Update(Box<UpdateDraft>),
}

impl Survey {
    fn of_update(drafted: UpdateDraft, complete: bool) -> Self {
        Self {
            kind: drafted.kind,
            advice: Advice::default(),
            by: None,
            requested: None,
            complete,
            drafted: Drafted::Update(Box::new(drafted)),
        }
    }

    /// The text of the plan.
    pub fn text(&self) -> String {
        match &self.drafted {
            Drafted::Update(drafted) => draft_update(drafted),
            Drafted::Partition(drafted) => {
                let mut drafted = drafted.clone();
                drafted.advice = advise::head(&self.advice, self.requested.as_deref());
                if self.complete { draft(&drafted) } else { draft::without_column(&drafted) }
            }
        }
    }

    /// Errors and warnings of the check, the most severe first.
    pub fn findings(&self) -> &[Finding] {
        match &self.drafted {
            Drafted::Partition(drafted) => &drafted.findings,
            Drafted::Update(drafted) => &drafted.findings,
        }
    }

    /// Adds findings of a check that needs the server.
    pub fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        let own = match &mut self.drafted {
            Drafted::Partition(drafted) => &mut drafted.findings,
            Drafted::Update(drafted) => &mut drafted.findings,
        };
        own.extend(findings.into_iter().filter(|finding| finding.level != Level::Note));
        own.sort_by_key(|finding| finding.level);
    }

    /// The plan, if it has every required key.
    ///
    /// # Errors
    /// The text is not a plan, because of what the user gave for it.
    pub fn plan(&self) -> Result<Option<Plan>, Error> {
        if self.complete { Plan::parse(&self.text(), "the draft").map(Some) } else { Ok(None) }
    }
}

/// The plan of a backfill that adds the columns `add`, each with its type, and sets the columns `set`, each to its
/// expression. Names are as in the catalog.
///
/// # Errors
/// The table does not exist.
pub fn backfill(facts: &Facts, set: &[(String, String)], add: &[(String, String)]) -> Result<Survey, Error> {
    let found = found(facts)?;
    let mut survey =
        Survey::of_update(UpdateDraft::backfill(&found.table, size(found), set, add), !set.is_empty());
    // The check of a complete plan reports it too.
    survey.extend(check::no_key(&found.table).filter(|_| set.is_empty()));
    Ok(survey)
}

/// The plan of a change of the type of `column`, a name as in the catalog, to `to`.
///
/// # Errors
/// The table does not exist.
pub fn retype(facts: &Facts, column: &str, to: &str) -> Result<Survey, Error> {
    let found = found(facts)?;
    Ok(Survey::of_update(UpdateDraft::retype(&found.table, size(found), column, to), true))
}

/// Reads `COLUMN=TEXT`, in which the column is written as in SQL. `option` is the option of the command.
///
/// # Errors
/// It is not of that form.
pub fn pair(written: &str, option: &str) -> Result<(String, String), Error> {
    let parts = written.split_once('=').map(|(name, text)| (name.trim(), text.trim()));
    let Some((name, text)) = parts.filter(|(_, text)| !text.is_empty()) else {
        return Err(Error::usage(format!("{option} {written} does not contain `=` and a value")));
    };
    let name = QualifiedName::parse(&format!("x.{name}"))
        .map_err(|_| Error::usage(format!("{option}: `{name}` is not the name of a column as in SQL")))?;
    Ok((name.name.as_str().to_owned(), text.to_owned()))
}

fn size(found: &Found) -> (u64, u64) {
    (found.size.rows.unsigned_abs(), found.size.bytes.unsigned_abs())
}

/// What the job would build, if the check of the plan reports no error.
pub fn blueprint(facts: &Facts, profiles: &[ColumnProfile], plan: &Plan) -> Option<Blueprint> {
    let partitioning: &Partitioning = plan.partitioning().ok()?;
    let mut facts = facts.clone();
    if let Relation::There(found) = &mut facts.relation {
        found.values = profiles.iter().find(|one| one.name == partitioning.by)?.values.clone();
    }
    check::check(plan, partitioning, &facts).1
}

/// The columns that the survey needs profiles of.
///
/// # Errors
/// The table or column does not exist, or cannot be partitioned or the partition column.
pub fn candidates<'a>(facts: &'a Facts, by: Option<&str>) -> Result<Vec<&'a Column>, Error> {
    let table = &found(facts)?.table;
    check::is_table(table).map_err(refusal)?;
    if let Some(by) = by {
        check::candidate(table, by).map_err(refusal)?;
    }
    Ok(table.columns.iter().filter(|column| ColumnKind::from_sql(&column.base_type).is_some()).collect())
}

/// Returns the plan for partitioning by column `by`, or by the best one.
///
/// # Errors
/// The table or column does not exist, the column cannot be the partition column, or `every` does not match its type.
pub fn survey(
    facts: &Facts,
    by: Option<&str>,
    every: Option<Every>,
    profiles: &[ColumnProfile],
) -> Result<Survey, Error> {
    candidates(facts, by)?;
    let found = found(facts)?;
    let mut advice = advise(facts, profiles, every);
    if let Some(by) = by {
        let (column, kind) = check::candidate(&found.table, by).map_err(refusal)?;
        if let Some(every) = every {
            Scheme::new(kind, every, chrono_tz::Tz::UTC).map_err(Error::usage)?;
        }
        let name = plain(by);
        if !advice.choices.iter().any(|choice| choice.column == name) {
            let profile = profiles.iter().find(|one| one.name == by).cloned().unwrap_or_default();
            advice.unsuitable.retain(|point| point.object != name);
            advice.choices.push(advise::requested(facts, found, column, kind, &profile, every));
        }
    } else if let (Some(every), true) = (every, advice.choices.is_empty()) {
        return Err(Error::usage(format!(
            "no column of {} suits the interval `{every}`",
            found.table.name.plain()
        ))
        .hint("leave out --every, or choose a column with --by"));
    }
    let requested = by.map(plain);
    let chosen = match &requested {
        Some(by) => advice.choices.iter().find(|choice| choice.column == *by),
        None => advice.choices.first(),
    };
    let by = chosen.map(|choice| choice.column.clone());
    let drafted = chosen.map_or_else(|| undecided(found), |choice| choice.drafted.clone());
    let (complete, drafted) = (by.is_some(), Drafted::Partition(Box::new(drafted)));
    Ok(Survey { kind: "partition", advice, by, requested, complete, drafted })
}

/// The column that a name on the command line means: a name as in the catalog or, if no column has that name, as in SQL.
pub fn column_named(written: &str, facts: &Facts) -> String {
    let Ok(found) = found(facts) else { return written.to_owned() };
    let columns: Vec<&str> = found.table.columns.iter().map(|column| column.name.as_str()).collect();
    meant(written, &columns)
}

fn meant(written: &str, columns: &[&str]) -> String {
    let exact = columns.contains(&written).then(|| written.to_owned());
    let in_sql = || column(written).ok().filter(|name| columns.contains(&name.as_str()));
    exact.or_else(in_sql).unwrap_or_else(|| written.to_owned())
}

fn found(facts: &Facts) -> Result<&Found, Error> {
    match &facts.relation {
        Relation::There(found) => Ok(found),
        Relation::Missing { name, tables } => Err(refusal(check::no_such_table(name, tables))),
        Relation::Unread => Err(Error::new(Kind::Preflight, "the server is older than PostgreSQL 14")),
    }
}

fn undecided(found: &Found) -> DraftFacts {
    let (rows, bytes) = size(found);
    DraftFacts::of_table(found.table.name.clone(), rows, bytes)
}

fn refusal(finding: Finding) -> Error {
    let error = Error::usage(finding.message);
    if finding.hint.is_empty() { error } else { error.hint(finding.hint) }
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
        survey(facts, Some(by), every, &[]).unwrap_err().to_string()
    }

    /// The profile of a column with the values of the fixture.
    fn profile(facts: &Facts, name: &str, histogram: &[&str]) -> ColumnProfile {
        let values = found(facts).unwrap().values.clone();
        let histogram = histogram.iter().map(|bound| (*bound).to_owned()).collect();
        ColumnProfile { name: name.to_owned(), values, indexed: true, histogram, ..ColumnProfile::default() }
    }

    #[test]
    fn a_plan_contains_the_findings_of_the_check() {
        let mut facts = facts();
        table(&mut facts).columns[6].not_null = false;
        let bounds = ["2024-01-15 00:00:00+00", "2024-03-31 00:00:00+00", "2024-06-30 12:00:00+00"];
        let profiles = [profile(&facts, "created_at", &bounds)];
        let text = survey(&facts, Some("created_at"), None, &profiles).unwrap().text();
        let head: Vec<&str> = text.lines().take_while(|line| !line.starts_with("[copy]")).collect();
        assert_snapshot!(head.join("\n"), @r#"
        # A plan for pgstrata, drafted from the live table. Review it, then keep it with your migrations.
        #
        # as requested: partition by created_at (timestamp with time zone), every 1 month, about 6
        #   partitions
        #   + it is the time of the row: old partitions can be dropped by age
        #   - gives up: uniqueness of (observation_id) alone
        #   - a lookup by (observation_id) alone reads 6 partitions
        #   - from the start of the job, writes of NULL to created_at fail
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

        name  = "petri_observations"   # the job
        kind  = "partition"
        table = "public.petri_observations"

        [partition]
        # warning[key_widened]: the partition column is added to the key petri_observations_pkey
        #   (observation_id): after the swap, only (observation_id, created_at) is unique, not
        #   (observation_id) alone, and ON CONFLICT (observation_id) fails
        #   hint: look for ON CONFLICT (observation_id) in the applications, and make sure that the
        #     values of (observation_id) come from a sequence or are random uuids
        by       = "created_at"
        # warning[null_rejected]: from the start of the job, every INSERT or UPDATE that leaves NULL in
        #   column created_at of public.petri_observations fails: a CHECK constraint rejects it until
        #   the swap, NOT NULL of the partitioned table after it
        #   hint: make sure that no application writes NULL there: a default applies only to INSERTs
        #     without the column
        not_null = true                # the job keeps NULL out of the column
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
        for (written, name) in [
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
            assert_eq!(meant(written, &columns), name, "{written}");
        }
    }

    #[test]
    fn integers_and_a_requested_interval() {
        let mut facts = facts();
        if let Relation::There(found) = &mut facts.relation {
            let ends = (Some("1".to_owned()), Some("250000000".to_owned()));
            found.values = Some(check::Values { oldest: ends.0, newest: ends.1, ..check::Values::default() });
        }
        let profiles = [profile(&facts, "seq", &[])];
        let of = |every| survey(&facts, Some("seq"), every, &profiles).unwrap().text();
        let (suggested, asked) = (of(None), of(Some(Every::Integers(5_000_000))));
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
        table(&mut facts).relkind = "v".into();
        assert_snapshot!(refused(&facts, "created_at", None), @"
        public.petri_observations is a view, not a table
        hint: name the table that the view reads
        ");
        facts.relation = Relation::Unread;
        assert_snapshot!(refused(&facts, "created_at", None), @"the server is older than PostgreSQL 14");
    }

    #[test]
    fn a_table_without_a_key_has_a_plan_that_reports_it() {
        let mut facts = facts();
        table(&mut facts).indexes.clear();
        let profiles = [profile(&facts, "created_at", &[])];
        let survey = survey(&facts, None, None, &profiles).unwrap();
        assert_eq!(survey.findings().iter().map(|f| f.code).collect::<Vec<_>>(), ["no_usable_key"]);
        let text = survey.text();
        let above = text.lines().take_while(|line| !line.starts_with("by ")).last().unwrap();
        assert!(above.ends_with("add primary key using index petri_observations_key;"), "{text}");
    }

    #[test]
    fn a_table_without_a_candidate_has_a_plan_that_names_what_is_missing() {
        let facts = facts();
        let survey = survey(&facts, None, None, &[]).unwrap();
        assert_eq!((&survey.by, survey.advice.choices.len()), (&None, 0));
        let problems = Plan::parse(&survey.text(), "plan.toml").unwrap_err().to_string();
        assert!(problems.contains("partition.by is missing"), "{problems}");
    }

    #[test]
    fn an_interval_that_suits_no_column_is_rejected() {
        let facts = facts();
        let profiles = [profile(&facts, "created_at", &[])];
        assert!(survey(&facts, None, Some(Every::Integers(5)), &profiles).is_err());
        let months = survey(&facts, None, Some(Every::Months(2)), &profiles).unwrap();
        assert_eq!(months.advice.choices[0].every, "2 months");
    }
}
