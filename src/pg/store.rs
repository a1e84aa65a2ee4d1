//! The record of a job in the database: state, blueprint, ledger. Every change of state names the state that it
//! expects.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Json, ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::error::{Error, Kind, Result};
use crate::model::blueprint::Blueprint;
use crate::model::design::Design;
use crate::model::filling::Filling;
use crate::model::history::History;
use crate::model::ident::{QualifiedName, plain};
use crate::model::key::{Key, KeyRange};
use crate::model::own_schema::OwnSchema;
use crate::model::retyping::Retyping;
use crate::model::state::{State, Step};
use crate::plan::Plan;
use crate::sql::{own_schema, pace, store as sql, strip};

use super::transaction::{READ_COMMITTED, transaction};

/// A job.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its number.
    pub id: i64,
    /// Its name; unique among open jobs.
    pub name: String,
    /// `partition`, `backfill` or `retype`.
    pub kind: String,
    /// The source, in readable form.
    pub source: String,
    /// The plan's canonical text.
    pub plan: String,
    /// The part of the plan that must not change.
    pub identity: BTreeMap<String, String>,
    /// What it does.
    pub design: Design,
    /// Its state.
    pub state: State,
    /// The estimated number of rows of the source when the job was planned.
    pub rows_estimated: i64,
    /// The order and the end of the copy; none before it began.
    pub copy: Option<Frozen>,
    /// Rows per second, as last measured.
    pub rows_per_second: Option<f64>,
    /// The remaining seconds, as last estimated.
    pub eta_s: Option<i64>,
    /// The transaction of the last swap or rollback.
    pub swap_xid: Option<String>,
    /// When applications began to use the partitioned table.
    pub swapped_at: Option<DateTime<Utc>>,
    /// Until when the old table is kept.
    pub keep_old_until: Option<DateTime<Utc>>,
    /// When the job was recorded.
    pub started_at: DateTime<Utc>,
    /// When anything last changed.
    pub updated_at: DateTime<Utc>,
    /// Whether the job records the objects that it creates; jobs of earlier versions do not.
    pub records: bool,
}

impl Job {
    /// What a partition job builds.
    ///
    /// # Errors
    /// It is a job of another kind.
    pub fn blueprint(&self) -> Result<&Blueprint> {
        self.design.blueprint().ok_or_else(|| self.of_another_kind())
    }

    /// What a backfill does.
    ///
    /// # Errors
    /// It is a job of another kind.
    pub fn filling(&self) -> Result<&Filling> {
        self.design.filling().ok_or_else(|| self.of_another_kind())
    }

    /// What a retype does.
    ///
    /// # Errors
    /// It is a job of another kind.
    pub fn retyping(&self) -> Result<&Retyping> {
        self.design.retyping().ok_or_else(|| self.of_another_kind())
    }

    /// The error for a command that this kind of job does not have.
    pub fn of_another_kind(&self) -> Error {
        let (fact, hint) = self.design.planned().other_command(&self.name);
        Error::usage(fact).hint(hint)
    }
}

/// The size of a relation in bytes, by one of the statements of [`crate::sql::space`].
///
/// # Errors
/// The server returned an error.
pub async fn size(client: &Client, statement: &str, name: &QualifiedName) -> Result<u64> {
    let bytes: i64 = client.query_one(statement, &[&name.to_string()]).await?.get(0);
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// What the copy fixes when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// Whether it reads by heap blocks instead of along the key.
    pub physical: bool,
    /// The largest key, or the number of blocks.
    pub end: Option<Key>,
    /// The file of the heap: if it changes, the table was rewritten.
    pub filenode: u32,
}

/// How often the installation is retried if another session creates the schema at the same moment.
const INSTALL_TRIES: u32 = 10;

/// Creates schema `pgstrata`, or upgrades it to this version.
///
/// # Errors
/// The schema is newer than this program, or the role may not create it.
pub async fn install(client: &Client) -> Result<()> {
    if installed(client).await? == Some(sql::VERSION) {
        return Ok(());
    }
    let mut tries = 0;
    loop {
        match upgrade(client).await {
            // Another session created the schema, or a table of it, at the same moment.
            Err(e)
                if e.is_any(&[
                    &SqlState::UNIQUE_VIOLATION,
                    &SqlState::DUPLICATE_SCHEMA,
                    &SqlState::DUPLICATE_TABLE,
                ]) && tries < INSTALL_TRIES =>
            {
                tries += 1;
            }
            result => return result.map_err(|e| e.context("failed to set up schema pgstrata")),
        }
    }
}

