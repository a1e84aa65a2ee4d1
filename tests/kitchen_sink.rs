//! A table with every kind of dependent object and applications with prepared statements, through swap, rollback, swap
//! and finalize: no transaction of an application fails, no row is lost, and the catalog stays the same.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use crate::support::bench::DEADLOCK_TIMEOUT;
use crate::support::cluster::{Version, on_oldest_and_newest};
use crate::support::dependents::{self, differences, fingerprint};
use crate::support::lab::Lab;
use crate::support::oracle;
use crate::support::writers::Writers;

on_oldest_and_newest!(everything_at_once_under_load);

/// Foreign keys that reference the table, also from itself, for versions that can carry them over.
const REFERENCED: &str = "
    set role dep_owner;
    alter table lab.observations add column follows_id bigint, add column follows_at timestamptz,
      add constraint observations_place_key unique (observation_id, created_at),
      add constraint follows foreign key (follows_id, follows_at) references lab.observations (observation_id, created_at);
    create table lab.results (
      result_id bigint generated always as identity primary key, observation_id bigint, created_at timestamptz,
      constraint results_observation foreign key (observation_id, created_at)
        references lab.observations (observation_id, created_at) on delete cascade on update cascade
    );
    grant insert, select on lab.results to dep_app;
    reset role";

/// Additional privileges of the application, and the truth copies.
const TRUTH: &str = "
    grant update on lab.with_names to dep_app;
    grant select on lab.nested, lab.per_month to dep_app;
    grant insert on lab.inbox to dep_app;
    create table lab.truth as select observation_id, submission_id, site_id, code, note, amount, created_at from lab.observations;
    alter table lab.truth add primary key (observation_id, created_at);
    create table lab.truth_results (observation_id bigint, created_at timestamptz,
      foreign key (observation_id, created_at) references lab.truth on delete cascade on update cascade);
    grant all on lab.truth, lab.truth_results to dep_app";

/// Pairs of statements with the same effect on the table and on its truth copy.
const INSERT: [&str; 2] = [
    "insert into lab.observations (submission_id, site_id, code, note, amount, created_at)
       values (7, 3, $1, 'new', 2.5, $2::text::timestamptz)",
    "insert into lab.truth select observation_id, 7, 3, code, 'new', 2.5, $2::text::timestamptz from lab.observations where code = $1",
];
const INSERT_BY_VIEW: [&str; 2] = [
    "insert into lab.with_names (submission_id, site_id, code, created_at) values (8, 4, $1, $2::text::timestamptz)",
    "insert into lab.truth select observation_id, 8, 4, code, 'from the view', 0.5, $2::text::timestamptz
       from lab.observations where code = $1",
];
const INSERT_BY_RULE: [&str; 2] = [
    "insert into lab.inbox values ($1, $2::text::timestamptz)",
    "insert into lab.truth select observation_id, 1, 1, code, 'none', 0.5, $2::text::timestamptz from lab.observations where code = $1",
];
const UPDATE: [&str; 2] = [
    "update lab.observations set note = $2, amount = amount + 1 where code = $1",
    "update lab.truth set note = $2, amount = amount + 1 where code = $1",
];
const UPDATE_BY_VIEW: [&str; 2] = [
    "update lab.with_names set note = 'view ' || $2 where code = $1",
    "update lab.truth set note = 'view ' || $2 where code = $1",
];
/// An update that fires the rule of the table.
const UPDATE_WITH_RULE: [&str; 2] = [
    "update lab.observations set note = case when $2 <> '' then 'by rule' end where code = $1",
    "update lab.truth set note = case when $2 <> '' then 'by rule' end where code = $1",
];
const MOVE: [&str; 2] = [
    "update lab.observations set created_at = $2::text::timestamptz where code = $1",
    "update lab.truth set created_at = $2::text::timestamptz where code = $1",
];
const DELETE: [&str; 2] = [
    "delete from lab.observations where code = $1 and $2 <> ''",
    "delete from lab.truth where code = $1 and $2 <> ''",
];
/// A row of a table that references the table.
const RESULT: [&str; 2] = [
    "insert into lab.results (observation_id, created_at)
       select observation_id, created_at from lab.observations where code = $1 and $2 <> ''",
    "insert into lab.truth_results select observation_id, created_at from lab.truth where code = $1 and $2 <> ''",
];
/// A row that references another row of the table.
const FOLLOW: [&str; 2] = [
    "update lab.observations o set follows_id = f.observation_id, follows_at = f.created_at
       from lab.observations f where f.code = 'code77' and o.code = $1 and $2 <> ''",
    "update lab.truth set note = note where code = $1 and $2 <> ''",
];
/// Reads through a view on a view, through a view with an aggregate, and through a function.
const READS: [&str; 3] = [
    "select count(*) from lab.nested where code = $1",
    "select sum(n)::bigint from lab.per_month where last >= $1 or last < $1",
    "select lab.how_many($1)",
];

/// A session of the application, which prepares all its statements at the start.
struct Application {
    client: Client,
    inserts: Vec<[Statement; 2]>,
    changes: Vec<[Statement; 2]>,
    delete: [Statement; 2],
    reads: Vec<Statement>,
    rng: StdRng,
    name: String,
    rows: Vec<String>,
    fresh: u32,
}

async fn prepared(client: &Client, pair: [&str; 2]) -> [Statement; 2] {
    let types = [tokio_postgres::types::Type::TEXT, tokio_postgres::types::Type::TEXT];
    [
        client.prepare_typed(pair[0], &types).await.unwrap(),
        client.prepare_typed(pair[1], &types).await.unwrap(),
    ]
}

