//! Maintenance of a partitioned table that is in use. It is meant for cron: it recognizes completed work and reports
//! obstacles. Every lock that could block applications is requested in short attempts.
//!
//! The existing partitions are read from the catalog, even for a table of a job, because users attach and detach
//! partitions.

mod layout;
mod make;
mod retire;
mod strays;

use tokio_postgres::Client;

use crate::error::{Error, Kind, Result};
use crate::event::{Events, MaintainNote};
use crate::model::ident::{Ident, QualifiedName};
use crate::model::maintained::Maintained;
use crate::model::partition::{Bound, Range, Scheme, Template, adopted_scheme, missing};
use crate::model::state::State;
use crate::model::untrusted_code::Access;
use crate::pg::transaction::{READ_COMMITTED, all, query_text, transaction};
use crate::pg::untrusted_code;
use crate::phase::job::locks::LockRetry;
use crate::phase::partition::PartitionJob;
use crate::plan::{LockBudget, Plan, Retention, partitioning};
use crate::sql::{key_table, maintain as sql};
use crate::stop::Stop;

use self::layout::Layout;

/// Statistics of the whole table are stale after a day, if anything changed: most partitions cover a day or more, and
/// a stale histogram does not include the newest values. Sampling the table once a day costs little.
const STATISTICS_OLD_S: f64 = 86_400.0;

/// The context of the work on one table.
struct Maintenance<'a> {
    client: &'a Client,
    events: &'a Events,
    stop: &'a Stop,
    ahead: u32,
    retention: Option<Retention>,
    budget: LockBudget,
    scheme: Scheme,
    template: Template,
    /// The roles that the job's plan trusts.
    trust: &'a [String],
    /// The job that created the table.
    job: Option<&'a PartitionJob>,
}

/// Maintains the table in use of a job.
///
/// # Errors
/// A lock could not be acquired, or the server returned an error. Work that was completed before remains.
pub async fn maintain(context: &PartitionJob) -> Result<Maintained> {
    let layout = Layout::read(&context.control, context.plan.table()).await?;
    let upkeep = Maintenance {
        client: &context.control,
        events: &context.events,
        stop: &context.stop,
        scheme: partitioning::scheme(&context.partitioning, &layout.kind.to_string())?,
        template: partitioning::template(&context.partitioning)?,
        ahead: context.partitioning.ahead,
        retention: context.partitioning.retention,
        budget: context.plan.lock_budget(),
        trust: context.plan.trust(),
        job: Some(context),
    };
    let done = upkeep.all(layout).await?;
    Ok(Maintained { job: Some(context.job.name.clone()), ..done })
}

/// Maintains a partitioned table that pgstrata did not create. The interval and the names are derived from its
/// partitions; all other settings are the defaults of a plan.
///
/// # Errors
/// The interval or the names cannot be derived with certainty; or as [`maintain`].
pub async fn maintain_adopted(
    client: &Client,
    table: &QualifiedName,
    events: &Events,
    stop: &Stop,
) -> Result<Maintained> {
    let layout = Layout::read(client, table).await?;
    let refuse = |why: String| {
        Error::usage(format!("{} cannot be maintained: {why}", table.plain())).hint(
            "make sure that each partition covers one interval and that its name contains the start \
                of the interval",
        )
    };
    let zone: String = client.query_one(sql::ZONE, &[]).await?.get(0);
    let zones: Vec<chrono_tz::Tz> = std::iter::once(chrono_tz::Tz::UTC).chain(zone.parse()).collect();
    let scheme = adopted_scheme(layout.kind, &layout.ranges(), &zones).map_err(refuse)?;
    let named: Vec<(Range, &str)> =
        layout.parts.iter().map(|part| (part.range.clone(), part.name.name.as_str())).collect();
    let template = Template::of(table.name.as_str(), &scheme, &named).map_err(refuse)?;
    let plan = Plan::adopted(table, &layout.by, &scheme)?;
    let own = plan.partitioning()?;
    let (ahead, retention, budget) = (own.ahead, own.retention, plan.lock_budget());
    let trust = plan.trust();
    Maintenance { client, events, stop, ahead, retention, budget, scheme, template, trust, job: None }
        .all(layout)
        .await
}