async fn upgrade(client: &Client) -> Result<()> {
    transaction(client, READ_COMMITTED, async |client| {
        if installed(client).await?.is_some() {
            client.batch_execute(sql::INSTALL_LOCK).await?;
        }
        let from = installed(client).await?.unwrap_or(0);
        for upgrade in sql::UPGRADES.iter().skip(usize::try_from(from).unwrap_or(0)) {
            client.batch_execute(upgrade).await?;
        }
        if from != sql::VERSION {
            client.batch_execute(strip::INSTALLED).await?;
            client.batch_execute(sql::CLOSE).await?;
            client.execute(sql::SET_VERSION, &[&sql::VERSION]).await?;
        }
        Ok(())
    })
    .await
}

/// The installed version; none if the schema does not exist.
///
/// # Errors
/// It is newer than this program.
pub async fn installed(client: &Client) -> Result<Option<i32>> {
    trusted(client).await?;
    if !client.query_one(sql::INSTALLED, &[]).await?.get::<_, bool>(0) {
        return Ok(None);
    }
    let version: i32 = client.query_one(sql::INSTALLED_VERSION, &[]).await?.get(0);
    if version > sql::VERSION {
        return Err(Error::failed(format!(
            "schema pgstrata has version {version}, but this program supports versions only up to {}",
            sql::VERSION
        ))
        .hint("use the newer version of pgstrata that created it"));
    }
    Ok(Some(version))
}

/// Rejects schema `pgstrata` if roles that the session's role does not trust could make our statements run their
/// code.
///
/// # Errors
/// What was found.
pub async fn trusted(client: &Client) -> Result<()> {
    no_acting_superuser(client).await?;
    let row = client.query_opt(own_schema::FACTS, &[]).await?;
    let Some(Json(found)) = row.map(|row| row.get::<_, Json<OwnSchema>>(0)) else { return Ok(()) };
    let objections = found.objections();
    if objections.is_empty() {
        return Ok(());
    }
    let role = plain(found.role.as_str());
    Err(Error::new(Kind::Preflight, format!("schema pgstrata is not safe for role {role} to use"))
        .cause(objections.join("; "))
        .hint(format!(
            "connect as the role that owns the schema, or correct what the cause lists: only {role}, its \
             members and superusers may own the schema and its objects, or write there; see SECURITY.md"
        )))
}

/// Rejects a superuser that acts as another role: the objects in schema `pgstrata` would belong to that role.
///
/// # Errors
/// It is one.
pub async fn no_acting_superuser(client: &Client) -> Result<()> {
    let Some(row) = client.query_opt(own_schema::ACTING_SUPERUSER, &[]).await? else { return Ok(()) };
    let superuser = plain(row.get(0));
    Err(Error::new(Kind::Preflight, format!("superuser {superuser} acts as another role"))
        .cause("members of that role could run code in schema pgstrata that resets the role")
        .hint(format!(
            "connect as a role that is not a superuser, or run `alter role {superuser} reset role` first"
        )))
}

/// All jobs, or those with that name; newest first.
///
/// # Errors
/// A row that this version cannot read.
pub async fn jobs(client: &Client, name: Option<&str>) -> Result<Vec<Job>> {
    if installed(client).await?.is_none() {
        return Ok(Vec::new());
    }
    client.query(sql::JOBS, &[&name]).await?.iter().map(job).collect()
}

/// The open job with that name.
///
/// # Errors
/// There is none; the hint lists the existing ones.
pub async fn open_job(client: &Client, name: &str) -> Result<Job> {
    let all = jobs(client, None).await?;
    if let Some(job) = all.iter().find(|j| j.name == name && !j.state.is_final()) {
        return Ok(job.clone());
    }
    let over = all.iter().find(|j| j.name == name);
    let open: Vec<&str> = all.iter().filter(|j| !j.state.is_final()).map(|j| j.name.as_str()).collect();
    let error = match over {
        Some(job) if job.design.filling().is_some() => {
            return Err(Error::usage(format!("job {name} is a backfill and already {}", job.state))
                .hint("`pgstrata run PLAN` starts a new job that fills rows written since then"));
        }
        Some(job) => {
            Error::new(Kind::Usage, format!("job {name} is already {}: nothing is left to do", job.state))
        }
        None => Error::new(Kind::Usage, format!("this database has no job named {name}")),
    };
    Err(error.hint(if open.is_empty() {
        "this database has no open job; `pgstrata run PLAN` starts a job".to_owned()
    } else {
        format!("open jobs: {}", open.join(", "))
    }))
}

