//! Every kind of key, partition column and name, through all steps of a job. Each table and its truth copy get the same
//! changes between `run`, `swap`, `rollback`, `swap` and `finalize`, and have the same rows after each step.
//!
//! The tables are small and have few partitions, because these tests check the SQL for a type or a name.

use pgstrata::model::ident::{Ident, MAX_BYTES, QualifiedName};
use pgstrata::model::key_table::local;
use tokio::task::JoinHandle;

use crate::support::cluster::{Database, Version, on_oldest_and_newest};
use crate::support::oracle;

const ROWS: u32 = 1_200;
const TRUTH: &str = "public.truth";
/// Values over a little more than a year, and one row of the first changes far beyond it, in the default partition.
const AT: &str = "timestamptz '2024-01-01 00:00:00+00' + ($i % 400) * interval '25 hours'
                  + case $i when 10015 then interval '9 years' else interval '0' end";
const QUARTERS: &str = "every = \"3 months\"";

/// A column of the key: its name as in the catalog, its type, and its value in row number `$i`.
type KeyColumn = (&'static str, &'static str, &'static str);

on_oldest_and_newest!(keys_that_the_server_generates, keys_of_many_columns);

/// A table, the plan of its job, and the changes during the job.
struct Case {
    /// Also the name of the job.
    name: String,
    table: QualifiedName,
    /// Statements that run before the table is created.
    before: &'static str,
    /// Additional columns, before the others.
    columns: &'static str,
    key: Vec<(Ident, &'static str, &'static str)>,
    /// The constraint that makes the key unique; `None` is a primary key on its columns.
    unique: Option<String>,
    by: Ident,
    by_type: &'static str,
    by_value: &'static str,
    /// The section `[partition]` without `by`.
    partition: &'static str,
    order: &'static str,
    /// Statements that run after the table, `@`, was filled.
    after: String,
    /// Additional changes of `@` in round `$n`.
    more: &'static str,
    /// The clause with which the server generates the key; empty if it does not.
    generated: &'static str,
    /// A query that must count nothing.
    none: Option<&'static str>,
}

fn case(name: &str, key: &[KeyColumn]) -> Case {
    Case {
        name: name.to_owned(),
        table: QualifiedName::new("public", "t"),
        before: "",
        columns: "",
        key: key.iter().map(|(name, kind, value)| (Ident::new(*name), *kind, *value)).collect(),
        unique: None,
        by: Ident::new("at"),
        by_type: "timestamptz",
        by_value: AT,
        partition: QUARTERS,
        order: "auto",
        after: String::new(),
        more: "",
        generated: "",
        none: None,
    }
}

impl Case {
    /// Partitioned by a column of another type.
    fn by(self, by_type: &'static str, by_value: &'static str, partition: &'static str) -> Self {
        Self { by_type, by_value, partition, ..self }
    }

    fn key_list(&self) -> String {
        self.key.iter().map(|(name, ..)| name.to_string()).collect::<Vec<_>>().join(", ")
    }

    /// Expressions for the values of the key in row `i`.
    fn key_values(&self, i: &str) -> Vec<String> {
        self.key.iter().map(|(_, kind, value)| format!("({})::{kind}", value.replace("$i", i))).collect()
    }

    fn by_value(&self, i: &str) -> String {
        format!("({})::{}", self.by_value.replace("$i", i), self.by_type)
    }

    /// A statement that inserts rows with these numbers into `@`.
    fn insert(&self, numbers: &str) -> String {
        let (keys, by) = (self.key_list(), &self.by);
        let (values, at) = (self.key_values("i").join(", "), self.by_value("i"));
        format!(
            "insert into @ ({keys}, {by}, i, v) overriding system value
             select {values}, {at}, i, 'value ' || i from generate_series({numbers}) i;"
        )
    }

    fn setup(&self) -> String {
        let Self { before, columns, by, by_type, after, generated, .. } = self;
        let schema = &self.table.schema;
        let keys: String =
            self.key.iter().map(|(name, kind, _)| format!("{name} {kind} not null {generated}, ")).collect();
        let unique = self.unique.clone().unwrap_or_else(|| format!(", primary key ({})", self.key_list()));
        let fill = self.insert(&format!("1, {ROWS}"));
        format!(
            "create schema if not exists {schema}; {before};
             create table @ ({columns} {keys} {by} {by_type} not null, i int not null, v text {unique});
             {fill} {after}; analyze @;"
        )
    }

    fn plan(&self) -> String {
        let string = |text: &str| toml::Value::from(text).to_string();
        format!(
            "name = {}\ntable = {}\n[partition]\nby = {}\nahead = 0\n{}\n[copy]\norder = \"{}\"\n",
            string(&self.name),
            string(&self.table.to_string()),
            string(&self.by.to_string()),
            self.partition,
            self.order
        )
    }

    /// Statements that insert, update and delete rows, change keys, and move rows to another partition: other rows in
    /// each round `$n`.
    fn changes(&self) -> String {
        let (by, moved) = (&self.by, self.by_value("(i * 3 + $n)"));
        let mut sql = self.insert("10000 + 10 * $n, 10009 + 10 * $n");
        sql.push_str(
            "update @ set v = v || ' in round $n' where i % 7 = $n; delete from @ where i % 11 = $n;",
        );
        sql.push_str(&format!("update @ set {by} = {moved} where i % 5 = $n;"));
        // An UPDATE cannot set a column that is GENERATED ALWAYS.
        if !self.generated.contains("always") {
            let (keys, values) = (self.key_list(), self.key_values("(i + 100000 * $n)").join(", "));
            sql.push_str(&format!("update @ set ({keys}) = row({values}) where i % 13 = $n;"));
        }
        sql + self.more
    }
}

/// A database with the table of a case, and the number of the current round of changes.
struct CaseRun<'a> {
    db: Database,
    case: &'a Case,
    changes: String,
    round: u32,
}