impl Maintenance<'_> {
    async fn all(&self, mut layout: Layout) -> Result<Maintained> {
        let mut done = Maintained { table: layout.table.plain(), ..Maintained::default() };
        let now = self.now(&layout).await?;
        let present = self.present(&layout, now.as_ref()).await?;
        let strays = self.strays(&layout, &mut done).await?;
        let wanted = missing(&self.scheme, &layout.ranges(), &present, self.ahead).map_err(Error::failed)?;
        if !wanted.is_empty() {
            self.make_all(&layout, &wanted, &strays, &mut done).await?;
            layout = Layout::read(self.client, &layout.table).await?;
        }
        self.retire(&layout, &present, now, &mut done).await?;
        self.watch(&layout).await?;
        self.analyze(&layout, &mut done).await?;
        done.until = layout.until();
        Ok(done)
    }

    /// The key tables of the relation with that oid.
    async fn key_tables(&self, table: u32) -> Result<Vec<sql::PartitionKeys>> {
        let rows = self.client.query(sql::KEY_TABLES, &[&table, &self.trust]).await?;
        let keys = |row: &tokio_postgres::Row| sql::PartitionKeys {
            trigger: Ident::new(row.get::<_, &str>(0)),
            table: QualifiedName::new(row.get::<_, &str>(1), row.get::<_, &str>(2)),
        };
        Ok(rows.iter().map(keys).collect())
    }

    /// Creates the TRUNCATE triggers of key tables on partitions that lack them: those created or attached by hand.
    async fn watch(&self, layout: &Layout) -> Result<()> {
        for keys in self.key_tables(layout.oid).await? {
            let trigger = keys.trigger.as_str();
            for row in self.client.query(key_table::NOT_WATCHED, &[&layout.oid, &trigger]).await? {
                let name = QualifiedName::new(row.get::<_, &str>(0), row.get::<_, &str>(1));
                let lock_retry = self.lock_retry(vec![name.clone()]);
                let attempt = async || {
                    transaction(self.client, READ_COMMITTED, async |client| {
                        lock_retry.begin(client, &sql::first_lock(&name)).await?;
                        all(client, &keys.watch(&name)).await
                    })
                    .await
                };
                let what = format!("create trigger {trigger} of {}", name.plain());
                lock_retry.run(&what, || self.check_stop(), attempt).await?;
                let partition = name.plain();
                self.events.note(MaintainNote::TriggerCreated { trigger: trigger.to_owned(), partition });
            }
        }
        Ok(())
    }

    /// The current time, if the partition column has a time or date type.
    async fn now(&self, layout: &Layout) -> Result<Option<Bound>> {
        if !layout.is_time() {
            return Ok(None);
        }
        let now: String = self.client.query_one(&sql::now(&layout.kind.to_string()), &[]).await?.get(0);
        self.scheme.value(&now).map(Some).map_err(Error::failed)
    }

    /// The range that contains the current time, or a later one that already has rows; for numbers, the last range
    /// that has rows.
    async fn present(&self, layout: &Layout, now: Option<&Bound>) -> Result<Range> {
        let now = now.map(|now| self.scheme.containing(now)).transpose().map_err(Error::failed)?;
        for part in layout.parts.iter().rev() {
            if now.as_ref().is_some_and(|now| part.range.from <= now.from) {
                break;
            }
            if self.has_rows(&part.name).await? {
                return Ok(part.range.clone());
            }
        }
        now.or_else(|| layout.parts.first().map(|part| part.range.clone())).ok_or_else(|| {
            Error::failed(format!("{} has no partition with bounds to continue from", layout.table.plain()))
        })
    }

    async fn has_rows(&self, table: &QualifiedName) -> Result<bool> {
        let statement = sql::has_rows(table);
        let read = async |client: &Client| Ok(client.query_one(&statement, &[]).await?.get(0));
        self.reading(table, read).await
    }

    /// Reads a table of the tree in a transaction that runs no code of roles that are not trusted.
    async fn reading<T>(
        &self,
        table: &QualifiedName,
        work: impl AsyncFnOnce(&Client) -> Result<T>,
    ) -> Result<T> {
        transaction(self.client, READ_COMMITTED, async |client| {
            untrusted_code::check(client, std::slice::from_ref(table), self.trust, Access::Reads).await?;
            work(client).await
        })
        .await
    }

    async fn analyze(&self, layout: &Layout, done: &mut Maintained) -> Result<()> {
        let Some(row) = self.client.query_opt(sql::STATISTICS, &[&layout.oid]).await? else { return Ok(()) };
        let (age_s, changed): (Option<f64>, bool) = (row.get(0), row.get(1));
        if age_s.is_some_and(|age_s| age_s < STATISTICS_OLD_S || !changed) {
            return Ok(());
        }
        let lock_retry = self.lock_retry(vec![layout.table.clone()]);
        let analyze = sql::analyze(&layout.table, layout.server_version);
        let attempt = async || Ok(self.client.batch_execute(&analyze).await?);
        lock_retry.run(&format!("analyze {}", layout.table.plain()), || self.check_stop(), attempt).await?;
        self.events.note(MaintainNote::TableAnalyzed { table: layout.table.plain() });
        done.analyzed = true;
        Ok(())
    }

    fn lock_retry(&self, tables: Vec<QualifiedName>) -> LockRetry<'_> {
        // Maintenance never cancels blockers: the setting in the plan applies only to the swap.
        let budget = LockBudget { cancel_blockers_after: None, ..self.budget };
        LockRetry { client: self.client, events: self.events, stop: self.stop, tables, budget }
    }

    fn check_stop(&self) -> Result<()> {
        match self.job {
            Some(context) => context.check_stop(),
            None if self.stop.is_requested() => Err(Error::new(Kind::Stopped, "stopped as requested")
                .hint("run the same command again to continue")),
            None => Ok(()),
        }
    }

    /// The job, if the old table is still kept in sync: a rollback must not lose the new partitions.
    fn open_window(&self) -> Option<&PartitionJob> {
        self.job.filter(|context| context.state() == State::Swapped)
    }
}

/// Runs a statement that returns one row with one text value.
async fn text(client: &Client, statement: &str) -> Result<Option<String>> {
    Ok(query_text(client, statement, &[]).await?.first().and_then(|row| row.get(0)))
}