fn job(row: &Row) -> Result<Job> {
    let state: &str = row.get("state");
    let state = State::parse(state).ok_or_else(|| {
        Error::failed(format!("a job has state {state}, which needs a newer version of pgstrata"))
    })?;
    let physical: Option<String> = row.get("copy_order");
    Ok(Job {
        id: row.get("id"),
        name: row.get("name"),
        kind: row.get("kind"),
        source: row.get("source"),
        plan: row.get("plan"),
        identity: row.get::<_, Json<_>>("identity").0,
        design: Design::read(row.get("kind"), row.get("blueprint"))
            .map_err(|e| Error::failed("the stored definition of a job could not be parsed").caused_by(e))?
            .ok_or_else(|| Error::failed("a job has a kind that needs a newer version of pgstrata"))?,
        state,
        rows_estimated: row.get("rows_estimated"),
        copy: physical.map(|order| Frozen {
            physical: order == "physical",
            end: row.get("copy_end"),
            filenode: row.get::<_, Option<u32>>("copy_filenode").unwrap_or(0),
        }),
        rows_per_second: row.get("rows_per_second"),
        eta_s: row.get("eta_s"),
        swap_xid: row.get("swap_xid"),
        swapped_at: row.get("swapped_at"),
        keep_old_until: row.get("keep_old_until"),
        started_at: row.get("started_at"),
        updated_at: row.get("updated_at"),
        records: row.get("records"),
    })
}

/// Records a new job and its row in `leases`; returns its number.
///
/// # Errors
/// Another process recorded a job of that name at the same moment.
pub async fn create(client: &Client, plan: &Plan, design: &Design, rows_estimated: i64) -> Result<i64> {
    let stored = design
        .stored()
        .map_err(|e| Error::failed("failed to store the definition of the job").caused_by(e))?;
    let row = client
        .query_one(
            sql::CREATE_JOB,
            &[
                &plan.name(),
                &design.table().plain(),
                &plan.to_toml(),
                &Json(plan.identity()),
                &stored,
                &rows_estimated,
                &plan.task().kind(),
            ],
        )
        .await
        .map_err(|e| {
            let error = Error::from(e);
            if error.is(&SqlState::UNIQUE_VIOLATION) {
                Error::new(Kind::Busy, format!("another process has just started job {}", plan.name()))
                    .hint("`pgstrata status` shows its progress")
            } else {
                error
            }
        })?;
    Ok(row.get(0))
}

/// Advances a job by `step`, in the caller's transaction if there is one.
///
/// # Errors
/// The step is not allowed in that state, or the job is in another state by now.
pub async fn advance(client: &Client, job: i64, from: State, step: Step) -> Result<State> {
    let to = from.next(step).ok_or_else(|| {
        Error::failed(
            format!(
                "a job in state {from} cannot do step \
            {step:?}"
            )
            .to_lowercase(),
        )
    })?;
    let moved = client.execute(sql::MOVE_JOB, &[&job, &from.as_str(), &to.as_str()]).await?;
    if moved == 0 {
        let message = format!("the job is no longer {from}: another process has advanced it");
        return Err(Error::new(Kind::Busy, message).hint("`pgstrata status` shows its state"));
    }
    Ok(to)
}

/// Adds an event to the history of a job.
///
/// # Errors
/// The server returned an error.
pub async fn event(client: &Client, job: i64, entry: &History) -> Result<()> {
    let detail = serde_json::to_string(entry)
        .map_err(|e| Error::failed("failed to write the job's history").caused_by(e))?;
    client.execute(sql::ADD_EVENT, &[&job, &entry.what(), &detail]).await?;
    Ok(())
}

/// The settings of a job that override its plan.
///
/// # Errors
/// The server returned an error.
pub async fn settings(client: &Client, job: i64) -> Result<BTreeMap<String, String>> {
    Ok(client.query(pace::SETTINGS, &[&job]).await?.iter().map(|r| (r.get(0), r.get(1))).collect())
}

/// The number of workers of a job when it was last driven; none if it never was.
///
/// # Errors
/// The server returned an error.
pub async fn last_workers(client: &Client, job: i64) -> Result<usize> {
    let last = client.query_opt(pace::WORKERS, &[&job]).await?;
    let last: Option<i32> = last.and_then(|row| row.get(0));
    Ok(last.and_then(|n| usize::try_from(n).ok()).unwrap_or(0))
}