impl CaseRun<'_> {
    async fn pgstrata(&self, args: &[&str]) {
        let ran = self.db.pgstrata(args).await;
        assert_eq!(ran.code, Some(0), "{args:?}: stdout:\n{}\nstderr:\n{}", ran.stdout, ran.stderr);
    }

    /// Makes the same changes to the table and to the truth copy.
    async fn change(&mut self) {
        self.round += 1;
        let changes = self.changes.replace("$n", &self.round.to_string());
        for table in [&self.case.table.to_string(), TRUTH] {
            self.db.execute(&changes.replace('@', table)).await;
        }
        if !self.case.generated.is_empty() {
            self.generate_key().await;
        }
    }

    /// Asserts that a key generated by the server is larger than all previous keys.
    async fn generate_key(&self) {
        let Case { table, .. } = self.case;
        let (key, at) = (self.case.key_list(), self.case.by_value("0"));
        let largest = self.db.count(&format!("select max({key})::bigint from {TRUTH}")).await;
        let insert = format!(
            "with made as (insert into {table} (at, i, v) values ({at}, 0, 'made') returning *),
                  kept as (insert into {TRUTH} select * from made)
             select {key}::bigint from made"
        );
        let key = self.db.count(&insert).await;
        assert!(key > largest, "round {}: generated {key} after {largest}", self.round);
    }

    /// Asserts the kind of the table and the names of its indexes, and that it has the rows of the truth copy.
    async fn holds(&self, kind: char, indexes: &str) {
        let table = &self.case.table.to_string();
        oracle::compare(&self.db, table, TRUTH).await;
        let client = self.db.client().await;
        let found: String = client
            .query_one("select relkind::text from pg_class where oid = $1::text::regclass", &[table])
            .await
            .unwrap()
            .get(0);
        // The index of a key with a key table has another name.
        let restored = |all: String, name| all.replace(local(&Ident::new(name)).as_str(), name);
        let standing = indexes.split(" | ").fold(self.indexes().await, restored);
        assert_eq!((found, standing.as_str()), (kind.to_string(), indexes));
        if let Some(sql) = self.case.none.filter(|_| kind == 'p') {
            assert_eq!(self.db.count(sql).await, 0, "{sql}");
        }
    }

    async fn indexes(&self) -> String {
        let sql = "select string_agg(c.relname, ' | ' order by c.relname collate \"C\")
                   from pg_index x join pg_class c on c.oid = x.indexrelid where x.indrelid = $1::text::regclass";
        self.db.client().await.query_one(sql, &[&self.case.table.to_string()]).await.unwrap().get(0)
    }

    /// Creates the truth copy, with defaults and generated columns only. It generates no keys.
    async fn truth(&self) {
        let table = &self.case.table.to_string();
        let defaults = if self.case.generated.is_empty() { "including defaults" } else { "" };
        let like = format!("create table {TRUTH} (like {table} including generated {defaults})");
        self.db.execute(&like).await;
        let sql = "select string_agg(quote_ident(attname), ', ') from pg_attribute
                   where attrelid = $1::text::regclass and attnum > 0 and not attisdropped and attgenerated = ''";
        let columns: String = self.db.client().await.query_one(sql, &[table]).await.unwrap().get(0);
        self.db.execute(&format!("insert into {TRUTH} ({columns}) select {columns} from {table}")).await;
    }
}