impl Application {
    async fn new(lab: &Lab, seed: u64, referenced: bool) -> Self {
        let client = lab.db.as_role("dep_app").await;
        client.batch_execute("set application_name = 'application'; set timezone = 'UTC'").await.unwrap();
        let mut inserts = Vec::new();
        for pair in [INSERT, INSERT_BY_VIEW, INSERT_BY_RULE] {
            inserts.push(prepared(&client, pair).await);
        }
        let mut changes = Vec::new();
        let keys = if referenced { &[RESULT, FOLLOW][..] } else { &[] };
        for pair in [UPDATE, UPDATE_BY_VIEW, UPDATE_WITH_RULE, MOVE, MOVE].iter().chain(keys) {
            changes.push(prepared(&client, *pair).await);
        }
        let delete = prepared(&client, DELETE).await;
        let mut reads = Vec::new();
        for sql in READS {
            reads.push(client.prepare(sql).await.unwrap());
        }
        let (rng, name) = (StdRng::seed_from_u64(seed), format!("application {seed}"));
        Self { client, inserts, changes, delete, reads, rng, name, rows: Vec::new(), fresh: 0 }
    }

    /// Runs one transaction on its own rows, and reads.
    async fn work(&mut self) -> Result<(), String> {
        // The last partition ends on 2025-08-01; later rows are in the default partition.
        let at =
            format!("2025-{:02}-{:02} 12:00Z", self.rng.random_range(1..10), self.rng.random_range(1..28));
        let row = self.rng.random_range(0..40_usize);
        if row >= self.rows.len() {
            self.fresh += 1;
            let code = format!("{} row {}.", self.name, self.fresh);
            let pair = self.inserts[self.rng.random_range(0..self.inserts.len())].clone();
            self.both(&pair, &code, &at).await?;
            self.rows.push(code);
        } else if self.rng.random_ratio(1, 8) {
            let code = self.rows.swap_remove(row);
            self.both(&self.delete, &code, &at).await?;
        } else {
            let pair = &self.changes[self.rng.random_range(0..self.changes.len())];
            self.both(pair, &self.rows[row], &at).await?;
        }
        let Some(code) = self.rows.last() else { return Ok(()) };
        for (statement, sql) in self.reads.iter().zip(READS) {
            let found =
                self.client.query_one(statement, &[code]).await.map_err(|e| format!("{sql}: {e:?}"))?;
            // A function that is not volatile reads with the snapshot of its caller, which may be older than a swap
            // that it waited for, so only the result of the first query is checked.
            if sql == READS[0] && found.get::<_, i64>(0) != 1 {
                return Err(format!("{sql}: {} rows of {code}", found.get::<_, i64>(0)));
            }
        }
        Ok(())
    }

    /// Runs a pair of statements in one transaction; each must affect one row.
    async fn both(&self, pair: &[Statement; 2], code: &str, value: &str) -> Result<(), String> {
        let parameters: [&(dyn ToSql + Sync); 2] = [&code, &value];
        self.client.batch_execute("begin").await.map_err(|e| format!("begin: {e:?}"))?;
        for (statement, which) in pair.iter().zip(["the table", "the truth"]) {
            match self.client.execute(statement, &parameters).await {
                Ok(1) => {}
                Ok(n) => return Err(format!("{n} rows of {which}: {code}, {value}")),
                Err(e) => return Err(format!("{which}: {code}, {value}: {e:?}")),
            }
        }
        self.client.batch_execute("commit").await.map_err(|e| format!("commit: {e:?}"))
    }
}

/// Starts `n` applications; none of their transactions may fail.
async fn applications(lab: &Lab, n: u64, referenced: bool) -> Writers {
    let mut writers = Writers::default();
    for seed in 0..n {
        let mut application = Application::new(lab, seed, referenced).await;
        writers.add(|shift| async move {
            while shift.is_open() {
                application.work().await.unwrap();
                shift.committed();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }
    writers
}

/// The catalog entries, without the current values of sequences.
async fn catalog(lab: &Lab) -> Vec<String> {
    let lines = fingerprint(lab).await;
    let without_value = |line: String| match line.rsplit_once(", last ") {
        Some((definition, _)) if line.starts_with("sequence ") => definition.to_owned(),
        _ => line,
    };
    lines.into_iter().map(without_value).collect()
}

async fn everything_at_once_under_load(version: Version) {
    let referenced = version != Version::V14;
    let lab = dependents::lab_with(version, if referenced { REFERENCED } else { "" }, "1500ms").await;
    // Row-level security is forced for the owner of the table: the mirror is switched on only if the plan trusts the
    // owner.
    let lab = dependents::trusting(lab, "dep_owner");
    lab.db.execute(DEADLOCK_TIMEOUT).await;
    lab.db.execute(TRUTH).await;
    let plain = catalog(&lab).await;
    let writers = applications(&lab, 6, referenced).await;
    writers.commit_more(50).await;
    lab.ok("run").await;
    let mut partitioned = Vec::new();
    for command in ["swap", "rollback", "swap", "finalize --now"] {
        writers.commit_more(100).await;
        let ran = tokio::join!(lab.ran(command), writers.commit_more(20)).0;
        let output = ran.ok().stderr;
        assert!(!output.contains("unexpected difference"), "{output}");
        writers.commit_more(100).await;
        oracle::compare(&lab.db, "lab.observations", "lab.truth").await;
        if referenced {
            oracle::compare(&lab.db, "lab.results", "lab.truth_results").await;
        }
        let now = catalog(&lab).await;
        if command == "rollback" {
            assert_eq!(differences(&plain, &now), "");
        } else if partitioned.is_empty() {
            partitioned = now;
        } else {
            assert_eq!(differences(&partitioned, &now), "", "{command}");
        }
    }
    writers.stop().await;
    oracle::compare(&lab.db, "lab.observations", "lab.truth").await;
}