/// Stores settings (none: deletes one), and notifies the driver of the job.
///
/// # Errors
/// The server returned an error.
pub async fn set(client: &Client, job: i64, settings: &[(&str, Option<&str>)]) -> Result<()> {
    transaction(client, READ_COMMITTED, async |client| {
        for (key, value) in settings {
            match value {
                Some(value) => client.execute(pace::KEEP_SETTING, &[&job, key, value]).await?,
                None => client.execute(pace::FORGET_SETTING, &[&job, key]).await?,
            };
            let key = (*key).to_owned();
            let entry = match value {
                Some(value) => History::Set { key, value: (*value).to_owned() },
                None => History::Unset { key },
            };
            event(client, job, &entry).await?;
        }
        client.execute(pace::NOTIFY, &[&job]).await?;
        Ok(())
    })
    .await
}

/// Fixes what the copy reads and where it ends; the ledger starts empty.
///
/// # Errors
/// The server returned an error.
pub async fn freeze(client: &Client, job: i64, copy: &Frozen) -> Result<()> {
    let order = if copy.physical { "physical" } else { "keyset" };
    client.execute(sql::FREEZE_COPY, &[&job, &order, &copy.end, &copy.filenode]).await?;
    Ok(())
}

/// The ranges of the finished chunks of the table or of one partition, in the order of their upper ends `end`; see
/// [`sql::chunks_in_order`].
///
/// # Errors
/// The server returned an error.
pub async fn finished(client: &Client, job: i64, leaf: Option<&str>, end: &str) -> Result<Vec<KeyRange>> {
    let rows = client.query(&sql::chunks_in_order(end), &[&job, &leaf]).await?;
    Ok(rows.iter().map(|r| KeyRange { after: r.get(0), through: r.get(1) }).collect())
}

/// A finished chunk.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// The step: `copy`, `fill`.
    pub step: &'static str,
    /// The partition, if each is processed separately.
    pub leaf: Option<&'a str>,
    /// Its range.
    pub range: &'a KeyRange,
    /// Rows that were written.
    pub rows: u64,
    /// Rows that were read, if that is a different number.
    pub seen: Option<u64>,
    /// Milliseconds.
    pub ms: f64,
}

/// Adds a finished chunk, in the chunk's own transaction.
///
/// # Errors
/// The server returned an error.
pub async fn add_chunk(client: &Client, job: i64, epoch: i64, chunk: &Chunk<'_>) -> Result<()> {
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let Chunk { step, leaf, range, rows, seen, ms } = chunk;
    let (rows, seen) = (number(*rows), seen.map(number));
    // With the types given, it takes one round trip; every chunk runs one of these.
    let values: [(&(dyn ToSql + Sync), Type); 9] = [
        (&job, Type::INT8),
        (step, Type::TEXT),
        (&range.after, Type::TEXT_ARRAY),
        (&range.through, Type::TEXT_ARRAY),
        (&rows, Type::INT8),
        (ms, Type::FLOAT8),
        (&epoch, Type::INT8),
        (leaf, Type::TEXT),
        (&seen, Type::INT8),
    ];
    client.query_typed(sql::ADD_CHUNK, &values).await?;
    Ok(())
}

/// How many rows a backfill has filled.
///
/// # Errors
/// The server returned an error.
pub async fn rows_filled(client: &Client, job: i64) -> Result<u64> {
    Ok(u64::try_from(client.query_one(sql::ROWS_FILLED, &[&job]).await?.get::<_, i64>(0)).unwrap_or(0))
}

/// Rows and milliseconds of every finished chunk.
///
/// # Errors
/// The server returned an error.
pub async fn chunk_times(client: &Client, job: i64) -> Result<Vec<(i64, f64)>> {
    Ok(client.query(sql::CHUNK_TIMES, &[&job]).await?.iter().map(|r| (r.get(0), r.get(1))).collect())
}

/// Stores a blueprint with more partitions.
///
/// # Errors
/// The server returned an error.
pub async fn extend(client: &Client, job: i64, blueprint: &Blueprint) -> Result<()> {
    let json = serde_json::to_value(blueprint)
        .map_err(|e| Error::failed("failed to store the definition of the job").caused_by(e))?;
    client.execute(sql::EXTEND_JOB, &[&job, &json]).await?;
    Ok(())
}