/// Runs the job from `run` to `finalize`, with changes between the steps.
async fn whole_job(db: Database, case: &Case) {
    db.execute(&case.setup().replace('@', &case.table.to_string())).await;
    let plan = db.plan(&case.plan());
    let mut run = CaseRun { db, case, changes: case.changes(), round: 0 };
    run.truth().await;
    let indexes = run.indexes().await;
    run.pgstrata(&["run", plan.to_str().unwrap()]).await;
    run.change().await;
    run.pgstrata(&["swap", &case.name]).await;
    run.change().await;
    run.holds('p', &indexes).await;
    run.pgstrata(&["rollback", &case.name]).await;
    run.change().await;
    run.holds('r', &indexes).await;
    run.pgstrata(&["swap", &case.name]).await;
    run.change().await;
    run.pgstrata(&["finalize", &case.name, "--now"]).await;
    run.holds('p', &indexes).await;
    run.change().await;
    run.holds('p', &indexes).await;
}

/// Runs the cases side by side on the system's version.
async fn run_all(cases: Vec<Case>) {
    run_all_on(Version::System, cases).await;
}

/// Runs the cases side by side; reports the first that fails.
async fn run_all_on(version: Version, cases: Vec<Case>) {
    let mut tasks: Vec<(String, JoinHandle<()>)> = Vec::new();
    for case in cases {
        let name = case.name.clone();
        let task = tokio::spawn(async move { whole_job(Database::of(version).await, &case).await });
        tasks.push((name, task));
    }
    for (name, task) in tasks {
        task.await.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// From now on, the sequence generates values that are larger than all keys in the changes.
const SETVAL: &str = "select setval(pg_get_serial_sequence('@', 'id'), 2000000)";

async fn keys_that_the_server_generates(version: Version) {
    let bigint = |name: &str, generated: &'static str| Case {
        generated,
        after: SETVAL.to_owned(),
        ..case(name, &[("id", "bigint", "$i")])
    };
    run_all_on(
        version,
        vec![
            bigint("always", "generated always as identity"),
            Case { order: "keyset", ..bigint("by_default", "generated by default as identity") },
            Case {
                before: "create sequence s",
                after: format!("alter sequence s owned by @.id; {SETVAL}"),
                order: "physical",
                ..bigint("serial", "default nextval('s')")
            },
        ],
    )
    .await;
}

#[tokio::test]
async fn keys_of_text() {
    let texts = "(array['a', 'B', 'é', 'Z', 'zz '])[1 + $i % 5] || $i";
    let c = [("id", "text collate \"C\"", texts)];
    let mut cases = vec![
        case("c", &c),
        Case { order: "keyset", ..case("c_keyset", &c) },
        Case { order: "keyset", ..case("char", &[("id", "char(5)", "to_hex($i)")]) },
        Case {
            before: "create domain code as text not null check (value ~ '^[aBéZz]')",
            ..case("domain_over_text", &[("id", "code", texts)])
        },
    ];
    if Database::new().await.count("select count(*) from pg_collation where collprovider = 'i'").await > 0 {
        let texts = "(array['ab', 'AB', 'É'])[1 + $i % 3] || $i";
        cases.push(Case {
            before: "create collation alike (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
            // Keys also change to an equal value.
            more: "update @ set id = lower(id) where i % 17 = $n; update @ set id = upper(id) where i % 19 = $n;",
            order: "keyset",
            ..case("nondeterministic", &[("id", "text collate alike", texts)])
        });
    }
    run_all(cases).await;
}

#[tokio::test]
async fn keys_of_other_types() {
    // NaN is the key of row 600 until the second round, and of row 614 from the third round on.
    let numbers =
        "case when $i in (600, 300614) then 'NaN' when $i = 601 then '-1e-20' else ($i - 700) * 1.50 end";
    let numeric = [("id", "numeric", numbers)];
    let seconds = "timestamp '2020-01-01' + ($i - 600) * interval '1.000001 s'";
    run_all(vec![
        Case { order: "physical", ..case("uuid", &[("id", "uuid", "md5($i::text)")]) },
        Case { order: "keyset", ..case("uuid_keyset", &[("id", "uuid", "md5($i::text)")]) },
        Case { order: "keyset", ..case("numeric", &numeric) },
        case("timestamp", &[("id", "timestamp", seconds)]),
        case(
            "double",
            &[("id", "float8", "case $i when 600 then 'NaN' when 614 then '-infinity' else $i / 3.0 end")],
        ),
        case("interval", &[("id", "interval", "$i * interval '-61 min'")]),
        Case { order: "keyset", ..case("inet", &[("id", "inet", "inet '10.0.0.0/8' + $i")]) },
        Case { order: "keyset", ..case("array", &[("id", "int[]", "array[$i, null, 7]")]) },
        Case { order: "keyset", ..case("bytea", &[("id", "bytea", "int4send($i * 1021)")]) },
        Case {
            before: "create domain code as int not null check (value > 0)",
            ..case("domain_over_int", &[("id", "code", "$i")])
        },
    ])
    .await;
}

async fn keys_of_many_columns(version: Version) {
    let mixed = [
        ("region", "text", "(array['north', 'South', 'it''s \"x\", \\N'])[1 + $i % 3]"),
        ("n", "numeric", "$i / 8.0 - 50"),
        ("since", "timestamp", "timestamp '2020-01-01' + $i % 7 * interval '1 h'"),
    ];
    let mood = [("mood", "mood", "(array['sad', 'ok', 'Very ''happy'''])[1 + $i % 3]"), ("n", "int", "$i")];
    run_all_on(
        version,
        vec![
            Case { order: "keyset", ..case("mixed", &mixed) },
            Case { order: "physical", ..case("mixed_physical", &mixed) },
            Case {
                before: "create type mood as enum ('sad', 'ok', 'Very ''happy''')",
                order: "keyset",
                ..case("enum", &mood)
            },
            Case {
                unique: Some(String::new()),
                after: "create unique index t_u on @ (n, region)".to_owned(),
                ..case("unique_index", &mixed[..2])
            },
            Case {
                unique: Some(", primary key (at, id)".to_owned()),
                ..case("with_at", &[("id", "bigint", "$i")])
            },
            // Names that pgstrata's statements use as aliases.
            Case {
                columns: "s int, t int, p1 int default 1, relation int,",
                ..case(
                    "names_of_ours",
                    &[("n", "int", "$i"), ("h", "int", "$i"), ("r", "int", "$i"), ("old", "int", "$i")],
                )
            },
            Case {
                columns: "g text generated always as (v || '-' || i) stored,",
                ..case("generated", &[("id", "int", "$i")])
            },
            Case {
                columns: "gone int, gone_too text default 'x',",
                after: "alter table @ drop gone, drop gone_too; alter table @ add late text default 'late'"
                    .to_owned(),
                ..case("dropped", &[("id", "int", "$i")])
            },
        ],
    )
    .await;
}

/// The number of partitions with rows of more than one day in New York's time zone.
const DAYS_MIXED: &str = "select count(*) from (
    select from t group by tableoid having count(distinct (at at time zone 'America/New_York')::date) > 1) mixed";

