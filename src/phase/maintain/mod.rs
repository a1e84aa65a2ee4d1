//! Maintain: keeps a partitioned table going, once it is in use. For cron: what is done is found done, and what is in the
//! way is said; every lock that applications could notice is taken by the ladder of short tries.
//!
//! The catalog says what is there, also of a table that a job made: people attach and detach partitions.

mod layout;
mod make;
mod retire;
mod strays;

use tokio_postgres::Client;

use crate::error::{Error, Kind, Result};
use crate::event::{Events, MaintainNote};
use crate::model::ident::QualifiedName;
use crate::model::maintained::Maintained;
use crate::model::partition::{Bound, Range, Scheme, Template, adopted_scheme, missing};
use crate::model::state::State;
use crate::pg::transaction::query_text;
use crate::phase::job::locks::LockRetry;
use crate::phase::partition::PartitionJob;
use crate::plan::{LockBudget, Plan, Retention, partitioning};
use crate::sql::maintain as sql;
use crate::stop::Stop;

use self::layout::Layout;

/// Statistics of the whole table are old after a day, if anything changed: most partitions hold a day or more, and a query
/// for the newest values meets a histogram that ends before them. Sampling the table once a day costs little.
const STATISTICS_OLD_S: f64 = 86_400.0;

/// What the work on one table needs.
struct Upkeep<'a> {
    client: &'a Client,
    events: &'a Events,
    stop: &'a Stop,
    ahead: u32,
    retention: Option<Retention>,
    budget: LockBudget,
    scheme: Scheme,
    template: Template,
    /// The job that made the table.
    job: Option<&'a PartitionJob>,
}

/// Maintains the table that a job made and that is in use.
///
/// # Errors
/// A lock could not be acquired, or what the server said. What was done before is done.
pub async fn maintain(context: &PartitionJob) -> Result<Maintained> {
    let layout = Layout::read(&context.control, context.plan.table()).await?;
    let upkeep = Upkeep {
        client: &context.control,
        events: &context.events,
        stop: &context.stop,
        scheme: partitioning::scheme(&context.partitioning, &layout.kind.to_string())?,
        template: partitioning::template(&context.partitioning)?,
        ahead: context.partitioning.ahead,
        retention: context.partitioning.retention,
        budget: context.plan.lock_budget(),
        job: Some(context),
    };
    let done = upkeep.all(layout).await?;
    Ok(Maintained { job: Some(context.job.name.clone()), ..done })
}

/// Maintains a partitioned table that somebody else made: interval and names are read from its partitions, the rest is as
/// in a plan that says nothing more.
///
/// # Errors
/// Interval or names cannot be read for certain; or as [`maintain`].
pub async fn maintain_adopted(
    client: &Client,
    table: &QualifiedName,
    events: &Events,
    stop: &Stop,
) -> Result<Maintained> {
    let layout = Layout::read(client, table).await?;
    let refuse = |why: String| {
        Error::usage(format!("{} cannot be adopted: {why}", table.plain()))
            .hint("make its partitions so that each is one interval and is named after where it begins")
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
    Upkeep { client, events, stop, ahead, retention, budget, scheme, template, job: None }.all(layout).await
}

impl Upkeep<'_> {
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
        self.analyze(&layout, &mut done).await?;
        done.until = layout.until();
        Ok(done)
    }

    /// The clock, where the column goes by it.
    async fn now(&self, layout: &Layout) -> Result<Option<Bound>> {
        if !layout.is_time() {
            return Ok(None);
        }
        let now: String = self.client.query_one(&sql::now(&layout.kind.to_string()), &[]).await?.get(0);
        self.scheme.value(&now).map(Some).map_err(Error::failed)
    }

    /// The range that the clock is in, or a younger one that holds rows already; of numbers, the youngest that does.
    async fn present(&self, layout: &Layout, now: Option<&Bound>) -> Result<Range> {
        let now = now.map(|now| self.scheme.containing(now)).transpose().map_err(Error::failed)?;
        for part in layout.parts.iter().rev() {
            if now.as_ref().is_some_and(|now| part.range.from <= now.from) {
                break;
            }
            if self.client.query_one(&sql::has_rows(&part.name), &[]).await?.get(0) {
                return Ok(part.range.clone());
            }
        }
        now.or_else(|| layout.parts.first().map(|part| part.range.clone())).ok_or_else(|| {
            Error::failed(format!("{} has no partition with bounds to go on from", layout.table.plain()))
        })
    }

    async fn analyze(&self, layout: &Layout, done: &mut Maintained) -> Result<()> {
        let Some(row) = self.client.query_opt(sql::STATISTICS, &[&layout.oid]).await? else { return Ok(()) };
        let (age_s, changed): (Option<f64>, bool) = (row.get(0), row.get(1));
        if age_s.is_some_and(|age_s| age_s < STATISTICS_OLD_S || !changed) {
            return Ok(());
        }
        let ladder = self.ladder(vec![layout.table.clone()]);
        let analyze = sql::analyze(&layout.table, layout.server_version);
        let attempt = async || Ok(self.client.batch_execute(&analyze).await?);
        ladder.run("analyze the table", || self.go_on(), attempt).await?;
        self.events.note(MaintainNote::TableAnalyzed { table: layout.table.plain() });
        done.analyzed = true;
        Ok(())
    }

    fn ladder(&self, tables: Vec<QualifiedName>) -> LockRetry<'_> {
        // Nobody's work is ended for the sake of a partition: the plan's word on that is about the swap.
        let budget = LockBudget { cancel_blockers_after: None, ..self.budget };
        LockRetry { client: self.client, events: self.events, stop: self.stop, tables, budget }
    }

    fn go_on(&self) -> Result<()> {
        match self.job {
            Some(context) => context.go_on(),
            None if self.stop.is_asked() => {
                Err(Error::new(Kind::Stopped, "stopped as asked").hint("run the same command again to go on"))
            }
            None => Ok(()),
        }
    }

    /// The job, while the old table is kept in sync: what is done must not get lost on the way back.
    fn open_window(&self) -> Option<&PartitionJob> {
        self.job.filter(|context| context.state() == State::Swapped)
    }
}

/// The only value of the only row, as text.
async fn text(client: &Client, statement: &str) -> Result<Option<String>> {
    Ok(query_text(client, statement, &[]).await?.first().and_then(|row| row.get(0)))
}