#[tokio::test]
async fn partition_columns() {
    let id = [("id", "bigint", "$i")];
    let days = "every = \"1 day\"\ntimezone = \"America/New_York\"";
    let spring = "timestamptz '2026-03-06 12:00:00-05' + ($i % 120) * interval '1 h'";
    let autumn = "timestamptz '2026-10-30 12:00:00-04' + ($i % 120) * interval '1 h'";
    let hours = "timestamp '2024-01-01' + $i % 9000 * interval '1 h'";
    run_all(vec![
        // So many partitions that a statement of the drain does not look up rows in all of them.
        case("date", &id).by("date", "date '2024-01-01' + $i % 400", "every = \"6 days\""),
        case("timestamp_at", &id).by("timestamp", hours, QUARTERS),
        Case { none: Some(DAYS_MIXED), ..case("spring", &id).by("timestamptz", spring, days) },
        Case { none: Some(DAYS_MIXED), ..case("autumn", &id).by("timestamptz", autumn, days) },
        case("smallint", &id).by("smallint", "$i % 300 - 100", "every = 5"),
        case("integer", &id).by("integer", "($i % 3000 - 1500) * 1000000", "every = 50000000"),
        case("bigint", &id).by("bigint", "($i % 3000 - 1500) * 10000000000", "every = 10000000000000"),
    ])
    .await;
}

/// Settings of a database change how values are converted to text and back.
#[tokio::test]
async fn a_database_with_settings() {
    let mut before = String::new();
    for setting in [
        "datestyle = 'German, DMY'",
        "intervalstyle = 'sql_standard'",
        "timezone = 'Asia/Kathmandu'",
        "extra_float_digits = -15",
        "bytea_output = 'escape'",
        "standard_conforming_strings = off",
        "escape_string_warning = off",
        "quote_all_identifiers = on",
    ] {
        before += &format!(
            "do $$ begin execute format($f$alter database %I set {setting}$f$, current_database()); end $$;"
        );
    }
    // Leaked, because a case has `&'static str` statements.
    let before: &'static str = before.leak();
    let instants = "timestamptz '2020-03-04 05:06:07.891011+00' + $i * interval '1 second'";
    let lengths = "$i * interval '-1 month 2 days -03:04:05.678'";
    run_all(vec![
        Case {
            before,
            order: "keyset",
            ..case(
                "times",
                &[
                    ("id", "timestamptz", instants),
                    ("length", "interval", lengths),
                    ("f", "float8", "1.0 / (3 + $i)"),
                ],
            )
        },
        Case {
            before,
            order: "keyset",
            ..case(
                "bytes",
                &[
                    ("id", "bytea", "int4send($i * 1021)"),
                    ("s", "text", "chr(92) || $i || chr(39) || chr(92)"),
                ],
            )
        },
    ])
    .await;
}

/// A name of the maximum length.
fn longest(stem: &str) -> String {
    stem.to_owned() + &"x".repeat(MAX_BYTES - stem.len())
}

fn named(job: String, name: impl Fn(&str) -> String) -> Case {
    let ident = |stem: &str| Ident::new(name(stem));
    let [id, at] = [ident("Id\"i.d ;--🦠"), ident("At\"a.t ;--🦠")];
    let [key, check, index] = [ident("Key\"k ;--🦠"), ident("Check\"c ;--🦠"), ident("Index\"i ;--🦠")];
    Case {
        unique: Some(format!(
            ", constraint {key} primary key ({id}), constraint {check} check ({at} is not null)"
        )),
        after: format!("create index {index} on @ ({at})"),
        key: vec![(id, "bigint", "$i")],
        by: at,
        table: QualifiedName::new(name("Sche\"ma.s ;--🦠"), name("Ta\"ble.t ;--🦠")),
        name: job,
        ..case("", &[])
    }
}

#[tokio::test]
async fn names_of_all_kinds() {
    let short = named("Job\"j.o.b ;--🦠 'x'".to_owned(), str::to_owned);
    let long = named(longest("Job\"j ;--🦠"), longest);
    run_all(vec![short, long]).await;
}
